"""Diagrams: every branch of normal forms and of weight decay is found, and none twice."""

import numpy as np
import pytest
from equations import along, decayed, events, weight_decay

import dlnds as dl


def branches(tree):
    return [node.to_dataset() for node in tree.children.values()]


@pytest.mark.parametrize(
    ("form", "count"),
    [
        (lambda x, p: p * x - x**3, 2),
        (lambda x, p: p * x + x**3, 2),
        (lambda x, p: p * x - x**2, 3),
    ],
)
def test_normal_forms_have_their_branches(form, count):
    """Halves of a pitchfork agree in all invariants; a transcritical point has two."""
    tree = dl.diagram(form, [0.0], -0.5, bounds=(-1.0, 1.0))
    dl.schema.validate(tree)
    assert tree.attrs["complete"] == 1
    assert len(tree.children) == count
    for branch in branches(tree)[1:]:
        assert branch.attrs["parent"] == "branch_0"
        row = branches(tree)[0].isel(step=branch.attrs["parent_step"])
        assert dl.schema.decode(row.event).item() == "branch_point"
        np.testing.assert_allclose(branch.state[0], row.state, atol=1e-12)
        values = [form(x, p) for x, p in zip(branch.state.values, branch.p.values, strict=True)]
        assert np.abs(values).max() < 1e-9
        assert float(np.abs(branch.state[-1]).max()) > 0.5


def test_the_lorenz_equations_have_a_pair_with_its_hopf_point():
    lorenz = dl.Residual(
        lambda x, r: np.array(
            [10 * (x[1] - x[0]), x[0] * (r - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]]
        )
    )
    tree = dl.diagram(lorenz, np.zeros(3), 0.5, bounds=(0.0, 30.0))
    _, pair = branches(tree)
    assert [kind for kind, _, _ in events(pair)] == ["hopf"]
    assert events(pair)[0][1] == pytest.approx(470 / 19, abs=1e-8)


@pytest.mark.parametrize("d", [2, 3])
def test_two_layers_with_weight_decay_reach_every_index_set(d):
    """λ = σ_j − s_j² for the modes that are there: 2^d branches, met at λ = σ_j."""
    sigma = np.arange(d, 0, -1.0)
    net, equation = weight_decay((d, d, d), sigma)
    start = decayed(net, np.sqrt(sigma - 0.3))
    tree = dl.diagram(equation, start, 0.3, bounds=(0.2, d + 0.5), depth=2 * d, step_max=0.3)
    sets = set()
    for branch in branches(tree):
        for x, p in zip(branch.state.values, branch.p.values, strict=True):
            W = net.product(x)
            np.testing.assert_allclose(W, np.diag(np.diag(W)), atol=1e-7)
            there = np.diag(W) > 1e-4
            np.testing.assert_allclose(np.diag(W)[there], (sigma - p)[there], atol=1e-7)
            if p < 0.9:
                sets.add(tuple(np.flatnonzero(there).tolist()))
        for kind, p, _ in events(branch):
            assert kind in ("branch_point", "symmetry_change")
            assert np.abs(sigma - p).min() < 1e-8
    assert len(sets) == 2**d


def test_no_orbit_is_followed_twice_from_a_sphere_of_directions():
    """F_i = −x_i + λ x_i/2 − ‖x‖² x_i in three dimensions: one branch stands for the sphere."""

    def field(x, p):
        return -x + 0.5 * p * x - (x @ x) * x

    def generators(x, p):
        i, j = np.triu_indices(3, 1)
        rows = np.zeros((3, 3))
        rows[range(3), i], rows[range(3), j] = -x[j], x[i]
        return rows

    equation = dl.Residual(field, generators=generators, symmetric=True)
    tree = dl.diagram(equation, np.zeros(3), 1.0, bounds=(0.0, 4.0))
    first, ring = branches(tree)
    assert events(first)[0][0] == "branch_point"
    assert events(first)[0][1:] == (pytest.approx(2.0, abs=1e-9), 3)
    radius = np.linalg.norm(ring.state.values, axis=1)
    np.testing.assert_allclose(radius**2, 0.5 * ring.p.values - 1.0, atol=1e-9)
    assert set(ring.orbit_dimension.values[1:].tolist()) == {2}


@pytest.mark.parametrize("depth", [2, 3])
def test_crossing_modes_are_joined_from_any_point_of_an_orbit_of_gl(depth):
    """Σ = diag(3, 1 + θ, 2 − θ): {0,1} and {0,2} are joined at θ = 1/2 by all projectors between.

    Orbits of GL are not compact: neither sizes nor eigenvalues of states are those of an orbit.
    """
    net, equation, start = along([3.0, 1.0, 2.0], [0.0, 1.0, -1.0], (0, 1), depth)
    rng = np.random.default_rng(depth)
    group = [rng.normal(size=(2, 2)) for _ in range(depth - 1)]
    for x in (start, dl.act(net, group, start)):
        tree = dl.diagram(equation, x, 0.0, bounds=(0.0, 1.0), depth=3, step_max=0.2)
        first, circle, *others = branches(tree)
        parents = [branch.attrs["parent"] for branch in (circle, *others)]
        assert parents == ["branch_0", "branch_1", "branch_1"]
        assert tree.attrs["complete"] == 1
        for branch, mode in ((first, 1), *((other, 2) for other in others)):
            regular = branch.isel(step=slice(mode == 2, None))  # without what was located before
            for state, p in zip(regular.state.values, regular.p.values, strict=True):
                sigma = np.array([3.0, 1.0 + p, 2.0 - p])
                known = np.where(np.isin(np.arange(3), (0, mode)), sigma, 0.0)
                np.testing.assert_allclose(net.product(state), np.diag(known), atol=1e-9)
        ends = [branch.p.values[[0, -1]].round(12).tolist() for branch in (first, *others)]
        assert ends[0] == [0.0, 1.0]
        assert sorted(ends[1:]) == [[0.5, 0.0], [0.5, 1.0]]
        # Round the circle once: a line between the modes comes back after half a turn.
        np.testing.assert_allclose(circle.p, 0.5, atol=1e-9)
        assert circle.attrs["last_stop"] == "closed"
        W = np.stack([net.product(state) for state in circle.state.values]) / 1.5
        doubled = np.unwrap(np.arctan2(2.0 * W[:, 1, 2], W[:, 1, 1] - W[:, 2, 2]))
        turn = np.abs(np.diff(doubled))
        assert abs(doubled[-1] - doubled[0]) == pytest.approx(2 * np.pi, abs=2.0 * turn.max())
        np.testing.assert_allclose(np.trace(W[:, 1:, 1:], axis1=1, axis2=2), 1.0, atol=1e-9)


def test_declared_invariants_decide_what_is_one_orbit():
    """Of a pitchfork both halves are one orbit to |x|, and two to x."""

    def form(x, p):
        return p * x - x**3

    for invariants, count in ((lambda x, p: np.abs(x), 2), (lambda x, p: x, 3)):
        equation = dl.Residual(form, invariants=invariants)
        tree = dl.diagram(equation, [0.0], -0.5, bounds=(-1.0, 1.0))
        assert len(tree.children) == count


def test_diagrams_stop_at_their_limits():
    tree = dl.diagram(lambda x, p: p * x - x**2, [0.0], -0.5, bounds=(-1.0, 1.0), depth=0)
    assert list(tree.children) == ["branch_0"]
    tree = dl.diagram(lambda x, p: p * x - x**2, [0.0], -0.5, bounds=(-1.0, 1.0), max_branches=2)
    assert len(tree.children) == 2
    assert tree.attrs["complete"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": -1}, "^depth: needs at least 0"),
        ({"max_branches": 0}, "^max_branches: needs at least 1"),
        ({"bounds": (1.0, 0.0)}, "^bounds: needs"),
        ({"p0": 3.0}, "^p0: needs"),
    ],
)
def test_bad_input_is_named(change, message):
    options = {"x0": [0.0], "p0": 0.0, "bounds": (-1.0, 1.0)}
    with pytest.raises((ValueError, TypeError), match=message):
        dl.diagram(lambda x, p: p + x, **{**options, **change})
