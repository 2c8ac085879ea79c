"""Equations F(x, p) = 0 with a parameter, for continuation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import scipy  # loads scipy.sparse when it is used
import xarray as xr
from numpy.typing import ArrayLike

from dlnds.arrays import Array
from dlnds.continuation.parts import Matrix, whole
from dlnds.errors import check_array, check_choice, check_function, check_number, known_options
from dlnds.theory import forms

#: What the solutions of an equation are equilibria of.
KINDS = ("flow", "map")
#: Numbers as they are in our arrays.
FLOAT = np.dtype(float)


@dataclass(frozen=True, eq=False, repr=False)
class Residual:
    """An equation F(x, p) = 0 for x (component) that depends on one parameter p.

    Parameters
    ----------
    fun
        ``fun(x, p)`` returns F (component): for a flow the field, so that eigenvalues of its
        Jacobian with a positive real part are unstable; for a map see ``kind``.
    jacobian
        ``jacobian(x, p)`` returns ∂F/∂x (component × component), an array or a sparse one of scipy;
        ``None`` differences ``fun``.
    derivative
        ``derivative(x, p)`` returns ∂F/∂p (component); ``None`` differences ``fun``.
    generators
        ``generators(x, p)`` returns tangent vectors (generator × component), an array or a sparse
        one, that span the tangent space of the symmetry orbit at x; ``None`` declares that there is
        no symmetry.
    invariants
        ``invariants(x, p)`` returns numbers that are equal on whole orbits and tell one from
        another; ``None`` if ‖x‖ and the eigenvalues of the Jacobian are such, as for orthogonal
        groups.
    symmetric_at
        Values of p at which the orbits are larger than at all others around them.
    symmetric
        Whether the Jacobian is symmetric, as that of a gradient flow.
    kind
        ``"flow"``, or ``"map"`` if solutions are points of period k of a map f: ``fun`` returns
        F = f^k(x, p) − x and ``jacobian`` that of F, so that its eigenvalues are the multipliers
        less one, and unstable where the multiplier lies outside the unit circle.
    parameter
        Name of p.
    observe
        ``observe(x, p)`` returns numbers by name that a branch records.
    vectorized
        Whether ``observe`` takes many states (step × component) with their p (step), too, and
        returns a number for each; so does ``label`` then.
    coordinates
        Labels of the components, as those of a system's dim ``parameter``.
    attributes
        What Datasets say of the problem; words that branches use themselves, such as ``bounds``,
        get the prefix ``equation_`` there.
    label
        ``label(x, p)`` returns the name of a solution, such as ``"{0,2}"``, empty if it has none.
    aligned
        ``aligned(x)`` returns the equation in orthogonal coordinates that suit a state, that state
        in them, and what turns states (step × component) back; ``None`` if its own suit it. Large
        equations are followed in them: a Jacobian that falls into parts there is taken part by
        part, and in a memory of its entries if it is sparse. What is observed of a state is the
        same in both.

    Examples
    --------
    >>> import dlnds as dl
    >>> fold = dl.Residual(lambda x, p: p + x**2)
    >>> fold.matrix([0.5], 0.0).round(6).tolist()
    [[1.0]]
    """

    fun: Callable[[Array, float], Array]
    jacobian: Callable[[Array, float], Matrix] | None = None
    _: KW_ONLY
    derivative: Callable[[Array, float], Array] | None = None
    generators: Callable[[Array, float], Matrix] | None = None
    invariants: Callable[[Array, float], Array] | None = None
    symmetric_at: Sequence[float] = ()
    symmetric: bool = False
    kind: str = "flow"
    parameter: str = "p"
    observe: Callable[[Array, Any], Mapping[str, Any]] | None = None
    vectorized: bool = False
    coordinates: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    label: Callable[[Array, float], str] | None = None
    aligned: Callable[[Array], tuple[Residual, Array, Callable[[Array], Array]] | None] | None = (
        None
    )

    def __post_init__(self) -> None:
        functions = "fun", "jacobian", "derivative", "generators", "invariants", "observe", "label"
        for name in functions:
            given = getattr(self, name)
            if given is not None or name == "fun":
                check_function(name, given, "x", "p")
        if self.aligned is not None:
            check_function("aligned", self.aligned, "x")
        check_choice("kind", self.kind, KINDS)
        if not isinstance(self.parameter, str) or not self.parameter:
            raise TypeError(f"parameter: needs a name, got {self.parameter!r}")
        if not np.iterable(self.symmetric_at):
            raise TypeError(f"symmetric_at: needs values of p, got {self.symmetric_at!r}")
        values = tuple(check_number("symmetric_at", value) for value in self.symmetric_at)
        object.__setattr__(self, "symmetric_at", values)

    def __repr__(self) -> str:
        """Name the parameter."""
        return f"Residual(parameter={self.parameter!r})"

    @property
    def size(self) -> int | None:
        """The number of components of x, if they have labels."""
        if not self.coordinates:
            return None
        return xr.Dataset(coords=self.coordinates).sizes.get("parameter")

    def value(self, x: ArrayLike, p: float) -> Array:
        """Return F(x, p), infinite or NaN where ``fun`` overflows.

        Raises
        ------
        ValueError
            If ``fun`` does not return as many numbers as x has.
        """
        state, p = _place(x, p)
        return force_of(self, state, p)

    def matrix(self, x: ArrayLike, p: float) -> Array:
        """Return ∂F/∂x, infinite or NaN where that or ``fun`` overflows."""
        state, p = _place(x, p)
        if self.jacobian is not None:
            return whole(jacobian_of(self.jacobian, state, p))
        return forms.derivative(lambda y: self.value(y, p), state)

    def slope(self, x: ArrayLike, p: float) -> Array:
        """Return ∂F/∂p, infinite or NaN where that or ``fun`` overflows."""
        state, p = _place(x, p)
        if self.derivative is not None:
            return slope_of(self.derivative, state, p)
        return forms.difference(lambda s: self.value(state, p + s), abs(p))

    def orbit(self, x: ArrayLike, p: float) -> Array:
        """Return the tangent vectors of the orbit (generator × component), none if undeclared."""
        state, p = _place(x, p)
        return whole(generators_of(self, state, p))


def force_of(residual: Residual, x: Array, p: float) -> Array:
    """Return F(x, p) at a place that needs no check."""
    found = residual.fun(x, p)
    if not _is_plain(found, x.shape):
        answer = np.asarray(found)
        if answer.dtype.kind not in "biuf":
            raise TypeError(f"fun: needs to return real numbers, got dtype {answer.dtype}")
        if answer.shape != x.shape:
            raise ValueError(
                f"fun: needs to return as many numbers as x has, {x.shape}, got {answer.shape}"
            )
        return answer.astype(float)
    return found.copy()


def generators_of(residual: Residual, x: Array, p: float) -> Matrix:
    """Return the tangent vectors of the orbit at a place that needs no check."""
    if residual.generators is None:
        return np.zeros((0, x.size))
    found = residual.generators(x, p)
    if type(found) is np.ndarray:
        return np.asarray(found, float).reshape(-1, x.size)
    if scipy.sparse.issparse(found) and found.shape[1:] == x.shape:
        return scipy.sparse.csr_array(found, dtype=float)
    return np.asarray(found, float).reshape(-1, x.size)


def jacobian_of(function: Callable[[Array, float], Matrix], x: Array, p: float) -> Matrix:
    """Return ∂F/∂x, by its function, at a place that needs no check."""
    found = function(x, p)
    if not _is_plain(found, (x.size, x.size)):
        thin = type(found) is not np.ndarray and scipy.sparse.issparse(found)
        found = scipy.sparse.csr_array(found, dtype=float) if thin else np.asarray(found, float)
        if found.shape != (x.size, x.size):
            raise ValueError(
                f"jacobian: needs a matrix of shape {(x.size, x.size)}, got {found.shape}"
            )
    return found


def slope_of(function: Callable[[Array, float], Array], x: Array, p: float) -> Array:
    """Return ∂F/∂p, by its function, at a place that needs no check."""
    found = function(x, p)
    if not _is_plain(found, x.shape):
        found = np.asarray(found, float)
        if found.shape != x.shape:
            raise ValueError(f"derivative: needs {x.size} numbers, got shape {found.shape}")
    return found


def _is_plain(found: object, shape: tuple[int, ...]) -> bool:
    """Tell whether what a function returned is an array of a shape as all of ours."""
    return type(found) is np.ndarray and found.dtype is FLOAT and found.shape == shape


def equation_of(residual: object) -> Residual:
    """Return an equation, made of a plain function if it is one."""
    if isinstance(residual, Residual):
        return residual
    if not callable(residual):
        raise TypeError(f"residual: needs a Residual or a function fun(x, p), got {residual!r}")
    return Residual(residual)


def _place(x: ArrayLike, p: float) -> tuple[Array, float]:
    """Return a state and a parameter; what engines give, who made them, is taken as it is."""
    usual = isinstance(x, np.ndarray) and x.dtype == np.float64 and x.ndim == 1 and x.size > 0
    if usual and isinstance(p, float) and math.isfinite(p) and np.isfinite(x).all():
        return np.asarray(x, float), p
    return check_array("x", x, ndim=1), check_number("p", p)


Residual.__init__ = known_options(Residual.__init__)  # type: ignore[method-assign]
