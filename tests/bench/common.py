"""What the benchmarks share: medians, tolerances at equal error, reports beside goals."""

import contextlib
import gc
import importlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import threadpoolctl

import dlnds as dl

#: Tolerances to try, from the loosest on.
TOLERANCES = 10.0 ** -np.arange(2.0, 13.1, 0.25)


def report(what, value, goal, unit, *, at_most):
    """Print one figure beside its goal; a miss with the factor that is lacking."""
    met = value <= goal if at_most else value >= goal
    relation = "at most" if at_most else "at least"
    lacking = 0.0 < value < np.inf and f"by a factor {max(value / goal, goal / value):.2g}"
    missing = "" if met else f", missed {lacking or 'altogether'}"
    print(
        f"{'ok  ' if met else 'MISS'} {what}: {value:.3g} {unit} "
        f"(goal: {relation} {goal:g}{missing})",
        flush=True,
    )


def opening(words):
    """Print with what is measured, and the first line of a docstring as a heading."""
    importlib.import_module("scipy.linalg")  # whose BLAS compiled code calls
    blas = {  # what it takes the processor for decides how fast products are
        f"{library['internal_api']} {library['version']} for {library.get('architecture')}"
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    }
    versions = f"dlnds {dl.__version__}, numpy {np.__version__}"
    print(", ".join([versions, *sorted(blas), f"{os.cpu_count()} cores"]), flush=True)
    heading(words.partition("\n")[0].rstrip("."))


def heading(title):
    """Print what the figures that follow are of."""
    print(f"== {title}", flush=True)


def note(text):
    """Print a figure that has no goal."""
    print(f"     {text}", flush=True)


def available(what, *modules):
    """Tell whether modules can be imported; print a line if not."""
    try:
        for module in modules:
            importlib.import_module(module)
    except (ImportError, OSError) as error:
        print(f"--   {what}: not available ({error})", flush=True)
        return False
    return True


def seconds(function):
    """Return the wall time of a call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def median_time(function, repeats):
    """Return the median wall time of a call."""
    function()
    return statistics.median(seconds(function) for _ in range(repeats))


def alternate(jobs, repeats):
    """Return the median wall time of each job, run in turns so that all see the same machine.

    Each is run once more just before, so that none is measured with the caches that another left;
    and without garbage collection, as by timeit: the objects of one program are no cost of another.
    """
    times = {name: [] for name in jobs}
    gc.collect()
    gc.disable()
    for _ in range(repeats):
        for name, job in jobs.items():
            job()
            times[name].append(seconds(job))
    gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def relative_error(states, reference):
    """Return the largest ‖x − x_ref‖ / ‖x_ref‖ of states (…, parameter)."""
    difference = np.linalg.norm(states - reference, axis=-1) / np.linalg.norm(reference, axis=-1)
    worst = float(difference.max())
    return worst if np.isfinite(worst) else np.inf


def loosest(tool, reference, level):
    """Return the loosest tolerance, and its error, at which a tool is accurate to ``level``.

    ``tool(tolerance)`` makes a job; the job returns states as in ``reference``.
    """
    for tolerance in TOLERANCES:
        error = relative_error(tool(tolerance)(), reference)
        if error <= level:
            return tolerance, error
    raise ValueError(f"tool: no tolerance gives an error of {level:g}, the last gives {error:g}")


def at_equal_error(tools, reference, level, timed=None):
    """Return jobs of the tools that meet the level, warmed up.

    ``timed`` holds the makers of jobs to time where they differ from those in ``tools``: more runs
    than are needed to measure an error, or a faster build that takes longer to compile.
    """
    jobs = {}
    for name, tool in tools.items():
        try:
            tolerance, error = loosest(tool, reference, level)
        except ValueError as failure:
            note(f"{name}: left out, {failure}")
            continue
        begin = time.perf_counter()
        jobs[name] = (timed or {}).get(name, tool)(tolerance)
        jobs[name]()
        ready = time.perf_counter() - begin
        note(
            f"{name}: tolerance {tolerance:.2g}, error {error:.1e}; built and run in {ready:.2f} s"
        )
    return jobs


def report_ratios(ours, times, goals):
    """Print how many times longer each peer takes than we do."""
    for name, goal in goals.items():
        if name in times:
            report(f"against {name}", times[name] / times[ours], goal, "x", at_most=False)


@contextlib.contextmanager
def silent():
    """Drop what compiled libraries print to standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as sink:
        os.dup2(sink.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def cpu_of(code, cache, repeats):
    """Return the median CPU seconds of a fresh process that runs some code."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "MPLBACKEND": "agg"}
    times = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [sys.executable, *code],
                cwd=folder,
                env=environment,
                check=True,
                capture_output=True,
            )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times)
