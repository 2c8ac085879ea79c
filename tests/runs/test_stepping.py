"""The parts of a run under way, each alone."""

import naive
import numpy as np
import pytest

import dlnds as dl
from dlnds.runs.events import Watch
from dlnds.runs.recording import Recorder, Rows, observed
from dlnds.runs.stepping import GROWTH, Choice, Coordinates, cost_ratio


def decay(t, x, params, out):
    out[0] = -x[0]


def slope(t, x, params, out):
    out[0, 0] = -1.0


PLAIN, KNOWN = dl.System(decay, dim=1), dl.System(decay, jacobian=slope, dim=1)
LARGE = dl.System(decay, dim=400)  # of which no Jacobian is known


def rows_at(times, states):
    pairs = np.stack([times, np.zeros(len(times))], axis=1)
    return Rows.plain(pairs, np.array(states))


def test_coordinates_lead_back_to_where_a_run_was_started():
    net = naive.random_network((3, 4, 2), 0, "whitened")
    x = net.initial(scale=0.1, rng=0)
    place = Coordinates(net, x)
    np.testing.assert_allclose(place.lift(place.state[None])[0], x, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(place.embed(place.state[None])[0], place.state)
    assert place.system.loss(place.state) == pytest.approx(net.loss(x), rel=1e-13)


def test_coordinates_that_stay_are_asked_for_ever_more_rarely():
    net = naive.random_network((3, 4, 2), 0, "whitened")
    place = Coordinates(net, net.initial(scale=0.1, rng=0))
    before = place.bounds(place.state)
    assert place.better(place.state) is None
    np.testing.assert_allclose(place.bounds(place.state), GROWTH * before, rtol=1e-14)
    assert Coordinates(PLAIN, np.ones(1)).bounds(np.ones(1)).size == 0


def test_the_method_is_changed_only_where_it_may_be():
    assert Choice("dop853", endless=False).patience(KNOWN) == np.inf
    assert Choice("radau", endless=True).implicit
    assert Choice("auto", endless=False).patience(LARGE) == np.inf
    assert 0.0 < Choice("auto", endless=False).patience(PLAIN) < np.inf  # it is differenced
    assert Choice("auto", endless=False).patience(KNOWN) == 40.0 * cost_ratio(KNOWN)


@pytest.mark.parametrize("seed", [12, 16, 28, 40, 106, 143])
def test_a_single_step_that_seems_stiff_changes_no_method(seed):
    """With explicit steps alone there are fewer than must be left for implicit ones to pay.

    Rounding of small components looks like an eigenvalue of 5e2 now and then; the largest is 19.
    """
    net = dl.LinearNetwork(widths=(4, 4, 4, 4), target=np.diag([4.0, 3.0, 2.0, 1.0])).specialized()
    start = net.initial(scale=1e-2, rng=seed)
    auto, explicit = (
        dl.flow(net, start, (0, 400), np.linspace(0, 400, 200), rtol=1e-6, method=method)
        for method in ("auto", "dop853")
    )
    assert explicit.n_steps < Choice("auto", endless=False).patience(net)
    assert auto.n_jac == 0
    assert auto.n_rhs < explicit.n_rhs


def test_a_run_without_end_is_reluctant_to_change_to_implicit_steps():
    finite, endless = (Choice("auto", endless=e) for e in (False, True))
    finite.ask(KNOWN)
    assert finite.implicit
    assert finite.start_over()
    assert not finite.implicit
    for _ in range(7):
        endless.ask(KNOWN)
        assert not endless.implicit
    endless.ask(KNOWN)
    assert endless.implicit
    endless.ask(KNOWN)
    assert not endless.implicit


def test_events_are_found_in_the_order_in_which_they_happen():
    def level(value, direction=0):
        def event(t, x):
            return x[0] - value

        event.direction = direction
        return event

    watch = Watch([level(0.75), level(0.25), level(0.5, -1)], 0.0, np.zeros(1))
    found = watch.happened(1.0, np.ones(1), lambda parts: (parts, parts[:, None]))
    assert [(h.number, h.direction) for h in found] == [(1, 1), (0, 1)]
    np.testing.assert_allclose([h.part for h in found], [0.25, 0.75], rtol=1e-14)
    still = watch.happened(2.0, np.ones(1), lambda parts: (1.0 + parts, np.ones((parts.size, 1))))
    assert not still
    assert not watch.ends(0)


def test_rows_of_events_stand_after_others_of_their_time():
    rows = rows_at([0.0, 1.0, 2.0], [[0.0], [1.0], [2.0]]).with_event(1.0, np.array([7.0]), (3, 2))
    np.testing.assert_array_equal(rows.states[:, 0], [0.0, 1.0, 7.0, 2.0])
    np.testing.assert_array_equal(rows.events, [[-1, 0], [-1, 0], [3, 2], [-1, 0]])
    assert len(rows.until(1.0).times) == 3


def test_what_is_recorded_in_other_coordinates_is_what_the_system_observes():
    net, names = naive.random_network((3, 4, 2), 0, "whitened"), ("loss", "state", "mode_strength")
    x = net.initial(scale=0.1, rng=0)
    place = Coordinates(net, x)
    record = Recorder(net, place.frame, names, (0.0, x))
    for t in (0.0, 1.0):
        record.add(rows_at([t], [(1.0 + t) * place.state]))
        record.gather(place.lift, place.embed)
    assert record.last == 1.0
    found = record.variables()
    expected = observed(net, names, np.array([0.0, 1.0]), np.stack([x, 2.0 * x]))
    np.testing.assert_array_equal(found["state"][0], x)
    for name, variable in expected.items():
        assert found[name].dims == variable.dims
        np.testing.assert_allclose(found[name], variable, rtol=0, atol=1e-13)
