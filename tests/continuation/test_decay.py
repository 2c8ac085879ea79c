"""Weight decay on linear networks: whole branches from every index set and root, in closed form."""

import decays
import numpy as np
import pytest

import dlnds as dl

#: σ, widths, and λ at the start with the bounds: round numbers, as one types them.
GRID = [
    ((3.0, 2.0, 1.0), (3, 3, 3), 0.3, (0.3, 2.5)),
    ((3.0, 2.0, 1.0), (3, 4, 3), 0.75, (0.05, 1.5)),
    ((2.0, 1.0), (3, 4, 2), 0.1, (0.05, 5.0)),
    ((3.0, 2.0, 1.0), (3, 3, 3, 3), 0.3, (0.3, 2.5)),
    ((3.0, 2.0, 1.0), (3, 4, 5, 3), 0.2, (0.05, 5.0)),
    ((5.0, 3.0, 1.0), (3, 3, 3, 3, 3), 0.05, (0.01, 0.8)),
    ((4.0, 2.0), (3, 2, 4, 3, 2), 0.45, (0.05, 2.5)),
    ((2.0, 1.0), (2, 2, 2, 2), 0.3, (0.05, 0.3)),
]
#: Bounds on which an eigenvalue vanishes or a mode dies, or the orbit becomes that of GL.
AT_BOUNDS = [
    ((3.0, 2.0, 1.0), (3, 4, 3), 0.5, (0.1, 1.0)),
    ((2.0, 1.0), (2, 3, 2), 0.5, (0.1, 2.0)),
    ((2.0, 1.0), (2, 2, 2), 1.5, (1.0, 2.5)),
    ((3.0, 2.0, 1.0), (3, 4, 3), 0.1, (0.0, 0.4)),
]
#: Equal singular values: all of them are learnt, or none.
TIED = [
    ((2.0, 2.0), (2, 3, 2), 0.1, (0.05, 2.5)),
    ((3.0, 1.0, 1.0), (3, 4, 3), 0.3, (0.1, 1.4)),
    ((3.0, 1.0, 1.0), (3, 3, 4, 3), 0.1, (0.05, 0.4)),
]
#: Nearly equal ones: the next mode is learnt next to where the symmetry changes.
NEARLY_TIED = [
    ((2.0, 1.998), (2, 2, 2), 0.1, (0.02, 2.6)),
    ((2.0, 1.9998), (2, 3, 2), 0.1, (0.02, 2.6)),
    ((2.0, 1.99998), (2, 2, 2), 0.3, (0.05, 2.5)),
    ((2.001, 2.0, 1.999), (3, 3, 3), 0.1, (0.05, 2.5)),
]
#: Equal ones, through the fold of the two.
TIED_FOLDS = [
    ((2.0, 2.0), (2, 3, 2, 2), 0.1, (0.05, 2.5)),
    ((3.0, 1.0, 1.0), (3, 3, 4, 3), 0.1, (0.05, 2.5)),
    ((2.0, 1.0, 1.0), (3, 3, 3, 3, 3), 0.3, (0.05, 2.5)),
]


def whole(cases, **options):
    """What is wrong with the branches of cases, and from which case: nothing, if all is right."""
    found = {}
    for case in cases:
        net, branch = decays.followed(case, **options)
        wrong = decays.complaints(case, net, branch)
        if wrong:
            found[case] = wrong[0]
    return found


@pytest.mark.parametrize("given", [*GRID[:2], GRID[4], GRID[6], TIED[1]])
def test_the_closed_spectrum_is_that_of_the_hessian(given):
    """Otherwise the laws below would be about something else."""
    for case in decays.starts(*given):
        net = decays.network(case)
        x = decays.state(case, net)
        np.testing.assert_allclose(-net.gradient(x), case.p0 * x, atol=1e-12)
        sizes = decays.sizes_of(case, net, x)[0]
        zeros = decays.orbit_dimension(case.widths, len(case.modes))
        known = [np.full(n, value) for value, n in decays.spectrum(case, sizes, case.p0)]
        known = np.sort(np.concatenate([*known, np.zeros(zeros)]))
        found = np.linalg.eigvalsh(net.hessian(x) + case.p0 * np.eye(net.dim))
        np.testing.assert_allclose(known, found, atol=1e-11 * np.abs(found).max())


@pytest.mark.parametrize("given", GRID)
def test_branches_from_every_index_set_and_root_are_whole(given):
    assert whole(decays.starts(*given)) == {}


@pytest.mark.parametrize("given", AT_BOUNDS)
def test_special_points_on_bounds_are_told(given):
    assert whole(decays.starts(*given)) == {}


@pytest.mark.parametrize("given", TIED)
def test_equal_singular_values_fold_and_die_together(given):
    assert whole(decays.starts(*given)) == {}


@pytest.mark.parametrize("given", NEARLY_TIED)
def test_modes_are_learnt_next_to_where_another_one_vanishes(given):
    assert whole(decays.starts(*given)) == {}


@pytest.mark.parametrize("given", TIED_FOLDS)
def test_equal_singular_values_fold_together_in_three_layers_and_more(given):
    assert whole(decays.starts(*given)) == {}


@pytest.mark.parametrize("bounds", [(-0.3, 0.4), (-1.5, 0.2)])
@pytest.mark.parametrize("widths", [(3, 4, 3), pytest.param((3, 3, 4, 3), marks=pytest.mark.slow)])
def test_negative_decay_is_reached_through_a_change_of_symmetry(widths, bounds):
    cases = decays.starts((3.0, 2.0, 1.0), widths, 0.1, bounds)
    # No mode on its lower root: that passes zero with λ.
    assert whole(case for case in cases if "l" not in case.roots) == {}


def test_steps_do_not_matter():
    for given in (GRID[1], GRID[4]):
        cases = list(decays.starts(*given))[::5]
        for step, largest in ((0.01, 1.0), (0.05, 0.05), (0.3, 0.3)):
            assert whole(cases, step=step, step_max=largest) == {}, (step, largest)


@pytest.mark.parametrize("depth", [2, 3])
def test_one_of_two_equal_modes_lies_on_a_continuum(depth):
    """Rotations of the two are no declared symmetry: the start says so, minimum_norm follows it."""
    case = decays.Case((2.0, 2.0), (2,) * (depth + 1), (0,), "u", 0.1, (0.05, 0.5))
    net = decays.network(case)
    equation, x = dl.equilibria(net, vary="weight_decay"), decays.state(case, net)
    with pytest.raises(ValueError, match="^x0: .*weight_decay = 0.1.*minimum_norm"):
        dl.branch(equation, x, case.p0, bounds=case.bounds)
    branch = dl.branch(equation, x, case.p0, bounds=case.bounds, symmetry="minimum_norm")
    assert decays.events(branch) == []
    assert branch.p.values[[0, -1]].tolist() == [0.05, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_random_networks_are_followed_whole(seed):
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(2, 5))
    widths = rng.integers(2, 6, depth + 1).tolist()
    count = int(rng.integers(1, min(widths[0], widths[-1], 3) + 1))
    # Apart by more than a branch needs to tell two crossings from one of two dimensions.
    sigma = np.sort(0.3 + np.cumsum(rng.uniform(0.02, 1.5, count)))[::-1].tolist()
    if seed % 3 == 0:
        sigma = np.cumsum(rng.integers(1, 3, count))[::-1].astype(float).tolist()
    p0 = float(rng.choice([0.05, 0.1, 0.2, 0.3, 0.45, 0.5]))
    bounds = (p0 * float(rng.choice([0.5, 1.0])), float(rng.choice([p0 + 0.05, 1.0, 2.5, 5.0])))
    step = float(rng.choice([0.01, 0.05, 0.1, 0.25]))
    assert whole(decays.starts(sigma, widths, p0, bounds), step=step) == {}


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("modes", [(0, 1), (0, 2), (0, 1, 2)])
def test_maps_of_fixed_rank_are_followed_to_where_they_lose_it(depth, modes):
    """σ s^{h−1} = s^{2h−1} + λ s: a mode of two layers dies at λ = σ, of three it turns before."""
    sigma = np.array([3.0, 2.0, 1.0])
    net = dl.LinearNetwork(widths=(3,) * (depth + 1), target=np.diag(sigma))
    flow = dl.ProductFlow(net, len(modes))
    equation, x = dl.equilibria(flow, vary="weight_decay"), flow.critical_state(modes)
    branch = dl.branch(equation, x, 0.3, bounds=(0.2, 5.0))
    chosen = sigma[list(modes)]
    for row in range(branch.sizes["step"]):
        map_ = flow.product(branch.state.values[row])
        s = np.diag(map_)[list(modes)] ** (1.0 / depth)
        lack = s ** (depth - 1) * (chosen - s**depth) - float(branch.p[row]) * s
        assert np.abs(lack).max() < 1e-9
        np.testing.assert_allclose(np.diag(np.diag(map_)), map_, atol=1e-9)
    assert branch.p.values.min() == 0.2
    if depth == 2:
        last = {branch.attrs["first_stop"], branch.attrs["last_stop"]} - {"bound_reached"}
        assert last <= {"not_finite", "step_too_small", "unresolved"}
        assert last
        assert 0.9 * chosen[-1] < branch.p.values.max() <= chosen[-1]
