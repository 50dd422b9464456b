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
def coarse(drawn=True):
    """Figures drawn whole, but coarse, unarranged, and once: savefig draws twice, to find out how much room there is.

    Where they are not `drawn`, they are made, and the file stays empty.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    def savefig(figure, file, *, format, metadata, **_):
        figure.set_layout_engine("none")
        figure.set_dpi(20)
        if not drawn:
            return
        if format == "svg":
            FigureCanvasSVG(figure).print_svg(file, metadata=metadata)
        else:
            FigureCanvasAgg(figure).print_png(file, metadata=metadata)

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


# For tests of commands whose figures others draw.
@pytest.fixture(scope="module")
def figures_undrawn():
    with coarse(drawn=False):
        yield


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device")


# Files that take longest go first, so that no worker ends with one of them while the other has nothing left to do.
LONG = ("test_docs_commands", "test_recipes", "test_docs", "test_evaluate", "test_commands", "test_mends",
        "test_analysis", "test_resume", "test_experiment", "test_analyse", "test_main")  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
