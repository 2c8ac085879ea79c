"""A dynamical system made of functions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import xarray as xr

from dlnds._kernels import jit
from dlnds.errors import check_array, check_integer
from dlnds.systems.protocol import Array, Kernel, Params, SystemProtocol


@dataclass(frozen=True, eq=False)
class System(SystemProtocol):
    """A dynamical system ẋ = f(t, x) made of functions that Numba can compile.

    Parameters
    ----------
    field
        ``field(t, x, params, out)`` writes ẋ into ``out``. ``params`` is a pair of an int64 and a
        float64 vector; the second holds ``parameters``. Plain or jitted functions are taken.
    jvp
        ``jvp(t, x, v, params, out)`` writes the derivative of the field along ``v``.
    jacobian
        ``jacobian(t, x, params, out)`` writes the matrix ∂f_i/∂x_j.
    dim
        Number of components of the state.
    parameters
        Numbers that the functions find in ``params[1]``.
    energy
        Python function of a state that a run records as its ``loss``.
    names
        Names of the components; they label the dim ``parameter``.

    Raises
    ------
    TypeError
        If a function cannot be compiled for its signature.
    ValueError
        If ``dim`` is not positive, or ``names`` are not as many.

    Examples
    --------
    >>> import dlnds as dl
    >>> def decay(t, x, params, out):
    ...     out[0] = -params[1][0] * x[0]
    >>> system = dl.System(decay, dim=1, parameters=[2.0])
    >>> run = dl.flow(system, [1.0], t_span=(0, 1), t_eval=[0, 1])
    >>> round(float(run.state[-1, 0]), 6)
    0.135335
    """

    field: Kernel
    jvp: Kernel | None = None
    jacobian: Kernel | None = None
    dim: int = 1
    parameters: Sequence[float] = ()
    energy: Callable[[Array], float] | None = None
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "dim", check_integer("dim", self.dim, minimum=1))
        values = np.zeros(0)
        if len(np.atleast_1d(self.parameters)):
            values = check_array("parameters", self.parameters, ndim=1)
        put(self, "parameters", tuple(values.tolist()))
        put(self, "field", _compiled("field", self.field, jit.FIELD))
        if self.jvp is not None:
            put(self, "jvp", _compiled("jvp", self.jvp, jit.JVP))
        if self.jacobian is not None:
            put(self, "jacobian", _compiled("jacobian", self.jacobian, jit.JACOBIAN))
        if self.energy is not None and not callable(self.energy):
            raise TypeError(f"energy: needs a function, got {self.energy!r}")
        if self.names is not None and len(set(self.names)) != self.dim:
            raise ValueError(f"names: needs {self.dim} different names, got {self.names!r}")

    @property
    def params(self) -> Params:  # type: ignore[override]
        """The pair of parameter vectors that the functions receive."""
        return np.zeros(0, np.int64), np.array(self.parameters, dtype=float)

    @property
    def always_saved(self) -> tuple[str, ...]:  # type: ignore[override]
        """``loss``, if the system has an energy."""
        return () if self.energy is None else ("loss",)

    def _observables(self) -> Mapping[str, Callable[[Array], xr.Variable]]:
        known = dict(super()._observables())
        energy = self.energy
        if energy is not None:
            known["loss"] = lambda states: xr.Variable("time", [float(energy(x)) for x in states])
        return known

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates that label the dim ``parameter``."""
        if self.names is None:
            return super().coordinates()
        return {"parameter": list(self.names)}


def _compiled(name: str, function: Any, signature: Any) -> Kernel:
    if not callable(function):
        raise TypeError(f"{name}: needs a function, got {function!r}")
    own = numba.njit(getattr(function, "py_func", function))  # leaves the user's function as it is
    try:
        return jit.ready(own, signature)  # type: ignore[no-any-return]
    except (numba.core.errors.NumbaError, TypeError) as error:
        raise TypeError(f"{name}: cannot be compiled as {name}{signature.args}: {error}") from error
