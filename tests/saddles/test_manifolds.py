"""Stable and unstable manifolds: directions, dimensions, and what grows from them."""

import itertools

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

import dlnds as dl
from dlnds.saddles import directions
from dlnds.theory import forms, strings


def network(widths, sigma):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    return dl.LinearNetwork(widths=widths, target=target)


def turned(net, x, seed):
    """The state in other orthonormal hidden bases."""
    rng = np.random.default_rng(seed)
    group = [np.linalg.qr(rng.normal(size=(d, d)))[0] for d in net.widths[1:-1]]
    return dl.act(net, group, x)


def moved(net, x, seed):
    """The state in other hidden bases that are not orthonormal."""
    rng = np.random.default_rng(seed)
    return dl.act(net, [np.eye(d) + 0.2 * rng.normal(size=(d, d)) for d in net.widths[1:-1]], x)


def frames(size, count):
    return size * count - count * (count + 1) // 2


def random_set(net, seed):
    rng = np.random.default_rng(seed)
    positive = np.flatnonzero(net.singular_values)
    rank = rng.integers(0, net.max_rank + 1) if net.depth > 1 else len(positive)
    return tuple(rng.choice(positive, rank, replace=False).tolist())


@settings(max_examples=40, deadline=None)
@given(naive.small_networks, naive.seeds, st.sampled_from(["canonical", "turned", "moved", "any"]))
def test_strict_directions_are_eigenvectors_and_all_of_them(net, seed, place):
    modes = random_set(net, seed)
    x = net.critical_state(modes)
    if place == "any":
        x = dl.random_fiber_state(net, modes, rng=seed)
    elif place != "canonical":
        x = {"turned": turned, "moved": moved}[place](net, x, seed)
    hessian = net.hessian(x)
    values = np.linalg.eigvalsh(hessian)
    size = strings.hessian_scale(net.problem, net.unpack(x))
    if ((np.abs(values) < 1e-5 * size) & (np.abs(values) > 1e-11 * size)).any():
        return  # the sign is not clear in double precision
    for sign, make in ((-1.0, dl.unstable_manifold), (1.0, dl.stable_manifold)):
        mani = make(net, x)
        dl.schema.validate(mani)
        strict = mani.order.values == 2
        frame, rate = mani.frame.values[strict], mani.rate.values[strict]
        assert mani.attrs["strict_dimension"] == np.sum(sign * values > 1e-8 * size)
        np.testing.assert_allclose(frame @ frame.T, np.eye(len(frame)), atol=1e-12)
        np.testing.assert_allclose(
            frame @ hessian, sign * rate[:, None] * frame, atol=1e-11 * max(size, 1.0)
        )
        np.testing.assert_allclose(np.linalg.norm(mani.frame, axis=1), 1.0, rtol=1e-12)
        assert mani.attrs["dimension"] >= mani.attrs["quotient_dimension"] >= 0


@settings(max_examples=40, deadline=None)
@given(naive.small_networks, naive.seeds)
def test_series_of_the_field_are_exact(net, seed):
    """Summed at α, the coefficients up to the degree of the polynomial give the field there."""
    rng = np.random.default_rng(seed)
    terms = rng.normal(size=(3, net.dim))
    degree = 2 * (2 * net.depth - 1)
    series = forms.field_terms(net.problem, terms, degree)
    x = terms[0] + 0.3 * terms[1] + 0.09 * terms[2]
    total = (0.3 ** np.arange(degree + 1)) @ series
    np.testing.assert_allclose(total, naive.field(net, x), atol=1e-12 * np.abs(series).sum())


def test_two_layers_leave_the_origin_with_equal_factors_and_come_with_opposite_ones():
    """W^u(0) = {W_2 = W_1ᵀ}, W^s(0) = {W_2 = −W_1ᵀ}, and all of these spaces."""
    rng = np.random.default_rng(0)
    for d, hidden in ((2, 2), (3, 5), (4, 2)):
        net = network((d, hidden, d), rng.uniform(0.5, 3.0, size=d))
        for sign, make in ((1.0, dl.unstable_manifold), (-1.0, dl.stable_manifold)):
            mani = make(net, np.zeros(net.dim))
            W1, W2 = net.unpack(mani.frame.values)
            assert np.abs(W2 - sign * W1.transpose(0, 2, 1)).max() < 1e-15
            assert mani.sizes["direction"] == mani.attrs["dimension"] == d * hidden
            rank = min(d, hidden)
            assert mani.attrs["quotient_dimension"] == rank * d - rank * (rank - 1) // 2
            fibres = dl.grow_manifold(net, mani, 3, rng=1)
            V1, V2 = net.unpack(fibres.state.values.reshape(-1, net.dim))
            gap = np.abs(V2 - sign * V1.transpose(0, 2, 1)).max()
            assert gap < 1e-10


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(1, 6),
    st.integers(1, 6),
    naive.seeds,
)
def test_dimensions_agree_with_the_closed_counts(hidden, inputs, outputs, seed):
    """Swaps, and ρ k − ρ(ρ − 1)/2 with frames in the hidden layers, at A_S of any depth."""
    rng = np.random.default_rng(seed)
    sigma = np.sort(rng.uniform(0.5, 3.0, size=min(inputs, outputs)))[::-1]
    net = network((inputs, *hidden, outputs), sigma)
    modes = random_set(net, seed)
    for x in (net.critical_state(modes), turned(net, net.critical_state(modes), seed)):
        mani = dl.unstable_manifold(net, x)
        r, k = len(modes), len(sigma) - len(modes)
        swaps = sum(sigma[j] > sigma[i] for i in modes for j in set(range(len(sigma))) - set(modes))
        rho = min(k, *(d - r for d in net.widths))
        quotient = swaps + rho * k - rho * (rho - 1) // 2
        assert mani.attrs["quotient_dimension"] == quotient
        assert mani.attrs["dimension"] == quotient + sum(frames(d - r, rho) for d in hidden)
        assert mani.attrs["is_complete"] == 1


def several_channels(net, modes, opened):
    """The KKT point of N with channels of several modes, a_j ∝ σ_j^{−1/(h−2)}, at A_S."""
    r, layers = len(modes), [np.zeros_like(w) for w in net.unpack(np.zeros(net.dim))]
    for place, j in enumerate(opened):
        a = net.singular_values[j] ** (-1.0 / (net.depth - 2))
        units = [j, *[r + place] * (net.depth - 1), j]
        for w, before, after in zip(layers, units[:-1], units[1:], strict=True):
            w[after, before] = a
    vector = net.pack(layers)
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize(
    ("widths", "sigma", "modes"),
    [
        ((2, 2, 2, 2), (2.0, 1.0), ()),
        ((2, 3, 2, 2), (2.0, 1.0), ()),
        ((3, 2, 2, 3), (3.0, 2.0, 1.0), (1,)),
        ((3, 1, 3, 3), (3.0, 2.0, 1.0), ()),
        ((3, 2, 3, 2, 3), (3.0, 2.0, 1.0), ()),
    ],
)
def test_counts_of_cones_agree_with_ascent_on_the_leading_form(widths, sigma, modes):
    """The KKT point with the smallest modes has as many rising directions as there are."""
    net = network(widths, sigma)
    x = net.critical_state(modes)
    mani = dl.unstable_manifold(net, x)
    form = directions.leading_form(net, x, directions.hessian_at(net, x, 1e-10))
    assert form.degree == net.depth
    opened = [j for j in range(len(sigma)) if j not in modes]
    room = min(d - len(modes) for d in widths)
    counts = []
    for chosen in (opened[:1], opened[-room:]):
        c = several_channels(net, modes, chosen) @ form.basis
        gradient = form.gradient(c)
        value = float(gradient @ c) / form.degree
        np.testing.assert_allclose(gradient, form.degree * value * c, atol=1e-12)
        plain = directions.expanded(form, 1.0)
        counts.append(mani.attrs["strict_dimension"] + directions.dimension(plain, c, value))
    assert mani.attrs["dimension"] == counts[-1] >= counts[0]
    points = directions.escape_points(directions.expanded(form, 1.0))
    best = float(mani.rate[mani.order.values > 2].max())
    assert form.degree * points[0].value == pytest.approx(best, rel=1e-8)


def test_leading_forms_off_balance_have_less_to_gain():
    """The best KKT point found is one, of at most the balanced value; runs follow it."""
    net = network((3, 2, 2, 3), (3.0, 2.0, 1.0))
    x = moved(net, net.critical_state((1,)), 1)
    mani = dl.unstable_manifold(net, x)
    form = directions.leading_form(net, x, directions.hessian_at(net, x, 1e-10))
    rays = mani.order.values == 3
    balanced = 3.0 * 3.0**-0.5
    assert 0.5 * balanced < float(mani.rate[rays].max()) <= balanced * (1.0 + 1e-12)
    for ray, rate in zip(mani.frame.values[rays], mani.rate.values[rays], strict=True):
        gradient = form.basis @ form.gradient(ray @ form.basis)
        np.testing.assert_allclose(gradient, rate * ray, atol=1e-9 * rate)


@pytest.mark.parametrize(
    ("widths", "sigma", "modes"),
    [
        ((3, 3, 3), (2.0, 1.0, 0.0), ()),
        ((3, 2, 3, 2), (2.0, 0.0), ()),
        ((4, 4, 4, 3), (2.0, 1.0, 0.0), (1,)),
        ((3, 4, 4, 3), (2.0, 0.0, 0.0), ()),
        ((2, 2, 2, 2), (2.0, 1.0), (0,)),
    ],
)
def test_stable_sets_have_the_stated_dimension(widths, sigma, modes):
    """Rank of the tangents of all their points: balanced layers with Z_{1:h} = −Q P."""
    net = network(widths, sigma)
    r, h = len(modes), net.depth
    open_modes = [j for j in np.flatnonzero(net.singular_values) if j not in modes]
    spare = [
        np.setdiff1d(np.arange(widths[end]), np.flatnonzero(net.singular_values)) for end in (0, -1)
    ]
    q = min(map(len, spare))
    size = len(open_modes) + q
    rank = min(size, *(d - r for d in widths[1:-1]))

    def point(numbers):
        """Residual layers from a root of P, isometries of the ends, and hidden frames."""
        numbers = iter(numbers)

        def take(*shape):
            return np.reshape(list(itertools.islice(numbers, int(np.prod(shape)))), shape)

        ends = []
        for width, places in zip((widths[0], widths[-1]), spare, strict=True):
            frame = np.zeros((width, size))
            frame[open_modes, np.arange(len(open_modes))] = 1.0
            frame[places, len(open_modes) :] = np.linalg.qr(take(len(places), q))[0]
            ends.append(frame)
        left, s, _ = np.linalg.svd(take(size, rank), full_matrices=False)
        hidden = [np.linalg.qr(take(d - r, rank))[0] for d in widths[1:-1]]
        chain = [-ends[0] @ left, *hidden, ends[1] @ left]
        roots = s ** (2.0 / h)
        return np.concatenate([((b * roots) @ a.T).ravel() for a, b in itertools.pairwise(chain)])

    count = sum(len(p) * q for p in spare) + size * rank + sum((d - r) * rank for d in widths[1:-1])
    start = np.random.default_rng(0).normal(size=count)
    tangents = naive.differences(point, start, 1e-4)
    values = np.linalg.svd(tangents, compute_uv=False)
    dimension = int(np.sum(values > 1e-6 * values[0]))
    mani = dl.stable_manifold(net, net.critical_state(modes))
    residual = len(open_modes) * (widths[1] - r) if h == 2 else 0
    assert mani.attrs["dimension"] == dimension + mani.attrs["strict_dimension"] - residual
    if not r:  # such points stay such, and come nearer; rounding would leave later
        x = 0.5 * point(start) / np.linalg.norm(point(start))
        times = np.linspace(0.0, 4.0, 9)
        states = dl.flow(net, x, (0.0, 4.0), times, rtol=1e-12).state.values
        assert (np.diff(np.linalg.norm(states, axis=1)) < 0.0).all()
        known = -net.product(states)[:, open_modes][:, :, open_modes]
        np.testing.assert_allclose(known, known.transpose(0, 2, 1), atol=1e-9)
        assert np.linalg.eigvalsh(known).min() > -1e-9


@pytest.mark.parametrize(
    ("widths", "sigma", "modes"),
    [
        ((3, 3, 3), (2.0, 1.0, 0.0), ()),
        ((4, 3, 4), (2.0, 0.0, 0.0, 0.0), ()),
        ((3, 2, 3, 2), (2.0, 0.0), ()),
        ((4, 4, 4, 3), (2.0, 1.0, 0.0), (1,)),
        ((3, 4, 4, 4, 3), (2.0, 0.0, 0.0), (0,)),
    ],
)
def test_rates_are_those_of_the_field_along_each_direction(widths, sigma, modes):
    """v·f(x + r v) = ± rate r^{order−1} to leading order, by the field itself; none is missing."""
    net = network(widths, sigma)
    x = net.critical_state(modes)
    for sign, make in ((1.0, dl.unstable_manifold), (-1.0, dl.stable_manifold)):
        mani, flat = make(net, x), 0
        for row in range(mani.sizes["direction"]):
            v, rate = mani.frame.values[row], sign * float(mani.rate[row])
            order, size = int(mani.order[row]), 0.02
            along = [float(v @ naive.field(net, x + r * v)) for r in (size, 2.0 * size)]
            assert along[0] == pytest.approx(rate * size ** (order - 1), rel=0.05)
            assert np.log2(along[1] / along[0]) == pytest.approx(order - 1, abs=0.1)
            flat += order == 2 * net.depth
        spare = [d - np.count_nonzero(sigma) for d in (widths[0], widths[-1])]
        assert (flat > 0) == (sign < 0.0 and min(spare) > 0)


@pytest.mark.parametrize("widths", [(3, 3, 3, 3), (3, 4, 3)])
def test_problems_with_the_identity_as_root_have_the_same_manifolds(widths):
    net = network(widths, (3.0, 2.0, 0.7))
    same = dl.LinearNetwork(widths, net.target, input_root=np.eye(3))
    white = dl.LinearNetwork(widths, 1.5 * net.target, input_root=1.5 * np.eye(3))
    for modes in ((), (1,), (0, 2)):
        x = net.critical_state(modes)
        for make in (dl.unstable_manifold, dl.stable_manifold):
            here, there, scaled = (make(problem, x) for problem in (net, same, white))
            np.testing.assert_allclose(there.rate, here.rate, rtol=1e-12)
            assert there["mode"].values.tolist() == here["mode"].values.tolist()
            rays = here.order.values > 2
            np.testing.assert_allclose(
                np.sort(scaled.rate[scaled.order.values > 2]),
                np.sort(2.25 * here.rate[rays]),
                rtol=1e-9,
            )
            assert scaled.attrs["dimension"] == here.attrs["dimension"]
        ends = [
            set(dl.grow_manifold(problem, dl.unstable_manifold(problem, x)).end.values.tolist())
            for problem in (net, same)
        ]
        assert ends[0] == ends[1]


@pytest.mark.parametrize("depth", [3, 4])
def test_stable_rays_decay_algebraically(depth):
    """a(t) ~ ((h − 2) σ t)^{−1/(h−2)} in every layer; 3.3331e−5 at h = 3, σ = 3, t = 10⁴."""
    net = network((2,) * (depth + 1), (3.0, 1.0))
    mani = dl.stable_manifold(net, np.zeros(net.dim))
    ray = mani.frame.values[0]
    assert float(mani.rate[0]) == pytest.approx(3.0 * depth ** (1.0 - depth / 2.0))
    end = dl.flow(net, 0.5 * np.sqrt(depth) * ray, (0.0, 1e4), rtol=1e-10).state.values[-1]
    a = float(end @ ray) / np.sqrt(depth)
    law = (0.5 ** -(depth - 2) + (depth - 2) * 3.0 * 1e4) ** (-1.0 / (depth - 2))
    assert a == pytest.approx(law, rel=1e-4)
    if depth == 3:
        assert a == pytest.approx(3.3331e-5, rel=1e-4)
    np.testing.assert_allclose(end, np.sqrt(depth) * a * ray, atol=1e-10 * a)


NETWORKS = [
    ((3, 3, 3), (3.0, 2.0, 0.7)),
    ((3, 4, 3, 3), (3.0, 2.0, 0.7)),
    ((2, 2, 2, 2, 2), (1.5, 0.4)),
]


@pytest.mark.compiled
@pytest.mark.parametrize(("widths", "sigma"), NETWORKS)
def test_fibres_along_the_directions_find_every_edge_of_the_graph(widths, sigma):
    net = network(widths, sigma)
    graph = dl.connections(net)
    edges = set(zip(graph.source.values.tolist(), graph.target.values.tolist(), strict=True))
    lengths = {
        pair: float(length)
        for pair, length in zip(
            zip(graph.source.values.tolist(), graph.target.values.tolist(), strict=True),
            graph.length.values,
            strict=True,
        )
    }
    found = set()
    for label in dl.critical_points(net).critical_point.values.tolist():
        x = turned(net, net.critical_state(dl.schema.index_set_modes(label)), 3)
        fibres = dl.grow_manifold(net, dl.unstable_manifold(net, x), n_points=201)
        for end, length in zip(fibres.end.values.tolist(), fibres.length.values, strict=True):
            found.add((label, end))
            assert length == pytest.approx(lengths[label, end], rel=0.05)
    assert found == edges


@pytest.mark.compiled
@pytest.mark.parametrize("place", ["canonical", "turned", "moved"])
@pytest.mark.parametrize(("widths", "sigma"), NETWORKS)
def test_loss_falls_along_unstable_and_rises_along_backward_stable_fibres(widths, sigma, place):
    net = network(widths, sigma)
    x = net.critical_state((1,))
    if place != "canonical":
        x = {"turned": turned, "moved": moved}[place](net, x, 5)
    level = float(net.loss(x))
    for sign, make in ((1.0, dl.unstable_manifold), (-1.0, dl.stable_manifold)):
        mani = make(net, x)
        for number in (None, 3):
            fibres = dl.grow_manifold(net, mani, number, rng=2, rtol=1e-9, max_steps=2000)
            dl.schema.validate(fibres)
            change = sign * np.diff(fibres.loss.values, axis=1)
            assert (change <= 1e-15 * level).all()
            assert (sign * (level - fibres.loss.values) >= -1e-12 * level).all()
            assert (np.diff(sign * fibres.elapsed_time.values, axis=1) >= 0.0).all()
            scale = np.linalg.norm(fibres.state.values, axis=2).max(axis=1) ** 2
            assert (fibres.imbalance_residual.values <= 3e-8 * scale).all()


def test_starts_are_as_near_to_the_manifold_as_the_tolerance_asks():
    """Swaps at h = 2 run on the ellipse w_i²/σ_i + w_j²/σ_j = 1, known exactly."""
    net = network((2, 2, 2), (2.0, 0.9))
    x = net.critical_state((1,))
    mani = dl.unstable_manifold(net, x)
    swap = mani.isel(direction=np.flatnonzero(mani.mode_lost.values == 1))
    misses, sizes = [], []
    for rtol in (1e-4, 1e-6, 1e-8):
        fibres = dl.grow_manifold(net, swap, rtol=rtol)
        W1, _ = net.unpack(fibres.state.values[0])
        row = W1[:, 0, :]  # √N (sin φ, cos φ) in the modes 0 and 1
        ellipse = row[:, 0] ** 2 / 2.0 + row[:, 1] ** 2 / 0.9
        misses.append(np.abs(ellipse - 1.0).max())
        sizes.append(float(fibres.start_size[0]))
        assert 0.5 * rtol < abs(ellipse[0] - 1.0) < 2.0 * rtol
        assert misses[-1] < 100.0 * rtol
    assert misses[0] > misses[1] > misses[2]
    np.testing.assert_allclose(np.diff(np.log10(sizes)), -1.0, atol=0.05)


def test_random_fibres_of_the_cone_come_from_the_saddle():
    """Backward from any of their states the run goes to the origin: at depth 3, algebraically."""
    net = network((3, 3, 4, 3), (3.0, 2.0, 0.7))
    fibres = dl.grow_manifold(net, dl.unstable_manifold(net, np.zeros(net.dim)), 4, rng=0)
    assert fibres.end.values.tolist() == ["{0,1,2}"] * 4
    W = net.product(fibres.state.values.reshape(-1, net.dim))
    np.testing.assert_allclose(W, W.transpose(0, 2, 1), atol=1e-8)
    assert np.linalg.eigvalsh(W).min() > -1e-8


def test_dimensions_are_the_same_over_the_whole_orbit():
    net = network((3, 4, 4, 3), (3.0, 2.0, 0.7))
    for modes in ((), (1,), (0, 2)):
        x = net.critical_state(modes)
        for make in (dl.unstable_manifold, dl.stable_manifold):
            here = make(net, x).attrs
            for other in (turned(net, x, 1), moved(net, x, 2)):
                there = make(net, other).attrs
                for name in ("dimension", "quotient_dimension", "strict_dimension"):
                    assert there[name] == here[name]


def test_manifolds_turn_with_the_point():
    net = network((3, 3, 4, 3), (3.0, 2.0, 0.7))
    x = net.critical_state((1,))
    rng = np.random.default_rng(0)
    group = [ortho_group.rvs(d, random_state=rng) for d in (3, 4)]
    here, there = (dl.unstable_manifold(net, y) for y in (x, dl.act(net, group, x)))
    np.testing.assert_allclose(there.rate, here.rate, rtol=1e-12)
    for k in np.flatnonzero(here.order.values == 2):
        image = dl.act(net, group, here.frame.values[k])
        assert abs(float(image @ there.frame.values[k])) == pytest.approx(1.0, abs=1e-12)


def test_raw_inputs_have_manifolds_too():
    """The fastest ray of the residual network is the best KKT point of the leading form."""
    for widths in ((2, 2, 2, 2), (2, 3, 2, 3)):
        net = naive.random_network(widths, 1, "full")
        x = net.critical_state((0,))
        mani = dl.unstable_manifold(net, x)
        form = directions.leading_form(net, x, directions.hessian_at(net, x))
        assert mani.attrs["method"] == "dense"
        ray = mani.frame.values[mani.order.values == 3][0]
        rate = float(mani.rate[mani.order.values == 3].max())
        gradient = form.basis @ form.gradient(form.basis.T @ ray)
        np.testing.assert_allclose(gradient, rate * ray, atol=1e-9 * rate)
        ends = dl.grow_manifold(net, mani).end.values.tolist()
        assert all(len(dl.schema.index_set_modes(end)) >= 2 for end in ends)


def test_backward_runs_whose_weights_diverge_are_sampled_to_their_end():
    net = naive.random_network((3, 3, 3, 2), 5, "full")
    for modes in ((1,), (0, 1)):
        x = net.critical_state(modes)
        fibres = dl.grow_manifold(net, dl.stable_manifold(net, x), n_points=5, max_steps=300)
        assert np.isfinite(fibres.state).all()
        assert (np.diff(fibres.elapsed_time, axis=1) <= 0.0).all()


def test_a_global_minimum_has_an_empty_unstable_manifold():
    net = network((3, 4, 4, 3), (3.0, 2.0, 0.7))
    mani = dl.unstable_manifold(net, net.critical_state((0, 1, 2)))
    dl.schema.validate(mani)
    assert mani.frame.shape == (0, net.dim)
    assert mani.attrs["dimension"] == mani.attrs["quotient_dimension"] == 0
    for number in (None, 3):
        fibres = dl.grow_manifold(net, mani, number)
        dl.schema.validate(fibres)
        assert fibres.sizes["fibre"] == 0


def test_residual_weights_leave_the_directions_of_their_own_order():
    """h = 4, Z_1 ≠ 0: three open layers are left, so that runs leave with order 3."""
    net = network((2, 2, 2, 2, 2), (3.0, 2.0))
    layers = list(net.unpack(np.zeros(net.dim)))
    layers[0] = np.array([[0.7, 0.0], [0.0, 0.4]])
    x = net.pack(layers)
    assert dl.classify(net, x).order_of_descent == 3
    mani = dl.unstable_manifold(net, x)
    assert set(mani.order.values.tolist()) == {3}
    # N = ⟨Σ Z_1ᵀ, Z_4 Z_3 Z_2⟩, with the singular values 2.1 and 0.8 of Σ Z_1ᵀ.
    assert float(mani.rate[0]) == pytest.approx(2.1 * 3.0**-0.5, rel=1e-8)
    mixed = (2.1**-2 + 0.8**-2) ** -0.5
    possible = np.array([2.1, 0.8, mixed]) * 3.0**-0.5
    gaps = np.abs(np.subtract.outer(mani.rate.values, possible))
    assert gaps.min(axis=1).max() < 1e-8
    assert np.sum(gaps.min(axis=0) < 1e-8) >= 2  # a search, and not from its best alone
    fibres = dl.grow_manifold(net, mani)
    assert (np.diff(fibres.loss.values, axis=1) <= 1e-14).all()
    assert set(dl.schema.decode(fibres.end_kind).values.tolist()) <= {"saddle", "global_minimum"}


def test_two_equal_calls_give_identical_manifolds():
    net = network((3, 4, 4, 3), (3.0, 2.0, 0.7))
    x = dl.random_fiber_state(net, (1,), rng=0)
    for make in (dl.unstable_manifold, dl.stable_manifold):
        assert make(net, x).identical(make(net, x))
    mani = dl.unstable_manifold(net, net.critical_state((1,)))
    grown = [dl.grow_manifold(net, mani, 3, rng=1, workers=w) for w in (1, 2)]
    assert grown[0].identical(grown[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, m: dl.unstable_manifold(net, np.ones(net.dim)), "^x: needs a critical point"),
        (lambda net, m: dl.unstable_manifold(net, [1.0]), "^x: needs"),
        (lambda net, m: dl.unstable_manifold("net", [1.0]), "^net: needs a "),
        (lambda net, m: dl.grow_manifold(net, net), "^manifold: needs a Dataset"),
        (lambda net, m: dl.grow_manifold(network((2, 2), (1.0, 0.5)), m), "^manifold: belongs"),
        (lambda net, m: dl.grow_manifold(net, m, 0), "^n_fibres: needs"),
        (lambda net, m: dl.grow_manifold(net, m, n_points=1), "^n_points: needs"),
        (lambda net, m: dl.grow_manifold(net, m, rtol=1.0), "^rtol: needs"),
        (lambda net, m: dl.grow_manifold(net, m, reach=0.0), "^reach: needs"),
        (lambda net, m: dl.grow_manifold(net, m, max_steps=0), "^max_steps: needs"),
    ],
)
def test_bad_input_is_named(call, message):
    net = network((2, 2, 2, 2), (2.0, 1.0))
    with pytest.raises((ValueError, TypeError), match=message):
        call(net, dl.unstable_manifold(net, net.critical_state((1,))))


@pytest.mark.parametrize("seed", range(2, 6))
def test_a_run_that_only_rounding_leads_past_a_saddle_ends_where_it_says(seed):
    """Losses of saddles are ½ Σ σ_j² of what is not learnt, of which the minimum leaves nothing."""
    net = dl.LinearNetwork((3, 3, 3, 3), np.diag([3.0, 2.0, 1.0]))
    rng = np.random.default_rng(seed)
    bases = [np.eye(3) + 1e-6 * rng.normal(size=(3, 3)) for _ in range(2)]
    x = dl.act(net, bases, net.critical_state((0,)))
    fibres = dl.grow_manifold(net, dl.unstable_manifold(net, x))
    kinds = dl.schema.decode(fibres.end_kind).values
    for kind, end, loss in zip(kinds, fibres.end.values, fibres.loss.values[:, -1], strict=True):
        open_modes = set(range(3)) - set(dl.schema.index_set_modes(end))
        assert (kind == "global_minimum") == (not open_modes)
        rest = 0.5 * sum((3.0 - j) ** 2 for j in open_modes)
        np.testing.assert_allclose(loss, rest, rtol=1e-2, atol=1e-8)


def carried(net, modes, size, rng):
    """Return A_S moved along GL: by so little if it is below 1, else by matrices so conditioned."""
    group = []
    for d in net.widths[1:-1]:
        left, right = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))
        far = (left * np.logspace(-0.5, 0.5, d) ** np.log10(size)) @ right
        group.append(np.eye(d) + size * rng.normal(size=(d, d)) if size < 1.0 else far)
    return dl.act(net, group, net.critical_state(modes))


@pytest.mark.parametrize("size", [1e-6, 0.3, 1e3])
@pytest.mark.parametrize("inputs", ["white", "turned", "raw"])
@pytest.mark.parametrize("hidden", [(3, 4), (3, 4, 3)])
def test_runs_from_points_moved_along_gl_learn_no_mode_but_the_one_they_begin_with(
    size, inputs, hidden
):
    """Signs of the input and the output of a mode may change together: W_1 v = 0 = uᵀ W_h stays.

    So a run along mode q from the orbit of A_S is one of the network of the modes S and q, whose
    only minimum has learnt them all; its other critical points are saddles. Raw inputs have this
    symmetry too if the modes are principal axes of theirs.
    """
    rng, sigma = np.random.default_rng(7), np.array([3.0, 2.0, 1.0])
    U, V = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    U, V = (np.eye(3), np.eye(3)) if inputs == "white" else (U, V)
    root = (V * [1.0, 0.5, 2.0]) @ V.T if inputs == "raw" else None
    net = dl.LinearNetwork((3, *hidden, 3), (U * sigma) @ V.T, input_root=root)
    for modes in ((0,), (1,)):
        mani = dl.unstable_manifold(net, carried(net, modes, size, rng))
        fibres = dl.grow_manifold(net, mani, n_points=9)
        found = []
        for row in range(fibres.sizes["fibre"]):
            end = set(dl.schema.index_set_modes(fibres.end.values[row]))
            (gained,) = end - set(modes)
            W = net.product(fibres.state.values[row]) @ (np.eye(3) if root is None else root)
            strengths = U.T @ W @ V
            others = sorted({0, 1, 2} - {gained, *modes})
            if size == 1e-6 and row < 2 and modes == (1,):  # the swap comes as near as that to {0}
                assert end <= {0, 1}
            else:
                assert end == {gained, *modes}
            layers = net.unpack(fibres.state.values[row])  # a rounding of one moves W by so much
            most = 2e-16 * np.prod([np.linalg.norm(w, axis=(-2, -1)) for w in layers], axis=0)
            for part in (strengths[:, others], np.swapaxes(strengths[:, :, others], 1, 2)):
                assert (np.abs(part).max(axis=(1, 2)) < 20.0 * most).all()
            kept = sorted(end)
            fit = strengths[-1][np.ix_(kept, kept)]
            np.testing.assert_allclose(fit, np.diag(sigma[kept]), atol=1e-6)
            left = sorted({0, 1, 2} - end)
            assert float(fibres.loss[row, -1]) == pytest.approx(0.5 * sum(sigma[left] ** 2))
            assert dl.schema.decode(fibres.end_kind).values[row] == "saddle"
            found.append(gained)
        # Of the order h one run for each open mode, of order 2 two in which mode 0 helps mode 1.
        assert sorted(found) == ([1, 2] if modes == (0,) else [0, 0, 0, 2])


@pytest.mark.compiled
@pytest.mark.parametrize("power", [6, 9, 12])
@pytest.mark.parametrize("depth", [2, 3])
def test_no_orbit_of_any_size_ends_at_the_saddle_that_it_comes_from(depth, power):
    # A swap turns the input of a unit of weights c σ^{1/h}: by a quarter of a circle, all but what
    # the other layers, 1/c as large, do beside. The loss falls from σ_0²/2 = 2 to σ_1²/2 = 1/2.
    net, c = network((2,) * (depth + 1), (2.0, 1.0)), 2.0**power
    first, *between, last = net.unpack(net.critical_state((1,)))
    x = np.concatenate([w.ravel() for w in (c * first, *between, last / c)])
    grown = dl.grow_manifold(net, dl.unstable_manifold(net, x))
    swaps = grown.isel(fibre=np.flatnonzero(dl.schema.decode(grown.end_kind) != "global_minimum"))
    assert swaps.sizes["fibre"] == 2
    for end, kind, reason, loss, length in zip(
        swaps.end.values,
        dl.schema.decode(swaps.end_kind).values,
        dl.schema.decode(swaps.stop_reason).values,
        swaps.loss.values[:, -1],
        swaps.length.values,
        strict=True,
    ):
        if reason == "limit_reached":
            assert (end, kind) == ("{0}", "saddle")
            assert loss == pytest.approx(0.5, abs=1e-7)
            assert length == pytest.approx(0.5 * np.pi * c, rel=5e-3)
        else:  # too stiff a start: it is told, and where it is
            assert power > 9
            assert (end, kind) == ("{1}", "none")
            assert loss == pytest.approx(2.0, abs=1e-6)
