"""The first point of a branch: the solution at p0, its tangent, and the scales of all lengths."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike

from dlnds.arrays import Array
from dlnds.continuation.bordered import SINGULAR
from dlnds.continuation.correct import (
    EPSILON,
    Bordered,
    Event,
    Point,
    Problem,
    bordered,
    described,
    joined,
    null_directions,
    orbit_basis,
    placed,
    stored,
    unit_length,
    upwards_of,
    usual_size,
)
from dlnds.continuation.parts import LARGE, Matrix, entries, frobenius, thinned
from dlnds.continuation.residuals import Residual, equation_of, generators_of, jacobian_of
from dlnds.errors import ConvergenceError, check_array, check_memory, check_number
from dlnds.theory import forms, tolerances

#: Newton steps at most, and halvings of one of them.
MOST_STEPS, MOST_HALVINGS = 60, 30
#: How far the solution may be from x0, in terms of the size of both.
NEAR = 0.5
#: How often the typical size of x is looked for with that of the differences for its Jacobian.
MOST_UNITS = 6
#: Lengths, in terms of ‖x‖, from which on what is not linear in them is looked for.
SLIGHT = 1e-6
#: How much more than at the shortest length known F has to be bent there for one to be shorter.
SAME = 1e-6
#: Octaves of lengths in which the typical size of x is looked for.
OCTAVES = 160.0
#: ‖F‖ at a solution, in terms of what a change of x by its size makes.
UNSOLVED = 1e-8
#: Part of a linear change that what is not linear is at a length, in terms of which the typical
#: size of x is this; and how many directions are tried.
BENT, ROOM, DIRECTIONS = 0.1, 3.0, 3
#: How far beside a value of p with a larger symmetry solutions are looked at, as part of its range.
BESIDE = 1e-4
#: Sizes of rows of F, in terms of the smallest one, up to which they are alike.
ALIKE = 100.0
#: Length, in terms of the size of x, at which F is linear but where all its derivatives vanish.
FLAT = 1e-3
#: Relative deviation of derivatives from differences that rounding does not explain.
WRONG = 1e-3


def started(
    residual: object,
    x0: ArrayLike,
    p0: float,
    course: Mapping[str, Any],
    max_points: int,
    symmetry: str = "declared",
) -> tuple[Problem, Point]:
    """Return what the steps of a branch share and its first point, if the start is one."""
    equation = equation_of(residual)
    x = check_array("x0", x0, ndim=1, shape=(equation.size,))
    low, high = course["bounds"]
    p = check_number("p0", p0, minimum=low, maximum=high)
    check_room(max_points, x.size)
    force = equation.value(x, p)
    if not np.isfinite(force @ force + x @ x):
        raise ValueError(f"x0: F(x, p) is not finite, or overflows, at p = {p:g}")
    for event in course["events"]:
        answer = np.asarray(event(x, p))
        if answer.ndim or answer.dtype.kind not in "biuf" or not np.isfinite(answer):
            raise ValueError(
                f"events: needs functions that return one finite number, got {answer!r} at x0"
            )
    minimum_norm, reach = symmetry == "minimum_norm", 0.5 * (high - low)
    lift = None
    if x.size > LARGE and equation.aligned is not None and not minimum_norm:
        equation, x, lift = _aligned(equation, x)
        course = {**course, "events": tuple(_of_turned(e, lift) for e in course["events"])}
    _check_finite(equation, x, p)
    unit, start = float(np.linalg.norm(x)) or 1.0, joined(x, p)
    plain = Problem(equation, scale=joined(np.full(x.size, unit), reach), lift=lift, **course)
    plain = plain._replace(nullity=0) if minimum_norm else plain
    for _ in range(MOST_UNITS):
        before, rows = unit, plain.rows
        unit = typical_size(plain, start)
        plain = plain._replace(scale=joined(np.full(x.size, unit), reach))
        plain = plain._replace(rows=_row_sizes(plain, start))
        settled = equation.jacobian is not None or 0.5 * before <= unit <= 2.0 * before
        if settled and np.array_equal(np.asarray(plain.rows), np.asarray(rows)):
            break
    problem = plain._replace(nullity=-1)
    return start_of(problem, x, p, minimum_norm)


def _aligned(equation: Residual, x: Array) -> tuple[Residual, Array, Callable[[Array], Array]]:
    """Return an equation in coordinates that suit a state, that without rounding, and the way back.

    It says what the given one says of itself.
    """
    assert equation.aligned is not None
    turned, y, lift = equation.aligned(x) or (equation, x, lambda states: states)
    y = np.where(np.abs(y) > tolerances.EXACT * np.abs(y).max(), y, 0.0)
    own = replace(turned, attributes=equation.attributes, coordinates=equation.coordinates)
    return own, y, lift


def _check_finite(equation: Residual, x: Array, p: float) -> None:
    """Refuse derivatives that are not finite, and a Jacobian that does not fit into the memory."""
    known = {}
    if equation.jacobian is not None:
        known["jacobian"] = entries(thinned(jacobian_of(equation.jacobian, x, p)))
    elif x.size > LARGE:
        check_memory("x0", 4 * x.size**2)
    if known and known["jacobian"].ndim == 2:
        check_memory("x0", 4 * x.size**2)
    if equation.derivative is not None:
        known["derivative"] = equation.slope(x, p)
    for name, found in known.items():
        if not np.isfinite(found).all():
            raise ValueError(f"{name}: needs finite numbers, got NaN or infinity at the start")


def _of_turned(event: Event, lift: Callable[[Array], Array]) -> Event:
    return lambda y, p: event(lift(y[None])[0], p)


def check_room(max_points: int, size: int) -> None:
    """Refuse branches of so many components that do not fit into the memory."""
    check_memory("max_points", 4 * max_points * size)


def start_of(
    problem: Problem, x: Array, p: float, minimum_norm: bool = False
) -> tuple[Problem, Point]:
    """Return the solution at p0 with a tangent towards larger p, or say what is wrong with it."""
    z = joined(x, p)
    plain = problem._replace(nullity=0) if minimum_norm else problem
    _check_derivatives(problem, z)
    z = _solution_at(plain, z)
    jacobian = problem.thin_matrix(z)
    if problem.spectrum is None:
        _check_declared(problem, z, jacobian)
    size = usual_size(problem, jacobian, problem.slope(z))
    problem, plain = problem._replace(size=size), plain._replace(size=size)
    if float(z[-1]) in problem.residual.symmetric_at and not minimum_norm:
        return problem, _start_beside(problem, z)
    kernel = _null_directions(plain, z)
    if minimum_norm:
        problem = problem._replace(nullity=len(kernel) - 1)
        ahead = kernel.T @ (kernel @ upwards_of(z))
        if np.linalg.norm(ahead) > tolerances.KERNEL:
            kernel = unit_length(ahead)[None]
    count = z.size if _is_flat(problem, z, size) else len(kernel)
    if count != 1:
        advice = "start at another p0 (a branch point can be passed, not begun at)"
        if _is_singular_around(plain, z):
            advice = (
                "as from its neighbours: where ∂F/∂x is singular all along as F vanishes to a "
                "higher order, continue the root of F"
            )
        raise ValueError(
            f"x0: {count} directions lead on from it at {problem.residual.parameter} = {p:g} "
            f"beside what the declared symmetry moves; {advice}, declare generators if it is a "
            "symmetry, or use symmetry='minimum_norm' if solutions are a continuum"
        )
    heading = kernel[0]
    leading = heading[-1] if abs(heading[-1]) > 1e-8 else heading[np.argmax(np.abs(heading))]
    tangent = unit_length(heading * problem.scale) * math.copysign(1.0, leading)
    return problem, stored(problem, z[:-1], float(z[-1]), tangent)


def _is_flat(problem: Problem, z: Array, size: float) -> bool:
    """Tell whether all derivatives of F vanish at a solution, as compared with F around it."""
    v = unit_length(_random(1, z.size - 1)) * FLAT * problem.unit
    around = problem.force(z[:-1] + v, float(z[-1]))
    return bool(size <= 10.0 * np.linalg.norm(around) / problem.unit)


def _is_singular_around(problem: Problem, z: Array) -> bool:
    """Tell whether several directions lead on from solutions on both sides of one, too."""
    low, high = problem.bounds
    for end in (low, high):
        place = joined(z[:-1], float(z[-1]) + BESIDE**0.5 * (end - float(z[-1])))
        try:
            near = _solution_at(problem, place)
        except ConvergenceError:
            return False
        size = usual_size(problem, problem.thin_matrix(near), problem.slope(near))
        if not _is_flat(problem, near, size) and len(_null_directions(problem, near)) == 1:
            return False
    return True


def _start_beside(problem: Problem, z: Array) -> Point:
    """Return a solution where the symmetry is larger than around, with what it has around.

    There more may be zero than the larger symmetry accounts for, as in the saddles of deep networks
    at weight decay 0. The tangent is that of solutions at two values of p nearby, extrapolated.
    """
    unit = float(problem.scale[-1]) * (1.0 if z[-1] < problem.bounds[1] else -1.0)
    places, found = [joined(z[:-1], float(z[-1]) + k * BESIDE * unit) for k in (1.0, 2.0)], []
    for place in places:
        try:
            near = _solution_at(problem, place)
        except ConvergenceError:
            near = None
        point = None if near is None else described(problem, near, upwards_of(near))
        if near is None or point is None or problem.distance(near, place) > BESIDE**0.5:
            name = problem.residual.parameter
            raise ValueError(
                f"x0: is a solution at {name} = {z[-1]:g}, where the symmetry is larger than "
                f"around, but none at {name} = {place[-1]:g} is near it; take another point of its "
                "orbit (of a network a balanced one, as critical_state gives), or another p0"
            )
        found.append(point.heading)
    heading = 2.0 * found[0] - found[1]
    basis = orbit_basis(problem, places[0], heading)
    tangent = unit_length(heading * problem.scale)
    return placed(problem, z, tangent, basis, problem.thin_matrix(z))


def _around(problem: Problem, z: Array) -> list[Array]:
    """Return a state at its p and at two other places between the bounds."""
    p, low, high = float(z[-1]), *problem.bounds
    ends = (low, high) if low < p < high else (low + high - p, 0.5 * (low + high))
    return [joined(z[:-1], place) for place in (p, *(0.5 * (p + end) for end in ends))]


def _row_sizes(problem: Problem, z: Array) -> Array | None:
    """Return how much a unit of x, and one of p, changes each row of F, None if rows are alike.

    Powers of two, which round nothing. The largest change counts of those at several places, linear
    or not: next to a singular point, and along an orbit, the derivatives of a row may vanish. The
    rows of a symmetric Jacobian are in the units of its columns.
    """
    if problem.residual.symmetric:
        return None
    plain, n = problem._replace(rows=None), z.size - 1
    ahead = [joined(problem.unit * unit_length(v), 0.0) for v in _random(0, DIRECTIONS, n)]
    sizes = np.zeros(n)
    for place in _around(problem, z):
        wide, force = np.column_stack([plain.matrix(place), plain.slope(place)]), plain.value(place)
        changes = [plain.value(place + v) - force for v in ahead]
        linear = np.linalg.norm(wide * problem.scale, axis=1)
        sizes = np.fmax.reduce([sizes, linear, *np.abs(changes)])
    known = sizes[(sizes > 0.0) & (sizes < math.inf)]
    if not known.size or known.max() <= ALIKE * known.min():
        return None
    ratios = np.where((sizes > 0.0) & (sizes < math.inf), sizes / known.min(), 1.0)
    return np.asarray(2.0 ** np.round(np.log2(ratios)), float)


def typical_size(problem: Problem, z: Array) -> float:
    """Return the length over which F is no longer linear in x, in a direction of slow change.

    That is covariant: if x is measured in other units, or shifted, so is the length. The middle one
    counts of those at p0 and at two other places between the bounds: near a singular point it is
    short, and where F is hardly bent it is long. A linear equation has none; the solution's own
    size is taken, or its change within the bounds.
    """
    places = _around(problem, z)
    size = sorted(_bending_size(problem, place, math.inf) for place in places)[1]
    if size < np.inf:
        return size
    basis = orbit_basis(problem, z, upwards_of(z))
    system = bordered(problem, z, basis, upwards_of(z))
    assert system is not None
    change = system.factors.solve(upwards_of(z))[:-1] * problem.unit
    return max(float(np.linalg.norm(z[:-1])), float(np.linalg.norm(change))) or 1.0


def _bending_size(problem: Problem, z: Array, most: float) -> float:
    """Return the length over which F is no longer linear in x at one p, if that is not the most."""
    basis = orbit_basis(problem, z, upwards_of(z))
    system = bordered(problem, z, basis, upwards_of(z))
    force, slope = problem.value(z), problem.slope(z)
    if system is None or not math.isfinite(force @ force):
        return most
    reach = math.sqrt(slope @ slope) * float(problem.scale[-1])
    for slow in _slow_directions(problem, z, system, basis):
        v = unit_length(slow)
        most = _bending_along(problem, z, force, system.jacobian @ v, v, reach, most)
    return most


def _slow_directions(problem: Problem, z: Array, system: Bordered, basis: Array) -> list[Array]:
    """Return directions across the orbit in which x changes slowly, some at random."""
    n = z.size - 1
    if problem.residual.generators is not None and z[:n].any():  # what turns as x does
        moved = np.stack([z[:n], system.jacobian @ z[:n], problem.slope(z)])
        sizes = np.linalg.norm(moved, axis=1, keepdims=True)
        moved /= np.where(sizes > 0.0, sizes, 1.0)
        rights = _random(0, DIRECTIONS, 3) @ moved
    else:
        rights = _random(0, DIRECTIONS, n)
    rights = rights - (rights @ basis) @ basis.T  # an orbit bends where F does not
    slow = [system.factors.solve(joined(right, 0.0))[:n] for right in rights]
    tried = [v if v.any() else right for v, right in zip(slow, rights, strict=True)]
    return [v for v in tried if v.any()]


@functools.lru_cache(maxsize=16)
def _random(seed: int, *shape: int) -> Array:
    """Return normal numbers, always the same, in an array that is shared."""
    numbers = np.random.default_rng(seed).normal(size=shape)
    numbers.flags.writeable = False
    return numbers


def _bending_along(
    problem: Problem, z: Array, force: Array, rate: Array, v: Array, reach: float, most: float
) -> float:
    """Return the length over which F is no longer linear along a direction, or the most.

    Along it F changes at a rate, and by the reach where p does. Lengths grow from what is slight: F
    need not be defined far away.
    """
    x, p, change = z[:-1], float(z[-1]), math.sqrt(rate @ rate)

    @functools.cache  # Brent's method asks for both ends once more
    def bent(octave: float) -> float:
        s = 2.0**octave
        rest = problem.force(x + s * v, p) - force - s * rate
        square = float(rest @ rest)
        size = math.sqrt(square) if math.isfinite(square) else 1e300
        return math.log(size + 1e-300) - math.log(BENT * (s * change + reach) + 1e-300)

    span = _bracket(bent, float(np.linalg.norm(x)), most)
    if span is None:
        return most
    return float(ROOM * 2.0 ** scipy.optimize.brentq(bent, *span, xtol=1e-10))


def _bracket(
    bent: Callable[[float], float], size: float, most: float
) -> tuple[float, float] | None:
    """Return octaves between which F becomes bent, None if that is not before the most."""
    if most < math.inf:
        high, gap = math.log2(most / ROOM), 0.5
        if bent(high) <= SAME:
            return None
        while bent(high - gap) > 0.0 and high - gap > -OCTAVES:
            high, gap = high - gap, 2.0 * gap
        return (high - gap, high) if high - gap > -OCTAVES else None
    low = max(math.log2(SLIGHT * size), -OCTAVES) if size else -OCTAVES
    below = bent(low)
    while below > 0.0 and low > -OCTAVES:
        low -= 4.0
        below = bent(low)
    while not below < 0.0 and low < OCTAVES:  # F may be rounding where lengths are slight
        low += 4.0
        below = bent(low)
    if low >= OCTAVES:
        return None
    high = low + _octaves(below)
    while (above := bent(high)) < 0.0:
        low, high = high, high + _octaves(above)
        if low > OCTAVES:
            return None
    return low, high


def _octaves(bent: float) -> float:
    """Return how many octaves to a length at which F is bent, if that grows as a square."""
    return min(max(-bent / math.log(4.0), 4.0), OCTAVES / 4.0)


def _check_derivatives(problem: Problem, z: Array) -> None:
    """Refuse a Jacobian, or a derivative by p, that is not that of fun."""
    residual, x, p = problem.residual, z[:-1], float(z[-1])
    matrix, slope = problem.thin_matrix(z), problem.slope(z)
    v = unit_length(_random(1, x.size)) * problem.unit
    unit, force = float(problem.scale[-1]), problem.value(z)
    bent = np.nan_to_num(np.abs(problem.force(x + v, p) - force), nan=0.0, posinf=0.0)
    sizes = np.sqrt((matrix**2).sum(axis=1)) * problem.unit + np.abs(slope) * unit + bent
    if residual.jacobian is not None:
        tried = [
            (problem.force(x + h * v, p) - problem.force(x - h * v, p)) / (2.0 * h)
            for h in (1e-5, 1e-7)
        ]
        _check_same(problem, "jacobian", "∂F/∂x", matrix @ v, tried, sizes)
    if residual.derivative is not None:
        tried = [
            unit * forms.difference_within(lambda s: problem.force(x, s), p, size, problem.bounds)
            for size in (unit, 1e-3 * unit)
        ]
        _check_same(problem, "derivative", "∂F/∂p", unit * slope, tried, sizes)


def _check_same(
    problem: Problem, name: str, what: str, known: Array, tried: Sequence[Array], sizes: Array
) -> None:
    """Refuse a derivative if all differences differ from it in one of its components."""
    lacks = [np.abs(known - seen) - WRONG * sizes for seen in tried]
    if all(np.isfinite(lack).all() and lack.max() > WRONG**2 * sizes.max() for lack in lacks):
        k, (own, seen) = int(np.argmax(lacks[0])), map(problem.given, (known, tried[0]))
        raise ValueError(
            f"{name}: needs {what} of fun, but component {k} of it in a direction is {own[k]:.6g}"
            f" at the start, and {seen[k]:.6g} by differences"
        )


def _check_symmetric(problem: Problem, z: Array) -> None:
    """Refuse a Jacobian that is declared symmetric and is not, at the start or a length beside it.

    At the start it may be so by chance, as where x = 0. A thin matrix stays so where no component
    moves that is zero.
    """
    here = problem.thin_matrix(z)
    ahead = _random(2, z.size - 1) * (1.0 if type(here) is np.ndarray else z[:-1] != 0.0)
    v = ahead / (math.sqrt(ahead @ ahead) or 1.0) * problem.unit
    found = [here, problem.thin_matrix(joined(z[:-1] + v, float(z[-1])))]
    found = [matrix for matrix in found if np.isfinite(entries(matrix)).all()]
    sizes = [frobenius(matrix) for matrix in found]
    for matrix, size in zip(found, sizes, strict=True):
        lack = frobenius(matrix - matrix.T)
        if lack > WRONG * size and lack > WRONG**2 * max(sizes):  # more than differences err by
            raise ValueError(
                "symmetric: ∂F/∂x is not symmetric at the start, or beside it; leave it out"
            )


def _check_declared(problem: Problem, z: Array, matrix: Matrix) -> None:
    """Refuse a symmetry that the equation does not have."""
    residual, x, p = problem.residual, z[:-1], float(z[-1])
    size = frobenius(matrix)
    if residual.symmetric:
        _check_symmetric(problem, z)
    rows = generators_of(residual, x, p)
    if rows.shape[1] != x.size or not np.isfinite(entries(rows)).all():
        raise ValueError(f"generators: needs finite rows of {x.size} numbers, got {rows.shape}")
    lack = frobenius(rows @ matrix.T)
    if lack > WRONG * size * frobenius(rows) and lack > WRONG * size * problem.unit:
        raise ValueError(
            "generators: are no symmetry of fun, ∂F/∂x does not vanish along them at the start"
        )


def _solution_at(problem: Problem, z: Array) -> Array:
    """Return the solution near x0 at p0, by Newton's method with p fixed.

    Where that stops, from the nearest place at which ‖F‖ is smallest.
    """
    found = _newton_at(problem, z)
    if found is None:
        found = _newton_at(problem, _least_force(problem, z))
    size = problem.unit + float(np.linalg.norm(z[:-1]))
    if found is not None and np.linalg.norm(found - z) <= NEAR * size:
        return found
    force = float(np.linalg.norm(problem.given(problem.value(z))))
    name = problem.residual.parameter
    raise ConvergenceError(
        f"x0: Newton's method finds no solution from it at {name} = {z[-1]:g}, where "
        f"‖F‖ = {force:.3g}; check the Jacobian, or come nearer (of a system at a fixed p by "
        "find_critical_point)"
    )


def _least_force(problem: Problem, z: Array) -> Array:
    """Return where ‖F‖ is smallest around x0."""
    p, ahead = float(z[-1]), problem.unit

    def force(y: Array) -> Array:
        return np.nan_to_num(problem.force(z[:-1] + ahead * y, p), nan=1e150)

    def change(y: Array) -> Array:
        return np.nan_to_num(ahead * problem.matrix(joined(z[:-1] + ahead * y, p)))

    tight = {"xtol": 1e-14, "ftol": 1e-14, "gtol": None}
    found = scipy.optimize.least_squares(force, np.zeros(z.size - 1), change, max_nfev=200, **tight)
    return joined(z[:-1] + ahead * found.x, p)


def _newton_at(problem: Problem, z: Array) -> Array | None:
    """Return where damped Newton steps at fixed p lead, if that is a solution."""
    scale, n, normal = problem.scale, z.size - 1, upwards_of(z)
    force, last = problem.value(z), np.inf
    for _ in range(MOST_STEPS):
        system = bordered(problem, z, orbit_basis(problem, z, normal), normal)
        if system is None:
            return None
        step = system.factors.solve(joined(force / system.unit, 0.0))
        step[n] = 0.0
        length = float(np.linalg.norm(step)) / (1.0 + float(np.linalg.norm(z / scale)))
        size, usual = float(np.linalg.norm(force)), float(np.linalg.norm(z[:n]))
        solves = size <= UNSOLVED * system.unit  # a singular Jacobian may lead nowhere
        if length <= problem.rtol:
            return z - scale * step if solves else None
        rounding = size <= EPSILON * system.weight * usual or length <= 1e3 * problem.rtol
        if length > 0.5 * last and rounding and solves:
            return z
        z, force = _damped(problem, z, force, scale * step)
        last = length
    return None


def _damped(problem: Problem, z: Array, force: Array, step: Array) -> tuple[Array, Array]:
    """Return where the longest part of a step leads that makes ‖F‖ smaller, and F there."""
    size = float(np.linalg.norm(force))
    for _ in range(MOST_HALVINGS):
        moved = z - step
        moved[-1] = z[-1]
        there = problem.value(moved)
        if np.linalg.norm(there) < size or not size:
            return moved, there
        step = 0.5 * step
    return z, force


def _null_directions(problem: Problem, z: Array) -> Array:
    """Return the null directions at the start; of large equations only whether there is one."""
    if z.size > LARGE:
        normal = upwards_of(z)
        system = bordered(problem, z, orbit_basis(problem, z, normal), normal)
        if system is not None and system.factors.is_regular(SINGULAR):
            return unit_length(system.factors.solve(normal))[None]
    return null_directions(problem, z, upwards_of(z))
