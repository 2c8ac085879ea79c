"""Plateaus: implicit steps, coordinates that suit the state, limits, events."""

import itertools

import naive
import numba
import numpy as np
import pytest
import scipy.integrate
from scipy.integrate import solve_ivp

import dlnds as dl
from dlnds._kernels import balance, implicit, jit
from dlnds.runs import stepping

#: Up to which the loss may rise at depth 1, and depth² as far at others: where the largest
#: mode is learnt each layer may err by rtol, and W so by depth · rtol · σ.
RISE = 0.5 * (1e-6 * 3.0) ** 2


def ladder(depth, width=3):
    return dl.LinearNetwork(widths=(width,) * (depth + 1), target=np.diag([3.0, 2.0, 1.0]))


def reason(run, name="stop_reason"):
    return run.dlnds.decode(name).item()


def orthogonal(n, rng):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


# The tableau, as algebra.


def test_radau_tableau_meets_its_order_conditions():
    c, A, s = implicit.NODES, implicit.INTEGRALS, implicit.STAGES
    for k in range(1, s + 1):  # C(s)
        np.testing.assert_allclose(A @ c ** (k - 1), c**k / k, rtol=1e-13, atol=1e-16)
    for k in range(1, 2 * s):  # B(2s − 1), with weights the last row
        assert A[-1] @ c ** (k - 1) == pytest.approx(1.0 / k, rel=1e-12)
    assert abs(A[-1] @ c ** (2 * s - 1) - 1.0 / (2 * s)) > 1e-7
    assert c[-1] == 1.0


def test_radau_decouples_into_real_and_complex_systems():
    A = implicit.INTEGRALS
    again = (implicit.OUT_OF * implicit.SHIFTS) @ implicit.INTO
    np.testing.assert_allclose(again.real, A, atol=1e-13)
    np.testing.assert_allclose((implicit.OUT_OF @ implicit.INTO).real, np.eye(len(A)), atol=1e-12)


def test_embedded_radau_is_of_order_s():
    """Its quadrature, with a weight at the start, is exact for degrees below s, not for s."""
    c, A, s = implicit.NODES, implicit.INTEGRALS, implicit.STAGES
    weights = implicit.EMBEDDED @ A + A[-1]
    for k in range(1, s + 2):
        start = implicit.REAL_SHIFT if k == 1 else 0.0
        error = weights @ c ** (k - 1) + start - 1.0 / k
        assert (abs(error) < 1e-12) == (k <= s)


def test_the_point_between_stages_shares_the_factors_of_the_step():
    """There ω = μ ω′ for ω(θ) = θ Π (θ − c_i), and degrees up to s are given exactly."""
    c, s, point = implicit.NODES, implicit.STAGES, implicit.BETWEEN
    values, slopes = implicit.BETWEEN_WEIGHTS
    for k in range(1, s + 1):
        assert values @ c**k == pytest.approx(point**k, rel=1e-12)
        assert slopes @ c**k == pytest.approx(k * point ** (k - 1), rel=1e-12)
    logarithmic = 1.0 / point + np.sum(1.0 / (point - c))
    assert 1.0 / logarithmic == pytest.approx(implicit.REAL_SHIFT, rel=1e-10)
    part = np.linspace(0.0, 1.0, 20_001)
    omega = np.abs(part * np.prod(part[:, None] - c, axis=1)).max()
    there = point * np.prod(point - c) / implicit.REAL_SHIFT
    assert pytest.approx(omega / there, rel=1e-6) == implicit.BETWEEN_SIZE


def test_radau_is_stable_where_it_must_be_and_damps():
    A, s = implicit.INTEGRALS, implicit.STAGES

    def growth(z):
        return 1.0 + z * A[-1] @ np.linalg.solve(np.eye(s) - z * A, np.ones(s))

    for z in [1e-3j, 1j, 30j, -1.0 + 4j, -1e3 + 1e3j]:
        assert abs(growth(z)) <= 1.0 + 1e-13
    assert abs(growth(-1e6)) < 1e-5
    assert growth(-1.0) == pytest.approx(np.exp(-1.0), rel=1e-7)


# Implicit steps on systems with known or independent solutions.


def test_implicit_and_explicit_runs_agree():
    net = naive.random_network((3, 4, 2, 3), 0)
    x = net.initial(scale=0.3, rng=0)
    t = np.linspace(0.0, 5.0, 11)
    runs = [dl.flow(net, x, (0, 5), t, method=m, rtol=1e-11) for m in ("dop853", "radau")]
    np.testing.assert_allclose(runs[1].state, runs[0].state, atol=1e-8)
    assert runs[0].n_jac == 0 < runs[1].n_jac


@pytest.mark.compiled
@pytest.mark.parametrize("method", ["radau", "auto"])
def test_stiff_oscillator_agrees_with_scipy(method):
    mu = 1e3

    def field(t, x, params, out):
        out[0] = x[1]
        out[1] = params[1][0] * (1.0 - x[0] ** 2) * x[1] - x[0]

    def jacobian(t, x, params, out):
        out[0, 0], out[0, 1] = 0.0, 1.0
        out[1, 0] = -2.0 * params[1][0] * x[0] * x[1] - 1.0
        out[1, 1] = params[1][0] * (1.0 - x[0] ** 2)

    system = dl.System(field, jacobian=jacobian, dim=2, parameters=[mu])
    grid = np.linspace(0.0, 2000.0, 9)
    run = dl.flow(system, [2.0, 0.0], (0, 2000), grid, method=method, rtol=1e-8)
    expected = solve_ivp(
        lambda t, x: [x[1], mu * (1 - x[0] ** 2) * x[1] - x[0]],
        (0, 2000), [2.0, 0.0], "Radau", grid, rtol=1e-10, atol=1e-10,
    ).y.T  # fmt: skip
    np.testing.assert_allclose(run.state[:, 0], expected[:, 0], atol=2e-5)
    assert run.n_jac > 0
    assert run.n_steps < 2000


def test_large_systems_are_solved_without_a_matrix(monkeypatch):
    net = naive.random_network((4, 5, 4), 1)
    x = net.initial(scale=0.2, rng=0)
    t = np.array([0.5, 3.0, 200.0])
    dense = dl.flow(net, x, (0, 200), t, method="radau", rtol=1e-9)
    monkeypatch.setattr(stepping, "DENSE_LIMIT", 5)
    free = dl.flow(net, x, (0, 200), t, method="radau", rtol=1e-9)
    np.testing.assert_allclose(free.state, dense.state, atol=1e-6)
    assert free.n_jac == 0 < dense.n_jac
    assert free.n_rhs > dense.n_rhs


@pytest.mark.compiled
def test_auto_changes_to_implicit_steps_and_back():
    """Between the plateaus of a start that is not tiny steps are explicit."""
    net = ladder(4)
    run = dl.flow(net, net.initial(scale=1e-2, rng=1), rtol=1e-8)
    assert reason(run) == "limit_reached"
    assert 0 < run.n_jac < run.n_steps


@numba.njit
def solve(M, pivots, right):
    """Factorize and substitute, which nothing but compiled code can call."""
    regular = implicit.factorize(M, pivots)
    implicit.substitute(M, pivots, right)
    return regular


def test_a_singular_factor_is_the_rounding_of_a_direction_at_rest():
    M = 1e20 * np.ones((3, 3), complex)
    M += np.eye(3)
    right = np.array([1.0, 1.0, 1.0], complex)
    assert solve(M, np.empty(3, np.int64), right)
    np.testing.assert_allclose(right.sum(), 1e-20, rtol=1e-10)
    assert np.abs(right).max() < 1e-3


# Plateaus.


@pytest.mark.compiled
@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_escapes_from_tiny_aligned_starts_keep_the_exact_law(depth):
    counts = []
    for scale in (1e-3, 1e-6, 1e-9, 1e-12):
        net = ladder(depth)
        run = dl.flow(
            net, net.initial("aligned", scale=scale), rtol=1e-6, save=["state", "conserved"]
        )
        assert (reason(run), run.limit) == ("limit_reached", "{0,1,2}")
        visits = dl.saddle_visits(net, run)
        law = visits.predicted_escape_time[:-1]
        np.testing.assert_allclose(visits.escape_time[:-1], law, rtol=2e-6)
        assert np.diff(run.loss).max() <= RISE * depth**2
        assert np.abs(run.conserved - run.conserved[0]).max() <= 1e-9
        counts.append(run.n_steps)
    assert counts[-1] < 900
    # Like log 1/ε: about the same for each factor 1e3, but for which methods cross which plateaus.
    # With a power of ε the last would be all of it, which is three times the mean.
    growth = np.diff(counts)
    assert growth.max() < 2.0 * growth.mean() + 20


@pytest.mark.compiled
@pytest.mark.parametrize("scale", [1e-2, 1e-5, 1e-8, 1e-12])
@pytest.mark.parametrize("widths", [(3, 4, 3, 3), (3, 3, 4, 3, 3), (3, 4, 3, 3, 5, 3)])
def test_gaussian_starts_learn_one_mode_after_the_other(widths, scale):
    """Every run ends at the global minimum, in steps like log 1/ε, at times like ε^{−(h−2)}."""
    rng = np.random.default_rng(0)
    target = orthogonal(3, rng) @ np.diag([3.0, 2.0, 1.0]) @ orthogonal(3, rng)
    net = dl.LinearNetwork(widths=widths, target=target)
    start, depth = net.initial(rng=1, scale=1.0), len(widths) - 1
    run = dl.flow(net, scale * start, rtol=1e-6, save=["mode_strength", "conserved"])
    assert (reason(run), reason(run, "limit_kind")) == ("limit_reached", "global_minimum")
    assert reason(run, "limit_decision") == "small_residual"
    assert run.n_steps < 900
    assert np.diff(run.loss).max() <= RISE * depth**2
    assert np.abs(run.conserved - run.conserved[0]).max() <= 1e-9 * 5.0
    other = dl.flow(net, 0.1 * scale * start, rtol=1e-6, save=["mode_strength"])
    first = [float(r.time[(r.mode_strength.values[:, 0] > 1.5).argmax()]) for r in (run, other)]
    assert first[1] / first[0] == pytest.approx(10.0 ** (depth - 2), rel=20 * scale + 0.05)


@pytest.mark.compiled
def test_tolerance_rules_the_escape_from_a_gaussian_start():
    net = dl.LinearNetwork(widths=(3, 4, 5, 3, 3), target=np.diag([3.0, 2.0, 1.0]))
    event = [dl.events.mode_learnt(net, j) for j in range(3)]
    x = net.initial(scale=1e-7, rng=3)
    times = []
    for rtol in (1e-5, 1e-7, 1e-10):
        run = dl.flow(net, x, rtol=rtol, events=event, save=[])
        times.append([float(run.time[run.event == j][0]) for j in range(3)])
    coarse, fine, finest = np.array(times)
    assert np.abs(fine / finest - 1).max() < 1e-6
    assert np.abs(coarse / finest - 1).max() < 1e-3


@pytest.mark.compiled
def test_raw_inputs_pass_their_plateaus():
    net = naive.random_network((3, 3, 3, 3), 4, "full")
    run = dl.flow(net, net.initial(scale=1e-3, rng=0), rtol=1e-7)
    assert (reason(run), reason(run, "limit_kind")) == ("limit_reached", "global_minimum")
    assert np.diff(run.loss).max() <= 1e-12 * (1.0 + float(run.loss[0]))


def test_units_whose_squares_underflow_do_not_stop_a_run():
    """At 1e-170 a unit has no size to the machine, but it has weights and forces."""
    net = dl.LinearNetwork(widths=(2, 3, 2), target=np.diag([2.0, 1.0]))
    layers = net.unpack(net.initial("aligned", scale=0.1))
    layers[0][2, 0] = layers[1][0, 2] = 1e-170
    for method in ("dop853", "radau"):
        run = dl.flow(net, net.pack(layers), (0, 3), method=method)
        assert reason(run) == "end_reached"
        growth = run.state.values[-1, [4, 8]] / 1e-170  # as that of the strong unit, by exp ∫ R
        strong = run.state.values[-1, 0] / 0.1
        np.testing.assert_allclose(growth, strong, rtol=1e-3)


# Limits.


@pytest.mark.compiled
def test_a_start_on_a_stable_manifold_ends_at_its_saddle():
    """An aligned mode without weights never gets any."""
    net = ladder(4)
    run = dl.flow(net, net.initial("aligned", scale=[0.1, 0.0, 1e-3]))
    assert (reason(run), run.limit) == ("limit_reached", "{0,2}")
    assert (reason(run, "limit_kind"), reason(run, "limit_decision")) == ("saddle", "no_force")
    assert run.loss.values[-1] == pytest.approx(2.0, rel=1e-10)


def test_a_stable_ray_decays_algebraically_to_its_saddle():
    """Sign product −1 at h = 3: a(t) ~ 1/(σ t), until no force is left."""
    net = dl.LinearNetwork(widths=(1, 1, 1, 1), target=[[3.0]])
    run = dl.flow(net, [0.5, 0.5, -0.5])
    assert (reason(run), run.limit, reason(run, "limit_kind")) == ("limit_reached", "{}", "saddle")
    late = run.isel(time=run.time.values > 1e4)
    np.testing.assert_allclose(late.state[:, 0] * 3.0 * late.time, 1.0, rtol=1e-3)


def test_an_infinite_run_by_explicit_steps_is_refused():
    net = ladder(3)
    with pytest.raises(ValueError, match="^t_span: an explicit method"):
        dl.flow(net, net.initial(rng=0), method="dop853")


@pytest.mark.parametrize("kind", naive.KINDS)
@pytest.mark.parametrize("widths", [(3, 4, 2, 3), (2, 5), (4, 1, 3), (2, 3, 3, 3, 4)])
def test_working_basis_is_an_orthogonal_change_that_commutes_with_the_flow(widths, kind):
    net = naive.random_network(widths, 3, kind)
    x = naive.state_of(net, 0, 0.7)
    basis = net.numerics.working_basis(x)
    np.testing.assert_allclose(basis.lift(basis.state[None])[0], x, atol=1e-13)
    np.testing.assert_allclose(np.linalg.norm(basis.state), np.linalg.norm(x), rtol=1e-13)
    turned = basis.lift(-basis.system.gradient(basis.state)[None])[0]
    np.testing.assert_allclose(turned, -net.gradient(x), atol=1e-11 * (1 + np.abs(turned).max()))
    again = basis.system.numerics.working_basis(basis.state)
    if again is not None:
        np.testing.assert_allclose(np.abs(again.state), np.abs(basis.state), atol=1e-10)


def test_principal_axes_of_units_of_very_different_sizes_keep_the_small_ones():
    """Rotating hidden units sorts them by size; tiny weights keep all their digits."""
    rng = np.random.default_rng(0)
    net = dl.LinearNetwork(widths=(3, 3, 3), target=np.diag([3.0, 2.0, 1.0]))
    tiny = [1e-11 * rng.normal(size=(3, 3)) for _ in range(2)]
    exact = [w.copy() for w in tiny]
    tiny[0][0, 0] = tiny[1][0, 0] = np.sqrt(3.0)
    basis = net.numerics.working_basis(net.pack(tiny))
    first, second = basis.system.unpack(basis.state)
    small = second[1:, 1:] @ first[1:, 1:]
    np.testing.assert_allclose(small, exact[1][1:, 1:] @ exact[0][1:, 1:], rtol=1e-9)
    assert np.abs(first[1:, 0] + second[0, 1:]).max() < 1e-20


def test_what_has_been_learnt_rests_while_the_others_flow():
    net = ladder(3)
    state = net.critical_state((0,)) + net.initial("aligned", scale=[0.0, 1e-3, 1e-4])
    part = net.numerics.deflate(state, 1e-8)
    assert part is not None
    assert part.system.widths == (2, 2, 2, 2)
    assert part.system.singular_values.tolist() == [2.0, 1.0]
    np.testing.assert_allclose(part.lift(part.state[None])[0], state, atol=1e-15)
    rate = np.zeros((1, net.dim))
    rate[0] = part.lift(part.state[None] - part.system.gradient(part.state)[None])[0] - state
    np.testing.assert_allclose(rate[0], -net.gradient(state), atol=1e-15)
    coupled = state.copy()
    coupled[1] = 1e-6
    assert net.numerics.deflate(coupled, 1e-8) is None
    assert net.numerics.deflate(net.initial(rng=0), 1e-8) is None


@pytest.mark.parametrize("widths", [(3, 4, 2, 3), (2, 3, 5), (4, 1, 3, 3, 2), (30, 16, 12, 5)])
def test_restoring_the_invariants_leaves_the_end_to_end_map(widths):
    net = naive.random_network(widths, 2)
    x = naive.state_of(net, 0, 0.7)
    rng = np.random.default_rng(1)
    moved = x + 1e-6 * rng.normal(size=net.dim)
    reference = net.conserved(x)
    before, product = moved.copy(), net.product(moved)
    assert jit.ready(balance.restore, jit.RESTORE)(moved, net.params, reference, 0.0, True)
    drift = np.abs(net.conserved(moved) - reference).max()
    assert drift < 0.2 * np.abs(net.conserved(before) - reference).max()
    np.testing.assert_allclose(net.product(moved), product, atol=1e-10)
    assert np.linalg.norm(moved - before) < 2e-6 * np.sqrt(net.dim)


@pytest.mark.parametrize(
    ("size", "rtol", "thorough", "mended"),
    [
        *((1e-12, 1e-8, True, False), (1e-10, 1e-8, True, True), (1e-10, 1e-6, True, False)),
        *((1e-10, 1e-8, False, False), (1e-8, 1e-8, False, True), (1e-8, 1e-4, False, False)),
    ],
)
def test_wide_layers_are_restored_from_more_between_looks(size, rtol, thorough, mended):
    net = naive.random_network((30, 16, 12, 5), 2)
    x = naive.state_of(net, 0, 0.7)
    reference = net.conserved(x)
    moved = x * (1.0 + size)  # so that each C_i changes by 2 size C_i
    first, second, _ = net.unpack(x)
    into, out_of = (first**2).sum(axis=1), (second**2).sum(axis=0)
    drift = 2.0 * size * np.max(np.abs(into - out_of) / (into + out_of))
    assert 0.2 * size < drift < 2.0 * size
    restore = jit.ready(balance.restore, jit.RESTORE)
    assert restore(moved, net.params, reference, rtol, thorough) == mended
    assert np.array_equal(moved, x * (1.0 + size)) != mended
    kept = x.copy()
    assert not jit.ready(balance.restore, jit.RESTORE)(kept, net.params, reference, 0.0, True)
    np.testing.assert_array_equal(kept, x)


@pytest.mark.parametrize("rtol", [1e-4, 1e-7, 1e-8])
@pytest.mark.parametrize("widths", [(20, 200, 20), (7, 100, 5, 30, 6), (4, 100, 11)])
def test_units_that_carry_nothing_do_not_spoil_what_is_conserved(widths, rtol):
    """Hidden units outnumber what inputs and outputs span: many moves change no C_i."""
    rng = np.random.default_rng(7)
    target = rng.normal(size=(widths[-1], widths[0]))
    net = dl.LinearNetwork(widths=widths, target=3.0 * target / np.linalg.norm(target, 2))
    for seed in (1, 42, 66):
        start = net.initial(scale=0.1, rng=seed)
        end = dl.flow(net, start, (0, 100), [0, 100], rtol=rtol).state.values[-1]
        before, after = net.unpack(start), net.unpack(end)
        for (first, second), (into, out_of) in zip(
            itertools.pairwise(before), itertools.pairwise(after), strict=True
        ):
            change = into @ into.T - out_of.T @ out_of - (first @ first.T - second.T @ second)
            size = np.sqrt((into**2).sum(axis=1) + (out_of**2).sum(axis=0))
            # Diagonals are looked at after each step, all entries after each eighth.
            assert np.abs(np.diag(change) / size**2).max() <= max(1e-9, 1e-3 * rtol)
            assert np.abs(change / np.outer(size, size)).max() <= 4.0 * max(1e-9, 1e-3 * rtol)


def test_errors_are_judged_by_the_units_that_a_weight_joins():
    net = naive.random_network((2, 3, 4), 0)
    layers = [np.arange(1.0, 7.0).reshape(3, 2), np.arange(1.0, 13.0).reshape(4, 3)]
    out = np.empty(net.dim)
    jit.ready(net.numerics.error_scale, jit.FIELD)(0.0, net.pack(layers), net.params, out)
    inputs = np.sqrt((layers[0] ** 2).mean(axis=0))
    hidden = np.sqrt(((layers[0] ** 2).sum(axis=1) + (layers[1] ** 2).sum(axis=0)) / 6.0)
    outputs = np.sqrt((layers[1] ** 2).mean(axis=1))
    expected = [np.sqrt(np.outer(*pair)) for pair in ((hidden, inputs), (outputs, hidden))]
    np.testing.assert_allclose(out, net.pack(expected), rtol=1e-14)


# Events.


def circle():
    def field(t, x, params, out):
        out[0], out[1] = -x[1], x[0]

    def jacobian(t, x, params, out):
        out[0, 0], out[0, 1], out[1, 0], out[1, 1] = 0.0, -1.0, 1.0, 0.0

    return dl.System(field, jacobian=jacobian, dim=2)


@pytest.mark.parametrize("method", ["dop853", "radau"])
def test_events_are_located_and_are_rows(method):
    """On the circle x = cos t falls through zero at π/2 and rises at 3π/2."""

    def falls(t, x):
        return x[0]

    def rises(t, x):
        return x[0]

    falls.direction, rises.direction = -1, 1
    run = dl.flow(
        circle(), [1.0, 0.0], (0, 7), [1.0, 5.0], method=method, rtol=1e-11, events=[falls, rises]
    )
    assert run.attrs["events"] == "falls rises"
    np.testing.assert_allclose(run.time, [1.0, np.pi / 2, 3 * np.pi / 2, 5.0, 7.0], rtol=1e-8)
    assert run.event.values.tolist() == [-1, 0, 1, -1, -1]
    np.testing.assert_allclose(run.state[1], [0.0, 1.0], atol=1e-8)


def test_a_terminal_event_ends_the_run():
    def height(t, x):
        return x[1] - 0.5

    height.terminal = True
    run = dl.flow(circle(), [1.0, 0.0], (0, 7), rtol=1e-10, events=height)
    assert reason(run) == "event"
    assert float(run.time[-1]) == pytest.approx(np.pi / 6, rel=1e-8)
    assert int(run.event[-1]) == 0
    assert (np.diff(run.time) > 0).all()


def test_members_of_a_stack_have_their_own_events():
    net = ladder(2)
    starts = np.stack([net.initial("aligned", scale=s) for s in (1e-2, 1e-4)])
    learnt = dl.events.mode_learnt(net, 0, terminal=True)
    runs = dl.flow(net, starts, (0, 50), [1.0], events=learnt)
    assert runs.dlnds.decode("stop_reason").values.tolist() == ["event", "event"]
    for scale, member in zip((1e-2, 1e-4), range(2), strict=True):
        last = np.nanmax(runs.time[member])
        assert last == pytest.approx(np.log((3 - scale**2) / scale**2) / 6, rel=1e-6)


@pytest.mark.compiled
def test_events_of_a_plateau_agree_with_the_visits():
    net = ladder(3)
    x = net.initial("aligned", scale=1e-4)
    events = [dl.events.mode_learnt(net, 1), dl.events.loss_below(net, 0.6)]
    events.append(dl.events.near_saddle(net, (0,), direction="falling"))
    events.append(dl.events.near_saddle(net, (0,), direction="rising"))
    run = dl.flow(net, x, events=events)
    visit = dl.saddle_visits(net, run, radius=0.05 * (1 + 1e-7)).isel(visit=1)
    times = [float(run.time[run.event == j][0]) for j in range(4)]
    assert visit.entry == pytest.approx(times[2], rel=1e-12)
    assert visit.exit == pytest.approx(times[3], rel=1e-12)
    assert visit.entry + visit.escape_time == pytest.approx(times[0], rel=1e-7)
    row = int(np.flatnonzero(run.event == 1)[0])
    assert float(run.loss[row]) == pytest.approx(0.6, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("events", lambda net: dl.flow(net, net.initial(rng=0), (0, 1), events=[3])),
        ("level", lambda net: dl.events.loss_below(net, 0.0)),
        ("mode", lambda net: dl.events.mode_learnt(net, 7)),
        ("fraction", lambda net: dl.events.mode_learnt(net, 0, fraction=1.5)),
        ("modes", lambda net: dl.events.near_saddle(net, (0, 0))),
        ("direction", lambda net: dl.events.near_saddle(net, (0,), direction="up")),
        ("net", lambda net: dl.events.loss_below(circle(), 1.0)),
    ],
)
def test_bad_events_are_named(name, call):
    with pytest.raises((ValueError, TypeError), match=f"^{name}"):
        call(ladder(2))


def test_the_rate_of_the_loss_is_minus_the_squared_gradient():
    net = ladder(2)
    run = dl.flow(net, net.initial(scale=0.3, rng=0), (0, 3), np.linspace(0, 3, 3001), rtol=1e-10)
    np.testing.assert_allclose(run.loss_rate, -(net.gradient(run.state) ** 2).sum(axis=1))
    drop = scipy.integrate.simpson(run.loss_rate, x=run.time)
    assert drop == pytest.approx(float(run.loss[-1] - run.loss[0]), rel=1e-9)


def test_a_run_with_a_single_event_is_stored_as_it_is(tmp_path):
    def falls(t, x):
        return x[0]

    run = dl.flow(circle(), [1.0, 0.0], (0, 3), events=falls)
    dl.save(run, tmp_path / "run.nc")
    assert dl.load(tmp_path / "run.nc").identical(run)
