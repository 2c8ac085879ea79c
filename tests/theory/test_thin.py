"""Sparse derivatives of thin layers are those of the definitions."""

import numpy as np
import pytest

import dlnds as dl
from dlnds.theory import symmetry, thin
from dlnds.theory.coordinates import layers_of

EPS = np.finfo(float).eps


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("widths", [(3, 2), (3, 4, 2), (2, 3, 3, 2), (3, 2, 4, 1, 2)])
def test_sparse_derivatives_are_those_of_any_layers(widths, raw):
    """By central differences of the force, and by the definition of the action."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(widths[0], widths[0])) if raw else None
    net = dl.LinearNetwork(widths, rng.normal(size=(widths[-1], widths[0])), input_root=root)
    x, decay, h = rng.normal(size=net.dim), 0.3, 1e-5
    layers = layers_of(widths, x)
    found = thin.jacobian(net.problem, layers, decay).toarray()

    def force(y):
        return -net.gradient(y) - decay * y

    columns = [(force(x + h * e) - force(x - h * e)) / (2.0 * h) for e in np.eye(net.dim)]
    size = np.abs(found).max()
    assert np.abs(found - np.array(columns).T).max() <= 1e-7 * size  # h² and ε/h
    assert np.abs(found - found.T).max() <= 100.0 * EPS * size
    for orthogonal in (False, True):
        rows = thin.generators(layers, orthogonal)
        known = symmetry.generators(layers, orthogonal)
        assert rows.shape == known.shape
        assert (rows.toarray() == known).all()


def test_thin_are_layers_with_few_entries_in_rows_and_columns():
    few, full = np.eye(30), np.ones((30, 30))
    assert thin.is_thin([few, few])
    assert not thin.is_thin([few, full])
    assert not thin.is_thin([few, np.where(np.arange(30) == 0, 1.0, few)])  # a full column
    assert not thin.is_thin([few, np.where(np.arange(30)[:, None] == 0, 1.0, few)])
