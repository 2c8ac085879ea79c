"""Pictures over time and of lists of numbers, and which picture a Dataset has by its schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dlnds import schema
from dlnds.errors import known_options, nearest
from dlnds.plot import canvas, layout
from dlnds.plot.bifurcations import branches
from dlnds.plot.decay import decay_diagram
from dlnds.plot.diagrams import arcs, heatmap
from dlnds.plot.landscape import connections, critical_points, graph
from dlnds.plot.runs import convergence, evaluation, lines, loss, of_run

#: Of more lines or bars none are named, or the last are left out.
_MOST_NAMES = 12
_MOST_BARS = 30
#: Rows of longer curves are not marked.
_MOST_DOTS = 50
#: Plateaus of visits that are so much shorter than others need the logarithm of time.
_UNEVEN = 100.0
#: Of a last visit that lasts longer than all before, how much is drawn in terms of these.
_CUT = 0.3
#: Eigenvalues that are so much smaller than others look like zero.
_FLAT = 30.0
#: Schemas of which one variable is drawn over another.
_CURVES = {
    "run": ("time", "state"),  # if it has no loss
    "arc_path": ("alpha", "loss"),
    "edge_path": ("point", "loss"),
    "fibres": ("elapsed_time", "loss"),
    "quotient_run": ("time", "orbit_distance"),
    "lyapunov_function": ("time", "value"),
    "path_comparison": ("time", "distance"),
    "critical_point": ("iteration", "residual"),
    "chain": ("iteration", "loss"),
}
#: Those whose numbers go to zero.
_DECAYING = ("lyapunov_function", "path_comparison", "critical_point")
#: Schemas of which a list of numbers is drawn: dim, numbers, and what is written at each.
_STEMS = {
    "modes": ("mode", "singular_value", "", ""),
    "manifold": ("direction", "rate", "order", "order {}"),
    "early_stopping": ("mode", "optimal_strength", "stopping_time", "t = {:.3g}"),
}
#: Schemas without a picture, and where to look instead.
_NO_PICTURE = {
    "classification": "print it, or draw all points with plot.graph(build_atlas(net))",
    "decayed_points": "draw plot.decay_diagram, or plot.loss of a run with points=",
    "canonical_form": "look at 'group_element' and 'residual', or draw linearize(net, x)",
    "fiber": "look at 'fiber_dimension' and 'nullity', or draw linearize(net, x)",
    "orbit": "look at 'orbit_dimension' and 'isotropy', or draw linearize(net, x)",
    "tangent": "look at 'vertical' and 'horizontal'",
    "conservation_laws": "look at 'count' and 'known'",
    "fiber_components": "look at 'count' and 'orientation'",
    "fiber_orientation": "look at 'orientation'",
    "fiber_path": "the loss does not change; draw numbers of 'state' over 'point'",
    "fiber_line": "look at 'tangent'",
    "flattest_minimum": "draw linearize(net, minimum.state)",
    "learning_coefficient": "look at 'learning_coefficient' and 'order'",
    "inertia": "look at 'index' and 'nullity', or draw linearize(system, x)",
    "assumptions": "look at 'holds'",
    "zero_preserving": "look at 'kept' and 'unit_zero'",
}


@known_options
def spectrum(linearization: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the eigenvalues of a linearization: ascending, or in the complex plane.

    Those of a gradient flow that count as zero are grey. Where the others differ by more than
    thirty times, the axis is logarithmic on both sides, and linear up to the smallest of them.

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
    ValueError, TypeError
        If it is no linearization.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> dl.plot.spectrum(dl.canonical_spectrum(net, (1,))).get_title()
    'index 3, nullity 5'
    """
    kind, needed = "linearization", schema.REQUIRED["linearization"]
    others = schema.by_dims("eigenvalue_imag (eigen) index nullity ()")
    data = schema.read(kind, linearization, kind, needed, optional=others, empty=("eigen",))
    counts = [name for name in ("index", "nullity") if name in data.variables]
    values = data["eigenvalue"].values
    if "eigenvalue_imag" in data.variables:
        real = r"real part $\mathrm{Re}\,\lambda$"
        ax = canvas.axes(ax, (6.0, 4.0), real, data["eigenvalue_imag"])
        ax.axvline(0.0, color="0.6", linewidth=0.8)
        ax.plot(values, data["eigenvalue_imag"].values, ".", color="#4575b4")
    else:
        ax = canvas.axes(ax, (6.0, 4.0), "number of the eigenvalue", data["eigenvalue"])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.axhline(0.0, color="0.6", linewidth=0.8)
        ax.plot(np.arange(values.size), values, ".", color="#4575b4")
        _draw_zeros(ax, data)
    ax.set_title(", ".join(f"{name} {int(data[name])}" for name in counts))
    return ax


def _draw_zeros(ax: Axes, data: xr.Dataset) -> None:
    """Grey what counts as zero of a real spectrum, and scale its axis for what does not."""
    limit = max(float(data.attrs.get(name, 0.0)) for name in ("zero_tolerance", "largest_zero"))
    values = data["eigenvalue"].values
    zero = np.abs(values) <= limit
    ax.plot(np.flatnonzero(zero), values[zero], ".", color="0.65")
    sizes = np.abs(values[~zero])
    if sizes.size and sizes.max() > _FLAT * sizes.min():
        ax.set_yscale("symlog", linthresh=float(sizes.min()))


@known_options
def visits(visits: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw when and how long a run rests at which saddle: a plateau for each visit.

    Each plateau stands at the rank of its index set, which is written above it, and its duration
    below. Where durations differ by more than a hundred times, the logarithm of time is drawn. Of a
    last visit that is longer than all before the picture shows the beginning.

    Parameters
    ----------
    visits
        What `saddle_visits` returns.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If these are no visits.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[3.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial("aligned", scale=1e-3))
    >>> [text.get_text() for text in dl.plot.visits(dl.saddle_visits(net, run)).texts[::2]]
    ['{}', '{0}', '{0,1}']
    """
    wanted = schema.by_dims("critical_point entry exit duration (visit)")
    data = schema.read("visits", visits, "visits", wanted, empty=("visit",))
    ax = canvas.axes(ax, (9.0, 4.5), "time $t$", "rank $r$")
    if not data.sizes["visit"]:
        ax.set_title("no visits")
        return ax
    entry, leave, duration = (data[name].values.copy() for name in ("entry", "exit", "duration"))
    labels = [str(label) for label in data["critical_point"].values]
    modes = [schema.index_set_modes(label) for label in labels]
    ranks = np.array([len(own) for own in modes])
    for row, own in enumerate(modes):
        if labels[row] == schema.index_set_label(range(len(own))):
            labels[row] = layout.short_label(labels[row], len(own))
    is_wide = leave[0] > 0.0 and canvas.span(duration[:-1], _UNEVEN) == "log"
    is_cut = not is_wide and duration[-1] > entry[-1] > 0.0
    if is_cut:
        leave[-1] = (1.0 + _CUT) * entry[-1]
    middle = 0.5 * (entry + leave)
    if is_wide:
        ax.set_xscale("log")
        entry = np.maximum(entry, 0.1 * leave[0])
        middle = np.sqrt(entry * leave)
    places = np.stack([entry, leave], axis=1)
    ax.plot(places.ravel(), np.repeat(ranks, 2), color="0.75", linewidth=1.0, zorder=1)
    colours = canvas.mode_colours(int(ranks.max()) + 1)
    for (begin, end), rank in zip(places, ranks, strict=True):
        ax.plot([begin, end], [rank, rank], color=colours(rank), linewidth=5.0)
    style: Any = {"textcoords": "offset points", "ha": "center"}
    for x, y, label, time in zip(middle, ranks, labels, duration, strict=True):
        ax.annotate(label, (x, y), (0, 6), va="bottom", fontsize=9, **style)
        ax.annotate(f"{time:.3g}", (x, y), (0, -6), va="top", fontsize=7, color="0.4", **style)
    ax.set_yticks(range(int(ranks.max()) + 1))
    ax.margins(0.04, 0.15)
    if is_cut:  # its plateau goes on beyond the frame
        ax.set_xlim(right=leave[-1])
    return ax


@known_options
def escape_chain(chain: xr.DataTree, *, ax: Axes | None = None) -> Axes:
    """Draw the loss along a chain of limiting paths, from saddle to saddle.

    Each path is drawn over the part of its length that is travelled. At each saddle stands how many
    hidden units have weights, and the order in which it is left.

    Parameters
    ----------
    chain
        What `escape_chain` returns.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If it is no such chain.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2, 2), target=np.diag([2.0, 1.0]))
    >>> ax = dl.plot.escape_chain(dl.escape_chain(net, n_starts=5))
    >>> [text.get_text() for text in ax.texts]
    ['0 units, order 3', '2 units, order 3', '4 units']
    """
    wanted = schema.by_dims("loss n_active order (saddle)")
    saddles = schema.read("chain", chain, "escape_chain", wanted)
    ax = canvas.axes(ax, (9.0, 4.5), "saddle, and part of the way to the next", saddles["loss"])
    along = schema.by_dims("state (time, parameter) loss (time)")
    for number, node in enumerate(getattr(chain, "children", {}).values()):
        path = schema.read("chain", node, "run", along)
        steps = np.linalg.norm(np.diff(path["state"].values, axis=0), axis=1)
        travelled = np.append(0.0, np.cumsum(steps))
        x = number + travelled / (travelled[-1] or 1.0)
        ax.plot(x, path["loss"].values, color="#d73027", linewidth=1.8)
    losses = saddles["loss"].values
    ax.plot(np.arange(len(losses)), losses, "o", color="#4575b4", zorder=3)
    rows = zip(losses, saddles["n_active"].values, saddles["order"].values, strict=True)
    for number, (level, units, order) in enumerate(rows):
        left = f", order {order}" if order else ""
        text = f"{units} unit{'' if units == 1 else 's'}{left}"
        # Paths come from the left above and go to the right below; none goes on from the last.
        place: Any = {"xytext": (5, 5)}
        if number == len(losses) - 1:
            place = {"xytext": (-5, -5), "ha": "right", "va": "top"}
        ax.annotate(text, (number, level), textcoords="offset points", fontsize=8, **place)
    ax.set_xticks(range(len(losses)))
    ax.margins(0.12, 0.1)
    return ax


@known_options
def lyapunov(exponents: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the finite-time Lyapunov exponents as they converge, and the exponents with errors.

    Parameters
    ----------
    exponents
        What `lyapunov_spectrum` returns.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If these are no exponents.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> steps = dl.GradientDescent(net, 0.1)
    >>> found = dl.lyapunov_spectrum(steps, net.initial(rng=0), n_steps=50, k=2)
    >>> dl.plot.lyapunov(found).get_ylabel()
    'finite-time Lyapunov exponent $\\lambda_j(t)$'
    """
    return _exponents("exponents", exponents, "lyapunov", "finite_time_exponent", "eigen", ax)


@known_options
def covariant_vectors(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the growth rates of covariant Lyapunov vectors, and the exponents."""
    return _exponents("data", data, "covariant_vectors", "growth_rate", "direction", ax)


def _exponents(name: str, data: Any, kind: str, rates: str, dim: str, ax: Axes | None) -> Axes:
    """Draw rates over time, and the exponents that are their limits or means."""
    clock = "iteration" if "iteration" in getattr(data, "dims", ()) else "time"
    wanted = {"exponent": (dim,), rates: (clock, dim)}
    if "standard_error" in getattr(data, "variables", ()):
        wanted["standard_error"] = (dim,)
    data = schema.read(name, data, kind, wanted, partial=("standard_error",))
    ax = canvas.axes(ax, (8.0, 4.5), data[clock], data[rates])
    ax.axhline(0.0, color="0.6", linewidth=0.8)
    ax.set_xscale(canvas.span(data[clock].values))
    count, times = data.sizes[dim], data[clock].values
    mark = "-" if len(times) > _MOST_DOTS else ".-"
    colours = canvas.mode_colours(count)
    for j, exponent in enumerate(data["exponent"].values):
        text = f"$\\lambda_{{{j}}}$ = {exponent:.3g}"
        ax.axhline(exponent, color=colours(j), linewidth=0.8, linestyle="--")
        ax.plot(times, data[rates].values[:, j], mark, color=colours(j))
        if "standard_error" in wanted and np.isfinite(data["standard_error"].values[j]):
            error = float(data["standard_error"].values[j])
            text += f" ± {error:.1g}"
            ax.axhspan(exponent - error, exponent + error, color=colours(j), alpha=0.15, lw=0)
        ax.lines[-1].set_label(text)
    if count <= _MOST_NAMES:
        ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


@known_options
def curves(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the one variable of a Dataset that is a curve, or several, by its schema."""
    kind = data.attrs["schema"]
    x, y = _CURVES[kind]
    x = "iteration" if x == "time" and "iteration" in data.dims else x
    if kind == "run":
        data = of_run("run", data, {y: ("parameter",)}, "has neither loss nor states")
    else:
        leading = ("sample",) if kind == "chain" and "sample" in data.dims else ()
        dims = ("fibre", "time") if kind == "fibres" else (*leading, x)
        wanted = {x: dims if kind == "fibres" else (x,), y: dims}
        wanted.pop("point", None)
        data = schema.read("data", data, kind, wanted, partial=wanted if kind == "fibres" else ())
    ax = canvas.axes(ax, (8.0, 4.5), data[x], data[y])
    if kind in _DECAYING:
        numbers = data[y].values
        ax.set_yscale(canvas.span(numbers[numbers > 0.0]))
    mark = "." if data[x].shape[-1] <= _MOST_DOTS else ""
    lines(ax, data[x], data[y], linewidth=1.5, marker=mark)
    return ax


@known_options
def stems(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the one list of numbers of a Dataset, by its schema."""
    kind = data.attrs["schema"]
    dim, name, extra, words = _STEMS[kind]
    wanted = {key: (dim,) for key in (name, extra) if key}
    data = schema.read("data", data, kind, wanted, empty=(dim,), partial=(extra,))
    ax = canvas.axes(ax, (7.0, 4.0), data[dim], data[name])
    places, values = np.arange(data.sizes[dim]), data[name].values
    ax.vlines(places, 0.0, values, color="#4575b4")
    ax.plot(places, values, "o", color="#4575b4")
    above: Any = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
    for place in places[:_MOST_BARS] if extra else ():
        text = words.format(data[extra].values[place])
        ax.annotate(text, (place, values[place]), (0, 5), **above)
    if not places.size:
        ax.set_title(f"no {dim}s")
    ax.set_xticks(places[:: max(1, len(places) // 20)])
    ax.margins(0.08, 0.12)
    if values.min(initial=0.0) >= 0.0:
        ax.set_ylim(bottom=0.0)
    return ax


#: What a list of escape directions says of itself above its picture.
_COMPLETE = {
    "closed_form": "all directions",
    "searched": "directions that a search found",
    "nothing_found": "a search found no direction; others may leave",
    "minimum": "no run leaves",
}


@known_options
def escape_directions(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the values of escape directions of each order, the darker the more directions rise.

    At each stands which modes it learns, and loses, or how many ascents came there.
    """
    rows = schema.by_dims("value order index count modes modes_lost (direction) completeness ()")
    data = schema.read("data", data, "escape_directions", rows, empty=("direction",))
    ax = canvas.axes(ax, (8.0, 4.5), data["direction"], data["value"])
    values, rising = data["value"].values, np.maximum(data["index"].values, 0)
    places = np.arange(len(values))
    shades = matplotlib.colormaps["viridis"](0.9 - 0.9 * rising / max(1, rising.max(initial=0)))
    ax.vlines(places, 0.0, values, color=shades)
    ax.scatter(places, values, color=shades, zorder=3)
    above: Any = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
    for place in places[:_MOST_BARS]:
        row = data.isel(direction=place)
        modes, lost = str(row["modes"].item()), str(row["modes_lost"].item())
        text = modes or f"×{row['count'].item()}"
        text += f" for {lost}" if lost not in ("", "{}") else ""
        ax.annotate(text, (place, values[place]), (0, 5), rotation=30, **above)
    left = int(data.attrs.get("n_left_out", 0))
    title = _COMPLETE[str(schema.decode(data["completeness"]).item())]
    orders = ", ".join(map(str, np.unique(data["order"].values)))
    title += f" of order {orders}" if orders else ""
    ax.set_title(title + (f"; {left:,} more are smaller" if left else ""))
    ax.set_xticks(places[:: max(1, len(places) // 20)])
    ax.margins(0.08, 0.16)
    ax.set_ylim(bottom=0.0)
    return ax


@known_options
def transitions(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw how many runs made which transition between saddles, the most frequent first."""
    kind, rows = "observed_connections", "source target visited is_connection probability"
    wanted = schema.by_dims(f"{rows} (edge)")
    data = schema.read("data", data, kind, wanted, attributes=["n_runs"], empty=("edge",))
    data = data.isel(edge=np.argsort(-data["visited"].values, kind="stable")[:_MOST_BARS])
    source, target, counts, joined, parts = (data[name].values for name in wanted)
    ax = canvas.axes(ax, (8.0, 1.5 + 0.25 * len(counts)), data["visited"])
    bars = ax.barh(np.arange(len(counts)), counts, color=np.where(joined, "#4575b4", "#d73027"))
    ax.bar_label(bars, [f"{part:.0%}" for part in parts], padding=3, fontsize=8)
    names = [f"{a} → {b}" for a, b in zip(source, target, strict=True)]
    ax.set_yticks(range(len(counts)), names, fontsize=8)
    ax.set_ylim(len(counts) - 0.3, -0.7)
    ax.margins(x=0.1)
    others = "" if joined.all() else "; red: no edge of the graph"
    ax.set_title(f"of {data.attrs['n_runs']} runs{others}")
    return ax


@known_options
def orbits(data: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw orbits between equilibria in the plane of the first two components of their states.

    Of one component over the length of the path. Orbits that connect what they should are blue,
    as are those of unstable manifolds; the others are red.
    """
    kind = data.attrs["schema"]
    dim, named = ("fibre", "side") if kind == "orbits" else ("orbit", "codimension")
    wanted = schema.by_dims(f"state ({dim}, time, parameter) arclength ({dim}, time)")
    wanted |= {} if kind == "orbits" else {"decision": (dim,)}
    data = schema.read("data", data, kind, wanted, attributes=[named], empty=(dim,))
    states, names = data["state"].values, data["parameter"].values
    if kind == "orbits":
        good = np.full(len(states), data.attrs["side"] == "unstable")
    else:
        good = data["decision"].values < schema.CONNECTION_DECISIONS.index("elsewhere")
    across, up = (data["arclength"].values, 0) if len(names) == 1 else (states[..., 0], 1)
    first = canvas.label(data["arclength"]) if len(names) == 1 else f"component {names[0]}"
    ax = canvas.axes(ax, (6.0, 5.0), first, f"component {names[up]}")
    for x, y, fine in zip(across, states[..., up], good, strict=True):
        ax.plot(x, y, color="#4575b4" if fine else "#d73027", linewidth=1.2)
    if not len(states):
        ax.set_title(f"no {dim}s")
    return ax


#: The picture of each schema.
_PICTURES: dict[str, Callable[..., Axes]] = {
    "atlas": graph,
    "run": loss,
    "evaluation": evaluation,
    "convergence_bounds": convergence,
    "decay_diagram": decay_diagram,
    "critical_points": critical_points,
    "connections": connections,
    "observed_connections": transitions,
    "linearization": spectrum,
    "arcs": arcs,
    "branch": branches,
    "diagram": branches,
    "sweep": heatmap,
    "visits": visits,
    "escape_chain": escape_chain,
    "escape_directions": escape_directions,
    "lyapunov": lyapunov,
    "covariant_vectors": covariant_vectors,
    "orbits": orbits,
    "connecting_orbits": orbits,
    **dict.fromkeys(_CURVES.keys() - {"run"}, curves),
    **dict.fromkeys(_STEMS, stems),
}


def told(kind: str) -> str:
    """Return what `by_schema` draws of a schema, or where to look if that is nothing."""
    if kind in _NO_PICTURE:
        return f"none; {_NO_PICTURE[kind]}"
    if kind in _CURVES and kind != "run":
        over, drawn = _CURVES[kind]
        return f"`{drawn}` over `{over}`"
    if kind in _STEMS:
        dim, drawn, *_ = _STEMS[kind]
        return f"`{drawn}` of each `{dim}`"
    first = (_PICTURES[kind].__doc__ or "").partition("\n")[0]
    return first.removeprefix("Draw ").removesuffix(".")


def by_schema(data: xr.Dataset | xr.DataTree, **options: Any) -> Axes:
    """Draw a Dataset or tree by the function that fits its schema.

    Raises
    ------
    ValueError, TypeError
        If there is no picture for it; the message says where to look instead.
    """
    kind = getattr(data, "attrs", {}).get("schema")
    if kind in _NO_PICTURE:
        raise ValueError(f"data: there is no picture of schema {kind!r}; {_NO_PICTURE[kind]}")
    if not isinstance(data, xr.Dataset | xr.DataTree) or kind not in _PICTURES:
        raise ValueError(f"data: there is no picture of schema {kind!r}{nearest(kind, _PICTURES)}")
    if isinstance(data, xr.DataTree) and not data.children:
        data = data.to_dataset()
    draw = curves if kind == "run" and "loss" not in data else _PICTURES[kind]
    return draw(data, **options)  # type: ignore[arg-type]
