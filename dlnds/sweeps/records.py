"""Small sealed files: Datasets and notes that are many, written fast and verified when read.

A netCDF-4 file takes a tenth of a second to write and to read back, a record less than a
thousandth: what a sweep of short runs needs for each of them.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dlnds.errors import check_memory
from dlnds.store import SEAL, check_attributes, flush, replacing

#: The first line of a record, in which its form would change.
HEAD = b"dlnds record 1\n"
_LENGTH = 8  # bytes that tell the length of the description
_NUMBERS = re.compile(r"[<|][biufc]\d+")
_SEALED = len(SEAL) + 64


def encode(dataset: xr.Dataset, about: Mapping[str, Any]) -> bytes:
    """Return a Dataset, with a few words about it, as sealed bytes.

    They are the first line, the length of a JSON description, the description, the numbers of all
    variables one after the other, and the SHA-256 of all that.

    Raises
    ------
    TypeError
        If the Dataset holds anything but numbers and text, or attributes that netCDF cannot.
    """
    check_attributes(dataset)
    parts, described = [], []
    for name, variable in dataset.variables.items():
        if isinstance(dataset.indexes.get(name), pd.MultiIndex):
            raise TypeError(f"data: {name!r} is an index of several levels, use reset_index")
        entry, numbers = _described(name, variable)
        described.append(entry)
        parts.append(numbers)
    words = {
        "about": dict(about),
        "attrs": _attributes(dataset.attrs),
        "coords": [str(name) for name in dataset.coords],
        "variables": described,
    }
    text = json.dumps(words).encode()
    content = b"".join([HEAD, len(text).to_bytes(_LENGTH, "little"), text, *parts])
    return content + SEAL + hashlib.sha256(content).hexdigest().encode()


def _described(name: Any, variable: xr.Variable) -> tuple[dict[str, Any], bytes]:
    """Return the description of a variable, and its numbers."""
    if not isinstance(name, str) or not all(isinstance(d, str) for d in variable.dims):
        raise TypeError(f"data: needs names that are text, got {name!r} over {variable.dims}")
    if len({*variable.dims}) < variable.ndim:
        raise TypeError(f"data: {name!r} has a dim twice in {variable.dims}")
    values = variable.values
    entry: dict[str, Any] = {
        "name": name,
        "dims": list(variable.dims),
        "shape": list(values.shape),
        "attrs": _attributes(variable.attrs),
    }
    if values.dtype.kind in "OUT":
        texts = values.astype(object).ravel().tolist()
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"data: {name!r} holds objects, needs numbers or text")
        return {**entry, "dtype": "text", "text": texts}, b""
    numbers = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    if not _NUMBERS.fullmatch(numbers.dtype.str):
        raise TypeError(f"data: {name!r} is of type {values.dtype}, needs numbers or text")
    return {**entry, "dtype": numbers.dtype.str}, numbers.tobytes()


def _attributes(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes as JSON; arrays keep their type."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
            return {"dtype": value.dtype.str, "array": value.tolist()}
        return value.item() if isinstance(value, np.generic) else np.asarray(value).tolist()

    return {str(key): plain(value) for key, value in attrs.items()}


def decode(content: bytes) -> tuple[xr.Dataset, dict[str, Any]]:
    """Return the Dataset of sealed bytes, and the words about it.

    Raises
    ------
    ValueError
        If the bytes are not exactly what `encode` returned.
    """
    end = len(content) - _SEALED
    sealed = content[max(end, 0) :] == SEAL + hashlib.sha256(content[:end]).hexdigest().encode()
    if end < len(HEAD) + _LENGTH or not content.startswith(HEAD) or not sealed:
        raise ValueError("its bytes do not agree with their checksum")
    try:
        return _decoded(memoryview(content)[len(HEAD) : end])
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"it is not described as records are ({error!r})") from None


def _decoded(content: memoryview) -> tuple[xr.Dataset, dict[str, Any]]:
    begin = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    words = json.loads(bytes(content[_LENGTH:begin]))
    variables = {}
    for entry in words["variables"]:
        values, begin = _values(entry, content, begin)
        attrs = {key: _attribute(value) for key, value in entry["attrs"].items()}
        variables[entry["name"]] = xr.Variable(entry["dims"], values, attrs)
    if begin != len(content):
        raise ValueError("it holds more or less than it describes")
    coords = {name: variables.pop(name) for name in words["coords"]}
    attrs = {key: _attribute(value) for key, value in words["attrs"].items()}
    return xr.Dataset(variables, coords, attrs), words["about"]


def _values(entry: Mapping[str, Any], content: memoryview, begin: int) -> tuple[Any, int]:
    """Return the values of a variable, and where those of the next one begin."""
    shape, kind = entry["shape"], entry["dtype"]
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"it describes the shape {shape}")
    count = math.prod(shape)
    if kind == "text":
        if len(entry["text"]) != count or not all(isinstance(t, str) for t in entry["text"]):
            raise ValueError("it holds more or less text than it describes")
        check_memory("its text", count * max(map(len, entry["text"]), default=0) // 2)
        return np.array(entry["text"], dtype=np.str_).reshape(shape), begin
    if not _NUMBERS.fullmatch(kind):
        raise ValueError(f"it describes the type {kind!r}")
    dtype = np.dtype(kind)
    end = begin + count * dtype.itemsize
    if end > len(content):
        raise ValueError("it holds less than it describes")
    return np.frombuffer(content[begin:end], dtype).reshape(shape).astype(
        dtype.newbyteorder("=")
    ), end


def _attribute(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if not _NUMBERS.fullmatch(value["dtype"]):
        raise ValueError(f"it describes the type {value['dtype']!r}")
    return np.array(value["array"], dtype=np.dtype(value["dtype"]))


def note(words: Mapping[str, Any]) -> bytes:
    """Return a few words as JSON that carries the SHA-256 of the rest of it."""
    plain = {key: value for key, value in words.items() if key != "sha256"}
    checksum = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return json.dumps({**plain, "sha256": checksum}, indent=1).encode() + b"\n"


def read_note(content: bytes) -> dict[str, Any]:
    """Return the words of a note.

    Raises
    ------
    ValueError
        If they are not exactly what `note` returned.
    """
    try:
        words = json.loads(content)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(words, dict) or note(words) != content:
        raise ValueError("its words do not agree with their checksum")
    return words


def read_bytes(path: Path) -> bytes:
    """Return what is in a regular file, which is no link to another place.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a link, a folder or a pipe, or too large.
    OSError
        If it cannot be read.
    """
    # Opening a pipe that nobody writes to would wait forever.
    if path.is_symlink():
        raise ValueError("it is a link to another place")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no file")
        check_memory("its size", about.st_size // 8)
        return file.read(about.st_size + 1)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; flush its folder, with `flush`, after the last one."""
    with replacing(path, flush_folder=False) as temporary, open(temporary, "wb") as file:
        file.write(content)


def sweep_up(folder: Path) -> int:
    """Remove the temporary files of writers that died, and return how many there were."""
    strays = [p for p in folder.iterdir() if re.fullmatch(r"\..*\.[0-9a-f]{12}\.tmp", p.name)]
    for path in strays:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    if strays:
        flush(folder)
    return len(strays)
