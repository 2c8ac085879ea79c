"""Branches of solutions of F(x, p) = 0, modulo declared symmetry, as Datasets."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads scipy.optimize when it is used
import xarray as xr
from numpy.typing import ArrayLike
from tqdm import tqdm

from dlnds import schema
from dlnds.arrays import Array
from dlnds.continuation import normal_forms
from dlnds.continuation.correct import (
    Event,
    Point,
    Problem,
    between,
    corrected,
    course,
    placed,
    solved,
    turned,
    unit_length,
    upwards_of,
)
from dlnds.continuation.detect import passed
from dlnds.continuation.locate import at_node, is_on_zero
from dlnds.continuation.orbits import invariants, same_orbit
from dlnds.continuation.residuals import Residual, generators_of
from dlnds.continuation.start import started
from dlnds.continuation.ways import VERTICAL, Special, way_between
from dlnds.errors import (
    check_choice,
    check_flag,
    check_function,
    check_integer,
    check_number,
    known_options,
)
from dlnds.theory import tolerances
from dlnds.threads import threads_for

DIRECTIONS = ("both", "up", "down")
SYMMETRIES = ("declared", "minimum_norm")
PREDICTORS = ("tangent", "secant")
#: Attributes that tell how a branch was followed, and not of which equation it is.
FOLLOWED = (
    *("start_step", "first_stop", "last_stop", "bounds", "step_min", "step_max", "rtol"),
    *("state_scale", "parameter_scale", "derivative_scale"),
)
#: Those that are the same for the whole of one, and those of a diagram.
KEPT, NODES = ("symmetry", "predictor"), ("parent", "parent_step", "level", "complete")
#: Smallest cosine of successive tangents.
LEAST_COSINE = 0.95
#: How many times smaller the second correction is than the first as a rule, and the cosine of two
#: tangents of a step that may grow.
USUAL_CONTRACTION, USUAL_COSINE = 0.01, 0.99
#: Largest correction, in terms of the step.
FAR = 0.25
#: Part of a step that is taken where the whole would end on a zero, and how often.
SHORTER, MOST_SHORTER = 0.8, 6
#: Distance from a bound with a larger symmetry, in terms of the size of p, that is near it.
BESIDE = 1e-4
#: Distance of bounds, in terms of their size, within which numbers are too few for a branch.
APART = 1e-12
#: Part of a step that shows the direction in which it changes something.
NEARBY = 1e-4


class Row(NamedTuple):
    """A point of a branch, its distance along it, the step to try next, what is special there."""

    point: Point
    distance: float
    next_step: float
    special: Special | None = None
    #: The point next to it whose index it shares, if it is at the end of a branch itself.
    like: Point | None = None


class Steps(NamedTuple):
    """In which steps, and how far, a branch is followed."""

    first: float
    smallest: float
    largest: float
    max_points: int = 1000
    secant: bool = False
    progress: bool = False


class Stride(NamedTuple):
    """A step along a branch: where it led, what it passed, its length, and that to try next."""

    point: Point
    special: list[Special]
    taken: float
    next_step: float


@known_options
def branch(
    residual: Residual,
    x0: ArrayLike,
    p0: float,
    *,
    bounds: tuple[float, float],
    step: float = 0.05,
    step_min: float = 1e-7,
    step_max: float = 0.5,
    direction: str = "both",
    events: Sequence[Event] = (),
    symmetry: str = "declared",
    predictor: str = "tangent",
    max_points: int = 1000,
    rtol: float = 1e-12,
    n_eigenvalues: int = 6,
    progress: bool = False,
) -> xr.Dataset:
    """Return the branch of solutions of F(x, p) = 0 through a given one, modulo symmetry.

    Parameters
    ----------
    residual
        The equation: `Residual`, or what `equilibria` makes. A function ``fun(x, p)`` is taken as
        one without symmetry.
    x0, p0
        A solution (component), up to what damped Newton steps at fixed p correct.
    bounds
        Smallest and largest p; a branch that leaves them ends there, with a row on the bound.
    step, step_min, step_max
        Distance between points, in (x, p) divided by the scales of the notes: the first one, and
        its limits.
    direction
        ``"up"`` or ``"down"`` in p from the start, or ``"both"``; closed ones are gone round once.
    events
        Functions of x and p whose zeros are located too.
    symmetry
        ``"declared"``: solutions are continued across the orbit that the generators of the residual
        span. ``"minimum_norm"``: generators are not needed, the kernel of the Jacobian at the start
        is taken for the tangent space of the orbit, and a space of that dimension at each point.
    predictor
        ``"tangent"``, or ``"secant"`` through the last two points, where the derivative by p is not
        to be trusted; the corrections are across it.
    max_points
        Points in each direction at most.
    rtol
        Last Newton step, relative to the size of (x, p).
    n_eigenvalues
        How many eigenvalues across the orbit to record, those nearest to zero.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``branch``, dim ``step`` in the order along the branch, with the coordinate ``p``:
        ``state(step, parameter)``; ``tangent(step, parameter)`` and ``tangent_p``, the unit tangent
        in the direction of the rows; ``arclength`` from the start, in scaled coordinates;
        ``residual`` ‖F‖; ``multiplier`` on the orbit, zero where the symmetry is one;
        ``newton_iterations``; ``next_step``, the distance to try next, away from the start;
        ``transverse_eigenvalue(step, eigen)`` nearest to zero, with ``transverse_eigenvalue_imag``
        unless the Jacobian is symmetric, and the largest modulus of all, ``spectral_radius``;
        ``index``, the number of eigenvalues with a positive real part (of a map, of multipliers
        outside the unit circle); ``orbit_dimension``; ``isotropy_dimension``, how many independent
        generators vanish; ``nullity``, that of the orbit with what else is zero; ``label``, the
        name of the solution, if the residual knows it; and what the residual observes.

        Special points are rows with ``event`` set, flags ``fold``, ``branch_point``, ``hopf``,
        ``flip`` and ``neimark_sacker`` (of maps), ``symmetry_change`` (there the orbit has fewer
        dimensions than around it, or more) and ``user``. Of these are known ``test_value``,
        ``accuracy`` (distance, as ``arclength``), ``kernel_dimension`` of ∂F/∂x across the orbit,
        ``fold_direction`` (p has a maximum, −1, or a minimum, 1), ``criticality`` of simple
        pitchforks and Hopf points, and how it was ``decided``: by a change of sign, by a zero that
        is touched, interpolated between neighbours where the equation is singular, or at a node:
        the start, or the end at a bound. Between two rows without an event ``index``, ``nullity``
        and ``orbit_dimension`` are equal: a start where p only pauses and goes on, as at x = 0 of
        p = x³, which is no special point, has the nullity of what is beside it.

        Attributes: ``start_step``, and why the branch ends on both sides, ``first_stop`` and
        ``last_stop``: ``bound_reached``, ``max_points``, ``closed``, ``start``, ``step_too_small``
        (Newton's method finds no next solution), ``not_finite`` (F is not, ahead, or ∂F/∂p)
        or ``unresolved`` (no step was short enough to tell what happens within it); ``bounds``,
        ``step_min``, ``step_max``, ``rtol``, ``symmetry``, ``predictor``, ``state_scale``,
        ``parameter_scale`` and ``derivative_scale``, with which `extend_branch` goes on, and
        ``row_scale`` of equations whose rows differ much in size.

    Raises
    ------
    ConvergenceError
        If there is no solution near x0 at p0 within reach of Newton's method.
    ValueError, TypeError
        If several directions lead on from the start beside the declared symmetry, as at branch
        points; if the Jacobian, the derivative, the generators or a declared symmetry of the
        Jacobian are not those of ``fun`` at the start; or if an argument is outside what is
        described above. What functions of the equation raise themselves is not caught.

    Notes
    -----
    Lengths are those of (x, p) divided by scales: for p half of the range between the bounds, for x
    the length over which F is no longer linear in it, in slow directions, the smallest of those at
    p0 and half way to both bounds. So other units of x or p change nothing but rounding. Nor do
    those of F: rows that differ much in size are divided by it, unless the Jacobian is declared to
    be symmetric. Eigenvalues are those of the Jacobian as it is given.

    Predictor along the tangent or the secant; corrector by Newton's method for F = c B Bᵀ (x − x̂)
    in the plane through the prediction x̂ that is orthogonal to the tangent, where the columns of B
    are an orthonormal basis of the orbit's tangent space there and c is the size of the Jacobian.
    The multipliers c Bᵀ (x − x̂) vanish at solutions, which so are in the slice across the orbit.
    This bordered system is regular at regular points and folds. With more than 600 components it is
    solved part by part, and all eigenvalues are known, where the Jacobian falls into parts that it
    does not join, as in the `Residual.aligned` coordinates of layers with weight decay; the memory
    is that of its entries that are not zero if it is sparse, as there. Elsewhere the whole matrix
    is kept; of a symmetric one, the index is that of the factors of ∂F/∂x − c B Bᵀ, and the
    eigenvalues nearest to zero come from a Krylov space of its inverse.

    A step is taken if Newton's method contracts, does not lead far, and turns the tangent little;
    and if the test functions (the tangent's component along p, eigenvalues across the orbit, user
    events) are settled within it: by their values at both ends and, unless all are far from zero,
    at the point half way, which must be near the cubic curve through both ends, each keeps its sign
    or changes it once. Otherwise the step is shortened. Zeros are found on corrected points, by
    interpolation of those known; where the equation is singular, by interpolation between points
    around. The determinant of [∂F/∂x, ∂F/∂p; tangent] changes sign once for each dimension of the
    kernel of a branch point and nowhere else; where it does otherwise, the step is shortened, too.

    A branch that comes to a pitchfork by one of its halves goes on along the other one. If a
    symmetry maps these onto each other, as where a mode of two layers with weight decay vanishes,
    the rows beyond the point are the orbits before it once more, in the other order, with their
    special points. Periodic orbits, which leave Hopf points, are not there.

    Along branches of gradients at a constant p it is the component of ∂F/∂p along the tangent that
    vanishes where others cross. Where the orbit loses dimensions and no eigenvalue changes sign, as
    where a learnt mode vanishes, the declared generators tell it, compared from point to point.
    Where it gains some, at a value of p that the residual declares, the special point is put at
    this value; a branch that starts or ends there is the limit of solutions beside it.
    Both sides of a change of the symmetry are looked at by themselves, nearer and nearer to it.

    Where F has no slope across a zero of the determinant but more of a value than rounding leaves,
    two components come near without meeting: that is no branch point, and the step is shortened.
    The ``accuracy`` of branch points covers the distance of components that rounding may join.

    References
    ----------
    Kuz04 (Kuznetsov, Springer 2004), chapter 10, for continuation, test functions and normal forms

    Examples
    --------
    >>> import dlnds as dl
    >>> fold = dl.branch(lambda x, p: p + x**2, [1.0], -1.0, bounds=(-1.5, 1.0))
    >>> point = dl.special_points(fold)
    >>> dl.schema.decode(point.event).values.tolist(), bool(abs(point.p[0]) < 1e-14)
    (['fold'], True)
    """
    direction = check_choice("direction", direction, DIRECTIONS)
    symmetry = check_choice("symmetry", symmetry, SYMMETRIES)
    steps = check_steps(step, step_min, step_max, max_points, predictor, progress)
    course = check_course(bounds, rtol, n_eigenvalues, events)
    quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
    with quiet, threads_for(float(np.size(x0)) ** 3):
        problem, first = started(residual, x0, p0, course, steps.max_points, symmetry)
        return as_dataset(problem, steps, *followed(problem, steps, first, direction))


def check_course(
    bounds: tuple[float, float],
    rtol: float,
    n_eigenvalues: int,
    events: Sequence[Callable[..., float]],
    *more: str,
) -> dict[str, Any]:
    """Return what a `Problem` is told of a branch by its caller, if it can be that.

    Events are functions of x, p and what more there is.
    """
    if not np.iterable(events) or not all(map(callable, events)):
        raise TypeError(f"events: needs functions of x and p in a sequence, got {events!r}")
    for event in events:
        check_function("events", event, "x", "p", *more)
    return {
        "bounds": check_bounds("bounds", bounds),
        "rtol": check_number("rtol", rtol, minimum=1e-15, maximum=1e-3),
        "n_eigenvalues": check_integer("n_eigenvalues", n_eigenvalues, minimum=0),
        "events": tuple(events),
    }


def check_steps(
    step: float,
    step_min: float,
    step_max: float,
    max_points: int,
    predictor: str = "tangent",
    progress: bool = False,
) -> Steps:
    """Return the steps of a branch; the first one is brought between its limits."""
    smallest = check_number("step_min", step_min, minimum=1e-14)
    largest = check_number("step_max", step_max, minimum=smallest)
    first = check_number("step", step, minimum=1e-14)
    return Steps(
        first=min(max(first, smallest), largest),
        smallest=smallest,
        largest=largest,
        max_points=check_integer("max_points", max_points, minimum=1),
        secant=check_choice("predictor", predictor, PREDICTORS) == "secant",
        progress=check_flag("progress", progress),
    )


def check_bounds(name: str, value: Any) -> tuple[float, float]:
    """Return a smallest and a largest number."""
    pair = tuple(value) if np.iterable(value) and not isinstance(value, str) else ()
    if len(pair) != 2:
        raise ValueError(f"{name}: needs a smallest and a largest value, got {value!r}")
    low, high = (check_number(name, bound) for bound in pair)
    if not low < high:
        raise ValueError(f"{name}: needs a smallest value below the largest, got ({low}, {high})")
    if high - low <= APART * max(abs(low), abs(high)):
        raise ValueError(f"{name}: needs values that rounding does not join, got ({low}, {high})")
    return low, high


class Trail(NamedTuple):
    """How a branch came to the point that it is followed from."""

    #: Where it started: a branch that comes back there is closed.
    origin: Point
    travelled: float = 0.0
    #: The point before: where secants come from, and what test functions are compared with.
    before: Point | None = None


def walk(
    problem: Problem, steps: Steps, here: Point, trail: Trail
) -> Iterator[tuple[Stride | None, str]]:
    """Yield one step after the other, and why it is the last, which is empty but at the end."""
    step, (origin, travelled, before) = steps.first, trail
    while True:
        problem = problem.renewed(here) if problem.renewed else problem
        heading = here.heading
        if steps.secant and before is not None:
            heading = unit_length((here.z - before.z) / problem.scale)
        stride, reason = _advanced(problem, steps, here, heading, step, before)
        if stride is None:
            yield None, reason
            return
        if travelled > 0.0:
            closing = closed(problem, here, stride, origin)
            if closing is not None:
                yield closing, "closed"
                return
        travelled += stride.taken
        there = stride.point
        ended = there.p in problem.bounds and there.p != here.p
        yield stride, "bound_reached" if ended else ""
        if ended:
            return
        before, here, step = here, there, stride.next_step


def _advanced(
    problem: Problem,
    steps: Steps,
    here: Point,
    heading: Array,
    step: float,
    before: Point | None,
) -> tuple[Stride | None, str]:
    """Return the next step, shortened until all is clear along it, or why there is none."""
    reason, shortened, smallest = "step_too_small", 0, min(steps.smallest, step)
    while step >= smallest:
        there, taken = _trial(problem, here, heading, step)
        if there is None:
            step *= 0.5
            continue
        if is_on_zero(problem, there, here) and there.p not in problem.bounds:
            shortened += 1
            if shortened <= MOST_SHORTER:
                step = SHORTER * taken
                continue
        special = passed(problem, here, there, before)
        if special is None:
            step = 0.5 * min(step, taken)
            if reason != "unresolved":  # for the first time
                reason = "unresolved"
                leap = _leap(problem, steps, here, heading, 6.0 * step, before)
                if leap is not None:
                    return leap, ""
            continue
        later = next_step(steps, step, there.contraction, float(there.heading @ here.heading))
        return Stride(there, special, problem.distance(here.z, there.z), later), ""
    return None, reason if _is_finite(problem, here, heading, smallest) else "not_finite"


def _leap(
    problem: Problem, steps: Steps, here: Point, heading: Array, step: float, before: Point | None
) -> Stride | None:
    """Return a longer step, for test functions that touch zero ahead, which short ones never reach.

    None if it is not clear along it.
    """
    there, _ = _trial(problem, here, heading, min(step, steps.largest))
    if there is None or there.p in problem.bounds or is_on_zero(problem, there, here):
        return None
    special = passed(problem, here, there, before)
    if not special:
        return None
    taken = problem.distance(here.z, there.z)
    return Stride(there, special, taken, max(taken, steps.smallest))


def _trial(
    problem: Problem, here: Point, heading: Array, step: float
) -> tuple[Point | None, float]:
    """Return the point at a distance, or at the bound that is nearer, and its distance."""
    ahead, bound = (
        here.z + step * problem.scale * heading,
        _bound_ahead(problem, here, heading, step),
    )
    there = None
    if bound is not None:
        there, taken = _at_bound(problem, here, heading, bound)
        step = step if there is None else taken
    if there is None:  # what only touches the bound goes on within
        there = solved(problem, ahead, heading)
    if there is None or there.moved > FAR * step:
        return None, step
    cosine = float(there.heading @ here.heading)
    return (there if cosine >= LEAST_COSINE else None), step


def _bound_ahead(problem: Problem, here: Point, heading: Array, step: float) -> float | None:
    """Return the bound that a step along the tangent reaches."""
    (low, high), slope = problem.bounds, float(heading[-1])
    ahead = here.p + step * float(problem.scale[-1]) * slope
    return low if ahead <= low and slope < 0.0 else high if ahead >= high and slope > 0.0 else None


def _at_bound(
    problem: Problem, here: Point, heading: Array, bound: float
) -> tuple[Point | None, float]:
    """Return the point of a branch at a bound, and its distance along the tangent."""
    step = (bound - here.p) / (float(heading[-1]) * float(problem.scale[-1]))
    ahead = here.z + step * problem.scale * heading
    if bound in problem.residual.symmetric_at and problem.nullity < 0:
        return _beside_bound(problem, here, ahead, bound), step
    ahead[-1] = bound
    return _at(problem, ahead, heading), step


def _at(problem: Problem, ahead: Array, heading: Array) -> Point | None:
    """Return the solution at the p of a prediction."""
    return solved(problem, ahead, upwards_of(ahead), heading)


def _beside_bound(problem: Problem, here: Point, ahead: Array, bound: float) -> Point | None:
    """Return the limit of a branch at a bound at which the symmetry is larger than before.

    There solutions are a larger continuum, and the branch leads to one of them: by a parabola
    through solutions nearby, with what the orbit is there.
    """
    gap = min(BESIDE * float(problem.scale[-1]), 0.1 * abs(bound - here.p))
    away = math.copysign(gap, here.p - bound)
    slope = here.tangent / here.tangent[-1]
    points, slopes = [], []
    for part in (1.0, 2.0):
        place = ahead + part * away * slope
        place[-1] = bound + part * away
        point = _at(problem, place, here.heading)
        if point is None or not point.tangent[-1]:
            return None
        points.append(point)
        slopes.append(point.tangent / point.tangent[-1])
    first, tangent = points[0], points[0].tangent
    z = first.z - away * slopes[0] + 0.5 * away * (slopes[1] - slopes[0])
    z[-1] = bound
    limit = placed(problem, z, tangent, first.basis, problem.thin_matrix(z))
    return limit._replace(
        multiplier=first.multiplier,
        iterations=first.iterations,
        contraction=first.contraction,
        moved=first.moved,
    )


def next_step(steps: Steps, step: float, contraction: float, cosine: float) -> float:
    """Return the step to try next, from how much smaller the second correction of this one was.

    The first one is of the order of the step's square, and so is that ratio. The turn of the
    tangent, too, holds the step back.
    """
    ease = 2.0 if contraction <= 0.0 else math.sqrt(USUAL_CONTRACTION / contraction)
    ease = min(max(ease, 0.5), 0.8 if cosine < USUAL_COSINE else 2.0)
    return min(max(ease * step, steps.smallest), steps.largest)


def _is_finite(problem: Problem, here: Point, heading: Array, step: float) -> bool:
    """Tell whether F and its derivative by p are finite ahead of a point."""
    places = [here.z + part * step * problem.scale * heading for part in (1.0, 4.0, 16.0)]
    low, high = problem.bounds
    inside = [z for z in places if low <= z[-1] <= high]
    found = (part(z) for z in inside for part in (problem.value, problem.slope))
    return all(np.isfinite(numbers).all() for numbers in found)


def closed(problem: Problem, here: Point, stride: Stride, origin: Point) -> Stride | None:
    """Return the step that ends at the origin of a branch, None if one does not pass it.

    Solutions on the same orbit are the same; their invariants tell them.
    """
    there = stride.point
    if problem.residual.generators is not None or problem.residual.invariants is not None:
        return stride if _is_back(problem, here, there, origin) else None
    if there.heading @ origin.heading <= 0.0:
        return None
    before, after = (
        float(origin.heading @ ((q.z - origin.z) / problem.scale)) for q in (here, there)
    )
    reach = problem.distance(here.z, there.z)
    if not before < 0.0 <= after or problem.distance(there.z, origin.z) > reach:
        return None
    place, _ = course(problem, here, there, before / (before - after))
    if problem.distance(place, origin.z) > FAR * reach:
        return None
    start = place.copy()
    start -= (
        problem.scale * origin.heading * (origin.heading @ ((place - origin.z) / problem.scale))
    )
    found = corrected(problem, start, origin.heading)
    if found is None or problem.distance(found.z, origin.z) > tolerances.SAME_ORBIT * reach:
        return None
    near = 1e-3 * reach  # what is special at the origin has been told there
    special = [
        q
        for q in passed(problem, here, origin) or stride.special
        if problem.distance(q.point.z, origin.z) > near
        and problem.distance(here.z, q.point.z) < problem.distance(here.z, origin.z)
    ]
    return Stride(origin, special, problem.distance(here.z, origin.z), stride.next_step)


def _is_back(problem: Problem, here: Point, there: Point, origin: Point) -> bool:
    """Tell whether a step led back to the orbit of the origin, by the invariants of the group.

    Groups with unbounded orbits may lead back to another point of the orbit.
    """
    if problem.residual.invariants is None:
        return _is_moved_back(problem, here, there, origin)
    if abs(there.p - origin.p) > abs(there.p - here.p) + tolerances.SAME_ORBIT:
        return False  # and so are the invariants, of which p is one
    taken = problem.distance(here.z, there.z)
    ahead = origin.z + NEARBY * taken * problem.scale * origin.heading
    last, now, start, onward = (invariants(problem, z) for z in (here.z, there.z, origin.z, ahead))
    change, onward = now - last, onward - start
    if np.linalg.norm(change) <= VERTICAL * (1.0 + np.linalg.norm(now)):  # a fiber of equal ones
        same_way = bool(there.heading @ origin.heading > 0.0)
        return problem.distance(there.z, origin.z) < taken and same_way
    passed_by = bool((now - start) @ onward >= 0.0)  # no gap is left before the origin
    near = np.linalg.norm(now - start) < np.linalg.norm(change)
    return passed_by and bool(near) and bool(change @ onward > 0.0)


def _is_moved_back(problem: Problem, here: Point, there: Point, origin: Point) -> bool:
    """Tell whether a step passes the orbit of the origin, as far as the generators lead."""
    before, after = here.p - origin.p, there.p - origin.p
    if before * after > 0.0 or before == after:
        return False
    way = way_between(problem, here, there)
    try:
        part = scipy.optimize.brentq(lambda t: way.at(t).p - origin.p, 0.0, 1.0, xtol=1e-14)
        point = way.at(float(part))
    except (ArithmeticError, ValueError):
        return False
    same_way = bool(point.heading[-1] * origin.heading[-1] > 0.0)
    return same_way and same_orbit(problem, point, origin)


def collected(
    problem: Problem, steps: Steps, start: Point, trail: Trail | None = None
) -> tuple[list[Row], str]:
    """Return the rows of one side, special points among them, and why it ends."""
    bound = problem.bounds[int(start.heading[-1] > 0.0)]
    if start.p == bound and abs(start.heading[-1]) > VERTICAL:
        return [], "bound_reached"
    rows: list[Row] = []
    trail = trail or Trail(start)
    way = itertools.islice(walk(problem, steps, start, trail), steps.max_points)
    name, quiet = problem.residual.parameter, not steps.progress
    here, distance, reason = start, trail.travelled, ""
    for stride, reason in tqdm(way, name, steps.max_points, disable=quiet):
        if stride is None:
            break
        for special in stride.special:
            part = min(problem.distance(here.z, special.point.z), stride.taken)
            rows.append(Row(special.point, distance + part, stride.next_step, special))
        distance, last, here = distance + stride.taken, here, stride.point
        end = at_node(problem, here, last, None) if reason == "bound_reached" else []
        like = _before_end(problem, last, stride) if reason == "closed" else None
        rows += rows_at(Row(here, distance, stride.next_step, like=like), end)
    return rows, reason or "max_points"


def _before_end(problem: Problem, here: Point, stride: Stride) -> Point | None:
    """Return a point between the end of a step and what is special before it, None if none is."""
    if not stride.special:
        return here
    return between(problem, stride.special[-1].point, stride.point, 0.5)


def followed(
    problem: Problem, steps: Steps, first: Point, direction: str
) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of a branch from one of its points, and why it ends on both sides."""
    stops = {"down": "start", "up": "start"}
    up: list[Row] = []
    down: list[Row] = []
    if direction != "down":
        up, stops["up"] = collected(problem, steps, first)
    if direction != "up" and stops["up"] != "closed":
        down, stops["down"] = collected(problem, steps, turned(first))
    before, after = (side[0].point if side else None for side in (down, up))
    before = None if before is None else turned(before)
    special = at_node(problem, first, before, after)
    row = Row(special[0].point if special else first, 0.0, steps.first)
    return [*reversed_rows(down), *rows_at(row, special), *up], stops


def rows_at(row: Row, special: Sequence[Special]) -> list[Row]:
    """Return a row as the first of what is special there, after rows of all else that is."""
    return [row._replace(special=q) for q in reversed(special)] or [row]


def reversed_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of one side in the direction of those of the other."""
    return [row._replace(point=turned(row.point), distance=-row.distance) for row in reversed(rows)]


def about(residual: Residual) -> dict[str, Any]:
    """Return what a Dataset says of an equation, other than of the branch.

    Words that branches use themselves, such as the "scale" of parameters, get a prefix.
    """
    own = {*FOLLOWED, *KEPT, *NODES, "schema", "dlnds_version"}
    return {
        f"equation_{word}" if word in own else word: value
        for word, value in residual.attributes.items()
    }


def as_dataset(
    problem: Problem, steps: Steps, rows: Sequence[Row], stops: dict[str, str]
) -> xr.Dataset:
    """Return the rows of a branch as a Dataset."""
    attrs = {
        **about(problem.residual),
        "rtol": problem.rtol,
        "bounds": np.array(problem.bounds),
        "step_min": steps.smallest,
        "step_max": steps.largest,
        "state_scale": problem.unit,
        "parameter_scale": float(problem.scale[-1]),
        "derivative_scale": problem.size,
        **({} if problem.rows is None else {"row_scale": problem.rows}),
        "symmetry": SYMMETRIES[problem.nullity >= 0],
        "predictor": PREDICTORS[steps.secant],
        "start_step": next(k for k, row in enumerate(rows) if row.distance == 0.0),
        "first_stop": stops["down"],
        "last_stop": stops["up"],
    }
    return schema.finish(tabulated(problem, rows), "branch", attrs)


def tabulated(problem: Problem, rows: Sequence[Row]) -> xr.Dataset:
    """Return the variables of the rows of a branch."""
    residual, points = problem.residual, [row.point for row in rows]
    turned_back = problem.lift or np.asarray
    special = [row.special or Special(points[0]) for row in rows]
    n = len(points[0].x)
    count = min(problem.n_eigenvalues, n)
    near = np.stack([_nearest(point, count) for point in points])
    kernels = np.array([event.kernel for event in special])
    alike = [row.like or row.point for row in rows]
    orbits = np.array([point.basis.shape[1] for point in alike])
    zeros = _zeros(points, special)
    growing = [
        len(q.growth) - bisect.bisect_right(q.growth, max(q.zone, e.tolerance))
        for q, e in zip(alike, special, strict=True)
    ]
    along = {
        "tangent_p": [point.tangent[n] for point in points],
        "arclength": [row.distance for row in rows],
        "residual": [point.residual for point in points],
        "multiplier": [point.multiplier for point in points],
        "newton_iterations": [point.iterations for point in points],
        "next_step": [row.next_step for row in rows],
        "spectral_radius": [np.abs(q.values * q.rates).max(initial=0.0) for q in points],
        "index": growing,
        "orbit_dimension": orbits,
        **_isotropy(problem, points),
        "nullity": orbits + zeros,
        "event": schema.flag(schema.BRANCH_EVENTS, [event.kind for event in special]),
        "test_value": [event.test_value for event in special],
        "accuracy": [event.accuracy for event in special],
        "kernel_dimension": kernels,
        "decided": schema.flag(schema.BRANCH_DECISIONS, [event.decided for event in special]),
        "fold_direction": np.array([event.fold_direction for event in special], np.int8),
        "criticality": schema.flag(
            schema.CRITICALITIES, [_criticality(problem, event) for event in special]
        ),
        **_observed(residual, points),
    }
    whole = ("step", "parameter"), ("step", "eigen")
    variables: dict[str, Any] = {
        "state": (whole[0], turned_back(np.stack([point.x for point in points]))),
        "tangent": (whole[0], turned_back(np.stack([point.tangent[:n] for point in points]))),
        "transverse_eigenvalue": (whole[1], near.real),
        **{name: ("step", np.asarray(values)) for name, values in along.items()},
    }
    if not residual.symmetric:
        variables["transverse_eigenvalue_imag"] = (whole[1], near.imag)
    place = np.array([point.p for point in points])
    coords = {"p": ("step", place, {"long_name": residual.parameter}), **residual.coordinates}
    return xr.Dataset(variables, coords=coords)


def _zeros(points: Sequence[Point], special: Sequence[Special]) -> list[int]:
    """Return how many eigenvalues are zero at points: what stays so where nothing is special."""
    plain = [q.n_zeros for q, event in zip(points, special, strict=True) if event.kind == "none"]
    usual = min(plain, default=0)
    return [usual if event.kind == "none" else event.kernel for event in special]


def _criticality(problem: Problem, special: Special) -> str:
    """Return on which side of a simple pitchfork or a Hopf point the new solutions are."""
    if problem.spectrum is not None:
        return "none"
    if special.kind == "branch_point" and special.kernel == 1:
        return normal_forms.of_pitchfork(problem, special.point)
    if special.kind == "hopf":
        # Where rows of F differ in size frequencies are in terms of these.
        frequency = special.frequency if problem.rows is None else 0.0
        return normal_forms.of_hopf_point(problem, special.point, frequency)
    return "none"


def _isotropy(problem: Problem, points: Sequence[Point]) -> dict[str, list[int]]:
    """Return how many independent declared generators vanish at points."""
    residual = problem.residual
    if residual.generators is None or problem.nullity >= 0:
        return {}
    counts = [generators_of(residual, q.x, q.p).shape[0] - q.basis.shape[1] for q in points]
    return {"isotropy_dimension": counts}


def _observed(residual: Residual, points: Sequence[Point]) -> dict[str, Array]:
    """Return what the residual observes of points, and their names, by name."""
    found: dict[str, Array] = {}
    if residual.vectorized:
        states, places = np.stack([q.x for q in points]), np.array([q.p for q in points])
        if residual.observe is not None:
            found |= residual.observe(states, places)
        if residual.label is not None:
            found["label"] = np.asarray(residual.label(states, places))  # type: ignore[arg-type]
        return found
    if residual.observe is not None:
        seen = [residual.observe(q.x, q.p) for q in points]
        found |= {name: np.array([row[name] for row in seen]) for name in seen[0]}
    if residual.label is not None:
        found["label"] = np.asarray([residual.label(q.x, q.p) for q in points])
    return found


def _nearest(point: Point, count: int) -> Array:
    """Return the eigenvalues nearest to zero, NaN where there are less."""
    values = point.values * point.rates
    if len(values) == count:
        return values
    chosen = np.sort(np.argsort(np.abs(values), kind="stable")[:count])
    padded = np.full(count, np.nan, values.dtype)
    padded[: len(chosen)] = values[chosen]
    return padded
