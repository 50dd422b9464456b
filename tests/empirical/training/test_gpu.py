"""What must hold on a CUDA device: the same function as on the CPU, the same draws, a run from start to end."""

import dataclasses

import numpy as np
import pytest
import torch

from divkd.empirical.data.datasets import load
from divkd.empirical.data.splits import Augmentation, batches
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.training.config import PRESETS
from divkd.empirical.training.experiment import run_training
from divkd.empirical.training.perturb import perturb
from divkd.shared.jobs import Workers
from divkd.shared.progress import Progress
from divkd.shared.run import open_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
CUDA = torch.device("cuda")


def resnet(seed=0):
    return build("resnet8", 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), np.random.default_rng(seed))


def test_ensembles_compute_the_cpus_function():
    x = torch.rand(8, 3, 32, 32)
    for model in (DeepEnsemble([resnet(seed) for seed in range(3)]), to_batch_ensemble(resnet(), 3, seed=0)):
        model.eval()
        expected = model(x).detach()
        torch.testing.assert_close(model.to(CUDA)(x.to(CUDA)).cpu(), expected, rtol=1e-2, atol=1e-2)


def test_perturbations_draw_the_cpus_bits_and_keep_the_direction():
    teachers, x = DeepEnsemble([resnet(seed) for seed in range(2)]).eval(), torch.rand(8, 3, 32, 32)
    for kind in ("gaussian", "ods", "confods"):
        here = perturb(kind, x, teachers.cpu(), 4.0, 1 / 255, np.random.default_rng(0)) - x
        there = perturb(kind, x.to(CUDA), teachers.to(CUDA), 4.0, 1 / 255, np.random.default_rng(0)).cpu() - x
        assert torch.cosine_similarity(here.flatten(1), there.flatten(1)).min() > 0.999


def test_batches_are_the_cpus_bytes():
    data = load("digits", None, False, 100)
    key = (Augmentation(1, True), 64, 0, "teacher", 0, 1)
    for (x, y), (u, v) in zip(batches(data.train, *key), batches(data.to(CUDA).train, *key), strict=True):
        assert torch.equal(x, u.cpu())
        assert torch.equal(y, v.cpu())


def test_the_smoke_preset_runs_and_resumes(tmp_path):
    config = dataclasses.replace(PRESETS["smoke"], device="cuda")
    for resume in (False, True):
        run = open_run(tmp_path / "run", "train cifar", dataclasses.asdict(config), resume=resume)
        results = run_training(config, load("digits", None, False, None), run, Workers(Progress(quiet=True)))
    assert min(row["acc"] for row in results["rows"] if row["model"] != "merged") > 0.85
