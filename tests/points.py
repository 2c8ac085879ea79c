"""Random critical points of every kind whose answers are known before any rounding.

A point is first written down in integers, where its Hessian is a matrix of integers. Then it is
moved: the ends are turned, inputs get a covariance, hidden bases are changed, all in more digits
than a float has. None of this changes the kind, the index, or the dimension of anything, but for
the inputs without data, which are free.
"""

import itertools
from typing import Any, NamedTuple

import naive
import numpy as np

import dlnds as dl


class Point(NamedTuple):
    """A network and a state of it, and what is known of that."""

    net: Any
    x: Any
    modes: tuple[int, ...]
    kind: str
    index: int
    nullity: int
    orbit: int
    #: The same point in integers: the network, its layers.
    plain: Any
    layers: Any
    #: The largest condition of a change of hidden bases.
    condition: float


def chained(depth, units, crossing, rng):
    """Z_1, …, Z_h of zeros and ones that link units at random, no h arrows of the cycle in a row.

    The first ``crossing`` units of outputs go on to the first ones of inputs.
    """
    links = [np.zeros((b, a), int) for a, b in itertools.pairwise(units)]
    back = np.eye(units[0], units[-1], dtype=int)
    back[crossing:] = 0
    cycle = [*links, back]
    places = [(i, *place) for i, z in enumerate(links) for place in np.ndindex(z.shape)]
    wanted = rng.integers(len(places) + 1) if rng.random() < 0.8 else 0
    for i, row, column in rng.permutation(places).tolist()[:wanted] if places else []:
        z = links[i]
        if z[row].any() or z[:, column].any():
            continue
        z[row, column] = 1
        for start in range(depth + 1):
            product = np.eye(cycle[start].shape[1], dtype=int)
            for step in range(depth):
                product = cycle[(start + step) % (depth + 1)] @ product
            if product.any():
                z[row, column] = 0
                break
    return links


def plain_point(widths, sigma, chosen, rng):
    """The layers over a set of modes, in integers, with the target diag(σ)."""
    depth, rank = len(widths) - 1, len(chosen)
    positive = np.flatnonzero(sigma)
    order = [*chosen, *(j for j in positive if j not in chosen)]
    inputs, outputs = ([*order, *(j for j in range(d) if j not in order)] for d in widths[::depth])
    if depth == 1:
        links = [np.zeros((widths[1] - rank, widths[0] - rank), int)]
    else:
        units = [d - rank for d in widths]
        links = chained(depth, units, len(positive) - rank, rng)
    layers = []
    for i, z in enumerate(links, 1):
        w = np.zeros((widths[i], widths[i - 1]), int)
        w[:rank, :rank] = np.diag(sigma[list(chosen)] if i == 1 else np.ones(rank, int))
        w[rank:, rank:] = z
        layers.append(w)
    layers[0] = layers[0][:, np.argsort(inputs)]
    layers[-1] = layers[-1][np.argsort(outputs)]
    return layers


def hessian(layers, target):
    """The matrix of second derivatives of ½‖Σ − W‖², entry by entry of the product rule."""
    depth, widths = len(layers), [layers[0].shape[1], *(len(w) for w in layers)]
    before = [naive.chain(layers, 1, i, widths[0]) for i in range(depth)]
    after = [naive.chain(layers, i + 1, depth, widths[i]) for i in range(1, depth + 1)]
    residual = target - naive.chain(layers, 1, depth, widths[0])
    slopes = np.hstack([np.kron(a, b.T) for a, b in zip(after, before, strict=True)])
    H = slopes.T @ slopes
    ends = np.cumsum([0, *(w.size for w in layers)])
    for i in range(1, depth + 1):
        for j in range(i + 1, depth + 1):
            pulled = after[j - 1].T @ residual @ before[i - 1].T
            between = naive.chain(layers, i + 1, j - 1, widths[i])
            # ∂²W/∂W_i[a, b] ∂W_j[c, d] = after_j[:, c] between[d, a] before_i[b, :]
            block = np.einsum("cb,da->abcd", pulled, between)
            block = block.reshape(layers[i - 1].size, layers[j - 1].size)
            rows, columns = (slice(ends[k - 1], ends[k]) for k in (i, j))
            H[rows, columns] -= block
            H[columns, rows] -= block.T
    return H


def inertia(H):
    """Negative and zero eigenvalues of a matrix of integers."""
    values = np.linalg.eigvalsh(H.astype(float))
    size = max(1.0, np.abs(values).max())
    clear = (np.abs(values) < 1e-11 * size) | (np.abs(values) > 1e-7 * size)
    assert clear.all(), values
    return int((values < -1e-9 * size).sum()), int((np.abs(values) < 1e-9 * size).sum())


def stretched(size, condition, rng):
    """A random matrix of this condition and its inverse, in long doubles."""
    turns = [np.linalg.qr(rng.normal(size=(size, size)))[0].astype(np.longdouble) for _ in range(2)]
    for _ in range(2):  # Newton's way to orthogonal ones, to all digits
        turns = [1.5 * q - 0.5 * q @ (q.T @ q) for q in turns]
    spread = condition ** np.append(rng.uniform(0.0, 1.0, size), [0.0, 1.0])[-size:]
    sizes = (spread * 10.0 ** rng.uniform(-1.0, 1.0)).astype(np.longdouble)
    return (turns[0] * sizes) @ turns[1], (turns[1].T / sizes) @ turns[0].T


def covariance(inputs, kind, condition, rng):
    """K (d_0 × k), K⁺ and the directions that K does not see, in long doubles."""
    if kind == "whitened":
        return [np.eye(inputs, dtype=np.longdouble)] * 2 + [np.zeros((inputs, 0), np.longdouble)]
    unseen = int(kind == "singular") * int(rng.integers(1, 3))
    forth, back = stretched(inputs + unseen, condition, rng)
    return forth[:, :inputs], back[:inputs], back[inputs:].T


def random_point(seed, deepest=6, widest=4, condition=1e6):
    """A random critical point: any σ, any covariance, any Z blocks, changes of bases up to it."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, deepest + 1))
    widths = rng.integers(1, widest + 1, size=depth + 1).tolist()
    m = min(widths[0], widths[-1])
    sigma = np.sort(rng.integers(0 if rng.random() < 0.3 else 1, 6, size=m))[::-1]
    if rng.random() < 0.5:
        sigma = np.sort(rng.choice(np.arange(1, 9), size=m, replace=False))[::-1]
    positive = np.flatnonzero(sigma)
    most = min(*widths, len(positive))
    rank = len(positive) if depth == 1 else int(rng.integers(most + 1))
    chosen = tuple(sorted(rng.choice(positive, rank, replace=False).tolist()))
    if rng.random() < 0.6:
        chosen = tuple(range(rank))
    plain = np.zeros((widths[-1], widths[0]), int)
    np.fill_diagonal(plain, sigma)
    layers = plain_point(widths, sigma, chosen, rng)
    return moved_point(plain, layers, chosen, widths, rng, condition)


def moved_point(target, layers, chosen, widths, rng, condition):
    """The same point with turned ends, a covariance, and other hidden bases."""
    index, nullity = inertia(hessian(layers, target))
    sigma, depth = np.diagonal(target), len(layers)
    lowest = np.sum(np.sort(sigma**2)[::-1][min(*widths, len(sigma)) :])
    lost = np.sum((target - naive.chain(layers, 1, depth, widths[0])) ** 2)
    kind = "strict_saddle" if index else "nonstrict_saddle"
    kind = "global_minimum" if lost == lowest else kind
    word = naive.KINDS[rng.integers(3)]
    K, inverse, unseen = covariance(widths[0], word, 10.0 ** rng.uniform(0.0, 3.0), rng)
    moved = [w.astype(np.longdouble) for w in layers]
    U, V = (stretched(d, 1.0, rng)[0] for d in (widths[-1], widths[0]))
    U, V = (q / np.sqrt((q**2).sum(axis=0)) for q in (U, V))
    moved[0] = moved[0] @ V.T
    moved[-1] = U @ moved[-1]
    free = rng.normal(size=(widths[1], unseen.shape[1])) * (rng.random() < 0.5)
    unseen = unseen / np.sqrt((unseen**2).sum(axis=0))
    moved[0] = moved[0] @ inverse + free @ unseen.T
    worst = 1.0
    for i, d in enumerate(widths[1:-1]):
        worst_here = condition ** rng.uniform(0.0, 1.0) if rng.random() < 0.7 else 1.0
        P, back = stretched(d, worst_here, rng)
        moved[i], moved[i + 1] = P @ moved[i], moved[i + 1] @ back
        worst = max(worst, worst_here)
    sizes = (len(K), *widths[1:])
    Sigma = np.asarray(U @ target.astype(np.longdouble) @ V.T, float)
    root = None if word == "whitened" else np.asarray(K, float)
    net = dl.LinearNetwork(widths=sizes, target=Sigma, input_root=root)
    x = net.pack([np.asarray(w, float) for w in moved])
    own = [w.astype(float) for w in layers]
    own[0] = np.hstack([own[0], free])
    orbit = np.linalg.matrix_rank(orbit_rows(own)) if depth > 1 else 0
    nullity += widths[1] * free.shape[1]
    return Point(net, x, chosen, kind, index, nullity, int(orbit), target, layers, worst)


def orbit_rows(layers):
    """The derivatives of all P_i W_i P_{i−1}^{-1} by all entries of all P_i."""
    rows = []
    for i in range(len(layers) - 1):
        d = len(layers[i])
        for a, b in np.ndindex(d, d):
            unit = np.zeros((d, d))
            unit[a, b] = 1.0
            parts = [np.zeros_like(w) for w in layers]
            parts[i], parts[i + 1] = unit @ layers[i], -layers[i + 1] @ unit
            rows.append(np.concatenate([part.ravel() for part in parts]))
    return np.array(rows)


def order_by_subsets(layers, target, modes):
    """The smallest set of layers whose cyclic blocks all have a higher rank, by trying all sets."""
    widths, h = [layers[0].shape[1], *(len(w) for w in layers)], len(layers)

    def rank(matrix):
        values = np.linalg.svd(matrix, compute_uv=False)
        return np.count_nonzero(values > 1e-9)

    for k in range(2, h + 1):
        for chosen in itertools.combinations(range(1, h + 1), k):
            inner = [
                rank(naive.chain(layers, i + 1, j - 1, widths[i]))
                for i, j in itertools.pairwise(chosen)
            ]
            first = naive.chain(layers, 1, chosen[0] - 1, widths[0])
            last = naive.chain(layers, chosen[-1] + 1, h, widths[chosen[-1]])
            if min([*inner, rank(first @ target.T @ last)]) > modes:
                return k
    raise AssertionError


def order(p):
    """The order of descent of a point, or a bound where the target lacks modes."""
    if p.kind == "nonstrict_saddle":
        return order_by_subsets(p.layers, p.plain, len(p.modes))
    return 0 if p.kind == "global_minimum" else 2


def ranks(p, earlier, later):
    """The ranks of the product between two layers and of the block around them, in integers."""
    widths, h = [p.plain.shape[1], *(len(w) for w in p.layers)], len(p.layers)
    between = naive.chain(p.layers, int(earlier) + 1, int(later) - 1, widths[int(earlier)])
    first = naive.chain(p.layers, 1, int(earlier) - 1, widths[0])
    last = naive.chain(p.layers, int(later) + 1, h, widths[int(later)])
    return tuple(np.linalg.matrix_rank(m) for m in (between, first @ p.plain.T @ last))
