"""Pictures of runs: the loss, singular values, and what else is observed of them, over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dlnds import schema
from dlnds.arrays import Array, Flags
from dlnds.errors import (
    check_choice,
    check_integer,
    check_integers,
    check_number,
    known_options,
)
from dlnds.plot import canvas, layout

#: The largest number of a mode that has a colour of its own.
_MOST_MODES = 100_000
#: What may count the rows of a run.
_ROWS = ("step", "iteration", "time")
#: What an evaluation may have of other data.
_MEASURES = ("loss", "generalization_error")
#: Colours of the loss on the data of the run, and on others.
_TRAINED, _TESTED = "#d73027", "#4575b4"
#: Colours of what bounds rest on.
_BOUNDS = {
    "partial_products": "#4575b4",
    "ball": "#e08214",
    "margin": "#1b7837",
    "imbalance": "#d73027",
}
_LINESTYLES = ("-", "--", "-.", ":")
#: What is drawn of the tangent kernel, and how; what may grow without bound has an axis of its own.
_KERNEL = {"ntk_distance": "#4575b4", "ntk_alignment": "#1b7837", "ntk_change": "#d73027"}
_DISTANT = "ntk_change"

Dims = tuple[str, ...]


@known_options
def loss(
    run: xr.Dataset,
    *,
    points: xr.Dataset | None = None,
    exact: xr.Dataset | None = None,
    test: xr.Dataset | xr.DataArray | None = None,
    linestyle: str = "--",
    ax: Axes | None = None,
) -> Axes:
    """Draw the loss of a run, or of several, over time, against the critical levels.

    Levels of the generic path are dashed and labelled beside the axes. Where they and the run span
    more than a thousand times, down to the lowest level that is not zero, or the run begins thirty
    times above all levels, the axis is logarithmic, and linear below the lowest.

    Parameters
    ----------
    run
        What `flow` returns.
    points
        What `critical_points` returns: the levels are drawn as lines, those of the sets of leading
        modes with their labels; with weight decay those of minima.
    exact
        Another run, such as that of `exact_flow` or of `flow` beside gradient descent: a thin line
        on the wide one of the run.
    test
        What `evaluate` or `generalization_error` returns for the run, or numbers of yours at its
        rows, a DataArray. If the irreducible part of the loss is known from `evaluate`, what is
        trained has it here as what is tested has.
    linestyle
        That of ``exact``: ``"-"``, ``"--"``, ``"-."`` or ``":"``.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If it is no run, or the others do not fit it.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=1e-2, rng=0))
    >>> dl.plot.loss(run, points=dl.critical_points(net)).get_ylabel()
    'loss $L$'
    """
    runs = _runs(run, exact, "loss", (), "has no loss, since its system has no energy")
    tested, rest = (None, 0.0) if test is None else _test_loss(test, runs[0])
    levels = None if points is None else _levels(points)
    clocks, styles = _clocks(runs), _styles(runs, linestyle)
    ax = canvas.axes(ax, (8.0, 4.5), clocks[0], runs[0]["loss"])
    handles = []
    for one, over, (word, style) in zip(runs, clocks, styles.items(), strict=True):
        lines(ax, over, one["loss"] + rest, color=_TRAINED, **style)
        handles.append(_handle(word, {"color": _TRAINED, **style}))
    if tested is not None:
        style = {"color": _TESTED, "linewidth": 1.8}
        lines(ax, clocks[0], tested, **style)
        handles.append(_handle(canvas.label(tested), style))
    if levels is not None:
        _draw_levels(ax, levels, rest)
    if len(handles) > 1:
        ax.legend(handles=handles, fontsize=9)
    return ax


def _test_loss(test: object, run: xr.Dataset) -> tuple[xr.DataArray, float]:
    """Return the loss on other data at the rows of a run, and what theirs has not of the whole."""
    sizes, rest = run["loss"].sizes, 0.0
    if not isinstance(test, xr.DataArray):
        if not isinstance(test, xr.Dataset):
            raise TypeError(
                "test: needs what `evaluate` or `generalization_error` returns, or a DataArray of "
                f"dims {dict(sizes)}, got {type(test).__name__}"
            )
        data = schema.read("test", test, "evaluation", {})
        test = data[_measure("test", data)]
        if "train_loss" in data.variables and data["train_loss"].sizes == sizes:
            rest = float(np.nanmax(data["train_loss"].values - run["loss"].values))
    if dict(test.sizes) != dict(sizes) or test.dtype.kind not in "iuf":
        raise ValueError(f"test: needs real numbers of dims {dict(sizes)}, got {dict(test.sizes)}")
    return test.transpose(*sizes), rest


def _measure(name: str, data: xr.Dataset) -> str:
    """Return which of its measures an evaluation is drawn by."""
    found = [measure for measure in _MEASURES if measure in data.variables]
    if not found:
        raise ValueError(f"{name}: needs {' or '.join(_MEASURES)}, has neither")
    return found[0]


@known_options
def evaluation(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the loss on other data beside that of training, or the test error, and when it is least.

    As `by_schema` does.
    """
    given = schema.read("data", data, "evaluation", {})
    rows = next((dim for dim in _ROWS if dim in given.dims), "time")
    dims = ("sample", rows) if "sample" in given.dims else (rows,)
    known = {name: dims for name in (*_MEASURES, "train_loss") if name in given.variables}
    data = schema.read("data", given, "evaluation", known, partial=known)
    shown = _measure("data", data)
    over = data["time"] if "best_time" in data.variables else clock(data)
    best = f"best_{over.name}"
    ax = canvas.axes(ax, (8.0, 4.5), over, data[shown])
    handles = []
    for name in known:
        style = {"color": _TRAINED if name == "train_loss" else _TESTED, "linewidth": 1.8}
        lines(ax, over, data[name], **style)
        handles.append(_handle(canvas.label(data[name]), style))
    for when in np.atleast_1d(data[best].values if best in data.variables else []):
        ax.axvline(when, color="0.5", linewidth=0.9, linestyle="--", zorder=0)
    if best in data.variables:
        handles.append(_handle(canvas.label(data[best]), {"color": "0.5", "linestyle": "--"}))
    _legend(ax, handles)
    return ax


@known_options
def convergence(bounds: xr.Dataset, *, show: str = "rate", ax: Axes | None = None) -> Axes:
    """Draw the rate of a run and what it is at least, or the excess loss and what it is at most.

    Of the run the rows whose excess loss is more than its error.

    Parameters
    ----------
    bounds
        What `convergence_bounds` returns.
    show
        ``"rate"`` or ``"excess_loss"``.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If these are no bounds, or none is known and the rate neither.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork((2, 2, 2), [[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial("aligned", scale=[1.2, 0.9]))
    >>> ax = dl.plot.convergence(dl.convergence_bounds(net, run))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['measured', 'partial products', 'ball', 'margin', 'imbalance']
    """
    name = check_choice("show", show, ("rate", "excess_loss"))
    rows = next((dim for dim in _ROWS if dim in getattr(bounds, "dims", ())), "time")
    before = ("sample",) if "sample" in getattr(bounds, "dims", ()) else ()
    least = {"rate": "rate_bound", "excess_loss": "excess_bound"}[name]
    own = dict.fromkeys((name, "excess_loss", "excess_error"), (*before, rows))
    wanted = {**own, least: (*before, "bound", rows), "bound": ("bound",)}
    data = schema.read("bounds", bounds, "convergence_bounds", wanted, partial=wanted)
    exact = data[name].where(data["excess_loss"] > data["excess_error"])
    styles = {"measured": (exact, {"color": "black", "linewidth": 1.8})}
    for bound in data["bound"].values:
        style = {"color": _BOUNDS.get(str(bound), "0.5"), "linewidth": 1.5, "linestyle": "--"}
        styles[str(bound).replace("_", " ")] = (data[least].sel(bound=bound), style)
    shown = {word: pair for word, pair in styles.items() if (pair[0] > 0.0).any()}
    if not shown:
        raise ValueError(f"bounds: {_nothing(data, name)}")
    ax = canvas.axes(ax, (8.0, 4.5), clock(data), data[name])
    for values, style in shown.values():
        lines(ax, clock(data), values.where(values > 0.0), **style)
    ax.set_yscale("log" if name == "excess_loss" else canvas.span(_positive(shown)))
    if name == "excess_loss" and exact.notnull().any():  # bounds go on where the run is inexact
        ax.set_ylim(bottom=float(exact.min()))
    _legend(ax, [_handle(word, style) for word, (_, style) in shown.items()], columns=4)
    return ax


def _nothing(data: xr.Dataset, name: str) -> str:
    """Return why nothing of this name can be drawn."""
    if data["excess_loss"].isnull().all():
        return (
            "the least loss is not known, so that there is neither a rate nor an excess_loss; "
            "dl.plot.loss shows the loss of the run"
        )
    return f"no {name} is above zero and the error of the run; the run is at rest"


def _positive(shown: Mapping[str, tuple[xr.DataArray, Any]]) -> Array:
    """Return all positive numbers that are drawn."""
    values = np.concatenate([values.values.ravel() for values, _ in shown.values()])
    return values[values > 0.0]


class _Levels(NamedTuple):
    """Losses of critical points, their labels, and which of them are labelled."""

    losses: Array
    labels: list[str]
    shown: Flags


def _levels(points: object) -> _Levels:
    """Return the levels of a table: those of the generic path stand out, or minima under decay."""
    if getattr(points, "attrs", {}).get("schema") != "decayed_points":
        table = canvas.node("points", points, "points")
        shown = layout.generic_path(table)
        return _Levels(table["loss"].values, layout.path_labels(table), shown)
    wanted = schema.by_dims("critical_point loss kind (critical_point)")
    table = schema.read("points", points, "decayed_points", wanted)
    minima = schema.decode(table["kind"]).isin(("minimum", "global_minimum"))
    labels = [str(label) for label in table["critical_point"].values]
    return _Levels(table["loss"].values, labels, minima.values)


def _draw_levels(ax: Axes, levels: _Levels, rest: float) -> None:
    """Draw the critical levels, and the labels of those that stand out."""
    losses = levels.losses + rest
    if len(losses) <= 300:
        for level in losses:
            ax.axhline(level, color="0.9", linewidth=0.5, zorder=0)
    rows = np.flatnonzero(levels.shown)
    for level in losses[rows]:
        ax.axhline(level, color="0.45", linewidth=0.8, linestyle="--", zorder=1)
    canvas.scale_levels(ax, losses[rows], float(ax.dataLim.y1))
    canvas.label_heights(ax, losses[rows].tolist(), [levels.labels[row] for row in rows])


@known_options
def singular_values(
    run: xr.Dataset,
    *,
    modes: xr.Dataset | None = None,
    exact: xr.Dataset | None = None,
    linestyle: str = "--",
    ax: Axes | None = None,
) -> Axes:
    """Draw the singular values of the end-to-end map of a run over time.

    Parameters
    ----------
    run
        A run that saved ``singular_value``.
    modes
        The modes of the network, ``net.modes``: drawn as lines are the singular values of the map
        that has learnt those that the network can hold. For whitened inputs these are the target's.
    exact
        Another run with them, such as that of `exact_flow`: thin lines on the wide ones of the run,
        in the same colours.
    linestyle
        That of ``exact``: ``"-"``, ``"--"``, ``"-."`` or ``":"``.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If the run has no singular values.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=1e-2, rng=0), save=["singular_value"])
    >>> dl.plot.singular_values(run, modes=net.modes).get_xlabel()
    'time $t$'
    """
    lacks = "has no singular values; use flow(..., save=['singular_value'])"
    runs = _runs(run, exact, "singular_value", ("mode",), lacks)
    clocks, styles = _clocks(runs), _styles(runs, linestyle)
    drawn = [_modes(word, one) for word, one in zip(styles, runs, strict=True)]
    shown = set().union(*drawn)
    levels = np.zeros(0) if modes is None else _learnt_values(modes)
    ax = canvas.axes(ax, (8.0, 4.5), clocks[0], runs[0]["singular_value"])
    colours = canvas.mode_colours(max(shown) + 1)
    for mode, value in enumerate(levels):
        if mode in shown:
            ax.axhline(value, color=colours(mode), linewidth=0.8, linestyle="--")
    for one, own, over, style in zip(runs, drawn, clocks, styles.values(), strict=True):
        for place, mode in enumerate(own):
            values = one["singular_value"].isel(mode=place)
            lines(ax, over, values, color=colours(mode), **style)
    if len(runs) > 1:
        _legend(ax, [_handle(word, {"color": "0.3", **style}) for word, style in styles.items()])
    canvas.bar(ax, canvas.mode_scale(max(shown) + 1), canvas.label(runs[0]["mode"]))
    return ax


def _modes(name: str, run: xr.Dataset) -> list[int]:
    """Return the numbers of the modes that a run has."""
    return [*check_integers(name, run["mode"].values, minimum=0, maximum=_MOST_MODES)]


def _learnt_values(modes: xr.Dataset) -> Array:
    """Return the singular values of the end-to-end map that has learnt its modes.

    That of raw inputs reads them through K, and the singular values of W K are not its own.
    """
    modes = schema.read("modes", modes, "modes", {"singular_value": ("mode",)})
    sigma: Array = modes["singular_value"].values
    if modes.attrs.get("whitened", 1):
        return sigma
    needed = {"left": ("output", "mode"), "reading": ("feature", "mode")}
    modes = schema.read("modes", modes, "modes", needed, attributes=["widths"])
    count = min(*modes.attrs["widths"], sigma.size)
    left, reading = (modes[name].values[:, :count] for name in ("left", "reading"))
    return np.linalg.svd((left * sigma[:count]) @ reading.T, compute_uv=False)


@known_options
def alignment(run: xr.Dataset, *, level: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw how far the singular vectors of neighbouring layers, and of the target, are aligned.

    A colour for each mode and a style for each level of units; lightly, the loss as a part of that
    at the start. What is aligned while the loss has not moved yet is aligned silently.

    Parameters
    ----------
    run
        A run with ``alignment``, from ``save=`` of `flow` or from `observe`. Of many modes choose
        some: ``run.isel(mode=[0, 1])``.
    level
        Draw this level only, in full lines: 0 for what the first layer reads of the target, h for
        what the last one writes, and between them those of hidden units. ``None`` draws all.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If the run has no alignment, or no such level.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=1e-2, rng=0), save=["loss", "alignment"])
    >>> [text.get_text() for text in dl.plot.alignment(run).get_legend().get_texts()[:3]]
    ['target, $W_{1}$', '$W_{1}$, $W_{2}$', '$W_{2}$, target']
    """
    lacks = "has no alignment; use dl.observe(net, run, 'alignment')"
    wanted = {"alignment": ("level", "mode")}
    run = of_run("run", run, wanted, lacks, optional={"loss": ()})
    last = run.sizes["level"] - 1
    if level is not None:
        level = check_integer("level", level, minimum=0, maximum=last)
    levels = range(last + 1) if level is None else [level]
    modes = _modes("run", run)
    ax = canvas.axes(ax, (9.0, 5.0), clock(run), run["alignment"])
    colours, handles = canvas.mode_colours(max(modes) + 1), []
    for number in levels:
        style = _level_style(number, last) if level is None else "-"
        for place, mode in enumerate(modes):
            values = run["alignment"].isel(level=number, mode=place)
            lines(ax, clock(run), values, color=colours(mode), linewidth=1.5, linestyle=style)
        grey: dict[str, Any] = {"color": "0.3", "linewidth": 1.5, "linestyle": style}
        handles.append(_handle(_level_text(number, last), grey))
    if "loss" in run.variables:
        handles.append(_draw_relative_loss(ax, run))
    _legend(ax, handles)
    canvas.bar(ax, canvas.mode_scale(max(modes) + 1), canvas.label(run["mode"]))
    return ax


def _level_style(level: int, last: int) -> Any:
    """Return the line of a level: dotted and full at the ends, the more dots the later between."""
    if level in (0, last):
        return "-" if level else ":"
    return (0, (6.0, 2.0, *((1.0, 2.0) * (level - 1))))


def _level_text(level: int, last: int) -> str:
    """Return whose singular vectors are compared on a level."""
    before, after = (f"$W_{{{number}}}$" for number in (level, level + 1))
    return f"{before if level else 'target'}, {after if level < last else 'target'}"


def _draw_relative_loss(ax: Axes, run: xr.Dataset) -> Line2D:
    """Draw the loss over that at the start behind all else; return its line for the legend."""
    losses, style = run["loss"], {"color": "0.8", "linewidth": 4.0, "zorder": 0}
    start = losses.isel({losses.dims[-1]: 0})
    lines(ax, clock(run), losses / start.where(start != 0.0), **style)
    return _handle(f"{canvas.label(losses)}, part of that at the start", style)


@known_options
def ntk(run: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw how far the tangent kernel of a run moves, and how well it fits the targets.

    What the run has of ``ntk_distance``, ``ntk_alignment`` and ``ntk_change``; the last, which may
    be large, has the axis on the right if it is not alone.

    Parameters
    ----------
    run
        A run with them, from ``save=`` of `flow` or from `observe`.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If the run has none of them.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial(scale=1e-2, rng=0), save=["ntk_distance"])
    >>> dl.plot.ntk(run).get_ylabel()[:45]
    'distance of the tangent kernel from the start'
    """
    names = [name for name in _KERNEL if name in getattr(run, "variables", ())] or [*_KERNEL][:1]
    lacks = "has nothing of the tangent kernel; use dl.observe(net, run, ['ntk_distance'])"
    run = of_run("run", run, dict.fromkeys(names, ()), lacks)
    change = run[_DISTANT] if _DISTANT in names else None
    bounded = [name for name in names if name != _DISTANT]
    label = run[(bounded or names)[0]] if len(bounded) < 2 else "of the tangent kernel $K$"
    ax = canvas.axes(ax, (8.5, 4.5), clock(run), label)
    other, handles = ax, []
    if change is not None and bounded:
        other = ax.twinx()
        other.set_ylabel(canvas.label(change), color=_KERNEL[_DISTANT])
        ax.set_zorder(other.get_zorder() + 1)  # with its legend above all lines
        ax.patch.set_visible(False)
    for name in names:
        style = {"color": _KERNEL[name], "linewidth": 1.8}
        lines(other if name == _DISTANT else ax, clock(run), run[name], **style)
        handles.append(_handle(canvas.label(run[name]), style))
    if change is not None:
        other.set_yscale(canvas.span(change.values[change.values > 0.0]))
    if len(names) > 1:
        _legend(ax, handles, columns=1)  # long names
    return ax


@known_options
def sharpness(run: xr.Dataset, *, step_size: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw the largest eigenvalue of the Hessian along a run, for gradient descent against 2/η.

    Parameters
    ----------
    run
        A run with ``sharpness``, from ``save=`` of `flow` or `iterate`, or from `observe`.
    step_size
        η; ``None`` takes what the run says of itself, which is that of gradient descent.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If the run has no sharpness, or the step size is not positive.

    Notes
    -----
    Gradient descent moves away from minima whose sharpness is above 2/η.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> descent, start = dl.GradientDescent(net, 0.1), net.initial(scale=0.1, rng=0)
    >>> run = dl.iterate(descent, start, n_steps=100, save=["sharpness"])
    >>> dl.plot.sharpness(run).get_legend().get_texts()[0].get_text()[-4:]
    '= 20'
    """
    lacks = "has no sharpness; use dl.observe(net, run, 'sharpness')"
    run = of_run("run", run, {"sharpness": ()}, lacks)
    size = run.attrs.get("step_size") if step_size is None else step_size
    ax = canvas.axes(ax, (8.0, 4.5), clock(run), run["sharpness"])
    if size is not None:
        size = check_number("run" if step_size is None else "step_size", size)
        if size <= 0.0:
            raise ValueError(f"step_size: needs a positive number, got {size}")
        label = rf"$2/\eta$ = {2.0 / size:.4g}"
        ax.axhline(2.0 / size, color="black", linewidth=1.2, linestyle="--", label=label)
    lines(ax, clock(run), run["sharpness"], color="#4575b4", linewidth=1.8)
    if size is not None:
        ax.legend(fontsize=9)
    return ax


def of_run(
    name: str,
    run: Any,
    needed: Mapping[str, Dims],
    lacks: str,
    *,
    optional: Mapping[str, Dims] | None = None,
) -> xr.Dataset:
    """Return a run with some of its variables over its rows, or over those of several.

    Modes may be some of all.
    """
    run = run.to_dataset() if isinstance(run, xr.DataTree) else run
    sizes = getattr(run, "dims", ())
    rows = next((dim for dim in _ROWS if dim in sizes), "time")
    before = ("sample", rows) if "sample" in sizes else (rows,)
    wanted = {key: (*before, *dims) for key, dims in needed.items()}
    more = {key: (*before, *dims) for key, dims in (optional or {}).items()}
    if rows == "step":
        wanted["time"] = before
    if rows == "iteration":
        more["time"] = (rows,)
    if getattr(run, "attrs", {}).get("schema") == "run" and not needed.keys() <= {*run.variables}:
        raise ValueError(f"{name}: {lacks}")
    numbers = {"mode": run["mode"]} if "mode" in sizes else {}
    plain = run.drop_vars("mode", errors="ignore") if numbers else run
    known = schema.read(
        name, plain, "run", wanted, optional=more, partial=wanted.keys() | more.keys()
    )
    return known.assign_coords(numbers)


def _runs(run: Any, exact: Any, name: str, dims: Dims, lacks: str) -> list[xr.Dataset]:
    """Return a run, and the other one that is laid on it if there is one, with a variable."""
    given = {"run": run} if exact is None else {"run": run, "exact": exact}
    return [of_run(word, one, {name: dims}, lacks) for word, one in given.items()]


def _styles(runs: Sequence[xr.Dataset], linestyle: str) -> dict[str, dict[str, Any]]:
    """Return how a run is drawn alone, or wide under a thin other one."""
    linestyle = check_choice("linestyle", linestyle, _LINESTYLES)
    if len(runs) == 1:
        return {"run": {"linewidth": 1.8}}
    wide = {"linewidth": 5.0, "alpha": 0.35, "solid_capstyle": "butt"}
    return {"run": wide, "exact": {"linewidth": 1.6, "linestyle": linestyle}}


def clock(run: xr.Dataset) -> xr.DataArray:
    """Return what a run is drawn over."""
    return run["iteration" if "iteration" in run.dims else "time"]


def _clocks(runs: Sequence[xr.Dataset]) -> list[xr.DataArray]:
    """Return what runs are drawn over together: iterations if all count these, else the time."""
    own = [clock(run) for run in runs]
    if len({str(one.name) for one in own}) == 1:
        return own
    if not all("time" in run.variables for run in runs):
        raise ValueError("exact: needs the clock of the run, of which one has no time")
    return [run["time"] for run in runs]


def lines(ax: Axes, x: xr.DataArray, y: xr.DataArray, **style: Any) -> None:
    """Draw one variable over another, which may have fewer dims; a line for each of several."""
    rows = x.dims[-1]
    x, y = xr.broadcast(x, y)
    columns = (a.transpose(rows, ...).values.reshape(a.sizes[rows], -1) for a in (x, y))
    for one, other in zip(*(c.T for c in columns), strict=True):
        ax.plot(one, other, **style)


def _handle(label: str, style: Mapping[str, Any]) -> Line2D:
    return Line2D([], [], label=label, **style)


def _legend(ax: Axes, handles: Sequence[Line2D], columns: int = 3) -> None:
    """Put a legend above the axes, where nothing is drawn."""
    place: Any = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "frameon": False}
    ax.legend(handles=handles, ncols=min(columns, len(handles)), fontsize=8, **place)
