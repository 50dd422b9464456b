"""A CIFAR-10 table by the preset `gpu`, in stages of one run that each make a table; and the tests, file by file.

The run is `divkd train cifar10 --preset gpu --seeds 0`, first with four networks and the methods none and kd, then with
all methods, then with the ladder of eight, then with seeds 1 and 2, by --resume. Members are trained one after another:
training them together is not built. Networks are compiled where the piece `forms` found that faster.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from forms import fastest
from measure import OutOfTime, Piece, Record, Setting

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("none", "kd", "gaussian", "ods", "confods")
STAGES = {  # what each adds to the one before
    "none and kd": (("none", "kd"), 0, "0"),
    "all methods": (METHODS, 0, "0"),
    "ladder of 8": (METHODS, 8, "0"),
    "seeds 0 to 2": (METHODS, 8, "0,1,2"),
}
MINIATURE = ("--preset", "smoke", "--epochs", "2", "--train-images", "40", "--members", "2")


def bounded(command: list[str], seconds: float, output: int | None = None) -> tuple[int | None, str]:
    """Run `command`, and end all that it started after so many seconds: its exit code, None if it was ended; output."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=output, stderr=None, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"})  # fmt: skip
    try:
        said, _ = process.communicate(timeout=max(seconds, 1))
        return process.returncode, said or ""
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tested(file: str, setting: Setting) -> Record:
    """The last line of pytest; raises where a test failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", file]
    code, said = bounded(command, setting.left - 5, subprocess.PIPE)
    print(said, end="", flush=True)
    if code is None:
        raise OutOfTime
    if code:
        raise RuntimeError(
            "; ".join(line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))) or said
        )
    return {"said": said.splitlines()[-1]}


def tests(piece: Piece) -> None:
    """Run the tests that need a CUDA device; those that failed are run again in every call."""
    files = sorted(file for file in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in file.read_text("utf-8"))
    try:
        for file in files[: 1 if piece.setting.miniature else None]:
            name = file.relative_to(ROOT).as_posix()
            piece.case(name, partial(tested, name, piece.setting), 30, again=True)
    finally:
        rows = [(name, str(case["said"])) for name, case in piece.cases.items() if "said" in case]
        piece.page("The tests on the GPU", "`pytest -m gpu`, file by file.", ("file", "pytest said"), rows)


def stage(name: str, piece: Piece) -> Record:
    """Go on with the run until this stage is done, and keep its results."""
    setting, (methods, ladder, seeds) = piece.setting, STAGES[name]
    run, choice = setting.run, piece.folder / "options.json"
    if not choice.exists():  # the same for all stages
        known = json.loads(path.read_text("utf-8")) if (path := setting.root / "gpu-forms/cases.json").exists() else {}
        both = ("sequential plain", "sequential compiled")
        best = fastest(known.get("cases", {}), "deep ensemble", "bfloat16", both)
        choice.write_text(json.dumps(["--compile", "on" if "compiled" in best and not setting.miniature else "off"]))
    command = [sys.executable, "-m", "divkd", "train"]
    command += (
        ["digits", *MINIATURE] if setting.miniature else ["cifar10", "--preset", "gpu", "--data-dir", setting.data]
    )
    command += json.loads(choice.read_text("utf-8"))
    command += [word for method in methods for word in ("--method", method)]
    command += ["--ladder", str(ladder), "--seeds", seeds]
    command += ["--device", str(setting.device), "--jobs", "1", "--out", str(run)]
    code, _ = bounded([*command, *(["--resume"] if (run / "config.json").exists() else [])], setting.left - 5)
    if code is None:
        raise OutOfTime
    if code:
        raise RuntimeError(f"divkd train ended with {code}: see above")
    shutil.copy(run / "results.json", piece.folder / "run.json")
    shutil.copy(run / "config.json", piece.folder / "config.json")
    return {"command": " ".join(command[2:]), "seconds": json.loads((run / "results.json").read_text())["seconds"]}


def table(piece: Piece) -> None:
    """Train as far as the time reaches, and write the table of the last stage that is done."""
    try:
        for name in list(STAGES)[: 2 if piece.setting.miniature else None]:
            if "failed" in piece.case(name, partial(stage, name, piece), 20, again=True):
                break  # the next would fail alike
    finally:
        done = [name for name, case in piece.cases.items() if "seconds" in case]
        rows, file = [], piece.folder / "run.json"
        for row in json.loads(file.read_text("utf-8"))["summary"] if file.exists() else []:
            measures = [row.get(key) for key in ("acc", "nll", "cal_nll", "cal_ece", "dee")]
            cells = [f"{one['mean']:.3f} ± {one['std'] or 0:.3f}" if one else "" for one in measures]
            rows.append((row["model"], row["method"], str(row["members"]), *cells, str(row["acc"]["n"])))
        text = f"{__doc__.strip()}\n\nDone: {', '.join(done) or 'no stage'}. Mean and standard deviation over n"
        head = ("model", "method", "M", "accuracy", "NLL", "calibrated NLL", "calibrated ECE", "DEE", "n")
        piece.page("CIFAR-10 by the preset gpu", f"{text} seeds (of one seed 0).", head, rows)
