"""Deep linear networks: gradient flow of the layers."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from dlnds import moments, schema
from dlnds._kernels import jit, straight
from dlnds._kernels import linear as kernels
from dlnds.errors import (
    check_array,
    check_choice,
    check_finite,
    check_flag,
    check_generator,
    check_integers,
    check_memory,
    check_number,
    known_options,
)
from dlnds.systems import starts
from dlnds.systems.protocol import Array, Kernel, Params, Reduction, SystemProtocol

_NORMALIZED = {True: "moments divided by the number of samples", False: "moments not divided"}


@dataclass(frozen=True, eq=False, repr=False)
class LinearNetwork(SystemProtocol):
    """Gradient flow of a deep linear network W = W_h…W_1 with the square loss.

    The loss is L = ½‖Σ − W K‖_F², the part that the map can change: K = I for a whitened problem,
    any root of the input covariance C = K Kᵀ otherwise. Use `from_data` or `from_moments` to start
    from data.

    Parameters
    ----------
    widths
        d_0, …, d_h: inputs, hidden layers, outputs.
    target
        Σ (d_h × k), with k = d_0 for a whitened problem.
    input_root
        K (d_0 × k); ``None`` for a whitened problem.
    whitening
        The root (original inputs × d_0) by which the inputs were whitened, for `unwhiten`.
    irreducible_loss
        What no linear map can remove from the loss on the data; only reported.
    normalization
        A text that says whether the second moments were divided by the number of samples; only
        reported.
    specialize
        Compile the field for these widths alone, see `specialized`.

    Raises
    ------
    ValueError, TypeError
        If widths are not positive integers, or too large to specialize, or shapes do not agree, or
        numbers are not finite.

    Notes
    -----
    The state holds W_1, …, W_h, each row by row. Layers are numbered 1 to h, modes from 0. The flow
    Ẇ_i = W_{i+1:h}ᵀ (Σ − W K) Kᵀ W_{1:i−1}ᵀ conserves C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}.

    References
    ----------
    WA25, section 2; BRTW22 for general input covariance.

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    >>> net.dim, net.depth, net.singular_values.tolist()
    (12, 2, [2.0, 1.0])
    >>> x = net.critical_state((0,))
    >>> float(net.loss(x)), bool(abs(net.gradient(x)).max() < 1e-15)
    (0.5, True)
    """

    gradient_flow: ClassVar[bool] = True
    always_saved: ClassVar[tuple[str, ...]] = ("loss",)

    widths: tuple[int, ...]
    target: Array
    input_root: Array | None = None
    whitening: Array | None = None
    irreducible_loss: float = 0.0
    normalization: str = "as given"
    specialize: bool = False

    def __post_init__(self) -> None:
        widths = check_integers("widths", self.widths, minimum=1)
        if len(widths) < 2:
            raise ValueError(f"widths: needs at least inputs and outputs, got {widths}")
        root, whitening = self.input_root, self.whitening
        if root is not None:
            root = check_array("input_root", root, ndim=2, shape=(widths[0], None))
            if np.linalg.matrix_rank(root / np.linalg.norm(root, axis=0)) < root.shape[1]:
                raise ValueError("input_root: needs linearly independent columns")
        if whitening is not None:
            whitening = check_array("whitening", whitening, ndim=2, shape=(None, widths[0]))
        columns = widths[0] if root is None else root.shape[1]
        target = check_array("target", self.target, ndim=2, shape=(widths[-1], columns))
        check_memory("widths", sum(a * b for a, b in itertools.pairwise(widths)))
        if not isinstance(self.irreducible_loss, float):
            object.__setattr__(
                self, "irreducible_loss", check_number("irreducible_loss", self.irreducible_loss)
            )
        if check_flag("specialize", self.specialize):
            _check_small(widths, target.shape[1], root is None)
        fields = {"widths": widths, "target": target, "input_root": root, "whitening": whitening}
        for name, value in fields.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    @classmethod
    @known_options
    def from_data(
        cls,
        X: ArrayLike | xr.DataArray,
        Y: ArrayLike | xr.DataArray,
        hidden: Sequence[int],
        *,
        whiten: bool = True,
        normalize: bool = True,
    ) -> "LinearNetwork":
        """Return the network that fits outputs Y to inputs X.

        Parameters
        ----------
        X, Y
            Inputs (d_0 × samples) and outputs (d_h × samples), samples in columns; DataArrays with
            a dim ``sample`` are transposed as needed.
        hidden
            Hidden widths d_1, …, d_{h−1}; ``()`` for a single layer.
        whiten
            Replace X by C^{-1/2} X, on the range of C if that is singular (d_0 becomes its rank).
        normalize
            Divide second moments by the number of samples.

        Raises
        ------
        ValueError, TypeError
            If shapes do not agree, numbers are not finite, or X is zero.

        Examples
        --------
        >>> import numpy as np, dlnds as dl
        >>> X = np.random.default_rng(0).normal(size=(3, 50))
        >>> net = dl.LinearNetwork.from_data(X, X[:2], hidden=(4,))
        >>> net.widths, float(net.loss(net.critical_state((0, 1)))) < 1e-28
        ((3, 4, 2), True)
        """
        inputs, outputs = _samples("X", X), _samples("Y", Y)
        if inputs.shape[1] != outputs.shape[1]:
            raise ValueError(
                f"Y: needs as many samples (columns) as X, got {outputs.shape[1]} for "
                f"{inputs.shape[1]}; transpose data that have samples in rows"
            )
        if not inputs.any():
            raise ValueError("X: all inputs are zero, as constant ones are once they are centred")
        parts = moments.from_data(inputs, outputs, check_flag("normalize", normalize))
        return cls._from_parts(parts, hidden, whiten, _NORMALIZED[bool(normalize)])

    @classmethod
    @known_options
    def from_moments(
        cls, M: ArrayLike, C: ArrayLike, hidden: Sequence[int], *, whiten: bool = False
    ) -> "LinearNetwork":
        """Return the network of the moments M = E[y xᵀ] (d_h × d_0) and C = E[x xᵀ] (d_0 × d_0).

        Parameters
        ----------
        M, C
            Second moments; C symmetric positive semidefinite.
        hidden
            Hidden widths d_1, …, d_{h−1}.
        whiten
            Replace x by C^{-1/2} x, on the range of C.

        Raises
        ------
        ValueError, TypeError
            If shapes do not agree, C is not positive semidefinite, or M has a part outside its
            range.

        Examples
        --------
        >>> import dlnds as dl
        >>> net = dl.LinearNetwork.from_moments([[2.0, 0.0]], [[4.0, 0.0], [0.0, 1.0]], hidden=(3,))
        >>> net.singular_values.tolist(), net.input_root.tolist()
        ([1.0], [[2.0, 0.0], [0.0, 1.0]])
        """
        cross = check_array("M", M, ndim=2)
        covariance = check_array("C", C, ndim=2, shape=(cross.shape[1], cross.shape[1]))
        parts = moments.from_moments(cross, covariance)
        return cls._from_parts(parts, hidden, whiten, "as given")

    @classmethod
    def _from_parts(
        cls, parts: moments.Moments, hidden: Sequence[int], whiten: bool, normalization: str
    ) -> "LinearNetwork":
        whiten = check_flag("whiten", whiten)
        hidden = check_integers("hidden", hidden, minimum=1)
        target, root, loss = parts
        ends = (root.shape[1] if whiten else root.shape[0], target.shape[0])
        return cls(
            widths=(ends[0], *hidden, ends[1]),
            target=target,
            input_root=None if whiten else root,
            whitening=root if whiten else None,
            irreducible_loss=loss,
            normalization=normalization,
        )

    def specialized(self) -> "LinearNetwork":
        """Return the same network with a field that is compiled for its widths alone.

        Machine code without loops, 3 to 25 times as fast as the general field, with the same
        results up to rounding. Compilation takes a tenth of a second for widths of 4, and about
        two seconds at most, once for every tuple of widths; Numba's cache serves other processes.

        Raises
        ------
        ValueError
            If a width is above 32, or an evaluation of the field takes more than 40,000
            multiplications (widths 18, 18, 18, 18 take 34,992).

        Examples
        --------
        >>> import numpy as np, dlnds as dl
        >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
        >>> x = net.initial(rng=0)
        >>> bool(np.allclose(net.specialized().gradient(x), net.gradient(x), rtol=1e-14))
        True
        """
        return dataclasses.replace(self, specialize=True)

    # What the problem is.

    @property
    def depth(self) -> int:
        """Number of layers h."""
        return len(self.widths) - 1

    @cached_property
    def dim(self) -> int:  # type: ignore[override]
        """Number of weights."""
        return sum(rows * columns for rows, columns in self._shapes)

    @cached_property
    def _shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self.widths[1:], self.widths[:-1], strict=True))

    @property
    def whitened(self) -> bool:
        """Whether the inputs have the identity as covariance."""
        return self.input_root is None

    @cached_property
    def singular_modes(self) -> tuple[Array, Array, Array]:
        """U (d_h × m), σ (m) and V (k × m) of the target, m = min(d_h, k); read-only."""
        modes = moments.singular_modes(self.target)
        for part in modes:
            part.setflags(write=False)
        return modes

    @property
    def singular_values(self) -> Array:
        """σ_j of the target, descending, m = min(d_h, k) of them; zero beyond its rank."""
        return self.singular_modes[1].copy()

    @property
    def modes(self) -> xr.Dataset:
        """Singular values and vectors of the target, labelled.

        ``left(output, mode)`` are outputs, ``right(input, mode)`` inputs in whitened coordinates,
        and ``reading(feature, mode)`` what a mode reads from the original inputs: the map that has
        learnt all modes is left · diag(singular_value) · readingᵀ.
        """
        left, sigma, right = self.singular_modes
        root = self.whitening if self.whitened else self.input_root
        reading = right if root is None else scipy.linalg.pinv(root).T @ right
        variables = {
            "singular_value": ("mode", sigma),
            "left": (("output", "mode"), left),
            "right": (("input", "mode"), right),
            "reading": (("feature", "mode"), reading),
        }
        coords = {"mode": np.arange(len(sigma))}
        return schema.finish(xr.Dataset(variables, coords=coords), "modes", self.attributes())

    @property
    def max_rank(self) -> int:
        """r_max, the largest rank of a critical point: min(d_0, …, d_h, rank Σ)."""
        return min(*self.widths, int(np.count_nonzero(self.singular_modes[1])))

    @property
    def lowest_loss(self) -> float:
        """The loss at the global minima: zero unless a bottleneck leaves modes out."""
        return 0.5 * float(np.sum(self.singular_modes[1][self.max_rank :] ** 2))

    @property
    def assumptions(self) -> xr.Dataset:
        """The assumptions of the theory checked on this problem; see `check_assumptions`."""
        return moments.check_assumptions(self.singular_values, self.widths)

    def __repr__(self) -> str:
        """Give the widths and how the inputs are treated."""
        inputs = "whitened" if self.whitened else "raw"
        return f"LinearNetwork({' -> '.join(map(str, self.widths))}, {inputs} inputs)"

    # What the engines ask.

    @property
    def params(self) -> Params:  # type: ignore[override]
        """Sizes and numbers for the kernels, a copy of its own for each caller."""
        starts = np.cumsum([0, *(rows * columns for rows, columns in self._shapes)])
        sums = np.cumsum([0, *self.widths])
        head = [self.depth, self.target.shape[1], int(self.whitened)]
        parts = [self.target] if self.input_root is None else [self.target, self.input_root]
        return np.array([*head, *self.widths, *starts, *sums], np.int64), np.concatenate(
            [part.ravel() for part in parts]
        )

    @property
    def _narrow_input(self) -> bool:
        return bool(self.target.shape[1] <= self.widths[-1])

    @property
    def field(self) -> Kernel:  # type: ignore[override]
        """Minus the gradient of the loss, computed from the narrower end of the network."""
        if self.specialize:
            return straight.field(self.widths, self.target.shape[1], self.whitened)
        return kernels.field_from_inputs if self._narrow_input else kernels.field_from_outputs

    @property
    def jvp(self) -> Kernel:  # type: ignore[override]
        """Minus the Hessian times a direction."""
        return kernels.jvp_from_inputs if self._narrow_input else kernels.jvp_from_outputs

    @property
    def jacobian(self) -> Kernel:  # type: ignore[override]
        """Minus the Hessian."""
        return kernels.jacobian

    @property
    def error_scale(self) -> Kernel:  # type: ignore[override]
        """The root mean square of each layer, at the places of the layer."""
        return kernels.error_scale

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates ``layer, row, column`` of the dim ``parameter``."""
        return schema.state_coordinates(self.widths)

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the network."""
        return {
            **super().attributes(),
            "widths": np.array(self.widths, np.int64),
            "whitened": int(self.whitened),
            "normalization": self.normalization,
            "problem_digest": self.digest,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of widths, target and input root."""
        total = hashlib.sha256()
        for part in self.params:
            total.update(part.tobytes())
        return total.hexdigest()

    def reduce(self, x: Array) -> Reduction:
        """Return the network without the hidden directions that ``x`` leaves unused.

        The span of [W_i, W_{i+1}ᵀ] in R^{d_i} is constant along the flow. With orthonormal bases
        B_i of these, B_iᵀ W_i B_{i−1} flows by itself, at widths of at most d_{i−1} + d_{i+1}.
        """
        layers = self.unpack(x)
        used = [_span(w, after.T) for w, after in itertools.pairwise(layers)]
        bases = [np.eye(self.widths[0]), *used, np.eye(self.widths[-1])]
        small = dataclasses.replace(self, widths=tuple(b.shape[1] for b in bases))
        pairs = list(itertools.pairwise(bases))
        state = _flat(b.T @ w @ a for w, (a, b) in zip(layers, pairs, strict=True))

        def lift(states: Array) -> Array:
            lifted = [b @ w @ a.T for w, (a, b) in zip(small.unpack(states), pairs, strict=True)]
            return np.concatenate([w.reshape(len(states), -1) for w in lifted], axis=1)

        return Reduction(small, state, lift)

    def identify(self, x: ArrayLike) -> str:
        """Return the index set whose critical value the state is nearest to.

        Mode j counts as learnt if u_jᵀ W K v_j is nearer to σ_j than to 0.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # a diverged state is near to nothing
            strength = self._mode_strength(self._states(x))
        return schema.index_set_label(np.flatnonzero(self.is_learnt(strength)))

    def settled(self, x: Array, rtol: float) -> bool:
        """Tell whether ``x`` is a global minimum to the accuracy of the run.

        √(2 (L − L_min)) is at most 10 ``rtol`` ‖Σ‖ and a tenth of the smallest σ_j to be learnt;
        what W does between directions with σ = 0 decays algebraically and is held to 1e-4 ‖Σ‖.
        """
        total = float(np.sum(self.target**2))
        rounding = 64.0 * np.finfo(float).eps * self.lowest_loss
        residual = self._residual(self._states(x))
        left, sigma, right = self.singular_modes
        U, V = left[:, sigma > 0.0], right[:, sigma > 0.0]
        spare = residual - U @ (U.T @ residual)
        spare -= (spare @ V) @ V.T
        slow = float(np.sum(spare**2))
        excess = 0.5 * (float(np.sum(residual**2)) - slow) - self.lowest_loss
        smallest = sigma[max(self.max_rank - 1, 0)]
        near = min(10.0 * rtol * np.sqrt(total), 0.1 * smallest)
        done = excess <= 0.5 * near**2 + rounding
        return bool(done and slow <= 1e-8 * total)

    def _observables(self) -> Mapping[str, Callable[[Array], xr.Variable]]:
        def variable(
            function: Callable[[Array], Any], *dims: str
        ) -> Callable[[Array], xr.Variable]:
            return lambda states: xr.Variable(("time", *dims), function(states))

        return {
            "state": variable(lambda states: states, "parameter"),
            "loss": variable(self._loss),
            "singular_value": variable(
                lambda states: np.linalg.svd(self._product(states), compute_uv=False), "mode"
            ),
            "mode_strength": variable(self._mode_strength, "mode"),
            "product": variable(self._product, "row", "column"),
            "imbalance": variable(self._imbalance),
            "conserved": variable(self.conserved, "component"),
            "gradient_norm": variable(lambda x: np.linalg.norm(self.gradient(x), axis=-1)),
        }

    # States and what they mean.

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
        ends = np.cumsum([rows * columns for rows, columns in self._shapes])[:-1]
        parts = np.split(states, ends, axis=-1)
        stack = states.shape[:-1]
        return tuple(p.reshape(*stack, *s) for p, s in zip(parts, self._shapes, strict=True))

    def _states(self, x: ArrayLike) -> Array:
        return check_array("x", x, ndim=(1, 2, 3), shape=(self.dim,))

    def product(self, x: ArrayLike) -> Array:
        """Return the end-to-end map W (d_h × d_0) of a state, or of each in a stack."""
        return self._product(self._states(x))

    def _product(self, states: Array) -> Array:
        layers = self._layers(states)
        if self.widths[0] <= self.widths[-1]:
            return reduce(lambda product, layer: layer @ product, layers)
        return reduce(lambda product, layer: product @ layer, layers[::-1])

    def _residual(self, states: Array) -> Array:
        product = self._product(states)
        return self.target - (product if self.input_root is None else product @ self.input_root)

    def loss(self, x: ArrayLike) -> Any:
        """Return ½‖Σ − W K‖_F², the loss above `irreducible_loss`, of a state or of a stack."""
        return self._loss(self._states(x))

    def _loss(self, states: Array) -> Any:
        return 0.5 * np.sum(self._residual(states) ** 2, axis=(-2, -1))

    def _mode_strength(self, states: Array) -> Array:
        return self.image_strength(self.target - self._residual(states))

    def image_strength(self, image: Array) -> Array:
        """Return u_jᵀ W K v_j (…, mode) of images W K (…, d_h, k)."""
        left, _, right = self.singular_modes
        strength: Array = np.sum((left.T @ image) * right.T, axis=-1)
        return strength

    def is_learnt(self, strength: Array) -> NDArray[np.bool_]:
        """Tell which modes have strengths (…, mode) nearer to σ_j than to 0, where σ_j > 0."""
        sigma = self.singular_modes[1]
        learnt: NDArray[np.bool_] = (strength > 0.5 * sigma) & (sigma > 0.0)
        return learnt

    def gradient(self, x: ArrayLike) -> Array:
        """Return ∇L, minus the field, of a state or of each in a stack (…, parameter)."""
        states = self._states(x)
        field, out = jit.ready(self.field, jit.FIELD), np.empty_like(states)
        params = self.params
        for state, row in zip(states.reshape(-1, self.dim), out.reshape(-1, self.dim), strict=True):
            field(0.0, state, params, row)
        return check_finite("x", -out)

    def hessian(self, x: ArrayLike) -> Array:
        """Return the Hessian ∇²L (parameter × parameter) at a state.

        Notes
        -----
        The block of layers i ≤ j is (L_iᵀL_j) ⊗ (P_{i−1}P_{j−1}ᵀ) minus, for i < j, the product of
        W_{i+1:j−1} with P_{i−1} Rᵀ L_j; L_i = W_{i+1:h}, P_i = W_{1:i} K.
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
        A = np.zeros((ends[-1], ends[-1]))
        for i, layer in enumerate(layers, 1):
            A[ends[i] : ends[i + 1], ends[i - 1] : ends[i]] = layer
        return A

    def imbalances(self, x: ArrayLike) -> tuple[Array, ...]:
        """Return C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}, i = 1..h−1, which the flow conserves."""
        return self._imbalances(self._states(x))

    def _imbalances(self, states: Array) -> tuple[Array, ...]:
        layers = self._layers(states)
        transposed = [np.swapaxes(w, -1, -2) for w in layers]
        return tuple(
            layers[i] @ transposed[i] - transposed[i + 1] @ layers[i + 1]
            for i in range(self.depth - 1)
        )

    def _imbalance(self, states: Array) -> Array:
        norms = [np.linalg.norm(c, axis=(-2, -1)) for c in self._imbalances(states)]
        return np.max([np.zeros(states.shape[:-1]), *norms], axis=0)  # type: ignore[no-any-return]

    def conserved(self, x: ArrayLike) -> Array:
        """Return all entries of the conserved C_i as one vector, for each state of a stack."""
        states = self._states(x)
        parts = [c.reshape(*states.shape[:-1], -1) for c in self._imbalances(states)]
        return np.concatenate([np.zeros((*states.shape[:-1], 0)), *parts], axis=-1)

    def unwhiten(self, product: ArrayLike) -> Array:
        """Return an end-to-end map in the original inputs: W K⁺ with the whitening root K."""
        maps = check_array(
            "product", product, ndim=(2, 3), shape=(len(self.target), self.widths[0])
        )
        return maps if self.whitening is None else maps @ scipy.linalg.pinv(self.whitening)

    # States to start from.

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
            - ``"aligned"``: balanced, in the singular basis of the target, with the singular values
              ``scale`` in every layer: one number, or one for each of min(d_0, …, d_h) modes.
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
        kind = check_choice("kind", kind, starts.KINDS)
        if (delta is None) != (kind != "delta_balanced"):
            raise ValueError(
                f"delta: belongs to kind 'delta_balanced', got {delta!r} with {kind!r}"
            )
        generator = check_generator("rng", rng)
        if kind == "aligned":
            return starts.aligned(self, scale)
        size = check_number("scale", scale, minimum=0.0)
        layers: Sequence[Array] = [generator.normal(size=shape) for shape in self._shapes]
        if kind != "gaussian":
            layers = starts.balanced(self, layers, generator)
        with np.errstate(over="ignore"):
            state = check_finite("scale", size * _flat(layers))
        if delta is None:
            return state
        bound = check_number("delta", delta, minimum=0.0)
        return starts.unbalanced(self, state, generator.normal(size=self.dim), bound)

    def critical_state(self, modes: Sequence[int]) -> Array:
        """Return the canonical critical point A_S that has learnt the given modes.

        Balanced, and aligned with W_S = U_S U_Sᵀ Σ K⁺: every layer has the singular values of W_S
        to the power 1/h, on hidden units 1..r. Whitened problems: σ_j^{1/h}.

        Parameters
        ----------
        modes
            The index set S, modes numbered from 0 with descending σ_j.

        Raises
        ------
        ValueError, TypeError
            If a mode does not exist, comes twice, has σ_j = 0, or there are more than `max_rank`;
            for a single layer if any positive mode is missing (it has one critical point).

        References
        ----------
        WA25; AMG24 for general covariance.

        Examples
        --------
        See `LinearNetwork`.
        """
        left, sigma, right = self.singular_modes
        chosen = list(check_integers("modes", modes, minimum=0, maximum=len(sigma) - 1))
        if len(set(chosen)) != len(chosen):
            raise ValueError(f"modes: needs different modes, got {tuple(chosen)}")
        if len(chosen) > self.max_rank or not sigma[chosen].all():
            raise ValueError(
                f"modes: needs at most {self.max_rank} modes with σ_j > 0, got {tuple(chosen)}"
            )
        if self.depth == 1 and len(chosen) < np.count_nonzero(sigma):
            raise ValueError("modes: a single layer has one critical point, with all modes learnt")
        chosen.sort()
        U, s, V = left[:, chosen], sigma[chosen], right[:, chosen]
        if self.input_root is not None:
            image = s[:, None] * (V.T @ scipy.linalg.pinv(self.input_root))
            inner, s, Vt = np.linalg.svd(image, full_matrices=False)
            U, V = U @ inner, Vt.T
        frames = moments.canonical_frames(self.widths, U, V)
        return _flat(moments.balanced_layers(frames, s ** (1.0 / self.depth)))


LinearNetwork.__init__ = known_options(LinearNetwork.__init__)  # type: ignore[method-assign]


def check_network(net: object) -> None:
    """Refuse what is no network."""
    if not isinstance(net, LinearNetwork):
        raise TypeError(f"net: needs a LinearNetwork, got {type(net).__name__}")


def _check_small(widths: tuple[int, ...], k: int, whitened: bool) -> None:
    """Refuse to specialize a network whose field would take too long to compile."""
    widest = max(*widths, k)
    if widest > straight.WIDEST:
        raise ValueError(f"widths: specialize needs at most {straight.WIDEST}, got {widest}")
    count, most = straight.multiplications(widths, k, whitened), straight.MOST_MULTIPLICATIONS
    if count > most:
        raise ValueError(
            f"widths: specialize needs a field of at most {most} multiplications, got {count} for "
            f"{widths}"
        )


def _span(*blocks: Array) -> Array:
    """Return an orthonormal basis (at least one column) of the columns of all blocks."""
    scaled = [block / max(float(np.linalg.norm(block)), np.finfo(float).tiny) for block in blocks]
    U, s, _ = np.linalg.svd(np.hstack(scaled), full_matrices=False)
    rank = np.count_nonzero(s > len(U) * np.finfo(float).eps)
    return U[:, : max(1, int(rank))]


def _flat(layers: Iterable[Array]) -> Array:
    return np.concatenate([np.ravel(layer) for layer in layers])


def _samples(name: str, data: ArrayLike | xr.DataArray) -> Array:
    """Return data as (features, samples)."""
    if isinstance(data, xr.DataArray) and "sample" in data.dims:
        data = data.transpose(..., "sample")
    return check_array(name, data, ndim=2)
