"""Values that a public function should refuse by the argument's name, or cope with."""

import datetime
import decimal
import fractions
from collections.abc import Iterator
from typing import Any

import calls
import numpy as np
import xarray as xr

import dlnds as dl


class _Unprintable:
    """Something that no check of numbers foresees."""

    def __repr__(self) -> str:
        return "something"


def anything() -> Iterator[tuple[str, Any]]:
    """Yield values that can stand in the place of any argument, with words for them."""
    things = calls.things()
    yield from {
        "nan": np.nan,
        "inf": np.inf,
        "-inf": -np.inf,
        "None": None,
        "empty text": "",
        "text": "abc",
        "number as text": "1e-8",
        "bytes": b"\x02\x02",
        "complex": 1j,
        "True": True,
        "zero": 0,
        "negative": -1,
        "half": 0.5,
        "10**30": 10**30,
        "1e308": 1e308,
        "1e-320": 1e-320,
        "numpy integer": np.int8(3),
        "numpy boolean": np.bool_(True),
        "zero-dimensional": np.array(2.0),
        "one number": np.array([1.0]),
        "empty list": [],
        "empty array": np.zeros((0, 3)),
        "ragged": [[1.0], [1.0, 2.0]],
        "nested None": [None, None],
        "texts": ["1.0", "2.0"],
        "list of nan": [np.nan, 1.0],
        "object": _Unprintable(),
        "objects": np.array([_Unprintable(), None], dtype=object),
        "class": float,
        "set": {1, 2},
        "dict": {"a": 1},
        "range": range(3),
        "date": datetime.date(2020, 1, 1),
        "datetime64": np.array(["2020-01-01"], dtype="datetime64[D]"),
        "decimal": decimal.Decimal("0.5"),
        "fraction": fractions.Fraction(1, 3),
        "masked number": np.ma.masked,
        "masked": np.ma.masked_array([1.0, 2.0], mask=[True, False]),
        "record": np.zeros(2, dtype=[("a", float), ("b", int)]),
        "five dimensions": np.ones((1, 1, 1, 1, 2)),
        "matrix": np.eye(4),
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
    }.items()
    yield "generator", (i for i in range(3))
    yield "function of nothing", lambda: 1.0
    yield "function that returns None", lambda *a: None
    yield "function that returns nan", lambda *a: np.nan
    yield "function that returns text", lambda *a: "abc"
    yield "function that returns a matrix", lambda *a: np.eye(3)


def spoilt(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield variants of a valid value, with words for what was done to it."""
    if isinstance(value, xr.Dataset):
        yield from _datasets(value)
    elif isinstance(value, xr.DataTree):
        yield from _trees(value)
    elif _is_numbers(value):
        yield from _arrays(np.asarray(value))
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


def _arrays(array: Any) -> Iterator[tuple[str, Any]]:
    number = array.astype(float)
    for word, bad in (("a nan", np.nan), ("an inf", np.inf), ("a huge entry", 1e308)):
        changed = number.copy()
        changed.flat[-1] = bad
        yield f"with {word}", changed
    for factor in (0.0, -1.0, 1e308, 1e160, 1e-320, 1e-160, 1e12):
        with np.errstate(all="ignore"):
            yield f"times {factor:g}", np.clip(number * factor, -1.7e308, 1.7e308)
    yield "one short", number[:-1]
    yield "one more", np.concatenate([number, number[:1]])
    yield "no entries", number[:0]
    yield "one more dim", number[None]
    yield "as column", number.reshape(-1, 1)
    yield "transposed", number.T.copy()
    yield "complex array", number.astype(complex)
    yield "object array", number.astype(object)
    yield "text array", number.astype(str)
    yield "boolean array", number != 0.0
    yield "dates", number.astype("datetime64[s]")
    yield "masked array", np.ma.masked_array(number, mask=number == number.flat[0])
    yield "nothing masked", np.ma.masked_array(number, mask=False)
    yield "other dims", xr.DataArray(number, dims=[f"d{i}" for i in range(number.ndim)])
    yield (
        "sample first",
        xr.DataArray(number, dims=["sample", *(f"d{i}" for i in range(number.ndim - 1))]),
    )


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
    yield "byte-swapped", value.astype(value.dtype.newbyteorder())
    yield "lists", value.tolist()


def turned(data: Any) -> Any:
    """Return a Dataset, or the nodes of a tree, with all dims in reverse order."""
    if isinstance(data, xr.DataTree):
        nodes = {"/": data, **data.children}
        return xr.DataTree.from_dict({name: turned(n.to_dataset()) for name, n in nodes.items()})
    return data.transpose(*reversed(list(data.dims)))


def _sequences(value: Any) -> Iterator[tuple[str, Any]]:
    items = list(value)
    yield "one item short", items[:-1]
    yield "one item twice", [*items, items[-1]]
    yield "with None", [*items[:-1], None]
    yield "with text", [*items[:-1], "abc"]
    yield "with nan", [*items[:-1], np.nan]
    yield "with a half", [*items[:-1], 0.5]
    yield "negative item", [*items[:-1], -1]
    yield "zero item", [*items[:-1], 0]
    yield "huge item", [*items[:-1], 10**30]
    yield "reversed", items[::-1]
    yield "items as generator", (item for item in items)
    yield "nested", [items, items]


def _datasets(data: xr.Dataset) -> Iterator[tuple[str, Any]]:
    yield "no attributes", data.drop_attrs(deep=True)
    yield "schema of points", data.assign_attrs(schema="critical_points")
    yield "only attributes", xr.Dataset(attrs=data.attrs)
    yield "a variable", data[next(iter(data.data_vars))]
    yield "as tree", xr.DataTree(data)
    yield "other names", data.rename({name: f"{name}_" for name in data.data_vars})
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
        yield f"other name of {dim}", data.rename_dims({dim: "else"})
    for name, variable in data.data_vars.items():
        if variable.dtype.kind in "ifu":
            yield f"complex {name}", data.assign({name: variable.astype(complex)})
        yield f"text in {name}", data.assign({name: variable.astype(str)})


def _trees(tree: xr.DataTree) -> Iterator[tuple[str, Any]]:
    yield "only attributes", xr.DataTree(xr.Dataset(attrs=tree.attrs))
    for name in tree.children:
        yield f"without {name}", tree.drop_nodes(name)
        other = tree.copy()
        other[name] = xr.Dataset(attrs=tree[name].attrs)
        yield f"only attributes of {name}", other
        yield f"the node {name}", tree[name].to_dataset()
        for words, bad in _datasets(tree[name].to_dataset()):
            if isinstance(bad, xr.Dataset):
                other = tree.copy()
                other[name] = bad
                if _is_tree(other):
                    yield f"{name}: {words}", other


def _is_tree(tree: xr.DataTree) -> bool:
    """Tell whether xarray itself can read what it let be put together."""
    try:
        return tree.identical(tree)
    except ValueError:
        return False
