"""Which networks a seed has: kinds of students, how many of each, who teaches whom, what checkpoints are called."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from divkd.shared.kinds import LINKS
from divkd.theory.config import MultiViewConfig

FRESH, JOINT = 1_000_000, 2_000_000  # numbers of networks beyond the ensemble: their randomness depends on them


class Kind(NamedTuple):
    """A kind of student; what it learns by is the method of `students.Seed` of its name."""

    cost: float  # of a network of a member's width, where a member's is 1, as measured in `default`
    start: int = FRESH  # the number of its first network; 0: it goes on from members
    least: int = 1  # members that it needs
    swept: bool = False  # whether maps and ablations train it
    link: int = 0  # of the chain S_1, S_2, ...


# What a seed's ensemble can teach, and the controls.
KINDS = {
    "distilled": Kind(1.2, swept=True),
    "distilled_temperature": Kind(3.3),
    "distilled_mixed": Kind(1.2),
    "distilled_without_others": Kind(0.6),
    "self_distilled": Kind(0.7, 0, least=2, swept=True),
    "trained_jointly": Kind(0.5, JOINT, least=2),
    "labels_only": Kind(0.1, 0, swept=True),
    # S_1 starts as the other fresh students do; each further link has a start, and with it a lottery, of its own
    **{f"chain_{n}": Kind(1.1, FRESH if n == 1 else JOINT + FRESH * (n - 1), link=n) for n in range(1, LINKS + 1)},
}
CONTINUED = tuple(name for name, kind in KINDS.items() if not kind.start)
CHAIN = tuple(name for name, kind in KINDS.items() if kind.link)


def checkpoint(config: MultiViewConfig, seed: int, kind: str, row: int) -> str:
    """The name of a member's or a student's checkpoint: it says what the network depends on, so that a run can grow."""
    if kind == "trained_jointly":
        return f"seed{seed}-{kind}-{('sum', 'average')[row]}-of{config.joint}"
    if kind in CHAIN:
        return f"seed{seed}-{kind}-{row}"
    suffix = {"member": "", "labels_only": "", "self_distilled": f"-of{config.members}"}
    return f"seed{seed}-{kind}{row}{suffix.get(kind, f'-from{config.members}')}"


def self_teachers(config: MultiViewConfig) -> np.ndarray:
    """The member that each is distilled towards: half the ensemble away, so that pairs are disjoint."""
    return (np.arange(config.members) + config.members // 2) % config.members


def pairs(config: MultiViewConfig) -> list[list[int]]:
    """Members and their teachers, by which members are dealt out: a pair that is in memory can be self-distilled."""
    half, odd = divmod(config.members, 2)
    return [[row, row + half] for row in range(half)] + [[config.members - 1]] * odd


def rows_of(config: MultiViewConfig, kind: str) -> range:
    """The networks of a kind that a seed trains; none where too few members can teach them."""
    if not config.students or config.members < KINDS[kind].least or KINDS[kind].link > config.chain:
        return range(0)
    if kind == "trained_jointly":
        return range(2)
    from_one = kind in CONTINUED + CHAIN  # each from a member of its own
    return range(min(config.students, config.members) if from_one else config.students)


def continued(config: MultiViewConfig, kind: str, members: Sequence[int]) -> list[int]:
    """The networks of a kind that can go on from `members`, by no other than which they are taught."""
    if kind not in CONTINUED:
        return []
    teachers = self_teachers(config)
    taught = [row for row in members if kind == "labels_only" or teachers[row] in members]
    return [row for row in taught if row in rows_of(config, kind)]


def networks(config: MultiViewConfig, kinds: Sequence[str] = tuple(KINDS)) -> int:
    """How many networks a seed trains, members and those of `kinds`."""
    return config.members + sum(len(rows_of(config, kind)) for kind in kinds)
