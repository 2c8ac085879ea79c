"""Balanced factors W = A Bᵀ in coordinates that keep columns of any size apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from dlnds._kernels import graded as kernels
from dlnds._kernels import jit
from dlnds.arrays import Array, Integers, Kernel, Params
from dlnds.systems.network import LayeredSystem
from dlnds.systems.protocol import (
    Limit,
    Numerics,
    Reduction,
    SystemProtocol,
    Theory,
    field_of,
    unchanged,
)
from dlnds.theory.coordinates import layers_of

#: What moves columns that rest, in terms of what lets one fade; and ½ ln of the part of W, in terms
#: of all, below which that is nothing beside their rounding.
_STILL, _FADED = 1e-12, -20.0


@dataclass(frozen=True, eq=False, repr=False)
class GradedFlow(SystemProtocol):
    """The flow of balanced factors, whose state holds logarithms of the sizes of their columns.

    Parameters
    ----------
    flow
        The flow of the factors.
    network
        The factors as two layers of a network, with the same loss.
    depth
        h, the layers of which W is the product.

    Notes
    -----
    The state is (Bᵀ, A, l), of W = A e^{2l} Bᵀ; between steps columns are turned and l is changed
    so that A and B stay near orthonormal.
    """

    kind = "gradient"
    field = staticmethod(kernels.field)
    jvp = staticmethod(kernels.jvp)
    jacobian = staticmethod(kernels.jacobian)

    flow: SystemProtocol
    network: LayeredSystem
    depth: int

    @property
    def widths(self) -> tuple[int, ...]:
        """d_0, k and d_h."""
        return self.network.widths

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Numbers in the factors, and k."""
        return self.flow.dim + self.widths[1]

    @property
    def params(self) -> Params:  # type: ignore[override]
        """Those of the flow."""
        return self.flow.params

    @property
    def numerics(self) -> Numerics:
        """How to integrate it: errors are judged column by column."""
        cost = self.flow.numerics.field_cost
        return Numerics(
            error_scale=kernels.error_scale,
            restore=kernels.restore,
            field_cost=cost,
        )

    def limit(self, x: Array, force: float = math.inf, rtol: float = 0.0) -> Limit:
        """Return whether a run is over: as of the flow, by the force that the factors feel.

        What is small moves in terms of itself for ever.
        """
        state = self.factors(x)
        if force < math.inf:
            force = 0.0 if self._rests(x) else np.abs(field_of(self.flow, 0.0)(state)).max()
        return self.flow.limit(state, force, rtol)

    def _rests(self, x: Array) -> bool:
        """Tell whether nothing moves but one column that has faded, and fades for ever.

        It does for two layers and more; the flow of one ends where it loses a column. A W of full
        rank has one direction left beside the other columns. If these rest, it is the same for
        ever, and so is the residual in it, which is what lets the column fade.
        """
        inputs, k, outputs = self.widths
        logs, size = x[self.flow.dim :], self.network.fitting_size
        fitting = 0.5 * math.log(size) if size > 0.0 else -math.inf
        faded = np.flatnonzero(logs < max(logs.max(), fitting) + _FADED)
        if not (inputs == k == outputs and len(faded) == 1) or self.depth == 1:
            return False
        near, columns = np.maximum(logs, logs.max() - kernels.DEEPEST), self._columns
        own, sizes = columns == faded[0], np.exp(near)[columns]  # what fades does not underflow
        factors = x[: self.flow.dim]
        pulls = field_of(self.network, 0.0)(factors * sizes) / sizes
        fading = -float(factors[own] @ pulls[own])
        return fading > 0.0 and float(np.abs(pulls[~own]).max(initial=0.0)) <= _STILL * fading

    def theory(self, x: Array) -> Theory:
        """Return what is known at a state: the likeness of the flow."""
        known = self.flow.theory(self.factors(x))
        return Theory(generators=lambda: np.zeros((0, self.dim)), likeness=known.likeness)

    def _observables(self, start: Array) -> Mapping[str, Callable[[Array], xr.Variable]]:
        return {
            **super()._observables(start),
            "log_singular_value": lambda states: xr.Variable(
                ("time", "mode"), self.log_singular_values(states)
            ),
            "determinant_sign": lambda states: xr.Variable("time", self.determinant_signs(states)),
        }

    # The way there and back.

    def reduction(self, states: Array) -> Reduction:
        """Return these coordinates of states (…, parameter) of the flow, and the way back."""
        return Reduction(self, self.of_factors(states), self.factors, unchanged)

    def factors(self, states: Array) -> Array:
        """Return the factors A e^l and B e^l of states (…, parameter)."""
        size = self.flow.dim
        return states[..., :size] * np.exp(np.take(states[..., size:], self._columns, axis=-1))

    def of_factors(self, states: Array) -> Array:
        """Return the states of factors A and B, columns turned where they lean to one another."""
        first, last = layers_of(self.widths, states)
        largest = np.maximum(np.abs(first).max(axis=-1), np.abs(last).max(axis=-2))
        largest = np.where(largest > 0.0, largest, 1.0)
        scaled = states / np.take(largest, self._columns, axis=-1)  # then squares do not underflow
        first, last = layers_of(self.widths, scaled)
        size = np.sqrt(0.5 * (np.sum(first**2, axis=-1) + np.sum(last**2, axis=-2)))
        size = np.where(size > 0.0, size, 1.0)
        unit = np.take(size, self._columns, axis=-1)
        logs = np.log(largest) + np.log(size)
        found = np.concatenate([scaled / unit, logs], axis=-1)
        turn: Kernel = jit.ready(kernels.restore, jit.RESTORE)
        params, nothing = self.params, np.zeros(0)
        for place in np.ndindex(found.shape[:-1]):
            turn(found[place], params, nothing, 0.0, True)
        return found

    @property
    def _columns(self) -> Integers:
        """The column that each number of the factors belongs to."""
        inputs, k, outputs = self.widths
        return np.concatenate([np.repeat(np.arange(k), inputs), np.tile(np.arange(k), outputs)])

    def _canonical(self, states: Array) -> Array:
        out = np.empty(states.shape)
        turn: Kernel = jit.ready(kernels.canonical, jit.FIELD)
        params = self.params
        for place in np.ndindex(states.shape[:-1]):
            turn(0.0, states[place].copy(), params, out[place])
        return out

    def log_singular_values(self, states: Array) -> Array:
        """Return ln s of W, descending, −∞ beyond k, of states (…, parameter)."""
        inputs, k, outputs = self.widths
        beyond = np.full((*states.shape[:-1], min(inputs, outputs) - k), -np.inf)
        logs = 2.0 * self._canonical(states)[..., -k:]
        return np.concatenate([logs, beyond], axis=-1)

    def determinant_signs(self, states: Array) -> Array:
        """Return the sign of det W of states (…, parameter); 0 if the rank k is no full one."""
        inputs, k, outputs = self.widths
        if not inputs == k == outputs:
            return np.zeros(states.shape[:-1])
        first, last = layers_of(self.widths, self._canonical(states)[..., :-k])
        signs: Array = np.linalg.slogdet(first)[0] * np.linalg.slogdet(last)[0]
        return signs
