"""Langevin chains: their law at a temperature, the errors of their means, chains that blow up."""

import naive
import numpy as np
import pytest

import dlnds as dl
from dlnds.runs import sampling

NET = dl.LinearNetwork(widths=(2, 3, 2), target=np.diag([2.0, 1.0]))
LINE = dl.LinearNetwork(widths=(1, 1), target=[[1.0]])
HEAT = {"temperature": 0.01, "step_size": 0.05}
NOT_FINITE = dl.schema.STOP_REASONS.index("not_finite")


def test_a_chain_is_what_its_formula_says():
    x, start, rng = NET.initial(scale=0.5, rng=1), NET.initial(scale=0.4, rng=2), 3
    how = {"n_steps": 17, "burn_in": 3, "every": 2, "localization": 5.0, "center": x}
    chain = dl.sample(NET, start, **HEAT, **how, save=("state",), rng=rng)
    noise = np.random.default_rng(rng).spawn(1)[0]
    state, T, eta = start.copy(), HEAT["temperature"], HEAT["step_size"]
    states = []
    for _ in range(20):
        force = naive.field(NET, state) - 5.0 * T * (state - x)
        state = state + eta * force + np.sqrt(2 * eta * T) * noise.standard_normal(NET.dim)
        states.append(state)
    assert chain.iteration.values.tolist() == [5, 7, 9, 11, 13, 15, 17, 19]
    rows = np.array(states)[chain.iteration.values - 1]
    np.testing.assert_allclose(chain.state, rows, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(chain.loss, [naive.loss(NET, r) for r in rows], rtol=1e-11)
    np.testing.assert_allclose(chain.mean_loss, np.mean(chain.loss.values), rtol=1e-14)


def test_rows_do_not_depend_on_what_else_is_recorded():
    x = NET.initial(scale=0.5, rng=0)
    long = dl.sample(NET, x, **HEAT, n_steps=2 * sampling._PAUSE + 100, save=("state",), rng=0)
    short = dl.sample(NET, x, **HEAT, n_steps=sampling._PAUSE - 1, save=("state",), rng=0)
    rows = slice(short.sizes["iteration"])
    np.testing.assert_array_equal(long.state[rows], short.state)
    some = dl.sample(NET, x, **HEAT, n_steps=8000, burn_in=91, every=7, rng=0)
    np.testing.assert_array_equal(some.loss, long.loss.sel(iteration=some.iteration))
    assert int(some.iteration[0]) == 98


def test_no_number_depends_on_threads_or_on_the_other_chains():
    starts = np.stack([NET.initial(scale=0.5, rng=k) for k in range(4)])
    chains = [dl.sample(NET, starts, **HEAT, n_steps=300, rng=0, workers=w) for w in (1, 3)]
    assert chains[0].identical(chains[1])
    alone = dl.sample(NET, starts[0], **HEAT, n_steps=300, rng=0)
    for name in ("loss", "mean_loss", "standard_error", "effective_size"):
        np.testing.assert_array_equal(alone[name], chains[0][name][0])
    assert not np.array_equal(chains[0].loss[0], chains[0].loss[1])
    dl.schema.validate(chains[0])
    dl.schema.validate(alone)


def in_a_well(kappa, step, pull):
    """E[κ x²/2]/T of x ← (1 − η (κ + p)) x + √(2ηT) ξ in its stationary state."""
    a = kappa + pull
    return 0.5 * kappa * 2 * step / (1 - (1 - step * a) ** 2)


@pytest.mark.parametrize(("step", "localization"), [(0.02, 0.0), (0.3, 0.0), (0.3, 100.0)])
def test_a_single_layer_has_the_stationary_law_of_its_steps(step, localization):
    """Each weight w_ij is an autoregression with κ the eigenvalue of the input covariance."""
    X = np.array([[2.0, 0.0], [0.0, 1.0]])
    net = dl.LinearNetwork.from_data(X, np.eye(2), hidden=(), whiten=False, normalize=False)
    T, x = 1e-3, net.critical_state((0, 1))
    chain = dl.sample(
        net, x, temperature=T, step_size=step, n_steps=200_000, burn_in=2000,
        localization=localization, rng=0,
    )  # fmt: skip
    exact = 2 * sum(in_a_well(k, step, T * localization) for k in (4.0, 1.0))
    error = float(chain.standard_error) / T
    assert error < 0.02 * exact
    assert abs(float(chain.mean_loss) / T - exact) < 3.5 * error


def test_weight_decay_is_part_of_the_loss_that_is_sampled():
    decay, step, T = 0.5, 0.3, 0.01
    net = dl.LinearNetwork(widths=(2, 2), target=np.eye(2), weight_decay=decay)
    best = np.eye(2).ravel() / (1.0 + decay)
    chain = dl.sample(net, best, temperature=T, step_size=step, n_steps=100_000, rng=0)
    exact = 4 * in_a_well(1.0 + decay, step, 0.0)
    error = float(chain.standard_error) / T
    assert error < 0.02 * exact
    assert abs((float(chain.mean_loss) - float(net.loss(best))) / T - exact) < 3.5 * error


def test_effective_size_is_that_of_an_autoregression():
    """Squares of x ← φ x + ξ have the autocorrelations φ^{2k}: τ = (1 + φ²)/(1 − φ²)."""
    for step in (0.03, 0.3):
        phi, n = 1.0 - step, 400_000
        chain = dl.sample(LINE, [1.0], temperature=0.1, step_size=step, n_steps=n, rng=1)
        exact = n * (1 - phi**2) / (1 + phi**2)
        # Some 3 τ lags are summed, each of which errs by 1/√n.
        np.testing.assert_allclose(float(chain.effective_size), exact, rtol=0.1)


def test_independent_draws_count_each():
    values = np.random.default_rng(0).normal(size=100_000)
    assert 0.97 * len(values) < sampling.effective_size(values) <= len(values)
    assert sampling.effective_size(np.ones(10)) == 1.0


def test_means_err_as_their_standard_errors_say():
    count, step = 400, 0.1
    chains = dl.sample(
        LINE, np.ones((count, 1)), temperature=1.0, step_size=step, n_steps=4000, burn_in=200,
        rng=2, workers=2,
    )  # fmt: skip
    z = (chains.mean_loss.values - in_a_well(1.0, step, 0.0)) / chains.standard_error.values
    # 400 normal numbers: mean square 1 ± √(2/400), four of these; mean 0 ± 1/20.
    assert abs(np.mean(z**2) - 1.0) < 4 * np.sqrt(2 / count)
    assert abs(np.mean(z)) < 4 / np.sqrt(count)
    # Means of the 800 halves of 2000 rows have the variance τ/2000 in terms of that of rows.
    tau = (1 + (1 - step) ** 2) / (1 - (1 - step) ** 2)
    spread = (float(chains.r_hat) ** 2 - 1999 / 2000) * 2000 / tau
    assert abs(spread - 1.0) < 4 * np.sqrt(2 / (2 * count))


def test_chains_in_different_places_are_told():
    rng = np.random.default_rng(0)
    near = rng.normal(size=(4, 1000))
    assert abs(sampling.r_hat(near) - 1.0) < 0.01
    apart = near + np.array([[0.0], [0.0], [0.0], [3.0]])
    # Means of the halves 0 (six of them) and 3 (two): variance 9 · (2/8) (6/8) · 8/7.
    expected = np.sqrt(1.0 + 9.0 * 0.1875 * 8 / 7)
    np.testing.assert_allclose(sampling.r_hat(apart), expected, rtol=0.03)
    trend = np.linspace(0.0, 1.0, 1000)[None] + 0.01 * near[:1]
    assert sampling.r_hat(trend) > 2.0


def test_a_chain_that_blows_up_is_a_status():
    start = np.stack([0.1 * np.ones(NET.dim), 1e3 * np.ones(NET.dim)])
    chains = dl.sample(NET, start, **HEAT, n_steps=100, save=("state",), rng=0)
    assert chains.stop_reason.values.tolist() == [0, NOT_FINITE]
    loss = chains.loss.values
    gone = np.isnan(loss[1])
    assert gone.any()
    assert not gone[: int(np.argmax(gone))].any()
    assert gone[int(np.argmax(gone)) :].all()
    assert np.isfinite(loss[0]).all()
    assert np.isnan(chains.mean_loss[1])
    assert np.isnan(chains.standard_error[1])
    assert chains.effective_size[1] == 0.0
    assert np.isfinite([chains.mean_loss[0], chains.r_hat]).all()
    alone = dl.sample(NET, start[1], **HEAT, n_steps=100, rng=0)
    assert int(alone.stop_reason) == NOT_FINITE
    assert np.isnan(alone.r_hat)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"temperature": 0.0}, "temperature: needs a positive"),
     ({"step_size": -1.0}, "step_size: needs a positive"),
     ({"n_steps": 7}, "n_steps: needs 8 rows"),
     ({"n_steps": 80, "every": 11}, "n_steps: needs 8 rows"),
     ({"localization": -1.0}, "localization: needs"),
     ({"center": np.zeros(3)}, "center: needs"),
     ({"system": dl.GradientDescent(NET, 0.1)}, "system: needs the gradient flow"),
     ({"system": dl.ProductFlow(NET, rank=2)}, "system: needs the gradient flow")],
)  # fmt: skip
def test_what_is_no_chain_is_refused(change, message):
    call = {"system": NET, "start": np.ones(NET.dim), **HEAT, "n_steps": 20, "rng": 0} | change
    call["start"] = np.ones(call["system"].dim)
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        dl.sample(**call)


def test_two_units_at_zero_have_their_mean_loss():
    """L = ½ (w_1 w_2)², both normal with variance 1/γ: Z(β) = E_w (1 + β w²/γ)^{−½} by quadrature.

    λ = ½ and m = 2: (E L)/T is well below ½, by about 1/ln β.
    """
    net, T, gamma = dl.LinearNetwork(widths=(1, 1, 1), target=[[0.0]]), 0.02, 1.0
    w = np.linspace(-12.0, 12.0, 200_001)
    inner = 1.0 + w**2 / (T * gamma)
    weight = np.exp(-0.5 * gamma * w**2)
    exact = np.sum(weight * 0.5 * (1.0 - 1.0 / inner) / np.sqrt(inner))
    exact /= np.sum(weight / np.sqrt(inner))
    chains = dl.sample(
        net, np.zeros((4, 2)), temperature=T, step_size=0.02, n_steps=1_000_000, burn_in=20_000,
        every=10, localization=gamma, rng=0, workers=2,
    )  # fmt: skip
    error = float(np.sqrt(np.mean(chains.standard_error**2) / 4)) / T
    found = float(chains.mean_loss.mean()) / T
    assert error < 0.03
    assert exact < 0.4
    assert abs(found - exact) < 3 * error


#: Widths, rank of the target, whether at a random point of the fiber.
CASES = [
    ((3, 2), 2, False), ((2, 3, 2), 2, False), ((2, 2, 2, 2), 2, False), ((3, 2, 3), 3, False),
    ((2, 3, 3, 3, 2), 2, False), ((4, 4, 4), 3, True), ((1, 3, 1), 1, True),
    ((3, 1, 3), 2, False), ((2, 4, 2), 1, True), ((5, 3, 4), 3, True),
]  # fmt: skip


def check_estimate(widths, rank, moved, n_steps):
    """The estimate from a chain is the exact local coefficient within three standard errors.

    Steps are short enough, ηκ ≤ 0.005, that their part of the error, 1/(1 − ηκ/2), stays below a
    quarter of a per cent, less than one standard error.
    """
    sigma = np.zeros((widths[-1], widths[0]))
    sigma[np.arange(rank), np.arange(rank)] = 1.0 + 0.3 * np.arange(rank)[::-1]
    net, modes = dl.LinearNetwork(widths=widths, target=sigma), range(min(rank, *widths))
    x = dl.random_fiber_state(net, modes, rng=3) if moved else net.critical_state(modes)
    exact = dl.learning_coefficient(net, at=x)
    assert float(exact.lower_bound) == float(exact.learning_coefficient)
    largest = float(dl.linearize(net, x).eigenvalue.max())
    T = 1e-7
    chain = dl.sample(
        net, x, temperature=T, step_size=0.005 / largest, n_steps=n_steps, burn_in=20_000,
        localization=1000.0, every=5, rng=0,
    )  # fmt: skip
    value, error = float(exact.learning_coefficient), float(chain.standard_error) / T
    estimate = (float(chain.mean_loss) - net.lowest_loss) / T
    assert 0.0025 * value < error < 0.05 * value
    assert abs(estimate - value) < 3 * error, (widths, estimate, value, error)


@pytest.mark.parametrize(("widths", "rank", "moved"), CASES[1:4])
def test_the_estimated_learning_coefficient_is_the_exact_one(widths, rank, moved):
    check_estimate(widths, rank, moved, n_steps=300_000)


@pytest.mark.slow
@pytest.mark.parametrize(("widths", "rank", "moved"), CASES)
def test_the_estimated_learning_coefficients_of_ten_networks(widths, rank, moved):
    check_estimate(widths, rank, moved, n_steps=2_000_000)
