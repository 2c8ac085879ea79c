"""Pictures of landscapes: the saddle-connection graph, the levels of the loss."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.path import Path

from dlnds import schema
from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import known_options
from dlnds.plot import canvas, layout

#: Of more edges only the generic path, the fastest way out of each point and what runs took.
MOST_EDGES = 5000
#: The more edges, the lighter they are drawn.
_MANY_EDGES = 300
#: Numbers are written into tables of pairs of at most so many points.
MOST_WRITTEN = 32
#: Labels are tried on at most so many points.
_MOST_LABELS = 400
#: More arcs than that are straight lines in the picture of levels.
_MOST_CURVES = 5000
#: Colours of times of escape, the fastest first.
TIMES = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0.0, 0.86, 256)))
_BENT = {
    "linestyle": "",
    "marker": Path([(-1.0, 0.4), (0.0, -1.2), (1.0, 0.4)], [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
    "markersize": 20.0,
    "markerfacecolor": "none",
    "markeredgecolor": "0.4",
    "markeredgewidth": 0.8,
}
_PATH, _VISIT, _FAINT = "#d4d4d4", "#111111", "#b0b0b0"
#: The opacity of points that are not drawn strongly, and the area of the disk behind visited ones.
_PALE, _DISK = 0.3, 90.0
#: How far labels keep from the lowest path and from what runs took, and from other strong edges.
_CLEAR = 4.5, 1.0
#: Names of so many modes are listed, cut to so many letters.
_MOST_NAMED, _LETTERS = 8, 18
#: Their letters take at most so many inches, sidewards and down.
_LETTER = np.array([0.065, 0.15])


@known_options
def graph(atlas: xr.DataTree, *, ax: Axes | None = None) -> Axes:
    """Draw the saddle-connection graph of an atlas: loss over rank, joined by connecting orbits.

    Straight edges add a mode, bent ones swap two; their colour is the time of escape along them.
    The fastest way out of each saddle is drawn strong, the generic path on a broad line, and edges
    that runs took, if the atlas has ``visits``, are cased, the broader the more of them did. Of
    more than 64 points only the generic path, minima and what runs visited are strong, with the
    three best ways out of each; the rest is faint. Of more than 5,000 edges the others are left
    out. Where positive levels span more than a thousand times, the axis of the loss is logarithmic,
    and linear below the lowest of them. An atlas without ``connections``, such as that of
    raw inputs, shows its decreasing arcs, by the mode they add. Within the column of a rank the
    points are spread so that they keep apart. Labels stand where they fit, also after the picture
    was resized or zoomed, clear of strong edges if they can; those of visited points and of the
    generic path come first, and no other label stands beside these; where there is no room beside
    such a point, a line leads to its label. An atlas of named
    data lists what each mode reads and writes most, with a minus before what lowers it, in a corner
    without points.

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
    ValueError, TypeError
        If it is no atlas.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> dl.plot.graph(dl.build_atlas(net)).get_ylabel()
    'loss $L$'
    """
    return _graph(canvas.atlas(atlas), ax)


@known_options
def critical_points(points: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the loss of critical points over their rank."""
    return _graph(xr.DataTree.from_dict({"points": canvas.node("points", points, "points")}), ax)


@known_options
def connections(connections: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the graph of connections alone, without the kinds of its points."""
    joined = canvas.node("connections", connections, "connections")
    if not joined.sizes["edge"]:
        raise ValueError("connections: there are none to draw; plot.graph draws the points")
    levels = joined["loss"].values
    loss = dict(zip(joined["source"].values.tolist(), levels[:, 0], strict=True))
    loss |= dict(zip(joined["target"].values.tolist(), levels[:, -1], strict=True))
    modes = [schema.index_set_modes(label) for label in loss]
    learnt = np.zeros((len(modes), 1 + max(map(max, filter(None, modes)), default=0)), bool)
    for row, own in zip(learnt, modes, strict=True):
        row[list(own)] = True
    variables = {
        "learnt": (("critical_point", "mode"), learnt),
        "rank": ("critical_point", [len(own) for own in modes]),
        "loss": ("critical_point", list(loss.values())),
    }
    points = schema.finish(
        xr.Dataset(variables, {"critical_point": list(loss)}), "critical_points", {}
    )
    return _graph(xr.DataTree.from_dict({"points": points, "connections": joined}), ax)


@known_options
def pairs(graph: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw for each pair of critical points in how many dimensions runs lead from one to the other.

    Up to 32 points have the dimensions written in, which count the time along the orbit; 1 is a
    single orbit, a question mark what is not known.

    Parameters
    ----------
    graph
        What `connections` returns, of at most 512 points.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If it is no such graph, or says nothing of pairs.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=np.diag([2.0, 1.0]))
    >>> ax = dl.plot.pairs(dl.connections(net))
    >>> [text.get_text() for text in ax.texts]
    ['2', '1', '3', '1', '1', '2']
    """
    table = ("start_point", "end_point")
    wanted = {"leads": table, "dimension_between": table}
    graph = schema.read("graph", graph, "connections", wanted)
    leads = schema.decode(graph["leads"]).values
    sizes = np.where(leads == "no", np.nan, graph["dimension_between"].values.astype(float))
    labels = graph["start_point"].values.tolist()
    ax = canvas.axes(ax, (6.5, 6.0), graph["end_point"], graph["start_point"])
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="0.95")
    ax.imshow(np.where(leads == "open", np.nan, sizes), cmap=colours)
    if len(labels) <= MOST_WRITTEN:
        for i, j in np.argwhere(leads != "no").tolist():
            text = "?" if leads[i, j] == "open" else f"{sizes[i, j]:.0f}"
            dark = leads[i, j] != "open" and sizes[i, j] < 0.6 * np.nanmax(sizes)
            words: Any = {"ha": "center", "va": "center", "fontsize": 8}
            ax.text(j, i, text, color="white" if dark else "black", **words)
        ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
        ax.set_yticks(range(len(labels)), labels, fontsize=7)
    ax.set_title("dimension of the set of orbits, modulo symmetry")
    return ax


def _graph(atlas: xr.DataTree, ax: Axes | None) -> Axes:
    edges, points = layout.edges(atlas), atlas["points"].to_dataset()
    ax = frame(ax, (11.0, 8.2), points)
    draw(ax, atlas, edges)
    if names := mode_names(atlas, _MOST_NAMED, _LETTERS):
        _list_modes(ax, points, names)
    if len(edges.kind):
        canvas.bar(ax, *_scale(atlas, edges)[1:])
    return ax


def _list_modes(ax: Axes, points: xr.Dataset, names: list[str]) -> None:
    """Write the names of modes into a corner without points, if there is one."""
    words = [f"{j}: {name}" for j, name in enumerate(names)]
    figure: Any = ax.figure
    whole = ax.get_position().size * figure.get_size_inches()
    size = np.array([max(32, *map(len, words)), 3 + len(words)]) * _LETTER / whole
    ax.autoscale_view()
    places = np.stack([layout.columns(points), points["loss"].values], axis=1)
    places = (ax.transData - ax.transAxes).transform(places)
    corners: Any = (("lower left", places < size), ("upper right", places > 1.0 - size))
    for corner, inside in corners:
        if not inside.all(axis=1).any():
            blank = [Line2D([], [], linestyle="")] * len(words)
            ax.add_artist(Legend(ax, blank, words, loc=corner, fontsize=7, handlelength=0,
                                 handletextpad=0, title="modes: most read → most written",
                                 title_fontsize=7))  # fmt: skip
            return


def frame(ax: Axes | None, figsize: tuple[float, float], points: xr.Dataset) -> Axes:
    """Return axes of the loss over the rank."""
    ax = canvas.axes(ax, figsize, points["rank"], points["loss"])
    ax.set_xticks(range(int(points["rank"].max()) + 1))
    ax.margins(0.05, 0.06)
    canvas.scale_levels(ax, points["loss"].values)
    return ax


def draw(ax: Axes, atlas: xr.DataTree, edges: layout.Edges) -> dict[str, Integers]:
    """Draw all of the graph but its bar of colours; return which edges its collections show.

    These have the names as ``gid``, as do the points of each kind, ``points-0`` and so on, with
    ``-faint`` behind for faint ones, and the labels, ``label-`` and the row of the point.
    """
    points = atlas["points"].to_dataset()
    x = layout.columns(points)
    values, colours, _ = _scale(atlas, edges)
    shown = _draw_edges(ax, points, x, edges, colours.to_rgba(values))
    visited, strong = layout.visited(points, edges), layout.strong_points(points, edges)
    areas = _draw_points(ax, points, x, strong)
    if visited.any():
        ax.scatter(
            x[visited], points["loss"].values[visited], s=_DISK, c=_VISIT, zorder=2.9,
            label=f"visited by runs ({visited.sum():,})", gid="visited",
        )  # fmt: skip
        shown["visited"] = np.flatnonzero(visited)
        areas[visited] = np.maximum(areas[visited], _DISK)
    if not strong.all():
        pale: Any = {"s": 16.0, "c": _VISIT, "alpha": _PALE, "linewidths": 0.0}
        ax.scatter([], [], label=f"other points, faint ({(~strong).sum():,})", **pale)
    handles = ax.get_legend_handles_labels()[0] + _edge_legend(points, edges)
    canvas.legend(ax, handles)
    rows = layout.importance(points, edges)[:_MOST_LABELS]
    ways = edges.take(edges.generic | (edges.visited > 0) | layout.best(points, edges))
    firm = ways.generic | (ways.visited > 0)
    control = _control(ax, x, points["loss"].values, ways)
    spared = layout.Ways(control, np.where(firm, *_CLEAR), firm)
    alone = visited | layout.generic_path(points)
    _add_labels(ax, points, x, areas, rows, alone, strong, spared)
    return shown


def mode_names(atlas: xr.DataTree, most: int, letters: int) -> list[str]:
    """Return for the first modes the input and the output of the largest weights, if named.

    A minus stands before the input where the output falls with it.
    """
    if "modes" not in atlas.children:
        return []
    modes, names, sign = atlas["modes"].to_dataset(), [], np.ones(1)
    for dim, variable in (("feature", "reading"), ("output", "left")):
        if dim not in modes.coords or modes[dim].dtype.kind not in "OUT":
            return []
        weights = modes[variable].transpose(dim, "mode").values
        chosen = np.abs(weights).argmax(axis=0)
        sign = sign * np.sign(np.take_along_axis(weights, chosen[None], axis=0)[0])
        names.append([_cut(str(name), letters) for name in modes[dim].values[chosen]])
    count = min(most, atlas["points"].sizes["mode"])
    signs = ["−" if negative else "" for negative in sign < 0.0]
    return [f"{s}{a} → {b}" for s, a, b in zip(signs, *names, strict=True)][:count]


def _cut(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _draw_edges(
    ax: Axes, points: xr.Dataset, x: Array, edges: layout.Edges, colours: Any
) -> dict[str, Integers]:
    """Draw the edges in layers, the weakest first; return which edges these show."""
    lead, visited, known = layout.best(points, edges), edges.visited > 0, edges.kind != "observed"
    crowded = layout.is_crowded(points)
    plain = ~(lead | edges.generic | visited)
    broad = 1.5 + 4.0 * edges.visited / max(edges.visited.max(initial=0.0), 1.0)
    weight = (
        1.0 if crowded or len(plain) < _MANY_EDGES else 0.5 if len(plain) <= MOST_EDGES else 0.2
    )
    strong = {"linewidths": 1.8 * weight, "alpha": weight**0.5}
    weak: dict[str, Any] = {"linewidths": 0.8 * weight, "alpha": 0.6 * weight}
    faint: dict[str, Any] = {"edgecolors": _FAINT, "linewidths": 0.4, "alpha": 0.25}
    plain &= len(plain) <= MOST_EDGES
    layers: dict[str, tuple[Flags, dict[str, Any]]] = {
        "generic": (edges.generic, {"edgecolors": _PATH, "linewidths": 9.0, "capstyle": "round"}),
        "faint" if crowded else "plain": (plain, faint if crowded else weak),
        "lead": (lead & ~visited, strong),
        "path": (edges.generic & ~lead & ~visited, {"linewidths": 1.8}),
        "case": (visited & known, {"edgecolors": _VISIT, "linewidths": broad + 1.6}),
        "observed": (
            visited & ~known,
            {"edgecolors": _VISIT, "linewidths": broad, "linestyles": ":"},
        ),
        "taken": (visited & known, {"linewidths": broad}),
    }
    shown = {}
    for height, (name, (chosen, style)) in enumerate(layers.items()):
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(-np.nan_to_num(edges.time[rows]), kind="stable")]  # fast ones on top
        each = {"edgecolors": colours, **style}
        each = {name: v[rows] if np.ndim(v) else v for name, v in each.items()}
        curves = PathCollection(
            _curves(ax, x, points["loss"].values, edges.take(rows)),
            facecolors="none",
            zorder=1.0 + 0.1 * height,
            **each,
        )
        curves.set_gid(f"edges-{name}")
        ax.add_collection(curves)
        shown[f"edges-{name}"] = rows
    return shown


def bends(ax: Axes, x: Array, loss: Array, edges: layout.Edges) -> Array:
    """Return control points (edge, 2), in data, of parabolas on the scale of the axes."""
    scale = ax.yaxis.get_transform()
    control = layout.bends(x, scale.transform(loss), edges)
    control[:, 1] = scale.inverted().transform(control[:, 1])
    return control


def _control(ax: Axes, x: Array, loss: Array, edges: layout.Edges) -> Array:
    """Return all control points (edge, 3, 2) of edges, in data."""
    begin, end = (np.stack([x[rows], loss[rows]], axis=1) for rows in (edges.source, edges.target))
    return np.stack([begin, bends(ax, x, loss, edges), end], axis=1)


def _curves(ax: Axes, x: Array, loss: Array, edges: layout.Edges) -> list[Path]:
    points = _control(ax, x, loss, edges)
    return [Path(three, [Path.MOVETO, Path.CURVE3, Path.CURVE3]) for three in points]


def _scale(atlas: xr.DataTree, edges: layout.Edges) -> tuple[Array, ScalarMappable, str]:
    """Return a number for each edge, the colours of these, and what they are."""
    positive = edges.time[edges.time > 0.0]
    if positive.size:
        low, high = positive.min(), max(positive.max(), 1.01 * positive.min())
        node = atlas["connections"].to_dataset()
        scale = float(node["scale"][layout.scale_of(node)])
        word = rf"{canvas.label(node['escape_time'])} from $\varepsilon = {scale:g}$"
        times = np.clip(np.nan_to_num(edges.time, nan=high), low, high)
        return times, ScalarMappable(LogNorm(low, high), TIMES), word
    learnt = atlas["points"].to_dataset()["learnt"].values
    gained = np.argmax(learnt[edges.target] & ~learnt[edges.source], axis=1)
    return gained, canvas.mode_scale(learnt.shape[1]), "mode added along the arc"


def _edge_legend(points: xr.Dataset, edges: layout.Edges) -> list[Line2D]:
    """Return what the legend says of the edges."""
    lead, visited, known = layout.best(points, edges), edges.visited > 0, edges.kind != "observed"
    crowded = layout.is_crowded(points)
    best = "fastest way out" if np.isfinite(edges.time).any() else "largest drop"
    best += f", {layout.BEST} of each strong point" if crowded else " of each saddle"
    others = ~(lead | edges.generic | visited)
    faint = others & (crowded and len(edges.kind) <= MOST_EDGES)
    words: list[tuple[str, Flags, dict[str, Any]]] = [
        ("adds a mode", edges.kind == "add", {"color": "0.4", "linewidth": 0.8}),
        ("swaps two modes", edges.kind == "swap", _BENT),
        (best, lead, {"color": "0.3", "linewidth": 1.8}),
        ("generic path", edges.generic, {"color": _PATH, "linewidth": 7.0}),
        ("taken by runs", visited, {"color": _VISIT, "linewidth": 4.0}),
        ("of these, by runs only", visited & ~known, {"color": _VISIT, "linestyle": ":"}),
        ("other edges, faint", faint, {"color": _FAINT, "linewidth": 0.6}),
    ]
    named = [
        Line2D([], [], label=f"{word} ({chosen.sum():,})", **style)
        for word, chosen, style in words
        if chosen.any()
    ]
    if len(edges.kind) > MOST_EDGES:
        label = f"{others.sum():,} others are not drawn"
        named.append(Line2D([], [], linestyle="", label=label))
    return named


def _draw_points(ax: Axes, points: xr.Dataset, x: Array, strong: Flags) -> Array:
    """Draw the points by kind, and return the areas of their marks."""
    kinds, loss, areas = layout.kinds(points), points["loss"].values, np.zeros(len(x))
    for number, (kind, (marker, colour, area)) in enumerate(canvas.KIND_STYLE.items()):
        rows = np.flatnonzero(kinds == kind)
        areas[rows] = size = area if len(rows) < 500 else 0.25 * area
        if len(rows):
            style: Any = {
                "s": size, "marker": marker, "zorder": 3, "linewidths": 0.4 * (len(rows) < 500),
                "edgecolors": None if marker == "x" else "white",
            }  # fmt: skip
            for end, part in (("-faint", rows[~strong[rows]]), ("", rows[strong[rows]])):
                if len(part):
                    shade: Any = {"c": colour, "alpha": _PALE if end else None}
                    marks = ax.scatter(x[part], loss[part], **style, **shade)
                    marks.set_gid(f"points-{number}{end}")
            label = f"{schema.spoken(kind)} ({len(rows):,})"
            ax.scatter([], [], c=colour, label=label, **style)
    return areas


def _add_labels(
    ax: Axes,
    points: xr.Dataset,
    x: Array,
    areas: Array,
    rows: Integers,
    alone: Flags,
    strong: Flags,
    ways: layout.Ways | None = None,
) -> None:
    """Label the points of these rows, the most important first; some have no other label near."""
    texts, path = layout.path_labels(points), layout.generic_path(points)
    places = np.stack([x, points["loss"].values], axis=1)
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white", alpha=0.85)]
    labels = [
        ax.annotate(
            texts[row], places[row], (0, 0), textcoords="offset pixels", va="bottom",
            fontsize=9 if path[row] else 7, path_effects=halo, zorder=5, in_layout=False,
            gid=f"label-{row}", color="black" if strong[row] else "0.45",
        )
        for row in rows
    ]  # fmt: skip
    radii = 0.5 * np.sqrt(areas)
    anchors = list(places[rows, None])
    halves = 0.7 * radii  # of a square in a disk
    gaps = radii[rows] + 1.5
    near: Any = {"reserved": np.where(alone[rows], 2.0 * gaps, 0.0), "led": strong[rows]}
    ax.add_artist(canvas.FittingLabels(labels, anchors, gaps, places, halves, ways=ways, **near))


@known_options
def levels(atlas: xr.DataTree, *, ax: Axes | None = None) -> Axes:
    """Draw the loss of all critical points over their rank, joined by the arcs that add one mode.

    The arcs are drawn as they are, the loss along them over the size of the added mode; more than
    5,000 of them as straight lines.

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
    ValueError, TypeError
        If it is no atlas.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> dl.plot.levels(dl.build_atlas(net)).get_xlabel()
    'rank $r$'
    """
    atlas = canvas.atlas(atlas)
    points, arcs = atlas["points"].to_dataset(), atlas["arcs"].to_dataset()
    ax = frame(ax, (9.0, 6.0), points)
    adds = schema.decode(arcs["shape"]).values == "activation"
    adds &= schema.decode(arcs["kind"]).values == "decreasing"
    adds &= np.isin(arcs["source"].values, points["critical_point"].values)
    arcs = arcs.isel(arc=adds)
    if arcs.sizes["arc"]:
        ranks = points["rank"].sel(critical_point=arcs["source"].values).values
        part = arcs if arcs.sizes["arc"] <= _MOST_CURVES else arcs.isel(alpha=[0, -1])
        colours = canvas.mode_scale(points.sizes["mode"])
        lines = LineCollection(
            list(np.stack([ranks[:, None] + part["alpha"].values, part["loss"].values], axis=-1)),
            colors=colours.to_rgba(arcs["mode"].values),
            linewidths=0.8,
            alpha=0.35 if arcs.sizes["arc"] > 100 else 0.8,
        )
        ax.add_collection(lines)
        canvas.bar(ax, colours, "mode added along the arc")
    x = points["rank"].values.astype(np.float64)
    path = layout.generic_path(points)
    areas = _draw_points(ax, points, x, np.ones(len(x), bool))
    ax.legend(loc="lower left")
    _add_labels(ax, points, x, areas, np.flatnonzero(path), np.zeros(len(x), bool), path)
    return ax
