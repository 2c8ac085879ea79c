"""Who computes the points of a sweep: this process, worker processes, or any executor."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from dlnds.schema import without_problem
from dlnds.sweeps.folder import encode
from dlnds.sweeps.task import Task, differing, parts_of
from dlnds.threads import single_threaded

#: How often a point is tried whose worker process dies; it may have been killed from outside.
TRIES = 3


class Job(NamedTuple):
    """What is the same for all points."""

    task: Task
    has_rng: bool
    entropy: int
    digest: str
    reserved: tuple[str, ...]
    time_limit: float | None
    parts: dict[str, str]  # of the task, which it has in each process


class Point(NamedTuple):
    """A point to compute: its number and the values of its parameters."""

    number: int
    inputs: dict[str, Any]


class Outcome(NamedTuple):
    """What became of a point: a record if ``status`` is ``finished``, else why not."""

    point: Point
    status: str
    record: bytes = b""
    message: str = ""
    trace: str = ""


#: What becomes of points, one after the other; it is closed to end what is under way.
Outcomes = Generator[Outcome, None, None]

_same: set[str] = set()  # digests of sweeps whose task is the same in this process


def check_same(job: Job) -> int:
    """Return the number of this process, unless it has another text or constants of the task."""
    # What is sent by value, as from __main__, is the same, and its text may not be at hand.
    if job.digest not in _same and job.task.__module__ != "__main__":
        if names := differing(parts_of(job.task), job.parts):
            raise ValueError(
                f"task: where it is computed it differs in {', '.join(names)}; what is set while "
                "a script runs does not get there, and a file must not change meanwhile"
            )
        _same.add(job.digest)
    return os.getpid()


def compute(job: Job, point: Point) -> Outcome:
    """Return what became of one point."""
    check_same(job)
    inputs = dict(point.inputs)
    if job.has_rng:
        seed = np.random.SeedSequence(job.entropy, spawn_key=(point.number,))
        inputs["rng"] = np.random.default_rng(seed)
    try:
        with single_threaded():
            result = job.task(**inputs)
        return _judged(job, point, result)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit: one task does not end a sweep
        inner = error.__traceback__.tb_next if error.__traceback__ else None  # from the task on
        trace = "".join(traceback.format_exception(type(error), error, inner))
        return Outcome(point, "raised", message=f"{type(error).__name__}: {error}", trace=trace)


def _judged(job: Job, point: Point, result: Any) -> Outcome:
    """Return the outcome of a point from what its task returned."""
    if not isinstance(result, xr.Dataset):
        message = f"returned {type(result).__name__}, needs a Dataset"
        return Outcome(point, "wrong_form", message=message)
    result = without_problem(result)  # points of a sweep may be of any
    taken = sorted({*map(str, result.variables), *map(str, result.dims)} & {*job.reserved})
    if taken or not result.data_vars:
        lack = f"uses the name {', '.join(taken)} of the grid" if taken else "has no variables"
        return Outcome(point, "wrong_form", message=f"the returned Dataset {lack}")
    for name, variable in result.variables.items():
        if variable.dtype.kind in "fc" and np.isnan(variable.values).any():
            return Outcome(point, "not_a_number", message=f"{name!r} has NaN")
    try:
        about = {"sweep": job.digest, "point": point.number, "status": "finished"}
        record = encode(result, about)
    except TypeError as error:
        return Outcome(point, "wrong_form", message=str(error))
    return Outcome(point, "finished", record)


def run_elsewhere(job: Job, points: Sequence[Point], executor: Any) -> Outcomes:
    """Compute points by an executor that belongs to the caller."""
    if hasattr(executor, "ncores"):  # a client of dask.distributed
        width = int(sum(executor.ncores().values()))
        executor = executor.get_executor(pure=False)
    else:
        width = int(getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
    return _run(points, lambda point: executor.submit(compute, job, point), width)


def _run(
    points: Sequence[Point], submit: Callable[[Point], "Future[Outcome]"], width: int
) -> Outcomes:
    """Compute points elsewhere, of which each worker has one, and one to go on with."""
    waiting = deque(points)
    flying: dict[Future[Outcome], Point] = {}
    try:
        while waiting or flying:
            while waiting and len(flying) < 2 * max(width, 1):
                point = waiting.popleft()
                flying[submit(point)] = point
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                yield _brought(future, flying.pop(future))
    finally:
        for future in flying:
            future.cancel()


def _brought(future: "Future[Outcome]", point: Point) -> Outcome:
    """Return what became of a point; raise what all others would be lost by, too."""
    try:
        return future.result()
    except (BrokenExecutor, CancelledError, OSError) as error:
        raise RuntimeError(f"executor: broke down ({error}); a new one can go on") from error
    except (ValueError, RuntimeError):  # another task; workers that do not start
        raise
    except Exception as error:
        if type(error).__name__ == "KilledWorker":  # of dask, which has tried it several times
            return Outcome(point, "died", message=f"{type(error).__name__}: {error}")
        # Tasks' own errors are in their outcomes; what is left are those of sending.
        raise TypeError(f"task: cannot be sent to another process ({error})") from error


def run_apart(job: Job, points: Sequence[Point], workers: int) -> Outcomes:
    """Compute points in worker processes."""
    main = sys.modules["__main__"]
    if job.task.__module__ == "__main__" and not (hasattr(main, "__file__") or main.__spec__):
        raise TypeError(
            "task: was defined in a notebook or at a prompt, where other processes cannot find it; "
            "define it in a file and import it, or use workers=1 without time_limit"
        )
    with contextlib.closing(_Crew(job, workers)) as crew:
        yield from _run(points, crew.submit, workers)


class _Crew:
    """Worker processes, each a pool of its own, and a thread for each that waits for it.

    Where a worker dies the standard library ends its whole pool: here no other point is lost.
    """

    def __init__(self, job: Job, workers: int) -> None:
        self.job = job
        self.threads = ThreadPoolExecutor(workers)
        self.pools: dict[ProcessPoolExecutor, int] = {}  # and the numbers of their processes
        self.idle: list[ProcessPoolExecutor] = []
        self.closed = False

    def submit(self, point: Point) -> "Future[Outcome]":
        """Hand over a point."""
        return self.threads.submit(self._outcome, point)

    def _outcome(self, point: Point) -> Outcome:
        """Return what became of a point; where its process dies it is tried again."""
        for _ in range(TRIES):
            pool = self.idle.pop() if self.idle else self._started()
            if self.closed:
                break
            try:
                outcome = pool.submit(compute, self.job, point).result(self.job.time_limit)
                self.idle.append(pool)
                return outcome
            except TimeoutError:
                self._kill(pool)
                message = f"took more than {self.job.time_limit} s"
                return Outcome(point, "timed_out", message=message)
            except BrokenProcessPool:
                self._kill(pool)
        return Outcome(point, "died", message=f"its worker process died, {TRIES} times")

    def _started(self) -> ProcessPoolExecutor:
        """Return the pool of a new process, once that has imported the task."""
        for _ in range(TRIES):
            # Forked ones would inherit locks of BLAS and Numba, but no threads that free them.
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(1, context, _begin_work)
            with contextlib.suppress(BrokenProcessPool):
                self.pools[pool] = pool.submit(check_same, self.job).result()
                return pool
        raise RuntimeError(
            "workers: their processes did not start; a script that is run needs "
            "if __name__ == '__main__': around what it runs"
        )

    def _kill(self, pool: ProcessPoolExecutor) -> None:
        """End the process of a pool, unless it is dead."""
        process = self.pools.pop(pool, None)
        with contextlib.suppress(ProcessLookupError):
            if process is not None:
                os.kill(process, signal.SIGKILL)
        pool.shutdown()

    def close(self) -> None:
        """End all processes, at once those that are at work."""
        self.closed = True
        for pool in [one for one in self.pools if one not in self.idle]:
            self._kill(pool)
        self.threads.shutdown(cancel_futures=True)
        for pool in self.pools:
            pool.shutdown()


def _begin_work() -> None:
    """Prepare a worker process: it leaves Ctrl-C to its parent, and ends when that does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()
    with single_threaded():  # loads, in no task's time, what all of them need
        encode(xr.Dataset({"loaded": 1.0}), {})


def _follow() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    signal.raise_signal(signal.SIGKILL)
