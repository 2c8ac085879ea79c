"""Pictures of Datasets. Every function draws into ``ax``, or into new axes, and returns them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dlnds import schema
from dlnds.errors import check_integers, known_options, nearest
from dlnds.plot import layout
from dlnds.plot.canvas import KIND_STYLE as _KIND_STYLE
from dlnds.plot.canvas import axes as _axes
from dlnds.plot.canvas import check as _check
from dlnds.plot.canvas import label as _label
from dlnds.plot.canvas import mode_bar as _mode_bar
from dlnds.plot.canvas import mode_colours as _mode_colours
from dlnds.plot.canvas import mode_norm as _mode_norm
from dlnds.plot.diagrams import branches as branches
from dlnds.plot.landscape import graph as graph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colours of arcs by kind and shape: cold ones descend, warm ones rise.
_ARC_COLOURS = {
    "decreasing": {"activation": "#2166ac", "rotation": "#1b7837", "rotation_kept": "#7fbf7b"},
    "increasing": {
        "activation": "#b2182b",
        "cross": "#e08214",
        "scaling": "#8c510a",
        "rotation": "#c51b7d",
        "rotation_kept": "#e9a3c9",
    },
    "constant": dict.fromkeys(("orbit", "fiber", "plateau", "rotation"), "#4d4d4d"),
}
_ARC_NAMES = {
    ("increasing", "activation"): "activation, sign −",
    ("increasing", "rotation_kept"): "rotation, strength kept",
    ("decreasing", "rotation_kept"): "rotation, strength kept",
}
_ARC_DASHES = {"rotation_kept": "--", "cross": "-.", "scaling": (0, (1, 1))}

_MOST_CURVES = 5000
#: The largest number of a mode that has a colour of its own.
_MOST_MODES = 100_000


@known_options
def levels(atlas: xr.DataTree, *, ax: "Axes | None" = None) -> "Axes":
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
    ValueError
        If it is no atlas.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> dl.plot.levels(dl.build_atlas(net)).get_xlabel()
    'rank $r$'
    """
    atlas = _check("atlas", atlas, "atlas")
    from matplotlib.collections import LineCollection

    ax = _axes(ax, figsize=(9.0, 6.0))
    points, arcs = atlas["points"].to_dataset(), _additions(atlas["arcs"].to_dataset())
    arcs = arcs.isel(arc=np.isin(arcs["source"].values, points["critical_point"].values))
    if arcs.sizes["arc"]:
        ranks = points["rank"].sel(critical_point=arcs["source"].values).values
        part = arcs if arcs.sizes["arc"] <= _MOST_CURVES else arcs.isel(alpha=[0, -1])
        x = ranks[:, None] + part["alpha"].values
        lines = LineCollection(
            list(np.stack([x, part["loss"].values], axis=-1)),
            array=arcs["mode"].values,
            cmap=_mode_colours(points.sizes["mode"]),
            norm=_mode_norm(points.sizes["mode"]),
            linewidths=0.8,
            alpha=0.35 if arcs.sizes["arc"] > 100 else 0.8,
        )
        ax.add_collection(lines)
        _mode_bar(ax, points.sizes["mode"], "mode added along the arc")
    kinds = schema.decode(points["kind"])
    for kind, (marker, colour, size) in _KIND_STYLE.items():
        part = points.isel(critical_point=np.flatnonzero(kinds.values == kind))
        if part.sizes["critical_point"]:
            label = f"{schema.spoken(kind)} ({part.sizes['critical_point']})"
            ax.scatter(
                part["rank"], part["loss"], s=size, c=colour, marker=marker, label=label, zorder=3
            )
    for label, rank, loss in _path_labels(points):
        ax.annotate(
            label, (rank, loss), (-5, -8), textcoords="offset points",
            ha="right", va="top", fontsize=8,
        )  # fmt: skip
    ax.set_xlabel(_label(points["rank"]))
    ax.set_ylabel(_label(points["loss"]))
    ax.set_xticks(range(int(points["rank"].max()) + 1))
    ax.margins(0.12, 0.08)
    ax.legend(loc="lower left")
    return ax


@known_options
def loss(run: xr.Dataset, *, points: xr.Dataset | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw the loss of a run, or of several, over time, against the critical levels.

    Parameters
    ----------
    run
        What `flow` returns.
    points
        What `critical_points` returns: the levels are drawn as lines, those of the sets of leading
        modes with their labels.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If it is no run.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=1e-2, rng=0))
    >>> dl.plot.loss(run, points=dl.critical_points(net)).get_ylabel()
    'loss $L$'
    """
    run = _check("run", run, "run")
    if "loss" not in run:
        raise ValueError("run: has no loss, since its system has no energy")
    _check_drawn(run, "loss")
    ax = _axes(ax, figsize=(8.0, 4.5))
    if points is not None:
        points = _check("points", points, "critical_points")
        if points.sizes["critical_point"] <= 300:
            for level in points["loss"].values:
                ax.axhline(level, color="0.9", linewidth=0.5, zorder=0)
        below = -np.inf
        for label, _, level in reversed(_path_labels(points)):
            ax.axhline(level, color="0.45", linewidth=0.8, linestyle="--", zorder=1)
            if level - below > 0.03 * float(points["loss"].max()):
                ax.annotate(
                    label, (1.0, level), (4, 0), xycoords=("axes fraction", "data"),
                    textcoords="offset points", va="center", fontsize=8,
                )  # fmt: skip
                below = level
    _lines(ax, run, "loss", color="#d73027", linewidth=1.8)
    ax.set_ylabel(_label(run["loss"]))
    return ax


@known_options
def singular_values(
    run: xr.Dataset, *, modes: xr.Dataset | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw the singular values of the end-to-end map of a run over time.

    Parameters
    ----------
    run
        A run that saved ``singular_value``.
    modes
        A Dataset with the target's ``singular_value(mode)``, such as ``net.modes``: drawn as lines.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the run has no singular values.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=1e-2, rng=0), save=["singular_value"])
    >>> dl.plot.singular_values(run, modes=net.modes).get_xlabel()
    'time $t$'
    """
    run = _check("run", run, "run")
    if "singular_value" not in run:
        raise ValueError("run: has no singular values; use flow(..., save=['singular_value'])")
    ax = _axes(ax, figsize=(8.0, 4.5))
    _check_drawn(run.drop_vars("mode", errors="ignore"), "singular_value", "mode")
    drawn = check_integers("run", run["mode"].values, minimum=0, maximum=_MOST_MODES)
    count = max(drawn) + 1
    colours = _mode_colours(count)
    if modes is not None:
        if "singular_value" not in getattr(modes, "variables", ()):
            raise ValueError("modes: needs a Dataset with singular_value, such as net.modes")
        modes = schema.check_content("modes", modes, {"singular_value": ("mode",)})
        for mode, value in enumerate(modes["singular_value"].values):
            if mode in drawn:
                ax.axhline(value, color=colours(mode), linewidth=0.8, linestyle="--")
    for place, mode in enumerate(drawn):
        _lines(ax, run.isel(mode=place), "singular_value", color=colours(mode), linewidth=1.8)
    _mode_bar(ax, count, _label(run["mode"]))
    ax.set_ylabel(_label(run["singular_value"]))
    return ax


@known_options
def spectrum(linearization: xr.Dataset, *, ax: "Axes | None" = None) -> "Axes":
    """Draw the eigenvalues of a linearization: ascending, or in the complex plane.

    Parameters
    ----------
    linearization
        What `linearize` or `canonical_spectrum` returns.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If it is no linearization.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> dl.plot.spectrum(dl.canonical_spectrum(net, (1,))).get_title()
    'index 3, nullity 5'
    """
    linearization = _check("linearization", linearization, "linearization")
    counts = [name for name in ("index", "nullity") if name in linearization]
    schema.check_content("linearization", linearization, dict.fromkeys(counts, ()))
    ax = _axes(ax, figsize=(6.0, 4.0))
    values = linearization["eigenvalue"]
    if "eigenvalue_imag" in linearization:
        ax.axvline(0.0, color="0.6", linewidth=0.8)
        ax.plot(values, linearization["eigenvalue_imag"], ".", color="#4575b4")
        ax.set_xlabel(r"real part $\mathrm{Re}\,\lambda$")
        ax.set_ylabel(_label(linearization["eigenvalue_imag"]))
    else:
        ax.axhline(0.0, color="0.6", linewidth=0.8)
        ax.plot(np.arange(values.size), values, ".", color="#4575b4")
        ax.set_xlabel("number of the eigenvalue")
        ax.set_ylabel(_label(values))
    ax.set_title(", ".join(f"{name} {int(linearization[name])}" for name in counts))
    return ax


@known_options
def arcs(
    arcs: xr.Dataset | xr.DataTree, *, source: str | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw the loss along all arcs from one critical point.

    The legend lists by kind what moves along them, with the modes j or i→j; darker lines are of
    leading modes. Where descending arcs end at a critical point, its index set is written. Rising
    arcs are cut off at twice the largest drop above the point.

    Parameters
    ----------
    arcs
        What `critical_arcs` returns, or the node ``arcs`` of an atlas.
    source
        Index set of the point, such as ``"{0,2}"``; needed if arcs from several points are given.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If these are no arcs, or the source is missing or not among them.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> arcs = dl.critical_arcs(net, net.critical_state((1,)))
    >>> dl.plot.arcs(arcs).get_title()
    'arcs from {1}'
    """
    chosen, label = _from_source(_check("arcs", arcs, "arcs"), source)
    ax = _axes(ax, figsize=(10.0, 5.5))
    for kind, part in _groups(chosen, "kind", schema.ARC_KINDS):
        ax.plot([], [], " ", label=f"{kind} ({part.sizes['arc']})")
        for shape, group in _groups(part, "shape", schema.ARC_SHAPES):
            _draw_group(ax, group, _ARC_COLOURS[kind][shape], _ARC_DASHES.get(shape, "-"))
            name = _ARC_NAMES.get((kind, shape), schema.spoken(shape))
            ax.lines[-1].set_label(f"{name}{_moving_modes(group)}")
    _cut_off(ax, chosen)
    _label_ends(ax, chosen)
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel(_label(chosen["alpha"]))
    ax.set_ylabel(_label(chosen["loss"]))
    ax.set_title(f"arcs from {label}" if label else "no arcs")
    if chosen.sizes["arc"]:
        legend = ax.legend(loc="upper left", bbox_to_anchor=(1.16, 1.02), fontsize=8, frameon=False)
        for text in legend.get_texts():
            text.set_fontweight("bold" if text.get_text().endswith(")") else "normal")
    return ax


def _from_source(arcs: xr.Dataset, source: str | None) -> tuple[xr.Dataset, str]:
    """Return the arcs from one point, and its index set."""
    labels = sorted({str(label) for label in arcs["source"].values}, key=lambda s: (len(s), s))
    if source is None:
        if len(labels) > 1:
            raise ValueError(
                f"source: there are arcs from {len(labels)} points, needs one, as {labels[1]!r}"
            )
        return arcs, "".join(labels)
    if not isinstance(source, str):
        raise TypeError(f"source: needs an index set such as '{{0,2}}', got {source!r}")
    if source not in labels:
        raise ValueError(f"source: no arc starts at {source!r}{nearest(source, labels[:20])}")
    return arcs.isel(arc=np.flatnonzero(arcs["source"].values == source)), source


def _groups(arcs: xr.Dataset, name: str, words: Sequence[str]) -> Iterator[tuple[str, xr.Dataset]]:
    """Return the arcs by the words of a flag, in the order of the words."""
    flags = arcs[name].values
    for number, word in enumerate(words):
        if (flags == number).any():
            yield word, arcs.isel(arc=np.flatnonzero(flags == number))


def _draw_group(ax: "Axes", group: xr.Dataset, colour: str, dashes: Any) -> None:
    """Draw arcs of one kind and shape, those of leading modes darkest and last."""
    from matplotlib.colors import to_rgb

    base, modes = np.array(to_rgb(colour)), group["mode"].values
    _, ranks = np.unique(modes, return_inverse=True)
    for place in np.argsort(-modes, kind="stable"):
        pale = 0.6 * ranks[place] / (int(ranks.max()) + 1)
        shade = tuple((1.0 - pale) * base + pale)
        ax.plot(group["alpha"], group["loss"][place], color=shade, linestyle=dashes, linewidth=1.6)


def _cut_off(ax: "Axes", arcs: xr.Dataset) -> None:
    drop = float(arcs["drop"].max()) if arcs.sizes["arc"] else 0.0
    if drop > 0.0:
        top = float(arcs["loss"][0, 0]) + 2.0 * drop
        ax.set_ylim(top=min(top, ax.get_ylim()[1]))


def _moving_modes(group: xr.Dataset) -> str:
    """Return the modes that move along arcs of one shape, as text for a legend."""
    lost, gained, read = (group[n].values.tolist() for n in ("mode_lost", "mode", "mode_read"))
    if max(gained) < 0:
        return ""
    turned = schema.ARC_SHAPES[int(group["shape"].values[0])].startswith("rotation")
    if turned or max(read) >= 0:
        pairs = [f"{i}→{j}" for i, j in zip(lost if turned else read, gained, strict=True)]
        return ": " + (", ".join(pairs) if len(pairs) <= 4 else f"{len(pairs)} pairs of modes")
    modes = sorted(set(gained))
    return ": " + (", ".join(map(str, modes)) if len(modes) <= 6 else f"{len(modes)} modes")


def _label_ends(ax: "Axes", arcs: xr.Dataset) -> None:
    """Write beside the axes the index sets where descending arcs end."""
    part = arcs.isel(
        arc=np.flatnonzero((arcs["drop"].values > 0.0) & (arcs["target"].values != ""))
    )
    pairs = zip(part["loss"].values[:, -1].tolist(), part["target"].values.tolist(), strict=True)
    ends = sorted(pairs)
    low, high = ax.get_ylim()
    gap = min(0.035, 1.0 / max(len(ends), 1)) * (high - low)
    places = _spread([loss for loss, _ in ends], gap)
    for (loss, target), place in zip(ends, places, strict=True):
        ax.annotate(
            target, (1.0, loss), (1.04, place), xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"), va="center", fontsize=8, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6},
        )  # fmt: skip


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """Return ascending values moved to lie a gap apart, those that are close around their mean."""
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while len(groups) > 1 and _first(groups[-1], gap) - _last(groups[-2], gap) < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_first(group, gap) + k * gap for group in groups for k in range(len(group))]


def _first(group: Sequence[float], gap: float) -> float:
    return float(np.mean(group)) - 0.5 * gap * (len(group) - 1)


def _last(group: Sequence[float], gap: float) -> float:
    return float(np.mean(group)) + 0.5 * gap * (len(group) - 1)


def by_schema(data: xr.Dataset | xr.DataTree, **options: Any) -> "Axes":
    """Draw a Dataset or tree by the function that fits its schema.

    Raises
    ------
    ValueError
        If there is no picture for it.
    """
    functions = {
        "atlas": graph,
        "run": loss,
        "linearization": spectrum,
        "arcs": arcs,
        "branch": branches,
        "diagram": branches,
    }
    kind = getattr(data, "attrs", {}).get("schema")
    if not isinstance(data, xr.Dataset | xr.DataTree) or kind not in functions:
        raise ValueError(f"data: there is no picture for schema {kind!r}{nearest(kind, functions)}")
    return functions[kind](data, **options)  # type: ignore[operator, no-any-return]


def _check_drawn(run: xr.Dataset, name: str, *dims: str) -> None:
    """Refuse a run whose variable is not one over its rows."""
    stacked = tuple(dim for dim in ("sample",) if dim in run.dims)
    rows = next((dim for dim in ("step", "iteration", "time") if dim in run.dims), "time")
    schema.check_content("run", run, {name: (*stacked, rows, *dims)})


def _lines(ax: "Axes", run: xr.Dataset, name: str, **style: Any) -> None:
    clock = "iteration" if "iteration" in run.dims else "time"
    time, values = xr.broadcast(run[clock], run[name])
    members = range(run.sizes["sample"]) if "sample" in run.dims else (None,)
    for member in members:
        pick = {} if member is None else {"sample": member}
        ax.plot(time.isel(pick), values.isel(pick), **style)
    ax.set_xlabel(_label(run[clock]))


def _additions(arcs: xr.Dataset) -> xr.Dataset:
    """Return the arcs that add one mode."""
    shape, kind = (schema.decode(arcs[name]).values for name in ("shape", "kind"))
    return arcs.isel(arc=(shape == "activation") & (kind == "decreasing"))


def _path_labels(points: xr.Dataset) -> list[tuple[str, float, float]]:
    """Return short label, rank and loss of the points of the generic path."""
    labels, ranks, losses = layout.path_labels(points), points["rank"].values, points["loss"].values
    path = np.flatnonzero(layout.generic_path(points))
    return [(labels[i], float(ranks[i]), float(losses[i])) for i in path]
