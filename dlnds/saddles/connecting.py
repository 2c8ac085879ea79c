"""Orbits from one hyperbolic equilibrium of a flow to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_integer, check_memory, check_number, known_options
from dlnds.runs.events import Event
from dlnds.runs.flow import LAST, SMALLEST_RTOL
from dlnds.saddles import orbits
from dlnds.saddles.hyperbolic import Equilibrium, Local, check_steady, equilibrium, local
from dlnds.saddles.orbits import Growth, Orbit
from dlnds.systems.protocol import SystemProtocol
from dlnds.theory import tolerances

#: Relative tolerance of the second run that has to agree, in terms of the first.
FINER = 1e-2
#: Equilibria nearer than this, in units of lengths, are one.
SAME = 1e-8
#: Halvings of an interval of angles.
HALVINGS = 60
#: Largest distance from the target, in units of lengths, at which the side counts on which an orbit
#: passes it, and by what part of a step the angles of a fan are off the axes, where symmetries are.
NEAR, OFF = 0.5, 0.382


class Pair(NamedTuple):
    """What orbits are to join, in the direction of time in which they are grown.

    They start at the first and are to come to ``target``, whose stable manifold is ``goal``.
    """

    growths: tuple[Growth, Growth]
    target: Equilibrium
    goal: Local


class Found(NamedTuple):
    """An orbit, what became of it, and how it passes the target.

    ``closest`` is the least distance from it, ``miss`` the unstable coordinate there, above the
    stable manifold, if there is one only.
    """

    orbit: Orbit
    decision: str
    closest: float
    miss: float


@known_options
def connecting_orbits(
    system: SystemProtocol,
    source: ArrayLike,
    target: ArrayLike,
    *,
    n_fibres: int = 32,
    n_points: int = 65,
    reach: float | None = None,
    rtol: float = 1e-8,
    max_steps: int = 10_000,
) -> xr.Dataset:
    """Return the orbits that lead from one hyperbolic equilibrium to another, as far as they go.

    Parameters
    ----------
    system
        Any flow that does not depend on time.
    source, target
        Equilibria (parameter), which may be the same.
    n_fibres
        Orbits of a manifold of more than one dimension among which connections are looked for.
    n_points
        Samples of each orbit, at about equal distances along its path.
    reach
        Distance from where it starts at which an orbit is given up; ``None`` takes 100 times the
        norm of that equilibrium, at least 100. As for `grow_manifold` its hundredth is the unit of
        lengths if it is smaller than the larger of 1 and the norm.
    rtol
        Relative local error of the orbits, and of their starts, in units of lengths. All is
        computed once more with a hundredth of it.
    max_steps
        Steps after which an orbit is given up.

    Returns
    -------
    xarray.Dataset
        Schema ``connecting_orbits``. Attributes: ``source_dimension`` of the unstable manifold of
        the source, ``target_dimension`` of the stable one of the target; ``expected_dimension`` of
        the set of all connections, what transversal manifolds have, their sum less the dimension
        of the system; ``codimension``, how many parameters have to be right for a single orbit to
        exist, 0 if connections persist. A first integral or a symmetry makes it smaller.
        ``n_connections`` counts the rows that were found to connect, ``is_searched`` is 0 where
        nothing is tried, ``grown_from`` says from which end orbits were grown.

        Rows are the orbits that were tried, as of `grow_manifold`: ``state(orbit, time,
        parameter)``, in the order of time, ``arclength``, ``end_state``, … of the end to which they
        were grown. ``decision(orbit)``:

        - ``attracted``: it comes to where the other equilibrium attracts it for sure;
        - ``bracketed``: orbits next to it pass the other equilibrium on both of its sides, so that
          one between them comes to it;
        - ``within_accuracy``: it comes so near to the other equilibrium's manifold that its
          accuracy does not tell on which side it passes. With a positive codimension this is what a
          connection looks like, and no proof of one: follow ``miss`` through 0 in a parameter;
        - ``elsewhere``: it comes to another equilibrium;
        - ``away``: it leaves the reach, or ends where the field is not defined;
        - ``open``: it was given up before, or the two accuracies disagree.

        ``closest(orbit)``: its least distance from the other equilibrium; ``miss(orbit)``: where it
        is that near, how far it is on which side of the other's manifold, if this divides the
        space, NaN otherwise.

    Raises
    ------
    ValueError, TypeError
        If a state is no hyperbolic equilibrium, or the system is a map or depends on time.

    Notes
    -----
    One-dimensional unstable manifolds of the source, or else stable ones of the target, are grown
    on both sides. An attracting target, or a repelling source, is found from a fan of the other's
    manifold: the fraction of its orbits that connect. A fan in two dimensions is bisected between
    orbits that pass an equilibrium with one direction to leave at a distance of at most 0.5, in
    units of lengths, for the first time, and on different sides. Manifolds of more dimensions than
    these are not searched.

    Examples
    --------
    >>> import dlnds as dl
    >>> def double_well(t, x, params, out):
    ...     out[0], out[1] = x[0] - x[0] ** 3, -x[1]
    >>> found = dl.connecting_orbits(dl.System(double_well, dim=2), [0.0, 0.0], [1.0, 0.0])
    >>> dl.schema.decode(found.decision).values.tolist(), found.attrs["codimension"]
    (['attracted', 'elsewhere'], 0)
    """
    check_steady("system", system)
    number = check_integer("n_fibres", n_fibres, minimum=4)
    count = check_integer("n_points", n_points, minimum=2)
    check_memory("n_points", number * count * system.dim)
    rtol = check_number("rtol", rtol, minimum=SMALLEST_RTOL / FINER, maximum=1e-2)
    steps = check_integer("max_steps", max_steps, minimum=1, maximum=LAST)
    first, last = _hyperbolic("source", system, source), _hyperbolic("target", system, target)
    backward = _grows_backward(first, last)
    begin, end = (last.reversed(), first.reversed()) if backward else (first, last)
    growths = tuple(
        orbits.growth_of(begin, reach, None, accuracy, steps) for accuracy in (rtol, FINER * rtol)
    )
    end = end._replace(unit=growths[0].local.at.unit)
    pair = Pair((growths[0], growths[1]), end, local(end.reversed()))
    none = not begin.unstable or not end.stable  # so that no orbit leaves, or none arrives
    searched = none or _is_searched(begin, end)
    found = [] if none or not searched else _search(pair, number)
    return _dataset(pair, found, count, {"is_searched": int(searched), "rtol": rtol})


def _hyperbolic(name: str, system: SystemProtocol, x: ArrayLike) -> Equilibrium:
    """Return a hyperbolic equilibrium."""
    at = equilibrium(name, system, x, tolerances.CRITICAL)
    if at.central:
        raise ValueError(
            f"{name}: is not hyperbolic, {at.central} eigenvalues have the real part 0 up to "
            f"{at.zero:.2g}"
        )
    return at


def _grows_backward(first: Equilibrium, last: Equilibrium) -> bool:
    """Tell whether orbits are grown from the target, since its manifold is the smaller one."""
    if not first.unstable or not last.stable:
        return False
    alone = first.unstable > 1 and last.stable == 1
    into_source = not first.stable and last.unstable > 0
    wide = first.unstable > 2 and last.unstable > 0 and last.stable == 2
    return alone or (into_source and first.unstable > 1) or wide


def _is_searched(begin: Equilibrium, end: Equilibrium) -> bool:
    """Tell whether there is a way to look for orbits from one to the other."""
    return begin.unstable == 1 or not end.unstable or (begin.unstable, end.unstable) == (2, 1)


def _search(pair: Pair, number: int) -> list[Found]:
    """Return the orbits that were tried."""
    begin = pair.growths[0].local
    k = len(begin.inner)
    if k == 1 or not pair.target.unstable:
        rows = orbits.directions(begin, None if k == 1 else number, np.eye(k) @ begin.tangent.T, 0)
        return [_followed(pair, y) for y in rows]
    angles = 2.0 * np.pi * (np.arange(number + 1) + OFF) / number
    return _brackets(pair, angles.tolist())


def _followed(pair: Pair, y: Array) -> Found:
    """Return the orbit in a direction, if both accuracies say the same of it."""
    coarse, fine = (_tried(pair, growth, y) for growth in pair.growths)
    same = coarse.decision == fine.decision
    if coarse.decision == fine.decision == "elsewhere":
        same = _is_at(coarse.orbit.arrival.at, fine.orbit.arrival.at)
    return coarse if same else coarse._replace(decision="open")


def _is_at(at: Equilibrium | None, target: Equilibrium | None) -> bool:
    """Tell whether an equilibrium is known and the same as another."""
    if at is None or target is None:
        return False
    return float(np.linalg.norm(at.state - target.state)) <= SAME * target.size


def _tried(pair: Pair, growth: Growth, y: Array) -> Found:
    """Return the orbit in a direction at one accuracy."""
    orbit = orbits.follow(growth, y, [_nearest(pair, growth, np.inf)])
    return _seen(pair, orbit)


def _nearest(pair: Pair, growth: Growth, within: float) -> Event:
    """Return the event that an orbit begins to leave the target, after which it ends if near."""
    centre, field = pair.target.state, growth.local.field

    def leaving(x: Array) -> float:
        away = x[:-1] - centre
        return float(away @ field(x[:-1])) if np.linalg.norm(away) <= within else -1.0

    return Event(leaving, "nearest", 1, terminal=np.isfinite(within))


def _seen(pair: Pair, orbit: Orbit) -> Found:
    """Return an orbit with what became of it and how it passed the target."""
    states = np.vstack([orbit.passed, orbit.pieces[-1][1][-1:, :-1]])
    distances = np.linalg.norm(states - pair.target.state, axis=1)
    place = int(distances.argmin())
    gap = pair.goal.gap(states[place])
    miss = float(gap[0]) if len(gap) == 1 else np.nan
    return Found(orbit, _decision(pair.target, orbit), float(distances[place]), miss)


def _decision(target: Equilibrium, orbit: Orbit) -> str:
    """Return what became of an orbit, in one word."""
    at = orbit.arrival.at
    if at is not None:
        same = _is_at(at, target)
        if orbit.arrival.decision == "within_accuracy":
            return "within_accuracy" if same else "open"
        return "attracted" if same else "elsewhere"
    left = orbit.stop_reason in ("event", "not_finite", "step_too_small")
    return "away" if left else "open"


def _brackets(pair: Pair, angles: Sequence[float]) -> list[Found]:
    """Return the orbits of a two-dimensional fan between which one comes to the target."""
    coarse, within = pair.growths[0], NEAR * pair.target.size

    def passing(angle: float) -> Found:
        y = orbits.at_angle(coarse.local, angle)
        return _seen(pair, orbits.follow(coarse, y, [_nearest(pair, coarse, within)]))

    fan, found = [passing(angle) for angle in angles], []
    for low, high, before, after in zip(angles, angles[1:], fan, fan[1:], strict=False):
        if max(before.closest, after.closest) > within or before.miss * after.miss > 0.0:
            continue
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            between = passing(middle)
            if between.decision == "within_accuracy" or between.closest > within:
                break
            if between.miss * before.miss > 0.0:
                low, before = middle, between
            else:
                high = middle
        if between.decision == "within_accuracy":
            found.append(between._replace(decision="bracketed"))
    return found


def _dataset(pair: Pair, found: Sequence[Found], count: int, attrs: dict[str, Any]) -> xr.Dataset:
    growth, target = pair.growths[0], pair.target
    begin, n, backward = growth.local.at, target.system.dim, target.backward
    tried = [one.orbit for one in found]
    rows = [orbits.sampled(growth, orbit, count) for orbit in tried]
    order = -1 if backward else 1
    states = np.reshape([states for _, states in rows], (-1, count, n + 1))[:, ::order]
    times = np.reshape([times for times, _ in rows], (-1, count))[:, ::order]
    words = [one.decision for one in found]
    variables = {
        "state": (("orbit", "time", "parameter"), states[..., :-1]),
        "elapsed_time": (("orbit", "time"), order * times),
        "arclength": (("orbit", "time"), states[..., -1]),
        **schema.columns(
            "orbit",
            decision=schema.flag(schema.CONNECTION_DECISIONS, words),
            closest=np.array([one.closest for one in found]),
            miss=np.array([one.miss for one in found]),
            start_error=np.array([orbit.error for orbit in tried]),
            stop_reason=schema.flag(schema.STOP_REASONS, [orbit.stop_reason for orbit in tried]),
        ),
        **orbits.ends(tried, n, "orbit"),
    }
    dimension = begin.unstable + target.stable - n
    ends = (target.stable, begin.unstable) if backward else (begin.unstable, target.stable)
    attrs |= {
        **target.system.attributes(),
        **dict(zip(("source_dimension", "target_dimension"), ends, strict=True)),
        "expected_dimension": dimension,
        "codimension": max(0, 1 - dimension),
        "grown_from": "target" if backward else "source",
        "n_connections": sum(word in ("attracted", "bracketed") for word in words),
    }
    coords = target.system.coordinates()
    return schema.finish(xr.Dataset(variables, coords), "connecting_orbits", attrs)
