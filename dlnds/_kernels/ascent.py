"""Ascent of a homogeneous form on the unit sphere."""

import numpy as np
from numba import types

from dlnds._kernels.jit import FIELD, PARAMS, jit


@jit
def climb(gradient, params, degree, most, tolerance, u, force):
    """Move ``u`` on the unit sphere to where the form N of a gradient is largest, as seen from it.

    Steps of Barzilai and Borwein along the part of ∇N across u, shortened until N does not fall.
    ``force`` is left at that part. Return N (by Euler, ⟨∇N, u⟩ = degree · N), the size of the
    force in terms of ∇N, and the steps taken. Written without parts of its own, so that it runs as
    plain Python on forms that are not compiled.
    """
    other, next_force = np.empty_like(u), np.empty_like(u)
    gradient(0.0, u, params, force)
    value = np.dot(force, u) / degree
    whole = np.sqrt(np.dot(force, force))
    force -= degree * value * u
    size = np.sqrt(np.dot(force, force))
    step = 0.3 / max(size, 1e-300)
    steps = 0
    while steps < most and size > tolerance * whole and step * size > 1e-14:
        steps += 1
        other[:] = u + step * force
        other /= np.sqrt(np.dot(other, other))
        gradient(0.0, other, params, next_force)
        next_value = np.dot(next_force, other) / degree
        whole = np.sqrt(np.dot(next_force, next_force))
        if not next_value >= value - 1e-14 * abs(value):
            step *= 0.25
            continue
        next_force -= degree * next_value * other
        u -= other
        force -= next_force
        moved, turned = np.dot(u, u), abs(np.dot(u, force))
        u[:] = other
        force[:] = next_force
        value = next_value
        size = np.sqrt(np.dot(force, force))
        longest = 1.0 / max(size, 1e-300)
        step = min(moved / turned, longest) if turned > 0.0 else longest
    return value, size / max(whole, 1e-300), steps


CLIMB = types.Tuple((types.float64, types.float64, types.int64))(
    types.FunctionType(FIELD),
    PARAMS,
    types.float64,
    types.int64,
    types.float64,
    types.float64[::1],
    types.float64[::1],
)
