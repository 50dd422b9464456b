"""The workers of a Dask scheduler, as an executor."""

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from divkd.shared.errors import InputError, RunError

ANSWER = "10s"  # for the scheduler to answer in, at the start and after a break of the connection


class Cluster(Executor):
    """The workers of the Dask scheduler at `address`, which sends a call of a worker that was lost to another.

    Raises `InputError` where Dask is not installed or no scheduler answers. What a call raises is its future's, and
    `RunError` stands for all that Dask itself raises.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise InputError("--dask needs Dask, which is not installed; pip install 'divkd[dask]'") from error
        try:
            logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what fails is said in one line, below
            self.client = Client(address, timeout=ANSWER, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            mend = "give the address that dask scheduler prints, such as tcp://10.0.0.1:8786"
            raise InputError(f"--dask {address}: no scheduler answers there; {mend}") from error

    @property
    def workers(self) -> int:
        """How many there are now."""
        return len(self.client.nthreads())

    def submit(self, call: Callable[..., Any], *what: Any) -> Future[Any]:  # type: ignore[override]
        """Have a worker make the call, with what both can pickle."""
        made: Future[Any] = Future()
        far = self.client.submit(call, *what, pure=False)
        far.add_done_callback(lambda far: _pass_on(far, made))
        return made

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        """Leave the cluster: calls that have not begun are dropped, those under way go on to their end."""
        self.client.close()


def _pass_on(far: Any, made: Future[Any]) -> None:
    if far.status == "finished":
        made.set_result(far.result())
        return
    gone = RunError("the Dask scheduler is gone; start it again, and --resume goes on")
    error = far.exception() if far.status == "error" else gone
    missing = error.__cause__ or error
    if type(error).__name__ == "KilledWorker":
        lost = "the workers that it was given to died under it one after the other (is memory full?)"
        error = RunError(f"{lost}; what is finished is kept, and --resume goes on")
    elif isinstance(missing, ImportError):
        mend = "give scheduler and workers the same environment as here"
        error = RunError(f"the cluster cannot import what it needs ({missing}); {mend}")
    made.set_exception(error)
