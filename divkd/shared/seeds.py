"""Randomness as a function of (seed, role, member, epoch), so that nothing random is ever saved."""

import hashlib

import numpy as np


def rng(seed: int, role: str, member: int = 0, epoch: int = 0) -> np.random.Generator:
    """A generator that depends on its four arguments and on nothing else.

    The same bits come out whatever the number of members, the device, or what was drawn before, so a resumed run
    and a run with more members draw what the first one drew. `role` names the use: "init", "order", "crop", ...

    The arguments are hashed as text (BLAKE2b, 128 bits), which keeps streams apart even for adjacent seeds.
    """
    key = hashlib.blake2b(f"{seed}/{role}/{member}/{epoch}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(key, "little"))
