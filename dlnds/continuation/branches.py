"""Branches of solutions of F(x, p) = 0, modulo declared symmetry, as Datasets."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from tqdm import tqdm

from dlnds import schema
from dlnds._kernels import branches as kernels
from dlnds.arrays import Array
from dlnds.continuation.correct import (
    Course,
    Event,
    Point,
    Problem,
    Stride,
    ahead_of,
    corrected,
    described,
    distance_between,
    joined,
    length,
    null_directions,
    radius,
    solution_near,
    strides,
    turned,
)
from dlnds.continuation.locate import VERTICAL, Special, located, zero_between
from dlnds.continuation.residuals import Residual, equation_of
from dlnds.errors import (
    ConvergenceError,
    check_array,
    check_choice,
    check_flag,
    check_integer,
    check_memory,
    check_number,
    known_options,
)
from dlnds.theory import tolerances

DIRECTIONS = ("both", "up", "down")
SYMMETRIES = ("declared", "minimum_norm")
PREDICTORS = ("tangent", "secant")
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
        A solution (component), up to what Newton's method corrects at fixed p.
    bounds
        Smallest and largest p; a branch that leaves them ends there.
    step, step_min, step_max
        Distance between points, in (x, p): the first one, and its limits.
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
        How many eigenvalues across the orbit to record, those nearest to zero. With 0 and a
        symmetric Jacobian they are only counted by their signs, which takes less time.
    progress
        Show a progress bar.

    Returns
    -------
    xarray.Dataset
        Schema ``branch``, dim ``step`` in the order along the branch, with the coordinate ``p``:
        ``state(step, parameter)``; ``tangent(step, parameter)`` and ``tangent_p``, the unit tangent
        in the direction of the rows; ``arclength`` from the start; ``residual`` ‖F‖; ``multiplier``
        on the orbit, zero where the symmetry is one; ``newton_iterations``; ``next_step``, the
        distance to try next, away from the start; ``transverse_eigenvalue(step, eigen)`` nearest to
        zero, with ``transverse_eigenvalue_imag`` unless the Jacobian is symmetric, and the largest
        modulus of all, ``spectral_radius`` (a bound of it if they are only counted); ``index``, the
        number of eigenvalues with a positive real part; ``orbit_dimension``;
        ``isotropy_dimension``, how many independent generators vanish; ``nullity``, that of the
        orbit with what else is zero; and what the residual observes. Special points are rows with
        ``event`` set, flags ``fold``, ``branch_point``, ``hopf``, ``symmetry_change`` (there the
        orbit has fewer dimensions than around it, or more) and ``user``; of these ``test_value``,
        ``accuracy`` and ``kernel_dimension`` are known. Attributes: ``start_step``, and why the
        branch ends on both sides, ``first_stop`` and ``last_stop``: ``bound_reached``,
        ``max_points``, ``step_too_small``, ``closed`` or ``start``; ``bounds``, ``step_min``,
        ``step_max``, ``rtol``, ``symmetry`` and ``predictor``, with which `extend_branch` goes on.

    Raises
    ------
    ConvergenceError
        If Newton's method does not come from x0 to a solution at p0.
    ValueError, TypeError
        If the Jacobian at the start is singular beyond the orbit of the declared symmetry, or an
        argument is outside what is described above.

    Notes
    -----
    Predictor along the tangent or the secant; corrector by Newton's method for F = c B Bᵀ (x − x̂)
    in the plane through the prediction x̂ that is orthogonal to the tangent, where the columns of B
    are an orthonormal basis of the orbit's tangent space there and c is the size of the Jacobian.
    The multipliers c Bᵀ (x − x̂) vanish at solutions, which so are in the slice across the orbit.
    This bordered system is regular at regular points and folds. With more than 600 components and a
    symmetric Jacobian the index is that of the factors of ∂F/∂x − c B Bᵀ, and the eigenvalues
    nearest to zero come from a Krylov space of its inverse.
    Steps follow the contraction of the corrections and the turn of the tangent. Test functions (the
    component of the tangent along p, eigenvalues across the orbit) are brought to zero by Brent's
    method on corrected points. Along branches of gradients at a constant p it is the component of
    ∂F/∂p along the tangent that vanishes where others cross. Where the orbit loses dimensions and
    no eigenvalue changes sign, as where a learnt mode vanishes, the declared generators tell it,
    compared from point to point. Where it gains some, at a value of p that the residual declares,
    the special point is put at this value.

    Examples
    --------
    >>> import dlnds as dl
    >>> fold = dl.branch(lambda x, p: p + x**2, [1.0], -1.0, bounds=(-1.5, 1.0))
    >>> point = dl.special_points(fold)
    >>> dl.schema.decode(point.event).values.tolist(), bool(abs(point.p[0]) < 1e-14)
    (['fold'], True)
    """
    course = check_course(
        bounds, step, step_min, step_max, max_points, rtol, n_eigenvalues, events, progress
    )
    course = course._replace(secant=check_choice("predictor", predictor, PREDICTORS) == "secant")
    direction = check_choice("direction", direction, DIRECTIONS)
    symmetry = check_choice("symmetry", symmetry, SYMMETRIES)
    problem, first = started(residual, x0, p0, course, symmetry == "minimum_norm")
    return as_dataset(problem, *followed(problem, first, direction))


def check_course(
    bounds: tuple[float, float],
    step: float,
    step_min: float,
    step_max: float,
    max_points: int,
    rtol: float,
    n_eigenvalues: int,
    events: Sequence[Callable[..., float]],
    progress: bool,
) -> Course:
    """Return the options of a branch, if they can be that."""
    smallest = check_number("step_min", step_min, minimum=1e-14)
    largest = check_number("step_max", step_max, minimum=smallest)
    if not np.iterable(events) or not all(map(callable, events)):
        raise TypeError(f"events: needs functions of x and p in a sequence, got {events!r}")
    return Course(
        bounds=check_bounds("bounds", bounds),
        step=check_number("step", step, minimum=smallest, maximum=largest),
        limits=(smallest, largest),
        max_points=check_integer("max_points", max_points, minimum=1),
        rtol=check_number("rtol", rtol, minimum=1e-15, maximum=1e-3),
        n_eigenvalues=check_integer("n_eigenvalues", n_eigenvalues, minimum=0),
        events=tuple(events),
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
    return low, high


def check_room(course: Course, size: int) -> None:
    """Refuse branches of so many components that do not fit into the memory."""
    check_memory("max_points", 4 * course.max_points * size + 4 * size**2)


def started(
    residual: object, x0: ArrayLike, p0: float, course: Course, minimum_norm: bool = False
) -> tuple[Problem, Point]:
    """Return what the steps of a branch share and its first point, if the start is one."""
    equation = equation_of(residual)
    x = check_array("x0", x0, ndim=1, shape=(equation.size,))
    p = check_number("p0", p0, minimum=course.bounds[0], maximum=course.bounds[1])
    check_room(course, x.size)
    with np.errstate(over="ignore", invalid="ignore"):
        force = equation.value(x, p)
        if not np.isfinite(force @ force + x @ x):
            raise ValueError(f"x0: F(x, p) is not finite, or overflows, at p = {p:g}")
    return start_of(Problem(equation, course, bounds=course.bounds), x, p, minimum_norm)


def start_of(problem: Problem, x: Array, p: float, minimum_norm: bool) -> tuple[Problem, Point]:
    """Return the solution at p0 with a tangent towards larger p, or say what is wrong with it."""
    residual, n, upwards = problem.residual, x.size, joined(np.zeros(x.size), 1.0)
    plain = problem._replace(nullity=0) if minimum_norm else problem
    found = corrected(plain, x, p, upwards)
    if found is not None and np.linalg.norm(found[0] - x) <= 0.5 * (1.0 + np.linalg.norm(x)):
        x, p = found[0], found[1]
    kernel = null_directions(plain, x, p)
    if minimum_norm:
        problem = problem._replace(nullity=len(kernel) - 1)
        ahead = kernel.T @ (kernel @ upwards)
        kernel = (ahead / max(float(np.linalg.norm(ahead)), 1e-300))[None]
    if found is not None and len(kernel) > 1:
        raise ValueError(
            f"residual: at the start [∂F/∂x, ∂F/∂p] has {len(kernel) - 1} null directions beside "
            f"the branch's that the declared symmetry does not account for; declare generators, "
            "use symmetry='minimum_norm', or start away from a branch point"
        )
    point = solution_near(problem, x, p, kernel[-1])
    if point is None or np.linalg.norm(point.x - x) > 0.5 * (1.0 + np.linalg.norm(x)):
        size = float(np.linalg.norm(residual.value(x, p)))
        raise ConvergenceError(
            f"x0: Newton's method finds no solution from it at {residual.parameter} = {p:g}, where "
            f"‖F‖ = {size:.3g}; check the Jacobian, or come nearer (find_critical_point)"
        )
    sign = -1.0 if point.tangent[n] < 0.0 else 1.0
    return problem, point._replace(tangent=sign * point.tangent)


def walk(
    problem: Problem, start: Point, trail: Trail | None = None
) -> Iterator[tuple[Row, list[Special], str]]:
    """Yield one row after the other, the events before it, and why it is the last.

    The reason is empty but at the end.
    """
    course, here, (origin, travelled, left) = problem.course, start, trail or Trail(start)
    step = course.step
    ready: Iterator[Stride] = iter(())
    while True:
        problem = problem.renewed(here) if problem.renewed else problem
        stride = next(ready, None)
        if stride is None:
            ready = _together(problem, here, step)
            stride = next(ready, None) or _alone(problem, here, step)
        if stride is None:
            yield Row(here, travelled, step), [], "step_too_small"
            return
        if _is_on_zero(stride.point) and not _is_on_zero(here):
            ready, stride = iter(()), _shorter(problem, here, stride)
        (there, taken, step), special, reason = _looked_at(problem, here, stride)
        travelled += taken
        left = left or distance_between(there, origin) > AWAY * course.unit
        if left and _is_back(problem, here, there, origin, taken):
            reason = "closed"
        yield Row(there, travelled, step), special, reason
        if reason:
            return
        here = headed(here, there) if course.secant else there


def _together(problem: Problem, here: Point, step: float) -> Iterator[Stride]:
    """Return the steps that compiled functions take at once."""
    course = problem.course
    if course.secant:
        return iter(())
    point, count = joined(here.x, here.p), min(CHUNK, course.max_points)
    return strides(problem, point, here.tangent, course.limits, LEAST_COSINE, step, count)


def _alone(problem: Problem, here: Point, step: float) -> Stride | None:
    """Return the step to the next point, or to the bound that it would lead beyond."""
    ended = _to_bound(problem, here, step)
    if ended is not None:
        return ended
    smallest, largest = problem.course.limits
    while step >= smallest:
        there = ahead_of(problem, here, step)
        if there is not None:
            cosine = float(there.tangent @ here.tangent)
            if cosine >= LEAST_COSINE or (step < 2.0 * smallest and cosine > 0.0):
                rule: Any = kernels.next_step
                later = rule(step, there.contraction, cosine, smallest, largest)
                return Stride(there, step, float(later))
        step *= 0.5
    return None


def _to_bound(problem: Problem, here: Point, step: float) -> Stride | None:
    """Return the step to a bound if a whole one would lead beyond it.

    Beyond its bounds an equation need not be defined.
    """
    slope, (low, high) = float(here.tangent[-1]), problem.course.bounds
    if low <= here.p + step * slope <= high:
        return None
    bound = high if slope > 0.0 else low
    size, fixed = (bound - here.p) / slope, joined(np.zeros(here.x.size), 1.0)
    found = corrected(problem, here.x + size * here.tangent[:-1], bound, fixed)
    if found is None:
        return None
    there = described(problem, here.tangent, found._replace(p=bound))
    taken = float(here.tangent @ np.append(found.x - here.x, bound - here.p))
    if there is None or there.tangent @ here.tangent < LEAST_COSINE or not 0.0 < taken <= step:
        return None
    return Stride(there, taken, step)


def _shorter(problem: Problem, here: Point, stride: Stride) -> Stride:
    """Return a shorter step than one that ended on a zero of an eigenvalue, if there is one."""
    taken = SHORTER * stride.taken
    there = ahead_of(problem, here, taken)
    return stride if there is None else stride._replace(point=there, taken=taken)


def _looked_at(problem: Problem, here: Point, stride: Stride) -> tuple[Stride, list[Special], str]:
    """Return a step up to a bound, the events within it, and why it is the last, if it is."""
    low, high = problem.course.bounds
    special = located(problem, here, stride.point, stride.taken)
    whole = (*special, Special(stride.point, stride.taken))
    far = next((q for q in whole if not low < q.point.p < high), None)
    if far is None:
        return stride, special, ""
    bound = low if far.point.p < low else high
    found = zero_between(problem, here, far.distance, lambda point: point.p - bound)
    there, taken = (far.point, far.distance) if found is None else found
    there = there if found is None else there._replace(p=bound)
    within = [q for q in special if q.distance < taken]
    return stride._replace(point=there, taken=taken), within, "bound_reached"


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


def headed(before: Point, here: Point) -> Point:
    """Return a point with the direction in which it lies from the one before."""
    ahead = joined(here.x - before.x, here.p - before.p)
    return here._replace(heading=ahead / length(ahead))


def reversed_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of one side in the direction of those of the other."""
    return [row._replace(point=turned(row.point), distance=-row.distance) for row in reversed(rows)]


def collected(problem: Problem, start: Point, trail: Trail | None = None) -> tuple[list[Row], str]:
    """Return the rows of one side, special points among them, and why it ends."""
    course = problem.course
    bound = course.bounds[int(start.tangent[-1] > 0.0)]
    if abs(start.p - bound) <= course.rtol * (1.0 + abs(bound)) and start.tangent[-1]:
        return [], "bound_reached"
    rows: list[Row] = []
    steps = itertools.islice(walk(problem, start, trail), course.max_points)
    name, quiet = problem.residual.parameter, not course.progress
    before, reason = trail.travelled if trail else 0.0, ""
    for row, special, reason in tqdm(steps, name, course.max_points, disable=quiet):
        if reason == "step_too_small":
            break
        rows += [Row(q.point, before + q.distance, row.next_step, q) for q in special]
        rows.append(row)
        before = row.distance
    return rows, reason or "max_points"


def followed(problem: Problem, first: Point, direction: str) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of a branch from one of its points, and why it ends on both sides."""
    rows, stops = [Row(first, 0.0, problem.course.step)], {"down": "start", "up": "start"}
    if direction != "down":
        side, stops["up"] = collected(problem, first)
        rows += side
    if direction != "up" and stops["up"] != "closed":
        side, stops["down"] = collected(problem, turned(first))
        rows = [*reversed_rows(side), *rows]
    return rows, stops


def as_dataset(problem: Problem, rows: Sequence[Row], stops: dict[str, str]) -> xr.Dataset:
    """Return the rows of a branch as a Dataset."""
    course = problem.course
    attrs = {
        **problem.residual.attributes,
        "rtol": course.rtol,
        "bounds": np.array(course.bounds),
        "step_min": course.limits[0],
        "step_max": course.limits[1],
        "symmetry": SYMMETRIES[problem.nullity >= 0],
        "predictor": PREDICTORS[course.secant],
        "start_step": next(k for k, row in enumerate(rows) if row.distance == 0.0),
        "first_stop": stops["down"],
        "last_stop": stops["up"],
    }
    return schema.finish(tabulated(problem, rows), "branch", attrs)


def tabulated(problem: Problem, rows: Sequence[Row]) -> xr.Dataset:
    """Return the variables of the rows of a branch."""
    residual, points = problem.residual, [row.point for row in rows]
    nothing = Special(points[0], 0.0, test_value=np.nan, accuracy=np.nan)
    special = [row.special or nothing for row in rows]
    n, radii = points[0].x.size, np.array([radius(point) for point in points])
    count = min(problem.course.n_eigenvalues, n)
    near = np.stack([_nearest(point.values, count) for point in points])
    kernels = np.array([event.kernel for event in special])
    orbits = np.array([point.basis.shape[1] for point in points])
    index = [(point.values.real > tolerances.RANK * radii.max()).sum() for point in points]
    along = {
        "tangent_p": [point.tangent[n] for point in points],
        "arclength": [row.distance for row in rows],
        "residual": [point.residual for point in points],
        "multiplier": [point.multiplier for point in points],
        "newton_iterations": [point.iterations for point in points],
        "next_step": [row.next_step for row in rows],
        "spectral_radius": radii,
        "index": index,
        "orbit_dimension": orbits,
        **_isotropy(problem, points),
        "nullity": orbits + kernels,
        "event": schema.flag(schema.BRANCH_EVENTS, [event.kind for event in special]),
        "test_value": [event.test_value for event in special],
        "accuracy": [event.accuracy for event in special],
        "kernel_dimension": kernels,
        **_observed(residual, points),
    }
    whole = ("step", "parameter"), ("step", "eigen")
    variables: dict[str, Any] = {
        "state": (whole[0], np.stack([point.x for point in points])),
        "tangent": (whole[0], np.stack([point.tangent[:n] for point in points])),
        "transverse_eigenvalue": (whole[1], near.real),
        **{name: ("step", np.asarray(values)) for name, values in along.items()},
    }
    if not residual.symmetric:
        variables["transverse_eigenvalue_imag"] = (whole[1], near.imag)
    place = np.array([point.p for point in points])
    coords = {"p": ("step", place, {"long_name": residual.parameter}), **residual.coordinates}
    return xr.Dataset(variables, coords=coords)


def _isotropy(problem: Problem, points: Sequence[Point]) -> dict[str, list[int]]:
    """Return how many independent declared generators vanish at points."""
    residual = problem.residual
    if residual.generators is None or problem.nullity >= 0:
        return {}
    counts = [len(residual.orbit(q.x, q.p)) - q.basis.shape[1] for q in points]
    return {"isotropy_dimension": counts}


def _observed(residual: Residual, points: Sequence[Point]) -> dict[str, Array]:
    """Return what the residual observes of points, by name."""
    if residual.observe is None:
        return {}
    if residual.vectorized:
        states, places = np.stack([q.x for q in points]), np.array([q.p for q in points])
        return dict(residual.observe(states, places))
    seen = [residual.observe(q.x, q.p) for q in points]
    return {name: np.array([row[name] for row in seen]) for name in seen[0]}


def _nearest(values: Array, count: int) -> Array:
    """Return the eigenvalues nearest to zero, by ascending real part, NaN where there are less."""
    chosen = np.sort(np.argsort(np.abs(values), kind="stable")[:count])
    padded = np.full(count, np.nan, values.dtype)
    padded[: len(chosen)] = values[chosen]
    return padded


@known_options
def special_points(branch: xr.Dataset) -> xr.Dataset:
    """Return the special points of a branch: the rows with an event.

    Parameters
    ----------
    branch
        What `branch` or `fold_curve` returns.

    Returns
    -------
    xarray.Dataset
        The same variables, of the rows whose ``event`` is not ``none``.

    Raises
    ------
    TypeError
        If it is no branch.

    Examples
    --------
    See `branch`.
    """
    needed, partial = schema.REQUIRED["branch"], ["transverse_eigenvalue"]
    branch = schema.read("branch", branch, "branch", needed, empty=["eigen"], partial=partial)
    return branch.isel(step=np.flatnonzero(branch["event"].values > 0))
