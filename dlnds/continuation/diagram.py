"""Diagrams: all branches that are reached from one through its branch points."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
import xarray as xr
from numpy.typing import ArrayLike

from dlnds._version import __version__
from dlnds.continuation.branches import (
    SYMMETRIES,
    Row,
    Steps,
    about,
    as_dataset,
    check_course,
    check_steps,
    collected,
    followed,
)
from dlnds.continuation.correct import Event, Point, Problem, corrected, course, unit_length
from dlnds.continuation.orbits import invariants, same_orbit
from dlnds.continuation.residuals import Residual
from dlnds.continuation.start import started
from dlnds.continuation.switching import departures
from dlnds.continuation.ways import way_between
from dlnds.errors import check_choice, check_integer, known_options
from dlnds.theory import tolerances
from dlnds.threads import threads_for

#: What other branches may leave from.
CROSSINGS = ("branch_point", "symmetry_change")
#: Why branches end that go on: nothing is known of what is beyond.
CUT_SHORT = ("max_points", "step_too_small", "unresolved")
#: How far a solution may be from the cubic curve between two rows that it is between, in terms of
#: their distance.
BESIDE = 0.1


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
    symmetry: str = "declared",
    predictor: str = "tangent",
    progress: bool = False,
) -> xr.DataTree:
    """Return all branches that are reached from one through its branch points, modulo symmetry.

    Parameters
    ----------
    residual, x0, p0, bounds, step, step_min, step_max, max_points, rtol, n_eigenvalues
        As for `branch`; all branches are followed in both directions.
    events, symmetry, predictor
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
        are more than ``max_branches``, if a branch ends at ``max_points``, ``step_too_small`` or
        ``unresolved``, or if not all that leaves a branch point may have been found; what leaves
        branches at the last ``depth`` does not count.

    Raises
    ------
    ConvergenceError, ValueError, TypeError
        As `branch`.

    Notes
    -----
    Near a branch point F = 0 is solved but for its components on the left null space of
    [∂F/∂x, ∂F/∂p] across the orbit, and all zeros of these are looked for at a distance from the
    branch: by their signs if there is one, by Newton's method from many directions else, until each
    zero was found three times. At a smaller distance there have to be as many, and nearer.
    Derivatives of higher order are not assumed to be other than zero. Zeros that are not isolated
    have to be one orbit of the declared symmetry.

    Only declared symmetry is divided out: both halves of a pitchfork are branches without it. Two
    solutions at the same p are one orbit if the invariants of the residual agree; if it has
    generators and no invariants, if one can be moved along these onto the other, where ‖x‖ and the
    eigenvalues across the orbit agree. No orbit is followed twice but those of a branch that passes
    a pitchfork from one half to the other, see `branch`. Of Hopf points nothing is followed, and
    periodic orbits do not count for ``complete``.

    References
    ----------
    Kuz04 (Kuznetsov, Springer 2004), chapter 10, for continuation, test functions and normal forms

    Examples
    --------
    >>> import dlnds as dl
    >>> tree = dl.diagram(lambda x, p: p * x - x**3, [0.0], -0.5, bounds=(-1.0, 1.0))
    >>> sorted(tree.children), tree["branch_1"].attrs["parent"]
    (['branch_0', 'branch_1', 'branch_2'], 'branch_0')
    """
    symmetry = check_choice("symmetry", symmetry, SYMMETRIES)
    steps = check_steps(step, step_min, step_max, max_points, predictor, progress)
    count = check_integer("n_eigenvalues", n_eigenvalues, minimum=1)
    course = check_course(bounds, rtol, count, events)
    levels = check_integer("depth", depth, minimum=0)
    most = check_integer("max_branches", max_branches, minimum=1)
    quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
    with quiet, threads_for(float(np.size(x0)) ** 3):
        problem, first = started(residual, x0, p0, course, steps.max_points, symmetry)
        found, complete = _found(problem, steps, first, levels, most)
        return _tree(problem, steps, found, complete)


def _found(
    problem: Problem, steps: Steps, first: Point, levels: int, most: int
) -> tuple[list[_Traced], bool]:
    """Return the branches that are reached from a point, and whether these are all."""
    found, complete = [_Traced(*followed(problem, steps, first, "both"))], True
    for parent, number, start in _leaving(problem, found, levels):
        if start is None or len(found) == most:
            complete = False
            if start is None:
                continue
            break
        rows, stop = _side(problem, steps, found[parent].rows[number].point, start)
        stops = {"down": "start", "up": stop}
        found.append(_Traced(rows, stops, parent, number, found[parent].level + 1))
    whole = all(stop not in CUT_SHORT for traced in found for stop in traced.stops.values())
    return found, complete and whole


def _side(problem: Problem, steps: Steps, crossing: Point, start: Point) -> tuple[list[Row], str]:
    """Return the rows of a branch from where it leaves another one, and why it ends."""
    away = (start.z - crossing.z) / problem.scale
    far = float(np.linalg.norm(away))
    chord = away / far
    heading = unit_length(2.0 * (chord @ start.heading) * chord - start.heading)
    tangent = unit_length(heading * problem.scale)
    there = crossing._replace(tangent=tangent, heading=heading)
    side, stop = collected(
        problem, steps._replace(first=max(steps.smallest, min(steps.first, far))), start
    )
    later = [row._replace(distance=row.distance + far) for row in side]
    return [Row(there, 0.0, far, like=start), Row(start, far, steps.first), *later], stop


def _leaving(
    problem: Problem, found: Sequence[_Traced], levels: int
) -> Iterator[tuple[int, int, Point | None]]:
    """Yield points on branches that are not among those found, which grow under way.

    With the number of the branch that they leave, and its row there, one branch after the other;
    None after those of a point that other branches may leave, too.
    """
    done: list[Point] = []
    for parent, traced in enumerate(found):
        for number, row in enumerate(traced.rows if traced.level < levels else ()):
            special = row.special
            if special is None or special.kind not in CROSSINGS:
                continue
            if any(same_orbit(problem, special.point, other) for other in done):
                continue
            done.append(special.point)
            starts, complete = departures(problem, special, _reach(traced.rows, number))
            for start in starts:
                if not any(_is_on(problem, start, known) for known in found):
                    yield parent, number, start
            if not complete:
                yield parent, number, None


def _reach(rows: Sequence[Row], number: int) -> float:
    """Return how far the next special point along a branch is, or its end."""
    places = [
        row.distance
        for k, row in enumerate(rows)
        if k != number and (row.special is not None or k in (0, len(rows) - 1))
    ]
    gaps = np.abs(np.array(places) - rows[number].distance)
    return float(gaps[gaps > 10.0 * tolerances.SAME_ORBIT].min(initial=1.0))


def _is_on(problem: Problem, point: Point, known: _Traced) -> bool:
    """Tell whether a solution is on a branch that was followed, up to declared symmetry."""
    residual = problem.residual
    if residual.generators is None and residual.invariants is None:
        nodes = itertools.pairwise(_nodes(known.rows))
        return any(_is_between(problem, point, here, there) for here, there in nodes)
    return any(
        _is_level(problem, point, here.point, there.point)
        for here, there in itertools.pairwise(known.rows)
        if _is_alike(point, here, there)
    )


def _nodes(rows: Sequence[Row]) -> list[Point]:
    """Return the rows of a branch but those between its ends that others cross it at.

    Two tangents are as good as one another there, and the one that was found may be the other's.
    """
    inside = (row for row in rows[1:-1] if row.special is None or row.special.kind not in CROSSINGS)
    return [row.point for row in (rows[0], *inside, rows[-1])]


def _is_alike(point: Point, here: Row, there: Row) -> bool:
    """Tell whether a solution has the index that a branch has between two rows, as far as is known.

    Next to a branch point Newton's method may take its own branch for another one.
    """
    inside = [row.point for row in (here, there) if row.special is None and row.like is None]
    known = [q.n_growing for q in inside if q.n_zeros == point.n_zeros]
    return not known or point.n_growing in known


def _is_between(problem: Problem, point: Point, here: Point, there: Point) -> bool:
    """Tell whether a solution is on a branch between two rows."""
    scale = problem.scale
    chord, away = (there.z - here.z) / scale, (point.z - here.z) / scale
    square = float(chord @ chord)
    part = float(chord @ away) / square if square else 0.0
    if not -BESIDE <= part <= 1.0 + BESIDE:
        return False
    place, normal = course(problem, here, there, part)
    gap = (point.z - place) / scale
    if gap @ gap > BESIDE**2 * square:
        return False
    found = corrected(problem, place + scale * normal * (normal @ gap), normal)
    return found is not None and problem.distance(found.z, point.z) <= tolerances.SAME_ORBIT


def _is_level(problem: Problem, point: Point, here: Point, there: Point) -> bool:
    """Tell whether the orbit of a solution is that of the point between two rows at its level."""
    level = _level(problem, here, there, point)
    if level is None or level(here) * level(there) > 0.0:
        return False
    if same_orbit(problem, here, point) or same_orbit(problem, there, point):
        return True
    way = way_between(problem, here, there)
    try:
        part = scipy.optimize.brentq(lambda t: level(way.at(t)), 0.0, 1.0, xtol=1e-15)
        return same_orbit(problem, way.at(part), point)
    except (ArithmeticError, ValueError):
        return False


def _level(
    problem: Problem, here: Point, there: Point, point: Point
) -> Callable[[Point], float] | None:
    """Return what vanishes between two rows where a point is level, None if none is.

    That is its p and, along a branch at a constant one, what it has of the change of invariants.
    """
    # Headings of special points are interpolated, and rounding as at others they are not.
    if max(abs(here.heading[-1]), abs(there.heading[-1])) > tolerances.KERNEL:
        return lambda q: q.p - point.p
    if abs(here.p - point.p) > tolerances.SAME_ORBIT * problem.scale[-1]:
        return None
    before, after, at = (invariants(problem, q.z) for q in (here, there, point))
    return lambda q: float((invariants(problem, q.z) - at) @ (after - before))


def _tree(problem: Problem, steps: Steps, found: Sequence[_Traced], complete: bool) -> xr.DataTree:
    nodes = {}
    for number, traced in enumerate(found):
        parent = f"branch_{traced.parent}" if traced.parent >= 0 else ""
        attrs = {"parent": parent, "parent_step": traced.number, "level": traced.level}
        dataset = as_dataset(problem, steps, traced.rows, traced.stops)
        nodes[f"branch_{number}"] = dataset.assign_attrs(attrs)
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = {
        "schema": "diagram",
        "dlnds_version": __version__,
        "complete": int(complete),
        **about(problem.residual),
    }
    return tree
