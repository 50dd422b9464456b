"""The three analyses against literal formulas, independent code and their limits, on networks known by hand."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from divkd.empirical.analysis import probes
from divkd.empirical.data.splits import to_float
from divkd.empirical.networks.ensembles import DeepEnsemble, member, to_batch_ensemble
from divkd.empirical.training.perturb import perturb
from divkd.shared.metrics.diversity import by_confidence
from divkd.shared.metrics.quality import accuracy, ensemble_log_probs, pairwise_kl
from divkd.shared.seeds import rng

K, T, ETA, SEED = 5, 4.0, 0.02, 3
STEP = (T, ETA, SEED)
COUNT = 130  # two blocks, the second not full


def small(seed, scale=3.0):
    """A smooth network with a different Jacobian for every image."""
    draw = np.random.default_rng(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 12), nn.Tanh(), nn.Linear(12, K))
    for parameter in net.parameters():
        value = draw.normal(size=tuple(parameter.shape)) * scale / tuple(parameter.shape)[-1] ** 0.5
        parameter.data = torch.from_numpy(value.astype(np.float32))
    return net.eval().requires_grad_(False)


def ensemble(*seeds):
    return DeepEnsemble([small(seed) for seed in seeds])


def student(seed=9, members=3):
    return to_batch_ensemble(small(seed), members, seed, "normal").eval().requires_grad_(False)


IMAGES = torch.from_numpy(np.random.default_rng(0).integers(20, 236, (COUNT, 3, 4, 4), dtype=np.uint8))
LABELS = torch.from_numpy(np.random.default_rng(1).integers(0, K, COUNT))


def whole(blocks):
    return torch.cat(list(blocks))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_blocks_are_the_images_and_every_perturbation_of_them():
    found = probes.inputs(IMAGES, ensemble(0, 1), *STEP)
    assert list(found) == ["clean", "gaussian", "ods", "confods"]
    assert torch.equal(whole(found["clean"]), to_float(IMAGES))
    for blocks in found.values():
        assert [len(block) for block in blocks] == [100, 30]
        assert whole(blocks).min() >= 0
        assert whole(blocks).max() <= 1
    noise = (whole(found["gaussian"]) - to_float(IMAGES)).flatten(1)
    assert noise.norm(dim=1).mean().item() == pytest.approx(ETA * 48**0.5, rel=0.03)
    assert len(probes.inputs(IMAGES[:1], ensemble(0), *STEP)["ods"][0]) == 1


def test_ods_and_confods_go_one_way_and_differ_in_length_by_a_teachers_confidence():
    teachers = ensemble(0, 1, 2)
    found = probes.inputs(IMAGES, teachers, *STEP)
    clean = whole(found["clean"])
    ods, confods = ((whole(found[kind]) - clean).flatten(1).double() for kind in ("ods", "confods"))
    torch.testing.assert_close(ods.norm(dim=1), torch.full((COUNT,), ETA * 48**0.5).double(), rtol=1e-4, atol=0)
    cosine = torch.cosine_similarity(ods, confods)
    assert cosine.min() > 0.9999
    shrunk = confods.norm(dim=1) / ods.norm(dim=1)
    assert (shrunk <= 1).all()
    sure = torch.softmax(teachers(clean).double() / T, -1).amax(-1)  # (teachers, images)
    nearest = (sure - shrunk).abs().amin(0)
    assert nearest.max() < 1e-3


def test_what_moves_an_image_is_a_function_of_the_seed_and_its_place():
    teachers = ensemble(0, 1)
    found, again = (probes.inputs(IMAGES, teachers, *STEP) for _ in range(2))
    other = probes.inputs(IMAGES, teachers, T, ETA, SEED + 1)
    prefix = probes.inputs(IMAGES[:100], teachers, *STEP)
    for kind in ("gaussian", "ods", "confods"):
        assert same(found[kind], again[kind])
        assert not torch.equal(whole(found[kind]), whole(other[kind]))
        assert torch.equal(prefix[kind][0], found[kind][0])


def test_diversity_by_confidence_is_what_the_shared_functions_say():
    net, inputs = ensemble(0, 1, 2), probes.inputs(IMAGES, ensemble(0, 1, 2), *STEP)
    found = probes.confidence_diversity(net, inputs, LABELS)
    assert list(found) == list(inputs)
    for kind, blocks in inputs.items():
        log_probs = torch.log_softmax(net(whole(blocks)), -1)
        row = found[kind]
        assert row["pairwise_kl"] == pytest.approx(pairwise_kl(log_probs), rel=1e-5)
        assert row["acc"] == pytest.approx(accuracy(log_probs, LABELS), abs=1e-12)
        confidence = ensemble_log_probs(log_probs).exp().amax(-1).mean()
        assert row["confidence"] == pytest.approx(float(confidence), rel=1e-6)
        assert len(row["bins"]) == 15
        for mine, theirs in zip(row["bins"], by_confidence(log_probs, LABELS), strict=True):
            assert mine == pytest.approx({key: theirs[key] for key in mine}, rel=1e-4, nan_ok=True)
        assert sum(bin_["n"] for bin_ in row["bins"]) == COUNT
        weighted = sum(bin_["share"] * bin_["pairwise_kl"] for bin_ in row["bins"] if bin_["n"])
        assert weighted == pytest.approx(row["pairwise_kl"], rel=1e-9)


def test_one_kind_of_input_alone_is_that_kind_and_identical_members_have_no_diversity():
    clean = {"clean": [to_float(IMAGES)]}
    found = probes.confidence_diversity(ensemble(0, 1), clean, LABELS)
    assert list(found) == ["clean"]
    blocks = {"clean": list(to_float(IMAGES).split(7))}
    split = probes.confidence_diversity(ensemble(0, 1), blocks, LABELS)["clean"]
    assert split["pairwise_kl"] == pytest.approx(found["clean"]["pairwise_kl"], rel=1e-5)
    alike = probes.confidence_diversity(ensemble(0, 0, 0), clean, LABELS)["clean"]
    assert alike["pairwise_kl"] == 0
    assert all(row["pairwise_kl"] == 0 for row in alike["bins"] if row["n"])


def test_steps_differ_in_the_network_alone():
    ladder = ensemble(0, 1, 0)
    found = probes.steps(IMAGES, ladder, *STEP)
    assert len(found) == 3
    assert same(found[0], found[2])
    assert not torch.equal(found[0][0], found[1][0])
    assert same(found[0], probes.steps(IMAGES, ensemble(0), *STEP)[0])  # whatever the others are
    generator = rng(SEED, "analysis/transfer")
    for block, images in zip(found[1], to_float(IMAGES).split(100), strict=True):
        assert torch.equal(block, perturb("ods", images, ensemble(1), T, ETA, generator))


def kl(p, q):
    """Mean over images of KL(p || q), from log-probabilities (N, K), in float64 numpy."""
    return float((np.exp(p) * (p - q)).sum(1).mean())


def test_transfer_against_a_literal_loop_over_pairs_and_teachers():
    """Three members and a ladder of five: each pair has 2 own teachers, 1 sibling and 2 external ones."""
    ladder, net = ensemble(0, 1, 2, 3, 4), student()
    clean = list(to_float(IMAGES).split(100))
    by_teacher = probes.steps(IMAGES, ladder, *STEP)

    def predicted(blocks):
        return log_softmax(net(whole(blocks)).double().numpy(), axis=-1)

    expected = {"clean": [], "own": [], "sibling": [], "external": []}
    answers = [predicted(blocks) for blocks in by_teacher]
    before = predicted(clean)
    for i, j in itertools.permutations(range(3), 2):
        expected["clean"].append(kl(before[i], before[j]))
        for r, after in enumerate(answers):
            teaches_one_of_them, teaches_here = r in {i, j}, r in {0, 1, 2}
            step = "own" if teaches_one_of_them else "sibling" if teaches_here else "external"
            expected[step].append(kl(after[i], after[j]))
    assert [len(values) for values in expected.values()] == [6, 12, 6, 12]
    found = probes.transfer(net, clean, by_teacher)
    bins = found.pop("bins")
    for step, rows in bins.items():  # each pair's images are in one bin of its own confidence, and their mean is whole
        assert sum(row["n"] for row in rows) == len(IMAGES) * len(expected[step]) / 2
        total = sum(row["n"] * row["pairwise_kl"] for row in rows if row["n"])
        assert total / sum(row["n"] for row in rows) == pytest.approx(found[step], rel=1e-6)
    assert found == pytest.approx({step: np.mean(values) for step, values in expected.items()}, rel=1e-4)
    assert len(set(found.values())) == 4


def test_transfer_has_no_value_where_there_is_no_such_teacher():
    clean = [to_float(IMAGES)]
    none = {"own": True, "sibling": True, "external": True}
    for members, ladder, given in (
        (2, 2, {**none, "sibling": False, "external": False}),
        (3, 3, {**none, "external": False}),
        (2, 3, {**none, "sibling": False}),
        (3, 4, none),
    ):
        by_teacher = probes.steps(IMAGES, ensemble(*range(ladder)), *STEP)
        found = probes.transfer(ensemble(*range(members)), clean, by_teacher)
        assert found["clean"] > 0
        assert {step: found[step] is not None for step in none} == given
        assert set(found["bins"]) == {"clean", *(step for step, known in given.items() if known)}
    alone = probes.transfer(ensemble(0), clean, by_teacher)  # one member has no pair
    assert alone == {"clean": None, "own": None, "sibling": None, "external": None, "bins": {}}


def test_identical_members_stay_identical_under_every_step():
    by_teacher = probes.steps(IMAGES, ensemble(*range(4)), *STEP)
    found = probes.transfer(ensemble(5, 5, 5), [to_float(IMAGES)], by_teacher)
    assert {step: value for step, value in found.items() if step != "bins"} == {
        "clean": 0,
        "own": 0,
        "sibling": 0,
        "external": 0,
    }


def by_autograd(net, x, w):
    """d(w . softmax(f(x) / t)) / dx by torch's own softmax in float64, (N, pixels)."""
    x = x.double().requires_grad_()
    (gradient,) = torch.autograd.grad((w * torch.softmax(net(x) / T, -1)).sum(), x)
    return gradient.flatten(1)


def test_gradients_against_autograd_in_float64():
    teachers, learner = ensemble(0, 1, 2), student()
    x = to_float(IMAGES)
    w = torch.from_numpy(rng(SEED, "analysis/gradients").uniform(-1, 1, (COUNT, K)))
    theirs = [by_autograd(small(m).double(), x, w) for m in range(3)]
    own, other, between = [], [], []
    for m in range(3):
        mine = by_autograd(member(learner, m).double(), x, w)
        for j, gradient in enumerate(theirs):
            (own if j == m else other).append(torch.cosine_similarity(mine, gradient).mean())
    for i, j in itertools.combinations(range(3), 2):
        between.append(torch.cosine_similarity(theirs[i], theirs[j]).mean())
    found = probes.gradient_match(learner, teachers, IMAGES, T, SEED)
    expected = {"own": np.mean(own), "other": np.mean(other), "teachers": np.mean(between), "n": COUNT}
    assert found == pytest.approx(expected, abs=1e-5)
    single = probes.gradient_match(DeepEnsemble([small(7)]), teachers, IMAGES, T, SEED)
    mine = by_autograd(small(7).double(), x, w)
    of_all = np.mean([torch.cosine_similarity(mine, gradient).mean() for gradient in theirs])
    assert single["own"] == pytest.approx(of_all, abs=1e-5)
    assert single["other"] is None
    assert single["teachers"] == found["teachers"]


def test_a_student_that_is_its_teachers_has_their_gradients_and_no_others():
    learner = student()
    teachers = DeepEnsemble([member(learner, m).requires_grad_(False) for m in range(3)])
    found = probes.gradient_match(learner, teachers, IMAGES, T, SEED)
    assert found["own"] == pytest.approx(1, abs=1e-6)
    assert found["other"] == pytest.approx(found["teachers"], abs=1e-9)
    assert found["teachers"] < 0.99


def test_one_teacher_has_no_other():
    for learner in (student(members=1), DeepEnsemble([small(4)])):
        found = probes.gradient_match(learner, ensemble(0), IMAGES, T, SEED)
        assert -1 <= found["own"] <= 1
        assert (found["other"], found["teachers"]) == (None, None)
    assert probes.gradient_match(DeepEnsemble([small(0)]), ensemble(0), IMAGES, T, SEED)["own"] == pytest.approx(1)


def test_a_gradient_of_zero_has_no_direction_and_harms_nothing():
    """Networks that answer the same to all images: their cosine with anything counts 0."""
    flat = small(0, scale=0.0)
    found = probes.gradient_match(DeepEnsemble([flat]), ensemble(0, 1), IMAGES, T, SEED)
    assert found["own"] == 0
    assert probes.gradient_match(student(members=2), DeepEnsemble([flat, flat]), IMAGES, T, SEED) == {
        "own": 0, "other": 0, "teachers": 0, "n": COUNT
    }  # fmt: skip
    assert same(probes.steps(IMAGES, DeepEnsemble([flat]), *STEP)[0], to_float(IMAGES).split(100))
