"""Curves of folds against cusps, Bratu's problem and weight decay, all with known truths."""

import time

import numpy as np
import pytest
from equations import bratu, decayed, size_at
from scipy.stats import ortho_group

import dlnds as dl


def cubic(q):
    """p + q x − x³, whose folds are 27 p² = 4 q³."""
    return dl.Residual(
        lambda x, p: p + q * x - x**3,
        lambda x, p: np.diag(q - 3.0 * x**2),
        derivative=lambda x, p: np.ones(1),
        symmetric=True,
    )


def first_fold(family, x0, p0, q0, **options):
    found = dl.special_points(dl.branch(family(q0), x0, p0, **options))
    assert "fold" in dl.schema.decode(found.event).values
    return found.isel(step=[int(np.flatnonzero(found.event.values == 1)[0])])


def kinds(curve):
    return dl.schema.decode(dl.special_points(curve).event).values.tolist()


CUBIC = {"x0": [-2.0], "p0": -2.0, "q0": 3.0, "bounds": (-3.0, 3.0)}
FOLD = first_fold(cubic, **CUBIC)


@pytest.mark.parametrize("exact", [True, False])
def test_the_folds_of_a_cubic_meet_in_its_cusp(exact):
    """Without a formula J errs by the square h² of the step of its differences, q by as much."""
    family = cubic if exact else lambda q: cubic(q).fun
    curve = dl.fold_curve(family, first_fold(family, **CUBIC), 3.0, bounds=(-1.0, 4.0))
    dl.schema.validate(curve)
    np.testing.assert_allclose(27 * curve.p**2, 4 * curve.q**3, atol=1e-12 if exact else 1e-8)
    assert kinds(curve) == ["cusp"]
    cusp = dl.special_points(curve).isel(step=0)
    size = 1e-12 if exact else 1e-6
    assert abs(float(cusp.state[0])) < size
    assert max(abs(float(cusp.p)), abs(float(cusp.q))) < (1e-13 if exact else 1e-10)
    assert curve.q.values[[0, -1]].tolist() == [4.0, 4.0]
    assert float(curve.p[0] * curve.p[-1]) < 0.0  # through the cusp to the other folds
    length = curve.tangent[:, 0] ** 2 + curve.tangent_p**2 + curve.tangent_q**2
    np.testing.assert_allclose(length, 1.0, rtol=1e-14)


def test_curves_keep_to_folds_of_branches():
    """Each point is the fold of the branch at its q: F = 0 and λ = 0 there, and p turns."""
    family = cubic
    curve = dl.fold_curve(family, first_fold(family, **CUBIC), 3.0, bounds=(0.5, 4.0))
    for k in range(0, curve.sizes["step"], 6):
        row = curve.isel(step=k)
        q, x = float(row.q), row.state.values
        side = x + 0.3
        p = float(side[0] ** 3 - q * side[0])
        near = dl.special_points(dl.branch(family(q), side, p, bounds=(p - 9, p + 9)))
        assert np.abs(near.p.values - float(row.p)).min() < 1e-10
        assert abs(float(row.transverse_eigenvalue[0])) < 1e-10


@pytest.mark.parametrize("n", [1, 4])
def test_bratu_with_a_rate(n):
    """A x + p e^{q x}: x/q for x shows that the fold has p q = const."""
    base = bratu(n)

    def family(q):
        return dl.Residual(
            lambda x, p: base.fun(q * x, p * q) / q,
            lambda x, p: base.jacobian(q * x, p * q),
            derivative=lambda x, p: np.exp(q * x),
            symmetric=True,
        )

    fold = first_fold(family, np.zeros(n), 0.0, 1.0, bounds=(0.0, 4.0), direction="up",
                      max_points=25)  # fmt: skip
    curve = dl.fold_curve(family, fold, 1.0, bounds=(0.5, 2.0), parameter="rate")
    truth = {1: 2.943035529, 4: 3.439807790}[n]
    np.testing.assert_allclose(curve.p * curve.q, float(fold.p[0]), rtol=1e-11)
    np.testing.assert_allclose(curve.p * curve.q, truth, atol=6e-10)
    assert curve.q.attrs["long_name"] == "rate"
    assert kinds(curve) == []


@pytest.mark.parametrize("force", [1.0, 1e6])
@pytest.mark.parametrize(("x", "p", "q"), [(1e-6, 1e6, 1e-6), (1e6, 1e-6, 1.0), (1.0, 1e-6, 1e6)])
def test_units_change_nothing_but_rounding(x, p, q, force):
    """The cubic with x, p, q and F in other units: the same rows, in these units."""

    def family(s):
        plain = cubic(s / q)
        return dl.Residual(
            lambda y, r: force * plain.fun(y / x, r / p),
            lambda y, r: force / x * plain.jacobian(y / x, r / p),
            derivative=lambda y, r: force / p * np.ones(1),
            symmetric=True,
        )

    fold = first_fold(family, [-2.0 * x], -2.0 * p, 3.0 * q, bounds=(-3.0 * p, 3.0 * p))
    curve = dl.fold_curve(family, fold, 3.0 * q, bounds=(-q, 4.0 * q))
    plain = dl.fold_curve(cubic, FOLD, 3.0, bounds=(-1.0, 4.0))
    assert kinds(curve) == kinds(plain) == ["cusp"]
    np.testing.assert_allclose(curve.state / x, plain.state, atol=1e-8)
    np.testing.assert_allclose(curve.p / p, plain.p, atol=1e-8)
    np.testing.assert_allclose(curve.q / q, plain.q, atol=1e-8)
    np.testing.assert_allclose(curve.arclength, plain.arclength, atol=1e-8)
    length = curve.tangent[:, 0] ** 2 + curve.tangent_p**2 + curve.tangent_q**2
    np.testing.assert_allclose(length, 1.0, rtol=1e-14)


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-4])
def test_two_cusps_are_told_apart(size):
    """p + q x + c x² − x⁴: cusps at x² = c/6, q = −(4 c/3) x, p = c²/12."""

    def family(q):
        return dl.Residual(
            lambda x, p: p + q * x + size * x**2 - x**4,
            lambda x, p: np.diag(q + 2.0 * size * x - 4.0 * x**3),
        )

    q = 4.0 - 2.0 * size
    x = 1.3
    fold = first_fold(family, [x], x**4 - size * x**2 - q * x, q, bounds=(-5.0, 5.0))
    curve = dl.fold_curve(family, fold, q, bounds=(-5.0, 5.0))
    assert kinds(curve) == ["cusp", "cusp"]
    found = dl.special_points(curve)
    at = np.sqrt(size / 6.0) * np.sign(found.state.values[:, 0])
    assert sorted(np.sign(at)) == [-1.0, 1.0]
    np.testing.assert_allclose(found.state[:, 0], at, rtol=1e-8)
    np.testing.assert_allclose(found.q, -4.0 / 3.0 * size * at, rtol=1e-11)
    np.testing.assert_allclose(found.p, size**2 / 12.0, rtol=1e-11)


@pytest.mark.parametrize("way", ["up", "down", "both"])
def test_what_vanishes_at_the_start_is_there_once(way):
    """The curve from its cusp, and a function that is zero at the start."""
    cusp = dl.special_points(dl.fold_curve(cubic, FOLD, 3.0, bounds=(-1.0, 4.0)))
    curve = dl.fold_curve(cubic, cusp, float(cusp.q[0]), bounds=(-1.0, 4.0), direction=way)
    assert kinds(curve) == ["cusp"]
    assert int(np.flatnonzero(curve.event)[0]) == curve.attrs["start_step"]
    options = {"bounds": (2.0, 4.0), "events": [lambda x, p, q: q - 3.0], "direction": way}
    curve = dl.fold_curve(cubic, FOLD, 3.0, **options)
    assert kinds(curve) == ["user"]
    assert int(np.flatnonzero(curve.event)[0]) == curve.attrs["start_step"]


def test_a_closed_curve_is_gone_round_once():
    """x² + p² + q² = 1: folds at p² + q² = 1, which turn where the closed branches shrink."""

    def family(q):
        return lambda x, p: x**2 + p**2 + q**2 - 1.0

    fold = first_fold(family, [0.5], np.sqrt(0.5), 0.5, bounds=(-2.0, 2.0), direction="up")
    curve = dl.fold_curve(family, fold, 0.5, bounds=(-2.0, 2.0))
    assert curve.attrs["last_stop"] == "closed"
    assert kinds(curve) == ["branch_point", "branch_point"]
    np.testing.assert_allclose(sorted(dl.special_points(curve).q), [-1.0, 1.0], rtol=1e-12)
    np.testing.assert_allclose(curve.p**2 + curve.q**2, 1.0, rtol=1e-11)
    angle = np.unwrap(np.arctan2(curve.p, curve.q))
    assert abs(angle[-1] - angle[0]) == pytest.approx(2.0 * np.pi, rel=1e-12)


def test_multipliers_of_maps_are_looked_at():
    """p − x₀² beside −(1 + q) x₁: the fold's other multiplier is −1 at q = 0."""

    def family(q):
        return dl.Residual(lambda x, p: np.array([p - x[0] ** 2, (-2.0 - q) * x[1]]), kind="map")

    fold = first_fold(family, [0.5, 0.0], 0.25, -0.6, bounds=(-0.5, 0.5))
    curve = dl.fold_curve(family, fold, -0.6, bounds=(-0.9, 1.0))
    assert kinds(curve) == ["flip"]
    assert abs(float(dl.special_points(curve).q[0])) < 1e-12
    assert curve["index"].values[[0, -1]].tolist() in ([0, 1], [1, 0])


def gelfand(q):
    """−8 x + p exp(x/(1 + q x)): folds at p = 8 x e^{−√x}, q = (√x − 1)/x, a cusp at x = 4."""
    return dl.Residual(
        lambda x, p: -8.0 * x + p * np.exp(x / (1.0 + q * x)),
        lambda x, p: np.diag(-8.0 + p * np.exp(x / (1.0 + q * x)) / (1.0 + q * x) ** 2),
    )


def test_the_cusp_of_ignition():
    fold = first_fold(gelfand, [0.0], 0.0, 0.15, bounds=(0.0, 5.0), max_points=60)
    curve = dl.fold_curve(gelfand, fold, 0.15, bounds=(0.14, 0.3))
    x = curve.state.values[:, 0]
    np.testing.assert_allclose(curve.p, 8.0 * x * np.exp(-np.sqrt(x)), rtol=1e-10)
    np.testing.assert_allclose(curve.q, (np.sqrt(x) - 1.0) / x, rtol=1e-10)
    assert kinds(curve) == ["cusp"]
    cusp = dl.special_points(curve).isel(step=0)
    np.testing.assert_allclose(float(cusp.q), 0.25, rtol=1e-11)
    np.testing.assert_allclose(float(cusp.p), 32.0 * np.exp(-2.0), rtol=1e-11)
    np.testing.assert_allclose(float(cusp.state[0]), 4.0, rtol=1e-7)


def network(widths, sigma):
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    return dl.LinearNetwork(widths=widths, target=target)


def decay_of(widths, *others):
    """Equilibria with weight decay, the smallest singular value as the second parameter."""
    return lambda q: dl.equilibria(network(widths, [*others, q]), "weight_decay")


def fold_of_decay(widths, others, q, group=None):
    family, depth = decay_of(widths, *others), len(widths) - 1
    net = network(widths, [*others, q])
    x = decayed(net, [size_at(s, 0.05, depth) for s in (*others, q)])
    start = x if group is None else dl.act(net, group, x)
    options = {"bounds": (0.01, 3.0), "direction": "up", "max_points": 25}
    return family, first_fold(family, start, 0.05, q, **options)


def truth_of_decay(q, depth):
    s = ((depth - 2) * q / (2 * depth - 2)) ** (1 / depth)
    return s ** (depth - 2) * depth * q / (2 * depth - 2)


@pytest.mark.parametrize(("depth", "others"), [(3, (4.0, 3.0)), (4, (3.0,))])
def test_the_fold_of_a_mode_against_its_singular_value(depth, others):
    """λ = s^{h−2} h σ/(2h − 2), modulo an orbit; eigenvalue and kernel belong to ∂F/∂x."""
    d = len(others) + 1
    family, fold = fold_of_decay((d,) * (depth + 1), others, 1.0)
    curve = dl.fold_curve(family, fold, 1.0, bounds=(0.7, 1.4), parameter="sigma")
    dl.schema.validate(curve)
    np.testing.assert_allclose(curve.p, truth_of_decay(curve.q.values, depth), rtol=1e-12)
    orbit = (depth - 1) * d * (d - 1) // 2
    assert set(curve.orbit_dimension.values.tolist()) == {orbit}
    assert set(curve.nullity.values.tolist()) == {orbit + 1}
    assert float(curve.multiplier.max()) < 1e-12
    assert curve["index"].values.tolist() == [0] * curve.sizes["step"]
    assert np.abs(curve.transverse_eigenvalue.values).min(axis=1).max() < 1e-11
    assert curve.q.values[[0, -1]].tolist() == [0.7, 1.4]
    assert curve.p.attrs["long_name"] == "weight_decay"
    assert {"layer", "row", "column", "loss"} <= set(curve.variables)
    (name,) = set(curve.label.values.tolist())  # the mode that is folded has no upper root
    assert name == "{" + "".join(f"{j}⁺," for j in range(d - 1)) + f"{d - 1}}}"


def test_folds_of_two_modes_meet():
    """At σ_3 = σ_2 both modes and what mixes them are folded: a kernel of three, and q turns."""
    family, fold = fold_of_decay((2, 2, 2, 2), (2.0,), 1.7)
    curve = dl.fold_curve(family, fold, 1.7, bounds=(1.6, 2.5), direction="up", step_max=0.3)
    assert kinds(curve) == ["index_change"]
    meeting = dl.special_points(curve).isel(step=0)
    np.testing.assert_allclose(float(meeting.q), 2.0, rtol=1e-10)
    assert int(meeting.kernel_dimension) == 3
    assert curve["index"].values[[0, -1]].tolist() == [0, 2]
    assert float(curve.q[-1]) == 1.6
    np.testing.assert_allclose(curve.p, truth_of_decay(curve.q.values, 3), rtol=1e-10)


def test_curves_do_not_depend_on_the_representative():
    widths, others = (2, 3, 2, 2), (2.0,)
    rng = np.random.default_rng(1)
    group = [ortho_group.rvs(d, random_state=rng) for d in (3, 2)]
    (family, fold), (_, moved) = (fold_of_decay(widths, others, 1.0, g) for g in (None, group))
    moved = moved.assign_attrs(state_scale=fold.attrs["state_scale"])
    here, there = (dl.fold_curve(family, f, 1.0, bounds=(0.8, 1.5)) for f in (fold, moved))
    assert here.sizes == there.sizes
    for name in ("p", "q", "arclength", "loss", "transverse_eigenvalue", "tangent_q"):
        np.testing.assert_allclose(there[name], here[name], atol=1e-10)
    net = network(widths, [*others, 1.0])
    expected = np.stack([dl.act(net, group, x) for x in here.state.values])
    np.testing.assert_allclose(there.state, expected, atol=1e-9)  # no drift along the orbit


def test_orbits_of_an_asymmetric_equation():
    """R (p + q r² − r⁴) x with a turn R of the plane: folds at r² = q/2, p = −q²/4."""
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])

    def family(q):
        return dl.Residual(
            lambda x, p: turn @ x * (p + q * (x @ x) - (x @ x) ** 2),
            generators=lambda x, p: np.array([[-x[1], x[0]]]),
        )

    fold = first_fold(family, [0.6, 0.8], 0.0, 1.0, bounds=(-0.5, 0.5), max_points=20)
    curve = dl.fold_curve(family, fold, 1.0, bounds=(0.5, 3.0))
    np.testing.assert_allclose(curve.p, -(curve.q**2) / 4.0, rtol=1e-9)
    np.testing.assert_allclose((curve.state**2).sum("parameter"), curve.q / 2.0, rtol=1e-9)
    assert set(curve.orbit_dimension.values.tolist()) == {1}
    angle = np.arctan2(curve.state[:, 1], curve.state[:, 0])
    start = np.arctan2(fold.state[0, 1], fold.state[0, 0])
    assert np.sin(start - np.arctan2(0.8, 0.6)) == pytest.approx(0.0, abs=1e-8)  # or across 0
    np.testing.assert_allclose(angle, start, atol=1e-8)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_curve_turns_where_branches_cross_or_a_closed_one_shrinks(sign):
    """x² ± p² − q: folds at x = 0, q = ±p²."""

    def family(q):
        return lambda x, p: x**2 + sign * p**2 - q

    q = 1.0 if sign > 0 else -1.0
    fold = first_fold(family, [0.5], np.sqrt(abs(q - 0.25)), q, bounds=(-2.0, 2.0), step_max=0.1)
    curve = dl.fold_curve(family, fold, q, bounds=(-2.0, 2.0))
    assert kinds(curve) == ["branch_point"]
    np.testing.assert_allclose(curve.q, sign * curve.p**2, atol=1e-9)
    found = dl.special_points(curve)
    assert max(abs(float(found.p[0])), abs(float(found.q[0]))) < 1e-9


def test_what_else_happens_to_the_spectrum_is_located():
    """p − x₀² with q ± i beside it, and with q x₁ − x₁³."""

    def hopf(q):
        return lambda x, p: np.array([p - x[0] ** 2, q * x[1] - x[2], x[1] + q * x[2]])

    def pitchfork(q):
        return lambda x, p: np.array([p - x[0] ** 2, q * x[1] - x[1] ** 3])

    for family, n, kind in ((hopf, 3, "hopf"), (pitchfork, 2, "index_change")):
        x = np.eye(n)[0]
        fold = first_fold(family, x, 1.0, -1.0, bounds=(-0.5, 2.0), max_points=20)
        curve = dl.fold_curve(family, fold, -1.0, bounds=(-2.0, 1.5))
        assert kinds(curve) == [kind]
        assert abs(float(dl.special_points(curve).q[0])) < 1e-9
        assert curve["index"].values[[0, -1]].tolist() == [0, n - 1]


def test_user_events_and_observations_take_both_parameters():
    def family(q):
        plain = cubic(q)
        return dl.Residual(plain.fun, plain.jacobian, observe=lambda x, p: {"sum": p + q})

    fold = first_fold(family, **CUBIC)
    curve = dl.fold_curve(
        family, fold, 3.0, bounds=(1.0, 4.0), events=[lambda x, p, q: q + p**2 - 3]
    )
    np.testing.assert_allclose(curve["sum"], curve.p + curve.q, atol=1e-14)
    assert kinds(curve) == ["user"]
    found = dl.special_points(curve)
    assert float(found.q[0] + found.p[0] ** 2) == pytest.approx(3.0, abs=1e-12)


def test_differences_stay_between_the_bounds():
    """Those of fourth order would reach 4e-3 beyond them."""
    asked = []

    def family(q):
        asked.append(q)
        return cubic(q)

    curve = dl.fold_curve(family, FOLD, 3.0, bounds=(2.0, 3.0), direction="down")
    assert min(asked) > 2.0 - 1e-5
    assert max(asked) == 3.0
    np.testing.assert_allclose(27 * curve.p**2, 4 * curve.q**3, rtol=1e-12)


def test_curves_restart_from_their_rows_are_reproduced_and_drawn():
    one, two = (dl.fold_curve(cubic, FOLD, 3.0, bounds=(2.0, 3.5)) for _ in range(2))
    assert one.identical(two)
    row = one.isel(step=4)
    again = dl.fold_curve(cubic, row, float(row.q), bounds=(-1.0, 3.0))
    np.testing.assert_allclose(27 * again.p**2, 4 * again.q**3, atol=1e-12)
    assert kinds(again) == ["cusp"]
    ax = dl.plot.branches(again, x="q", y="p")
    assert "cusp" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_curves_end_where_the_equation_does():
    def family(q):
        plain = cubic(q)
        return dl.Residual(plain.fun, lambda x, p: plain.jacobian(x, p) if abs(x[0]) < 1.05
                           else np.array([[np.nan]]))  # fmt: skip

    curve = dl.fold_curve(family, FOLD, 3.0, bounds=(0.5, 4.0))
    last = "first_stop" if abs(curve.state[0, 0]) > 1.0 else "last_stop"
    assert curve.attrs[last] == "step_too_small"
    assert float(np.abs(curve.state).max()) == pytest.approx(1.05, abs=1e-2)
    with pytest.raises(ValueError, match="^point: needs a finite ∂F/∂x"):
        dl.fold_curve(lambda q: dl.Residual(cubic(q).fun, lambda x, p: np.full((1, 1), np.nan)),
                      FOLD, 3.0, bounds=(0.5, 4.0))  # fmt: skip


def test_errors_of_families_are_passed_on():
    def family(q):
        if q < 3.0:
            raise ValueError(f"path: ends at 3, got {q}")
        return cubic(q)

    with pytest.raises(ValueError, match="^path: ends at 3"):
        dl.fold_curve(family, FOLD, 3.0, bounds=(0.5, 4.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": 3.0}, r"^family: needs a function of \(q\)"),
        ({"family": lambda q: q}, "^family: needs to return a Residual"),
        ({"point": 3.0}, "^point: needs a Dataset of the schema branch"),
        ({"point": FOLD.drop_attrs().assign_attrs(schema="branch")}, "^point: lacks .*state_scale"),
        ({"q0": 5.0}, "^q0: needs -1 to 4"),
        ({"q0": 1.0}, "^point: needs ∂F/∂x to have a kernel"),
        ({"bounds": (1.0, 0.0)}, "^bounds: needs"),
        ({"direction": "left"}, "^direction: "),
        ({"parameter": ""}, "^parameter: needs a name"),
        ({"events": ["x"]}, "^events: needs functions"),
        ({"progress": 1}, "^progress: needs"),
        ({"stepp": 1.0}, "^stepp: "),
    ],
)
def test_bad_input_is_named(change, message):
    options = {"family": cubic, "point": FOLD, "q0": 3.0, "bounds": (-1.0, 4.0)}
    with pytest.raises((ValueError, TypeError), match=message):
        dl.fold_curve(**{**options, **change})


def test_points_that_are_no_folds_are_refused():
    line = dl.branch(cubic(3.0), [-2.0], -2.0, bounds=(-3.0, 3.0))
    with pytest.raises(ValueError, match="^point: needs one row"):
        dl.fold_curve(cubic, dl.special_points(line), 3.0, bounds=(-1.0, 4.0))
    with pytest.raises(ValueError, match="^point: needs ∂F/∂x to have a kernel.*got dimension 0"):
        dl.fold_curve(cubic, line.isel(step=0), 3.0, bounds=(-1.0, 4.0))

    def pitchfork(q):
        return lambda x, p: np.array([(p - q) * x[0] - x[0] ** 3, -x[1]])

    crossing = dl.special_points(dl.branch(pitchfork(0.0), [0.0, 0.0], -1.0, bounds=(-2.0, 1.0)))
    with pytest.raises(ValueError, match="^point: needs a fold that moves.*branch_point_curve"):
        dl.fold_curve(pitchfork, crossing, 0.0, bounds=(-1.0, 1.0))

    def jumping(q):  # the fold is there, but F is of another branch
        return dl.Residual(lambda x, p: p - x**2 + 5.0, lambda x, p: np.diag(-2.0 * x))

    fold = first_fold(lambda q: lambda x, p: p - x**2, [1.0], 1.0, 0.0, bounds=(-1.0, 2.0))
    with pytest.raises(dl.ConvergenceError, match="^point: Newton's method finds no fold"):
        dl.fold_curve(jumping, fold, 0.0, bounds=(-1.0, 1.0))


@pytest.mark.parametrize(("power", "rate"), [(2, 0.0), (3, 0.0), (3, 0.4)])
def test_branch_points_of_normal_forms_are_followed(power, rate):
    """(p − q²) x − x^k with a stable component that it acts on: p = q² on x = 0."""

    def family(q):
        return lambda x, p: np.array(
            [(p - q**2) * x[0] - x[0] ** power + rate * q * x[0] * x[1], -x[1] + rate * x[0] ** 2]
        )

    line = dl.branch(family(1.0), [0.0, 0.0], 0.0, bounds=(-1.0, 2.0))
    point = dl.special_points(line)
    curve = dl.branch_point_curve(family, point, 1.0, bounds=(-0.5, 1.2))
    dl.schema.validate(curve)
    np.testing.assert_allclose(curve.p, curve.q**2, atol=1e-9)
    assert float(np.abs(curve.state).max()) < 1e-9
    assert float(np.abs(curve.unfolding).max()) < 1e-9
    assert set(curve.kernel_dimension.values.tolist()) == {1}
    assert curve.q.values[[0, -1]].tolist() == [-0.5, 1.2]
    assert kinds(curve) == []


def test_a_pitchfork_with_nothing_beside_it_is_followed():
    """J and F_p vanish as a whole: what is zero is told by how J changes."""

    def family(q):
        return lambda x, p: (p - q) * x - x**3

    point = dl.special_points(dl.branch(family(0.0), [0.0], -1.0, bounds=(-2.0, 1.0)))
    curve = dl.branch_point_curve(family, point, 0.0, bounds=(-0.5, 0.5))
    np.testing.assert_allclose(curve.p, curve.q, atol=1e-10)


def test_a_dying_mode_of_two_layers_is_followed():
    """h = 2: the pitchfork at λ = σ as σ changes, the other modes at s² = σ_j − λ."""
    family = decay_of((3, 3, 3), 4.0, 3.0)
    net = network((3, 3, 3), [4.0, 3.0, 1.0])
    start = decayed(net, np.sqrt(np.array([4.0, 3.0, 1.0]) - 0.5))
    rng = np.random.default_rng(2)
    group = [ortho_group.rvs(3, random_state=rng)]
    curves = []
    for x in (start, dl.act(net, group, start)):
        line = dl.branch(family(1.0), x, 0.5, bounds=(0.4, 1.5), direction="up", max_points=20)
        point = dl.special_points(line).assign_attrs(state_scale=1.0)
        curves.append(dl.branch_point_curve(family, point, 1.0, bounds=(0.7, 1.4)))
    here, there = curves
    np.testing.assert_allclose(here.p, here.q, rtol=1e-11)
    assert set(here.orbit_dimension.values.tolist()) == {3}
    values = np.linalg.svd(dl.weights(here, layer=1).values, compute_uv=False)
    np.testing.assert_allclose(values[:, :2] ** 2, np.subtract.outer([4.0, 3.0], here.q.values).T,
                               rtol=1e-10)  # fmt: skip
    assert here.sizes == there.sizes
    for name in ("p", "q", "arclength", "loss", "transverse_eigenvalue"):
        np.testing.assert_allclose(there[name], here[name], atol=1e-9)


def test_families_in_which_branches_come_apart_are_refused():
    def family(q):
        return lambda x, p: np.array([p * x[0] - x[0] ** 3 + 0.1 * q, -x[1]])

    line = dl.branch(family(0.0), [0.0, 0.0], -1.0, bounds=(-2.0, 1.0))
    point = dl.special_points(line)
    with pytest.raises(ValueError, match="^family: needs to keep the branch point"):
        dl.branch_point_curve(family, point, 0.0, bounds=(-1.0, 1.0))
    with pytest.raises(ValueError, match="^point: needs a branch point that moves with q"):
        dl.branch_point_curve(lambda q: lambda x, p: np.array([(p - q) ** 2 - x[0] ** 4, -x[1]]),
                              point, 0.0, bounds=(-1.0, 1.0))  # fmt: skip


def cubic_field(t, x, params, out):
    out[0] = params[1][0] + params[1][1] * x[0] - x[0] ** 3


def test_families_of_systems_are_compiled_once_and_say_what_stays():
    """27 p² = 4 q³, with what is varied in neither of the attributes."""
    made = []

    def family(q):
        made.append(q)
        numbers = {"p": -2.0, "q": q, "other": 5.0}
        return dl.equilibria(dl.System(cubic_field, dim=1, parameters=numbers), "p")

    branch = dl.branch(family(3.0), [-2.0], -2.0, bounds=(-3.0, 3.0))
    assert branch.attrs["parameter_q"] == 3.0
    point = dl.special_points(branch).isel(step=0)
    kernels = {dl.System(cubic_field, dim=1, parameters=[0.0, k]).field for k in range(3)}
    assert len(kernels) == 1
    begin = time.process_time()
    curve = dl.fold_curve(family, point, 3.0, bounds=(-1.0, 4.0))
    rate = (time.process_time() - begin) / curve.sizes["step"]
    assert rate < 0.1  # 0.3 s are one compilation, of which each row took twenty
    assert len(made) > curve.sizes["step"]
    assert abs(27.0 * curve.p**2 - 4.0 * curve.q**3).max() < 1e-9
    assert curve.attrs["parameter_other"] == 5.0
    assert "parameter_q" not in curve.attrs


@pytest.mark.parametrize("bounds", [(0.5, 1e307), (0.5, 1e15)])
def test_bounds_between_which_differences_tell_nothing_are_refused(bounds):
    with pytest.raises(ValueError, match=r"^bounds: need to be such that differences"):
        dl.fold_curve(lambda q: lambda x, p: p + q * x - x**3, FOLD, 3.0, bounds=bounds)
