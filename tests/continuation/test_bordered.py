"""Systems that steps along branches solve, and large problems against all their eigenvalues."""

import math

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


def whole(matrix):
    """The factors of a matrix."""
    return bordered.factorized(matrix)


def assembled(matrix):
    """Those of a step along a branch, whose sizes are brought into balance."""
    basis = np.empty((len(matrix) - 1, 0))
    return bordered.assembled(matrix[:-1, :-1], matrix[:-1, -1], matrix[-1], basis, 0.5)[0]


@pytest.mark.parametrize("factors_of", [whole, assembled])
@pytest.mark.parametrize("n", [2, 9, 64, 65, 90])
def test_factors_solve_a_system_and_its_transpose(n, factors_of):
    """To the backward error of Gauss' elimination, with room for the growth of its pivots."""
    rng = np.random.default_rng(n)
    factors, right = factors_of(rng.normal(size=(n, n))), rng.normal(size=n)
    matrix, kept = factors.matrix, right.copy()
    for transposed, one in ((False, matrix), (True, matrix.T)):
        x = factors.solve(right, transposed)
        np.testing.assert_array_equal(right, kept)
        error = 10.0 * n * np.finfo(float).eps * (abs(one) @ abs(x) + abs(right))
        assert (abs(one @ x - right) <= error).all()
    sums = (np.linalg.norm(one, np.inf) for one in (matrix, np.linalg.inv(matrix)))
    exact = 1.0 / math.prod(sums)
    assert exact * (1.0 - 1e-9) <= factors.condition <= 10.0 * exact  # LAPACK's is an estimate


@pytest.mark.parametrize("factors_of", [whole, assembled])
@pytest.mark.parametrize("n", [2, 3, 8, 9, 64, 65])
def test_factors_know_the_determinant(n, factors_of):
    """Its size is the product of the singular values; two rows that change places turn its sign."""
    rng = np.random.default_rng(n)
    matrix = rng.normal(size=(n, n))
    factors, turned = factors_of(matrix), factors_of(np.vstack([matrix[1::-1], matrix[2:]]))
    sizes = np.linalg.svd(factors.matrix, compute_uv=False)
    condition = n * sizes[0] / sizes[-1]
    assert abs(factors.volume - np.log(sizes).sum()) <= n * np.finfo(float).eps * condition
    assert factors.sign == -turned.sign
    assert factors_of(np.eye(n)).sign == 1.0


def test_a_step_is_held_across_the_orbit():
    """Rows of J are divided by the root mean square w of a row of [J, r ∂F/∂p], less B Bᵀ."""
    rng = np.random.default_rng(0)
    jacobian, slope, normal, ratio = rng.normal(size=(5, 5)), rng.normal(size=5), np.ones(6), 0.3
    basis = np.linalg.qr(rng.normal(size=(5, 2)))[0]
    factors, weight = bordered.assembled(jacobian, slope, normal, basis, ratio)
    wide = np.column_stack([jacobian, ratio * slope])
    assert weight == pytest.approx(np.linalg.norm(wide) / 5.0**0.5, rel=1e-14)
    wide[:, :5] -= weight * basis @ basis.T
    np.testing.assert_allclose(factors.matrix, np.vstack([wide / weight, normal]), atol=1e-14)


@pytest.mark.parametrize("n", [2, 9, 64, 65, 90])
@pytest.mark.parametrize("least", [0.0, 1e-13, 1e-12])
def test_singular_systems_are_solved_in_their_regular_part(n, least):
    """The least squares solution of least norm, of what is left without the least value."""
    rng = np.random.default_rng(n)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    sizes = np.append(np.linspace(1.0, 2.0, n - 1), least)
    factors, side = bordered.factorized(left * sizes @ right.T), rng.normal(size=n)
    expected = right[:, :-1] @ ((left[:, :-1].T @ side) / sizes[:-1])
    np.testing.assert_allclose(factors.solve(side), expected, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("n", [1, 5, 64, 70])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_solution(n, wrong):
    """It has no factors, or its solution is not finite."""
    rng = np.random.default_rng(n)
    for place in rng.integers(n, size=(10, 2)):
        matrix = rng.normal(size=(n, n))
        matrix[tuple(place)] = wrong
        factors = bordered.factorized(matrix)
        assert factors is None or not np.isfinite(factors.solve(rng.normal(size=n))).all()
