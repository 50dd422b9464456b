"""Every mend in an error of what users hand over, followed to the letter, mends."""

import copy
import math

import numpy as np
import pytest
import torch
from handed_over import GOOD, X, Y, normed, plain, refusal
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import Normalize

from divkd import distill, evaluate, export, member, predict, to_batch_ensemble


@pytest.mark.parametrize(
    ("images", "mend", "follow"),
    [
        (X * 1.04 - 0.02, "images.clamp(0, 1)", lambda x: x.clamp(0, 1)),
        (X * 255, "images / 255", lambda x: x / 255),
        (X * 4095, "images / 4095", lambda x: x / 4095),
        (X * 65535, "images / 65535", lambda x: x / 65535),
        (X * 16, "images / 16", lambda x: x / 16),
        ((X * 255).byte(), "images / 255", lambda x: x / 255),
        ((X * 1022).long() + 1, "images / 1023", lambda x: x / 1023),
        (X > 0.5, "images.float()", lambda x: x.float()),
        (X.to(torch.complex64), "images.real", lambda x: x.real),
        (X[0], "images[None] for one image", lambda x: x[None]),
        (X[:, 0], "images[:, None] for grey", lambda x: x[:, None].expand(-1, 3, -1, -1)),
        ((X - 0.5) / 0.25, "images * std + mean", lambda x: x * 0.25 + 0.5),
        (
            torch.cat([X, X[:1] * math.nan]),
            "images[images.isfinite().flatten(1).all(1)]",
            lambda x: x[x.isfinite().flatten(1).all(1)],
        ),
        (X.permute(0, 2, 3, 1), "images.permute(0, 3, 1, 2)", lambda x: x.permute(0, 3, 1, 2)),
    ],
)
def test_images(images, mend, follow):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    if images.ndim == 4 and mend in ("images * std + mean",):
        net = nn.Sequential(Normalize((0.5,) * 3, (0.25,) * 3), net)  # the other half of the advice
    assert mend in refusal(lambda: predict(net, images))
    assert predict(net, follow(images)).probabilities.shape[1] == 5
    assert mend in refusal(lambda: distill([plain(1)], net, [(images, Y[: len(images)].new_zeros(len(images)))], 1))


class Strings:
    shape = dtype = None


@pytest.mark.parametrize("images", [None, "scan.png", ["a", "b"], Strings(), np.array(["a"]), np.array([None])])
def test_what_is_no_array_is_told(images):
    assert "give numbers in a tensor or a NumPy array" in refusal(lambda: predict(plain(), images))
    assert "give numbers" in refusal(lambda: evaluate(images, [0]))


def test_arrays_that_torch_cannot_share_are_copied():
    array = X.numpy().copy()
    truth = predict(plain(), array).probabilities
    array.flags.writeable = False
    for same in (array, array[::-1][::-1], array.astype(">f4"), np.asfortranarray(array)):
        assert np.allclose(predict(plain(), same).probabilities, truth)


class Detached(nn.Sequential):
    def forward(self, x):
        return super().forward(x).detach()


class Root(nn.Sequential):
    """A root of 0: a finite answer, no gradient."""

    def forward(self, x):
        return super().forward(x) * 0 + (super().forward(x) * 0).sqrt()


class InTrain(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.net, self.change = plain(), change

    def forward(self, x):
        return self.change(self.net(x)) if self.training else self.net(x)


def sgd(*parameters, lr=0.1):
    return torch.optim.SGD([p for group in parameters for p in group], lr)


def case(words, wrong, right):
    """`wrong` and `right` make (student, options, batches)."""
    return pytest.param(words, wrong, right, id=words[:40])


def own(net, *more, **options):
    return net, {"optimiser": sgd(net.parameters(), *more, **options)}, GOOD


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        case("has no", lambda: (nn.Flatten(), {}, GOOD), lambda: (plain(), {}, GOOD)),
        case(
            "thaw what should learn: student.requires_grad_()",
            lambda: (plain().requires_grad_(False), {}, GOOD),
            lambda: (plain().requires_grad_(False).requires_grad_(), {}, GOOD),
        ),
        case(
            "not the student's; make it of student.parameters()",
            lambda: (plain(), {"optimiser": sgd(plain().parameters())}, GOOD),
            lambda: own(plain()),
        ),
        case(
            "holds no parameter that learns; make it of all student.parameters()",
            lambda: (net := plain(), {"optimiser": sgd([net[1].bias.requires_grad_(False)])}, GOOD),
            lambda: own(plain()),
        ),
        case("learning rate is 0", lambda: own(plain(), lr=0.0), lambda: own(plain(), lr=1e-3)),
        case(
            "wants a closure in each step; give one that steps without, e.g. SGD",
            lambda: (net := plain(), {"optimiser": torch.optim.LBFGS(net.parameters())}, GOOD),
            lambda: own(plain()),
        ),
        case(
            "the optimiser is a float; give 'adamw', 'sgd', or one of torch.optim",
            lambda: (plain(), {"optimiser": 0.1}, GOOD),
            lambda: own(plain()),
        ),
        case(
            "compute them without no_grad and detach",
            lambda: (Detached(*plain()), {}, GOOD),
            lambda: (nn.Sequential(*plain()), {}, GOOD),
        ),
        case(
            "the gradient of nets.0.1.weight is not finite",
            lambda: (Root(*plain()), {}, GOOD),
            lambda: (nn.Sequential(*plain()), {}, GOOD),
        ),
        case(
            "puts out a tuple in train mode; wrap it in a module that returns the tensor of logits alone",
            lambda: (InTrain(lambda z: (z, z)), {}, GOOD),
            lambda: (InTrain(lambda z: z), {}, GOOD),
        ),
        case(
            "in train mode and (1, 8, 5) in eval mode",
            lambda: (InTrain(lambda z: z[:, :4]), {}, GOOD),
            lambda: (InTrain(lambda z: z), {}, GOOD),
        ),
        case("makes torch.int64", lambda: (InTrain(lambda z: z.long()), {}, GOOD), lambda: (plain(), {}, GOOD)),
        case(
            "the student in train mode's logits[0, 0, 0] is nan",
            lambda: (InTrain(lambda z: z * math.nan), {}, GOOD),
            lambda: (plain(), {}, GOOD),
        ),
        case(
            "holds probabilities",
            lambda: (nn.Sequential(plain(), nn.Softmax(-1)), {}, GOOD),
            lambda: (plain(), {}, GOOD),
        ),
        case("net.float()", lambda: (plain().double(), {}, GOOD), lambda: (plain().double().float(), {}, GOOD)),
        case(
            "batches of two images or more",
            lambda: (normed(), {}, [(X[:1], Y[:1])]),
            lambda: (normed(), {}, [(X[:2], Y[:2])]),
        ),
        case("list(batches)", lambda: (plain(), {"epochs": 2}, iter(GOOD)), lambda: (plain(), {"epochs": 2}, GOOD)),
        case(
            "give a DataLoader, or a list",
            lambda: (plain(), {}, X),
            lambda: (plain(), {}, DataLoader(TensorDataset(X, Y), 4)),
        ),
        case("labels - 1", lambda: (plain(), {}, [(X, Y + 1)]), lambda: (plain(), {}, [(X, Y + 1 - 1)])),
        case("labels[:, 0]", lambda: (plain(), {}, [(X, Y[:, None])]), lambda: (plain(), {}, GOOD)),
        case(
            "labels.argmax(1)",
            lambda: (plain(), {}, [(X, torch.eye(5)[Y].long())]),
            lambda: (plain(), {}, [(X, torch.eye(5)[Y].long().argmax(1))]),
        ),
        case("labels.long()", lambda: (plain(), {}, [(X, Y.float())]), lambda: (plain(), {}, [(X, Y.float().long())])),
        case(
            "collate_fn",
            lambda: (plain(), {}, [{"image": X, "label": Y}]),
            lambda: (plain(), {}, DataLoader(range(8), 8, collate_fn=lambda rows: (X[rows], Y[rows]))),
        ),
        case("epochs True", lambda: (plain(), {"epochs": True}, GOOD), lambda: (plain(), {"epochs": 1}, GOOD)),
        case("lr '0.1' is", lambda: (plain(), {"lr": "0.1"}, GOOD), lambda: (plain(), {"lr": 0.1}, GOOD)),
        case("momentum -1", lambda: (plain(), {"momentum": -1}, GOOD), lambda: (plain(), {"momentum": 0}, GOOD)),
        case(
            "each_epoch is a list; give a function of a record, such as print",
            lambda: (plain(), {"each_epoch": []}, GOOD),
            lambda: (plain(), {"each_epoch": print}, GOOD),
        ),
        case("unknown method", lambda: (plain(), {"method": ["kd"]}, GOOD), lambda: (plain(), {"method": "kd"}, GOOD)),
        case("the class Sequential", lambda: (nn.Sequential, {}, GOOD), lambda: (plain(), {}, GOOD)),
    ],
)
def test_students(words, wrong, right):
    student, options, batches = wrong()
    before = copy.deepcopy(student)
    options, teacher = {"epochs": 1, "method": "kd", **options}, plain(1)
    state = torch.get_rng_state()
    assert words in refusal(lambda: distill([teacher], student, batches, **options))
    if isinstance(student, nn.Module):
        assert torch.equal(torch.get_rng_state(), state)
        for a, b in zip(student.state_dict().values(), before.state_dict().values(), strict=True):
            assert torch.equal(a, b)
        assert [part.training for part in student.modules()] == [part.training for part in before.modules()]
        assert all(p.grad is None for p in student.parameters())
    student, options, batches = right()
    before = copy.deepcopy(student)
    options = {"epochs": 1, "method": "kd", **options}
    assert distill([plain(1)], student, batches, **options)
    ends = zip(student.parameters(), before.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in ends)


class Deep(nn.Module):
    """Logits of two members, of a network that is no ensemble of divkd."""

    def __init__(self):
        super().__init__()
        self.net = plain()

    def forward(self, x):
        return torch.stack([self.net(x)] * 2)


class NoGradient(nn.Sequential):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        ("give a list of networks: [net]", plain(), [plain()]),
        ("give a list of networks", 3, [plain()]),
        ("give an nn.Module", [lambda x: x], [plain()]),
        ("the class Linear; give one made of it", [nn.Linear], [plain()]),
        ("give at least one|of at least one", [], [plain()]),
        ("give plain networks, images to logits (B, K)", [Deep()], [plain()]),
        ("member(model, 0)", [to_batch_ensemble(plain(), 2)], [member(to_batch_ensemble(plain(), 2), 0)]),
        ("teacher 1 has 4 classes and the student 5", [plain(), plain(0, 4)], [plain(), plain(0, 5)]),
        ("another method, such as kd", [NoGradient(*plain())], None),
        ("teacher 0's logits[0, 0, 0] is nan", [nn.Sequential(plain(), nn.Threshold(math.inf, math.nan))], [plain()]),
    ],
)
def test_teachers(words, wrong, right):
    said = refusal(lambda: distill(wrong, plain(3), GOOD, 1, "confods"))
    assert any(part in said for part in words.split("|"))
    assert distill(wrong if right is None else right, plain(3), GOOD, 1, "kd" if right is None else "confods")


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        ("give a pair (logits, labels)", {"validation": X}, {"validation": (torch.randn(2, 8, 5), Y)}),
        ("floats are needed", {"logits": Y[None, :, None].expand(2, 8, 5)}, {}),
        ("labels.long()", {"labels": Y.double()}, {"labels": Y.double().long()}),
    ],
)
def test_evaluations(words, wrong, right):
    good = {"logits": torch.randn(2, 8, 5), "labels": Y}
    assert words in refusal(lambda: evaluate(**{**good, **wrong}))
    assert evaluate(**{**good, **right})["nll"] > 0


class Branching(nn.Sequential):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("give shape=(channels, height, width)", {"shape": None}),
        ("give shape=(channels, height, width)", {"shape": (8, 8)}),
        ("give shape=(channels, height, width)", {"shape": 8}),
        ("give a whole number from 1", {"shape": (3, 8, 0)}),
        ("give one such as net.pt2", {"path": None}),
        ("give one such as net.pt2", {"path": "."}),
        ("give an nn.Module", {"model": "runs/digits"}),
        ("wrap it in a module that returns the tensor of logits alone", {"model": InTrain(lambda z: z).net[:0]}),
        ("without if, item() or a fixed batch size", {"model": Branching(*plain())}),
    ],
)
def test_exports(tmp_path, words, wrong):
    good = {"model": plain(), "path": tmp_path / "net.pt2", "shape": (3, 8, 8)}
    if "wrap it" in words:
        wrong = {"model": Pair()}
    assert words in refusal(lambda: export(**{**good, **wrong}))
    assert list(tmp_path.iterdir()) == []
    assert export(**good) <= 1e-5


class Pair(nn.Module):
    def forward(self, x):
        return x, x
