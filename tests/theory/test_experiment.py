import dataclasses
import json

import pytest

from divkd.shared.errors import InputError, RunError
from divkd.shared.files import plain
from divkd.shared.progress import Progress
from divkd.shared.report import multiview
from divkd.shared.run import open_run
from divkd.theory import experiment
from divkd.theory.config import PRESETS


def simulate(config, path, **flags):
    run = open_run(path, "simulate multiview", dataclasses.asdict(config), extendable=("seeds", "members"), **flags)
    results = experiment.simulate(config, run, Progress(quiet=True))
    return run, json.loads(json.dumps(plain(results), allow_nan=False))


def without_seconds(results):
    return {key: value for key, value in results.items() if key != "seconds"}


def test_results_have_the_documented_form_and_make_figures(tiny, tmp_path):
    config = dataclasses.replace(tiny, seeds=(0, 1))
    run, results = simulate(config, tmp_path / "run")
    for claim in ("single", "ensemble"):
        for error in ("train_error", "multi_view_error", "single_view_error"):
            assert results["claims"][claim][error].keys() == {"mean", "std", "n"}
            assert results["claims"][claim][error]["n"] == 2
    by_members = results["claims"]["ensemble"]["by_members"]
    assert [row["members"] for row in by_members] == [1, 2, 3]
    assert all({"single_view_error", "predicted"} <= row.keys() for row in by_members)
    assert results["claims"]["single"]["train_error"]["mean"] == 0
    assert {"one_view_fraction", "lottery_accuracy"} <= results["views"].keys()
    assert sorted(path.stem for path in run.checkpoints.iterdir()) == [
        f"seed{seed}-member{member}" for seed in (0, 1) for member in range(3)
    ]
    for path in multiview.draw(results, run.figures):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_killed_run_goes_on_to_the_same_bits(tiny, tmp_path):
    run, whole = simulate(tiny, tmp_path / "run")
    (run.checkpoints / "seed0-member1.safetensors").unlink()  # a kill left two of three members
    logged = len((run.path / "log.jsonl").read_text().splitlines())
    _, resumed = simulate(tiny, tmp_path / "run", resume=True)
    assert without_seconds(resumed) == without_seconds(whole)
    fresh = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()[logged:]]
    assert [line["member"] for line in fresh if line["event"] == "fitted"] == [1]


def test_members_can_be_added(tiny, tmp_path):
    simulate(dataclasses.replace(tiny, members=2), tmp_path / "run")
    _, added = simulate(tiny, tmp_path / "run", resume=True)
    _, whole = simulate(tiny, tmp_path / "whole")
    assert without_seconds(added) == without_seconds(whole)


def test_the_dense_engine_runs_the_whole_experiment(tiny, tmp_path):
    config = dataclasses.replace(
        tiny, engine="dense", dimension=500, members=2, train_samples=60, test_samples=60, noise=0.2, init_scale=0.01
    )
    _, results = simulate(config, tmp_path / "run")
    assert results["claims"]["single"]["train_error"]["mean"] == 0
    assert results["claims"]["single"]["multi_view_error"]["mean"] < 0.1


def test_an_unfinished_descent_is_a_run_error_that_keeps_what_is_finished(tiny, tmp_path):
    with pytest.raises(RunError, match="max_steps 5"):
        simulate(dataclasses.replace(tiny, max_steps=5), tmp_path / "run")


def test_divergence_names_its_step(tiny):
    from divkd.theory import descent, limit
    from divkd.theory.data import training_samples

    samples = training_samples(tiny, 0)
    networks = limit.create(tiny, samples, 0, [0, 1])
    networks.weights[1] = 3e38  # its outputs overflow
    with pytest.raises(RunError, match="step 1 in network 1"):
        list(descent.descend(networks, descent.cross_entropy(samples.labels), max_steps=10))


def test_memory_is_estimated_before_it_is_taken(tiny):
    with pytest.raises(InputError, match=r"needs .* GB .*lower members"):
        experiment.check(dataclasses.replace(tiny, members=10**9))


def test_a_gpu_that_is_not_there_is_refused(tiny):
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(InputError, match="cuda"):
        experiment.check(dataclasses.replace(tiny, engine="dense", device="cuda"))


@pytest.mark.slow
def test_the_default_regime_shows_theorems_1_and_2(tmp_path):
    """The numbers of the facts: single 0.496 (2 seeds there), ensemble about 2^-K first and its coverage tail later."""
    config = PRESETS["default"]
    _, results = simulate(config, tmp_path / "run")
    claims = results["claims"]
    assert claims["single"]["train_error"]["mean"] == claims["ensemble"]["train_error"]["mean"] == 0
    assert claims["single"]["multi_view_error"]["mean"] < 1e-3
    assert claims["single"]["single_view_error"]["mean"] == pytest.approx(claims["single"]["predicted"], abs=0.015)
    assert 0.48 <= claims["single"]["single_view_error"]["mean"] <= 0.51
    for row in claims["ensemble"]["by_members"]:
        assert row["single_view_error"] == pytest.approx(row["predicted"], abs=0.06)
    assert claims["ensemble"]["single_view_error"]["mean"] < 0.08
    assert results["views"]["lottery_accuracy"] > 0.8
