"""What a sweep is: its grid, the digests of grid and task, and the files of its folder."""

import contextlib
import fcntl
import inspect
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import IO, Any, NamedTuple

import numba
import numpy as np
import pandas as pd
import scipy
import xarray as xr

from dlnds._version import __version__
from dlnds.errors import check_memory
from dlnds.store import content_digest, flush
from dlnds.sweeps import records
from dlnds.sweeps.task import Task, differing, digest_of, parts_of

MANIFEST, GRID, LOCK = "manifest.json", "grid.record", "lock"
POINTS, FAILURES = "points", "failures"

_PER_POINT = 64  # numbers of 8 bytes that a point takes at least in memory


class Grid(NamedTuple):
    """The points of a sweep: a Dataset whose variables are the parameters of the task."""

    dataset: xr.Dataset
    names: tuple[str, ...]
    dims: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """The dims of the grid, in the order in which points are numbered, and their sizes."""
        return {dim: self.dataset.sizes[dim] for dim in self.dims}

    @property
    def size(self) -> int:
        """The number of points."""
        return math.prod(self.sizes.values())

    def columns(self) -> dict[str, list[Any]]:
        """Return the values of each parameter at all points, in C order of the dims."""
        places = np.unravel_index(np.arange(self.size), tuple(self.sizes.values()))
        place = dict(zip(self.sizes, places, strict=True))
        variables = {name: self.dataset[name].variable for name in self.names}
        return {
            name: variable.values[tuple(place[str(dim)] for dim in variable.dims)].tolist()
            for name, variable in variables.items()
        }


class Plan(NamedTuple):
    """A sweep as its manifest tells it."""

    directory: Path
    grid: Grid
    entropy: int
    digest: str
    words: dict[str, Any]

    def point_file(self, index: int) -> Path:
        """Return where the result of a point is kept."""
        return self.directory / POINTS / f"{index:08d}.record"

    def failure_file(self, index: int) -> Path:
        """Return where the failure of a point is kept."""
        return self.directory / FAILURES / f"{index:08d}.json"


def check_grid(grid: Any, task: Task) -> Grid:
    """Return the points of a mapping of names to values, or of a table of points."""
    if isinstance(grid, pd.DataFrame):
        if not grid.columns.is_unique or "point" in grid.columns:
            raise ValueError("grid: needs columns of different names, none of them 'point'")
        grid = xr.Dataset.from_dataframe(grid.reset_index(drop=True).rename_axis("point"))
        grid = grid.drop_vars("point")
    parameters = inspect.signature(task).parameters
    if isinstance(grid, Grid):  # of a manifest
        names, dataset = list(grid.names), grid.dataset
    elif isinstance(grid, xr.Dataset):
        names = [str(n) for n in grid.variables if n in grid.data_vars or n in parameters]
        dataset = grid.copy(deep=True).drop_encoding()
    elif isinstance(grid, Mapping):
        names = list(grid)
        dataset = xr.Dataset(coords={n: (n, _axis(n, values)) for n, values in grid.items()})
    else:
        raise TypeError(f"grid: needs a mapping, a Dataset or a table, got {type(grid).__name__}")
    for name in names:
        if name not in parameters or name == "rng":
            known = ", ".join(n for n in parameters if n != "rng")
            raise ValueError(f"grid: the task has no parameter {name!r}; it has {known}")
    if "status" in (*names, *dataset.dims, *dataset.coords):
        raise ValueError("grid: 'status' is the name of what becomes of points, use another one")
    missing = [
        n for n, p in parameters.items() if p.default is p.empty and n not in (*names, "rng")
    ]
    if missing:
        raise ValueError(f"grid: lacks {', '.join(missing)}, which the task needs")
    checked = {name: _checked(name, dataset[name]) for name in names}
    coords = {n: checked.pop(n) for n in dataset.coords if n in checked}
    dims = grid.dims if isinstance(grid, Grid) else tuple(map(str, dataset.sizes))
    found = Grid(dataset.assign_coords(coords).assign(checked), tuple(names), dims)
    if not names or not dims or found.size == 0:
        raise ValueError("grid: is empty, needs a dim and one point at least")
    check_memory("grid", _PER_POINT * found.size)
    try:
        records.encode(found.dataset, {})
    except TypeError as error:
        raise TypeError(f"grid: {str(error).removeprefix('data: ')}") from None
    return found


def _axis(name: Any, values: Any) -> Any:
    """Return the values of one parameter of a product, as they are or as an array."""
    if not isinstance(name, str):
        raise TypeError(f"grid: needs names that are text, got {name!r}")
    wrong = (str, bytes, Mapping, set, frozenset)
    if isinstance(values, wrong) or not np.iterable(values) or not isinstance(values, Sized):
        raise TypeError(f"grid: {name!r} needs a sequence of values, got {values!r}")
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"grid: {name!r} is masked, needs plain values")
    try:
        check_memory("grid", _PER_POINT * len(values))
    except OverflowError:
        raise ValueError(f"grid: {name!r} has too many values for any memory") from None
    if isinstance(values, xr.DataArray | np.ndarray):
        array = np.asarray(values)
    else:
        array = _array(name, list(values))
    if array.ndim != 1:
        raise ValueError(f"grid: {name!r} needs one dimension, got shape {array.shape}")
    return array


def _array(name: str, values: list[Any]) -> Any:
    """Return values as an array, if that keeps them."""
    if len({isinstance(v, str) for v in values}) > 1:
        raise TypeError(f"grid: {name!r} mixes text and numbers")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"grid: {name!r} needs plain values ({error})") from None
    for kept, value in zip(array.tolist(), values, strict=True) if array.ndim == 1 else ():
        if isinstance(value, int | str) and kept != value:
            raise ValueError(f"grid: {name!r} has {value!r}, which becomes {kept!r} in an array")
    return array


def _checked(name: str, values: xr.DataArray) -> xr.Variable:
    """Return the values of a parameter, if they are numbers or text, and told apart."""
    array = values.values
    if array.dtype.kind in "OT" and all(isinstance(v, str) for v in array.ravel()):
        array = array.astype(np.str_)
    if array.dtype.kind not in "biufU" or array.dtype.char == "g":
        raise TypeError(f"grid: {name!r} needs real numbers or text, got dtype {array.dtype}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(f"grid: {name!r} needs numbers, got NaN")
    own_dim = values.dims == (name,)
    if array.ndim != 1 and own_dim:
        raise ValueError(f"grid: {name!r} needs one dimension, got shape {array.shape}")
    if own_dim and len(np.unique(array)) < len(array):
        raise ValueError(f"grid: {name!r} has values that are repeated")
    return xr.Variable(values.dims, array, values.attrs)


def describe(task: Task, grid: Grid) -> dict[str, Any]:
    """Return what a manifest says of task and grid."""
    return {
        "schema": "sweep",
        "task": f"{task.__module__}:{task.__qualname__}",
        "file": os.path.abspath(inspect.getsourcefile(task) or ""),
        "parts": parts_of(task),
        "grid": _grid_digests(grid),
        "sizes": grid.sizes,
        "versions": {
            "dlnds": __version__,
            "python": platform.python_version(),
            **{m.__name__: m.__version__ for m in (np, scipy, xr, numba)},
        },
    }


def _grid_digests(grid: Grid) -> dict[str, str]:
    return {name: content_digest(grid.dataset[[name]]) for name in grid.names}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the argument that differs between two descriptions, and how; empty if none does."""
    if list(old["sizes"].items()) != list(new["sizes"].items()):
        return f"grid: has the sizes {new['sizes']}, the directory has {old['sizes']}"
    for argument, key in (("grid", "grid"), ("task", "parts")):
        if names := differing(old[key], new[key]):
            return f"{argument}: differs from that of the directory in {', '.join(names)}"
    one, other = (each["versions"]["dlnds"] for each in (old, new))
    return "" if one == other else f"directory: was begun by dlnds {one}, this is dlnds {other}"


def write_plan(directory: Path, grid: Grid, entropy: int, words: dict[str, Any]) -> Plan:
    """Write the manifest of a new sweep, and return it."""
    words = {**words, "rng_entropy": str(entropy)}
    words["digest"] = _plan_digest(words)
    _check_orphans(directory, words["digest"])
    records.write_bytes(
        directory / GRID, records.encode(grid.dataset, {"names": grid.names, "dims": grid.dims})
    )
    make_folders(directory)
    flush(directory)
    records.write_bytes(directory / MANIFEST, records.note(words))  # the last: it makes the sweep
    flush(directory)
    return Plan(directory, grid, entropy, words["digest"], words)


def _check_orphans(directory: Path, digest: str) -> None:
    """Refuse to write over the points of a sweep whose manifest is gone."""
    for path in sorted((directory / POINTS).glob("*.record")):
        try:
            _, about = records.decode(records.read_bytes(path))
        except (ValueError, OSError):
            continue
        if about.get("sweep") != digest:
            raise ValueError(
                f"directory: {directory} holds points, but the {MANIFEST} is gone; only with the "
                "same task, grid and rng they are taken"
            )


def _plan_digest(words: Mapping[str, Any]) -> str:
    """Return a digest of task, grid and entropy, which each file of the sweep carries."""
    kept = {key: words[key] for key in ("parts", "grid", "sizes", "rng_entropy")}
    return digest_of(json.dumps(kept, sort_keys=True))


def read_plan(directory: Path) -> Plan:
    """Return the sweep of a directory.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If its manifest or grid is damaged.
    """
    name = MANIFEST
    try:
        words = records.read_note(records.read_bytes(directory / MANIFEST))
        name = GRID
        dataset, about = records.decode(records.read_bytes(directory / GRID))
    except FileNotFoundError:
        raise FileNotFoundError(f"directory: {directory} holds no sweep, no {name}") from None
    except ValueError as error:
        raise ValueError(f"directory: {name} in {directory} is damaged: {error}") from None
    check_folders(directory)
    try:
        grid = Grid(dataset, tuple(about["names"]), tuple(about["dims"]))
        agree = words["grid"] == _grid_digests(grid) and words["sizes"] == grid.sizes
        plan = Plan(directory, grid, int(words["rng_entropy"]), words["digest"], words)
        agree = agree and plan.digest == _plan_digest(words)
        texts = (words["task"], words["file"], words["versions"]["dlnds"], *words["parts"].values())
        agree = agree and all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"directory: {MANIFEST} in {directory} lacks {error}") from None
    if not agree:
        raise ValueError(f"directory: {GRID} and {MANIFEST} in {directory} disagree")
    check_memory("directory", _PER_POINT * grid.size)
    return plan


def check_folders(directory: Path) -> None:
    """Refuse folders of points and failures that are links."""
    for folder in (directory / POINTS, directory / FAILURES):
        if folder.is_symlink():
            raise ValueError(f"directory: {folder} is a link to another place")


def make_folders(directory: Path) -> None:
    """Make the folders of points and failures; copies of a sweep may lack them if empty."""
    for name in (POINTS, FAILURES):
        (directory / name).mkdir(exist_ok=True)


@contextlib.contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory; that of a process which has died is free."""
    with _open_lock(directory, os.O_RDWR | os.O_CREAT | os.O_APPEND, "a+") as file:
        for wait in (0.05, 0.1, 0.0):  # who only asks holds it for a moment
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(wait)
        else:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            raise ValueError(f"directory: {holder} is at work in {directory}")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _open_lock(directory: Path, flags: int, mode: str) -> IO[str]:
    """Open a lock, but no link to another file, which would be emptied; wait for no pipe."""
    handle = os.open(directory / LOCK, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    return open(handle, mode, encoding="utf-8")


def is_locked(directory: Path) -> bool:
    """Tell whether a writer is at work in a directory."""
    try:
        with _open_lock(directory, os.O_RDONLY, "r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False
