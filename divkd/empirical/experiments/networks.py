"""What an experiment trains beside teachers, and how it measures: a network alone, or several by one answer."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from divkd.empirical.networks.ensembles import DeepEnsemble
from divkd.empirical.training import known, work
from divkd.empirical.training.config import NetworksConfig
from divkd.empirical.training.distillation import (
    finished,
    label_loss,
    remembered,
    spared,
    student_loss,
    teacher_name,
    teachers_of,
)
from divkd.empirical.training.loop import train
from divkd.empirical.training.plan import step_bytes
from divkd.empirical.training.seed_run import SeedRun
from divkd.empirical.training.work import Source, labels_of, scores
from divkd.shared.jobs import Job
from divkd.shared.progress import Progress
from divkd.shared.run import Run
from divkd.shared.stats import paired, summarise

Row = dict[str, Any]
Rows = list[Row]
Kind = tuple[Any, ...]  # the values of some fields of a row, which make it of a kind with others


class Averaged(nn.Module):
    """(1 / K) sum_k F_k(x): the average of K networks' logits, which is one network of K times the width.

    (B, C, H, W) -> (1, B, classes).
    """

    members = 1

    def __init__(self, networks: DeepEnsemble) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, x: Tensor) -> Tensor:
        """Logits (1, B, classes) of images (B, C, H, W)."""
        logits: Tensor = self.networks(x)
        return logits.mean(0, keepdim=True)


class Student(NamedTuple):
    """A single network that is distilled: from which teachers, at which temperature and weight of their term."""

    name: str
    taught_by: tuple[int, ...]
    temperature: float
    kd_weight: float
    member: int = 0  # of its initial weights and data order

    def checkpoint(self, seed: int) -> str:
        """The name of its checkpoint: one for each set of teachers."""
        few = "".join(f"-{teacher}" for teacher in self.taught_by) if len(self.taught_by) < 3 else ""
        return f"seed{seed}-{self.name}{self.member}-from{len(self.taught_by)}{few}"


def teacher_jobs(source: Source, seed: int) -> list[Job]:
    """The networks that learn from labels; none where they are another run's."""
    config = source.config
    members = range(0 if config.teachers else config.networks)
    return [
        network_job(source, teacher_name(seed, m), partial(work.teacher, source, seed, m), 3 * config.teacher.epochs)
        for m in members
    ]


def network_job(
    source: Source,
    name: str,
    call: Callable[[Run, Progress], Row],
    passes: int,
    after: Iterable[str] = (),
    together: int = 1,
) -> Job:
    """The job that trains the network `name`, in so many forward `passes` of one network for each training image.

    `together` is how many networks it is made of.
    """
    cost = float(passes * len(source.data.train))
    return Job(name, call, tuple(after), (name,), networks=1, cost=cost, memory=_memory(source, together))


@lru_cache(2)
def _memory(source: Source, together: int) -> int:
    """`step_bytes`, which takes longer than to list the jobs of a run."""
    return step_bytes(source.config, source.data, together)


def average_job(source: Source, seed: int) -> Job:
    """The average of as many networks as there are teachers, from the teachers' initial weights, trained as one."""
    members, name = source.config.members, average_name(source.config, seed)
    passes = 3 * members * source.config.teacher.epochs
    return network_job(source, name, partial(average, source, seed), passes, together=members)


def average_name(config: NetworksConfig, seed: int) -> str:
    """The name of its checkpoint."""
    return f"seed{seed}-average{config.members}"


def average(source: Source, seed: int, run: Run, progress: Progress) -> Row:
    """Train the average of networks on labels: CE((1/K) sum_k F_k(x), y)."""
    seed_run = SeedRun(source.config, source.data, seed, run, progress)
    net, name = averaged(seed_run), average_name(source.config, seed)
    return {"seconds": train(seed_run, net, label_loss, source.config.teacher, "average", 0, name)}


def averaged(seed_run: SeedRun) -> Averaged:
    """The average of fresh networks, which have the teachers' initial weights."""
    config = seed_run.config
    return Averaged(DeepEnsemble([seed_run.plain(config.network, "teacher", m) for m in range(config.members)]))


def student_job(source: Source, seed: int, student: Student) -> Job:
    """The job of a distilled network: 3 forward passes of its own an image, and one of each teacher not `spared`."""
    config, epochs, count = source.config, source.config.student.epochs, len(student.taught_by)
    after = () if config.teachers else (teacher_name(seed, teacher) for teacher in student.taught_by)
    passes = (3 + count) * epochs - spared(config, source.data, epochs, count)
    return network_job(source, student.checkpoint(seed), partial(distilled, source, seed, student), passes, after)


def distilled(source: Source, seed: int, student: Student, run: Run, progress: Progress) -> Row:
    """Train a single network on (1 - a) CE(S(x), y) + a KD(T(x), S(x)) of its teachers, `training.distillation`'s."""
    seed_run = SeedRun(source.config, source.data, seed, run, progress)
    teachers, _ = teachers_of(seed_run, max(student.taught_by) + 1)
    chosen = DeepEnsemble([teachers.nets[m] for m in student.taught_by]).eval()
    chosen = remembered(seed_run, chosen, source.config.student.epochs)
    loss = student_loss("kd", chosen, student.temperature, student.kd_weight, 0.0)
    net, name = fresh(seed_run, student.member), student.checkpoint(seed)
    return {"seconds": train(seed_run, net, loss, source.config.student, "student", student.member, name)}


def fresh(seed_run: SeedRun, member: int) -> DeepEnsemble:
    """A student before training."""
    return DeepEnsemble([seed_run.plain(seed_run.config.network, "student", member)])


def trained(seed_run: SeedRun, students: Iterable[Student]) -> DeepEnsemble:
    """The finished `students`, as one ensemble."""
    nets = []
    for student in students:
        net = fresh(seed_run, student.member)
        finished(net, seed_run.config.student.epochs, student.checkpoint(seed_run.seed), seed_run.run)
        nets.append(net.nets[0])
    return DeepEnsemble(nets).eval()


class Answered(NamedTuple):
    """What the members of a network answer: to validation, test and training images, and to the probes of views."""

    seed_run: SeedRun
    predictions: tuple[Tensor, Tensor, Tensor]
    probed: Tensor | None

    def row(self, model: str, members: Sequence[int], number: int = 0, **names: Any) -> Row:
        """What some `members` answer together, as a row of results.json.

        {model, **names, seed, networks, number} and the scores of test predictions, calibrated on the validation
        images; of data whose views are known, `views_missed`.
        """
        config, chosen = self.seed_run.config, list(members)
        row = {"model": model, **names, "seed": self.seed_run.seed, "networks": len(chosen), "number": number}
        row |= scores([answers[chosen] for answers in self.predictions], labels_of(self.seed_run.data))
        if config.views and self.probed is not None:
            row["views_missed"] = known.missed(known.row(self.probed[:, chosen], config.views, {}))
        return row


def answered(seed_run: SeedRun, net: nn.Module) -> Answered:
    """What `net` answers: each image is seen once, whatever is asked of its members then."""
    return Answered(seed_run, seed_run.predictions(net), known.answers(seed_run, net))


def rows(seed_run: SeedRun, model: str, net: nn.Module, *, alone: bool = False, **names: Any) -> Rows:
    """What the members of `net` answer together, or each `alone` (a row each, by `number`), as rows of results.json."""
    found = answered(seed_run, net)
    members = range(len(found.predictions[0]))
    asked = [[member] for member in members] if alone else [list(members)]
    return [found.row(model, chosen, number, **names) for number, chosen in enumerate(asked)]


def metrics(row: Row) -> list[str]:
    """The keys of the metrics of a row."""
    return [key for key, value in row.items() if key not in ("seed", "networks", "number") and type(value) is float]


def summary(rows: Rows, by: tuple[str, ...] = ("model",)) -> Rows:
    """Every metric as {mean, std, n} over seeds, of a seed's networks of one kind their mean; a line for each kind.

    `networks` is how many stand behind one answer, `count` how many answers a seed has.
    """
    lines = []
    for key, seeds in _by_seed(rows, by).items():
        first = next(iter(seeds.values()))
        line = dict(zip(by, key, strict=True)) | {"networks": first[0]["networks"], "count": len(first)}
        lines.append(line | {name: summarise(_means(seeds, name)) for name in metrics(first[0])})
    return lines


def differences(rows: Rows, pairs: Iterable[tuple[Kind, Kind]], by: tuple[str, ...] = ("model",)) -> Rows:
    """Paired differences over seeds of what both of a pair were measured by: {**by, against_*, metric: `paired`}."""
    kinds, lines = _by_seed(rows, by), []
    for ours, theirs in pairs:
        one, other = kinds[ours], kinds[theirs]
        shared = [name for name in metrics(next(iter(one.values()))[0]) if name in next(iter(other.values()))[0]]
        line = dict(zip(by, ours, strict=True)) | {f"against_{name}": key for name, key in zip(by, theirs, strict=True)}
        lines.append(line | {name: paired(_means(one, name), _means(other, name)) for name in shared})
    return lines


def _by_seed(rows: Rows, by: tuple[str, ...]) -> dict[Kind, dict[int, Rows]]:
    kinds: dict[Kind, dict[int, Rows]] = {}
    for row in rows:
        kinds.setdefault(tuple(row[name] for name in by), {}).setdefault(row["seed"], []).append(row)
    return kinds


def _means(seeds: dict[int, Rows], name: str) -> list[float]:
    return [sum(row[name] for row in same) / len(same) for same in seeds.values()]
