"""A Dask cluster of one scheduler and two worker processes on this machine; worker processes are killed."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from jobs_to_do import die, draw, fail, graph
from safetensors.numpy import load_file

from divkd.cli.main import run as command
from divkd.shared import jobs
from divkd.shared.errors import InputError, RunError
from divkd.shared.jobs import Job, Workers
from divkd.shared.progress import Progress
from divkd.shared.run import open_run

pytest.importorskip("distributed", reason="divkd does without Dask")
FOLDERS = [str(Path(__file__).parent), str(Path(jobs.__file__).parents[2])]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(FOLDERS),
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s",
}


class Local:
    """The processes of a cluster."""

    def __init__(self, folder, workers):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address, self.folder = f"tcp://127.0.0.1:{port}", folder
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        self.workers = [self.worker() for _ in range(workers)]

    def start(self, *words):
        with open(self.folder / "cluster.log", "ab") as log:
            command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
            return subprocess.Popen(command, env=ENVIRONMENT, cwd=self.folder, stdout=log, stderr=log)

    def worker(self):
        # without a nanny, so that the process which is killed is the one that computes
        local = ("--no-nanny", "--no-dashboard", "--local-directory", str(self.folder), "--death-timeout", "60")
        return self.start("worker", self.address, "--nthreads", "1", *local)

    def end(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    local = Local(tmp_path_factory.mktemp("cluster"), 2)
    yield local
    local.end()


@pytest.fixture
def doomed(tmp_path):
    local = Local(tmp_path, 1)
    yield local
    local.end()


def begun(path):
    return open_run(path, "test", {}, resume=path.exists())


def over(local):
    return Workers(Progress(quiet=True), cluster=local.address)


def lines(run):
    return [line.split() for line in (run.path / "made").read_text().splitlines()]


def test_forty_jobs_over_two_workers_of_which_one_is_killed(cluster, tmp_path, monkeypatch):
    """None is lost, none is done twice: what the dead one had begun goes on from its checkpoint, in the other."""
    steps, count = 3, 40
    alone = Workers(Progress(quiet=True)).records(graph(count, steps), begun(tmp_path / "alone"))
    run = begun(tmp_path / "run")
    victim, take = cluster.workers[0], jobs._Crew._take

    def taken(crew, future, records):
        take(crew, future, records)
        if len(records) == 10:
            victim.send_signal(signal.SIGKILL)

    monkeypatch.setattr(jobs._Crew, "_take", taken)
    monkeypatch.chdir(tmp_path)
    run.path = run.path.relative_to(tmp_path)  # as --out is given; the workers run in another folder
    run.jobs, run.checkpoints = run.path / "jobs", run.path / "checkpoints"
    records = over(cluster).records(graph(count, steps, 0.05), run)
    assert records == alone
    assert victim.wait() == -signal.SIGKILL
    made = lines(run)
    by_job = {name: [pid for job, _, pid in made if job == name] for name, _, _ in made}
    assert len(by_job) == count
    # the step under way when its process died may have left its line and not its checkpoint
    assert count * steps <= len(made) <= count * steps + 1
    both = [name for name, pids in by_job.items() if len(set(pids)) == 2]
    assert len(both) <= 1
    pids = {pid for _, _, pid in made}
    assert str(victim.pid) in pids
    assert len(pids) == 2
    cluster.workers.append(cluster.worker())


def test_an_orphan_and_its_successor_never_both_work(cluster, tmp_path):
    """A command is killed; its jobs go on in the cluster, and those of the command that resumes wait for them."""
    path = tmp_path / "run"
    program = f"""
from pathlib import Path
from test_cluster import *
over(type("Local", (), {{"address": {cluster.address!r}}})).records(graph(2, 8, 0.25), begun(Path({str(path)!r})))
"""
    first = subprocess.Popen([sys.executable, "-c", program], env=ENVIRONMENT)
    while not (path / "made").exists():
        time.sleep(0.02)
    first.kill()
    first.wait()
    run = begun(path)
    alone = Workers(Progress(quiet=True)).records(graph(2, 8), begun(tmp_path / "alone"))
    assert Workers(Progress(quiet=True), 2).records(graph(2, 8, 0.25), run) == alone
    assert len(lines(run)) == 16


def test_a_job_that_fails_is_named_and_what_is_finished_stays(cluster, tmp_path):
    run = begun(tmp_path / "run")
    with pytest.raises(RunError, match=r"^broken: no convergence$"):
        over(cluster).records([*graph(2), Job("broken", partial(fail, "no convergence"), ("draw0",))], run)
    assert run.kept("draw0") is not None
    # the cluster is there for the next
    assert over(cluster).records(graph(2), run)["sum"]


@pytest.mark.slow
def test_networks_of_a_cluster_are_those_of_one_process_bit_for_bit(cluster, tmp_path):
    line = "train digits --members 2 --ladder 0 --train-images 130 --method confods --epochs 2 --device cpu"
    assert command(f"{line} --jobs 1 --out {tmp_path}/alone".split()) == 0
    assert command(f"{line} --dask {cluster.address} --out {tmp_path}/far".split()) == 0
    names = sorted(path.name for path in (tmp_path / "alone" / "checkpoints").iterdir())
    assert len(names) == 4
    for name in names:
        alone, far = (load_file(tmp_path / run / "checkpoints" / name) for run in ("alone", "far"))
        assert alone.keys() == far.keys()
        assert all(alone[key].tobytes() == far[key].tobytes() for key in alone)


def test_what_the_workers_cannot_import_is_said(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def work(run, progress):\n    return {}\n")
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("only_here").work
    with pytest.raises(RunError, match=r"^far: .* cannot import .*only_here.*; give .* the same environment as here$"):
        over(cluster).records([Job("far", work)], begun(tmp_path / "run"))


def test_a_job_that_kills_its_workers_is_given_up(doomed, tmp_path):
    doomed.workers += [doomed.worker() for _ in range(3)]
    victims = [Job("victim", partial(die, "ever", 99))]
    with pytest.raises(RunError, match=r"^victim: the workers .* died under it .* --resume goes on$"):
        over(doomed).records(victims, begun(tmp_path / "run"))


def test_a_scheduler_that_is_absent_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("divkd.shared.cluster.ANSWER", "1s")
    assert command(f"train digits --dask tcp://127.0.0.1:9 --out {tmp_path}/run".split()) == 2
    assert capsys.readouterr().err.startswith("Error: --dask tcp://127.0.0.1:9: no scheduler answers there; give")
    assert not (tmp_path / "run").exists()


def test_no_scheduler_and_one_that_dies(doomed, tmp_path, monkeypatch):
    monkeypatch.setattr("divkd.shared.cluster.ANSWER", "2s")
    run, one = begun(tmp_path / "run"), [Job("long", partial(draw, "long", 100, 0.1), keeps=("long",))]
    for address in ("tcp://127.0.0.1:9", "nowhere", "x://y:1"):
        with pytest.raises(InputError, match=r"--dask .*: no scheduler answers there; give the address"):
            Workers(Progress(quiet=True), cluster=address).records(one, run)
    take = jobs._Crew._show

    def shown(crew, job, **last):
        if (run.path / "made").exists():
            doomed.scheduler.kill()
        take(crew, job, **last)

    monkeypatch.setattr(jobs._Crew, "_show", shown)
    with pytest.raises(RunError, match=r"^long: the Dask scheduler is gone; start it again, and --resume goes on$"):
        over(doomed).records(one, run)
