"""The field and the Jacobian matrix of any system."""

import numpy as np

from dlnds._kernels import jit
from dlnds.arrays import Array
from dlnds.systems.protocol import SystemProtocol


def field_at(system: SystemProtocol, t: float, x: Array) -> Array:
    """Return the field at a state."""
    out = np.empty(system.dim)
    jit.ready(system.field, jit.FIELD)(t, x, system.params, out)
    return out


def dense_jacobian(system: SystemProtocol, t: float, x: Array) -> tuple[Array, float]:
    """Return the Jacobian matrix and the relative accuracy of its eigenvalues."""
    epsilon = float(np.finfo(float).eps)
    out = np.zeros((system.dim, system.dim))
    if system.jacobian is not None:
        jit.ready(system.jacobian, jit.JACOBIAN)(t, x, system.params, out)
        accuracy = 8.0 * system.dim * epsilon
    else:
        field = jit.ready(system.field, jit.FIELD)
        step = epsilon ** (1.0 / 3.0) * max(1.0, float(np.abs(x).max()))
        ends = np.empty((2, system.dim))
        for j in range(system.dim):
            for end, sign in zip(ends, (1.0, -1.0), strict=True):
                shifted = x.copy()
                shifted[j] += sign * step
                field(t, shifted, system.params, end)
            out[:, j] = (ends[0] - ends[1]) / (2.0 * step)
        accuracy = epsilon ** (2.0 / 3.0)
    if not np.isfinite(out).all():
        raise ValueError("x: the Jacobian at this state is not finite")
    return out, accuracy
