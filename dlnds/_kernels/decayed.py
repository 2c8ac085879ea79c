"""Flows of layers with weight decay: those of other kernels, and −λ_i W_i of each layer.

The loss is L + ½ Σ_i λ_i ‖W_i‖². Floats of ``params`` end with λ_1, …, λ_h, behind those that the
other kernel knows of. So kernels of networks without decay are what they were; those with decay are
made when they are asked for, and each has a file in Numba's cache.
"""

import functools

from dlnds._kernels import linear
from dlnds._kernels.jit import part, variant

plain = linear.field_from_inputs  # stands for the kernel without decay


@part
def without(params):
    """Return ``params`` as the other kernel knows them."""
    return params[0], params[1][: params[1].size - params[0][0]]


@part
def pull(params, i):
    """Return λ_i, and where layer i = 1..h starts in the state and where it ends."""
    sizes, floats = params
    depth = sizes[0]
    return floats[floats.size - depth + i - 1], sizes[3 + depth + i], sizes[4 + depth + i]


@part
def subtract(params, vector, out):
    """Subtract from ``out`` a vector with layer i multiplied by λ_i."""
    for i in range(1, params[0][0] + 1):
        decay, start, end = pull(params, i)
        for k in range(start, end):
            out[k] -= decay * vector[k]


def _field(t, x, params, out):
    plain(t, x, without(params), out)
    subtract(params, x, out)


def _jvp(t, x, v, params, out):
    plain(t, x, v, without(params), out)
    subtract(params, v, out)


def _jacobian(t, x, params, out):
    plain(t, x, without(params), out)
    for i in range(1, params[0][0] + 1):
        decay, start, end = pull(params, i)
        for k in range(start, end):
            out[k, k] -= decay


def _tangent(t, x, vectors, params, out):
    trace = plain(t, x, vectors, without(params), out)
    for i in range(1, params[0][0] + 1):
        decay, start, end = pull(params, i)
        trace -= decay * (end - start)
        for k in range(start, end):
            for j in range(vectors.shape[1]):
                out[k, j] -= decay * vectors[k, j]
    return trace


@functools.cache
def field(kernel):
    """Return the field with decay."""
    return _made(_field, kernel)


@functools.cache
def jvp(kernel):
    """Return the derivative of the field along a vector, with decay."""
    return _made(_jvp, kernel)


@functools.cache
def jacobian(kernel):
    """Return the Jacobian with decay."""
    return _made(_jacobian, kernel)


@functools.cache
def tangent(kernel):
    """Return the Jacobian with decay times many vectors."""
    return _made(_tangent, kernel)


def _made(text, kernel):
    module = kernel.__module__.rpartition(".")[2]
    return variant(text, f"decayed_{module}_{kernel.__name__}", {"plain": kernel})
