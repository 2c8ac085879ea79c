"""Equations with known branches, and what tests ask of their branches."""

import numpy as np

import dlnds as dl


def events(branch):
    """Kind, p, and dimension of the kernel of the special points."""
    found = dl.special_points(branch)
    kinds = dl.schema.decode(found.event).values.tolist()
    return list(
        zip(kinds, found.p.values.tolist(), found.kernel_dimension.values.tolist(), strict=True)
    )


def weight_decay(widths, sigma):
    """Equilibria of L + λ/2 Σ‖W_i‖², written out by hand."""
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    net = dl.LinearNetwork(widths=widths, target=target)
    unit = np.eye(net.dim)
    return net, dl.Residual(
        lambda x, p: -net.gradient(x) - p * x,
        lambda x, p: -net.hessian(x) - p * unit,
        derivative=lambda x, p: -x,
        generators=lambda x, p: net.generators(x, orthogonal=True),
        symmetric=True,
        parameter="weight decay",
        observe=lambda x, p: {"size": float(np.linalg.norm(x)), "loss": float(net.loss(x))},
    )


def decayed(net, sizes):
    """The aligned balanced state with the given size of each mode in every layer."""
    layers = []
    for before, after in zip(net.widths, net.widths[1:], strict=False):
        w = np.zeros((after, before))
        w[range(len(sizes)), range(len(sizes))] = sizes
        layers.append(w)
    return net.pack(layers)


def size_at(sigma, decay, depth):
    """The larger root of λ = s^{h−2} (σ − s^h)."""
    s = sigma ** (1.0 / depth)
    for _ in range(100):
        f = s ** (depth - 2) * (sigma - s**depth) - decay
        slope = (depth - 2) * sigma * s ** (depth - 3) - (2 * depth - 2) * s ** (2 * depth - 3)
        s -= f / slope
    return s


def bratu(n):
    second = np.diag(np.full(n - 1, 1.0), 1) + np.diag(np.full(n - 1, 1.0), -1) - 2.0 * np.eye(n)
    A = second * (n + 1) ** 2
    return dl.Residual(
        lambda x, p: A @ x + p * np.exp(x),
        lambda x, p: A + p * np.diag(np.exp(x)),
        derivative=lambda x, p: np.exp(x),
        symmetric=True,
    )


def along(sigma, change, learnt, depth):
    """Aligned A_S with as many hidden units as learnt modes, and the path diag(σ + θ change)."""
    first = np.diag(sigma)
    rank, modes = len(learnt), list(learnt)
    size = np.diag(np.array(sigma)[modes] ** (1.0 / depth))
    unit = np.eye(len(sigma))[modes]
    widths = (len(sigma), *(rank,) * (depth - 1), len(sigma))
    net = dl.LinearNetwork(widths=widths, target=first)
    equation = dl.equilibria(net, "target", path=[first, first + np.diag(change)])
    return net, equation, net.pack([size @ unit, *[size] * (depth - 2), unit.T @ size])
