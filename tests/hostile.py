"""Values that a public function should refuse by the argument's name, or cope with."""

from collections.abc import Iterator
from typing import Any

import calls
import numpy as np
import xarray as xr

import dlnds as dl


def anything() -> Iterator[tuple[str, Any]]:
    """Yield values that can stand in the place of any argument, with words for them."""
    things = calls.things()
    yield from {
        "nan": np.nan,
        "inf": np.inf,
        "-inf": -np.inf,
        "None": None,
        "text": "abc",
        "number as text": "1e-8",
        "complex": 1j,
        "True": True,
        "zero": 0,
        "negative": -1,
        "half": 0.5,
        "10**30": 10**30,
        "1e308": 1e308,
        "numpy integer": np.int8(3),
        "zero-dimensional": np.array(2.0),
        "one number": np.array([1.0]),
        "empty list": [],
        "empty array": np.zeros((0, 3)),
        "ragged": [[1.0], [1.0, 2.0]],
        "nested None": [None, None],
        "texts": ["1.0", "2.0"],
        "list of nan": [np.nan, 1.0],
        "set": {1, 2},
        "dict": {"a": 1},
        "matrix": np.eye(4),
        "stack": np.ones((2, 2, 2)),
        "labelled": xr.DataArray(np.eye(2), dims=("this", "that")),
        "empty Dataset": xr.Dataset(),
        "Dataset of points": things["points"],
        "Dataset of a spectrum": things["spectrum"],
        "tree": things["atlas"],
        "other network": things["deep"],
        "raw network": things["raw"],
        "network of a loss": things["other_loss"],
        "product flow": things["prod"],
        "homogeneous network": things["homogeneous"],
        "system": things["decay"],
        "map": dl.GradientDescent(things["net"], 0.1),
        "single layer": dl.LinearNetwork((2, 2), np.eye(2)),
        "zero target": dl.LinearNetwork((2, 3, 2), np.zeros((2, 2))),
        "loss": things["loss"],
        "function of nothing": lambda: 1.0,
        "function that returns None": lambda *a: None,
        "function that returns nan": lambda *a: np.nan,
        "function that returns a matrix": lambda *a: np.eye(3),
    }.items()


def spoilt(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield variants of a valid value, with words for what was done to it."""
    if isinstance(value, xr.Dataset):
        yield from _datasets(value)
    elif isinstance(value, xr.DataTree):
        for name in value.children:
            yield f"without {name}", value.drop_nodes(name)
            yield f"the node {name}", value[name].to_dataset()
    elif _is_numbers(value):
        yield from _arrays(np.asarray(value, float))
        yield from _sequences(value)
    elif isinstance(value, list | tuple) and value:
        yield from _sequences(value)
    elif isinstance(value, bool | str):
        yield "upper case", str(value).upper()
        yield "as list", [value]
    elif isinstance(value, int | float):
        for factor in (-1, 1e3, 1e-3, 1e12):
            yield f"times {factor}", value * factor
        yield "plus a half", value + 0.5
        yield "as text", str(value)
        yield "as tuple", (value,)


def _is_numbers(value: Any) -> bool:
    try:
        array = np.asarray(value)
    except ValueError:
        return False
    return array.ndim > 0 and array.dtype.kind in "iuf" and array.size > 0


def _arrays(number: Any) -> Iterator[tuple[str, Any]]:
    for word, bad in (("a nan", np.nan), ("an inf", np.inf), ("a huge entry", 1e308)):
        changed = number.copy()
        changed.flat[-1] = bad
        yield f"with {word}", changed
    for factor in (0.0, -1.0, 1e308, 1e160, 1e-160, 1e12):
        with np.errstate(all="ignore"):
            yield f"times {factor:g}", np.clip(number * factor, -1.7e308, 1.7e308)
    yield "one short", number[:-1]
    yield "one more", np.concatenate([number, number[:1]])
    yield "one more dim", number[None]
    yield "as column", number.reshape(-1, 1)
    yield "transposed", number.T.copy()
    yield "complex array", number.astype(complex)
    yield "text array", number.astype(str)
    yield "boolean array", number != 0.0
    yield "other dims", xr.DataArray(number, dims=[f"d{i}" for i in range(number.ndim)])
    dims = ["sample", *(f"d{i}" for i in range(number.ndim - 1))]
    yield "sample first", xr.DataArray(number, dims=dims)


def _sequences(value: Any) -> Iterator[tuple[str, Any]]:
    items = list(value)
    yield "one item short", items[:-1]
    yield "one item twice", [*items, items[-1]]
    for word, bad in (("None", None), ("text", "abc"), ("nan", np.nan), ("a half", 0.5)):
        yield f"with {word}", [*items[:-1], bad]
    for word, bad in (("negative", -1), ("zero", 0), ("huge", 10**30)):
        yield f"{word} item", [*items[:-1], bad]
    yield "reversed", items[::-1]
    yield "nested", [items, items]


def _datasets(data: xr.Dataset) -> Iterator[tuple[str, Any]]:
    yield "no attributes", data.drop_attrs(deep=True)
    yield "a variable", data[next(iter(data.data_vars))]
    for name in data.variables:
        yield f"without {name}", data.drop_vars(name)
    for name in data.attrs:
        attrs = {k: v for k, v in data.attrs.items() if k != name}
        yield f"without attribute {name}", data.drop_attrs(deep=False).assign_attrs(attrs)
    for dim in data.dims:
        yield f"empty {dim}", data.isel({dim: slice(0, 0)})
        yield f"half of {dim}", data.isel({dim: slice(0, max(1, data.sizes[dim] // 2))})
        if data.sizes[dim]:
            yield f"one {dim}", data.isel({dim: 0})
    for name, variable in data.data_vars.items():
        yield f"text in {name}", data.assign({name: variable.astype(str)})


def same(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the same numbers in other layouts, or orders of dims, which must change nothing."""
    if isinstance(value, xr.Dataset | xr.DataTree):
        yield "dims reversed", turned(value)
    if not isinstance(value, np.ndarray) or value.dtype != float:
        return
    padded = np.zeros(tuple(2 * n for n in value.shape))
    view = padded[tuple(slice(None, None, 2) for _ in value.shape)]
    view[...] = value
    frozen = value.copy()
    frozen.setflags(write=False)
    yield "not contiguous", view
    yield "read-only", frozen
    yield "Fortran order", np.asfortranarray(value)
    yield "backwards", value[::-1].copy()[::-1]
    yield "lists", value.tolist()


def turned(data: Any) -> Any:
    """Return a Dataset, or the nodes of a tree, with all dims in reverse order."""
    if isinstance(data, xr.DataTree):
        nodes = {"/": data, **data.children}
        return xr.DataTree.from_dict({name: turned(n.to_dataset()) for name, n in nodes.items()})
    return data.transpose(*reversed(list(data.dims)))
