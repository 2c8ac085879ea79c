"""Rates that hold: what is proven of them, measured on random networks and where it is exact."""

import itertools

import naive
import numpy as np
import pytest

import dlnds as dl
from dlnds.theory import decayed_rates, rates
from dlnds.theory.coordinates import product
from dlnds.theory.tolerances import rounding

BOUNDS = ["partial_products", "ball", "margin", "imbalance"]
WIDTHS = [
    (3, 2),
    (2, 2, 2),
    (2, 2, 3),
    (3, 5, 2),
    (2, 4, 3),
    (2, 3, 3, 2),
    (4, 3, 5, 3),
    (2, 3, 2, 4, 2),
]
SIGMA = np.diag([2.0, 1.5, 1.0])


def network(widths, raw, rng):
    """Return a network of a random target, with a random root of the covariance if it is raw."""
    target = matrix(widths[-1], widths[0], rng)
    return dl.LinearNetwork(widths, target, matrix(widths[0], widths[0], rng) if raw else None)


def matrix(rows, columns, rng):
    """Return a random matrix with singular values between 1 and 2."""
    U, _, V = np.linalg.svd(rng.normal(size=(rows, columns)), full_matrices=False)
    return (U * rng.uniform(1.0, 2.0, size=len(V))) @ V


def at(net, *states):
    """Return the bounds at states that are of no run."""
    run = dl.as_run(net, np.arange(len(states) + 0.0), [net.unpack(x) for x in states])
    return dl.convergence_bounds(net, run)


def words(found):
    return dl.schema.decode(found.decision).values.tolist()


def partials(net, x):
    """Return L_i and R_i K of all layers, one product after the other."""
    layers, h = net.unpack(x), net.depth
    root = np.eye(net.widths[0]) if net.input_root is None else net.input_root
    after = [product([np.eye(w.shape[0]), *layers[i + 1 :]]) for i, w in enumerate(layers)]
    before = [product([root, *layers[:i]]) for i in range(h)]
    return list(zip(after, before, strict=True))


def least(matrix, count):
    values = np.linalg.svd(matrix, compute_uv=False)
    return values[count - 1] if count <= len(values) else 0.0


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("widths", WIDTHS)
def test_rates_are_above_the_bound_of_partial_products(widths, raw):
    rng = np.random.default_rng(len(widths) + 10 * raw)
    net = network(widths, raw, rng)
    states = rng.normal(size=(20, net.dim)) * 10.0 ** rng.uniform(-1, 0.3, size=(20, 1))
    found = at(net, *states)
    for row, x in enumerate(states):
        pairs = partials(net, x)
        terms = [least(L, widths[-1]) ** 2 * least(P, widths[0]) ** 2 for L, P in pairs]
        sizes = [np.sum(L**2) * np.sum(P**2) for L, P in pairs]
        noise = rounding(net.dim) * sum(sizes)
        bound = float(found.rate_bound.sel(bound="partial_products")[row])
        np.testing.assert_allclose(bound, 2.0 * sum(terms), rtol=0.0, atol=noise)
        rate = np.sum(net.gradient(x) ** 2) / net.loss(x)
        np.testing.assert_allclose(found.rate[row], rate, rtol=rounding(net.dim))
        assert rate >= bound - noise
        assert bound > noise


def test_partial_products_are_exact_where_the_residual_is_what_layers_see_least():
    rng = np.random.default_rng(0)
    for widths in [(2, 2, 2), (2, 3, 2), (3, 4, 3), (3, 6, 3)]:
        layers = [rng.normal(size=(b, a)) for a, b in itertools.pairwise(widths)]
        u = np.linalg.svd(layers[1])[0][:, widths[-1] - 1]
        v = np.linalg.svd(layers[0])[2][widths[0] - 1]
        net = dl.LinearNetwork(widths, product(layers) + np.outer(u, v))
        found = at(net, net.pack(layers))
        bound = found.rate_bound.sel(bound="partial_products")
        np.testing.assert_allclose(found.rate, bound, rtol=1e-11)


def test_orthogonal_layers_have_exactly_the_bound():
    rng = np.random.default_rng(1)
    for depth, d in itertools.product((1, 2, 3, 5), (2, 4)):
        layers = [1.3 * np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(depth)]
        net = dl.LinearNetwork((d,) * (depth + 1), rng.normal(size=(d, d)))
        found = at(net, net.pack(layers))
        exact = 2.0 * depth * 1.3 ** (2 * depth - 2)
        np.testing.assert_allclose(found.rate, exact, rtol=1e-13)
        np.testing.assert_allclose(found.rate_bound[0], exact, rtol=1e-13)


def test_the_tangent_kernel_is_between_the_rate_and_the_bound():
    rng = np.random.default_rng(2)
    for widths in WIDTHS:
        net = network(widths, True, rng)
        run = dl.flow(net, net.initial(scale=0.7, rng=0), t_span=(0.0, 1.0))
        found = dl.convergence_bounds(net, run)
        kernel = 2.0 * dl.observe(net, run, "ntk_eigenvalue").ntk_eigenvalue.min("eigen")
        assert (kernel <= found.rate * (1 + 1e-9)).all()
        assert (found.rate_bound[0] <= kernel + 1e-12 * found.rate).all()


def starts(net, rng):
    """Return starts with a margin, with an imbalance of two layers, and with neither."""
    top = net.critical_state(range(net.max_rank))
    near = [top + size * rng.normal(size=net.dim) for size in (1e-3, 0.05, 0.2)]
    layers = list(net.unpack(net.initial(scale=0.3, rng=rng)))
    b, a = layers[0].shape
    layers[0] = 2.0 * np.linalg.qr(rng.normal(size=(max(a, b),) * 2))[0][:b, :a]
    return [*near, net.pack(layers), net.initial(scale=1.0, rng=rng)]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("widths", WIDTHS)
def test_bounds_of_the_start_hold_along_the_run(widths, raw):
    rng = np.random.default_rng(len(widths) + 10 * raw)
    net = network(widths, raw, rng)
    seen = set()
    for start in starts(net, rng):
        run = dl.flow(net, start, t_span=(0.0, 30.0), rtol=1e-10)
        found = dl.convergence_bounds(net, run)
        seen |= set(np.array(BOUNDS)[found.decision.values == 0])
        there = found.isel(time=(found.excess_loss > found.excess_error).values)
        assert not (there.rate_margin < -1e-6 * there.rate).any()
        assert not (found.excess_loss > found.excess_bound + found.excess_error).any()
        lowest = found.smallest_singular_value.min()
        assert lowest >= found.deficiency_margin - 1e-8
        assert found.imbalance_change.max() < 1e-7
    assert seen == {*BOUNDS[:3], *(BOUNDS[3:] if len(widths) == 3 else [])}


def some_networks(rng):
    """Networks of all kinds that have bounds, of random shapes."""
    for widths in [(1, 1, 1), (1, 2, 1), (2, 2, 2), (3, 2), (2, 3, 3, 2), (2, 2, 2, 2, 2)]:
        rows, columns = widths[-1], widths[0]
        target = matrix(rows, columns, rng) * 10.0 ** rng.uniform(-0.5, 0.5)
        yield dl.LinearNetwork(widths, target)
        yield dl.LinearNetwork(widths, target, weight_decay=0.1)
        places = [0, rows - 1][: rows * columns], [0, columns - 1][: rows * columns]
        if rows * columns == 1:
            places = [0], [0]
        weights = rng.uniform(0.3, 3.0, size=len(places[0]))
        values = rng.normal(size=len(places[0]))
        entries = dl.losses.completion((rows, columns), *places, values, weights)
        yield dl.LossNetwork(widths, entries)


@pytest.mark.parametrize("rtol", [1e-3, 1e-5, 1e-7, 1e-10])
@pytest.mark.parametrize("kind", ["steps", "rows", "implicit"])
def test_runs_exceed_their_bounds_by_their_error_at_most(kind, rtol):
    """And some by a ten thousandth of it and more, or where they are implicit a millionth."""
    rng, largest = np.random.default_rng(int(-np.log10(rtol))), 0.0
    for net in some_networks(rng):
        start = net.initial(scale=10.0 ** rng.uniform(-1.0, 0.3), rng=rng)
        grid = None if kind == "steps" else np.geomspace(0.01, 30.0, 40)
        method = "radau" if kind == "implicit" else "auto"
        run = dl.flow(net, start, (0.0, 30.0), grid, rtol=rtol, method=method)
        found = dl.convergence_bounds(net, run)
        over = found.excess_loss - found.excess_bound
        assert not (over > found.excess_error).any()
        assert (found.excess_error > 0.0).all()
        part = (over / found.excess_error).max()
        largest = max(largest, float(part.fillna(0.0)))
    assert largest > (1e-6 if kind == "implicit" else 1e-4)


def scales(layers):
    """The geometric mean, for each weight, of the root mean squares of the units that it joins."""
    h, units = len(layers), []
    for i in range(h + 1):
        into = list(layers[i - 1]) if i > 0 else [[]] * layers[0].shape[1]
        out_of = list(layers[i].T) if i < h else [[]] * layers[-1].shape[0]
        both = [np.concatenate(pair) for pair in zip(into, out_of, strict=True)]
        units.append(np.array([np.sqrt(np.mean(weights**2)) for weights in both]))
    return [np.sqrt(np.outer(units[i + 1], units[i])) for i in range(h)]


def zero_target(start, times):
    """The loss ½ (w_1 w_2)² of the flow to zero: c is kept, and w_2²/w_1² decays by e^{−2ct}."""
    small, large = np.sort(np.abs(start))
    c = (large - small) * (large + small)
    log_ratio = 2.0 * np.log(small / large) - 2.0 * c * times
    return 0.5 * (c / np.expm1(log_ratio)) ** 2 * np.exp(log_ratio)


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("method", ["auto", "radau"])
def test_the_error_holds_what_layers_that_fade_lack_of_the_exact_flow(method, rtol):
    """And is 10 rtol and little more of the excess that there is at first."""
    net, largest = dl.LinearNetwork((1, 1, 1), [[0.0]]), 0.0
    for seed in range(6):
        start = net.initial(scale=0.5, rng=seed)
        run = dl.flow(net, start, rtol=rtol, method=method)
        found = dl.convergence_bounds(net, run)
        joined = scales(net.unpack(start))
        assert words(found) == ["proven", "proven", "no_margin", "proven"]
        lack = abs(found.excess_loss - zero_target(start, run.time.values))
        assert (lack <= found.excess_error).all()
        largest = max(largest, float((lack / found.excess_error).max()))
        assert not (found.excess_loss > found.excess_bound + found.excess_error).any()
        assert (found.excess_loss[-1] < 1e-14 * found.excess_loss[0]).all()
        part = max(10.0 * rtol, 0.1 * rtol**0.6 if method == "radau" else 0.0)
        ratios = [scale.item() / abs(w) for scale, w in zip(joined, start, strict=True)]
        moved = part * sum(ratios)  # of w_1 w_2, to first order
        first = float(found.excess_error[0] / found.excess_loss[0])
        assert first == pytest.approx(2.0 * moved + moved**2, rel=1e-4)
    assert largest > 1e-3


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-8, 1.0])
@pytest.mark.parametrize("unit", [1e-60, 1.0, 1e60])
def test_one_layer_is_at_its_bound_up_to_its_error_from_starts_of_any_size(unit, scale):
    """The excess is e^{−2t} of the first, in floating point: also where weights are nothing yet."""
    net = dl.LinearNetwork((2, 2), unit * np.diag([2.0, 1.0]))
    run = dl.flow(net, net.initial(scale=scale * unit, rng=0), (0.0, 10.0))
    found = dl.convergence_bounds(net, run)
    lack = abs(found.excess_loss - found.excess_loss[0] * np.exp(-2.0 * run.time))
    assert (lack <= found.excess_error).all()
    bounds = found.excess_bound.isel(bound=[0, 1])
    assert not (abs(found.excess_loss - bounds) > found.excess_error).any()
    assert float((found.excess_error / found.excess_loss).min()) < 1e-5


@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_errors_of_weights_that_all_decay_add_up(rtol):
    """Of one layer with target 0 the excess is e^{−2t} of the first."""
    net = dl.LinearNetwork((2, 3), np.zeros((3, 2)))
    run = dl.flow(net, net.initial(scale=0.5, rng=0), (0.0, 280.0), rtol=rtol)
    found = dl.convergence_bounds(net, run)
    assert float(found.excess_loss[-1]) < 1e-200
    exact = found.excess_loss[0] * np.exp(-2.0 * found.time)
    assert not (abs(found.excess_loss - exact) > found.excess_error).any()
    assert not (found.excess_loss > found.excess_bound + found.excess_error).any()
    (layer,) = net.unpack(run.state.values[0])
    least = 20.0 * rtol * np.linalg.norm(scales([layer])[0]) / np.linalg.norm(layer)
    most = least * (1.0 + 0.1 * found.time)  # a tenth more each time that W decays by e
    most = most + 8.0 * rounding(net.dim)
    part = found.excess_error / found.excess_loss
    assert (part >= least).all()
    assert (part <= most * (1.0 + most)).all()
    assert 5.0 * part[0] < part[-1]


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("balanced", [False, True])
def test_targets_of_any_rank_have_bounds_that_hold_and_errors_that_are_small(balanced, rank):
    rng = np.random.default_rng(10 * rank + balanced)
    for widths in [(2, 2, 2), (2, 3, 2), (2, 2, 2, 2), (2, 3, 3, 2)] * 3:
        U, V = (np.linalg.qr(rng.normal(size=(2, 2)))[0] for _ in range(2))
        target = (U * np.where(np.arange(2) < rank, rng.uniform(0.5, 2.0, size=2), 0.0)) @ V
        net, rtol = dl.LinearNetwork(widths, target), 10.0 ** rng.uniform(-9.0, -4.0)
        kind = "balanced" if balanced else "gaussian"
        start = net.initial(kind, scale=10.0 ** rng.uniform(-0.3, 0.2), rng=rng)
        run = dl.flow(net, start, (0.0, 100.0), rtol=rtol)
        found = dl.convergence_bounds(net, run)
        over = found.excess_loss - found.excess_bound
        assert not (over > found.excess_error).any()
        excess, error = float(found.excess_loss[0]), float(found.excess_error[0])
        size = np.prod([np.linalg.norm(w) for w in net.unpack(start)])
        part = max(10.0 * rtol, 0.1 * rtol**0.6 if run.attrs["n_jac"] else 0.0)
        assert 0.1 * part * excess < error < 2.0 * part * net.depth * size * np.sqrt(2.0 * excess)


def test_an_imbalance_that_is_nothing_but_rounding_keeps_no_rate():
    """Layers that are balanced have none; those of a small one have it, a little less at most."""
    net, rng = dl.LinearNetwork((2, 2, 2), np.zeros((2, 2))), np.random.default_rng(0)
    for _ in range(30):
        turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]
        U, sizes, V = np.linalg.svd(matrix(2, 2, rng))
        for gap, word in ((0.0, "no_imbalance"), (1e-9, "proven")):
            layers = (U * np.sqrt(sizes**2 + gap)) @ V, (turn * sizes) @ U.T  # C is the gap times 1
            run = dl.flow(net, net.pack(layers), (0.0, 1e-3))
            found = dl.convergence_bounds(net, run)
            assert words(found)[3] == word
            known = found.rate_bound[3, 0].values if gap else 0.0
            np.testing.assert_allclose(known, 2.0 * gap, rtol=1e-4)
            assert np.isnan(found.rate_bound[3]).all() == (gap == 0.0)


def test_the_error_of_the_excess_is_that_of_layers_to_first_order():
    """10 rtol of scales of weights: all that a scalar chain does, of others no errors do more."""
    rng = np.random.default_rng(4)
    for net in [*some_networks(rng), dl.LinearNetwork((3, 1, 3), np.diag([2.0, 1.0, 0.5]))]:
        x = net.initial(scale=1.0, rng=rng)
        if net.widths == (1, 1, 1):
            x = np.abs(x)
        errors = {}
        for rtol in (1e-3, 1e-6):
            found = dl.convergence_bounds(net, dl.flow(net, x, (0.0, 1e-9), [1e-9], rtol=rtol))
            errors[rtol] = float(found.excess_error[0])
            excess = float(found.excess_loss[0])
            joined, pull = scales(net.unpack(x)), np.sqrt(net.data_loss(x))
            sizes = [np.linalg.norm(w) for w in joined]
            for _ in range(200):
                moves = [rng.uniform(-1.0, 1.0, size=w.shape) * w for w in joined]
                change = net.loss(x + 10.0 * rtol * net.pack(moves)) - net.loss(x)
                second = (10.0 * rtol * net.depth) ** 2 * np.prod(sizes) * 3.0 * pull
                assert abs(change) <= errors[rtol] * (1.0 + 20.0 * rtol * net.depth) + second
        # ε √(2e) + ½ ε² with ε in proportion to rtol
        epsilon = np.sqrt(2.0 * excess + 2.0 * errors[1e-6]) - np.sqrt(2.0 * excess)
        exact = 1e3 * epsilon * np.sqrt(2.0 * excess) + 0.5 * (1e3 * epsilon) ** 2
        np.testing.assert_allclose(errors[1e-3], exact, rtol=1e-4)
        if net.widths == (1, 1, 1) and not net.is_decayed:
            moved = 1e-5 * net.pack(joined) * np.sign(net.gradient(x))
            growth = net.loss(x + moved) - net.loss(x)
            np.testing.assert_allclose(growth, errors[1e-6], rtol=1e-3)


def test_scalar_chains_begin_at_their_bound():
    for p0, c, sigma in [(0.3, 0.0, 2.0), (0.3, 1.5, 2.0), (0.01, -0.7, 1.0), (1.9, 0.2, 2.0)]:
        net = dl.LinearNetwork((1, 1, 1), [[sigma]])
        first = np.sqrt(0.5 * (c + np.hypot(c, 2.0 * p0)))
        run = dl.flow(net, [first, p0 / first], t_span=(0.0, 3.0), save=["state", "product"])
        found = dl.convergence_bounds(net, run)
        law = 2.0 * np.hypot(c, 2.0 * run["product"].values[:, 0, 0])  # p' = (σ − p) √(c² + 4p²)
        np.testing.assert_allclose(found.rate, law, rtol=1e-7)
        np.testing.assert_allclose(found.rate_bound[0], law, rtol=1e-7)
        np.testing.assert_allclose(found.rate_bound[3, 0], law[0], rtol=1e-12)
        assert found.rate_margin[3, -1] > 0.0
    for depth in (2, 3, 4):
        net = dl.LinearNetwork((1,) * (depth + 1), [[2.0]])
        run = dl.flow(net, np.full(depth, 0.5 ** (1 / depth)), t_span=(0.0, 1.0))
        found = dl.convergence_bounds(net, run)
        exact = 2.0 * depth * 0.5 ** (2.0 - 2.0 / depth)
        np.testing.assert_allclose([found.rate[0], found.rate_bound[2, 0]], exact, rtol=1e-12)


def test_one_input_and_one_output_begin_at_the_bound_of_the_imbalance():
    rng = np.random.default_rng(3)
    for width in (1, 2, 5):
        W1, W2 = rng.normal(size=(width, 1)), rng.normal(size=(1, width))
        net = dl.LinearNetwork((1, width, 1), 2.0 * W2 @ W1)  # so that nothing is lost of p
        found = dl.convergence_bounds(net, dl.flow(net, net.pack([W1, W2]), t_span=(0.0, 0.1)))
        exact = 2.0 * (np.sum(W1**2) + np.sum(W2**2))
        np.testing.assert_allclose([found.rate[0], found.rate_bound[3, 0]], exact, rtol=1e-11)


def test_an_imbalance_keeps_eigenvalues_of_layers_of_any_widths():
    """(x − a)(x + N) ≥ σ² of random layers, near to equality for some."""
    rng = np.random.default_rng(4)
    nearest = np.inf
    for _ in range(3000):
        n, d, m = rng.integers(1, 6, size=3)
        W1 = rng.normal(size=(d, n)) * 10.0 ** rng.uniform(-2, 1)
        W2 = rng.normal(size=(m, d)) @ np.diag(10.0 ** rng.uniform(-1, 1, size=d))
        size = np.sum(W1**2) + np.sum(W2**2)
        values = np.linalg.eigvalsh(W1 @ W1.T - W2.T @ W2)[::-1]
        x = least(W1, n) ** 2
        a, N = max(values[n - 1], 0.0) if n <= d else 0.0, max(-values[-1], 0.0)
        excess = (x - a) * (x + N) - least(W2 @ W1, n) ** 2
        assert excess >= -rounding(6) * size**2
        nearest = min(nearest, excess / size**2 if n > 1 and least(W2 @ W1, n) > 0.1 else np.inf)
    assert nearest < 1e-2


def test_layers_that_are_nearly_balanced_keep_what_their_map_has():
    """The bound of the margin at states whose map is the target: c is all of it."""
    rng = np.random.default_rng(5)
    kept = 0
    for widths, delta in itertools.product(WIDTHS[1:], (0.0, 1e-6, 1e-3, 3e-2)):
        net = network(widths, False, rng)
        kind = {"kind": "delta_balanced", "delta": delta} if delta else {"kind": "balanced"}
        x = net.initial(**kind, scale=1.0, rng=rng)
        layers = net.unpack(x)
        W = product(layers)
        loss = dl.LinearNetwork(widths, W).quadratic
        c, n, h = least(W, min(W.shape)), min(W.shape), len(layers)
        bound = float(rates.from_margin(loss, layers, np.array(0.0), np.array(c)))
        balanced = 2.0 * (h if W.shape[0] == W.shape[1] else 1) * c ** (2.0 - 2.0 / h)
        actual = float(rates.partials(loss, layers).rate())
        assert bound <= min(actual, balanced) * (1 + 1e-9)
        kept += bound > 0.5 * balanced
        if not delta:
            np.testing.assert_allclose(bound, balanced, rtol=1e-6)
            assert n == loss.least
    assert kept >= 12


def test_what_is_certified_holds_for_rows_far_apart_and_is_sharp_for_near_ones():
    net = dl.LinearNetwork((3, 4, 3), SIGMA)
    start = net.critical_state((0, 1, 2)) + 0.1 * np.random.default_rng(6).normal(size=net.dim)
    times = np.linspace(0.0, 2.0, 801)
    run = dl.flow(net, start, t_eval=times, t_span=(0.0, 2.0), rtol=1e-11)
    fine = dl.convergence_bounds(net, run)
    bounds = fine.rate_bound[0].values
    passed = np.sum(0.5 * (bounds[1:] + bounds[:-1]) * np.diff(times))
    sharp = fine.excess_loss[0] * np.exp(-passed)
    for step in (800, 100, 10, 1):
        found = dl.convergence_bounds(net, run.isel(time=slice(None, None, step)))
        last = float(found.excess_bound[0, -1])
        assert last >= float(sharp) >= float(found.excess_loss[-1])
        assert (found.excess_bound[0] >= found.excess_loss * (1 - 1e-9)).all()
    assert last < 1.05 * sharp


def test_between_rows_the_bound_is_below_that_of_every_state():
    rng, kept = np.random.default_rng(9), 0
    for widths in WIDTHS[1:]:
        net = network(widths, True, rng)
        times = np.linspace(0.0, 1.0, 401)
        start = net.initial(scale=1.0, rng=rng)
        run = dl.flow(net, start, t_eval=times, t_span=(0.0, 1.0), rtol=1e-10)
        layers = net.unpack(run.state.values)
        every = rates.partials(net.quadratic, layers).rate()
        for step in (2, 8, 40):
            rows = [w[::step] for w in layers]
            excess = run.loss.values[::step]
            partials = rates.partials(net.quadratic, rows)
            least = rates.between_rows(partials, excess, np.diff(times[::step]))
            inside = np.stack([every[k : len(every) - step + k : step] for k in range(step + 1)])
            assert (least <= inside.min(axis=0) * (1 + 1e-9)).all()
            kept += np.sum(least > 0.5 * inside.max(axis=0))
    assert kept > 500


@pytest.mark.parametrize(("depth", "scale"), [(2, 1e-9), (4, 1e-8), (5, 1e-8)])
def test_what_is_certified_does_not_depend_on_how_long_the_plateau_was(depth, scale):
    """The flow knows no time: rows have the bounds that they have on a clock that begins there."""
    net = dl.LinearNetwork((2,) * (depth + 1), np.diag([2.0, 1.0]))
    run = dl.flow(net, net.initial("balanced", scale=scale, rng=0))
    found = dl.convergence_bounds(net, run)
    assert not (found.excess_loss > found.excess_bound + found.excess_error).any()
    last = run.isel(time=slice(int(np.argmax(run.loss.values < 0.45)), None))
    passed = last.time - last.time[0] + (last.time_low - last.time_low[0])
    again = last.assign(time_low=0.0 * last.time_low).assign_coords(time=passed)
    here, anew = (dl.convergence_bounds(net, one).excess_bound[:2] for one in (last, again))
    if depth < 5:  # of 1e41 not even two numbers tell when something was
        np.testing.assert_allclose(here, anew, rtol=1e-6)
        assert (here[:, -1] < 1e-9 * here[:, 0]).all()
    plain = dl.convergence_bounds(net, last.drop_vars("time_low"))
    assert (plain.excess_bound[:2] >= here * (1.0 - 1e-6)).all()
    if depth > 2:  # all these times are one number, or two
        np.testing.assert_allclose(plain.excess_bound[:2], float(here[0, 0]), rtol=0.0, atol=0.0)


def test_a_ball_keeps_its_rate_for_all_states_within_and_ends_at_that_of_the_row():
    rng = np.random.default_rng(10)
    for widths in WIDTHS:
        net = network(widths, True, rng)
        start = net.critical_state(range(net.max_rank)) + 0.1 * rng.normal(size=net.dim)
        run = dl.flow(net, start, t_span=(0.0, 20.0), rtol=1e-11)
        found = dl.convergence_bounds(net, run)
        ball, local = found.rate_bound.sel(bound="ball"), found.rate_bound[0]
        assert not (ball > np.maximum.accumulate(local.values) * (1 + 1e-9)).any()
        np.testing.assert_allclose(ball[-1], local[-1], rtol=1e-4)
        first = int(np.argmax(np.isfinite(ball.values)))
        x, rate = run.state.values[first], float(ball[first])
        reach = 2.0 * np.sqrt(float(found.excess_loss[first]) / rate)
        way = np.linalg.norm(run.state.values[first:] - x, axis=1).max()
        assert way <= reach * (1 + 1e-9)
        aside = rng.normal(size=(200, net.dim))
        aside *= reach / np.linalg.norm(aside, axis=1, keepdims=True)
        kept = rates.partials(net.quadratic, net.unpack(x + aside)).rate()
        assert kept.min() >= rate * (1 - 1e-9)


def test_one_layer_converges_at_its_rate_from_everywhere():
    net = dl.LinearNetwork((3, 2), np.eye(2, 3), np.diag([1.0, 0.5, 2.0]))
    run = dl.flow(net, net.initial(scale=5.0, rng=0), t_span=(0.0, 5.0))
    found = dl.convergence_bounds(net, run)
    np.testing.assert_allclose(found.rate_bound[:3], 0.5, rtol=1e-12)  # 2 σ_3(K)²
    assert words(found) == [*["proven"] * 3, "not_two_layers"]


def test_no_inequality_holds_at_a_bottleneck():
    """At a saddle that has learnt the weaker modes the rate is zero, and layers have full rank."""
    net = dl.LinearNetwork((3, 2, 3), SIGMA)
    x = net.critical_state((1, 2))
    found = at(net, x)
    assert words(found) == ["bottleneck"] * 4
    assert found.rate_bound.isnull().all()
    np.testing.assert_allclose(found.excess_loss, 0.5 * (2.0**2 - 1.0**2), rtol=1e-13)
    assert abs(found.rate) < 1e-28
    assert min(least(w, 2) for w in net.unpack(x)) > 0.9
    wide = at(dl.LinearNetwork((3, 3, 3), SIGMA), np.zeros(18))
    np.testing.assert_array_equal([wide.rate[0], wide.rate_bound[0, 0]], 0.0)


def test_bounds_say_what_they_lack():
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    small = net.pack([np.diag([0.1, 0.01]), np.diag([0.01, 0.1])])  # one unit this way, one that
    small = dl.convergence_bounds(net, dl.flow(net, small))
    assert words(small) == ["proven", "proven", "no_margin", "no_imbalance"]
    early = dl.convergence_bounds(net, dl.flow(net, net.initial(rng=0), (0.0, 1.0)))
    assert words(early)[1] == "no_ball"
    top = net.critical_state((0, 1))
    layers = net.unpack(top)
    uneven = net.pack([1e-2 * layers[0], 1e2 * layers[1]]) * (1 + 1e-3)
    far = dl.convergence_bounds(net, dl.flow(net, uneven, t_span=(0.0, 1e-3)))
    assert words(far)[2:] == ["too_unbalanced", "proven"]
    near = top * (1 + 1e-3)
    descent = dl.iterate(dl.GradientDescent(net, 0.05), near, n_steps=5)
    steps = dl.convergence_bounds(net, descent)
    assert words(steps) == ["proven", "no_flow", "no_flow", "no_flow"]
    assert steps.excess_bound.isnull().all()
    deep = dl.LinearNetwork((2, 2, 2, 2), np.diag([2.0, 1.0]))
    run = dl.flow(deep, deep.critical_state((0, 1)) * 1.01)
    assert words(dl.convergence_bounds(deep, run)) == [*["proven"] * 3, "not_two_layers"]
    X = np.random.default_rng(0).normal(size=(3, 9))
    X[2] = X[0]
    raw = dl.LinearNetwork.from_data(X, X[:2], hidden=(4,), whiten=False)
    found = dl.convergence_bounds(raw, dl.flow(raw, raw.initial(scale=1.0, rng=0), t_span=(0, 5)))
    assert words(found)[2] == "singular_inputs"
    assert (found.rate_margin[0] >= -1e-9 * found.rate).all()


def test_measurements_have_the_bound_with_their_least_weight():
    rng = np.random.default_rng(7)
    A, y = rng.normal(size=(5, 3, 3)), rng.normal(size=5)
    v = rng.uniform(0.2, 2.0, size=5)
    entries = dl.losses.completion((3, 3), [0, 1, 2, 0], [0, 1, 2, 1], [1.0, 2.0, 3.0, 0.5], v[:4])
    twice = dl.losses.measurements(np.concatenate([A, A[:2]]), [*y, *(y[:2] + 1.0)])
    for loss, m in [
        (entries, v[:4].min()),
        (dl.losses.measurements(A, y, v), None),
        (twice, None),  # which no matrix meets: the excess is above what is irreducible
    ]:
        net = dl.LossNetwork((3, 6, 3), loss)
        layers = [2.0 * np.eye(6)[:, :3], 0.2 * rng.normal(size=(3, 6))]
        run = dl.flow(net, net.pack(layers), t_span=(0.0, 3.0), rtol=1e-10)
        found = dl.convergence_bounds(net, run)
        assert words(found) == ["proven", "proven", "no_margin", "proven"]
        excess = run.loss - loss.irreducible
        np.testing.assert_allclose(found.excess_loss, excess, rtol=1e-9, atol=1e-12)
        norms = np.sqrt(found.rate * found.excess_loss), np.sqrt(-run.loss_rate)
        size = np.linalg.norm(loss.targets) * np.linalg.norm(A) * abs(run.state).max()
        assert (abs(norms[0] - norms[1]) <= rounding(net.dim) * size).all()
        assert not (found.rate_margin < -1e-9 * found.rate).any()
        assert not (found.excess_loss > found.excess_bound * (1 + 1e-9)).any()
        if m is None:
            weights = np.ones(len(loss.targets)) if loss is twice else v
            rows = np.sqrt(weights)[:, None] * loss.operators.reshape(len(weights), -1)
            m = np.linalg.eigvalsh(rows.T @ rows)[-5]  # of rank five, both
        W1, W2 = layers
        exact = 2.0 * m * (least(W2, 3) ** 2 + least(W1, 3) ** 2)
        np.testing.assert_allclose(found.rate_bound[0, 0], exact, rtol=1e-10)
    narrow = dl.LossNetwork((3, 1, 3), entries)
    found = at(narrow, narrow.initial(rng=0))
    assert words(found) == ["bottleneck"] * 4
    assert np.isnan(found.rate).all()  # what is reached is not known


def test_the_square_loss_of_samples_and_of_all_entries_is_that_of_a_linear_network():
    rng = np.random.default_rng(8)
    X, Y = rng.normal(size=(2, 7)), rng.normal(size=(3, 7))
    net = dl.LinearNetwork.from_data(X, Y, hidden=(4,), whiten=False)
    power = dl.LossNetwork((2, 4, 3), dl.losses.power(X, Y, power=2.0))
    places = np.indices((3, 2)).reshape(2, -1)
    full = dl.LossNetwork((2, 4, 3), dl.losses.completion((3, 2), *places, net.target.ravel()))
    plain = dl.LinearNetwork((2, 4, 3), net.target)
    x = net.initial(scale=1.0, rng=0)
    for one, other in [(net, power), (plain, full)]:
        names = ["rate", "rate_bound", "excess_loss"]
        a, b = at(one, x)[names], at(other, x)[names]
        for name in names:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-11)


def test_the_square_loss_has_the_bounds_of_a_linear_network_under_decay_too():
    rng = np.random.default_rng(9)
    X = 2.0 * np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    Y = rng.normal(size=(3, 6))
    places = np.indices((3, 2)).reshape(2, -1)
    for loss, target, root in [
        (dl.losses.completion((3, 2), *places, Y[:, :2].ravel()), Y[:, :2], None),
        (dl.losses.power(X / 2.0, Y, power=2.0, normalize=False), Y @ X.T / 2.0, None),
        (dl.losses.power(X, Y, power=2.0, normalize=False), Y @ X.T / 2.0, 2.0 * np.eye(2)),
    ]:
        net = dl.LossNetwork((2, 4, 3), loss, weight_decay=0.1)
        plain = dl.LinearNetwork((2, 4, 3), target, root, weight_decay=0.1)
        run = dl.flow(net, net.initial(scale=1.0, rng=0), rtol=1e-10)
        found = dl.convergence_bounds(net, run)
        other = dl.convergence_bounds(plain, dl.flow(plain, run.state.values[0], rtol=1e-10))
        assert words(found) == words(other)
        if root is not None:  # of raw inputs neither is known
            assert words(found)[1] == "no_minimum"
            continue
        assert words(found)[1] == "proven"
        rounding_of_losses = rounding(net.dim) * float(run.loss[0])
        excess = plain.loss(run.state.values) - plain.lowest_loss
        assert abs(found.excess_loss - excess).max() <= rounding_of_losses
        assert float(found.asymptotic_rate) == pytest.approx(float(other.asymptotic_rate), rel=1e-9)
        assert float(net.loss(run.state.values[-1])) == pytest.approx(net.lowest_loss, rel=1e-12)
        assert not (found.excess_loss > found.excess_bound + found.excess_error).any()


def test_a_stack_of_runs_has_the_bounds_of_each():
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    starts = np.stack([net.initial(scale=1.0, rng=seed) for seed in range(3)])
    runs = dl.flow(net, starts, t_span=(0.0, 2.0))
    found = dl.convergence_bounds(net, runs)
    for sample in range(3):
        alone = dl.convergence_bounds(net, dl.flow(net, starts[sample], t_span=(0.0, 2.0)))
        part = found.isel(sample=sample)
        count = alone.sizes["time"]
        for name in ("rate", "rate_bound", "excess_bound", "excess_loss"):
            values = part[name].transpose(..., "step").values[..., :count]
            np.testing.assert_allclose(values, alone[name], rtol=1e-9)
        assert part.decision.values.tolist() == alone.decision.values.tolist()


def test_wrong_networks_and_runs_are_named():
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    run = dl.flow(net, net.initial(scale=1.0, rng=0), t_span=(0.0, 1.0))
    logistic = dl.LossNetwork((1, 2, 1), dl.losses.logistic([[1.0, -1.0]], [1, -1]))
    other = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 0.5]))
    for words, kind, system, data in [
        ("net: needs the square loss", ValueError, logistic, run),
        ("net: needs a network of layers", TypeError, dl.ProductFlow(net, rank=1), run),
        ("run: ", ValueError, other, run),
        ("run: has no states", ValueError, net, run.drop_vars("state")),
    ]:
        with pytest.raises(kind, match=f"^{words}"):
            dl.convergence_bounds(system, data)


DECAYED = [
    ((2, 2), [2.0, 1.2], 0.1),
    ((2, 2, 2), [2.0, 1.2], 0.1),
    ((2, 3, 2), [2.0, 1.2], 1.5),
    ((3, 2, 3), [2.0, 1.2, 0.7], 0.3),
    ((2, 3, 3, 2), [2.0, 1.2], 0.2),
    ((3, 4, 3, 4, 3), [2.0, 1.2, 1.1], 0.1),
    ((2, 2, 2, 2), [1.0, 0.5], 2.0),
]


def decayed(widths, sigma, decay):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    return dl.LinearNetwork(widths, target, weight_decay=decay)


def least_state(net):
    """The critical point of least loss of the table."""
    points = dl.critical_points(net)
    point = points.isel(critical_point=int(np.argmin(points.loss.values)))
    modes = np.flatnonzero(point.learnt.values).tolist()
    return net.critical_state(modes), float(point.loss)


def turned(net, x, rng):
    """The same with random turns of all hidden units."""
    turns = [np.linalg.qr(rng.normal(size=(d, d)))[0] for d in net.widths[1:-1]]
    before = [np.eye(net.widths[0]), *turns]
    after = [*turns, np.eye(net.widths[-1])]
    return net.pack([b @ w @ a.T for a, w, b in zip(before, net.unpack(x), after, strict=True)])


@pytest.mark.parametrize(("widths", "sigma", "decay"), DECAYED)
def test_near_a_decayed_minimum_the_inequality_holds_in_all_directions(widths, sigma, decay):
    """‖∇L‖² ≥ 2 (μ − K ρ)(L − L_min): of random moves of all sizes, and those of weak curvature."""
    net, rng = decayed(widths, sigma, decay), np.random.default_rng(0)
    x, least = least_state(net)
    orbit = net.decayed_minimum
    values, frame = np.linalg.eigh(net.hessian(x))
    zeros = np.abs(values) < 1e-9 * values.max()
    assert orbit.curvature == pytest.approx(values[~zeros].min(), rel=1e-9)
    seen = 0
    for size in (1e-3, 1e-2, 0.03, 0.1, 0.3):
        for k in range(40):
            way = rng.normal(size=net.dim) if k % 2 else frame[:, ~zeros][:, k // 2 % 3]
            y = turned(net, x + size * way / np.linalg.norm(way), rng)
            (rho,) = decayed_rates.distances(orbit, [w[None] for w in net.unpack(y)])
            assert rho <= size * (1.0 + 1e-3)  # not quite the nearest
            rate = float(decayed_rates.rate_within(orbit, np.array(rho)))
            excess = float(net.loss(y)) - least
            force = float(np.sum(net.gradient(y) ** 2))
            seen += rate > 0.0
            assert force >= rate * excess * (1.0 - 1e-6)
    assert seen >= 20


@pytest.mark.parametrize(("widths", "sigma", "decay"), DECAYED)
def test_decayed_runs_converge_at_least_as_fast_as_is_proven(widths, sigma, decay):
    net = decayed(widths, sigma, decay)
    run = dl.flow(net, net.initial(scale=1.5, rng=1), rtol=1e-10)
    found = dl.convergence_bounds(net, run)
    dl.schema.validate(found)
    assert words(found) == ["weight_decay", "proven", "weight_decay", "weight_decay"]
    _, least = least_state(net)
    np.testing.assert_allclose(found.excess_loss, run.loss - least, atol=1e-13)
    exact = found.excess_loss > 1e3 * found.excess_error  # so is the rate, to a thousandth
    ball = found.sel(bound="ball")
    assert np.isfinite(ball.rate_bound).any()
    assert not (ball.rate_margin.where(exact) < -1e-3 * found.rate).any()
    assert not (found.excess_loss > ball.excess_bound + found.excess_error).any()
    assert float(found.imbalance_change.max()) < 1e-8
    slowest = float(found.asymptotic_rate)
    assert 0.9 * slowest < float(ball.rate_bound.max()) <= slowest
    assert float(found.rate.where(exact).dropna("time")[-1]) > 0.99 * slowest
    ax = dl.plot.convergence(found)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["measured", "ball"]


def test_one_decayed_layer_has_its_rate_from_anywhere():
    """L is (1 + λ)/2 times the square of the distance."""
    net = decayed((3, 2), [2.0, 1.0], 0.5)
    found = dl.convergence_bounds(net, dl.flow(net, 10.0 * np.ones(6), (0.0, 3.0)))
    np.testing.assert_allclose(found.rate, 3.0, rtol=1e-6)
    np.testing.assert_allclose(found.rate_bound.sel(bound="ball"), 3.0, rtol=1e-9)


def test_what_is_not_proven_under_decay_is_said():
    x = np.linspace(-0.5, 0.6, 8)
    some = dl.LossNetwork((2, 2, 2), dl.losses.logistic(np.eye(2), np.eye(2) * 2 - 1), 0.1)
    several = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]), weight_decay=(0.1, 0.2))
    raw = dl.LinearNetwork((2, 2, 2), np.eye(2), np.diag([1.0, 2.0]), weight_decay=0.1)
    pitchfork = decayed((2, 2, 2), [2.0, 1.0], 1.0)
    for net, known in ((some, False), (several, True), (raw, False), (pitchfork, True)):
        found = dl.convergence_bounds(net, dl.flow(net, x, (0.0, 2.0)))
        dl.schema.validate(found)
        assert words(found) == ["weight_decay", "no_minimum", "weight_decay", "weight_decay"]
        assert np.isnan(found.rate_bound).all()
        assert np.isfinite(found.rate).all() == known
    deep = decayed((1, 1, 1, 1), [2.0], 0.8)  # the origin is a minimum, too, but a worse one
    found = dl.convergence_bounds(deep, dl.flow(deep, [0.3] * 3))
    assert words(found)[1] == "no_ball"
    steps = dl.iterate(dl.GradientDescent(deep, 0.01), [1.1] * 3, 50)
    assert words(dl.convergence_bounds(deep, steps))[1] == "no_flow"
    stack = dl.flow(deep, [[1.1] * 3, [0.3] * 3])
    assert words(dl.convergence_bounds(deep, stack))[0][1] == "proven"
    assert words(dl.convergence_bounds(deep, stack))[1][1] == "no_ball"


NARROW = [
    ((3, 2, 3), False),
    ((3, 2, 3), True),
    ((4, 1, 3), False),
    ((3, 2, 4, 3), True),
    ((4, 3, 2, 3, 4), False),
]


@pytest.mark.parametrize(("widths", "raw"), NARROW)
def test_near_a_minimum_at_a_bottleneck_the_inequality_holds_in_all_directions(widths, raw):
    """‖∇L‖² ≥ 2 (μ − 3 K ρ)(L − L_min), at minima of any balance."""
    rng = np.random.default_rng(0)
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, [3.0, 2.0, 0.7, 0.3])
    net = dl.LinearNetwork(widths, target, matrix(widths[0], widths[0], rng) if raw else None)
    x = naive.change_bases(net, net.critical_state(tuple(range(min(widths)))), 1, 0.2)
    near = net.unpack(x + 1e-3 * rng.normal(size=net.dim))
    found = rates.bottleneck_at(net.quadratic, near, lambda w: net.hessian(net.pack(w)))
    best = net.pack(found.layers)
    assert np.linalg.norm(best - x) < 0.1
    assert float(net.loss(best)) == pytest.approx(net.lowest_loss, rel=1e-12)
    values, frame = np.linalg.eigh(net.hessian(best))
    size, seen = np.abs(values).max(), 0
    free = net.dim - min(widths) * (widths[0] + widths[-1] - min(widths))
    assert np.abs(values[:free]).max() < 1e-9 * size
    assert found.curvature == pytest.approx(values[free], rel=1e-9)
    assert found.curvature > 1e-3 * size
    for rho in (1e-4, 1e-3, 3e-3, 1e-2, 0.03):
        rate = float(found.rate_within(np.array(rho)))
        seen += rate > 0.0
        for k in range(40):
            way = rng.normal(size=net.dim) if k % 2 else frame[:, free + k // 2 % 3]
            y = best + rho * way / np.linalg.norm(way)
            excess, force = float(net.loss(y)) - net.lowest_loss, np.sum(net.gradient(y) ** 2)
            assert force >= rate * excess * (1.0 - 1e-6)
    assert seen >= 1


@pytest.mark.parametrize("widths", [(3, 2, 3), (4, 1, 3), (3, 2, 4, 3)])
def test_runs_to_a_bottleneck_converge_at_least_as_fast_as_is_proven(widths):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, [3.0, 2.0, 0.7])
    net = dl.LinearNetwork(widths, target)
    run = dl.flow(net, net.initial(scale=0.7, rng=1), rtol=1e-10)
    found = dl.convergence_bounds(net, run)
    assert words(found) == ["bottleneck", "proven", "bottleneck", "bottleneck"]
    exact = found.excess_loss > 1e3 * found.excess_error  # so is the rate, to a thousandth
    ball = found.sel(bound="ball")
    assert not (ball.rate_margin.where(exact) < -1e-3 * found.rate).any()
    assert not (found.excess_loss > ball.excess_bound + found.excess_error).any()
    values = np.linalg.eigvalsh(net.hessian(run.state.values[-1]))
    slowest = values[values > 1e-6 * values.max()].min()
    assert float(ball.rate_bound.max()) == pytest.approx(2.0 * slowest, rel=1e-3)
    tied = dl.LinearNetwork((3, 2, 3), np.diag([3.0, 2.0, 2.0]))
    other = dl.flow(tied, tied.initial(scale=0.7, rng=1))
    assert words(dl.convergence_bounds(tied, other))[1] == "bottleneck"


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_a_run_of_one_row_is_bounded_by_its_excess(decay):
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]), weight_decay=decay)
    run = dl.flow(net, net.initial(scale=0.3, rng=0))
    for row in (run.isel(time=[0]), run.isel(time=[-1])):
        found = dl.convergence_bounds(net, row)
        bounded = found.excess_bound.values[np.isfinite(found.rate_bound.values)]
        np.testing.assert_array_equal(bounded, float(found.excess_loss[0]))
