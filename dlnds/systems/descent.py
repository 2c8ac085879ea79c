"""Gradient descent: the map that an explicit Euler step makes of a flow."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from dlnds.arrays import Array
from dlnds.errors import check_number, known_options
from dlnds.systems.cycles import Of, cycle
from dlnds.systems.network import WeightSystem
from dlnds.systems.protocol import (
    Limit,
    Numerics,
    Reduction,
    SystemProtocol,
    Theory,
    check_flow,
    check_state,
    evaluations,
    products_at,
)
from dlnds.theory.spectra import lowest_eigenvalues, spectral_radius

#: The word for η, of what can be varied.
STEP = "step_size"
#: Functions of an equation that depend on what is varied.
_FUNCTIONS = ("fun", "jacobian", "generators", "observe", "label")
Parts = dict[str, Any]


def _of_flow(name: str, about: str) -> Any:
    """Return a property that is what the flow has under this name."""
    return property(operator.attrgetter(f"system.{name}"), doc=about)


def _times(rate: Callable[[float], float], function: Of | None) -> Of | None:
    """Return a function of x and p times a number that depends on p."""
    return None if function is None else lambda x, p: rate(p) * function(x, p)


@dataclass(frozen=True, eq=False)
class GradientDescent(SystemProtocol):
    """The map x → x + η f(x) of a system ẋ = f(x): gradient descent where f = −∇L.

    Parameters
    ----------
    system
        The flow.
    step_size
        η, positive.

    Raises
    ------
    ValueError, TypeError
        If the step size is not positive.

    Notes
    -----
    For a linear network one step changes the imbalance by exactly
    C_i⁺ − C_i = η² (F_i F_iᵀ − F_{i+1}ᵀ F_{i+1}), F = −∇L. A minimum is linearly stable if
    η λ_max < 2 with the largest eigenvalue of the Hessian there; see `stability_limit`. Beyond,
    steps may come to a cycle: `equilibria` with ``period=2`` makes its equation.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362), section 6

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> descent = dl.GradientDescent(net, step_size=0.1)
    >>> steps = dl.iterate(descent, net.initial(scale=0.1, rng=0), n_steps=300)
    >>> bool(steps.loss[-1] < 1e-10)
    True
    """

    kind = "map"

    system: SystemProtocol
    step_size: float

    dim = _of_flow("dim", "Number of components of the state.")
    params = _of_flow("params", "Those of the flow.")
    field = _of_flow("field", "That of the flow.")
    jvp = _of_flow("jvp", "That of the flow.")
    jacobian = _of_flow("jacobian", "That of the flow.")
    always = _of_flow("always", "What every run of the flow records.")

    def __post_init__(self) -> None:
        check_flow(self.system)
        size = check_number("step_size", self.step_size)
        if size <= 0.0:
            raise ValueError(f"step_size: needs a positive number, got {size}")
        object.__setattr__(self, "step_size", size)

    @property
    def numerics(self) -> Numerics:
        """As for the flow; the map is x → x + η f(x)."""
        flow = self.system.numerics
        return flow._replace(update=(1.0, self.step_size), aligned=self._aligned)

    def _aligned(self, x: Array) -> Reduction | None:
        """Return descent in orthogonal coordinates that suit a state."""
        found = self.system.numerics.aligned(x)
        return found and found._replace(system=replace(self, system=found.system))

    def observables(
        self, states: Array, names: Iterable[str] | None = None, start: Array | None = None
    ) -> dict[str, xr.Variable]:
        """Return what the flow records."""
        return self.system.observables(states, names, start)

    def limit(self, x: Array, force: float = math.inf, rtol: float = 0.0) -> Limit:
        """Return the label that the flow gives; a map goes on."""
        return Limit(name=self.system.limit(x).name)

    def theory(self, x: Array) -> Theory:
        """Return what is known of the flow."""
        return self.system.theory(x)

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates of the flow's states."""
        return self.system.coordinates()

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the flow, and the step size."""
        return {**self.system.attributes(), "step_size": self.step_size}

    def varied(self, name: str | int, period: int = 1, **options: Any) -> Parts:
        """Return the equation of the points of a period as η, or something of the flow, varies.

        The flow's equilibria are the fixed points, F = η f. Of the flow's symmetries cycles have
        only the isometries.
        """
        own = str(name) == STEP
        parts = self._unvaried() if own else self._of_the_flow(name, options)
        field, matrix = parts["fun"], parts["jacobian"]

        def rate(p: float) -> float:
            return p if own else self.step_size

        slope = field if own else _times(rate, parts.get("derivative"))
        change, turn = _times(rate, field), _times(rate, matrix)
        about = parts["attributes"] | ({} if own else {STEP: self.step_size}) | {"period": period}
        parts |= {"kind": "map", "attributes": about}
        if period == 1:
            return parts | {"fun": change, "jacobian": turn, "derivative": slope}
        lost = {"symmetric": False, "symmetric_at": (), "invariants": None, "label": None}
        parts |= {**lost, "generators": self._isometries()}
        return parts | cycle(
            lambda x, p: x + rate(p) * field(x, p),
            turn and (lambda x, p: np.eye(x.size) + rate(p) * matrix(x, p)),
            *(slope, period),
        )

    def _unvaried(self) -> Parts:
        """Return the equation of the flow's equilibria, which is the same for all p."""
        system, about = self.system, {**self.system.attributes(), "vary": STEP}
        decays = isinstance(system, WeightSystem) and system.is_decayed
        if system.kind == "gradient" and not decays:  # such have weight decay, here none

            def without(function: Any) -> Any:
                return function and (lambda x, p: function(x, 0.0 * p))

            parts = system.varied("weight_decay")
            same = {word: without(parts.get(word)) for word in _FUNCTIONS}
            kept = {word: parts[word] for word in ("symmetric", "vectorized")}
            return {**same, **kept, "parameter": STEP, "attributes": about}
        given = system.params
        fun, jacobian = evaluations(system, lambda p: given)
        parts = {"fun": fun, "jacobian": jacobian, "observe": self._numbers}
        if decays:
            parts |= {"symmetric": True, "generators": lambda x, p: system.theory(x).generators()}
        return {**parts, "parameter": STEP, "attributes": about}

    def _numbers(self, x: Array, p: float) -> dict[str, float]:
        """Return the numbers that every run records."""
        found = self.system.observables(x[None])
        return {name: float(v[0]) for name, v in found.items() if v.dims == ("time",)}

    def _of_the_flow(self, name: str | int, options: dict[str, Any]) -> Parts:
        """Return the equation of the flow's equilibria as something of the flow varies."""
        if str(name) == "imbalance":
            raise ValueError("vary: 'imbalance' is along critical points of a flow; give the flow")
        try:
            return self.system.varied(name, **options)
        except (TypeError, ValueError) as error:
            if not str(error).startswith("vary: "):
                raise
            raise type(error)(f"{error}; {STEP!r} varies η") from None

    def _isometries(self) -> Of | None:
        """Return the generators of the isometries among the symmetries of the flow."""
        if self.system.kind != "gradient":
            return None
        generators = self.system.varied("weight_decay")["generators"]
        return lambda x, p: generators(x, 1.0)  # decay has no other symmetries

    def stability_limit(self, x: Array) -> float:
        """Return 2/λ_max of the Hessian at ``x``: a larger step is unstable at that minimum.

        Raises
        ------
        ValueError
            If the flow is no gradient flow or has no directional derivative.

        Examples
        --------
        >>> import dlnds as dl
        >>> net = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]])
        >>> minimum = net.critical_state((0,))
        >>> round(dl.GradientDescent(net, step_size=0.1).stability_limit(minimum), 9)
        0.5
        """
        state = check_state("x", self, x)
        if not self.system.numerics.symmetric or self.system.jvp is None:
            raise ValueError("system: needs a gradient flow with a directional derivative")
        product = products_at(self.system, 0.0, state)
        size = spectral_radius(product, self.dim)
        largest = -float(lowest_eigenvalues(product, self.dim, size, count=1)[0])
        if not largest > 0.0:
            raise ValueError(
                f"x: needs a positive eigenvalue of the Hessian, got at most {largest:g}"
            )
        return 2.0 / largest


GradientDescent.__init__ = known_options(GradientDescent.__init__)  # type: ignore[method-assign]
