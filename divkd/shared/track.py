"""Curves of a run's networks as they are trained: a table for any tool, and event files for TensorBoard.

RUN/epochs.csv                    one line an epoch; of a simulated network one, where it fits, its steps the epoch
RUN/tensorboard/NETWORK/events.*  the same numbers, where the run has the folder: a file a network and process
"""

import functools
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from divkd.shared.errors import InputError
from divkd.shared.files import append

HEAD = "network,epoch,loss,acc,seconds"
EVENTS = "tensorboard"


class Curves:
    """What is known of the networks of the run in `path`."""

    def __init__(self, path: Path) -> None:
        self.table, self.events = path / "epochs.csv", path / EVENTS
        self.there: dict[str, set[str]] = {}  # by network, the epochs that the table has

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a record of the log, where it is of an epoch that is not there.

        One whose checkpoint a kill prevented is trained again, to the same bits on a CPU.
        """
        if record.get("event") == "fitted":
            record = {**record, "epoch": record["steps"], "acc": 1.0 - record["train_error"]}
        if not {"network", "epoch"} <= record.keys():
            return
        network, epoch = str(record["network"]), int(record["epoch"])
        if str(epoch) not in self._epochs(network):
            values = (network, epoch, *(record.get(name) for name in ("loss", "acc", "seconds")))
            append(self.table, ",".join("" if value is None else str(value) for value in values), head=HEAD)
            self.there[network].add(str(epoch))
            if self.events.is_dir() and find_spec(EVENTS):
                writer = _writer(self.events / network)
                for name in ("loss", "acc"):
                    if record.get(name) is not None:
                        writer.add_scalar(name, record[name], epoch, record.get("time"))
                writer.flush()

    def _epochs(self, network: str) -> set[str]:
        """The epochs of `network` that the table has; a row that is damaged counts as what it says, if anything."""
        if network not in self.there:
            rows = self.table.read_text("utf-8", "replace").splitlines() if self.table.exists() else []
            self.there[network] = {row.split(",")[1] for row in rows if row.startswith(f"{network},")}
        return self.there[network]


def check_tensorboard() -> None:
    """Raise `InputError` where TensorBoard is not installed."""
    if find_spec(EVENTS) is None:
        raise InputError("--tensorboard needs TensorBoard, which is not installed; pip install 'divkd[tensorboard]'")


@functools.cache
def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
