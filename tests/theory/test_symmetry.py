"""Generators of the symmetry, and derivatives of what it conserves."""

import itertools

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl
from dlnds.theory import symmetry


@given(naive.deep_networks, naive.seeds, st.booleans())
def test_generators_are_the_derivative_of_the_action(net, seed, orthogonal):
    x, step = naive.state_of(net, seed), 1e-6
    rows = net.generators(x, orthogonal=orthogonal)
    number = 0
    for i, d in enumerate(net.widths[1:-1]):
        for a, b in np.ndindex(d, d):
            if orthogonal and a >= b:
                continue
            K = np.zeros((d, d))
            K[a, b] += 1.0
            if orthogonal:
                K[b, a] -= 1.0
            ends = []
            for sign in (1.0, -1.0):
                element = [np.eye(e) for e in net.widths[1:-1]]
                element[i] = element[i] + sign * step * K
                ends.append(dl.act(net, element, x))
            expected = (ends[0] - ends[1]) / (2.0 * step)
            np.testing.assert_allclose(rows[number], expected, rtol=0, atol=1e-8 * np.abs(x).max())
            number += 1
    assert number == len(rows)


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("shape", [(2, 3), (3, 2, 4), (3, 1, 4, 2), (2, 3, 3, 2, 1)])
def test_fast_generators_are_the_generators(shape, orthogonal):
    net = naive.random_network(shape, 0)
    x = naive.state_of(net, 0)
    expected = net.generators(x, orthogonal=orthogonal)
    np.testing.assert_array_equal(symmetry.tangents(shape, orthogonal)(x), expected)


def symmetric_matrices(net, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(d, d)) for d in net.widths[1:-1]]
    return [part + part.T for part in parts]


def conserved(net, x):
    """All C_i = W_i W_iᵀ − W_{i+1}ᵀ W_{i+1}, one after the other."""
    layers = naive.split(net, x)
    parts = [w @ w.T - v.T @ v for w, v in itertools.pairwise(layers)]
    return np.concatenate([part.ravel() for part in parts])


@given(naive.deep_networks, naive.seeds)
def test_the_derivative_of_what_is_conserved_is_made_of_generators(net, seed):
    x = naive.state_of(net, seed)
    rows = symmetry.derivative(net.widths, net.generators(x))
    expected = naive.differences(lambda y: conserved(net, y), x, 1e-3)  # exact for squares
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-9)
    kept = rows[symmetry.entries(net.widths)]
    assert len(kept) == sum(d * (d + 1) // 2 for d in net.widths[1:-1])
    assert np.linalg.matrix_rank(kept) == np.linalg.matrix_rank(rows)


@given(naive.deep_networks, naive.seeds)
def test_tangent_vectors_of_symmetric_matrices_are_the_gradient_of_half_the_square(net, seed):
    """With E = C − C*, they are the gradient of ¼ Σ ‖C_i − C_i*‖²: half of DCᵀ E."""
    x, matrices = naive.state_of(net, seed), symmetric_matrices(net, seed)
    found = symmetry.generated(net.unpack(x), matrices)
    change = np.concatenate([part.ravel() for part in matrices])
    expected = 0.5 * symmetry.derivative(net.widths, net.generators(x)).T @ change
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(found).max())
    np.testing.assert_allclose(
        symmetry.generating(net.widths, matrices) @ x,
        found,
        rtol=0,
        atol=1e-12 * np.abs(found).max(),
    )


@given(naive.deep_networks, naive.seeds)
def test_fixed_directions_change_neither_the_map_nor_what_is_conserved(net, seed):
    x = naive.state_of(net, seed)
    image = symmetry.image_derivative(net.problem, net.unpack(x))
    expected = naive.differences(lambda y: (net.product(y) @ naive.root(net)).ravel(), x, 1e-3)
    size = np.abs(image).max()
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-5 * size)
    change = symmetry.derivative(net.widths, net.generators(x))[symmetry.entries(net.widths)]
    frame = symmetry.fixing(net.problem, net.unpack(x), change)
    if len(frame):
        np.testing.assert_allclose(frame @ frame, frame, rtol=0, atol=1e-10)
    if min(net.widths) <= min(net.target.shape):  # then maps have the rank that is counted with
        assert np.abs(image @ frame.T).max(initial=0.0) < 1e-6 * size
        assert np.abs(change @ frame.T).max(initial=0.0) < 1e-6 * np.abs(change).max()


@given(naive.deep_networks, naive.seeds)
def test_turns_are_group_elements(net, seed):
    x, rng = naive.state_of(net, seed), np.random.default_rng(seed)
    turns = [np.linalg.qr(rng.normal(size=(d, d)))[0] for d in net.widths[1:-1]]
    found = net.pack(symmetry.turned(net.unpack(x), turns))
    np.testing.assert_allclose(found, dl.act(net, turns, x), rtol=0, atol=1e-12 * np.abs(x).max())
