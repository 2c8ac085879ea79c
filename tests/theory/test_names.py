"""Names of critical points: index sets, and roots under weight decay."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl
from dlnds.theory import names

SIGMA = np.array([3.0, 1.7, 0.8])


def orthogonal(rng, rows, columns):
    return np.linalg.qr(rng.normal(size=(rows, columns)))[0]


def network(rng, sigma, hidden, root=None):
    """A network with singular values sigma in random bases, and these bases."""
    left, right = orthogonal(rng, len(sigma) + 1, len(sigma)), orthogonal(rng, 4, len(sigma))
    widths = (4, *hidden, len(left))
    net = dl.LinearNetwork(widths=widths, target=(left * sigma) @ right.T, input_root=root)
    return net, left, right


def decayed(rng, net, left, right, sizes):
    """Balanced layers that have these sizes along the modes, with any bases of hidden layers."""
    frames = [right, *(orthogonal(rng, d, len(sizes)) for d in net.widths[1:-1]), left]
    return net.pack([(b * sizes) @ a.T for a, b in itertools.pairwise(frames)])


def roots(sigma, decay, depth):
    """Positive roots of λ s = s^{h−1} (σ − s^h), the largest first."""
    powers = np.zeros(2 * depth)
    powers[2 * depth - 1] -= 1.0
    powers[1] -= decay
    powers[depth - 1] += sigma
    found = np.roots(powers[::-1])
    return sorted(found.real[(abs(found.imag) < 1e-9) & (found.real > 1e-9)])[::-1]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.2))
def test_every_index_set_and_root_has_its_name(depth, seed, decay):
    rng = np.random.default_rng(seed)
    net, left, right = network(rng, SIGMA, (5,) * (depth - 1))
    label = dl.equilibria(net, vary="weight_decay").label
    signs, known = ("⁺⁻" if depth > 2 else ("",)), [roots(s, decay, depth) for s in SIGMA]
    assert [len(sizes) for sizes in known] == [len(signs)] * 3
    states, expected = [], []
    for choice in itertools.product(range(-1, len(signs)), repeat=3):
        sizes = [own[root] if root >= 0 else 0.0 for own, root in zip(known, choice, strict=True)]
        states.append(decayed(rng, net, left, right, np.array(sizes)))
        words = [f"{mode}{signs[root]}" for mode, root in enumerate(choice) if root >= 0]
        expected.append("{" + ",".join(words) + "}")
    assert label(np.stack(states), np.full(len(states), decay)).tolist() == expected
    assert [label(x, decay) for x in states] == expected


def test_a_fold_is_one_root():
    net = dl.LinearNetwork(widths=(1, 1, 1, 1), target=[[2.0]])
    label, s = dl.equilibria(net, vary="weight_decay").label, 0.5 ** (1 / 3)
    assert label(np.full(3, s), s * (2.0 - 0.5)) == "{0}"
    for sign, moved in (("⁺", s + 1e-4), ("⁻", s - 1e-4)):
        assert label(np.full(3, moved), moved * (2.0 - moved**3)) == f"{{0{sign}}}"


def test_a_flow_of_the_product_has_the_names_of_its_layers():
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=np.diag(SIGMA))
    flow, sizes = dl.ProductFlow(net, 3), np.array([roots(s, 0.1, 3) for s in SIGMA])
    label = dl.equilibria(flow, vary="weight_decay").label
    w = np.diag(sizes[[0, 1, 2], [0, 1, 0]] ** 1.5)
    assert label(np.concatenate([w.ravel(), w.ravel()]), 0.1) == "{0⁺,1⁻,2⁺}"


def test_raw_inputs_have_names_where_the_decay_keeps_the_modes():
    """Each mode has λ = s^{h−2} k (σ − k s^h) for the size k of its input."""
    root, decay = np.diag([2.0, 0.5, 1.0]), 0.2
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=np.diag(SIGMA), input_root=root)
    sizes = []
    for gain, sigma in zip(np.diag(root), SIGMA, strict=True):
        found = np.roots([-(gain**2), 0.0, 0.0, gain * sigma, -decay])
        sizes.append(sorted(found.real[(abs(found.imag) < 1e-9) & (found.real > 0)])[::-1])
    label = dl.equilibria(net, vary="weight_decay").label
    for choice in itertools.product((0, 1), repeat=3):
        s = np.diag([own[at] for own, at in zip(sizes, choice, strict=True)])
        expected = ",".join(f"{mode}{'⁺⁻'[at]}" for mode, at in enumerate(choice))
        assert label(net.pack([s, s, s]), decay) == f"{{{expected}}}"
    mixed, _, _ = network(np.random.default_rng(0), SIGMA, (3, 3), np.diag([1.0, 2.0, 3.0, 4.0]))
    decay = dl.equilibria(mixed, vary="weight_decay")
    branch = dl.branch(decay, mixed.critical_state((0, 1, 2)), 0.01, bounds=(0.0, 0.02))
    found = decay.label(branch.state.values, branch.p.values).tolist()
    assert found == ["{0,1,2}", *[""] * (len(found) - 1)]  # with a decay they turn modes


@pytest.mark.parametrize("vary", ["weight_decay", "covariance", "target", "imbalance"])
def test_without_decay_names_are_those_of_the_map_whatever_the_layers(vary):
    rng = np.random.default_rng(0)
    net, _, _ = network(rng, SIGMA, (3, 3))
    ends = net.critical_state((0, 1, 2)), net.critical_state((0, 1, 2))
    path = {"target": (net.target, 2.0 * net.target), "imbalance": ends}
    options = {"path": path[vary]} if vary in path else {}
    if vary == "covariance":
        net = dl.LinearNetwork.from_moments(net.target, np.eye(4), (3, 3))
    label = dl.equilibria(net, vary, **options).label
    for size in range(4):
        for modes in itertools.combinations(range(3), size):
            turns = [rng.normal(size=(3, 3)) for _ in range(2)]
            x = dl.act(net, turns, net.critical_state(modes))
            assert label(x, 0.0) == dl.schema.index_set_label(modes)


def test_of_equal_singular_values_some_have_no_number():
    rng = np.random.default_rng(0)
    net, left, right = network(rng, [3.0, 1.0, 1.0, 1.0], (4, 4))
    label, turn = dl.equilibria(net, vary="weight_decay").label, np.eye(4)
    turn[1:, 1:] = orthogonal(rng, 3, 3)
    upper, lower = roots(1.0, 0.1, 3)
    for sizes, name in (
        ([upper, 0.0, 0.0], "{σ=1⁺}"),
        ([upper, 0.0, upper], "{σ=1⁺×2}"),
        ([upper, lower, lower], "{σ=1⁺,σ=1⁻×2}"),
        ([lower, lower, lower], "{1⁻,2⁻,3⁻}"),
        ([0.0, 0.0, 0.0], "{}"),
    ):
        x = decayed(rng, net, left @ turn, right @ turn, np.array([0.0, *sizes]))
        assert label(x, 0.1) == name
    for sizes, name in (([1.0, 1.0, 0.0], "{0,σ=1×2}"), ([1.0, 1.0, 1.0], "{0,1,2,3}")):
        x = decayed(rng, net, left @ turn, right @ turn, np.array([3.0 ** (1 / 3), *sizes]))
        assert label(x, 0.0) == name


@given(st.integers(0, 2**32 - 1))
def test_other_states_have_no_name(seed):
    rng = np.random.default_rng(seed)
    net, left, right = network(rng, SIGMA, (3, 3))
    label = dl.equilibria(net, vary="weight_decay").label
    assert label(net.initial(scale=1.0, rng=rng), 0.1) == ""
    sizes = np.array([roots(s, 0.1, 3)[0] for s in SIGMA])
    x = decayed(rng, net, left, right, sizes)
    assert label(x, 0.1) == "{0⁺,1⁺,2⁺}"
    assert label(x, 0.12) == label(1.1 * x, 0.1) == label(x, 0.0) == ""
    assert label(decayed(rng, net, left[:, ::-1], right, sizes), 0.1) == ""
    assert label(decayed(rng, net, left @ orthogonal(rng, 3, 3), right, sizes), 0.1) == ""


def test_a_network_without_target_has_one_name():
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.zeros((2, 2)))
    label = dl.equilibria(net, vary="weight_decay").label
    assert label(np.zeros(8), 0.1) == label(np.zeros(8), 0.0) == "{}"
    assert label(np.ones(8), 0.1) == ""


def test_index_sets_follow_the_order_of_the_singular_values():
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([3.0, 1.0]))
    path = np.diag([3.0, 1.0]), np.diag([1.0, 3.0])
    label = dl.equilibria(net, "target", path=path).label
    found = [label(net.pack([w, np.eye(2)]), p) for p in (0.0, 0.4, 0.5, 0.6, 1.0)
             for w in [np.diag([3.0 - 2.0 * p, 0.0])]]  # fmt: skip
    assert found == ["{0}", "{0}", "{σ=2}", "{1}", "{1}"]


def test_names_of_maps_read_as_index_sets():
    net = dl.LinearNetwork(widths=(3, 3, 3), target=np.diag(SIGMA))
    points = dl.critical_points(net)
    maps = np.stack([np.diag(SIGMA * row) for row in points.learnt.values])
    assert names.of_maps(net.problem, maps).tolist() == points.critical_point.values.tolist()


@pytest.mark.parametrize("modes", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_a_branch_goes_from_one_root_of_its_weakest_mode_to_the_other(modes):
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=np.diag(SIGMA))
    equation = dl.equilibria(net, vary="weight_decay")
    branch = dl.branch(equation, net.critical_state(modes), 0.05, bounds=(0.01, 3.0))
    labels = equation.label(branch.state.values, branch.p.values)
    strong = "".join(f"{mode}⁺," for mode in modes[:-1])
    names = [label for label, _ in itertools.groupby(labels)]
    assert names == [f"{{{strong}{modes[-1]}{root}}}" for root in ("⁺", "", "⁻")]
    assert labels[branch.event.values > 0].tolist() == [names[1]]


@pytest.mark.parametrize("widths", [(2, 1, 2, 2), (3, 2, 3, 3), (3, 3, 2, 3), (3, 2, 4, 5, 3)])
def test_points_of_equal_modes_at_a_bottleneck_have_their_names(widths):
    """First and last layers are then of other rank than there are equal modes."""
    net = dl.LinearNetwork(widths, 2.0 * np.eye(widths[0]), weight_decay=0.1)
    for learnt in range(net.max_rank + 1):
        x = net.critical_state(range(learnt))
        assert (net.limit(x).label == "{}") == (learnt == 0)
    run = dl.flow(net, 0.5 * np.ones(net.dim), (0.0, 1.0))
    assert dl.schema.decode(run.stop_reason).item() == "end_reached"
