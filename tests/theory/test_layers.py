"""States, layers and their products; differences and Taylor terms."""

import itertools

import naive
import numpy as np
import pytest
from hypothesis import given

from dlnds.theory import coordinates, forms, moments


@given(naive.networks, naive.seeds)
def test_layers_and_their_products_are_those_of_the_definition(net, seed):
    x, h = naive.state_of(net, seed), net.depth
    layers, expected = coordinates.layers_of(net.widths, x), naive.split(net, x)
    for w, v in zip(layers, expected, strict=True):
        np.testing.assert_array_equal(w, v)
    np.testing.assert_array_equal(coordinates.flat(layers), x)
    assert coordinates.n_weights(net.widths) == len(x)
    first = np.eye(net.widths[0])
    whole = naive.chain(expected, 1, h, net.widths[0])
    size = np.prod([np.linalg.norm(w) for w in layers])
    np.testing.assert_allclose(coordinates.product(layers), whole, rtol=0, atol=1e-14 * size)
    parts = zip(
        coordinates.readings(layers), layers, coordinates.images(layers, first), strict=True
    )
    for left, w, right in parts:
        np.testing.assert_allclose(left @ w @ right, whole, rtol=0, atol=1e-14 * size)


def test_stacks_of_states_have_stacks_of_layers():
    states = np.random.default_rng(0).normal(size=(4, 2, 3 * 2 + 2 * 5))
    layers = coordinates.layers_of((3, 2, 5), states)
    assert [w.shape for w in layers] == [(4, 2, 2, 3), (4, 2, 5, 2)]
    np.testing.assert_array_equal(layers[1][3, 1], states[3, 1, 6:].reshape(5, 2))


def test_places_of_blocks_are_those_of_their_weights():
    x = np.arange(3 * 4 + 4 * 2, dtype=float)
    kept = [np.array([0, 2]), np.array([1]), np.array([0, 1])]
    W1, W2 = coordinates.layers_of((3, 4, 2), x)
    expected = [*W1[1, [0, 2]], *W2[:, 1]]
    assert x[coordinates.block_places((3, 4, 2), kept)].tolist() == expected


@given(naive.widths, naive.seeds)
def test_balanced_layers_have_their_product_and_no_imbalance(widths, seed):
    rng = np.random.default_rng(seed)
    rank = min(widths)
    U, V = (np.linalg.qr(rng.normal(size=(d, rank)))[0] for d in (widths[-1], widths[0]))
    values = rng.uniform(0.1, 3.0, size=rank)
    frames = moments.canonical_frames(widths, U, V)
    layers = moments.balanced_layers(frames, values ** (1 / (len(widths) - 1)))
    product = naive.chain(layers, 1, len(layers), widths[0])
    np.testing.assert_allclose(product, (U * values) @ V.T, rtol=0, atol=1e-13)
    for first, second in itertools.pairwise(layers):
        np.testing.assert_allclose(first @ first.T, second.T @ second, rtol=0, atol=1e-13)


def test_differences_are_exact_for_squares_and_accurate_for_others():
    x = np.array([3.0, -2.0, 0.5])
    found = forms.derivative(lambda y: np.array([y @ y, y[0] * y[2]]), x)
    np.testing.assert_allclose(found, [2.0 * x, [0.5, 0.0, 3.0]], rtol=0, atol=1e-9)
    slope = forms.difference(lambda s: np.exp([2.0 + s]), 2.0)
    assert slope[0] == pytest.approx(np.exp(2.0), rel=10 * forms.DIFFERENCED)


@given(naive.small_networks, naive.seeds)
def test_taylor_terms_of_the_field_sum_up_to_it(net, seed):
    """Along a cubic curve the field is a polynomial of degree 3 (2 h − 1): none is left out."""
    terms = np.random.default_rng(seed).normal(size=(4, net.dim))
    series = forms.field_terms(net.problem, terms, 3 * (2 * net.depth - 1))
    for a in (0.5, -1.0):
        x = np.sum(terms * (a ** np.arange(4))[:, None], axis=0)
        summed = np.sum(series * (a ** np.arange(len(series)))[:, None], axis=0)
        size = np.sum(np.abs(series) * (abs(a) ** np.arange(len(series)))[:, None])
        np.testing.assert_allclose(summed, naive.field(net, x), rtol=0, atol=1e-12 * size)
