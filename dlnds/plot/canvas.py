"""What all pictures share: axes, labels from attributes, colours of modes, marks of points."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dlnds import schema

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Marker, colour and area of each kind of point.
KIND_STYLE = {
    "global_minimum": ("*", "#1b7837", 130.0),
    "strict_saddle": ("o", "#4575b4", 16.0),
    "nonstrict_saddle": ("D", "#d73027", 34.0),
    "not_critical": ("x", "black", 30.0),
}


#: What pictures read of Datasets of a schema beyond what it requires.
_DRAWN: dict[str, dict[str, tuple[str, ...]]] = {
    "arcs": {"alpha": ("alpha",), "mode_lost": ("arc",), "mode_read": ("arc",)},
    "connections": {
        "escape_time": ("edge", "scale"),
        "scale": ("scale",),
        "singular_value": ("mode",),
    },
    "critical_points": {"singular_value": ("mode",)},
    "linearization": {},
}


#: Of what indices are made: masks of xarray turn these into real numbers.
_WHOLE = {"learnt": bool, "kind": np.int8}


def check(name: str, data: Any, wanted: str) -> Any:
    """Return what has the wanted schema, with its dims in order; refuse anything else."""
    labelled = isinstance(data, xr.Dataset | xr.DataTree)
    got = data.attrs.get("schema") if labelled else type(data).__name__
    if got != wanted:
        raise ValueError(f"{name}: needs the schema {wanted!r}, got {got!r}")
    for node, own in schema.REQUIRED_NODES.get(wanted, {}).items():
        if not isinstance(data, xr.DataTree) or node not in data.children:
            raise ValueError(f"{name}: lacks the node {node!r}")
        if data[node].attrs.get("schema") != own:
            raise ValueError(f"{name}: its node {node!r} needs the schema {own!r}")
    if isinstance(data, xr.Dataset) or wanted not in schema.REQUIRED_NODES:
        return _in_order(name, data.to_dataset() if isinstance(data, xr.DataTree) else data)
    nodes = {"/": data, **data.children}
    return xr.DataTree.from_dict({k: _in_order(name, v.to_dataset()) for k, v in nodes.items()})


def _in_order(name: str, data: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with the dims of what is drawn of it in order."""
    kind = data.attrs.get("schema")
    if kind not in _DRAWN:
        return data
    labels = data["critical_point"].values if "critical_point" in data.dims else ()
    if kind == "critical_points" and len(set(labels)) < len(labels):
        raise ValueError(f"{name}: has critical points twice")
    needed = {**schema.REQUIRED[kind], **_DRAWN[kind]}
    data = schema.check_content(name, data, needed, empty=["arc", "edge", "eigen"])
    masked = {key: kind for key, kind in _WHOLE.items() if key in needed}
    return data.assign({key: data[key].astype(kind) for key, kind in masked.items()})


def axes(ax: "Axes | None", figsize: tuple[float, float]) -> "Axes":
    """Return the axes to draw into: new ones of this size if none are given."""
    from matplotlib.axes import Axes

    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=figsize, layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"ax: needs matplotlib axes, got {type(ax).__name__}")
    return ax


def label(variable: xr.DataArray) -> str:
    """Return the axis label that a variable's attributes give."""
    long_name, symbol = variable.attrs.get("long_name", variable.name), variable.attrs.get("symbol")
    return f"{long_name} {symbol}" if symbol else str(long_name)


def mode_colours(count: int) -> Any:
    """Return a colour map of so many modes."""
    import matplotlib

    return matplotlib.colormaps["viridis"].resampled(max(count, 1))


def mode_norm(count: int) -> Any:
    """Return what takes the number of a mode to its colour."""
    from matplotlib.colors import BoundaryNorm

    return BoundaryNorm(np.arange(max(count, 1) + 1) - 0.5, max(count, 1))


def mode_bar(ax: "Axes", count: int, label: str) -> None:
    """Add a bar of the colours of modes."""
    from matplotlib.cm import ScalarMappable

    colours = ScalarMappable(mode_norm(count), mode_colours(count))
    bar = ax.figure.colorbar(colours, ax=ax, ticks=range(0, count, max(1, count // 10)), pad=0.02)
    bar.set_label(label)
