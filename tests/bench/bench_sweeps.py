"""What a sweep adds to runs of 0.2 s: goal under 2 % of time, here and in two workers.

Run by ``nox -s bench``. A run sleeps, so that nothing but the sweep takes time. What a longer sweep
takes more than a shorter one is counted, so that the start of workers, once, is not; beside it the
processor time of the process that hands work over and writes.
"""

import statistics
import tempfile
import time

import numpy as np
import xarray as xr
from common import note, report

import dlnds as dl

SECONDS, FEW, MANY = 0.2, 20, 120


def rest(number, rng):
    """Take 0.2 s, and give what a run of a small network may give."""
    time.sleep(SECONDS)
    return xr.Dataset({"loss": 1.0 / (1 + number), "state": ("parameter", rng.normal(size=100))})


def cost(runs, **options):
    """Return wall and processor time of a sweep of so many runs."""
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.perf_counter(), time.process_time()
        dl.sweep(rest, {"number": np.arange(runs)}, folder, rng=0, **options)
        return np.array([time.perf_counter() - wall, time.process_time() - processor])


def overhead(what, workers):
    """Report what each run costs beside its 0.2 s."""
    costs = [cost(MANY, workers=workers) - cost(FEW, workers=workers) for _ in range(3)]
    wall, processor = (statistics.median(c[i] for c in costs) / (MANY - FEW) for i in range(2))
    alone = SECONDS / workers
    report(f"overhead, {what}", 100.0 * (wall / alone - 1.0), 2.0, "%", at_most=True)
    note(f"{1e3 * processor:.2f} ms of processor time a run in the process that writes")


if __name__ == "__main__":
    cost(2)
    overhead("in this process", 1)
    overhead("two workers", 2)
