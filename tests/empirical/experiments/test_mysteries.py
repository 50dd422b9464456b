"""The experiments' networks and numbers: an average of equals, the paper's mixed loss, and what numpy says of rows."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t
from training_runs import QUIET

from divkd.empirical.data.datasets import load
from divkd.empirical.experiments import config as presets
from divkd.empirical.experiments.ensemble_over_kd import EXPERIMENT as OVER_KD
from divkd.empirical.experiments.mysteries import EXPERIMENT, PAIRS, students
from divkd.empirical.experiments.networks import Averaged, averaged, differences, fresh, summary
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.distillation import cross_entropy, kd_loss, label_loss, student_loss
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.training.work import Source
from divkd.shared.run import Run


@pytest.fixture(scope="module")
def source():
    config = dataclasses.replace(presets.MYSTERIES["smoke"], members=3, train_images=64)
    return Source(config, load("digits", None, False, config.train_images))


def network(seed):
    return build("resnet8w4", 4, (0.5,) * 3, (0.2,) * 3, np.random.default_rng(seed)).double()


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.default_rng(0).random((6, 3, 8, 8))), torch.tensor([0, 1, 2, 3, 0, 1])


def test_the_average_of_equal_networks_is_the_network(images):
    x, y = images
    one, three = network(0).eval(), Averaged(DeepEnsemble([network(0) for _ in range(3)])).eval()
    torch.testing.assert_close(three(x), one(x)[None], rtol=1e-12, atol=1e-12)
    assert three(x).shape == (1, 6, 4)
    # trained as one, each of three equal networks gets a third of what one gets: they move together, more slowly
    (loss, _), (alone, _) = (next(label_loss(net, x, y, np.random.default_rng(0))) for net in (three, Lone(one)))
    loss.backward()
    alone.backward()
    wanted = [parameter.grad / 3 for parameter in one.parameters()]
    for part in three.networks.nets:
        torch.testing.assert_close([parameter.grad for parameter in part.parameters()], wanted, rtol=1e-5, atol=1e-7)


class Lone(DeepEnsemble):
    """A deep ensemble of one."""

    def __init__(self, net):
        super().__init__([net])


def test_the_average_starts_as_the_teachers_and_students_start_alike(source):
    seed_run = SeedRun(source.config, source.data, 4, Run.__new__(Run), QUIET)
    for member, net in enumerate(averaged(seed_run).networks.nets):
        teacher = seed_run.plain(source.config.network, "teacher", member).state_dict()
        assert all(torch.equal(value, teacher[name]) for name, value in net.state_dict().items())
    first, second = (fresh(seed_run, member).nets[0].state_dict() for member in (0, 1))
    assert not torch.equal(first["stem.weight"], second["stem.weight"]) if "stem.weight" in first else first != second
    assert {student.member for student in students(source.config)} == {0}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 1.0])
def test_the_papers_mixed_loss_is_kd_at_temperature_1(share, images):
    """t CE(y, S) + (1 - t) H(T, S) and (1 - a) CE + a KD, a = 1 - t: the same but for H(T, T), so the same gradient."""
    draw = np.random.default_rng(1)
    teachers, answers, labels = draw.normal(size=(3, 6, 4)), draw.normal(size=(6, 4)), images[1].numpy()

    def probabilities(logits):
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    target, hot = probabilities(teachers).mean(0), np.eye(4)[labels]
    q = probabilities(answers)
    by_hand = (share * (q - hot) + (1 - share) * (q - target)) / 6
    mixed = -((share * hot + (1 - share) * target) * np.log(q)).sum(-1).mean()

    s = torch.from_numpy(answers)[None].requires_grad_()
    ce, kd = cross_entropy(s, images[1]), kd_loss(s, torch.from_numpy(teachers), 1.0)
    loss = share * ce + (1 - share) * kd
    loss.backward()
    np.testing.assert_allclose(s.grad[0], by_hand, atol=1e-9)
    entropies = -(probabilities(teachers) * np.log(probabilities(teachers))).sum(-1).mean()
    assert loss.item() == pytest.approx(mixed - (1 - share) * entropies, abs=1e-9)

    # and it is what students are trained with
    x = images[0].float()
    nets = DeepEnsemble([network(seed).float() for seed in (1, 2)]).eval()
    student = DeepEnsemble([network(3).float()]).eval()
    (value, logits) = next(student_loss("kd", nets, 1.0, 1 - share, 0.0)(student, x, images[1], draw))
    expected = share * cross_entropy(logits, images[1]) + (1 - share) * kd_loss(logits, nets(x), 1.0)
    torch.testing.assert_close(value, expected)


def rows_of(draw):
    """Three seeds of two networks and their ensemble, as a measure gives them."""
    found = []
    for seed in (3, 5, 4):
        for model, number, together in (("network", 0, 1), ("network", 1, 1), ("ensemble", 0, 2)):
            row = {"model": model, "seed": seed, "networks": together, "number": number}
            found.append(row | {"acc": float(draw.random()), "cal_nll": float(draw.random())})
    return found


def test_summaries_and_differences_are_over_seeds_of_means_over_a_seeds_networks():
    found = rows_of(np.random.default_rng(2))
    accuracies = np.array([row["acc"] for row in found]).reshape(3, 3)
    one, both = accuracies[:, :2].mean(1), accuracies[:, 2]
    network, ensemble = summary(found)
    assert (network["model"], network["networks"], network["count"]) == ("network", 1, 2)
    assert (ensemble["model"], ensemble["networks"], ensemble["count"]) == ("ensemble", 2, 1)
    assert network["acc"] == {"mean": pytest.approx(one.mean()), "std": pytest.approx(one.std(ddof=1)), "n": 3}
    assert set(network) == {"model", "networks", "count", "acc", "cal_nll"}
    (line,) = differences(found, [(("ensemble",), ("network",))])
    assert (line["model"], line["against_model"]) == ("ensemble", "network")
    gains = both - one
    half = student_t.ppf(0.975, 2) * gains.std(ddof=1) / np.sqrt(3)
    assert [line["acc"][key] for key in ("mean", "low", "high")] == pytest.approx(
        [gains.mean(), gains.mean() - half, gains.mean() + half]
    )


def test_a_pair_that_was_not_measured_is_not_compared():
    found = rows_of(np.random.default_rng(2))
    content = EXPERIMENT.results(presets.MYSTERIES["smoke"], {"seed3": {"rows": found}, "teacher": {"seconds": 1.0}})
    assert [(line["model"], line["against_model"]) for line in content["differences"]] == [("ensemble", "network")]
    assert len(PAIRS) > 1


@pytest.mark.parametrize("experiment", [EXPERIMENT, OVER_KD], ids=lambda one: one.command)
@pytest.mark.parametrize("teachers", [None, "elsewhere"])
def test_jobs_wait_for_their_teachers_and_no_two_have_one_name(experiment, teachers, source):
    table = presets.OVER_KD if experiment is OVER_KD else presets.MYSTERIES
    config = dataclasses.replace(table["smoke"], members=3, seeds=(0, 1), teachers=teachers)
    jobs = experiment.jobs(Source(config, source.data))
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    for place, job in enumerate(jobs):
        assert set(job.after) <= set(names[:place])
    trained = {name for name in names if "teacher" in name}
    assert len(trained) == (0 if teachers else 6)
    distilled = [job for job in jobs if "-distilled" in job.name]
    assert all(len(job.after) == (0 if teachers else 3) for job in distilled)


def test_the_published_preset_is_ten_networks_of_the_published_kind():
    for table in (presets.MYSTERIES, presets.OVER_KD):
        one = table["allenzhu2020-cifar100-wrn28x10"]
        assert (one.members, one.network, one.dataset, one.train_images) == (10, "wrn28x10", "cifar100", None)
        for preset in table.values():
            preset.validate()
