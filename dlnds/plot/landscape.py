"""The picture of the saddle-connection graph."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.text import Annotation

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import known_options
from dlnds.plot import canvas, layout

#: Of more edges only the generic path, the fastest way out of each point and what runs took.
MOST_EDGES = 5000
#: The more edges, the lighter they are drawn.
_MANY_EDGES = 300
#: Labels are tried on at most so many points.
_MOST_LABELS = 400
_BENT = {
    "linestyle": "",
    "marker": Path([(-1.0, 0.4), (0.0, -1.2), (1.0, 0.4)], [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
    "markersize": 20.0,
    "markerfacecolor": "none",
    "markeredgecolor": "0.4",
    "markeredgewidth": 0.8,
}
_PATH, _VISIT = "#d4d4d4", "#111111"


@known_options
def graph(atlas: xr.DataTree, *, ax: Axes | None = None) -> Axes:
    """Draw the saddle-connection graph of an atlas: loss over rank, joined by connecting orbits.

    Straight edges add a mode, bent ones swap two; their colour is the time of escape along them.
    The fastest way out of each saddle is drawn strong, the generic path on a broad line, and edges
    that runs took, if the atlas has ``visits``, are cased, the broader the more of them did. Of
    more than 5,000 edges the others are left out. An atlas without ``connections``, such as that of
    raw inputs, shows its decreasing arcs, by the mode they add. Within the column of a rank the
    points are spread so that they keep apart. Labels stand where they fit, also after the picture
    was resized or zoomed.

    Parameters
    ----------
    atlas
        What `build_atlas` returns.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If it is no atlas.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> dl.plot.graph(dl.build_atlas(net)).get_ylabel()
    'loss $L$'
    """
    atlas = canvas.check("atlas", atlas, "atlas")
    ax = canvas.axes(ax, figsize=(11.0, 7.5))
    points, edges = atlas["points"].to_dataset(), layout.edges(atlas)
    x = layout.columns(points)
    _draw_edges(ax, atlas, x, edges)
    sizes = _draw_points(ax, points, x, edges)
    ax.set_xlabel(canvas.label(points["rank"]))
    ax.set_ylabel(canvas.label(points["loss"]))
    ax.set_xticks(range(int(points["rank"].max()) + 1))
    ax.margins(0.05, 0.06)
    handles = ax.get_legend_handles_labels()[0] + _edge_legend(edges)
    ax.legend(handles=handles, loc="upper right", fontsize=8, framealpha=0.9)
    _add_labels(ax, points, x, sizes, layout.importance(points, edges)[:_MOST_LABELS])
    return ax


def _draw_edges(ax: Axes, atlas: xr.DataTree, x: Array, edges: layout.Edges) -> None:
    """Draw the edges in layers, the weakest first."""
    lead, visited, known = layout.leading(edges), edges.visited > 0, edges.kind != "observed"
    plain = ~(lead | edges.generic | visited)
    colours = _edge_colours(ax, atlas, edges)
    broad = 1.5 + 4.0 * edges.visited / max(edges.visited.max(initial=0.0), 1.0)
    weight = 1.0 if len(plain) < _MANY_EDGES else 0.5 if len(plain) <= MOST_EDGES else 0.2
    layers: list[tuple[layout.Flags, dict[str, Any]]] = [
        (edges.generic, {"edgecolors": _PATH, "linewidths": 9.0, "capstyle": "round"}),
        (plain & (len(plain) <= MOST_EDGES), {"linewidths": 0.8 * weight, "alpha": 0.6 * weight}),
        (lead & ~visited, {"linewidths": 1.8 * weight, "alpha": weight**0.5}),
        (edges.generic & ~lead & ~visited, {"linewidths": 1.8}),
        (visited & known, {"edgecolors": _VISIT, "linewidths": broad + 1.6}),
        (visited & ~known, {"edgecolors": _VISIT, "linewidths": broad, "linestyles": ":"}),
        (visited & known, {"linewidths": broad}),
    ]
    loss = atlas["points"].to_dataset()["loss"].values
    for height, (chosen, style) in enumerate(layers):
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(-np.nan_to_num(edges.time[rows]), kind="stable")]  # fast ones on top
        each = {"edgecolors": colours, **style}
        each = {name: v[rows] if np.ndim(v) else v for name, v in each.items()}
        curves = _curves(x, loss, edges.take(rows))
        ax.add_collection(
            PathCollection(curves, facecolors="none", zorder=1.0 + 0.1 * height, **each)
        )


def _curves(x: Array, loss: Array, edges: layout.Edges) -> list[Path]:
    begin, end = (np.stack([x[rows], loss[rows]], axis=1) for rows in (edges.source, edges.target))
    points = np.stack([begin, layout.bends(x, loss, edges), end], axis=1)
    return [Path(three, [Path.MOVETO, Path.CURVE3, Path.CURVE3]) for three in points]


def _edge_colours(ax: Axes, atlas: xr.DataTree, edges: layout.Edges) -> Array:
    """Return a colour for each edge and add the bar that explains them."""
    figure: Any = ax.figure
    colours: Array
    positive = edges.time[edges.time > 0.0]
    if positive.size:
        low, high = positive.min(), max(positive.max(), 1.01 * positive.min())
        dark_to_light = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0.0, 0.86, 256)))
        mapped = ScalarMappable(LogNorm(low, high), dark_to_light)
        node = atlas["connections"].to_dataset()
        scale = float(node["scale"][layout.scale_of(node)])
        bar = figure.colorbar(mapped, ax=ax, pad=0.02, aspect=35)
        bar.set_label(rf"{canvas.label(node['escape_time'])} from $\varepsilon = {scale:g}$")
        colours = mapped.to_rgba(np.clip(np.nan_to_num(edges.time, nan=high), low, high))
        return colours
    learnt = atlas["points"].to_dataset()["learnt"].values
    gained = np.argmax(learnt[edges.target] & ~learnt[edges.source], axis=1)
    if len(gained):
        canvas.mode_bar(ax, learnt.shape[1], "mode added along the arc")
    colours = canvas.mode_colours(learnt.shape[1])(canvas.mode_norm(learnt.shape[1])(gained))
    return colours


def _edge_legend(edges: layout.Edges) -> list[Line2D]:
    """Return what the legend says of the edges."""
    lead, visited = layout.leading(edges), edges.visited > 0
    best = "fastest way out" if np.isfinite(edges.time).any() else "largest drop"
    words: list[tuple[str, layout.Flags, dict[str, Any]]] = [
        ("adds a mode", edges.kind == "add", {"color": "0.4", "linewidth": 0.8}),
        ("swaps two modes", edges.kind == "swap", _BENT),
        (f"{best} of each saddle", lead, {"color": "0.3", "linewidth": 1.8}),
        ("generic path", edges.generic, {"color": _PATH, "linewidth": 7.0}),
        ("taken by runs", visited, {"color": _VISIT, "linewidth": 4.0}),
    ]
    named = [
        Line2D([], [], label=f"{word} ({chosen.sum():,})", **style)
        for word, chosen, style in words
        if chosen.any()
    ]
    if len(edges.kind) > MOST_EDGES:
        others = len(edges.kind) - int((lead | edges.generic | visited).sum())
        named.append(Line2D([], [], linestyle="", label=f"{others:,} others are not drawn"))
    return named


def _draw_points(ax: Axes, points: xr.Dataset, x: Array, edges: layout.Edges) -> Array:
    """Draw the points by kind, and return the areas of their marks."""
    kinds, loss = schema.decode(points["kind"]).values, points["loss"].values
    taken = edges.take(edges.visited > 0)
    visited = np.union1d(taken.source, taken.target)
    ax.scatter(x[visited], loss[visited], s=90.0, c=_VISIT, zorder=2.9)
    areas = np.zeros(len(x))
    for kind, (marker, colour, area) in canvas.KIND_STYLE.items():
        rows = np.flatnonzero(kinds == kind)
        areas[rows] = area if len(rows) < 500 else 0.25 * area
        if len(rows):
            word = f"{schema.spoken(kind)} ({len(rows):,})"
            ax.scatter(
                x[rows], loss[rows], s=areas[rows], c=colour, marker=marker,
                edgecolors="white", linewidths=0.4 * (len(rows) < 500), zorder=3, label=word,
            )  # fmt: skip
    return areas


class _FittingLabels(Artist):
    """Decides at each drawing, just before the labels are drawn, which of them fit and where."""

    def __init__(self, labels: Sequence[Annotation], rows: layout.Rows, places: Array, radii: Any):
        super().__init__()
        self.set_zorder(4)
        self.set_in_layout(False)
        self._labels, self._rows, self._places, self._radii = labels, rows, places, radii

    def draw(self, renderer: Any) -> None:
        """Show the labels that fit."""
        ax: Any = self.axes
        point = renderer.points_to_pixels(1.0)
        anchors = ax.transData.transform(self._places)
        half = 0.7 * point * self._radii[:, None]  # of a square in a disk
        obstacles = np.concatenate([anchors - half, anchors + half], axis=1)
        if ax.get_legend() is not None:
            legend = ax.get_legend().get_window_extent(renderer)
            obstacles = np.vstack([obstacles, legend.extents])
        sizes = [_size(label, renderer, 2.0 * point) for label in self._labels]
        anchors, gaps = anchors[self._rows], point * (self._radii[self._rows] + 1.5)
        corners = layout.fit_labels(sizes, anchors, gaps, obstacles, ax.bbox.extents)
        for label, anchor, corner in zip(self._labels, anchors, corners, strict=True):
            label.set_visible(corner is not None)
            if corner is not None:
                label.xyann = tuple(corner - anchor + point)


def _size(label: Annotation, renderer: Any, margin: float) -> tuple[float, float]:
    label.set_visible(True)  # what is not has no size
    box = label.get_window_extent(renderer)
    return box.width + margin, box.height + margin


def _add_labels(ax: Axes, points: xr.Dataset, x: Array, areas: Array, rows: layout.Rows) -> None:
    """Label the points of these rows, the most important first."""
    texts, path = layout.path_labels(points), layout.generic_path(points)
    places = np.stack([x, points["loss"].values], axis=1)
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white", alpha=0.85)]
    labels = [
        ax.annotate(
            texts[row], places[row], (0, 0), textcoords="offset pixels", va="bottom",
            fontsize=9 if path[row] else 7, path_effects=halo, zorder=5, in_layout=False,
        )
        for row in rows
    ]  # fmt: skip
    ax.add_artist(_FittingLabels(labels, rows, places, 0.5 * np.sqrt(areas)))
