import dataclasses

import pytest

from divkd.theory.config import PRESETS, MultiViewConfig


@pytest.fixture
def tiny() -> MultiViewConfig:
    """A world that trains in a fraction of a second."""
    return dataclasses.replace(
        PRESETS["quick"], preset="tiny", classes=4, patches=12, train_samples=120, test_samples=200, members=3,
        expected_others=1.5, neurons=4, students=2, joint=2, soft_steps=100,
    )  # fmt: skip
