"""Steps along branches of solutions of F(x, p) = 0 modulo symmetry."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from dlnds.arrays import Array
from dlnds.continuation.correct import (
    Point,
    Problem,
    ahead_of,
    corrected,
    described,
    distance_between,
    joined,
    length,
    met,
    radius,
    strides_from,
    turned,
)
from dlnds.continuation.locate import VERTICAL, Special, located, zero_between
from dlnds.continuation.residuals import Residual
from dlnds.continuation.strides import Limits, Stride, next_step
from dlnds.errors import check_flag
from dlnds.theory import tolerances

#: Smallest cosine of successive tangents.
LEAST_COSINE = 0.95
#: Part of a step that is taken where the whole would end on a zero of an eigenvalue.
SHORTER = 0.9
#: Steps that compiled functions take at once.
CHUNK = 8
#: Largest steps away from its origin from which a branch may come back to it.
AWAY = 3.0
#: Part of a step that shows the direction in which it changes something.
NEARBY = 1e-4


class Course(NamedTuple):
    """How far, and in which steps, a branch is followed."""

    bounds: tuple[float, float]
    step: float
    limits: tuple[float, float]
    max_points: int
    rtol: float
    n_eigenvalues: int
    events: tuple[Callable[..., float], ...]
    secant: bool = False


def posed(residual: Residual, course: Course, nullity: int = -1) -> Problem:
    """Return what the steps of a course share."""
    return Problem(
        *(residual, course.rtol, nullity, course.events, course.limits[1], course.n_eigenvalues),
        bounds=course.bounds,
    )


class Row(NamedTuple):
    """A point of a branch, its distance along it, the step to try next, what is special there."""

    point: Point
    distance: float
    next_step: float
    special: Special | None = None


class Trail(NamedTuple):
    """How a branch came to the point that it is followed from."""

    #: Where it started: a branch that comes back there is closed.
    origin: Point
    travelled: float = 0.0
    #: Whether it was away from its origin.
    left: bool = False


def walk(
    problem: Problem, start: Point, course: Course, trail: Trail | None = None
) -> Iterator[tuple[Row, list[Special], str]]:
    """Yield one row after the other, the events before it, and why it is the last.

    The reason is empty but at the end.
    """
    (low, high), step, limits, *_ = course
    here, (origin, travelled, left) = start, trail or Trail(start)
    ready: Iterator[Stride] = iter(())
    while True:
        problem = problem.renewed(here) if problem.renewed else problem
        stride = next(ready, None)
        if stride is None:
            ready = _together(problem, here, step, course)
            stride = next(ready, None)
        if stride is not None:
            there, taken, step = met(problem, stride), stride.taken, stride.next_step
        else:
            ahead = _to_bound(problem, here, step, course) or _advanced(problem, here, step, limits)
            if ahead is None:
                yield Row(here, travelled, step), [], "step_too_small"
                return
            there, taken, step = ahead
        if _is_on_zero(there) and not _is_on_zero(here):
            ready, shorter = iter(()), ahead_of(problem, here, SHORTER * taken)
            if shorter is not None:
                there, taken = shorter, SHORTER * taken
        special, reason = located(problem, here, there, taken), ""
        outside = [q for q in (*special, Special(there, taken)) if not low < q.point.p < high]
        if outside:
            far = outside[0]
            bound = low if far.point.p < low else high
            ended = _at_bound(problem, here, far.distance, bound)
            there, taken = ended or (far.point, far.distance)
            special = [q for q in special if q.distance < taken]
            reason = "bound_reached"
        travelled += taken
        left = left or distance_between(there, origin) > AWAY * limits[1]
        if left and _is_back(problem, here, there, origin, taken):
            reason = "closed"
        yield Row(there, travelled, step), special, reason
        if reason:
            return
        here = headed(here, there) if course.secant else there


def _together(problem: Problem, here: Point, step: float, course: Course) -> Iterator[Stride]:
    """Return the steps that compiled functions take at once."""
    if course.secant:
        return iter(())
    limits = Limits(problem.rtol, problem.unit, *course.bounds, *course.limits, LEAST_COSINE)
    point, count = joined(here.x, here.p), min(CHUNK, course.max_points)
    return strides_from(problem, point, here.tangent, limits, step, count)


def _is_on_zero(point: Point) -> bool:
    """Tell whether an eigenvalue is zero, so that it is on no side where it could change sign."""
    return bool(np.abs(point.values).min(initial=np.inf) <= tolerances.KERNEL * radius(point))


def _is_back(problem: Problem, here: Point, there: Point, origin: Point, taken: float) -> bool:
    """Tell whether a step led back to the origin of a branch, or of its orbit where invariants do.

    Groups with unbounded orbits may lead back to another point of the orbit.
    """
    known = problem.residual.invariants

    def seen(point: Point, ahead: float = 0.0) -> Array:
        assert known is not None
        moved = joined(point.x, point.p) + ahead * point.tangent
        return joined(known(moved[:-1], float(moved[-1])), float(moved[-1]))

    if known is not None:
        now, start = seen(there), seen(origin)
        change, onward = now - seen(here), seen(origin, NEARBY * taken) - start
        if length(change) > VERTICAL * (1.0 + length(now)):  # not along a fiber of equal ones
            passed = bool((now - start) @ onward >= 0.0)  # no gap is left before the origin
            return passed and length(now - start) < length(change) and bool(change @ onward > 0.0)
    same_way = bool(there.tangent @ origin.tangent > 0.0)
    return distance_between(there, origin) < taken and same_way


def _to_bound(
    problem: Problem, here: Point, step: float, course: Course
) -> tuple[Point, float, float] | None:
    """Return the point at a bound, as `_advanced` does, if a step would lead beyond it.

    Beyond its bounds an equation need not be defined.
    """
    slope, (low, high) = float(here.tangent[-1]), course.bounds
    if low <= here.p + step * slope <= high:
        return None
    bound = high if slope > 0.0 else low
    size, fixed = (bound - here.p) / slope, np.zeros(here.x.size + 1)
    fixed[-1] = 1.0
    found = corrected(problem, here.x + size * here.tangent[:-1], bound, fixed)
    if found is None:
        return None
    there = described(problem, here.tangent, found._replace(p=bound))
    taken = float(here.tangent @ np.append(found.x - here.x, bound - here.p))
    if there is None or there.tangent @ here.tangent < LEAST_COSINE or not 0.0 < taken <= step:
        return None
    return there, taken, step


def _advanced(
    problem: Problem, here: Point, step: float, limits: tuple[float, float]
) -> tuple[Point, float, float] | None:
    """Return the next point, the step that led there, and the one to try next."""
    while step >= limits[0]:
        there = ahead_of(problem, here, step)
        if there is not None:
            cosine = float(there.tangent @ here.tangent)
            if cosine >= LEAST_COSINE or (step < 2.0 * limits[0] and cosine > 0.0):
                return there, step, next_step(step, there.contraction, cosine, *limits)
        step *= 0.5
    return None


def headed(before: Point, here: Point) -> Point:
    """Return a point with the direction in which it lies from the one before."""
    ahead = joined(here.x - before.x, here.p - before.p)
    return here._replace(heading=ahead / length(ahead))


def _at_bound(
    problem: Problem, here: Point, step: float, bound: float
) -> tuple[Point, float] | None:
    """Return where a step first has p at a bound."""
    found = zero_between(problem, here, step, lambda point: point.p - bound)
    return None if found is None else (found[0]._replace(p=bound), found[1])


def reversed_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of one side in the direction of those of the other."""
    return [row._replace(point=turned(row.point), distance=-row.distance) for row in reversed(rows)]


def collected(
    problem: Problem, start: Point, course: Course, progress: bool, trail: Trail | None = None
) -> tuple[list[Row], str]:
    """Return the rows of one side, special points among them, and why it ends."""
    bound = course.bounds[int(start.tangent[-1] > 0.0)]
    if abs(start.p - bound) <= course.rtol * (1.0 + abs(bound)) and start.tangent[-1]:
        return [], "bound_reached"
    rows: list[Row] = []
    steps = itertools.islice(walk(problem, start, course, trail), course.max_points)
    name, quiet = problem.residual.parameter, not check_flag("progress", progress)
    before, reason = trail.travelled if trail else 0.0, ""
    for row, special, reason in tqdm(steps, name, course.max_points, disable=quiet):
        if reason == "step_too_small":
            break
        rows += [Row(q.point, before + q.distance, row.next_step, q) for q in special]
        rows.append(row)
        before = row.distance
    return rows, reason or "max_points"
