"""The simulated networks under the shared metrics: what is said of them, and on which samples."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from divkd.theory import evaluate
from divkd.theory.data import TESTS, VALIDATION

SETS = ("train", *TESTS, *(VALIDATION + of for of in TESTS))


@pytest.fixture
def answers():
    generator = np.random.default_rng(0)
    labels = {of: generator.integers(4, size=80) for of in SETS}
    outputs = {
        name: {
            of: (3 * np.eye(4)[labels[of]] + 2 * generator.standard_normal((5, 80, 4))).astype(np.float32)
            for of in SETS
        }
        for name in ("single", "distilled", "self_distilled")
    }
    return outputs, labels


def row(found, claim, pooled, of):
    (one,) = [r for r in found["rows"] if (r["claim"], r["pooled"], r["samples"]) == (claim, pooled, of)]
    return one


def test_rows_are_what_an_independent_sum_says(answers):
    outputs, labels = answers
    found, y, n = evaluate.judged(outputs, labels), labels["single_view"], np.arange(80)
    logits = outputs["single"]["single_view"].astype(np.float64)
    log_p = log_softmax(logits, -1)
    mean, summed = logsumexp(log_p, 0) - np.log(5), log_softmax(logits.sum(0), -1)
    alone = row(found, "single", evaluate.ALONE, "single_view")
    assert (alone["members"], alone["nll"]) == (1, pytest.approx(-log_p[:, n, y].mean()))
    assert alone["acc"] == pytest.approx((logits.argmax(-1) == y).mean())
    for pooled, one in ((evaluate.PROBABILITIES, mean), (evaluate.OUTPUTS, summed)):
        together = row(found, "ensemble", pooled, "single_view")
        assert (together["members"], together["nll"]) == (5, pytest.approx(-one[n, y].mean()))
        assert together["acc"] == pytest.approx((one.argmax(-1) == y).mean())
    kl = [(np.exp(a) * (a - b)).sum(-1).mean() for i, a in enumerate(log_p) for j, b in enumerate(log_p) if i != j]
    assert row(found, "ensemble", evaluate.PROBABILITIES, "single_view")["pairwise_kl"] == pytest.approx(np.mean(kl))
    assert {r["claim"] for r in found["rows"]} == {
        "single", "ensemble", "distilled", "ensemble_of_distilled", "self_distilled"
    }  # fmt: skip
    assert [step["members"] for step in found["curve"]] == [1, 2, 3, 4, 5]
    assert found["curve"][0]["mean"] == pytest.approx(alone["cal_nll"])
    ladder = [r for r in found["rows"] if r["samples"] == "single_view" and "dee" not in r]
    assert [r["claim"] for r in ladder] == ["single", "ensemble"]


def test_the_temperature_is_that_of_the_validation_samples_and_training_samples_have_none(answers):
    outputs, labels = answers
    before = evaluate.judged(outputs, labels)
    turned = {of: one if of.startswith(VALIDATION) else one[::-1].copy() for of, one in labels.items()}
    after = evaluate.judged(outputs, turned)
    for one, other in zip(before["rows"], after["rows"], strict=True):
        assert one["acc"] > other["acc"]
        if one["samples"] == "train":
            assert not {"temperature", "cal_nll", "dee"} & one.keys()
        else:
            assert one["temperature"] == other["temperature"]


def test_seeds_are_summarised_row_by_row(answers):
    outputs, labels = answers
    one = evaluate.judged(outputs, labels)
    found = evaluate.over_seeds({3: one, 4: one})
    assert len(found["summary"]) == len(one["rows"])
    for line, first in zip(found["summary"], one["rows"], strict=True):
        assert line["claim"] == first["claim"]
        assert line["nll"] == {"mean": first["nll"], "std": 0.0, "n": 2}
    assert [ladder["seed"] for ladder in found["ladders"]] == [3, 4]
    assert found["ladders"][0]["dee"].keys() == {"distilled", "self_distilled"}


def test_what_is_drawn_once_serves_both_worlds(answers):
    """Diversity of members by samples, as the practice's analysis has it of images."""
    outputs, labels = answers
    found = evaluate.judged(outputs, labels)["diversity"]
    assert found.keys() == {"single", "distilled"}
    for of in ("train", *TESTS):
        whole = found["single"][of]
        assert len(whole["bins"]) == 15
        weighed = sum(part["share"] * part["pairwise_kl"] for part in whole["bins"] if part["n"])
        assert weighed == pytest.approx(whole["pairwise_kl"])


def test_nothing_but_the_measuring_job_imports_torch():
    code = (
        "import dataclasses, sys, tempfile; from pathlib import Path;"
        "from divkd.shared.progress import Progress; from divkd.shared.run import Run;"
        "from divkd.theory import experiment; from divkd.theory.config import PRESETS;"
        "c = dataclasses.replace(PRESETS['quick'], classes=3, patches=12, train_samples=60, test_samples=40, members=2,"
        " expected_others=1.0, neurons=2);"
        "r = Run(Path(tempfile.mkdtemp())); r.checkpoints.mkdir(); p = Progress(quiet=True);"
        "*jobs, last = experiment.seed_jobs(c, 0); [job.work(r, p) for job in jobs];"
        "assert 'torch' not in sys.modules; last.work(r, p); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
