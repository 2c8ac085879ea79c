"""What normal forms say: on which side of a branch point or Hopf point new solutions are."""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import lapack

from dlnds.arrays import Array, Integers
from dlnds.continuation.correct import Point, Problem, joined, orbit_basis, unit_length, usual_size
from dlnds.continuation.parts import Matrix, decomposed, frobenius, parts_of
from dlnds.theory import tolerances

#: Places (part, component) of parts, and their singular value decompositions.
Decomposed = tuple[Integers, tuple[Array, Array, Array]]
#: Step of differences, in terms of the size of x, at which truncation and rounding are alike.
STEP = 2e-3
#: Quadratic terms, in terms of the cubic ones at the size of x, that a pitchfork may have.
EVEN = 1e-5
#: Third derivatives by differences, in terms of the first ones there and at a typical distance over
#: this squared, that are rounding.
ROUNDED = 1e-7


def of_pitchfork(problem: Problem, point: Point) -> str:
    """Return whether a simple branch point is a super- or subcritical pitchfork, or none.

    With v and w the null vectors of J and Jᵀ, wᵀv > 0, and J h = −(F_xx v v − w wᵀ F_xx v v), the
    reduced equation has the terms ½ a s² + ⅙ c s³, a = wᵀ F_xx v v and c = wᵀ (F_xxx v v v +
    3 F_xx v h). A pitchfork has a = 0; its solutions are where the others are unstable, if c < 0.
    """
    z = point.z
    jacobian, basis = problem.thin_matrix(z), orbit_basis(problem, z, point.heading)
    size = usual_size(problem, jacobian, problem.slope(z))
    parts = parts_of(jacobian, basis, np.zeros(z.size - 1, bool))
    found = list(decomposed(parts, jacobian, basis, size))
    least = np.sort(np.concatenate([sizes.ravel() for _, (_, sizes, _) in found]))
    if len(least) > 1 and least[1] <= tolerances.KERNEL * least[-1]:
        return "none"
    v, w = _null_pair(found, z.size - 1)
    own = w if problem.rows is None else unit_length(w / problem.rows)
    if abs(own @ v) <= tolerances.KERNEL:
        return "none"
    w = w * np.sign(own @ v)
    bend, cube = _along(problem, z, v)
    square = bend @ v
    answer = -_solved(found, square)
    even, odd = float(w @ square), float(w @ (cube @ v + 3.0 * bend @ answer))
    if not abs(even) <= EVEN * abs(odd) * problem.unit or abs(odd) <= _least(problem, z, v):
        return "none"
    return "supercritical" if odd < 0.0 else "subcritical"


def _null_pair(found: Sequence[Decomposed], n: int) -> tuple[Array, Array]:
    """Return the right and the left vector of the least singular value."""
    right, left = np.zeros((2, n))
    places, (lefts, sizes, rights) = min(found, key=lambda part: float(part[1][1].min()))
    k = int(sizes[:, -1].argmin())
    right[places[k]], left[places[k]] = rights[k, -1], lefts[k, :, -1]
    return right, left


def _solved(found: Sequence[Decomposed], right: Array) -> Array:
    """Return the solution of least norm without the part of the least singular value."""
    solution, lost = np.zeros_like(right), min(float(sizes.min()) for _, (_, sizes, _) in found)
    for places, (left, sizes, frames) in found:
        inner = np.matmul(np.swapaxes(left, -1, -2), right[places][..., None])[..., 0]
        inner /= np.where(sizes > lost, sizes, np.inf)
        solution[places] = np.matmul(np.swapaxes(frames, -1, -2), inner[..., None])[..., 0]
    return solution


def of_hopf_point(problem: Problem, point: Point, frequency: float = 0.0) -> str:
    """Return whether the orbits at a Hopf point are stable across it, or none if that is not known.

    Of several pairs at it those of a frequency, if one is given.

    By the sign of the first Lyapunov coefficient, Re wᴴ (C(v, v, v̄) − 2 B(v, J⁻¹ B(v, v̄)) +
    B(v̄, (2iω − J)⁻¹ B(v, v))), with J v = iω v, Jᵀ w = −iω w, and B and C the second and third
    derivatives of F [Kuz04, section 5.4].
    """
    problem = problem._replace(rows=None)  # eigenvectors are of the Jacobian as it is
    z, jacobian, n = point.z, problem.matrix(point.z), len(point.x)
    real, imag, *frames, info = lapack.dgeev(jacobian)
    lack = np.hypot(real, imag - frequency) if frequency else np.abs(real)
    place = int(np.argmin(np.where(imag > 0.0, lack, np.inf)))
    omega = float(imag[place])
    if info or not omega > 0.0 or point.basis.shape[1]:
        return "none"
    w, v = (frame[:, place] + 1j * frame[:, place + 1] for frame in frames)
    overlap = np.vdot(w, v)
    if abs(overlap) <= tolerances.KERNEL:
        return "none"
    w = w / np.conj(overlap)
    x, y = v.real, v.imag
    (bend, cube), (other, third) = _along(problem, z, x), _along(problem, z, y)
    square = bend @ x - other @ y + 2j * (bend @ y)  # B(v, v)
    mean = bend @ x + other @ y  # B(v, v̄)
    cubic = (cube + third) @ x + 1j * (cube + third) @ y  # C(v, v̄, v)
    still = lapack.dgelss(jacobian, mean)[1][:n]  # with other eigenvalues it may be singular
    twice = lapack.zgelss(2j * omega * np.eye(n) - jacobian, square)[1][:n]
    change = cubic - 2.0 * (bend + 1j * other) @ still + (bend - 1j * other) @ twice
    first = float(np.vdot(w, change).real)
    size = float(np.abs(change).max() * np.abs(w).max())
    if not abs(first) > max(EVEN * size, _least(problem, z, x)):
        return "none"
    return "supercritical" if first < 0.0 else "subcritical"


def _least(problem: Problem, z: Array, v: Array) -> float:
    """Return what third derivatives along a direction are by rounding and truncation alone."""
    far = joined(z[:-1] + problem.unit * unit_length(v), float(z[-1]))
    sizes = [frobenius(problem.thin_matrix(y)) for y in (z, far)]
    return ROUNDED * max(sizes) / problem.unit**2


def _along(problem: Problem, z: Array, v: Array) -> tuple[Matrix, Matrix]:
    """Return the first and the second derivative of ∂F/∂x along a direction."""
    h = STEP * problem.unit / float(np.linalg.norm(v))
    one, two, back, far = (
        problem.thin_matrix(joined(z[:-1] + part * h * v, float(z[-1]))) for part in (1, 2, -1, -2)
    )
    first = (8.0 * (one - back) - (two - far)) / (12.0 * h)
    second = (16.0 * (one + back) - (two + far) - 30.0 * problem.thin_matrix(z)) / (12.0 * h**2)
    return first, second
