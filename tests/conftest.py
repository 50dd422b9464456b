"""What every test starts from: two numba threads, whatever the machine has."""

import os

os.environ.setdefault("NUMBA_NUM_THREADS", "2")
