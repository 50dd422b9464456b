"""What every test starts from: one compute thread, as `make test` has a worker a core, and the same examples."""

import os
from contextlib import contextmanager

# Before anything imports numpy, numba or torch; processes that tests start inherit it.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("DIVKD_JOBS", "1")  # in this process, where tests may look into it

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("same", derandomize=True, database=None)
settings.load_profile("same")


@contextmanager
def coarse():
    """Figures drawn whole, but coarse and unarranged."""
    from matplotlib.figure import Figure

    save = Figure.savefig

    def savefig(figure, *arguments, **options):
        figure.set_layout_engine("none")
        return save(figure, *arguments, **{**options, "dpi": 20})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield


# For tests that do not look at the figures, which are half of a command's time.
@pytest.fixture
def coarse_figures():
    with coarse():
        yield


@pytest.fixture(scope="module")
def coarse_figures_throughout():
    with coarse():
        yield
