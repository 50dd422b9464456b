"""What every test starts from: two threads for torch, as results depend on the number."""

import os

os.environ.setdefault("NUMBA_NUM_THREADS", "2")
