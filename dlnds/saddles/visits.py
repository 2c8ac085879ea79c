"""Saddles that runs pass: where they rest, for how long, and how long they should."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import xarray as xr

from dlnds import schema
from dlnds.arrays import Array, Flags, Integers
from dlnds.errors import check_number, known_options
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.theory import tolerances
from dlnds.theory.connecting import OPEN, connecting_sets
from dlnds.theory.coordinates import layers_of, product
from dlnds.theory.moments import exceeds, groups, limited

#: The part of σ_j from which on the growth of a mode is timed.
GROWN_FROM = 0.05
#: Parts of the time between two rows at which it is looked whether a saddle is near, and how far,
#: in terms of what passes, the field there may be off the cubic through the rows.
PARTS, FOLLOWED = np.linspace(0.0, 1.0, 11)[1:-1], 0.05
#: How far, in terms of the state, the field would lead between two rows that a cubic joins.
FARTHEST = 100.0
#: Stop reasons of runs that were cut off.
FAILURES = ("out_of_steps", "step_too_small", "not_finite")
#: What `overlay` takes over from what was observed.
OVERLAID = ("visited", "probability", "mean_escape_time", "mean_growth_time")
_COUNTED = ("radius", "n_runs", "n_failed")

IndexSet = tuple[int, ...]
#: Modes that are learnt, and on which roots: 1 on larger ones, −1 on smaller ones.
Point = tuple[IndexSet, IndexSet]


class Trace(NamedTuple):
    """The rows of a run that are numbers: the clock, and where the end-to-end map is.

    ``roots`` (row, mode) are those of the nearest critical point: 1 for modes at their larger
    critical strength, −1 at the smaller one, which there is under weight decay, and 0 at none.
    """

    time: Array
    low: Array
    strength: Array
    roots: Integers
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

    # The first two are its point.

    modes: IndexSet
    roots: tuple[int, ...]
    entry: float
    exit: float
    duration: float
    closest: float
    next_mode: int = -1
    escape_time: float = np.nan
    predicted_escape_time: float = np.nan
    growth_time: float = np.nan
    predicted_growth_time: float = np.nan


@known_options
def saddle_visits(net: LinearNetwork, run: xr.Dataset, *, radius: float = 0.05) -> xr.Dataset:
    """Return the sequence of critical values that a run rests at.

    A visit is an interval of saved rows in which the end-to-end map stays within ``radius`` of the
    same P_S Σ: ‖W K − P_S Σ‖_F ≤ radius ‖Σ‖_F, where S holds the modes with u_jᵀ W K v_j > σ_j/2;
    of more than r_max, as `critical_points` has it, those that bring P_S Σ nearest.
    Of equal σ_j that is any of the P_S Σ, which all have the same loss, and S holds the first ones,
    unless the run is diagonal among them: as `classify` names such a state.
    Under weight decay it is the map of the nearest of the `critical_points`: modes are nearest to
    s_j^h on their larger or their smaller root, or to 0, and visits have these names.
    A saddle that a run with states passes between two rows is seen, too, if they are close enough
    for a cubic, with the field at both, to have the field between them.

    Parameters
    ----------
    net
        The network that the run is of.
    run
        A run with ``state`` or ``product`` (`flow`, `exact_flow`, `as_run`, or `iterate` of
        `GradientDescent`), or one member of a stack; rows that it did not reach are left out. With
        ``mode_strength`` too, modes far below the rounding of those already learnt are seen.
        ``mode_strength`` alone is enough; ``closest`` is then known to 1e-8, and of equal σ_j other
        directions than those of the network are not seen.
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
        ``predicted_growth_time`` (NaN for raw inputs). Under weight decay σ_j/2 and σ_j/20 are so
        much of the way from the smaller to the larger root; modes that die have no such times.

    Raises
    ------
    ValueError, TypeError
        If the run is of another network, or has no states, end-to-end maps or strengths of modes;
        under weight decay if inputs are raw, or a layer does not decay.

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

    With weight decay it is the time of ṗ = h p^{2−2/h} (σ − p) − hλp (NaN for swaps, and where
    layers decay differently). Only maps are compared, with decay and without: layers may still be
    far from those of the saddle; imbalances fade like e^{−2λt}.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362), section 6; SMG14 (Saxe, McClelland & Ganguli,
    arXiv:1312.6120)

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[3.0, 0.0], [0.0, 1.0]])
    >>> run = dl.flow(net, net.initial("aligned", scale=1e-3))
    >>> visits = dl.saddle_visits(net, run)
    >>> visits.critical_point.values.tolist(), visits.escape_time.round(2).values.tolist()
    (['{}', '{0}', '{0,1}'], [2.49, 3.86, nan])
    """
    check_network(net, with_decay=True)
    radius = check_number("radius", radius, minimum=0.0, maximum=1.0)
    run = schema.read("run", run, "run", {}, digest=net.digest)
    if "sample" in run.dims:
        raise TypeError("run: needs one run, got a stack; observed_connections takes these")
    found = _visits(net, _trace("run", net, run, radius), radius)
    columns = {n: np.array([getattr(v, n) for v in found], float) for n in Visit._fields[2:]}
    columns["next_mode"] = columns["next_mode"].astype(np.int64)
    labels = np.array([net.point_name(visit.modes, visit.roots) for visit in found], np.str_)
    dataset = xr.Dataset(schema.columns("visit", **columns), {"critical_point": ("visit", labels)})
    return schema.finish(dataset, "visits", {**net.attributes(), "radius": radius})


def _trace(name: str, net: LinearNetwork, run: xr.Dataset, radius: float) -> Trace:
    """Return the rows of one run, up to the first that is not all numbers."""
    columns = _columns(name, net, run)
    rows = [np.isfinite(v).reshape(len(v), v[0].size).all(axis=1) for v in columns.values()]
    numbers = np.append(np.logical_and.reduce(rows), False)
    end = int(np.argmin(numbers))
    if numbers[end:].any():
        raise ValueError(f"{name}: needs rows without gaps, row {end} is not all numbers")
    columns = {key: values[:end] for key, values in columns.items()}
    if "state" in columns and end > 1:
        columns = _with_passages(net, columns, radius)
    maps = columns.get("product")
    if "state" in columns:
        maps = product(layers_of(net.widths, columns["state"]))
    image = None if maps is None else net.problem.image(maps)
    own = columns.get("mode_strength")  # with the digits that the map itself has rounded off
    if image is None:
        strength = columns["mode_strength"]
        roots = _roots(net, strength)
        distance = _distance_by_loss(net, strength, roots, columns["loss"])
    else:
        strength, frames = _turned(net, image, own)
        roots = _roots(net, strength)
        distance = _distance(net, image, frames, roots)
    return Trace(columns["time"], columns["time_low"], strength, roots, distance)


class Gaps(NamedTuple):
    """What a run does between its rows: the states before and after, and field times duration."""

    net: LinearNetwork
    before: Array
    after: Array
    leaving: Array
    arriving: Array

    def states(self, part: float) -> Array:
        """Return the states after a part of each gap, on cubics."""
        s, change = part, self.after - self.before
        bend = (1.0 - s) * (self.leaving - change) - s * (self.arriving - change)
        return self.before + s * change + s * (1.0 - s) * bend

    def near(self, part: float, roots: Integers | None = None) -> tuple[Integers, Array]:
        """Return the roots of all modes after a part of each gap, and how far their maps are."""
        image = self.net.image(self.states(part))
        strength, frames = _turned(self.net, image)
        if roots is None:
            roots = _roots(self.net, strength)
        return roots, _distance(self.net, image, frames, roots)

    def follow(self, durations: Array) -> Flags:
        """Tell in which gaps the cubic has the field in the middle, too."""
        change = self.after - self.before
        slope = 1.5 * change - 0.25 * (self.leaving + self.arriving)
        off = slope + durations[:, None] * self.net.gradient(self.states(0.5))
        size = np.linalg.norm([change, self.leaving, self.arriving], axis=-1).max(axis=0)
        close: Flags = np.linalg.norm(off, axis=-1) <= FOLLOWED * size
        return close


def _with_passages(
    net: LinearNetwork, columns: dict[str, Array], radius: float
) -> dict[str, Array]:
    """Return columns with rows where the run comes near a saddle between two of its rows."""
    states, times = columns["state"], columns["time"]
    durations = np.diff(times) + np.diff(columns["time_low"])
    forces = -net.gradient(states)
    with np.errstate(over="ignore"):
        moves = durations[:, None] * forces[:-1], durations[:, None] * forces[1:]
        longest = np.linalg.norm(moves, axis=-1).max(axis=0)
    sizes = np.linalg.norm(states, axis=1)
    near = longest <= FARTHEST * np.maximum(sizes[:-1], sizes[1:])
    numbers, durations = np.flatnonzero(near), durations[near]
    if not numbers.size:
        return columns
    ends = states[:-1][near], states[1:][near]
    gaps = Gaps(net, *ends, *(move[near] for move in moves))
    sides = [gaps.near(part) for part in (0.0, 1.0)]
    least, at = np.full(len(durations), 2.0 * radius), np.zeros(len(durations))
    for part in PARTS:
        roots, distance = gaps.near(part)
        seen = [(d <= radius) & (same == roots).all(axis=1) for same, d in sides]
        closer = (distance < least) & ~seen[0] & ~seen[1]
        least, at = np.where(closer, distance, least), np.where(closer, part, at)
    gap_numbers = np.flatnonzero((at > 0.0) & gaps.follow(durations))
    found = [(int(k), p) for k in gap_numbers for p in _passage(gaps, int(k), at[k], radius)]
    if not found:
        return columns
    rows, parts = numbers[[k for k, _ in found]] + 1, np.array([p for _, p in found])
    new = {"state": np.stack([gaps.states(p)[k] for k, p in found])}
    late = parts * durations[[k for k, _ in found]]
    new |= {"time": times[rows - 1] + late, "time_low": np.zeros(len(rows))}
    new |= {"loss": net.data_loss(new["state"])}
    new |= {"mode_strength": net.problem.strength(net.image(new["state"]))}
    return {key: np.insert(values, rows, new[key], axis=0) for key, values in columns.items()}


def _passage(gaps: Gaps, k: int, part: float, radius: float) -> list[float]:
    """Return where in a gap the run is near a saddle: at first, nearest and at last; or nothing."""
    one = Gaps(gaps.net, *(values[k : k + 1] for values in gaps[1:]))
    roots, _ = one.near(part)

    def excess(s: float) -> float:
        return float(one.near(s, roots)[1][0]) - radius

    place = int(np.argmin(np.abs(PARTS - part)))
    around = np.concatenate([[0.0], PARTS, [1.0]])[place : place + 3]
    nearest = scipy.optimize.minimize_scalar(excess, bounds=around[[0, 2]], method="bounded")
    middle = float(nearest.x)
    if not nearest.fun < 0.0:
        return []
    sides = [
        scipy.optimize.brentq(excess, end, middle) if excess(end) > 0.0 else end
        for end in (0.0, 1.0)
    ]
    return [s + 1e-9 * (middle - s) for s in (sides[0], middle, sides[1])]


def _columns(name: str, net: LinearNetwork, run: xr.Dataset) -> dict[str, Array]:
    """Return what the visits of one run are found from; refuse a run without it."""
    rows = next((dim for dim in ("step", "iteration") if dim in run.dims), "time")
    shapes = {
        "product": (net.widths[-1], net.widths[0]),
        "state": (net.dim,),
        "mode_strength": net.singular_values.shape,
    }
    known = [key for key in ("product", "state") if key in run.variables][:1]
    known += [key for key in ("mode_strength",) if key in run.variables]
    if not known:
        raise ValueError(
            f"{name}: needs states, end-to-end maps or strengths of modes; use "
            "flow(..., save=['mode_strength'])"
        )
    clock = [key for key in ("time", "time_low") if key == "time" or key in run.variables]
    loss = "data_loss" if "data_loss" in run.variables else "loss"  # without weight decay
    wanted: dict[str, tuple[str, ...]] = dict.fromkeys((*clock, loss), (rows,))
    dims = {"product": ("row", "column"), "state": ("parameter",), "mode_strength": ("mode",)}
    wanted |= {key: (rows, *dims[key]) for key in known}
    run = schema.read(name, run, "run", {"stop_reason": (), **wanted}, partial=wanted)
    columns = {key: run[key].values for key in wanted}
    columns["loss"] = columns.pop(loss)
    columns.setdefault("time_low", np.zeros(len(columns["time"])))
    for key in known:
        if columns[key].shape[1:] != shapes[key]:
            raise ValueError(f"{name}: {key!r} needs rows of the shape {shapes[key]}")
    return columns


def _turned(
    net: LinearNetwork, image: Array, own: Array | None = None
) -> tuple[Array, list[Array]]:
    """Return strengths of modes in maps W K (row, d_h, k), and the u_j and v_j that they are of.

    Of equal σ_j other directions may be learnt. They are numbered by strength then, as `classify`
    numbers them, unless all maps are diagonal among them. Strengths may be known (``own``) better.
    """
    left, sigma, right = net.singular_modes
    strength, frames = net.problem.strength(image) if own is None else own, [left, right]
    for group in groups(sigma):
        block = left[:, group].T @ image @ right[:, group]
        block = 0.5 * (block + np.swapaxes(block, -2, -1))
        mixed = np.abs(block[:, ~np.eye(len(group), dtype=bool)])
        if mixed.max(initial=0.0) <= tolerances.MODE * sigma[group[0]]:
            continue
        values, vectors = np.linalg.eigh(block)
        strength = strength.copy()
        strength[:, group] = values[:, ::-1]
        for k, basis in enumerate((left, right)):
            frames[k] = np.array(np.broadcast_to(frames[k], (len(image), *basis.shape)))
            frames[k][..., group] = basis[:, group] @ vectors[..., ::-1]
    return strength, frames


def _roots(net: LinearNetwork, strength: Array) -> Integers:
    """Return on which roots modes (row, mode) are at the nearest critical point, see `Trace`.

    It has at most `max_rank` modes: those that bring its map nearest, by p² − (p − p_S)² each; of
    a single layer all.
    """
    lower, upper = net.critical_strengths
    on_upper = (strength > 0.5 * (lower + upper)) & (upper > 0.0)
    on_lower = (strength > 0.5 * lower) & (lower > 0.0)
    if net.depth == 1:
        on_upper |= upper > 0.0
    roots = np.where(on_upper, 1, -1 * on_lower)
    nearest = _at_roots(net, roots)
    gain = nearest * (2.0 * strength - nearest)
    return np.where(limited(roots != 0, gain, net.max_rank), roots, 0)


def _at_roots(net: LinearNetwork, roots: Integers) -> Array:
    """Return the strengths of modes on these roots."""
    lower, upper = net.critical_strengths
    return np.where(roots > 0, upper, np.where(roots < 0, lower, 0.0))


def _distance(net: LinearNetwork, image: Array, frames: list[Array], roots: Integers) -> Array:
    """Return how far maps are from the critical one in terms of ‖Σ‖_F, by `_turned` modes."""
    left, right = frames
    nearest = left * _at_roots(net, roots)[:, None, :]
    lack: Array = np.linalg.norm(image - nearest @ np.swapaxes(right, -2, -1), axis=(-2, -1))
    return lack / _size(net)


def _distance_by_loss(net: LinearNetwork, strength: Array, roots: Integers, loss: Array) -> Array:
    """Return the same by strengths and loss."""
    sigma = net.singular_values
    lacking = sigma - _at_roots(net, roots)
    square = 2.0 * loss + ((2.0 * (strength - sigma) + lacking) * lacking).sum(axis=-1)
    lack: Array = np.sqrt(np.maximum(square, 0.0))
    return lack / _size(net)


def _size(net: LinearNetwork) -> float:
    return float(np.linalg.norm(net.target)) or 1.0


def _visits(net: LinearNetwork, trace: Trace, radius: float, *, merge: bool = False) -> list[Visit]:
    """Return the visits of a run, in their order; returns to the same saddle may count as one."""
    found: list[tuple[int, int]] = []
    for first, last in _intervals(trace.roots, trace.distance <= radius):
        if merge and found and (trace.roots[found[-1][0]] == trace.roots[first]).all():
            first, _ = found.pop()
        found.append((first, last))
    sets = [tuple(np.flatnonzero(trace.roots[first]).tolist()) for first, _ in found]
    return [
        _visit(net, trace, *stretch) for stretch in zip(found, sets, [*sets[1:], ()], strict=False)
    ]


def _intervals(roots: Integers, inside: Flags) -> list[tuple[int, int]]:
    """Return first and last row of the stretches inside one neighbourhood."""
    if not len(inside):
        return []
    changed = np.any(roots[1:] != roots[:-1], axis=1) | (inside[1:] != inside[:-1])
    edges = [0, *(np.flatnonzero(changed) + 1).tolist(), len(inside)]
    return [(a, b - 1) for a, b in itertools.pairwise(edges) if inside[a]]


def _visit(
    net: LinearNetwork, trace: Trace, rows: tuple[int, int], modes: IndexSet, after: IndexSet
) -> Visit:
    """Return what is known of a stretch of rows near a set of modes, with the one ``after``."""
    first, last = rows
    visit = Visit(
        modes,
        tuple(trace.roots[first, list(modes)].tolist()),
        entry=float(trace.time[first]),
        exit=float(trace.time[last]),
        duration=trace.between((first, 0.0), (last, 0.0)),
        closest=float(trace.distance[first : last + 1].min()),
    )
    gained = (trace.roots[last:] > 0) & ~(trace.roots[last] > 0)
    later = np.flatnonzero(gained.any(axis=1))
    if not later.size:
        return visit
    row, mode = last + int(later[0]), int(np.argmax(gained[later[0]]))
    lost = _swapped(net, modes, after) if mode in after else -1
    times: dict[str, Any] = _escape(net, trace, lost, mode, first, row)
    return visit._replace(next_mode=mode, **times)


def _swapped(net: LinearNetwork, source: IndexSet, target: IndexSet) -> int:
    """Return the mode i that a swap from one index set to another loses; −1 if it is none."""
    lost, gained = sorted({*source} - {*target}), sorted({*target} - {*source})
    if len(lost) != 1 or len(gained) != 1:
        return -1
    larger = exceeds(net.singular_values)[lost[0], gained[0]]
    return lost[0] if larger else -1


def _escape(
    net: LinearNetwork, trace: Trace, lost: int, mode: int, first: int, row: int
) -> dict[str, float]:
    """Return escape time and growth time up to a row, each by the run and by the law."""
    low, high = (float(strengths[mode]) for strengths in net.critical_strengths)
    small, half = (low + part * (high - low) for part in (GROWN_FROM, 0.5))
    strength = trace.strength[first:row, mode]
    unlearnt = np.flatnonzero(strength <= half)
    if not unlearnt.size:  # more modes have grown than can be learnt, and this one already had
        return {}
    strength = strength[: int(unlearnt[-1]) + 1]
    end = _crossing(net, trace, (lost, mode), first + len(strength), half)
    times = {"escape_time": trace.between((first, 0.0), end)}
    below = np.flatnonzero(strength <= small)
    if below.size:
        begin = _crossing(net, trace, (lost, mode), first + int(below[-1]) + 1, small)
        times["growth_time"] = trace.between(begin, end)
    if net.whitened:
        starts = {"predicted_escape_time": float(strength[0]), "predicted_growth_time": small}
        times |= {name: net.orbit_time(lost, mode, p, half) for name, p in starts.items()}
    return times


def _crossing(
    net: LinearNetwork, trace: Trace, pair: tuple[int, int], row: int, level: float
) -> tuple[int, float]:
    """Return the place in the step that ends at a row where a mode passes a level."""
    p, q = (float(trace.strength[k, pair[1]]) for k in (row - 1, row))
    part = np.nan
    if p < level < q:
        times = [net.orbit_time(*pair, p, r) for r in (level, q)]
        part = times[0] / times[1]
    if not 0.0 < part < 1.0:
        part = (level - p) / (q - p)
    return row - 1, part


@known_options
def observed_connections(
    net: LinearNetwork, runs: xr.Dataset, *, radius: float = 0.05
) -> xr.Dataset:
    """Return which saddles an ensemble of runs visits in which order, with counts and times.

    Parameters
    ----------
    net
        The network that the runs are of.
    runs
        A stack of runs, or one run, with what `saddle_visits` needs; ``save=["mode_strength"]`` is
        the least. Those of gradient descent are taken as those of the flow.
    radius
        Size of the neighbourhoods, as for `saddle_visits`.

    Returns
    -------
    xarray.Dataset
        Schema ``observed_connections``.

        Dim ``edge``, each transition that was made, with the coordinates ``source`` and ``target``:
        ``visited``, how many runs made it; ``probability``, their part of all departures from the
        source; ``kind``, ``add`` and ``swap`` as in `connections` or ``other`` (such as two modes
        at once), and ``is_connection``, 0 for these; ``leads``, whether runs lead from source to
        target for the balanced flow, as in `connections`: ``no``, a single ``orbit``, a ``set``, or
        ``open``, which it is for raw inputs and under weight decay; ``drop`` of the loss. Of the
        first mode that is learnt: ``mean_escape_time`` from the entry until it reaches σ_j/2, and
        of that ``mean_growth_time``, from σ_j/20 on, each with its standard deviation ``std_…``
        over the runs and with ``law_…``, what the law says (below); NaN where no run tells.

        Dim ``critical_point``, each index set that runs rest near: ``visitors``, how many runs do,
        ``ended``, how many end there, ``mean_entry`` and ``mean_duration`` (of visits that are
        left), ``rank`` and ``loss``.

        Dim ``sample``: ``sequence``, the index sets in their order as text, such as
        ``"{} {0} {0,1}"``, and ``stop_reason``. Runs that were cut off (out of steps, steps too
        small, not finite) count with what they did before; the attribute ``n_failed`` tells how
        many they are.

    Raises
    ------
    ValueError, TypeError
        If the runs are of another network, or have neither states, end-to-end maps, nor strengths.

    Notes
    -----
    The laws are those of `saddle_visits`. ``law_growth_time`` is the time from σ_j/20 to σ_j/2
    along the connecting orbit, which runs from small starts tend to, aligned or not.
    ``law_escape_time`` starts from the strength at the entry and is the right time for balanced,
    aligned starts only: others tend to no orbit before they grow, and how long that takes depends
    on the start; only the exponent of their escape time ~ ε^{−(h−2)} is known (KH25).

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362), section 6; KH25 (Kumar & Haupt, arXiv:2502.15952)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[3.0, 0.0], [0.0, 1.0]])
    >>> starts = np.stack([net.initial(scale=1e-3, rng=seed) for seed in range(5)])
    >>> runs = dl.flow(net, starts, save=["mode_strength"])
    >>> seen = dl.observed_connections(net, runs)
    >>> sorted(set(seen.sequence.values.tolist())), seen.visited.values.tolist()
    (['{} {0} {0,1}'], [5, 5])
    """
    check_network(net, with_decay=True)
    radius = check_number("radius", radius, minimum=0.0, maximum=1.0)
    runs = schema.read("runs", runs, "run", {}, digest=net.digest)
    if "sample" not in runs.dims:
        runs = runs.drop_vars("sample", errors="ignore").expand_dims("sample")
    members = (runs.isel(sample=k) for k in range(runs.sizes["sample"]))
    paths = [_visits(net, _trace("runs", net, run, radius), radius, merge=True) for run in members]
    texts = [" ".join(net.point_name(*visit[:2]) for visit in path) for path in paths]
    failed = np.isin(schema.decode(runs["stop_reason"]).values, FAILURES)
    variables = {
        **_edges(net, paths),
        **_points(net, paths),
        "sequence": ("sample", np.array(texts, dtype=np.str_)),
        "stop_reason": ("sample", runs["stop_reason"].values),
        "sample": runs["sample"].values,
    }
    dataset = xr.Dataset(variables).set_coords(("source", "target"))
    counts = {"radius": radius, "n_runs": len(paths), "n_failed": int(failed.sum())}
    return schema.finish(dataset, "observed_connections", {**net.attributes(), **counts})


def _edges(net: LinearNetwork, paths: Sequence[Sequence[Visit]]) -> dict[str, tuple[str, Array]]:
    """Return the transitions that were made, by source and target; once for each run."""
    made: dict[tuple[Point, Point], list[Visit]] = defaultdict(list)
    for path in paths:
        first = {(a[:2], b[:2]): a for a, b in reversed(list(itertools.pairwise(path)))}
        for pair, visit in first.items():
            made[pair].append(visit)
    pairs = sorted(made, key=lambda pair: (_order(pair[0]), _order(pair[1])))
    departures = Counter(source for source, target in pairs for _ in made[source, target])
    visited = np.array([len(made[pair]) for pair in pairs], np.int64)
    kinds = [_kind(net, *pair) for pair in pairs]
    drops = [net.point_loss(*source) - net.point_loss(*target) for source, target in pairs]
    return schema.columns(
        "edge",
        source=np.array([net.point_name(*source) for source, _ in pairs], np.str_),
        target=np.array([net.point_name(*target) for _, target in pairs], np.str_),
        kind=schema.flag(schema.OBSERVED_KINDS, kinds),
        is_connection=np.array([kind != "other" for kind in kinds], np.int8),
        leads=_leads(net, pairs),
        visited=visited,
        probability=visited / np.array([departures[source] for source, _ in pairs], float),
        drop=np.array(drops, float),
        **_times([made[pair] for pair in pairs]),
    )


def _leads(net: LinearNetwork, pairs: Sequence[tuple[Point, Point]]) -> Array:
    """Return for each pair of points whether runs lead from one to the other.

    That is open for raw inputs, and under weight decay.
    """
    if not net.whitened or net.is_decayed:
        return np.full(len(pairs), OPEN, np.int8)
    number = np.arange(len(net.singular_values))
    learnt = np.array([np.isin(number, modes) for pair in pairs for modes, _ in pair], bool)
    rows = 2 * np.arange(len(pairs))
    found = connecting_sets(
        net.widths, net.singular_values, learnt.reshape(-1, len(number)), (rows, rows + 1)
    )
    return found.leads.astype(np.int8)


def _times(leavings: Sequence[Sequence[Visit]]) -> dict[str, Array]:
    """Return mean times, their spread over runs, and what the law says, of each transition."""

    def moments(name: str) -> Array:
        found = [_mean_and_spread(getattr(v, name) for v in visits) for visits in leavings]
        return np.reshape(found, (-1, 2)).T

    columns = {}
    for name in ("escape_time", "growth_time"):
        columns[f"mean_{name}"], columns[f"std_{name}"] = moments(name)
        columns[f"law_{name}"], _ = moments(f"predicted_{name}")
    return columns


def _points(net: LinearNetwork, paths: Sequence[Sequence[Visit]]) -> dict[str, tuple[str, Array]]:
    """Return the index sets that runs rest near, by rank."""
    entries, stays = defaultdict(list), defaultdict(list)
    for path in paths:
        for visit in path:
            entries[visit[:2]].append(visit.entry)
        for visit in path[:-1]:
            stays[visit[:2]].append(visit.duration)
    visitors = Counter(point for path in paths for point in {visit[:2] for visit in path})
    ended = Counter(path[-1][:2] for path in paths if path)
    points = sorted(entries, key=_order)
    return schema.columns(
        "critical_point",
        critical_point=np.array([net.point_name(*point) for point in points], np.str_),
        visitors=np.array([visitors[point] for point in points], np.int64),
        ended=np.array([ended[point] for point in points], np.int64),
        mean_entry=np.array([_mean_and_spread(entries[point])[0] for point in points]),
        mean_duration=np.array([_mean_and_spread(stays[point])[0] for point in points]),
        rank=np.array([len(modes) for modes, _ in points], np.int64),
        loss=np.array([net.point_loss(*point) for point in points]),
    )


def _order(point: Point) -> tuple[int, IndexSet, IndexSet]:
    """Return what points are sorted by: as `critical_points` lists them."""
    modes, roots = point
    return len(modes), modes, tuple(-root for root in roots)


def _kind(net: LinearNetwork, start: Point, end: Point) -> str:
    """Return which connecting orbit leads from a point to another, or 'other'."""
    (source, roots), (target, others) = start, end
    if net.depth > 1 and len(target) <= net.max_rank and min((*roots, *others), default=1) > 0:
        if len(target) == len(source) + 1 and {*source} < {*target}:
            return "add"
        if _swapped(net, source, target) >= 0:
            return "swap"
    return "other"


def _mean_and_spread(values: Iterable[float]) -> tuple[float, float]:
    """Return mean and standard deviation of the numbers among values, whatever their order."""
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return math.nan, math.nan
    mean = math.fsum(numbers) / len(numbers)
    square = math.fsum((value - mean) ** 2 for value in numbers) / len(numbers)
    return mean, math.sqrt(square)


@known_options
def overlay(graph: xr.Dataset, observed: xr.Dataset) -> xr.Dataset:
    """Return the graph of connecting orbits with what runs did on each of its edges.

    Parameters
    ----------
    graph
        What `connections` returns.
    observed
        What `observed_connections` returns for runs of the same network.

    Returns
    -------
    xarray.Dataset
        The graph, schema ``connections``, with ``visited`` and ``probability`` (0 where no run
        went), and ``mean_escape_time`` and ``mean_growth_time`` (NaN there). Transitions that are
        none of its edges stay in ``observed``; the attribute ``n_outside`` counts how often runs
        made such.

    Raises
    ------
    ValueError, TypeError
        If they are of two networks, or not what they should be.

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 2, 2), target=[[3.0, 0.0], [0.0, 1.0]])
    >>> seen = dl.observed_connections(net, dl.flow(net, net.initial(scale=1e-3, rng=0)))
    >>> graph = dl.overlay(dl.connections(net), seen)
    >>> graph.visited.values.tolist(), graph.source.values.tolist()
    ([1, 0, 1, 0, 0], ['{}', '{}', '{0}', '{1}', '{1}'])
    """
    whole, digest, empty = schema.REQUIRED["connections"], ["problem_digest"], ["edge"]
    table = {"leads": ("start_point", "end_point")}
    graph = schema.read(
        "graph", graph, "connections", whole, optional=table, attributes=digest, empty=empty
    )
    observed = schema.read(
        "observed",
        observed,
        "observed_connections",
        dict.fromkeys(("source", "target", *OVERLAID), ("edge",)),
        attributes=_COUNTED,
        digest=graph.attrs["problem_digest"],
        empty=empty,
        partial=[name for name in OVERLAID if name.startswith("mean")],
    )
    place = {pair: row for row, pair in enumerate(_pairs(observed))}
    rows = np.array([place.get(pair, -1) for pair in _pairs(graph)], np.int64)
    columns = {}
    for name in OVERLAID:
        values, nothing = observed[name].values, np.nan if name.startswith("mean") else 0
        columns[name] = np.append(values, np.array(nothing, values.dtype))[rows]
    outside = int(observed["visited"].sum()) - int(columns["visited"].sum())
    counts = {key: observed.attrs[key] for key in _COUNTED}
    attrs = {**graph.attrs, **counts, "n_outside": outside}
    return schema.finish(graph.assign(schema.columns("edge", **columns)), "connections", attrs)


def _pairs(data: xr.Dataset) -> Iterable[tuple[str, str]]:
    """Return source and target of each edge."""
    return zip(data["source"].values, data["target"].values, strict=True)
