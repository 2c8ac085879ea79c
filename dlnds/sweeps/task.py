"""What a sweep computes: a task, what that consists of, and the points of a grid."""

import hashlib
import importlib
import inspect
import math
import os
import sys
import textwrap
import types
from collections.abc import Callable, Collection, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from dlnds.arrays import Integers
from dlnds.errors import check_memory

#: A function of named parameters, and ``rng``, that returns a Dataset.
Task = Callable[..., xr.Dataset]

_PER_POINT = 64  # numbers of 8 bytes that a point takes at least in memory


def check_task(task: Any) -> Task:
    """Return ``task`` if it is a plain function whose text can be read."""
    if not inspect.isfunction(task):
        raise TypeError(f"task: needs a function defined by def, got {task!r}")
    if task.__closure__:
        names = ", ".join(task.__code__.co_freevars)
        raise TypeError(f"task: takes {names} from the function around it; make them parameters")
    wrong = [p for p in inspect.signature(task).parameters.values() if p.kind in (0, 2, 4)]
    if wrong:
        raise TypeError(f"task: needs named parameters only, got {', '.join(map(str, wrong))}")
    try:
        inspect.getsource(task)
    except OSError:
        raise ValueError("task: its text cannot be read; define it in a file") from None
    return task


def parts_of(task: Task) -> dict[str, str]:
    """Return digests of a task's text and of what it uses of its module, by their names.

    These are the texts of functions and classes, and plain values; what is imported counts by its
    version only.
    """
    waiting: dict[str, Any] = {task.__qualname__: task}
    parts: dict[str, str] = {}
    while waiting:
        name, value = waiting.popitem()
        told, used = _told(value, task.__module__)
        parts[name] = digest_of(told) if told else ""
        new = used & task.__globals__.keys() - parts.keys()
        waiting |= {name: task.__globals__[name] for name in new}
    return {name: parts[name] for name in sorted(parts) if parts[name]}


def _told(value: Any, module: str) -> tuple[str, set[str]]:
    """Return a text that tells a value of a module apart, and the names that it looks up."""
    value = inspect.unwrap(getattr(value, "py_func", value))  # of Numba, of functools.cache
    if isinstance(value, type(None) | bool | int | float | complex | str | bytes | range):
        return repr(value), set()
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype} {value.tolist()}", set()
    if isinstance(value, dict | list | tuple | set | frozenset):
        items = list(value.items()) if isinstance(value, dict) else list(value)
        inner = [_told(item, module) for item in items]
        texts = (
            sorted(text for text, _ in inner) if isinstance(value, Set) else [t for t, _ in inner]
        )
        return f"{type(value).__name__}{texts}", set().union(*(names for _, names in inner))
    own = getattr(value, "__module__", None) == module
    if not own or not (inspect.isfunction(value) or inspect.isclass(value)):
        return "", set()
    try:
        text = textwrap.dedent(inspect.getsource(value))
        codes = [compile(text, "", "exec", dont_inherit=True)]
    except SyntaxError:  # a lambda inside a call
        codes = [value.__code__]  # type: ignore[union-attr]
    except (OSError, TypeError):  # a class of a notebook
        return value.__qualname__, set()
    for code in codes:
        codes += [one for one in code.co_consts if isinstance(one, types.CodeType)]
    names = {name for code in codes for name in code.co_names}
    return text, {name for name in names if not name.startswith("__")}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names under which two descriptions differ, sorted."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def digest_of(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def import_task(words: Mapping[str, Any]) -> Task:
    """Return the task that the words of a manifest name, from the file it was in.

    Raises
    ------
    ValueError
        If the file is gone, cannot be imported, or has no such function.
    """
    said = f"directory: its task {words['task']} in {words['file']} cannot be imported"
    module, _, name = words["task"].partition(":")
    path = Path(words["file"])
    if not path.is_file():
        raise ValueError(f"{said}: there is no such file")
    module = path.stem if module == "__main__" else module
    # Worker processes look for modules where this process does.
    root = path.parents[module.count(".") + (path.stem == "__init__")]
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{said}: {type(error).__name__}: {error}") from error
    found = getattr(imported, "__file__", None)
    if found is None or not os.path.samefile(found, path):
        raise ValueError(f"{said}: {module} is {found or 'a part of Python'} here")
    if not hasattr(imported, name):
        raise ValueError(f"{said}: it has no {name!r}")
    return check_task(getattr(imported, name))


class Grid(NamedTuple):
    """The points of a sweep, in C order of the dims of a Dataset of the task's parameters."""

    dataset: xr.Dataset
    names: tuple[str, ...]
    dims: tuple[str, ...]
    numbers: Integers  # that the points keep for ever

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the dims."""
        return tuple(self.dataset.sizes[dim] for dim in self.dims)

    def table(self) -> pd.DataFrame:
        """Return the values of the parameters, with a row for each point."""
        frame = self.dataset[list(self.names)].to_dataframe(dim_order=list(self.dims))
        return frame.reset_index()[list(self.names)]

    def keys(self) -> pd.MultiIndex:
        """Return what tells each point from all others: its inputs, and which of the same it is."""
        table = self.table()[sorted(self.names)]
        return pd.MultiIndex.from_frame(table.assign(**{"": table.groupby(list(table)).cumcount()}))


def check_grid(grid: Any, task: Task) -> Grid:
    """Return the points of a mapping of names to values, or of a table of points."""
    parameters = inspect.signature(task).parameters
    if isinstance(grid, pd.DataFrame):
        if not grid.columns.is_unique or "point" in grid.columns:
            raise ValueError("grid: needs columns of different names, none of them 'point'")
        grid = xr.Dataset.from_dataframe(grid.reset_index(drop=True).rename_axis("point"))
        grid = grid.drop_vars("point")
    if isinstance(grid, xr.Dataset):
        names = [str(n) for n in grid.variables if n in grid.data_vars or n in parameters]
        dataset = grid.copy(deep=True).drop_encoding()
    elif isinstance(grid, Mapping):
        names = list(grid)
        dataset = xr.Dataset(coords={n: (n, _axis(n, values)) for n, values in grid.items()})
    else:
        raise TypeError(f"grid: needs a mapping, a Dataset or a table, got {type(grid).__name__}")
    _check_names(names, dataset, parameters)
    size = math.prod(dataset.sizes.values())
    if not names or not dataset.sizes or size == 0:
        raise ValueError("grid: is empty, needs a dim and one point at least")
    check_memory("grid", _PER_POINT * size)
    checked = {name: _checked(name, dataset[name]) for name in names}
    coords = {n: checked.pop(n) for n in dataset.coords if n in checked}
    dataset = dataset.assign_coords(coords).assign(checked)
    return Grid(dataset, tuple(names), tuple(map(str, dataset.sizes)), np.arange(size))


def _check_names(
    names: list[str], dataset: xr.Dataset, parameters: Mapping[str, inspect.Parameter]
) -> None:
    """Refuse names that the task does not take, and those that are missing."""
    known = [name for name in parameters if name != "rng"]
    if strange := [name for name in names if name not in known]:
        turned = "; a table has a column for each parameter, and a row for each point"
        hint = turned if strange[0].isdigit() else ""
        raise ValueError(f"grid: the task has no parameter {strange[0]!r}; it has {known}{hint}")
    if "status" in (*names, *dataset.dims, *dataset.coords):
        raise ValueError("grid: 'status' is the name of what becomes of points, use another one")
    needed = [name for name in known if parameters[name].default is inspect.Parameter.empty]
    if missing := [name for name in needed if name not in names]:
        raise ValueError(f"grid: lacks {', '.join(missing)}, which the task needs")


def _axis(name: Any, values: Any) -> Any:
    """Return the values of one parameter of a product as an array."""
    if not isinstance(name, str):
        raise TypeError(f"grid: needs names that are text, got {name!r}")
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Collection):
        raise TypeError(f"grid: {name!r} needs a sequence of values, got {values!r}")
    check_memory("grid", _PER_POINT * len(values))
    values = values if isinstance(values, xr.DataArray | np.ndarray) else list(values)
    if len({isinstance(value, str) for value in values}) > 1:
        raise TypeError(f"grid: {name!r} mixes text and numbers")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"grid: {name!r} needs plain values ({error})") from None
    if array.ndim != 1:
        raise ValueError(f"grid: {name!r} needs one dimension, got shape {array.shape}")
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
    if values.dims == (name,) and len(np.unique(array)) < len(array):
        raise ValueError(f"grid: {name!r} has values that are repeated")
    native = array.astype(array.dtype.newbyteorder("="))  # tables of pandas take no other
    return xr.Variable(values.dims, native, values.attrs)


#: What an array of a kind of dtype holds.
_KINDS = {"b": "flags", "i": "integers", "u": "integers", "f": "floats", "U": "text"}


def grown(old: Grid, new: Grid) -> Grid:
    """Return a new grid in which the points of an old one keep their numbers.

    Raises
    ------
    ValueError
        If one of them is not in the new grid, or the grids have other parameters.
    """
    if {*old.names} != {*new.names}:
        raise ValueError(
            f"grid: has the parameters {', '.join(new.names)}, the directory has "
            f"{', '.join(old.names)}; a grid grows in the values of those that it has"
        )
    kinds = [{n: grid.dataset[n].dtype.kind for n in grid.names} for grid in (old, new)]
    for name in differing(*kinds):
        have, want = (_KINDS[kind[name]] for kind in kinds[::-1])
        raise ValueError(
            f"grid: {name} has {have}, the directory has {want}, which a task may tell apart"
        )
    before, after = old.keys(), new.keys()
    places = after.get_indexer(before)
    if (places < 0).any():
        gone = zip(before.names[:-1], before[places < 0][0], strict=False)
        said = ", ".join(f"{name}={value}" for name, value in gone)
        raise ValueError(f"grid: lacks the point {said}, which the directory has")
    numbers = np.full(len(after), -1)
    numbers[places] = old.numbers
    numbers[numbers < 0] = np.arange(len(before), len(after))
    return new._replace(numbers=numbers)
