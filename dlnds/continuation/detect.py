"""Test functions of branches: what may have happened between two points, and what has.

A test function is a number at every point that vanishes where something is special. Between two
points of a branch each of them is settled: it keeps its sign, or changes it once, by its values at
both and half way. Where it is not, the step between them was too long.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.linalg

from dlnds.arrays import Array
from dlnds.continuation.correct import (
    Point,
    Problem,
    between,
    unit_length,
)
from dlnds.continuation.locate import AT_NODE, located, merged
from dlnds.continuation.parts import frobenius, is_above, spectral_norm, thinned, whole
from dlnds.continuation.residuals import generators_of
from dlnds.continuation.ways import VERTICAL, Special, Test, Way, is_vertical, way_between

#: Cosine of two headings, and sideways part of the way between, of a step that needs no check.
QUIET_COSINE, QUIET_SIDE = 0.98, 0.02
#: How many times nearer to what the step before lets expect than to zero a test function is then.
FORESEEN = 3.0
#: How far the point half way may be from the cubic curve through both ends, in terms of the way.
DETOUR = 2e-3
#: Values of a test function half way between, in terms of its largest, that leave zero clearly.
LEAVING = 0.05
#: How much larger than it was seen the third difference of a test function may be, and at how many
#: more places of a way it is looked at where that could hide zeros: not half way between others,
#: where zeros are if all numbers are round.
ROOM, MOST_LOOKS, ASIDE = 2.0, 6, 0.4642
#: Part of a way beside a branch point at which its tangent is taken.
BESIDE = 0.02
#: Parts of the way to a change of the symmetry at which its sides are looked at, and how small what
#: vanishes at the change is next to it, in terms of all else.
HALVES, CLEARLY = tuple(0.5**k for k in range(1, 24)), 0.1


def passed(
    problem: Problem, here: Point, there: Point, before: Point | None = None
) -> list[Special] | None:
    """Return the special points between two points, in their order.

    None if the step between them has to be shorter: to be sure that they are on one branch, or that
    nothing happens twice. The point before, if there is one, spares a look half way.
    """
    tests, ratio = list(_tests(problem, here, there)), 0.0
    if before is not None:
        ratio = problem.distance(here.z, there.z) / problem.distance(before.z, here.z)
    if (
        before is not None
        and _is_straight(problem, here, there)
        and all(_is_quiet(test, before, here, there, ratio) for test in tests)
    ):
        return [] if _is_alike(problem, here, there, False) else None
    way = way_between(problem, here, there)
    middle = _middle(way)
    if middle is None:
        return None
    if any(_comes_back(way, test, before, ratio) for test in tests):
        return None
    verdicts = [(test, _looked_at(way, test, middle, before, ratio)) for test in tests]
    found = located(way, [pair for pair in verdicts if pair[1] != "away"])
    if found is None:
        return None
    found = _divided(way, merged(way, found))
    if found is None:
        return None
    special = [_headed(way, _directed(way, q)) for q in sorted(found, key=lambda q: q.part)]
    if special:
        return special if _is_consistent(problem, here, there, special) else None
    return [] if _is_alike(problem, here, there, before is None) else None


def _divided(way: Way, found: Sequence[Special]) -> list[Special] | None:
    """Return special points with those on both sides of a change of the symmetry.

    Across the change test functions are those of different orbits; each side is looked at by
    itself. None if a step has to be shorter for that.
    """
    changes = [q for q in found if q.kind == "symmetry_change"]
    if not changes:
        return list(found)
    if len(changes) > 1:
        return None
    sides = [_beside(way, changes[0], end) for end in (0.0, 1.0)]
    if any(side is None for side in sides):
        return None
    return merged(way, [*found, *(q for side in sides for q in side or ())])


def _beside(way: Way, change: Special, end: float) -> list[Special] | None:
    """Return the special points between an end of a way and a change of the symmetry on it.

    Nearer and nearer to the change, until the eigenvalues that vanish there are small beside the
    others, which so have the signs that they have at the change itself. At two points in turn: at
    one of them another eigenvalue may just cross zero.
    """
    found: list[Special] = []
    here, place = way.known[end], end
    for gap in HALVES:
        part = change.part + gap * (end - change.part)
        try:
            there = way.at(part)
        except ArithmeticError:
            return None
        ends, parts = (
            ((here, there), (place, part)) if end == 0.0 else ((there, here), (part, place))
        )
        special = passed(way.problem, *ends)
        if special is None:
            return None
        found += [
            q._replace(part=parts[0] + q.part * (parts[1] - parts[0]))
            for q in special
            if q.kind != "user"  # it is looked for along the whole way
        ]
        if _is_next_to(change, there) and _is_next_to(change, here):
            return found
        here, place = there, part
    return None


def _is_next_to(change: Special, point: Point) -> bool:
    """Tell whether what vanishes at a change of the symmetry is small at a point beside it."""
    at = change.point
    zero = np.abs(at.growth) <= change.tolerance
    vanishing = int(zero.sum()) + at.basis.shape[1] - point.basis.shape[1]
    order = np.argsort(np.abs(point.growth), kind="stable")
    small, others = np.abs(point.growth)[order[:vanishing]], point.growth[order[vanishing:]]
    if small.max(initial=0.0) > CLEARLY * np.abs(others).min(initial=np.inf):
        return False
    return int((others > 0.0).sum()) == int((at.growth[~zero] > 0.0).sum())


def _directed(way: Way, special: Special) -> Special:
    """Return a fold with its direction, by where p goes just before it."""
    if special.kind != "fold":
        return special
    slopes = {t: float(q.heading[-1]) for t, q in way.known.items() if t < special.part}
    clear = [t for t, slope in slopes.items() if abs(slope) > VERTICAL]
    return special._replace(fold_direction=-1 if slopes[max(clear, default=0.0)] > 0.0 else 1)


def _looked_at(
    way: Way, test: Test, middle: tuple[float, Point], before: Point | None, ratio: float
) -> str:
    """Return the verdict on a test function, which corners next to the ends leave unsettled."""
    part, at = middle
    if test.kind == "crossing":
        return "crossed"
    word = _verdict(test, way.here, at, way.there, part)
    if word != "away":
        return word
    hidden = _corners(way, test, at, part)
    if before is not None:
        hidden = hidden or _turns(test, (before, way.here, at, way.there), ratio, part)
    return "unsettled" if hidden else word


def _headed(way: Way, special: Special) -> Special:
    """Return a branch point with the tangent of its branch, by those on both sides.

    At the point itself that of another branch is as good.
    """
    if special.kind != "branch_point" or special.decided == "interpolated":
        return special
    gap = min(BESIDE, 0.25 * special.part, 0.25 * (1.0 - special.part))
    try:
        near, far = (
            way.at(special.part - width).heading + way.at(special.part + width).heading
            for width in (gap, 2.0 * gap)
        )
    except ArithmeticError:
        return special
    heading = unit_length(4.0 * near - far)
    point = special.point._replace(
        heading=heading, tangent=unit_length(heading * way.problem.scale)
    )
    return special._replace(point=point)


def _is_consistent(problem: Problem, here: Point, there: Point, special: Sequence[Special]) -> bool:
    """Tell whether the special points between two points explain how they are oriented.

    The determinant of [∂F/∂x, ∂F/∂p; tangent], whose sign is that of det ∂F/∂x times that of the
    tangent's component along p, changes sign once for each dimension of the kernel of a branch
    point, and nowhere else.
    """
    turn = here.orientation * there.orientation
    if any(q.kind == "symmetry_change" for q in special) or problem.spectrum is not None:
        return True
    grown = abs(here.n_growing - there.n_growing)
    if any(q.kind == "branch_point" and q.kernel > max(grown, 1) for q in special):
        return True  # an eigenvalue of several that only touches zero counts twice
    odd = sum(q.n_beside for q in special if q.decided != "touching") % 2 == 1
    return not turn or (turn < 0.0) == odd


def _middle(way: Way) -> tuple[float, Point] | None:
    """Return the point about half way, if it is near the cubic curve through both ends."""
    for part in (0.5, 0.4):
        point = between(way.problem, way.here, way.there, part)
        if point is not None and point.moved <= DETOUR * way.length:
            way.known[part] = point
            return part, point
    return None


def _is_straight(problem: Problem, here: Point, there: Point) -> bool:
    """Tell whether a step is along both tangents, and so certainly on one branch."""
    if here.heading @ there.heading < QUIET_COSINE:
        return False
    chord = unit_length((there.z - here.z) / problem.scale)
    side = chord - unit_length(here.heading + there.heading)
    return bool(side @ side <= QUIET_SIDE**2)


def _is_alike(problem: Problem, here: Point, there: Point, first: bool) -> bool:
    """Tell whether nothing differs that does so only where something is special.

    The start of a branch, and its end at a bound, may be special themselves.
    """
    kinds = [(q.n_growing, q.n_zeros, q.basis.shape) for q in (here, there)]
    if kinds[0] == kinds[1]:
        return True
    special = (first, here, there), (there.p in problem.bounds, there, here)
    return any(
        may and (one.n_zeros > other.n_zeros or one.basis.shape != other.basis.shape)
        for may, one, other in special
    )


def _is_quiet(test: Test, before: Point, here: Point, there: Point, ratio: float) -> bool:
    """Tell whether a test function is too far from zero to reach it within a step.

    By its change, and by how far it is from where the step before, of 1/``ratio`` the length, led.
    """
    last, one, other = test.value(before), test.value(here), test.value(there)
    least = min(abs(one), abs(other))
    if not one * other > 0.0 or not least > test.zone:
        return False
    return least > abs(other - one) and least > FORESEEN * abs(other - one - ratio * (one - last))


def _verdict(test: Test, here: Point, middle: Point, there: Point, part: float) -> str:
    """Return whether a test function is ``"away"`` from zero, ``"crossed"`` it, or ``"unsettled"``.

    By the parabola through three values, with some room.
    """
    one, half, other = test.value(here), test.value(middle), test.value(there)
    largest = max(abs(one), abs(half), abs(other))
    if largest <= test.zone:
        return "away"
    change = other - one
    bend = (half - one - part * change) / (4.0 * part * (1.0 - part))
    if min(abs(one), abs(other)) <= test.zone:
        leaves = half * (one + other) > 0.0 and abs(half) >= LEAVING * largest
        return "away" if leaves else "unsettled"
    if one * other < 0.0:
        return "crossed" if abs(bend) <= 0.4 * abs(change) else "unsettled"
    steady = abs(bend) <= 0.25 * abs(change)
    clear = one * half > 0.0 and min(abs(one), abs(half), abs(other)) > 1.5 * abs(bend)
    return "away" if clear or steady else "unsettled"


def _comes_back(way: Way, test: Test, before: Point | None, ratio: float) -> bool:
    """Tell whether a test function changes sign more than once on a way.

    It is looked at wherever the parabola through three values next to each other does not tell, by
    what the next value lacks of it, how often it vanishes between two of them. What the symmetry
    changes is not one function of the way.
    """
    if test.kind == "symmetry_change" or way.here.basis.shape != way.there.basis.shape:
        return False
    values = {part: test.value(point) for part, point in way.known.items()}
    if before is not None:
        values[-1.0 / ratio] = test.value(before)
    for _ in range(MOST_LOOKS):
        places = sorted(values)
        bent = [
            (b - a, a + ASIDE * (b - a))
            for k, (a, b) in enumerate(itertools.pairwise(places))
            if a >= 0.0 and _is_bent(places, values, k, test.zone)
        ]
        if not bent or _n_changes(values, test.zone) > 1:
            break
        part = max(bent)[1]
        try:
            values[part] = test.value(way.at(part))
        except ArithmeticError:
            break
    return _n_changes(values, test.zone) > 1


def _n_changes(values: dict[float, float], zone: float) -> int:
    """Return how often a function changes sign on a way by its values that are more than zero."""
    signs = [values[part] > 0.0 for part in sorted(values) if part >= 0.0]
    clear = [abs(values[part]) > zone for part in sorted(values) if part >= 0.0]
    return sum(a != b for a, b in itertools.pairwise(itertools.compress(signs, clear)))


def _is_bent(places: Sequence[float], values: dict[float, float], k: int, zone: float) -> bool:
    """Tell whether a function may vanish more often than its signs say between two places.

    By each four places next to each other of which these two are some.
    """
    a, b = places[k : k + 2]
    if max(abs(values[a]), abs(values[b])) <= zone:
        return False
    fours = [places[j : j + 4] for j in range(max(k - 2, 0), k + 1) if j + 4 <= len(places)]
    return not fours or any(_may_hide(four, values, (a, b), zone) for four in fours)


def _may_hide(
    four: Sequence[float], values: dict[float, float], pair: tuple[float, float], zone: float
) -> bool:
    """Tell whether the parabola through two of four places and the next one hides zeros between.

    The cubic through all four differs from it by at most ``lack``: that must be less than what the
    parabola keeps from zero, or both ends do; or the slope keeps its sign.
    """
    a, b = pair
    near, far = sorted((q for q in four if q not in pair), key=lambda q: abs(2.0 * q - a - b))
    one, other, width = values[a], values[b], b - a
    slope = (other - one) / width
    bend = ((values[near] - one) / (near - a) - slope) / (near - b)
    distant = ((values[far] - one) / (far - a) - slope) / (far - b)
    reach = max(abs(a - near), abs(b - near))
    steep = ROOM * abs(distant - bend) / abs(far - near) * width * reach
    lack, least = 0.25 * width * steep, min(abs(one), abs(other))
    if one * other < 0.0 or least <= zone:
        return not (abs(slope) > abs(bend) * width + steep or least > 4.0 * lack)
    if abs(bend) * width > abs(slope):  # the parabola turns between
        sag = 0.25 * (abs(bend) * width - abs(slope)) ** 2 / abs(bend)
        least -= sag if bend * one > 0.0 else 0.0
    return not least > lack


def _corners(way: Way, test: Test, middle: Point, part: float) -> bool:
    """Tell whether a test function may have reached zero next to an end of a way, in a corner.

    The other values lead beyond zero there, and those nearer to the end do not lead away from it.
    """
    one, half, other = (test.value(q) for q in (way.here, middle, way.there))
    if min(abs(one), abs(half), abs(other)) <= test.zone or one * other <= 0.0:
        return False
    ahead, back = one + (half - one) / part, other + (half - other) / (1.0 - part)
    return (ahead * other < 0.0 and not _approaches(way, test, 1.0)) or (
        back * one < 0.0 and not _approaches(way, test, 0.0)
    )


def _approaches(way: Way, test: Test, end: float) -> bool:
    """Tell whether a test function comes down to its value at an end without a corner before it."""
    last, sign = test.value(way.known[end]), 1.0 if end else -1.0
    before = None
    for k in range(1, 8):
        try:
            value = test.value(way.at(end - sign * 2.0**-k))
        except ArithmeticError:
            return False
        if value * last <= 0.0 or abs(value) <= abs(last):
            return False
        if before is not None and (2.0 * value - before) * last > 0.0:
            return True
        before = value
    return False


def _turns(test: Test, points: Sequence[Point], ratio: float, part: float) -> bool:
    """Tell whether a test function may have reached zero next to a step's beginning, in a corner.

    If it aimed at zero before, and its curvature there is not that within the step.
    """
    last, one, half, other = (test.value(q) for q in points)
    if abs(one) <= test.zone or last * one <= 0.0 or one * (one + ratio * (one - last)) >= 0.0:
        return False
    slopes = (one - last) * ratio, (half - one) / part, (other - half) / (1.0 - part)
    first = (slopes[1] - slopes[0]) / (part + 1.0 / ratio)
    second = slopes[2] - slopes[1]
    return abs(first - second) > 0.5 * max(abs(first), abs(second))


def _tests(problem: Problem, here: Point, there: Point) -> Iterator[Test]:
    """Yield what may vanish between two points, what explains others first."""
    flip = _flip(problem, here, there)
    if flip is not None:
        yield Test("symmetry_change", flip)
    turns = here.orientation * there.orientation < 0.0 and problem.spectrum is None
    folds = []
    if problem.spectrum is None and not is_vertical(here, there):
        folds = [Test("fold", lambda point: float(point.heading[-1]), VERTICAL)]
    if not turns:
        yield from folds
    count = min(len(here.growth), len(there.growth))
    levels = sorted((here.n_growing, there.n_growing))
    zone = max(here.zone, there.zone)
    for level in range(max(levels[0] - 1, 0), min(levels[1] + 1, count)):
        yield Test("spectrum", _growth(level), zone)
    if turns:
        largest = max(here.volume, there.volume)
        yield Test("crossing", lambda q: q.orientation * math.exp(q.volume - largest))
        yield from folds
    for kind, event in (*problem.kinds, *(("user", event) for event in problem.events)):
        largest = max(abs(event(q.x, q.p)) for q in (here, there))
        yield Test(kind, _asked(event), AT_NODE * largest)


def _growth(level: int) -> Callable[[Point], float]:
    """Return the growth that is the next one after as many as the level."""
    return lambda point: (
        float(point.growth[-1 - level]) if len(point.growth) > level else float("nan")
    )


def _asked(event: Callable[[Array, float], float]) -> Callable[[Point], float]:
    return lambda point: float(event(point.x, point.p))


def _flip(problem: Problem, here: Point, there: Point) -> Callable[[Point], float] | None:
    """Return what changes sign where the orbit loses dimensions between two points, if it may.

    Generators G(x) are compared with what they are at the first point, on an orthonormal basis B of
    what they span there: (G(x_0) B)⁺ G(x) B is the identity there, and has a negative eigenvalue
    after some of them vanished. All that do so together have the same ones.
    """
    basis, residual = here.basis, problem.residual
    if problem.nullity >= 0 or not basis.shape[1] or basis.shape != there.basis.shape:
        return None
    # At a value with a larger symmetry an end of the way has the generators of around.
    p = here.p if there.p in residual.symmetric_at else there.p
    rows = thinned(generators_of(residual, here.x, p))
    seen, change = rows @ basis, generators_of(residual, there.x, p) - rows
    gram = seen.T @ seen
    # By Weyl's inequality no singular value of G reaches zero; the cheaper norm is the larger one.
    for size in (frobenius, spectral_norm):
        if is_above(gram, size(change) ** 2):
            return None
    back = np.linalg.pinv(whole(seen))

    def test(point: Point) -> float:
        matrix = back @ whole(generators_of(residual, point.x, p) @ basis)
        return float(scipy.linalg.eigvals(matrix).real.min())

    return test if test(there) < 0.0 else None
