"""Orbits of the declared symmetry: whether two solutions are one."""

import numpy as np
import scipy  # loads scipy.integrate when it is used, which is rare and takes long

from dlnds.arrays import Array
from dlnds.continuation.correct import Point, Problem, joined
from dlnds.theory import tolerances

#: Places on an orbit from which another point of it is looked for, and moves from each.
ORBIT_STARTS, ORBIT_MOVES = 6, 20


def invariants(problem: Problem, z: Array) -> Array:
    """Return numbers that are equal on an orbit, p among them."""
    residual, x, p = problem.residual, z[:-1], float(z[-1])
    if residual.invariants is not None:
        return joined(np.ravel(np.asarray(residual.invariants(x, p), float)), p)
    if residual.generators is None and problem.nullity < 0:
        return z
    return np.array([np.linalg.norm(x), np.linalg.norm(problem.given(problem.slope(z))), p])


def same_orbit(problem: Problem, one: Point, other: Point) -> bool:
    """Tell whether two solutions are one up to declared symmetry.

    By declared invariants if there are such, by moving one along the generators onto the other if
    these are declared.
    """
    residual, near = problem.residual, tolerances.SAME_ORBIT
    if abs(one.p - other.p) > near * problem.scale[-1]:
        return False
    if residual.invariants is not None:
        return _has_same_invariants(problem, one, other)
    if residual.generators is None:
        return problem.distance(one.z, other.z) <= near
    return _may_be_moved(problem, one, other) and _is_moved(problem, one, other)


def _has_same_invariants(problem: Problem, one: Point, other: Point) -> bool:
    """Tell whether invariants differ by less than what a slight shift of x changes."""
    known, p = problem.residual.invariants, one.p
    assert known is not None
    shift = tolerances.SAME_ORBIT * problem.unit * np.random.default_rng(0).normal(size=one.x.size)
    here, there = (np.ravel(np.asarray(known(q.x, p), float)) for q in (one, other))
    slight = max(
        float(np.linalg.norm(np.ravel(np.asarray(known(q.x + shift, p), float)) - seen))
        for q, seen in ((one, here), (other, there))
    )
    return bool(np.linalg.norm(here - there) <= slight)


def _may_be_moved(problem: Problem, one: Point, other: Point) -> bool:
    """Tell whether what no symmetry of orthogonal maps changes is the same of two solutions."""
    if one.basis.shape != other.basis.shape or len(one.values) != len(other.values):
        return False
    near = tolerances.SAME_ORBIT
    gap = np.abs(np.sort(one.growth) - np.sort(other.growth)).max(initial=0.0)
    return bool(gap <= near * max(one.radius, other.radius))


def _is_moved(problem: Problem, one: Point, other: Point) -> bool:
    """Tell whether a solution is moved onto another along the generators, by Gauss and Newton.

    From several places on its orbit, as the nearest place need not be the only one that is so.
    """
    rng, p = np.random.default_rng(0), one.p
    near = tolerances.SAME_ORBIT * (problem.unit + float(np.linalg.norm(other.x)))
    start = one.x
    for _ in range(ORBIT_STARTS):
        x = start
        for _ in range(ORBIT_MOVES):
            rows, lack = problem.residual.orbit(x, p), other.x - x
            size = float(np.linalg.norm(lack))
            if size <= near:
                return True
            part = np.asarray(np.linalg.lstsq(rows.T, lack, rcond=tolerances.KERNEL)[0], float)
            if np.linalg.norm(part @ rows) <= tolerances.MODE * size:
                break
            x = _flowed(problem, x, p, part)
        start = _flowed(problem, one.x, p, np.asarray(rng.normal(size=len(rows)), float))
    return False


def _flowed(problem: Problem, x: Array, p: float, part: Array) -> Array:
    """Return where a combination of the generators leads."""
    found = scipy.integrate.solve_ivp(
        lambda _, y: part @ problem.residual.orbit(y, p),
        (0.0, 1.0),
        x,
        method="DOP853",
        rtol=1e-8,
        atol=1e-8 * problem.unit,
    )
    return np.asarray(found.y[:, -1], float)
