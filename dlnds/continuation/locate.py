"""Special points of branches: what it is where test functions vanish."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from dlnds.arrays import Array
from dlnds.continuation.correct import (
    LEAST_SIZE,
    Point,
    Problem,
    located_orbit,
    null_directions,
    scaled_derivatives,
    usual_size,
)
from dlnds.continuation.parts import decomposed, parts_of
from dlnds.continuation.ways import (
    VERTICAL,
    Place,
    Special,
    Test,
    Way,
    growth_near,
    is_vertical,
    size_of,
    slowest_growth,
)
from dlnds.continuation.zeros import (
    BLURRED,
    ROUGHLY,
    doubt,
    interpolated,
    other_zeros,
    placed_near,
    sign_changes,
    touching,
    zero_of,
)
from dlnds.theory import tolerances

#: Values of functions of x and p at a node, in terms of those next to it, that are zero.
AT_NODE = 1e-8
#: Values of test functions where the symmetry changes, in terms of those around, that are zero.
EXPLAINED = 1e-3
#: Distances of special points, in terms of the step, up to which they are one; and scaled ones that
#: rounding leaves where p depends on them by their square, as at pitchforks.
SAME_PLACE, BLIND = 1e-6, 1e-7
#: Distances of components in scaled coordinates that rounding of F may leave at a branch point, and
#: how slow what vanishes there is, in terms of the usual size of the derivatives.
INSEPARABLE, SLOW = 3e-7, 1e-3


def located(way: Way, verdicts: Sequence[tuple[Test, str]]) -> list[Special] | None:
    """Return the special points of test functions that are not away from zero.

    None if one of them jumps and has no zero, as where the ends are on two branches, touches zero
    in a way that is not clear, or crosses it and comes back.
    """
    found: list[Special] = []
    for test, word in sorted(verdicts, key=lambda pair: pair[1] == "unsettled"):
        known = [q for q in found if _explains(way, q, test, word)]
        if not known:
            place = touching(way, test) if word == "unsettled" else zero_of(way, test)
            special = [] if place is None else _identified(way, test, place)
            flips = test.kind == "symmetry_change" and word == "crossed"  # the orbit may just turn
            if not flips and (place is None or (word == "crossed" and not special)):
                return None
            if place is None and word == "unsettled" and sign_changes(way, test, found):
                return None
            if place is None:
                continue
            if word == "unsettled" and any(abs(place.part - q.part) <= BLURRED for q in found):
                continue
            found, known = [*found, *special], special
        if all(q.kind != "symmetry_change" for q in known):
            for more in other_zeros(way, test, known):
                found += _identified(way, test, more)
    return found


def _explains(way: Way, special: Special, test: Test, word: str) -> bool:
    """Tell whether a test function vanishes at a special point that was found.

    There it may touch zero, as it does where p turns at a pitchfork.
    """
    steady = special.kind in ("symmetry_change", "branch_point", "fold")
    if special.kind == "user" or (test.kind == "user" and not (steady and word == "unsettled")):
        return False
    if test.kind != "spectrum" and not steady:
        return False
    if test.kind == "crossing" and special.kind == "symmetry_change":
        return True  # it is measured across another orbit there
    zero = EXPLAINED if special.kind == "symmetry_change" else tolerances.KERNEL
    limit = max(zero * size_of(way, test), test.zone)
    if test.kind == "spectrum":
        limit = max(limit, special.tolerance)
    return abs(test.value(special.point)) <= limit


def merged(way: Way, found: Sequence[Special]) -> list[Special]:
    """Return special points without those at the place of another one that says more."""
    rank = ("symmetry_change", "branch_point", "fold")
    order = {kind: k for k, kind in enumerate(rank)}
    kept: list[Special] = []
    for one in sorted(found, key=lambda q: (order.get(q.kind, len(rank)), -q.kernel)):
        near = (q for q in kept if _is_alike(q, one) or (q.kind in rank and one.kind in rank))
        if one.kind == "user" or not any(_is_near(way, one, q) for q in near):
            kept.append(one)
    return kept


def _is_alike(one: Special, other: Special) -> bool:
    """Tell whether special points are of one kind, and of one frequency."""
    apart = 1e3 * max(one.tolerance, other.tolerance)
    return one.kind == other.kind and abs(one.frequency - other.frequency) <= apart


def _is_near(way: Way, one: Special, other: Special) -> bool:
    """Tell whether two special points that were found are at one place."""
    distance = way.problem.distance(one.point.z, other.point.z)
    return distance <= SAME_PLACE * way.length + one.accuracy + other.accuracy + BLIND


def _identified(way: Way, test: Test, place: Place) -> list[Special]:
    """Return what is special where a test function vanishes, none if it is nothing."""
    problem, dimension, (point, part, decided) = way.problem, way.there.basis.shape[1], place
    value, span = test.value(point), size_of(way, test)
    special = Special(
        point,
        test.kind,
        value,
        doubt(way, test, place),
        point.n_zeros,
        point.zone,
        decided,
        part=part,
    )
    if test.kind == "user":
        return [special]
    change = float(np.abs(slowest_growth(way.here) - slowest_growth(way.there)))
    tolerance = 10.0 * point.zone + tolerances.KERNEL * max(change, slowest_growth(way.there))
    rough = decided == "interpolated" and test.kind == "fold"
    near = max(tolerance, (ROUGHLY if rough else tolerances.KERNEL) * span)
    judged = decided != "touching" and test.kind in ("spectrum", "fold", "crossing")
    if judged and abs(value) > near:
        return []  # a jump, and no zero
    larger = _at_larger_orbit(problem, point, dimension)
    point = larger or point
    lost = located_orbit(problem, point).shape[1] < dimension
    if test.kind == "symmetry_change" and not lost:
        return []  # the orbit turned
    kernel = int(np.count_nonzero(np.abs(point.values) <= tolerance))
    special = special._replace(point=point, kernel=kernel, tolerance=tolerance)
    if larger is not None or lost:
        return [special._replace(kind="symmetry_change")]
    if test.kind not in ("fold", "spectrum", "crossing"):
        return [special]
    usual = 0 if way.there.orientation else min(way.here.n_zeros, way.there.n_zeros)
    kind, beside = _kind(problem, test, special, usual)
    if kind == "branch_point":
        gap = _gap(problem, point)
        if gap > INSEPARABLE:
            return []  # two components that do not meet
        special = special._replace(accuracy=max(special.accuracy, gap))
    found = special._replace(kind=kind, n_beside=beside)
    return [*([] if kind == "none" else [found]), *_around(way, test, special, kind)]


def _gap(problem: Problem, point: Point) -> float:
    """Return how far apart solutions near a branch point may be that do not meet there, scaled.

    Where the slow part of F has no slope but a value, they are two components, apart by its root.
    """
    matrix, slope, size = scaled_derivatives(problem, point.z)
    basis = np.zeros((slope.size, 0))
    parts = parts_of(matrix, basis, slope != 0.0)
    force, square = problem.value(point.z) / problem.unit, 0.0
    for places, (left, sizes, _) in decomposed(parts, matrix, basis, 0.0, slope):
        own = places[:, : left.shape[1]]
        lacks = np.matmul(np.swapaxes(left, -1, -2), force[own][..., None])[..., 0]
        square += float(np.sum(lacks[sizes <= SLOW * size] ** 2))
    return math.sqrt(math.sqrt(square) / size)


def _around(way: Way, test: Test, special: Special, kind: str) -> list[Special]:
    """Return what other eigenvalues make critical where something vanishes, one by one."""
    groups = _groups(way.problem, special.point, special.tolerance)
    found = []
    for name, center in groups:
        if len(groups) == 1 and test.kind == "spectrum" and kind == "none":
            return [special._replace(kind=name, frequency=center.imag)]
        own = Test("spectrum", growth_near(center, 1), test.zone)
        place = interpolated(way, own)
        if place is not None:
            accuracy = abs(special.part - place.part) * way.length
            found.append(
                special._replace(
                    kind=name,
                    frequency=center.imag,
                    point=place.point,
                    part=place.part,
                    decided=place.decided,
                    test_value=own.value(place.point),
                    accuracy=accuracy,
                )
            )
    return found


def _groups(problem: Problem, point: Point, tolerance: float) -> list[tuple[str, complex]]:
    """Return what critical eigenvalues at a point make that are not zero, each with one of them."""
    is_map = problem.residual.kind == "map"
    found: list[tuple[str, complex]] = []
    near = 1e3 * tolerance
    for value in point.values[np.abs(point.growth) <= tolerance].astype(complex).tolist():
        if any(abs(value - other) <= near for _, other in found):
            continue
        if value.imag > near:
            found.append(("neimark_sacker" if is_map else "hopf", value))
        elif is_map and value.real < -1.0 and abs(value.imag) <= near:
            found.append(("flip", value))
    return sorted(found, key=lambda pair: pair[1].imag)


def _kind(problem: Problem, test: Test, special: Special, usual: int = 0) -> tuple[str, int]:
    """Return the kind of a zero of the spectrum, or of where p turns.

    And how many directions lead on from it beside the branch's, and those that do so around it,
    too, which are ``usual``.
    """
    point, tolerance = special.point, special.tolerance
    critical = np.abs(point.values)[np.abs(point.growth) <= tolerance]
    if test.kind == "spectrum" and len(critical) and not (critical <= 1e3 * tolerance).any():
        return "none", 0
    if problem.spectrum is not None:
        return ("index_change" if len(critical) else "none"), 0
    relative = _relative(problem, point, tolerance)
    nulls = null_directions(problem, point.z, point.heading, relative)
    beside = max(len(nulls) - 1 - usual, int(test.kind == "crossing"))
    if beside:
        return "branch_point", beside
    if special.decided == "touching":
        return "none", 0
    turns = test.kind == "fold" or abs(point.heading[-1]) <= BLURRED
    return ("fold" if turns else "branch_point"), 0


def _relative(problem: Problem, point: Point, tolerance: float) -> float:
    """Return a growth in terms of the size of the equation's derivatives."""
    size = usual_size(problem, problem.thin_matrix(point.z), problem.slope(point.z))
    return tolerance / max(size, LEAST_SIZE * problem.size)


def is_on_zero(problem: Problem, point: Point, other: Point) -> bool:
    """Tell whether something vanishes at a point that does not at another one next to it."""
    if point.basis.shape != other.basis.shape or point.n_zeros > other.n_zeros:
        return True
    if problem.spectrum is None and abs(point.heading[-1]) <= VERTICAL < abs(other.heading[-1]):
        return True
    events = (*problem.events, *(event for _, event in problem.kinds))
    return any(_vanishes(event, point, other) for event in events)


def _vanishes(event: Callable[[Array, float], float], point: Point, other: Point) -> bool:
    usual = abs(event(other.x, other.p))
    return abs(event(point.x, point.p)) <= AT_NODE * usual and usual > 0.0


def at_node(
    problem: Problem, point: Point, before: Point | None, after: Point | None
) -> list[Special]:
    """Return what is special at a point where something vanishes that was not looked for.

    That is a start, or the end at a bound; ``before`` and ``after`` are its neighbours.
    """
    known = [q for q in (before, after) if q is not None]
    if not known or not all(is_on_zero(problem, point, q) for q in known):
        return []
    tolerance = 10.0 * point.zone
    kernel = int(np.count_nonzero(np.abs(point.values) <= tolerance))
    special = Special(
        point, "none", 0.0, accuracy=0.0, kernel=kernel, tolerance=tolerance, decided="at_node"
    )
    users = [event for event in problem.events if all(_vanishes(event, point, q) for q in known)]
    told = [special._replace(kind="user") for _ in users]
    larger = _at_larger_orbit(problem, point, known[0].basis.shape[1])
    if larger is not None:
        kernel = int(np.count_nonzero(np.abs(larger.values) <= tolerance))
        return [special._replace(point=larger, kind="symmetry_change", kernel=kernel), *told]
    if point.basis.shape[1] != known[0].basis.shape[1]:
        return [special._replace(kind="symmetry_change"), *told]
    for kind, event in problem.kinds:
        if all(_vanishes(event, point, q) for q in known):
            return [special._replace(kind=kind), *told]
    pairs = [
        special._replace(kind=name, frequency=center.imag)
        for name, center in _groups(problem, point, tolerance)
        if all(abs(growth_near(center, 1)(q)) > q.zone for q in known)
    ]
    return [*_steady_at(problem, special, known), *pairs, *told]


def _steady_at(problem: Problem, special: Special, known: Sequence[Point]) -> list[Special]:
    """Return a fold or a branch point at a node next to known ones, if it is one."""
    point = special.point
    turns = abs(point.heading[-1]) <= VERTICAL and problem.spectrum is None
    if not turns and not (np.abs(point.growth) <= special.tolerance).any():
        return []
    kind, beside = _kind(problem, Test("fold" if turns else "spectrum", lambda q: 0.0), special)
    if kind == "none":
        return []
    if kind != "fold":
        return [special._replace(kind=kind, n_beside=beside)]
    if len(known) == 2 and known[0].heading[-1] * known[1].heading[-1] > 0.0:
        return []
    if any(is_vertical(point, q) for q in known):
        return []
    return [special._replace(kind=kind, fold_direction=1 if known[0].p > point.p else -1)]


def _at_larger_orbit(problem: Problem, point: Point, dimension: int) -> Point | None:
    """Return a located point at the value of p next to it at which its orbit is larger, or None.

    Rounding leaves it beside that value, where the generators do not span the larger orbit.
    """
    if problem.nullity >= 0:
        return None
    for value in problem.residual.symmetric_at:
        if abs(point.p - value) <= tolerances.RANK * float(problem.scale[-1]):
            z = point.z.copy()
            z[-1] = value
            there = placed_near(problem, z, point.tangent)
            if there.basis.shape[1] > dimension:
                return there
    return None
