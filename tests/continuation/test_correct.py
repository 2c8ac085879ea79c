"""Compiled steps along branches against the same steps of numpy and LAPACK."""

import dataclasses

import numba
import numpy as np
import pytest
from equations import decayed, events, size_at
from scipy.stats import ortho_group

import dlnds as dl
from dlnds._kernels import branches


@numba.njit
def orbit_basis(x, action, unit, rows):
    return branches.orbit_basis(x, action, unit, rows)


@numba.njit
def factorize(J, rows, rank, weight, point, decay, tangent, M, pivots):
    return branches.factorize(J, rows, rank, weight, point, decay, tangent, M, pivots)


@numba.njit
def substitute(M, pivots, right):
    branches.substitute(M, pivots, right)


COURSE = {"direction": "up", "max_points": 14}


def decay_of(widths, sigma, sizes=None):
    """Weight decay with all modes at their upper sizes, and λ = 0.05."""
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    net = dl.LinearNetwork(widths=widths, target=target)
    depth = len(widths) - 1
    known = [size_at(s, 0.05, depth) for s in sigma] if sizes is None else sizes
    return net, dl.equilibria(net, "weight_decay"), decayed(net, known)


def rotated(net, state, seed):
    """The state, moved by a random orthogonal matrix of each hidden layer."""
    rng = np.random.default_rng(seed)
    group = [
        np.eye(1) if d == 1 else ortho_group.rvs(d, random_state=rng) for d in net.widths[1:-1]
    ]
    return dl.act(net, group, state)


@pytest.mark.parametrize(
    "widths", [(3, 3, 3, 3), (2, 4, 3), (3, 2, 4, 2), (1, 1, 1, 1), (2, 3, 3, 3, 2)]
)
def test_compiled_steps_are_those_of_plain_ones(widths):
    """Both stop at ‖Δ‖ ≤ 1e-12 (1 + ‖(x, p)‖), and steps may part by what that leaves of each."""
    sigma = np.arange(min(widths), 0, -1.0) + 1.0
    net, equation, state = decay_of(widths, sigma)
    start = rotated(net, state, 1)
    plain = dataclasses.replace(equation, compiled=None)
    one, other = (
        dl.branch(kind, start, 0.05, bounds=(0.01, 3.0), **COURSE) for kind in (equation, plain)
    )
    assert [(k, n) for k, _, n in events(one)] == [(k, n) for k, _, n in events(other)]
    for name in ("p", "state", "tangent", "tangent_p", "transverse_eigenvalue", "arclength"):
        np.testing.assert_allclose(one[name], other[name], rtol=0.0, atol=1e-9, err_msg=name)
    for name in ("index", "orbit_dimension", "nullity"):
        np.testing.assert_array_equal(one[name], other[name])
    assert float(one.residual.max()) < 1e-11
    assert float(one.multiplier.max()) < 1e-10


def test_where_the_rank_is_deficient_generators_are_left_out():
    """With r of d modes the orbit has the dimension of O(d)² less that of O(d − r)²."""
    sigma = [4.0, 3.0, 2.0]
    net, equation, start = decay_of((3, 3, 3, 3), sigma, [size_at(4.0, 0.05, 3), 0.0, 0.0])
    curve = dl.branch(equation, rotated(net, start, 2), 0.05, bounds=(0.01, 3.0), **COURSE)
    assert (curve.orbit_dimension == 2 * (3 - 1)).all()
    assert float(curve.residual.max()) < 1e-11


def test_signs_alone_give_the_same_branch():
    _, equation, start = decay_of((3, 3, 3, 3), [4.0, 3.0, 2.0])
    full, signs = (
        dl.branch(equation, start, 0.05, bounds=(0.01, 3.0), n_eigenvalues=n, max_points=40)
        for n in (6, 0)
    )
    assert events(full) == events(signs)
    assert len(events(full)) >= 1
    for name in ("p", "state", "index", "nullity", "event"):
        np.testing.assert_array_equal(full[name], signs[name])
    assert signs.sizes["eigen"] == 0
    assert (signs.spectral_radius >= full.spectral_radius * (1 - 1e-12)).all()


def test_a_singular_pivot_and_dependent_generators_are_left_to_others():
    rows, unit = np.empty((2, 3)), 1.0
    same = np.array([[0, 3, 4], [1, 1, 2]], np.int64)  # (x_1, 0, 0) and (x_1, x_2, 0)
    for second, rank in ((1.0, 2), (1e-9, -1), (0.0, 1)):
        assert orbit_basis(np.array([1.0, second, 0.0]), same, unit, rows) == rank
    assert orbit_basis(np.array([1.0, 1.0, 0.0]), same, unit, rows) == 2
    np.testing.assert_allclose(rows @ rows.T, np.eye(2), atol=1e-15)
    M, pivots = np.empty((3, 3)), np.empty(3, np.int64)
    point, tangent = np.array([1.0, 2.0, 0.0]), np.array([0.0, 0.0, 1.0])
    singular = np.diag([1.0, 1e-12])
    regular = np.diag([1.0, -2.0])
    args = np.empty((0, 2)), 0, 1.0, point, 1.0, tangent, M, pivots
    assert not factorize(singular, *args)
    assert factorize(regular, *args)
    right = np.array([1.0, 2.0, 3.0])
    matrix = np.block([[regular, -point[:2, None]], [tangent[None, :]]])
    expected = np.linalg.solve(matrix, right)
    substitute(M, pivots, right)
    np.testing.assert_allclose(right, expected, atol=1e-14)


def test_steps_follow_the_contraction_and_the_turn():
    usual = branches.USUAL_CONTRACTION
    assert branches.next_step(0.1, usual, 1.0, 0.0, 1.0) == pytest.approx(0.1)
    assert branches.next_step(0.1, usual / 2.25, 1.0, 0.0, 1.0) == pytest.approx(0.15)
    assert branches.next_step(0.1, 0.0, 1.0, 0.0, 1.0) == pytest.approx(0.2)
    assert branches.next_step(0.1, 1.0, 1.0, 0.0, 1.0) == pytest.approx(0.05)
    assert branches.next_step(0.1, 0.0, 0.96, 0.0, 1.0) == pytest.approx(0.08)
    assert branches.next_step(0.1, 0.0, 1.0, 0.0, 0.12) == pytest.approx(0.12)


def test_a_step_that_ends_on_a_branch_point_is_not_lost():
    """From λ = 2 steps of 0.1, 0.2, … along the trivial branch meet λ = 1 exactly."""
    curve = dl.branch(
        dl.Residual(lambda x, p: p * x - x**3, lambda x, p: np.diag(p - 3 * x**2), symmetric=True),
        [0.0], -0.35, bounds=(-1.0, 1.0), step=0.05, step_max=0.1, direction="up",
    )  # fmt: skip
    assert [(k, n) for k, _, n in events(curve)] == [("branch_point", 1)]
    assert abs(events(curve)[0][1]) < 1e-10
