"""What all pictures share: axes and their labels, colours of modes, marks of points, an atlas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, ScaledTranslation
from scipy.optimize import isotonic_regression

from dlnds import schema
from dlnds.arrays import Array
from dlnds.plot import layout

#: Marker, colour and area of each kind of point.
KIND_STYLE = {
    "global_minimum": ("*", "#1b7837", 130.0),
    "strict_saddle": ("o", "#4575b4", 16.0),
    "nonstrict_saddle": ("D", "#d73027", 34.0),
    "not_critical": ("x", "black", 30.0),
    "critical_point": ("o", "#4575b4", 16.0),  # of unknown kind
}
#: Levels below so small a part of the largest are zero but for rounding.
_ROUNDING = 1e-13
#: Of positive numbers that span more than that, the logarithm is drawn.
_WIDE = 1e3
#: Levels so far below what else is drawn lie within the height of one of their labels.
_FAR = 30.0

#: The part of a colour map, from dark to light, that can be seen as a line on white.
_LIGHT = 0.9

#: How far below axes their legend begins, and how wide an entry of it is, in inches.
_BELOW, _ENTRY = 0.5, 2.8
#: Lines from points to labels further away.
_LEADER: Any = {"color": "0.15", "linewidth": 0.7, "solid_capstyle": "butt", "zorder": 4}
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
    "modes": ("modes", schema.by_dims("left (output, mode) reading (feature, mode)")),
}
#: What may be unknown: times that runs did not show, times beyond all numbers.
_PARTIAL = ("probability", "mean_escape_time", "escape_time")


def atlas(data: object) -> xr.DataTree:
    """Return what is drawn of an atlas, its dims in order; refuse what is none."""
    if not isinstance(data, xr.DataTree) or data.attrs.get("schema") != "atlas":
        own = getattr(data, "attrs", {}).get("schema")
        other = f"{own!r}; try its .dlnds.plot()" if own else repr(type(data).__name__)
        raise TypeError(f"atlas: needs what build_atlas returns, got {other}")
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
    name, symbol = variable.attrs.get("long_name", variable.name), variable.attrs.get("symbol")
    words = [name] if symbol == f"${name}$" else [name, symbol]
    units = variable.attrs.get("units", "1")
    return " ".join(str(word) for word in words if word) + ("" if units == "1" else f" [{units}]")


def span(values: Any, wide: float = _WIDE) -> str:
    """Return the scale of an axis for these numbers: logarithmic if they are positive and wide."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    spread = numbers.size and numbers.min() > 0.0 and numbers.max() > wide * numbers.min()
    return "log" if spread else "linear"


def scale_levels(ax: Axes, levels: Array, top: float = 0.0) -> None:
    """Make the axis of wide levels logarithmic, and linear below the decade of the lowest.

    The lowest level itself may be zero. Something drawn at ``top`` makes them wide, too, if the
    lowest positive one would lie on the zero line beside it, or all of them within one label.
    """
    most = levels.max(initial=0.0)
    positive = levels[levels > _ROUNDING * most]
    if span([*positive, max(top, most)]) == "log" or (positive.size and top > _FAR * most):
        ax.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(positive.min())))
        if ax.has_data():
            ax.autoscale_view(scalex=False)


def label_heights(ax: Axes, heights: Sequence[float], texts: Sequence[str]) -> None:
    """Write texts beside the axes, each at its height or, at the end of a line, a little away."""
    ends = sorted(zip(heights, texts, strict=True))
    if not ends:
        return
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(np.array(ax.get_ylim()))
    steps = min(0.035, 1.0 / len(ends)) * (high - low) * np.arange(len(ends))
    wanted = scale.transform(np.array([height for height, _ in ends]))
    places = isotonic_regression(wanted - steps).x + steps  # a gap apart
    places = scale.inverted().transform(places)
    for (height, text), place in zip(ends, places.tolist(), strict=True):
        ax.annotate(
            text, (1.0, height), (1.04, place), xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"), va="center", fontsize=8, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6},
        )  # fmt: skip


def mode_colours(count: int) -> Colormap:
    """Return a colour map of so many modes, none too light for a line on white."""
    return ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.0, _LIGHT, max(count, 1))))


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


def legend(ax: Axes, handles: Sequence[Any]) -> None:
    """Add a legend that hides nothing: below the axes, if the figure makes room for it."""
    figure: Any = ax.figure
    if figure.get_layout_engine() is None:
        ax.legend(handles=handles, fontsize=7, framealpha=0.9)
        return
    width = ax.get_position().width * figure.get_figwidth()
    below = ax.transAxes + ScaledTranslation(0.0, -_BELOW, figure.dpi_scale_trans)
    ax.legend_ = _Below(
        ax, handles, [handle.get_label() for handle in handles], fontsize=8, frameon=False,
        loc="upper left", bbox_to_anchor=(0.0, 0.0), bbox_transform=below, borderaxespad=0.0,
        ncols=max(1, int(width / _ENTRY)),
    )  # fmt: skip


class _Below(Legend):
    """A legend below its axes: it makes them lower, but not narrower."""

    def get_tightbbox(self, renderer: Any = None) -> Bbox:
        """Return where it is, as if it were narrow."""
        ax: Any = self.axes
        box: Any = super().get_tightbbox(renderer)
        return Bbox([[ax.bbox.x0, box.y0], [ax.bbox.x0 + 1.0, box.y1]])


class FittingLabels(Artist):
    """Decides at each drawing, just before the labels are drawn, which of them fit and where.

    Parameters
    ----------
    labels
        The labels, the most important first.
    anchors
        For each the points (point, 2), in data, beside one of which it may stand.
    gaps
        How far from these, in points of print.
    places
        Points (place, 2), in data, that no label may cover.
    halves
        Half the size of the squares around these, in points of print.
    reserved
        Half the size of the squares around the first anchor of each label, in points of print,
        that no other label may touch; zero for none. Those that have such a square may stand
        further away, at the end of a line.
    ways
        Edges that labels keep clear of, in data, their thickness in points of print.
    led
        Labels that may stand further away, too, if such an edge that is firm covers their point.
    tell
        Draws what is to be said of labels that do not fit, given their numbers and the renderer.
    """

    def __init__(
        self, labels: Sequence[Annotation], anchors: Sequence[Array], gaps: Any, places: Array,
        halves: Any, tell: Callable[[list[int], Any], None] | None = None, reserved: Any = 0.0,
        ways: layout.Ways | None = None, led: Any = False,
    ):  # fmt: skip
        super().__init__()
        self.set_zorder(4)
        self.set_in_layout(False)
        self._labels, self._anchors, self._places = labels, anchors, places
        self._gaps = np.broadcast_to(gaps, len(labels))
        self._halves = np.broadcast_to(halves, len(places))
        self._reserved = np.broadcast_to(reserved, len(labels))
        self._led = np.broadcast_to(led, len(labels))
        self._ways, self._tell = ways, tell
        self.lines: list[Line2D] = []

    def draw(self, renderer: Any) -> None:
        """Show the labels that fit."""
        ax: Any = self.axes
        point = renderer.points_to_pixels(1.0)
        places, half = ax.transData.transform(self._places), point * self._halves[:, None]
        obstacles = np.concatenate([places - half, places + half], axis=1)
        firm, spared = self._clear_of(point)
        obstacles = np.vstack([obstacles[np.isfinite(obstacles).all(axis=1)], firm])
        legends = [legend.get_window_extent(renderer).extents for legend in ax.findobj(Legend)]
        for label in self._labels:
            label.set_visible(True)  # what is not has no size
        boxes = [label.get_window_extent(renderer) for label in self._labels]
        sizes = [(box.width + 2.0 * point, box.height + 2.0 * point) for box in boxes]
        anchors = [ax.transData.transform(own) for own in self._anchors]
        frame = ax.bbox.extents
        near = np.where(self._reserved > 0.0, point * self._reserved, np.nan)[:, None]
        first = np.array([own[0] for own in anchors]).reshape(-1, 2)
        reserved = np.vstack([np.hstack([first - near, first + near]), *legends])
        gaps = point * self._gaps
        led = (self._reserved > 0.0) | (self._led & layout.covered(first, firm))
        corners = layout.fit_labels(sizes, anchors, gaps, obstacles, frame, reserved, led, spared)
        for label, own, corner in zip(self._labels, anchors, corners, strict=True):
            label.set_visible(corner is not None)
            if corner is not None:
                label.xyann = tuple(corner - own[0] + point)
        self._draw_lines(renderer, sizes, anchors, gaps, corners)
        if self._tell is not None:
            hidden = [k for k, corner in enumerate(corners) if corner is None]
            self._tell(hidden, renderer)

    def _clear_of(self, point: float) -> tuple[Array, Array]:
        """Return boxes around the edges that no label covers, and around others."""
        if self._ways is None:
            return np.zeros((0, 4)), np.zeros((0, 4))
        ax: Any = self.axes
        control = ax.transData.transform(self._ways.control.reshape(-1, 2)).reshape(-1, 3, 2)
        return layout.Ways(control, point * self._ways.halves, self._ways.firm).boxes()

    def _draw_lines(self, renderer: Any, sizes: Any, anchors: Any, gaps: Any, corners: Any) -> None:
        """Draw the lines to labels that do not stand beside their points."""
        self.lines = []
        for label, size, own, gap, corner in zip(
            self._labels, sizes, anchors, gaps, corners, strict=True
        ):
            if corner is not None and (ends := layout.line_to(own, np.array(corner), size, gap)):
                x, y = np.transpose(ends)
                self.lines.append(Line2D(x, y, **_LEADER))
                self.lines[-1].set_gid(str(label.get_gid()).replace("label", "line"))
                self.lines[-1].set_figure(self.figure)
                self.lines[-1].draw(renderer)
