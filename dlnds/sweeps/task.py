"""Tasks of sweeps: what they consist of, whether that is the same here, and where to import it."""

import contextlib
import hashlib
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

#: A function of named parameters, and ``rng``, that returns a Dataset.
Task = Callable[..., xr.Dataset]


def check_task(task: Any) -> Task:
    """Return ``task`` if it is a plain function whose text can be read."""
    if not inspect.isfunction(task):
        raise TypeError(f"task: needs a function defined by def, got {task!r}")
    if task.__closure__:
        names = ", ".join(task.__code__.co_freevars)
        raise TypeError(
            f"task: takes {names} from the function around it, which no file would tell; make them "
            "parameters, in the grid or with defaults"
        )
    wrong = [p for p in inspect.signature(task).parameters.values() if p.kind in (0, 2, 4)]
    if wrong:
        raise TypeError(f"task: needs named parameters only, got {', '.join(map(str, wrong))}")
    _check_as_imported(task)
    try:
        inspect.getsource(task)
    except (OSError, TypeError):
        raise ValueError(
            "task: its text cannot be read, so that nothing could tell whether it changed; define "
            "it in a file"
        ) from None
    return task


def parts_of(task: Task) -> dict[str, str]:
    """Return digests of a task's text and of what it uses of its module, by their names.

    These are functions, classes, defaults, and plain values; what is imported counts by its version
    only.
    """
    parts: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [(task.__qualname__, task)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        value = getattr(value, "py_func", value)  # of what Numba compiles
        text = _plain(value)
        if text is None and id(value) not in seen:
            seen.add(id(value))
            text, used = _told(name, value, task.__module__)
            waiting.extend(sorted(used.items(), key=lambda item: item[0]))
        if text is not None:
            parts[name] = digest_of(text)
    return dict(sorted(parts.items()))


def _told(name: str, value: Any, module: str) -> tuple[str | None, dict[str, Any]]:
    """Return the text of a function or class of a module, and what a value uses, by their names."""
    if isinstance(value, partial):
        return None, {f"{name}.{key}": getattr(value, key) for key in ("func", "args", "keywords")}
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return None, {f"{name}[{key!r}]": item for key, item in items}
    if getattr(value, "__module__", None) != module:
        return None, {}
    if inspect.isfunction(value):
        return _source(value), _used(name, value)
    if inspect.isclass(value):
        return _source(value), _used_by_class(name, value)
    if hasattr(value, "__wrapped__"):  # of functools.cache
        return None, {f"{name}.__wrapped__": value.__wrapped__}
    own = {f"{name}.{key}": item for key, item in getattr(value, "__dict__", {}).items()}
    return None, {type(value).__name__: type(value), **own}


def _source(value: Any) -> str:
    """Return the text of a function or a class, or what there is without a file."""
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        code = getattr(value, "__code__", None)
        return f"{value.__qualname__} {code.co_code.hex() if code else ''}"


def _check_as_imported(function: types.FunctionType) -> None:
    """Refuse a function of which the file says something else by now, or elsewhere."""
    if not isinstance(function.__globals__.get("__loader__"), SourceFileLoader):
        return
    code = function.__code__
    try:
        found = _codes_in(code.co_filename, Path(code.co_filename).read_bytes())
    except OSError:  # it is not there any more
        return
    except SyntaxError:
        found = frozenset()
    if code not in found:
        raise ValueError(
            f"task: {code.co_filename} was changed after it was imported, and so may be "
            f"{function.__qualname__!r}; import it anew"
        )


@lru_cache(maxsize=4)
def _codes_in(file: str, text: bytes) -> frozenset[types.CodeType]:
    """Return the code of all functions of a file."""
    found, waiting = [], [compile(text, file, "exec", dont_inherit=True)]
    while waiting:
        inner = [c for c in waiting.pop().co_consts if isinstance(c, types.CodeType)]
        found += inner
        waiting += inner
    return frozenset(found)


def _used(name: str, function: types.FunctionType) -> dict[str, Any]:
    """Return the globals, defaults and enclosed values that a function uses."""
    _check_as_imported(function)
    used = {n: function.__globals__[n] for n in _names(function.__code__) & {*function.__globals__}}
    for parameter in inspect.signature(function, follow_wrapped=False).parameters.values():
        if parameter.default is not parameter.empty:
            used[f"{name}({parameter.name})"] = parameter.default
    for variable, cell in zip(
        function.__code__.co_freevars, function.__closure__ or (), strict=True
    ):
        with contextlib.suppress(ValueError):  # it is empty
            used[f"{name}.{variable}"] = cell.cell_contents
    return used


def _used_by_class(name: str, kind: type) -> dict[str, Any]:
    """Return what the methods of a class use, its bases and its own values."""
    used: dict[str, Any] = {base.__name__: base for base in kind.__bases__}
    for key, member in vars(kind).items():
        member = inspect.unwrap(getattr(member, "fget", member))
        if inspect.isfunction(member):
            used |= _used(f"{name}.{key}", member)
        elif not (key.startswith("_") and key.endswith("_")):  # those are Python's own
            used[f"{name}.{key}"] = member
    return used


def _names(code: types.CodeType) -> set[str]:
    """Return the names that a function, and those defined in it, look up."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _plain(value: Any) -> str | None:
    """Return a text that tells numbers, text, arrays, and collections of these apart."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | range):
        return repr(value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufcUSmM":
        return f"{value.dtype} {value.tolist()}"
    if isinstance(value, xr.DataArray | xr.Dataset):
        return _plain(value.to_dict())
    if isinstance(value, pd.DataFrame | pd.Series):
        return value.to_csv()
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return None
    texts = [_plain(v) for v in (value.items() if isinstance(value, dict) else value)]
    if None in texts:
        return None
    told = [text for text in texts if text is not None]
    inner = ", ".join(sorted(told) if isinstance(value, set | frozenset) else told)
    return f"{type(value).__name__}({inner})"


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
    if module == "__main__":
        module = path.stem
    # Worker processes look for modules where this process does.
    root = path.parents[module.count(".")] if path.stem != "__init__" else path.parents[1]
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{said}: {type(error).__name__}: {error}") from error
    found = getattr(imported, "__file__", None)
    if found is None or not os.path.samefile(found, path):
        raise ValueError(f"{said}: {module} is {found or 'a part of Python'} here")
    task = getattr(imported, name, None)
    if task is None:
        raise ValueError(f"{said}: it has no {name!r}")
    return check_task(task)
