"""Branches that leave a point: all solutions near it, by the equation on its null space.

Near a solution z₀ where [∂F/∂x, ∂F/∂p] has k null directions across the orbit, F = 0 is solved but
for k − 1 components on the left null space, as a function of the k components y = (τ, ξ) along the
null space: ξ along the kernel of ∂F/∂x, which its symmetry turns, and τ along p. All that leaves
the point goes through the wall ‖ξ‖ = ρ, |τ| < T of a cylinder around it, or through its ends
τ = ±T, ‖ξ‖ < ρ. All zeros there are looked for in smaller and smaller cylinders, until nothing
changes but their distance.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize

from dlnds.arrays import Array
from dlnds.continuation.correct import (
    Point,
    Problem,
    held_within,
    located_orbit,
    scaled_derivatives,
    solved,
    turned,
    unit_length,
)
from dlnds.continuation.orbits import same_orbit
from dlnds.continuation.parts import whole
from dlnds.continuation.ways import Special
from dlnds.theory import tolerances

#: Largest radius in scaled coordinates, how many times smaller each is than the one before, how
#: many there are, and fewer of them in a continuum of solutions.
RADIUS, NARROWER, MOST_RADII, FEW_RADII = 0.1, 4.0, 10, 2
#: Half the length of the first cylinder in terms of the radius, and how many times shorter each is
#: than the one before, and where that was torn.
LONG, SHORTER, MUCH_SHORTER = 1.7, 2.0, 8.0
#: How much nearer a zero is in the next cylinder at least: one with τ ~ √ρ is so by a half.
NEARER = 0.75
#: How much the equation for the rest may differ from that at the center: up to 1 it has one answer.
CONTRACTING = 0.5
#: Where the sign of a single equation is looked at, in terms of the whole way, on both sides.
_GRADES = np.concatenate([-(2.0 ** -np.arange(20.0)), [0.0], 2.0 ** -np.arange(19.0, -1.0, -1.0)])
#: Zeros at one radius at most; more of them are no isolated ones.
MOST_SIDE, MOST_ZEROS = 8, 300
#: How often every zero must have been found, tries at least and at most, and at most where zeros
#: are not isolated.
OFTEN, FEWEST_TRIES, MOST_TRIES, MOST_FREE = 4, 12, 6000, 100
#: Iterations of Newton's method, and of that for the rest.
MOST_STEPS, MOST_RESTS = 25, 40
#: How far the start of a branch is from the center at least, and beside the tangent at most, in
#: terms of the distance.
APART, STRAIGHT = 10.0 * tolerances.SAME_ORBIT, 0.1
#: Differences for derivatives, and last steps, in terms of the radius.
DIFFERENCE, LAST = 1e-4, 1e-9
#: Singular values, in terms of the largest, along which a zero is not isolated.
FREE = 1e-7
#: Distance of zeros, in terms of the radius, that are one.
SAME_ZERO = 1e-4


class Departures(NamedTuple):
    """One point on each branch that leaves another point, and whether these are all."""

    starts: list[Point]
    complete: bool


class Reduced(NamedTuple):
    """The equation near a point as one for the components y on its null space."""

    problem: Problem
    center: Array
    #: Orthonormal null directions in scaled coordinates, those along p first.
    null: Array
    #: How many of them are along p: one or none.
    along: int
    #: Orthonormal left null directions (component × equation).
    left: Array
    #: Pseudoinverse of the derivative.
    inverse: Array
    #: Orbit, and how stiff it is held.
    basis: Array
    weight: float

    def solve(self, y: Array, nearby: Array | None = None) -> tuple[Array, Array] | None:
        """Return z and what F lacks on the left null space, None if it is not found.

        The rest of z is what it is at another z nearby, to begin with.
        """
        problem, size, last = self.problem, math.sqrt(y @ y), np.inf
        along = np.zeros(self.center.size) if nearby is None else self.away(nearby)
        along = along + (y - self.null @ along) @ self.null
        for _ in range(MOST_RESTS):
            z = self.center + problem.scale * along
            if not held_within(z, problem.bounds, tolerances.RANK * problem.scale[-1]):
                return None
            force = problem.value(z) / problem.unit
            if self.basis.shape[1]:
                force = force - self.weight * (self.basis @ (self.basis.T @ along[:-1]))
            step = self.inverse @ force
            length = math.sqrt(step @ step)
            if not math.isfinite(length) or (length > 0.9 * last and length > 1e-8 * size):
                return None
            if length <= 1e-14 * size or length > 0.5 * last:
                return z, self.left.T @ force
            along -= step
            last = length
        return None

    def away(self, z: Array) -> Array:
        """Return where a point is, as seen from the center, in scaled coordinates."""
        return (z - self.center) / self.problem.scale

    def is_torn(self, y: Array) -> bool:
        """Tell whether the rest of z may not be a function of y there, with p within its bounds.

        Where its equation does not contract something else happens between there and the center.
        """
        place = self.center + self.problem.scale * (y @ self.null)
        low, high = self.problem.bounds
        if not low <= place[-1] <= high:
            return False
        found = self.solve(y)
        if found is None:
            return True
        rest = np.eye(place.size) - self.null.T @ self.null
        change = rest - self.inverse @ (_pinned(self.problem, found[0], self.basis)[0] @ rest)
        return not float(np.linalg.norm(change)) <= CONTRACTING


def reduced(problem: Problem, special: Special) -> Reduced:
    """Return the reduced equation at a special point."""
    point = special.point
    z, basis = point.z, located_orbit(problem, point)
    rows, size = _pinned(problem, z, basis)
    left, sizes, frame = np.linalg.svd(rows)
    zero = max(1e3 * tolerances.RANK * size, special.tolerance)
    rank = int((sizes > zero).sum())
    null = frame[rank:]
    inverse = (frame[:rank].T / sizes[:rank]) @ left[:, :rank].T
    turn = np.linalg.svd(null[:, -1:].T)[2] if len(null) else np.eye(0)
    along = int(np.linalg.norm(null[:, -1]) > tolerances.KERNEL)
    return Reduced(problem, z, turn @ null, along, left[:, rank:], inverse, basis, size)


def _pinned(problem: Problem, z: Array, basis: Array) -> tuple[Array, float]:
    """Return the derivative in scaled coordinates, which holds the orbit, and its size."""
    matrix, slope, size = scaled_derivatives(problem, z)
    rows = np.column_stack([whole(matrix), slope])
    rows[:, :-1] -= size * whole(basis @ basis.T)
    return rows, size


def departures(problem: Problem, special: Special, reach: float = 1.0) -> Departures:
    """Return a point on each branch that leaves a special point, with its tangent away from there.

    The known branch leaves it, too; ``reach`` is how far the next special point on it is, in scaled
    coordinates. Modulo declared symmetry, in an order that does not depend on rounding.
    """
    near = reduced(problem, special)
    if len(near.null) < 2:
        return Departures([], True)
    radius = min(RADIUS, 0.25 * reach)
    length, before, seen = LONG * radius, _Zeros([], [], True), False
    rough: list[Point] = []
    for number in range(MOST_RADII):
        found = _zeros(near, radius, length, before)
        seen = seen or bool(found.wall or found.ends)
        if _is_steady(before, found, radius):
            starts = _started(near, [*before.wall, *before.ends])
            if starts is not None and not (before.torn or found.torn):
                complete = found.complete and before.complete
                starts = [_cleared(near, start) for start in starts]
                gaps = [problem.distance(q.z, near.center) for q in starts]
                complete = complete and min(gaps) > 2.0 * tolerances.SAME_ORBIT
                return Departures(_ordered(problem, special.point, starts), complete)
            rough = starts or rough
        if number >= FEW_RADII and not (before.complete or found.complete):
            break
        before, radius = found, radius / NARROWER
        length /= MUCH_SHORTER if found.torn else SHORTER
    nothing = special.decided == "touching" or special.point.p in problem.bounds
    return Departures(_ordered(problem, special.point, rough), nothing and not seen)


class _Zeros(NamedTuple):
    """Zeros on the wall of a cylinder and on its ends, and whether these are all."""

    wall: list[Array]
    ends: list[Array]
    complete: bool
    #: Whether there are places on it where nothing is known of the reduced equation.
    torn: bool = False


def _is_steady(larger: _Zeros, smaller: _Zeros, radius: float) -> bool:
    """Tell whether zeros of two cylinders are of the same branches, which leave the center."""
    if not smaller.wall + smaller.ends or len(larger.wall) != len(smaller.wall):
        return False
    if len(larger.ends) != len(smaller.ends):
        return False
    far, near = (
        np.concatenate(
            [
                np.sort([abs(y[0]) for y in found.wall]),
                np.sort([np.linalg.norm(y[1:]) for y in found.ends]),
            ]
        )
        for found in (larger, smaller)
    )
    return bool((near <= NEARER * far + SAME_ZERO * radius).all())


def _zeros(near: Reduced, radius: float, length: float, before: _Zeros) -> _Zeros:
    """Return the zeros on a cylinder; those on the larger one before are looked for first."""
    ends = (length, -length) if near.along else ()
    if len(near.null) == 2 and near.along:
        places, size = length * _GRADES, radius * _GRADES
        wall = [y for side in (radius, -radius) for y in _on_line(near, 1, side, places)]
        on_ends = [y for end in ends for y in _on_line(near, 0, end, size)]
        corners = itertools.product((length, -length), (radius, 0.0, -radius))
        torn = any(near.is_torn(np.array(y)) for y in corners)
        return _Zeros(wall, on_ends, len(wall) + len(on_ends) <= MOST_SIDE, torn)
    wall, complete = _around(near, _Wall(radius, length), before.wall)
    found = [_around(near, _Wall(radius, end, True), before.ends) for end in ends]
    on_ends = [y for zeros, _ in found for y in zeros]
    torn = any(near.is_torn(y) for y in _axes(near, radius, length))
    return _Zeros(wall, on_ends, complete and all(sure for _, sure in found), torn)


def _axes(near: Reduced, radius: float, length: float) -> Array:
    """Return where the axes of a cylinder meet it."""
    sizes = np.array([length] * near.along + [radius] * (len(near.null) - near.along))
    return np.vstack([np.diag(sizes), -np.diag(sizes)])


def _on_line(near: Reduced, fixed: int, value: float, places: Array) -> list[Array]:
    """Return the zeros of the only reduced equation where one of the two components is fixed."""

    def y(free: float) -> Array:
        return np.array([value, free] if fixed == 0 else [free, value])

    def lack(free: float) -> float:
        found = near.solve(y(free))
        return math.nan if found is None else float(found[1][0])

    return [y(root) for root in _roots(lack, places)]


def _roots(curve: Callable[[float], float], places: Array) -> list[float]:
    """Return the zeros of a function between places, pairs of them at an extremum, too."""
    values = np.array([curve(place) for place in places])
    found = places[values == 0.0].tolist()
    for k in range(len(places) - 1):
        if values[k] * values[k + 1] < 0.0:
            found.append(_root(curve, places[k], places[k + 1]))
    for k in range(1, len(places) - 1):
        one, here, other = np.sign(values[k]) * values[k - 1 : k + 2]
        if 0.0 < here < min(one, other):
            found += _pair(curve, *places[k - 1 : k + 2].tolist())
    return sorted(found)


def _root(curve: Callable[[float], float], low: float, high: float) -> float:
    return float(scipy.optimize.brentq(curve, low, high, xtol=1e-15, rtol=1e-12))


def _pair(curve: Callable[[float], float], low: float, middle: float, high: float) -> list[float]:
    """Return both zeros beside an extremum of a function that has one sign at three places."""
    sign = np.sign(curve(middle))
    best = scipy.optimize.minimize_scalar(
        lambda t: sign * curve(t), bounds=(low, high), method="bounded", options={"xatol": 1e-14}
    )
    if not best.fun < 0.0:
        return []
    return [_root(curve, low, float(best.x)), _root(curve, float(best.x), high)]


class _Wall(NamedTuple):
    """The wall of a cylinder, ‖ξ‖ = radius and −length < τ < length, or its end at τ = length."""

    radius: float
    length: float
    is_end: bool = False

    def condition(self, y: Array, along: int) -> tuple[Array, float]:
        """Return the derivative of a condition that y is on it, and how far it is from that."""
        if self.is_end:
            return np.eye(len(y))[0], float(y[0]) - self.length
        across = np.concatenate([np.zeros(along), y[along:]])
        return across / self.radius, 0.5 * float(across @ across - self.radius**2) / self.radius

    def holds(self, y: Array, along: int) -> bool:
        """Tell whether a point that fulfils the condition is not beyond the edge."""
        if self.is_end:
            return float(np.linalg.norm(y[along:])) <= self.radius
        return not along or abs(y[0]) <= self.length

    def starts(self, count: int, along: int) -> Iterator[Array]:
        """Yield points on it, random ones without end, which differ from wall to wall."""
        rng = np.random.default_rng(int(1e15 * self.radius))
        for direction in _directions(count, rng):
            far = self.radius * (rng.uniform() if self.is_end else 1.0)
            first = [self.length] if self.is_end else [0.0] * along
            yield np.concatenate([first, far * direction])


def _around(near: Reduced, wall: _Wall, before: Sequence[Array]) -> tuple[list[Array], bool]:
    """Return the zeros of several reduced equations on a wall, by Newton's method from many.

    It ends when each was found several times: the chance that another try finds a new one is
    about the part of the tries whose zero was found once. Where some are not isolated not all is
    known anyway.
    """
    found: list[Array] = []
    often: list[int] = []
    points: list[Point] = []
    free = 0
    known_starts = [y / NARROWER for y in before]
    others = wall.starts(len(near.null) - near.along, near.along)
    for number, start in enumerate(itertools.chain(known_starts, others)):
        if len(found) > MOST_ZEROS or number == MOST_TRIES or (free and number >= MOST_FREE):
            return found, False
        if number >= FEWEST_TRIES and min(often, default=OFTEN) >= OFTEN:
            return found, not free
        y = _landed(near, start, wall)
        if y is None:
            continue
        known = _known(near, y, found, points, wall.radius)
        if known < 0:
            point = _corrected(near, y)
            if point is None or not _is_isolated(near, y, point, wall):
                free += 1
                continue
            found, often, points = [*found, y], [*often, 0], [*points, point]
        often[known] += 1
    return found, False


def _is_isolated(near: Reduced, y: Array, point: Point, wall: _Wall) -> bool:
    """Tell whether a zero is the only one around, up to the symmetry that the center has."""
    slopes = _slopes(near, y, None, DIFFERENCE * wall.radius)
    if slopes is None:
        return False
    rows = np.vstack([slopes, wall.condition(y, near.along)[0] * np.linalg.norm(slopes)])
    free = len(rows) - np.linalg.matrix_rank(rows, rtol=FREE)
    return bool(free <= point.basis.shape[1] - near.basis.shape[1])


def _known(near: Reduced, y: Array, found: list[Array], points: list[Point], radius: float) -> int:
    """Return which of the zeros that were found another one is, up to symmetry, or −1."""
    gaps = [float(np.linalg.norm(y - other)) for other in found]
    best = int(np.argmin(gaps)) if gaps else -1
    if gaps and gaps[best] <= SAME_ZERO * radius:
        return best
    if near.problem.residual.generators is None:
        return -1
    point = _corrected(near, y)
    for k, other in enumerate(points):
        if point is not None and same_orbit(near.problem, point, other):
            return k
    return -1


def _directions(count: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield unit vectors: along axes, between them, and then at random, again and again."""
    if count <= 4:
        for signs in itertools.product((1.0, 0.0, -1.0), repeat=count):
            if any(signs):
                yield unit_length(np.array(signs))
    else:
        yield from np.vstack([np.eye(count), -np.eye(count)])
    while True:
        yield unit_length(rng.normal(size=count))


def _facing(near: Reduced, y: Array, step: float) -> Array | None:
    """Return the point of a line along p at which about the least is lacking."""
    y, ahead = y.copy(), step * np.eye(len(y))[0]
    for _ in range(2):
        here = near.solve(y)
        there = None if here is None else near.solve(y + ahead, here[0])
        if here is None or there is None:
            return None
        slope = (there[1] - here[1]) / step
        y[0] -= (slope @ here[1]) / max(float(slope @ slope), 1e-300)
    return y


def _landed(near: Reduced, start: Array, wall: _Wall) -> Array | None:
    """Return the zero on a wall that Newton's method finds from a start, or None.

    Its steps are the shortest that solve the linear equations: zeros need not be isolated. Where
    these have no solution the shortest may be none, though it is no zero.
    """
    difference, nearby, y = DIFFERENCE * wall.radius, None, start
    if near.along and not wall.is_end:
        faced = _facing(near, y, difference)
        y = start if faced is None else faced
    for _ in range(MOST_STEPS):
        here = near.solve(y, nearby)
        slopes = None if here is None else _slopes(near, y, here, difference)
        if here is None or slopes is None:
            return None
        size, nearby = max(float(np.linalg.norm(slopes)), 1e-300), here[0]
        row, gap = wall.condition(y, near.along)
        rows, lack = np.vstack([slopes / size, row]), np.append(here[1] / size, gap)
        step = np.linalg.lstsq(rows, lack, rcond=FREE)[0]
        length = math.sqrt(step @ step)
        y = y - step * min(1.0, wall.radius / max(length, 1e-300))
        if length <= LAST * wall.radius:
            solves = math.sqrt(lack @ lack) <= SAME_ZERO * wall.radius
            return y if solves and wall.holds(y, near.along) else None
    return None


def _slopes(near: Reduced, y: Array, here: tuple[Array, Array] | None, step: float) -> Array | None:
    """Return the derivative of the reduced equations (equation × component).

    By central differences, or one-sided ones from what is known at y.
    """
    columns = []
    for unit in step * np.eye(len(y)):
        there = near.solve(y + unit, None if here is None else here[0])
        before = here or near.solve(y - unit)
        if there is None or before is None:
            return None
        columns.append((there[1] - before[1]) / (step if here else 2.0 * step))
    return np.column_stack(columns)


def _started(near: Reduced, zeros: Sequence[Array]) -> list[Point] | None:
    """Return the solutions at zeros, None if one of them is not found there."""
    points = [_corrected(near, y) for y in zeros]
    return None if any(q is None for q in points) else [q for q in points if q is not None]


def _corrected(near: Reduced, y: Array) -> Point | None:
    """Return the solution at a zero, with its tangent away from the center."""
    problem, found = near.problem, near.solve(y)
    if found is None:
        return None
    away = near.away(found[0])
    far = math.sqrt(away @ away)
    point = solved(problem, found[0], away / far)
    if point is None or problem.distance(point.z, found[0]) > SAME_ZERO * far:
        return None
    return point if point.heading @ away > 0.0 else turned(point)


def _cleared(near: Reduced, start: Point) -> Point:
    """Return a point of a branch that tolerances do not join to the center, ahead of its start.

    What vanishes at the center is no longer zero to rounding there. The start itself, if there is
    none within reach.
    """
    problem, point = near.problem, start
    while True:
        far = problem.distance(point.z, near.center)
        if far > APART and (point.n_zeros < start.n_zeros or not start.n_zeros):
            return point
        ahead = None
        if 2.0 * far <= RADIUS:
            ahead = solved(problem, point.z + far * problem.scale * point.heading, point.heading)
        if ahead is None or ahead.moved > STRAIGHT * far:
            return start
        if ahead.n_growing != start.n_growing and not start.n_zeros:
            return point  # something else happens in between
        point = ahead


def _ordered(problem: Problem, center: Point, starts: Sequence[Point]) -> list[Point]:
    """Return points in an order that rounding does not change: by p, by size, by components."""

    def key(point: Point) -> Array:
        away = (point.z - center.z) / problem.scale
        size = np.linalg.norm(away)
        return np.concatenate([[away[-1] / size, size / RADIUS], away[:-1] / size])

    def compared(one: Point, other: Point) -> int:
        change = key(one) - key(other)
        clear = change[np.abs(change) > SAME_ZERO]
        return -int(np.sign(clear[0])) if len(clear) else 0

    return sorted(starts, key=functools.cmp_to_key(compared))
