"""Riemannian gradient flow of the end-to-end map of balanced networks, at fixed rank."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from dlnds._kernels import jit
from dlnds._kernels import product as kernels
from dlnds._kernels.linear import WHITENED
from dlnds.arrays import Array, Kernel, Params
from dlnds.errors import (
    check_array,
    check_choice,
    check_finite,
    check_generator,
    check_integer,
    check_integers,
    check_memory,
    check_number,
    finite,
    known_options,
)
from dlnds.systems import varied
from dlnds.systems.graded import GradedFlow
from dlnds.systems.linear import NAMELESS, LinearNetwork
from dlnds.systems.losses import LossNetwork
from dlnds.systems.measurements import Measurements
from dlnds.systems.network import WeightSystem, check_matrices, check_undecayed, variable
from dlnds.systems.protocol import (
    Limit,
    Numerics,
    Reduction,
    SystemProtocol,
    Theory,
    check_state,
    ended,
    words_of,
)
from dlnds.theory import fixed_rank, moments, spectra, strings, symmetry, tolerances
from dlnds.theory.coordinates import Turning, flat, layers_of, product
from dlnds.theory.forms import pack_params
from dlnds.theory.spectra import KnownSpectrum


@dataclass(frozen=True, eq=False, repr=False)
class ProductFlow(SystemProtocol):
    """Gradient flow of the end-to-end map W of balanced networks, on the matrices of rank k.

    The flow of a balanced network W = W_h…W_1 moves W by Ẇ = −𝒜_W(∇ℓ(W)), which is minus the
    gradient of ℓ in the metric g_W(Z_1, Z_2) = ⟨𝒜_W^{-1} Z_1, Z_2⟩ of the manifold of rank k.

    Parameters
    ----------
    network
        The network: its data, depth and widths, whitened or raw; or a `LossNetwork`, with any loss.
    rank
        k, the rank of W, at most the smallest width.

    Raises
    ------
    ValueError, TypeError
        If there is no map of that rank.

    Notes
    -----
    𝒜_W(Z) = Σ_{j=1}^{h} (WWᵀ)^{(h−j)/h} Z (WᵀW)^{(j−1)/h}. The state holds thin factors of
    W = A Bᵀ with AᵀA = BᵀB, as layers Bᵀ (k × d_0) and A (d_h × k), each row by row: the rank is
    kept exactly, and no fractional power of a singular matrix is taken. It is fixed up to a turn of
    the k columns, O(k). For h = 2 the flow is that of the two layers Bᵀ and A as a network; for
    h = 1 it is the gradient flow in the metric that the manifold has from the space around it,
    which can reach a smaller rank in finite time: it ends there, and a run stops with the reason
    ``step_too_small``: ln s blows up. For h ≥ 2 it cannot, and if Σ has a smaller rank than
    k the k-th singular value decays for ever.
    Observables are those of a network's map, and ``log_singular_value`` and ``determinant_sign``:
    ln s of W and the sign of det W (0 below full rank), which the flow keeps. Under another loss
    than the square one, at full rank, and for h = 1 a run is integrated in columns whose sizes are
    held as logarithms: it keeps both also where s underflows, as in the example of RC20 at h = 2,
    ln det W ~ −(6t)^{2/3}/2. The columns of its ``state`` are turned along the run.
    A run to infinity without an end of its time ends as those of layers do, without a limit, where
    its force is nothing but rounding beside the data. Steps follow a singular value that fades by
    about one e-fold each: where it fades for ever on the way, as in that example, ``out_of_steps``
    comes first (t = 1e7 after 100,000 steps), and ln s tells. Whether a run that is cut off was on
    its way to infinity is not decided: near a saddle it may grow as long. Give it a last time.
    What rests on the critical points of the square loss (`critical_state`, `critical_points`, …)
    takes the flow of a `LinearNetwork` only.
    The field is no Euclidean gradient in these factors. So eigenvalues of its Jacobian are not
    those of a Hessian, though at critical points, where minus the Jacobian is the Riemannian
    Hessian, they are real.

    References
    ----------
    BRTW22 (Bah, Rauhut, Terstiege & Westdickenberg, arXiv:1910.05505); RC20 (Razin & Cohen,
    arXiv:2005.06398)

    Examples
    --------
    >>> import dlnds as dl
    >>> net = dl.LinearNetwork(widths=(3, 4, 4, 2), target=[[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> prod = dl.ProductFlow(net, rank=1)
    >>> run = dl.flow(prod, prod.initial(scale=0.1, rng=0))
    >>> run.limit, bool(abs(run.loss[-1] - 0.5) < 1e-12)
    ('{0}', True)

    Three entries that no matrix with det W > 0 has: the norm diverges.

    >>> loss = dl.losses.completion((2, 2), [0, 1, 1], [1, 0, 1], [1.0, 1.0, 0.0])
    >>> prod = dl.ProductFlow(dl.LossNetwork((2, 2, 2), loss), rank=2)
    >>> names = ["product", "log_singular_value", "determinant_sign"]
    >>> run = dl.flow(prod, prod.factor([[0.3, 0.1], [0.05, 0.2]]), (0, 1e4), save=names)
    >>> round(float(run["product"][-1, 0, 0]), 2), float(run.determinant_sign[-1])
    (39.02, 1.0)
    >>> round(float(run.log_singular_value[-1].sum()))
    -774
    """

    kind = "gradient"
    always = ("loss", "loss_rate")

    network: LinearNetwork | LossNetwork
    rank: int

    def __post_init__(self) -> None:
        if not isinstance(self.network, LinearNetwork | LossNetwork):
            raise TypeError(
                f"network: needs a LinearNetwork or LossNetwork, got {type(self.network).__name__}"
            )
        check_undecayed(self.network, "network")
        narrowest = min(self.network.widths)
        rank = check_integer("rank", self.rank, minimum=1)
        if rank > narrowest:
            raise ValueError(
                f"rank: needs at most the smallest width, {narrowest} of {self.network.widths}, "
                f"got {rank}"
            )
        object.__setattr__(self, "rank", rank)

    @property
    def is_square(self) -> bool:
        """Whether the loss is the square one, whose critical points are known."""
        return isinstance(self.network, LinearNetwork)

    @property
    def square(self) -> LinearNetwork:
        """The network, for what rests on the square loss; others are refused."""
        if not isinstance(self.network, LinearNetwork):
            raise TypeError(f"network: needs a LinearNetwork for this, got {self.network!r}")
        return self.network

    @cached_property
    def factors(self) -> LinearNetwork | LossNetwork:
        """The network of the two layers Bᵀ and A, with the same loss: it has the same states."""
        if isinstance(self.network, LossNetwork):
            return dataclasses.replace(self.network, widths=self._widths)
        return self.square_factors

    @cached_property
    def square_factors(self) -> LinearNetwork:
        """The same of the square loss; others are refused."""
        return dataclasses.replace(self.square, widths=self._widths, specialize=False)

    @property
    def _widths(self) -> tuple[int, int, int]:
        return self.network.widths[0], self.rank, self.network.widths[-1]

    @property
    def field(self) -> Kernel:  # type: ignore[override]
        """Ȧ and Ḃᵀ."""
        return kernels.field if self.is_square else kernels.loss_field

    @property
    def jvp(self) -> Kernel:  # type: ignore[override]
        """The derivative of the field along a direction."""
        return kernels.jvp if self.is_square else kernels.loss_jvp

    @property
    def jacobian(self) -> Kernel:  # type: ignore[override]
        """The derivatives of the field along all axes."""
        return kernels.jacobian if self.is_square else kernels.loss_jacobian

    @cached_property
    def graded(self) -> GradedFlow:
        """The flow in coordinates that keep columns of any size apart."""
        return GradedFlow(self, self.factors, self.depth)

    @property
    def depth(self) -> int:
        """Number of layers h of the network."""
        return self.network.depth

    @property
    def problem(self) -> moments.Problem:
        """That of the network, if the loss is the square one."""
        return self.square.problem

    @property
    def critical_ranks(self) -> tuple[int, int]:
        """The smallest and the largest rank of critical points, both k."""
        return self.rank, self.rank

    @property
    def lowest_loss(self) -> float:
        """The smallest square loss of a map of rank k: that of the k largest modes."""
        return self.square_factors.lowest_loss

    def __repr__(self) -> str:
        """Give the network and the rank."""
        return f"ProductFlow({self.network!r}, rank={self.rank})"

    # What the engines ask.

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Numbers in the factors, k (d_0 + d_h); the manifold has k² less dimensions."""
        return self.factors.dim

    @property
    def params(self) -> Params:  # type: ignore[override]
        """Those of the two layers, then the depth h, then the last integer again."""
        return self._with_depth(self.factors.params)

    def _with_depth(self, params: Params) -> Params:
        sizes, numbers = params
        return np.append(sizes, [self.depth, sizes[-1]]), numbers

    @property
    def numerics(self) -> Numerics:
        """How to integrate the flow: as of two layers, with AᵀA − BᵀB = 0 restored.

        In `graded` coordinates where plain factors lose what the flow keeps: under another loss
        than the square one, where det W has a sign, and where a run can come to a smaller rank.
        """
        layers = self.factors.numerics
        common = layers._replace(
            invariants=lambda states: np.zeros((*states.shape[:-1], self.rank**2)),
            field_cost=layers.field_cost + 60.0 * self.rank**3,
            tangent=None,
            own_step=None,
            symmetric=False,
            reduce=lambda x: None,
            straight=lambda: None,
            deflate=lambda x, rtol: None,
            aligned=lambda x: None,
        )
        if not self.is_square:
            kept = frozenset({"log_singular_value", "determinant_sign"})
            return common._replace(working_basis=self.graded.reduction, unaffected=kept)
        if self.depth == 1 or set(self._widths) == {self.rank}:
            kept = frozenset({"log_singular_value"})
            return common._replace(working_basis=self._signed_basis, unaffected=kept)
        return common._replace(
            working_basis=self._working_basis,
            aligned=self._working_basis,
            deflate=self._deflate,
            unaffected=layers.unaffected | {"rank_gap", "entropy", "log_singular_value"},
        )

    def _working_basis(self, states: Array) -> Reduction | None:
        """Return the flow in the singular basis of the target, columns of the factors by size."""
        turn: Any = self.factors.numerics.working_basis
        found: Reduction | None = turn(states)
        return found and found._replace(system=self._in_mode_basis)

    def _signed_basis(self, states: Array) -> Reduction:
        """Return the same in `graded` coordinates."""
        found = self._working_basis(states)
        if found is None:
            return self.graded.reduction(states)
        turn: Any = found.lift
        inner, outer = (basis.reshape(-1, *basis.shape[-2:])[0] for basis in turn.bases[::2])
        ends = Turning(self._widths, [inner, np.eye(self.rank), outer])
        there = Turning(self._widths, [inner.T, np.eye(self.rank), outer.T])
        place = self._in_mode_basis.graded.reduction(there(states[..., None, :])[..., 0, :])
        return place._replace(lift=lambda rows: ends(place.lift(rows)))

    @cached_property
    def _in_mode_basis(self) -> ProductFlow:
        basis = self.square_factors.in_mode_basis
        return self if basis is self.square_factors else self._with_factors(basis)

    def _with_factors(self, factors: Any) -> ProductFlow:
        """Return the flow with such factors: hidden layers have as many units beyond its rank."""
        inputs, rank, outputs = factors.widths
        network = dataclasses.replace(
            self.square,
            widths=(inputs, *(d - self.rank + rank for d in self.network.widths[1:-1]), outputs),
            target=factors.target,
            input_root=factors.input_root,
            **NAMELESS,
        )
        return ProductFlow(network, rank)

    def _deflate(self, x: Array, rtol: float) -> Reduction | None:
        """Return the flow of the modes that are still to be learnt, if the others have been.

        Where the factors, and so W, fall into two blocks, 𝒜_W does as well.
        """
        found = self.factors.numerics.deflate(x, rtol)
        return found and found._replace(system=self._with_factors(found.system))

    def limit(self, x: Array, force: float = math.inf, rtol: float = 0.0) -> Limit:
        """Return whether a run is over, and the index set of the modes that W has learnt.

        Critical points of rank k are minima or saddles; there are some if Σ has rank k. Under
        another loss, what the network with this map would be told.
        """
        if not self.is_square:
            return self.factors.limit(x, force, rtol)
        other = "saddle" if self.square_factors.max_rank == self.rank else "critical_point"
        layers = self.square_factors.limit(x, rtol=rtol)
        with np.errstate(over="ignore", invalid="ignore"):
            settled = self._settled(x, rtol, layers)
        return ended(settled, force, other, layers.name)

    def _settled(self, x: Array, rtol: float, layers: Limit) -> bool:
        """Tell whether W is a best map of rank k to the accuracy of the run.

        ‖W K − U_k Σ_k V_kᵀ‖ is at most 10 ``rtol`` ‖Σ‖ and a tenth of σ_k, or what rounding leaves.
        Where that map is not the only one, or Σ has a smaller rank, the loss decides.
        """
        left, sigma, right = self.square.singular_modes
        k = self.rank
        gap = sigma[k - 1] - sigma[k] if k < len(sigma) else sigma[k - 1]
        if self.square_factors.max_rank < k or gap <= tolerances.TIE * sigma[0]:
            return layers.kind == "global_minimum"
        best = (left[:, :k] * sigma[:k]) @ right[:, :k].T
        rounding = 64.0 * np.finfo(float).eps * sigma[0] ** 2 / gap
        near = min(10.0 * rtol * float(np.linalg.norm(sigma)), 0.1 * float(sigma[k - 1]))
        image = self.problem.image(self._product(x))
        return bool(np.linalg.norm(image - best) <= max(near, rounding))

    def theory(self, x: Array) -> Theory:
        """Return what is known at a state: the orbit of GL(k), and the Riemannian Hessian."""
        if not self.is_square:
            likeness = self.factors, x
            return Theory(generators=lambda: self.generators(x), likeness=lambda: likeness)
        return Theory(
            generators=lambda: self.generators(x),
            spectrum=lambda: self._known_spectrum(x),
            dimensions=lambda: self.square_factors.orbit_dimensions(x),
        )

    def _known_spectrum(self, x: Array) -> KnownSpectrum | None:
        """Return minus the eigenvalues of the Riemannian Hessian at critical points.

        In closed form for whitened problems, otherwise of the symmetric matrix in a basis that is
        orthonormal in g_W. The zeros of the turns and of unequal factors are left to the engine.
        """
        layers = layers_of(self.factors.widths, x)
        found = strings.learnt(self.square_factors.problem, layers, tolerances.EXACT)
        size = float(np.sum(x**2))
        if not found.is_critical(tolerances.EXACT) or len(found.modes) < self.rank:
            return None
        if float(symmetry.imbalance(layers)) > tolerances.EXACT * size:
            return None
        dimensions = self.square_factors.orbit_dimensions(x)
        if self.square.whitened:
            values, left_out = spectra.map_eigenvalues(self.problem, list(found.modes), self.depth)
            if left_out <= tolerances.EXACT * values.max():
                return KnownSpectrum(-values, "closed_form", dimensions)
        return KnownSpectrum(-self.hessian_modes(x)[0], "gram", dimensions)

    @finite("x")
    def hessian_modes(self, x: ArrayLike) -> tuple[Array, Array]:
        """Return eigenvalues, ascending, and eigenvectors of the Riemannian Hessian at a state.

        The vectors (mode, d_h, d_0) are tangent and orthonormal in g_W; k (d_0 + d_h − k) of them.
        """
        w, state = self._point(x)
        basis = fixed_rank.orthonormal_basis(w)
        check_memory("x", 3 * basis.size)
        flat_basis = basis.reshape(len(basis), -1)
        G = self._gradient(state)
        hessians = (fixed_rank.hessian(w, Z, G, self._curved(state, Z)) for Z in basis)
        images = [fixed_rank.inverse_operator(w, H) for H in hessians]
        matrix = np.stack(images).reshape(len(basis), -1) @ flat_basis.T
        values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
        return values, np.tensordot(vectors.T, basis, axes=1)

    def generators(self, x: ArrayLike, *, orthogonal: bool = False) -> Array:
        """Return tangent vectors (generator, parameter) of (A, B) → (A P, B P^{-T}).

        P in GL(k) keeps W and so what is critical; ``orthogonal`` P keep AᵀA = BᵀB and the flow.
        """
        return self.factors.generators(x, orthogonal=orthogonal)

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates of two layers, Bᵀ and A."""
        return self.factors.coordinates()

    def varied(self, name: str | int, **options: Any) -> dict[str, Any]:
        """Return the critical points as weight decay of the layers, or the data, are varied."""
        if isinstance(self.network, LossNetwork):
            check_choice("vary", name, ("weight_decay",))
            criterion = self.network.criterion
            return self._decayed(criterion.values, criterion.fitting_size)
        problem = self.square_factors.problem
        if check_choice("vary", name, varied.KINDS[:3]) == "target":
            return varied.along_targets(self, problem, self.velocity, **options)
        if name == "covariance":
            raw = ProductFlow(self.network.with_covariance(), self.rank)
            return varied.along_covariances(
                raw, raw.square_factors.problem, raw.velocity, **options
            )
        parts = self._decayed(problem.loss, varied.fitting_size(problem.target, problem.root))
        return parts | {"label": varied.decay_labels(problem, problem.widths, self.depth)}

    def _decayed(self, loss_of: Callable[[Array], Any], size: float) -> dict[str, Any]:
        """Return the critical points as weight decay of the layers of the network varies."""
        widths = self.factors.widths
        parts = varied.with_decay(
            self,
            functools.cache(functools.partial(symmetry.tangents, widths)),
            lambda x: varied.observed(layers_of(widths, x), loss_of, size),
            widths,
            share=0.5 * self.depth,  # −hλW, by two factors
        )
        kept = {name: self._where_of_rank(parts[name]) for name in ("fun", "jacobian")}
        return {**parts, **kept}

    def _where_of_rank(self, function: Callable[[Array, float], Array]) -> Any:
        """Return a function of states that is NaN where W has lost its rank.

        There the factors go on, through zero to their mirror image, and the maps of rank k do not.
        """

        def value(x: Array, p: float) -> Array:
            s, found = self._singular_values(x), function(x, p)
            return found if s[-1] > tolerances.FACTOR_RANK * s[0] else np.full_like(found, np.nan)

        return value

    def attributes(self) -> dict[str, Any]:
        """Return what the attributes of a Dataset say of the flow."""
        return {
            **self.network.attributes(),
            "system": type(self).__name__,
            "rank": self.rank,
            "problem_digest": self.digest,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of that of the network and of the rank."""
        return hashlib.sha256(f"{self.network.digest} {self.rank}".encode()).hexdigest()

    def _observables(self, start: Array) -> Mapping[str, Callable[[Array], xr.Variable]]:
        shared = ["state", "loss", "product", "imbalance", "effective_rank", "stable_rank"]
        if isinstance(self.network, LinearNetwork):
            shared.append("mode_strength")
        elif isinstance(self.network.criterion, Measurements):
            shared.append("residual")
        return {
            **{name: functools.partial(self._of_factors, name) for name in shared},
            "singular_value": variable(self._padded_singular_values, "mode"),
            "log_singular_value": variable(self._log_singular_values, "mode"),
            "determinant_sign": variable(self._determinant_signs),
            "rank_gap": variable(lambda x: self._singular_values(x)[:, -1]),
            "entropy": variable(self._entropy),
            "loss_rate": variable(lambda x: -self._slope(x)),
            "gradient_norm": variable(lambda x: np.sqrt(self._slope(x))),
        }

    def _of_factors(self, name: str, states: Array) -> xr.Variable:
        return self.factors.observables(states, [name])[name]

    # States and what they mean.

    def unpack(self, x: ArrayLike) -> tuple[Array, Array]:
        """Return the factors A (d_h × k) and B (d_0 × k) of a state, or of each in a stack."""
        first, last = self.factors.unpack(x)
        return last, np.swapaxes(first, -1, -2)

    def pack(self, factors: Sequence[ArrayLike]) -> Array:
        """Return the state of A Bᵀ for any factors A (d_h × k) and B (d_0 × k) of rank k.

        If AᵀA = BᵀB the state holds them as they are, and otherwise others with the same product.

        Raises
        ------
        ValueError, TypeError
            If the factors have other shapes, or their product has a smaller rank.
        """
        shapes = [(size, self.rank) for size in self._ends]
        return self._packed("factors", check_matrices("factors", factors, shapes))

    def _packed(self, name: str, factors: Sequence[Array]) -> Array:
        """Return the state of A Bᵀ, for factors given by an argument of this name."""
        A, B = factors
        with np.errstate(over="ignore"):
            left, right = (check_finite(name, part.T @ part) for part in factors)
        if not np.abs(left - right).max() <= 1e-14 * np.abs(left).max():
            U, s, V = fixed_rank.thin_modes(A, B)
            A, B = U * np.sqrt(s), V * np.sqrt(s)
        else:
            s = np.linalg.eigvalsh(left)[::-1].astype(float)
        if not s[-1] > tolerances.FACTOR_RANK * s[0]:
            raise ValueError(
                f"{name}: needs a product of rank {self.rank}, got singular values from "
                f"{s[0]:.3g} to {s[-1]:.3g}"
            )
        return flat([B.T, A])

    def factor(self, W: ArrayLike) -> Array:
        """Return the state of an end-to-end map W (d_h × d_0).

        Raises
        ------
        ValueError, TypeError
            If the map has another shape, or not the rank k.

        Examples
        --------
        >>> import dlnds as dl
        >>> net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
        >>> prod = dl.ProductFlow(net, rank=1)
        >>> prod.product(prod.factor([[1.0, 1.0], [0.0, 0.0]])).round(12).tolist()
        [[1.0, 1.0], [0.0, 0.0]]
        """
        U, s, Vt = np.linalg.svd(check_array("W", W, ndim=2, shape=self._ends), full_matrices=False)
        found = spectra.rank(s, tolerances.FACTOR_RANK)
        if found != self.rank:
            raise ValueError(f"W: needs the rank {self.rank}, got {found}")
        root, k = np.sqrt(s[: self.rank]), self.rank
        return flat([root[:, None] * Vt[:k], U[:, :k] * root])

    def _product(self, states: Array) -> Array:
        return product(layers_of(self.factors.widths, states))

    def product(self, x: ArrayLike) -> Array:
        """Return the end-to-end map W (d_h × d_0) of a state, or of each in a stack."""
        return self.factors.product(x)

    def loss(self, x: ArrayLike) -> Any:
        """Return ½‖Σ − W K‖_F² of a state or of each in a stack (…, parameter)."""
        return self.factors.loss(x)

    @property
    def irreducible_loss(self) -> float:
        """What no map can remove from the loss on the data, and `loss` leaves out."""
        return self.square.irreducible_loss if self.is_square else 0.0

    def loss_on(self, states: Array, X: ArrayLike, Y: ArrayLike) -> Array:
        """Return the loss of states (…, parameter), not checked, on other inputs and targets."""
        return self.factors.loss_on(states, X, Y)

    def original_maps(self, maps: Array) -> Array:
        """Return maps W (…, d_h, d_0), not checked, in the original inputs."""
        return self.square.original_maps(maps)

    # The manifold and its metric; tangent vectors are matrices Z (d_h × d_0).

    def _point(self, x: ArrayLike) -> tuple[fixed_rank.Point, Array]:
        state = check_state("x", self, x)
        A, B = self.unpack(state)
        w = fixed_rank.point(A, B, self.depth)
        if not w.s[-1] > max(tolerances.FACTOR_RANK * w.s[0], tolerances.SMALLEST):
            raise ValueError(f"x: needs a product of rank {self.rank}")
        return w, state

    def _matrix(self, name: str, value: ArrayLike) -> Array:
        return check_array(name, value, ndim=2, shape=self._ends)

    def _gradient(self, state: Array) -> Array:
        """Return ∇ℓ(W)."""
        W = self._product(state)
        if isinstance(self.network, LossNetwork):
            return self.network.criterion.gradient(W)
        residual, root = self.problem.residual(W), self.problem.root
        return -residual if root is None else -residual @ root.T

    def _curved(self, state: Array, Z: Array) -> Array:
        """Return ∇²ℓ(W)[Z], Z C for the square loss, C = K Kᵀ."""
        if isinstance(self.network, LossNetwork):
            return self.network.criterion.second_derivative(self._product(state), Z)
        root = self.problem.root
        return Z if root is None else Z @ root @ root.T

    @finite("Z")
    def operator(self, x: ArrayLike, Z: ArrayLike) -> Array:
        """Return 𝒜_W(Z) = Σ_j (WWᵀ)^{(h−j)/h} Z (WᵀW)^{(j−1)/h} for any matrix Z (d_h × d_0).

        Self-adjoint, with the tangent space at W as its image. For h = 1 the projection to it.
        """
        return fixed_rank.operator(self._point(x)[0], self._matrix("Z", Z))

    @finite("Z")
    def inverse_operator(self, x: ArrayLike, Z: ArrayLike) -> Array:
        """Return the tangent Y with 𝒜_W(Y) = Z, of the tangent part of Z."""
        return fixed_rank.inverse_operator(self._point(x)[0], self._matrix("Z", Z))

    @finite("second")
    def inner_product(self, x: ArrayLike, first: ArrayLike, second: ArrayLike) -> float:
        """Return g_W(Z_1, Z_2) = ⟨𝒜_W^{-1} Z_1, Z_2⟩ of the tangent parts of two matrices."""
        one, other = self._matrix("first", first), self._matrix("second", second)
        return fixed_rank.inner_product(self._point(x)[0], one, other)

    @finite("Z")
    def projection(self, x: ArrayLike, Z: ArrayLike) -> Array:
        """Return the tangent part U UᵀZ + Z V Vᵀ − U UᵀZ V Vᵀ of a matrix."""
        return fixed_rank.projection(self._point(x)[0], self._matrix("Z", Z))

    def retraction(self, x: ArrayLike, Z: ArrayLike) -> Array:
        """Return the state of the map of rank k that is nearest to W + Z, for a tangent Z."""
        with np.errstate(over="ignore", invalid="ignore"):
            factors = fixed_rank.retraction(self._point(x)[0], self._matrix("Z", Z))
        return self._packed("Z", [check_finite("Z", part) for part in factors])

    @finite("Z")
    def horizontal_lift(self, x: ArrayLike, Z: ArrayLike) -> Array:
        """Return the change (parameter) of a state with the change Z of W, across its turns."""
        w, state = self._point(x)
        dA, dB = fixed_rank.horizontal_lift(w, self.unpack(state)[0], self._matrix("Z", Z))
        return flat([dB.T, dA])

    @finite("x")
    def riemannian_gradient(self, x: ArrayLike) -> Array:
        """Return 𝒜_W(∇ℓ(W)), minus the velocity of W."""
        w, state = self._point(x)
        return fixed_rank.operator(w, self._gradient(state))

    @finite("Z")
    def riemannian_hessian(self, x: ArrayLike, Z: ArrayLike) -> Array:
        """Return the Riemannian Hessian of the loss along a tangent Z: ∇_Z grad ℓ.

        Self-adjoint in g_W.

        Notes
        -----
        g(Hess Z_1, Z_2) is half the Lie derivative of g along ξ = grad ℓ. With Y = 𝒜^{-1} Z and
        G = ∇ℓ(W) it is ⟨Z_1, ∇²ℓ[Z_2]⟩ + ½⟨Y_1, 𝒜'[Z_2] G⟩ + ½⟨Y_2, 𝒜'[Z_1] G⟩ − ½⟨Y_1, 𝒜'[ξ] Y_2⟩.
        """
        w, state = self._point(x)
        tangent = fixed_rank.projection(w, self._matrix("Z", Z))
        G = self._gradient(state)
        return fixed_rank.hessian(w, tangent, G, self._curved(state, tangent))

    def velocity(self, x: ArrayLike, signal: ArrayLike) -> Array:
        """Return the field at a state if minus the gradient of the loss by W is ``signal``.

        The lift of 𝒜_W(R) to the factors, for any R (d_h × d_0).
        """
        state = check_array("x", x, ndim=1, shape=(self.dim,))
        target = self._product(state) + self._matrix("signal", signal)  # then R is the residual
        out, params = np.empty(self.dim), pack_params(self.factors.widths, WHITENED, target)
        field: Kernel = jit.ready(kernels.field, jit.FIELD)
        field(0.0, state, self._with_depth(params), out)
        return out

    @property
    def _ends(self) -> tuple[int, int]:
        return self.network.widths[-1], self.network.widths[0]

    @finite("x")
    def singular_values(self, x: ArrayLike) -> Array:
        """Return the k singular values of W, descending, of a state or of each in a stack."""
        return self._singular_values(self._states(x))

    def _singular_values(self, states: Array) -> Array:
        """Return singular values of A Bᵀ, small ones in terms of the columns that hold them."""
        A, B = self.unpack(states)
        first, last = np.linalg.qr(A, mode="r"), np.linalg.qr(B, mode="r")
        inner = first @ np.swapaxes(last, -1, -2)
        return np.linalg.svd(inner, compute_uv=False)

    def _log_singular_values(self, states: Array) -> Array:
        return self.graded.log_singular_values(self.graded.of_factors(states))

    def _determinant_signs(self, states: Array) -> Array:
        return self.graded.determinant_signs(self.graded.of_factors(states))

    def _padded_singular_values(self, states: Array) -> Array:
        values = self._singular_values(states)
        missing = min(self.network.widths[0], self.network.widths[-1]) - self.rank
        return np.pad(values, ((0, 0), (0, missing)))

    def _slope(self, states: Array) -> Array:
        """Return g_W(Ẇ, Ẇ) = −⟨∇ℓ(W), Ẇ⟩, the rate at which the loss falls."""
        if not len(states):
            return np.zeros(0)
        params, own = self.params, jit.ready(self.field, jit.FIELD)
        force_of = kernels.force if self.is_square else kernels.loss_force
        plain: Kernel = jit.ready(force_of, jit.FIELD)
        slopes, velocity, force = np.empty(len(states)), np.empty(self.dim), np.empty(self.dim)
        for i, x in enumerate(states):
            own(0.0, x, params, velocity)
            plain(0.0, x, params, force)
            slopes[i] = max(0.0, float(velocity @ force))
        return slopes

    def entropy(self, x: ArrayLike) -> Any:
        """Return ln of the volume of the orthogonal orbit of balanced networks over W.

        ½ Σ_{a<b} ln((s_a² − s_b²)/(s_a^{2/h} − s_b^{2/h})) + Σ_i (d_i − k)/h Σ_a ln s_a over the
        hidden widths d_i, up to a constant that does not depend on W.

        References
        ----------
        BRTW22 (Bah, Rauhut, Terstiege & Westdickenberg, arXiv:1910.05505); theory of the fibers
        """
        states = self._states(x)
        values = self.singular_values(states)
        if not (values[..., -1] > tolerances.FACTOR_RANK * values[..., 0]).all():
            raise ValueError(f"x: needs a product of rank {self.rank}")
        return self._entropy(states.reshape(-1, self.dim)).reshape(states.shape[:-1])[()]

    def _entropy(self, states: Array) -> Array:
        s, h = self._singular_values(states), self.depth
        spare = sum(d - self.rank for d in self.network.widths[1:-1])
        first, second = np.triu_indices(self.rank, 1)
        powers = np.arange(h)
        with np.errstate(divide="ignore"):
            a, b = s[:, first, None], s[:, second, None]
            terms = a ** (2.0 * (h - 1 - powers) / h) * b ** (2.0 * powers / h)
            pairs = np.log(np.sum(terms, axis=-1))
            volume: Array = 0.5 * np.sum(pairs, axis=1) + spare / h * np.sum(np.log(s), axis=1)
        return volume

    # States to start from, and balanced networks over them.

    def from_balanced(self, x: ArrayLike, *, rtol: float = tolerances.BALANCED) -> Array:
        """Return the state over which a balanced state of the network lies.

        Parameters
        ----------
        x
            State of the network, with C_i = 0 and a product of rank k.
        rtol
            Largest ‖C_i‖_F, in terms of the largest ‖W_i‖_F², at which it counts as balanced.

        Raises
        ------
        ValueError, TypeError
            If the state is not balanced, or its product has another rank.
        """
        state = check_state("x", self.network, x)
        layers = self.network.unpack(state)
        size = max(float(np.sum(w**2)) for w in layers)
        excess = float(symmetry.imbalance(layers))
        if not excess <= check_number("rtol", rtol, minimum=0.0) * size:
            raise ValueError(
                f"x: needs a balanced state, got an imbalance of {excess:.3g} for layers of "
                f"squared size {size:.3g}"
            )
        _, s, Vt = np.linalg.svd(layers[0], full_matrices=False)
        found = spectra.rank(s**self.depth, tolerances.FACTOR_RANK)
        if found != self.rank:
            raise ValueError(f"x: needs a product of rank {self.rank}, got {found}")
        k = self.rank
        root, reached = s[:k] ** (0.5 * self.depth), Vt[:k].T
        for w in layers:
            reached = w @ reached
        return self.pack((reached / root, Vt[:k].T * root))

    @finite("x")
    def lift(self, x: ArrayLike) -> Array:
        """Return a balanced state of the network over a state, hidden units 1..k in use."""
        A, B = self.unpack(check_array("x", x, ndim=1, shape=(self.dim,)))
        return moments.canonical_state(self.network.widths, *fixed_rank.thin_modes(A, B))

    def critical_state(self, modes: Sequence[int]) -> Array:
        """Return the critical point of rank k that has learnt the given k modes.

        Raises
        ------
        ValueError, TypeError
            If a mode does not exist, comes twice or has σ_j = 0, or there are not k of them.
        """
        factors = self.square_factors
        chosen = check_integers("modes", modes, minimum=0)
        if len(chosen) != self.rank:
            raise ValueError(f"modes: needs {self.rank} modes, got {len(chosen)}")
        return factors.critical_state(chosen)

    @known_options
    def initial(self, kind: str = "gaussian", *, scale: ArrayLike = 1e-3, rng: Any = None) -> Array:
        """Return a start of a named kind, as balanced networks have.

        Parameters
        ----------
        kind
            - ``"gaussian"``: the singular vectors of a product of Gaussian factors, and its
              singular values times ``scale`` to the power h.
            - ``"aligned"``: in the singular basis of the target, with the singular values ``scale``
              (one number, or one for each of k modes) to the power h.
        scale
            Size of the layers of the network.
        rng
            Seed or `numpy.random.Generator` (SPEC 7).

        Raises
        ------
        ValueError, TypeError
            If the kind is unknown, ``scale`` is not positive, or an aligned start is asked of a
            problem that is not whitened.
        """
        kind = check_choice("kind", kind, ("gaussian", "aligned"))
        generator, half = check_generator("rng", rng), 0.5 * self.depth
        if kind == "aligned":
            sizes = check_array("scale", scale, ndim=(0, 1))
        else:
            sizes = np.array(check_number("scale", scale))
        if not sizes.min() > 0.0:
            raise ValueError(f"scale: needs numbers above 0, got {sizes.min()}")
        if kind == "aligned":
            return self.square_factors.initial("aligned", scale=sizes**half)
        with np.errstate(over="ignore"):
            parts = [generator.normal(size=(d, self.rank)) * sizes**half for d in self._ends]
        return self._packed("scale", [check_finite("scale", part) for part in parts])


def check_packed(system: object, name: str = "system") -> None:
    """Refuse what has no layers, or factors, to make a state of."""
    if not isinstance(system, WeightSystem | ProductFlow):
        raise TypeError(
            f"{name}: needs a network, whose states are layers of weights, got {words_of(system)}"
        )


def has_maps(system: object) -> TypeGuard[LinearNetwork | ProductFlow]:
    """Tell whether a system is a linear network without decay, or the flow of its maps."""
    if isinstance(system, LinearNetwork):
        return not system.is_decayed
    return isinstance(system, ProductFlow) and system.is_square


def check_maps(net: object, *, with_decay: bool = False) -> None:
    """Refuse what is no network, and no flow of its maps; weight decay unless it is allowed."""
    if not isinstance(net, LinearNetwork | ProductFlow):
        raise TypeError(f"net: needs a LinearNetwork or ProductFlow, got {words_of(net)}")
    if isinstance(net, ProductFlow) and not net.is_square:
        raise TypeError(f"net: needs the ProductFlow of a LinearNetwork, got {net!r}")
    if not with_decay:
        check_undecayed(net)


ProductFlow.__init__ = known_options(ProductFlow.__init__)  # type: ignore[method-assign]
