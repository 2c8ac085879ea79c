"""Who computes the points of a sweep: this process, a pool of processes, or any executor."""

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from threadpoolctl import ThreadpoolController

from dlnds.sweeps import records
from dlnds.sweeps.task import Task, differing, parts_of

#: Work that is handed over at once takes about so many seconds.
BATCH_TIME = 0.25
#: Seconds for which all but one worker wait until the first point has compiled what it needs.
WARM_TIME = 30.0
#: Seconds after the time limit at which a task that cannot be interrupted is ended.
GRACE = 1.0

_SPAWN = multiprocessing.get_context("spawn")


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
    seconds: float = 0.0


class TimeIsUpError(BaseException):
    """Raised in a task at its time limit; no ``except Exception`` in the task takes it."""


class OtherTaskError(ValueError):
    """The task is not the same where it is computed: points computed there would be wrong."""


_same: set[str] = set()  # digests of sweeps whose task is the same in this process
_comparing = threading.Lock()


def check_same(job: Job) -> None:
    """Refuse to compute in a process that has another text or other constants of the task."""
    with _comparing:
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
    begin = time.perf_counter()
    inputs = dict(point.inputs)
    if job.has_rng:
        seed = np.random.SeedSequence(job.entropy, spawn_key=(point.number,))
        inputs["rng"] = np.random.default_rng(seed)
    try:
        with _alarm(job.time_limit):
            result = job.task(**inputs)
        status, message, record = _judged(job, point, result)
        return Outcome(point, status, record, message, "", time.perf_counter() - begin)
    except KeyboardInterrupt:
        raise
    except TimeIsUpError as error:
        status, message = "timed_out", f"took more than {job.time_limit} s"
        trace = _trace(error)
    except BaseException as error:  # also SystemExit: one task does not end a sweep
        status, message, trace = "raised", f"{type(error).__name__}: {error}", _trace(error)
    return Outcome(point, status, b"", message, trace, time.perf_counter() - begin)


def _trace(error: BaseException) -> str:
    """Return the traceback from the task on."""
    inner = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.format_exception(type(error), error, inner))


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
        return "finished", "", records.encode(result, about)
    except TypeError as error:
        return "wrong_form", str(error), b""


@contextlib.contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise `TimeIsUpError` after so many seconds, in the main thread of a worker."""
    if seconds is None:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeIsUpError

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


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


def compute_batch(job: Job, points: Sequence[Point]) -> list[Outcome]:
    """Return what became of a few points, fewer if they take longer than expected."""
    check_same(job)
    with single_threaded():
        return _in_time(points, lambda point: compute(job, point))


def _in_time(points: Sequence[Point], work: Callable[[Point], Outcome]) -> list[Outcome]:
    """Compute points, as long as those that are finished do not wait too long to be written."""
    outcomes: list[Outcome] = []
    last = time.monotonic() + 2.0 * BATCH_TIME
    for point in points:
        outcomes.append(work(point))
        if time.monotonic() > last:
            break
    return outcomes


def run_here(job: Job, points: Sequence[Point]) -> Generator[Outcome, None, None]:
    """Compute points one after the other in this process."""
    # The first point may load libraries, whose threads are counted for the others then.
    for part in (points[:1], points[1:]):
        with single_threaded():
            for point in part:
                yield compute(job, point)


class _Board:
    """Memory that workers share: when each point was begun, and by which process; 0 if not."""

    def __init__(self, size: int) -> None:
        self.begun = _SPAWN.RawArray("d", size)
        self.process = _SPAWN.RawArray("q", size)

    def running(self, points: Sequence[Point]) -> list[Point]:
        """Return those points that are begun and not finished."""
        return [point for point in points if self.begun[point.number] > 0.0]

    def overdue(self, points: Sequence[Point], limit: float) -> list[Point]:
        """Return those that nothing but the end of their worker will stop."""
        last = time.monotonic() - limit - GRACE
        return [point for point in self.running(points) if self.begun[point.number] < last]

    def end(self, points: Sequence[Point]) -> None:
        """End the workers that run these points."""
        for point in self.running(points):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process[point.number], signal.SIGKILL)


_board: Any = None  # of this worker process
_batches = 0  # that it has computed


def _begin_work(board: _Board) -> None:
    """Prepare a worker process: it leaves Ctrl-C to its parent, and ends when that does."""
    global _board
    _board = board
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    xr.Dataset({"loaded": 1.0}).copy()  # imports what no task's time should count
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _work(job: Job, points: Sequence[Point]) -> list[Outcome]:
    """Compute a few points in a worker process, and tell which is under way."""
    global _batches
    check_same(job)
    _batches += 1
    if _batches <= 2:  # the first one may have loaded more libraries; looking takes milliseconds
        ThreadpoolController().limit(limits=1)

    def work(point: Point) -> Outcome:
        _board.process[point.number] = os.getpid()
        _board.begun[point.number] = time.monotonic()
        outcome = compute(job, point)
        _board.begun[point.number] = -1.0
        return outcome

    return _in_time(points, work)


def run_pooled(job: Job, points: Sequence[Point], workers: int) -> Generator[Outcome, None, None]:
    """Compute points in a pool of processes; a worker that dies costs no other point.

    Where a worker dies the standard library ends the whole pool, and does not say on which task it
    died. Each point that was under way is then computed alone: where the worker dies again it is
    to blame, and its status is ``died``.
    """
    main = sys.modules["__main__"]
    if job.task.__module__ == "__main__" and not (hasattr(main, "__file__") or main.__spec__):
        raise TypeError(
            "task: was defined in a notebook or at a prompt, where other processes cannot find it; "
            "define it in a file and import it, or use workers=1 without time_limit"
        )
    try:
        ForkingPickler.dumps(job)
    except Exception as error:
        raise TypeError(
            f"task: cannot be sent to another process ({error}); define it at the top of a module, "
            "or use workers=1 without time_limit"
        ) from None
    waiting = deque(points)
    while waiting:
        for suspect in (yield from _crew(job, waiting, workers)):
            if (yield from _crew(job, deque([suspect]), 1)):
                yield Outcome(suspect, "died", message="its worker process died, twice")


class _Pace:
    """How much work is handed over at once, by how long the points take."""

    def __init__(self, workers: int, warm: bool = True) -> None:
        self.workers = workers
        self.warm_until = time.monotonic() + WARM_TIME if warm else -math.inf
        self.finished = 0
        self.seconds = 0.0

    def most(self) -> int:
        """Return how many batches may be under way: each worker has one, and one to go on with."""
        warming = self.finished == 0 and time.monotonic() < self.warm_until
        return 1 if warming else 2 * self.workers

    def patience(self, time_limit: float | None) -> float | None:
        """Return for how long to wait for news."""
        limits = [] if time_limit is None else [min(0.5, 0.5 * time_limit)]
        if self.finished == 0 and (left := self.warm_until - time.monotonic()) > 0.0:
            limits.append(left)
        return min(limits, default=None)

    def size(self, waiting: int) -> int:
        """Return how many points to hand over at once, so that all workers end together."""
        if self.finished == 0:
            return 1
        apiece = BATCH_TIME / max(self.seconds / self.finished, 1e-6)
        return max(1, min(int(apiece), waiting // (2 * self.workers)))

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        """Take in how long points took."""
        self.finished += len(outcomes)
        self.seconds += sum(outcome.seconds for outcome in outcomes)


Crew = Generator[Outcome, None, list[Point]]


def _crew(job: Job, waiting: deque[Point], workers: int, tries: int = 3) -> Crew:
    """Compute the waiting points in one pool; return those under way when a worker died."""
    board = _Board(1 + max(point.number for point in waiting))
    # Forked processes would inherit the locks of BLAS and Numba, but not the threads that free them
    pool = ProcessPoolExecutor(workers, _SPAWN, _begin_work, (board,))
    flying: dict[Future[list[Outcome]], list[Point]] = {}
    pace, blamed = _Pace(workers), dict[int, Point]()
    try:
        while waiting or flying:
            while waiting and len(flying) < pace.most():
                batch = [waiting.popleft() for _ in range(pace.size(len(waiting)))]
                flying[_submitted(pool, job, batch)] = batch
            done, _ = wait(flying, pace.patience(job.time_limit), FIRST_COMPLETED)
            for future in sorted(done, key=lambda f: f.exception() is not None):
                outcomes = future.result()
                waiting.extendleft(reversed(flying.pop(future)[len(outcomes) :]))
                pace.learn(outcomes)
                yield from outcomes
            if job.time_limit is not None:
                overdue = board.overdue(_all(flying), job.time_limit)
                blamed |= {point.number: point for point in overdue}
                board.end(overdue)
    except BrokenProcessPool:
        began = pace.finished > 0 or any(board.process)
        message = f"took more than {job.time_limit} s and could not be interrupted"
        for point in blamed.values():
            yield Outcome(point, "timed_out", message=message)
        suspects = [] if blamed else board.running(_all(flying))
        gone = {*blamed, *(point.number for point in suspects)}
        waiting.extendleft(p for p in reversed(_all(flying)) if p.number not in gone)
    else:
        return []
    finally:
        board.end(_all(flying))
        pool.shutdown(cancel_futures=True)
    if not began and tries == 1:
        raise RuntimeError(
            "workers: their processes did not start; a script that is run needs "
            "if __name__ == '__main__': around what it runs"
        )
    return suspects if began else (yield from _crew(job, waiting, workers, tries - 1))


def _submitted(pool: ProcessPoolExecutor, job: Job, batch: list[Point]) -> Future[list[Outcome]]:
    """Hand work over; a pool that broke meanwhile says so like one that breaks later."""
    try:
        return pool.submit(_work, job, batch)
    except BrokenProcessPool as error:
        failed: Future[list[Outcome]] = Future()
        failed.set_exception(error)
        return failed


def _all(flying: Mapping[Any, list[Point]]) -> list[Point]:
    return [point for batch in flying.values() for point in batch]


def run_elsewhere(
    job: Job, points: Sequence[Point], executor: Any
) -> Generator[Outcome, None, None]:
    """Compute points by an executor that belongs to the caller.

    What it cannot bring back, for example because a machine was lost, is tried once more, alone.
    """
    _same.add(job.digest)  # threads of this process need not look
    pace = _Pace(_width(executor), warm=False)
    if hasattr(executor, "get_executor"):  # a client of dask.distributed
        executor = executor.get_executor(pure=False)
    waiting, suspects, tried = deque(points), deque[Point](), set[int]()
    flying: dict[Future[list[Outcome]], list[Point]] = {}
    try:
        while waiting or suspects or flying:
            while (waiting or suspects) and len(flying) < pace.most():
                batch = [suspects.popleft()] if suspects else []
                if not batch:
                    batch = [waiting.popleft() for _ in range(pace.size(len(waiting)))]
                flying[_handed(executor, job, batch)] = batch
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                batch = flying.pop(future)
                error = _error(future)
                if error is None:
                    outcomes = future.result()
                    waiting.extendleft(reversed(batch[len(outcomes) :]))
                    pace.learn(outcomes)
                    yield from outcomes
                elif len(batch) == 1 and batch[0].number in tried:
                    yield Outcome(batch[0], "died", message=f"{type(error).__name__}: {error}")
                else:
                    tried.update(point.number for point in batch)
                    suspects.extend(batch)
    finally:
        for future in flying:
            future.cancel()


def _handed(executor: Any, job: Job, batch: list[Point]) -> Future[list[Outcome]]:
    """Hand work to an executor."""
    try:
        handed: Future[list[Outcome]] = executor.submit(compute_batch, job, batch)
    except RuntimeError as error:
        raise RuntimeError(f"executor: takes no work ({error}); a new one can go on") from error
    return handed


def _width(executor: Any) -> int:
    """Return how many points an executor computes at once."""
    if hasattr(executor, "ncores"):
        return max(1, int(sum(executor.ncores().values())))
    return int(getattr(executor, "_max_workers", None) or os.cpu_count() or 1)


def _error(future: Future[Any]) -> BaseException | None:
    """Return what an executor lost work by; raise what all other work would be lost by, too."""
    try:
        error = future.exception()
    except CancelledError as cancelled:
        return cancelled
    if isinstance(error, OtherTaskError):
        raise error
    # Tasks' own errors are in their outcomes; what is left are those of sending.
    if (
        isinstance(error, AttributeError | ImportError | TypeError)
        or "Pickl" in type(error).__name__
    ):
        raise TypeError(f"task: cannot be sent to the executor ({error})") from None
    if isinstance(error, BrokenExecutor):
        raise RuntimeError(f"executor: broke down ({error}); a new one can go on") from error
    return error
