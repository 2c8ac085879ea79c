"""Second derivatives of the loss of any gradient flow: the Hessian, and its products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds.arrays import Array
from dlnds.errors import check_array, check_finite, check_memory, check_number, known_options
from dlnds.systems.protocol import (
    SystemProtocol,
    check_state,
    check_system,
    dense_jacobian,
    field_of,
    products_at,
)
from dlnds.theory import forms, tolerances
from dlnds.threads import threads_for

_WORDS = {"units": "1", "symbol": r"$\nabla^2 L$"}


@known_options
def hessian(system: SystemProtocol, x: ArrayLike, *, t: float = 0.0) -> xr.DataArray:
    """Return the Hessian ∇²L at a state of a gradient flow ẋ = −∇L, labelled.

    Parameters
    ----------
    system
        A gradient flow: a network, or a `System` whose Jacobian is symmetric at the state. Of
        `GradientDescent` that of its flow is taken.
    x
        State (parameter).
    t
        Time, for a system that depends on it.

    Returns
    -------
    xarray.DataArray
        Dims ``parameter`` and ``other``, both with the labels of the state: ``layer``, ``row`` and
        ``column`` of networks, and ``other_layer``, ``other_row``, ``other_column``. It is minus
        the Jacobian; where a `System` has none that is differenced, and accurate to about ten
        digits.

    Raises
    ------
    ValueError, TypeError
        If the state has the wrong shape or is not finite, the matrix does not fit into the memory,
        or the system is no gradient flow.

    Notes
    -----
    `linearize` gives its eigenvalues and eigenvectors, `hessian_product` multiplies by it without
    the matrix.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(1, 2, 1), target=[[2.0]])
    >>> H = dl.hessian(net, [1.0, 0.0, 1.0, 0.0])
    >>> H.where((H.layer == 1) & (H.other_layer == 2), drop=True).values.tolist()
    [[0.0, 0.0], [0.0, -1.0]]
    """
    state, t = _checked(system, x, t)
    check_memory("x", 3 * system.dim**2)
    with threads_for(system.numerics.field_cost):
        matrix, _ = dense_jacobian(system, t, state)
    if not system.numerics.symmetric:
        off = float(np.abs(matrix - matrix.T).max())
        _check_symmetric(system, t, state, off, float(np.abs(matrix).max()))
        matrix = 0.5 * (matrix + matrix.T)
    labels = system.coordinates()
    others = {
        "other" if name == "parameter" else f"other_{name}": _moved(label)
        for name, label in labels.items()
    }
    words = {"long_name": "Hessian of the loss", **_WORDS}
    dims = ("parameter", "other")
    return xr.DataArray(0.0 - matrix, {**labels, **others}, dims, "hessian", words)


@known_options
def hessian_product(
    system: SystemProtocol, x: ArrayLike, v: ArrayLike, *, t: float = 0.0
) -> xr.DataArray:
    """Return the Hessian at a state of a gradient flow times a direction, without the matrix.

    Parameters
    ----------
    system
        A gradient flow, as for `hessian`.
    x
        State (parameter).
    v
        Direction (parameter).
    t
        Time, for a system that depends on it.

    Returns
    -------
    xarray.DataArray
        ∇²L v, with the dim ``parameter`` and its labels: minus the derivative of the field along v,
        at the cost of a few evaluations of the field. Where a `System` gives none it is
        differenced.

    Raises
    ------
    ValueError, TypeError
        If the state or the direction has the wrong shape or is not finite, or the system is no
        gradient flow.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(1, 2, 1), target=[[2.0]])
    >>> dl.hessian_product(net, [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]).values.tolist()
    [0.0, 0.0, 0.0, -1.0]
    """
    state, t = _checked(system, x, t)
    direction = check_array("v", v, ndim=1, shape=(system.dim,))
    with threads_for(system.numerics.field_cost):
        times = _products(system, t, state)
        found = check_finite("x", 0.0 - times(direction))
        if not system.numerics.symmetric:  # vᵀJw = wᵀJv for all w, if it is for a random one
            probe = np.random.default_rng(0).normal(size=system.dim)
            image = times(probe)
            off = abs(float(probe @ found + direction @ image))
            size = float(np.linalg.norm(image) * np.linalg.norm(direction))
            _check_symmetric(system, t, state, off, size)
    words = {"long_name": "Hessian times a direction", "units": "1", "symbol": r"$\nabla^2 L\,v$"}
    return xr.DataArray(found, system.coordinates(), ("parameter",), "hessian_product", words)


def _checked(system: SystemProtocol, x: ArrayLike, t: float) -> tuple[Array, float]:
    """Return a state and a time of a system that may be a gradient flow, or a step along one."""
    check_system(system)
    numerics, name = system.numerics, type(system).__name__
    if system.kind == "map" and (numerics.update or (0.0,))[0] == 0.0:
        raise TypeError(f"system: needs a gradient flow, got the map {name}")
    if system.kind == "gradient" and not numerics.symmetric:
        raise TypeError(
            f"system: needs a gradient flow, got {name}, which is one in another metric; "
            "its hessian_modes are those of its own Hessian"
        )
    return check_state("x", system, x), check_number("t", t)


def _products(system: SystemProtocol, t: float, x: Array) -> Callable[[Array], Array]:
    """Return what multiplies by the Jacobian at a state."""
    if system.jvp is not None:
        return products_at(system, t, x)
    if system.jacobian is not None:
        check_memory("x", system.dim**2)
        matrix, _ = dense_jacobian(system, t, x)
        return lambda v: matrix @ v
    field, typical = field_of(system, t), max(1.0, float(np.abs(x).max()))

    def differenced(v: Array) -> Array:
        length = float(np.abs(v).max())
        if length == 0.0:
            return np.zeros_like(v)
        return length * forms.difference_within(lambda s: field(x + s * v / length), 0.0, typical)

    return differenced


def _check_symmetric(system: SystemProtocol, t: float, x: Array, off: float, size: float) -> None:
    """Refuse a Jacobian that is off a symmetric one by so much, in terms of its size.

    Differences are no more accurate than what they are taken of.
    """
    allowed = tolerances.SYMMETRIC * size
    if system.jacobian is None and system.jvp is None:
        force = float(np.abs(field_of(system, t)(x)).max())
        allowed = tolerances.NEARLY_SYMMETRIC * max(size, force)
    if off > allowed:
        raise TypeError(
            f"system: needs a gradient flow, got {type(system).__name__}, whose Jacobian at x is "
            f"not symmetric: it is off by {off / size:.2g} of its size"
        )


def _moved(label: Any) -> Any:
    """Return a coordinate of the dim ``parameter`` as one of ``other``."""
    return ("other", label[1]) if isinstance(label, tuple) else label
