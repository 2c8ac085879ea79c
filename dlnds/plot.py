"""Pictures of Datasets. Every function draws into ``ax``, or into new axes, and returns them."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dlnds import layout, schema
from dlnds.canvas import KIND_STYLE as _KIND_STYLE
from dlnds.canvas import axes as _axes
from dlnds.canvas import check as _check
from dlnds.canvas import label as _label
from dlnds.canvas import mode_bar as _mode_bar
from dlnds.canvas import mode_colours as _mode_colours
from dlnds.canvas import mode_norm as _mode_norm
from dlnds.errors import known_options, nearest
from dlnds.graph_plot import graph as graph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CURVES = 5000


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
    _check("atlas", atlas, "atlas")
    from matplotlib.collections import LineCollection

    ax = _axes(ax, figsize=(9.0, 6.0))
    points, arcs = atlas["points"].to_dataset(), atlas["arcs"].to_dataset()
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
    _check("run", run, "run")
    if "loss" not in run:
        raise ValueError("run: has no loss, since its system has no energy")
    ax = _axes(ax, figsize=(8.0, 4.5))
    if points is not None:
        _check("points", points, "critical_points")
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
    _check("run", run, "run")
    if "singular_value" not in run:
        raise ValueError("run: has no singular values; use flow(..., save=['singular_value'])")
    ax = _axes(ax, figsize=(8.0, 4.5))
    count = run.sizes["mode"]
    colours = _mode_colours(count)
    if modes is not None:
        if "singular_value" not in getattr(modes, "variables", ()):
            raise ValueError("modes: needs a Dataset with singular_value, such as net.modes")
        for mode, value in enumerate(modes["singular_value"].values):
            ax.axhline(value, color=colours(mode), linewidth=0.8, linestyle="--")
    for mode in range(count):
        _lines(ax, run.isel(mode=mode), "singular_value", color=colours(mode), linewidth=1.8)
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
    _check("linearization", linearization, "linearization")
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
    counts = [name for name in ("index", "nullity") if name in linearization]
    ax.set_title(", ".join(f"{name} {int(linearization[name])}" for name in counts))
    return ax


def by_schema(data: xr.Dataset | xr.DataTree, **options: Any) -> "Axes":
    """Draw a Dataset or tree by the function that fits its schema.

    Raises
    ------
    ValueError
        If there is no picture for it.
    """
    functions = {"atlas": graph, "run": loss, "linearization": spectrum}
    kind = data.attrs.get("schema")
    if kind not in functions:
        raise ValueError(f"data: there is no picture for schema {kind!r}{nearest(kind, functions)}")
    return functions[kind](data, **options)  # type: ignore[operator, no-any-return]


def _lines(ax: "Axes", run: xr.Dataset, name: str, **style: Any) -> None:
    clock = "iteration" if "iteration" in run.dims else "time"
    time, values = xr.broadcast(run[clock], run[name])
    members = range(run.sizes["sample"]) if "sample" in run.dims else (None,)
    for member in members:
        pick = {} if member is None else {"sample": member}
        ax.plot(time.isel(pick), values.isel(pick), **style)
    ax.set_xlabel(_label(run[clock]))


def _path_labels(points: xr.Dataset) -> list[tuple[str, float, float]]:
    """Return short label, rank and loss of the points of the generic path."""
    labels, ranks, losses = layout.path_labels(points), points["rank"].values, points["loss"].values
    path = np.flatnonzero(layout.generic_path(points))
    return [(labels[i], float(ranks[i]), float(losses[i])) for i in path]
