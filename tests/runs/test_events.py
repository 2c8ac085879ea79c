"""Zeros of events along runs: all are found, each once, with what the event does there."""

import functools
import itertools

import numpy as np
import pytest

import dlnds as dl


@functools.cache
def straight():
    """x = t."""

    def field(t, x, params, out):
        out[0] = 1.0

    return dl.System(field, dim=1)


def found(run):
    """Return times and words of the events of a run."""
    rows = run.event.values >= 0
    words = dl.schema.decode(run.event_kind).values[rows]
    return run.time.values[rows], words.tolist()


def random_zeros(rng, end, nodes):
    """Return zeros in (0, end) with their orders: alone, in clusters, on nodes, at both ends."""
    zeros = [*rng.uniform(0.0, end, rng.integers(0, 5))]
    if rng.random() < 0.5:
        middle, gap = rng.uniform(0.1, 0.9) * end, end * 10.0 ** rng.uniform(-6.0, -1.0)
        zeros += [middle + k * gap for k in range(rng.integers(2, 5))]
    if len(nodes) and rng.random() < 0.4:
        zeros += [*rng.choice(nodes, min(2, len(nodes)), replace=False)]
    zeros = sorted({float(z) for z in zeros if 0.0 <= z <= end}) or [0.5 * end]
    apart = [zeros[0]]
    for z in zeros[1:]:
        if z - apart[-1] > 9e-7 * end:
            apart.append(z)
    lone = np.diff(apart, prepend=-end, append=2.0 * end)
    lone = np.minimum(lone[1:], lone[:-1]) > 0.01 * end
    orders = [int(rng.integers(1, 4)) if alone and rng.random() < 0.3 else 1 for alone in lone]
    return apart, orders


def random_event(rng, zeros, orders, end, of_state):
    """Return a function of t, or of x = t, with these zeros, and its sign before the first."""
    sign, a, b = rng.choice([-1.0, 1.0]), rng.uniform(0.0, 3.0), rng.uniform(-1.0, 2.0)
    size = 10.0 ** rng.uniform(-200.0, 200.0)

    def event(t, x):
        s = x[0] if of_state else t
        product = sign * size * (1.0 + a * (s / end - b) ** 2)
        for zero, order in zip(zeros, orders, strict=True):
            product *= ((s - zero) / end) ** order
        return product

    return event


def expected(event, zeros, orders, end, direction):
    """Return the zeros with what the event does there, by its values between them."""
    edges = [2.0 * zeros[0] - end, *zeros, 2.0 * end + zeros[-1]]
    between = [0.5 * (p + q) for p, q in itertools.pairwise(edges)]
    signs = [np.sign(event(t, [t])) for t in between]
    rows = []
    for zero, before, after in zip(zeros, signs, signs[1:], strict=False):
        turn = 0.5 * (after - before)
        if zero == 0.0:  # as the run leaves it
            turn = after
        if zero == end:  # as the run comes to it
            turn = -before
        if direction == 0 or turn == direction:
            rows.append((zero, {1: "rising", -1: "falling", 0: "touching"}[int(turn)]))
    return rows


def check_random_event(seed):
    rng = np.random.default_rng(seed)
    end = 10.0 ** rng.uniform(-4.0, 4.0) if rng.random() < 0.7 else float(rng.integers(1, 9))
    plain = dl.flow(straight(), [0.0], (0.0, end))
    nodes = plain.time.values
    of_state = rng.random() < 0.5  # which is t up to rounding only
    zeros, orders = random_zeros(rng, end, [] if of_state else nodes)
    event = random_event(rng, zeros, orders, end, of_state)
    event.direction = int(rng.choice([-1, 0, 1]))
    event.terminal = bool(rng.random() < 0.2)
    rows = expected(event, zeros, orders, end, event.direction)
    run = dl.flow(straight(), [0.0], (0.0, end), events=event)
    times, words = found(run)
    if event.terminal and rows:
        rows = rows[:1]
        assert dl.schema.decode(run.stop_reason).item() == "event"
        assert run.time[-1] == times[-1]
    assert run.attrs["n_unresolved"] == 0
    assert words == [word for _, word in rows], f"seed {seed}"
    # A zero of order m is where the rounding of the function begins: its m-th root.
    far = [1e-14 if word != "touching" else 2e-7 for word in words]
    exact = np.array([zero for zero, _ in rows])
    assert (np.abs(times - exact) <= np.array(far) * end + 4e-16 * np.abs(exact)).all(), seed


def test_random_events_are_all_found():
    for seed in range(30):
        check_random_event(seed)


@pytest.mark.slow
def test_ten_thousand_random_events_are_all_found():
    for seed in range(10_000):
        check_random_event(seed)


@functools.cache
def circle():
    """(cos t, sin t)."""

    def field(t, x, params, out):
        out[0], out[1] = -x[1], x[0]

    def jacobian(t, x, params, out):
        out[0, 0], out[0, 1], out[1, 0], out[1, 1] = 0.0, -1.0, 1.0, 0.0

    return dl.System(field, jacobian=jacobian, dim=2)


def test_several_zeros_in_one_step_are_all_found():
    run = dl.flow(straight(), [-1.0], (0, 7), events=lambda t, x: (2.5 - x[0]) * (5 - x[0]) * -x[0])
    times, words = found(run)
    np.testing.assert_allclose(times, [1.0, 3.5, 6.0], rtol=1e-14)
    assert words == ["falling", "rising", "falling"]


@pytest.mark.parametrize("method", ["dop853", "radau"])
def test_random_events_along_a_circle_are_all_found(method):
    """Π (cos t − c_i) has the zeros ±arccos c_i + 2πk, and changes its sign at each."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        cosines = np.cos(np.sort(rng.uniform(0.3, 2.8, 4)) + 1e-3 * np.arange(4))
        run = dl.flow(
            *(circle(), [1.0, 0.0], (0, 20)),
            **{"method": method, "rtol": 1e-11, "save": []},
            events=lambda t, x, c=cosines: float(np.prod(x[0] - c)),
        )
        turns = 2.0 * np.pi * np.arange(4)[:, None]
        exact = np.concatenate([turns + np.arccos(cosines), turns - np.arccos(cosines)], axis=None)
        exact = np.sort(exact[(exact > 0.0) & (exact < 20.0)])
        times, words = found(run)
        np.testing.assert_allclose(times, exact, atol=1e-8)
        assert words == [("falling", "rising")[k % 2] for k in range(len(words))]


@pytest.mark.parametrize("rtol", [1e-5, 1e-8, 1e-11])
def test_a_zero_that_is_touched_is_told_or_is_two(rtol):
    """sin t − 1 is zero at π/2 alone; what the run makes of it is off by its accuracy."""
    run = dl.flow(circle(), [1.0, 0.0], (0, 4), rtol=rtol, events=lambda t, x: x[1] - 1.0)
    times, words = found(run)
    assert words in (["touching"], ["rising", "falling"])
    np.testing.assert_allclose(times, np.pi / 2, atol=10.0 * np.sqrt(rtol))

    def above(t, x):
        return x[1] - (1.0 + 100.0 * rtol)

    assert found(dl.flow(circle(), [1.0, 0.0], (0, 4), rtol=rtol, events=above))[1] == []


def test_directed_events_are_no_touched_zeros():
    def event(t, x):
        return (t - 2.0) ** 2 * (t - 3.0)

    for direction, words in ((0, ["touching", "rising"]), (1, ["rising"]), (-1, [])):
        event.direction = direction
        assert found(dl.flow(straight(), [0.0], (0, 4), events=event))[1] == words


@pytest.mark.parametrize("degree", [2, 3, 4, 5])
def test_a_multiple_zero_of_a_rounded_polynomial_is_one_zero(degree):
    """(t − 2)^m, multiplied out, is noise up to about the m-th root of its rounding."""
    polynomial = np.poly([2.0] * degree)
    run = dl.flow(straight(), [0.0], (0, 6), events=lambda t, x: np.polyval(polynomial, t))
    times, words = found(run)
    assert words == ["touching" if degree % 2 == 0 else "rising"]
    assert abs(times[0] - 2.0) <= 2.0 * (1e-16 * 4.0**degree) ** (1.0 / degree)


@pytest.mark.parametrize(
    ("event", "times", "words"),
    [
        (lambda t, x: t - 2.0, [2.0], ["rising"]),
        (lambda t, x: abs(t - 2.1), [2.1], ["touching"]),
        (lambda t, x: abs(t - 2.1) - 1e-5, [2.1 - 1e-5, 2.1 + 1e-5], ["falling", "rising"]),
        (lambda t, x: abs(t - 2.1) + 1e-3, [], []),
        (lambda t, x: 1.0 if t > 2.1 else -1.0, [2.1], ["rising"]),
        (lambda t, x: 1.0 if t > 2.1 else 2.0, [], []),
        (lambda t, x: max(0.0, t - 1.5), [1.5], ["rising"]),
        (lambda t, x: max(0.0, 1.5 - t), [1.5], ["falling"]),
        (lambda t, x: 0.0, [], []),
        (lambda t, x: t, [0.0], ["rising"]),
        (lambda t, x: t - 4.0, [4.0], ["rising"]),
        (lambda t, x: (t - 4.0) ** 2, [4.0], ["falling"]),
        (lambda t, x: np.log(t) if t else -np.inf, [1.0], ["rising"]),
        (lambda t, x: np.nan if t > 3.0 else t - 1.0, [1.0], ["rising"]),
    ],
)
def test_events_with_corners_and_at_the_ends(event, times, words):
    got, said = found(dl.flow(straight(), [0.0], (0, 4), events=event))
    assert said == words
    np.testing.assert_allclose(got, times, rtol=3e-8)


def test_events_faster_than_the_steps_are_followed_or_told():
    run = dl.flow(straight(), [0.0], (0, 1000), events=lambda t, x: np.sin(t))
    np.testing.assert_allclose(found(run)[0], np.pi * np.arange(319), atol=1e-12)
    rng = np.random.default_rng(0)
    noise = dl.flow(straight(), [0.0], (0, 1e-6), events=lambda t, x: rng.normal())
    assert noise.attrs["n_unresolved"] >= 1
    assert run.attrs["n_unresolved"] == 0


def test_a_terminal_event_at_the_last_time_ends_the_run():
    def event(t, x):
        return t - 4.0

    event.terminal = True
    run = dl.flow(straight(), [0.0], (0, 4), events=event)
    assert dl.schema.decode(run.stop_reason).item() == "event"
    assert found(run)[0].tolist() == [4.0]


def test_events_of_a_network_are_those_of_its_states():
    """An event of this package, and the same as a function of one state."""
    net = dl.LinearNetwork(widths=(2, 3, 2), target=np.diag([2.0, 1.0]))
    ours = [dl.events.loss_below(net, 0.4), dl.events.mode_learnt(net, 1)]
    ours.append(dl.events.near_saddle(net, (0,)))
    plain = [lambda t, x, e=event: e(t, x) for event in ours]
    for event, copy in zip(ours, plain, strict=True):
        copy.direction = event.direction
    x = net.initial(scale=1e-2, rng=0)
    runs = [dl.flow(net, x, events=events) for events in (ours, plain)]
    assert (runs[0].event.values >= 0).sum() == 4
    np.testing.assert_array_equal(runs[0].event, runs[1].event)
    np.testing.assert_allclose(runs[0].time, runs[1].time, rtol=1e-12)


@pytest.mark.parametrize("width", [0.2, 0.3, 0.5])
def test_a_bump_of_a_fiftieth_of_a_step_is_seen(width):
    """Of x' = 1 steps are up to ten long; the event is constant but for a bump through zero."""
    system = dl.System(constant_speed, dim=1)
    half = width * np.sqrt(np.log(2.0))
    for centre in np.random.default_rng(0).uniform(2.0, 18.0, 12):

        def bump(t, x, centre=centre):
            return 0.5 - np.exp(-(((x[0] - centre) / width) ** 2))

        run = dl.flow(system, [0.0], (0, 20), events=bump)
        assert float(np.diff(run.time[run.event < 0]).max()) > 8.0
        found = run.time[run.event == 0].values
        np.testing.assert_allclose(found, centre + np.array([-half, half]), rtol=0, atol=1e-9)
        assert run.n_unresolved == 0


def constant_speed(t, x, params, out):
    out[0] = 1.0


def test_a_corner_away_from_zero_takes_few_samples():
    """It is looked at down to a sixty-fourth of its step, and no further."""
    calls = []

    def corner(t, x):
        calls.append(t)
        return 1.0 + abs(x[0] - np.pi)

    run = dl.flow(dl.System(constant_speed, dim=1), [0.0], (0, 20), events=corner)
    assert not (run.event >= 0).any()
    assert len(calls) <= 16 * run.n_steps + 1 + 7 * 31


@pytest.mark.parametrize("of_state", [False, True])
def test_a_double_zero_at_the_start_is_one(of_state):
    """1 − cos t is the rounding of one up to 1e-8 or so."""
    for begin in (0.0, -1.0):
        run = dl.flow(
            *(straight(), [begin], (begin, 6.5)),
            events=lambda t, x: 1.0 - np.cos(x[0] if of_state else t),
        )
        np.testing.assert_allclose(found(run)[0], [0.0, 2.0 * np.pi], atol=3e-8)
    times, words = found(dl.flow(circle(), [1.0, 0.0], (0, 6.5), events=lambda t, x: 1.0 - x[0]))
    np.testing.assert_allclose(times, [0.0, 2.0 * np.pi], atol=1e-3)
    assert len(words) == 2


@pytest.mark.parametrize("rtol", [1e-6, 1e-8, 1e-10, 1e-12])
def test_a_double_zero_that_the_run_splits_is_one(rtol):
    """sin t − 1 has three in (0, 6π)."""
    run = dl.flow(circle(), [1.0, 0.0], (0, 18.8), rtol=rtol, events=lambda t, x: x[1] - 1.0)
    exact = np.pi * np.array([0.5, 2.5, 4.5])
    np.testing.assert_allclose(found(run)[0], exact, atol=10.0 * np.sqrt(rtol))


@pytest.mark.parametrize("rtol", [1e-5, 1e-6, 1e-8, 1e-10, 1e-12, 1e-13])
def test_an_implicit_run_finds_each_double_zero_once(rtol):
    """Inside its steps it errs by 0.1 rtol^0.6, and by the root of that a zero may be split."""
    words = {"method": "radau", "rtol": rtol, "events": lambda t, x: 4.0 - x[1] ** 2}
    times, said = found(dl.flow(circle(), [2.0, 0.0], (0, 18.8), **words))
    assert said == ["touching"] * 6
    far = 3.0 * np.sqrt(0.1 * rtol**0.6)
    np.testing.assert_allclose(times, np.pi * (np.arange(6) + 0.5), rtol=0, atol=far)


@pytest.mark.parametrize("method", ["dop853", "radau"])
@pytest.mark.parametrize("direction", [-1, 1])
@pytest.mark.parametrize(
    ("start", "end", "event"),
    [([2.0, 0.0], 18.8, lambda t, x: 4.0 - x[1] ** 2), ([0.0, 1.0], 6.2, lambda t, x: 1.0 - x[0])],
)
def test_no_double_zero_is_split_for_a_directed_event(method, direction, start, end, event):
    def directed(t, x):
        return event(t, x)

    directed.direction = direction
    for rtol in (1e-6, 1e-8, 1e-10):
        run = dl.flow(circle(), start, (0, end), method=method, rtol=rtol, events=directed)
        assert found(run)[1] == []


def decay(t, x, params, out):
    """x' = −x."""
    out[0] = -x[0]


@pytest.mark.parametrize("method", ["dop853", "radau"])
@pytest.mark.parametrize("direction", [-1, 0, 1])
@pytest.mark.parametrize("end", [37.5, 100.0, 340.0])
@pytest.mark.parametrize(
    "event",
    [
        lambda t, x: (1.0 + x[0]) - 1.0,
        lambda t, x: (0.01 * x[0] - 3.0) + 3.0,
        lambda t, x: 1.0 - np.exp(-x[0]),
        lambda t, x: np.log1p(x[0]),
    ],
)
def test_what_decays_is_zero_by_rounding_and_has_no_zero(method, direction, end, event):
    """All are positive functions of x = e^{−t}; from t = 37 on 1 + x is 1."""

    def directed(t, x):
        return event(t, x)

    directed.direction = direction
    run = dl.flow(dl.System(decay, dim=1), [1.0], (0, end), method=method, events=directed)
    assert found(run)[1] == []


@pytest.mark.parametrize("method", ["dop853", "radau"])
@pytest.mark.parametrize("level", [1e-6, 1e-12, 1e-15, 1e-100])
def test_what_decays_has_its_zeros_however_small_it_is(method, level):
    """x = level at −log level, to the accuracy of all steps; a rounded event to its rounding."""

    def plain(t, x):
        return x[0] - level

    events, turns = [plain], [-np.log(level)]
    if level > 1e-14:
        events.append(lambda t, x: (1.0 + x[0]) - (1.0 + level))
        turns.append(-np.log((1.0 + level) - 1.0))
    run = dl.flow(dl.System(decay, dim=1), [1.0], (0, 300), method=method, events=events)
    for number, turn in enumerate(turns):
        (time,) = run.time.values[run.event.values == number]
        assert abs(time - turn) <= 2e-16 / level * number + 2e-6


@pytest.mark.parametrize("power", [1, 4, 8])
def test_what_comes_to_rest_at_zero_is_zero_there(power):
    for begin in (0.0, 1.5 - 1e-3):
        run = dl.flow(
            straight(), [begin], (begin, 4.0), events=lambda t, x: max(0.0, 1.5 - x[0]) ** power
        )
        times, words = found(run)
        np.testing.assert_allclose(times, [1.5], rtol=1e-13)
        assert words == ["falling"]


@pytest.mark.parametrize(
    ("event", "zeros"),
    [
        (lambda t, x: 1.0 / (x[0] - 3.3) - 1.0, [4.3]),
        (lambda t, x: np.tan(t) - 1.0, np.pi * np.array([0.25, 1.25, 2.25])),
        (lambda t, x: np.sign(x[0] - 3.3) * abs(x[0] - 3.3) ** -0.5 - 1.0, [4.3]),
        (lambda t, x: (2.0 - t) * np.sign(t - 3.3), [2.0, 3.3]),
    ],
)
def test_a_pole_is_no_zero_and_a_jump_is_one(event, zeros):
    with np.errstate(divide="ignore"):
        run = dl.flow(straight(), [0.0], (0, 9), events=event)
    np.testing.assert_allclose(found(run)[0], zeros, rtol=1e-12)


def test_what_tends_to_zero_up_to_rounding_is_at_it_once_at_most():
    """x' = x (1 − x) comes to one like e^{−t}, and is its rounding from t = 40 on."""

    def logistic(t, x, params, out):
        out[0] = x[0] * (1.0 - x[0])

    for direction in (-1, 0, 1):

        def event(t, x):
            return 1.0 - x[0]

        event.direction = direction
        run = dl.flow(dl.System(logistic, dim=1), [0.01], (0, 100), events=event)
        assert len(found(run)[0]) <= (direction <= 0)


@pytest.mark.parametrize("method", ["dop853", "radau", "auto"])
def test_a_zero_at_the_last_time_is_not_lost_by_rounding(method):
    run = dl.flow(straight(), [0.0], (0, 10), method=method, events=lambda t, x: x[0] - 10.0)
    assert found(run) == ([10.0], ["rising"])
    above = dl.flow(straight(), [0.0], (0, 10), method=method, events=lambda t, x: x[0] - 10.001)
    assert found(above)[1] == []


def test_a_zero_with_slope_zero_at_the_start_is_at_the_start():
    """cos t − 1 is rounding up to t = 1e-8, and leaves 0 downwards; sin³ t does upwards."""
    for event, word in ((lambda t, x: x[0] - 1.0, "falling"), (lambda t, x: x[1] ** 3, "rising")):
        run = dl.flow(circle(), [1.0, 0.0], (0.0, 2.0), events=event)
        assert found(run) == ([0.0], [word])


@pytest.mark.parametrize("method", ["dop853", "radau"])
@pytest.mark.parametrize("terminal", [False, True])
def test_events_are_among_all_saved_times_of_long_steps(method, terminal):
    net = dl.LinearNetwork((1, 1, 1), [[2.0]])
    event = dl.events.mode_learnt(net, 0, terminal=terminal)
    times = np.linspace(0.0, 6.0, 6001)
    start = net.initial("aligned", scale=1e-2)
    run = dl.flow(net, start, (0.0, 6.0), t_eval=times, events=event, method=method)
    at = np.flatnonzero(run.event.values == 0)
    assert at.size == 1
    assert (np.diff(run.time.values) > 0.0).all()
    expected = times[times < run.time.values[at[0]]] if terminal else times
    np.testing.assert_array_equal(np.delete(run.time.values, at), expected)
