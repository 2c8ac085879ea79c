"""Arrays in the files that training runs leave, and in nested dicts, before they are read."""

import contextlib
import functools
import json
import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlnds.runs import state_dicts

#: The keys on the way to an array.
Key = tuple[str, ...]
#: The dtypes of safetensors.
_SAFE = {
    **{"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bfloat16", "I64": "i8", "I32": "i4"},
    **{"I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?"},
}
#: What files may go wrong with, in the words of those who wrote what reads them.
_BROKEN = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, RecursionError),
    *(zipfile.BadZipFile, struct.error, NotImplementedError),
)
_LONGEST_HEADER = 2**27
#: What keys begin with that were floats, the times themselves.
TIME = "time="


class Entry(NamedTuple):
    """An array that has not been read yet."""

    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


Entries = dict[Key, Entry]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Entries]:
    """Give what a file holds; its numbers can be read as long as it is open."""
    try:
        with path.open("rb") as file:
            yield FORMATS[path.suffix.lower()](file)
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror})") from error
    except _BROKEN as error:
        words = error if isinstance(error, ValueError) else f"is no whole file ({error})"
        raise ValueError(str(words)) from error


def _npz(file: BinaryIO) -> Entries:
    """Return the arrays of a file of numpy."""
    archive = zipfile.ZipFile(file)
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    return {
        tuple(name.removesuffix(".npy").split("/")): Entry(
            _npy_shape(archive, name), functools.partial(_npy, archive, name)
        )
        for name in names
    }


def _npy_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """Return the shape of an array of numbers, all of which are there."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        header = {(1, 0): np.lib.format.read_array_header_1_0}
        reader = header.get(version, np.lib.format.read_array_header_2_0)
        shape, _, dtype = reader(member)
    if dtype.kind not in "biuf":
        raise ValueError(f"holds {name!r} of dtype {dtype}, which is no number and is not read")
    if archive.getinfo(name).file_size < math.prod(shape) * dtype.itemsize:
        raise ValueError(f"holds {name!r}, which is shorter than its shape {shape}")
    return tuple(shape)


def _npy(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(name) as member:
        found: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return found


def _safetensors(file: BinaryIO) -> Entries:
    """Return the arrays of a file of safetensors: sizes, a header in JSON, the numbers."""
    size = file.seek(0, 2)
    file.seek(0)
    length = struct.unpack("<Q", file.read(8))[0] if size >= 8 else size
    if length > _LONGEST_HEADER:
        raise ValueError("is no file of safetensors: its header is too long")
    try:
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        parts = {str(name): _Part.of(about) for name, about in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"is no whole file of safetensors: its header is broken ({error})"
        ) from error
    _check_parts(parts, size - 8 - length)
    return {
        tuple(name.split("/")): Entry(part.shape, functools.partial(_safe, file, 8 + length, part))
        for name, part in parts.items()
    }


class _Part(NamedTuple):
    """Where in a file of safetensors the numbers of an array are."""

    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "_Part":
        """Return what a header tells of an array."""
        first, last = about["data_offsets"]
        found = cls(str(about["dtype"]), tuple(about["shape"]), first, last)
        if not all(isinstance(n, int) and n >= 0 for n in found.shape):
            raise ValueError(f"of the shape {about['shape']}")
        return found


def _check_parts(parts: Mapping[str, _Part], size: int) -> None:
    """Refuse arrays that are not as long as their shapes, beyond the file, or in one another."""
    end = 0
    for name, part in sorted(parts.items(), key=lambda pair: pair[1][2:]):
        if not end <= part.first <= part.last <= size:
            raise ValueError(f"is no whole file of safetensors: {name!r} has the bytes of others")
        kind = _SAFE.get(part.dtype)
        width = 2 if kind == "bfloat16" else kind and np.dtype(kind).itemsize
        if width and part.last - part.first != math.prod(part.shape) * width:
            raise ValueError(
                f"is no whole file of safetensors: {name!r} is not as long as {part.shape}"
            )
        end = part.last


def _safe(file: BinaryIO, start: int, part: _Part) -> NDArray[Any]:
    if part.dtype not in _SAFE:
        raise ValueError(f"holds numbers of the dtype {part.dtype}")
    file.seek(start + part.first)
    numbers = state_dicts.decoded(file.read(part.last - part.first), _SAFE[part.dtype])
    return numbers.reshape(part.shape)


def _torch(file: BinaryIO) -> Entries:
    """Return the tensors of a file of torch."""
    if not zipfile.is_zipfile(file):
        raise ValueError(
            "is no zip archive: what torch wrote before version 1.6 could be read only by "
            "executing it; save the weights again, with torch.save, safetensors or numpy.savez"
        )
    found, read = state_dicts.contents(zipfile.ZipFile(file))
    return {
        path: Entry(tensor.shape, functools.partial(read, tensor))
        for path, tensor in state_dicts.tensors(found)
    }


FORMATS: dict[str, Callable[[BinaryIO], Entries]] = {
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".ckpt": _torch,
}


def nested(value: Any, path: Key = ()) -> Entries:
    """Return the arrays in nested dicts and lists; integers as keys are steps, floats times."""
    if isinstance(value, Mapping):
        pairs = [(_key(k), v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        pairs = [(str(number), item) for number, item in enumerate(value)]
    elif value is None or isinstance(value, str):
        return {}
    else:
        return {path: Entry(tuple(np.shape(value)), functools.partial(numbers, value))}
    inner = (nested(item, (*path, *key.split("/"))) for key, item in pairs)
    return {key: entry for entries in inner for key, entry in entries.items()}


def _key(key: Any) -> str:
    """Return a key of a dict as a word."""
    if isinstance(key, int | np.integer):
        return f"step_{key}"
    return f"{TIME}{float(key)!r}" if isinstance(key, float | np.floating) else str(key)


def numbers(weights: Any) -> Any:
    """Return a tensor's numbers, whichever library it is of."""
    if not hasattr(weights, "detach"):
        return weights if np.asarray(weights).dtype.name != "bfloat16" else np.float32(weights)
    here = weights.detach().cpu()
    try:
        return here.numpy()
    except TypeError:  # numpy has no bfloat16
        return here.double().numpy()
