"""Critical points near any start: where the search lands, how fast, and what it says of itself."""

import naive
import numpy as np
import pytest

import dlnds as dl

EPSILON = np.finfo(float).eps


def fibre_state(net, modes, zero, seed):
    """A point over S with Z blocks of size one but in the layers ``zero``, moved by random GL."""
    rng, h, r = np.random.default_rng(seed), net.depth, len(modes)
    left, _, _ = net.singular_modes
    learnt = left[:, list(modes)]
    rest = np.linalg.svd(learnt)[0][:, r:] if r else np.eye(net.widths[-1])
    K = naive.root(net)
    M = net.target @ K.T
    layers = []
    for i in range(1, h + 1):
        rows, columns = net.widths[i] - r, net.widths[i - 1] - (r if i > 1 else 0)
        Z = np.zeros((rows, columns)) if i in zero else rng.normal(size=(rows, columns))
        if i == 1:
            layers.append(np.vstack([learnt.T @ M @ np.linalg.pinv(K @ K.T), Z]))
        elif i < h:
            layers.append(np.block([[np.eye(r), np.zeros((r, columns))], [np.zeros((rows, r)), Z]]))
        else:
            layers.append(np.hstack([learnt, rest @ Z]))
    moves = [np.eye(d) + 0.3 * rng.normal(size=(d, d)) / np.sqrt(d) for d in net.widths[1:-1]]
    for i, P in enumerate(moves):
        layers[i], layers[i + 1] = P @ layers[i], layers[i + 1] @ np.linalg.inv(P)
    return net.pack(layers)


def singular_values(net, x):
    """Of the Hessian by differences of the defining formula, descending."""
    H = naive.differences(lambda y: -naive.field(net, y), x, 1e-3)
    return np.sort(np.abs(np.linalg.eigvalsh(0.5 * (H + H.T))))[::-1]


def newton(net, x, rank):
    """Iterates of x − J_r⁺ f, the Newton method of a given rank (Zeng)."""
    states = [x]
    for _ in range(30):
        values, vectors = np.linalg.eigh(-net.hessian(states[-1]))
        kept = np.argsort(-np.abs(values))[:rank]
        V = vectors[:, kept]
        states.append(states[-1] + V @ ((V.T @ net.gradient(states[-1])) / values[kept]))
    return states


def slopes(y, x):
    return np.diff(np.log(y)) / np.diff(np.log(x))


# Two vanishing Z blocks: the zeros near by are a manifold, and J has full rank across it.
SEMIREGULAR = [
    ((3, 3, 3), (0, 2), (1, 2), "whitened"),
    ((4, 2, 4), (0, 1), (1, 2), "full"),
    ((3, 4, 4, 3), (0, 1), (1, 3), "whitened"),
    ((3, 4, 4, 3), (1,), (1, 3), "singular"),
    ((3, 4, 4, 4, 3), (0, 1), (1, 4), "full"),
    ((3, 4, 3, 4, 4, 3), (0, 1), (2, 4), "whitened"),
]


@pytest.mark.parametrize(("widths", "modes", "zero", "kind"), SEMIREGULAR)
def test_it_lands_where_newtons_method_of_the_known_rank_does(widths, modes, zero, kind):
    """Both project onto the fibre up to second order, and the first step squares the distance."""
    net = naive.random_network(widths, 4, kind)
    x = fibre_state(net, modes, zero, 0)
    size = np.linalg.norm(x)
    assert np.linalg.norm(naive.field(net, x)) < 1e-12 * size
    s = singular_values(net, x)
    rank = np.count_nonzero(s > 1e-7 * s[0])
    direction = naive.state_of(net, 1)
    direction /= np.linalg.norm(direction)
    # Distances where the linearization holds: J changes by less than its smallest singular value.
    deltas = 0.03 * s[rank - 1] / s[0] * 10.0 ** -np.arange(0.0, 2.0, 0.5)
    first, apart, before = [], [], []
    for delta in deltas:
        start = x + delta * size * direction
        states = newton(net, start, rank)
        point = dl.find_critical_point(net, start)
        before.append(np.linalg.norm(start - states[-1]))
        first.append(np.linalg.norm(states[1] - states[-1]))
        apart.append(np.linalg.norm(point.state.values - states[-1]))
        assert point.n_iterations <= 3
        assert dl.schema.decode(point.convergence) == "quadratic"
        assert int(point["rank"]) == rank
        assert int(point.nullity) == net.dim - rank
        assert point.smallest_nonzero == pytest.approx(s[rank - 1], rel=0.2)
        assert point.largest_zero < 1e-6 * point.smallest_nonzero
        assert float(point.distance) == pytest.approx(before[-1], rel=0.05)
        assert point.error < 1e-9 * size
        assert float(point.loss) == pytest.approx(net.loss(x), abs=1e-14 * (1 + net.loss(x)))
        assert point.attrs["limit"] == dl.schema.index_set_label(modes)
    np.testing.assert_allclose(slopes(first, before), 2.0, atol=0.3)
    assert (slopes(apart, before) > 1.8).mean() >= 0.5
    assert (np.array(apart) < 0.1 * np.array(before)).all()


def perturbed_saddle(widths, seed):
    net = naive.random_network(widths, seed)
    x = net.critical_state((0,))
    start = x + naive.state_of(net, seed, 1e-3)
    rounding = 4.0 * EPSILON * np.linalg.norm(net.hessian(x), 2) * np.linalg.norm(x)
    return net, x, start, rounding


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_degenerate_points_are_known_up_to_the_root_of_rounding(depth):
    """One unlearnt unit a layer: f_i = σ_2 Π_{k≠i} z_k vanishes where any two z_i do.

    ‖f‖ within rounding leaves the smallest two of h values up to (rounding/σ_2)^{1/(h−1)}.
    """
    for seed in range(6):
        net, x, start, rounding = perturbed_saddle((2,) * (depth + 1), seed)
        point = dl.find_critical_point(net, start)
        z = sorted(np.linalg.svd(w, compute_uv=False)[1] for w in net.unpack(point.state))
        lost = (rounding / net.singular_values[1]) ** (1.0 / (depth - 1))
        assert z[1] < 2.0 * lost
        # The error says so, unless all of J in these directions is lost in its rounding.
        coupling = net.singular_values[1] * np.prod(z[2:])
        assert z[1] < 2.0 * point.error or coupling < 60.0 * net.dim * rounding / np.linalg.norm(x)
        assert point.error < 100.0 * lost
        assert point.residual[-1] < 4.0 * rounding
        assert point.distance < 1.5 * np.linalg.norm(start - x)
        assert point.n_iterations < 12
        assert float(point.loss) == pytest.approx(net.loss(x), abs=1e-13)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_an_error_above_the_wanted_one_is_said_to_be(depth):
    """Degenerate units are known to a root of rounding, those of two layers to rounding."""
    for seed in range(6):
        net, _, start, _ = perturbed_saddle((2,) * (depth + 1), seed)
        point = dl.find_critical_point(net, start)
        relative = float(point.error) / np.linalg.norm(point.state)
        assert bool(point.is_within_rtol) == (relative <= 1e-10)
        assert depth > 2 or point.is_within_rtol
        loose = dl.find_critical_point(net, start, rtol=0.01)
        assert loose.is_within_rtol or loose.error > 0.01 * np.linalg.norm(loose.state)


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_the_order_of_degenerate_points_is_that_of_the_field(depth):
    """f ~ Z^{h−1} at A_S; where all Z vanish the Hessian has the rank r(d_0 + d_h − r) = 5.

    Other zeros, where some Z stay, may be nearer: 56 of 60 starts like these lead here.
    """
    orders, ranks = [], []
    for seed in range(6):
        net, _, start, _ = perturbed_saddle((3,) * (depth + 1), seed)
        point = dl.find_critical_point(net, start)
        orders.append(int(point.multiplicity))
        ranks.append(int(point["rank"]))
        degenerate = dl.schema.decode(point.convergence) == "degenerate"
        assert degenerate == (orders[-1] > 1)
    assert list(zip(orders, ranks, strict=True)).count((depth - 1, 5)) >= 4


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("kind", naive.KINDS)
@pytest.mark.parametrize("widths", [(3, 4, 3), (2, 3, 3, 2), (3, 2, 3, 4), (3, 3, 3, 3, 3)])
def test_every_start_leads_to_a_critical_value(widths, kind, scale):
    net = naive.random_network(widths, 7, kind)
    start = net.initial(scale=scale, rng=7)
    point = dl.find_critical_point(net, start)
    dl.schema.validate(point)
    values = dl.critical_points(net)
    gaps = np.abs(values.loss.values - float(point.loss))
    allowed = 1e-10 * float(values.loss.max())
    if not point.is_within_rtol:  # of large weights, where rounding is what is left
        allowed += float(point.residual[-1] * point.error)
    assert gaps.min() < allowed
    assert values.critical_point[int(gaps.argmin())] == point.attrs["limit"]
    state, size = point.state.values, np.linalg.norm(start)
    assert float(point.distance) == pytest.approx(np.linalg.norm(state - start))
    assert np.linalg.norm(net.gradient(state)) == pytest.approx(float(point.residual[-1]))
    if scale <= 1e-3:  # the origin is critical, and closer than all else
        assert point.distance < 1.5 * size
    # A second search finds nothing more to do.
    again = dl.find_critical_point(net, state, rtol=1e-8)
    assert again.distance <= max(10.0 * float(point.error), 1e-8 * np.linalg.norm(state))


def test_a_small_gradient_is_no_convergence():
    """At depth 4 and weights of 1e-9 ‖∇L‖ is 1e-27, and the nearest zero as far as the origin."""
    net = naive.random_network((3, 3, 3, 3, 3), 0)
    start = net.initial(scale=1e-9, rng=0)
    point = dl.find_critical_point(net, start)
    assert point.residual[0] < 1e-25
    assert point.estimated_distance[0] > 0.1 * np.linalg.norm(start)
    assert point.n_iterations > 2
    assert 0.1 < point.distance / np.linalg.norm(start) < 1.5
    assert point.residual[-1] < 1e-9 * point.residual[0]


@pytest.mark.parametrize("kind", naive.KINDS)
def test_what_is_critical_stays(kind):
    for widths in [(3, 2), (3, 4, 3), (3, 4, 4, 3), (3, 4, 4, 4, 4, 3)]:
        net = naive.random_network(widths, 2, kind)
        for label in dl.critical_points(net).critical_point.values:
            x = net.critical_state(dl.schema.index_set_modes(label))
            point = dl.find_critical_point(net, x)
            assert point.n_iterations == 0
            assert dl.schema.decode(point.convergence) == "at_start"
            np.testing.assert_array_equal(point.state, x)
            assert point.error < 1e-7 * (1.0 + np.linalg.norm(x))
            expected = net.dim - int(dl.linearize(net, x, zero_tolerance=1e-7).nullity)
            assert int(point["rank"]) == expected


@pytest.mark.parametrize("distance", [1e-11, 1e-13])
def test_what_is_within_the_tolerance_is_polished_to_rounding(distance):
    """A step squares the distance: nothing but rounding is left of it, and the zeros are zeros."""
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]), weight_decay=0.1)
    minimum = np.tile(np.diag(np.sqrt([1.9, 0.9])).ravel(), 2)
    way = np.random.default_rng(0).normal(size=net.dim)
    found = dl.find_critical_point(net, minimum + distance / np.linalg.norm(way) * way)
    assert float(found.residual[-1]) <= 1e-14 < float(found.residual[0])
    assert (int(found["rank"]), int(found.nullity)) == (7, 1)
    spectrum = dl.linearize(net, found.state.values)
    assert (int(spectrum["index"]), spectrum.attrs["is_clear"]) == (0, 1)


def lorenz(t, x, params, out):
    out[0] = 10.0 * (x[1] - x[0])
    out[1] = x[0] * (28.0 - x[2]) - x[1]
    out[2] = x[0] * x[1] - 8.0 / 3.0 * x[2]


def brusselator(t, x, params, out):
    out[0] = 1.0 + x[0] ** 2 * x[1] - 4.0 * x[0]
    out[1] = 3.0 * x[0] - x[0] ** 2 * x[1]


def circle(t, x, params, out):
    for i in range(2):
        out[i] = (1.0 - x[0] ** 2 - x[1] ** 2) * x[i]


def circle_jacobian(t, x, params, out):
    for i in range(2):
        for j in range(2):
            out[i, j] = -2.0 * x[i] * x[j]
        out[i, i] += 1.0 - x[0] ** 2 - x[1] ** 2


def above_zero(t, x, params, out):
    out[0] = x[0] ** 2 + 1.0
    out[1] = x[1]


def double_well(t, x, params, out):
    out[0] = x[0] ** 2 - 1.0


def double_well_jacobian(t, x, params, out):
    out[0, 0] = 2.0 * x[0]


def saturated(t, x, params, out):
    out[0] = np.sqrt(x[0])
    out[1] = -x[1]


def test_equilibria_of_the_lorenz_system():
    system, root = dl.System(lorenz, dim=3), np.sqrt(72.0)
    for sign in (1.0, -1.0):
        point = dl.find_critical_point(system, [9.0 * sign, 7.0 * sign, 25.0])
        np.testing.assert_allclose(point.state, [sign * root, sign * root, 27.0], rtol=1e-12)
        assert int(point["rank"]) == 3
        assert point.smallest_nonzero > 0.1
    origin = dl.find_critical_point(system, [0.1, -0.1, 0.1])
    np.testing.assert_array_equal(origin.state, 0.0)


def test_equilibrium_of_the_brusselator_from_afar():
    system = dl.System(brusselator, dim=2, names=("u", "v"))
    for start in ([0.5, 0.5], [2.0, 6.0], [0.0, 0.0], [1e3, 1e-3]):
        point = dl.find_critical_point(system, start)
        np.testing.assert_allclose(point.state, [1.0, 3.0], rtol=1e-9)
        assert point.parameter.values.tolist() == ["u", "v"]


def test_a_circle_of_equilibria_is_met_at_the_nearest_point():
    """The field is radial, so every step of minimum norm is."""
    differenced = dl.System(circle, dim=2)
    system = dl.System(circle, jacobian=circle_jacobian, dim=2)
    for radius in (0.7, 0.9, 1.001, 3.0):
        start = radius * np.array([np.cos(0.7), np.sin(0.7)])
        for flow, tolerance in ((system, 1e-10), (differenced, 1e-9)):
            point = dl.find_critical_point(flow, start)
            np.testing.assert_allclose(point.state, start / radius, rtol=0.0, atol=tolerance)
            assert float(point.distance) == pytest.approx(abs(radius - 1.0), abs=tolerance)
            assert int(point["rank"]) == 1
            assert point.smallest_nonzero == pytest.approx(2.0)


def test_fields_without_zeros_are_told_with_numbers():
    system = dl.System(above_zero, dim=2)
    for start in ([0.3, 1.0], [5.0, -1.0], [-1e4, 0.0]):
        with pytest.raises(dl.ConvergenceError, match=r"the field has the norm \d"):
            dl.find_critical_point(system, start)


def test_where_the_jacobian_vanishes_there_is_no_way_to_go():
    system = dl.System(double_well, jacobian=double_well_jacobian, dim=1)
    with pytest.raises(dl.ConvergenceError, match="the Jacobian is zero, the field is not"):
        dl.find_critical_point(system, [0.0])
    assert float(dl.find_critical_point(system, [1e-3]).state[0]) == pytest.approx(1.0, abs=1e-12)


def test_the_number_of_iterations_is_limited():
    net = naive.random_network((3, 3, 3), 0)
    with pytest.raises(dl.ConvergenceError, match="max_iterations = 1; after 1 iterations"):
        dl.find_critical_point(net, net.initial(scale=1.0, rng=0), max_iterations=1)


def test_equal_calls_give_equal_results_and_leave_the_start_alone():
    net = naive.random_network((3, 4, 4, 3), 1, "full")
    start = net.initial(scale=0.5, rng=1)
    before = start.copy()
    first = dl.find_critical_point(net, start)
    assert first.identical(dl.find_critical_point(net, start))
    np.testing.assert_array_equal(start, before)
    dl.schema.validate(first)
    np.testing.assert_array_equal(first.layer, dl.schema.state_coordinates(net.widths)["layer"][1])


def test_other_losses_have_critical_points_too():
    X = np.random.default_rng(0).normal(size=(3, 20))
    labels = np.arange(20) % 2
    net = dl.LossNetwork((3, 2, 2), dl.losses.cross_entropy(X, labels))
    start = net.initial(scale=0.3, rng=0)
    point = dl.find_critical_point(net, start)
    assert np.linalg.norm(net.gradient(point.state)) < 1e-9
    assert point.error < 1e-8 * np.linalg.norm(point.state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x0": [1.0]}, "x0: needs a shape"),
        ({"x0": [np.nan, 0.0]}, "x0: needs finite"),
        ({"x0": [-1.0, 0.0]}, "x0: the field at this state is not finite"),
        ({"x0": [0.0, 0.0]}, "x0: the Jacobian at this state is not finite"),
        ({"rtol": 1e-17}, "rtol: needs"),
        ({"max_iterations": -1}, "max_iterations: needs"),
        ({"t": np.inf}, "t: needs"),
        ({"tol": 1e-3}, "tol: find_critical_point has no such option"),
    ],
)
def test_bad_input_is_refused_by_name(changes, message):
    system = dl.System(saturated, dim=2)
    with pytest.raises((ValueError, TypeError), match=message):
        dl.find_critical_point(system, **{"x0": [1.0, 0.0], **changes})


def test_maps_and_large_systems_are_refused():
    net = naive.random_network((2, 2), 0)
    with pytest.raises(TypeError, match="system: needs a flow"):
        dl.find_critical_point(dl.GradientDescent(net, step_size=0.1), np.zeros(4))
    large = dl.LinearNetwork(widths=(70, 70), target=np.eye(70))
    with pytest.raises(ValueError, match="system: needs at most 2000 components, got 4900"):
        dl.find_critical_point(large, np.zeros(4900))


@pytest.mark.parametrize("target", [np.array([[2.0]]), np.diag([2.0, 1.0])])
def test_points_at_infinity_are_not_within_the_tolerance(target):
    """A layer without decay grows for one with it: ∂L/∂W₁ ≠ 0 of the penalty unless W₁ is zero."""
    d, reached, fled = len(target), 0, 0
    net = dl.LinearNetwork((d, d, d), target, weight_decay=(0.3, 0.0))
    for seed in range(60):
        try:
            found = dl.find_critical_point(net, net.initial(scale=0.7, rng=seed))
        except dl.ConvergenceError:
            continue
        size = float(np.linalg.norm(net.unpack(found.state.values)[0]))
        if int(found.is_within_rtol):
            assert size <= 1e-10
            reached += 1
        else:
            assert size > 1e-4
            assert np.isinf(float(found.error))
            assert dl.schema.decode(found.convergence).item() == "stagnated"
            fled += 1
    assert min(reached, fled) >= 3
