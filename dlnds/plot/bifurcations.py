"""Pictures of branches: curves through their tangents, their names, and what is special on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from scipy.interpolate import CubicSpline

from dlnds import schema
from dlnds.arrays import Array, Flags
from dlnds.errors import check_choice, check_function, known_options
from dlnds.plot import canvas

#: What is drawn along an axis: a variable, a component, a number of a list, or a function.
Quantity = str | tuple[str, int] | Callable[[Array, float], float]

_MARKERS = {
    "fold": ("o", "#d73027"),
    "branch_point": ("s", "#4575b4"),
    "hopf": ("^", "#e08214"),
    "flip": ("P", "#c51b7d"),
    "neimark_sacker": ("h", "#01665e"),
    "index_change": ("v", "#7b3294"),
    "symmetry_change": ("D", "#7b3294"),
    "user": ("x", "black"),
    "cusp": ("*", "#1a9850"),
}
_SCALES = ("linear", "log")
#: The unknowns of a branch, and their derivatives along it.
_TANGENTS = {"state": "tangent", "p": "tangent_p", "q": "tangent_q"}
#: Straight parts of the curves: of one between two rows, and of a whole one, about.
_PARTS, _MOST_PARTS = (8, 32), 4000
#: Smallest cosine between a tangent and the way to the next row with which a curve is drawn.
_ALONG = 0.3
#: Changes that are smaller in terms of the state are rounding.
_SAME = 1e-9
#: Up to so many branches have the colours of the style in use; the others have hues that are this
#: part of all of them apart.
_USUAL_COLOURS, _GOLDEN = 10, 0.5 * (5.0**0.5 - 1.0)
#: Parts of the way along a curve at which its name is tried; where it starts others may, too.
_NAMED_AT = (1.0, 0.5, 0.75, 0.25, 0.9, 0.6, 0.4, 0.8, 0.3, 0.7, 0.2, 0.1, 0.0)
#: How far in points names keep away from their curves and from others.
_GAP, _CLEAR = 5.0, 2.0
#: Size of the names of branches that have no room in the picture.
_SMALL = 7.0


class _Way(NamedTuple):
    """How the rows of a branch follow each other, in coordinates that are scaled by their ranges.

    ``lengths`` (step − 1) of the curve between two rows, ``rates`` (step) of the scaled arclength
    against that of the stored tangents, and between which rows these tell the ``curved`` way.
    """

    lengths: Array
    rates: Array
    curved: Flags


class _Column(NamedTuple):
    """The numbers of the rows along one axis, their label, and those of the curve between rows."""

    label: xr.DataArray | str
    values: Array
    curve: Array


@known_options
def branches(
    data: xr.Dataset | xr.DataTree,
    *,
    x: Quantity = "p",
    y: Quantity | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    ax: Axes | None = None,
) -> Axes:
    r"""Draw a branch, or all of a diagram, with their names: stable parts are full lines.

    Parameters
    ----------
    data
        What `branch`, `diagram` or `fold_curve` returns, a node of a diagram, or rows of these; of
        special points only their marks are drawn.
    x, y
        What to draw against each other:

        - a variable that has one number a row: ``"p"``, ``"arclength"``, ``"index"`` or what the
          residual observes; ``"norm"`` is ‖x‖. What is varied has its own name, too.
        - a component of the state: its name, if the components have names (coordinate
          ``parameter``), or ``"x0"``, ``"x1"``, … by its place.
        - a pair of a variable and a number, ``("state", 3)``, ``("transverse_eigenvalue", 0)``.
        - a function of the state (component) and p of a row, ``lambda x, p: x[0] - x[1]``.

        If ``y`` is not given it is ``"q"`` of a curve with two parameters, else the ``"loss"`` if
        that was observed, else ``"norm"``.
    xscale, yscale
        ``"linear"`` or ``"log"``; of a logarithmic axis only positive numbers are drawn.
    ax
        Axes to draw into.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError, TypeError
        If it is no branch, or has no such variable or component.

    Notes
    -----
    Between two rows the state and the parameters follow the cubic curve that has the stored
    tangents, and so do components and ‖x‖; a fold is round, and where it was computed. Other
    numbers follow a cubic spline along it that is limited where it would not rise and fall with
    them, whole ones straight lines. Lines change from full to dashed at special points. Names are
    the most frequent ``label`` of the branch, and others that it has along the way, if the residual
    gives such, else those of the nodes. Where there is no room they are left out; branches without
    any name are listed below the legend.

    Examples
    --------
    >>> import dlnds as dl
    >>> fold = dl.branch(lambda x, p: p + x**2, [1.0], -1.0, bounds=(-1.5, 1.0))
    >>> dl.plot.branches(fold, y="norm").get_ylabel()
    'norm $\\|x\\|$'
    >>> dl.plot.branches(fold, y="x0").get_ylabel()
    'component $x_{0}$'
    """
    parts = _parts(data)
    if y is None:
        known = next(iter(parts.values())).variables
        y = next((name for name in ("q", "loss") if name in known), "norm")
    scales = [check_choice(word, scale, _SCALES)
              for word, scale in (("xscale", xscale), ("yscale", yscale))]  # fmt: skip
    columns = [
        [_column(part, word, what, "log" in scales) for word, what in (("x", x), ("y", y))]
        for part in parts.values()
    ]
    ax = canvas.axes(ax, (8.0, 5.5), *(column.label for column in columns[0]))
    _rescale(ax, scales, columns)
    colours = _colours(len(parts))
    for part, (first, second), colour in zip(parts.values(), columns, colours, strict=True):
        _draw(ax, part, first, second, colour)
        _mark(ax, part, first, second)
    _legend(ax, list(parts.values()), columns)
    _name(ax, parts, columns, colours)
    return ax


def _parts(data: xr.Dataset | xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the branches by the names of their nodes, with the dims of what is drawn in order."""
    nodes = getattr(data, "children", {})
    parts = {str(name): node.to_dataset() for name, node in nodes.items()}
    if not parts and isinstance(data, xr.Dataset | xr.DataTree):
        single = data.to_dataset() if isinstance(data, xr.DataTree) else data
        row = "step" not in single.dims and "p" in single.coords
        parts = {"": _as_rows(single) if row else single}
    if not parts or any(part.attrs.get("schema") != "branch" for part in parts.values()):
        raise ValueError("data: needs what branch or diagram returns")
    rows = schema.by_dims("state tangent (step, parameter) p tangent_p index event (step)")
    others = schema.by_dims("q tangent_q label (step)")
    return {
        name: _closed(schema.read("data", part, "branch", rows, optional=others, empty=("step",)))
        for name, part in parts.items()
    }


def _as_rows(row: xr.Dataset) -> xr.Dataset:
    """Return a branch of one row."""
    return row.reset_coords("p").expand_dims("step").set_coords("p")


def _closed(branch: xr.Dataset) -> xr.Dataset:
    """Return a branch with its first row at the end, too, if it is closed and that is near."""
    count = branch.sizes["step"]
    if branch.attrs.get("last_stop") != "closed" or count < 3:
        return branch
    around = branch.isel(step=[*range(count), 0])
    lengths = _way(around).lengths
    return around if lengths[-1] <= 2.0 * lengths[:-1].max() else branch


# What is drawn.


def _column(branch: xr.Dataset, word: str, what: Quantity, wide: bool) -> _Column:
    """Return what is to be drawn along an axis, with more points near rows if it is ``wide``."""
    way, label = _way(branch), _label(branch, word, what)
    if isinstance(what, str) and what == "norm":
        states = branch["state"].values
        values = np.linalg.norm(states, axis=1)
        knots = _knots(states, branch["tangent"].values, way)
        gram = np.einsum("aij,bij->iab", knots, knots)
        weights = _weights(branch.sizes["step"], wide)
        squares = np.einsum("ka,iab,kb->ik", weights, gram, weights)
        curve = np.sqrt(np.maximum(squares, 0.0))
        curve[:, 0], curve[:, -1] = values[:-1], values[1:]
        return _Column(label, values, curve)
    values, slopes = _numbers(branch, word, what)
    if values.size and not np.isfinite(values).any():
        raise ValueError(f"{word}: has no finite number to draw")
    knots = _knots(values, slopes, way)
    return _Column(label, values, (_weights(branch.sizes["step"], wide) @ knots).T)


def _numbers(branch: xr.Dataset, word: str, what: Quantity) -> tuple[Array, Array | None]:
    """Return a number for each row, and its derivative along the branch if that is known."""
    if callable(what):
        return _computed(branch, word, what), None
    name, place = _found(branch, word, what)
    if place is not None:
        known = branch["tangent"].values[:, place] if name == "state" else None
        return branch[name].values[:, place], known
    slope = _TANGENTS.get(name)
    return branch[name].values, branch[slope].values if slope in branch else None


def _computed(branch: xr.Dataset, word: str, function: Callable[..., Any]) -> Array:
    """Return the numbers that a function gives for rows."""
    check_function(word, function, "x", "p")
    places = zip(branch["state"].values, branch["p"].values.tolist(), strict=True)
    found = [np.asarray(function(state, p)) for state, p in places]
    if any(value.size != 1 or value.dtype.kind not in "biuf" for value in found):
        raise ValueError(f"{word}: needs to return one real number for x and p")
    return np.array([float(value.item()) for value in found])


def _found(branch: xr.Dataset, word: str, what: Any) -> tuple[str, int | None]:
    """Return the variable of a name or a pair, and the number of its column if it has such."""
    rows = {str(k): v for k, v in branch.variables.items() if v.dtype.kind in "biuf"}
    single = [name for name, variable in rows.items() if variable.dims == ("step",)]
    lists = {k: v for k, v in rows.items() if v.ndim == 2 and v.dims[0] == "step"}
    pair = isinstance(what, tuple | list) and len(what) == 2 and isinstance(what[0], str)
    if pair and what[0] in lists:
        name, place = what
        count = lists[name].shape[1]
        if isinstance(place, int | np.integer) and 0 <= place < count:
            return name, int(place)
        raise ValueError(f"{word}: {name!r} has numbers from 0 to {count - 1}, got {place!r}")
    names, varied = _components(branch), _varied(branch)
    if isinstance(what, str) and what in single:
        return what, None
    if isinstance(what, str) and what in names:
        return "state", names[what]
    if isinstance(what, str) and what in varied:
        return varied[what], None
    some = list(names)
    some = [some[0], "…", some[-1]] if len(some) > 8 else some
    known = ", ".join(["norm", *single, *varied, *some, *(f"({name!r}, number)" for name in lists)])
    raise ValueError(f"{word}: there is no {what!r}; there are {known}, and functions of x and p")


def _varied(branch: xr.Dataset) -> dict[str, str]:
    """Return the variables of what is varied by the names that it has itself."""
    names = {str(branch[word].attrs.get("long_name", word)): word for word in ("q", "p")
             if word in branch.variables}  # fmt: skip
    return {name: word for name, word in names.items() if name not in branch.variables}


def _components(branch: xr.Dataset) -> dict[str, int]:
    """Return the places of components by their names: x0, x1 and so on, and those they have."""
    usual = {f"x{place}": place for place in range(branch.sizes["parameter"])}
    return usual | _own_names(branch)


def _own_names(branch: xr.Dataset) -> dict[str, int]:
    """Return the places of components by the names that their coordinate gives."""
    labels = branch.coords.get("parameter")
    if labels is None or labels.dtype.kind not in "UOT":
        return {}
    return {str(name): place for place, name in enumerate(labels.values)}


def _label(branch: xr.Dataset, word: str, what: Quantity) -> xr.DataArray | str:
    """Return what the axis says."""
    if callable(what):
        name = getattr(what, "__name__", "<>")
        return word if "<" in name else str(name)
    if isinstance(what, str) and what == "norm":
        return r"norm $\|x\|$"
    name, place = _found(branch, word, what)
    if place is None:
        return branch[name]
    if name == "state":
        own = isinstance(what, str) and what in _own_names(branch)
        return str(what) if own else f"component $x_{{{place}}}$"
    return f"{canvas.label(branch[name])}, number {place}"


# Curves between rows.


def _way(branch: xr.Dataset) -> _Way:
    """Return how the rows of a branch follow each other."""
    count, steps, tangents = branch.sizes["step"], [], []
    for name, slope in _TANGENTS.items():
        if slope in branch.variables:
            values, tangent = (
                part.reshape(count, part.size // max(count, 1))
                for part in (branch[name].values, branch[slope].values)
            )
            size = _range(values, float(branch.attrs.get(f"{name}_scale", 0.0)))
            steps.append(np.diff(values, axis=0) / size)
            tangents.append(tangent / size)
    step, tangent = np.hstack(steps), np.hstack(tangents)
    norms, chords = np.linalg.norm(tangent, axis=1), np.linalg.norm(step, axis=1)
    rates = 1.0 / np.where(norms > 0.0, norms, np.inf)
    unit = tangent * rates[:, None]
    half = 0.5 * np.arccos(np.clip(np.sum(unit[:-1] * unit[1:], axis=1), -1.0, 1.0))
    ahead = np.minimum(np.sum(unit[:-1] * step, axis=1), np.sum(unit[1:] * step, axis=1))
    # An arc of a circle that turns by 2 half is longer than its chord by half / sin(half).
    return _Way(chords / np.sinc(half / np.pi), rates, ahead > _ALONG * chords)


def _range(values: Array, usual: float) -> float:
    """Return the largest range of columns; those that do not change but by rounding have none."""
    if not values.size:
        return 1.0
    found = float(np.ptp(values, axis=0).max())
    size = max(float(np.abs(values).max()), usual)
    return found if found > _SAME * size else size or 1.0


def _knots(values: Array, slopes: Array | None, way: _Way) -> Array:
    """Return ends and derivatives (4, step − 1, …) of the curves between rows."""
    change = np.diff(values, axis=0)
    if slopes is None:
        before, after = _smooth(values, way.lengths, change)
    else:
        shape = -1, *(1,) * (values.ndim - 1)
        whole = slopes * way.rates.reshape(shape)
        lengths, curved = way.lengths.reshape(shape), way.curved.reshape(shape)
        before = np.where(curved, whole[:-1] * lengths, change)
        after = np.where(curved, whole[1:] * lengths, change)
    return np.stack([values[:-1], before, values[1:], after]).astype(float)


def _smooth(values: Array, lengths: Array, change: Array) -> tuple[Array, Array]:
    """Return derivatives at both ends of smooth curves; of straight ones for whole numbers."""
    moved = np.append(True, lengths > 0.0)[: len(values)]
    if values.dtype.kind != "f" or not np.isfinite(values).all() or moved.sum() < 2:
        return change, change
    along = np.append(0.0, np.cumsum(lengths))
    slopes = np.repeat(
        _slopes(along[moved], values[moved]), np.diff(np.flatnonzero([*moved, True]))
    )
    return slopes[:-1] * lengths, slopes[1:] * lengths


def _slopes(along: Array, values: Array) -> Array:
    """Return those of the cubic spline, so far as it rises and falls with the values only.

    They are at most three times the smaller one of both secants, and half as much at extrema.
    """
    slopes, secants = CubicSpline(along, values)(along, 1), np.diff(values) / np.diff(along)
    before, after = np.append(secants[0], secants), np.append(secants, secants[-1])
    turns = np.sign(before) != np.sign(after)
    most = np.where(turns, 1.5, 3.0) * np.minimum(np.abs(before), np.abs(after))
    limited: Array = np.clip(slopes, -most, most)
    return np.where(turns | (np.sign(slopes) == np.sign(before)), limited, 0.0)


def _weights(count: int, wide: bool) -> Array:
    """Return the weights (part, 4) of ends and derivatives at places between two rows."""
    parts = int(np.clip(_MOST_PARTS // max(count, 1), *_PARTS))
    t = np.linspace(0.0, 1.0, parts + 1)
    if wide:  # the first part of a step may take several decades
        near = t[1] * 10.0 ** np.arange(-6.0, 0.0, 0.25)
        t = np.unique(np.concatenate([t, near, 1.0 - near]))
    u = 1.0 - t
    return np.stack([u**2 * (1.0 + 2.0 * t), u**2 * t, t**2 * (3.0 - 2.0 * t), -u * t**2], axis=1)


# Drawing.


def _rescale(ax: Axes, scales: Sequence[str], columns: Sequence[Sequence[_Column]]) -> None:
    """Make axes logarithmic that shall be, if there is something positive to draw."""
    axes = ("xscale", ax.set_xscale), ("yscale", ax.set_yscale)
    for place, ((word, rescale), scale) in enumerate(zip(axes, scales, strict=True)):
        if scale == "log":
            if not any((column[place].values > 0.0).any() for column in columns):
                raise ValueError(
                    f"{word}: a logarithmic axis needs positive numbers, there are none"
                )
            rescale("log", nonpositive="mask")


def _colours(count: int) -> list[Any]:
    """Return a colour for each branch."""
    if count <= _USUAL_COLOURS:
        return [f"C{number}" for number in range(count)]
    dark = (0.85, 0.85, 0.85, 1.0)
    places = 0.05 + 0.9 * (_GOLDEN * np.arange(count) % 1.0)  # far from those of branches nearby
    return list(matplotlib.colormaps["turbo"](places) * dark)


def _steady(branch: xr.Dataset) -> Flags:
    """Tell which parts between two rows are stable: special points belong to what is beside."""
    stable = branch["index"].values == 0
    special = ~np.isin(schema.decode(branch["event"]).values, ("none", "user"))
    others = np.where(special[1:], stable[:-1] & stable[1:], stable[1:])
    steady: Flags = np.where(special[:-1], others, stable[:-1])
    return steady


def _draw(ax: Axes, branch: xr.Dataset, x: _Column, y: _Column, colour: Any) -> None:
    """Draw pieces of the same stability, each up to the next one."""
    if (branch["event"].values > 0).all() and len(x.values):
        return  # special points, without what is between
    steady = _steady(branch)
    if len(x.values) == 1:
        style = "full" if branch["index"].values[0] == 0 else "none"
        ax.plot(x.values, y.values, "o", color=colour, markersize=4, fillstyle=style)
    cuts = [0, *(np.flatnonzero(steady[1:] != steady[:-1]) + 1).tolist(), len(steady)]
    for a, b in itertools.pairwise(cuts if len(steady) else ()):
        along = [np.append(column.curve[a:b, :-1], column.values[b]) for column in (x, y)]
        ax.plot(*along, color=colour, linestyle="-" if steady[a] else "--")


def _mark(ax: Axes, branch: xr.Dataset, x: _Column, y: _Column) -> None:
    kinds = schema.decode(branch["event"]).values
    for kind, (marker, colour) in _MARKERS.items():
        rows = kinds == kind
        if rows.any():
            ax.plot(x.values[rows], y.values[rows], marker, color=colour, zorder=4, **_edge(marker))


def _edge(marker: str) -> dict[str, Any]:
    """Return the size and the rim of a marker."""
    rim = {} if marker == "x" else {"markeredgecolor": "white", "markeredgewidth": 0.6}
    return {"markersize": 11 if marker == "*" else 6, **rim}


def _visible(ax: Axes, x: _Column, y: _Column, rows: Any = slice(None)) -> Flags:
    """Tell which rows an axis that may be logarithmic can show."""
    places = np.stack([x.values[rows], y.values[rows]], axis=1)
    visible: Flags = np.isfinite(ax.transData.transform(places)).all(axis=1)
    return visible


def _legend(ax: Axes, parts: Sequence[xr.Dataset], columns: Sequence[Sequence[_Column]]) -> None:
    """Say what styles and markers mean: beside the axes, if the layout makes room there."""
    handles = ax.plot([], [], color="0.3", label="stable")
    seen: set[str] = set()
    dashed = False
    for part, (x, y) in zip(parts, columns, strict=True):
        visible = _visible(ax, x, y)
        seen |= {*schema.decode(part["event"]).values[visible].tolist()}
        steady = _steady(part) if len(visible) > 1 else part["index"].values == 0
        dashed |= bool((~steady & visible[: len(steady)]).any())
    if dashed:
        handles += ax.plot([], [], color="0.3", linestyle="--", label="unstable")
    for kind, (marker, colour) in _MARKERS.items():
        if kind in seen:
            word = schema.spoken(kind)
            handles += ax.plot([], [], marker, color=colour, label=word, **_edge(marker))
    figure: Any = ax.figure
    roomy = figure.get_figure(root=True).get_layout_engine() is not None
    beside: Any = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if roomy else {}
    ax.legend(handles=handles, fontsize=8, **beside)


# Names.


def _name(
    ax: Axes,
    parts: dict[str, xr.Dataset],
    columns: Sequence[Sequence[_Column]],
    colours: Sequence[Any],
) -> None:
    """Write the names of branches beside their curves, where there is room."""
    several, found = len(parts) > 1, []
    branches = zip(parts.items(), columns, strict=True)
    for number, ((node, part), (x, y)) in enumerate(branches):
        for order, (text, rows) in enumerate(_names(part, node if several else "")):
            shown = _visible(ax, x, y, rows)
            if shown.any():
                places = np.stack([x.values[rows], y.values[rows]], axis=1)[shown]
                found.append((order, text, places, number))
    found.sort(key=lambda entry: entry[0])  # each branch's own name comes first
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white", alpha=0.85)]
    texts = [
        ax.annotate(
            text, places[0], (0, 0), textcoords="offset pixels", va="bottom", fontsize=8,
            color=colours[number], path_effects=halo, zorder=5, in_layout=False,
        )
        for _, text, places, number in found
    ]  # fmt: skip
    if texts:
        ax.margins(0.05, 0.1)  # for names above and below all curves
    anchors, curves = [places for _, _, places, _ in found], _covered(ax, columns)
    tell = _Unnamed(ax, [(number, text) for _, text, _, number in found], colours)
    ax.add_artist(canvas.FittingLabels(texts, anchors, _GAP, curves, _CLEAR, tell))


class _Unnamed:
    """Lists branches none of whose names has room: below the legend, or in a note that counts them.

    ``names`` are those of all labels, with the numbers of their branches, each own one first.
    """

    def __init__(self, ax: Axes, names: Sequence[tuple[int, str]], colours: Sequence[Any]) -> None:
        self._ax, self._names, self._colours = ax, names, colours
        self._told: tuple[Any, ...] = ()
        self._artist: Any = None

    def __call__(self, hidden: list[int], renderer: Any) -> None:
        """Draw the list, if it is not what was drawn before."""
        named = {number for k, (number, _) in enumerate(self._names) if k not in set(hidden)}
        lacking: dict[int, str] = {}
        for number, text in self._names:
            if number not in named:
                lacking.setdefault(number, text)
        ax: Any = self._ax
        frame = ax.get_legend().get_window_extent(renderer).transformed(ax.transAxes.inverted())
        told = (tuple(lacking.items()), round(frame.x0, 3), round(frame.y0, 3))
        if told == self._told:
            return
        if self._artist is not None:
            self._artist.set_visible(False)  # it may be about to be drawn
            self._artist.remove()
        self._told, self._artist = told, None
        if lacking:
            room = (frame.y0 - 0.02) * ax.bbox.height / renderer.points_to_pixels(1.35 * _SMALL)
            self._artist = self._listed(lacking, frame, int(room) - 1)
            self._artist.draw(renderer)

    def _listed(self, lacking: dict[int, str], frame: Any, room: int) -> Any:
        ax: Any = self._ax
        if frame.x0 < 1.0 or room < 1:
            word = "branch" if len(lacking) == 1 else "branches"
            note = f"no room for the names of {len(lacking)} {word}"
            return ax.text(
                1.01, 0.0, note, transform=ax.transAxes, rotation=90, fontsize=_SMALL,
                va="bottom", in_layout=False,
            )  # fmt: skip
        shown = [*lacking.items()]
        shown = shown if len(shown) <= room else shown[: room - 1]
        handles = [Line2D([], [], color=self._colours[k], label=text) for k, text in shown]
        if len(shown) < len(lacking):
            rest = f"and {len(lacking) - len(shown)} more"
            handles.append(Line2D([], [], linestyle="none", label=rest))
        legend = Legend(
            ax, handles, [str(handle.get_label()) for handle in handles], loc="upper left",
            bbox_to_anchor=(1.0, frame.y0), fontsize=_SMALL, labelspacing=0.2, frameon=False,
        )  # fmt: skip
        legend.set_in_layout(False)
        return ax.add_artist(legend)


def _covered(ax: Axes, columns: Sequence[Sequence[_Column]]) -> Array:
    """Return points (point, 2) that lie on all curves, one for each place of the picture."""
    along = [
        np.concatenate([column.curve.ravel() for column in both])
        for both in zip(*columns, strict=True)
    ]
    points = np.stack(along, axis=1)
    ax.autoscale_view()
    cells = np.round(ax.transData.transform(points) / _CLEAR)
    shown = np.isfinite(cells).all(axis=1)
    return points[shown][np.unique(cells[shown], axis=0, return_index=True)[1]]


def _names(branch: xr.Dataset, node: str) -> list[tuple[str, Array]]:
    """Return the names of a branch, the most frequent first, and rows at which they hold."""
    count = branch.sizes["step"]
    labels = branch["label"].values.astype(str) if "label" in branch else np.full(count, "")
    if not (labels != "").any():
        labels = np.full(count, node)
    runs: dict[str, list[slice]] = {}
    cuts = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), count]
    for a, b in itertools.pairwise(cuts if count else ()):
        runs.setdefault(str(labels[a]), []).append(slice(a, b))
    order = sorted(filter(None, runs), key=lambda text: -np.count_nonzero(labels == text))
    plain, named = branch["event"].values == 0, []
    for place, text in enumerate(order):
        run = max(runs[text], key=lambda rows: rows.stop - rows.start)
        last = run.stop - 1 - run.start
        if place == 0 or last > 0:  # others hold at one point only, such as a fold
            rows = run.start + np.rint(np.multiply(_NAMED_AT, last)).astype(int)
            named.append((text, rows[plain[rows]] if plain[rows].any() else rows))
    return named
