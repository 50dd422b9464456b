"""The face of the package: what `import divkd` offers, when it is imported, and what evaluate and export take."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

import divkd
from divkd import DeepEnsemble, InputError, evaluate, export, predict, to_batch_ensemble
from divkd.shared.metrics import evaluation


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, 3))


def test_every_name_is_there_and_no_other():
    assert set(divkd.__all__) <= set(dir(divkd))
    for name in divkd.__all__:
        value = getattr(divkd, name)
        assert value.__doc__
        assert value.__name__ == name
    assert callable(divkd.export)
    assert callable(divkd.distill)
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        divkd.distil  # noqa: B018


def test_importing_the_package_and_its_errors_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'numba', 'matplotlib', 'scipy', 'sklearn'}"
    code = f"import sys, divkd; divkd.InputError; dir(divkd); assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def drawn(seed, *shape):
    generator = np.random.default_rng(seed)
    return 2 * generator.standard_normal((*shape, 5)), generator.integers(0, 5, shape[-1])


def test_evaluate_is_the_literal_formulas_of_the_members_mean():
    logits, labels = drawn(0, 3, 40)
    row = evaluate(logits, labels)
    p = softmax(logits, -1).mean(0)
    assert list(row) == ["acc", "nll", "brier", "ece", "pairwise_kl"]
    assert row["acc"] == pytest.approx((p.argmax(-1) == labels).mean())
    assert row["nll"] == pytest.approx(-np.log(p[np.arange(40), labels]).mean())
    assert row["brier"] == pytest.approx(((p - np.eye(5)[labels]) ** 2).sum(-1).mean())
    log_probs = log_softmax(logits, -1)
    for same in (log_probs, logits + 100, torch.from_numpy(logits)):
        assert evaluate(same, labels) == pytest.approx(row, abs=1e-12)
    assert evaluate(logits[0], labels) == evaluate(logits[:1], labels)
    assert evaluate(logits[0], labels)["pairwise_kl"] == 0


def test_with_validation_it_is_a_runs_row():
    (logits, labels), (val_logits, val_labels) = drawn(0, 3, 40), drawn(1, 3, 30)
    row = evaluate(logits, labels, (val_logits, val_labels))
    tensors = [torch.from_numpy(a) for a in (log_softmax(val_logits, -1), val_labels, log_softmax(logits, -1), labels)]
    assert row == pytest.approx(evaluation.evaluate(*tensors), abs=1e-9)
    assert set(row) > set(evaluate(logits, labels))
    assert evaluate(torch.from_numpy(logits).half(), labels)["nll"] == pytest.approx(row["nll"], rel=1e-3)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (np.ones((2, 3, 4), int), [0, 1, 2], "floats are needed"),
        (np.full((2, 3, 4), np.nan), [0, 1, 2], r"logits\[0, 0, 0\] is nan"),
        (np.full((2, 3, 4), 0.25), [0, 1, 2], "holds probabilities"),
        (np.zeros((2, 2, 3, 4)), [0, 1, 2], r"\(members, samples, classes\) is required"),
        (np.zeros((2, 3, 4)), [0, 1], r"\(3,\) is required"),
        (np.zeros((2, 3, 4)), [0, 1, 4], r"labels\[2\] is 4"),
    ],
)
def test_what_cannot_be_evaluated_is_named(logits, labels, words):
    with pytest.raises(InputError, match=words):
        evaluate(logits, np.array(labels))


@pytest.mark.parametrize("kind", ["plain", "deep", "batch"])
def test_any_network_is_exported_and_comes_back_as_it_was(tmp_path, kind):
    net = {"plain": network, "deep": lambda: DeepEnsemble([network(0), network(1)]),
           "batch": lambda: to_batch_ensemble(network(), 2)}[kind]()  # fmt: skip
    net.train()
    assert export(net, tmp_path / "net.pt2", (1, 4, 4)) <= 1e-5
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    known = {"divkd.json": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=known).module()
    assert json.loads(known["divkd.json"]) == {"shape": [1, 4, 4]}
    images = torch.rand(5, 1, 4, 4)
    assert np.allclose(predict(program, images).probabilities, predict(net, images).probabilities, atol=1e-6)


def test_an_exported_program_leaves_its_images_as_they_are(tmp_path):
    class Writing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x.sub_(0.5).div_(0.5))

    net, images = Writing(), torch.rand(5, 1, 4, 4)
    before = images.clone()
    assert export(net, tmp_path / "net.pt2", (1, 4, 4)) <= 1e-5
    program = torch.export.load(tmp_path / "net.pt2")
    assert torch.allclose(program.module()(images), net(before.clone()), atol=1e-6)
    assert torch.equal(images, before)
    assert not program.graph_signature.user_inputs_to_mutate


def test_a_program_goes_nowhere_but_where_it_can(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "net.pt2", tmp_path, tmp_path / ("x" * 300), "", 3):
        with pytest.raises(InputError, match="no name of a file that can be written; give one such as"):
            export(network(), path, (1, 4, 4))
    assert export(network(), tmp_path / "new" / "net.pt2", (1, 4, 4)) <= 1e-5


def test_a_network_without_a_shape_or_of_another_is_not_exported(tmp_path):
    for shape, words in ((None, r"give shape=\(channels, height, width\)"), ((3, 4, 4), "the network fails on images")):
        with pytest.raises(InputError, match=words):
            export(network(), tmp_path / "net.pt2", shape)
    assert not list(tmp_path.iterdir())
