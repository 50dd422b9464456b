"""Whatever is handed to a public function in place of whichever argument: it works, or one line says what is wrong."""

import inspect
import math

import numpy as np
import pytest
import torch
from handed_over import X, Y, plain
from torch import nn

import divkd
from divkd import DeepEnsemble, InputError, RunError, to_batch_ensemble


class Hostile:
    """Breaks in every way that an argument may be asked for something."""

    def __iter__(self):
        raise KeyError("hostile")

    def __len__(self):
        raise OSError("hostile")


class Silent(nn.Module):
    def forward(self, *_):
        return None


OBJECTS = {
    "None": lambda: None,
    "True": lambda: True,
    "-1": lambda: -1,
    "huge": lambda: 10**400,
    "nan": lambda: math.nan,
    "text": lambda: "text",
    "bytes": lambda: b"bytes",
    "empty list": list,
    "dict": lambda: {"a": 1},
    "list of None": lambda: [None, None],
    "object": object,
    "hostile": Hostile,
    "function": lambda: lambda *args: 1 / 0,
    "class": lambda: nn.Linear,
    "scalar": lambda: torch.tensor(1.0),
    "empty tensor": lambda: torch.zeros(0, 3),
    "tensor of nan": lambda: torch.full((8, 3, 8, 8), math.nan),
    "complex": lambda: torch.ones(8, 5, dtype=torch.complex64),
    "sparse": lambda: torch.eye(8).to_sparse(),
    "meta": lambda: torch.ones(8, 3, 8, 8, device="meta"),
    "objects": lambda: np.array([None, "a"]),
    "silent network": Silent,
    "lazy network": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)),
    "ensemble": lambda: DeepEnsemble([plain(), plain(1)]),
    "network": plain,
    "optimiser": lambda: torch.optim.SGD(plain().parameters(), 0.1),
    "generator": lambda: (i for i in range(3)),
    "pair": lambda: (X, Y),
    "pairs": lambda: [(X, Y)],
    "pairs of texts": lambda: [("a", "b")],
}
GOOD = {
    "to_batch_ensemble": lambda tmp: {"net": plain(), "members": 2, "seed": 0, "init": "near", "example": X},
    "member": lambda tmp: {"model": to_batch_ensemble(plain(), 2), "m": 0},
    "merge": lambda tmp: {"model": to_batch_ensemble(plain(), 2)},
    "DeepEnsemble": lambda tmp: {"nets": [plain()], "ndim": 4},
    "predict": lambda tmp: {"model": plain(), "inputs": X, "temperature": 1.0, "low": 0.0, "high": 1.0},
    "evaluate": lambda tmp: {"logits": torch.randn(8, 5), "labels": Y, "validation": (torch.randn(8, 5), Y)},
    "export": lambda tmp: {"model": plain(), "path": tmp / "net.pt2", "shape": (3, 8, 8)},
    "load_model": lambda tmp: {
        "run": tmp,
        "model": None,
        "method": None,
        "seed": None,
        "device": "cpu",
        "members": None,
    },
    "distill": lambda tmp: {
        "teachers": [plain(1)],
        "student": plain(),
        "batches": [(X, Y)],
        "method": "confods",
        **dict.fromkeys(("prepare", "step_size", "perturb_at", "scheduler", "lr", "weight_decay", "validation")),
        **dict.fromkeys(("gradient_clip_val", "each_epoch", "checkpoint")),
        **dict.fromkeys(("compile", "progress"), False),
        **dict.fromkeys(("epochs", "high"), 1),
        **dict.fromkeys(("low", "seed"), 0),
        **dict.fromkeys(("kd_weight", "momentum", "rank_one_lr"), 0.5),
        "temperature": 4.0,
        "optimiser": "adamw",
        "precision": "float32",
    },
}


LEGAL = {("epochs", "huge"), ("members", "huge"), ("compile", "True")}  # and would take long
LEGAL |= {
    ("each_epoch", kind) for kind in ("function", "class", "network", "lazy network", "silent network")
}  # its own


def test_every_public_function_and_argument_is_in_the_table(tmp_path):
    functions = {name for name in divkd.__all__ if name not in ("InputError", "RunError", "BatchEnsemble")}
    assert set(GOOD) == functions
    for name, arguments in GOOD.items():
        assert set(arguments(tmp_path)) == set(inspect.signature(getattr(divkd, name)).parameters), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GOOD)
def test_no_object_makes_a_traceback(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told, broken = 0, []
    for argument in GOOD[name](tmp_path):
        for kind, make in OBJECTS.items():
            if (argument, kind) in LEGAL:
                continue
            try:
                getattr(divkd, name)(**{**GOOD[name](tmp_path), argument: make()})
            except (InputError, RunError) as error:
                told += 1
                if "\n" in str(error) or not str(error):
                    broken.append(f"{argument}={kind}: {str(error)!r}")
            except Exception as error:
                broken.append(f"{argument}={kind}: {type(error).__name__}: {str(error)[:120]}")
    assert not broken, "\n" + "\n".join(broken)
    assert told >= 20
