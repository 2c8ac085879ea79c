"""What a sweep adds to runs of 0.2 s: goal under 2 % of time, here and in two workers.

Run by ``nox -s bench``. A run sleeps, so that nothing but the sweep takes time; how long one run
takes with all that belongs to it is read from when the runs began, once all workers are at work.
Beside it the processor time of the process that hands work over and writes.
"""

import os
import tempfile
import time

import numpy as np
import xarray as xr
from common import note, opening, report

import dlnds as dl

SECONDS, RUNS = 0.2, 120


def rest(number, rng):
    """Take 0.2 s, and give what a run of a small network may give."""
    begun = time.monotonic()
    values = {"begun": begun, "worker": os.getpid(), "state": ("parameter", rng.normal(size=100))}
    found = xr.Dataset(values)
    time.sleep(max(0.0, begun + SECONDS - time.monotonic()))
    return found


def overhead(what, workers):
    """Report what each run costs beside its 0.2 s."""
    with tempfile.TemporaryDirectory() as folder:
        dl.sweep(rest, {"number": [0, 1]}, f"{folder}/first", rng=0)  # imports
        processor = time.process_time()
        found = dl.sweep(rest, {"number": np.arange(RUNS)}, f"{folder}/s", rng=0, workers=workers)
        processor = (time.process_time() - processor) / RUNS
    begun = found["begun"].values
    last = max(begun[found["worker"] == worker].min() for worker in np.unique(found["worker"]))
    begun = np.sort(begun[begun > last])
    each = workers * (begun[-1] - begun[0]) / (begun.size - 1)
    report(f"overhead, {what}", 100.0 * (each / SECONDS - 1.0), 2.0, "%", at_most=True)
    note(f"{1e3 * processor:.2f} ms of processor time a run in the process that writes")


if __name__ == "__main__":
    opening(__doc__)
    overhead("in this process", 1)
    overhead("two workers", 2)
