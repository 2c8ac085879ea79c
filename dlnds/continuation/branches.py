"""Branches of solutions of F(x, p) = 0, modulo declared symmetry, as Datasets."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.continuation.correct import (
    Event,
    Point,
    Problem,
    corrected,
    null_directions,
    radius,
    solution_near,
    turned,
)
from dlnds.continuation.residuals import Residual, equation_of
from dlnds.continuation.tracing import Course, Row, collected, posed, reversed_rows
from dlnds.errors import (
    ConvergenceError,
    check_array,
    check_choice,
    check_integer,
    check_memory,
    check_number,
    known_options,
)
from dlnds.theory import tolerances

DIRECTIONS = ("both", "up", "down")
SYMMETRIES = ("declared", "minimum_norm")
PREDICTORS = ("tangent", "secant")


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
    equation = equation_of(residual)
    x = check_array("x0", x0, ndim=1)
    course = check_course(bounds, step, step_min, step_max, max_points, rtol, n_eigenvalues, events)
    course = course._replace(secant=check_choice("predictor", predictor, PREDICTORS) == "secant")
    p = check_number("p0", p0, minimum=course.bounds[0], maximum=course.bounds[1])
    direction = check_choice("direction", direction, DIRECTIONS)
    check_memory("max_points", 4 * course.max_points * x.size + 4 * x.size**2)
    symmetry = check_choice("symmetry", symmetry, SYMMETRIES)
    check_start(equation, x, p)
    problem, first = start_of(posed(equation, course), x, p, symmetry == "minimum_norm")
    rows, stops = followed(problem, first, course, direction, progress)
    return as_dataset(problem, rows, course, stops)


def check_start(equation: Residual, x: Array, p: float) -> None:
    """Refuse a start at which the equation is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        force = equation.value(x, p)
        if not np.isfinite(force @ force + x @ x):
            raise ValueError(f"x0: F(x, p) is not finite, or overflows, at p = {p:g}")


def followed(
    problem: Problem, first: Point, course: Course, direction: str, progress: bool
) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of a branch from one of its points, and why it ends on both sides."""
    rows, stops = [Row(first, 0.0, course.step)], {"down": "start", "up": "start"}
    if direction != "down":
        side, stops["up"] = collected(problem, first, course, progress)
        rows += side
    if direction != "up" and stops["up"] != "closed":
        side, stops["down"] = collected(problem, turned(first), course, progress)
        rows = [*reversed_rows(side), *rows]
    return rows, stops


def check_course(
    bounds: tuple[float, float],
    step: float,
    step_min: float,
    step_max: float,
    max_points: int,
    rtol: float,
    n_eigenvalues: int,
    events: Sequence[Callable[..., float]],
) -> Course:
    """Return the options of a branch, if they can be that."""
    smallest = check_number("step_min", step_min, minimum=1e-14)
    largest = check_number("step_max", step_max, minimum=smallest)
    if not np.iterable(events):
        raise TypeError(f"events: needs a sequence of functions of x and p, got {events!r}")
    for event in events:
        if not callable(event):
            raise TypeError(f"events: needs functions of x and p, got {event!r}")
    return Course(
        bounds=check_bounds("bounds", bounds),
        step=check_number("step", step, minimum=smallest, maximum=largest),
        limits=(smallest, largest),
        max_points=check_integer("max_points", max_points, minimum=1),
        rtol=check_number("rtol", rtol, minimum=1e-15, maximum=1e-3),
        n_eigenvalues=check_integer("n_eigenvalues", n_eigenvalues, minimum=0),
        events=tuple(events),
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


def start_of(problem: Problem, x: Array, p: float, minimum_norm: bool) -> tuple[Problem, Point]:
    """Return the solution at p0 with a tangent towards larger p, or say what is wrong with it."""
    residual, n = problem.residual, x.size
    upwards = np.zeros(n + 1)
    upwards[n] = 1.0
    found = corrected(problem._replace(nullity=0) if minimum_norm else problem, x, p, upwards)
    if found is not None and np.linalg.norm(found[0] - x) <= 0.5 * (1.0 + np.linalg.norm(x)):
        x, p = found[0], found[1]
    kernel = null_directions(problem._replace(nullity=0) if minimum_norm else problem, x, p)
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


def as_dataset(
    problem: Problem, rows: Sequence[Row], course: Course, stops: dict[str, str]
) -> xr.Dataset:
    """Return the rows of a branch as a Dataset."""
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
    return schema.finish(tabulated(problem, rows, course.n_eigenvalues), "branch", attrs)


def tabulated(problem: Problem, rows: Sequence[Row], n_eigenvalues: int) -> xr.Dataset:
    """Return the variables of the rows of a branch."""
    residual = problem.residual
    points = [row.point for row in rows]
    n = points[0].x.size
    near = np.stack([_nearest(point.values, min(n_eigenvalues, n)) for point in points])
    special = [row.special for row in rows]
    words = ["none" if s is None else s.kind for s in special]
    kernels = np.array([0 if s is None else s.kernel for s in special])
    orbits = np.array([point.basis.shape[1] for point in points])
    nan = float("nan")
    radii = np.array([radius(point) for point in points])
    index = [(point.values.real > tolerances.RANK * radii.max()).sum() for point in points]
    variables: dict[str, Any] = {
        "state": (("step", "parameter"), np.stack([point.x for point in points])),
        "tangent": (("step", "parameter"), np.stack([point.tangent[:n] for point in points])),
        "tangent_p": ("step", np.array([point.tangent[n] for point in points])),
        "arclength": ("step", np.array([row.distance for row in rows])),
        "residual": ("step", np.array([point.residual for point in points])),
        "multiplier": ("step", np.array([point.multiplier for point in points])),
        "newton_iterations": ("step", np.array([point.iterations for point in points])),
        "next_step": ("step", np.array([row.next_step for row in rows])),
        "transverse_eigenvalue": (("step", "eigen"), near.real),
        "spectral_radius": ("step", radii),
        "index": ("step", np.array(index, np.int64)),
        "orbit_dimension": ("step", orbits),
        **_isotropy(problem, points),
        "nullity": ("step", orbits + kernels),
        "event": ("step", schema.flag(schema.BRANCH_EVENTS, words)),
        "test_value": ("step", np.array([nan if s is None else s.test_value for s in special])),
        "accuracy": ("step", np.array([nan if s is None else s.accuracy for s in special])),
        "kernel_dimension": ("step", kernels),
    }
    if not residual.symmetric:
        variables["transverse_eigenvalue_imag"] = (("step", "eigen"), near.imag)
    variables |= {name: ("step", row) for name, row in _observed(residual, points).items()}
    coords = {
        "p": ("step", np.array([point.p for point in points]), {"long_name": residual.parameter}),
        **residual.coordinates,
    }
    return xr.Dataset(variables, coords=coords)


def _isotropy(problem: Problem, points: Sequence[Point]) -> dict[str, Any]:
    """Return how many independent declared generators vanish at points."""
    residual = problem.residual
    if residual.generators is None or problem.nullity >= 0:
        return {}
    counts = [len(residual.orbit(q.x, q.p)) - q.basis.shape[1] for q in points]
    return {"isotropy_dimension": ("step", np.array(counts, np.int64))}


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
    if not isinstance(branch, xr.Dataset) or branch.attrs.get("schema") != "branch":
        raise TypeError("branch: needs the Dataset that branch returns")
    schema.check_whole("branch", branch)
    schema.check_content("branch", branch, {"event": ("step",)})
    return branch.isel(step=np.flatnonzero(branch["event"].values > 0))
