"""Time and memory of the evaluation at the sizes that its limits are stated for.

(8, 10,000, 100) without and with the deep ensemble equivalent (255 subsets), with 1,000 bootstrap draws, and
(4, 1,000,000, 10). Each case runs in a process of its own, so that its peak memory is its own: the whole process, with
torch and the input array. Medians of wall-clock and of CPU seconds.

    python benchmarks/metrics.py [--rounds 3] [--threads 2]
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch

from divkd.shared.metrics.dee import equivalent_curve
from divkd.shared.metrics.evaluation import evaluate_predictions
from divkd.shared.metrics.predictions import PredictedSplit, Predictions

CASES = {
    "all but DEE, (8, 10,000, 100)": ((8, 10_000, 100), "evaluate", "under 1 s"),
    "DEE, (8, 10,000, 100) and as many val": ((8, 10_000, 100), "dee", "under 30 s"),
    "1,000 bootstrap draws, (8, 10,000, 100)": ((8, 10_000, 100), "bootstrap", "no limit stated"),
    "all but DEE, (4, 1,000,000, 10)": ((4, 1_000_000, 10), "evaluate", "under 5 s and 2 GB"),
}


def split(shape: tuple[int, int, int], seed: int) -> PredictedSplit:
    """Float32 log-probabilities of members that see noisy versions of what the labels are drawn from."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(shape[1:], generator=generator) * 2
    labels = (truth - torch.rand(shape[1:], generator=generator).log_().neg_().log_()).argmax(-1)
    log_probs = torch.empty(shape)
    for member in log_probs:  # one at a time: the peak is to be the evaluation's
        member.copy_(torch.log_softmax(2 * (truth + torch.randn(shape[1:], generator=generator)), -1))
    return PredictedSplit(log_probs, labels, None)


def measure(name: str, rounds: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    shape, work, _ = CASES[name]
    test = split(shape, 0)
    val = split(shape, 1) if work == "dee" else None
    wall, cpu = [], []
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        if val is not None and val.labels is not None and test.labels is not None:
            equivalent_curve(val.log_probs, val.labels, test.log_probs, test.labels)
        else:
            evaluate_predictions(Predictions(test, None, None), resamples=1000 if work == "bootstrap" else 0)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, KiB (nearly) elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"wall": statistics.median(wall), "cpu": statistics.median(cpu), "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.rounds, arguments.threads)))
        return
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {arguments.threads} threads, "
          f"median of {arguments.rounds} rounds")  # fmt: skip
    print(f"{'':40}{'wall, s':>9}{'CPU, s':>9}{'peak, GB':>10}   limit")
    for name, (_, _, limit) in CASES.items():
        command = [sys.executable, __file__, "--case", name, "--rounds", str(arguments.rounds)]
        command += ["--threads", str(arguments.threads)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{name:40}{found['wall']:9.2f}{found['cpu']:9.2f}{found['peak']:10.2f}   {limit}", flush=True)


if __name__ == "__main__":
    main()
