"""The fiber over an index set: all critical points with the same end-to-end map."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike

from dlnds import schema
from dlnds.arrays import Array
from dlnds.errors import check_generator, check_memory, known_options
from dlnds.landscape.points import check_critical
from dlnds.systems.linear import LinearNetwork, check_network
from dlnds.theory import spectra, strings
from dlnds.theory.coordinates import flat
from dlnds.theory.symmetry import moved

#: Random changes of bases stretch by up to this factor.
STRETCH = 2.0


@known_options
def random_fiber_state(net: LinearNetwork, modes: Sequence[int], rng: Any = None) -> Array:
    """Return a random critical point over an index set.

    Every point of the fiber is in reach: each kind of Z blocks has a positive probability, and
    within a kind the point has a density.

    Parameters
    ----------
    net
        The network.
    modes
        The index set S of learnt modes.
    rng
        Seed or `numpy.random.Generator` (SPEC 7).

    Returns
    -------
    numpy.ndarray
        State (parameter).

    Raises
    ------
    ValueError, TypeError
        If there is no critical point with these modes, as `LinearNetwork.critical_state`.

    Notes
    -----
    Up to D_i ∈ GL(d_i) a critical point is W_1 = [U_Sᵀ Σ; Z_1], W_i = blkdiag(I, Z_i), W_h =
    [U_S, U_Q Z_h]. With B = Σᵀ U_Q from the outputs back to the inputs, it is critical exactly if
    all products of h consecutive factors of the cycle B, Z_1, …, Z_h vanish. Such a cycle is a sum
    of strings of at most h units, one in each node they pass; these are linked at random, layer by
    layer, and the bases are chosen at random: those of inputs and outputs among the ones that keep
    Σ, so that B is what it is. Inputs without data get random weights.

    References
    ----------
    AMG24 (Achour, Malgouyres & Gerchinovitz, arXiv:2107.13289); WA25 (Wendin & Altafini,
    arXiv:2511.10362)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.diag([3.0, 2.0, 1.0]))
    >>> x = dl.random_fiber_state(net, (1,), rng=0)
    >>> float(net.loss(x).round(9)), bool(abs(net.gradient(x)).max() < 1e-12)
    (5.0, True)
    """
    check_network(net)
    net.critical_state(modes)  # which refuses what is no index set
    check_memory("net", 6 * sum(d * d for d in net.widths))
    generator = check_generator("rng", rng)
    chosen = sorted(int(mode) for mode in modes)
    rank, k = len(chosen), net.target.shape[1]
    left, sigma, right = net.singular_modes
    order = [*chosen, *(j for j in np.flatnonzero(sigma).tolist() if j not in chosen)]
    U, V = (scipy.linalg.qr(frame[:, order])[0] for frame in (left, right))
    for basis, frame in ((U, left), (V, right)):
        basis[:, : len(order)] = frame[:, order]
    units = (k - rank, *(d - rank for d in net.widths[1:-1]), len(left) - rank)
    unlearnt = sigma[order[rank:]]
    links = _random_links(units, len(unlearnt), generator)
    inputs, outputs = _bases_of_the_ends(units[0], units[-1], unlearnt, generator)
    links[0] = scipy.linalg.solve(inputs.T, links[0].T).T
    links[-1] = outputs @ links[-1]
    root = sigma[chosen] ** (1.0 / net.depth)
    layers = [scipy.linalg.block_diag(np.diag(root), z) for z in links]
    layers[0] = layers[0] @ V.T
    layers[-1] = U @ layers[-1]
    if net.input_root is not None:
        layers[0] = _before_root(net.input_root, layers[0], generator)
    return flat(moved(layers, [_random_basis(d, generator) for d in net.widths[1:-1]]))


@known_options
def fiber_dimension(
    net: LinearNetwork, x: ArrayLike | xr.Dataset, *, rtol: float | None = None
) -> xr.Dataset:
    """Return the local dimension of the fiber at a critical point, and how it was found.

    Parameters
    ----------
    net
        The network.
    x
        Critical state (parameter), or what has one, as for `classify`.
    rtol
        How accurately it is critical, as for `classify`.

    Returns
    -------
    xarray.Dataset
        Schema ``fiber``: ``fiber_dimension``, the dimension of the largest sheet of critical points
        that passes through ``x``; ``sheet_dimension``, of the points of the same kind as ``x``;
        ``orbit_dimension``, of the GL orbit; ``jacobian_rank``, the rank of the Jacobian of the
        gradient, so that no sheet has more than ``nullity`` dimensions. ``is_smooth`` is 1 where
        the largest one has as many: there the fiber is a manifold. ``is_complete`` is 0 where
        there are too many kinds to try all of them, so that a larger sheet is possible unless
        ``is_smooth``. ``is_clear`` is 0 where other ranks of products of layers are possible;
        ``smallest_kept`` and ``largest_dropped`` are the relative singular values on both sides of
        these decisions. The attributes ``smallest_nonzero`` and ``largest_zero`` are eigenvalues
        of the Hessian, relative to what it can be with such layers: those that count by these
        ranks, and those that do not.

    Raises
    ------
    ValueError
        If the state is not critical, with how far it is from that, or no ranks are possible at
        the given ``rtol``.

    Notes
    -----
    The points of one kind are an orbit of GL(d_1) × … × GL(d_{h−1}) and of the changes of inputs
    and outputs that keep W and Σ; its dimension follows from the numbers of strings, see
    `random_fiber_state`. Over W of full rank r = min d_i the fiber is smooth, of dimension
    Σ_i d_i d_{i−1} − r (d_0 + d_h − r). Where W can turn among equal singular values of which some
    are learnt, the critical points with the same loss are counted as one fiber.

    References
    ----------
    AMG24 (Achour, Malgouyres & Gerchinovitz, arXiv:2107.13289); WA25 (Wendin & Altafini,
    arXiv:2511.10362)

    Examples
    --------
    >>> import numpy as np, dlnds as dl
    >>> net = dl.LinearNetwork(widths=(3, 4, 5), target=np.eye(5, 3) * [3.0, 2.0, 1.0])
    >>> fiber = dl.fiber_dimension(net, net.critical_state((0, 1, 2)))
    >>> int(fiber.fiber_dimension), int(fiber.orbit_dimension)
    (17, 15)
    """
    state, found, accuracy = check_critical(net, x, rtol)
    problem, layers, kinds = net.problem, net.unpack(state), strings.MOST_KINDS
    orbit, fiber, decision = strings.dimensions(problem, layers, found, kinds, rtol, accuracy)
    counted = decision.strings
    index, nullity = strings.inertia(problem, found.modes, counted.ranks)
    values = np.linalg.eigvalsh(net.hessian(state))
    values /= max(strings.hessian_scale(problem, layers), np.finfo(float).tiny)
    told = spectra.counted(values, index, nullity)
    variables = {
        "fiber_dimension": np.int64(fiber.largest),
        "sheet_dimension": np.int64(fiber.sheet),
        "orbit_dimension": np.int64(orbit),
        "jacobian_rank": np.int64(net.dim - nullity),
        "nullity": np.int64(nullity),
        "is_smooth": np.int8(fiber.largest == nullity),
        "is_complete": np.int8(fiber.complete),
        "is_clear": np.int8(not decision.others and (rtol is not None or decision.sure)),
    }
    attrs = {
        **net.attributes(),
        **({} if rtol is None else {"rtol": rtol}),
        "smallest_nonzero": told.smallest_nonzero,
        "largest_zero": told.largest_zero,
        "smallest_kept": counted.smallest_kept,
        "largest_dropped": counted.largest_dropped,
    }
    return schema.finish(xr.Dataset(variables), "fiber", attrs)


def _random_links(units: Sequence[int], crossing: int, rng: np.random.Generator) -> list[Array]:
    """Return Z_1, …, Z_h as matrices of ones that link strings of at most h units at random.

    The first ``crossing`` units of the outputs go on to the first ones of the inputs.
    """
    depth = len(units) - 1
    links = [np.zeros((after, before)) for before, after in itertools.pairwise(units)]
    lengths = np.ones(units[0], int)
    lengths[:crossing] = 2
    beyond = np.ones(units[-1], int)  # units of what is linked behind each output, with itself
    beyond[:crossing] = 2
    origin = np.where(np.arange(units[0]) < crossing, np.arange(units[0]), -1)
    for i, z in enumerate(links, 1):
        heads = beyond if i == depth else np.ones(units[i], int)
        reached, came_from = np.ones(units[i], int), np.full(units[i], -1)
        left = rng.integers(min(z.shape), endpoint=True)
        for tail, head in rng.permutation(list(np.ndindex(z.shape[::-1]))).tolist():
            free = left > 0 and not z[head].any() and not z[:, tail].any()
            if free and lengths[tail] + heads[head] <= depth:
                z[head, tail], left = 1.0, left - 1
                reached[head], came_from[head] = lengths[tail] + 1, origin[tail]
                if origin[tail] >= 0:
                    beyond[origin[tail]] += 1
        lengths, origin = reached, came_from
    return links


def _bases_of_the_ends(
    inputs: int, outputs: int, sigma: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return random bases T_0 and T_h with B T_h = T_0 B for B = diag(σ) (inputs × outputs).

    What is mixed among the open modes is graded so that neither basis feels the range of σ.
    """
    q = len(sigma)
    grade = np.minimum(np.divide.outer(1.0 / sigma, 1.0 / sigma), 1.0)  # at (a, b): σ_b/σ_a ≤ 1
    mix = rng.normal(size=(2, q, q)) / (2.0 * np.sqrt(max(q, 1)))
    lower, upper = np.tril(mix[0], -1) + np.eye(q), np.triu(mix[1] * grade, 1) + np.eye(q)
    turn = lower @ (np.exp(rng.uniform(-1.0, 1.0, size=q))[:, None] * upper)
    T_in = scipy.linalg.block_diag(sigma[:, None] * turn / sigma, _random_basis(inputs - q, rng))
    T_out = scipy.linalg.block_diag(turn, _random_basis(outputs - q, rng))
    T_in[:q, q:] = rng.normal(size=(q, inputs - q))
    T_out[q:, :q] = rng.normal(size=(outputs - q, q))
    return T_in, T_out


def _random_basis(size: int, rng: np.random.Generator) -> Array:
    """Return a random invertible matrix with singular values from 1/2 to 2, of either orientation.

    Factors of Householder reflections all have the same orientation: the signs of R make up for it.
    """
    parts = [np.linalg.qr(rng.normal(size=(size, size))) for _ in range(2)]
    turns = [q * np.where(np.diagonal(r) < 0.0, -1.0, 1.0) for q, r in parts]
    basis: Array = (turns[0] * STRETCH ** rng.uniform(-1.0, 1.0, size=size)) @ turns[1]
    return basis


def _before_root(root: Array, layer: Array, rng: np.random.Generator) -> Array:
    """Return W_1 with W_1 K = ``layer``, at random where K does not see it."""
    inverse = scipy.linalg.pinv(root)
    first: Array = layer @ inverse
    if root.shape[0] > root.shape[1]:
        free = rng.normal(size=(len(layer), len(root)))
        first += free - (free @ root) @ inverse
    return first
