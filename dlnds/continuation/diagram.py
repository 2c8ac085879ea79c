"""Branches that cross others: where they start, and diagrams of all that can be reached."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds._version import __version__
from dlnds.arrays import Array
from dlnds.continuation.branches import (
    Row,
    as_dataset,
    check_course,
    collected,
    followed,
    started,
)
from dlnds.continuation.correct import (
    Event,
    Point,
    Problem,
    distance_between,
    null_directions,
    solution_near,
)
from dlnds.continuation.locate import is_vertical, zero_between
from dlnds.continuation.residuals import Residual
from dlnds.errors import check_integer, known_options
from dlnds.theory import tolerances

#: Distances from a branch point, in terms of the step, at which other branches are looked for.
DEPARTURES = (1.0, 0.25, 0.05)
#: Random directions of a kernel that are tried beside those of a basis.
TRIES = 4


class _Traced(NamedTuple):
    """A branch that was followed, and where it comes from."""

    rows: list[Row]
    stops: dict[str, str]
    parent: int = -1
    number: int = -1
    level: int = 0


@known_options
def diagram(
    residual: Residual,
    x0: ArrayLike,
    p0: float,
    *,
    bounds: tuple[float, float],
    depth: int = 1,
    step: float = 0.05,
    step_min: float = 1e-7,
    step_max: float = 0.5,
    max_points: int = 1000,
    max_branches: int = 100,
    rtol: float = 1e-12,
    n_eigenvalues: int = 6,
    events: Sequence[Event] = (),
    progress: bool = False,
) -> xr.DataTree:
    """Return all branches that are reached from one through its branch points, modulo symmetry.

    Parameters
    ----------
    residual, x0, p0, bounds, step, step_min, step_max, max_points, rtol, n_eigenvalues, events
        As for `branch`.
    depth
        How many branch points may lie between a branch and the first one.
    max_branches
        Branches at most.
    progress
        Show a progress bar for each branch.

    Returns
    -------
    xarray.DataTree
        Schema ``diagram``: nodes ``branch_0``, ``branch_1``, … as of `branch`, each with the
        attributes ``parent`` and ``parent_step``, the row of the branch point that it starts at
        (−1 for the first), and ``level``, how many of them lie between. ``complete`` is 0 if there
        are more than ``max_branches``.

    Raises
    ------
    ConvergenceError, ValueError, TypeError
        As `branch`.

    Notes
    -----
    At a branch point the null directions of [∂F/∂x, ∂F/∂p] across the orbit and the branch are
    followed, and random mixtures of them where there are several; where a symmetry makes them a
    sphere they all give the same branch. Two solutions at the same p are taken for one orbit if
    the invariants of the residual or, if it has none, ‖x‖, ‖∂F/∂p‖ and the eigenvalues across the
    orbit agree, and so does the orbit's dimension; no orbit is followed twice.

    Examples
    --------
    >>> import dlnds as dl
    >>> tree = dl.diagram(lambda x, p: p * x - x**3, [0.0], -0.5, bounds=(-1.0, 1.0))
    >>> sorted(tree.children), tree["branch_1"].attrs["parent"]
    (['branch_0', 'branch_1'], 'branch_0')
    """
    course = check_course(
        bounds, step, step_min, step_max, max_points, rtol, n_eigenvalues, events, progress
    )
    check_integer("n_eigenvalues", n_eigenvalues, minimum=1)
    levels = check_integer("depth", depth, minimum=0)
    most = check_integer("max_branches", max_branches, minimum=1)
    problem, first = started(residual, x0, p0, course)
    found, complete = [_Traced(*followed(problem, first, "both"))], 1
    for parent, number, start in _leaving(problem, found, levels):
        if len(found) == most:
            complete = 0
            break
        crossing = found[parent].rows[number].point._replace(tangent=start.tangent)
        side, stop = collected(problem, start)
        rows, stops = [Row(crossing, 0.0, course.step), *side], {"down": "start", "up": stop}
        found.append(_Traced(rows, stops, parent, number, found[parent].level + 1))
    return _tree(problem, found, complete)


def _leaving(
    problem: Problem, found: Sequence[_Traced], levels: int
) -> Iterator[tuple[int, int, Point]]:
    """Yield points on branches that are not among those found, which grow under way.

    With the number of the branch that they leave, and its row there, one branch after the other.
    """
    for parent, traced in enumerate(found):
        for number, row in enumerate(traced.rows if traced.level < levels else ()):
            if row.special is None or row.special.kind not in ("branch_point", "symmetry_change"):
                continue
            for start in departures(problem, row):
                if not any(_is_on(problem, start, known) for known in found):
                    yield parent, number, start


def departures(problem: Problem, crossing: Row) -> list[Point]:
    """Return one point on each branch that crosses at a point, with its tangent away from there."""
    point, size = crossing.point, crossing.special.size if crossing.special else 0.0
    across = null_directions(problem, point.x, point.p, tolerances.KERNEL * size)
    across = across - np.outer(across @ point.tangent, point.tangent)
    _, sizes, frame = np.linalg.svd(across, full_matrices=False)
    kernel = frame[: int((sizes > 0.5).sum())]
    if not len(kernel):
        return []
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(TRIES if len(kernel) > 1 else 0, len(kernel))) @ kernel
    tries = np.concatenate([kernel, mixed])
    found: list[Point] = []
    for v in np.concatenate([tries, -tries]):
        start = _departed(problem, point, v / np.linalg.norm(v))
        if start is not None and not any(_same(problem, start, other) for other in found):
            found.append(start)
    return found


def _departed(problem: Problem, point: Point, v: Array) -> Point | None:
    n = point.x.size
    for part in DEPARTURES:
        size = part * problem.course.step
        start = solution_near(problem, point.x + size * v[:n], point.p + size * float(v[n]), v)
        if start is None:
            continue
        offset = np.append(start.x - point.x, start.p - point.p)
        if float(np.linalg.norm(offset)) < 3.0 * size:
            ahead = start.tangent if start.tangent @ offset > 0.0 else -start.tangent
            return start._replace(tangent=ahead)
    return None


def _invariants(problem: Problem, point: Point) -> Array:
    """Return numbers that are equal on an orbit."""
    known = problem.residual.invariants
    if known is not None:
        return np.asarray(known(point.x, point.p), float)
    slope = float(np.linalg.norm(problem.residual.slope(point.x, point.p)))
    sizes = [float(np.linalg.norm(point.x)), slope, float(point.basis.shape[1])]
    return np.concatenate([sizes, point.values.real])


def _same(problem: Problem, one: Point, other: Point) -> bool:
    """Tell whether two solutions are one orbit, as far as invariants tell."""
    apart = abs(one.p - other.p) > tolerances.SAME_ORBIT * (1.0 + abs(one.p))
    if apart or len(one.values) != len(other.values):
        return False
    first, second = _invariants(problem, one), _invariants(problem, other)
    return bool(np.abs(first - second).max() <= tolerances.SAME_ORBIT * (1.0 + np.abs(first).max()))


def _is_on(problem: Problem, point: Point, known: _Traced) -> bool:
    """Tell whether a solution is on a branch that was followed, up to symmetry."""
    rows = [row.point for row in known.rows]
    for here, there in itertools.pairwise(rows):
        test = _level(problem, here, there, point)
        if test is None or test(here) * test(there) > 0.0:
            continue
        step = distance_between(here, there)
        if _same(problem, here, point) or _same(problem, there, point):
            return True
        if not step or _is_far(problem, here, there, point):
            continue
        found = zero_between(problem, here, 1.2 * step, test)
        if found is not None and _same(problem, found[0], point):
            return True
    return False


def _level(
    problem: Problem, here: Point, there: Point, point: Point
) -> Callable[[Point], float] | None:
    """Return what vanishes where a step is at the level of a point, None if it is not comparable.

    That is its p and, along a branch at a constant one, what it has of the change of invariants.
    """
    if not is_vertical(here, there):
        return lambda q: q.p - point.p
    if abs(here.p - point.p) > tolerances.SAME_ORBIT * (1.0 + abs(point.p)):
        return None
    if not len(here.values) == len(there.values) == len(point.values):
        return None
    at, change = (_invariants(problem, q) for q in (point, there))
    change = change - _invariants(problem, here)
    return lambda q: float((_invariants(problem, q) - at) @ change)


def _is_far(problem: Problem, here: Point, there: Point, point: Point) -> bool:
    """Tell whether a solution is too far from a step to be on it."""
    if problem.residual.invariants is None:
        step, gap = distance_between(here, there), np.linalg.norm(here.x) - np.linalg.norm(point.x)
        return bool(abs(gap) > 3.0 * step)
    at, after, other = (_invariants(problem, q) for q in (here, there, point))
    change = np.linalg.norm(after - at) + tolerances.SAME_ORBIT * (1.0 + np.linalg.norm(at))
    return bool(np.linalg.norm(other - at) > 3.0 * change + abs(there.p - here.p))


def _tree(problem: Problem, found: Sequence[_Traced], complete: int) -> xr.DataTree:
    nodes = {}
    for number, traced in enumerate(found):
        parent = f"branch_{traced.parent}" if traced.parent >= 0 else ""
        attrs = {"parent": parent, "parent_step": traced.number, "level": traced.level}
        dataset = as_dataset(problem, traced.rows, traced.stops)
        nodes[f"branch_{number}"] = dataset.assign_attrs(attrs)
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = {
        "schema": "diagram",
        "dlnds_version": __version__,
        "complete": complete,
        **problem.residual.attributes,
    }
    return tree
