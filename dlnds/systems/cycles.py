"""Points to which a map comes back after some steps, as an equation."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dlnds.arrays import Array
from dlnds.theory import forms

#: A function of a state and of what is varied.
Of = Callable[[Array, float], Array]


def cycle(step: Of, matrix: Of | None, slope: Of | None, period: int) -> dict[str, Any]:
    """Return the equation F = f^k(x, p) − x = 0 of the points of period k of a map f.

    That is arguments of a `Residual`. ``matrix`` is ∂f/∂x and ``slope`` ∂f/∂p, if they are known:
    with M_i = ∂f/∂x at f^i(x), ∂F/∂x = M_{k−1} ⋯ M_0 − I, and ∂F/∂p is the last of
    b_{i+1} = M_i b_i + ∂f/∂p.
    """

    def orbit(x: Array, p: float) -> Iterator[Array]:
        yield x
        for _ in range(period - 1):
            x = step(x, p)
            yield x

    def fun(x: Array, p: float) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            *_, last = orbit(x, p)
            return step(last, p) - x

    def carried(x: Array, p: float, start: Array, change: Of) -> Array:
        """Return what Jacobians along the cycle make of ``start``, with changes on the way."""
        assert matrix is not None
        with np.errstate(over="ignore", invalid="ignore"):
            for y in orbit(x, p):
                start = matrix(y, p) @ start + change(y, p)
        return start

    def jacobian(x: Array, p: float) -> Array:
        unit = np.eye(x.size)
        return carried(x, p, unit, lambda y, p: np.zeros(1)) - unit

    def differenced(y: Array, p: float) -> Array:
        return forms.difference(lambda s: step(y, p + s), abs(p))

    known: Of = differenced if slope is None else slope
    return {
        "fun": fun,
        "jacobian": jacobian if matrix else None,
        "derivative": (lambda x, p: carried(x, p, np.zeros(x.size), known)) if matrix else None,
        "kind": "map",
    }
