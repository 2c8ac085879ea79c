"""What torch saves of weights, read without unpickling: nothing in such a file is executed."""

import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: The dtypes of torch's storages.
_STORAGES = {
    **{"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2"},
    **{"BFloat16Storage": "bfloat16", "LongStorage": "i8", "IntStorage": "i4"},
    **{"ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?"},
}
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_DICT = "collections.OrderedDict"
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
#: Instructions that put their argument on the stack.
_PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}


class Global(NamedTuple):
    """A name that a pickle asks for: it is compared with names known here, never imported."""

    name: str


class Tensor(NamedTuple):
    """Where in its file the numbers of a tensor are."""

    dtype: str
    storage: str
    size: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Machine:
    """The instructions of pickles that write dicts, lists, numbers, texts and tensors."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._actions: dict[str, Callable[[Any], None]] = {
            "MARK": self._mark,
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "EMPTY_TUPLE": lambda _: self._stack.append(()),
            "TUPLE": self._tuple,
            "TUPLE1": lambda _: self._last(1),
            "TUPLE2": lambda _: self._last(2),
            "TUPLE3": lambda _: self._last(3),
            "APPEND": self._append,
            "APPENDS": self._appends,
            "SETITEM": self._set_item,
            "SETITEMS": self._set_items,
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "MEMOIZE": lambda _: self._put(len(self._memo)),
            "BINGET": self._get,
            "LONG_BINGET": self._get,
            "GLOBAL": lambda words: self._stack.append(Global(words.replace(" ", "."))),
            "STACK_GLOBAL": self._stack_global,
            "BINPERSID": self._persistent,
            "REDUCE": self._reduce,
            "NEWOBJ": self._reduce,
            "BUILD": self._build,
        }

    def run(self, data: bytes) -> Any:
        """Return what a pickle describes."""
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _PUSHED:
                self._stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in self._actions:
                self._actions[opcode.name](argument)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise ValueError(f"has the instruction {opcode.name}, which no weights need")
        return self._stack.pop()

    def _mark(self, _: Any) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _tuple(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _last(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(items[::-1]))

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._stack[-1].append(item)

    def _appends(self, _: Any) -> None:
        items = self._since_mark()
        self._stack[-1].extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._stack[-1][key] = value

    def _set_items(self, _: Any) -> None:
        items = self._since_mark()
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _put(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _get(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(Global(f"{module}.{name}"))

    def _persistent(self, _: Any) -> None:
        kind, storage, key, _, size = self._stack.pop()
        name = storage.name.removeprefix("torch.")
        if kind != "storage" or name not in _STORAGES:
            raise ValueError(f"has numbers of the kind {storage.name}")
        self._stack.append((_STORAGES[name], key, size))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(_called(function, arguments))

    def _build(self, _: Any) -> None:
        self._stack.pop()  # versions of modules
        if not isinstance(self._stack[-1], dict):
            raise ValueError(f"sets the state of {_name(self._stack[-1])}")


def _called(function: Any, arguments: Any) -> Any:
    """Return what one of the three functions that are known gives."""
    name = _name(function)
    if name == _DICT:
        return dict(*arguments)
    if name == _PARAMETER:
        return arguments[0]
    if name == _TENSOR:
        (dtype, key, size), offset, shape, strides = arguments[:4]
        return Tensor(dtype, key, size, offset, shape, strides)
    raise ValueError(
        f"holds {name}, which only Python itself could make; save the weights alone: "
        "torch.save(model.state_dict(), path)"
    )


def _name(thing: Any) -> str:
    return thing.name if isinstance(thing, Global) else type(thing).__name__


def contents(archive: zipfile.ZipFile) -> tuple[Any, Callable[[Tensor], NDArray[Any]]]:
    """Return what a file of torch holds, and what reads the numbers of a tensor in it."""
    tops = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(tops) != 1:
        raise ValueError("is a zip archive, but none that torch.save writes")
    top = tops[0].removesuffix("data.pkl")
    with_order = f"{top}byteorder" in archive.namelist()
    order = ">" if with_order and archive.read(f"{top}byteorder") == b"big" else "<"
    found = _Machine().run(archive.read(tops[0]))

    def read(tensor: Tensor) -> NDArray[Any]:
        return _strided(archive.read(f"{top}data/{tensor.storage}"), tensor, order)

    return found, read


def _strided(data: bytes, tensor: Tensor, order: str) -> NDArray[Any]:
    """Return the numbers of a tensor in those of its storage."""
    numbers = decoded(data, tensor.dtype, order)
    if tensor.offset < 0 or min((*tensor.shape, *tensor.strides), default=0) < 0:
        raise ValueError("has a tensor of negative sizes")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((n - 1) * step for n, step in steps)
    if math.prod(tensor.shape) and last >= len(numbers):
        raise ValueError("has a tensor that is longer than its numbers")
    strides = [step * numbers.itemsize for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    return view.copy()


def decoded(data: bytes, dtype: str, order: str = "<") -> NDArray[Any]:
    """Return the numbers of bytes; those of bfloat16, which numpy has not, as float32."""
    if dtype != "bfloat16":
        return np.frombuffer(data, f"{order}{dtype}")
    return (np.frombuffer(data, f"{order}u2").astype(np.uint32) << 16).view(np.float32)


def tensors(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Give all tensors in nested dicts and lists, with their keys."""
    if isinstance(found, Tensor):
        yield path, found
    elif isinstance(found, dict | list | tuple):
        pairs = found.items() if isinstance(found, dict) else enumerate(found)
        for key, value in pairs:
            yield from tensors(value, (*path, str(key)))
