"""Saddles along runs."""

import naive
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings

import dlnds as dl
from dlnds.exact import growth_time


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_aligned_runs_visit_the_generic_path_for_the_times_of_the_law(depth):
    net = dl.LinearNetwork(widths=(3,) * (depth + 1), target=np.diag([4.0, 2.0, 1.0]))
    x = net.initial("aligned", scale=1e-4 if depth == 2 else 10.0 ** (-4 / depth))
    grid = np.linspace(0.0, {2: 20.0, 3: 40.0, 4: 60.0}[depth], 8001)
    for run in (dl.flow(net, x, (0, grid[-1]), grid), dl.exact_flow(net, x, grid)):
        visits = dl.saddle_visits(net, run, radius=0.02)
        dl.schema.validate(visits)
        assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
        assert visits.next_mode.values.tolist() == [0, 1, 2, -1]
        assert np.isnan(visits.escape_time.values[-1])
        np.testing.assert_allclose(
            visits.escape_time[:3], visits.predicted_escape_time[:3], rtol=2e-3 / depth
        )
        assert (visits.closest <= 0.02).all()
        assert (visits.entry.values[1:] > visits.exit.values[:-1]).all()
        np.testing.assert_allclose(visits.duration, visits.exit - visits.entry, rtol=1e-12)


def test_gaussian_runs_of_real_data_pass_the_saddles_of_the_leading_modes():
    net = dl.load_problem("linnerud", hidden=(6, 6))
    run = dl.flow(net, net.initial(scale=1e-2, rng=0), save=("product",))
    visits = dl.saddle_visits(net, run)
    assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
    assert visits.exit.values[-1] == run.time.values[-1]
    assert (visits.duration > 0).all()


def test_the_origin_is_one_visit_without_end():
    net = naive.random_network((2, 2, 2, 2), 0)
    visits = dl.saddle_visits(net, dl.flow(net, np.zeros(12), (0, 1)))
    assert visits.critical_point.values.tolist() == ["{}"]
    assert visits["closest"].item() == 0.0


@settings(max_examples=15)
@given(naive.networks, naive.seeds)
def test_visits_lie_within_the_run_and_do_not_overlap(net, seed):
    run = dl.flow(net, naive.state_of(net, seed, 0.3), (0, 3))
    visits = dl.saddle_visits(net, run, radius=0.2)
    assert (visits.exit >= visits.entry).all()
    assert (visits.entry.values[1:] > visits.exit.values[:-1]).all()
    if visits.sizes["visit"]:
        assert visits.entry.values[0] >= 0.0
        assert visits.exit.values[-1] <= 3.0


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_growth_time_is_the_law(depth):
    if depth == 1:
        assert growth_time(0.5, 1.0, 2.0, 1) == pytest.approx(np.log(1.5))
    else:
        expected = naive.time_between(1e-3, 1.0, 2.0, depth)
        assert growth_time(1e-3, 1.0, 2.0, depth) == pytest.approx(expected, rel=1e-10)
    assert np.isnan(growth_time(-1e-3, 1.0, 2.0, depth))
    assert np.isnan(growth_time(0.0, 1.0, 2.0, depth))


def test_bad_input_is_refused():
    net, other = naive.random_network((2, 3, 2), 0), naive.random_network((2, 3, 2), 1)
    run = dl.flow(net, naive.state_of(net, 0), (0, 1))
    for name, call in [
        ("net", lambda: dl.saddle_visits(3, run)),
        ("run", lambda: dl.saddle_visits(net, xr.Dataset())),
        ("run", lambda: dl.saddle_visits(other, run)),
        ("run", lambda: dl.saddle_visits(net, run.drop_vars("state"))),
        (
            "run",
            lambda: dl.saddle_visits(
                net, dl.iterate(dl.GradientDescent(net, 0.1), run.state[0], 3)
            ),
        ),
        ("radius", lambda: dl.saddle_visits(net, run, radius=-1.0)),
        ("radios", lambda: dl.saddle_visits(net, run, radios=0.1)),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
            call()


def test_visits_can_be_saved(tmp_path):
    net = naive.random_network((2, 3, 2), 0)
    visits = dl.saddle_visits(net, dl.flow(net, net.initial(scale=0.01, rng=0)))
    dl.save(visits, tmp_path / "visits.nc")
    assert dl.load(tmp_path / "visits.nc").identical(visits)


def test_modes_below_the_rounding_of_the_map_are_followed_by_their_strength():
    """With a dense target W rounds off what is not learnt yet, 1e-24 at h = 3 and 1e-8."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=left @ np.diag([3.0, 2.0, 1.0]) @ right)
    start = net.initial("aligned", scale=1e-8)
    run = dl.flow(net, start, rtol=1e-6, save=["product", "mode_strength"])
    visits = dl.saddle_visits(net, run)
    assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}", "{0,1,2}"]
    law = visits.predicted_escape_time[:-1]
    np.testing.assert_allclose(visits.escape_time[:-1], law, rtol=1e-5)
