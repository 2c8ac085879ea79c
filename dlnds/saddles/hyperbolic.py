"""Equilibria of any flow: their stable and unstable manifolds to second order."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_memory, check_number
from dlnds.systems.protocol import (
    SystemProtocol,
    check_flow,
    check_state,
    dense_jacobian,
    field_of,
)
from dlnds.theory import spectra, tolerances

#: Step of second differences of fourth order, in units of `size_of`.
STEP = float(np.finfo(float).eps) ** (1.0 / 6.0)
#: Largest start, in the same units, and how often it is halved at most.
LARGEST_START, HALVINGS = 0.02, 40
#: Part of the linear speed that the start may have beside it.
NONLINEAR = 0.1
#: Condition of eigenvectors from which on they span nothing reliably.
DEFECTIVE = 1e7


class Equilibrium(NamedTuple):
    """An equilibrium of a flow or, ``backward``, of the flow against time.

    ``matrix`` is the Jacobian in that direction of time, ``values`` are its eigenvalues; those with
    a real part of at most ``zero`` in modulus count as on the imaginary axis. ``name`` is that of
    the argument it was given as; ``unit`` is the largest unit of lengths.
    """

    name: str
    system: SystemProtocol
    backward: bool
    state: Array
    matrix: Array
    values: Any
    zero: float
    unit: float = np.inf

    @property
    def unstable(self) -> int:
        """The number of eigenvalues with a positive real part."""
        return int(np.count_nonzero(self.values.real > self.zero))

    @property
    def stable(self) -> int:
        """The number of those with a negative one."""
        return int(np.count_nonzero(self.values.real < -self.zero))

    @property
    def central(self) -> int:
        """The number of those on the imaginary axis."""
        return len(self.values) - self.unstable - self.stable

    @property
    def departures(self) -> int:
        """The number of directions that are unstable as time goes on."""
        return self.stable if self.backward else self.unstable

    @property
    def size(self) -> float:
        """The unit of lengths."""
        return min(size_of(self.state), self.unit)

    def field(self) -> Callable[[Array], Array]:
        """Return the field in that direction of time, as a function of the state."""
        evaluate, sign = field_of(self.system, 0.0), -1.0 if self.backward else 1.0
        return lambda x: sign * evaluate(x)

    def reversed(self) -> "Equilibrium":
        """Return it with the other direction of time."""
        return self._replace(
            backward=not self.backward, matrix=-self.matrix, values=-self.values[::-1]
        )


def size_of(x: Array) -> float:
    """Return the unit of lengths at a state: its norm, but at least 1."""
    return max(1.0, float(np.linalg.norm(x)))


def check_steady(name: str, system: SystemProtocol) -> None:
    """Refuse maps, and fields that depend on time, as far as at one state this can be seen."""
    check_flow(system, name)
    place = np.linspace(0.5, 1.0, system.dim)
    before, after = (field_of(system, t)(place) for t in (0.0, 1.0))
    if not np.array_equal(before, after, equal_nan=True):
        raise ValueError(f"{name}: needs a field that does not depend on time")


def equilibrium(
    name: str, system: SystemProtocol, x: ArrayLike, rtol: float, *, backward: bool = False
) -> Equilibrium:
    """Return the equilibrium at a state, polished by a step of Newton's method.

    Refuses states from which the step is longer than ``rtol`` in units of `size_of`, or after which
    there is more force than that times the Jacobian.
    """
    state = check_state(name, system, x)
    force = field_of(system, 0.0)(state)
    matrix, accuracy = dense_jacobian(system, 0.0, state)
    size = float(np.linalg.norm(matrix, 2))
    inverse = scipy.linalg.pinv(matrix, rtol=accuracy) if size else matrix.T
    step = inverse @ force
    allowed = rtol * size_of(state)
    rest = float(np.linalg.norm(force - matrix @ step))
    if not (np.linalg.norm(step) <= allowed and rest <= allowed * size):
        raise ValueError(
            f"{name}: is no equilibrium, the field has the norm {np.linalg.norm(force):.3g} there; "
            "find_critical_point goes to one near by"
        )
    if step.any():
        state = state - step
        matrix, accuracy = dense_jacobian(system, 0.0, state)
    sign = -1.0 if backward else 1.0
    return _decided(name, system, state, sign * matrix, accuracy, backward)


def _decided(
    name: str, system: SystemProtocol, state: Array, matrix: Array, accuracy: float, backward: bool
) -> Equilibrium:
    """Return an equilibrium with the accuracy of its eigenvalues, by their conditions."""
    values, left, right = scipy.linalg.eig(matrix, left=True, right=True)
    overlap = np.abs(np.sum(left.conj() * right, axis=0))
    condition = 1.0 / np.maximum(overlap, np.sqrt(accuracy))
    zero = accuracy * float(np.linalg.norm(matrix, 2)) * float(condition.max())
    order = np.lexsort((values.imag, values.real))
    return Equilibrium(name, system, backward, state, matrix, values[order], zero)


class Local(NamedTuple):
    """The unstable manifold of an equilibrium, to second order: x + U y + V h(y), h(y) = H y ⊗ y.

    U and V are bases of the tangent space and of the invariant complement, ``onto`` and ``across``
    give the coordinates in them, and ``inner`` is the Jacobian in the first.
    """

    at: Equilibrium
    field: Callable[[Array], Array]
    tangent: Array
    complement: Array
    onto: Array
    across: Array
    inner: Array
    bend: Array

    def point(self, y: Array) -> Array:
        """Return the state at coordinates y."""
        h = self.bend @ np.outer(y, y).ravel()
        found: Array = self.at.state + self.tangent @ y + self.complement @ h
        return found

    def error(self, y: Array) -> float:
        """Return how far the point at y is from the manifold, by what it lacks of invariance.

        With the error e(y) of h, of third order, De B y − C e is the residual: it is at least three
        times the slowest rate times e.
        """
        force = self.field(self.point(y))
        inner, outer = self.onto @ force, self.across @ force
        slope = self.bend @ (np.outer(inner, y) + np.outer(y, inner)).ravel()
        slowest = float(scipy.linalg.eigvals(self.inner).real.min())
        return float(np.linalg.norm(self.complement @ (outer - slope))) / (3.0 * slowest)

    def is_linear(self, y: Array) -> bool:
        """Tell whether the speed in the tangent space at y is about that of the linearization."""
        linear = self.inner @ y
        beside = self.onto @ self.field(self.point(y)) - linear
        return float(np.linalg.norm(beside)) <= NONLINEAR * float(np.linalg.norm(linear))

    def gap(self, x: Array) -> Array:
        """Return in coordinates of the complement how far a state near by is from the manifold."""
        y = self.onto @ (x - self.at.state)
        found: Array = self.across @ (x - self.at.state) - self.bend @ np.outer(y, y).ravel()
        return found

    def start(self, y: Array, accuracy: float) -> tuple[Array, float]:
        """Return y times a factor such that the point is as near to the manifold, and how near.

        ``accuracy`` is absolute; where rounding leaves more, the best that it leaves.
        """
        y = y * (LARGEST_START * self.at.size / float(np.linalg.norm(y)))
        best, least = y, np.inf
        for _ in range(HALVINGS):
            error = self.error(y)
            if self.is_linear(y) and not error >= least:
                best, least = y, error
            if least <= accuracy:
                break
            y = 0.5 * y
        return best, least


def local(at: Equilibrium) -> Local:
    """Return the unstable manifold of an equilibrium to second order.

    The quadratic part solves De h B y = C h + ½ Q D²f(U y, U y), a Sylvester equation, whose
    eigenvalues λ_i + λ_j − μ are never zero since Re μ ≤ 0 < Re λ.
    """
    k, n = at.unstable, at.system.dim
    check_memory("x", 4 * n**2 + k**4)
    T, Z, count = scipy.linalg.schur(at.matrix, sort=lambda re, im: re > at.zero)
    assert count == k
    X = scipy.linalg.solve_sylvester(T[:k, :k], -T[k:, k:], -T[:k, k:]) if 0 < k < n else None
    X = np.zeros((k, n - k)) if X is None else X
    tangent, complement = Z[:, :k], Z[:, k:] + Z[:, :k] @ X
    onto, across = Z[:, :k].T - X @ Z[:, k:].T, Z[:, k:].T
    inner, field = T[:k, :k], at.field()
    bend = np.zeros((n - k, k * k))
    if 0 < k < n:
        eye, curved = np.eye(k), across @ _second(field, at, tangent)
        if not np.isfinite(curved).all():
            raise ValueError(f"{at.name}: the second derivatives at this state are not finite")
        both = np.kron(inner, eye) + np.kron(eye, inner)
        bend = scipy.linalg.solve_sylvester(T[k:, k:], -both, -0.5 * curved)
    return Local(at, field, tangent, complement, onto, across, inner, bend)


def _second(field: Callable[[Array], Array], at: Equilibrium, frame: Array) -> Array:
    """Return D²f(u_i, u_j) (component, pair) of the columns of a frame, by differences."""
    step, k = STEP * at.size, frame.shape[1]

    def along(v: Array) -> Array:
        places = (-2.0, -1.0, 0.0, 1.0, 2.0)
        weights = (-1.0, 16.0, -30.0, 16.0, -1.0)
        values = [w * field(at.state + p * step * v) for p, w in zip(places, weights, strict=True)]
        found: Array = np.sum(values, axis=0) / (12.0 * step**2)
        return found

    out = np.zeros((at.system.dim, k, k))
    for i in range(k):
        out[:, i, i] = along(frame[:, i])
        for j in range(i):
            u, v = frame[:, i], frame[:, j]
            out[:, i, j] = out[:, j, i] = 0.25 * (along(u + v) - along(u - v))
    return out.reshape(-1, k * k)


class Frame(NamedTuple):
    """Unit vectors (direction, parameter) that span the tangent space, with their eigenvalues."""

    vectors: Array
    rate: Array
    frequency: Array
    condition: float


def frame_of(found: Local) -> Frame:
    """Return the eigenvectors, the fastest first; of a pair the half axes of its ellipse.

    Where they are defective, orthonormal vectors of which the first few span invariant spaces.
    """
    if not found.inner.size:
        return Frame(np.zeros((0, found.at.system.dim)), np.zeros(0), np.zeros(0), 1.0)
    values, vectors = spectra.general_modes(found.inner.copy(), vectors=True)
    condition = float(np.linalg.cond(vectors))
    values, vectors = values[::-1], vectors[:, ::-1]
    rows = np.where(values.imag >= 0.0, vectors.real, vectors.imag).T @ found.tangent.T
    if condition > DEFECTIVE:
        rows = found.tangent.T
        values = scipy.linalg.rsf2csf(found.inner, np.eye(len(values)))[0].diagonal()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return Frame(rows, values.real.copy(), values.imag.copy(), condition)


def local_manifold(
    system: SystemProtocol, x: ArrayLike, rtol: float, *, stable: bool
) -> xr.Dataset:
    """Return the manifold of an equilibrium of any flow: schema ``manifold``."""
    check_steady("net", system)
    rtol = check_number("rtol", rtol, minimum=0.0, maximum=tolerances.MODE)
    found = local(equilibrium("x", system, x, rtol, backward=stable))
    at, frame = found.at, frame_of(found)
    none = np.full(len(frame.rate), -1)
    squares = [np.outer(y, y).ravel() for y in frame.vectors @ found.onto.T]
    bends = (
        np.reshape(squares, (len(squares), found.bend.shape[1])) @ found.bend.T @ found.complement.T
    )
    variables = {
        "frame": (("direction", "parameter"), frame.vectors),
        "rate": ("direction", frame.rate),
        "curvature": (("direction", "parameter"), bends),
        "state": ("parameter", at.state),
        **schema.columns("direction", frequency=frame.frequency, order=none + 3),
        **schema.columns("direction", mode=none, mode_lost=none),
    }
    attrs = {
        **system.attributes(),
        "rtol": rtol,
        "side": "stable" if stable else "unstable",
        "made_by": "stable_manifold" if stable else "unstable_manifold",
        "dimension": at.unstable,
        "strict_dimension": at.unstable,
        "central_dimension": at.central,
        "is_cone": 0,
        "is_complete": int(not at.central),
        "zero_tolerance": at.zero,
        "eigenvector_condition": frame.condition,
        "method": "dense",
    }
    return schema.finish(xr.Dataset(variables, system.coordinates()), "manifold", attrs)
