"""Manifolds and connecting orbits of hyperbolic equilibria of any system, against known ones."""

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.optimize import root

import dlnds as dl
from dlnds.saddles import hyperbolic, orbits


def bent(t, x, params, out):
    out[0], out[1] = x[0], -x[1] + x[0] ** 2


def plane(t, x, params, out):
    v, e = x[0], x[1]
    out[0] = v * (v - 1.0) + 5.0 / 3.0 * (e - 3.0 * v / 50.0)
    out[1] = e * (-((v - 1.0) ** 2) / 2.0 + e - 3.0 / 50.0 + (v - 1.0) / 10.0)


def pendulum(t, x, params, out):
    out[0], out[1] = x[1], -np.sin(x[0])


def duffing(t, x, params, out):
    out[0] = x[1]
    out[1] = x[0] - x[0] ** 3 - params[1][0] * x[1]


def lorenz(t, x, params, out):
    s, r, b = params[1]
    out[0] = s * (x[1] - x[0])
    out[1] = r * x[0] - x[1] - x[0] * x[2]
    out[2] = x[0] * x[1] - b * x[2]


def competition(t, x, params, out):
    a, b = params[1]
    out[0] = x[0] * (1.0 - x[0] - a * x[1])
    out[1] = x[1] * (1.0 - x[1] - b * x[0])


def double_well(t, x, params, out):
    """Minus the gradient of (x² − 1)²/4 + (y − c x²)²/2."""
    c = params[1][0]
    away = x[1] - c * x[0] ** 2
    out[0] = -x[0] * (x[0] ** 2 - 1.0) + 2.0 * c * x[0] * away
    out[1] = -away


def wells(t, x, params, out):
    for i in range(x.size):
        out[i] = (1.0 + 0.3 * i) * (x[i] - x[i] ** 3)


def swirl(t, x, params, out):
    """A source at 0 inside the limit cycle |x| = 1, and NaN outside of |x| = 2."""
    size = x[0] ** 2 + x[1] ** 2
    out[0] = x[0] * (1.0 - size) - 3.0 * x[1]
    out[1] = x[1] * (1.0 - size) + 3.0 * x[0]


def pulled_back(t, x, params, out):
    """u' = a u (1 − u²/c²), w' = −b w for u = x, w = y − q(x): W^u of 0 is y = q(x), |x| < c."""
    a, b, c, q2, q3, q4 = params[1]
    q = q2 * x[0] ** 2 + q3 * x[0] ** 3 + q4 * x[0] ** 4
    slope = 2.0 * q2 * x[0] + 3.0 * q3 * x[0] ** 2 + 4.0 * q4 * x[0] ** 3
    out[0] = a * x[0] * (1.0 - (x[0] / c) ** 2)
    out[1] = slope * out[0] - b * (x[1] - q)


def lorenz_at(r):
    return dl.System(lorenz, dim=3, parameters={"s": 10.0, "r": r, "b": 8.0 / 3.0})


def words(flags):
    return dl.schema.decode(flags).values.tolist()


def grown(system, x, make=dl.unstable_manifold, number=None, **options):
    fibres = dl.grow_manifold(system, make(system, x), number, **options)
    dl.schema.validate(fibres)
    return fibres


# Local.


def test_the_bent_saddle_has_the_parabola_and_the_axis():
    """x' = x, y' = −y + x²: W^u is y = x²/3, W^s is x = 0."""
    system = dl.System(bent, dim=2)
    unstable = dl.unstable_manifold(system, [0.0, 0.0])
    dl.schema.validate(unstable)
    np.testing.assert_allclose(np.abs(unstable.frame), [[1.0, 0.0]], atol=1e-9)
    np.testing.assert_allclose(unstable.curvature, [[0.0, 1.0 / 3.0]], atol=1e-8)
    assert float(unstable.rate[0]) == pytest.approx(1.0, rel=1e-9)
    assert (unstable.attrs["dimension"], unstable.attrs["is_complete"]) == (1, 1)
    stable = dl.stable_manifold(system, [0.0, 0.0])
    np.testing.assert_allclose(stable.curvature, [[0.0, 0.0]], atol=1e-8)
    for rtol in (1e-6, 1e-9):
        found = grown(system, [0.0, 0.0], reach=10.0, rtol=rtol)
        x, y = found.state.values[..., 0], found.state.values[..., 1]
        assert sorted(np.sign(x[:, -1])) == [-1.0, 1.0]
        np.testing.assert_allclose(y, x**2 / 3.0, atol=100.0 * rtol * (1.0 + np.max(x**2)))
        assert words(found.stop_reason) == ["event", "event"]
        assert np.linalg.norm(found.state[:, -1], axis=1) == pytest.approx(10.0, rel=10 * rtol)
        length = 0.5 * x * np.hypot(1.0, 2.0 * x / 3.0) + 0.75 * np.arcsinh(2.0 * x / 3.0)
        start = np.abs(length[:, :1])  # the arc before the start counts as its chord
        np.testing.assert_allclose(
            found.arclength.values - found.arclength.values[:, :1],
            np.abs(length) - start, atol=1e3 * rtol,
        )  # fmt: skip
        gaps = np.diff(found.arclength, axis=1)
        assert gaps.max() < 2.0 * gaps.mean()
    axis = grown(system, [0.0, 0.0], dl.stable_manifold, reach=10.0)
    assert np.abs(axis.state[..., 0]).max() < 1e-7
    assert (np.diff(axis.elapsed_time, axis=1) < 0.0).all()


def test_starts_are_as_near_to_the_manifold_as_they_say():
    """x' = x, y' = −y + x² + x³: W^u is y = x²/3 + x³/4, of which the start lacks x³/4."""

    def cubic(t, x, params, out):
        out[0], out[1] = x[0], -x[1] + x[0] ** 2 + x[0] ** 3

    system = dl.System(cubic, dim=2)
    for rtol in (1e-6, 1e-8, 1e-10):
        found = grown(system, [0.0, 0.0], rtol=rtol, length=1.0)
        x, y = found.state.values[:, 0].T
        off = np.abs(y - x**2 / 3.0 - x**3 / 4.0)
        assert (off <= 1.5 * found.start_error + 1e-13).all()
        assert (off >= 0.5 * found.start_error - 1e-13).all()
        assert (found.start_error <= rtol).all()
        assert (found.start_error >= rtol / 20.0).all() or float(found.start_size[0]) == 0.02


@pytest.mark.parametrize("scale", [1e-4, 0.03, 1.0, 40.0])
def test_manifolds_of_all_scales_and_rates_are_those_that_were_put_in(scale):
    """Curves q of the same shape in units of the scale; rates from 1/30 to 30.

    The rows between the steps have an order less than these, rtol^(7/8) and a factor.
    """
    rng = np.random.default_rng(int(1e4 * scale))
    for _ in range(4):
        a, b = 10.0 ** rng.uniform(-1.5, 1.5, 2)
        q2, q3, q4 = rng.normal(size=3) / scale ** np.arange(1, 4)
        system = dl.System(pulled_back, dim=2, parameters=[a, b, scale, q2, q3, q4])
        found = grown(system, [0.0, 0.0], reach=100.0 * scale)
        x, y = found.state.values[..., 0], found.state.values[..., 1]
        np.testing.assert_allclose(y, q2 * x**2 + q3 * x**3 + q4 * x**4, atol=1e-5 * scale)
        assert np.abs(x).max() < scale
        assert words(found.end_decision) == ["trapped"] * 2
        np.testing.assert_allclose(np.sort(found.end_state[:, 0]), [-scale, scale], rtol=1e-8)
        assert (np.abs(x[:, -1]) > 0.5 * scale).all()


def test_the_saddle_of_the_lorenz_system_has_its_closed_spectrum():
    """λ = −8/3 and (−11 ± √(81 + 40 r))/2, the stable manifold holds the axis."""
    system = lorenz_at(28.0)
    unstable = dl.unstable_manifold(system, np.zeros(3))
    stable = dl.stable_manifold(system, np.zeros(3))
    root = np.sqrt(81.0 + 40.0 * 28.0)
    np.testing.assert_allclose(unstable.rate, [(root - 11.0) / 2.0], rtol=1e-9)
    np.testing.assert_allclose(stable.rate, [(root + 11.0) / 2.0, 8.0 / 3.0], rtol=1e-9)
    assert (unstable.attrs["dimension"], stable.attrs["dimension"]) == (1, 2)
    x, y, _ = unstable.frame.values[0]
    assert y / x == pytest.approx(1.0 + (root - 11.0) / 20.0, rel=1e-9)
    fan = grown(system, np.zeros(3), dl.stable_manifold, 24, length=30.0)
    assert fan.sizes["fibre"] == 24
    np.testing.assert_allclose(fan.length, 30.0, rtol=1e-9)
    for k in (1, 7, 13):  # forwards, they come to the origin
        times = [0.0, -float(fan.elapsed_time[k, -1])]
        end = solve_ivp(
            lambda t, x: value(system, x), times, fan.state.values[k, -1],
            method="DOP853", rtol=1e-11, atol=1e-12,
        ).y[:, -1]  # fmt: skip
        assert np.linalg.norm(end) < 0.1 < 10.0 < np.linalg.norm(fan.state[k, -1])


def value(system, x):
    out = np.empty(system.dim)
    system.field(0.0, np.ascontiguousarray(x), system.params, out)
    return out


def test_the_spacing_of_a_fan_is_the_distance_of_neighbouring_paths():
    """Orbits of x' = x in the plane are rays: neighbours part by r sin(2π/n)."""

    def source(t, x, params, out):
        out[0], out[1] = x[0], x[1]

    for number in (8, 16):
        fan = grown(dl.System(source, dim=2), [0.0, 0.0], number=number, reach=3.0)
        np.testing.assert_allclose(fan.spacing, 3.0 * np.sin(2 * np.pi / number), rtol=1e-6)


def test_fans_are_filled_up_to_a_spacing():
    """On the plane x' = 2 x, y' = y, whose orbits are x = c y², most angles go along x."""

    def node(t, x, params, out):
        out[0], out[1] = 2.0 * x[0], x[1]

    mani = dl.unstable_manifold(dl.System(node, dim=2), [0.0, 0.0])
    system, options = dl.System(node, dim=2), {"reach": 2.0, "n_points": 33}
    coarse = dl.grow_manifold(system, mani, 8, **options)
    fine = dl.grow_manifold(system, mani, 8, spacing=0.5, **options)
    assert coarse.spacing.max() > 1.0
    assert fine.spacing.max() <= 0.5
    assert 2.0 * np.pi * 2.0 / 0.5 < fine.sizes["fibre"] < 100
    ends = np.sort(np.arctan2(fine.state[:, -1, 1], fine.state[:, -1, 0]).values)
    assert 2.0 * np.diff(ends).max() < 0.55
    x, y = np.moveaxis(fine.state.values, -1, 0)
    curve = x[:, -1:] * (y / np.where(y[:, -1:] == 0.0, 1.0, y[:, -1:])) ** 2
    clear = np.abs(y[:, -1]) > 0.1
    np.testing.assert_allclose(x[clear], curve[clear], atol=1e-5)
    with pytest.raises(ValueError, match="^n_fibres: needs all 2 directions"):
        dl.grow_manifold(system, mani.isel(direction=[0]), 8)
    with pytest.raises(ValueError, match="^spacing: belongs to n_fibres"):
        dl.grow_manifold(system, mani, spacing=0.1)


@pytest.mark.parametrize("n", [2, 3])
def test_ends_of_branches_of_random_cubic_systems_are_those_of_another_integrator(n):
    """x' = a + A x + Q(x, x) − x|x|²: every end that is told is where LSODA goes as well."""

    def cubic(t, x, params, out):
        k, square = 0, np.sum(x * x)
        for i in range(x.size):
            out[i] = params[1][k] - x[i] * square
            k += 1
            for j in range(x.size):
                out[i] += params[1][k] * x[j]
                k += 1
                for m in range(j, x.size):
                    out[i] += params[1][k] * x[j] * x[m]
                    k += 1

    rng, told = np.random.default_rng(n), 0
    for _ in range(12 // n):
        numbers = 1.5 * rng.normal(size=n * (1 + n + n * (n + 1) // 2))
        system = dl.System(cubic, dim=n, parameters=numbers)
        for at in equilibria(system, rng):
            mani = dl.unstable_manifold(system, at)
            if mani.attrs["dimension"] != 1:
                continue
            found = dl.grow_manifold(system, mani, max_steps=800)
            for k, decision in enumerate(words(found.end_decision)):
                side = np.sign(mani.frame.values[0] @ (found.state.values[k, 0] - at))
                end = solve_ivp(
                    lambda t, x, system=system: value(system, x), (0.0, 500.0),
                    at + 1e-7 * side * mani.frame.values[0], method="LSODA", rtol=1e-10, atol=1e-12,
                ).y[:, -1]  # fmt: skip
                if decision == "trapped":
                    told += 1
                    np.testing.assert_allclose(found.end_state[k], end, atol=1e-4)
    assert told >= 6


def equilibria(system, rng):
    """Zeros of the field that are found from random starts."""
    known = []
    for _ in range(40):
        z = root(lambda x: value(system, x), 1.5 * rng.normal(size=system.dim), tol=1e-12)
        new = all(np.linalg.norm(z.x - other) > 1e-6 for other in known)
        if z.success and np.linalg.norm(value(system, z.x)) < 1e-10 and new:
            known.append(z.x)
    return known


def test_a_spiral_has_the_half_axes_of_its_ellipse_as_frame():
    c = np.sqrt(8.0 / 3.0 * 27.0)
    mani = dl.unstable_manifold(lorenz_at(28.0), [c, c, 27.0])
    np.testing.assert_allclose(mani.rate, 0.093955627, rtol=1e-6)
    np.testing.assert_allclose(np.sort(mani.frequency), [-10.194505, 10.194505], rtol=1e-6)
    assert abs(mani.frame.values[0] @ mani.frame.values[1]) < 1e-9


@pytest.mark.parametrize("make", [dl.unstable_manifold, dl.stable_manifold])
def test_manifolds_of_rotated_systems_are_rotated(make):
    """In coordinates Q x the field is Q f(Qᵀ x): frames, bends and orbits turn along."""
    Q = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    entries = tuple(Q.ravel().tolist())

    def turned(t, x, params, out):
        y, f = np.zeros(3), np.zeros(3)
        q = np.array(entries).reshape(3, 3)
        for i in range(3):
            for j in range(3):
                y[i] += q[j, i] * x[j]
        f[0] = 10.0 * (y[1] - y[0])
        f[1] = 28.0 * y[0] - y[1] - y[0] * y[2]
        f[2] = y[0] * y[1] - 8.0 / 3.0 * y[2]
        for i in range(3):
            out[i] = 0.0
            for j in range(3):
                out[i] += q[i, j] * f[j]

    plain, other = make(lorenz_at(28.0), np.zeros(3)), make(dl.System(turned, dim=3), np.zeros(3))
    np.testing.assert_allclose(other.rate, plain.rate, rtol=1e-8)
    overlap = np.abs(np.sum(other.frame.values * (plain.frame.values @ Q.T), axis=1))
    np.testing.assert_allclose(overlap, 1.0, rtol=1e-8)
    np.testing.assert_allclose(other.curvature, plain.curvature.values @ Q.T, atol=1e-7)


# What is refused, and what is told.


def test_what_is_not_hyperbolic_is_told_with_its_zeros():
    def flat(t, x, params, out):
        out[0], out[1] = x[0] ** 2, -x[1]

    system = dl.System(flat, dim=2)
    mani = dl.stable_manifold(system, [0.0, 0.0])
    assert (mani.attrs["dimension"], mani.attrs["central_dimension"]) == (1, 1)
    assert mani.attrs["is_complete"] == 0
    with pytest.raises(ValueError, match="^source: is not hyperbolic, 1 eigenvalues"):
        dl.connecting_orbits(system, [0.0, 0.0], [0.0, 0.0])
    centre = dl.unstable_manifold(dl.System(pendulum, dim=2), [0.0, 0.0])
    assert (centre.attrs["dimension"], centre.attrs["central_dimension"]) == (0, 2)


def test_what_is_no_equilibrium_or_no_autonomous_flow_is_refused():
    system = dl.System(plane, dim=2)
    with pytest.raises(ValueError, match="^x: is no equilibrium"):
        dl.unstable_manifold(system, [0.6, 0.181])
    mani = dl.unstable_manifold(system, [0.6, 0.18])
    with pytest.raises(ValueError, match="^manifold: is no equilibrium"):
        dl.grow_manifold(dl.System(bent, dim=2), mani)

    def driven(t, x, params, out):
        out[0] = x[0] * (1.0 + t)

    with pytest.raises(ValueError, match="^net: needs a field that does not depend on time"):
        dl.unstable_manifold(dl.System(driven, dim=1), [0.0])
    with pytest.raises(TypeError, match="^net: needs a flow"):
        dl.unstable_manifold(dl.System(bent, dim=2, kind="map"), [0.0, 0.0])


def test_orbits_that_blow_up_or_leave_the_domain_say_so():
    def explosive(t, x, params, out):
        out[0] = x[0] + x[0] ** 3

    def edge(t, x, params, out):
        out[0] = x[0] * (1.0 + np.sqrt(1.0 - x[0]))  # not defined beyond 1, nor slow there

    def resting(t, x, params, out):
        out[0] = x[0] * np.sqrt(1.0 - x[0])  # comes to 1 in finite time

    blown = grown(dl.System(explosive, dim=1), [0.0], reach=1e3)
    assert words(blown.stop_reason) == ["event", "event"]
    np.testing.assert_allclose(np.abs(blown.state[:, -1, 0]), 1e3, rtol=1e-8)
    # x/√(1 + x²) = x₀/√(1 + x₀²) eᵗ
    start, time = np.abs(blown.state[:, 0, 0]), blown.elapsed_time[:, -1]
    np.testing.assert_allclose(np.hypot(1.0, start) / start, np.exp(time), rtol=2e-6)
    right = grown(dl.System(edge, dim=1), [0.0], max_steps=500)
    ends = dict(zip(np.sign(right.state.values[:, 0, 0]), words(right.stop_reason), strict=True))
    assert ends[-1.0] == "event"
    assert ends[1.0] in ("not_finite", "step_too_small", "out_of_steps")
    assert words(right.end_decision) == ["none", "none"]
    assert np.isfinite(right.state).all()
    assert right.state.max() == pytest.approx(1.0, abs=1e-6)
    rest = grown(dl.System(resting, dim=1), [0.0])
    assert np.isfinite(rest.state).all()
    assert np.isfinite(rest.elapsed_time).all()
    assert rest.state.max() == pytest.approx(1.0, abs=1e-6)
    assert "trapped" not in words(rest.end_decision)


def test_an_orbit_that_comes_to_a_limit_cycle_comes_to_no_equilibrium():
    found = grown(dl.System(swirl, dim=2), [0.0, 0.0], number=4, max_steps=300)
    assert words(found.stop_reason) == ["out_of_steps"] * 4
    assert words(found.end_decision) == ["none"] * 4
    assert np.isnan(found.end_state).all()
    np.testing.assert_allclose(np.linalg.norm(found.state[:, -1], axis=1), 1.0, rtol=1e-7)


def test_a_sink_traps_only_where_its_lyapunov_function_falls_all_around():
    """x' = −x + x², y' = −y: with V = |x|²/2, d·f ≤ −|d|² + |d|³, of which −|d|²/2 is asked for.

    So up to |d| = 1/2, on any side; beyond that also where the orbit itself goes to the sink.
    """

    def well(t, x, params, out):
        out[0], out[1] = -x[0] + x[0] ** 2, -x[1]

    at = hyperbolic.equilibrium("x", dl.System(well, dim=2), [0.0, 0.0], 1e-8)
    for size, expected in ((0.1, True), (0.49, True), (0.52, False), (0.99, False), (3.0, False)):
        for angle in (0.0, 0.5, np.pi / 2.0, 3.0):
            x = size * np.array([np.cos(angle), np.sin(angle)])
            assert orbits._trapped(at, x) == expected


# Energies.


def test_the_separatrix_of_the_pendulum_has_its_energy_and_meets_the_next_saddle():
    """½v² − cos x = 1 from (−π, 0) to (π, 0): v = 2 cos(x/2), of length ∫√(1 + sin²(x/2)) dx."""
    system = dl.System(pendulum, dim=2)
    found = grown(system, [-np.pi, 0.0], rtol=1e-10)
    x, v = found.state.values[..., 0], found.state.values[..., 1]
    np.testing.assert_allclose(0.5 * v**2 - np.cos(x), 1.0, atol=1e-8)
    assert words(found.end_decision) == ["within_accuracy"] * 2
    ends = np.sort(found.end_state.values[:, 0])
    np.testing.assert_allclose(ends, [-3.0 * np.pi, np.pi], atol=1e-9)
    length = quad(lambda x: np.hypot(1.0, np.sin(x / 2.0)), -np.pi, np.pi)[0]
    left = np.linalg.norm(found.state[:, -1] - found.end_state, axis=1)
    np.testing.assert_allclose(found.length + left, length, atol=1e-5)
    joined = dl.connecting_orbits(system, [-np.pi, 0.0], [np.pi, 0.0])
    assert sorted(words(joined.decision)) == ["open", "within_accuracy"]
    assert (joined.attrs["codimension"], joined.attrs["n_connections"]) == (1, 0)


def test_the_homoclinic_orbits_of_duffing_are_known():
    """x = ± √2 sech t, ẋ² = x² − x⁴/2."""
    system = dl.System(duffing, dim=2, parameters={"damping": 0.0})
    found = grown(system, [0.0, 0.0], rtol=1e-10)
    x, v = found.state.values[..., 0], found.state.values[..., 1]
    np.testing.assert_allclose(v**2, x**2 - 0.5 * x**4, atol=1e-9)
    assert np.abs(x).max() == pytest.approx(np.sqrt(2.0), abs=2e-3)
    assert words(found.end_decision) == ["within_accuracy"] * 2
    np.testing.assert_allclose(found.end_state, 0.0, atol=1e-12)
    joined = dl.connecting_orbits(system, [0.0, 0.0], [0.0, 0.0])
    dl.schema.validate(joined)
    assert words(joined.decision) == ["within_accuracy"] * 2
    assert joined.attrs["codimension"] == 1


def test_damping_breaks_the_homoclinic_orbits_by_melnikovs_amount():
    """Energy lost on the loop: δ ∫ẋ² dt = 4δ/3 to first order; runs end in the wells."""
    for damping in (1e-3, -1e-3):
        system = dl.System(duffing, dim=2, parameters={"damping": damping})
        joined = dl.connecting_orbits(system, [0.0, 0.0], [0.0, 0.0], reach=1.5, max_steps=200)
        assert "within_accuracy" not in words(joined.decision)
        # At the closest point on the way back H = ½v² − ½x² = −(4/3)δ, and H = u s there, the
        # product of the coordinates along (1, 1)/√2 and (1, −1)/√2.
        closest, miss = joined.closest.values, joined.miss.values
        np.testing.assert_allclose(closest**2, 2.0 * 4.0 / 3.0 * abs(damping), rtol=2e-2)
        assert (np.sign(miss[0]) == -np.sign(miss[1])).all()


# Connections.


def test_the_planar_example_has_its_source_its_saddle_and_one_orbit_between():
    system = dl.System(plane, dim=2, names=["v", "e"])
    source = dl.linearize(system, [1.0, 0.06])
    saddle = dl.linearize(system, [0.6, 0.18])
    assert (int(source["index"]), int(saddle["index"])) == (2, 1)
    trace, det = 0.96, 0.9 * 0.06 - 5.0 / 3.0 * 0.006  # of [[.9, 5/3], [.006, .06]]
    expected = 0.5 * (trace + np.array([-1.0, 1.0]) * np.sqrt(trace**2 - 4.0 * det))
    np.testing.assert_allclose(source.eigenvalue, expected, rtol=1e-8)
    found = dl.connecting_orbits(system, [1.0, 0.06], [0.6, 0.18])
    dl.schema.validate(found)
    assert sorted(words(found.decision)) == ["attracted", "away"]
    assert found.attrs["grown_from"] == "target"
    assert (found.attrs["expected_dimension"], found.attrs["codimension"]) == (1, 0)
    row = found.isel(orbit=words(found.decision).index("attracted"))
    first, last = row.state.values[0], row.state.values[-1]
    assert np.linalg.norm(first - [1.0, 0.06]) < 0.01
    assert np.linalg.norm(last - [0.6, 0.18]) < 0.03
    assert (np.diff(row.elapsed_time) > 0.0).all()
    there = solve_ivp(  # backwards, where errors do not grow
        lambda t, x: value(system, x), (float(row.elapsed_time[-1]), float(row.elapsed_time[0])),
        last, method="DOP853", rtol=1e-12, atol=1e-13,
    ).y[:, -1]  # fmt: skip
    np.testing.assert_allclose(there, first, atol=1e-6)
    ahead = dl.connecting_orbits(system, [0.6, 0.18], [0.0, 0.0])
    assert sorted(words(ahead.decision)) == ["attracted", "away"]


def test_competing_species_go_from_the_saddle_to_one_of_two_nodes():
    """a = 1.5, b = 2: both nodes attract, and W^s of the saddle runs from the origin."""
    system = dl.System(competition, dim=2, parameters={"a": 1.5, "b": 2.0})
    saddle = np.array([0.5, 1.0]) / 2.0  # (1 − a, 1 − b)/(1 − ab) = (.25, .5)
    for node in ([1.0, 0.0], [0.0, 1.0]):
        found = dl.connecting_orbits(system, saddle, node)
        assert sorted(words(found.decision)) == ["attracted", "elsewhere"]
        assert found.attrs["n_connections"] == 1
    back = dl.connecting_orbits(system, [0.0, 0.0], saddle)
    assert sorted(words(back.decision)) == ["attracted", "away"]
    none = dl.connecting_orbits(system, [1.0, 0.0], saddle)
    assert (none.sizes["orbit"], none.attrs["is_searched"]) == (0, 1)
    fan = dl.connecting_orbits(system, [0.0, 0.0], [1.0, 0.0], n_fibres=16)
    assert 1 <= fan.attrs["n_connections"] < 16
    assert fan.attrs["expected_dimension"] == 2


def test_double_wells_lead_from_the_saddle_to_both_minima():
    """W^u: dy/dx by the field itself; at c = 0 it is the axis."""
    for c in (0.0, 0.4):
        system = dl.System(double_well, dim=2, parameters={"c": c})
        for side in (-1.0, 1.0):
            found = dl.connecting_orbits(system, [0.0, 0.0], [side, c])
            assert sorted(words(found.decision)) == ["attracted", "elsewhere"]
            x, y = found.state.values[words(found.decision).index("attracted")].T
            assert (np.diff(side * x) > 0.0).all()
            if c == 0.0:
                np.testing.assert_allclose(y, 0.0, atol=1e-8)
        back = dl.connecting_orbits(system, [1.0, c], [0.0, 0.0])
        assert (back.sizes["orbit"], back.attrs["codimension"]) == (0, 2)


def test_planes_of_orbits_hold_one_that_comes_to_a_saddle():
    """In x_i' = c_i (x_i − x_i³) from (1, 0, 0) to (1, 1, 0) along the edge of the cube."""
    system = dl.System(wells, dim=3)
    found = dl.connecting_orbits(system, [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], n_fibres=12)
    assert words(found.decision) == ["bracketed"]
    assert (found.attrs["expected_dimension"], found.attrs["codimension"]) == (1, 0)
    x, y, z = found.state.values[0].T
    np.testing.assert_allclose(x, 1.0, atol=1e-6)
    assert np.abs(z).max() < 1e-5
    assert y[-1] > 0.95
    skew = dl.connecting_orbits(system, [1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], n_fibres=12)
    assert (skew.sizes["orbit"], skew.attrs["expected_dimension"]) == (0, 1)
    down = dl.connecting_orbits(system, [0.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    assert sorted(words(down.decision)) == ["attracted", "away"]


def test_lorenz_branches_change_the_sides_at_the_homoclinic_orbit():
    """At r = 13.926557… (s = 10, b = 8/3) W^u of the origin comes back to it (Sparrow, 1982)."""

    def ends(r):
        c = np.sqrt(8.0 / 3.0 * (r - 1.0))
        found = dl.connecting_orbits(lorenz_at(r), np.zeros(3), [c, c, r - 1.0])
        assert sorted(words(found.decision)) == ["attracted", "elsewhere"]
        first = np.sign(found.state.values[:, 0, 0])
        return first[words(found.decision).index("attracted")]

    assert (ends(10.0), ends(20.0)) == (1.0, -1.0)

    def miss(r):
        found = dl.connecting_orbits(lorenz_at(r), np.zeros(3), np.zeros(3))
        assert found.attrs["codimension"] == 1
        return float(found.miss[0] * np.sign(found.state[0, 0, 0]))

    assert miss(13.925) * miss(13.928) < 0.0


def test_orbits_under_weight_decay_rest_at_minima_that_turns_make_of_one():
    net = dl.LinearNetwork((2, 3, 3, 2), np.diag([2.0, 1.2]), weight_decay=0.2)
    saddle = net.critical_state((1,))
    grown = dl.grow_manifold(net, dl.unstable_manifold(net, saddle), n_points=3, rng=0)
    assert set(dl.schema.decode(grown.stop_reason).values.tolist()) == {"at_rest"}
    assert grown.sizes["fibre"] == 2  # to both sides
    for end in grown.state.values[:, -1]:
        found = dl.classify(net, end)
        assert found.critical_point.item() == "{0⁺}"  # the larger mode in place of the other
        assert dl.schema.decode(found.kind).item() == "minimum"
        assert abs(float(found.loss) - float(net.loss(net.critical_state((0,))))) < 1e-12
