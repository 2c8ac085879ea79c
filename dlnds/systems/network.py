"""What networks of layers share, whatever their loss: states, products, conservation, starts."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from dlnds import schema
from dlnds._kernels import balance, jit
from dlnds.arrays import Array, Kernel, Params
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
from dlnds.systems import starts
from dlnds.systems.protocol import Numerics, Reduction, SystemProtocol, Theory
from dlnds.theory import symmetry
from dlnds.theory.coordinates import flat, layers_of, n_weights, product, span, turning
from dlnds.theory.forms import pack_params


class WeightSystem(SystemProtocol):
    """Gradient flow of the weights W_1, …, W_h of a network of layers.

    A network adds its kernels, `params` by way of ``_pack_params``, ``_loss``, and what it
    conserves.
    """

    kind = "gradient"
    _always = ("loss", "loss_rate")
    #: Kinds that `initial` knows.
    start_kinds: ClassVar[tuple[str, ...]] = ("gaussian",)

    widths: tuple[int, ...]
    jvp: Kernel
    jacobian: Kernel

    def _loss(self, states: Array) -> Any:
        """Return the loss of each state (…, parameter)."""
        raise NotImplementedError

    def conserved(self, x: ArrayLike) -> Array:
        """Return what the flow conserves, as one vector, for each state of a stack."""
        raise NotImplementedError

    def _conserved(self, states: Array) -> Array:
        """Return the same of states that are not checked."""
        raise NotImplementedError

    def _tangents(self, orthogonal: bool) -> Callable[[Array], Array]:
        """Return `generators` as a function of the flat state, many times as fast.

        ``orthogonal`` leaves those whose orbits the flow keeps as well.
        """
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Number of layers h."""
        return len(self.widths) - 1

    @cached_property
    def dim(self) -> int:  # type: ignore[override]
        """Number of weights."""
        return n_weights(self.widths)

    @cached_property
    def _shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self.widths[1:], self.widths[:-1], strict=True))

    def _pack_params(self, form: int, target: Array, *numbers: Array) -> Params:
        """Return sizes and numbers as the kernels want them."""
        return pack_params(self.widths, form, target, *numbers)

    @property
    def numerics(self) -> Numerics:
        """How to integrate the flow: errors are judged by the two units that a weight joins."""
        return Numerics(
            error_scale=balance.error_scale, symmetric=True, too_large=self._is_too_large
        )

    def _is_too_large(self, x: Array) -> bool:
        """Tell whether products of all layers, or of their gradients, may overflow at ``x``."""
        with np.errstate(over="ignore"):
            sizes = np.array([np.linalg.norm(w) for w in self._layers(x)])
            return not np.isfinite(np.prod(np.maximum(sizes, 1.0)) ** 4)

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates ``layer, row, column`` of the dim ``parameter``."""
        return schema.state_coordinates(self.widths)

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the network."""
        return {
            **super().attributes(),
            "widths": np.array(self.widths, np.int64),
            "problem_digest": self.digest,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the widths and of the numbers of the problem."""
        total = hashlib.sha256()
        for part in self.params:
            total.update(part.tobytes())
        return total.hexdigest()

    def _observables(self) -> Mapping[str, Callable[[Array], xr.Variable]]:
        return {
            "state": variable(lambda states: states, "parameter"),
            "loss": variable(self._loss),
            "conserved": variable(self._conserved, "component"),
            "unit_size": variable(self._unit_sizes, "unit"),
            "loss_rate": variable(lambda x: -np.sum(self._gradient(x) ** 2, axis=-1)),
            "gradient_norm": variable(lambda x: np.linalg.norm(self._gradient(x), axis=-1)),
        }

    @cached_property
    def _unit_weights(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which weights (unit, parameter) go into each hidden unit, and which come out of it."""
        labels = schema.state_coordinates(self.widths)
        layer, row, column = (np.asarray(labels[name][1]) for name in ("layer", "row", "column"))
        of, number = self.units[:, :1], self.units[:, 1:]
        return (layer == of) & (row == number), (layer == of + 1) & (column == number)

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """Layer, from 1, and number in it, of all hidden units (unit, 2)."""
        pairs = [(i, j) for i in range(1, self.depth) for j in range(self.widths[i])]
        return np.array(pairs, np.int64).reshape(-1, 2)

    def _unit_coordinates(self) -> dict[str, Any]:
        """Return the coordinates of the dim ``unit``, all hidden units."""
        layer, number = self.units.T.copy()
        return {"unit_layer": ("unit", layer), "unit_number": ("unit", number)}

    @finite("x")
    def unit_sizes(self, x: ArrayLike) -> Array:
        """Return for each hidden unit the norm of all its weights, of a state or of a stack."""
        return self._unit_sizes(self._states(x))

    def _unit_sizes(self, states: Array) -> Array:
        into, out_of = self._unit_weights
        sizes: Array = np.sqrt(states**2 @ (into | out_of).T.astype(float))
        return sizes

    def pack(self, layers: Sequence[ArrayLike]) -> Array:
        """Return the flat state of the layers W_1, …, W_h (each d_i × d_{i−1}).

        Raises
        ------
        ValueError, TypeError
            If the layers have other shapes or are not finite numbers.
        """
        if isinstance(layers, np.ndarray | str) or not np.iterable(layers):
            raise TypeError(f"layers: needs a sequence of {self.depth} matrices")
        layers = list(layers)
        if len(layers) != self.depth:
            raise ValueError(f"layers: needs {self.depth} matrices, got {len(layers)}")
        pairs = zip(layers, self._shapes, strict=True)
        return np.concatenate(
            [check_array("layers", w, ndim=2, shape=shape).ravel() for w, shape in pairs]
        )

    def unpack(self, x: ArrayLike) -> tuple[Array, ...]:
        """Return the layers W_1, …, W_h of a state, or of a stack (…, parameter) of them."""
        return self._layers(self._states(x))

    def _layers(self, states: Array) -> tuple[Array, ...]:
        return layers_of(self.widths, states)

    def _states(self, x: ArrayLike) -> Array:
        return check_array("x", x, ndim=(1, 2, 3), shape=(self.dim,))

    def gradient(self, x: ArrayLike) -> Array:
        """Return ∇L, minus the field, of a state or of each in a stack (…, parameter)."""
        return check_finite("x", self._gradient(self._states(x)))

    def _gradient(self, states: Array) -> Array:
        field, out = jit.ready(self.field, jit.FIELD), np.empty_like(states)
        params = self.params
        for state, row in zip(states.reshape(-1, self.dim), out.reshape(-1, self.dim), strict=True):
            field(0.0, state, params, row)
        return np.negative(out, out=out)

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
        check_memory("x", self.dim**2)
        out = np.empty((self.dim, self.dim))
        jit.ready(self.jacobian, jit.JACOBIAN)(0.0, state, self.params, out)
        return check_finite("x", np.negative(out, out=out))

    def hessian_product(self, x: ArrayLike, v: ArrayLike) -> Array:
        """Return the Hessian at a state times a direction, without the matrix."""
        state = check_array("x", x, ndim=1, shape=(self.dim,))
        direction = check_array("v", v, ndim=1, shape=(self.dim,))
        out = np.empty(self.dim)
        jit.ready(self.jvp, jit.JVP)(0.0, state, direction, self.params, out)
        return check_finite("x", -out)

    def adjacency(self, x: ArrayLike) -> Array:
        """Return A = blk_1(W_1, …, W_h), square of size Σ d_i, W_i at block (i, i − 1) (WA25)."""
        layers = self._layers(check_array("x", x, ndim=1, shape=(self.dim,)))
        ends = np.cumsum((0, *self.widths))
        check_memory("x", sum(self.widths) ** 2)
        A = np.zeros((ends[-1], ends[-1]))
        for i, layer in enumerate(layers, 1):
            A[ends[i] : ends[i + 1], ends[i - 1] : ends[i]] = layer
        return A

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
        kind = check_choice("kind", kind, self.start_kinds)
        if (delta is None) != (kind != "delta_balanced"):
            raise ValueError(
                f"delta: belongs to kind 'delta_balanced', got {delta!r} with {kind!r}"
            )
        generator = check_generator("rng", rng)
        network: Any = self
        if kind == "aligned":
            return starts.aligned(network, scale)
        size = check_number("scale", scale, minimum=0.0)
        layers: Sequence[Array] = [generator.normal(size=shape) for shape in self._shapes]
        if kind != "gaussian":
            layers = starts.balanced(network, layers, generator)
        with np.errstate(over="ignore"):
            state = check_finite("scale", size * flat(layers))
        if delta is None:
            return state
        bound = check_number("delta", delta, minimum=0.0)
        network._check_squares("kind")
        return starts.unbalanced(network, state, generator.normal(size=self.dim), bound)


class LayeredSystem(WeightSystem):
    """Gradient flow of the layers W_1, …, W_h under a loss of their product W = W_h…W_1."""

    start_kinds: ClassVar[tuple[str, ...]] = ("gaussian", "balanced", "delta_balanced")

    @property
    def numerics(self) -> Numerics:
        """How to integrate the flow: its C_i are restored without changing the end-to-end map."""
        return super().numerics._replace(
            restore=balance.restore,
            invariants=self._reference,
            # What is called, and what is multiplied.
            field_cost=300.0 * self.depth + 3.0 * self.dim * min(self.widths[0], self.widths[-1]),
            reduce=self._without_unused,
        )

    def theory(self, x: Array) -> Theory:
        """Return what is known at a state: the generators of GL."""
        return Theory(generators=lambda: self.generators(x))

    def _reference(self, x: Array) -> Array:
        self._check_squares("system")
        return self._conserved(x)

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
        pairs = list(itertools.pairwise(bases))
        state = flat(b.T @ w @ a for w, (a, b) in zip(layers, pairs, strict=True))

        lift = turning(small.widths, bases)
        return Reduction(small, state, lift, lift)

    def _observables(self) -> Mapping[str, Callable[[Array], xr.Variable]]:
        return {
            **super()._observables(),
            "singular_value": variable(
                lambda states: np.linalg.svd(self._product(states), compute_uv=False), "mode"
            ),
            "product": variable(self._product, "row", "column"),
            "imbalance": variable(self._imbalance),
        }

    @finite("x")
    def product(self, x: ArrayLike) -> Array:
        """Return the end-to-end map W (d_h × d_0) of a state, or of each in a stack."""
        return self._product(self._states(x))

    def _product(self, states: Array) -> Array:
        return product(self._layers(states))

    @finite("x")
    def imbalances(self, x: ArrayLike) -> tuple[Array, ...]:
        """Return C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}, i = 1..h−1, which the flow conserves."""
        self._check_squares("x")
        return self._imbalances(self._states(x))

    def _imbalances(self, states: Array) -> tuple[Array, ...]:
        layers = self._layers(states)
        transposed = [np.swapaxes(w, -1, -2) for w in layers]
        return tuple(
            layers[i] @ transposed[i] - transposed[i + 1] @ layers[i + 1]
            for i in range(self.depth - 1)
        )

    def _check_squares(self, name: str) -> None:
        """Refuse hidden layers so wide that their C_i do not fit into the memory."""
        check_memory(name, 2 * sum(d * d for d in self.widths[1:-1]))

    def _imbalance(self, states: Array) -> Array:
        norms = [np.linalg.norm(c, axis=(-2, -1)) for c in self._imbalances(states)]
        return np.max([np.zeros(states.shape[:-1]), *norms], axis=0)  # type: ignore[no-any-return]

    @finite("x")
    def conserved(self, x: ArrayLike) -> Array:
        """Return all entries of the conserved C_i as one vector, for each state of a stack."""
        self._check_squares("x")
        return self._conserved(self._states(x))

    def _conserved(self, states: Array) -> Array:
        parts = [c.reshape(*states.shape[:-1], -1) for c in self._imbalances(states)]
        return np.concatenate([np.zeros((*states.shape[:-1], 0)), *parts], axis=-1)

    def generators(self, x: ArrayLike, *, orthogonal: bool = False) -> Array:
        """Return the tangent vectors (generator, parameter) of the symmetry orbit at a state.

        K_i W_i − W_i K_{i−1} for each unit matrix K_i of each hidden layer: the orbit of GL, which
        keeps the loss and what is critical. ``orthogonal`` takes skew K_i only, whose orbit the
        flow keeps as well (WA25).
        """
        state = check_array("x", x, ndim=1, shape=(self.dim,))
        check_memory("x", self.dim * sum(d * d for d in self.widths[1:-1]))
        return symmetry.generators(self._layers(state), check_flag("orthogonal", orthogonal))

    def _tangents(self, orthogonal: bool) -> Callable[[Array], Array]:
        """Return `generators` as a function of the flat state, many times as fast."""
        return symmetry.tangents(self.widths, orthogonal)


def variable(function: Callable[[Array], Any], *dims: str) -> Callable[[Array], xr.Variable]:
    """Return a function of states (time, parameter) as one that labels what it returns."""
    return lambda states: xr.Variable(("time", *dims), function(states))


def check_widths(widths: Any) -> tuple[int, ...]:
    """Return the widths of at least one layer, whose weights fit into the memory."""
    sizes = check_integers("widths", widths, minimum=1, ordered=True)
    if len(sizes) < 2:
        raise ValueError(f"widths: needs at least inputs and outputs, got {sizes}")
    check_memory("widths", sum(a * b for a, b in itertools.pairwise(sizes)))
    return sizes


def check_layered(net: object) -> None:
    """Refuse what is no network of layers."""
    if not isinstance(net, LayeredSystem):
        raise TypeError(f"net: needs a network of layers, got {type(net).__name__}")
