"""A flow, or the flow against time, with the length of its path as one more component."""

import functools
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from dlnds._kernels import jit
from dlnds.arrays import Array, Kernel, Params
from dlnds.systems.protocol import Numerics, SystemProtocol


@dataclass(frozen=True, eq=False)
class PathFlow(SystemProtocol):
    """ẋ = ± f(x), ṡ = |f(x)|: states (…, s), judged as those of the system are.

    For systems that do not depend on time.
    """

    system: SystemProtocol
    backward: bool = False

    @property
    def dim(self) -> int:  # type: ignore[override]
        """One more than the system has."""
        return self.system.dim + 1

    @property
    def params(self) -> Params:  # type: ignore[override]
        """Those of the system."""
        return self.system.params

    @property
    def field(self) -> Kernel:  # type: ignore[override]
        """The field and its norm."""
        return _field(jit.ready(self.system.field, jit.FIELD), self._sign)

    @property
    def jacobian(self) -> Kernel | None:  # type: ignore[override]
        """The Jacobian and the derivative of the norm, if the system has one."""
        system = self.system
        if system.jacobian is None:
            return None
        field = jit.ready(system.field, jit.FIELD)
        return _jacobian(field, jit.ready(system.jacobian, jit.JACOBIAN), self._sign)

    @property
    def numerics(self) -> Numerics:
        """How to integrate it: the length as accurately as the largest component."""
        numerics = self.system.numerics
        scale = _scale(jit.ready(numerics.error_scale, jit.FIELD))
        return Numerics(error_scale=scale, field_cost=numerics.field_cost)

    @property
    def _sign(self) -> float:
        return -1.0 if self.backward else 1.0


@functools.lru_cache(maxsize=64)
def _field(inner: Any, sign: float) -> Kernel:
    def field(t: float, x: Array, params: Params, out: Array) -> None:
        n, total = x.size - 1, 0.0
        inner(t, x[:n], params, out[:n])
        for i in range(n):
            total += out[i] * out[i]
            out[i] *= sign
        out[n] = np.sqrt(total)

    compiled: Any = numba.njit(error_model="numpy")(field)
    return compiled  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=64)
def _jacobian(field: Any, inner: Any, sign: float) -> Kernel:
    def jacobian(t: float, x: Array, params: Params, out: Array) -> None:
        n = x.size - 1
        force, matrix = np.zeros(n), np.zeros((n, n))
        field(t, x[:n], params, force)
        inner(t, x[:n], params, matrix)
        size = np.sqrt(np.sum(force * force))
        out[:] = 0.0
        for i in range(n):
            for j in range(n):
                out[i, j] = sign * matrix[i, j]
                if size > 0.0:
                    out[n, j] += force[i] * matrix[i, j] / size

    compiled: Any = numba.njit(error_model="numpy")(jacobian)
    return compiled  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=64)
def _scale(inner: Any) -> Kernel:
    def scale(t: float, x: Array, params: Params, out: Array) -> None:
        n = x.size - 1
        inner(t, x[:n], params, out[:n])
        out[n] = np.max(out[:n])

    compiled: Any = numba.njit(error_model="numpy")(scale)
    return compiled  # type: ignore[no-any-return]
