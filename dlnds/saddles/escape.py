"""Saddles that a run passes: where it rests, for how long, and how long it should."""

import itertools
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_number, check_rows, known_options
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.theory.laws import orbit_time
from dlnds.theory.moments import exceeds

#: The part of σ_j from which on the growth of a mode is timed.
GROWN_FROM = 0.05


class Trace(NamedTuple):
    """The rows of a run that are numbers: the clock, and where the end-to-end map is."""

    time: Array
    low: Array
    strength: Array
    learnt: NDArray[np.bool_]
    distance: Array

    def between(self, begin: tuple[int, float], end: tuple[int, float]) -> float:
        """Return the time between two places, a row and the part of the step after it."""
        total = self._passed(begin[0], end[0])
        for (row, part), sign in ((begin, -1.0), (end, 1.0)):
            if part:
                total += sign * part * self._passed(row, row + 1)
        return total

    def _passed(self, first: int, last: int) -> float:
        low = self.low[last] - self.low[first]
        return float((self.time[last] - self.time[first]) + low)


class Visit(NamedTuple):
    """A stretch of rows near one critical value, and how it is left."""

    modes: tuple[int, ...]
    first: int
    last: int
    entry: float
    exit: float
    duration: float
    closest: float
    next_mode: int
    escape_time: float
    predicted_escape_time: float
    growth_time: float
    predicted_growth_time: float


@known_options
def saddle_visits(net: LinearNetwork, run: xr.Dataset, *, radius: float = 0.05) -> xr.Dataset:
    """Return the sequence of critical values that a run rests at.

    A visit is an interval of saved rows in which the end-to-end map stays within ``radius`` of the
    same P_S Σ: ‖W K − P_S Σ‖_F ≤ radius ‖Σ‖_F, where S holds the modes with u_jᵀ W K v_j > σ_j/2.

    Parameters
    ----------
    net
        The network that the run is of.
    run
        A run with ``state`` or ``product`` (`flow`, `exact_flow`, `as_run`), or one member of a
        stack; rows that it did not reach are left out. With ``mode_strength`` too, modes far below
        the rounding of those already learnt are seen. ``mode_strength`` alone is enough;
        ``closest`` is then known to 1e-8.
    radius
        Size of the neighbourhoods, relative to ‖Σ‖_F.

    Returns
    -------
    xarray.Dataset
        Schema ``visits``, dim ``visit``: ``critical_point`` (the index set), ``entry`` and ``exit``
        (times of the first and last row inside), ``duration`` (from the compensated clock),
        ``closest`` (smallest relative distance), ``next_mode`` (the mode learnt next, −1 if none),
        ``escape_time`` (from the entry until that mode reaches σ_j/2, NaN if it does not),
        ``growth_time`` (of these the last part, from σ_j/20 on, NaN if the mode is above that at
        the entry), and what the law says of both, ``predicted_escape_time`` and
        ``predicted_growth_time`` (NaN for raw inputs).

    Raises
    ------
    ValueError, TypeError
        If the run is of another network, or has no states, end-to-end maps or strengths of modes.

    Notes
    -----
    The law is the time along the connecting orbit (`connections`) between two strengths of the
    mode: t = [F(p_1/σ) − F(p_0/σ)] / (h σ^{2−2/h}) for an added mode, that of the turn for a swap.
    Every run that starts small follows it in the end, so that the growth takes the predicted time
    up to a part that vanishes with the start: at Gaussian starts of 1e-2 and 1e-3 within 8 % and
    0.1 % (σ = 4, 2, 1, widths 3, 6, …, 3, depths 2 to 4; close modes disturb each other more, those
    of the semantic data by up to 25 % at 1e-2). The escape from the strength at the entry follows
    it only if the run is on the orbit by then, as balanced, aligned runs are. Others still turn to
    it, and what they show of the mode may be the tilt of another one: in the same runs at depth 3
    and 4 the later escapes took 3 to 3e4 times as long as predicted.

    References
    ----------
    WA25, section 6; SMG14

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[3.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial("aligned", scale=1e-3))
    >>> visits = dl.saddle_visits(net, run)
    >>> visits.critical_point.values.tolist(), visits.escape_time.round(2).values.tolist()
    (['{}', '{0}', '{0,1}'], [2.49, 3.86, nan])
    """
    check_network(net)
    radius = check_number("radius", radius, minimum=0.0, maximum=1.0)
    found = visits_of(net, read_run(net, run), radius)
    names = (
        *("entry", "exit", "duration", "closest", "escape_time", "predicted_escape_time"),
        *("growth_time", "predicted_growth_time"),
    )
    variables = {n: ("visit", np.array([getattr(v, n) for v in found], float)) for n in names}
    labels = [schema.index_set_label(visit.modes) for visit in found]
    dataset = xr.Dataset(
        {**variables, "next_mode": ("visit", np.array([v.next_mode for v in found], np.int64))},
        coords={"critical_point": ("visit", np.array(labels, dtype=np.str_))},
    )
    return schema.finish(dataset, "visits", {**net.attributes(), "radius": radius})


def check_runs(name: str, net: LinearNetwork, runs: object) -> xr.Dataset:
    """Return runs over time, if they are that and of this network."""
    dims = set(runs.dims) if isinstance(runs, xr.Dataset) else set()
    if (
        not isinstance(runs, xr.Dataset)
        or runs.attrs.get("schema") != "run"
        or not ("time" in runs.variables and dims & {"time", "step"})
    ):
        raise TypeError(f"{name}: needs what flow returns, got {type(runs).__name__}")
    schema.check_digest(name, runs, net.digest)
    return runs


def read_run(net: LinearNetwork, run: object, name: str = "run") -> Trace:
    """Return what the visits of one run are found from."""
    run = check_runs(name, net, run)
    if "sample" in run.dims:
        raise TypeError(f"{name}: needs one run, got a stack; observed_connections takes these")
    run = _finite_rows(_in_order(name, net, run), name)
    left, sigma, right = net.singular_modes
    size = float(np.linalg.norm(net.target)) or 1.0
    image = _images(net, run)
    strength = np.empty(0) if image is None else net.image_strength(image)
    if "mode_strength" in run:  # with the digits that the map itself has rounded off
        strength = run["mode_strength"].values
    learnt = net.is_learnt(strength)
    nearest = np.where(learnt, sigma, 0.0)
    if image is None:
        lacking = np.where(learnt, 0.0, sigma)
        square = 2.0 * run["loss"].values + ((2.0 * strength - sigma) * lacking).sum(axis=-1)
        distance = np.sqrt(np.maximum(square, 0.0))
    else:
        distance = np.linalg.norm(image - (left * nearest[:, None, :]) @ right.T, axis=(-2, -1))
    time, low = run["time"].values, run["time_low"].values
    return Trace(time, low, strength, learnt, distance / size)


def _in_order(name: str, net: LinearNetwork, run: xr.Dataset) -> xr.Dataset:
    """Return a run with its dims in order; refuse one without what visits are found from."""
    rows = "step" if "step" in run.dims else "time"
    given = {
        "mode_strength": (rows, "mode"),
        "product": (rows, "row", "column"),
        "state": (rows, "parameter"),
    }
    wanted: dict[str, tuple[str, ...]] = dict.fromkeys(("time", "time_low", "loss"), (rows,))
    wanted |= {key: dims for key, dims in given.items() if key in run.data_vars}
    run = schema.check_content(name, run, {"stop_reason": (), **wanted})
    check_rows(name, run["time"].values)
    sizes = {"mode_strength": len(net.singular_values), "state": net.dim}
    for key, size in sizes.items():
        if key in run.data_vars and run[key].sizes[given[key][1]] != size:
            raise ValueError(f"{name}: {key!r} needs {size} numbers a row, has {run[key].sizes}")
    return run


def _finite_rows(run: xr.Dataset, name: str) -> xr.Dataset:
    """Return what tells the map of a run, up to the first row that is not all numbers."""
    known = [n for n in ("product", "state") if n in run][:1]
    strength = [n for n in ("mode_strength",) if n in run]
    if not known and not strength:
        raise ValueError(
            f"{name}: needs states, end-to-end maps or strengths of modes; use "
            "flow(..., save=['mode_strength'])"
        )
    names = ["time", "time_low", "loss", *known, *strength]
    rows = run["time_low"].dims[0]
    run = run.reset_coords()[names]
    numbers = np.ones(run.sizes[rows], bool)
    for each in names:
        finite = np.isfinite(run[each].values)
        numbers &= finite.all(axis=tuple(range(1, finite.ndim)))
    end = len(numbers) if numbers.all() else int(np.argmin(numbers))
    if numbers[end:].any():
        raise ValueError(f"{name}: needs rows without gaps, row {end} is not all numbers")
    return run.isel({rows: slice(end)})


def _images(net: LinearNetwork, run: xr.Dataset) -> Array | None:
    """Return W K at every row; None where strengths and the loss must do."""
    if "product" in run:
        return net.image_of(run["product"].values)
    if "state" in run:
        return net.image_of(net.product(run["state"].values)) if run["state"].size else None
    return None


def visits_of(
    net: LinearNetwork, trace: Trace, radius: float, *, merge: bool = False
) -> list[Visit]:
    """Return the visits of a run, in their order; returns to the same saddle may count as one."""
    stretches = _intervals(trace.learnt, trace.distance <= radius)
    if merge:
        labels = [trace.learnt[first].tobytes() for first, _ in stretches]
        groups = itertools.groupby(zip(labels, stretches, strict=True), key=lambda pair: pair[0])
        parts = [[stretch for _, stretch in group] for _, group in groups]
        stretches = [(part[0][0], part[-1][1]) for part in parts]
    sets = [tuple(np.flatnonzero(trace.learnt[first]).tolist()) for first, _ in stretches]
    return [
        _visit(net, trace, modes, after, *stretch)
        for modes, after, stretch in zip(sets, [*sets[1:], ()], stretches, strict=False)
    ]


def _intervals(learnt: NDArray[np.bool_], inside: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last row of the stretches inside one neighbourhood."""
    if not len(inside):
        return []
    changed = np.any(learnt[1:] != learnt[:-1], axis=1) | (inside[1:] != inside[:-1])
    edges = [0, *(np.flatnonzero(changed) + 1).tolist(), len(inside)]
    return [(a, b - 1) for a, b in itertools.pairwise(edges) if inside[a]]


def swapped(net: LinearNetwork, source: tuple[int, ...], target: tuple[int, ...]) -> int:
    """Return the mode i that a swap from one index set to another loses; −1 if it is none."""
    lost, gained = sorted({*source} - {*target}), sorted({*target} - {*source})
    if len(lost) != 1 or len(gained) != 1:
        return -1
    larger = exceeds(net.singular_values)[lost[0], gained[0]]
    return lost[0] if larger else -1


def _visit(
    net: LinearNetwork,
    trace: Trace,
    modes: tuple[int, ...],
    after: tuple[int, ...],
    first: int,
    last: int,
) -> Visit:
    times, mode = (np.nan, np.nan, np.nan, np.nan), -1
    later = np.flatnonzero(np.any(trace.learnt[last:] & ~trace.learnt[last], axis=1))
    if later.size:
        row = last + int(later[0])
        mode = int(np.argmax(trace.learnt[row] & ~trace.learnt[last]))
        lost = swapped(net, modes, after) if mode in after else -1
        times = _escape(net, trace, lost, mode, first, row)
    return Visit(
        modes,
        first,
        last,
        float(trace.time[first]),
        float(trace.time[last]),
        trace.between((first, 0.0), (last, 0.0)),
        float(trace.distance[first : last + 1].min()),
        mode,
        *times,
    )


def _escape(
    net: LinearNetwork, trace: Trace, lost: int, mode: int, first: int, row: int
) -> tuple[float, float, float, float]:
    """Return escape time and growth time up to a row, each by the run and by the law."""
    sigma, depth = net.singular_values, net.depth
    high = float(sigma[mode])
    small, half = GROWN_FROM * high, 0.5 * high
    end = _crossing(net, trace, (lost, mode), row, half)
    strength = trace.strength[first:row, mode]
    escape, growth = trace.between((first, 0.0), end), np.nan
    below = np.flatnonzero(strength <= small)
    if below.size:
        begin = _crossing(net, trace, (lost, mode), first + int(below[-1]) + 1, small)
        growth = trace.between(begin, end)
    law = [np.nan, np.nan]
    if net.whitened:
        law = [orbit_time(sigma, lost, mode, depth, p, half) for p in (float(strength[0]), small)]
    return escape, law[0], growth, law[1]


def _crossing(
    net: LinearNetwork, trace: Trace, pair: tuple[int, int], row: int, level: float
) -> tuple[int, float]:
    """Return the place in the step that ends at a row where a mode passes a level."""
    p, q = (float(trace.strength[k, pair[1]]) for k in (row - 1, row))
    part = np.nan
    if p < level < q:
        part, whole = (
            orbit_time(net.singular_values, *pair, net.depth, p, end) for end in (level, q)
        )
        part = part / whole
    if not 0.0 < part < 1.0:
        part = (level - p) / (q - p)
    return row - 1, part
