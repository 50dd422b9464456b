"""Networks of torchvision: their weights, from the start or from a file, and one trained by the command line."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from divkd.cli.main import run
from divkd.empirical.networks.backbones import start_from
from divkd.empirical.networks.build import build
from divkd.shared.errors import InputError
from divkd.shared.files import read_json

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def fresh(name="torchvision:mobilenet_v3_small", classes=3, seed=0):
    return build(name, classes, MEAN, STD, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def published():
    """Weights as they are published, of 1,000 classes."""
    torch.manual_seed(0)
    return get_model("mobilenet_v3_small", weights=None).eval()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_all_but_the_classifier_is_that_of_the_file(published, tmp_path, ending):
    file = tmp_path / f"weights.{ending}"
    (save_file if ending == "safetensors" else torch.save)(published.state_dict(), file)
    net, other = fresh().eval(), fresh()
    start_from(net, file)
    x = torch.rand(2, 3, 32, 32)
    normal = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        features = published.classifier[:-1](published.avgpool(published.features(normal)).flatten(1))
        assert torch.allclose(net(x), net.net.classifier[-1](features), atol=1e-5)
    assert torch.equal(net.net.classifier[-1].weight, other.net.classifier[-1].weight)  # of its own initial draw


def test_weights_of_as_many_classes_bring_their_classifier(tmp_path):
    torch.manual_seed(1)
    theirs = get_model("mobilenet_v3_small", weights=None, num_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "mine.pth")
    net = fresh()
    start_from(net, tmp_path / "mine.pth")
    assert all(torch.equal(value, net.net.state_dict()[name]) for name, value in theirs.state_dict().items())


def test_what_does_not_fit_is_one_line(published, tmp_path):
    def refused(content, match):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(InputError, match=match):
            start_from(fresh(), tmp_path / "x.pth")

    state = published.state_dict()
    refused(
        {name: value for name, value in state.items() if "features.0.0" not in name}, "no such weight for features.0.0"
    )
    refused({**state, "features.0.0.weight": torch.zeros(3)}, r"the shape \(3,\) for features.0.0.weight")
    refused([1, 2], "holds a list; give a state dict")
    refused(published, "cannot be read")  # a whole network would be unpickled
    (tmp_path / "half.pth").write_bytes(b"half")
    for file in ("half.pth", "none.pth"):
        with pytest.raises(InputError, match=f"{file} cannot be read"):
            start_from(fresh(), tmp_path / file)
    with pytest.raises(InputError, match="give --network torchvision:resnet18"):
        start_from(fresh("resnet8"), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"unknown network of torchvision 'resnet19'.*did you mean 'resnet18'"):
        fresh("torchvision:resnet19")
    with pytest.raises(InputError, match="give RGB ones"):
        build("torchvision:resnet18", 3, (0.5,), (0.5,), np.random.default_rng(0))


def test_teachers_and_students_start_from_the_file(published, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(published.state_dict(), "weights.pth")
    draw, labels = np.random.default_rng(0), np.arange(30) % 3
    images = draw.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    np.savez("mine.npz", x_train=images[:20], y_train=labels[:20], x_test=images[20:], y_test=labels[20:])
    line = "train mine.npz --preset smoke --network torchvision:mobilenet_v3_small --weights weights.pth --epochs 1"
    line += (
        " --members 2 --ladder 0 --method kd --student batch_ensemble --batch-size 6 --lr 1e-6 --device cpu --out run"
    )
    assert run(line.split()) == 0, capsys.readouterr().err
    assert read_json(tmp_path / "run/config.json")["config"]["weights"] == "weights.pth"
    assert len(read_json(tmp_path / "run/results.json")["rows"]) == 4
    assert run([*line.replace("weights.pth", "gone.pth").replace("--out run", "--out other").split()]) == 2
    assert "gone.pth cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert run([*line.split(), "--resume"]) == 0
    torch.save({name: value + 1 for name, value in published.state_dict().items()}, "weights.pth")
    assert run([*line.split(), "--resume"]) == 2
    assert "the weights of --weights are not those that run was started with" in capsys.readouterr().err
    torch.save(published.state_dict(), "weights.pth")
    assert run([*line.split(), "--resume"]) == 0  # restored, the same bytes
