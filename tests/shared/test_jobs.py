"""The same records whoever carries the jobs out, in any order and after any kill; nothing is done twice."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from jobs_to_do import add, die, draw, fail, graph, grow

from divkd.shared import jobs
from divkd.shared.errors import RunError
from divkd.shared.jobs import Job, Workers
from divkd.shared.progress import Progress
from divkd.shared.run import open_run

QUIET = Progress(quiet=True)


def begun(path):
    return open_run(path, "test", {}, resume=path.exists())


def made(run):
    return sorted(" ".join(line.split()[:2]) for line in (run.path / "made").read_text().splitlines())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What the graph gives in this process."""
    run = begun(tmp_path_factory.mktemp("alone") / "run")
    return Workers(Progress(quiet=True)).records(graph(), run), run


@pytest.mark.parametrize("count", [2, 3])
def test_records_and_checkpoints_do_not_depend_on_who_computes_them(alone, tmp_path, count):
    records, first = alone
    run = begun(tmp_path / "run")
    assert Workers(Progress(quiet=True), count).records(graph(), run) == records
    for number in range(5):
        assert run.load(f"draw{number}") == first.load(f"draw{number}")
    assert made(run) == made(first)
    assert not list(run.jobs.glob("*.progress"))


def test_any_order_that_the_graph_allows_gives_the_same(alone, tmp_path):
    *drawn, last = graph()
    random.Random(0).shuffle(drawn)
    records = Workers(Progress(quiet=True)).records([*drawn, last], begun(tmp_path / "run"))
    assert records == alone[0]


def test_what_is_done_is_not_done_again_and_what_is_gone_is(alone, tmp_path):
    run = begun(tmp_path / "run")
    Workers(QUIET).records(graph(), run)
    (run.path / "made").unlink()
    run.checkpoint("draw3").unlink()
    assert Workers(QUIET).records(graph(), run) == alone[0]
    assert made(run) == ["draw3 0", "draw3 1", "draw3 2"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_changed_checkpoint_and_a_damaged_record_are_said_and_made_again(alone, tmp_path, count):
    run = begun(tmp_path / "run")
    Workers(QUIET).records(graph(), run)
    path = run.checkpoint("draw1")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit of a weight
    path.write_bytes(content)
    (run.jobs / "sum.json").write_text("{")
    progress = Progress(quiet=True)
    assert Workers(progress, count).records(graph(), run) == alone[0]
    said = "\n".join(progress.said)
    assert re.search(r"draw1.safetensors is not what the run wrote and is set aside; draw1 is done again", said)
    assert re.search(r"sum.json is damaged: .*: sum is done again", said)
    assert (run.checkpoints / "draw1.safetensors.damaged").read_bytes() == content
    assert Workers(QUIET).records(graph(), run) == alone[0]


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_names_its_job_and_leaves_what_is_finished(tmp_path, count):
    run = begun(tmp_path / "run")
    broken = Job("broken", partial(fail, "no convergence"), ("draw0",))
    with pytest.raises(RunError, match="broken: no convergence"):
        Workers(Progress(quiet=True), count).records([*graph(2), broken], run)
    assert run.kept("draw0") is not None


def test_a_job_whose_process_is_killed_is_begun_anew(tmp_path):
    run = begun(tmp_path / "run")
    victims = [Job("victim", partial(die, "once", 1)), Job("other", partial(draw, "other", 4, 0.1), keeps=("other",))]
    assert Workers(Progress(quiet=True), 2).records(victims, run)["victim"] == {"total": 1.0}
    assert made(run) == [f"other {step}" for step in range(4)]  # from its checkpoint: no step was made twice


def test_a_worker_that_keeps_memory_is_kept(tmp_path):
    pytest.importorskip("psutil")  # without it nobody looks
    found = Workers(Progress(quiet=True), 2).records([Job(f"grow{n}", grow) for n in range(5)], begun(tmp_path / "run"))
    assert len({record["pid"] for record in found.values()}) == 2


def test_a_job_that_is_always_killed_is_given_up(tmp_path):
    run = begun(tmp_path / "run")
    victims = [Job("victim", partial(die, "ever", 99)), Job("next", partial(add, ()), ("victim",))]
    with pytest.raises(RunError, match=r"victim was killed 3 times.*--resume with fewer --jobs"):
        Workers(Progress(quiet=True), 2).records(victims, run)


PARENT = """
import sys
from pathlib import Path
from jobs_to_do import graph
from divkd.shared.jobs import Workers
from divkd.shared.progress import Progress
from divkd.shared.run import open_run
run = open_run(Path(sys.argv[1]), "test", {}, resume=Path(sys.argv[1]).exists())
print(Workers(Progress(quiet=True), 2).records(graph(4, 6, 0.1), run)["sum"], flush=True)
"""


def parent(path):
    folders = [str(Path(__file__).parent), str(Path(jobs.__file__).parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", PARENT, str(path)], env=environment, **streams)


def test_after_a_kill_of_the_parent_its_workers_end_and_nothing_is_done_twice(tmp_path):
    path = tmp_path / "run"
    killed = parent(path)
    while not (path / "made").exists():
        time.sleep(0.02)
    second = parent(path)  # while the first is alive
    _, refusal = second.communicate()
    assert f"is in use by process {killed.pid} on" in refusal.splitlines()[-1]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with parent(path) as resumed:
        printed, _ = resumed.communicate()
    whole = Workers(QUIET).records(graph(4, 6), begun(tmp_path / "whole"))
    assert printed.strip() == str(whole["sum"])
    lines = (path / "made").read_text().splitlines()
    # a step whose process died between its line and its checkpoint is made again, one a process at most
    assert len({line.rsplit(" ", 1)[0] for line in lines}) == 24 <= len(lines) <= 26
    killed.stdout.close()
    killed.stderr.close()


def test_memory_bounds_how_many_run_at_once(monkeypatch, capsys):
    monkeypatch.setattr(jobs, "available_memory", lambda: 4_000_000_000)
    workers = Workers(Progress(), 8)
    assert workers._fitting(8, 1_000_000_000) == 2
    assert "2 of 8 jobs at once, as one may take 1.4 GB and 4.0 GB are free" in capsys.readouterr().err
    assert workers._fitting(8, 100_000_000_000) == 1
    assert Workers(QUIET)._fitting(4, 1000) == 4


def test_the_longest_chain_begins_first():
    chain = [Job("a", add, cost=1), Job("b", add, ("a",), cost=5), Job("c", add, cost=3)]
    assert jobs._longest_paths(chain) == {"a": 6, "b": 5, "c": 3}
