"""What networks of layers share, whatever their loss: states, products, conservation, starts."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy  # loads its modules when they are used
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds._kernels import balance, decayed, jit, runge_kutta
from dlnds.arrays import Array, Flags, Integers, Kernel, Params
from dlnds.errors import (
    check_array,
    check_choice,
    check_finite,
    check_flag,
    check_generator,
    check_integers,
    check_memory,
    check_number,
    finite,
    known_options,
)
from dlnds.systems.protocol import (
    Numerics,
    Reduction,
    SystemProtocol,
    Theory,
    products_at,
    words_of,
)
from dlnds.systems.varied import observed, with_decay
from dlnds.theory import (
    decayed_rates,
    forms,
    moments,
    observables,
    rates,
    saddles,
    spectra,
    strings,
    symmetry,
    tangent_kernel,
    tolerances,
)
from dlnds.theory.coordinates import (
    Turning,
    adjacency,
    flat,
    layers_of,
    n_weights,
    product,
    span,
)

#: Size, in terms of the imbalance, of starts that count as zero in it.
_TINY = 1e-12
#: Powers of e below which nothing overflows.
_LARGEST_LOG = 700.0
#: Up to how many outputs, and from how many weights on, derivatives are kept as factors: steps are
#: 1.1 to 1.7 times as fast there, and no faster with 30,000 weights, 32 outputs, or layers
#: so narrow that there are fewer weights than so many times the numbers of a factor.
FEW_OUTPUTS, MANY_WEIGHTS, IN_FACTORS = 16, 60_000, 8
#: States from which the sizes of terms are told.
_N_ALIKE = 4


class WeightSystem(SystemProtocol):
    """Gradient flow of the weights W_1, …, W_h of a network of layers.

    A network adds its kernels, `params`, and what of unchecked states (…, parameter) are its loss
    and what it conserves: states of a diverged run are not finite.
    """

    kind = "gradient"

    widths: tuple[int, ...]
    weight_decay: float | tuple[float, ...]
    #: Kernels without weight decay.
    _field: Kernel
    _jvp: Kernel
    _jacobian: Kernel

    def _data_loss(self, states: Array) -> Any:
        raise NotImplementedError

    def _conserved(self, states: Array) -> Array:
        raise NotImplementedError

    def _tangents(self, orthogonal: bool) -> Callable[[Array], Array]:
        """Return `generators` as a function of the flat state."""
        return symmetry.tangents(self.widths, orthogonal)

    # Weight decay.

    @cached_property
    def decays(self) -> Array:
        """λ_1, …, λ_h of the layers; read-only."""
        values = np.broadcast_to(np.asarray(self.weight_decay, float), self.depth)
        values.setflags(write=False)
        return values

    @cached_property
    def mean_decay(self) -> float:
        """The geometric mean of λ_1, …, λ_h: W_i → c_i W_i with Π c_i = 1 make each of it."""
        most = float(self.decays.max())  # equal ones are their mean exactly
        return most * float(np.prod((self.decays / most) ** (1.0 / self.depth))) if most else 0.0

    @cached_property
    def is_decayed(self) -> bool:
        """Whether the loss has a penalty on the weights."""
        return bool(self.decays.any())

    def escapes(self, x: Array, fitting: float) -> bool:
        """Tell whether a layer without decay can grow for others with decay, and keep the map.

        Maps that fit are as large as ``fitting``.
        The penalty falls along this way for ever: where all is at rest they, and the map, are zero.
        """
        if not self.is_decayed or self.decays.all():
            return False
        size = math.prod(float(np.linalg.norm(w)) for w in layers_of(self.widths, x))
        return size > tolerances.NEARLY * fitting

    def undecayed(self) -> Any:
        """Return the same network without weight decay."""
        network: Any = self
        return dataclasses.replace(network, weight_decay=0.0)

    @property
    def _decay_words(self) -> list[str]:
        return [f"weight decay {self.weight_decay}"] if self.is_decayed else []

    @cached_property
    def _decay_of_weights(self) -> Array:
        """λ_i of each weight (parameter)."""
        return np.repeat(self.decays, [b * a for a, b in itertools.pairwise(self.widths)])

    def _with_decays(self, form: int, *numbers: Array) -> Params:
        """Return sizes and numbers for the kernels."""
        decays = (self.decays,) if self.is_decayed else ()
        return forms.pack_params(self.widths, form, *numbers, *decays)

    @property
    def field(self) -> Kernel:  # type: ignore[override]
        """Minus the gradient of the loss."""
        return decayed.field(self._field) if self.is_decayed else self._field

    @property
    def jvp(self) -> Kernel:  # type: ignore[override]
        """Minus the Hessian times a direction."""
        return decayed.jvp(self._jvp) if self.is_decayed else self._jvp

    @property
    def jacobian(self) -> Kernel:  # type: ignore[override]
        """Minus the Hessian."""
        return decayed.jacobian(self._jacobian) if self.is_decayed else self._jacobian

    @property
    def always(self) -> tuple[str, ...]:  # type: ignore[override]
        """The losses."""
        return ("loss", "loss_rate", *(["data_loss"] if self.is_decayed else []))

    def _loss(self, states: Array) -> Any:
        """Return the loss of unchecked states, with the penalty."""
        loss = self._data_loss(states)
        if not self.is_decayed:
            return loss
        with np.errstate(over="ignore", invalid="ignore"):  # of a diverged run
            return loss + 0.5 * states**2 @ self._decay_of_weights

    @property
    def depth(self) -> int:
        """Number of layers h."""
        return len(self.widths) - 1

    @property
    def activation(self) -> tuple[int, float]:
        """Power p and slope α of max(z, αz)^p between the layers: that of a linear network here."""
        return 1, 1.0

    @cached_property
    def dim(self) -> int:  # type: ignore[override]
        """Number of weights."""
        return n_weights(self.widths)

    def _alike(self, x: Array) -> Array:
        """Return states whose weights have the same sizes and random signs."""
        signs = np.random.default_rng(0).integers(2, size=(_N_ALIKE, self.dim))
        return x * (2.0 * signs - 1.0)

    @property
    def numerics(self) -> Numerics:
        """How to integrate the flow: errors are judged by the two units that a weight joins."""
        return Numerics(
            error_scale=balance.error_scale, symmetric=True, too_large=self._is_too_large
        )

    def _is_too_large(self, x: Array) -> bool:
        """Tell whether squares of products of all layers, or of gradients, may overflow at ``x``.

        Those of gradients are W times the product of all layers but one.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if 2.0 * self.depth * math.log(max(float(x @ x), 1.0)) < _LARGEST_LOG:
                return False
            sizes = np.array([np.linalg.norm(w) for w in layers_of(self.widths, x)])
            sizes = np.maximum(sizes, 1.0)
            whole = np.prod(sizes)
            return not np.isfinite((whole * (whole / sizes.min())) ** 2)

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates ``layer, row, column`` of the dim ``parameter``."""
        return schema.state_coordinates(self.widths)

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the network."""
        decays = self.decays.copy() if self.depth > 1 else float(self.decays[0])  # as files do
        return {
            **super().attributes(),
            **({"weight_decay": decays} if self.is_decayed else {}),
            "widths": np.array(self.widths, np.int64),
            "problem_digest": self.digest,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the widths and of the numbers of the problem."""
        return hashlib.sha256(b"".join(part.tobytes() for part in self.params)).hexdigest()

    def _observables(self, start: Array) -> Mapping[str, Callable[[Array], xr.Variable]]:
        return {
            "state": variable(lambda states: states, "parameter"),
            "loss": variable(self._loss),
            **({"data_loss": variable(self._data_loss)} if self.is_decayed else {}),
            "conserved": variable(self._conserved, "component"),
            "unit_size": variable(self._unit_sizes, "unit"),
            "loss_rate": variable(lambda x: -np.sum(self._forces(x) ** 2, axis=-1)),
            "gradient_norm": variable(lambda x: np.linalg.norm(self._forces(x), axis=-1)),
            "sharpness": variable(lambda states: np.array([self._sharpness(x) for x in states])),
            "index": variable(lambda states: np.array([self._index(x) for x in states], np.int64)),
            "layer_singular_value": self._of_layers(
                observables.layer_singular_values, "layer", "mode"
            ),
        }

    def _of_layers(self, function: Callable[..., Any], *dims: str) -> Any:
        """Return what labels a function of the layers of states."""
        return variable(lambda states: function(layers_of(self.widths, states)), *dims)

    def _sharpness(self, x: Array) -> float:
        """Return the largest eigenvalue of the Hessian."""
        force = products_at(self, 0.0, x)
        return spectra.largest_eigenvalue(lambda v: -force(v), self.dim)

    def _index(self, x: Array) -> int:
        """Return how many eigenvalues of the Hessian are negative beyond rounding.

        −1 where it is not finite.
        """
        hessian = self._hessian(x)
        if not np.isfinite(hessian).all():
            return -1
        noise = tolerances.rounding(self.dim) * float(np.linalg.norm(hessian))
        return spectra.count_below(hessian, -noise)

    def varied(self, name: str | int, **options: Any) -> dict[str, Any]:
        """Return the critical points of L + (λ/2) Σ_i ‖W_i‖² as λ varies."""
        check_choice("vary", name, ("weight_decay",))
        if self.is_decayed:
            parts: dict[str, Any] = self.undecayed().varied(name)
            return parts
        return with_decay(self, functools.cache(self._tangents), self._observed, self.widths)

    def _observed(self, states: Array) -> dict[str, Any]:
        """Return the numbers that a branch records of states."""
        return {"loss": 1.0 * self._loss(states)}

    @cached_property
    def unit_weights(self) -> tuple[Flags, Flags]:
        """Which weights (unit, parameter) go into each hidden unit, and which come out of it."""
        labels = schema.state_coordinates(self.widths)
        layer, row, column = (np.asarray(labels[name][1]) for name in ("layer", "row", "column"))
        of, number = self.units[:, :1], self.units[:, 1:]
        return (layer == of) & (row == number), (layer == of + 1) & (column == number)

    @cached_property
    def units(self) -> Integers:
        """Layer, from 1, and number in it, of all hidden units (unit, 2)."""
        pairs = [(i, j) for i in range(1, self.depth) for j in range(self.widths[i])]
        return np.array(pairs, np.int64).reshape(-1, 2)

    def unit_coordinates(self) -> dict[str, Any]:
        """Return the coordinates of the dim ``unit``, all hidden units."""
        layer, number = self.units.T.copy()
        return {"unit_layer": ("unit", layer), "unit_number": ("unit", number)}

    @finite("x")
    def unit_sizes(self, x: ArrayLike) -> Array:
        """Return for each hidden unit the norm of all its weights, of a state or of a stack."""
        return self._unit_sizes(self._states(x))

    def _unit_sizes(self, states: Array) -> Array:
        into, out_of = self.unit_weights
        sizes: Array = np.sqrt(states**2 @ (into | out_of).T.astype(float))
        return sizes

    def pack(self, layers: Sequence[ArrayLike]) -> Array:
        """Return the flat state of the layers W_1, …, W_h (each d_i × d_{i−1}).

        Raises
        ------
        ValueError, TypeError
            If the layers have other shapes or are not finite numbers.
        """
        shapes = [(b, a) for a, b in itertools.pairwise(self.widths)]
        return flat(check_matrices("layers", layers, shapes))

    def unpack(self, x: ArrayLike) -> tuple[Array, ...]:
        """Return the layers W_1, …, W_h of a state, or of a stack (…, parameter) of them."""
        return layers_of(self.widths, self._states(x))

    @finite("x")
    def loss(self, x: ArrayLike) -> Any:
        """Return the loss of a state, or of each in a stack (…, parameter).

        With weight decay that is L + ½ Σ_i λ_i ‖W_i‖², of which `gradient` is the gradient.
        """
        return self._loss(self._states(x))

    @finite("x")
    def data_loss(self, x: ArrayLike) -> Any:
        """Return the loss without what weight decay adds, of a state or of each in a stack."""
        return self._data_loss(self._states(x))

    @finite("x")
    def conserved(self, x: ArrayLike) -> Array:
        """Return what the flow conserves, as one vector, of a state or of each in a stack.

        All entries of the C_i; of a `HomogeneousNetwork` ‖W_l[j, :]‖² − p ‖W_{l+1}[:, j]‖² of each
        unit of the first hidden layer, then of the next.
        """
        return self._conserved(self._states(x))

    def gradient(self, x: ArrayLike) -> Array:
        """Return ∇L, minus the field, of a state or of each in a stack (…, parameter)."""
        return check_finite("x", -self._forces(self._states(x)))

    def _forces(self, states: Array) -> Array:
        """Return the field of each state."""
        out = np.empty(states.shape)
        if states.size:  # else nothing is compiled
            evaluate: Any = jit.entry(runge_kutta.evaluate_each, runge_kutta.EVALUATE_EACH)
            rows, places = np.ascontiguousarray(states, float), out.reshape(-1, self.dim)
            field = jit.ready(self.field, jit.FIELD)
            evaluate(field, self.params, rows.reshape(-1, self.dim), places)
        return out

    def hessian(self, x: ArrayLike) -> Array:
        """Return the Hessian ∇²L (parameter × parameter) at a state.

        Notes
        -----
        For a product of layers, assembled from Kronecker products of L_i = W_{i+1:h} and
        P_i = W_{1:i} K, with K = X for losses on data. The block of layers i ≤ j is, for the square
        loss, (L_iᵀL_j) ⊗ (P_{i−1}P_{j−1}ᵀ) minus, for i < j, the product of W_{i+1:j−1} with
        P_{i−1} Rᵀ L_j; other losses put their second derivative between the factors of the first.
        """
        state = check_array("x", x, ndim=1, shape=(self.dim,))
        return check_finite("x", self._hessian(state))

    def _hessian(self, x: Array) -> Array:
        check_memory("x", self.dim**2)
        out = np.empty((self.dim, self.dim))
        jit.ready(self.jacobian, jit.JACOBIAN)(0.0, x, self.params, out)
        return np.negative(out, out=out)

    def hessian_product(self, x: ArrayLike, v: ArrayLike) -> Array:
        """Return the Hessian at a state times a direction, without the matrix."""
        state = check_array("x", x, ndim=1, shape=(self.dim,))
        direction = check_array("v", v, ndim=1, shape=(self.dim,))
        out = np.empty(self.dim)
        jit.ready(self.jvp, jit.JVP)(0.0, state, direction, self.params, out)
        return check_finite("x", -out)

    def adjacency(self, x: ArrayLike) -> Array:
        """Return A = blk_1(W_1, …, W_h), square of size Σ d_i, W_i at block (i, i − 1) (WA25)."""
        layers = layers_of(self.widths, check_array("x", x, ndim=1, shape=(self.dim,)))
        check_memory("x", sum(self.widths) ** 2)
        return adjacency(self.widths, layers)

    def from_adjacency(self, A: ArrayLike) -> Array:
        """Return the state whose adjacency matrix is A.

        Raises
        ------
        ValueError, TypeError
            If A has another size, or an entry outside the blocks (i, i − 1).
        """
        size = sum(self.widths)
        matrix = check_array("A", A, ndim=2, shape=(size, size))
        ends = np.cumsum((0, *self.widths)).tolist()
        blocks = [matrix[b:c, a:b] for a, b, c in zip(ends, ends[1:], ends[2:], strict=False)]
        if np.count_nonzero(matrix) > sum(map(np.count_nonzero, blocks)):
            raise ValueError(
                f"A: needs zeros outside the {len(blocks)} blocks (i, i - 1) of layers"
            )
        return flat(blocks)

    @known_options
    def initial(
        self,
        kind: str = "gaussian",
        *,
        scale: ArrayLike = 1e-3,
        delta: float | None = None,
        rng: Any = None,
    ) -> Array:
        """Return a start of a named kind, for any widths.

        Parameters
        ----------
        kind
            - ``"gaussian"``: entries N(0, scale²), layers in order.
            - ``"balanced"``: all C_i = 0. The product has the singular vectors of a Gaussian one,
              each layer ``scale`` times the h-th root of its singular values; random hidden bases.
            - ``"aligned"``, of a `LinearNetwork`: balanced, in the singular basis of the target,
              with the singular values ``scale`` in every layer: one number, or one for each of
              min(d_0, …, d_h) modes.
            - ``"delta_balanced"``: a balanced start changed at random until the largest ‖C_i‖_F
              is ``delta``.
        scale
            Size of the weights.
        delta
            For ``"delta_balanced"``.
        rng
            Seed or `numpy.random.Generator` (SPEC 7).

        Returns
        -------
        numpy.ndarray
            State (parameter).

        Raises
        ------
        ValueError, TypeError
            If the kind is unknown, ``delta`` is missing, not wanted or lost in rounding, ``scale``
            is negative or overflows, or an aligned start is asked of a problem that is not
            whitened.

        Examples
        --------
        >>> import dlnds as dl
        >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
        >>> W1, W2 = net.unpack(net.initial("aligned", scale=0.1))
        >>> W1.tolist()
        [[0.1, 0.0], [0.0, 0.1], [0.0, 0.0]]
        """
        kind = check_choice("kind", kind, self._starts())
        if (delta is None) != (kind != "delta_balanced"):
            raise ValueError(
                f"delta: belongs to kind 'delta_balanced', got {delta!r} with {kind!r}"
            )
        generator = check_generator("rng", rng)
        state: Array = self._starts()[kind](scale, delta, generator)
        return state

    def _starts(self) -> dict[str, Any]:
        """Return what makes starts of each kind, of ``scale``, ``delta`` and a generator."""
        return {"gaussian": lambda scale, _, rng: self._scaled(scale, self._gaussian(rng))}

    def _gaussian(self, generator: np.random.Generator) -> list[Array]:
        return [generator.normal(size=(b, a)) for a, b in itertools.pairwise(self.widths)]

    def _scaled(self, scale: ArrayLike, layers: Sequence[Array]) -> Array:
        size = check_number("scale", scale, minimum=0.0)
        with np.errstate(over="ignore"):
            return check_finite("scale", size * flat(layers))


def departing(known: Theory, problem: moments.Problem, layers: Sequence[Array]) -> Theory:
    """Return what is known of a state, and how runs leave it under the square loss."""
    return known._replace(
        leading_parts=lambda: saddles.leading_parts(problem, layers),
        strict=lambda: saddles.known_strict(problem, layers),
        hessian_size=lambda: strings.hessian_scale(problem, layers),
        field_terms=lambda terms, order: forms.field_terms(problem, terms, order),
        is_minimum=lambda: strings.is_minimum(problem, layers),
    )


class LayeredSystem(WeightSystem):
    """Gradient flow of the layers W_1, …, W_h under a loss of their product W = W_h…W_1.

    A network adds ``_loss_of``, the loss of unchecked maps W (…, d_h, d_0), ``_signal_of``, minus
    its gradient at one, and ``fitting_size``, how large those are that fit.
    """

    fitting_size: float
    #: The loss at the global minima, NaN where it is not known.
    lowest_loss: float = math.nan
    #: Kernels of the field and its derivative, from the inputs and from the outputs.
    _fields: tuple[Kernel, Kernel]
    _jvps: tuple[Kernel, Kernel]
    #: The step of the explicit method for many weights and few outputs, without weight decay.
    _low_rank_step: Kernel

    def _loss_of(self, maps: Array) -> Any:
        raise NotImplementedError

    def _signal_of(self, W: Array) -> Array:
        raise NotImplementedError

    @cached_property
    def _wide_input(self) -> bool:
        """Whether the network is narrower at its outputs than its problem at the inputs."""
        return bool(self.params[0][1] > self.widths[-1])

    @property
    def _has_low_rank(self) -> bool:
        """Whether steps pay that keep derivatives as factors with a row for each output."""
        outputs = self.widths[-1]
        few = self._wide_input and outputs <= FEW_OUTPUTS
        many = self.dim >= max(MANY_WEIGHTS, IN_FACTORS * outputs * sum(self.widths))
        return few and many and self.depth > 1 and not self.is_decayed

    @property
    def _field(self) -> Kernel:  # type: ignore[override]
        """That of the field, computed from the narrower end of the network."""
        return self._fields[self._wide_input]

    @property
    def _jvp(self) -> Kernel:  # type: ignore[override]
        return self._jvps[self._wide_input]

    @property
    def numerics(self) -> Numerics:
        """How to integrate the flow: its C_i are restored without changing the end-to-end map.

        With weight decay they fade, and so do errors in them.
        """
        kept: dict[str, Any] = {"restore": balance.restore, "invariants": self._reference}
        return super().numerics._replace(
            # What is called, and what is multiplied.
            field_cost=300.0 * self.depth + 3.0 * self.dim * min(self.widths[0], self.widths[-1]),
            reduce=self._without_unused,
            own_step=self._low_rank_step if self._has_low_rank else None,
            **({} if self.is_decayed else kept),
        )

    def _reference(self, states: Array) -> Array:
        self._check_squares("system")
        return self._conserved(states)

    def _without_unused(self, x: Array) -> Reduction:
        """Return the network without the hidden directions that ``x`` leaves unused.

        The span of [W_i, W_{i+1}ᵀ] in R^{d_i} is constant along the flow. With orthonormal bases
        B_i of these, B_iᵀ W_i B_{i−1} flows by itself, at widths of at most d_{i−1} + d_{i+1}.
        """
        layers = self.unpack(x)
        used = [span(w, after.T) for w, after in itertools.pairwise(layers)]
        bases = [np.eye(self.widths[0]), *used, np.eye(self.widths[-1])]
        network: Any = self
        small = dataclasses.replace(network, widths=tuple(b.shape[1] for b in bases))
        lift = Turning(small.widths, bases)
        return Reduction(small, flat(symmetry.turned(layers, [b.T for b in used])), lift, lift)

    def theory(self, x: Array) -> Theory:
        """Return what is known at a state: the generators of GL, or of turns with weight decay."""
        return Theory(
            generators=lambda: self.generators(x),
            alike=lambda: self._alike(x),
            recedes=lambda: self.escapes(x, self.fitting_size),
        )

    @property
    def quadratic(self) -> rates.Quadratic | None:
        """What bounds of rates need of the loss, None if it is no square one."""
        return None

    @property
    def decayed_minimum(self) -> decayed_rates.Orbit | None:
        """The global minima under weight decay, where they are known with their curvatures."""
        return None

    @property
    def _data(self) -> tuple[moments.Problem, float]:
        """Target and root of the inputs, and ‖Y‖², divided by the samples as the loss is."""
        raise NotImplementedError

    def _observables(self, start: Array) -> Mapping[str, Callable[[Array], xr.Variable]]:
        def rank(function: Callable[[Array], Any]) -> Any:
            def values(layers: Sequence[Array]) -> Any:
                return function(observables.singular_values(product(observables.scaled(layers))))

            return self._of_layers(values)

        def of_kernel(function: Callable[..., Any], *dims: str) -> Any:
            def values(states: Array) -> Array:
                layers = layers_of(self.widths, states)
                found = function(tangent_kernel.factors(self._data[0], layers))
                own = found.shape[found.ndim - len(dims) :]
                return np.broadcast_to(found, (len(states), *own)).copy()  # one for a single layer

            return variable(values, *dims)

        def of_change(number: int) -> Any:
            def values(layers: Sequence[Array]) -> Any:
                first = layers_of(self.widths, start)
                return tangent_kernel.distances(self._data[0], layers, first)[number]

            return self._of_layers(values)

        def with_target(now: tangent_kernel.Factors) -> Array:
            problem, targets = self._data
            return tangent_kernel.alignment(problem, now, targets)

        return {
            **super()._observables(start),
            "product": self._of_layers(product, "row", "column"),
            "imbalance": self._of_layers(symmetry.imbalance),
            "balance_gap": self._of_layers(observables.balance_gap),
            "singular_value": self._of_layers(
                lambda layers: observables.singular_values(product(layers)), "mode"
            ),
            "effective_rank": rank(observables.effective_rank),
            "stable_rank": rank(observables.stable_rank),
            "alignment": self._of_layers(
                lambda layers: observables.alignment(self._fitting_map, layers), "level", "mode"
            ),
            "ntk_eigenvalue": of_kernel(tangent_kernel.eigenvalues, "eigen"),
            "ntk_alignment": of_kernel(with_target),
            "ntk_distance": of_change(0),
            "ntk_change": of_change(1),
            "hidden_similarity": variable(
                lambda states: self._similarity(states, self._own_inputs),
                *("layer", "item", "other_item"),
            ),
        }

    @cached_property
    def _fitting_map(self) -> Array:
        """Σ K⁺, which fits the target best."""
        target, root = self._data[0].target, self._data[0].root
        return target if root is None else target @ scipy.linalg.pinv(root)

    @property
    def _own_inputs(self) -> Array:
        """Inputs (d_0 × items) of the problem: those that the target belongs to."""
        root = self._data[0].root
        return np.eye(self.widths[0]) if root is None else root

    @finite("x")
    def hidden_similarity(self, x: ArrayLike, X: ArrayLike) -> Array:
        """Return H_iᵀ H_i, H_i = W_{1:i} X, of all layers i, of a state or of each in a stack.

        Parameters
        ----------
        x
            State (parameter), or a stack (…, parameter) of them.
        X
            Inputs (d_0 × items), in the coordinates of the network.

        Returns
        -------
        numpy.ndarray
            Gram matrices (…, layer, item, item): what the network makes similar (SMG19). The last
            layer's are those of the outputs.

        Raises
        ------
        ValueError, TypeError
            If X has other features than the network, or the matrices do not fit into the memory.
        """
        states, inputs = self._states(x), check_array("X", X, ndim=2, shape=(self.widths[0], None))
        return self._similarity(states, inputs)

    def _similarity(self, states: Array, inputs: Array) -> Array:
        rows = math.prod(states.shape[:-1])
        check_memory("X", rows * self.depth * inputs.shape[1] ** 2)
        return observables.hidden_similarity(layers_of(self.widths, states), inputs)

    def _observed(self, states: Array) -> dict[str, Any]:
        return observed(layers_of(self.widths, states), self._loss_of, self.fitting_size)

    def _data_loss(self, states: Array) -> Any:
        return self._loss_of(product(layers_of(self.widths, states)))

    def _conserved(self, states: Array) -> Array:
        self._check_squares("x")
        parts = symmetry.imbalances(layers_of(self.widths, states))
        flats = [c.reshape(*states.shape[:-1], -1) for c in parts]
        return np.concatenate([states[..., :0], *flats], axis=-1)

    def _check_squares(self, name: str) -> None:
        """Refuse hidden layers so wide that their C_i do not fit into the memory."""
        check_memory(name, 2 * sum(d * d for d in self.widths[1:-1]))

    @finite("x")
    def product(self, x: ArrayLike) -> Array:
        """Return the end-to-end map W (d_h × d_0) of a state, or of each in a stack."""
        return product(self.unpack(x))

    @finite("x")
    def imbalances(self, x: ArrayLike) -> tuple[Array, ...]:
        """Return C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}, i = 1..h−1, which the flow conserves."""
        self._check_squares("x")
        return symmetry.imbalances(self.unpack(x))

    @finite("x")
    def adjacency_powers(self, x: ArrayLike) -> Array:
        """Return A⁰, A, …, A^{h+1} = 0 of the adjacency matrix, with A^k = blk_k(W_{1:k}, …)."""
        layers = layers_of(self.widths, check_array("x", x, ndim=1, shape=(self.dim,)))
        check_memory("x", (self.depth + 2) * sum(self.widths) ** 2)
        products, powers = [np.eye(d) for d in self.widths], []
        for k in range(self.depth + 1):
            powers.append(adjacency(self.widths, products, k))
            products = [w @ before for w, before in zip(layers[k:], products, strict=False)]
        return np.stack([*powers, np.zeros_like(powers[0])])

    @finite("x")
    def adjacency_field(self, x: ArrayLike) -> Array:
        """Return Ȧ, the field of the adjacency matrix: Σ_j (A^{h−j})ᵀ blk_h(−∇ℓ(W)) (A^{j−1})ᵀ.

        The sum is over j = 1..h. For the square loss of whitened inputs −∇ℓ(W) is Σ − W, so that
        the middle is E − A^h with E = blk_h(Σ) (WA25).
        """
        powers, h = self.adjacency_powers(x), self.depth
        residual = adjacency(self.widths, [self._signal_of(self.product(x))], h)
        parts = [powers[h - j].T @ residual @ powers[j - 1].T for j in range(1, h + 1)]
        rate: Array = np.sum(parts, axis=0)
        return rate

    def generators(self, x: ArrayLike, *, orthogonal: bool = False) -> Array:
        """Return the tangent vectors (generator, parameter) of the symmetry orbit at a state.

        K_i W_i − W_i K_{i−1} for each unit matrix K_i of each hidden layer: the orbit of GL, which
        keeps the loss and what is critical. ``orthogonal`` takes skew K_i only, whose orbit the
        flow keeps as well (WA25). With weight decay these are all that keep the loss.
        """
        state = check_array("x", x, ndim=1, shape=(self.dim,))
        check_memory("x", self.dim * sum(d * d for d in self.widths[1:-1]))
        orthogonal = check_flag("orthogonal", orthogonal)
        return symmetry.generators(layers_of(self.widths, state), orthogonal or self.is_decayed)

    # States to start from.

    def _starts(self) -> dict[str, Any]:
        own = {"balanced": self._balanced, "delta_balanced": self._delta_balanced}
        return super()._starts() | own

    def _balanced(self, scale: ArrayLike, _: None, generator: np.random.Generator) -> Array:
        """Return a 0-balanced state with the product of Gaussian layers, random hidden bases."""
        rank = min(self.widths)
        left, values, right = np.linalg.svd(product(self._gaussian(generator)), full_matrices=False)
        inner = [np.linalg.qr(generator.normal(size=(d, rank)))[0] for d in self.widths[1:-1]]
        frames = [right[:rank].T, *inner, left[:, :rank]]
        layers = moments.balanced_layers(frames, values[:rank] ** (1.0 / self.depth))
        return self._scaled(scale, layers)

    def _delta_balanced(
        self, scale: ArrayLike, delta: float, generator: np.random.Generator
    ) -> Array:
        start = self._balanced(scale, None, generator)
        bound = check_number("delta", delta, minimum=0.0)
        self._check_squares("kind")
        return _unbalanced(self.widths, start, generator.normal(size=self.dim), bound)


def _unbalanced(widths: tuple[int, ...], start: Array, change: Array, delta: float) -> Array:
    """Return ``start + c · change``, from a balanced start, with largest imbalance ``delta``.

    There C_i = c A_i + c² B_i; in the unknown u = c/√δ the equation has no large or small numbers.
    """
    if len(widths) == 2:
        raise ValueError("kind: 'delta_balanced' needs at least two layers")
    if delta == 0.0:
        return start
    with np.errstate(over="ignore"):
        size = float(check_finite("scale", np.sum(start**2, keepdims=True))[0])
    if delta <= 64.0 * np.finfo(float).eps * size:
        raise ValueError(f"delta: {delta:g} is lost in the rounding of weights of this scale")
    if start.any():  # alike in size, so that the linear part is not lost in the others
        change = change * (max(np.sqrt(size), _TINY * np.sqrt(delta)) / np.linalg.norm(change))
    with np.errstate(over="ignore", invalid="ignore"):
        stack = layers_of(widths, np.stack([start + change, start, change]))
        parts = symmetry.imbalances(stack)
        linear = [both - own - quadratic for both, own, quadratic in parts]
        check_finite("delta", np.array([np.sum(c**2) for c in [*linear, *(c[2] for c in parts)]]))
    root, upper = np.sqrt(delta), 1.0

    def excess(u: float) -> float:
        terms = zip(linear, parts, strict=True)
        return max(float(np.linalg.norm(u * a / root + u**2 * c[2])) for a, c in terms) - 1.0

    while excess(upper) < 0.0:
        upper *= 2.0
    from scipy.optimize import brentq  # here, since loading it takes longer than all other starts

    u = brentq(excess, 0.0, upper, xtol=1e-300, rtol=1e-14, maxiter=1000)
    result: Array = start + root * float(u) * change
    return result


def variable(function: Callable[[Array], Any], *dims: str) -> Callable[[Array], xr.Variable]:
    """Return a function of states (time, parameter) as one that labels what it returns."""
    return lambda states: xr.Variable(("time", *dims), function(states))


def check_decay(value: Any, depth: int) -> float | tuple[float, ...]:
    """Return weight decay: one number of at least 0, or one for each layer if they differ."""
    several: bool = np.iterable(value)
    if not several:
        return check_number("weight_decay", value, minimum=0.0)
    values = check_array("weight_decay", value, ndim=1)
    if len(values) != depth:
        raise ValueError(
            f"weight_decay: needs one number or one for each of {depth} layers, got {len(values)}"
        )
    check_number("weight_decay", float(values.min()), minimum=0.0)
    decays = tuple(values.tolist())
    return decays[0] if len(set(decays)) == 1 else decays


def check_undecayed(system: object, name: str = "net") -> None:
    """Refuse networks with weight decay, whose critical points are others."""
    if isinstance(system, WeightSystem) and system.is_decayed:
        raise ValueError(
            f"{name}: needs a network without weight decay, on whose landscape this rests; "
            f"got weight_decay={system.weight_decay}"
        )


def check_widths(widths: Any) -> tuple[int, ...]:
    """Return the widths of at least one layer, whose weights fit into the memory."""
    sizes = check_integers("widths", widths, minimum=1, ordered=True)
    if len(sizes) < 2:
        raise ValueError(f"widths: needs at least inputs and outputs, got {sizes}")
    check_memory("widths", n_weights(sizes))
    return sizes


def check_matrices(name: str, value: Any, shapes: Sequence[tuple[int, int]]) -> list[Array]:
    """Return matrices of these shapes."""
    if isinstance(value, np.ndarray | str | Mapping) or not np.iterable(value):
        raise TypeError(f"{name}: needs a sequence of {len(shapes)} matrices, got {value!r}")
    parts = list(value)
    if len(parts) != len(shapes):
        raise ValueError(f"{name}: needs a sequence of {len(shapes)} matrices, got {len(parts)}")
    pairs = zip(parts, shapes, strict=True)
    return [check_array(name, part, ndim=2, shape=shape) for part, shape in pairs]


def labelled_data(
    X: Any, name: str, labels: Any, ndim: int | tuple[int, ...] = (1, 2)
) -> tuple[Array, Array]:
    """Return inputs, and what belongs to them (samples) or (outputs, samples)."""
    inputs, targets = schema.samples("X", X), schema.samples(name, labels, ndim, of=X)
    if targets.shape[-1] != inputs.shape[1]:
        raise ValueError(
            f"{name}: needs as many samples (columns) as X, got {targets.shape[-1]} for "
            f"{inputs.shape[1]}; transpose data that have samples in rows"
        )
    if not inputs.any():
        raise ValueError("X: all inputs are zero, as constant ones are once they are centred")
    return inputs, targets


def check_rows(name: str, got: int, needed: int) -> None:
    """Refuse data for a network that have not as many rows as it has features or outputs."""
    if got != needed:
        raise ValueError(
            f"{name}: needs {needed} rows as the network has, got {got}; transpose data that have "
            "samples in rows"
        )


def check_weights(system: object, name: str = "system", *, with_decay: bool = False) -> None:
    """Refuse what has no layers of weights, and weight decay unless it is allowed."""
    if not isinstance(system, WeightSystem):
        raise TypeError(f"{name}: needs a network, got {words_of(system)}")
    if not with_decay:
        check_undecayed(system, name)


def check_layered(net: object, *, with_decay: bool = False) -> None:
    """Refuse what is no network of layers, and weight decay unless it is allowed."""
    if not isinstance(net, LayeredSystem):
        raise TypeError(f"net: needs a network of layers, got {words_of(net)}")
    if not with_decay:
        check_undecayed(net)
