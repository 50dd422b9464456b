"""The analysis of a run: its rows agree with the run's own, a killed one goes on, and odd runs have what they can."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from training_runs import SERIAL, Killed, experiment, tiny

from divkd.cli.tables import print_tables
from divkd.empirical.analysis import analysis, probes
from divkd.empirical.analysis.analysis import AnalysisConfig, SeedAnalysis, finished, read_sets, run_analysis
from divkd.empirical.data.corrupt import STRENGTHS
from divkd.empirical.data.datasets import load
from divkd.empirical.training.seed_run import predict
from divkd.empirical.use.restore import load_model, load_run
from divkd.report import draw
from divkd.shared.errors import InputError
from divkd.shared.files import plain, read_json
from divkd.shared.run import open_run

pytestmark = pytest.mark.usefixtures("coarse_figures_throughout")

IMAGES = 20
TIMES = ("latency_s", "latency_s_ratio", "images_per_s", "images_per_s_ratio")


def config(**changes):
    found = tiny(train_images=64, methods=("ods",), ladder=3, seeds=(3, 4))
    short = dataclasses.replace(found.teacher, epochs=1)
    return dataclasses.replace(found, **{"teacher": short, "student": short, **changes})


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Times are not judged here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "BATCH", 2)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run, two sets of images and one kind of published corruption."""
    folder = tmp_path_factory.mktemp("analysis")
    experiment(config(), folder / "run")
    test = load("digits", None, False, None).test
    np.savez(folder / "turned.npz", images=test.images[:30].transpose(2, 3).numpy())
    np.savez(folder / "mirror.npz", x=test.images[:25].flip(3).numpy(), y=test.labels[:25].numpy())
    publish(folder / "published", test.labels[:30].numpy())
    return folder


def publish(path, labels, shape=(8, 8, 1)):
    """fog.npy and labels.npy in the published layout: of the test images, darker with severity."""
    path.mkdir()
    np.save(path / "labels.npy", np.tile(labels, 5))
    images = load("digits", None, False, None).test.images[: len(labels)].permute(0, 2, 3, 1).numpy()
    images = np.resize(images, (len(labels), *shape))
    np.save(path / "fog.npy", np.concatenate([images // level for level in range(1, 6)]))


def configured(folder, run="run", **changes):
    trained, data = load_run(folder / run)
    values = {
        "ood": (str(folder / "turned.npz"),),
        "shift": (str(folder / "mirror.npz"),),
        "corruptions": str(folder / "published"),
    }
    return AnalysisConfig(str(folder / run), IMAGES, device="cpu", trained=trained, **{**values, **changes}), data


def analysed(folder, out, run="run", resume=False):
    settings, data = configured(folder, run)
    sets = read_sets(settings, data)
    facts = {"name": data.name, "sha256": sets.sha256(data), "sets": sets.facts()}
    kept = open_run(out, "analyse", dataclasses.asdict(settings), resume=resume, extendable=("run",), data=facts)
    results = run_analysis(settings, data, sets, kept, SERIAL)
    results["published"] = []
    kept.finish(results)
    return results


@pytest.fixture(scope="module")
def whole(folder):
    return analysed(folder, folder / "whole")


def timeless(results):
    """`results` as JSON holds them, without times."""
    inference = [{key: value for key, value in row.items() if key not in TIMES} for row in results["inference"]]
    return {**plain(results), "inference": plain(inference)}


def test_networks_are_the_teachers_and_then_the_students_in_the_runs_order(whole):
    assert analysis.networks(config(methods=("none", "kd"))) == [
        ("deep_ensemble", "none"),
        ("batch_ensemble", "none"), ("batch_ensemble", "kd"), ("single", "none"), ("single", "kd"),
    ]  # fmt: skip
    assert [(row["seed"], row["model"], row["method"], row["members"]) for row in whole["rows"]] == [
        (seed, *network)
        for seed in (3, 4)
        for network in (("deep_ensemble", "none", 2), ("batch_ensemble", "ods", 2), ("single", "ods", 1))
    ]
    assert [(row["model"], row["passes"] > 0) for row in whole["training_cost"]] == [
        ("deep_ensemble", True), ("batch_ensemble", True), ("single", True)
    ]  # fmt: skip
    assert [row["name"] for row in whole["inference"]] == ["single", "deep_ensemble", "batch_ensemble", "merged"]
    assert [row["members"] for row in whole["inference"]] == [1, 2, 2, 1]


def test_all_members_together_are_the_runs_own_row(folder, whole):
    """And the ladder's first 1, 2, 3 networks are the deep ensembles of the run's table, beyond its teachers too."""
    own = {
        (row["model"], row["method"], row["members"], row["seed"]): row
        for row in read_json(folder / "run" / "results.json")["rows"]
    }
    for record in whole["rows"]:
        kind = record["model"], record["method"]
        curve = record["by_members"]
        assert [row["members"] for row in curve] == list(range(1, len(curve) + 1))
        assert (
            len(curve) == len(record["member_acc"]) == (3 if record["model"] == "deep_ensemble" else record["members"])
        )
        for row in curve if record["model"] == "deep_ensemble" else curve[-1:]:
            theirs = own[(*kind, row["members"], record["seed"])]
            for metric in row.keys() - {"members"}:
                assert row[metric] == pytest.approx(theirs[metric], rel=1e-6, abs=1e-9)


def test_each_member_alone_has_its_own_accuracy(folder, whole):
    test = load("digits", None, False, 64).test
    for record in whole["rows"]:
        method = None if record["model"] == "deep_ensemble" else record["method"]
        size = 3 if record["model"] == "deep_ensemble" else None
        net = load_model(folder / "run", record["model"], method, record["seed"], members=size).net
        votes = predict(net, test).argmax(-1)
        assert record["member_acc"] == pytest.approx([float((vote == test.labels).double().mean()) for vote in votes])
        assert record["by_members"][0]["acc"] == pytest.approx(record["member_acc"][0])


def test_a_record_has_what_its_network_can_have(whole):
    for record in whole["rows"]:
        assert ("gradients" in record) == (record["model"] != "deep_ensemble")
        assert ("diversity" in record) == ("transfer" in record) == (record["members"] > 1)
        assert list(record["ood"]) == ["test", "turned"]
        assert list(record["shift"]) == ["test", "mirror"]
        assert [record["ood"][name]["n"] for name in record["ood"]] == [IMAGES, IMAGES]
        assert list(record["corruptions"]["acc"]) == ["fog"]
        assert len(record["corruptions"]["acc"]["fog"]) == 5
        # severity 1 of these corruptions is the test images as they are
        for metric in ("acc", "nll", "ece", "cal_nll", "cal_ece"):
            found = record["corruptions"][metric]["fog"][0]
            assert found == pytest.approx(record["shift"]["test"][metric], rel=1e-5, abs=1e-7)
        if record["members"] > 1:
            assert list(record["diversity"]) == ["train", "validation", "test"]
            assert list(record["diversity"]["test"]) == ["clean", "gaussian", "ods", "confods"]
            for split in ("train", "test"):
                clean = record["diversity"][split]["clean"]["pairwise_kl"]
                assert record["transfer"][split]["clean"] == pytest.approx(clean, rel=1e-5)
                assert record["transfer"][split]["external"] is not None
                assert record["transfer"][split]["sibling"] is None  # two teachers
            clean = record["diversity"]["test"]["clean"]["pairwise_kl"]
            assert record["shift"]["test"]["pairwise_kl"] == pytest.approx(clean, rel=1e-5)
    assert whole["corruptions"]["source"] == "published arrays"
    assert (whole["corruptions"]["kinds"], whole["corruptions"]["n"]) == (["fog"], IMAGES)
    assert [(one["name"], one["use"], one["n"]) for one in whole["sets"]] == [
        ("turned", "ood", IMAGES), ("mirror", "shift", IMAGES)
    ]  # fmt: skip


def test_a_killed_analysis_resumes_to_the_same_records(folder, whole, monkeypatch):
    """Killed within the third of six networks; the two that were complete are not analysed again."""
    calls, match = iter(range(100)), probes.gradient_match
    found, analyse = [], SeedAnalysis.analyse

    def killed(*args):
        if next(calls) == 3:
            raise Killed
        return match(*args)

    def counted(self, model, method):
        found.append((self.seed, model, method))
        return analyse(self, model, method)

    out = folder / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(probes, "gradient_match", killed)
        with pytest.raises(Killed):
            analysed(folder, out)
    assert not (out / "results.json").exists()
    names = [file.stem for file in (out / "jobs").glob("*.json")]
    assert sorted(names) == ["seed3-batch_ensemble-ods", "seed3-deep_ensemble-none"]
    monkeypatch.setattr(SeedAnalysis, "analyse", counted)
    resumed = analysed(folder, out, resume=True)
    assert [(row["seed"], row["model"], row["method"]) for row in whole["rows"]][2:] == found
    assert timeless(resumed) == timeless(whole)
    (out / "jobs" / "seed4-deep_ensemble-none.json").unlink()
    found.clear()
    assert timeless(analysed(folder, out, resume=True)) == timeless(whole)
    assert found == [(4, "deep_ensemble", "none")]


def test_a_run_with_another_runs_teachers_is_analysed_as_one_that_has_them(folder, whole):
    experiment(config(seeds=(3,), teachers=str(folder / "run")), folder / "borrowed")
    found = analysed(folder, folder / "borrowed-analysis", "borrowed")
    assert plain(found["rows"]) == plain(whole["rows"][:3])


@pytest.mark.parametrize(
    ("changes", "networks", "figures"),
    [
        ({"students": ()}, [("deep_ensemble", 2)], {"diversity_by_confidence", "transfer", "transfer_by_confidence"}),
        ({"students": ("single",)}, [("deep_ensemble", 2), ("single", 1)],
         {"diversity_by_confidence", "transfer", "transfer_by_confidence", "gradients"}),
        ({"members": 1, "ladder": 0}, [("deep_ensemble", 1), ("batch_ensemble", 1), ("single", 1)], {"gradients"}),
    ],
)  # fmt: skip
def test_odd_runs_are_analysed_drawn_and_printed(folder, tmp_path, capsys, changes, networks, figures):
    run = f"odd{len(list(folder.iterdir()))}"
    experiment(config(seeds=(3,), **changes), folder / run)
    found = analysed(folder, tmp_path / "out", run)
    assert [(row["model"], row["members"]) for row in found["rows"]] == networks
    for row in found["rows"]:
        assert ("gradients" in row, "transfer" in row) == (row["model"] != "deep_ensemble", row["members"] > 1)
        if row["members"] == 1 and row["model"] != "deep_ensemble":
            assert row["gradients"]["test"]["other"] is None
    json.dumps(plain(found), allow_nan=False)
    drawn = draw(found, tmp_path / "figures")
    assert {path.stem for path in drawn} == {"by_members", "corruptions", "entropy", *figures}
    assert all(path.stat().st_size > 1000 for path in drawn)
    print_tables(found, tmp_path)
    assert "turned: entropy" in " ".join(capsys.readouterr().out.split())


def test_what_was_left_unfinished_is_known_from_the_results(folder):
    results = read_json(folder / "run" / "results.json")
    assert finished(config(), results)
    assert finished(config(seeds=(4,)), results)
    for changes in ({"methods": ("ods", "kd")}, {"seeds": (3, 4, 5)}, {"members": 3}, {"ladder": 4}):
        assert not finished(config(**changes), results)


def test_own_corruptions_are_made_of_the_first_test_images(folder):
    settings, data = configured(folder, corruptions=None)
    made = read_sets(settings, data).corruptions
    assert made.kinds == tuple(STRENGTHS)
    assert len(made) == IMAGES
    assert torch.equal(made.labels, data.test.labels[:IMAGES])


def test_the_sum_of_the_sets_follows_their_bytes(folder, tmp_path):
    settings, data = configured(folder)
    one, again = (read_sets(settings, data).sha256(data) for _ in range(2))
    np.savez(tmp_path / "turned.npz", images=load("digits", None, False, None).test.images[1:31].numpy())
    other = dataclasses.replace(settings, ood=(str(tmp_path / "turned.npz"),))
    assert one == again != read_sets(other, data).sha256(data)


@pytest.mark.parametrize(
    ("name", "words"), [("mirror", "two sets are called mirror; rename"), ("test", "called test, as the run's own")]
)
def test_sets_of_one_name_are_refused(folder, tmp_path, name, words):
    np.savez(tmp_path / f"{name}.npz", images=np.zeros((3, 8, 8, 1), np.uint8))
    settings, data = configured(folder, ood=(str(tmp_path / f"{name}.npz"),))
    with pytest.raises(InputError, match=words):
        read_sets(settings, data)


@pytest.mark.parametrize(
    ("labels", "shape", "words"),
    [(np.arange(10), (8, 6, 1), r"\(1, 8, 6\) and labels up to 9; the run's are \(1, 8, 8\) and 0 to 9"),
     (np.arange(11), (8, 8, 1), "labels up to 10; .* of its own data set")],
)  # fmt: skip
def test_published_corruptions_of_other_images_are_refused(folder, tmp_path, labels, shape, words):
    publish(tmp_path / "other", labels, shape)
    settings, data = configured(folder, corruptions=str(tmp_path / "other"))
    with pytest.raises(InputError, match=words):
        read_sets(settings, data)
