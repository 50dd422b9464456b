"""Networks that eat other things than images: the loss is the formula, on tables, tokens, sounds, several inputs."""

import copy
import inspect
import io
import math
import tokenize

import numpy as np
import pytest
import torch
from handed_over import refusal
from sklearn import datasets
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from divkd import DeepEnsemble, InputError, distill, predict, to_batch_ensemble
from divkd.empirical.training.perturb import Space, perturb


def split(x, y, train, seed=0):
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(y)))
    return (x[order[:train]], y[order[:train]]), (x[order[train:]], y[order[train:]])


def learned(net, batches, epochs, prepare=lambda batch: batch):
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(epochs):
        for batch in batches:
            x, y = prepare(batch)
            optimiser.zero_grad()
            F.cross_entropy(net(**x) if isinstance(x, dict) else net(x), y).backward()
            optimiser.step()
    return net.eval()


def right(model, x, y):
    return float((predict(model, x).classes == y.numpy()).mean())


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "iris"])
def test_a_table_end_to_end(name):
    """Columns of every scale, without ends: a step in each one's own unit."""
    table = getattr(datasets, f"load_{name}")()
    x, y = torch.tensor(table.data, dtype=torch.float32), torch.tensor(table.target)
    (x, y), test = split(x, y, 2 * len(y) // 3)
    mean, std = x.mean(0), x.std(0)

    class Net(nn.Sequential):
        def forward(self, x):
            return super().forward((x - mean) / std)

    def network(seed):
        torch.manual_seed(seed)
        return Net(nn.Linear(x.shape[1], 16), nn.ReLU(), nn.Linear(16, int(y.max()) + 1))

    loader = [(x[i::4], y[i::4]) for i in range(4)]
    teachers = [learned(network(m), loader, 20) for m in range(2)]
    student = to_batch_ensemble(network(9), 2, example=x[:2])
    records = distill(teachers, student, loader, 20, "confods", low=None, high=None, step_size=0.1 * std, lr=0.02)
    assert records[-1]["loss"] < records[0]["loss"]
    assert right(student, *test) > 0.85
    assert "step_size is not known" in refusal(lambda: distill(teachers, network(8), loader, 1, low=None, high=None))
    if name != "iris":
        assert "low, high, None for no end" in refusal(lambda: distill(teachers, network(8), loader, 1))
    assert distill(teachers, network(8), loader, 1, "kd")


class Reader(nn.Module):
    """A transformer classifier of plain layers over token ids, with a mask, whose embedding is frozen."""

    def __init__(self, seed, words=128, width=16, classes=2):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(words, width).requires_grad_(False)
        torch.manual_seed(seed)
        self.qkv, self.out, self.norm = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))
        self.head = nn.Linear(width, classes)

    def forward(self, ids, mask):
        x = self.embed(ids)
        q, k, v = self.qkv(x).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, :]))
        x = self.norm(x + self.mlp(x))
        return self.head((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def lines(count, length=32):
    """Comments (1) and code (0) of modules of Python's standard library, as characters."""
    found = {0: [], 1: []}
    for module in (tokenize, inspect, io, copy, __import__("ast"), __import__("argparse"), __import__("subprocess")):
        for line in inspect.getsource(module).splitlines():
            text = line.strip()
            if len(bare := text.lstrip("# ")) > 4:
                found[text.startswith("#")].append(bare)
    rows, labels = [], []
    for label, texts in found.items():
        for text in texts[:count]:
            codes = [min(ord(c), 127) for c in text[:length]]
            rows.append(codes + [0] * (length - len(codes)))
            labels.append(label)
    return torch.tensor(rows), torch.tensor(labels)


def as_dict(batch):
    return {"ids": batch["ids"], "mask": batch["ids"] > 0}, batch["label"]


def test_text_end_to_end():
    """Comments against code, from dict batches, with steps in a shared embedding."""
    (x, y), test = split(*lines(200), 300)
    loader = [{"ids": x[i::6], "label": y[i::6]} for i in range(6)]
    teachers = [learned(Reader(m), loader, 8, as_dict) for m in (1, 2)]
    inputs = {"ids": test[0], "mask": test[0] > 0}
    assert right(teachers[0], inputs, test[1]) > 0.75
    student = to_batch_ensemble(Reader(3), 2, example={key: part[:3] for key, part in inputs.items()})
    options = {"prepare": as_dict, "perturb_at": "embed", "step_size": 0.1, "lr": 0.01}
    assert distill(teachers, student, loader, 6, "confods", **options)
    assert right(student, inputs, test[1]) > 0.75
    own = Reader(4)
    own.embed.reset_parameters()
    before = copy.deepcopy(own.state_dict())
    said = refusal(lambda: distill(teachers, own, loader, 1, "ods", **options))
    assert "module 'embed' puts out other numbers in the student than in teacher 0" in said
    assert all(torch.equal(before[key], value) for key, value in own.state_dict().items())
    assert distill(teachers, own, loader, 1, "gaussian", **options)  # noise means the same to all
    plain = {"prepare": as_dict, "step_size": 0.1}
    assert "give perturb_at" in refusal(lambda: distill(teachers, Reader(5), loader, 1, **plain))
    said = refusal(lambda: distill(teachers, Reader(5), loader, 1, perturb_at="embd", **plain))
    assert "has no module 'embd'" in said
    assert "'embed'" in said
    assert "give prepare" in refusal(lambda: distill(teachers, Reader(5), loader, 1, "kd"))


def spectrograms(windows=60):
    """Short-time spectra (33, 16) of chirps and tones in noise; synthesised, as no package here ships a recording."""
    generator, rows, labels = np.random.default_rng(0), [], []
    t = np.arange(1056) / 8000
    for i in range(2 * windows):
        low = generator.uniform(300, 2000)
        rate = (i % 2) * generator.uniform(9000, 14000)
        wave = np.sin(2 * np.pi * (low * t + rate * t**2 / 2)) + 0.1 * generator.standard_normal(len(t))
        spectrum = torch.stft(torch.tensor(wave, dtype=torch.float32), 64, 64, window=torch.hann_window(64),
                              center=False, return_complex=True)  # fmt: skip
        rows.append(spectrum.abs().log1p())
        labels.append(i % 2)
    return torch.stack(rows), torch.tensor(labels)


def test_spectrograms_end_to_end():
    """(B, F, T), not images and not in [0, 1], through one-dimensional convolutions."""
    (x, y), test = split(*spectrograms(), 80)

    def network(seed):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv1d(33, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)
        )

    loader = DataLoader(TensorDataset(x, y), 20)
    teachers = [learned(network(m), loader, 8) for m in range(2)]
    student = to_batch_ensemble(network(5), 2, example=x[:2])
    distill(teachers, student, loader, 8, "ods", low=0.0, high=None, step_size=0.02, lr=0.01)
    assert right(student, *test) > 0.8


class Two(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b = nn.Linear(4, 3), nn.Embedding(5, 3)

    def forward(self, x, ids):
        return self.a(x) + self.b(ids)


def test_several_inputs_move_where_they_are_floats_and_the_loss_is_the_formula():
    x, ids, q = torch.rand(6, 4), torch.arange(6) % 5, torch.rand(6, 3).softmax(1)
    teacher, student = Two(0), Two(1)
    twin = copy.deepcopy(student)
    own = torch.optim.SGD(student.parameters(), 0.1)
    (record,) = distill([teacher], student, [((x, ids), q)], 1, "kd", optimiser=own, temperature=2.0, kd_weight=0.3)
    z, t = twin(x, ids), teacher(x, ids)
    loss = 0.7 * -(q * z.log_softmax(1)).sum(1).mean()
    loss = loss + 0.3 * 4 * F.kl_div((z / 2).log_softmax(1), (t / 2).softmax(1), reduction="batchmean")
    assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    assert torch.allclose(student.a.weight, twin.a.weight - 0.1 * twin.a.weight.grad, atol=1e-6)
    moved, same = perturb("ods", (x, ids), DeepEnsemble([teacher]), 1.0, 0.1, np.random.default_rng(0))
    assert torch.equal(same, ids)
    assert not torch.equal(moved, x)


@pytest.mark.parametrize("kind", ["gaussian", "ods", "confods"])
def test_a_tensor_of_equal_steps_is_a_step_and_scaling_an_input_scales_its_step(kind):
    """perturb(x; s) is the step of the network of u = x / s, times s."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double(), torch.randn(7, 5).double()
    scale = torch.tensor([1.0, 10, 0.1, 3, 7]).double()

    class Scaled(nn.Module):
        def forward(self, u):
            return net(u * scale)

    free = Space(None, None)

    def step(net, x, eta):
        return perturb(kind, x, DeepEnsemble([net]), 2.0, eta, np.random.default_rng(3), free) - x

    assert torch.allclose(step(net, x, torch.full((5,), 0.1)), step(net, x, 0.1), rtol=1e-5)
    found = step(net, x, 0.1 * scale)
    expected = scale * step(Scaled(), x / scale, 0.1)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_step_at_a_module_is_a_step_of_the_network_behind_it():
    torch.manual_seed(0)
    embed, rest = nn.Embedding(6, 4), nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    net, ids = nn.Sequential(embed, rest), torch.randint(6, (5, 3))
    for kind in ("gaussian", "ods", "confods"):
        moved = perturb(kind, ids, DeepEnsemble([net]), 1.0, 0.3, np.random.default_rng(1), Space(at="0"))
        behind = perturb(kind, embed(ids).detach(), DeepEnsemble([rest]), 1.0, 0.3, np.random.default_rng(1),
                         Space(None, None))  # fmt: skip
        assert torch.allclose(DeepEnsemble([net])(moved)[0], rest(behind), atol=1e-5)
    assert math.isfinite(moved.delta.sum().item())


def test_members_get_rows_of_their_own_of_every_input():
    model = to_batch_ensemble(Two(0), 3, init="normal", example=(torch.rand(2, 4), torch.tensor([0, 1]))).eval()
    x, ids = torch.rand(9, 4), torch.arange(9) % 5
    folded = model(x, ids)
    with torch.no_grad():
        assert torch.allclose(model(x=x, ids=ids), folded, atol=1e-6)
        each = model(torch.stack([x, x + 1, x]), torch.stack([ids] * 3))
    assert torch.allclose(each[2], folded[2], atol=1e-6)
    assert not torch.allclose(each[1], folded[1], atol=1e-3)
    with pytest.raises(InputError, match="give all by place, or all by name"):
        model(x, ids=ids)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.full((6, 3), 0.5), "labels.softmax(1)"),
        (torch.full((6, 4), 0.25), "soft labels have 4 classes and the logits 3"),
        (torch.full((5, 3), 1 / 3), "probabilities (B, K), are needed"),
    ],
)
def test_soft_labels_that_do_not_fit_are_told(labels, words):
    batches = [((torch.rand(6, 4), torch.arange(6) % 5), labels)]
    assert words in refusal(lambda: distill([Two(0)], Two(1), batches, 1, "kd"))
