"""Slow and obvious definitions, and random problems to try them on."""

from functools import reduce

import numpy as np
from hypothesis import strategies as st
from scipy.special import hyp2f1

import dlnds as dl
from dlnds._kernels import jit, runge_kutta


def chain(layers, first, last, size):
    """W_last … W_first (layers numbered from 1), the identity of the given size if empty."""
    return reduce(lambda product, i: layers[i - 1] @ product, range(first, last + 1), np.eye(size))


def split(net, x):
    """The layers of a state, cut out one after the other."""
    layers, place = [], 0
    for rows, columns in zip(net.widths[1:], net.widths[:-1], strict=True):
        layers.append(np.array(x[place : place + rows * columns]).reshape(rows, columns))
        place += rows * columns
    assert place == len(x)
    return layers


def root(net):
    return np.eye(net.widths[0]) if net.input_root is None else net.input_root


def loss(net, x):
    W = chain(split(net, x), 1, net.depth, net.widths[0])
    return 0.5 * np.linalg.norm(net.target - W @ root(net)) ** 2


def field(net, x):
    """Ẇ_i = W_{i+1:h}ᵀ (M − W C) W_{1:i−1}ᵀ from the moments M = Σ Kᵀ, C = K Kᵀ."""
    layers, h, K = split(net, x), net.depth, root(net)
    residual = net.target @ K.T - chain(layers, 1, h, net.widths[0]) @ K @ K.T
    parts = [
        chain(layers, i + 1, h, net.widths[i]).T
        @ residual
        @ chain(layers, 1, i - 1, net.widths[0]).T
        for i in range(1, h + 1)
    ]
    return np.concatenate([part.ravel() for part in parts])


def rectified(z, power, slope):
    """σ(z) = max(z, αz)^p."""
    return np.maximum(z, slope * z) ** power


def homogeneous_outputs(net, x, X):
    """H(X; W), one sample, one unit after the other."""
    outputs = np.empty((net.widths[-1], X.shape[1]))
    for n, sample in enumerate(X.T):
        values = list(sample)
        for i, w in enumerate(split(net, x), 1):
            values = [sum(a * b for a, b in zip(row, values, strict=True)) for row in w]
            if i < net.depth:
                values = [rectified(z, net.power, net.slope) for z in values]
        outputs[:, n] = values
    return outputs


def homogeneous_loss(net, x, X, Y, loss="square", normalize=True):
    """½‖Y − H‖², or Σ log(1 + exp(−Y ∘ H)), divided by the number of samples if normalized."""
    H = homogeneous_outputs(net, x, X)
    total = 0.5 * np.sum((Y - H) ** 2)
    if loss == "logistic":
        total = np.sum(np.log1p(np.exp(-Y * H)))
    return total / (X.shape[1] if normalize else 1)


def adjacency_field(net, x):
    """Ȧ = Σ_j (A^{h−j})ᵀ (E − A^h) (A^{j−1})ᵀ for a whitened network (WA25)."""
    A, h = net.adjacency(x), net.depth
    E = np.zeros_like(A)
    E[-net.widths[-1] :, : net.widths[0]] = net.target
    power = np.linalg.matrix_power
    return sum(power(A, h - j).T @ (E - power(A, h)) @ power(A, j - 1).T for j in range(1, h + 1))


def fractional_power(U, s, a):
    """(U diag(s²) Uᵀ)^a at its known rank, with the identity for a = 0."""
    return np.eye(len(U)) if a == 0 else (U * s ** (2.0 * a)) @ U.T


def riemannian_operator(W, Z, depth, rank):
    """𝒜_W(Z) = Σ_j (WWᵀ)^{(h−j)/h} Z (WᵀW)^{(j−1)/h} (BRTW22)."""
    U, s, Vt = np.linalg.svd(W)
    U, s, V = U[:, :rank], s[:rank], Vt[:rank].T
    return sum(
        fractional_power(U, s, (depth - j) / depth) @ Z @ fractional_power(V, s, (j - 1) / depth)
        for j in range(1, depth + 1)
    )


def differences(function, x, step):
    """Central differences of order 4 along each coordinate, one column each."""
    columns = []
    for j in range(len(x)):
        e = np.zeros(len(x))
        e[j] = step
        near = function(x + e) - function(x - e)
        far = function(x + 2 * e) - function(x - 2 * e)
        columns.append((8.0 * near - far) / (12.0 * step))
    return np.stack(columns, axis=-1)


def time_between(p0, p1, sigma, depth):
    """Time in which one balanced aligned mode grows from p0 to p1 (theory, section 6)."""
    if depth == 2:
        odds = [np.log(p / (sigma - p)) for p in (p0, p1)]
        return (odds[1] - odds[0]) / (2.0 * sigma)
    a = 2.0 - 2.0 / depth

    def primitive(u):
        return u ** (1.0 - a) / (1.0 - a) * hyp2f1(1.0, 1.0 - a, 2.0 - a, u)

    return (primitive(p1 / sigma) - primitive(p0 / sigma)) / (depth * sigma**a)


def kinds_by_rule(net, chosen):
    """Kind of one canonical point, read off the statement of the classification."""
    sigma, r = net.singular_values, len(chosen)
    best = sorted(range(len(sigma)), key=lambda j: -sigma[j])[:r]
    if not np.allclose(sorted(sigma[list(chosen)]), sorted(sigma[best]), rtol=1e-12):
        return "strict_saddle"
    if r == net.max_rank:
        return "global_minimum"
    return "strict_saddle" if net.depth == 2 else "nonstrict_saddle"


def random_network(widths, seed, kind="whitened", rank=None):
    """A random problem: whitened, with a full or with a singular input covariance."""
    rng = np.random.default_rng(seed)
    columns = {"whitened": widths[0], "full": widths[0], "singular": max(1, widths[0] - 1)}[kind]
    target = rng.normal(size=(widths[-1], columns))
    if rank is not None:
        U, s, Vt = np.linalg.svd(target, full_matrices=False)
        target = (U[:, :rank] * s[:rank]) @ Vt[:rank]
    K = None if kind == "whitened" else rng.normal(size=(widths[0], columns))
    return dl.LinearNetwork(widths=widths, target=target, input_root=K)


def state_of(net, seed, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=net.dim)


def kernel_step(kernel, tables, system, x, tasks, clock, unread=np.inf):
    """Make a compiled step of its own from a state; return its code and length, and both works."""
    work, trial = runge_kutta.work_of(x), runge_kutta.Trial(*np.zeros((5, x.size)))
    parts = system.params, jit.ready(system.field, jit.FIELD)
    scale = jit.ready(system.numerics.error_scale, jit.FIELD)
    parts[1](0.0, x, parts[0], work.stages[0])
    scale(0.0, x, parts[0], trial.here)
    step, parts = jit.ready(kernel, runge_kutta.OWN_STEP), (*parts, scale)
    code, length = step(parts, tables, tasks, clock, np.inf, unread, work, trial)
    return code, length, work, trial


KINDS = ("whitened", "full", "singular")
widths = st.lists(st.integers(1, 5), min_size=2, max_size=6)
seeds = st.integers(0, 2**32 - 1)
networks = st.builds(random_network, widths, seeds, st.sampled_from(KINDS))
whitened_networks = st.builds(random_network, widths, seeds)
deep_networks = st.builds(
    random_network,
    st.lists(st.integers(1, 4), min_size=3, max_size=5),
    seeds,
    st.sampled_from(KINDS),
)
small_networks = st.builds(
    random_network,
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    seeds,
    st.sampled_from(KINDS),
    st.sampled_from([None, 1, 2]),
)


def index_sets(net):
    return [dl.schema.index_set_modes(s) for s in dl.critical_points(net).critical_point.values]


def change_bases(net, x, seed, strength=None):
    """Move a state by random changes of the hidden bases, orthogonal ones without a strength."""
    rng, layers = np.random.default_rng(seed), split(net, x)
    for i, width in enumerate(net.widths[1:-1]):
        P = rng.normal(size=(width, width))
        P = np.linalg.qr(P)[0] if strength is None else np.eye(width) + strength * P
        layers[i], layers[i + 1] = P @ layers[i], layers[i + 1] @ np.linalg.inv(P)
    return net.pack(layers)
