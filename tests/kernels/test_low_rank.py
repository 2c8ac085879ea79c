"""Steps that keep derivatives as factors: each is that of the method for any field."""

from types import SimpleNamespace

import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnds as dl
from dlnds._kernels import jit, low_rank, runge_kutta
from dlnds._kernels.runge_kutta import ACCEPTED
from dlnds.systems import network

EPS = np.finfo(float).eps
#: The same step of any field, without factors.
plain_step = jit.variant(
    low_rank.own_step, "plain_step", {"accepted_step": runge_kutta.accepted_step}
)
SHAPES = [(5, 4, 2), (3, 6, 5, 1), (1, 1, 1), (2, 7, 3, 4, 3), (9000, 2, 1), (130, 70, 3)]


def one_step(kernel, net, x, h, *, rtol=1e-6, unread=np.inf):
    """Take a step; return its code, its length, the clock, what it wrote."""
    tasks, clock = np.zeros(1, runge_kutta.TASK), runge_kutta.clock_at(0.0)
    tasks[0] = np.inf, rtol, 0.0, np.inf, 1000, 0, 0
    clock["step"] = h
    code, length, work, trial = naive.kernel_step(
        kernel, runge_kutta.NO_TABLES, net, x, tasks, clock, unread
    )
    return code, length, clock[0].copy(), work, trial


def both_steps(kernel, net, x, h, **options):
    """Take a step both ways; return what they wrote, and by how much that may differ."""
    code, length, clock, work, trial = one_step(kernel, net, x, h, **options)
    expected, same, other, plain, end = one_step(plain_step, net, x, h, **options)
    assert code == expected
    # an error of 1 is told to what rounding is of it
    np.testing.assert_allclose([length, clock["step"]], [same, other["step"]], rtol=1e-6)
    slopes = np.abs(plain.stages[[0, 11, 12]]).max()
    sums = 64.0 * max(net.widths) * EPS * max(1.0, np.abs(x).max()) ** net.depth
    bound = sums * (1.0 + slopes) + 1e-6 * (1.0 + length) * slopes * (length != same)
    for row in (11, 12):
        np.testing.assert_allclose(work.stages[row], plain.stages[row], rtol=0, atol=bound)
    moved = bound + 30.0 * same * bound  # the weights of a stage are at most 27.9
    np.testing.assert_allclose(trial.state, end.state, rtol=0, atol=moved)
    np.testing.assert_allclose(trial.last, end.last, rtol=0, atol=moved)
    return work, plain, moved


def problems(widths, kind, seed):
    net = naive.random_network(widths, seed, kind)
    return net, naive.state_of(net, seed + 1, 0.7 / np.sqrt(max(widths)))


@pytest.mark.parametrize("kind", naive.KINDS)
@pytest.mark.parametrize("widths", SHAPES)
def test_a_step_is_that_of_any_field(widths, kind):
    if max(widths) > 1000 and kind != "whitened":
        pytest.skip("a root of as many columns takes a gigabyte")
    net, x = problems(widths, kind, 0)
    both_steps(low_rank.own_step, net, x, 1e-3)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=6),
    st.sampled_from(naive.KINDS),
    st.sampled_from([1e-4, 1e-2, 1.0, 30.0]),
    naive.seeds,
)
def test_steps_of_random_networks(widths, kind, h, seed):
    """Whether they are accepted at once or shortened first."""
    net, x = problems(tuple(widths), kind, seed)
    both_steps(low_rank.own_step, net, x, h)


@pytest.mark.parametrize("loss", ["logistic", "cross entropy", "power", "completion"])
def test_steps_of_other_losses(loss):
    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(6, 20)), rng.integers(3, size=20)
    criterion = {
        "logistic": lambda: dl.losses.logistic(X, np.sign(rng.normal(size=(3, 20)))),
        "cross entropy": lambda: dl.losses.cross_entropy(X, labels),
        "power": lambda: dl.losses.power(X, rng.normal(size=(3, 20)), power=4),
        "completion": lambda: dl.losses.completion(
            (3, 6), [0, 1, 2, 2], [0, 3, 5, 1], rng.normal(size=4)
        ),
    }[loss]()
    net = dl.LossNetwork((6, 5, 4, 3), criterion)
    both_steps(low_rank.loss_own_step, net, naive.state_of(net, 1, 0.4), 1e-3)


def test_what_is_read_inside_a_step():
    """The dense output is that of all stages."""
    for widths in [(5, 4, 2), (3, 6, 5, 1)]:
        net, x = problems(widths, "whitened", 3)
        work, plain, moved = both_steps(low_rank.own_step, net, x, 0.02, unread=0.01)
        # its weights sum to 3,000 at most
        bound = 3e3 * moved
        np.testing.assert_allclose(work.coefficients, plain.coefficients, rtol=0, atol=bound)
        assert np.abs(plain.coefficients[3]).max() > 100.0 * bound


@pytest.mark.parametrize(("size", "scale"), [(1e-120, 1e-42), (1e-100, 1e-20), (1e100, 1e30)])
def test_the_scale_of_a_problem_decides_nothing(size, scale):
    """Where neither factors times factors nor long steps alone are numbers, the end is one.

    W in units of s, T ~ σ s, h ~ 1/(σ s): the changes of a step are s again.
    """
    net = dl.LinearNetwork((20, 8, 8, 3), size * np.eye(3, 20))
    x = naive.state_of(net, 0, scale)
    h = 0.01 / (size * scale + scale**4)
    code, length, _, _, trial = one_step(low_rank.own_step, net, x, h)
    plain, same, _, _, end = one_step(plain_step, net, x, h)
    assert code == plain == ACCEPTED
    np.testing.assert_allclose(length, same, rtol=1e-6)
    assert np.abs(end.state - x).max() > 1e-3 * scale
    if length == same:
        np.testing.assert_allclose(trial.state, end.state, rtol=0, atol=1e-13 * scale)


def test_a_step_beyond_all_numbers_is_shortened():
    net, x = problems((5, 4, 2), "whitened", 0)
    code, h, *_ = one_step(low_rank.own_step, net, x, 1e30)
    assert code == ACCEPTED
    assert 0.0 < h < 10.0


def lapse(t, x, params, out):
    """Field x' = −x, which is no number when it is asked for the thirteenth time."""
    params[1][-1] += 1.0
    out[:] = -x
    if params[1][-1] == 13.0:
        out[:] = np.nan


def test_a_step_that_ends_where_the_field_is_no_number_is_shortened():
    """Only one of the three errors has a weight for the derivative at the end."""
    net, x = problems((5, 4, 2), "whitened", 0)
    sizes, floats = net.params
    system = SimpleNamespace(
        params=(sizes, np.append(floats, 0.0)),
        field=numba.njit(lapse),
        numerics=net.numerics,
    )
    code, h, *_ = one_step(plain_step, system, x, 1e-3)
    assert code == ACCEPTED
    np.testing.assert_allclose(h, 1e-3 * runge_kutta.SLOWEST)


# Runs that make such steps.


def take_all(monkeypatch):
    monkeypatch.setattr(network, "MANY_WEIGHTS", 0)
    monkeypatch.setattr(network, "IN_FACTORS", 0)


@pytest.fixture
def always(monkeypatch):
    """Make all networks with more inputs than outputs take them."""
    take_all(monkeypatch)


def few_outputs(seed=0, **options):
    rng = np.random.default_rng(seed)
    return dl.LinearNetwork(widths=(8, 6, 6, 2), target=rng.normal(size=(2, 8)), **options)


def test_who_takes_them(monkeypatch):
    rng = np.random.default_rng(0)

    def takes(net):
        return net.numerics.own_step is not None

    assert not takes(few_outputs())
    assert takes(dl.LinearNetwork(widths=(784, 100, 10), target=rng.normal(size=(10, 784))))
    assert not takes(dl.LinearNetwork(widths=(300, 300, 32), target=rng.normal(size=(32, 300))))
    for narrow in ((9000, 8, 10), (70000, 1, 10)):
        target = np.zeros((10, narrow[0]))
        assert not takes(dl.LinearNetwork(widths=narrow, target=target))
    take_all(monkeypatch)
    loss = dl.losses.logistic(rng.normal(size=(8, 30)), np.sign(rng.normal(size=30)))
    assert takes(few_outputs())
    assert takes(dl.LossNetwork((8, 6, 1), loss))
    assert not takes(few_outputs(weight_decay=0.1))
    assert not takes(few_outputs().specialized())
    assert not takes(dl.LinearNetwork(widths=(8, 2), target=np.ones((2, 8))))
    assert not takes(dl.LinearNetwork(widths=(2, 6, 8), target=np.ones((8, 2))))
    assert not takes(dl.ProductFlow(few_outputs(), rank=2))


@pytest.mark.parametrize("times", [None, 7, 200])
@pytest.mark.parametrize("scale", [0.3, 1e-3])
def test_runs_are_those_of_any_field(scale, times, monkeypatch):
    net = few_outputs()
    x = net.initial(scale=scale, rng=1)
    end = 8.0 if scale > 0.1 else 30.0  # later the loss is rounding, and steps what that makes them
    grid = None if times is None else np.linspace(0.0, end, times)
    options = {"t_span": (0.0, end), "t_eval": grid, "rtol": 1e-9, "save": ["state"]}
    plain = dl.flow(net, x, **options)
    take_all(monkeypatch)
    run = dl.flow(few_outputs(), x, **options)
    assert int(run.stop_reason) == int(plain.stop_reason)
    assert abs(run.attrs["n_steps"] - plain.attrs["n_steps"]) <= 1 + 0.01 * plain.attrs["n_steps"]
    if times:
        # what errors of 1e-9 in each step grow to while a mode is learnt, from weights of `scale`
        bound = 1e-9 * plain.attrs["n_steps"] / scale
        np.testing.assert_allclose(run.state, plain.state, rtol=0, atol=bound)


def test_laws_of_a_run(always):
    """The C_i stay, the loss falls, and a run without end comes to its minimum."""
    net = few_outputs()
    run = dl.flow(net, net.initial(scale=0.2, rng=0), save=["imbalance"])
    decoded = run.dlnds.decode
    assert decoded("stop_reason").item() == "limit_reached"
    assert decoded("limit_kind").item() == "global_minimum"
    drift = abs(run.imbalance - run.imbalance[0]).max()
    assert drift < 1e-7
    assert np.diff(run.loss).max() <= 1e-8 * run.loss.values[0]


def test_stacks_and_events(always):
    """Members of a stack are what they are alone; events are found inside steps."""
    net = few_outputs()
    starts = np.stack([net.initial(scale=0.3, rng=seed) for seed in range(3)])
    grid = np.linspace(0.0, 5.0, 6)
    stack = dl.flow(net, starts, (0.0, 5.0), grid, save=["state"])
    for k, x in enumerate(starts):
        alone = dl.flow(net, x, (0.0, 5.0), grid, save=["state"])
        np.testing.assert_array_equal(stack.state[k], alone.state)
    half = 0.5 * net.loss(starts[0])
    run = dl.flow(net, starts[0], (0.0, 5.0), events=dl.events.loss_below(net, half))
    (found,) = run.loss.values[run["event"].values == 0]
    np.testing.assert_allclose(found, half, rtol=1e-6)
