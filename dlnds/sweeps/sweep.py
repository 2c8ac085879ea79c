"""Many runs over a grid, in a folder that loses nothing: sweeps, resumed, collected, verified."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from dlnds.sweeps import folder as files
from dlnds.sweeps.folder import FAILURES, POINTS, Plan
from dlnds.sweeps.task import Grid, Task, check_grid, check_task, import_task
from dlnds.sweeps.workers import Job, Outcome, Outcomes, Point, compute, run_apart, run_elsewhere


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
    extend: bool = False,
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
        Seconds after which a point is given up, with the worker process that computes it.
    resume
        Go on with a sweep that is in the directory already; false refuses to.
    extend
        Take a grid that has more points than that of the directory, and all of those. What is
        there stays, with its number i; only new points are computed, and numbered after the others.
        So tasks without ``rng`` give what a fresh sweep of the whole grid gives.
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
        If a point fails and ``on_failure="raise"``, if the workers do not start, or the executor
        breaks down.
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
    BLAS has one thread in every worker, because the last digits depend on their number.
    ``dlnds warm`` compiles beforehand what each worker would compile.

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
    points = grid if isinstance(grid, Grid) else check_grid(grid, task)
    folder = _check_directory(directory)
    workers = check_integer("workers", workers, minimum=1, maximum=4096)
    limit = _check_engine(workers, executor, time_limit)
    mark = check_choice("on_failure", on_failure, ("mark", "raise")) == "mark"
    flags = {"resume": resume, "extend": extend, "retry": retry, "progress": progress}
    resume, extend, retry, progress = (check_flag(name, value) for name, value in flags.items())
    check_generator("rng", rng)
    with contextlib.ExitStack() as stack:
        _enter(stack, folder)
        plan = _planned(folder, task, points, rng, resume, extend)
        states, _ = _looked(plan)
        again = schema.SWEEP_STATES[1:] if retry else ("missing", "damaged")
        todo = [p for p, state in zip(_points(plan), states, strict=True) if state in again]
        has_rng = "rng" in inspect.signature(task).parameters
        reserved = ("status", *map(str, plan.grid.dataset.variables), *plan.grid.dims)
        entropy, digest = int(plan.words["rng_entropy"]), plan.words["digest"]
        job = Job(task, has_rng, entropy, digest, reserved, limit, plan.words["parts"])
        if executor is not None:
            outcomes = run_elsewhere(job, todo, executor)
        elif todo and (workers > 1 or limit is not None):
            outcomes = run_apart(job, todo, workers)
        else:
            outcomes = (compute(job, point) for point in todo)
        _keep(plan, outcomes, len(todo), mark, progress)
        found = _assembled(plan)
    if not mark and found.attrs["n_finished"] < found["status"].size:
        raise RuntimeError(f"{_first_failure(plan, found)}; {folder / FAILURES} has more")
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
    if executor is not None and not hasattr(executor, "submit"):
        raise TypeError(f"executor: needs an executor or a dask client, got {executor!r}")
    if executor is not None and workers != 1:
        raise ValueError("workers: the executor has its own, leave out one of the two")
    if time_limit is None:
        return None
    if executor is not None:
        raise ValueError("time_limit: nothing ends the tasks of an executor; use workers")
    return check_number("time_limit", time_limit, minimum=1e-3, maximum=1e8)


def _enter(stack: contextlib.ExitStack, folder: Path) -> None:
    """Make a folder if there is none, become its only writer, and sweep it up."""
    own = {files.LOCK, POINTS, FAILURES}
    if folder.is_dir() and not (folder / files.MANIFEST).exists():
        strange = [p.name for p in folder.iterdir() if p.name not in own and p.suffix != ".tmp"]
        if strange:
            raise ValueError(f"directory: {folder} holds no sweep, but {strange[0]!r}")
    try:
        folder.mkdir(exist_ok=True)
        stack.enter_context(files.only_writer(folder))
        files.prepare(folder)
    except OSError as error:
        raise ValueError(f"directory: {folder} cannot be written ({error})") from error


def _planned(folder: Path, task: Task, grid: Grid, rng: Any, resume: bool, extend: bool) -> Plan:
    """Return the sweep of a folder, begun if there is none, if it is the same."""
    words = files.describe(task, grid)
    if not (folder / files.MANIFEST).exists():
        return files.begin(folder, grid, _entropy(rng), words)
    plan = files.read_plan(folder)
    if not resume:
        raise ValueError(f"directory: {folder} holds a sweep already; resume=True goes on with it")
    if rng is not None and str(_entropy(rng)) != plan.words["rng_entropy"]:
        raise ValueError(f"rng: the sweep in {folder} was begun with {plan.words['rng_entropy']}")
    difference = files.changes(plan.words, words)
    of_grid = difference.startswith("grid: ")
    if extend and of_grid:
        return files.extend(plan, grid, words)
    if difference:
        hint = "; with extend=True it may grow" if of_grid else ""
        raise ValueError(f"{difference}; the sweep in {folder} is another one{hint}")
    return plan


def _entropy(rng: Any) -> int:
    """Return the root entropy of a sweep: a seed itself, or drawn from a generator."""
    if rng is None:
        return int(np.random.SeedSequence().entropy)  # type: ignore[arg-type]
    if isinstance(rng, int | np.integer):
        return int(rng)
    return int.from_bytes(check_generator("rng", rng).bytes(16), "little")


def _points(plan: Plan) -> list[Point]:
    """Return all points with their inputs."""
    inputs: list[Any] = plan.grid.table().to_dict("records")
    return list(map(Point, plan.grid.numbers.tolist(), inputs))


def _keep(plan: Plan, outcomes: Outcomes, count: int, mark: bool, progress: bool) -> None:
    """Write what becomes of points, each while others are computed; end at a failure on request."""
    size, failed, written = len(plan.grid.numbers), 0, None
    bar = tqdm(total=size, initial=size - count, disable=not progress, desc="sweep", unit="run")
    with bar, contextlib.closing(outcomes), ThreadPoolExecutor(1) as writer:
        for outcome in outcomes:
            if written is not None:
                written.result()
            written = writer.submit(_write, plan, outcome)
            failed += outcome.status != "finished"
            bar.set_postfix({"failed": failed}, refresh=False)
            bar.update()
            if failed and not mark:
                break
        if written is not None:
            written.result()
    for name in (POINTS, FAILURES):
        flush(plan.directory / name)


def _write(plan: Plan, outcome: Outcome) -> None:
    """Write the file of a point, its result or its failure, and remove the other."""
    point, status, record, message, trace = outcome
    result, failure = (plan.file(folder, point.number) for folder in (POINTS, FAILURES))
    told = {"status": status, "inputs": point.inputs, "message": message, "traceback": trace}
    try:
        if status == "finished":
            files.write_bytes(result, record)
            failure.unlink(missing_ok=True)
        else:
            result.unlink(missing_ok=True)
            record = files.encode(xr.Dataset(), plan.own(point.number) | told)
            files.write_bytes(failure, record)
    except OSError as error:
        said = f"directory: {plan.directory} cannot be written, what is there is kept"
        raise OSError(error.errno, f"{said} ({error.strerror or error})") from error


def _looked(plan: Plan) -> tuple[list[str], dict[int, xr.Dataset]]:
    """Return the status of all points, and the Datasets of those that are finished, by place."""
    looked = [plan.look(number) for number in plan.grid.numbers.tolist()]
    status = [state for state, *_ in looked]
    found = {i: dataset for i, (state, dataset, _) in enumerate(looked) if state == "finished"}
    forms = {i: _form(dataset) for i, dataset in found.items()}
    for form, _ in Counter(forms.values()).most_common(1):  # of equally common ones the first
        for i in [i for i in found if forms[i] != form]:
            status[i] = "wrong_form"
            del found[i]
    return status, found


def _form(dataset: xr.Dataset) -> str:
    """Return names, dims, sizes and coordinates of dims as a text."""
    parts = []
    for name, variable in dataset.variables.items():
        kind = variable.dtype.kind if variable.dtype.kind in "Uc" else "number"
        values = variable.values.tolist() if variable.dims == (name,) else None
        parts.append((name, variable.dims, variable.shape, kind, name in dataset.coords, values))
    return repr(sorted(parts, key=lambda part: str(part[0])))


def _assembled(plan: Plan) -> xr.Dataset:
    """Return all points side by side."""
    status, found = _looked(plan)
    stacked = _stacked(found, plan.grid.dims, plan.grid.shape)
    flags = schema.flag(schema.SWEEP_STATES, status).reshape(plan.grid.shape)
    dataset = stacked.assign_coords(plan.grid.dataset.variables)
    for name, variable in dataset.variables.items():  # names are the task's, whatever ours mean
        plain = {"long_name": str(name).replace("_", " "), "symbol": ""}
        variable.attrs = plain | variable.attrs
    shared = _common([each.attrs for each in found.values()])
    own = {name: plan.words[name] for name in ("task", "rng_entropy")}
    own |= {"sweep_digest": plan.words["digest"], "n_finished": status.count("finished")}
    kept = {key: value for key, value in shared.items() if key not in ("schema", "dlnds_version")}
    return schema.finish(dataset.assign(status=(plan.grid.dims, flags)), "sweep", kept | own)


def _stacked(
    found: Mapping[int, xr.Dataset], dims: Sequence[str], shape: Sequence[int]
) -> xr.Dataset:
    """Return Datasets of one form, by their places, with the dims of the grid in front."""
    first, size = next(iter(found.values()), xr.Dataset()), math.prod(shape)
    variables = {}
    for name, variable in first.variables.items():
        attrs = _common([dataset[name].attrs for dataset in found.values()])
        if variable.dims == (name,):
            variables[name] = xr.Variable(variable.dims, variable.values, attrs)
            continue
        values = [dataset[name].values for dataset in found.values()]
        dtype = np.result_type(*{value.dtype for value in values})
        if len(found) < size and dtype.kind in "biu":
            dtype = np.dtype(np.float64)
        check_memory("directory", size * math.prod(variable.shape) * dtype.itemsize // 8)
        stacked = np.zeros((size, *variable.shape), dtype)
        if dtype.kind in "fc":
            stacked[...] = np.nan
        stacked[list(found)] = values
        stacked = stacked.reshape(*shape, *variable.shape)
        variables[name] = xr.Variable((*dims, *variable.dims), stacked, attrs)
    return xr.Dataset(variables).set_coords([str(name) for name in first.coords])


def _common(attributes: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Return the attributes that are the same in all of them."""
    return {
        key: value
        for key, value in (attributes[0] if attributes else {}).items()
        if all(key in one and np.array_equal(one[key], value) for one in attributes)
    }


def _first_failure(plan: Plan, found: xr.Dataset) -> str:
    """Return what the first failed point is, and why it failed."""
    status = schema.decode(found["status"]).values.ravel()
    place = np.flatnonzero(~np.isin(status, ["finished", "missing"]))[0]
    number, inputs = _points(plan)[place]
    where = ", ".join(f"{name}={value!r}" for name, value in inputs.items())
    message = plan.look(number)[2].get("message", "")
    return f"the point {where}: {schema.spoken(status[place])}: {message}"


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
        If its manifest is damaged. Points that are damaged have that status.

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
    return files.read_plan(folder)


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
    finished, failed = (
        len(list((plan.directory / folder).glob("*.record"))) for folder in (POINTS, FAILURES)
    )
    return {
        "task": plan.words["task"],
        "sizes": dict(zip(plan.grid.dims, plan.grid.shape, strict=True)),
        "points": len(plan.grid.numbers),
        "finished": finished,
        "failed": failed,
        "at work": files.is_locked(plan.directory),
    }
