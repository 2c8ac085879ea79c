"""What all pictures share: axes and their labels, colours of modes, marks of points, an atlas."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.ticker import MaxNLocator

from dlnds import schema

#: Marker, colour and area of each kind of point.
KIND_STYLE = {
    "global_minimum": ("*", "#1b7837", 130.0),
    "strict_saddle": ("o", "#4575b4", 16.0),
    "nonstrict_saddle": ("D", "#d73027", 34.0),
    "not_critical": ("x", "black", 30.0),
    "critical_point": ("o", "#4575b4", 16.0),  # of unknown kind
}
#: Of positive numbers that span more than that, the logarithm is drawn.
_WIDE = 1e3

#: What pictures read of the nodes of an atlas: their schemas, and variables with their dims.
_NODES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "points": (
        "critical_points",
        schema.REQUIRED["critical_points"] | schema.by_dims("singular_value (mode)"),
    ),
    "arcs": ("arcs", schema.REQUIRED["arcs"] | schema.by_dims("alpha (alpha)")),
    "connections": (
        "connections",
        schema.REQUIRED["connections"] | schema.by_dims("escape_time (edge, scale) scale (scale)"),
    ),
    "visits": (
        "observed_connections",
        schema.by_dims("source target visited probability mean_escape_time (edge)"),
    ),
}
#: What may be unknown: times that runs did not show, times beyond all numbers.
_PARTIAL = ("probability", "mean_escape_time", "escape_time")


def atlas(data: object) -> xr.DataTree:
    """Return what is drawn of an atlas, its dims in order; refuse what is none."""
    if not isinstance(data, xr.DataTree) or data.attrs.get("schema") != "atlas":
        got = getattr(data, "attrs", {}).get("schema", type(data).__name__)
        raise TypeError(f"atlas: needs what build_atlas returns, got {got!r}")
    nodes: dict[str, xr.Dataset] = {"/": data.to_dataset()}
    for name in _NODES:
        if name in data.children:
            nodes[name] = node(name, data[name])
        elif name in schema.REQUIRED_NODES["atlas"]:
            raise ValueError(f"atlas: lacks the node {name!r}")
    return xr.DataTree.from_dict(nodes)


def node(name: str, data: object, word: str = "atlas") -> xr.Dataset:
    """Return a node of an atlas with the dims of what is drawn of it in order."""
    return schema.read(word, data, *_NODES[name], empty=("arc", "edge"), partial=_PARTIAL)


def axes(ax: Axes | None, figsize: tuple[float, float], x: Any = "", y: Any = "") -> Axes:
    """Return the axes to draw into, labelled: new ones of this size if none are given."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=figsize, layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"ax: needs matplotlib axes, got {type(ax).__name__}")
    if isinstance(x, xr.DataArray) and x.dtype.kind in "iu":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(label(x))
    ax.set_ylabel(label(y))
    return ax


def label(variable: xr.DataArray | str) -> str:
    """Return the axis label that a variable's attributes give: name, symbol, unit."""
    if isinstance(variable, str):
        return variable
    words = variable.attrs.get("long_name", variable.name), variable.attrs.get("symbol")
    units = variable.attrs.get("units", "1")
    return " ".join(str(word) for word in words if word) + ("" if units == "1" else f" [{units}]")


def span(values: Any, wide: float = _WIDE) -> str:
    """Return the scale of an axis for these numbers: logarithmic if they are positive and wide."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    spread = numbers.size and numbers.min() > 0.0 and numbers.max() > wide * numbers.min()
    return "log" if spread else "linear"


def mode_colours(count: int) -> Colormap:
    """Return a colour map of so many modes."""
    return matplotlib.colormaps["viridis"].resampled(max(count, 1))


def mode_scale(count: int) -> ScalarMappable:
    """Return what takes the number of a mode to its colour."""
    norm = BoundaryNorm(np.arange(max(count, 1) + 1) - 0.5, max(count, 1))
    return ScalarMappable(norm, mode_colours(count))


def bar(ax: Axes, colours: ScalarMappable, label: str, words: Sequence[str] = ()) -> None:
    """Add a bar of colours; those of a `mode_scale` are numbered, or have words."""
    figure: Any = ax.figure
    drawn = figure.colorbar(colours, ax=ax, pad=0.02, aspect=35)
    drawn.set_label(label)
    if isinstance(colours.norm, BoundaryNorm):
        count = len(colours.norm.boundaries) - 1
        drawn.set_ticks(range(0, count, max(1, count // 10)), labels=words or None)
