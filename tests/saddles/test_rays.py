"""Escape rays of linear networks: mixtures of modes, against Newton's method, spectra and runs."""

import itertools
import math

import naive
import numpy as np
import pytest
from scipy.special import hyp2f1

import dlnds as dl
from dlnds.theory import rays


def network(widths, sigma, **options):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    return dl.LinearNetwork(widths=widths, target=target, **options)


def form(widths, target):
    """N(z) = ⟨M, Z_h…Z_1⟩ of a flat z, layer by layer from the definition."""

    def value(z):
        parts, begin = [], 0
        for a, b in itertools.pairwise(widths):
            parts.append(z[begin : begin + a * b].reshape(b, a))
            begin += a * b
        image = np.eye(widths[0])
        for w in parts:
            image = w @ image
        return float(np.sum(target * image))

    return value


def derivatives(value, z, step=1e-3):
    """∇N and ∇²N by differences of fourth order: exact for what is of degree ≤ 4 in z."""
    eye = np.eye(z.size)

    def slope(at):
        return naive.differences(value, at, step)

    columns = [
        (8.0 * (slope(z + step * e) - slope(z - step * e)))
        - (slope(z + 2 * step * e) - slope(z - 2 * step * e))
        for e in eye
    ]
    hessian = np.stack(columns) / (12.0 * step)
    return slope(z), 0.5 * (hessian + hessian.T)


CASES = [
    ((2, 2, 2, 2), (2.0, 1.0)),
    ((2, 3, 2, 3), (2.0, 1.0)),
    ((3, 2, 2, 2), (3.0, 1.7)),
    ((3, 2, 3, 3), (3.0, 2.0, 0.0)),
    ((2, 2, 2, 2, 2), (2.0, 1.0)),
    ((3, 1, 2, 3), (3.0, 2.0, 1.0)),
    ((3, 3, 3, 3), (2.0, 2.0, 1.0)),
    ((2, 3, 2), (2.0, 1.0)),
    ((3, 2, 3), (2.0, 2.0, 1.0)),
]


@pytest.mark.parametrize(("widths", "sigma"), CASES)
def test_spectra_at_all_rays_are_those_of_the_dense_second_derivative(widths, sigma):
    """Criticality, index, family and Δ by differences of the definition of N."""
    net = network(widths, sigma)
    kkt = dl.escape_directions(net)
    dl.schema.validate(kkt)
    assert dl.schema.decode(kkt.completeness) == "closed_form"
    value = form(widths, net.target)
    for row in range(kkt.sizes["direction"]):
        point = kkt.isel(direction=row)
        u, multiplier = point.state.values, float(point.multiplier)
        slope, hessian = derivatives(value, u)
        assert value(u) == pytest.approx(float(point.value), rel=1e-12)
        np.testing.assert_allclose(slope, multiplier * u, atol=1e-8 * multiplier)
        across = np.linalg.svd(u[None])[2][1:].T
        rises = np.linalg.eigvalsh(across.T @ hessian @ across) / multiplier - 1.0
        assert int(point["index"]) == np.sum(rises > 1e-4)
        assert int(point.family_dimension) == np.sum(np.abs(rises) < 1e-4)
        assert float(point.positivity) == pytest.approx(-rises.max() * multiplier, abs=1e-5)


@pytest.mark.parametrize(
    ("widths", "sigma"),
    [
        ((2, 2, 2, 2), (2.0, 1.0)),
        ((2, 3, 2, 3), (2.0, 1.0)),
        ((3, 2, 3, 3), (3.0, 2.0, 1.0)),
        ((2, 2, 2, 2, 2), (2.0, 1.3)),
        ((2, 2, 2), (2.0, 1.0)),
        ((2, 2, 2, 2), (1.0, 1.0)),
    ],
)
def test_newtons_method_from_random_starts_comes_to_listed_values_only(widths, sigma):
    """Newton steps of least norm on (∇N − λz, ½(1 − |z|²)), from random points and on ascents."""
    net = network(widths, sigma)
    listed = dl.escape_directions(net).value.values
    rng, eye = np.random.default_rng(0), np.eye(net.dim)

    def slope(z):
        """∇N of a stack, by the product rule."""
        layers, out = net.unpack(z), []
        for i, w in enumerate(layers):
            after = before = None
            for other in layers[i + 1 :]:
                after = other if after is None else other @ after
            for other in layers[:i]:
                before = other if before is None else other @ before
            part = np.broadcast_to(net.target, (*z.shape[:-1], *net.target.shape))
            part = part if after is None else np.swapaxes(after, -1, -2) @ part
            part = part if before is None else part @ np.swapaxes(before, -1, -2)
            assert part.shape[-2:] == w.shape[-2:]
            out.append(part.reshape(*z.shape[:-1], -1))
        return np.concatenate(out, axis=-1)

    z = rng.normal(size=(300, net.dim))
    z /= np.linalg.norm(z, axis=1)[:, None]
    for k in range(40):  # the first ones climb for longer
        z[: 200 - 5 * k] += slope(z[: 200 - 5 * k])
        z /= np.linalg.norm(z, axis=1)[:, None]
    number = np.sum(slope(z) * z, axis=1)
    for _ in range(60):
        here = slope(z)
        lack = np.column_stack([here - number[:, None] * z, 0.5 * (1.0 - np.sum(z**2, axis=1))])
        second = slope(z[:, None] + eye) - here[:, None]  # exact: N is linear in each weight
        matrix = np.zeros((len(z), net.dim + 1, net.dim + 1))
        matrix[:, :-1, :-1] = second - number[:, None, None] * eye
        matrix[:, :-1, -1] = matrix[:, -1, :-1] = -z
        step = -(np.linalg.pinv(matrix, rcond=1e-9, hermitian=True) @ lack[:, :, None])[..., 0]
        step *= np.minimum(1.0, 0.5 / (np.linalg.norm(step, axis=1) + 1e-300))[:, None]
        z, number = z + step[:, :-1], number + step[:, -1]
    lack = np.linalg.norm(slope(z) - number[:, None] * z, axis=1)
    done = (lack < 1e-9) & (np.abs(np.sum(z**2, axis=1) - 1.0) < 1e-9) & (number > 1e-3)
    found = number[done] / net.depth
    gaps = np.abs(np.subtract.outer(found, listed))
    assert gaps.min(axis=1).max() < 1e-7
    assert np.sum(gaps.min(axis=0) < 1e-7) >= min(3, len(listed))


def test_values_are_those_of_the_theory():
    """σ = 2, 1, h = 3: 2, 1 and 2/√5 times 3^{−3/2}; two layers have no mixtures."""
    kkt = dl.escape_directions(network((2, 2, 2, 2), (2.0, 1.0)))
    np.testing.assert_allclose(kkt.value * 3**1.5, [2.0, 1.0, 2.0 / np.sqrt(5.0)], rtol=1e-13)
    assert kkt.modes.values.tolist() == kkt.end.values.tolist() == ["{0}", "{1}", "{0,1}"]
    two = dl.escape_directions(network((2, 2, 2), (2.0, 1.0)))
    np.testing.assert_allclose(two.value, [1.0, 0.5], rtol=1e-13)


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("learnt", [(), (1,)])
def test_runs_along_mixtures_learn_their_modes_at_once(depth, learnt):
    """From δu to A_{S∪T}; at T_δ all modes of T stand at the fraction u_0 with F(u_0) = 0."""
    net = network((3,) * (depth + 1), (3.0, 2.0, 1.0))
    a = 2.0 - 2.0 / depth
    fraction = {3: 0.90822216648, 4: 0.69481653805}[depth]
    primitive = fraction ** (1.0 - a) / (1.0 - a) * hyp2f1(1.0, 1.0 - a, 2.0 - a, fraction)
    assert primitive == pytest.approx(0.0, abs=1e-9)
    x, delta = net.critical_state(learnt), 0.02
    kkt = dl.escape_directions(net, x)
    kkt = kkt.isel(direction=kkt.order.values == depth)
    opened = [j for j in range(3) if j not in learnt]
    sets = [s for t in range(1, len(opened) + 1) for s in itertools.combinations(opened, t)]
    assert sorted(kkt.modes.values) == sorted(map(dl.schema.index_set_label, sets))
    for row in range(kkt.sizes["direction"]):
        first = kkt.isel(direction=row)
        time = float(dl.escape_time(net, first, delta))
        run = dl.flow(net, x + delta * first.state.values, (0, 3 * time), [time, 3 * time])
        modes = dl.schema.index_set_modes(first.modes.item())
        strength = np.diagonal(net.product(run.state.values), axis1=1, axis2=2)
        expected = [3.0, 2.0, 1.0] * np.isin(range(3), [*learnt, *modes])
        there = strength[0, list(modes)] / np.array([3.0, 2.0, 1.0])[list(modes)]
        np.testing.assert_allclose(there, fraction, rtol=40 * delta**2)
        end = dl.flow(net, x + delta * first.state.values, (0, 3 * time + 10.0)).state.values[-1]
        np.testing.assert_allclose(net.product(end), np.diag(expected), atol=1e-6)
        assert dl.classify(net, end, rtol=1e-4).critical_point.item() == first.end.item()


def clothes(widths, sigma):
    """The same loss, written in other ways."""
    net = network(widths, sigma)
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(widths[0], widths[0])))[0]
    target = net.target
    yield "identity as root", network(widths, sigma, input_root=np.eye(widths[0]))
    yield "orthogonal root", dl.LinearNetwork(widths, target @ Q, input_root=Q)
    samples = np.sqrt(5.0) * np.linalg.qr(rng.normal(size=(5, widths[0])))[0].T
    data = target @ samples
    yield "raw data", dl.LinearNetwork.from_data(samples, data, widths[1:-1], whiten=False)
    yield "homogeneous", dl.HomogeneousNetwork(widths, samples, data, power=1, slope=1.0)
    yield "other loss", dl.LossNetwork(widths, dl.losses.power(samples, data, power=2.0))


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("learnt", [(), (0,), (1,)])
def test_the_list_does_not_depend_on_how_the_loss_is_written(depth, learnt):
    widths, sigma = (*(3, 3, 4, 3, 3)[:depth], 3), (3.0, 2.0, 0.7)
    net = network(widths, sigma)
    x = net.critical_state(learnt)
    expected = dl.escape_directions(net, x)
    for name, other in clothes(widths, sigma):
        kkt = dl.escape_directions(other, x)
        assert dl.schema.decode(kkt.completeness) == "closed_form", name
        for key in ("order", "index", "family_dimension", "modes", "modes_lost", "end"):
            assert kkt[key].values.tolist() == expected[key].values.tolist(), (name, key)
        np.testing.assert_allclose(kkt.value, expected.value, rtol=1e-9, err_msg=name)
        force = other.gradient(x + 1e-4 * kkt.state.values)
        along = -np.sum(force * kkt.state.values, axis=1)
        rate = kkt.multiplier.values * 1e-4 ** (kkt.order.values - 1)
        np.testing.assert_allclose(along, rate, rtol=1e-2, err_msg=name)


@pytest.mark.parametrize("size", [1e-6, 0.3, 1.0])
@pytest.mark.parametrize("learnt", [(1,), (2,)])
def test_the_list_is_the_same_over_the_group(size, learnt):
    """Values change with the metric of the weights, sets of modes and indices do not."""
    net = network((3, 3, 3, 3), (3.0, 2.0, 1.0))
    rng = np.random.default_rng(1)
    group = [np.eye(3) + size * rng.normal(size=(3, 3)) for _ in range(2)]
    x = net.critical_state(learnt)
    y = dl.act(net, group, x)
    expected, kkt = dl.escape_directions(net, x), dl.escape_directions(net, y)
    assert dl.schema.decode(kkt.completeness) == "searched"
    assert kkt["index"].values.tolist() == expected["index"].values.tolist()
    rays = kkt.order.values == 3
    assert kkt.modes.values[rays].tolist() == expected.modes.values[rays].tolist()
    assert (kkt.residual <= 1e-9).all()
    if size == 1e-6:
        np.testing.assert_allclose(kkt.value, expected.value, rtol=1e-5)
    drop = net.loss(y) - net.loss(y + 1e-3 * kkt.state.values)
    lead = kkt.value.values * 1e-3**kkt.order.values
    np.testing.assert_allclose(drop, lead, rtol=0.05)


def test_raw_inputs_have_the_rays_of_the_signal():
    """At A_S of any covariance N = ⟨G, W⟩: the odd third-order part of the loss along each ray."""
    net = naive.random_network((3, 3, 4, 3), 2, "full")
    for learnt in ((), (0,), (1,)):
        x = net.critical_state(learnt)
        kkt = dl.escape_directions(net, x)
        rays = kkt.isel(direction=kkt.order.values == 3)
        assert rays.sizes["direction"] == 2 ** (3 - len(learnt)) - 1
        assert dl.schema.decode(kkt.completeness) == "closed_form"
        signal = (net.target - net.product(x) @ net.input_root) @ net.input_root.T
        sigma = np.linalg.svd(signal, compute_uv=False)[: 3 - len(learnt)]
        singles = [len(dl.schema.index_set_modes(s)) == 1 for s in rays.modes.values]
        np.testing.assert_allclose(rays.value[singles], sigma * 3**-1.5, rtol=1e-10)
        assert set(rays.end.values.tolist()) == {""}
        for u, value in zip(rays.state.values, rays.value.values, strict=True):
            s = 1e-3
            odd = [net.loss(x - k * s * u) - net.loss(x + k * s * u) for k in (1, 2)]
            third = (4.0 * odd[0] * 8.0 - odd[1]) / (2.0 * s**3 * 24.0)  # without the fifth order
            assert third == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_equal_singular_values_are_one_class(depth):
    """Π(m_a + 1) − 1 classes of sets for h ≥ 3, one for each value for h = 2."""
    net = network((4,) * (depth + 1), (2.0, 2.0, 2.0, 1.0))
    kkt = dl.escape_directions(net)
    assert kkt.sizes["direction"] == (2 if depth == 2 else 4 * 2 - 1)
    assert len(set(kkt.modes.values.tolist())) == kkt.sizes["direction"]
    many = network((53,) + (1,) * (depth - 1) + (53,), (2.0,) * 52 + (1.0,))
    kkt = dl.escape_directions(many)
    assert kkt.modes.values.tolist() == ["{0}", "{52}"]
    assert kkt.family_dimension.values.tolist() == [51, 0]


def test_nearly_equal_singular_values_are_two_classes():
    """A relative difference of 1e-7 is one: data may differ by that."""
    kkt = dl.escape_directions(network((2, 2, 2, 2), (1.0 + 1e-7, 1.0)))
    assert kkt.modes.values.tolist() == ["{0}", "{1}", "{0,1}"]
    kkt = dl.escape_directions(network((2, 2, 2, 2), (1.0 + 1e-12, 1.0)))
    assert kkt.modes.values.tolist() == ["{0}", "{0,1}"]


def test_long_lists_are_cut_to_the_best_and_say_so():
    sigma = np.linspace(3.0, 1.0, 12)
    net = network((12, 5, 7, 12), sigma)
    kkt = dl.escape_directions(net)
    total = sum(math.comb(12, t) for t in range(1, 6))
    assert kkt.sizes["direction"] == 100
    assert kkt.attrs["n_left_out"] == total - 100
    every = dl.escape_directions(net, max_directions=2000)
    assert (every.sizes["direction"], every.attrs["n_left_out"]) == (total, 0)
    sets = [dl.schema.index_set_modes(s) for s in every.modes.values]
    assert len(set(sets)) == total
    assert max(map(len, sets)) == 5
    expected = [3**-1.5 * np.sum(sigma[list(s)] ** -2.0) ** -0.5 for s in sets]
    np.testing.assert_allclose(every.value, expected, rtol=1e-12)
    assert (np.diff(every.value) <= 1e-15).all()
    np.testing.assert_allclose(kkt.value, every.value[:100], rtol=1e-14)


@pytest.mark.parametrize(
    ("costs", "copies", "most"),
    [((1.0, 2.0, 2.5), (1, 1, 1), 3), ((1.0, 1.5), (3, 2), 4), ((1.0, 4.0, 9.0), (2, 1, 3), 2)],
)
def test_selections_come_once_each_by_rising_cost(costs, copies, most):
    found = list(rays._by_cost(costs, copies, most))
    expected = [
        counts
        for counts in itertools.product(*(range(n + 1) for n in copies))
        if 1 <= sum(counts) <= most
    ]
    assert sorted(found) == sorted(expected)
    assert len(expected) == rays._count(copies, most)
    totals = [float(np.dot(counts, costs)) for counts in found]
    assert (np.diff(totals) >= -1e-12).all()


def test_two_layers_have_one_sphere_for_each_value_and_each_swap():
    """At A_{2}: −σ_j on d_1 − r hidden directions, and the swaps σ_2 − σ_j; dense Hessian."""
    net = network((3, 4, 3), (3.0, 2.0, 0.5))
    x = net.critical_state((2,))
    kkt = dl.escape_directions(net, x)
    rows = zip(kkt.modes.values.tolist(), kkt.modes_lost.values.tolist(),
               kkt.family_dimension.values.tolist(), strict=True)  # fmt: skip
    assert set(rows) == {("{0}", "{}", 2), ("{1}", "{}", 2), ("{0}", "{2}", 0), ("{1}", "{2}", 0)}
    values = np.linalg.eigvalsh(net.hessian(x))
    negative = -values[values < -1e-8]
    assert int((kkt.family_dimension + 1).sum()) == len(negative)
    for rate in kkt.multiplier.values:
        assert np.abs(negative - rate).min() < 1e-12


def test_the_origin_of_one_layer_is_refused():
    net = network((2, 2), (2.0, 1.0))
    with pytest.raises(ValueError, match="^system: needs two layers"):
        dl.escape_directions(net)
    with pytest.raises(ValueError, match="^system: needs two layers"):
        dl.escape_time(net, np.ones(4), 0.1)
    with pytest.raises(ValueError, match="^system: needs two layers"):
        dl.escape_chain(net)


@pytest.mark.compiled
@pytest.mark.parametrize("depth", [2, 3])
def test_chains_of_linear_networks_in_any_clothes_go_down_to_the_minimum(depth):
    widths, sigma = (3,) * (depth + 1), (3.0, 2.0, 1.0)
    for name, other in clothes(widths, sigma):
        if name in ("orthogonal root", "raw data"):
            continue
        chain = dl.escape_chain(other, n_starts=3)
        np.testing.assert_allclose(chain.loss, [7.0, 2.5, 0.5, 0.0], atol=1e-9, err_msg=name)
        assert dl.schema.decode(chain.ended_by) == "minimum"


def test_an_empty_list_says_whether_runs_leave():
    net = network((2, 2, 2, 2), (2.0, 1.0))
    kkt = dl.escape_directions(net, net.critical_state((0, 1)))
    assert kkt.sizes["direction"] == 0
    assert dl.schema.decode(kkt.completeness) == "minimum"
    X = np.random.default_rng(0).normal(size=(3, 20))
    flat = dl.HomogeneousNetwork((3, 2, 1), X, -np.sum(X**2, axis=0) - 1.0, power=2)
    dead = flat.pack([np.zeros((2, 3)), np.zeros((1, 2))])
    up = dl.escape_directions(flat, dead, n_starts=1, rng=1)
    word = "searched" if up.sizes["direction"] else "nothing_found"
    assert dl.schema.decode(up.completeness) == word
    positive = dl.HomogeneousNetwork((1, 1, 1), [[1.0]], [[1.0]], power=2)
    lost = dl.escape_directions(positive, starts=[[-1.0, 1.0]])  # the unit does not see the input
    assert (lost.sizes["direction"], lost.attrs["n_lost"]) == (0, 1)
    assert dl.schema.decode(lost.completeness) == "nothing_found"


def test_points_where_the_hessian_vanishes_have_no_directions_of_order_two():
    """Rounding is not an eigenvalue: random points over {} of five layers, two Z blocks zero."""
    net = network((2, 2, 2, 2, 2), (2.0, 1.0))
    seen = 0
    for seed in range(12):
        x = dl.random_fiber_state(net, (), rng=seed)
        if int(dl.classify(net, x).order_of_descent) > 2:
            kkt = dl.escape_directions(net, x, n_starts=2)
            assert (kkt.order.values > 2).all()
            seen += 1
    assert seen >= 1


@pytest.mark.parametrize("place", ["canonical", "moved", "beside"])
@pytest.mark.parametrize(
    ("widths", "sigma"),
    [
        ((3, 4, 1, 3), (2.0, 2.0, 1.0)),
        ((4, 1, 4), (2.0, 2.0, 1.0, 0.5)),
        ((2, 3, 3), (2.0, 1.0)),
        ((1, 2, 2), (2.0,)),
        ((3, 2, 3, 3), (3.0, 2.0, 0.0)),
    ],
)
def test_lists_are_empty_at_global_minima_only_or_say_that_nothing_was_found(widths, sigma, place):
    """Bottlenecks, equal and missing values; the loss falls like N r^order along what is listed."""
    net = network(widths, sigma)
    rng = np.random.default_rng(3)
    for rank in range(net.max_rank + 1):
        for modes in itertools.combinations(range(np.count_nonzero(sigma)), rank):
            x = net.critical_state(modes)
            if place == "moved":
                group = [np.eye(d) + 0.3 * rng.normal(size=(d, d)) for d in widths[1:-1]]
                x = dl.act(net, group, x)
            elif place == "beside":
                x = dl.random_fiber_state(net, modes, rng=rng)
            kkt = dl.escape_directions(net, x, n_starts=5)
            lowest = dl.schema.decode(dl.classify(net, x).kind).item() == "global_minimum"
            word = dl.schema.decode(kkt.completeness).item()
            assert (word == "minimum") == lowest
            assert (kkt.sizes["direction"] == 0) == (word in ("minimum", "nothing_found"))
            for u, order, value in zip(kkt.state.values, kkt.order.values.tolist(),
                                       kkt.value.values, strict=True):  # fmt: skip
                s = 1e-2
                there, back = (net.loss(x + k * s * u) - net.loss(x) for k in (1, -1))
                part = -0.5 * (there + (-1) ** order * back)
                assert part == pytest.approx(value * s**order, rel=0.1, abs=1e-13)


def group_element(widths, size, rng):
    """Matrices near the identity by ``size``, or of that condition."""
    group = []
    for d in widths[1:-1]:
        left, right = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))
        far = (left * np.logspace(-0.5, 0.5, d) ** np.log10(max(size, 1.0))) @ right
        group.append(np.eye(d) + size * rng.normal(size=(d, d)) if size < 1.0 else far)
    return group


class Carried:
    """N at P·A_{0}, by definition: of P_i blkdiag(0, Z_i) P_{i−1}^{-1} across the orbit."""

    def __init__(self, net, group):
        self.net, self.value = net, form([d - 1 for d in net.widths], net.target[1:, 1:])
        self.bases = [np.eye(net.widths[0]), *group, np.eye(net.widths[-1])]
        x = [np.zeros((b, a)) for a, b in itertools.pairwise(net.widths)]
        for w in x:
            w[0, 0] = net.target[0, 0] ** (1.0 / net.depth)
        W, rows = self.act(x), []
        for i, d in enumerate(net.widths[1:-1]):
            for a, b in np.ndindex(d, d):
                K, moved = np.zeros((d, d)), [np.zeros_like(w) for w in W]
                K[a, b] = 1.0
                moved[i], moved[i + 1] = K @ W[i], -W[i + 1] @ K
                rows.append(net.pack(moved))
        self.state, self.orbit = net.pack(W), np.linalg.svd(rows, full_matrices=False)
        self.rank = sum(2 * d - 1 for d in net.widths[1:-1])

    def act(self, layers):
        pairs = zip(layers, itertools.pairwise(self.bases), strict=True)
        return [b @ w @ np.linalg.inv(a) for w, (a, b) in pairs]

    def residual(self, u):
        """The weights z of a direction."""
        pairs = zip(self.net.unpack(u), itertools.pairwise(self.bases), strict=True)
        return np.concatenate([(np.linalg.inv(b) @ w @ a)[1:, 1:].ravel() for w, (a, b) in pairs])

    def __call__(self, z):
        """N(Z)/r^h, with the distance r from the orbit."""
        layers, begin = [], 0
        for a, b in itertools.pairwise(self.net.widths):
            layers.append(np.zeros((b, a)))
            part = z[begin : begin + (a - 1) * (b - 1)]
            layers[-1][1:, 1:], begin = part.reshape(b - 1, a - 1), begin + part.size
        there = self.net.pack(self.act(layers))
        frame = self.orbit[2][: self.rank]
        across = there - frame.T @ (frame @ there)
        return self.value(z) / np.linalg.norm(across) ** self.net.depth


@pytest.mark.parametrize("size", [1e-6, 1e-3, 0.1, 0.5, 1e2])
@pytest.mark.parametrize("widths", [(3, 3, 4, 3), (3, 3, 3, 3, 3), (3, 4, 3, 4, 3, 3)])
def test_points_moved_along_gl_have_the_rays_of_the_canonical_one(widths, size):
    """One for each T, stationary for N/r^h; the hidden units offer all modes the same.

    So N_q/σ_q is one number. With two hidden layers it is 3^{-3/2} at all of them: what P does to
    Z_1 and Z_3 it undoes to Z_2, as long as some units are free of those that have learnt.
    """
    rng, sigma = np.random.default_rng(5), np.array([3.0, 2.0, 1.0])
    net, h = network(widths, sigma), len(widths) - 1
    for _ in range(3):
        group = group_element(widths, size, rng)
        carried = Carried(net, group)
        kkt = dl.escape_directions(net, carried.state)
        assert sorted(kkt.modes.values.tolist()) == ["{1,2}", "{1}", "{2}"]
        assert (kkt.order == h).all()
        assert int(kkt.attrs["n_left_out"]) == 0
        assert kkt["index"].values.tolist()[:2] == [0, 1]
        value = dict(zip(kkt.modes.values.tolist(), kkt.value.values.tolist(), strict=True))
        assert value["{1}"] == pytest.approx(2.0 * value["{2}"], rel=1e-9)
        if h == 3:
            for label, modes in (("{1}", [2.0]), ("{2}", [1.0]), ("{1,2}", [2.0, 1.0])):
                known = 3.0**-1.5 / math.sqrt(sum(s**-2.0 for s in modes))
                assert value[label] == pytest.approx(known, rel=1e-9)
        assert float(kkt.residual.max()) < 1e-10
        for u, found in zip(kkt.state.values, kkt.value.values, strict=True):
            z = carried.residual(u)
            assert carried(z) == pytest.approx(found, rel=1e-7)
            for turn in rng.normal(size=(5, z.size)):
                step = 3e-5 * np.linalg.norm(z) * turn / np.linalg.norm(turn)
                whole, half = (carried(z + s) - carried(z - s) for s in (step, 0.5 * step))
                assert abs(8.0 * half - whole) < 1e-6 * found  # without the third derivative
        best = max(carried(z) for z in rng.normal(size=(200, z.size)))
        assert best < float(kkt.value.max())


def test_rays_are_found_where_the_balanced_one_is_the_worst_of_its_family():
    """A shear of units 1 and 2 leaves no ray through unit 2 with N_q = σ_q 3^{-3/2}."""
    shear = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    net = network((3, 3, 3, 3), (3.0, 2.0, 1.0))
    carried = Carried(net, [shear, shear])
    for a, b, c in np.geomspace(0.25, 4.0, 9)[np.random.default_rng(0).integers(9, size=(50, 3))]:
        through = np.zeros(12)
        through[[0, 4, 8]] = a, b, c
        assert carried(through) < 0.99 * 2.0 * 3.0**-1.5
    kkt = dl.escape_directions(net, carried.state)
    assert kkt.modes.values.tolist() == ["{1}", "{2}", "{1,2}"]
    assert float(kkt.value[0]) == pytest.approx(2.0 * 3.0**-1.5, rel=1e-9)


@pytest.mark.compiled
@pytest.mark.parametrize(("size", "inputs"), [(1e-6, "white"), (0.03, "turned"), (1e-6, "raw")])
def test_paths_from_moved_points_learn_the_modes_of_their_ray_and_no_others(size, inputs):
    """W_1 v = 0 = uᵀ W_h stays: of A_{0} along T the loss comes to Σ σ² / 2 over what is in none.

    The modes are principal axes of the raw inputs, so that they have this symmetry too.
    """
    rng, sigma = np.random.default_rng(5), np.array([3.0, 2.0, 1.0])
    U, V = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    U, V = (np.eye(3), np.eye(3)) if inputs == "white" else (U, V)
    root = (V * [1.0, 0.5, 2.0]) @ V.T if inputs == "raw" else None
    net = dl.LinearNetwork((3, 3, 3, 3), (U * sigma) @ V.T, input_root=root)
    group = [np.eye(3) + size * rng.normal(size=(3, 3)) for _ in range(2)]
    kkt = dl.escape_directions(net, dl.act(net, group, net.critical_state((0,))), n_starts=20)
    lost = []
    for row in range(kkt.sizes["direction"]):
        path = dl.escape_path(net, kkt.isel(direction=row))
        dl.schema.validate(path)
        W = net.product(path.state.values) @ (np.eye(3) if root is None else root)
        strengths = np.abs(U.T @ W @ V)
        seen = np.linalg.norm(net.unpack(kkt.state.values[row])[0] @ V, axis=0) > 1e-6
        seen[0] = True
        assert strengths[:, :, ~seen].max(initial=0.0) < 1e-12
        assert strengths[:, ~seen].max(initial=0.0) < 1e-12
        left = 0.5 * float(np.sum(sigma[~seen] ** 2))
        assert float(path.limit_loss) == pytest.approx(left, abs=1e-7)
        assert dl.schema.decode(path.limit_kind) == ("saddle" if left else "global_minimum")
        lost.append(left)
    assert {0.5, 2.0} <= set(lost)


@pytest.mark.compiled
def test_a_path_that_has_not_come_anywhere_has_no_limit():
    """Along an orbit the loss falls, so that no path comes back to the value that it leaves."""
    net = network((2, 2, 2, 2), (2.0, 1.0))
    P = np.array([[10.0, 1.0], [0.0, 1.0]])
    x = dl.act(net, [P, np.eye(2)], net.critical_state((0,)))
    first = dl.escape_directions(net, x).isel(direction=0)
    short = dl.escape_path(net, first, max_steps=50)
    assert dl.schema.decode(short.stop_reason) == "out_of_steps"
    assert dl.schema.decode(short.limit_kind) == "none"
    np.testing.assert_array_equal(short.limit_state, short.state[-1])
    whole = dl.escape_path(net, first)
    assert dl.schema.decode(whole.limit_kind) == "global_minimum"
    assert float(whole.limit_loss) == pytest.approx(0.0, abs=1e-12)
