"""What an engine may ask of a system: at most thirteen things; and systems made of functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numba
import numpy as np
import scipy  # loads its modules when they are used
import xarray as xr
from numpy.typing import ArrayLike

from dlnds._kernels import jit, runge_kutta
from dlnds.arrays import Array, Integers, Kernel, Params
from dlnds.errors import (
    check_array,
    check_choice,
    check_integer,
    check_integers,
    check_memory,
    known_options,
    nearest,
)
from dlnds.systems.cycles import cycle
from dlnds.theory import forms, tolerances
from dlnds.theory.forms import LeadingPart
from dlnds.theory.orbits import Modes
from dlnds.theory.saddles import Strict
from dlnds.theory.spectra import KnownSpectrum


class SystemProtocol:
    """The thirteen questions that engines ask, with the answers of a system that knows no better.

    ====================================  ==========================================================
    ``dim``, ``params``, ``field``        required: the number of components; an int64 and a float64
                                          vector; and a kernel ``field(t, x, params, out)``
    ``jvp``, ``jacobian``                 kernels ``jvp(t, x, v, params, out)`` and ``jacobian(t, x,
                                          params, out)`` of the derivative of the field, or None
    ``kind``                              ``"flow"``, ``"gradient"``: minus a gradient in some
                                          metric, so that where it vanishes a run is over, ``"map"``
    ``coordinates``, ``observables``,     labels of the state, what a run can record, and what the
    ``attributes``                        attributes of a Dataset say of the system
    ``numerics``                          how to integrate it, see `Numerics`
    ``limit``                             whether a run is over, see `Limit`
    ``theory``                            what is known at a state without search, see `Theory`
    ``varied``                            the equation of its equilibria, or of the points of a
                                          period, as something is varied
    ====================================  ==========================================================

    Kernels are compiled functions.
    """

    dim: int
    params: Params
    field: Kernel
    jvp: Kernel | None = None
    jacobian: Kernel | None = None
    kind: str = "flow"
    #: Observables that every run records.
    always: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: all but what was derived from the rest, and kept."""
        own = type(self)
        return {
            name: value
            for name, value in self.__dict__.items()
            if not isinstance(getattr(own, name, None), cached_property)
        }

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates that label the dim ``parameter``."""
        return {"parameter": np.arange(self.dim)}

    def observables(
        self, states: Array, names: Iterable[str] | None = None, start: Array | None = None
    ) -> dict[str, xr.Variable]:
        """Return what a run records at its states (time, parameter), by name.

        Without names those that every run records. ``start`` is the first state of the run, or
        those (time, parameter) of as many runs, if that is not the first row.

        Raises
        ------
        ValueError
            If the system has no observable of that name.
        """
        known = self._observables(states[:1] if start is None else start)
        names = self.always if names is None else tuple(names)
        for name in names:
            if name not in known:
                raise ValueError(f"save: there is no {name!r}{nearest(name, known)}")
        return {name: known[name](states) for name in names}

    def _observables(self, start: Array) -> Mapping[str, Callable[[Array], xr.Variable]]:
        return {"state": lambda states: xr.Variable(("time", "parameter"), states)}

    def _states(self, x: ArrayLike) -> Array:
        return check_array("x", x, ndim=(1, 2, 3), shape=(self.dim,))

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the system."""
        return {"system": type(self).__name__}

    @property
    def numerics(self) -> Numerics:
        """How to integrate the system."""
        return Numerics()

    def limit(self, x: Array, force: float = math.inf, rtol: float = 0.0) -> Limit:
        """Return whether a run that is at ``x`` is over, with what ``force`` is the largest of.

        ``rtol`` is the accuracy of the run.
        """
        return ended(False, force if self.kind == "gradient" else math.inf, "critical_point")

    def theory(self, x: Array) -> Theory:
        """Return what is known at a state."""
        return Theory(generators=lambda: np.zeros((0, self.dim)))

    def varied(self, name: str | int, **options: Any) -> dict[str, Any]:
        """Return the equation F(x, p) = 0 of the equilibria as something is varied.

        That is the arguments of a `Residual`; `equilibria` says what names and options mean. Maps
        have one more of them, ``period``.
        """
        raise TypeError(f"system: needs a network or a System, got {type(self).__name__}")


class Numerics(NamedTuple):
    """How to integrate a system."""

    #: What a local error is judged against, for each component: a kernel like the field.
    error_scale: Kernel = runge_kutta.error_scale
    #: Whether components of one state are compared in terms of that.
    weighted: bool = False
    #: Moves a state back to where its invariants are those of a reference: a kernel.
    restore: Kernel = runge_kutta.keep
    #: Tells, of the same arguments, that ``restore`` would find nothing to do; false if that is not
    #: known sooner than by asking it.
    holds: Kernel = runge_kutta.keep
    #: The reference that ``restore`` keeps a run from a state to, or those of a stack of states.
    invariants: Callable[[Array], Array] = lambda states: np.zeros((*states.shape[:-1], 0))
    #: Nanoseconds that an evaluation of the field takes, roughly: whether implicit steps pay.
    field_cost: float = 1e3
    #: An explicit step that is faster than that for any field, with its arguments and results, if
    #: there is one: a kernel.
    own_step: Kernel | None = None
    #: The Jacobian times many vectors, one a column, which returns its trace: a kernel
    #: ``tangent(t, x, vectors, params, out)``, if it is known.
    tangent: Kernel | None = None
    #: Whether the field is minus a gradient as numbers are compared: the Jacobian is minus a
    #: Hessian.
    symmetric: bool = False
    #: α and β of the map x → α x + β f(x), if the system can be iterated.
    update: tuple[float, float] | None = None
    #: Whether what is computed from a state of finite numbers may overflow.
    too_large: Callable[[Array], bool] = lambda x: _overflows(x)
    #: A smaller system that flows from a state in the same way, or None if there is none.
    reduce: Callable[[Array], Reduction | None] = lambda x: None
    #: The system in orthogonal coordinates that suit a state, or each of a stack, or None if its
    #: own do; asked again as the state grows. None if no others ever do.
    working_basis: Callable[[Array], Reduction | None] | None = None
    #: The same for a single state, also where it would be too dear along a run.
    aligned: Callable[[Array], Reduction | None] = lambda x: None
    #: The system without what has come to rest at a state to an accuracy ``rtol``, or None if
    #: nothing has.
    deflate: Callable[[Array, float], Reduction | None] = lambda x, rtol: None
    #: The system with a field that is compiled for it alone, where that pays after some tens of
    #: thousands of steps.
    straight: Callable[[], SystemProtocol | None] = lambda: None
    #: Observables that a working basis leaves as they are.
    unaffected: frozenset[str] = frozenset()


class Limit(NamedTuple):
    """What a run has come to.

    ``decision`` is one of `schema.LIMIT_DECISIONS`, ``"none"`` if it is not over; ``kind`` one of
    `schema.LIMIT_KINDS`, ``"none"`` if it is not over, or on its way to infinity. ``name`` returns
    the name of the critical value that is nearest, over or not: runs under way do not need it.
    """

    kind: str = "none"
    decision: str = "none"
    name: Callable[[], str] = str

    @property
    def label(self) -> str:
        """The name of the critical value that is nearest, "" if it has none."""
        return self.name()


def ended(settled: bool, force: float, other: str, name: Callable[[], str] = str) -> Limit:
    """Return the limit of a run that has settled in a global minimum, or feels no force.

    ``other`` is what the critical points but the global minima are, ``"none"`` if the state is near
    none.
    """
    if settled:
        return Limit("global_minimum", "small_residual", name)
    if force < tolerances.NO_FORCE:
        return Limit(other, "no_force", name)
    return Limit(name=name)


class Theory(NamedTuple):
    """What is known of a system at a state: functions, since some take their time."""

    #: Tangent vectors (generator, parameter) that span the symmetry orbit's.
    generators: Callable[[], Array]
    #: Eigenvalues of the Hessian (of the Jacobian if the field is no gradient), known without it.
    spectrum: Callable[[], KnownSpectrum | None] = lambda: None
    #: Dimensions of the symmetry orbit and of the set of critical points, which holds the orbit,
    #: and whether the second is exact, and not a lower bound.
    dimensions: Callable[[], tuple[int, int, bool] | None] = lambda: None
    #: Index and nullity of the Hessian at a critical point, and whether they are clear.
    inertia: Callable[[], tuple[int, int, bool] | None] = lambda: None
    #: States (state, parameter) whose derivatives are sums of terms as large as those at this one,
    #: of which less cancels.
    alike: Callable[[], Array] = lambda: np.zeros((0, 0))
    #: The forms that −L is to leading order in weights that vanish; none if no weight vanishes, or
    #: they are not known.
    leading_parts: Callable[[], list[LeadingPart]] = list
    #: Eigenvectors of negative eigenvalues of the Hessian, by the modes that are gained and lost.
    strict: Callable[[], Strict | None] = lambda: None
    #: Eigenvectors of the Hessian from factors of it, whose small eigenvalues are no rounding.
    hessian_modes: Callable[[], Modes | None] = lambda: None
    #: The least and the largest order at which the loss can fall at a critical point, zeros at a
    #: global minimum, if they are known without derivatives.
    descent: Callable[[], tuple[int, float] | None] = lambda: None
    #: Whether a state is near a minimum, where all minima are known; None where they are not.
    is_minimum: Callable[[], bool | None] = lambda: None
    #: Whether no minimum is near, or may not be, since the loss falls along a ray for ever.
    recedes: Callable[[], bool] = lambda: False
    #: A flow with the same minima that is minus a gradient as numbers are compared, and its state,
    #: where the system itself is none.
    likeness: Callable[[], tuple[SystemProtocol, Array] | None] = lambda: None
    #: How large second derivatives can be at such a state, even if they cancel; None if not known.
    hessian_size: Callable[[], float | None] = lambda: None
    #: Taylor coefficients of the field along a curve of such coefficients, up to an order.
    field_terms: Callable[[Array, int], Array] | None = None


class Reduction(NamedTuple):
    """A system that flows in the same way, its state, and the ways back for stacks of states.

    ``lift`` gives the states (time, parameter) of the first system; ``embed`` gives them up to a
    symmetry, which spares small weights the rounding of large ones. For a stack (run, parameter) of
    states, both take as many stacks (run, time, parameter).
    """

    system: SystemProtocol
    state: Array
    lift: Callable[[Array], Array]
    embed: Callable[[Array], Array]


def unchanged(states: Array) -> Array:
    """Return what is given: the way back where nothing was changed."""
    return states


def _overflows(x: Array) -> bool:
    """Tell whether the square of a state overflows."""
    with np.errstate(over="ignore"):
        return not np.isfinite(x @ x)


def words_of(system: object) -> str:
    """Return what was given for a system, in a message: of a map, that its flow may be meant."""
    flow = getattr(system, "system", None)
    also = f", whose flow is its .system, a {type(flow).__name__}"
    return type(system).__name__ + (also if isinstance(flow, SystemProtocol) else "")


def check_state(name: str, system: SystemProtocol, x: ArrayLike) -> Array:
    """Return a state (parameter) of a system at which nothing overflows."""
    state = check_array(name, x, ndim=1, shape=(system.dim,))
    check_sizes(name, system, state)
    return state


def check_sizes(name: str, system: SystemProtocol, state: Array) -> None:
    """Refuse a state, checked as an array, at which something overflows."""
    if system.numerics.too_large(state):
        raise ValueError(f"{name}: overflows, has entries up to {np.abs(state).max():.3g}")


def check_flow(system: object, name: str = "system") -> None:
    """Refuse what does not flow in continuous time."""
    check_system(system, name)
    if isinstance(system, SystemProtocol) and system.kind == "map":
        raise TypeError(f"{name}: needs a flow, got the map {type(system).__name__}; use iterate")


def check_system(system: object, name: str = "system") -> None:
    """Refuse what no engine can ask."""
    if not isinstance(system, SystemProtocol):
        raise TypeError(
            f"{name}: needs a system such as LinearNetwork, got {type(system).__name__}"
        )


def field_of(system: SystemProtocol, t: float) -> Callable[[Array], Array]:
    """Return the field as a function of the state, which returns it."""
    field, params = jit.ready(system.field, jit.FIELD), system.params

    def value(x: Array) -> Array:
        out = np.empty(system.dim)
        field(t, x, params, out)
        return out

    return value


def products_at(system: SystemProtocol, t: float, x: Array) -> Callable[[Array], Array]:
    """Return what multiplies by the Jacobian at a state, of a system that has a ``jvp``."""
    assert system.jvp is not None
    jvp, params = jit.ready(system.jvp, jit.JVP), system.params

    def product(v: Array) -> Array:
        out = np.empty(system.dim)
        jvp(t, x, v, params, out)
        return out

    return product


def dense_jacobian(system: SystemProtocol, t: float, x: Array) -> tuple[Array, float]:
    """Return the Jacobian matrix and the relative accuracy of its eigenvalues."""
    if system.jacobian is not None:
        out, accuracy = np.zeros((system.dim, system.dim)), tolerances.rounding(system.dim)
        jit.ready(system.jacobian, jit.JACOBIAN)(t, x, system.params, out)
    else:
        out, accuracy = forms.derivative(field_of(system, t), x), forms.DIFFERENCED
    if not np.isfinite(out).all():
        raise ValueError("x: the Jacobian at this state is not finite")
    return out, accuracy


def terms_at(system: SystemProtocol, t: float, x: Array) -> Array:
    """Return how large the terms are that the entries of the Jacobian at a state are sums of.

    Rounding is relative to these, and not to what is left where they cancel.
    """
    own, others = dense_jacobian(system, t, x)[0] ** 2, system.theory(x).alike()
    total = np.zeros_like(own)
    for state in others:
        total += dense_jacobian(system, t, state)[0] ** 2
    sizes: Array = np.sqrt(np.maximum(own, total / max(len(others), 1)))
    return sizes


def evaluations(
    system: SystemProtocol, params: Callable[[float], Params]
) -> tuple[Callable[[Array, float], Array], Callable[[Array, float], Array] | None]:
    """Return the field of a system and its Jacobian, if it has one, as functions of x and p."""
    field, n = jit.ready(system.field, jit.FIELD), system.dim

    def fun(x: Array, p: float) -> Array:
        out = np.empty(n)
        field(0.0, np.array(x, dtype=float), params(p), out)
        return out

    whole = system.jacobian and jit.ready(system.jacobian, jit.JACOBIAN)
    along = None if whole else system.jvp and jit.ready(system.jvp, jit.JVP)

    def jacobian(x: Array, p: float) -> Array:
        check_memory("x", n * n)
        state, numbers, out = np.array(x, dtype=float), params(p), np.zeros((n, n))
        if whole:
            whole(0.0, state, numbers, out)
            return out
        for direction, row in zip(np.eye(n), out, strict=True):
            along(0.0, state, direction, numbers, row)  # type: ignore[misc]
        return out.T.copy()

    return fun, jacobian if whole or along else None


def varying(params: Params, place: int) -> Callable[[float], Params]:
    """Return parameters as a function of the number at one place."""
    sizes, given = params

    def moved(p: float) -> Params:
        numbers = given.copy()
        numbers[place] = p
        return sizes, numbers

    return moved


@dataclass(frozen=True, eq=False, repr=False)
class System(SystemProtocol):
    """A dynamical system ẋ = f(t, x), or a map x → f(t, x), of functions that Numba can compile.

    Parameters
    ----------
    field
        ``field(t, x, params, out)`` writes f into ``out``. ``params`` is a pair of an int64 and a
        float64 vector; the second holds ``parameters``. Plain or jitted functions are taken.
    jvp
        ``jvp(t, x, v, params, out)`` writes the derivative of the field along ``v``.
    jacobian
        ``jacobian(t, x, params, out)`` writes the matrix ∂f_i/∂x_j.
    dim
        Number of components of the state.
    parameters
        Numbers that the functions find in ``params[1]``: a sequence, or a mapping from names to
        numbers, in its order. Datasets say named ones in attributes, ``parameter_`` and the name
        (a branch, which has a ``parameter_scale`` itself, that of "scale" as
        ``equation_parameter_scale``).
    energy
        Python function of a state that a run records as its ``loss``.
    names
        Names of the components; they label the dim ``parameter``.
    scales
        What the error of each component is judged by, along a run. ``"components"``: its own size,
        but at least a thousandth of the largest component of those that it is driven by and
        drives, directly or not; a component is driven if it does not stay zero where it is zero.
        ``"state"``: the root mean square of the state. Or for each component the number of a group
        of units alike: the largest component of its group.
    kind
        ``"flow"``, or ``"map"`` for what functions of flows refuse. `iterate` and
        `lyapunov_spectrum` take the field of any System as a map if they are asked for that.

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
    >>> system = dl.System(decay, dim=1, parameters={"rate": 2.0})
    >>> run = dl.flow(system, [1.0], t_span=(0, 1), t_eval=[0, 1])
    >>> round(float(run.state[-1, 0]), 6)
    0.135335
    """

    field: Kernel
    jvp: Kernel | None = None
    jacobian: Kernel | None = None
    _: KW_ONLY
    dim: int
    parameters: Sequence[float] | Mapping[str, float] = ()
    energy: Callable[[Array], float] | None = None
    names: Sequence[str] | None = None
    scales: str | Sequence[int] = "components"
    kind: str = "flow"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "dim", check_integer("dim", self.dim, minimum=1))
        check_memory("dim", 2 * self.dim + (0 if self.jacobian is None else self.dim**2))
        put(self, "parameters", _numbers(self.parameters))
        self._check_words()
        for name, (signature, arguments) in _KERNELS.items():
            if name == "field" or getattr(self, name) is not None:
                put(self, name, self._compiled(name, signature, arguments))
        if not isinstance(self.scales, str):
            put(self, "scales", _groups(self.scales, self.dim))

    def _check_words(self) -> None:
        """Refuse a kind, an energy and names that are none."""
        check_choice("kind", self.kind, ("flow", "map"))
        if isinstance(self.scales, str):
            check_choice("scales", self.scales, ("components", "state"))
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
        return self._integers, self._floats

    @property
    def _floats(self) -> Array:
        given = self.parameters
        return np.array([*(given.values() if isinstance(given, Mapping) else given)], dtype=float)

    @cached_property
    def _integers(self) -> Integers:
        """The groups of components, as `runge_kutta.grouped_scale` reads them."""
        if isinstance(self.scales, str):
            if self.scales == "state" or self.kind == "map":
                return np.zeros(0, np.int64)
            return np.append(0, _driven_together(self.field, self.dim, self._floats))
        return np.append(1, np.array(self.scales, np.int64))

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the system: its named parameters, too."""
        named = self.parameters if isinstance(self.parameters, Mapping) else {}
        return super().attributes() | {f"parameter_{word}": p for word, p in named.items()}

    @property
    def numerics(self) -> Numerics:
        """How to integrate it; taken as a map, the system is x → f(x)."""
        if not self._integers.size:
            return Numerics(update=(0.0, 1.0))
        return Numerics(error_scale=runge_kutta.grouped_scale, weighted=True, update=(0.0, 1.0))

    @property
    def always(self) -> tuple[str, ...]:  # type: ignore[override]
        """``loss``, if the system has an energy."""
        return () if self.energy is None else ("loss",)

    def _observables(self, start: Array) -> Mapping[str, Callable[[Array], xr.Variable]]:
        known = dict(super()._observables(start))
        energy = self.energy
        if energy is not None:
            known["loss"] = lambda states: xr.Variable("time", [float(energy(x)) for x in states])
        return known

    def varied(self, name: str | int, period: int = 1, **options: Any) -> dict[str, Any]:
        """Return the equation of the equilibria as one of the numbers in ``parameters`` varies.

        Those of a map are its points of a period.
        """
        place, word = self._place(name)
        (fun, jacobian), energy = evaluations(self, varying(self.params, place)), self.energy
        about = self.attributes()
        named = about.pop(f"parameter_{word}", None) is not None
        about["vary"] = word if named else place
        parts: dict[str, Any] = {"fun": fun, "jacobian": jacobian}
        if self.kind == "map":
            parts, about["period"] = cycle(fun, jacobian, None, period), period
        if energy is not None:
            parts["observe"] = lambda x, p: {"loss": float(energy(x))}
        return {**parts, "parameter": word, "attributes": about}

    def _place(self, name: str | int) -> tuple[int, str]:
        """Return where a parameter stands, and its name."""
        count, named = len(self.parameters), isinstance(self.parameters, Mapping)
        words = [*self.parameters] if named else [f"parameter_{i}" for i in range(count)]
        if isinstance(name, str) and named:
            return words.index(check_choice("vary", name, words)), name
        if isinstance(name, str):
            raise TypeError(
                "vary: needs the place of a number in parameters, an integer, since these have no "
                f"names (a mapping gives them names), got {name!r}"
            )
        place = check_integer("vary", name, minimum=0)
        if not count:
            raise ValueError("vary: needs a system with parameters, got one without")
        return check_integer("vary", place, minimum=0, maximum=count - 1), words[place]

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates that label the dim ``parameter``."""
        if self.names is None:
            return super().coordinates()
        return {"parameter": list(self.names)}

    def __repr__(self) -> str:
        """Name the field and the size."""
        name = getattr(self.field, "__name__", "field")
        return f"System({name}, dim={self.dim}, parameters={self.parameters})"

    def _compiled(self, name: str, signature: Any, arguments: str) -> Kernel:
        """Try a function out as plain Python, where indices are checked, and compile it."""
        function: Any = getattr(self, name)
        if not callable(function):
            raise TypeError(f"{name}: needs a function, got {function!r}")
        plain = getattr(function, "py_func", function)
        vectors = [np.ones(self.dim) for _ in range(arguments.count(",") - 2)]
        out = np.ones((self.dim,) * (2 if name == "jacobian" else 1))
        try:
            with np.errstate(all="ignore"):
                result = plain(0.0, *vectors, (np.zeros(0, np.int64), self._floats), out)
        except (IndexError, TypeError, ValueError) as error:
            raise TypeError(
                f"{name}: fails with dim={self.dim} and {len(self.parameters)} parameters as "
                f"{name}({arguments}): {error}"
            ) from error
        except ArithmeticError:
            result = None  # of this trial state only
        if result is not None:
            raise TypeError(f"{name}: needs to write into its argument out, and to return nothing")
        try:
            return jit.of_text(plain, signature)  # type: ignore[no-any-return]
        except (numba.core.errors.NumbaError, TypeError) as error:
            raise TypeError(f"{name}: cannot be compiled by Numba: {error}") from error


def _numbers(values: Any) -> tuple[float, ...] | dict[str, float]:
    """Return parameters, by name if they have names."""
    names = [*values] if isinstance(values, Mapping) else None
    for name in names or ():
        if not isinstance(name, str) or not name:
            raise TypeError(f"parameters: needs names that are texts, got {name!r}")
        if "\0" in name:
            raise ValueError(f'parameters: needs names without "\\0", got {name!r}')
    listed = values if names is None else [*values.values()]
    none = isinstance(listed, list | tuple) and not listed
    if not (none or (isinstance(listed, np.ndarray) and listed.shape == (0,))):
        listed = check_array("parameters", listed, ndim=1).tolist()
    return tuple(listed) if names is None else dict(zip(names, listed, strict=True))


def _groups(given: Any, dim: int) -> tuple[int, ...]:
    """Return for each component the number of its group, counted from 0."""
    numbers = check_integers("scales", given, minimum=0, ordered=True)
    if len(numbers) != dim:
        raise ValueError(f"scales: needs one group for each of {dim} components, got {given!r}")
    return tuple(np.unique(numbers, return_inverse=True)[1].tolist())


def _driven_together(field: Kernel, dim: int, floats: Array) -> Integers:
    """Return for each component the number of its group, −1 if it drives itself alone.

    A component is driven if the field moves it where it is zero. Those belong together that depend
    on each other at some random states; too many to try all belong together.
    """
    if dim > _MOST_TRIED:
        return np.zeros(dim, np.int64)
    rng, params = np.random.default_rng(0), (np.zeros(0, np.int64), floats)
    driven, depends = np.zeros(dim, bool), np.zeros((dim, dim), bool)

    def value(t: float, x: Array, j: int, moved: float) -> Array:
        state, out = x.copy(), np.zeros(dim)
        state[j] = moved
        field(t, state, params, out)
        return out

    try:
        for size in (1.0, 1.0, 30.0):
            t, x, other = float(rng.uniform()), size * rng.normal(size=dim), rng.normal(size=dim)
            here = value(t, x, 0, x[0])
            for j in range(dim):
                driven[j] |= value(t, x, j, 0.0)[j] != 0.0
                depends[:, j] |= value(t, x, j, x[j] + size * other[j]) != here
    except Exception:  # whatever a field makes of states that it is not made for
        return np.zeros(dim, np.int64)
    joined = depends & np.outer(driven, driven)
    _, labels = scipy.sparse.csgraph.connected_components(joined | joined.T, directed=False)
    return np.where(driven, labels, -1).astype(np.int64)


#: Components up to which it is tried which of them drive which.
_MOST_TRIED = 64

_KERNELS = {
    "field": (jit.FIELD, "t, x, params, out"),
    "jvp": (jit.JVP, "t, x, v, params, out"),
    "jacobian": (jit.JACOBIAN, "t, x, params, out"),
}

System.__init__ = known_options(System.__init__)  # type: ignore[method-assign]
