"""Pictures of one variable against others: arcs, sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, to_rgb

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_choice, known_options, nearest
from dlnds.plot import canvas

#: Up to so many values of a grid each has a tick.
_MOST_TICKS = 10
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


@known_options
def heatmap(
    sweep: xr.Dataset,
    *,
    value: str | None = None,
    x: str | None = None,
    sel: Mapping[str, Any] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what a sweep computed over its grid: colours over two dims, a curve over one.

    Axes are logarithmic where the values of the grid are geometrically spaced, colours where
    numbers are positive and span more than a thousand times. Points that did not finish stay grey.

    Parameters
    ----------
    sweep
        What `sweep` or `collect` returns.
    value
        The variable to draw; if none is named the first one with a number for each point.
    x
        The dim along the horizontal axis, else the first one.
    sel
        The values of other dims to draw it at, such as ``{"depth": 3}``; values that are not on the
        grid are refused.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If it is no sweep, there is no such variable or value, or more than two dims are left.

    Examples
    --------
    >>> import tempfile, dlnds as dl
    >>> def task(base, power, rng):
    ...     return xr.Dataset({"result": base**power})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     grid = {"base": [1.0, 10.0, 100.0], "power": [1.0, 2.0]}
    ...     ax = dl.plot.heatmap(dl.sweep(task, grid, folder))
    >>> ax.get_xlabel(), ax.get_xscale(), ax.get_yscale()
    ('base', 'log', 'linear')
    """
    dims = [str(dim) for dim in getattr(getattr(sweep, "status", None), "dims", ())]
    data = schema.read("sweep", sweep, "sweep", {"status": dims})
    drawn = _selected(_computed(data, value), sel)
    if x is not None and check_choice("x", x, map(str, drawn.dims)):
        drawn = drawn.transpose(x, ...)
    if drawn.ndim not in (1, 2):
        raise ValueError(
            f"sel: {drawn.name!r} has the dims {drawn.dims}, needs a value of each but one or two"
        )
    first, second = drawn.dims[0], drawn.dims[-1]
    ax = canvas.axes(ax, (7.0, 5.0), data[first], drawn if drawn.ndim == 1 else data[second])
    _draw_values(ax, drawn)
    failed, total = int((data["status"].values != 0).sum()), data["status"].size
    ax.set_title(f"{failed:,} of {total:,} points did not finish" if failed else "")
    return ax


def _computed(data: xr.Dataset, value: str | None) -> xr.DataArray:
    """Return the variable of this name, or the first with a number for each point of the grid."""
    numbers = {str(k): v for k, v in data.data_vars.items() if v.dtype.kind in "biuf"}
    if value is not None:
        return numbers[check_choice("value", value, numbers)]
    grid = {*data["status"].dims}
    whole = [name for name, variable in numbers.items() if grid <= {*variable.dims}]
    return numbers[min(whole, key=lambda name: (name == "status", numbers[name].ndim))]


def _selected(variable: xr.DataArray, sel: Mapping[str, Any] | None) -> xr.DataArray:
    """Return a variable at these values of some of its dims."""
    if not isinstance(sel, Mapping | None):
        raise TypeError(f"sel: needs names of dims with their values, got {sel!r}")
    for dim, at in (sel or {}).items():
        check_choice("sel", dim, map(str, variable.dims))
        known = variable[dim].values
        same = known == at
        if known.dtype.kind in "biuf" and isinstance(at, int | float | np.number):
            same = np.isclose(known, float(at), rtol=1e-9, atol=0.0)
        rows = np.flatnonzero(same) if np.ndim(at) == 0 else np.zeros(0, np.intp)
        if len(rows) != 1:
            raise ValueError(f"sel: {dim!r} has no {at!r}{nearest(at, known[:20].tolist())}")
        variable = variable.isel({dim: rows[0]})
    return variable


def _draw_values(ax: Axes, drawn: xr.DataArray) -> None:
    """Draw a variable over its one or two dims."""
    words = str(drawn.attrs.get("flag_meanings", "")).split()
    for dim in drawn.dims:
        if drawn[dim].dtype.kind in "biuf":
            drawn = drawn.sortby(dim)
    places = [_places(drawn[dim]) for dim in drawn.dims]
    if drawn.ndim == 1:
        ax.plot(places[0][0], drawn.values, "o-", color="#4575b4")
        if words:
            ax.set_yticks(range(len(words)), [schema.spoken(word) for word in words])
        else:
            ax.set_yscale(canvas.span(drawn.values))
    else:
        values = drawn.values.T.astype(np.float64)
        known = values[np.isfinite(values)]
        ends = (known.min(), known.max()) if known.size else (0.0, 1.0)
        norm = LogNorm(*ends) if canvas.span(values) == "log" else Normalize(*ends)
        colours: Any = canvas.mode_scale(len(words)) if words else ScalarMappable(norm, "viridis")
        corners = [_corners(at, scale) for at, scale in places]
        ax.pcolormesh(*corners, values, norm=colours.norm, cmap=colours.cmap)
        ax.set_facecolor("0.85")
        canvas.bar(ax, colours, canvas.label(drawn), [schema.spoken(word) for word in words])
    sides = ((ax.xaxis, ax.set_xscale), (ax.yaxis, ax.set_yscale))
    for (axis, rescale), dim, (at, scale) in zip(sides, drawn.dims, places, strict=False):
        if _is_measured(drawn[dim]):
            rescale(scale)
            if scale == "linear" and len(at) <= _MOST_TICKS:
                axis.set_ticks(at)
        else:
            axis.set_ticks(at, labels=[str(label) for label in drawn[dim].values])


def _places(coordinate: xr.DataArray) -> tuple[Array, str]:
    """Return where values of the grid stand, and the scale of their axis by their spacing."""
    if not _is_measured(coordinate):
        return np.arange(coordinate.size, dtype=np.float64), "linear"
    at = coordinate.values.astype(np.float64)
    if at.min() <= 0.0 or at.size < 3:
        return at, canvas.span(at)
    steps, ratios = _unevenness(at), _unevenness(np.log(at))
    if min(steps, ratios) > 1e-3:
        return at, canvas.span(at)
    return at, "log" if ratios < steps else "linear"


def _is_measured(coordinate: xr.DataArray) -> bool:
    """Tell whether values of the grid are places on an axis, and not names or infinite."""
    return coordinate.dtype.kind in "biuf" and bool(np.isfinite(coordinate.values).all())


def _unevenness(at: Array) -> float:
    """Return by how much steps differ, in terms of the largest."""
    steps = np.abs(np.diff(at))
    return float(np.ptp(steps) / steps.max())


def _corners(at: Array, scale: str) -> Array:
    """Return the ends of cells around ascending places, midway on the scale of the axis."""
    along = np.log(at) if scale == "log" else at
    half = 0.5 * np.diff(along) if at.size > 1 else np.array([0.5])
    ends = np.append(along[0] - half[0], along + np.append(half, half[-1])[: at.size])
    return np.exp(ends) if scale == "log" else ends


@known_options
def arcs(
    arcs: xr.Dataset | xr.DataTree, *, source: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the loss along all arcs from one critical point.

    The legend lists by kind what moves along them, with the modes j or i→j; darker lines are of
    leading modes. Where descending arcs end at a critical point, its index set is written. Rising
    arcs are cut off at twice the largest drop above the point. Where drops span more than a
    thousand times, the change of the loss is drawn in its place, logarithmic on both sides of the
    smallest; where the ends do, the loss on a logarithmic axis.

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
    ValueError, TypeError
        If these are no arcs, or the source is missing or not among them.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> arcs = dl.critical_arcs(net, net.critical_state((1,)))
    >>> dl.plot.arcs(arcs).get_title()
    'arcs from {1}'
    """
    moving = schema.by_dims("mode_lost mode_read (arc)")
    arcs = schema.read("arcs", canvas.node("arcs", arcs, "arcs"), "arcs", moving, empty=("arc",))
    chosen, label = _from_source(arcs, source)
    falls = chosen["drop"].values > 0.0
    drops, ends = chosen["drop"].values[falls], chosen["loss"].values[falls][:, [0, -1]]
    if is_wide := canvas.span(drops) == "log":
        chosen = _as_changes(chosen)
    ax = canvas.axes(ax, (10.0, 5.5), chosen["alpha"], chosen["loss"])
    canvas.scale_levels(ax, drops if is_wide else ends)
    for kind, part in _groups(chosen, "kind", schema.ARC_KINDS):
        ax.plot([], [], " ", label=f"{kind} ({part.sizes['arc']})")
        for shape, group in _groups(part, "shape", schema.ARC_SHAPES):
            _draw_group(ax, group, _ARC_COLOURS[kind][shape], _ARC_DASHES.get(shape, "-"))
            name = _ARC_NAMES.get((kind, shape), schema.spoken(shape))
            ax.lines[-1].set_label(f"{name}{_moving_modes(group)}")
    if drops.size:
        top = float(chosen["loss"][0, 0]) + 2.0 * drops.max()
        ax.set_ylim(top=min(top, ax.get_ylim()[1]))
    _label_ends(ax, chosen)
    ax.set_xlim(0.0, 1.0)
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


def _as_changes(arcs: xr.Dataset) -> xr.Dataset:
    """Return arcs with the change of the loss in place of the loss."""
    loss = arcs["loss"].transpose("arc", "alpha")
    words = {"long_name": "change of the loss", "symbol": r"$L - L(0)$"}
    return arcs.assign(loss=(loss - loss.isel(alpha=0)).assign_attrs(words))


def _groups(arcs: xr.Dataset, name: str, words: Sequence[str]) -> Iterator[tuple[str, xr.Dataset]]:
    """Return the arcs by the words of a flag, in the order of the words."""
    flags = arcs[name].values
    for number, word in enumerate(words):
        if (flags == number).any():
            yield word, arcs.isel(arc=np.flatnonzero(flags == number))


def _draw_group(ax: Axes, group: xr.Dataset, colour: str, dashes: Any) -> None:
    """Draw arcs of one kind and shape, those of leading modes darkest and last."""
    base, modes = np.array(to_rgb(colour)), group["mode"].values
    _, ranks = np.unique(modes, return_inverse=True)
    for place in np.argsort(-modes, kind="stable"):
        pale = 0.6 * ranks[place] / (int(ranks.max()) + 1)
        shade = tuple((1.0 - pale) * base + pale)
        ax.plot(group["alpha"], group["loss"][place], color=shade, linestyle=dashes, linewidth=1.6)


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


def _label_ends(ax: Axes, arcs: xr.Dataset) -> None:
    """Write beside the axes the index sets where descending arcs end."""
    rows = (arcs["drop"].values > 0.0) & (arcs["target"].values != "")
    losses, targets = arcs["loss"].values[rows, -1], arcs["target"].values[rows]
    canvas.label_heights(ax, losses.tolist(), targets.tolist())
