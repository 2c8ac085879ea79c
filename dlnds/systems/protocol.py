"""What an engine may ask of a system."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds._kernels import runge_kutta
from dlnds.arrays import Array, Kernel, Params
from dlnds.errors import check_array, nearest
from dlnds.theory.spectra import KnownSpectrum


class SystemProtocol:
    """Questions that engines ask of a system, with the answers of one that knows no better.

    A system has at least ``dim``, ``field`` and ``params``. Kernels are compiled functions:
    ``field(t, x, params, out)``, ``jvp(t, x, v, params, out)``, ``jacobian(t, x, params, out)``,
    ``tangent(t, x, vectors, params, out)`` (one vector a column) and
    ``error_scale(t, x, params, out)``, with ``params`` a pair of an int64 and a float64 vector.
    """

    #: The field is minus a gradient, so that its Jacobian is symmetric: minus a Hessian.
    gradient_flow: ClassVar[bool] = False
    #: Critical points that are not global minima are all saddles.
    only_saddles: bool = False
    #: Whether the field is minus a gradient in some metric: where it vanishes a run is over.
    descends: bool = False
    #: Observables that every run records.
    always_saved: ClassVar[tuple[str, ...]] = ()

    dim: int
    params: Params
    field: Kernel
    #: The directional derivative of the field, if it is known.
    jvp: Kernel | None = None
    #: The Jacobian matrix of the field, if it is known.
    jacobian: Kernel | None = None
    #: The Jacobian times many vectors at once, which returns its trace, if it is known.
    tangent: Kernel | None = None
    #: Whether the field is that of a flow, for the engines of continuous time.
    is_flow: ClassVar[bool] = True
    #: α and β of the map x → α x + β f(x), if the system is one for `iterate`.
    update: tuple[float, float] | None = None
    #: Nanoseconds that an evaluation of the field takes, roughly: whether implicit steps pay.
    field_cost: float = 1e3
    #: What a local error is judged against, for each component.
    error_scale: Kernel = staticmethod(runge_kutta.error_scale)
    #: Moves a state back to where its invariants are those of a reference, if that is known.
    restore: Kernel = staticmethod(runge_kutta.keep)
    #: Whether `working_basis` depends on the state, so that engines ask again as it grows.
    has_working_basis: ClassVar[bool] = False
    #: Observables that a working basis leaves as they are.
    unaffected: ClassVar[frozenset[str]] = frozenset()

    def observables(self, states: Array, names: Iterable[str]) -> dict[str, xr.Variable]:
        """Return what a run records at its states (time, parameter), by name.

        Raises
        ------
        ValueError
            If the system has no observable of that name.
        """
        known = self._observables()
        for name in names:
            if name not in known:
                raise ValueError(f"save: there is no {name!r}{nearest(name, known)}")
        return {name: known[name](states) for name in names}

    def _observables(self) -> Mapping[str, Callable[[Array], xr.Variable]]:
        return {"state": lambda states: xr.Variable(("time", "parameter"), states)}

    def is_too_large(self, x: Array) -> bool:
        """Tell whether what is computed from a state of finite numbers may overflow."""
        with np.errstate(over="ignore"):
            return not np.isfinite(x @ x)

    def reduce(self, x: Array) -> "Reduction":
        """Return a smaller system that flows from ``x`` in the same way; by default itself."""
        return Reduction(self, x, unchanged, unchanged)

    def working_basis(self, x: Array) -> "Reduction":
        """Return the system in orthogonal coordinates that suit the state; by default its own."""
        return Reduction(self, x, unchanged, unchanged)

    def deflate(self, x: Array, rtol: float) -> "Reduction | None":
        """Return the system without what has come to rest at ``x``, or None if nothing has."""
        return None

    def invariants(self, x: Array) -> Array:
        """Return the reference that `restore` keeps a run from ``x`` to."""
        return np.zeros(0)

    def identify(self, x: Array) -> str:
        """Return the label of the critical value that the state is nearest to, or ''."""
        return ""

    def settled(self, x: Array, rtol: float) -> bool:
        """Tell whether a run that is at ``x`` has reached its limit to the accuracy ``rtol``."""
        return False

    def known_spectrum(self, x: Array) -> KnownSpectrum | None:
        """Return the eigenvalues of the Hessian at ``x`` if they are known without it.

        Of the Jacobian, if the field is no gradient.
        """
        return None

    def generators(self, x: Array) -> Array:
        """Return tangent vectors (generator, parameter) that span the symmetry orbit's at ``x``."""
        return np.zeros((0, self.dim))

    def leading_parts(self, x: Array) -> "list[Any]":
        """Return the forms that −L is to leading order in weights that vanish at ``x``.

        Each is a `forms.LeadingPart`; none if no weight vanishes, or they are not known.
        """
        return []

    def orbit_dimensions(self, x: Array) -> tuple[int, int, bool] | None:
        """Return the dimensions of the symmetry orbit and of the set of critical points at ``x``.

        The second holds the orbit; the third entry tells whether it is exact, and not a lower
        bound. None if they are not known.
        """
        return None

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates that label the dim ``parameter``."""
        return {"parameter": np.arange(self.dim)}

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the system."""
        return {"system": type(self).__name__}


class Reduction(NamedTuple):
    """A system that flows in the same way, its state, and the ways back for stacks of states.

    ``lift`` gives the states (time, parameter) of the first system; ``embed`` gives them up to a
    symmetry, which spares small weights the rounding of large ones.
    """

    system: SystemProtocol
    state: Array
    lift: Callable[[Array], Array]
    embed: Callable[[Array], Array]


def unchanged(states: Array) -> Array:
    """Return what is given: the way back where nothing was changed."""
    return states


def check_state(name: str, system: SystemProtocol, x: ArrayLike) -> Array:
    """Return a state (parameter) of a system at which nothing overflows."""
    state = check_array(name, x, ndim=1, shape=(system.dim,))
    if system.is_too_large(state):
        raise ValueError(f"{name}: overflows, has entries up to {np.abs(state).max():.3g}")
    return state


def check_flow(system: object) -> None:
    """Refuse what does not flow in continuous time."""
    check_system(system)
    if isinstance(system, SystemProtocol) and not system.is_flow:
        raise TypeError(f"system: needs a flow, got the map {type(system).__name__}; use iterate")


def check_system(system: object) -> None:
    """Refuse what no engine can ask."""
    if not isinstance(system, SystemProtocol):
        raise TypeError(
            f"system: needs a system such as LinearNetwork, got {type(system).__name__}"
        )
