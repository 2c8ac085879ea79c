"""What equations of equilibria share: compiled fields, generators, and what is observed."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from dlnds._kernels import jit
from dlnds.arrays import Array, Params
from dlnds.systems.linear import LinearNetwork
from dlnds.systems.network import LayeredSystem, WeightSystem
from dlnds.systems.product import ProductFlow
from dlnds.systems.protocol import SystemProtocol
from dlnds.theory import tolerances

Network = LinearNetwork | ProductFlow


def evaluations(
    system: SystemProtocol, params: Callable[[float], Params]
) -> tuple[Callable[[Array, float], Array], Callable[[Array, float], Array] | None]:
    """Return the field of a system and its Jacobian, if it has one, as functions of x and p."""
    field = jit.ready(system.field, jit.FIELD)

    def fun(x: Array, p: float) -> Array:
        state = np.array(x, dtype=float)
        out = np.empty_like(state)
        field(0.0, state, params(p), out)
        return out

    if system.jacobian is not None:
        whole = jit.ready(system.jacobian, jit.JACOBIAN)

        def jacobian(x: Array, p: float) -> Array:
            state = np.array(x, dtype=float)
            out = np.zeros((state.size, state.size))
            whole(0.0, state, params(p), out)
            return out

        return fun, jacobian
    if system.jvp is None:
        return fun, None
    along = jit.ready(system.jvp, jit.JVP)

    def columns(x: Array, p: float) -> Array:
        state, numbers = np.array(x, dtype=float), params(p)
        out = np.zeros((state.size, state.size))
        for direction, row in zip(np.eye(state.size), out, strict=True):
            along(0.0, state, direction, numbers, row)
        return out.T.copy()

    return fun, columns


def layered_in(system: WeightSystem | ProductFlow) -> WeightSystem:
    """Return the network of the layers that a state holds."""
    return system.factors if isinstance(system, ProductFlow) else system


def tangents_of(net: WeightSystem | ProductFlow) -> Callable[[bool], Callable[[Array], Array]]:
    """Return what gives generators as a function of x, of all symmetries or of the flow's own."""
    return functools.cache(layered_in(net)._tangents)


def fitting_size(target: Array, root: Array | None) -> float:
    """Return how large maps W are for which W K is as large as the target."""
    inputs = 1.0 if root is None else float(np.linalg.norm(root, 2))
    return float(np.linalg.norm(target, 2)) / (inputs or 1.0)


def observed(net: LayeredSystem, x: Array, loss: Any, size: float) -> dict[str, Any]:
    """Return the numbers that a branch records of a state, or of each of a stack."""
    values = np.linalg.svd(net._product(x), compute_uv=False)
    least = tolerances.RANK * np.maximum(size, values[..., :1])
    return {
        "loss": 1.0 * loss,
        "rank": 1.0 * np.count_nonzero(values > least, axis=-1),
        "imbalance": net._imbalance(x),
        "product_norm": np.linalg.norm(values, axis=-1),
    }
