"""Results in any unit: of a target c Σ they are those of Σ, as far as squares are numbers."""

import numpy as np
import pytest

import dlnds as dl

UNITS = [2.0**-332, 2.0**-166, 1.0, 2.0**166, 2.0**332]  # 1e-100 to 1e100
SIGMA = np.diag([2.0, 1.0])


def networks(c):
    """Networks of two layers whose target is c Σ."""
    entries = dl.losses.completion((2, 2), [0, 1, 0], [0, 1, 1], [2.0 * c, 1.0 * c, 0.0])
    return [dl.LinearNetwork((2, 2, 2), c * SIGMA), dl.LossNetwork((2, 2, 2), entries)]


@pytest.mark.parametrize("c", UNITS)
def test_runs_are_the_same_in_any_unit(c):
    """Ẇ_i is of degree three: states are √c times as large, and times 1/c; all powers of two."""
    for net, own in zip(networks(c), networks(1.0), strict=True):
        start = own.initial(scale=0.3, rng=0)
        grid = np.linspace(0.0, 4.0, 9)
        run = dl.flow(net, np.sqrt(c) * start, (0.0, 4.0 / c), grid / c)
        plain = dl.flow(own, start, (0.0, 4.0), grid)
        np.testing.assert_allclose(run.state / np.sqrt(c), plain.state, rtol=0.0, atol=1e-8)
        np.testing.assert_allclose(run.loss / c / c, plain.loss, rtol=0.0, atol=1e-7)
        run = dl.flow(net, np.sqrt(c) * start)
        plain = dl.flow(own, start)
        assert dl.schema.decode(run.stop_reason).item() == "limit_reached"
        assert run.limit == plain.limit
        assert float(run.loss[-1]) <= (1e-6 * c) ** 2
        kinds = [
            dl.schema.decode(dl.classify(*pair).kind).item()
            for pair in ((net, run.isel(time=-1)), (own, plain.isel(time=-1)))
        ]
        assert kinds == ["global_minimum"] * 2


@pytest.mark.parametrize("c", [1e60, 1e100, 1e120, 1e140])
def test_no_run_to_a_large_target_is_over_at_its_start(c):
    for net in networks(c):
        run = dl.flow(net, net.initial(scale=0.1, rng=0))
        assert dl.schema.decode(run.stop_reason).item() == "limit_reached"
        assert float(run.loss[-1]) <= (1e-6 * c) ** 2


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e-145, 1e151, 1e200])
def test_data_whose_squares_are_no_numbers_are_refused_by_name(size):
    A = np.eye(4).reshape(4, 2, 2)
    for name, make in [
        ("target", lambda: dl.LinearNetwork((2, 2, 2), size * SIGMA)),
        ("values", lambda: dl.losses.completion((2, 2), [0], [0], [size])),
        ("y", lambda: dl.losses.measurements(A, size * np.ones(4))),
        ("Y", lambda: dl.LinearNetwork.from_data(np.eye(2), size * SIGMA, hidden=(2,))),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: "):
            make()
    zero = dl.LinearNetwork((2, 2, 2), np.zeros((2, 2)))  # which has no size
    assert zero.max_rank == 0


def test_a_strict_saddle_is_clear_however_small_other_eigenvalues_are():
    """{1} of entries 1 and 1e-6: −1 and 1 along the first mode, ±1e-6 beside rounding."""
    net = dl.LossNetwork((2, 2, 2), dl.losses.completion((2, 2), [0, 1], [0, 1], [1.0, 1e-6]))
    x = dl.LinearNetwork((2, 2, 2), np.diag([1.0, 1e-6])).critical_state((1,))
    assert np.linalg.eigvalsh(net.hessian(x))[0] == pytest.approx(-1.0, rel=1e-6)
    point = dl.classify(net, x)
    assert dl.schema.decode(point.kind).item() == "strict_saddle"
    assert int(point.kind_is_clear) == int(point.order_is_exact) == 1
    assert int(point.order_of_descent) == 2
