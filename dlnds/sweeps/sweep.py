"""Many runs over a grid, in a folder that loses nothing: sweeps, resumed, collected, verified."""

import contextlib
import inspect
import math
import os
import re
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from dlnds import schema
from dlnds.errors import (
    check_choice,
    check_flag,
    check_generator,
    check_integer,
    check_memory,
    check_number,
    known_options,
)
from dlnds.store import flush
from dlnds.sweeps import folder as manifest
from dlnds.sweeps import records
from dlnds.sweeps import workers as crews
from dlnds.sweeps.folder import Grid, Plan
from dlnds.sweeps.task import Task, check_task, import_task
from dlnds.sweeps.workers import Job, Outcome, Point

#: What becomes of points, one after the other; it is closed to end what is under way.
Outcomes = Generator[Outcome, None, None]

#: Results that wait to be written; then they are waited for.
MOST_PENDING = 64
#: Seconds after which the names of new files are flushed, too.
FLUSH_TIME = 1.0
#: What becomes of points that every sweep computes.
_NOT_THERE = ("missing", "damaged")
#: Dim of the numbers of points, which no task's Dataset has.
_NUMBER = "number of the point"


@known_options
def sweep(
    task: Task,
    grid: Mapping[str, Any] | xr.Dataset | pd.DataFrame | Grid,
    directory: str | os.PathLike[str],
    *,
    workers: int = 1,
    executor: Any = None,
    rng: Any = None,
    time_limit: float | None = None,
    resume: bool = True,
    retry: bool = False,
    on_failure: str = "mark",
    progress: bool = False,
) -> xr.Dataset:
    """Return what a task returns at all points of a grid, each kept in a file once it is finished.

    Parameters
    ----------
    task
        Function of named parameters that returns a Dataset of numbers and text without NaN, with
        the same variables, dims, sizes and coordinates of dims at every point. If it has a
        parameter ``rng`` it gets a `numpy.random.Generator` there.
    grid
        Values of the parameters by name, of which all combinations are computed; or a Dataset with
        a variable for each parameter, or a table with a column for each, whose points are computed.
        Values are numbers or text.
    directory
        Folder of the sweep; it is made if there is none. All that is finished stays there, and the
        same call goes on with what is missing.
    workers
        Processes to spread the points over. They import the module of the task anew: a script that
        is run needs ``if __name__ == "__main__":`` around what it does.
    executor
        Instead of ``workers``, any executor of `concurrent.futures`, or a client of
        dask.distributed. It has to be able to send the task to where it is run.
    rng
        Seed (SPEC 7). Point i gets ``SeedSequence(entropy, spawn_key=(i,))``, whatever the order,
        and ``None`` goes on with that of the directory.
    time_limit
        Seconds after which a point is given up; such points are computed in worker processes.
    resume
        Go on with a sweep that is in the directory already; false refuses to.
    retry
        Compute points again that have failed.
    on_failure
        ``"mark"`` keeps going and tells by ``status``, ``"raise"`` ends the sweep.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``sweep``: the variables of the task with the dims of the grid in front, NaN (or
        empty text) where a point did not finish, and ``status``, a flag: ``finished``, ``missing``,
        ``raised``, ``timed_out``, ``died`` (with its process), ``not_a_number``, ``wrong_form``
        (not what most others have), ``damaged`` (the file was changed). Integers become floats
        where a point is missing.

    Raises
    ------
    ValueError, TypeError
        If an argument is outside what is described above; if the directory is locked, cannot be
        written, or holds another task, grid or seed, whose difference is told.
    RuntimeError
        If a point fails and ``on_failure="raise"``, or the workers do not start.
    OSError
        If a file cannot be written, for example because the disk is full. Nothing is lost then.

    Notes
    -----
    One process, that of the caller, writes: a file for each point, under a temporary name, flushed
    and renamed, with a SHA-256 of its bytes that is checked when it is read. A point that fails
    leaves its inputs and traceback in ``failures/``. Killed at any moment, the next call computes
    what is missing, what does not verify, and nothing else. What a task consists of is its text,
    that of the functions and classes of its module that it uses, and their plain values (numbers,
    text, arrays, collections of these), not what it imports. It is compared in each process, too.
    BLAS has one thread in every worker, because the last digits depend on their number. For half a
    minute at most one worker is alone at the first point, so that the others find what it has
    compiled; ``dlnds warm`` compiles everything beforehand.

    Examples
    --------
    >>> import tempfile, numpy as np, xarray as xr, dlnds as dl
    >>> def growth(rate, time):
    ...     return xr.Dataset({"size": np.exp(rate * time)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = dl.sweep(growth, {"rate": [0.0, 1.0], "time": [0, 1]}, folder)
    >>> found["size"].round(2).values.tolist(), found.attrs["n_finished"]
    ([[1.0, 1.0], [1.0, 2.72]], 4)
    """
    task = check_task(task)
    points = manifest.check_grid(grid, task)
    folder = _check_directory(directory)
    workers = check_integer("workers", workers, minimum=1, maximum=4096)
    limit = _check_engine(workers, executor, time_limit)
    mark = check_choice("on_failure", on_failure, ("mark", "raise")) == "mark"
    flags = {"resume": resume, "retry": retry, "progress": progress}
    resume, retry, progress = (check_flag(name, value) for name, value in flags.items())
    check_generator("rng", rng)
    with contextlib.ExitStack() as stack:
        _enter(stack, folder)
        plan = _planned(folder, task, points, rng, resume)
        todo = _to_do(plan, retry)
        job = _job(plan, task, limit)
        outcomes: Outcomes
        if executor is not None:
            outcomes = crews.run_elsewhere(job, todo, executor)
        elif todo and (workers > 1 or limit is not None):
            outcomes = crews.run_pooled(job, todo, workers)
        else:
            outcomes = crews.run_here(job, todo)
        _run(plan, outcomes, len(todo), mark, progress)
        found = _assembled(plan)
        _note_wrong_forms(plan, found)
    if not mark and found.attrs["n_finished"] < points.size:
        raise RuntimeError(f"{_first_failure(plan, found)}; {folder / manifest.FAILURES} has more")
    return found


def _check_directory(directory: Any) -> Path:
    if not isinstance(directory, str | os.PathLike) or "\0" in os.fspath(directory):
        raise TypeError(f"directory: needs the name of a folder, got {directory!r}")
    folder = Path(directory)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"directory: {folder} is no folder")
    if not folder.parent.is_dir():
        raise ValueError(f"directory: the folder {folder.parent} does not exist")
    return folder


def _check_engine(workers: int, executor: Any, time_limit: Any) -> float | None:
    """Return the time limit, if the engine can keep it."""
    limit = (
        None
        if time_limit is None
        else check_number("time_limit", time_limit, minimum=1e-3, maximum=1e8)
    )
    if executor is None:
        return limit
    if not hasattr(executor, "submit"):
        raise TypeError(f"executor: needs an executor or a dask client, got {executor!r}")
    if getattr(executor, "status", None) == "closed":  # a client of dask.distributed
        raise ValueError("executor: the client is closed, needs an open one")
    if workers != 1:
        raise ValueError("workers: the executor has its own, leave out one of the two")
    if limit is not None:
        raise ValueError("time_limit: nothing ends the tasks of an executor; use workers")
    return None


def _enter(stack: contextlib.ExitStack, folder: Path) -> None:
    """Make a folder if there is none, become its only writer, and sweep it up."""
    own = {manifest.MANIFEST, manifest.GRID, manifest.LOCK, manifest.POINTS, manifest.FAILURES}
    if folder.is_dir() and not (folder / manifest.MANIFEST).exists():
        strange = [p.name for p in folder.iterdir() if p.name not in own and p.suffix != ".tmp"]
        if strange:
            raise ValueError(f"directory: {folder} holds no sweep, but {strange[0]!r}")
    manifest.check_folders(folder)
    try:
        folder.mkdir(exist_ok=True)
        stack.enter_context(manifest.only_writer(folder))
        for part in (folder, folder / manifest.POINTS, folder / manifest.FAILURES):
            if part.is_dir():
                records.sweep_up(part)
    except OSError as error:
        raise ValueError(f"directory: {folder} cannot be written ({error})") from error


def _planned(folder: Path, task: Task, grid: Grid, rng: Any, resume: bool) -> Plan:
    """Return the sweep of a folder, begun if there is none, if it is the same."""
    words = manifest.describe(task, grid)
    if not (folder / manifest.MANIFEST).exists():
        return manifest.write_plan(folder, grid, _entropy(rng), words)
    plan = manifest.read_plan(folder)
    if not resume:
        raise ValueError(f"directory: {folder} holds a sweep already; resume=True goes on with it")
    difference = manifest.changes(plan.words, words)
    if difference:
        raise ValueError(f"{difference}; the sweep in {folder} is another one")
    if rng is not None and _entropy(rng) != plan.entropy:
        raise ValueError(f"rng: the sweep in {folder} was begun with {plan.entropy}")
    manifest.make_folders(folder)
    return plan


def _entropy(rng: Any) -> int:
    """Return the root entropy of a sweep: a seed itself, or drawn from a generator."""
    if rng is None:
        return int(np.random.SeedSequence().entropy)  # type: ignore[arg-type]
    if isinstance(rng, int | np.integer):
        return int(rng)
    return int.from_bytes(check_generator("rng", rng).bytes(16), "little")


def _job(plan: Plan, task: Task, limit: float | None) -> Job:
    has_rng = "rng" in inspect.signature(task).parameters
    reserved = ("status", *map(str, plan.grid.dataset.variables), *plan.grid.sizes)
    return Job(task, has_rng, plan.entropy, plan.digest, reserved, limit, plan.words["parts"])


def _to_do(plan: Plan, retry: bool) -> list[Point]:
    """Return the points that are missing or do not verify, and on request those that failed."""
    # Results that are not of the form of most others are whole files, with a failure beside them.
    return _points(
        plan,
        [
            i
            for i in range(plan.grid.size)
            if (retry and plan.failure_file(i).exists()) or _look(plan, i)[0] in _NOT_THERE
        ],
    )


def _points(plan: Plan, numbers: Sequence[int]) -> list[Point]:
    """Return the points of these numbers with their inputs."""
    columns = plan.grid.columns()
    return [Point(i, {name: values[i] for name, values in columns.items()}) for i in numbers]


def _run(plan: Plan, outcomes: Outcomes, count: int, mark: bool, progress: bool) -> None:
    """Keep what becomes of points."""
    size, failed = plan.grid.size, 0
    bar = tqdm(total=size, initial=size - count, disable=not progress, desc="sweep", unit="run")
    with bar, contextlib.closing(_written(plan, outcomes)) as written:
        for outcome in written:
            failed += outcome.status != "finished"
            bar.set_postfix({"failed": failed}, refresh=False)
            bar.update()
            if failed and not mark:
                raise RuntimeError(_said(outcome.point.inputs, outcome.status, outcome.message))


def _said(inputs: Mapping[str, Any], status: str, message: str) -> str:
    where = ", ".join(f"{name}={value!r}" for name, value in inputs.items())
    return f"the point {where}: {schema.spoken(status)}: {message}"


def _written(plan: Plan, outcomes: Outcomes) -> Outcomes:
    """Write outcomes while others are computed; yield each once its file is on the disk."""
    pending: deque[tuple[Outcome, Future[None]]] = deque()
    flushed = time.monotonic()
    try:
        with contextlib.closing(outcomes), ThreadPoolExecutor(1) as pool:
            for outcome in outcomes:
                pending.append((outcome, pool.submit(_write, plan, outcome)))
                while pending and (pending[0][1].done() or len(pending) > MOST_PENDING):
                    yield _once_written(plan, *pending.popleft())
                if time.monotonic() > flushed + FLUSH_TIME:
                    flushed = time.monotonic()
                    pool.submit(flush, plan.directory / manifest.POINTS)
            for item in pending:
                yield _once_written(plan, *item)
    finally:
        for name in (manifest.POINTS, manifest.FAILURES):
            flush(plan.directory / name)


def _once_written(plan: Plan, outcome: Outcome, written: "Future[None]") -> Outcome:
    try:
        written.result()
    except OSError as error:
        said = f"directory: {plan.directory} cannot be written, what is there is kept"
        raise OSError(error.errno, f"{said} ({error.strerror or error})") from error
    return outcome


def _write(plan: Plan, outcome: Outcome) -> None:
    index = outcome.point.number
    result, failure = plan.point_file(index), plan.failure_file(index)
    if outcome.status == "finished":
        records.write_bytes(result, outcome.record)
        failure.unlink(missing_ok=True)
    else:
        result.unlink(missing_ok=True)
        records.write_bytes(failure, _failure(plan, outcome))


def _failure(plan: Plan, outcome: Outcome) -> bytes:
    return records.note(
        {
            "sweep": plan.digest,
            "point": outcome.point.number,
            "inputs": outcome.point.inputs,
            "status": outcome.status,
            "message": outcome.message,
            "traceback": outcome.trace,
        }
    )


def _look(plan: Plan, index: int) -> tuple[str, Any]:
    """Return what the files of a point tell: its status, and its Dataset or its failure."""
    try:
        dataset, about = records.decode(records.read_bytes(plan.point_file(index)))
        own = about == {"point": index, "sweep": plan.digest}
        return ("finished", dataset) if own else ("damaged", None)
    except FileNotFoundError:
        pass
    except (ValueError, OSError):
        return "damaged", None
    try:
        words = records.read_note(records.read_bytes(plan.failure_file(index)))
    except FileNotFoundError:
        return "missing", None
    except (ValueError, OSError):
        return "damaged", None
    own = words.get("point") == index and words.get("sweep") == plan.digest
    return (
        (words["status"], words)
        if own and words.get("status") in schema.SWEEP_STATES
        else ("damaged", None)
    )


def _assembled(plan: Plan) -> xr.Dataset:
    """Return all points side by side."""
    check_memory("directory", sum(map(_size, _files(plan, manifest.POINTS))) // 4)
    looked = [_look(plan, index) for index in range(plan.grid.size)]
    status = [state for state, _ in looked]
    found = {i: dataset for i, (state, dataset) in enumerate(looked) if state == "finished"}
    forms = {i: _form(dataset) for i, dataset in found.items()}
    for form, _ in Counter(forms.values()).most_common(1):  # of equally common ones the first
        for i in [i for i in found if forms[i] != form]:
            status[i] = "wrong_form"
            del found[i]
    dataset = _placed(plan.grid, _stacked(found, plan.grid.size))
    return _finished(plan, dataset, status, _common([d.attrs for d in found.values()]))


def _files(plan: Plan, name: str) -> list[Path]:
    """Return what is in a folder of a sweep, of which copies may lack empty ones."""
    folder = plan.directory / name
    return list(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:  # by a writer that is at work
        return 0


def _form(dataset: xr.Dataset) -> str:
    """Return names, dims, sizes and coordinates of dims as a text."""
    parts = []
    for name, variable in dataset.variables.items():
        kind = variable.dtype.kind if variable.dtype.kind in "Uc" else "number"
        values = variable.values.tolist() if variable.dims == (name,) else None
        parts.append((name, variable.dims, variable.shape, kind, name in dataset.coords, values))
    return repr(sorted(parts, key=lambda part: str(part[0])))


def _stacked(found: Mapping[int, xr.Dataset], size: int) -> xr.Dataset:
    """Return Datasets of one form over a first dim, which `_placed` replaces."""
    if not found:
        return xr.Dataset()
    first = next(iter(found.values()))
    variables = {}
    for name, variable in first.variables.items():
        attrs = _common([dataset[name].attrs for dataset in found.values()])
        if variable.dims == (name,):
            variables[name] = variable.copy()
            variables[name].attrs = attrs
            continue
        values = {i: dataset[name].values for i, dataset in found.items()}
        dtype = np.result_type(*{value.dtype for value in values.values()})
        if len(found) < size and dtype.kind in "biu":
            dtype = np.dtype(np.float64)
        blank = "" if dtype.kind == "U" else False if dtype.kind in "biu" else np.nan
        check_memory("directory", size * math.prod(variable.shape) * dtype.itemsize // 8)
        stacked = np.full((size, *variable.shape), blank, dtype)
        for i, value in values.items():
            stacked[i] = value
        variables[name] = xr.Variable((_NUMBER, *variable.dims), stacked, attrs)
    return xr.Dataset(variables).set_coords([str(name) for name in first.coords])


def _placed(grid: Grid, stacked: xr.Dataset) -> xr.Dataset:
    """Return what is stacked over points with the dims of the grid instead."""
    dims, shape = tuple(grid.sizes), tuple(grid.sizes.values())
    variables = {}
    for name, variable in stacked.variables.items():
        if variable.dims == (name,):
            variables[name] = variable
        else:
            values = variable.values.reshape(*shape, *variable.shape[1:])
            variables[name] = xr.Variable((*dims, *variable.dims[1:]), values, variable.attrs)
    placed = xr.Dataset(variables).set_coords([str(name) for name in stacked.coords])
    return placed.assign_coords(grid.dataset.variables)


def _finished(
    plan: Plan, dataset: xr.Dataset, status: list[str], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Return points with their status, and the attributes that all of them share."""
    sizes = plan.grid.sizes
    flags = schema.flag(schema.SWEEP_STATES, status).reshape(tuple(sizes.values()))
    own = {
        "task": plan.words["task"],
        "rng_entropy": str(plan.entropy),
        "sweep_digest": plan.digest,
        "n_finished": status.count("finished"),
    }
    shared = {key: value for key, value in attrs.items() if key not in ("schema", "dlnds_version")}
    return schema.finish(dataset.assign(status=(tuple(sizes), flags)), "sweep", {**shared, **own})


def _common(attributes: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Return the attributes that are the same in all of them."""
    if not attributes:
        return {}
    return {
        key: value
        for key, value in attributes[0].items()
        if all(key in one and np.array_equal(one[key], value) for one in attributes)
    }


def _note_wrong_forms(plan: Plan, found: xr.Dataset) -> None:
    """Leave a failure beside each result that is not of the form of most others."""
    wrong = schema.SWEEP_STATES.index("wrong_form")
    numbers = np.flatnonzero(found["status"].values.ravel() == wrong).tolist()
    for point in _points(plan, [i for i in numbers if plan.point_file(i).exists()]):
        message = "has other variables, dims, sizes or coordinates than most other points"
        outcome = Outcome(point, "wrong_form", message=message)
        records.write_bytes(plan.failure_file(point.number), _failure(plan, outcome))


def _first_failure(plan: Plan, found: xr.Dataset) -> str:
    states = schema.decode(found["status"]).values.ravel()
    index = next(i for i, state in enumerate(states) if state != "finished")
    inputs = _points(plan, [index])[0].inputs
    words = _look(plan, index)[1]
    return _said(inputs, states[index], words.get("message", "") if isinstance(words, dict) else "")


@known_options
def collect(directory: str | os.PathLike[str]) -> xr.Dataset:
    """Return what a sweep has finished so far; it may be under way.

    Parameters
    ----------
    directory
        Folder of the sweep; nothing in it is changed.

    Returns
    -------
    xarray.Dataset
        As of `sweep`.

    Raises
    ------
    FileNotFoundError
        If there is no sweep in the directory.
    ValueError
        If its manifest or grid is damaged. Points that are damaged have that status.

    Examples
    --------
    >>> import tempfile, xarray as xr, dlnds as dl
    >>> def square(x):
    ...     return xr.Dataset({"square": x**2})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = dl.sweep(square, {"x": [1, 2, 3]}, folder)
    ...     dl.collect(folder).identical(found)
    True
    """
    return _assembled(_plan(directory))


def _plan(directory: Any) -> Plan:
    folder = _check_directory(directory)
    if not folder.is_dir():
        raise FileNotFoundError(f"directory: there is no folder {folder}")
    return manifest.read_plan(folder)


@known_options
def verify(directory: str | os.PathLike[str]) -> xr.Dataset:
    """Return the status of every point of a sweep, each file read and checked.

    Parameters
    ----------
    directory
        Folder of the sweep; nothing in it is changed.

    Returns
    -------
    xarray.Dataset
        ``status`` over the grid, as of `sweep`.

    Raises
    ------
    FileNotFoundError, ValueError
        As `collect`.

    Examples
    --------
    >>> import pathlib, tempfile, xarray as xr, dlnds as dl
    >>> def square(x):
    ...     return xr.Dataset({"square": x**2})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = dl.sweep(square, {"x": [1, 2, 3]}, folder)
    ...     size = pathlib.Path(folder, "points", "00000001.record").write_bytes(b"damage")
    ...     dl.schema.decode(dl.verify(folder).status).values.tolist()
    ['finished', 'damaged', 'finished']
    """
    found, own = collect(directory), _plan(directory).grid.dataset
    return found.drop_vars([n for n in found.variables if n not in own and n != "status"])


def continue_sweep(directory: str | os.PathLike[str], **options: Any) -> xr.Dataset:
    """Return a sweep that goes on with its own task and grid, as its manifest names them.

    This imports, and so runs, the file that the task is in.

    Raises
    ------
    ValueError
        If the task cannot be imported; and as `sweep`, for example if it has changed.
    """
    plan = _plan(directory)
    return sweep(import_task(plan.words), plan.grid, directory, **options)


def progress_of(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what is known of a sweep without reading its points: counts, and who is at work."""
    plan = _plan(directory)
    folders = (manifest.POINTS, manifest.FAILURES)
    points, failures = (
        {p.stem for p in _files(plan, name) if re.fullmatch(r"\d{8,}\.(record|json)", p.name)}
        for name in folders
    )
    return {
        "task": plan.words["task"],
        "sizes": plan.grid.sizes,
        "points": plan.grid.size,
        "finished": len(points - failures),
        "failed": len(failures),
        "at work": manifest.is_locked(plan.directory),
    }
