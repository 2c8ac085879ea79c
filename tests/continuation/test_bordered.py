"""Steps along branches of large problems against the same steps with all eigenvalues."""

import numpy as np
import pytest

import dlnds as dl
from dlnds.continuation import bordered

SIGMA = np.arange(8.0, 0.0, -1.0)


def decay_of(modes):
    """Weight decay of eight modes, each absent (0), or at its lower (−1) or upper size (1)."""
    net = dl.LinearNetwork(widths=(8,) * 4, target=np.diag(SIGMA))
    sizes = []
    for sigma, mode in zip(SIGMA, modes, strict=True):
        roots = np.roots([-1.0, 0.0, 0.0, sigma, -0.01])
        positive = np.sort(roots[(abs(roots.imag) < 1e-9) & (roots.real > 0.0)].real)
        sizes.append({0: 0.0, -1: positive[0], 1: positive[-1]}[mode])
    return dl.equilibria(net, "weight_decay"), net.pack([np.diag(sizes)] * 3)


@pytest.mark.parametrize("modes", [(1,) * 8, (1,) * 6 + (-1, -1), (1,) * 6 + (-1, 0)])
def test_large_problems_have_the_index_and_nearest_eigenvalues_of_small_ones(monkeypatch, modes):
    equation, start = decay_of(modes)
    branches, known, nearest = [], [], bordered._nearest_values
    monkeypatch.setattr(
        bordered, "_nearest_values", lambda *given: known.append(nearest(*given)) or known[-1]
    )
    for large in (10**6, 50):
        monkeypatch.setattr(bordered, "LARGE", large)
        branches.append(
            dl.branch(equation, start, 0.01, bounds=(0.005, 5.0), direction="up", max_points=18)
        )
    dense, inverse = branches
    assert sum(values is not None for values in known) >= inverse.sizes["step"]
    assert dense.sizes == inverse.sizes
    for name in ("index", "event", "nullity", "kernel_dimension"):
        np.testing.assert_array_equal(inverse[name], dense[name])
    size = np.linalg.norm(equation.matrix(start, 0.01))
    for name in ("p", "state", "transverse_eigenvalue"):
        np.testing.assert_allclose(inverse[name], dense[name], rtol=0.0, atol=1e-13 * size)


def test_the_inertia_of_an_indefinite_matrix_is_counted():
    """Blocks of two rows, where no pivot on the diagonal is stable, have one sign each."""
    zero_diagonal = np.kron(np.eye(4), [[0.0, 1.0], [1.0, 0.0]])
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0]
    values = np.concatenate([-np.arange(1.0, 24.0), np.arange(1.0, 8.0)])
    for matrix, positive in ((zero_diagonal, 4), (frame * values @ frame.T, 7), (-np.eye(5), 0)):
        solve, count, least = bordered._inverse(np.ascontiguousarray(matrix))
        assert count == positive
        assert least > 1e-3
        right = np.eye(len(matrix))
        np.testing.assert_allclose(matrix @ solve(right), right, atol=1e-12)


def test_nearly_dependent_generators_are_left_to_singular_values():
    rows = np.random.default_rng(0).normal(size=(3, 6))
    basis = bordered.orthonormal(rows, 1.0)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(basis @ (basis.T @ rows.T), rows.T, atol=1e-12)
    rows[2] = rows[0] + 1e-3 * rows[1]
    assert bordered.orthonormal(rows, 1.0) is None
    assert bordered.orthonormal(1e-4 * np.eye(3, 6), 1.0) is None
