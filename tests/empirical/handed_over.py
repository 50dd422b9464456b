"""Small images and networks, and an error's one line, for tests of what users hand over."""

import pytest
import torch
from torch import nn

from divkd import InputError

X, Y = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 5


def plain(seed=0, classes=5):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, classes))


def normed():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.Linear(6, 5))


def refusal(call, kind=InputError):
    with pytest.raises(kind) as error:
        call()
    words = str(error.value)
    assert "\n" not in words
    return words


GOOD = [(X, Y)]
