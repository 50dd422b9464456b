"""Descent in stretches of compiled code is descent step by step."""

import numpy as np
import pytest

from divkd.shared.errors import RunError
from divkd.theory import descent, distillation
from divkd.theory.data import training_samples
from divkd.theory.engines import limit


@pytest.mark.parametrize("flow_time", [np.inf, 3e3])
def test_steps_in_stretches_of_compiled_code_are_those_taken_one_by_one_bit_for_bit(tiny, monkeypatch, flow_time):
    samples = training_samples(tiny, 0)
    teachers = 3 * np.random.default_rng(0).random((3, len(samples), tiny.classes), np.float32)
    loss = distillation.clipped(teachers, samples.labels, tiny.clip, tiny.soft_temperature)
    ends = []
    for stretch in (7, 1):
        networks = limit.create(tiny, samples, 0, range(3))
        if stretch == 1:
            monkeypatch.setattr(limit.LimitNetworks, "run", descent.Stepwise.run)
        steps = list(descent.descend(networks, loss, max_steps=5000, flow_time=flow_time, stretch=stretch))
        trace = [np.concatenate(parts) for parts in zip(*(step.trace for step in steps), strict=True)]
        assert len(trace[0]) == steps[-1].number + 1
        assert {row for step in steps for row in step.finished} == {0, 1, 2}
        moved = np.diff(trace[0], axis=0, prepend=-1.0) > 0  # a member that waits has settled, sooner or later
        ends.append((*(part[moved] for part in trace), networks.weights, networks.noise, networks.outputs().copy()))
    for one, many in zip(*ends, strict=True):
        assert np.array_equal(one, many)


def test_descent_ends_after_the_most_steps_that_it_is_given_wherever_a_stretch_would(tiny):
    samples = training_samples(tiny, 0)
    networks, loss = limit.create(tiny, samples, 0, range(2)), descent.cross_entropy(samples.labels)
    steps = list(descent.descend(networks, loss, max_steps=5000, most_steps=10, stretch=7))
    assert [step.number for step in steps] == [0, 7, 10]
    assert not any(step.finished for step in steps)
    with pytest.raises(RunError, match="after max_steps 5 steps"):
        list(descent.descend(limit.create(tiny, samples, 0, range(2)), loss, max_steps=5, stretch=7))
