"""Lower bounds on the rate −d ln(L − L_min)/dt of gradient flow: Polyak–Łojasiewicz inequalities.

With L_i = W_{i+1:h} and R_i = W_{1:i−1} of a `Quadratic`, ‖∇L‖² = Σ_i ‖L_iᵀ G R_iᵀ‖² is at least
2 (L − L_min) Σ_i σ(L_i)² σ(R_i K)², σ the d_h-th and the k-th singular value: zero of layers that
are narrower. All functions take layers, or stacks (…, row, column) of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads its modules when they are used

from dlnds.arrays import Array
from dlnds.theory import tolerances
from dlnds.theory.coordinates import images, product, readings, transposed
from dlnds.theory.moments import Problem
from dlnds.theory.observables import eigenvalues, inner, singular_values
from dlnds.theory.symmetry import imbalances

#: Distances that are tried, in terms of the least; and in terms of the largest.
_DISTANCES = 1.0 + np.geomspace(1e-9, 1e3, 97)
_PARTS = np.geomspace(1e-12, 1.0, 241)[:-1]
#: Part of the error of a run that one step makes: it is ten times what is allowed there.
_ANEW = 0.1
#: Steps to the nearest minimum.
_STEPS = 5


class Quadratic(NamedTuple):
    """A square loss ℓ of maps W: ‖A G B‖² ≥ 2 σ(A)² σ(BᵀK)² (ℓ − ℓ_min) of its G = −∇ℓ(W).

    ``excess`` is ℓ − ℓ_min of maps (…, d_h, d_0), over all maps, and ``signal`` G. ``root`` is
    K (d_0 × k); the ``target`` Σ (d_h × k) is there if ℓ − ℓ_min = ½‖Σ − W K‖². ``lowest`` is what
    a bottleneck leaves of the excess, NaN where that is not known. No second derivative of ℓ by
    W K is above ``stretch`` squared.
    """

    widths: tuple[int, ...]
    root: Array
    target: Array | None
    lowest: float
    excess: Callable[[Array], Any]
    signal: Callable[[Array], Array]
    stretch: float = 1.0

    @property
    def is_bottleneck(self) -> bool:
        """Whether some hidden layer is so narrow that W cannot be every map of the data."""
        return min((*self.widths[1:-1], self.least)) < self.least

    @property
    def least(self) -> int:
        """min(d_h, k), the rank of maps of the data."""
        return min(self.widths[-1], int(self.root.shape[1]))


def of_problem(problem: Problem) -> Quadratic:
    """Return the loss ½‖Σ − W K‖²."""
    root = np.eye(problem.widths[0]) if problem.root is None else problem.root
    lowest = 0.5 * float(np.sum(problem.modes[1][min(problem.widths) :] ** 2))
    return Quadratic(problem.widths, root, problem.target, lowest, problem.loss, problem.signal)


def smallest(matrices: Array, count: int) -> Array:
    """Return the singular value of this number, from 1, zero where there are fewer."""
    values = singular_values(matrices)
    if count > values.shape[-1]:
        return np.zeros(values.shape[:-1])
    return np.asarray(values[..., count - 1])


def measured(loss: Quadratic, layers: Sequence[Array]) -> tuple[Array, Array]:
    """Return L − L_min and ‖∇L‖²/(L − L_min), NaN at a minimum."""
    W = product(layers)
    G, excess = loss.signal(W), loss.excess(W) - loss.lowest
    pairs = zip(readings(layers), images(layers, np.eye(loss.widths[0])), strict=True)
    forces = [transposed(L) @ G @ transposed(R) for L, R in pairs]
    squares = np.sum([inner(force, force) for force in forces], axis=0)
    return excess, squares / np.where(excess > 0.0, excess, np.nan)


def sensitivity(
    loss: Quadratic, layers: Sequence[Array], scales: Array, decays: Array, lowest: float
) -> Array:
    """Return how far √(2 (L − L_min)) moves at most by errors of layers, relative to their scales.

    Errors r E_i of layers change W K by r Σ_i ‖L_i‖ E_i ‖R_i K‖, to second order by r² Π E_i for
    each pair of layers, along which L changes by the G of minima, where L is ``lowest``; and
    penalties.
    """
    h = len(layers)
    pairs = zip(readings(layers), images(layers, loss.root), scales, strict=True)
    moves = [singular_values(L)[..., 0] * n * singular_values(R)[..., 0] for L, R, n in pairs]
    rest = loss.stretch * float(np.linalg.norm(loss.root, 2)) * np.sqrt(2.0 * lowest)
    second = rest * (h * (h - 1)) * np.prod(scales, axis=0)
    penalty = np.tensordot(decays, np.square(scales), axes=1)
    return np.asarray(np.sqrt((loss.stretch * np.sum(moves, axis=0)) ** 2 + second + penalty))


def error_scales(layers: Sequence[Array]) -> Array:
    """Return what errors of each layer (layer, …) are relative to.

    A weight is known relative to √(s s') of the units that it joins, each of them the root mean
    square of its weights: of layers that fade beside others this is much more than their size.
    """
    squares = [np.square(w) for w in layers]
    first, last = squares[0].mean(axis=-2), squares[-1].mean(axis=-1)
    inner_units = [
        (into.sum(axis=-1) + out_of.sum(axis=-2)) / (into.shape[-1] + out_of.shape[-2])
        for into, out_of in itertools.pairwise(squares)
    ]
    sizes = [np.sqrt(mean).sum(axis=-1) for mean in (first, *inner_units, last)]
    return np.stack([np.sqrt(a * b) for a, b in itertools.pairwise(sizes)])


def lasting(scales: Array, durations: Array, rates: Array) -> Array:
    """Return the scales of errors (…, time) with what rates of the loss leave of earlier ones.

    Within the time in which √(L − L_min) decays a part of an error is made anew: those of weights
    that decay as fast add up.
    """
    found, left = scales.copy(), np.exp(-0.5 * durations * rates)
    anew = _ANEW * scales[..., 1:] * (1.0 - left)
    for row in range(1, scales.shape[-1]):
        before = found[..., row - 1] * left[..., row - 1] + anew[..., row - 1]
        found[..., row] = np.maximum(scales[..., row], before)
    return found


class Partials(NamedTuple):
    """σ(L_i) and σ(R_i K) (layer, …), ‖W_j‖ (layer, …), and ‖K‖."""

    left: Array
    right: Array
    norms: Array
    root: float

    def rate(self, distance: Array | float = 0.0) -> Array:
        """Return 2 Σ_i σ(L_i)² σ(R_i K)², the least of it within a distance of the layers.

        Products of layers that each move by at most d change by Π(‖W_j‖ + d) − Π‖W_j‖ at most.
        Nothing is left at twice the largest layer, so that no product has to overflow.
        """
        n = self.norms
        moved = n + np.minimum(distance, 2.0 * n.max(axis=0))
        total: Array = np.zeros(n.shape[1:])
        for i, (left, right) in enumerate(zip(self.left, self.right, strict=True)):
            after = np.prod(moved[i + 1 :], axis=0) - np.prod(n[i + 1 :], axis=0)
            before = np.prod(moved[:i], axis=0) - np.prod(n[:i], axis=0)
            sizes = np.maximum(left - after, 0.0), np.maximum(right - self.root * before, 0.0)
            total = total + 2.0 * sizes[0] ** 2 * sizes[1] ** 2
        return total

    def at(self, rows: slice) -> Partials:
        """Return those of some rows."""
        left, right, norms = (part[..., rows] for part in (self.left, self.right, self.norms))
        return Partials(left, right, norms, self.root)


def partials(loss: Quadratic, layers: Sequence[Array]) -> Partials:
    """Return the smallest singular values of the partial products of layers."""
    rows, k = loss.widths[-1], loss.root.shape[1]
    stack, pairs = layers[0].shape[:-2], (readings(layers), images(layers, loss.root))
    left, right = (
        np.stack([np.broadcast_to(smallest(part, count), stack) for part in parts])
        for parts, count in zip(pairs, (rows, k), strict=True)
    )
    norms = np.stack([singular_values(w)[..., 0] for w in layers])
    return Partials(left, right, norms, float(np.linalg.norm(loss.root, 2)))


def from_ball(partials: Partials, excess: Array) -> Array:
    """Return the rate that each row keeps for all later times, zero if none is known.

    While the rate is at least μ the path is at most 2 √((L − L_min)/μ) long, since
    d√(L − L_min)/dt ≤ −½ √μ ‖∇L‖. If it is so within that distance it stays so. Distances are tried
    from what the rate of the row itself would do with.
    """
    now, kept = partials.rate(), np.zeros_like(excess)
    least = 2.0 * np.sqrt(excess) / np.sqrt(np.where(now > 0.0, now, np.inf))
    for factor in _DISTANCES:
        rate = partials.rate(factor * least)
        enough = (now > 0.0) & (factor**2 * rate >= now)
        kept = np.maximum(kept, np.where(enough, rate, 0.0))
    return kept


def kept(rate_within: Callable[[Array], Array], distance: Array, excess: Array) -> Array:
    """Return the rate that rows keep for all later times, zero if none is known.

    ``rate_within`` a distance of minima falls with that. While the rate is at least r the path is
    at most 2 √((L − L_min)/r) long: rows from which it does not leave a distance keep the rate
    within this.
    """
    largest, found = 1.0, np.zeros_like(excess)
    while rate_within(np.array(largest)) > 0.0 and largest < 1e150:
        largest *= 2.0
    for reach in largest * _PARTS:
        rate = float(rate_within(np.array(reach)))
        if rate > 0.0:
            stays = distance + 2.0 * np.sqrt(np.maximum(excess, 0.0) / rate) < reach
            found = np.maximum(found, np.where(stays, rate, 0.0))
    return found


class Bottleneck(NamedTuple):
    """A global minimum of a network with a bottleneck, and how its rate is kept near it.

    ``curvature`` is the least one across the minima there, which are all states of the one best
    map, ``rest`` the largest singular value of what is left of Σ.
    """

    layers: Sequence[Array]
    curvature: float
    rest: float
    root: float

    def rate_within(self, distance: Array) -> Array:
        """Return 2 (μ − 3 K ρ), which the rate is at least within a distance ρ.

        Nearest minima to states there are within 2ρ, so that curvatures across them are
        μ − 2 K ρ, and change by K ρ on the way to the state: see `decayed_rates`, with layers of
        any size.
        """
        h, sizes = len(self.layers), [float(np.linalg.norm(w, 2)) for w in self.layers]
        near = [size + 2.0 * distance for size in sizes]
        top = np.max(near, axis=0)
        third = 3.0 * np.sqrt(h) * (h - 1) * self.root**2 * top ** (2 * h - 3)
        if h > 2:
            moved = self.root * (np.prod(near, axis=0) - np.prod(sizes))
            steep = self.root * (h - 1) * (h - 2) / np.sqrt(h) * top ** (h - 3)
            third = third + (self.rest + moved) * steep
        return np.asarray(2.0 * (self.curvature - 3.0 * third * distance))


def bottleneck_at(
    loss: Quadratic, layers: Sequence[Array], hessian: Callable[[Sequence[Array]], Array]
) -> Bottleneck | None:
    """Return the global minimum near to layers, None if the best map is not the only one.

    Found by Gauss and Newton's method for W K = P Σ: the states of a map whose rank r is the
    smallest width are a smooth set of n − r (d_0 + d_h − r) dimensions.
    """
    widths, root = loss.widths, loss.root
    if loss.target is None or root.shape[0] != root.shape[1]:
        return None
    U, sigma, Vt = np.linalg.svd(loss.target, full_matrices=False)
    r = min(widths)
    rest = float(sigma[r]) if r < len(sigma) else 0.0
    if not sigma[r - 1] - rest > tolerances.TIE * sigma[0]:
        return None
    best, now = (U[:, :r] * sigma[:r]) @ Vt[:r], list(layers)
    for _ in range(_STEPS):
        lack = best - product(now) @ root
        pairs = zip(readings(now), images(now, root), strict=True)
        slopes = np.hstack([np.kron(L, R.T) for L, R in pairs])
        step = np.linalg.lstsq(slopes, lack.ravel(), rcond=tolerances.RANK)[0]
        ends = np.cumsum([w.size for w in now])[:-1]
        parts = np.split(step, ends)
        now = [w + part.reshape(w.shape) for w, part in zip(now, parts, strict=True)]
    if not np.linalg.norm(best - product(now) @ root) <= tolerances.EXACT * sigma[0]:
        return None
    curvatures = np.linalg.eigvalsh(hessian(now))
    zeros = len(curvatures) - r * (widths[0] + widths[-1] - r)
    gain = float(np.linalg.norm(root, 2))
    return Bottleneck(now, float(curvatures[zeros]), rest, gain)


def deficiency_margin(loss: Quadratic, excess: Array) -> tuple[Array, Array]:
    """Return what σ_n(W K) and σ_n(W), n = min(d_h, k), stay above along a run: 0 if nothing.

    ‖Σ − W K‖ never grows, so that σ_n(W K) ≥ c = σ_n(Σ) − ‖Σ − W(0) K‖ (ACGH18: the deficiency
    margin). σ_n(W) ≥ c/‖K‖, and with a square K also σ_n(Σ K⁻¹) − ‖Σ − W(0) K‖/σ_k(K).
    """
    nothing = np.zeros_like(excess)
    if loss.target is None:
        return nothing, nothing
    root, rest = loss.root, np.sqrt(2.0 * excess)
    gains = np.linalg.svd(root, compute_uv=False)
    of_image = smallest(loss.target, loss.least) - rest
    of_map = of_image / gains[0]
    if root.shape[0] == root.shape[1]:
        best = scipy.linalg.solve(root.T, loss.target.T).T
        of_map = np.maximum(of_map, smallest(best, loss.least) - rest / gains[-1])
    return np.maximum(of_image, 0.0), np.maximum(of_map, 0.0)


def from_margin(loss: Quadratic, layers: Sequence[Array], excess: Array, margin: Array) -> Array:
    """Return the rate that σ_n(W) ≥ c and small C_i keep, of a square K: 2 h c^{2−2/h} σ_k(K)².

    Without the h if d_0 ≠ d_h. With ‖C_j‖ ≤ δ and ‖W_j‖ ≤ S, W Wᵀ = (W_h W_hᵀ)^h + E with
    ‖E‖ ≤ δ S^{2h−2} h(h−1)/2, and L_i L_iᵀ, of q = h − i layers, is (W_h W_hᵀ)^q up to
    δ S^{2q−2} q(q−1)/2; R_iᵀ R_i likewise with W_1ᵀ W_1.
    """
    h = len(layers)
    sizes = [singular_values(C)[..., 0] for C in imbalances(layers)]
    delta = np.max(sizes, axis=0) if sizes else np.zeros_like(margin)
    size = _largest_layer(loss, excess, delta, h)

    def error(q: int) -> Array:
        return delta * size ** max(q - 1, 0) * (0.5 * q * (q - 1))

    base = np.maximum(margin**2 - error(h), 0.0) ** (1.0 / h)
    powers = [np.maximum(base**q - error(q), 0.0) for q in range(h)]
    d_0, d_h = loss.widths[0], loss.widths[-1]
    terms = [powers[h - i] * powers[i - 1] for i in range(1, h + 1)]
    total = np.sum(terms, axis=0) if d_0 == d_h else powers[h - 1]
    return np.asarray(2.0 * np.linalg.svd(loss.root, compute_uv=False)[-1] ** 2 * total)


def _largest_layer(loss: Quadratic, excess: Array, delta: Array, depth: int) -> Array:
    """Return what ‖W_j‖² of all layers stay below: s of W_h, and (h − 1) δ more of the others.

    s^h ≤ ‖W‖² + δ (s + (h−1) δ)^{h−1} h(h−1)/2, of which the largest s is found by bisection in
    units of a size that is too large.
    """
    assert loss.target is not None
    best = scipy.linalg.solve(loss.root.T, loss.target.T).T
    gain = np.linalg.svd(loss.root, compute_uv=False)[-1]
    map_size = np.linalg.norm(best, 2) + np.sqrt(2.0 * excess) / gain
    factor = 0.5 * depth * (depth - 1) * delta
    low = np.zeros_like(delta)
    high = map_size ** (2.0 / depth) + 2.0**depth * factor + (depth - 1) * delta
    for _ in range(60):
        middle = 0.5 * (low + high)
        over = middle**depth > map_size**2 + factor * (middle + (depth - 1) * delta) ** (depth - 1)
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    largest: Array = high + (depth - 1) * delta
    return largest


def from_imbalance(loss: Quadratic, layers: Sequence[Array], margin: Array) -> Array:
    """Return the rate that C = W_1 W_1ᵀ − W_2ᵀ W_2 of two layers and σ_n(W) ≥ c keep (MVM23).

    2 σ_k(K)² (x + y): x = λ_{d_0}(W_1ᵀ W_1) has (x − a)(x + N) ≥ σ_{d_0}(W)² with
    a = [λ_{d_0}(C)]_+ and N = [λ_1(−C)]_+; y = λ_{d_h}(W_2 W_2ᵀ) the same with −C and d_h. What is
    nothing but the rounding of C, which balanced layers have, keeps no rate.
    """
    d_0, d_h = loss.widths[0], loss.widths[-1]
    (C,) = imbalances(layers)
    sizes = np.sum([np.square(w).sum(axis=(-2, -1)) for w in layers], axis=0)
    error = (tolerances.rounding(max(loss.widths)) * sizes)[..., None]
    values = eigenvalues(C)
    up = np.sign(values) * np.maximum(np.abs(values) - error, 0.0)
    down = -up[..., ::-1]
    kept = [margin if loss.least == d else 0.0 * margin for d in (d_0, d_h)]
    total = _least_gain(up, down, d_0, kept[0]) + _least_gain(down, up, d_h, kept[1])
    return np.asarray(2.0 * np.linalg.svd(loss.root, compute_uv=False)[-1] ** 2 * total)


def _least_gain(own: Array, other: Array, count: int, margin: Array) -> Array:
    """Return the least x ≥ a with (x − a)(x + N) ≥ c²."""
    nothing = np.zeros_like(margin)
    a = np.maximum(own[..., count - 1], 0.0) if count <= own.shape[-1] else nothing
    N = np.maximum(other[..., 0], 0.0)
    root = np.hypot(a + N, 2.0 * margin)
    # x = (a − N + root)/2, without the difference of nearly equal numbers where N is larger
    rest = np.where(a < N, root + N - a, 1.0)
    return np.asarray(np.where(a < N, 2.0 * (margin**2 + a * N) / rest, 0.5 * (a - N + root)))


def decayed(excess: Array, durations: Array, rates: Array) -> Array:
    """Return the excess (…, time) that decays from its first value at rates between rows."""
    steps = durations * rates
    begin = 0.0 * (steps if steps.shape[-1] else excess)[..., :1]
    passed = np.cumsum(np.concatenate([begin, steps], axis=-1), axis=-1)
    return np.asarray(excess[..., :1] * np.exp(-passed))


def between_rows(partials: Partials, excess: Array, durations: Array) -> Array:
    """Return lower bounds of the rate between rows (…, time − 1), of the longest durations.

    From one row to the next the path is at most √(Δt ΔL) long (Cauchy–Schwarz of ‖∇L‖), so that all
    of it is within half of that of one of its ends. ΔL is known up to the rounding of both losses.
    """
    rest = np.sqrt(2.0 * np.maximum(excess, 0.0))
    rounding = tolerances.rounding(1) * rest * (rest + partials.root * partials.norms.prod(axis=0))
    drops = np.maximum(-np.diff(excess, axis=-1), 0.0) + rounding[..., :-1] + rounding[..., 1:]
    reach = 0.5 * np.sqrt(durations * drops)
    sides = [partials.at(rows).rate(reach) for rows in (slice(None, -1), slice(1, None))]
    return np.minimum(*sides)
