"""A dynamical system made of functions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numba
import numpy as np
import xarray as xr

from dlnds._kernels import jit
from dlnds.arrays import Array, Kernel, Params
from dlnds.errors import check_array, check_integer, check_memory, known_options
from dlnds.systems.protocol import SystemProtocol


@dataclass(frozen=True, eq=False, repr=False)
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
        If a function reaches beyond ``dim`` or ``parameters``, returns something, or cannot be
        compiled.
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
    _: KW_ONLY
    dim: int
    parameters: Sequence[float] = ()
    energy: Callable[[Array], float] | None = None
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "dim", check_integer("dim", self.dim, minimum=1))
        check_memory("dim", 2 * self.dim + (0 if self.jacobian is None else self.dim**2))
        values = self.parameters
        none = isinstance(values, list | tuple) and not values
        if not (none or (isinstance(values, np.ndarray) and values.shape == (0,))):
            values = check_array("parameters", values, ndim=1).tolist()
        put(self, "parameters", tuple(values))
        self._check_words()
        vector, matrix = (self.dim,), (self.dim, self.dim)
        put(self, "field", self._compiled("field", jit.FIELD, vector, vector))
        if self.jvp is not None:
            put(self, "jvp", self._compiled("jvp", jit.JVP, vector, vector, vector))
        if self.jacobian is not None:
            put(self, "jacobian", self._compiled("jacobian", jit.JACOBIAN, vector, matrix))

    def _check_words(self) -> None:
        """Refuse an energy and names that are none."""
        if self.energy is not None and not callable(self.energy):
            raise TypeError(f"energy: needs a function, got {self.energy!r}")
        names = self.names
        if names is not None and not (
            np.iterable(names) and all(isinstance(n, str) for n in names)
        ):
            raise TypeError(f"names: needs a sequence of texts, got {names!r}")
        if names is not None and len(set(names)) != self.dim:
            raise ValueError(f"names: needs {self.dim} different names, got {self.names!r}")

    @property
    def params(self) -> Params:  # type: ignore[override]
        """The pair of parameter vectors that the functions receive."""
        return np.zeros(0, np.int64), np.array(self.parameters, dtype=float)

    @property
    def update(self) -> tuple[float, float]:  # type: ignore[override]
        """Taken as a map, the system is x → f(x)."""
        return 0.0, 1.0

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

    def __repr__(self) -> str:
        """Name the field and the size."""
        name = getattr(self.field, "__name__", "field")
        return f"System({name}, dim={self.dim}, parameters={self.parameters})"

    def _compiled(self, name: str, signature: Any, *shapes: tuple[int, ...]) -> Kernel:
        """Try a function out as plain Python, where indices are checked, and compile it."""
        function: Any = getattr(self, name)
        if not callable(function):
            raise TypeError(f"{name}: needs a function, got {function!r}")
        plain = getattr(function, "py_func", function)
        *states, out = (np.ones(shape) for shape in shapes)
        try:
            with np.errstate(all="ignore"):
                result = plain(0.0, *states, self.params, out)
        except (IndexError, TypeError, ValueError) as error:
            raise TypeError(
                f"{name}: fails with dim={self.dim} and {len(self.parameters)} parameters as "
                f"{name}({_ARGUMENTS[name]}): {error}"
            ) from error
        except ArithmeticError:
            result = None  # of this trial state only
        if result is not None:
            raise TypeError(f"{name}: needs to write into its argument out, and to return nothing")
        try:
            own = numba.njit(plain)  # leaves the user's function as it is
            return jit.ready(own, signature)  # type: ignore[no-any-return]
        except (numba.core.errors.NumbaError, TypeError) as error:
            raise TypeError(f"{name}: cannot be compiled by Numba: {error}") from error


_ARGUMENTS = {
    "field": "t, x, params, out",
    "jvp": "t, x, v, params, out",
    "jacobian": "t, x, params, out",
}

System.__init__ = known_options(System.__init__)  # type: ignore[method-assign]
