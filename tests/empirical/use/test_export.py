"""An exported program is the network: any batch size, the same logits, or nothing is written."""

import io
import json

import numpy as np
import pytest
import torch

from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble, to_batch_ensemble
from divkd.empirical.networks.layers import BatchEnsembleLayer
from divkd.empirical.use import export as module
from divkd.empirical.use.export import export
from divkd.empirical.use.predict import predict
from divkd.empirical.use.restore import Restored
from divkd.shared.errors import RunError


def restored(kind, network="resnet8"):
    net = build(network, 4, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), np.random.default_rng(0))
    net = to_batch_ensemble(net, 3) if kind == "batch_ensemble" else DeepEnsemble([net])
    return Restored(
        net.eval().requires_grad_(False), kind, "kd", 3, 0, ("a", "b", "c", "d"), (3, 8, 8), None, 1.5
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "network"), [("batch_ensemble", "resnet8"), ("batch_ensemble", "wrn10x1"), ("deep_ensemble", "resnet8")]
)
def test_the_program_is_the_network_for_any_batch(tmp_path, kind, network):
    found = restored(kind, network)
    assert export(found, tmp_path / "net.pt2") <= 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]
    facts = {"divkd.json": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=facts).module()
    for size in (1, 3, 10):
        images = torch.rand(size, 3, 8, 8)
        assert torch.allclose(program(images), found.net(images), atol=1e-5)
    images = torch.rand(5, 3, 8, 8)
    assert np.allclose(predict(program, images).entropy, predict(found.net, images).entropy, atol=1e-6)
    known = json.loads(facts["divkd.json"])
    assert known["class_names"] == ["a", "b", "c", "d"]
    assert (known["model"], known["temperature"], known["shape"]) == (kind, 1.5, [3, 8, 8])
    assert {type(layer) for layer in found.net.modules() if "r" in dict(layer.named_parameters(recurse=False))} <= {
        BatchEnsembleLayer
    }


def test_a_program_that_differs_is_not_written(tmp_path, monkeypatch):
    found, other = restored("batch_ensemble"), restored("batch_ensemble")
    with torch.no_grad():
        other.net.net.classifier.bias += 2e-5
    content = module.to_bytes(other.net, other.shape, "{}")
    monkeypatch.setattr(module, "to_bytes", lambda *_: content)
    with pytest.raises(RunError, match=r"differ from the network's by 2e-05.*nothing was written"):
        export(found, tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []
    assert module.compare(found.net, torch.export.load(io.BytesIO(content)).module(), found.shape) > 1e-5
