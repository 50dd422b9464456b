"""The networks of a run, read back from its checkpoints for use."""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from divkd.empirical.data import datasets
from divkd.empirical.data.names import DATASETS
from divkd.empirical.data.splits import ImageData
from divkd.empirical.networks.build import build
from divkd.empirical.networks.ensembles import DeepEnsemble, Ensemble
from divkd.empirical.networks.handed import described, reason, whole
from divkd.empirical.training import loop
from divkd.empirical.training.config import TrainConfig
from divkd.empirical.training.distillation import merged, teacher_name
from divkd.empirical.training.students import STUDENTS, student_of
from divkd.shared.errors import InputError, unknown
from divkd.shared.kinds import METHODS, MODELS
from divkd.shared.manifest import bad_config, read_config, read_results
from divkd.shared.run import Run
from divkd.shared.seeds import rng


@dataclass(frozen=True)
class Restored:
    """A network of a run, in eval mode and frozen, and what is needed to use it."""

    net: Ensemble  # images (B, C, H, W), floats in [0, 1], to member logits (M, B, K)
    model: str  # of `divkd.shared.kinds.MODELS`
    method: str  # how it learned; "none" for a deep ensemble
    members: int
    seed: int
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  # of an image: C, H, W
    image_size: int | None = None  # what the run scaled its images to, if it did
    temperature: float | None = None  # fitted on its validation images; None before the run is finished

    def __str__(self) -> str:
        by = "" if self.model == "deep_ensemble" else f" by {self.method}"
        return f"{self.model}{by}, {self.members} member{'s' * (self.members > 1)}, seed {self.seed}"


def load_model(
    run: Path | str,
    model: str | None = None,
    method: str | None = None,
    seed: int | None = None,
    device: str = "cpu",
    members: int | None = None,
) -> Restored:
    """One network of the run of ``divkd train`` in the folder `run`, finished or not, if its own training is finished.

    model    "batch_ensemble", "deep_ensemble" (all of the run's teachers), "single", or "merged": the BatchEnsemble's
             mean factors in one network, for which the run's data must still be there, as BatchNorm's statistics are
             taken anew. By default the first of these students that the run has, or the deep ensemble where it has none
    method   of the student, by default the last that the run names
    seed     by default the run's first
    members  of the deep ensemble, by default those that teach; a run's ladder may hold more

    Returns a `Restored`: its `net` takes images (B, C, H, W), floats in [0, 1], to member logits (M, B, K).
    Raises `InputError` where the run has no such network, or its checkpoint is absent, unfinished or damaged.
    """
    folder = _folder(run)
    config, facts = _read(folder)
    where = _device(device)
    held = [student for student in STUDENTS if student in config.students and config.methods]
    model = model or next(iter(held), "deep_ensemble")
    _choose(folder, config, model, method, seed)
    count = config.members if members is None else whole("members", members, 1)
    seed = config.seeds[0] if seed is None else seed
    shape = tuple(facts["shape"])

    def plain(network: str) -> nn.Module:
        sizes = (len(facts["class_names"]), tuple(facts["mean"]), tuple(facts["std"]))
        return build(network, *sizes, rng(0, "restore")).to(where)

    if model == "deep_ensemble":
        method = "none"
        source, theirs, their_facts = folder, config, facts
        if config.teachers is not None:
            source = Run(Path(config.teachers))
            theirs, their_facts = _read(source)
        if their_facts["sha256"] != facts["sha256"]:
            raise InputError(f"the teachers' run {source.path} has other data now; make it again, or take a student")
        nets = [plain(theirs.teachers_network) for _ in range(count)]
        for m, teacher in enumerate(nets):
            # saved as an ensemble of one
            _fill(DeepEnsemble([teacher]), teacher_name(seed, m), theirs.teacher.epochs, source, theirs, seed)
        net: Ensemble = DeepEnsemble(nets)
    else:
        method, kind = method or config.methods[-1], student_of(model)
        net = kind.create(plain(config.network), config.members, seed).to(where)
        _fill(net, kind.checkpoint(method, config.members, seed), config.student.epochs, folder, config, seed)
        if model == "merged":
            net = merged(net, _data(folder, config, facts, "the merged network").to(where))
    if members not in (None, net.members):
        raise InputError(f"{model} of {folder.path} has {net.members} members, not {members}; leave members out")
    names: dict[str, Any] = {"model": model, "method": method, "members": net.members, "seed": seed}
    return Restored(
        net.eval().requires_grad_(False),
        **names,
        class_names=tuple(facts["class_names"]),
        shape=shape,
        image_size=config.image_size,
        temperature=_temperature(folder, names),
    )


def _folder(run: Any) -> Run:
    if not isinstance(run, str | Path):
        raise InputError(f"run is {described(run)}; give the path of a folder that divkd train wrote")
    return Run(Path(run))


def _device(name: Any) -> torch.device:
    """The device `name`, if there is one; raises `InputError` otherwise."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"there is no device {name!r} here ({reason(error)}); give 'cpu', 'cuda' or 'cuda:N'"
        ) from error
    return device


def _read(run: Run) -> tuple[TrainConfig, dict[str, Any]]:
    """The configuration of `run` and what it knows of its data."""
    content = read_config(run.path) if (run.path / "config.json").is_file() else {}
    if content.get("command") != "train cifar":
        raise InputError(f"{run.path} is no run of divkd train; give the folder that it wrote")
    values: Any = content["config"]
    facts: Any = content.get("data")
    try:
        # The networks need nothing of the data set, so one's own images may be gone: the name is not checked.
        config = TrainConfig.from_dict({**values, "dataset": "digits"})
    except InputError as error:
        raise bad_config(run.path, str(error)) from error
    if not isinstance(values.get("dataset"), str):
        raise bad_config(run.path, f"dataset is {values.get('dataset')!r:.60}")
    if wrong := _wrong(facts):
        raise bad_config(run.path, f"it does not say the {wrong} of its data")
    return dataclasses.replace(config, dataset=values["dataset"]), facts


def _wrong(facts: Any) -> str | None:
    """Which of the facts of data (`ImageData.facts`) is not as it should be."""

    def numbers(value: Any, kinds: tuple[type, ...], above: float) -> bool:
        return isinstance(value, list) and all(type(one) in kinds and above < one < math.inf for one in value)

    known = facts if isinstance(facts, dict) else {}
    names: Any = known.get("class_names")
    shape: Any = known.get("shape")
    if not numbers(shape, (int,), 0) or len(shape) != 3:
        return "shape"
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        return "class_names"
    for name, above in (("mean", -math.inf), ("std", 0.0)):
        if not numbers(known.get(name), (int, float), above) or len(known[name]) != shape[0]:
            return name
    return None if isinstance(known.get("sha256"), str) else "sha256"


def _choose(run: Run, config: TrainConfig, model: str, method: str | None, seed: int | None) -> None:
    """Raise `InputError` unless `config` names such a network."""
    if str(model) not in MODELS:
        raise unknown("model", str(model), MODELS)
    if method is not None and str(method) not in METHODS:
        raise unknown("method", str(method), METHODS)
    if seed is not None and seed not in config.seeds:
        raise InputError(f"{run.path} has no seed {seed!r}; it has {', '.join(map(str, config.seeds))}")
    if model == "deep_ensemble":
        if method is not None:
            raise InputError(f"a deep ensemble has no method, and {method!r} was given; leave it out or take a student")
        return
    if student_of(model).name not in config.students:
        held = ", ".join(config.students) or "no student"
        raise InputError(f"{run.path} has no {model}; its students: {held}; its deep ensemble is there too")
    if not config.methods or (method is not None and method not in config.methods):
        held = ", ".join(config.methods) or "none was run"
        raise InputError(f"{run.path} has no student by {method}; methods of its students: {held}")


def _finished(run: Run, config: TrainConfig, seed: int) -> str:
    """The networks of `seed` in `run` whose training is finished, in words."""

    def done(name: str, epochs: int) -> bool:
        try:
            checkpoint = run.load(name)
            return checkpoint is not None and loop.epoch_of(checkpoint[1], epochs, name, run) == epochs
        except InputError:  # damaged
            return False

    held = [
        f"{student} by {method}"
        for student, method in itertools.product(config.students, config.methods)
        if done(STUDENTS[student].checkpoint(method, config.members, seed), config.student.epochs)
    ]
    if all(done(teacher_name(seed, m), config.teacher.epochs) for m in range(config.members)):
        held.append("deep_ensemble")
    return ", ".join(held) or "no network"


def _fill(net: nn.Module, name: str, epochs: int, run: Run, config: TrainConfig, seed: int) -> None:
    """Put the finished checkpoint `name` into `net`."""
    epoch, _, _ = loop.load(net, torch.optim.SGD(net.parameters(), lr=0.0), epochs, name, run)
    if epoch < epochs:
        state = f"only {epoch} of {epochs} epochs of it are there" if epoch else "it is not there"
        raise InputError(
            f"{run.path} has no finished {name}: {state}; finished are: {_finished(run, config, seed)}; "
            "--resume goes on with the others"
        )


def load_run(run: Path | str) -> tuple[TrainConfig, ImageData]:
    """The configuration of the run of ``divkd train`` in the folder `run`, and the images that it learned from.

    Raises `InputError` where it is no such run, or its images are gone or others now.
    """
    folder = _folder(run)
    config, facts = _read(folder)
    return config, _data(folder, config, facts, "an analysis")


def _data(run: Run, config: TrainConfig, facts: dict[str, Any], what: str) -> ImageData:
    """The images that the run learned from, which `what` needs."""
    if config.dataset not in DATASETS and not Path(config.dataset).exists():
        raise InputError(f"{what} needs the data of {run.path}, and {config.dataset} is gone; restore it")
    try:
        data = datasets.load(
            config.dataset, config.data_dir, False, config.train_images, config.image_size, config.split, config.views
        )
    except InputError as error:
        raise InputError(f"{what} needs the data of {run.path}: {error}") from None
    if data.facts()["sha256"] != facts["sha256"]:
        raise InputError(f"{what} needs the data of {run.path}, and {config.dataset} has changed; restore it")
    return data


def _temperature(run: Run, names: dict[str, Any]) -> float | None:
    """The temperature of the row of results.json with these `names`, where the run is finished."""
    if not (run.path / "results.json").exists():
        return None
    results = read_results(run.path)
    try:
        found = [row["temperature"] for row in results["rows"] if names.items() <= row.items()]
        if any(type(one) not in (int, float) or not 0 < one < math.inf for one in found):
            raise TypeError(f"temperature {found[0]!r}")
    except (LookupError, TypeError, AttributeError) as error:
        again = f"the command that made it, with --resume --out {run.path}, writes it anew"
        raise InputError(f"{run.path}/results.json is damaged ({error!r:.80}); {again}") from error
    return float(found[0]) if found else None
