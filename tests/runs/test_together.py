"""Stacks of runs: each member is what it is alone, whatever it is with."""

import numpy as np
import pytest

import dlnds as dl

GRID = np.linspace(0.0, 30.0, 31)
RNG = np.random.default_rng(5)
INPUTS = RNG.normal(size=(3, 20))

SYSTEMS = {
    "diagonal": dl.LinearNetwork((3, 3, 3, 3), np.diag([3.0, 2.0, 1.0])),
    "straight": dl.LinearNetwork((3, 3, 3, 3), np.diag([3.0, 2.0, 1.0])).specialized(),
    "unequal": dl.LinearNetwork((3, 5, 2), RNG.normal(size=(2, 3))),
    "raw": dl.LinearNetwork.from_data(INPUTS, RNG.normal(size=(2, 20)), hidden=(4, 3)),
    "product": dl.ProductFlow(dl.LinearNetwork((3, 4, 3), RNG.normal(size=(3, 3))), rank=2),
    "rectified": dl.HomogeneousNetwork((3, 4, 1), INPUTS, RNG.normal(size=(1, 20))),
}


def check_members(system, starts, names, **options):
    """The runs of a stack are, number for number, those of its members."""
    stack = dl.flow(system, starts, save=names, **options)
    for k, start in enumerate(starts):
        alone, member = dl.flow(system, start, save=names, **options), stack.isel(sample=k)
        for name in ("time", *names):
            values = member[name].values[: alone.sizes["time"]]
            np.testing.assert_array_equal(values, alone[name].values, err_msg=name)
        for name in ("n_steps", "n_rhs", "n_jac", "stop_reason"):
            assert int(member[name]) == int(alone[name] if name in alone else alone.attrs[name])
        assert member.limit.item() == alone.limit
    return stack


@pytest.mark.parametrize("scale", [0.5, 1e-2, 1e-5])
@pytest.mark.parametrize("name", SYSTEMS)
def test_members_are_what_they_are_alone(name, scale):
    system = SYSTEMS[name]
    starts = np.stack([system.initial(scale=scale, rng=k) for k in range(6)])
    names = ["state", "loss"]
    if name not in ("rectified", "product"):
        names += ["singular_value", "mode_strength", "conserved", "gradient_norm"]
    check_members(system, starts, names, t_span=(0, 30), t_eval=GRID, method="dop853")
    check_members(system, starts, names, t_span=(0, 30), t_eval=GRID[:-3])
    check_members(system, starts, names, t_span=(0, 30))


def test_members_that_pause_for_different_reasons_are_together():
    """One needs implicit steps, or is given up, while one rests and one waits on a plateau."""
    net = SYSTEMS["diagonal"]
    starts = np.stack(
        [net.initial(scale=1.0, rng=0), net.critical_state((0,)), net.initial(scale=1e-7, rng=1)]
    )
    stack = check_members(net, starts, ["state"], t_span=(0, 1e4))
    assert (stack.n_jac.values > 0).tolist() == [True, False, False]
    stack = check_members(net, starts, ["state"], t_span=(0, 1e4), max_steps=30)
    words = dl.schema.decode(stack.stop_reason).values.tolist()
    assert words == ["out_of_steps", "end_reached", "end_reached"]


def test_buffers_that_are_filled_many_times_lose_no_row():
    net = SYSTEMS["diagonal"]
    starts = np.stack([net.initial(scale=0.5, rng=k) for k in range(3)])
    stack = check_members(net, starts, ["loss"], t_span=(0, 300), method="dop853")
    assert int(stack.n_steps.min()) > 500
    changes = np.diff(stack.loss.values, axis=1)
    assert np.nanmax(changes) < 1e-16  # what errors of the runs are at the minimum


def test_the_number_of_threads_changes_nothing():
    net = SYSTEMS["diagonal"]
    starts = np.stack([net.initial(scale=0.1, rng=k) for k in range(150)])
    runs = [dl.flow(net, starts, (0, 30), GRID, workers=n) for n in (1, 2, 5)]
    assert runs[0].identical(runs[1])
    assert runs[0].identical(runs[2])


def test_large_stacks_of_small_networks_have_a_field_of_their_own():
    net, specialized = SYSTEMS["diagonal"], SYSTEMS["straight"]
    starts = np.stack([net.initial(scale=0.1, rng=k) for k in range(100)])
    options = {"t_span": (0, 30), "t_eval": GRID, "method": "dop853"}
    many, few = (dl.flow(net, starts[:count], **options) for count in (100, 99))
    alike = dl.flow(specialized, starts, **options)
    assert many.drop_vars("problem").identical(alike.drop_vars("problem"))
    scale = np.abs(few.state.values).max()
    np.testing.assert_allclose(many.state[:99], few.state, rtol=0.0, atol=1e-4 * scale)
    assert not many.isel(sample=slice(99)).identical(few)


def test_whole_numbers_of_a_stack_stay_whole():
    """Runs of unequal length: the Morse index is −1 where one is over, what others give is NaN."""
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    starts = np.stack([net.initial(scale=scale, rng=0) for scale in (1.0, 0.3, 1e-2)])
    save = ["index", {"signs": lambda x: np.count_nonzero(x > 0.0)}]
    stack = dl.flow(net, starts, save=save)
    assert stack["index"].dtype.kind == "i"
    for start, rows in zip(starts, (stack.isel(sample=k) for k in range(3)), strict=True):
        alone = dl.flow(net, start, save=save)
        count = alone.time.size
        np.testing.assert_array_equal(rows["index"][:count], alone["index"])
        np.testing.assert_array_equal(rows["signs"][:count], alone["signs"])
        assert (rows["index"][count:] == -1).all()
        assert np.isnan(rows["signs"][count:]).all()
    assert (stack["index"] == -1).any()
