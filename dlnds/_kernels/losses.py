"""Losses ℓ of the image S = W X of the data, other than the square one.

A ``form`` says which loss; ``targets`` Y and all images are d_h × m, one sample a column.
``constants`` are the factor c before the sum over samples, and the power p:

- logistic: c Σ log(1 + exp(−Y S)), entry by entry, Y = ±1;
- cross entropy: c Σ_n Σ_o Y_on log(Σ_j exp(S_jn) / S_on), columns of Y with the sum 1;
- power: (c/p) Σ |Y − S|^p.

The signal is −∂ℓ/∂S. Differences of nearly equal probabilities are never taken, so that signals are
accurate to rounding however large the margins are.
"""

import numpy as np

from dlnds._kernels.jit import jit

#: Forms of the square loss come first: with an input root, and of a whitened problem.
ROOT, WHITENED, LOGISTIC, CROSS_ENTROPY, POWER = range(5)


@jit
def signal(form, targets, constants, image, out):
    """Write −∂ℓ/∂S at ``image`` into ``out``, which may be ``image`` itself."""
    if form == CROSS_ENTROPY:
        cross_entropy_signal(targets, constants[0], image, out)
        return
    factor, exponent = constants[0], constants[1] - 1.0
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            label = targets[i, j]
            if form == LOGISTIC:
                out[i, j] = factor * label * logistic(-label * image[i, j])
            else:
                rest = label - image[i, j]
                out[i, j] = factor * np.sign(rest) * np.abs(rest) ** exponent


@jit
def signal_change(form, targets, constants, image, change, out):
    """Write the derivative of the signal along ``change`` into ``out``, which may be ``change``."""
    if form == CROSS_ENTROPY:
        cross_entropy_change(constants[0], image, change, out)
        return
    factor, power = constants[0], constants[1]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            if form == LOGISTIC:
                margin = image[i, j]
                curvature = logistic(margin) * logistic(-margin)
            else:
                curvature = (power - 1.0) * np.abs(targets[i, j] - image[i, j]) ** (power - 2.0)
            out[i, j] = -factor * curvature * change[i, j]


@jit
def logistic(z):
    """Return 1/(1 + exp(−z)) without overflow."""
    if z >= 0.0:
        return 1.0 / (1.0 + np.exp(-z))
    small = np.exp(z)
    return small / (1.0 + small)


@jit
def relative_weights(image, sample, weights):
    """Write exp(S − max S) of one column into ``weights``; return the place of the largest."""
    top = 0
    for i in range(1, weights.size):
        if image[i, sample] > image[top, sample]:
            top = i
    for i in range(weights.size):
        weights[i] = np.exp(image[i, sample] - image[top, sample])
    return top


@jit
def cross_entropy_signal(targets, factor, image, out):
    """Write c (y_o Σ_{j≠o} e_j − (1 − y_o) e_o) / Σ_j e_j, e = exp(S), for each sample."""
    weights = np.empty(image.shape[0])
    for n in range(image.shape[1]):
        relative_weights(image, n, weights)
        total = 0.0
        for i in range(weights.size):
            total += weights[i]
        for i in range(weights.size):
            target, others = targets[i, n], 0.0
            if target != 0.0:
                for j in range(weights.size):
                    if j != i:
                        others += weights[j]
            out[i, n] = factor * (target * others - (1.0 - target) * weights[i]) / total


@jit
def cross_entropy_change(factor, image, change, out):
    """Write −c π_o (v_o − Σ_j π_j v_j), π = softmax(S), v measured from that of the largest π."""
    weights = np.empty(image.shape[0])
    for n in range(image.shape[1]):
        top = relative_weights(image, n, weights)
        total, mean, origin = 0.0, 0.0, change[top, n]
        for i in range(weights.size):
            total += weights[i]
            mean += weights[i] * (change[i, n] - origin)
        mean /= total
        for i in range(weights.size):
            out[i, n] = -factor * weights[i] / total * (change[i, n] - origin - mean)
