"""``divkd predict`` and ``divkd export``: the networks of a run, put to use."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from divkd.cli.options import PATH, check_device, check_file, on_device, together
from divkd.shared.errors import InputError, RunError
from divkd.shared.files import write_bytes
from divkd.shared.kinds import METHODS, MODELS

FIELDS = ("file", "class", "confidence", "entropy", "mutual_information")
BLOCK = 500  # images predicted at a time


# The network of a run.
which = together(
    click.argument("run", type=PATH, metavar="RUN"),
    click.option(
        "--model",
        metavar="|".join(MODELS),
        help="[default: batch_ensemble; in a run without, single; without students, deep_ensemble]",
    ),
    click.option("--method", metavar="|".join(METHODS), help="Of the student. [default: the run's last]"),
    click.option("--seed", type=int, metavar="N", help="Of the network. [default: the run's first]"),
)


@click.command(short_help="Classify images with a network of a run, and say how sure it is.")
@which
@click.argument("images", nargs=-1, required=True, type=PATH, metavar="IMAGES...")
@click.option("--calibrated", is_flag=True, help="Apply the temperature of the run's results.json.")
@click.option("--resize", is_flag=True, help="Scale the centre square of image files to the size of the run's.")
@click.option("--strict", is_flag=True, help="Answer nothing where one image cannot be read.")
@on_device
@click.option("--out", type=PATH, metavar="FILE.csv", help="[default: standard output]")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
def predict(**options: Any) -> None:
    """Predict images with a network of a run: class, and how sure it is, as CSV.

    RUN is a folder that `divkd train` wrote. IMAGES are image files, folders of them, or an .npz file that holds
    images, (N, H, W, C) uint8. Confidence is the probability of the class, entropy (nats) all uncertainty, mutual
    information (nats) the part of it on which the members disagree. What cannot be read is named, the others are
    answered, and the exit code is 1.

    \b
    divkd predict runs/digits photo.png scans/
    divkd predict runs/digits images.npz --model deep_ensemble --out predictions.csv
    """
    if options["out"] is not None:
        check_file(options["out"], options["overwrite"])
    device = check_device(options["device"])

    import csv
    import io

    import torch

    from divkd.empirical.data.files import passed_over
    from divkd.empirical.data.inputs import read_inputs
    from divkd.empirical.data.splits import to_float
    from divkd.empirical.use import predict as use
    from divkd.empirical.use.restore import load_model

    restored = load_model(options["run"], options["model"], options["method"], options["seed"], device)
    temperature = restored.temperature if options["calibrated"] else 1.0
    if temperature is None:
        raise InputError(f"--calibrated: {options['run']} is not finished and has no temperature; leave it out")
    refused: list[InputError] = []
    passed: Counter[str] = Counter()
    how = (restored.shape, restored.image_size, options["resize"], None if options["strict"] else refused, passed)
    names, images = read_inputs(options["images"], *how)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(FIELDS)
    for start in range(0, len(images), BLOCK):
        block = use.predict(restored.net, to_float(torch.from_numpy(images[start : start + BLOCK])), temperature)
        columns = (block.confidence, block.entropy, block.mutual_information)
        for row, (name, number) in enumerate(zip(names[start:], block.classes, strict=False)):
            table.writerow((name, restored.class_names[number], *(f"{column[row]:.6g}" for column in columns)))
    scaled = f", temperature {temperature:.3f}" if options["calibrated"] else ""
    for line in filter(None, (*map(str, refused), passed_over(passed))):
        click.echo(" ".join(line.split()), err=True)
    click.echo(f"{restored}{scaled}; {len(images)} image{'s' * (len(images) > 1)}", err=True)
    content = text.getvalue().encode("utf-8", "surrogateescape")  # the bytes of a file's name, whatever they are
    if options["out"] is None:
        click.echo(content, nl=False)
    else:
        with _writing(options["out"]):
            write_bytes(options["out"], content)
    if refused:
        raise RunError(f"left out, as said above: {len(refused)} of what was given; the others are answered")


@click.command(short_help="Write a network of a run as one file that runs without divkd.")
@which
@click.option("--out", type=PATH, metavar="FILE.pt2", required=True, help="Where to write it.")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
def export(**options: Any) -> None:
    """Write a network of a run as one file that PyTorch runs without divkd (torch.export).

    The program takes images (B, C, H, W), floats in [0, 1], any B, and gives the members' logits (M, B, K). Before it
    is written it is loaded back and compared with the network: logits that differ by more than 1e-5 are refused.

    \b
    divkd export runs/digits --out digits.pt2
    """
    check_file(options["out"], options["overwrite"], ".pt2")

    from divkd.empirical.use.export import export as write
    from divkd.empirical.use.restore import load_model

    restored = load_model(options["run"], options["model"], options["method"], options["seed"])
    with _writing(options["out"]):
        difference = write(restored, options["out"])
    size = options["out"].stat().st_size / 1e6
    click.echo(f"{restored}: {options['out']}, {size:.1f} MB; logits differ by at most {difference:.2g}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path} ({error.strerror or error}); make room and run again") from error
