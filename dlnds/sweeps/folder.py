"""The folder of a sweep: small sealed files, a manifest of what they are, and one writer.

A netCDF-4 file takes a tenth of a second to write and to read back, a record less than a
thousandth: what a sweep of short runs needs for each of them.
"""

import contextlib
import fcntl
import hashlib
import inspect
import io
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import scipy
import xarray as xr

from dlnds._version import __version__
from dlnds.store import SEAL, check_attributes, content_digest, flush, replacing
from dlnds.sweeps.task import Grid, Task, differing, digest_of, grown, parts_of

MANIFEST, LOCK, POINTS, FAILURES = "manifest.record", "lock", "points", "failures"

#: The first line of a record, in which its form would change.
HEAD = b"dlnds record 2\n"
_SEALED = len(SEAL) + 64
_ARRAY = "dlnds array"  # key of what stands for an array in the description
_NUMBER = "number of the point"  # variable of a stored grid, which no parameter is called


def encode(dataset: xr.Dataset, about: Mapping[str, Any]) -> bytes:
    """Return a Dataset, with a few words about it, as sealed bytes.

    They are the first line, a line of JSON that describes it, the numbers of all arrays one after
    the other, and the SHA-256 of all that.

    Raises
    ------
    TypeError
        If the Dataset holds anything but numbers and text, or attributes that netCDF cannot.
    """
    check_attributes(dataset)
    for name, variable in dataset.variables.items():
        if not all(isinstance(word, str) for word in (name, *variable.dims)):
            raise TypeError(f"data: needs names that are text, got {name!r} over {variable.dims}")
        objects = variable.values.ravel().tolist() if variable.dtype.kind in "OT" else ()
        if variable.dtype.kind not in "biufcUOT" or not all(isinstance(o, str) for o in objects):
            raise TypeError(f"data: {name!r} is of type {variable.dtype}, needs numbers or text")
    numbers = io.BytesIO()

    def packed(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if value.dtype.kind in "UOT":
            return {_ARRAY: ["text", value.shape, value.ravel().tolist()]}
        little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        numbers.write(little.tobytes())
        return {_ARRAY: [little.dtype.str, value.shape]}

    words = {
        "about": about,
        "attrs": dataset.attrs,
        "coords": list(dataset.coords),
        "variables": {n: [v.dims, v.values, v.attrs] for n, v in dataset.variables.items()},
    }
    text = json.dumps(words, default=packed).encode()
    content = HEAD + text + b"\n" + numbers.getvalue()
    return content + SEAL + hashlib.sha256(content).hexdigest().encode()


def decode(content: bytes) -> tuple[xr.Dataset, dict[str, Any]]:
    """Return the Dataset of sealed bytes, and the words about it.

    Raises
    ------
    ValueError
        If the bytes are not exactly what `encode` returned.
    """
    inner, seal = content[:-_SEALED], content[-_SEALED:]
    sealed = seal == SEAL + hashlib.sha256(inner).hexdigest().encode()
    if not inner.startswith(HEAD) or not sealed:
        raise ValueError("its bytes do not agree with their checksum")
    _, text, rest = inner.split(b"\n", 2)
    numbers = io.BytesIO(rest)

    def unpacked(value: dict[str, Any]) -> Any:
        if _ARRAY not in value:
            return value
        kind, shape, *texts = value[_ARRAY]
        if kind == "text":
            return np.array(texts[0], np.str_).reshape(shape)
        dtype = np.dtype(kind)
        values = np.frombuffer(numbers.read(math.prod(shape) * dtype.itemsize), dtype)
        return values.reshape(shape).astype(dtype.newbyteorder("="))

    words = json.loads(text, object_hook=unpacked)
    variables = {name: xr.Variable(*parts) for name, parts in words["variables"].items()}
    coords = {name: variables.pop(name) for name in words["coords"]}
    return xr.Dataset(variables, coords, words["attrs"]), words["about"]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; flush its folder, with `flush`, after the last one."""
    with replacing(path, flush_folder=False) as temporary, open(temporary, "wb") as file:
        file.write(content)


class Plan(NamedTuple):
    """A sweep as its manifest tells it."""

    directory: Path
    grid: Grid
    words: dict[str, Any]

    def own(self, number: int) -> dict[str, Any]:
        """Return the words by which a file tells that it belongs to a point of this sweep."""
        return {"sweep": self.words["digest"], "point": number}

    def file(self, folder: str, number: int) -> Path:
        """Return where the result or the failure of a point is kept."""
        return self.directory / folder / f"{number:08d}.record"

    def look(self, number: int) -> tuple[str, xr.Dataset, dict[str, Any]]:
        """Return what the file of a point tells: its status, its Dataset, and words about it."""
        for folder in (POINTS, FAILURES):
            try:
                dataset, about = decode(self.file(folder, number).read_bytes())
            except FileNotFoundError:
                continue
            except (ValueError, OSError):
                return "damaged", xr.Dataset(), {}
            foreign = not about.items() >= self.own(number).items()
            return "damaged" if foreign else about["status"], dataset, about
        return "missing", xr.Dataset(), {}


def describe(task: Task, grid: Grid) -> dict[str, Any]:
    """Return what a manifest says of a task and of the first grid of it."""
    versions = {m.__name__: m.__version__ for m in (np, scipy, xr, numba)}
    versions |= {"dlnds": __version__, "python": platform.python_version()}
    values = {name: content_digest(grid.dataset[[name]]) for name in grid.names}
    sizes = dict(zip(grid.dims, grid.shape, strict=True))
    return {
        "schema": "sweep",
        "task": f"{task.__module__}:{task.__qualname__}",
        "file": os.path.abspath(inspect.getsourcefile(task) or ""),
        "parts": parts_of(task),
        "grids": [{"sizes": sizes, "values": values, "versions": versions}],
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the argument that differs between two descriptions, and how; empty if none does."""
    if names := differing(old["parts"], new["parts"]):
        return f"task: differs from that of the directory in {', '.join(names)}"
    before, now = old["grids"][-1], new["grids"][-1]
    one, other = (each["versions"]["dlnds"] for each in (before, now))
    if one != other:
        return f"directory: was begun by dlnds {one}, this is dlnds {other}"
    if list(before["sizes"].items()) != list(now["sizes"].items()):
        return f"grid: has the sizes {now['sizes']}, the directory has {before['sizes']}"
    names = differing(before["values"], now["values"])
    return f"grid: differs from that of the directory in {', '.join(names)}" if names else ""


def begin(directory: Path, grid: Grid, entropy: int, words: dict[str, Any]) -> Plan:
    """Write the manifest of a new sweep, and return it."""
    if any((directory / POINTS).glob("*.record")):
        raise ValueError(f"directory: {directory} holds points, but the {MANIFEST} is gone")
    kept = [words["parts"], words["grids"][0]["sizes"], words["grids"][0]["values"], entropy]
    digest = digest_of(json.dumps(kept, sort_keys=True))
    return _written(directory, grid, {**words, "rng_entropy": str(entropy), "digest": digest})


def extend(plan: Plan, grid: Grid, words: dict[str, Any]) -> Plan:
    """Write another grid, which has all points of the old one, into a manifest; return it."""
    grids = [*plan.words["grids"], *words["grids"]]
    return _written(plan.directory, grown(plan.grid, grid), {**plan.words, "grids": grids})


def _written(directory: Path, grid: Grid, words: dict[str, Any]) -> Plan:
    numbers = xr.Variable(grid.dims, grid.numbers.reshape(grid.shape))
    try:
        content = encode(grid.dataset.assign({_NUMBER: numbers}), words)
    except TypeError as error:
        raise TypeError(f"grid: {str(error).removeprefix('data: ')}") from None
    write_bytes(directory / MANIFEST, content)
    flush(directory)
    return Plan(directory, grid, words)


def read_plan(directory: Path) -> Plan:
    """Return the sweep of a directory.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If its manifest is damaged.
    """
    try:
        dataset, words = decode((directory / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"directory: {directory} holds no sweep, no {MANIFEST}") from None
    except ValueError as error:
        raise ValueError(f"directory: {MANIFEST} in {directory} is damaged: {error}") from None
    numbers, names = dataset[_NUMBER], tuple(words["grids"][-1]["values"])
    dims = tuple(map(str, numbers.dims))
    return Plan(
        directory, Grid(dataset.drop_vars(_NUMBER), names, dims, numbers.values.ravel()), words
    )


def prepare(directory: Path) -> None:
    """Make the folders that copies of a sweep may lack; remove what writers that died left."""
    for name in (POINTS, FAILURES):
        (directory / name).mkdir(exist_ok=True)
    for path in directory.rglob(".*.tmp"):
        path.unlink()


@contextlib.contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory; that of a process which has died is free."""
    with open(directory / LOCK, "a+", encoding="utf-8") as file:
        for pause in (0.05, 0.1, 0.0):  # who only asks holds it for a moment
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(pause)
        else:
            file.seek(0)
            raise ValueError(f"directory: {file.read(200)} is at work in {directory}")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def is_locked(directory: Path) -> bool:
    """Tell whether a writer is at work in a directory."""
    try:
        with open(directory / LOCK, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False
