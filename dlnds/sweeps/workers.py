"""Who computes the points of a sweep: this process, worker processes, or any executor."""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from threadpoolctl import ThreadpoolController

from dlnds.sweeps.folder import encode
from dlnds.sweeps.task import Task, differing, parts_of

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


class OtherTaskError(ValueError):
    """The task is not the same where it is computed: points computed there would be wrong."""


class NotStartedError(RuntimeError):
    """Worker processes die before they can do anything."""


_same: set[str] = set()  # digests of sweeps whose task is the same in this process


def check_same(job: Job) -> None:
    """Refuse to compute in a process that has another text or other constants of the task."""
    # What is sent by value, as from __main__, is the same, and its text may not be at hand.
    if job.digest in _same or job.task.__module__ == "__main__":
        return
    if names := differing(parts_of(job.task), job.parts):
        raise OtherTaskError(
            f"task: where it is computed it differs in {', '.join(names)}; what is set while a "
            "script runs does not get there, and a file must not change meanwhile"
        )
    _same.add(job.digest)


def compute(job: Job, point: Point) -> Outcome:
    """Return what became of one point."""
    inputs = dict(point.inputs)
    if job.has_rng:
        seed = np.random.SeedSequence(job.entropy, spawn_key=(point.number,))
        inputs["rng"] = np.random.default_rng(seed)
    try:
        result = job.task(**inputs)
        status, message, record = _judged(job, point, result)
        return Outcome(point, status, record, message)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit: one task does not end a sweep
        inner = error.__traceback__.tb_next if error.__traceback__ else None  # from the task on
        trace = "".join(traceback.format_exception(type(error), error, inner))
        return Outcome(point, "raised", b"", f"{type(error).__name__}: {error}", trace)


def _judged(job: Job, point: Point, result: Any) -> tuple[str, str, bytes]:
    """Return status, message and record of what a task returned."""
    if not isinstance(result, xr.Dataset):
        return "wrong_form", f"returned {type(result).__name__}, needs a Dataset", b""
    taken = sorted({*map(str, result.variables), *map(str, result.dims)} & {*job.reserved})
    if taken or not result.data_vars:
        lack = f"uses the name {', '.join(taken)} of the grid" if taken else "has no variables"
        return "wrong_form", f"the returned Dataset {lack}", b""
    for name, variable in result.variables.items():
        if variable.dtype.kind in "fc" and np.isnan(variable.values).any():
            return "not_a_number", f"{name!r} has NaN", b""
    try:
        about = {"point": point.number, "sweep": job.digest}
        return "finished", "", encode(result, about)
    except TypeError as error:
        return "wrong_form", str(error), b""


_users = 0
_counting = threading.Lock()
_limits: Any = None


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Keep BLAS and OpenMP to one thread, on which last digits depend, while anyone needs it."""
    global _users, _limits
    with _counting:
        if _users == 0:
            _limits = ThreadpoolController().limit(limits=1)
        _users += 1
    try:
        yield
    finally:
        with _counting:
            _users -= 1
            if _users == 0:
                _limits.restore_original_limits()


def run_here(job: Job, points: Sequence[Point]) -> Outcomes:
    """Compute points one after the other in this process."""
    # The first point may load libraries, whose threads are counted for the others then.
    for part in (points[:1], points[1:]):
        with single_threaded():
            for point in part:
                yield compute(job, point)


def run_elsewhere(job: Job, points: Sequence[Point], executor: Any) -> Outcomes:
    """Compute points by an executor that belongs to the caller."""
    _same.add(job.digest)  # threads of this process need not look
    if hasattr(executor, "ncores"):  # a client of dask.distributed
        width = int(sum(executor.ncores().values()))
        executor = executor.get_executor(pure=False)
    else:
        width = int(getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
    return _run(points, lambda point: executor.submit(compute_checked, job, point), width)


def compute_checked(job: Job, point: Point) -> Outcome:
    """Return what became of a point, in a process or thread that belongs to someone else."""
    check_same(job)
    with single_threaded():
        return compute(job, point)


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
                yield _outcome(future, flying.pop(future))
    finally:
        for future in flying:
            future.cancel()


def _outcome(future: "Future[Outcome]", point: Point) -> Outcome:
    """Return what became of a point; raise what all others would be lost by, too."""
    try:
        return future.result()
    except (OtherTaskError, NotStartedError):
        raise
    except (BrokenExecutor, CancelledError, OSError) as error:
        raise RuntimeError(f"executor: broke down ({error}); a new one can go on") from error
    except Exception as error:
        # Tasks' own errors are in their outcomes; what is left are those of sending.
        if type(error).__name__ == "KilledWorker":  # of dask, which has tried it several times
            return Outcome(point, "died", message=f"{type(error).__name__}: {error}")
        raise TypeError(f"task: cannot be sent to another process ({error})") from error


def run_apart(job: Job, points: Sequence[Point], workers: int, folder: Path) -> Outcomes:
    """Compute points in worker processes."""
    main = sys.modules["__main__"]
    if job.task.__module__ == "__main__" and not (hasattr(main, "__file__") or main.__spec__):
        raise TypeError(
            "task: was defined in a notebook or at a prompt, where other processes cannot find it; "
            "define it in a file and import it, or use workers=1 without time_limit"
        )
    with contextlib.closing(_Crew(job, workers, folder)) as crew:
        yield from _run(points, crew.submit, workers)


class _Crew:
    """Worker processes, each a pool of its own, and a thread for each that waits for it.

    Where a worker dies the standard library ends its whole pool: here no other point is lost.
    """

    def __init__(self, job: Job, workers: int, folder: Path) -> None:
        self.job = job
        self.folder = folder
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
                raise CancelledError
            try:
                outcome = pool.submit(_work, self.job, point).result()
                self.idle.append(pool)
                return outcome
            except BrokenProcessPool:
                trace = _end(self.folder, pool, self.pools.pop(pool))
            if trace.startswith("Timeout"):
                message = f"took more than {self.job.time_limit} s"
                return Outcome(point, "timed_out", message=message, trace=trace)
        message = f"its worker process died, {TRIES} times"
        return Outcome(point, "died", message=message, trace=trace)

    def _started(self) -> ProcessPoolExecutor:
        """Return the pool of a new process, once that has imported the task."""
        for _ in range(TRIES if self.pools else 1):
            # Forked ones would inherit locks of BLAS and Numba, but no threads that free them.
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(1, context, _begin_work, (self.folder,))
            with contextlib.suppress(BrokenProcessPool):
                self.pools[pool] = pool.submit(_ready, self.job).result()
                return pool
        raise NotStartedError(
            "workers: their processes did not start; a script that is run needs "
            "if __name__ == '__main__': around what it runs"
        )

    def close(self) -> None:
        """End all processes, at once those that are at work."""
        self.closed = True
        for pool, process in list(self.pools.items()):
            if pool not in self.idle:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self.threads.shutdown(cancel_futures=True)
        for pool, process in self.pools.items():
            _end(self.folder, pool, process)


def _end(folder: Path, pool: ProcessPoolExecutor, process: int) -> str:
    """End a process that is idle or dead, and return what it told."""
    pool.shutdown()
    told = _log_file(folder, process).read_text(errors="replace")
    _log_file(folder, process).unlink()
    return told


def _log_file(folder: Path, process: int) -> Path:
    """Return where a worker process tells how it ended."""
    return folder / f".{process}.tmp"


_log = 2  # the file in which this worker process tells how it ended
_loaded = 0  # modules when its threads were counted


def _begin_work(folder: Path) -> None:
    """Prepare a worker process: it leaves Ctrl-C to its parent, and ends when that does."""
    global _log
    _log = os.open(_log_file(folder, os.getpid()), os.O_CREAT | os.O_WRONLY)
    faulthandler.enable(_log)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _ready(job: Job) -> int:
    """Return the number of this process, which has the task now."""
    check_same(job)
    return os.getpid()


def _work(job: Job, point: Point) -> Outcome:
    """Return what became of a point in a worker process, which ends itself at the time limit."""
    global _loaded
    if len(sys.modules) > _loaded:  # perhaps libraries with threads; to look takes milliseconds
        _loaded = len(sys.modules)
        ThreadpoolController().limit(limits=1)
    if job.time_limit is not None:
        faulthandler.dump_traceback_later(job.time_limit, exit=True, file=_log)
    try:
        return compute(job, point)
    finally:
        faulthandler.cancel_dump_traceback_later()
