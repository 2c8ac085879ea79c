"""One solution on a branch of F(x, p) = 0 modulo symmetry: correction, tangent, spectrum."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dlnds._kernels import branches, jit
from dlnds.arrays import Array
from dlnds.continuation.bordered import (
    Factors,
    bordered_system,
    is_regular,
    orthonormal,
    pinned,
    transverse_values,
    usual_size,
)
from dlnds.continuation.residuals import Residual
from dlnds.theory import tolerances

#: Steps of iterative refinement at most.
MOST_REFINEMENTS = 8
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


class Course(NamedTuple):
    """How far, and in which steps, a branch is followed."""

    bounds: tuple[float, float]
    step: float
    limits: tuple[float, float]
    max_points: int
    rtol: float
    n_eigenvalues: int
    #: Functions of x and p (and q) whose zeros are located.
    events: tuple[Callable[..., float], ...]
    progress: bool
    secant: bool = False

    @property
    def unit(self) -> float:
        """The length that components are compared with: that of the largest step."""
        return self.limits[1]


class Problem(NamedTuple):
    """What all steps of one branch share."""

    residual: Residual
    course: Course
    #: Dimension of the kernel that is taken out without generators, or −1 if they are declared.
    nullity: int = -1
    #: Beyond these values of p the equation need not be defined.
    bounds: tuple[float, float] = (-np.inf, np.inf)
    #: Of an equation that is made from another one: the eigenvalues of that one, from x, p and the
    #: basis of the orbit, and events by kind, in place of folds.
    spectrum: Callable[[Array, float, Array], Array] | None = None
    kinds: tuple[tuple[str, Event], ...] = ()
    #: Makes the problem of the step that starts at a point; all steps share one without it.
    renewed: Callable[[Point], "Problem"] | None = None


def declared_basis(residual: Residual, x: Array, p: float, unit: float) -> Array:
    """Return an orthonormal basis of the tangent space of the declared orbit.

    Generators that are small as compared with a unit of length count as zero.
    """
    rows = residual.orbit(x, p)
    if not rows.any():
        return np.zeros((x.size, 0))
    basis = orthonormal(rows, unit)
    if basis is not None:
        return basis
    _, sizes, frame = np.linalg.svd(rows, full_matrices=False)
    return frame[: int((sizes > tolerances.RANK * max(sizes[0], unit)).sum())].T


def orbit_basis(problem: Problem, x: Array, p: float, tangent: Array) -> Array:
    """Return an orthonormal basis of the directions in which solutions are not isolated."""
    residual = problem.residual
    if problem.nullity < 0:
        return declared_basis(residual, x, p, problem.course.unit)
    if not problem.nullity:
        return np.zeros((x.size, 0))
    wide = np.column_stack([residual.matrix(x, p), residual.slope(x, p)])
    kernel = np.asarray(np.linalg.svd(wide)[2][-problem.nullity - 1 :], float)
    along = kernel.T @ (kernel @ tangent)
    rest = kernel - np.outer(kernel @ along, along) / float(along @ along)
    return np.linalg.svd(rest)[2][: problem.nullity, :-1].T


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


def joined(x: Array, p: float) -> Array:
    """Return a state and a number as one vector."""
    joined = np.empty(len(x) + 1)
    joined[:-1], joined[-1] = x, p
    return joined


def length(v: Array) -> float:
    """Return ‖v‖, for short vectors several times as fast as numpy's norm."""
    return math.sqrt(v @ v)


def corrected(problem: Problem, x: Array, p: float, tangent: Array) -> Corrected | None:
    """Return the solution in the plane through (x, p) across the tangent and the orbit, or None."""
    residual, rtol = problem.residual, problem.course.rtol
    basis, n = orbit_basis(problem, x, p, tangent), x.size
    start, last = joined(x, p), np.inf
    jacobian = residual.matrix(x, p)
    weight = usual_size(jacobian)
    pin, point = pinned(basis, weight), start.copy()
    system = bordered_system(jacobian, pin, residual.slope(x, p), tangent)
    contraction, fresh = 0.0, True
    for iteration in range(1, branches.MOST_ITERATIONS + 1):
        x, p = point[:n], float(point[n])
        lack = point - start
        force = residual.value(x, p) - weight * (basis @ (basis.T @ lack[:n]))
        right = joined(force, float(tangent @ lack))
        if system is None or not np.isfinite(right @ right):
            return None
        step = system.solve(right)
        point = point - step
        if not _is_within(point, problem.bounds):
            return None
        size = length(step) / (1.0 + length(point))
        contraction = size / last if iteration == 2 else contraction
        if not np.isfinite(size):
            return None
        if size <= rtol or (fresh and size <= 1e3 * rtol and size > 0.5 * last):
            x, p = point[:n].copy(), float(point[n])
            rest = length(residual.value(x, p))
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


def _is_within(point: Array, bounds: tuple[float, float]) -> bool:
    """Tell whether p is within bounds, and put it there where rounding alone moved it out."""
    nearest = min(max(point[-1], bounds[0]), bounds[1])
    if abs(point[-1] - nearest) > EPSILON * (1.0 + abs(nearest)):
        return False
    point[-1] = nearest
    return True


def solution_near(problem: Problem, x: Array, p: float, tangent: Array) -> Point | None:
    """Return the solution near a prediction with its tangent and spectrum, or None."""
    stride = next(strides(problem, joined(x, p), tangent), None)
    if stride is not None:
        return stride.point
    found = corrected(problem, x, p, tangent)
    return None if found is None else described(problem, tangent, found)


class Stride(NamedTuple):
    """A step along a branch: where it led, its length, and the length to try next."""

    point: Point
    taken: float
    next_step: float


def strides(
    problem: Problem,
    point: Array,
    tangent: Array,
    limits: tuple[float, float] = (0.0, np.inf),
    least_cosine: float = -1.0,
    step: float = 0.0,
    count: int = 1,
) -> Iterator[Stride]:
    """Yield the steps that follow (x, p), taken at once by compiled functions if there are such.

    As many as are clearly regular, between limits of their length. One of 0 corrects the point
    itself.
    """
    compiled, n = problem.residual.compiled, len(point) - 1
    if compiled is None or problem.nullity >= 0 or problem.spectrum is not None:
        return
    points, tangents = np.empty((2, count + 1, n + 1))
    points[0], tangents[0] = point, tangent
    bases = np.empty((count, compiled.n_generators, n))
    jacobians, found = np.empty((count, n, n)), np.zeros((count, branches.FOUND))
    low, high = problem.bounds if step else (-np.inf, np.inf)
    options = problem.course.rtol, problem.course.unit, low, high, *limits, least_cosine
    follow: Any = jit.ready(branches.follow, branches.FOLLOW)
    number = follow(
        *(compiled.params, compiled.decay, compiled.action),
        jit.ready(compiled.field, jit.FIELD),
        jit.ready(compiled.jacobian, jit.JACOBIAN),
        *(tuple(map(float, options)), step, points, tangents, bases, jacobians, found),
    )
    for k, row in enumerate(found[:number].tolist()):
        taken, later, rank, iterations, contraction, residual, multiplier = row
        x, p, basis = points[k + 1, :n], float(points[k + 1, n]), bases[k, : int(rank)].T
        values = _spectrum(problem, x, p, basis, jacobians[k])
        numbers = int(iterations), residual, multiplier, contraction
        yield Stride(Point(x, p, tangents[k + 1], basis, values, *numbers), taken, later)


def _spectrum(problem: Problem, x: Array, p: float, basis: Array, jacobian: Array) -> Array:
    """Return the eigenvalues across the orbit that the problem asks for."""
    if problem.spectrum is not None:
        return problem.spectrum(x, p, basis)
    return transverse_values(problem.residual, jacobian, basis, problem.course.n_eigenvalues)


def described(problem: Problem, tangent: Array, found: Corrected) -> Point | None:
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
    ahead /= length(ahead)
    values = _spectrum(problem, x, p, basis, jacobian)
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
        rest = right - joined(image, float(tangent @ ahead))
        if length(rest) <= EPSILON * (1.0 + found.weight) * length(ahead):
            return ahead
    return None


def distance_between(one: Point, other: Point) -> float:
    """Return the distance of two points in (x, p)."""
    return float(np.linalg.norm(np.append(one.x - other.x, one.p - other.p)))


def ahead_of(problem: Problem, here: Point, step: float) -> Point | None:
    """Return the point at a distance along the tangent, or the secant of the step before."""
    n, ahead = here.x.size, here.tangent if here.heading is None else here.heading
    return solution_near(problem, here.x + step * ahead[:n], here.p + step * float(ahead[n]), ahead)


def unstable(point: Point) -> int:
    """Return the number of eigenvalues with a positive real part."""
    return len(point.values) - int(np.searchsorted(point.values.real, 0.0, side="right"))


def radius(point: Point) -> float:
    """Return the largest modulus of an eigenvalue."""
    values = point.values
    if np.iscomplexobj(values):
        return float(np.abs(values).max(initial=0.0))
    return max(-float(values[0]), float(values[-1])) if len(values) else 0.0


def with_values(problem: Problem, point: Point) -> Point:
    """Return a point with the eigenvalues that the problem asks for."""
    x, p, jacobian = point.x, point.p, problem.residual.matrix(point.x, point.p)
    return point._replace(values=_spectrum(problem, x, p, point.basis, jacobian))


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
    rank = int((sizes > max(1e3 * tolerances.RANK * sizes[0], tolerance)).sum())
    return frame[min(rank, x.size) :]


def turned(point: Point) -> Point:
    """Return a point of the same branch in the other direction."""
    return point._replace(tangent=-point.tangent)


def stored(problem: Problem, x: Array, p: float, tangent: Array) -> Point | None:
    """Return a point that was found before, as it was, with its spectrum."""
    rest = float(np.linalg.norm(problem.residual.value(x, p)))
    found = Corrected(x, p, np.zeros((x.size, 0)), 0, rest, 0.0)
    point = described(problem, tangent, found)
    return None if point is None else point._replace(tangent=tangent)
