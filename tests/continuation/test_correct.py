"""Steps along branches: orbits, how many eigenvalues are recorded, lengths, zeros at their ends."""

import numpy as np
import pytest
from equations import decayed, events, size_at
from scipy.stats import ortho_group

import dlnds as dl
from dlnds.continuation.branches import USUAL_CONTRACTION, Steps, next_step

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


def test_where_the_rank_is_deficient_generators_are_left_out():
    """With r of d modes the orbit has the dimension of O(d)² less that of O(d − r)²."""
    sigma = [4.0, 3.0, 2.0]
    net, equation, start = decay_of((3, 3, 3, 3), sigma, [size_at(4.0, 0.05, 3), 0.0, 0.0])
    curve = dl.branch(equation, rotated(net, start, 2), 0.05, bounds=(0.01, 3.0), **COURSE)
    assert (curve.orbit_dimension == 2 * (3 - 1)).all()
    assert float(curve.residual.max()) < 1e-11


def test_events_do_not_depend_on_how_many_eigenvalues_are_recorded():
    _, equation, start = decay_of((3, 3, 3, 3), [4.0, 3.0, 2.0])
    full, none = (
        dl.branch(equation, start, 0.05, bounds=(0.01, 3.0), n_eigenvalues=n, max_points=40)
        for n in (6, 0)
    )
    assert events(full) == events(none)
    assert len(events(full)) >= 1
    for name in ("p", "state", "index", "nullity", "event", "spectral_radius"):
        np.testing.assert_array_equal(full[name], none[name])
    assert none.sizes["eigen"] == 0


def test_steps_follow_the_contraction_and_the_turn():
    free, held = Steps(0.1, 0.0, 1.0), Steps(0.1, 0.0, 0.12)
    assert next_step(free, 0.1, USUAL_CONTRACTION, 1.0) == pytest.approx(0.1)
    assert next_step(free, 0.1, USUAL_CONTRACTION / 2.25, 1.0) == pytest.approx(0.15)
    assert next_step(free, 0.1, 0.0, 1.0) == pytest.approx(0.2)
    assert next_step(free, 0.1, 1.0, 1.0) == pytest.approx(0.05)
    assert next_step(free, 0.1, 0.0, 0.96) == pytest.approx(0.08)
    assert next_step(held, 0.1, 0.0, 1.0) == pytest.approx(0.12)


def test_a_step_that_ends_on_a_branch_point_is_not_lost():
    """From λ = 2 steps of 0.1, 0.2, … along the trivial branch meet λ = 1 exactly."""
    curve = dl.branch(
        dl.Residual(lambda x, p: p * x - x**3, lambda x, p: np.diag(p - 3 * x**2), symmetric=True),
        [0.0], -0.35, bounds=(-1.0, 1.0), step=0.05, step_max=0.1, direction="up",
    )  # fmt: skip
    assert [(k, n) for k, _, n in events(curve)] == [("branch_point", 1)]
    assert abs(events(curve)[0][1]) < 1e-10
