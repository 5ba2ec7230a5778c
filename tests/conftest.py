"""One thread per test process: the processes of a parallel run would fight over the cores.

They also keep memory that they have freed (glibc's settings): they start the same work a thousand
times over, and taking pages anew each time is a tenth of all.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 30))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 30))


def pytest_configure(config):
    import torch

    torch.set_num_threads(1)
