"""From nothing to an answer: teachers made, judged, saved, read back, compared, exported, whatever wraps them."""

import json

import numpy as np
import pytest
import torch
from handed_over import X, Y, plain, refusal
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import divkd
from divkd import DeepEnsemble, compare, distill, evaluate, export, predict, to_batch_ensemble, train_teachers
from divkd.cli.main import run
from divkd.empirical.use.restore import Restored


class Killed(Exception):
    pass


def dropping():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.3), nn.Linear(8, 5))


def loader():
    return DataLoader(TensorDataset(X.repeat(2, 1, 1, 1), Y.repeat(2)), 4, shuffle=True)


def equal(one, two):
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_teachers_are_a_function_of_the_seed_and_their_number_and_go_on_where_they_were_killed(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    seen = []
    two = train_teachers(dropping, loader(), 2, 3, seed=1, each_epoch=seen.append, validation=[(X, Y)])
    assert torch.equal(torch.get_rng_state(), before)
    assert [(row["member"], row["epoch"]) for row in seen] == [(m, e) for m in (0, 1) for e in (1, 2, 3)]
    assert two.records == seen
    assert "val_nll" in seen[0]
    torch.manual_seed(6)
    three = train_teachers(dropping, loader(), 3, 3, seed=1)
    assert equal(DeepEnsemble(three.nets[:2]), two)
    assert not equal(DeepEnsemble(three.nets[:1]), DeepEnsemble(three.nets[1:2]))
    assert not equal(train_teachers(dropping, loader(), 2, 3, seed=2), two)
    file = tmp_path / "teachers.pt"

    def kill(record):
        if (record["member"], record["epoch"]) == (1, 3):
            raise Killed

    with pytest.raises(Killed):
        train_teachers(dropping, loader(), 2, 3, seed=1, checkpoint=file, each_epoch=kill)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teachers-0.pt", "teachers-1.pt"]
    resumed = train_teachers(dropping, loader(), 2, 3, seed=1, checkpoint=file, each_epoch=seen.append)
    assert equal(resumed, two)
    assert [(row["member"], row["epoch"]) for row in seen[6:]] == [(1, 3)]
    assert len(resumed.records) == 6


def test_a_teachers_training_is_plain_training_by_the_optimiser_that_is_made():
    one = train_teachers(
        plain, [(X, Y)], 1, 3, optimizer=lambda net: torch.optim.SGD(net.parameters(), 0.1), prepare=lambda batch: batch
    )
    net = plain()
    own = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        own.zero_grad()
        nn.functional.cross_entropy(net(X), Y).backward()
        own.step()
    for a, b in zip(one.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    halves = train_teachers(
        plain,
        [(X, Y)],
        1,
        3,
        optimizer=lambda net: torch.optim.SGD(net.parameters(), 0.1),
        scheduler=lambda own: torch.optim.lr_scheduler.ExponentialLR(own, 0.5),
    )
    assert [row["lr"] for row in halves.records] == pytest.approx([0.1, 0.05, 0.025])
    voxels = train_teachers(plain, [(X.reshape(8, 3, 4, 4, 4), Y)], 1, 1)  # five axes, one batch
    assert voxels(X.reshape(8, 3, 4, 4, 4)).shape == (1, 8, 5)
    assert "is of an optimizer of your own" in refusal(lambda: train_teachers(plain, [(X, Y)], 1, 1, scheduler=len))
    shared = plain()
    for make, words in (
        (lambda: shared, "gives the same network twice"),
        (lambda: 1 / 0, "make_network fails when it is called: division by zero"),
        (lambda: plain(0, 3), "member 0: labels go from 0 to 4"),
        (list, "what make_network makes, 0, is a list"),
    ):
        assert words in refusal(lambda make=make: train_teachers(make, [(X, Y)], 2, 1))


@pytest.mark.parametrize("kind", ["plain", "deep", "batch"])
def test_a_network_is_evaluated_on_batches_as_its_logits_are(kind, tmp_path):
    net = {"plain": plain, "deep": lambda: DeepEnsemble([plain(0), plain(1)]), "batch": lambda: student(2)}[kind]()
    net.train()
    batches = [{"x": X[:5], "y": Y[:5]}, {"x": X[5:], "y": Y[5:]}]
    file = tmp_path / "net.npz"
    with torch.no_grad():
        logits = net.eval()(X)
    net.train()
    options = {"prepare": lambda batch: (batch["x"], batch["y"])}
    row = evaluate(net, batches, out=file, **options)
    assert net.training
    assert row == pytest.approx(evaluate(logits, Y), rel=1e-4)
    validated = evaluate(net, batches, batches, out=file, **options)
    assert validated == pytest.approx(evaluate(logits, Y, (logits, Y)), rel=1e-3)
    assert run(["evaluate", str(file), "--out", str(tmp_path / "page")]) == 0
    found = json.loads((tmp_path / "page/results.json").read_text())
    assert found["cal_nll"] == pytest.approx(validated["cal_nll"], rel=1e-6)
    assert "give a DataLoader" in refusal(lambda: evaluate(net, X))


def student(members=2, seed=0):
    return to_batch_ensemble(plain(seed), members, seed, init="normal")


@pytest.mark.parametrize("kind", ["plain", "deep", "batch", "normed", "tied"])
def test_what_is_saved_is_loaded_to_the_same_bits_and_a_flipped_one_is_told(kind, tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(192, 192)
            self.b, self.head = self.a, nn.Linear(192, 5)

        def forward(self, x):
            return self.head(self.b(self.a(x.flatten(1))))

    base = {"tied": Tied, "normed": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 5))}
    net = base.get(kind, plain)()
    model = {"deep": lambda: DeepEnsemble([plain(0), plain(1)]), "plain": plain}.get(
        kind, lambda: to_batch_ensemble(net, 3, init="normal")
    )()
    path = tmp_path / "new" / "model.safetensors"
    divkd.save(model, path)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    loaded = divkd.load(path, net)
    assert equal(loaded, model)
    assert not loaded.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(loaded(X), model.eval()(X))
    assert equal(divkd.load(path, model), model)
    content = path.read_bytes()
    for place in (0, 3, 40, 60, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert "cannot be read" in refusal(lambda: divkd.load(path, net))
    for damaged in (b"", content[:50], content[:-1], content + b"\0", b"\x80\x04."):
        path.write_bytes(damaged)
        assert "give a file that divkd.save wrote" in refusal(lambda: divkd.load(path, net))


def test_what_does_not_fit_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    divkd.save(student(2), path)
    for net, words in (
        (plain(0, 4), "net.1.s is torch.float32 (2, 5) there and torch.float32 (2, 4) here"),
        (student(3), "holds a BatchEnsemble of 2 and the network is a BatchEnsemble of 3"),
        (DeepEnsemble([plain(), plain()]), "the network is a DeepEnsemble of 2"),
        (plain().double(), "torch.float32 (2, 192) there and torch.float64 (2, 192) here"),
    ):
        assert words in refusal(lambda net=net: divkd.load(path, net))
    assert "there is no file" in refusal(lambda: divkd.load(tmp_path / "b", plain()))

    class Stateful(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    for net in (Stateful(2, 2), nn.LazyLinear(3), nn.Linear(2, 2, device="meta")):
        assert "dense tensors with values are needed" in refusal(lambda net=net: divkd.save(net, path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_wrapped_networks_are_taken_for_what_is_in_them(wrap, tmp_path):
    bare, inner = student(), student()
    wrapped = wrap(inner)
    distill([plain(1), plain(2)], bare, [(X, Y)] * 3, 2)
    distill([plain(1), wrap(plain(2))], wrapped, [(X, Y)] * 3, 2)
    assert equal(inner, bare)
    assert not inner.training
    assert not wrapped.training
    for function in (lambda net: evaluate(net, [(X, Y)])["nll"], lambda net: predict(net, X).entropy.sum()):
        assert function(wrapped) == pytest.approx(function(bare), rel=1e-5)
    divkd.save(wrapped, tmp_path / "a")
    assert equal(divkd.load(tmp_path / "a", plain()), bare)
    assert export(wrapped, tmp_path / "a.pt2", (3, 8, 8)) <= 1e-5
    assert equal(divkd.member(wrapped, 1), divkd.member(bare, 1))
    assert to_batch_ensemble(wrap(plain()), 2).members == 2


def test_one_processes_share_is_refused():
    class DistributedDataParallel(nn.Module):
        pass

    assert "one process's share; give what is in it" in refusal(
        lambda: distill([plain()], DistributedDataParallel(), [(X, Y)], 1)
    )


def test_a_folder_is_predicted_where_the_shape_is_known(tmp_path):
    pixels = (X.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    (tmp_path / "deep").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / ("deep" if number % 2 else "") / f"{number}.png")
    known = Restored(student().eval(), "batch_ensemble", "kd", 2, 0, tuple("abcde"), (3, 8, 8))
    answer = predict(known, tmp_path)
    order = [int(name[:-4].rsplit("/", 1)[1]) for name in answer.files]
    assert sorted(order) == list(range(8))
    expected = predict(known.net, torch.from_numpy(pixels).permute(0, 3, 1, 2)[order] / 255)
    assert np.allclose(answer.probabilities, expected.probabilities)
    assert expected.files == ()
    assert np.allclose(predict(known.net, str(tmp_path), shape=(3, 8, 8)).entropy, answer.entropy)
    half = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    assert predict(half, tmp_path / "0.png", shape=(3, 4, 4)).files == (str(tmp_path / "0.png"),)
    assert "give shape=" in refusal(lambda: predict(known.net, tmp_path))
    assert "there is no" in refusal(lambda: predict(known, tmp_path / "absent"))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(5, 3)

    def forward(self, ids, extra):
        return self.head(torch.cat([self.embed(ids).mean(1), extra], 1))


@pytest.mark.parametrize("kind", ["table", "ids", "tuple", "dict"])
@pytest.mark.parametrize("members", [1, 2])
def test_what_eats_no_images_is_exported_by_an_example(kind, members, tmp_path):
    ids, extra = torch.arange(12).reshape(3, 4) % 9, torch.rand(3, 1)
    net, example = {
        "table": lambda: (nn.Linear(6, 3), torch.randn(2, 6)),
        "ids": lambda: (nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(16, 3)), ids),
        "tuple": lambda: (Reader(), (ids, extra)),
        "dict": lambda: (Reader(), {"ids": ids, "extra": extra}),
    }[kind]()
    net = net if members == 1 else to_batch_ensemble(net, 2, init="normal", example=example)
    assert export(net, tmp_path / "net.pt2", example=example) <= 1e-5
    known = {"divkd.json": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=known).module()
    for call in (lambda m: m(**example) if kind == "dict" else m(*example) if kind == "tuple" else m(example),):
        torch.testing.assert_close(call(program), call(net.eval()))
    rows = json.loads(known["divkd.json"])["inputs"]
    assert [row["name"] for row in rows] == {"dict": ["ids", "extra"], "tuple": [0, 1]}.get(kind, [0])
    assert rows[0]["dtype"] == ("float32" if kind == "table" else "int64")


def test_models_are_set_side_by_side():
    models = {"ensemble": DeepEnsemble([plain(0), plain(1)]), "student": student(), "single": plain()}
    found = compare(models, [(X[:5], Y[:5]), (X[5:], Y[5:])], rounds=3)
    for row, net in zip(found.rows, models.values(), strict=True):
        assert {key: row[key] for key in ("acc", "nll", "ece")} == pytest.approx(
            {key: evaluate(net, [(X, Y)])[key] for key in ("acc", "nll", "ece")}, rel=1e-4
        )
        assert row["seconds"]["n"] == 3
        assert row["batch"] == 5
    sizes = [row["weight_bytes"] for row in found.rows]
    assert sizes[0] == 2 * sizes[2] > sizes[1] > sizes[2]
    lines = str(found).splitlines()
    assert lines[0].split() == ["accuracy", "NLL", "ECE", "memory", "time", "of", "5", "(n", "=", "3)"]
    assert [line.split()[0] for line in lines[1:]] == list(models)
    assert "model broken: the model fails on images" in refusal(
        lambda: compare({"broken": nn.Linear(3, 5)}, [(X, Y)], rounds=1)
    )
    assert "give a DataLoader" in refusal(lambda: compare(models, iter([(X, Y)])))
