"""Events between two points of a branch: what may have happened, and where."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy  # loads scipy.interpolate when it is used, which is rare and takes long
import scipy.linalg
import scipy.optimize
from scipy.linalg import lapack

from dlnds.arrays import Array
from dlnds.continuation.bordered import FEWEST
from dlnds.continuation.correct import (
    Point,
    Problem,
    ahead_of,
    distance_between,
    null_directions,
    radius,
    stored,
    unstable,
    with_values,
)
from dlnds.theory import tolerances

#: Components of tangents along p that are rounding: along branches at a constant p nothing folds.
VERTICAL = 1e-10


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


def is_vertical(here: Point, there: Point) -> bool:
    """Tell whether a step is along a branch at a constant p."""
    return bool(max(abs(here.tangent[-1]), abs(there.tangent[-1])) <= VERTICAL)


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
            point = ahead_of(problem, here, s)
            if point is None:
                raise ArithmeticError
            known[s] = point
        return test(known[s])

    try:
        place = float(scipy.optimize.brentq(value, 0.0, step, xtol=1e-15, rtol=1e-14))
        value(place)
        return known[place], place
    except ArithmeticError:
        found = _interpolations(problem, here, step, test, known)
        return min(found, key=lambda pair: pair[0].residual, default=None)
    except ValueError:
        return None


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
    points = [ahead_of(problem, here, s) for s in places.tolist()]
    rows = [np.concatenate([[test(q)], q.x, [q.p], q.tangent]) for q in points if q is not None]
    if len(rows) < len(places):
        return None
    curve = scipy.interpolate.KroghInterpolator(places, rows)
    try:
        place = float(scipy.optimize.brentq(lambda s: float(curve(s)[0]), places[0], places[-1]))
    except ValueError:  # no zero between them
        return None
    n, row = here.x.size, curve(place)
    x, p, tangent = row[1 : n + 1], float(row[n + 1]), row[n + 2 :]
    point = stored(problem, x, p, tangent / np.linalg.norm(tangent))
    return None if point is None else (point, place)


def _steady_zero(
    problem: Problem, here: Point, step: float, test: Callable[[Point], float]
) -> tuple[Point, float] | None:
    """Return where the orbit loses dimensions, or others cross at all p, and how far that is.

    There may be solutions at every p there, which Newton's method takes for those of the branch:
    the point is interpolated between some at such distances that it depends least on them.
    """
    there = ahead_of(problem, here, step)
    if there is None:
        return None
    tried = _interpolations(problem, here, step, test, {0.0: here, step: there})
    pairs = itertools.pairwise(tried)
    steady = min(pairs, key=lambda pair: distance_between(pair[0][0], pair[1][0]), default=None)
    return None if steady is None else steady[1]


def located(problem: Problem, here: Point, there: Point, step: float) -> list[Special]:
    """Return the events between two points, in their order."""
    size = max(radius(here), radius(there))
    tests, flip = list(_tests(problem, here, there, size)), _flip(problem, here, there)
    lift = _lift(problem, here, there)
    if not tests and flip is None and lift is None:
        return []
    if not problem.course.n_eigenvalues:  # signs alone have no zeros
        problem = problem._replace(course=problem.course._replace(n_eigenvalues=FEWEST))
        here, there = with_values(problem, here), with_values(problem, there)
        return located(problem, here, there, step)
    dimension = there.basis.shape[1]
    tried = [(kind, test, zero_between(problem, here, step, test)) for kind, test in tests]
    if lift is not None:
        tried.append(("branch_point", lift, _steady_zero(problem, here, step, lift)))
    found = [_identified(problem, *one, size, dimension) for one in tried]
    if flip is not None and not any(q and q.kind == "symmetry_change" for q in found):
        place = _steady_zero(problem, here, step, flip)
        found.append(_identified(problem, "symmetry_change", flip, place, size, dimension))
    return sorted(filter(None, found), key=lambda special: special.distance)


def _identified(
    problem: Problem,
    kind: str,
    test: Callable[[Point], float],
    place: tuple[Point, float] | None,
    size: float,
    dimension: int,
) -> Special | None:
    """Return what is special where a test function vanishes, None if it is nothing.

    Around it the orbit has that dimension, and the largest eigenvalue that size.
    """
    if place is None:
        return None
    (point, s), tolerance = place, tolerances.KERNEL * size
    value = test(point)
    if kind != "user":
        if abs(value) > max(tolerance, tolerances.KERNEL):
            return None  # a jump of the spectrum, and no zero
        larger = _at_larger_orbit(problem, point, dimension)
        point = larger or point
        lost = _orbit_rank(problem, point) < dimension
        if kind == "symmetry_change" and not lost:
            return None  # the orbit turned
        if larger is not None or lost:
            kind = "symmetry_change"
        elif kind == "fold" and len(null_directions(problem, point.x, point.p, tolerance)) > 1:
            kind = "branch_point"
    kernel = int(np.count_nonzero(np.abs(point.values) <= tolerance))
    return Special(point, s, kind, value, abs(value), kernel, size)


def _tests(
    problem: Problem, here: Point, there: Point, size: float
) -> Iterator[tuple[str, Callable[[Point], float]]]:
    """Yield the kinds of events between two points, each with a function that vanishes there."""
    yield from _spectral_tests(problem, here, there, size)
    for kind, event in (*problem.kinds, *(("user", event) for event in problem.course.events)):
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
    if same and crossed > int(folded) and abs(here.values[number]) > tolerances.KERNEL * size:
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
    return int((sizes > tolerances.KERNEL * sizes.max(initial=problem.course.unit)).sum())


def _at_larger_orbit(problem: Problem, point: Point, dimension: int) -> Point | None:
    """Return a located point at the value of p next to it at which its orbit is larger, or None.

    Rounding leaves it beside that value, where the generators do not span the larger orbit.
    """
    if problem.nullity >= 0:
        return None
    for value in problem.residual.symmetric_at:
        if abs(point.p - value) <= tolerances.RANK * (1.0 + abs(value)):
            there = stored(problem, point.x, value, point.tangent)
            if there is not None and there.basis.shape[1] > dimension:
                return there
    return None
