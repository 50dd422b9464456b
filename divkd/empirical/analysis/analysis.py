"""Every analysis of a finished training run, network by network: the content of an analysis's results.json."""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from divkd.empirical.analysis import probes, shift
from divkd.empirical.analysis.cost import inference_cost, peak_training_bytes, training_passes
from divkd.empirical.analysis.shift import Foreign
from divkd.empirical.data.cifar_c import read_published
from divkd.empirical.data.corrupt import FAMILIES, Corruptions, generated
from divkd.empirical.data.splits import ImageData, Split, to_float
from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training.config import TrainConfig
from divkd.empirical.training.distillation import predict, student_loss
from divkd.empirical.use.restore import load_model
from divkd.shared.errors import InputError
from divkd.shared.metrics.calibration import fit_temperature
from divkd.shared.metrics.diversity import agreement_matrix
from divkd.shared.metrics.evaluation import evaluate
from divkd.shared.progress import Progress
from divkd.shared.run import Run

CURVE = ("acc", "nll", "brier", "ece", "cal_nll", "cal_brier", "cal_ece", "pairwise_kl")
BATCH = 128  # images, for throughput and memory


@dataclass(frozen=True)
class AnalysisConfig:
    """One `divkd analyse` run."""

    run: str  # the folder of the training run
    images: int  # of each set of images, the first so many; the test split's accuracies are of all
    ood: tuple[str, ...]  # sources of images of other classes
    shift: tuple[str, ...]  # sources of the run's classes, from elsewhere
    corruptions: str | None  # a folder of published arrays; None: our own generator
    device: str
    trained: TrainConfig  # how the networks were trained: another run in the same folder is another analysis


@dataclass(frozen=True)
class Sets:
    """The images of an analysis beside the run's own."""

    ood: tuple[Foreign, ...]
    shift: tuple[Foreign, ...]
    corruptions: Corruptions

    def sha256(self, data: ImageData) -> str:
        """The sum of every byte of the run's `data` and of these sets, but for published corruptions."""
        sums = [data.facts()["sha256"], *(one["sha256"] for one in self.facts())]
        return hashlib.sha256("".join(sums).encode()).hexdigest()

    def facts(self) -> list[dict[str, Any]]:
        """Name, use, size and sum of every set."""
        rows = []
        for use, sets in (("ood", self.ood), ("shift", self.shift)):
            rows += [{"name": s.name, "use": use, "n": len(s.images), "sha256": s.sha256()} for s in sets]
        return rows


def read_sets(config: AnalysisConfig, data: ImageData, data_dir: str | None = None) -> Sets:
    """The sets that `config` names, checked against the run's `data`; named ones lie in `data_dir` or where its own do.

    Raises `InputError`.
    """
    shape, where = tuple(data.test.images.shape[1:]), data_dir or config.trained.data_dir

    def read(sources: tuple[str, ...], labelled: bool) -> tuple[Foreign, ...]:
        return tuple(
            shift.read_foreign(source, shape, data.classes, config.images, where, labelled) for source in sources
        )

    ood, moved = read(config.ood, labelled=False), read(config.shift, labelled=True)
    names = [found.name for found in (*ood, *moved)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two sets are called {twice[0]}; rename one of the files")
    if "test" in names:
        raise InputError("a set is called test, as the run's own test images are in the results; rename the file")
    test = shift.first(data.test, config.images)
    if config.corruptions is None:
        made = generated(test.images.cpu(), test.labels.cpu(), seed=0)
    else:
        made = read_published(Path(config.corruptions), None)
        made = read_published(Path(config.corruptions), min(config.images, len(made)))
        found = tuple(made.images(made.kinds[0], 1).shape[1:])
        if found != shape or int(made.labels.max()) >= data.classes:
            raise InputError(
                f"{config.corruptions} holds images of shape {found} and labels up to {int(made.labels.max())}; the "
                f"run's are {shape} and 0 to {data.classes - 1}: give the corruptions of its own data set"
            )
    return Sets(ood, moved, made)


def networks(config: TrainConfig) -> list[tuple[str, str]]:
    """(model, method) of what is analysed: the teachers and every student."""
    students = [("single" if student == "single" else "batch_ensemble", method)
                for student in config.students for method in config.methods]  # fmt: skip
    return [("deep_ensemble", "none"), *students]


def finished(config: TrainConfig, results: dict[str, Any]) -> bool:
    """Whether `results` has every network of `config`; not so where a finished run was extended and then killed."""
    held = {(row["model"], row["method"], row["members"], row["seed"]) for row in results["rows"]}
    sizes = {"deep_ensemble": config.networks, "single": 1, "batch_ensemble": config.members}
    asked = itertools.product(networks(config), config.seeds)
    return all((model, method, sizes[model], seed) in held for (model, method), seed in asked)


def run_analysis(config: AnalysisConfig, data: ImageData, sets: Sets, out: Run, progress: Progress) -> dict[str, Any]:
    """Analyse every network of the run, or load what `out` holds already, and return the content of results.json.

    A network's record is written when it is complete, so that a killed analysis loses one network at most.
    """
    trained = config.trained
    asked = networks(trained)
    rows = []
    for seed in trained.seeds:
        world = None
        with progress.task(f"analysis of seed {seed}", len(asked)) as task:
            for done, (model, method) in enumerate(asked, 1):
                name = f"seed{seed}-{model}-{method}"
                found = out.load(name)
                if found is None:
                    world = world or World.of(config, data, sets, seed)
                    record = world.analyse(model, method)
                    out.save(name, {}, record)
                else:
                    record = found[1]
                rows.append(record)
                task.update(done, note=f"{model} {method}")
    first = trained.seeds[0]
    return {
        "command": "analyse",
        "preset": trained.preset,
        "dataset": data.name,
        "network": trained.network,
        "split": {"rule": data.rule, "train": len(data.train), "test": len(data.test)},
        "seeds": list(trained.seeds),
        "members": trained.members,
        "images": config.images,
        "sets": sets.facts(),
        "corruptions": {
            "source": sets.corruptions.source.split(" in ")[0],  # without a folder of this machine
            "kinds": list(sets.corruptions.kinds),
            "families": {kind: family for family, kinds in FAMILIES.items() for kind in kinds},
            "n": len(sets.corruptions),
        },
        "rows": rows,
        "training_cost": training_cost(config, data, first),
        "inference": inference(config, tuple(data.test.images.shape[1:]), first),
    }


@dataclass(frozen=True)
class World:
    """What the analyses of one seed's networks share: its teachers and the images moved by them."""

    config: AnalysisConfig
    data: ImageData
    sets: Sets
    seed: int
    ladder: DeepEnsemble
    teachers: DeepEnsemble
    labels: Mapping[str, Tensor]
    moved: Mapping[str, Mapping[str, list[Tensor]]]  # by split and perturbation
    steps: Mapping[str, list[list[Tensor]]]  # by split: moved by an ODS step against each network of the ladder
    cells: Mapping[tuple[str, int], Split]

    @classmethod
    def of(cls, config: AnalysisConfig, data: ImageData, sets: Sets, seed: int) -> "World":
        """The world of `seed`."""
        trained, device = config.trained, torch.device(config.device)
        ladder = load_model(config.run, "deep_ensemble", seed=seed, device=config.device, members=trained.networks).net
        assert isinstance(ladder, DeepEnsemble)
        teachers = DeepEnsemble(list(ladder.nets[: trained.members])).eval()
        named = {"train": data.train, "validation": data.validation, "test": data.test}
        splits = {name: shift.first(split, config.images) for name, split in named.items()}
        step = (data.classes, trained.temperature, trained.step_size, seed)
        return cls(
            config, data, sets, seed, ladder, teachers,
            labels={name: split.labels.cpu() for name, split in splits.items()},
            moved={name: probes.moved(split.images, teachers, *step) for name, split in splits.items()},
            steps={name: probes.steps(splits[name].images, ladder, *step) for name in ("train", "test")},
            cells=shift.corrupted(sets.corruptions, device),
        )  # fmt: skip

    def analyse(self, model: str, method: str) -> dict[str, Any]:
        """Everything that is asked of one network, as one record of results.json."""
        data, trained, device = self.data, self.config.trained, torch.device(self.config.device)
        teaches = model == "deep_ensemble"
        net: nn.Module = self.ladder
        if not teaches:
            net = load_model(self.config.run, model, method, self.seed, self.config.device).net
        validation, test = predict(net, data.validation), predict(net, data.test)
        val_labels, labels = data.validation.labels.cpu(), data.test.labels.cpu()
        record: dict[str, Any] = {"model": model, "method": method, "seed": self.seed}
        record["member_acc"] = (test.argmax(-1) == labels).double().mean(1).tolist()
        record["by_members"] = by_members(validation, val_labels, test, labels)
        record["agreement"] = agreement_matrix(test.argmax(-1)).tolist()

        net = self.teachers if teaches else net
        size = trained.members if model != "single" else 1
        record["members"] = size
        temperature = fit_temperature(validation[:size], val_labels)
        limit = self.config.images
        own = test[:size, :limit]
        foreign = {s.name: predict(net, s.split(device)) for s in self.sets.ood}
        record["ood"] = shift.out_of_distribution(own, foreign)
        record["shift"] = {"test": shift.judged(own, labels[:limit], temperature)}
        for s in self.sets.shift:
            split = s.split(device)
            record["shift"][s.name] = shift.judged(predict(net, split), split.labels.cpu(), temperature)
        record["corruptions"] = shift.corruption_cells(net, self.cells, temperature)
        if size > 1:
            record["diversity"] = {
                split: probes.confidence_diversity(net, inputs, self.labels[split])
                for split, inputs in self.moved.items()
            }
            record["transfer"] = {
                split: probes.transfer(net, self.moved[split]["clean"], steps) for split, steps in self.steps.items()
            }
        if not teaches:
            record["gradients"] = {
                name: probes.gradient_match(
                    net, self.teachers, split.images[:limit], data.classes, trained.temperature, self.seed
                )
                for name, split in (("train", data.train), ("test", data.test))
            }
        return record


def by_members(validation: Tensor, val_labels: Tensor, test: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """The quality of the first 1, 2, ..., M members together, each with a temperature of its own from validation."""
    found = []
    for size in range(1, len(test) + 1):
        row = evaluate(validation[:size], val_labels, test[:size], labels)
        found.append({"members": size, **{key: row[key] for key in CURVE}})
    return found


def training_cost(config: AnalysisConfig, data: ImageData, seed: int) -> list[dict[str, Any]]:
    """What a training step costs, by student and method (`divkd.empirical.analysis.cost`).

    `passes` of one network for each image, and `peak_bytes` of a `batch`, as it was trained: the deep ensemble's
    networks one after another.
    """
    trained = config.trained
    ensemble = load_model(config.run, "deep_ensemble", seed=seed, device=config.device).net
    assert isinstance(ensemble, DeepEnsemble)
    rows: list[dict[str, Any]] = [{"model": "deep_ensemble", "method": "none"}]
    rows += [{"model": model, "method": method} for model, method in networks(trained)[1:]]
    for row in rows:
        model, method = row["model"], row["method"]
        teaches = model == "deep_ensemble"
        schedule = trained.teacher if teaches else trained.student
        net = DeepEnsemble([ensemble.nets[0]]) if teaches else load_model(
            config.run, model, method, seed, config.device).net  # fmt: skip
        loss = student_loss(method, ensemble, data.classes, trained.temperature, trained.kd_weight, trained.step_size)
        batch = shift.first(data.train, schedule.batch_size)
        row["passes"] = training_passes(model, method, trained.members)
        row["batch"] = len(batch)
        row["peak_bytes"] = peak_training_bytes(net, loss, to_float(batch.images), batch.labels)
    return rows


def inference(config: AnalysisConfig, shape: tuple[int, ...], seed: int) -> list[dict[str, Any]]:
    """What an answer costs: the deep ensemble, and by the last method the BatchEnsemble, its merged form, the single.

    Whatever the weights, the arithmetic is the same, so one method stands for all. The first teacher is the plain
    network that the others are compared with where no single student was trained.
    """
    trained = config.trained
    ensemble = load_model(config.run, "deep_ensemble", seed=seed, device=config.device).net
    assert isinstance(ensemble, DeepEnsemble)
    nets: dict[str, nn.Module] = {"single": DeepEnsemble([ensemble.nets[0]]), "deep_ensemble": ensemble}

    def load(model: str) -> nn.Module:
        return load_model(config.run, model, seed=seed, device=config.device).net

    if trained.methods and "single" in trained.students:
        nets["single"] = load("single")
    if trained.methods and "batch_ensemble" in trained.students:
        nets |= {"batch_ensemble": load("batch_ensemble"), "merged": load("merged")}
    channels, height, width = shape
    return inference_cost(nets, (channels, height, width), BATCH, device=config.device, baseline="single")
