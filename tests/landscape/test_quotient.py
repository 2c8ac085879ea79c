"""Group action, orbits, isotropy, canonical forms, distances between orbits."""

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl

NARROW = dl.LinearNetwork(widths=(2, 1, 2), target=np.diag([2.0, 1.0]))


def random_turns(net, rng):
    return [np.linalg.qr(rng.normal(size=(d, d)))[0] for d in net.widths[1:-1]]


def random_element(net, rng):
    return [np.eye(d) + 0.3 * rng.normal(size=(d, d)) / d for d in net.widths[1:-1]]


@given(naive.deep_networks, naive.seeds)
def test_the_group_acts_and_keeps_the_end_to_end_map(net, seed):
    rng = np.random.default_rng(seed)
    x = naive.state_of(net, seed)
    first, second = random_element(net, rng), random_element(net, rng)
    both = [q @ p for p, q in zip(first, second, strict=True)]
    moved = dl.act(net, second, dl.act(net, first, x))
    np.testing.assert_allclose(moved, dl.act(net, both, x), rtol=0, atol=1e-10 * np.abs(x).max())
    size = np.prod([np.linalg.norm(w) for w in net.unpack(moved)])
    np.testing.assert_allclose(net.product(moved), net.product(x), rtol=0, atol=1e-12 * size)
    back = dl.act(net, [np.linalg.inv(p) for p in both], moved)
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-10 * np.abs(x).max())


@given(naive.deep_networks, naive.seeds)
def test_orthogonal_turns_commute_with_the_flow(net, seed):
    x, turns = naive.state_of(net, seed), random_turns(net, np.random.default_rng(seed))
    size = np.abs(net.gradient(x)).max()
    np.testing.assert_allclose(
        net.gradient(dl.act(net, turns, x)),
        dl.act(net, turns, net.gradient(x)),
        rtol=0,
        atol=1e-12 * (1.0 + size),
    )


@given(naive.deep_networks, naive.seeds, st.booleans())
def test_orbit_frames_are_orthonormal_and_span_the_generators(net, seed, orthogonal):
    x = naive.state_of(net, seed)
    orbit = dl.orbit_basis(net, x, orthogonal=orthogonal)
    dl.schema.validate(orbit)
    frame, rows = orbit.frame.values, net.generators(x, orthogonal=orthogonal)
    np.testing.assert_allclose(frame @ frame.T, np.eye(len(frame)), atol=1e-13)
    np.testing.assert_allclose(rows @ frame.T @ frame, rows, atol=1e-10 * np.abs(x).max())
    assert int(orbit.orbit_dimension) == (np.linalg.matrix_rank(rows) if rows.size else 0)
    group = [d * (d - 1) // 2 if orthogonal else d * d for d in net.widths[1:-1]]
    assert int(orbit.orbit_dimension + orbit.isotropy_dimension) == sum(group)


def factors(text):
    sizes = [] if text in ("trivial", "") else [int(part[2:-1]) for part in text.split(" x ")]
    return sizes, sum(m * (m - 1) // 2 for m in sizes)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ((0.0, 0.0), [4, 3]),  # nothing reaches the hidden units
        ((0.0, 1.0), [1, 1, 1, 1]),  # a generic block between hidden layers, from no end
        ((1.0, 0.0), [1, 3]),
    ],
)
def test_the_isotropy_group_is_named(blocks, expected):
    """A generic 3 × 4 block between the hidden layers leaves signs of its singular pairs."""
    net = dl.LinearNetwork(widths=(3, 4, 3, 3), target=np.diag([3.0, 2.0, 1.0]))
    rng = np.random.default_rng(0)
    layers = [
        blocks[0] * rng.normal(size=(4, 3)), blocks[1] * rng.normal(size=(3, 4)), np.zeros((3, 3)),
    ]  # fmt: skip
    orbit = dl.orbit_basis(net, net.pack(layers))
    sizes, dimension = factors(orbit.isotropy.item())
    assert sorted(sizes) == sorted(expected)
    assert dimension == int(orbit.isotropy_dimension)


def test_equal_singular_values_of_an_unreached_block_are_turned_together():
    net = dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.diag([3.0, 2.0, 1.0]))
    layers = [np.zeros((4, 3)), np.diag([2.0, 2.0, 2.0, 1.0]), np.zeros((3, 4))]
    turned = dl.act(net, random_turns(net, np.random.default_rng(0)), net.pack(layers))
    orbit = dl.orbit_basis(net, turned)
    assert orbit.isotropy.item() == "O(3) x O(1)"
    assert int(orbit.isotropy_dimension) == 3


@given(naive.deep_networks, naive.seeds)
def test_isotropy_of_fiber_points_has_the_dimension_the_orbit_lacks(net, seed):
    rng = np.random.default_rng(seed)
    modes = range(int(rng.integers(net.max_rank, endpoint=True)))
    orbit = dl.orbit_basis(net, dl.random_fiber_state(net, modes, rng=rng))
    if orbit.isotropy.item():
        assert factors(orbit.isotropy.item())[1] == int(orbit.isotropy_dimension)


@given(naive.deep_networks, naive.seeds)
def test_tangent_vectors_split_and_gradients_are_horizontal(net, seed):
    x, v = naive.state_of(net, seed), naive.state_of(net, seed + 1)
    parts = dl.split_tangent(net, x, v)
    dl.schema.validate(parts)
    np.testing.assert_allclose(parts.vertical + parts.horizontal, v, atol=1e-14)
    assert abs(float(parts.vertical @ parts.horizontal)) < 1e-13 * (v @ v)
    rows = net.generators(x, orthogonal=True)
    assert np.abs(rows @ parts.horizontal.values).max(initial=0) < 1e-12 * (
        1 + np.abs(rows).max(initial=0)
    )
    gradient = net.gradient(x)
    size = np.abs(gradient).max()
    assert np.abs(dl.split_tangent(net, x, gradient).vertical).max() < 1e-12 * (1 + size)


@given(naive.deep_networks, naive.seeds)
def test_points_on_the_orbit_of_a_canonical_point_are_canonicalized(net, seed):
    rng = np.random.default_rng(seed)
    modes = tuple(range(int(rng.integers(net.max_rank, endpoint=True))))
    element = random_element(net, rng)
    x = dl.act(net, element, net.critical_state(modes))
    canon = dl.canonicalize(net, x)
    dl.schema.validate(canon)
    size = 1.0 + np.abs(net.critical_state(modes)).max()
    assert float(canon.residual) < 1e-10 * size
    np.testing.assert_allclose(canon.state, net.critical_state(modes), rtol=0, atol=1e-12 * size)
    assert canon.critical_point.item() == dl.schema.index_set_label(modes)
    again = dl.act(net, canon.group_element, x)
    np.testing.assert_allclose(again, canon.moved_state, rtol=0, atol=1e-12 * size)


@given(naive.deep_networks, naive.seeds)
def test_distance_vanishes_on_orbits_and_invariants_bound_it_from_below(net, seed):
    rng = np.random.default_rng(seed)
    x, y = naive.state_of(net, seed), naive.state_of(net, seed + 1)
    same = dl.act(net, random_turns(net, rng), x)
    size = np.linalg.norm(x)
    assert dl.orbit_distance(net, x, same) < 1e-6 * size
    assert dl.orbit_distance(net, x, same, method="invariants") < 1e-12 * (1 + size)
    far = dl.orbit_distance(net, x, y)
    assert far <= np.linalg.norm(x - y) * (1 + 1e-12)
    assert dl.orbit_distance(net, x, y, method="invariants") <= far * (1 + 1e-9)
    moved = dl.act(net, random_turns(net, rng), y)
    assert dl.orbit_distance(net, x, moved, method="invariants") == pytest.approx(
        dl.orbit_distance(net, x, y, method="invariants"), rel=1e-8, abs=1e-10
    )


@given(naive.seeds)
def test_distance_is_a_metric_for_two_layers(seed):
    """There the alignment is exact: the distance of [W_1, W_2ᵀ] by the nuclear norm."""
    net = dl.LinearNetwork(widths=(2, 3, 2), target=np.diag([2.0, 1.0]))
    x, y, z = (naive.state_of(net, seed + k) for k in range(3))

    def exact(a, b):
        stacks = [np.hstack([w1, w2.T]) for w1, w2 in (net.unpack(a), net.unpack(b))]
        nuclear = np.linalg.svd(stacks[0] @ stacks[1].T, compute_uv=False).sum()
        return np.sqrt(a @ a + b @ b - 2.0 * nuclear)

    for a, b in [(x, y), (y, z), (x, z)]:
        assert dl.orbit_distance(net, a, b) == pytest.approx(exact(a, b), rel=1e-12)
        assert dl.orbit_distance(net, b, a) == pytest.approx(exact(a, b), rel=1e-12)
    pairs = [dl.orbit_distance(net, *pair) for pair in [(x, y), (y, z), (x, z)]]
    assert pairs[2] <= pairs[0] + pairs[1]
    assert pairs[2] >= abs(pairs[0] - pairs[1])


def test_invariants_see_what_single_layers_do_not():
    """Two states with the same layers up to independent turns, but different products."""
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    W1, W2 = np.diag([2.0, 1.0]), np.diag([3.0, 1.0])
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    x, y = net.pack([W1, W2]), net.pack([W1, W2 @ swap])
    assert dl.orbit_distance(net, x, y, method="invariants") > 0.1


def test_runs_are_projected_to_the_quotient():
    net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    start = net.initial(scale=0.1, rng=0)
    run = dl.flow(net, start, t_span=(0, 20), t_eval=np.linspace(0, 20, 30))
    projected = dl.quotient_run(net, run)
    dl.schema.validate(projected)
    assert float(projected.orbit_distance[-1]) < 1e-12
    assert (np.diff(projected.length) >= 0).all()
    loss = net.loss(projected.state.values)
    np.testing.assert_allclose(loss, run.loss, rtol=1e-9, atol=1e-12)
    turned = run.copy(deep=True)
    turns = random_turns(net, np.random.default_rng(1))
    turned["state"].values[:] = [dl.act(net, turns, x) for x in run.state.values]
    other = dl.quotient_run(net, turned, reference=run.state.values[-1])
    np.testing.assert_allclose(other.orbit_distance, projected.orbit_distance, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x: dl.act(net, [np.eye(3)], x), "^element: needs a sequence of 2 matrices"),
        (lambda net, x: dl.act(net, [np.zeros((3, 3)), np.eye(3)], x), "^element: .*P_1 is sing"),
        (lambda net, x: dl.orbit_distance(net, x[1:], x), "^x: needs a shape"),
        (lambda net, x: dl.orbit_distance(net, x, x, method="procrustean"), "^method: .*procrus"),
        (lambda net, x: dl.split_tangent(net, x, x[:-1]), "^v: needs a shape"),
        (lambda net, x: dl.quotient_run(net, dl.critical_points(net)), "^run: needs a Dataset"),
        (lambda net, x: dl.canonicalize(net, x), "^x: needs a critical point, got a relative"),
        (lambda net, x: dl.random_fiber_state(net, (0, 0)), "^modes: needs different"),
        (lambda net, x: dl.random_fiber_state(net, (7,)), "^modes: "),
        (lambda net, x: dl.random_fiber_state(NARROW, (0, 1)), "^modes: .*narrowest layer has 1"),
        (lambda net, x: dl.orbit_basis("net", x), "^net: needs a network"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    net = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
    with pytest.raises((ValueError, TypeError), match=message):
        call(net, naive.state_of(net, 0))
