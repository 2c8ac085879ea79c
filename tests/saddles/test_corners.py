"""Where runs leave without residual units, and where bases and inputs are ill-conditioned."""

import itertools

import numpy as np
import points
import pytest

import dlnds as dl


def network(widths, sigma):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    return dl.LinearNetwork(widths, target)


def word(found):
    return dl.schema.decode(found.completeness).item()


@pytest.mark.parametrize(
    ("widths", "sigma"),
    [((2, 1, 2, 2), (3, 1)), ((3, 1, 2, 4, 3), (2, 1, 0)), ((3, 2, 4, 3), (3, 2, 1))],
)
def test_where_a_layer_has_no_unit_left_runs_leave_by_the_hessian_alone(widths, sigma):
    """N = ⟨M, Z_h…Z_1⟩ is zero if Z has a width of 0: what falls are negative eigenvalues."""
    net, rank = network(widths, sigma), min(widths)
    for modes in itertools.combinations(range(np.count_nonzero(sigma)), rank):
        x = net.critical_state(modes)
        values = np.linalg.eigvalsh(points.hessian(net.unpack(x), net.target))
        falls = -values[values < -1e-9]
        kkt = dl.escape_directions(net, x)
        assert set(kkt.order.values.tolist()) <= {2}
        assert word(kkt) == ("closed_form" if falls.size else "minimum")
        assert int((kkt.family_dimension + 1).sum()) == falls.size
        for value in kkt.value.values:
            assert np.abs(falls - 2.0 * value).min() < 1e-12


def test_no_run_leaves_minima_of_other_networks_without_a_unit_left():
    eye, widths = np.eye(2), (2, 1, 1, 2)
    x = network(widths, (2.0, 2.0)).critical_state((1,))
    for net in (
        dl.HomogeneousNetwork(widths, eye, 2.0 * eye, power=1, slope=1, normalize=False),
        dl.LossNetwork(widths, dl.losses.power(eye, 2.0 * eye, power=2.0)),
    ):
        kkt = dl.escape_directions(net, x, n_starts=5)
        assert (kkt.sizes["direction"], word(kkt)) == (0, "minimum")


@pytest.mark.parametrize("exponent", [5, 10, 15, 20, 30])
@pytest.mark.parametrize("both", [False, True])
def test_a_swap_is_not_lost_where_one_layer_is_large(exponent, both):
    """At {1}, σ = 2, 1, W_1 = c diag(0, 1): exactly critical, for powers of two.

    With a into the learnt unit from mode 0, b out of the last one to it, and P_2 = e, the loss is
    ½ (a²/c² + b²e²) − σ_0 a b e/c at second order; nothing else falls.
    """
    net, eye = network((2, 2, 2, 2), (2.0, 1.0)), np.eye(2)
    c, e = 2.0**exponent, 2.0**exponent if both else 1.0
    y = dl.act(net, [c * eye, e * eye], net.critical_state((1,)))
    rows = np.array([[c**-2, -2.0 * e / c], [-2.0 * e / c, e**2]])
    lowest = np.linalg.det(rows) / np.linalg.eigvalsh(rows)[1]
    manifold, kkt = dl.unstable_manifold(net, y), dl.escape_directions(net, y, n_starts=5)
    assert int(dl.linearize(net, y)["index"]) == 1
    assert (manifold.attrs["strict_dimension"], manifold.attrs["dimension"]) == (1, 2)
    assert manifold.attrs["is_complete"]
    assert kkt.order.values.tolist() == manifold.order.values.tolist() == [2, 3]
    for rate in (2.0 * kkt.value[0], manifold.rate[0]):
        assert float(rate) == pytest.approx(-lowest, rel=1e-12)


@pytest.mark.parametrize(
    ("widths", "sigma", "modes", "index"),
    [((3, 2, 3), (3.0, 2.0, 1.0), (1,), 3), ((4, 3, 4), (3.0, 2.0, 1.5, 1.0), (0,), 6)],
)
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e5, 1e6])
def test_inputs_of_any_covariance_keep_the_directions_of_two_layers(
    widths, sigma, modes, index, condition
):
    """Each free unit takes each value of U_Qᵀ Σ Kᵀ; at {1} mode 0 is swapped for mode 1, too."""
    rng, plain = np.random.default_rng(0), network(widths, sigma)
    for _ in range(5):
        left, right = np.linalg.qr(rng.normal(size=(2, widths[0], widths[0])))[0]
        K = left @ np.diag(np.geomspace(1.0, condition, widths[0])) @ right
        net = dl.LinearNetwork(widths, plain.target, input_root=K)
        x = net.critical_state(modes)
        kkt, manifold = dl.escape_directions(net, x), dl.unstable_manifold(net, x)
        free = np.linalg.svd(np.delete(plain.target @ K.T, modes, axis=0), compute_uv=False)
        assert manifold.attrs["strict_dimension"] == int(dl.linearize(net, x)["index"]) == index
        assert (kkt.order.values.tolist(), word(kkt)) == ([2, 2, 2], "closed_form")
        assert int((kkt.family_dimension + 1).sum()) == index
        rounding = 64.0 * np.finfo(float).eps * np.linalg.norm(net.hessian(x))
        for value in free:
            assert np.abs(2.0 * kkt.value.values - value).min() < rounding < 1e-2 * free[-1]


@pytest.mark.parametrize("seed", [16, 133, 342])
def test_rounding_is_no_curvature_where_the_hessian_vanishes(seed):
    """Non-strict saddles: what is listed has the order of descent, and it is no minimum."""
    p = points.random_point(seed, condition=1.0, deepest=4, widest=3)
    assert p.kind == "nonstrict_saddle"
    kkt = dl.escape_directions(p.net, p.x, n_starts=5)
    assert word(kkt) in ("closed_form", "searched", "nothing_found")
    assert (kkt.order.values >= points.order(p)).all()
    if kkt.sizes["direction"]:
        assert int(kkt.order.min()) == points.order(p)
