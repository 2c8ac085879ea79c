"""Steps along branches of solutions of F(x, p) = 0 modulo symmetry, and the events between them."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.interpolate
import scipy.linalg
import scipy.optimize
from scipy.linalg import lapack
from tqdm import tqdm

from dlnds._kernels import branches
from dlnds.bordered import (
    FEWEST,
    KERNEL_RTOL,
    RANK_RTOL,
    Factors,
    bordered_system,
    is_regular,
    orthonormal,
    pinned,
    transverse_values,
    usual_size,
)
from dlnds.errors import check_flag
from dlnds.residuals import Array, Residual
from dlnds.strides import Limits, Stride, next_step, strides

#: Steps of iterative refinement at most.
MOST_REFINEMENTS = 8
#: Smallest cosine of successive tangents.
LEAST_COSINE = 0.95
#: Part of a step that is taken where the whole would end on a zero of an eigenvalue.
SHORTER = 0.9
#: Steps that compiled functions take at once.
CHUNK = 8
#: Largest steps away from its origin from which a branch may come back to it.
AWAY = 3.0
#: Components of tangents along p that are rounding: along branches at a constant p nothing folds.
VERTICAL = 1e-10
#: Part of a step that shows the direction in which it changes something.
NEARBY = 1e-4
#: Rounding of a product, in terms of the sizes of its factors.
EPSILON = 8.0 * float(np.finfo(float).eps)

#: A function of x and p whose zeros are located.
Event = Callable[[Array, float], float]


class Point(NamedTuple):
    """A solution, with what is known of the branch there."""

    x: Array
    p: float
    #: Unit tangent (component, and p last), orthogonal to the orbit.
    tangent: Array
    #: Orthonormal basis (component × generator) of the orbit's tangent space.
    basis: Array
    #: Eigenvalues of the Jacobian across the orbit, by ascending real part. Of a symmetric one of
    #: more than `LARGE` components, those not nearest to 0 are replaced by ∓ the largest of these.
    values: Array
    iterations: int
    residual: float
    multiplier: float
    #: How many times smaller the second Newton step was than the first.
    contraction: float = 0.0
    #: Unit vector along which the next point is predicted; None for the tangent.
    heading: Array | None = None


#: What finds a zero of a test function within a step, and how far that is.
Zero = Callable[["Problem", Point, float, Callable[[Point], float]], "tuple[Point, float] | None"]


class Special(NamedTuple):
    """A located event: what it is, and how well it is known."""

    point: Point
    #: Distance from the point before.
    distance: float
    kind: str = "none"
    test_value: float = 0.0
    accuracy: float = 0.0
    kernel: int = 0
    #: Largest modulus of an eigenvalue around it, which its zeros are compared with.
    size: float = 0.0


class Problem(NamedTuple):
    """What all steps of one branch share."""

    residual: Residual
    rtol: float
    #: Dimension of the kernel that is taken out without generators, or −1 if they are declared.
    nullity: int
    events: tuple[Event, ...]
    #: Length that components are compared with: the largest step.
    unit: float = 1.0
    #: Eigenvalues nearest to zero that have to be known.
    nearest: int = 6
    #: Of an equation that is made from another one: the eigenvalues of that one, from x, p and the
    #: basis of the orbit, and events by kind, in place of folds.
    spectrum: Callable[[Array, float, Array], Array] | None = None
    kinds: tuple[tuple[str, Event], ...] = ()
    #: Makes the problem of the step that starts at a point; all steps share one without it.
    renewed: Callable[[Point], "Problem"] | None = None


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
        residual, course.rtol, nullity, course.events, course.limits[1], course.n_eigenvalues
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


def orbit_basis(problem: Problem, x: Array, p: float, tangent: Array) -> Array:
    """Return an orthonormal basis of the directions in which solutions are not isolated."""
    residual = problem.residual
    if problem.nullity < 0:
        rows = residual.orbit(x, p)
        if not rows.any():
            return np.zeros((x.size, 0))
        basis = orthonormal(rows, problem.unit)
        if basis is not None:
            return basis
        _, sizes, frame = np.linalg.svd(rows, full_matrices=False)
        return frame[: int((sizes > RANK_RTOL * max(sizes[0], problem.unit)).sum())].T
    if not problem.nullity:
        return np.zeros((x.size, 0))
    wide = np.column_stack([residual.matrix(x, p), residual.slope(x, p)])
    kernel = np.asarray(np.linalg.svd(wide)[2][-problem.nullity - 1 :], float)
    along = kernel.T @ (kernel @ tangent)
    rest = kernel - np.outer(kernel @ along, along) / float(along @ along)
    across: Array = np.linalg.svd(rest)[2][: problem.nullity, :-1].T
    return across


class Corrected(NamedTuple):
    """A solution, and the system that Newton's method solved last on the way to it."""

    x: Array
    p: float
    basis: Array
    iterations: int
    residual: float
    multiplier: float
    contraction: float = 0.0
    system: Factors | None = None
    weight: float = 1.0


def _joined(x: Array, p: float) -> Array:
    """Return a state and a number as one vector."""
    joined = np.empty(len(x) + 1)
    joined[:-1], joined[-1] = x, p
    return joined


def _length(v: Array) -> float:
    """Return ‖v‖, for short vectors several times as fast as numpy's norm."""
    return math.sqrt(v @ v)


def corrected(problem: Problem, x: Array, p: float, tangent: Array) -> Corrected | None:
    """Return the solution in the plane through (x, p) across the tangent and the orbit, or None."""
    residual = problem.residual
    basis, n = orbit_basis(problem, x, p, tangent), x.size
    start, last = _joined(x, p), np.inf
    jacobian = residual.matrix(x, p)
    weight = usual_size(jacobian)
    pin, point = pinned(basis, weight), start.copy()
    system = bordered_system(jacobian, pin, residual.slope(x, p), tangent)
    contraction, fresh = 0.0, True
    for iteration in range(1, branches.MOST_ITERATIONS + 1):
        x, p = point[:n], float(point[n])
        lack = point - start
        force = residual.value(x, p) - weight * (basis @ (basis.T @ lack[:n]))
        right = _joined(force, float(tangent @ lack))
        if system is None or not np.isfinite(right @ right):
            return None
        step = system.solve(right)
        point = point - step
        size = _length(step) / (1.0 + _length(point))
        contraction = size / last if iteration == 2 else contraction
        if not np.isfinite(size):
            return None
        if size <= problem.rtol or (fresh and size <= 1e3 * problem.rtol and size > 0.5 * last):
            x, p = point[:n].copy(), float(point[n])
            rest = _length(residual.value(x, p))
            drift = weight * float(np.abs(basis.T @ (x - start[:n])).max(initial=0.0))
            return Corrected(x, p, basis, iteration, rest, drift, contraction, system, weight)
        if size > 0.9 * last and iteration > 2:
            return None
        fresh = iteration > 1 and size > branches.CONTRACTION * last
        if fresh:
            x, p = point[:n], float(point[n])
            system = bordered_system(residual.matrix(x, p), pin, residual.slope(x, p), tangent)
        last = size
    return None


def solution_near(problem: Problem, x: Array, p: float, tangent: Array) -> Point | None:
    """Return the solution near a prediction with its tangent and spectrum, or None."""
    for stride in _strides(problem, _joined(x, p), tangent):
        return _met(problem, stride)
    found = corrected(problem, x, p, tangent)
    return None if found is None else _described(problem, tangent, found)


def _strides(
    problem: Problem, point: Array, tangent: Array, step: float = 0.0, course: Course | None = None
) -> Iterator[Stride]:
    """Return the next solutions of a course, or the one near a point, if they are compiled."""
    compiled = problem.residual.compiled
    if compiled is None or problem.nullity >= 0 or problem.spectrum is not None:
        return iter(())
    if course is not None and course.secant:
        return iter(())
    limits, count = Limits(problem.rtol, problem.unit), 1
    if course is not None:
        limits = Limits(*limits[:2], *course.bounds, *course.limits, LEAST_COSINE)
        count = min(CHUNK, course.max_points)
    return strides(compiled, limits, point, tangent, step, count)


def _met(problem: Problem, stride: Stride) -> Point:
    """Return a solution that compiled functions found, with its spectrum."""
    x, p, basis = stride.point[:-1], float(stride.point[-1]), stride.basis
    values = transverse_values(problem.residual, stride.jacobian, basis, problem.nearest)
    return Point(
        *(x, p, stride.tangent, basis, values),
        *(stride.iterations, stride.residual, stride.multiplier, stride.contraction),
    )


def _described(problem: Problem, tangent: Array, found: Corrected) -> Point | None:
    """Return a solution with its tangent and spectrum."""
    x, p, _, iterations, rest, multiplier, contraction, *_ = found
    basis = orbit_basis(problem, x, p, tangent)
    jacobian, slope = problem.residual.matrix(x, p), problem.residual.slope(x, p)
    ahead = _refined(jacobian, slope, tangent, found)
    if ahead is None:
        system = bordered_system(jacobian, pinned(basis, usual_size(jacobian)), slope, tangent)
        ahead = None if system is None else system.solve(np.append(np.zeros(x.size), 1.0))
    if ahead is None or not np.linalg.norm(ahead):
        return None
    ahead[:-1] -= basis @ (basis.T @ ahead[:-1])
    ahead /= _length(ahead)
    if problem.spectrum is not None:
        values = problem.spectrum(x, p, basis)
    else:
        values = transverse_values(problem.residual, jacobian, basis, problem.nearest)
    return Point(x, p, ahead, basis, values, iterations, rest, multiplier, contraction)


def _refined(jacobian: Array, slope: Array, tangent: Array, found: Corrected) -> Array | None:
    """Return a null vector of [∂F/∂x, ∂F/∂p] by the factors of the last system, or None.

    They are those of a point nearby, so that iterative refinement converges at once.
    """
    if found.system is None:
        return None
    n, basis, right = len(slope), found.basis, np.zeros(len(slope) + 1)
    right[n] = 1.0
    ahead, rest = np.zeros(n + 1), right
    for _ in range(MOST_REFINEMENTS):
        ahead = ahead + found.system.solve(rest)
        drift = found.weight * (basis @ (basis.T @ ahead[:n]))
        image = jacobian @ ahead[:n] + slope * ahead[n] - drift
        rest = right - _joined(image, float(tangent @ ahead))
        if _length(rest) <= EPSILON * (1.0 + found.weight) * _length(ahead):
            return ahead
    return None


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
            ready = _strides(problem, _joined(here.x, here.p), here.tangent, step, course)
            stride = next(ready, None)
        if stride is not None:
            there, taken, step = _met(problem, stride), stride.taken, stride.next_step
        else:
            ahead = _to_bound(problem, here, step, course) or _advanced(problem, here, step, limits)
            if ahead is None:
                yield Row(here, travelled, step), [], "step_too_small"
                return
            there, taken, step = ahead
        if _is_on_zero(there) and not _is_on_zero(here):
            ready, shorter = iter(()), _ahead(problem, here, SHORTER * taken)
            if shorter is not None:
                there, taken = shorter, SHORTER * taken
        special, reason = _located(problem, here, there, taken), ""
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


def _is_on_zero(point: Point) -> bool:
    """Tell whether an eigenvalue is zero, so that it is on no side where it could change sign."""
    return bool(np.abs(point.values).min(initial=np.inf) <= KERNEL_RTOL * radius(point))


def _is_back(problem: Problem, here: Point, there: Point, origin: Point, taken: float) -> bool:
    """Tell whether a step led back to the origin of a branch, or of its orbit where invariants do.

    Groups with unbounded orbits may lead back to another point of the orbit.
    """
    known = problem.residual.invariants

    def seen(point: Point, ahead: float = 0.0) -> Array:
        assert known is not None
        moved = _joined(point.x, point.p) + ahead * point.tangent
        return _joined(known(moved[:-1], float(moved[-1])), float(moved[-1]))

    if known is not None:
        now, start = seen(there), seen(origin)
        change, onward = now - seen(here), seen(origin, NEARBY * taken) - start
        if _length(change) > VERTICAL * (1.0 + _length(now)):  # not along a fiber of equal ones
            passed = bool((now - start) @ onward >= 0.0)  # no gap is left before the origin
            return passed and _length(now - start) < _length(change) and bool(change @ onward > 0.0)
    same_way = bool(there.tangent @ origin.tangent > 0.0)
    return distance_between(there, origin) < taken and same_way


def is_vertical(here: Point, there: Point) -> bool:
    """Tell whether a step is along a branch at a constant p."""
    return bool(max(abs(here.tangent[-1]), abs(there.tangent[-1])) <= VERTICAL)


def distance_between(one: Point, other: Point) -> float:
    """Return the distance of two points in (x, p)."""
    return float(np.linalg.norm(np.append(one.x - other.x, one.p - other.p)))


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
    there = _described(problem, here.tangent, found._replace(p=bound))
    taken = float(here.tangent @ np.append(found.x - here.x, bound - here.p))
    if there is None or there.tangent @ here.tangent < LEAST_COSINE or not 0.0 < taken <= step:
        return None
    return there, taken, step


def _advanced(
    problem: Problem, here: Point, step: float, limits: tuple[float, float]
) -> tuple[Point, float, float] | None:
    """Return the next point, the step that led there, and the one to try next."""
    while step >= limits[0]:
        there = _ahead(problem, here, step)
        if there is not None:
            cosine = float(there.tangent @ here.tangent)
            if cosine >= LEAST_COSINE or (step < 2.0 * limits[0] and cosine > 0.0):
                return there, step, next_step(step, there.contraction, cosine, *limits)
        step *= 0.5
    return None


def _ahead(problem: Problem, here: Point, step: float) -> Point | None:
    """Return the point at a distance along the tangent, or the secant of the step before."""
    n, ahead = here.x.size, here.tangent if here.heading is None else here.heading
    return solution_near(problem, here.x + step * ahead[:n], here.p + step * float(ahead[n]), ahead)


def headed(before: Point, here: Point) -> Point:
    """Return a point with the direction in which it lies from the one before."""
    ahead = _joined(here.x - before.x, here.p - before.p)
    return here._replace(heading=ahead / _length(ahead))


def zero_between(
    problem: Problem, here: Point, step: float, test: Callable[[Point], float]
) -> tuple[Point, float] | None:
    """Return where a test function of points vanishes within a step, and how far that is.

    Next to branch points Newton's method has nothing to hold on to: there the point is interpolated
    between six of its neighbours, at the distance at which that solves the equation best.
    """
    known: dict[float, Point] = {0.0: here}

    def value(s: float) -> float:
        if s not in known:
            point = _ahead(problem, here, s)
            if point is None:
                raise ArithmeticError
            known[s] = point
        return test(known[s])

    try:
        place = float(scipy.optimize.brentq(value, 0.0, step, xtol=1e-15, rtol=1e-14))
        value(place)
        return known[place], place
    except ArithmeticError:
        return _interpolated(problem, here, step, test, known)
    except ValueError:
        return None


def _interpolated(
    problem: Problem,
    here: Point,
    step: float,
    test: Callable[[Point], float],
    known: dict[float, Point],
) -> tuple[Point, float] | None:
    """Return a zero of a test function, and the point there, by interpolation around it."""
    found = _interpolations(problem, here, step, test, known)
    return min(found, key=lambda pair: pair[0].residual, default=None)


def _interpolations(
    problem: Problem,
    here: Point,
    step: float,
    test: Callable[[Point], float],
    known: dict[float, Point],
) -> list[tuple[Point, float]]:
    """Return what interpolations of rising widths give for a zero of a test function."""
    sides = [sorted((abs(test(q)), s) for s, q in known.items() if test(q) * sign > 0.0)
             for sign in (1.0, -1.0)]  # fmt: skip
    if not all(sides):
        return []
    (one, first), (other, second) = sides[0][0], sides[1][0]
    guess = (first * other + second * one) / (one + other)
    widths = 0.01 * step * 2.0 ** np.arange(6)
    offsets = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
    tried = [_through(problem, here, guess + width * offsets, test) for width in widths]
    return [pair for pair in tried if pair is not None]


def _through(
    problem: Problem, here: Point, places: Array, test: Callable[[Point], float]
) -> tuple[Point, float] | None:
    """Return the zero of the interpolation through points at distances from one of the branch."""
    points = [_ahead(problem, here, s) for s in places.tolist()]
    rows = [np.concatenate([[test(q)], q.x, [q.p], q.tangent]) for q in points if q is not None]
    if len(rows) < len(places):
        return None
    curve = scipy.interpolate.BarycentricInterpolator(places, rows)
    try:
        place = float(scipy.optimize.brentq(lambda s: float(curve(s)[0]), places[0], places[-1]))
    except ValueError:  # no zero between them
        return None
    n, row = here.x.size, curve(place)
    x, p, tangent = row[1 : n + 1], float(row[n + 1]), row[n + 2 :]
    tangent = tangent / np.linalg.norm(tangent)
    rest = float(np.linalg.norm(problem.residual.value(x, p)))
    found = Corrected(x, p, np.zeros((n, 0)), 0, rest, 0.0)
    point = _described(problem, tangent, found)
    return None if point is None else (point._replace(tangent=tangent), place)


def _steady_zero(
    problem: Problem, here: Point, step: float, test: Callable[[Point], float]
) -> tuple[Point, float] | None:
    """Return where the orbit loses dimensions, or others cross at all p, and how far that is.

    There may be solutions at every p there, which Newton's method takes for those of the branch:
    the point is interpolated between some at such distances that it depends least
    on them.
    """
    there = _ahead(problem, here, step)
    if there is None:
        return None
    tried = _interpolations(problem, here, step, test, {0.0: here, step: there})
    pairs = itertools.pairwise(tried)
    steady = min(pairs, key=lambda pair: distance_between(pair[0][0], pair[1][0]), default=None)
    return None if steady is None else steady[1]


def _at_bound(
    problem: Problem, here: Point, step: float, bound: float
) -> tuple[Point, float] | None:
    """Return where a step first has p at a bound."""
    found = zero_between(problem, here, step, lambda point: point.p - bound)
    return None if found is None else (found[0]._replace(p=bound), found[1])


def unstable(point: Point) -> int:
    """Return the number of eigenvalues with a positive real part."""
    return len(point.values) - int(np.searchsorted(point.values.real, 0.0, side="right"))


def radius(point: Point) -> float:
    """Return the largest modulus of an eigenvalue."""
    values = point.values
    if np.iscomplexobj(values):
        return float(np.abs(values).max(initial=0.0))
    return max(-float(values[0]), float(values[-1])) if len(values) else 0.0


def _located(problem: Problem, here: Point, there: Point, step: float) -> list[Special]:
    """Return the events between two points, in their order."""
    size = max(radius(here), radius(there))
    tests, flip = list(_tests(problem, here, there, size)), _flip(problem, here, there)
    lift = _lift(problem, here, there)
    if not tests and flip is None and lift is None:
        return []
    if not problem.nearest:  # signs alone have no zeros
        problem = problem._replace(nearest=FEWEST)
        here, there = _with_values(problem, here), _with_values(problem, there)
        return _located(problem, here, there, step)
    found: list[Special] = []

    def add(test: Callable[[Point], float], kind: str, zero: Zero = zero_between) -> None:
        place = zero(problem, here, step, test)
        if place is None:
            return
        point, s = place
        word = kind
        value = test(point)
        if kind != "user" and abs(value) > KERNEL_RTOL * max(size, 1.0):
            return  # a jump of the spectrum, and no zero
        larger = None if kind == "user" else _at_larger_orbit(problem, point, there.basis.shape[1])
        point = larger or point
        kernel = int(np.count_nonzero(np.abs(point.values) <= KERNEL_RTOL * size))
        tolerance = KERNEL_RTOL * size
        if kind == "fold" and len(null_directions(problem, point.x, point.p, tolerance)) > 1:
            word = "branch_point"
        lost = _orbit_rank(problem, point) < there.basis.shape[1]
        if kind == "symmetry_change" and not lost:
            return  # the orbit turned
        if larger is not None or (kind != "user" and lost):
            word = "symmetry_change"
        found.append(Special(point, s, word, value, abs(value), kernel, size))

    for kind, test in tests:
        add(test, kind)
    if lift is not None:
        add(lift, "branch_point", _steady_zero)
    if flip is not None and not any(q.kind == "symmetry_change" for q in found):
        add(flip, "symmetry_change", _steady_zero)
    return sorted(found, key=lambda special: special.distance)


def _with_values(problem: Problem, point: Point) -> Point:
    """Return a point with the eigenvalues that the problem asks for."""
    if problem.spectrum is not None:
        return point
    jacobian = problem.residual.matrix(point.x, point.p)
    values = transverse_values(problem.residual, jacobian, point.basis, problem.nearest)
    return point._replace(values=values)


def _tests(
    problem: Problem, here: Point, there: Point, size: float
) -> Iterator[tuple[str, Callable[[Point], float]]]:
    """Yield the kinds of events between two points, each with a function that vanishes there."""
    yield from _spectral_tests(problem, here, there, size)
    for kind, event in (*problem.kinds, *(("user", event) for event in problem.events)):
        if event(here.x, here.p) * event(there.x, there.p) < 0.0:
            yield kind, lambda point, event=event: float(event(point.x, point.p))  # type: ignore[misc]


def _spectral_tests(
    problem: Problem, here: Point, there: Point, size: float
) -> Iterator[tuple[str, Callable[[Point], float]]]:
    """Yield the tests of where the branch turns, and of where eigenvalues cross zero."""
    slopes = float(here.tangent[-1]), float(there.tangent[-1])
    folded = slopes[0] * slopes[1] < 0.0 and abs(slopes[0]) > VERTICAL  # no fold to start with
    folded = folded and problem.spectrum is None
    if folded:
        yield "fold", lambda point: float(point.tangent[-1])
    before, after = unstable(here), unstable(there)
    crossed = abs(after - before)
    same = len(here.values) == len(there.values)
    number = len(here.values) - max(before, after)
    if same and crossed > int(folded) and abs(here.values[number]) > KERNEL_RTOL * size:
        if _is_pair(there.values, number) or _is_pair(here.values, number):
            yield "hopf", lambda point: float(point.values[number].real)
        elif not folded:
            word = "branch_point" if problem.spectrum is None else "index_change"
            yield word, lambda point: float(point.values[number].real)


def _lift(problem: Problem, here: Point, there: Point) -> Callable[[Point], float] | None:
    """Return what changes sign where others cross a branch at a constant p, if it does.

    The branch's direction is the kernel of a symmetric ∂F/∂x: where ∂F/∂p is orthogonal to it,
    solutions leave for other p.
    """
    residual = problem.residual
    if not residual.symmetric or problem.spectrum is not None or not is_vertical(here, there):
        return None

    def test(point: Point) -> float:
        return float(point.tangent[:-1] @ residual.slope(point.x, point.p))

    return test if test(here) * test(there) < 0.0 else None


def _flip(problem: Problem, here: Point, there: Point) -> Callable[[Point], float] | None:
    """Return what changes sign where the orbit loses dimensions between two points, if it may.

    Generators G(x) are compared with what they are at the first point, on an orthonormal basis B of
    what they span there: (G(x_0) B)⁺ G(x) B is the identity there, and has a negative eigenvalue
    after some of them vanished. All that do so together have the same ones.
    """
    basis, residual = here.basis, problem.residual
    if problem.nullity >= 0 or not basis.shape[1] or basis.shape != there.basis.shape:
        return None
    rows = residual.orbit(here.x, here.p)
    seen, change = rows @ basis, residual.orbit(there.x, there.p) - rows
    gram = seen.T @ seen
    # By Weyl's inequality no singular value of G reaches zero; the cheaper norm is the larger one.
    for norm in ("fro", 2):
        shift = float(np.linalg.norm(change, norm)) ** 2
        if not lapack.dpotrf(gram - shift * np.eye(len(gram)))[1]:
            return None
    back = np.linalg.pinv(seen)

    def test(point: Point) -> float:
        matrix = back @ (residual.orbit(point.x, point.p) @ basis)
        return float(scipy.linalg.eigvals(matrix).real.min())

    return test if test(there) < 0.0 else None


def _is_pair(values: Array, number: int) -> bool:
    return bool(np.iscomplexobj(values) and abs(values[number].imag) > 1e-8 * np.abs(values).max())


def _orbit_rank(problem: Problem, point: Point) -> int:
    """Return the dimension of the orbit, with what is nearly zero at a located point counted so."""
    if problem.nullity >= 0:
        return int(point.basis.shape[1])
    rows = problem.residual.orbit(point.x, point.p)
    sizes = np.asarray(np.linalg.svd(rows, compute_uv=False), float)
    rank: int = int((sizes > KERNEL_RTOL * sizes.max(initial=problem.unit)).sum())
    return rank


def _at_larger_orbit(problem: Problem, point: Point, dimension: int) -> Point | None:
    """Return a located point at the value of p next to it at which its orbit is larger, or None.

    Rounding leaves it beside that value, where the generators do not span the larger orbit.
    """
    if problem.nullity >= 0:
        return None
    for value in problem.residual.symmetric_at:
        if abs(point.p - value) <= RANK_RTOL * (1.0 + abs(value)):
            there = stored(problem, point.x, value, point.tangent)
            if there is not None and there.basis.shape[1] > dimension:
                return there
    return None


def null_directions(problem: Problem, x: Array, p: float, tolerance: float = 0.0) -> Array:
    """Return the null directions (direction, component and p) of the equation across the orbit.

    Singular values up to ``tolerance`` are zero, and up to the one for Jacobians.
    """
    upwards = np.append(np.zeros(x.size), 1.0)
    basis = orbit_basis(problem, x, p, upwards)
    jacobian, slope = problem.residual.matrix(x, p), problem.residual.slope(x, p)
    if not tolerance:
        system = bordered_system(jacobian, pinned(basis, usual_size(jacobian)), slope, upwards)
        if system is not None and is_regular(system):
            only = system.solve(upwards)
            return only[None] / np.linalg.norm(only)
    rows = np.column_stack([jacobian, slope])
    rows = np.vstack([rows, np.column_stack([basis.T, np.zeros(basis.shape[1])])])
    _, sizes, frame = np.linalg.svd(rows, full_matrices=len(rows) <= x.size)
    rank = int((sizes > max(1e3 * RANK_RTOL * sizes[0], tolerance)).sum())
    null: Array = frame[min(rank, x.size) :]
    return null


def turned(point: Point) -> Point:
    """Return a point of the same branch in the other direction."""
    return point._replace(tangent=-point.tangent)


def reversed_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of one side in the direction of those of the other."""
    return [row._replace(point=turned(row.point), distance=-row.distance) for row in reversed(rows)]


def stored(problem: Problem, x: Array, p: float, tangent: Array) -> Point | None:
    """Return a point that was found before, as it was, with its spectrum."""
    rest = float(np.linalg.norm(problem.residual.value(x, p)))
    found = Corrected(x, p, np.zeros((x.size, 0)), 0, rest, 0.0)
    point = _described(problem, tangent, found)
    return None if point is None else point._replace(tangent=tangent)


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
