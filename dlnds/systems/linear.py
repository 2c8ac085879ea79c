"""Deep linear networks: gradient flow of the layers."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy  # loads its modules when they are used
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds._kernels import decayed, low_rank, straight
from dlnds._kernels import linear as kernels
from dlnds.arrays import Array, Flags, Integers, Kernel, Params
from dlnds.errors import (
    check_array,
    check_choice,
    check_flag,
    check_integers,
    check_memory,
    check_names,
    check_number,
    check_squares,
    finite,
    known_options,
    row_names,
)
from dlnds.systems import varied
from dlnds.systems.network import (
    LayeredSystem,
    check_decay,
    check_rows,
    check_undecayed,
    check_widths,
    departing,
    labelled_data,
    variable,
)
from dlnds.systems.protocol import Limit, Numerics, Reduction, Theory, ended, unchanged, words_of
from dlnds.systems.varied import fitting_size
from dlnds.theory import (
    coordinates,
    decayed_rates,
    moments,
    names,
    orbits,
    penalized,
    rates,
    spectra,
    strings,
    symmetry,
    tolerances,
)
from dlnds.theory.coordinates import flat, is_identity, layers_of, product

#: Widths above which states are integrated as they are: turning them costs more than it gives.
WIDEST_BASIS = 512
#: What turns of all levels leave as it is.
UNAFFECTED = frozenset(
    {"loss", "loss_rate", "singular_value", "mode_strength", "imbalance", "gradient_norm"}
)

#: Multiplications of a field that is compiled for its widths in half a second.
QUICK_MULTIPLICATIONS = 10_000

#: Weights of the networks of unlearnt modes that are kept with a network for other runs.
MOST_KEPT = 2**16

#: What a network in coordinates other than those of the data does not have.
NAMELESS: dict[str, Any] = {"whitening": None, "features": (), "outputs": ()}

_NORMALIZED = {True: "moments divided by the number of samples", False: "moments not divided"}


@dataclass(frozen=True, eq=False, repr=False, init=False)
class LinearNetwork(LayeredSystem):
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
    weight_decay
        λ ≥ 0 of the loss L + ½ Σ_i λ_i ‖W_i‖²: a number, or one for each layer.
    features, outputs
        Names of the original inputs and of the outputs, which label ``modes``; ``()`` for none.

    Raises
    ------
    ValueError, TypeError
        If widths are not positive integers, or too large to specialize, or shapes do not agree, or
        numbers are not finite, or decays are negative, or names are no texts or not as many.

    Notes
    -----
    The state holds W_1, …, W_h, each row by row. Layers are numbered 1 to h, modes from 0. The flow
    Ẇ_i = W_{i+1:h}ᵀ (Σ − W K) Kᵀ W_{1:i−1}ᵀ conserves C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}.

    With weight decay λ, the same for all layers, C_i(t) = e^{−2λt} C_i(0). ``loss`` then has the
    penalty in it, ``data_loss`` has not. Functions that rest on the landscape without decay refuse
    such a network by name.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362), section 2; BRTW22 (Bah, Rauhut, Terstiege &
    Westdickenberg, arXiv:1910.05505) for general input covariance.

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

    _fields = (kernels.field_from_inputs, kernels.field_from_outputs)
    _low_rank_step = staticmethod(low_rank.own_step)
    _jvps = (kernels.jvp_from_inputs, kernels.jvp_from_outputs)
    _jacobian = staticmethod(kernels.jacobian)

    widths: tuple[int, ...]
    target: Array
    input_root: Array | None
    whitening: Array | None
    irreducible_loss: float
    normalization: str
    specialize: bool
    weight_decay: float | tuple[float, ...]
    features: tuple[str, ...]
    outputs: tuple[str, ...]

    @known_options
    def __init__(
        self,
        widths: Sequence[int],
        target: ArrayLike,
        input_root: ArrayLike | None = None,
        whitening: ArrayLike | None = None,
        irreducible_loss: float = 0.0,
        normalization: str = "as given",
        specialize: bool = False,
        weight_decay: float | Sequence[float] = 0.0,
        features: Sequence[str] = (),
        outputs: Sequence[str] = (),
    ) -> None:
        widths = check_widths(widths)
        root = None if input_root is None else _check_root(input_root, widths[0])
        if whitening is not None:
            whitening = check_array("whitening", whitening, ndim=2, shape=(None, widths[0]))
        columns = widths[0] if root is None else root.shape[1]
        target = check_array("target", target, ndim=2, shape=(widths[-1], columns))
        check_squares("target", target)
        original = widths[0] if root is not None or whitening is None else len(whitening)
        if check_flag("specialize", specialize):
            _check_small(widths, columns, root is None)
        if not isinstance(irreducible_loss, float):  # NaN is one that is not known
            irreducible_loss = check_number("irreducible_loss", irreducible_loss)
        fields = {
            "widths": widths,
            "target": target,
            "input_root": root,
            "whitening": whitening,
            "irreducible_loss": irreducible_loss,
            "normalization": normalization,
            "specialize": specialize,
            "weight_decay": check_decay(weight_decay, len(widths) - 1),
            "features": check_names("features", features, original),
            "outputs": check_names("outputs", outputs, widths[-1]),
        }
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
        weight_decay: float | Sequence[float] = 0.0,
    ) -> LinearNetwork:
        """Return the network that fits outputs Y to inputs X.

        Parameters
        ----------
        X, Y
            Inputs (d_0 × samples) and outputs (d_h × samples), samples in columns; DataArrays with
            a dim ``sample`` are transposed as needed. Names of their rows label ``modes``.
        hidden
            Hidden widths d_1, …, d_{h−1}; ``()`` for a single layer.
        whiten
            Replace X by C^{-1/2} X, on the range of C if that is singular (d_0 becomes its rank).
        normalize
            Divide second moments by the number of samples.
        weight_decay
            λ of the layers of the network, which see whitened inputs.

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
        inputs, outputs = labelled_data(X, "Y", Y, ndim=2)
        parts = moments.from_data(inputs, outputs, check_flag("normalize", normalize))
        words = _NORMALIZED[bool(normalize)]
        names = {"features": row_names(X), "outputs": row_names(Y)}
        return cls._from_parts(parts, hidden, whiten, words, weight_decay, **names)

    @classmethod
    @known_options
    def from_moments(
        cls,
        M: ArrayLike,
        C: ArrayLike,
        hidden: Sequence[int],
        *,
        whiten: bool = False,
        weight_decay: float | Sequence[float] = 0.0,
        features: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> LinearNetwork:
        """Return the network of the moments M = E[y xᵀ] (d_h × d_0) and C = E[x xᵀ] (d_0 × d_0).

        Parameters
        ----------
        M, C
            Second moments; C symmetric positive semidefinite. Of tables and DataArrays the names of
            rows and columns label ``modes``; those of inputs have to be in the same order in both.
            A DataArray M with a dim ``feature`` is transposed as needed.
        hidden
            Hidden widths d_1, …, d_{h−1}.
        whiten
            Replace x by C^{-1/2} x, on the range of C.
        weight_decay
            λ of the layers of the network.
        features, outputs
            Names of inputs and outputs, ``()`` for none; None takes those of M and C.

        Raises
        ------
        ValueError, TypeError
            If shapes, or names, do not agree, C is not positive semidefinite, or M has a part
            outside its range.

        Examples
        --------
        >>> import dlnds as dl
        >>> net = dl.LinearNetwork.from_moments([[2.0, 0.0]], [[4.0, 0.0], [0.0, 1.0]], hidden=(3,))
        >>> net.singular_values.tolist(), net.input_root.tolist()
        ([1.0], [[2.0, 0.0], [0.0, 1.0]])
        """
        if isinstance(M, xr.DataArray) and "feature" in M.dims:
            M = M.transpose(..., "feature")
        cross = check_array("M", M, ndim=2)
        covariance = check_array("C", C, ndim=2, shape=(cross.shape[1], cross.shape[1]))
        inputs = [row_names(M, 1), row_names(C, 0), row_names(C, 1)]
        inputs = [own for own in inputs if own] or [()]
        for other in inputs[1:]:
            if other != inputs[0]:
                raise ValueError(
                    f"C: needs the same inputs in the same order, got {inputs[0]} and {other}"
                )
        names = {
            "features": inputs[0] if features is None else features,
            "outputs": row_names(M) if outputs is None else outputs,
        }
        parts = moments.from_moments(cross, covariance)
        return cls._from_parts(parts, hidden, whiten, "as given", weight_decay, **names)

    @classmethod
    def _from_parts(
        cls,
        parts: moments.Moments,
        hidden: Sequence[int],
        whiten: bool,
        normalization: str,
        weight_decay: Any,
        **names: Any,
    ) -> LinearNetwork:
        whiten = check_flag("whiten", whiten)
        hidden = check_integers("hidden", hidden, minimum=1, ordered=True)
        target, root, loss = parts
        widths = (root.shape[1] if whiten else root.shape[0], *hidden, target.shape[0])
        check_memory("hidden", sum(a * b for a, b in itertools.pairwise(widths)))
        return cls(
            widths=widths,
            target=target,
            input_root=None if whiten else root,
            whitening=root if whiten else None,
            irreducible_loss=loss,
            normalization=normalization,
            weight_decay=weight_decay,
            **names,
        )

    def specialized(self) -> LinearNetwork:
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

    @cached_property
    def problem(self) -> moments.Problem:
        """What formulas of `theory` take in place of a network."""
        return moments.Problem(self.widths, self.target, self.input_root, self.singular_modes)

    @cached_property
    def _data(self) -> tuple[moments.Problem, float]:
        rest = 0.0 if np.isnan(self.irreducible_loss) else 2.0 * self.irreducible_loss
        return self.problem, float(np.sum(self.target**2)) + rest

    @property
    def quadratic(self) -> rates.Quadratic:
        """What bounds of rates need of the loss."""
        return rates.of_problem(self.problem)

    @cached_property
    def decayed_minimum(self) -> decayed_rates.Orbit | None:
        """The global minima under the same weight decay of all layers, of whitened inputs."""
        if not self.is_decayed or not self.whitened or isinstance(self.weight_decay, tuple):
            return None
        return decayed_rates.least_orbit(self.problem, self.weight_decay)

    @property
    def square_factors(self) -> LinearNetwork:
        """The network of the layers that a state holds, as of a `ProductFlow`: itself."""
        return self

    @property
    def singular_values(self) -> Array:
        """σ_j of the target, descending, m = min(d_h, k) of them; zero beyond its rank."""
        return self.singular_modes[1].copy()

    @property
    def modes(self) -> xr.Dataset:
        """Singular values and vectors of the target, labelled.

        ``left(output, mode)`` are outputs, ``right(input, mode)`` inputs in whitened coordinates,
        and ``reading(feature, mode)`` what a mode reads from the original inputs: the map that has
        learnt all modes is left · diag(singular_value) · readingᵀ. Outputs and features have their
        names, if the network knows them.
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
        names = {"output": self.outputs, "feature": self.features}
        labels = {dim: list(words) for dim, words in names.items() if words}
        return schema.finish(xr.Dataset(variables, labels), "modes", self.attributes())

    @cached_property
    def max_rank(self) -> int:
        """r_max, the largest rank of a critical point: min(d_0, …, d_h, rank Σ).

        With weight decay of whitened inputs only modes that it leaves a root are counted.
        """
        return min(self._most_learnt, self._n_roots)

    @property
    def _most_learnt(self) -> int:
        """How many modes a map of these widths can learn."""
        return min(*self.widths, int(np.count_nonzero(self.singular_modes[1])))

    @property
    def _n_roots(self) -> int:
        """How many modes may have sizes under weight decay; of raw inputs this is not known."""
        sigma = self.singular_modes[1]
        if not self.whitened or not self.is_decayed:
            return len(sigma)
        return int(np.count_nonzero(penalized.counts(sigma, self.mean_decay, self.depth)))

    @property
    def critical_ranks(self) -> tuple[int, int]:
        """The smallest and the largest rank of critical points; a single layer has one of these."""
        return 0 if self.depth > 1 else self.max_rank, self.max_rank

    @property
    def lowest_loss(self) -> float:  # type: ignore[override]
        """The loss at the global minima: zero unless a bottleneck leaves modes out.

        With weight decay λ_i, and its penalty: that of the same λ, their geometric mean, in all
        layers. What a map costs at least is ½ h λ Σ_j p_j^{2/h}, p_j its singular values. If a
        layer has no decay it is an infimum, and no minimum. Of raw inputs there is no closed form:
        NaN.
        """
        sigma = self.singular_modes[1]
        if not self.mean_decay:
            return 0.5 * float(np.sum(sigma[self._most_learnt :] ** 2))
        if not self.whitened:
            return math.nan
        return penalized.least_loss(sigma, min(self.widths), self.mean_decay, self.depth)

    @property
    def assumptions(self) -> xr.Dataset:
        """The assumptions of the theory checked on this problem; see `check_assumptions`."""
        return check_assumptions(self)

    def __repr__(self) -> str:
        """Give the widths and how the inputs are treated."""
        inputs = "whitened" if self.whitened else "raw"
        words = [" -> ".join(map(str, self.widths)), f"{inputs} inputs", *self._decay_words]
        return f"LinearNetwork({', '.join(words)})"

    # What the engines ask.

    @property
    def params(self) -> Params:  # type: ignore[override]
        """Sizes and numbers for the kernels, a copy of its own for each caller."""
        sizes, numbers = self._packed
        return sizes.copy(), numbers.copy()

    @cached_property
    def _packed(self) -> Params:
        if self.input_root is None:
            return self._with_decays(kernels.WHITENED, self.target)
        return self._with_decays(kernels.ROOT, self.target, self.input_root)

    @property
    def field(self) -> Kernel:  # type: ignore[override]
        """Minus the gradient of the loss, computed from the narrower end of the network."""
        if self.specialize:
            k, decays = self.target.shape[1], self.is_decayed
            return straight.field(self.widths, k, self.whitened, decays)
        return super().field

    @property
    def numerics(self) -> Numerics:
        """How to integrate the flow: in the singular basis of the target, without learnt modes."""
        return self._numerics

    @cached_property
    def _numerics(self) -> Numerics:
        found = super().numerics
        if self.specialize:
            count = straight.multiplications(self.widths, self.target.shape[1], self.whitened)
            found = found._replace(
                field_cost=0.3 * count,
                error_scale=straight.error_scale(self.widths),
                own_step=None,
            )
            if not self.is_decayed:
                found = found._replace(holds=straight.holds(self.widths))
        tangent = decayed.tangent(kernels.tangent) if self.is_decayed else kernels.tangent
        return found._replace(
            tangent=None if self._wide_input else tangent,
            working_basis=self._working_basis,
            aligned=self._in_modes,
            deflate=self._deflate,
            straight=self._straight,
            unaffected=UNAFFECTED | ({"data_loss"} if self.is_decayed else set()),
        )

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the network."""
        return {
            **super().attributes(),
            "whitened": int(self.whitened),
            "normalization": self.normalization,
        }

    def _straight(self) -> LinearNetwork | None:
        """Return the network with a field for its widths alone, None if that takes long to make."""
        k = self.target.shape[1]
        count = straight.multiplications(self.widths, k, self.whitened)
        small = max(*self.widths, k) <= straight.WIDEST and count <= QUICK_MULTIPLICATIONS
        return self.specialized() if small and not self.specialize else None

    def _working_basis(self, states: Array) -> Reduction | None:
        """Return the network in the singular basis of the target, hidden units sorted by size.

        There what has not been learnt yet is held by weights of its own: neither the rounding nor
        the errors of those already learnt reach it. Raw inputs are turned until K V is triangular.
        """
        return None if max(self.widths) > WIDEST_BASIS else self._in_modes(states)

    def _in_modes(self, states: Array) -> Reduction | None:
        """Return the same of networks of any width, None where nothing is to be turned."""
        outer, inner = self._mode_basis
        layers = list(layers_of(self.widths, states))
        if self.in_mode_basis is not self:
            layers[0] = layers[0] @ inner
            layers[-1] = outer.T @ layers[-1]
        hidden = coordinates.unit_bases(layers)
        if self.in_mode_basis is self and all(map(is_identity, hidden)):
            return None
        turned = symmetry.turned(layers, [coordinates.transposed(basis) for basis in hidden])
        if states.ndim > 1:
            inner, outer = (
                np.broadcast_to(b, (*states.shape[:-1], *b.shape)) for b in (inner, outer)
            )
        lift = coordinates.Turning(self.widths, [inner, *hidden, outer])
        return Reduction(self.in_mode_basis, coordinates.flat_rows(turned), lift, unchanged)

    @cached_property
    def _full_modes(self) -> tuple[Array, Array]:
        """U and V of the target, completed to orthogonal matrices."""
        left, sigma, right = self.singular_modes
        outer, _, inner = np.linalg.svd(self.target, full_matrices=True)
        pairs, m = ((left, outer), (right, inner.T)), len(sigma)
        U, V = (np.hstack([modes, basis[:, m:]]) for modes, basis in pairs)
        return U, V

    @cached_property
    def _mode_basis(self) -> tuple[Array, Array]:
        """Orthogonal bases of outputs and inputs in which the target is diagonal."""
        sigma = np.zeros_like(self.target)
        np.fill_diagonal(sigma, self.singular_modes[1])
        lower = self.input_root is None or not np.triu(self.input_root, 1).any()
        if lower and np.array_equal(self.target, sigma):
            return np.eye(self.widths[-1]), np.eye(self.widths[0])
        outer, V = self._full_modes
        if self.input_root is None:
            return outer, V
        reversed_columns = (self.input_root @ V)[:, ::-1]
        Q, _ = np.linalg.qr(reversed_columns, mode="complete")
        k = reversed_columns.shape[1]
        return outer, np.hstack([Q[:, :k][:, ::-1], Q[:, k:]])

    @cached_property
    def in_mode_basis(self) -> LinearNetwork:
        """The network in the coordinates of `_mode_basis`; itself if it is there already."""
        outer, inner = self._mode_basis
        if is_identity(outer) and is_identity(inner):
            return self
        target, root = np.zeros_like(self.target), self.input_root
        np.fill_diagonal(target, self.singular_modes[1])
        if root is not None:
            root = np.tril(inner.T @ root @ self._full_modes[1])
        return dataclasses.replace(self, target=target, input_root=root, **NAMELESS)

    def _deflate(self, x: Array, rtol: float) -> Reduction | None:
        """Return the network of the modes that are still to be learnt, if the others have been.

        Block-diagonal layers blkdiag(A_i, Z_i), with A_h…A_1 at its target, are an invariant space:
        the A_i rest, and the Z_i flow as a network without these modes and units (WA25; theory of
        the local product). So it is near by, up to terms of second order in the weights that join
        the blocks; these must be below 1e-10 of the learnt ones.
        """
        learnt = self._at_target(x, rtol)
        if learnt is None:
            return None
        turn = self._working_basis(x) or Reduction(self, x, unchanged, unchanged)
        chosen = _carriers(layers_of(self.widths, turn.state), learnt)
        if chosen is None:
            return None
        kept = [np.flatnonzero(~carrying) for carrying in chosen]
        small = self._without(tuple(learnt.tolist()))
        places, resting = coordinates.block_places(self.widths, kept), np.array(turn.state)

        def embed(states: Array) -> Array:
            whole = np.empty((len(states), resting.size))
            whole[:], whole[:, places] = resting, states
            return whole

        return Reduction(small, resting[places], lambda x: turn.lift(embed(x)), embed)

    def _without(self, learnt: tuple[int, ...]) -> LinearNetwork:
        """Return the network of the other modes, in the mode basis; small ones serve all runs."""
        found = self._parts.get(learnt)
        if found is None:
            target: Array = np.delete(np.delete(self.target, learnt, axis=0), learnt, axis=1)
            widths = tuple(d - len(learnt) for d in self.widths)
            found = dataclasses.replace(self, widths=widths, target=target, **NAMELESS)
            if (len(self._parts) + 1) * self.dim <= MOST_KEPT:
                self._parts[learnt] = found
        return found

    @cached_property
    def _parts(self) -> dict[tuple[int, ...], LinearNetwork]:
        return {}

    def _at_target(self, x: Array, rtol: float) -> Integers | None:
        """Return the modes that are learnt, in the mode basis and if others are not, or None."""
        sigma = self.singular_modes[1]
        if not self.whitened or self.depth < 2 or max(self.widths) > WIDEST_BASIS:
            return None
        if self.is_decayed:  # nothing comes to rest at its target
            return None
        layers = layers_of(self.widths, x)
        image = product(layers)
        near = np.abs(image.diagonal() - sigma) <= max(1e-3 * rtol, 1e-14) * sigma
        learnt = np.flatnonzero(near & (sigma > 0.0))
        if not learnt.size or learnt.size >= self._most_learnt:
            return None
        if np.count_nonzero(self.target) > np.count_nonzero(sigma):
            return None  # not in the mode basis
        # What joins units of different modes in a layer joins the modes in W.
        most = self.depth * tolerances.COUPLING * math.prod(map(np.linalg.norm, layers))
        joining = image[_joined(*(_among(learnt, d) for d in image.shape))]
        return None if (np.abs(joining) > most).any() else learnt

    def theory(self, x: Array) -> Theory:
        """Return what is known at a state.

        The spectrum at balanced critical points and at perfect fits. The leading part of −L at the
        origin, ⟨Σ, W K⟩ of degree h, and at points of the GL orbits of A_S, where it is that of the
        residual network.
        """
        problem, layers = self.problem, layers_of(self.widths, x)
        if self.is_decayed:
            known = super().theory(x)
            return known._replace(spectrum=lambda: self._decayed_spectrum(layers))
        known = (
            super()
            .theory(x)
            ._replace(
                spectrum=lambda: spectra.known_spectrum(problem, layers),
                dimensions=lambda: self.orbit_dimensions(x),
                inertia=lambda: self._inertia(x),
                hessian_modes=lambda: orbits.hessian_modes(problem, layers),
                descent=lambda: self._descent(x),
            )
        )
        return departing(known, problem, layers)

    def _decayed_spectrum(self, layers: Sequence[Array]) -> spectra.KnownSpectrum | None:
        if not self.whitened or isinstance(self.weight_decay, tuple):
            return None
        point = penalized.recognized(self.problem, layers, self.weight_decay)
        return point and penalized.spectrum(self.problem, point, self.weight_decay)

    def limit(self, x: Array, force: float = math.inf, rtol: float = 0.0) -> Limit:
        """Return whether a run is over, and the index set whose critical value ``x`` is nearest to.

        Mode j counts as learnt if u_jᵀ W K v_j is nearer to σ_j than to 0; of equal ones as many
        as W K has directions that are, and of more than r_max those with which P_S Σ is nearest. A
        single layer has one critical point. All critical points but the global minima are saddles,
        unless the target is zero. With weight decay of whitened inputs: those whose product is
        above the lower root, from which an aligned mode goes to the upper one; for three layers and
        more these have the marks of their roots, as in `critical_points`.
        """
        other = "saddle" if self.max_rank and not self.is_decayed else "critical_point"
        with np.errstate(over="ignore", invalid="ignore"):  # a diverged state is near to nothing
            settled = rtol > 0.0 and not self.is_decayed and self._settled(x, rtol)
        return ended(settled, force, other, lambda: self._label(x))

    def _label(self, x: Array) -> str:
        """Return the index set whose critical value a state is nearest to."""
        with np.errstate(over="ignore", invalid="ignore"):
            image = self.problem.image(product(layers_of(self.widths, x)))
        if not np.isfinite(image).all():
            return schema.index_set_label(())
        if not (self.whitened and self.mean_decay):
            return schema.index_set_label(self.problem.name_learnt(image))
        λ, h, sigma = self.mean_decay, self.depth, self.singular_modes[1]
        means = (self.decays / λ) ** 0.5  # the same map of layers that decay alike
        layers = [c * w for c, w in zip(means, layers_of(self.widths, x), strict=True)]
        if name := str(names.decayed(self.problem, layers, λ, h)):
            return name
        on_roots = penalized.attracted(sigma, self.problem.strength(image), λ, self.widths)
        return names.of_roots(np.flatnonzero(on_roots).tolist(), [1] * int(on_roots.sum()), h)

    def _settled(self, x: Array, rtol: float) -> bool:
        """Tell whether ``x`` is a global minimum to the accuracy of the run.

        √(2 (L − L_min)) is at most 10 ``rtol`` ‖Σ‖, and 1e-3 (or 10 ``rtol``, up to a tenth) of the
        smallest σ_j to be learnt, so that each mode is learnt in terms of its own size;
        what W does between directions with σ = 0 decays algebraically and is held to 1e-4 ‖Σ‖.
        """
        total, lowest, smallest = self._goal
        part = min(0.1, max(tolerances.MODE, 10.0 * rtol))
        near = min(10.0 * rtol * math.sqrt(total), part * smallest)
        rounding = 64.0 * float(np.finfo(float).eps) * lowest
        most, unseen = 0.5 * near**2 + rounding, tolerances.UNSEEN**2 * total
        layers = layers_of(self.widths, x)
        residual = self.problem.residual(product(layers))
        misfit = float(np.vdot(residual, residual))
        if total and misfit > 4.0 * (most + lowest + unseen):  # as at almost all states of a run
            return False
        left, sigma, right = self.singular_modes
        U, V = left[:, sigma > 0.0], right[:, sigma > 0.0]
        spare = residual - U @ (U.T @ residual)
        spare -= (spare @ V) @ V.T
        slow = float(np.vdot(spare, spare))
        if not total:  # W decays; it has nothing but its layers to be compared with
            sizes = [float(np.linalg.norm(w)) for w in layers]
            return bool(slow <= (10.0 * rtol * np.prod(sizes)) ** 2)
        return 0.5 * (misfit - slow) - lowest <= most and slow <= unseen

    @cached_property
    def _goal(self) -> tuple[float, float, float]:
        """‖Σ‖², the loss at the global minima, and the smallest σ_j that is to be learnt."""
        smallest = self.singular_modes[1][max(self.max_rank - 1, 0)]
        return float(np.sum(self.target**2)), self.lowest_loss, float(smallest)

    def orbit_dimensions(self, x: Array) -> tuple[int, int, bool] | None:
        """Return the dimensions of the GL orbit and of the fiber at ``x``, and if that is exact.

        Counted from ranks of products of layers. None where ``x`` is not critical.
        """
        problem, layers = self.problem, layers_of(self.widths, x)
        found = strings.learnt(problem, layers)
        if not found.is_critical(tolerances.CRITICAL):
            return None
        orbit, fiber, decision = strings.dimensions(problem, layers, found, strings.FEW_KINDS)
        return orbit, fiber.largest, fiber.complete and decision.sure and not decision.others

    def _inertia(self, x: Array) -> tuple[int, int, bool] | None:
        """Return index and nullity of the Hessian, and if they are clear.

        None where ``x`` is not critical, or turns among singular values that are equal to nine
        digits but not to rounding, of which eigenvalues know more.
        """
        problem, layers = self.problem, layers_of(self.widths, x)
        found, sigma = strings.learnt(problem, layers), problem.modes[1]
        tie = moments.rank_tolerance(max(self.target.shape)) * sigma[0]
        near = any(np.ptp(sigma[group]) > tie for group in moments.groups(sigma))
        if not found.is_critical() or (found.freedom and near):
            return None
        decision = strings.decided(problem, found)
        counted = [strings.inertia(problem, found.modes, ranks) for ranks in decision.possible]
        clear = found.is_critical(tolerances.CRITICAL) and decision.sure
        return *counted[0], clear and len(set(counted)) == 1

    def _descent(self, x: Array) -> tuple[int, float] | None:
        """Return the least and the largest order of descent that ranks of products allow."""
        found = strings.learnt(self.problem, layers_of(self.widths, x))
        if not found.is_critical():
            return None
        if len(found.modes) == self.max_rank:
            return 0, 0
        decision = strings.decided(self.problem, found)
        orders, exact = zip(
            *(strings.descent(self.problem, ranks) for ranks in decision.possible), strict=True
        )
        sure = decision.sure and all(exact)
        return min(orders), max(orders) if sure else math.inf

    def _observables(self, start: Array) -> Mapping[str, Callable[[Array], xr.Variable]]:
        return {**super()._observables(start), "mode_strength": variable(self._strength, "mode")}

    def varied(self, name: str | int, **options: Any) -> dict[str, Any]:
        """Return the critical points as weight decay, the data, or the C_i are varied."""
        if check_choice("vary", name, varied.KINDS) == "weight_decay" and self.is_decayed:
            return super().varied(name)
        check_undecayed(self, "system")
        if name == "imbalance":
            return varied.along_imbalances(self, self.problem, **options)
        if name == "target":
            return varied.along_targets(self, self.problem, self.velocity, **options)
        if name == "covariance":
            raw = self.with_covariance()
            return varied.along_covariances(raw, raw.problem, raw.velocity, **options)
        label = varied.decay_labels(self.problem, self.widths, self.depth)
        return varied.thinned(super().varied(name), self.problem) | {"label": label}

    def with_covariance(self) -> LinearNetwork:
        """Return the network of the same data with raw inputs.

        Raises
        ------
        ValueError
            If the inputs have no covariance, or a singular one.
        """
        root = self.whitening if self.input_root is None else self.input_root
        if root is None or root.shape[0] != root.shape[1]:
            got = "none" if root is None else f"rank {root.shape[1]} in {root.shape[0]} inputs"
            raise ValueError(
                "system: vary='covariance' needs an input covariance of full rank, as from_data "
                f"makes, got {got}"
            )
        kept = ("normalization", "specialize", "features", "outputs")
        words = {name: getattr(self, name) for name in kept}
        return LinearNetwork(self.widths, self.target, root, **words)

    # States and what they mean.

    @finite("x")
    def image(self, x: ArrayLike) -> Array:
        """Return W K (d_h × k), which the loss compares with the target, of a state or a stack."""
        return self.problem.image(product(self.unpack(x)))

    def _loss_of(self, maps: Array) -> Any:
        return self.problem.loss(maps)

    def _signal_of(self, W: Array) -> Array:
        return self.problem.signal(W)

    def _strength(self, states: Array) -> Array:
        return self.problem.strength(self.problem.image(product(layers_of(self.widths, states))))

    @cached_property
    def fitting_size(self) -> float:  # type: ignore[override]
        """How large maps are that fit."""
        return fitting_size(self.target, self.input_root)

    def loss_on(self, states: Array, X: ArrayLike, Y: ArrayLike) -> Array:
        """Return the loss of states (…, parameter), not checked, on other inputs and targets.

        X in the original inputs (features × samples); divided by the number of samples unless the
        moments of the problem are not.
        """
        maps = self.original_maps(product(layers_of(self.widths, states)))
        inputs, outputs = labelled_data(X, "Y", Y)
        outputs = np.atleast_2d(outputs)
        check_rows("X", len(inputs), maps.shape[-1])
        check_rows("Y", len(outputs), maps.shape[-2])
        normalize = self.normalization != _NORMALIZED[False]
        target, root, rest = moments.from_data(inputs, outputs, normalize)
        return np.asarray(0.5 * np.sum((target - maps @ root) ** 2, axis=(-2, -1)) + rest)

    def original_maps(self, maps: Array) -> Array:
        """Return maps W (…, d_h, d_0), not checked, in the original inputs."""
        return maps if self.whitening is None else maps @ scipy.linalg.pinv(self.whitening)

    def velocity(self, x: Array, signal: Array) -> Array:
        """Return the field at a state if minus the gradient of the loss by W is ``signal``.

        W_{i+1:h}ᵀ R W_{1:i−1}ᵀ of all layers i, for any R (d_h × d_0).
        """
        return flat(coordinates.sent_back(layers_of(self.widths, x), signal))

    @finite("product")
    def unwhiten(self, product: ArrayLike) -> Array:
        """Return an end-to-end map in the original inputs: W K⁺ with the whitening root K."""
        maps = check_array(
            "product", product, ndim=(2, 3), shape=(len(self.target), self.widths[0])
        )
        return self.original_maps(maps)

    def map_modes(self, left: Array, sizes: Array, right: Array) -> tuple[Array, Array, Array]:
        """Return the singular modes of the map W = left · diag(sizes) · rightᵀ K⁺."""
        if self.input_root is None:
            return left, sizes, right
        image = sizes[:, None] * (right.T @ scipy.linalg.pinv(self.input_root))
        inner, values, Vt = np.linalg.svd(image, full_matrices=False)
        return left @ inner, values, Vt.T

    # States to start from.

    def _starts(self) -> dict[str, Any]:
        return {**super()._starts(), "aligned": self._aligned}

    def _aligned(self, scale: ArrayLike, *_: Any) -> Array:
        """Return the balanced state in the singular basis of the target with such values."""
        if not self.whitened:
            raise ValueError(
                "kind: 'aligned' needs a whitened problem, where alignment is preserved"
            )
        rank = min(self.widths)
        sizes = check_array("scale", scale, ndim=(0, 1))
        if sizes.ndim and len(sizes) != rank:
            raise ValueError(
                f"scale: needs one number or one for each of {rank} modes, got {len(sizes)}"
            )
        if sizes.min() < 0.0:
            raise ValueError("scale: needs numbers of at least 0")
        left, _sigma, right = self.singular_modes
        frames = moments.canonical_frames(self.widths, left[:, :rank], right[:, :rank])
        return flat(moments.balanced_layers(frames, np.broadcast_to(sizes, (rank,))))

    @known_options
    def critical_state(
        self, modes: Sequence[int], *, branch: str | Sequence[str] = "upper"
    ) -> Array:
        """Return the canonical critical point A_S that has learnt the given modes.

        Balanced, and aligned with W_S = U_S U_Sᵀ Σ K⁺: every layer has the singular values of W_S
        to the power 1/h, on hidden units 1..r. Whitened problems: σ_j^{1/h}.

        Parameters
        ----------
        modes
            The index set S, modes numbered from 0 with descending σ_j.
        branch
            With weight decay λ and h ≥ 3 layers each mode is on the ``"upper"`` or the ``"lower"``
            root s of λ = s^{h−2} (σ_j − s^h), the size of all layers: one word, or one for each
            mode. Two layers have s² = σ_j − λ alone, one has s = σ_j / (1 + λ).

        Raises
        ------
        ValueError, TypeError
            If a mode does not exist, comes twice, has σ_j = 0, or there are more than `max_rank`;
            for a single layer if any positive mode is missing (it has one critical point); with
            weight decay if a mode has no such root, which the message says, or the network is not
            whitened, or λ not the same for all layers.

        References
        ----------
        WA25 (Wendin & Altafini, arXiv:2511.10362); AMG24 (Achour, Malgouyres & Gerchinovitz,
        arXiv:2107.13289) for general covariance.

        Examples
        --------
        >>> import dlnds as dl
        >>> net = dl.LinearNetwork((1, 1, 1, 1), [[2.0]], weight_decay=1.0)
        >>> [net.critical_state((0,), branch=word)[0].round(9) for word in ("upper", "lower")]
        [np.float64(1.0), np.float64(0.543689013)]
        """
        left, sigma, right = self.singular_modes
        chosen = list(check_integers("modes", modes, minimum=0, maximum=len(sigma) - 1))
        if len(set(chosen)) != len(chosen):
            raise ValueError(f"modes: needs different modes, got {tuple(chosen)}")
        most = self._most_learnt
        if len(chosen) > most or not sigma[chosen].all():
            raise ValueError(
                f"modes: needs at most {most} modes with σ_j > 0, got {tuple(chosen)}; "
                f"the narrowest layer has {min(self.widths)} units, the target rank "
                f"{np.count_nonzero(sigma)}"
            )
        if self.depth == 1 and len(chosen) < np.count_nonzero(sigma):
            raise ValueError("modes: a single layer has one critical point, with all modes learnt")
        words = _branches(branch, len(chosen))
        if self.is_decayed:
            return self._decayed_state(chosen, words)
        if "lower" in words:
            raise ValueError("branch: 'lower' belongs to networks with weight decay")
        chosen.sort()
        U, s, V = self.map_modes(left[:, chosen], sigma[chosen], right[:, chosen])
        return moments.canonical_state(self.widths, U, s, V)

    @cached_property
    def critical_strengths(self) -> tuple[Array, Array]:
        """What u_jᵀ W K v_j is at critical points: on the smaller and on the larger root.

        That is 0 and σ_j without weight decay. Of a mode without such a root, and the smaller one
        of a double root, it is 0.
        """
        sigma = self.singular_values
        if not self.is_decayed:
            return np.zeros_like(sigma), sigma.copy()
        if not (self.whitened and self.mean_decay):
            raise ValueError(
                "net: needs whitened inputs and a weight decay above 0 in all layers, or none, got "
                f"{'whitened' if self.whitened else 'raw'} inputs and {self.weight_decay}"
            )
        signs = np.array([[-1], [1]]) * np.ones(len(sigma), np.int64)
        sizes = penalized.sizes(sigma, signs, self.mean_decay, self.depth)
        lower, upper = np.nan_to_num(sizes) ** self.depth
        return np.where(self._on_folds, 0.0, lower), upper

    @property
    def _on_folds(self) -> Flags:
        """Which modes have one root where others have two."""
        on_folds = penalized.folded(self.singular_values, self.mean_decay, self.depth)
        return on_folds & (self.depth >= 3)

    def orbit_time(self, lost: int, gained: int, start: float, end: float) -> float:
        """Return the time in which a mode grows from a strength to another along an edge.

        NaN where it does not, and under weight decay of turns (``lost`` ≥ 0), and where layers
        decay differently: these are not known.
        """
        from dlnds.theory import laws  # here, since loading it takes long

        sigma, depth = self.singular_values, self.depth
        if not self.is_decayed:
            return laws.orbit_time(sigma, lost, gained, depth, start, end)
        if lost >= 0 or isinstance(self.weight_decay, tuple):
            return math.nan
        lower, upper = self.critical_strengths
        roots = float(lower[gained]), float(upper[gained])
        decay, top = self.weight_decay, float(sigma[gained])
        return laws.decayed_growth_time(start, end, top, decay, depth, roots)

    def point_name(self, modes: Sequence[int], signs: Sequence[int]) -> str:
        """Return the name of a critical point with modes on larger (1) and smaller roots (−1)."""
        if not self.is_decayed:
            return schema.index_set_label(modes)
        own = np.where(self._on_folds[list(modes)], 0, signs).tolist()
        return names.of_roots(modes, own, self.depth)

    def point_loss(self, modes: Sequence[int], signs: Sequence[int]) -> float:
        """Return the loss of such a point, with the penalty."""
        if not self.is_decayed:
            return 0.5 * float(np.sum(np.delete(self.singular_values, modes) ** 2))
        sizes = self._decayed_sizes(modes, signs)
        return float(penalized.losses(self.singular_values, sizes, self.mean_decay, self.depth))

    def _decayed_sizes(self, modes: Sequence[int], signs: Sequence[int]) -> Array:
        """Return the sizes of all modes, with some on larger (1) and smaller roots (−1)."""
        sigma, roots = self.singular_values, np.zeros(len(self.singular_values), np.int64)
        roots[list(modes)] = signs
        return penalized.sizes(sigma, roots[None], self.mean_decay, self.depth).ravel()

    @property
    def equal_decay(self) -> float:
        """The decay of all layers, of a whitened network; others have no closed forms."""
        if not self.whitened or isinstance(self.weight_decay, tuple):
            raise ValueError(
                "net: needs whitened inputs and the same weight decay in all layers, got "
                f"{'whitened' if self.whitened else 'raw'} inputs and {self.weight_decay}"
            )
        return self.weight_decay

    def _decayed_state(self, chosen: list[int], words: list[str]) -> Array:
        """Return the critical state with each mode on its root."""
        left, sigma, right = self.singular_modes
        decay, depth = self.equal_decay, self.depth
        if "lower" in words and depth < 3:
            raise ValueError(f"branch: 'lower' needs three layers or more, got {depth}")
        signs = [1 if word == "upper" else -1 for word in words]
        sizes = self._decayed_sizes(chosen, signs)[chosen]
        for j, size, word in zip(chosen, sizes, words, strict=True):
            if np.isnan(size):
                most = penalized.most_decay(sigma[j], depth)
                raise ValueError(
                    f"modes: mode {j} has no {word} root from a weight decay of {most:g}, "
                    f"got λ = {decay:g}"
                )
        order = np.argsort(chosen)
        places = np.array(chosen, np.int64)[order]
        frames = moments.canonical_frames(self.widths, left[:, places], right[:, places])
        return flat(moments.balanced_layers(frames, sizes[order]))


def _branches(branch: Any, count: int) -> list[str]:
    """Return the root of each mode, ``"upper"`` or ``"lower"``."""
    words = [branch] * count if isinstance(branch, str) or not np.iterable(branch) else list(branch)
    if len(words) != count:
        raise ValueError(
            f"branch: needs one word or one for each of {count} modes, got {len(words)}"
        )
    return [check_choice("branch", word, ("upper", "lower")) for word in words or []]


def check_network(
    net: object, *, with_decay: bool = False, wanted: str = "a LinearNetwork"
) -> None:
    """Refuse what is no such network, and weight decay unless it is allowed.

    ``wanted`` says what is, where others are as well.
    """
    if not isinstance(net, LinearNetwork):
        raise TypeError(f"net: needs {wanted}, got {words_of(net)}")
    if not with_decay:
        check_undecayed(net)


def _carriers(layers: Sequence[Array], learnt: Integers) -> list[Flags] | None:
    """Tell which units of all levels carry learnt modes, or return None if others are joined."""
    chosen, blocks, joining = [_among(learnt, layers[0].shape[1])], [], []
    for i, w in enumerate(layers, 1):
        before = chosen[-1]
        reached = w[:, before]
        last = i == len(layers)
        order = learnt if last else np.argsort(-np.linalg.norm(reached, axis=1))
        units = _among(order[: len(learnt)], len(w))
        blocks.append(reached[units])
        joining.append(w[_joined(units, before)])
        chosen.append(units)
    smallest = np.linalg.svd(np.array(blocks), compute_uv=False).min()
    largest = np.abs(np.concatenate(joining)).max(initial=0.0)
    return chosen if largest <= tolerances.COUPLING * smallest else None


def _among(places: Integers, count: int) -> Flags:
    """Tell of so many places which are among some."""
    flags = np.zeros(count, bool)
    flags[places] = True
    return flags


def _joined(after: Flags, before: Flags) -> Flags:
    """Tell which entries of a layer join a unit among some to another."""
    found: Flags = after[:, None] ^ before
    return found


def _check_root(value: ArrayLike, inputs: int) -> Array:
    """Return a root of the second moments of inputs."""
    root = check_array("input_root", value, ndim=2, shape=(inputs, None))
    sizes = np.abs(root).max(axis=0)
    units = root / np.where(sizes > 0.0, sizes, 1.0)
    if np.linalg.matrix_rank(units) < root.shape[1]:
        raise ValueError("input_root: needs linearly independent columns")
    return root


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


@known_options
def check_assumptions(
    singular_values: ArrayLike | LinearNetwork,
    widths: Sequence[int] | None = None,
    *,
    rtol: float = tolerances.TIE,
) -> xr.Dataset:
    """Return whether a problem meets the assumptions of WA25, and the modes that break them.

    Parameters
    ----------
    singular_values
        σ_j of the target, descending (modes); or a network, whose widths are checked as well.
    widths
        d_0, …, d_h; without them the widths are not checked.
    rtol
        Values, or sums of squares, that differ by at most this fraction of the largest one count
        as equal.

    Returns
    -------
    xarray.Dataset
        ``holds(assumption)`` for ``distinct_singular_values``, ``distinct_subset_sums`` and
        ``wide_enough`` (every hidden width at least the number of positive σ_j): 1 yes, 0 no,
        −1 not checked (more than 22 modes, no widths). ``smallest_gap(assumption)`` is the smallest
        relative gap; ``first(conflict)`` and ``second(conflict)`` are index sets whose sums of σ_j²
        agree: up to 20, smallest sets first.

    Raises
    ------
    ValueError
        If a singular value is negative or they are not descending.

    Notes
    -----
    WA25 assume that the sums Σ_{j∈S} σ_j² over index sets S are distinct, so that each critical
    value belongs to one S.

    References
    ----------
    WA25 (Wendin & Altafini, arXiv:2511.10362)

    Examples
    --------
    >>> import dlnds as dl
    >>> check = dl.check_assumptions([5.0, 4.0, 3.0])
    >>> check.holds.values.tolist()
    [1, 0, -1]
    >>> check["first"].item(), check["second"].item()
    ('{0}', '{1,2}')
    """
    if isinstance(singular_values, LinearNetwork):
        widths = singular_values.widths if widths is None else widths
        singular_values = singular_values.singular_values
    sigma = check_array("singular_values", singular_values, ndim=1)
    rtol = check_number("rtol", rtol, minimum=0.0, maximum=1.0)
    if sigma.min() < 0.0 or np.any(np.diff(sigma) > 0.0):
        raise ValueError("singular_values: needs non-negative values in descending order")
    positive = sigma[sigma > 0.0] / max(sigma[0], np.finfo(float).tiny)
    gaps = {"distinct_singular_values": moments.smallest_gap(positive)}
    conflicts: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    gaps["distinct_subset_sums"] = np.nan
    if len(positive) <= moments.MOST_MODES_FOR_SUBSETS:
        gaps["distinct_subset_sums"], conflicts = moments.subset_conflicts(positive**2, rtol)
    holds = [-1 if np.isnan(gap) else int(gap > rtol) for gap in gaps.values()]
    wide = -1
    if widths is not None:
        hidden = check_integers("widths", widths, minimum=1)[1:-1]
        wide = int(all(width >= len(positive) for width in hidden))
    variables = {
        "holds": ("assumption", np.array([*holds, wide], np.int8)),
        "smallest_gap": ("assumption", np.array([*gaps.values(), np.nan])),
        "first": ("conflict", schema.index_set_labels(a for a, _ in conflicts)),
        "second": ("conflict", schema.index_set_labels(b for _, b in conflicts)),
    }
    found = xr.Dataset(variables, coords={"assumption": [*gaps, "wide_enough"]})
    return schema.finish(found, "assumptions", {"rtol": rtol})
