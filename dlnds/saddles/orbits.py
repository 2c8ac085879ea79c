"""Orbits of the manifolds of hyperbolic equilibria of any flow, and what they tend to."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import xarray as xr
from tqdm import tqdm

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import (
    ConvergenceError,
    check_generator,
    check_integer,
    check_memory,
    check_number,
)
from dlnds.landscape.newton import find_critical_point
from dlnds.runs.events import Event
from dlnds.runs.flow import flow
from dlnds.saddles.hyperbolic import (
    LARGEST_START,
    Equilibrium,
    Local,
    equilibrium,
    local,
)
from dlnds.systems.paths import PathFlow
from dlnds.theory import tolerances

#: Where orbits end that go away, in units of lengths; the shortest reach, in those of `size_of`.
REACH, NEAREST = 100.0, 1e-6
#: The shortest orbit that can be asked for, in units of lengths.
SHORTEST = 2.0 * LARGEST_START
#: An orbit is asked what it comes to whenever its speed has fallen by this factor.
SLOWER = 0.1
#: Distance from a stable manifold, in units of ``rtol``, up to which an orbit may be on it.
UNCLEAR = 10.0
#: Part of the fall of a Lyapunov function by the linearization that has to be left around a sink,
#: in so many random directions beside the axes.
FALL, DIRECTIONS = 0.5, 64
#: The most orbits of a fan that a spacing asks for, and the least difference of their angles.
MOST_FIBRES, CLOSEST = 512, 1e-13


class Growth(NamedTuple):
    """What all orbits of one manifold share."""

    local: Local
    system: PathFlow
    reach: float
    length: float
    rtol: float
    max_steps: int

    @property
    def accuracy(self) -> float:
        """The absolute accuracy that is asked for."""
        return self.rtol * self.local.at.size


class Arrival(NamedTuple):
    """What an orbit comes to, if anything, and what decided that; ``rests`` if it is there."""

    at: Equilibrium | None = None
    decision: str = "none"
    rests: bool = False


class Orbit(NamedTuple):
    """One orbit: the coordinates and the error of its start, its pieces, and how it ended.

    Pieces are states (…, s) with their times, each integrated on its own; ``passed`` are the states
    at the events that were watched.
    """

    y: Array
    error: float
    pieces: list[tuple[Array, Array]]
    passed: Array
    stop_reason: str
    arrival: Arrival

    @property
    def length(self) -> float:
        """The length of the path."""
        return float(self.pieces[-1][1][-1, -1])


#: An orbit with its times and states (…, s).
Grown = tuple[Orbit, tuple[Array, Array]]


def growth_of(
    at: Equilibrium, reach: float | None, length: float | None, rtol: float, max_steps: int
) -> Growth:
    """Return how to grow the unstable manifold of an equilibrium."""
    if reach is None:
        reach = REACH * at.size
    else:
        check_number("reach", reach, minimum=NEAREST * at.size)
        at = at._replace(unit=reach / REACH)
    if length is not None:
        check_number("length", length, minimum=SHORTEST * at.size)
    limit = np.inf if length is None else length
    return Growth(local(at), PathFlow(at.system, at.backward), reach, limit, rtol, max_steps)


def follow(growth: Growth, y: Array, watched: Sequence[Event] = ()) -> Orbit:
    """Return the orbit that starts in the direction of y, until its end is known."""
    found = growth.local
    y, error = found.start(y, growth.accuracy)
    state = found.point(y)
    x, t, left = np.append(state, np.linalg.norm(state - found.at.state)), 0.0, growth.max_steps
    pieces: list[tuple[Array, Array]] = []
    passed: list[Array] = []
    arrival = Arrival()
    limits = _limits(growth)
    while True:
        events = [*limits, _slow(found.field), *watched]
        options: dict[str, Any] = {"rtol": growth.rtol, "max_steps": left, "events": events}
        run = flow(growth.system, x, (t, np.inf), **options)
        run = run.isel(time=np.isfinite(run["time"].values))  # what rests goes on for ever
        pieces.append((run["time"].values, run["state"].values))
        passed.append(run["state"].values[run["event"].values > len(limits), :-1])
        reason = schema.STOP_REASONS[int(run["stop_reason"])]
        x, t, left = pieces[-1][1][-1], float(pieces[-1][0][-1]), left - run.attrs["n_steps"]
        slow = reason == "event" and run["event"].values[-1] == len(limits)
        if slow:
            arrival = arrived(growth, x[:-1])
        if not slow or arrival.at is not None or arrival.rests or left < 1:
            reason = "out_of_steps" if slow and arrival.at is None else reason
            reason = "at_rest" if reason == "end_reached" or arrival.rests else reason
            return Orbit(y, error, pieces, np.concatenate(passed), reason, arrival)


def _limits(growth: Growth) -> list[Event]:
    """Return the events that an orbit has gone far enough."""
    centre = growth.local.at.state

    def away(x: Array) -> float:
        return float(np.linalg.norm(x[:-1] - centre)) - growth.reach

    def long(x: Array) -> float:
        return float(x[-1]) - growth.length

    events = [Event(away, "reach", 1, terminal=True), Event(long, "length", 1, terminal=True)]
    return events if np.isfinite(growth.length) else events[:1]


def _slow(field: Callable[[Array], Array]) -> Event:
    """Return the event that an orbit is much slower than it was."""
    fastest = 0.0

    def excess(x: Array) -> float:
        nonlocal fastest
        speed = float(np.linalg.norm(field(x[:-1])))
        fastest = max(fastest, speed)
        return speed - SLOWER * fastest

    return Event(excess, "slow", -1, terminal=True)


def arrived(growth: Growth, x: Array) -> Arrival:
    """Return which equilibrium an orbit that is at ``x`` comes to, if that can be told.

    One that attracts, and around which a Lyapunov function of its linearization falls from where
    the orbit is, for sure: ``trapped``. A saddle if the orbit was as near to its stable manifold as
    its accuracy allows to tell when it came: since, the distance has grown like e^{λt} while the
    other coordinates fell like e^{−μt}, the fastest and the slowest rate. Where the expansion of
    that manifold is not as accurate, nothing is said yet. One among others, as the states that a
    symmetry makes of one, attracts none of them: there the orbit rests once it is as near as it is
    accurate.
    """
    system, backward = growth.system.system, growth.system.backward
    try:
        state = find_critical_point(system, x)["state"].values
        at = equilibrium("x", system, state, tolerances.MODE, backward=backward)
        at = at._replace(unit=growth.local.at.unit)
    except (ConvergenceError, ValueError):
        return Arrival()
    if at.central and not at.unstable:
        return Arrival(rests=bool(np.linalg.norm(x - state) <= UNCLEAR * growth.accuracy))
    if at.central or not at.stable:
        return Arrival()
    if not at.unstable:
        return Arrival(at, "trapped") if _trapped(at, x) else Arrival()
    other, near = local(at.reversed()), float(np.linalg.norm(x - at.state)) / at.size
    rates = at.values.real
    shrunk = near ** (rates.max() / -rates[rates < 0.0].max())
    gap = float(np.linalg.norm(other.complement @ other.gap(x)))
    known = other.error(other.onto @ (x - at.state))
    unclear = near < 1.0 and max(gap, known) * shrunk <= UNCLEAR * growth.accuracy
    return Arrival(at, "within_accuracy") if unclear else Arrival()


def _trapped(at: Equilibrium, x: Array) -> bool:
    """Tell whether V = dᵀPd, AᵀP + PA = −1, falls in all directions from the level of ``x`` on."""
    field, away = at.field(), x - at.state
    P = scipy.linalg.solve_continuous_lyapunov(at.matrix.T, -np.eye(x.size))
    axes = np.linalg.inv(np.linalg.cholesky(P))
    level = float(np.sqrt(away @ P @ away))
    random = np.random.default_rng(0).normal(size=(DIRECTIONS, x.size))
    random = random / np.linalg.norm(random, axis=1)[:, None] @ axes
    shell = [*axes, *-axes, *random, away / max(level, np.finfo(float).tiny)]
    for part in level * 0.5 ** np.arange(4.0):
        for d in part * np.array(shell):
            if field(at.state + d) @ P @ d > -0.5 * FALL * (d @ d):
                return False
    return True


def sampled(growth: Growth, orbit: Orbit, count: int) -> tuple[Array, Array]:
    """Return times and states (…, s) at about equal distances along the path."""
    way = np.concatenate([states[:, -1] for _, states in orbit.pieces])
    time = np.concatenate([times for times, _ in orbit.pieces])
    wanted = np.interp(np.linspace(way[0], way[-1], count), way, time)
    wanted[0], wanted[-1] = time[0], time[-1]
    rows = []
    for number, (times, states) in enumerate(orbit.pieces):
        last = number == len(orbit.pieces) - 1
        inside = (wanted >= times[0]) & ((wanted < times[-1]) | last)
        rows.append(_states_at(growth, times, states, wanted[inside]))
    return wanted, np.concatenate(rows)


def _states_at(growth: Growth, times: Array, states: Array, wanted: Array) -> Array:
    """Return the states at some times of a piece: the steps are the same once more."""
    ends = {float(times[0]): states[0], float(times[-1]): states[-1]}
    grid = np.unique([t for t in wanted if t not in ends])
    if grid.size:
        span, steps = (float(times[0]), float(times[-1])), 2 * growth.max_steps
        run = flow(growth.system, states[0], span, grid, rtol=growth.rtol, max_steps=steps)
        ends |= dict(zip(run["time"].values.tolist(), run["state"].values, strict=True))
    return np.reshape([ends[float(t)] for t in wanted], (-1, states.shape[1]))


def circle(found: Local) -> Array:
    """Return a linear map of the unit sphere to a surface across which the manifold flows out."""
    k = len(found.inner)
    P = scipy.linalg.solve_continuous_lyapunov(found.inner.T, np.eye(k))
    return np.asarray(np.linalg.inv(np.linalg.cholesky(P)).T)


def at_angle(found: Local, angle: float) -> Array:
    """Return coordinates of a direction of a two-dimensional manifold, by its angle."""
    turned: Array = circle(found) @ np.array([np.cos(angle), np.sin(angle)])
    return turned


def directions(found: Local, number: int | None, vectors: Array, rng: Any) -> list[Array]:
    """Return coordinates of directions to start in.

    Without a number both sides of given vectors; else around the circle, or at random.
    """
    k = len(found.inner)
    if number is None or k == 1:
        rows = vectors @ found.onto.T
        return [side * y for y in rows for side in (1.0, -1.0)]
    if k == 2:
        return [at_angle(found, a) for a in 2.0 * np.pi * np.arange(number) / number]
    if not k:
        return []
    random = check_generator("rng", rng).normal(size=(number, k))
    units = random / np.linalg.norm(random, axis=1)[:, None]
    return list(units @ circle(found).T)


def grow(
    growth: Growth,
    manifold: xr.Dataset,
    n_fibres: int | None,
    count: int,
    spacing: float | None,
    rng: Any,
    workers: int,
    *,
    quiet: bool,
) -> xr.Dataset:
    """Return orbits on the manifold of an equilibrium: schema ``orbits``."""
    found, vectors = growth.local, manifold["frame"].values
    k = len(found.inner)
    if n_fibres is not None:
        number = check_integer("n_fibres", n_fibres, minimum=1)
        check_memory("n_fibres", number * count * growth.system.dim)
        if len(vectors) != k:
            raise ValueError(f"n_fibres: needs all {k} directions of the manifold")
    ring = n_fibres is not None and k == 2
    if spacing is not None and not ring:
        raise ValueError("spacing: belongs to n_fibres on a manifold of two dimensions")
    starts = directions(found, n_fibres, vectors, rng)
    check_memory("n_fibres", len(starts) * count * growth.system.dim)

    def grown(y: Array) -> Grown:
        orbit = follow(growth, y)
        return orbit, sampled(growth, orbit, count)

    with ThreadPoolExecutor(workers) as pool:
        first = [grown(y) for y in starts[:1]]  # compiles what all need
        rest = pool.map(grown, starts[1:])
        both = [*first, *tqdm(rest, "fibres", total=max(0, len(starts) - 1), disable=quiet)]
        if spacing is not None:
            both = _refined(both, found, spacing, lambda new: list(pool.map(grown, new)))
    return _dataset(growth, both, count, ring)


def _refined(
    both: list[Grown],
    found: Local,
    spacing: float,
    grow_all: Callable[[Sequence[Array]], list[Grown]],
) -> list[Grown]:
    """Return the orbits of a fan with others between where neighbours are too far apart.

    They start at half the angle, as long as double precision and `MOST_FIBRES` allow.
    """
    angles = 2.0 * np.pi * np.arange(len(both)) / len(both)
    while True:
        gaps = spacings(np.array([rows[1][:, :-1] for _, rows in both]))
        after = np.append(angles[1:], 2.0 * np.pi)
        wide = np.flatnonzero((gaps > spacing) & (after - angles > CLOSEST))
        wide = wide[np.argsort(-gaps[wide], kind="stable")][: MOST_FIBRES - len(both)]
        if not wide.size:
            return both
        middle = np.sort(0.5 * (angles[wide] + after[wide]))
        new = grow_all([at_angle(found, angle) for angle in middle])
        order = np.argsort(np.append(angles, middle), kind="stable")
        both = [[*both, *new][k] for k in order]
        angles = np.append(angles, middle)[order]


def _dataset(
    growth: Growth,
    both: Sequence[Grown],
    count: int,
    ring: bool,
) -> xr.Dataset:
    system, orbits = growth.system.system, [orbit for orbit, _ in both]
    n = system.dim
    at, sign = growth.local.at, -1.0 if growth.system.backward else 1.0
    times = np.reshape([rows[0] for _, rows in both], (-1, count))
    states = np.reshape([rows[1] for _, rows in both], (-1, count, n + 1))
    tangents = np.reshape([growth.local.tangent @ orbit.y for orbit in orbits], (-1, n))
    sizes = np.linalg.norm(tangents, axis=1)
    variables = {
        "state": (("fibre", "time", "parameter"), states[..., :-1]),
        "elapsed_time": (("fibre", "time"), sign * times),
        "arclength": (("fibre", "time"), states[..., -1]),
        "tangent": (("fibre", "parameter"), tangents / np.maximum(sizes, 1e-300)[:, None]),
        **schema.columns(
            "fibre",
            start_size=sizes,
            start_error=np.array([orbit.error for orbit in orbits]),
            length=np.array([orbit.length for orbit in orbits]),
            stop_reason=schema.flag(schema.STOP_REASONS, [orbit.stop_reason for orbit in orbits]),
        ),
        **ends(orbits, n),
    }
    if ring:
        variables["spacing"] = ("fibre", spacings(states[..., :-1]))
    attrs = {
        **system.attributes(),
        "side": "stable" if growth.system.backward else "unstable",
        "dimension": at.unstable,
        "central_dimension": at.central,
        "reach": growth.reach,
        "rtol": growth.rtol,
    }
    return schema.finish(xr.Dataset(variables, system.coordinates()), "orbits", attrs)


def ends(orbits: Sequence[Orbit], n: int, dim: str = "fibre") -> dict[str, Any]:
    """Return as variables what orbits come to: the states are NaN where it is not known."""
    arrivals = [orbit.arrival for orbit in orbits]
    states = [np.full(n, np.nan) if a.at is None else a.at.state for a in arrivals]
    unstable = [-1 if a.at is None else a.at.departures for a in arrivals]
    decisions = schema.flag(schema.END_DECISIONS, [a.decision for a in arrivals])
    return {
        "end_state": ((dim, "parameter"), np.reshape(states, (-1, n))),
        "end_index": (dim, np.array(unstable, np.int64)),
        "end_decision": (dim, decisions),
    }


def spacings(states: Array) -> Array:
    """Return how far each orbit (fibre, time, parameter) goes from the path of the next one."""
    return np.array(
        [_from_path(p, q) for p, q in zip(states, np.roll(states, -1, axis=0), strict=True)]
    )


def _from_path(points: Array, path: Array) -> float:
    """Return the largest distance of points from a polygon."""
    begin, side = path[:-1], np.diff(path, axis=0)
    square = np.maximum(np.sum(side**2, axis=1), np.finfo(float).tiny)
    worst = 0.0
    for p in points:
        part = np.clip(np.sum((p - begin) * side, axis=1) / square, 0.0, 1.0)
        foot = begin + part[:, None] * side
        worst = max(worst, float(np.min(np.linalg.norm(p - foot, axis=1))))
    return worst
