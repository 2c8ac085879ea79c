"""Branches against normal forms, discretized equations, and weight decay, all with known truths."""

import numpy as np
import pytest
from equations import along, bratu, decayed, events, size_at, weight_decay
from scipy.stats import ortho_group

import dlnds as dl


def test_folds_of_plain_equations_are_located():
    fold = dl.branch(lambda x, p: p + x**2, [1.0], -1.0, bounds=(-1.5, 1.0))
    dl.schema.validate(fold)
    assert [(kind, round(p, 12)) for kind, p, _ in events(fold)] == [("fold", 0.0)]
    cubic = dl.branch(lambda x, p: p + x - x**3 / 3, [-2.2], 2.2 - 2.2**3 / 3, bounds=(-2.0, 2.0))
    (first, up, one), (second, down, other) = events(cubic)
    assert (first, second, one, other) == ("fold", "fold", 1, 1)
    assert sorted([up, down]) == pytest.approx([-2 / 3, 2 / 3], abs=1e-12)
    assert cubic.attrs["first_stop"] == cubic.attrs["last_stop"] == "bound_reached"
    assert cubic.p.values[[0, -1]].tolist() in ([-2.0, 2.0], [2.0, -2.0])


@pytest.mark.parametrize("form", [lambda x, p: p * x - x**2, lambda x, p: p * x - x**3])
def test_branch_points_of_normal_forms_are_located(form):
    line = dl.branch(form, [0.0], -1.0, bounds=(-1.5, 1.0))
    ((kind, p, kernel),) = events(line)
    assert (kind, kernel) == ("branch_point", 1)
    assert abs(p) < 1e-10
    assert line["index"].values[[0, -1]].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("n", "truth"),
    [(1, 2.943035529), (2, 3.310914971), (4, 3.439807790), (49, 3.513099391)],
)
def test_the_fold_of_the_bratu_problem(n, truth):
    curve = dl.branch(bratu(n), np.zeros(n), 0.0, bounds=(0.0, 4.0), direction="up", max_points=40)
    assert curve.attrs["first_stop"] == "start"
    assert int(curve.attrs["start_step"]) == 0
    kind, p, kernel = events(curve)[0]
    assert (kind, kernel) == ("fold", 1)
    assert p == pytest.approx(truth, abs=6e-10)
    slope = np.linalg.norm(np.exp(curve.state), axis=1)  # ∂F/∂λ
    stiffness = slope + float(curve.spectral_radius.max())
    size = 1.0 + np.linalg.norm(curve.state, axis=1) + abs(curve.p)
    assert (curve.residual <= 2e-12 * stiffness * size).all()  # twice the last Newton step


def test_hopf_points_are_located():
    """Brusselator: B = 1 + A²; Lorenz: pitchfork at r = 1, Hopf at r = 470/19."""
    A = 2.0
    brusselator = dl.Residual(
        lambda x, b: np.array([A - (b + 1) * x[0] + x[0] ** 2 * x[1], b * x[0] - x[0] ** 2 * x[1]])
    )
    steady = dl.branch(brusselator, [A, 0.5], 1.0, bounds=(0.5, 8.0))
    ((kind, p, kernel),) = events(steady)
    assert (kind, kernel) == ("hopf", 0)
    assert p == pytest.approx(1 + A**2, abs=1e-9)
    lorenz = dl.Residual(
        lambda x, r: np.array(
            [10 * (x[1] - x[0]), x[0] * (r - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]]
        )
    )
    zero = dl.branch(lorenz, np.zeros(3), 0.5, bounds=(0.0, 5.0))
    assert [(kind, round(p, 9)) for kind, p, _ in events(zero)] == [("branch_point", 1.0)]
    q = np.sqrt(8 / 3)
    pair = dl.branch(lorenz, [q, q, 1.0], 2.0, bounds=(0.5, 30.0), step_max=2.0)
    found = events(pair)
    assert [kind for kind, _, _ in found] == ["hopf", "branch_point", "hopf"]
    assert [p for _, p, _ in found] == pytest.approx([470 / 19, 1.0, 470 / 19], abs=1e-8)


def test_kernels_of_any_dimension_are_counted():
    """F_i = −x_i + λ x_i/i − x_i³, i repeated i times."""
    m = np.repeat(np.arange(1.0, 5.0), np.arange(1, 5))
    line = dl.branch(
        dl.Residual(
            lambda x, p: -x + p * x / m - x**3,
            lambda x, p: np.diag(p / m - 1.0 - 3.0 * x**2),
            symmetric=True,
        ),
        np.zeros(len(m)),
        0.5,
        bounds=(0.0, 5.0),
    )
    assert [(kind, kernel) for kind, _, kernel in events(line)] == [
        ("branch_point", i) for i in (1, 2, 3, 4)
    ]
    np.testing.assert_allclose([p for _, p, _ in events(line)], [1, 2, 3, 4], atol=1e-12)


@pytest.mark.parametrize("symmetry", ["declared", "minimum_norm"])
@pytest.mark.parametrize(("depth", "sigma"), [(3, (4.0, 3.0, 2.0, 1.0)), (4, (3.0, 1.5))])
def test_weight_decay_folds_where_theory_says(depth, sigma, symmetry):
    """s^h = (h − 2) σ/(2h − 2), λ = s^{h−2} h σ/(2h − 2), with the orbit as the only nullity."""
    d = len(sigma)
    net, equation = weight_decay((d,) * (depth + 1), sigma)
    start = decayed(net, [size_at(s, 0.01, depth) for s in sigma])
    curve = dl.branch(
        equation, start, 0.01, bounds=(0.005, 5.0), direction="up", symmetry=symmetry,
        max_points=80,
    )  # fmt: skip
    dl.schema.validate(curve)
    lowest = min(sigma)
    s = ((depth - 2) * lowest / (2 * depth - 2)) ** (1 / depth)
    kind, p, kernel = events(curve)[0]
    assert (kind, kernel) == ("fold", 1)
    assert p == pytest.approx(s ** (depth - 2) * depth * lowest / (2 * depth - 2), rel=1e-12)
    orbit = (depth - 1) * d * (d - 1) // 2
    assert set(curve.orbit_dimension.values.tolist()) == {orbit}
    regular = curve.event.values == 0
    assert (curve.nullity.values[regular] == orbit).all()
    assert float(curve.multiplier.max()) < 1e-10
    for k in range(0, curve.sizes["step"], 5):  # each row is where theory has a mode
        values = np.linalg.svd(net.unpack(curve.state[k].values)[0], compute_uv=False)
        decay = values ** (depth - 2) * (np.array(sigma) - values**depth)
        np.testing.assert_allclose(decay, float(curve.p[k]), atol=1e-10)


def test_a_dying_mode_of_two_layers_is_a_branch_point():
    """h = 2: λ = σ − s², a pitchfork at λ = σ with its kernel beyond the orbit of dimension one."""
    net, equation = weight_decay((3, 3, 3), (3.0, 2.0, 1.0))
    start = decayed(net, np.sqrt(np.array([3.0, 2.0, 1.0]) - 0.5))
    curve = dl.branch(equation, start, 0.5, bounds=(0.4, 2.0), direction="up")
    ((kind, p, kernel),) = events(curve)
    assert (kind, kernel) == ("branch_point", 1)
    assert p == pytest.approx(1.0, abs=1e-10)
    assert curve.attrs["last_stop"] == "bound_reached"
    np.testing.assert_allclose(float(curve.p[-1]), 0.4, rtol=1e-14)


def test_diagrams_do_not_depend_on_the_representative():
    net, equation = weight_decay((3, 4, 3, 3), (3.0, 2.0, 1.0))
    start = decayed(net, [size_at(s, 0.02, 3) for s in (3.0, 2.0, 1.0)])
    rng = np.random.default_rng(0)
    group = [ortho_group.rvs(d, random_state=rng) for d in (4, 3)]
    options = {"bounds": (0.01, 2.0), "direction": "up", "max_points": 40}
    here, there = (
        dl.branch(equation, x, 0.02, **options) for x in (start, dl.act(net, group, start))
    )
    assert here.sizes == there.sizes
    for name in ("p", "arclength", "size", "loss", "transverse_eigenvalue"):
        np.testing.assert_allclose(there[name], here[name], atol=1e-10)
    for name in ("index", "event", "orbit_dimension", "nullity"):
        np.testing.assert_array_equal(there[name], here[name])
    moved = np.stack([dl.act(net, group, x) for x in here.state.values])
    np.testing.assert_allclose(there.state, moved, atol=1e-9)  # no drift along the orbit


def test_a_circle_is_closed():
    circle = dl.branch(lambda x, p: x**2 + p**2 - 1.0, [1.0], 0.0, bounds=(-2.0, 2.0),
                       direction="up", step_max=0.1)  # fmt: skip
    assert circle.attrs["last_stop"] == "closed"
    assert [kind for kind, _, _ in events(circle)] == ["fold", "fold"]
    points = np.column_stack([circle.state.values, circle.p.values])
    assert np.linalg.norm(np.diff(points, axis=0), axis=1).sum() == pytest.approx(
        2 * np.pi, rel=2e-3
    )
    scaled = points / [circle.attrs["state_scale"], circle.attrs["parameter_scale"]]
    lengths = np.linalg.norm(np.diff(scaled, axis=0), axis=1)
    np.testing.assert_allclose(np.diff(circle.arclength), lengths, rtol=1e-2)  # chords


def test_a_closed_branch_is_gone_round_once():
    def circle(x, p):
        return x**2 + p**2 - 1.0

    options = {"bounds": (-2.0, 2.0), "step_max": 0.1}
    both, up = (dl.branch(circle, [1.0], 0.0, direction=way, **options) for way in ("both", "up"))
    assert both.identical(up)
    assert (both.attrs["first_stop"], both.attrs["last_stop"]) == ("start", "closed")
    tree = dl.diagram(circle, [1.0], 0.0, **options)
    np.testing.assert_array_equal(tree["branch_0"].state, both.state)


def test_rows_at_bounds_say_what_all_others_do():
    """Newton's method led to each of them but the start, which was a solution."""
    net = dl.LinearNetwork(widths=(2, 2, 2), target=np.diag([2.0, 1.0]))
    decay = dl.equilibria(net, "weight_decay")
    curve = dl.branch(decay, net.critical_state((0,)), 0.5, bounds=(0.2, 0.8))
    assert (curve.p[[0, -1]] == [0.2, 0.8]).all()
    assert (curve.newton_iterations[[0, -1]] >= 1).all()
    ends = dl.branch(lambda x, p: p - x**2, [1.0], 1.0, bounds=(0.5, 2.0))
    assert (ends.newton_iterations.values > 0).tolist() == [
        distance != 0.0 for distance in ends.arclength
    ]


def test_nothing_is_followed_beyond_the_bound_that_a_branch_starts_at():
    for p, sides in ((0.0, ("bound_reached", "bound_reached")), (0.5, ("bound_reached",) * 2)):
        line = dl.branch(lambda x, p: p - 2.0 * x, [0.5 * p], p, bounds=(0.0, 1.0))
        assert (line.attrs["first_stop"], line.attrs["last_stop"]) == sides
        assert line.p.values[[0, -1]].tolist() == [0.0, 1.0]
        assert (np.diff(line.p) > 0.0).all()


@pytest.mark.parametrize(("depth", "d"), [(2, 2), (3, 2), (4, 1), (3, 3)])
def test_the_symmetry_changes_where_the_weight_decay_vanishes(depth, d):
    """Without decay the orbit is that of GL, of Σ_i d² dimensions at a point of full rank.

    At λ ≠ 0 the eigenvalues on what is left of it have the sign of −λ: they all change at once.
    """
    sigma = np.arange(d, 0, -1.0) + 1.0
    net = dl.LinearNetwork(widths=(d,) * (depth + 1), target=np.diag(sigma))
    start = decayed(net, [size_at(s, 0.1, depth) for s in sigma])
    equation = dl.equilibria(net, "weight_decay")
    curve = dl.branch(equation, start, 0.1, bounds=(-0.3, 0.2))
    dl.schema.validate(curve)
    assert events(curve) == [("symmetry_change", 0.0, 0)]
    (row,) = np.flatnonzero(curve.event.values)
    small, large = (depth - 1) * d * (d - 1) // 2, (depth - 1) * d * d
    orbits = np.full(curve.sizes["step"], small)
    orbits[row] = large
    np.testing.assert_array_equal(curve.orbit_dimension, orbits)
    np.testing.assert_array_equal(curve.nullity, orbits)
    index = np.where(curve.p < 0.0, large - small, 0)
    np.testing.assert_array_equal(curve["index"], index)
    x = curve.state.values[row]
    assert np.abs(net.gradient(x)).max() < 1e-13
    # No branch of other p starts there: what crosses is the orbit.
    tree = dl.diagram(equation, start, 0.1, bounds=(-0.3, 0.2))
    assert list(tree.children) == ["branch_0"]


def test_user_events_and_observations():
    curve = dl.branch(
        dl.Residual(lambda x, p: p - x, observe=lambda x, p: {"square": float(x[0] ** 2)}),
        [0.0],
        0.0,
        bounds=(-1.0, 1.0),
        events=[lambda x, p: x[0] - 0.3],
    )
    assert [(kind, round(p, 12)) for kind, p, _ in events(curve)] == [("user", 0.3)]
    np.testing.assert_allclose(curve.square, curve.p**2, atol=1e-14)
    assert (np.diff(curve.arclength) > 0.0).all()
    assert float(curve.arclength[curve.attrs["start_step"]]) == 0.0


def test_two_equal_calls_give_identical_branches():
    net, equation = weight_decay((2, 2, 2, 2), (2.0, 1.0))
    start = decayed(net, [size_at(s, 0.05, 3) for s in (2.0, 1.0)])
    one, two = (dl.branch(equation, start, 0.05, bounds=(0.01, 1.0)) for _ in range(2))
    assert one.identical(two)


def test_interpolated_points_depend_on_no_hidden_random_state():
    def fold_at_the_bound():
        return dl.branch(lambda x, p: p + x**2, [1.0], -1.0, bounds=(-1.5, 0.0))

    np.random.seed(1)  # noqa: NPY002
    before = str(np.random.get_state())  # noqa: NPY002
    first = fold_at_the_bound()
    assert str(np.random.get_state()) == before  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert fold_at_the_bound().identical(first)


def test_traps_end_in_errors_that_say_what_to_do():
    net, equation = weight_decay((2, 2, 2, 2), (2.0, 1.0))
    start = decayed(net, [size_at(s, 0.05, 3) for s in (2.0, 1.0)])
    bare = dl.Residual(equation.fun, equation.jacobian, symmetric=True)
    with pytest.raises(ValueError, match="^x0: .* directions lead on.*declare generators"):
        dl.branch(bare, start, 0.05, bounds=(0.01, 1.0))
    wrong = dl.Residual(lambda x, p: p - x**3 - x, lambda x, p: np.array([[5.0]]))
    with pytest.raises(ValueError, match="^jacobian: needs ∂F/∂x of fun.*by differences"):
        dl.branch(wrong, [2.0], 0.0, bounds=(-1.0, 1.0))
    with pytest.raises(dl.ConvergenceError, match="^x0: "):
        dl.branch(lambda x, p: p + x**2 + 1.0, [1.0], 0.0, bounds=(-0.5, 1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bounds": (1.0, 0.0)}, "^bounds: needs"),
        ({"bounds": 3.0}, "^bounds: needs"),
        ({"p0": 7.0}, "^p0: needs -1 to 1"),
        ({"step": -1.0}, "^step: needs"),
        ({"step_min": 0.0}, "^step_min: needs"),
        ({"step_max": 1e-9}, "^step_max: needs"),
        ({"direction": "left"}, "^direction: "),
        ({"symmetry": "none"}, "^symmetry: "),
        ({"max_points": 0}, "^max_points: needs"),
        ({"events": ["x"]}, "^events: needs functions"),
        ({"x0": [np.nan]}, "^x0: "),
        ({"residual": 3.0}, "^residual: needs a Residual or a function"),
        ({"residual": lambda x, p: np.zeros(2)}, "^fun: needs to return as many numbers"),
        ({"stepp": 1.0}, "^stepp: "),
    ],
)
def test_bad_input_is_named(change, message):
    options = {"residual": lambda x, p: p + x, "x0": [0.0], "p0": 0.0, "bounds": (-1.0, 1.0)}
    with pytest.raises((ValueError, TypeError), match=message):
        dl.branch(**{**options, **change})


def test_special_points_need_a_branch():
    with pytest.raises(TypeError, match="^branch: needs a Dataset of the schema branch"):
        dl.special_points(3)


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize(("learnt", "before", "after"), [((0, 1), 1, 0), ((2,), 1, 2)])
def test_the_index_jumps_where_a_learnt_mode_crosses_another(depth, learnt, before, after):
    """Σ = diag(3, 1 + θ, 2 − θ): the eigenvalue s_j^{h−2} (σ_j − σ_k) vanishes at θ = 1/2."""
    _, equation, start = along([3.0, 1.0, 2.0], [0.0, 1.0, -1.0], learnt, depth)
    curve = dl.branch(
        equation, start, 0.0, bounds=(0.0, 1.0), direction="up", step_max=0.2, n_eigenvalues=20
    )
    ((kind, p, kernel),) = events(curve)
    assert (kind, kernel) == ("branch_point", 1)
    assert p == pytest.approx(0.5, abs=1e-12)
    regular = curve.isel(step=curve.event.values == 0)
    assert set(regular["index"].values[regular.p.values < 0.5]) == {before}
    assert set(regular["index"].values[regular.p.values > 0.5]) == {after}
    sigma = np.array([np.full(curve.sizes["step"], 3.0), 1.0 + curve.p, 2.0 - curve.p])
    mode, other = (1, 2) if 1 in learnt else (2, 1)
    known = -(sigma[mode] ** (1.0 - 2.0 / depth)) * (sigma[mode] - sigma[other])
    gaps = np.abs(curve.transverse_eigenvalue.values - known[:, None])
    assert np.nanmin(gaps, axis=1).max() < 1e-12


@pytest.mark.parametrize(("depth", "end"), [(2, 0.0), (3, 1.0)])
@pytest.mark.parametrize("learnt", [(2,), (0, 2)])
def test_the_orbit_loses_dimensions_where_a_learnt_mode_vanishes(depth, end, learnt):
    """σ = 1 − 2θ = s^h: two layers turn round at s = 0, three go through it without a fold."""
    net, equation, start = along([3.0, 2.0, 1.0], [0.0, 0.0, -2.0], learnt, depth)
    curve = dl.branch(equation, start, 0.0, bounds=(0.0, 1.0), direction="up", step_max=0.2)
    ((kind, p, _),) = events(curve)
    assert kind == "symmetry_change"
    assert p == pytest.approx(0.5, abs=1e-12)
    assert float(curve.p[-1]) == end
    (row,) = np.flatnonzero(curve.event.values)
    ranks = np.full(curve.sizes["step"], float(len(learnt)))
    ranks[row] -= 1.0
    np.testing.assert_array_equal(curve["rank"], ranks)
    for x, q in zip(curve.state.values, curve.p.values, strict=True):
        known = np.zeros(3)
        known[list(learnt)] = np.array([3.0, 2.0, 1.0 - 2.0 * q])[list(learnt)]
        np.testing.assert_allclose(net.product(x), np.diag(known), atol=1e-12)


@pytest.mark.parametrize("start", [0.25, 0.3])
@pytest.mark.parametrize("near", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_branch_points_next_to_a_change_of_the_symmetry_are_found(near, start):
    """On the circle x² + y² = p the growth of z is p/2 − near, and −near where the circle dies."""

    def field(x, p):
        square = x[0] ** 2 + x[1] ** 2
        across = (p - near) * x[2] - x[2] ** 3 - 0.5 * square * x[2]
        return np.array([x[0] * (p - square), x[1] * (p - square), across])

    circle = dl.Residual(field, generators=lambda x, p: np.array([[-x[1], x[0], 0.0]]))
    x = np.sqrt(start) * np.array([0.6, 0.8, 0.0])
    curve = dl.branch(circle, x, start, bounds=(-1.0, 1.0))
    kinds, places, kernels = zip(*events(curve), strict=True)
    assert kinds == ("branch_point", "symmetry_change", "branch_point")
    assert kernels == (1, 2, 1)
    np.testing.assert_allclose(places, [2.0 * near, 0.0, 2.0 * near], rtol=1e-9, atol=1e-12)
    regular = curve.isel(step=curve.event.values == 0)
    grows = regular.p.values > 2.0 * near
    np.testing.assert_array_equal(regular["index"], grows)


@pytest.mark.parametrize("e", [1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12])
@pytest.mark.parametrize("p0", [0.95, 0.5, -0.7])
def test_components_that_do_not_meet_are_not_left_for_one_another(p0, e):
    """p x − x³ + e: the upper component is p = x² − e/x, the other one folds at x³ = −e/2.

    They are apart by more than e^{1/3} ≥ 1e-4 everywhere.
    """
    upper, *lower = np.sort(np.roots([-1.0, 0.0, p0, e]).real)[::-1]
    step = 0.2 if p0 == 0.5 else 0.05
    curve = dl.branch(lambda x, p: p * x - x**3 + e, [upper], p0, bounds=(-1.0, 1.0), step=step)
    assert events(curve) == []
    assert curve.state.values.min() > 0.0
    np.testing.assert_allclose(np.sort(curve.p.values[[0, -1]]), [-1.0, 1.0])
    if p0 > 0.0:
        curve = dl.branch(lambda x, p: p * x - x**3 + e, lower[-1:], p0, bounds=(-1.0, 1.0))
        ((kind, p, _),) = events(curve)
        assert kind == "fold"
        assert p == pytest.approx(3.0 * np.cbrt(0.5 * e) ** 2, rel=1e-6)
        assert curve.state.values.max() < 0.0
        np.testing.assert_allclose(curve.p.values[[0, -1]], 1.0)


def test_where_rounding_joins_components_their_distance_is_within_the_accuracy():
    """p x − x³ + e with e near the rounding of F: what is not told apart counts as a crossing."""
    e = 1e-15
    curve = dl.branch(lambda x, p: p * x - x**3 + e, [1.0], 1.0 - e, bounds=(-1.0, 1.5))
    points = dl.special_points(curve)
    assert dl.schema.decode(points.event).values.tolist() == ["branch_point"]
    # Along both axes p x = −e next to it: apart by twice the root of e, half of the scaled sizes.
    assert np.sqrt(e) <= points.accuracy.values[0] <= 1e-6


def test_nothing_folds_along_a_branch_at_constant_p():
    """At σ_j = σ_k the critical points of any projector between u_j and u_k are one such branch."""
    net, equation, _ = along([3.0, 1.0, 2.0], [0.0, 1.0, -1.0], (0, 1), 3)
    turned = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(0.3), np.sin(0.3)]])
    size = np.diag(np.cbrt([3.0, 1.5]))
    start = net.pack([size @ turned, size, turned.T @ size])
    curve = dl.branch(
        equation, start, 0.5, bounds=(0.0, 1.0), direction="up", step_max=0.2, max_points=120
    )
    np.testing.assert_allclose(curve.p, 0.5, atol=1e-11)
    assert float(curve.arclength[-1]) > 1.0
    assert curve.attrs["last_stop"] == "closed"  # half a turn leads to the same orbit of GL
    # Those at which the projector is on one of the modes go on to other θ.
    found = dl.special_points(curve)
    assert [kind for kind, _, _ in events(curve)] == ["branch_point"] * found.sizes["step"]
    strengths = [np.diag(net.product(x))[1:] / 1.5 for x in found.state.values]
    np.testing.assert_allclose(np.sort(strengths), [[0.0, 1.0]] * len(strengths), atol=1e-10)
    assert sorted(np.argmax(strengths, axis=1)) == [0, 1]
    assert {kernel for _, _, kernel in events(curve)} == {1}


def test_the_secant_leads_along_the_same_curve():
    net, equation = weight_decay((2, 2, 2), [3.0, 2.0])
    start = decayed(net, np.sqrt([2.5, 1.5]))
    options = {"bounds": (0.1, 2.9), "direction": "up", "step_max": 0.2}
    secant, tangent = (
        dl.branch(equation, start, 0.5, predictor=word, **options) for word in ("secant", "tangent")
    )
    assert (secant.attrs["predictor"], tangent.attrs["predictor"]) == ("secant", "tangent")
    assert not np.allclose(secant.p[:6], tangent.p[:6], atol=1e-6)
    for curve in (secant, tangent):
        assert float(curve.residual.max()) < 1e-11
    located = [events(curve) for curve in (secant, tangent)]
    assert [(k, n) for k, _, n in located[0]] == [(k, n) for k, _, n in located[1]]
    assert [p for _, p, _ in located[0]] == pytest.approx([p for _, p, _ in located[1]], abs=1e-10)
    fold = dl.branch(lambda x, p: p + x**2, [1.0], -1.0, bounds=(-1.5, 1.0), predictor="secant")
    assert [(k, round(p, 12)) for k, p, _ in events(fold)] == [("fold", 0.0)]
    with pytest.raises(ValueError, match="^predictor: "):
        dl.branch(equation, start, 0.5, predictor="cubic", **options)


def test_pairs_of_different_frequency_that_cross_at_one_place_are_two_hopf_points():
    """ż = (p + iω) z ∓ |z|² z: at p = 0 stable orbits of ω = 1 leave 0, unstable ones of 2.5."""

    def field(x, p):
        (a, b, c, d), near, far = x, x[0] ** 2 + x[1] ** 2, x[2] ** 2 + x[3] ** 2
        one = (p * a - b - a * near, a + p * b - b * near)
        other = (p * c - 2.5 * d + c * far, 2.5 * c + p * d + d * far)
        return np.array([*one, *other])

    branch = dl.branch(field, np.zeros(4), -0.5, bounds=(-1.0, 1.0))
    found = dl.special_points(branch)
    assert [kind for kind, _, _ in events(branch)] == ["hopf", "hopf"]
    np.testing.assert_allclose(found.p, 0.0, atol=1e-12)
    words = dl.schema.decode(found.criticality).values.tolist()
    assert sorted(words) == ["subcritical", "supercritical"]
    assert branch["index"].values[[0, -1]].tolist() == [0, 4]


def test_a_branch_point_has_the_tangent_of_its_branch():
    """x = ± p √(1 − p²) crosses itself at 0, where its slope is ± 1."""
    eight = dl.branch(lambda x, p: x**2 - p**2 + p**4, [0.48], 0.6, bounds=(-2.0, 2.0), step=0.1)
    (rows,) = np.nonzero(dl.schema.decode(eight.event).values == "branch_point")
    assert len(rows) == 2
    for row in rows:
        here, before = (
            np.array([float(eight.tangent[k, 0]), float(eight.tangent_p[k])])
            for k in (row, row - 1)
        )
        np.testing.assert_allclose(here, np.sqrt(0.5) * np.sign(before), atol=1e-6)


def test_a_closed_branch_ends_with_the_index_that_it_began_with():
    """The last step passes the crossing of x² = p² (1 − p²), at which the index changes."""
    eight = dl.branch(lambda x, p: x**2 - p**2 + p**4, [0.05], 0.05, bounds=(-2.0, 2.0), step=0.1)
    assert eight.attrs["last_stop"] == "closed"
    assert [kind for kind, _, _ in events(eight)] == ["fold", "branch_point"] * 2
    assert int(eight.event[-2]) > 0
    assert int(eight.event[-1]) == 0
    # ∂F/∂x = 2x > 0 where it starts
    assert int(eight["index"][0]) == int(eight["index"][-1]) == 1


def test_the_dimension_of_the_isotropy_completes_that_of_the_orbit():
    """Rank r of d = 3 leaves O(3 − r) in each of two hidden layers."""
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=np.diag([4.0, 3.0, 2.0]))
    equation = dl.equilibria(net, "weight_decay")
    for rank, isotropy in ((3, 0), (2, 0), (1, 2), (0, 6)):
        sizes = [size_at(s, 0.05, 3) for s in (4.0, 3.0, 2.0)[:rank]]
        curve = dl.branch(equation, decayed(net, sizes), 0.05, bounds=(0.01, 0.5), max_points=3)
        assert (curve.isotropy_dimension == isotropy).all()
        assert (curve.orbit_dimension == 6 - isotropy).all()
    plain = dl.branch(lambda x, p: p - x, [0.0], 0.0, bounds=(-1.0, 1.0))
    assert "isotropy_dimension" not in plain


def test_an_equation_is_not_asked_beyond_the_bounds():
    """Along p = x² corrections lead to larger p than predicted, next to the bound beyond it."""

    def parabola(x, p):
        if not 0.0 <= p <= 1.0:
            raise ValueError("p: is outside")
        return p - x**2

    exact = dl.Residual(parabola, lambda x, p: np.diag(-2.0 * x), derivative=lambda x, p: [1.0])
    for start in (0.5, 0.1, 0.93, 0.999):
        curve = dl.branch(exact, [start], start**2, bounds=(0.0, 1.0), direction="up", step=0.4)
        assert curve.attrs["last_stop"] == "bound_reached"
        assert float(curve.p[-1]) == 1.0
        np.testing.assert_allclose(curve.state[:, 0] ** 2, curve.p, atol=1e-12)


@pytest.mark.parametrize("change", [lambda x: x[:-1], lambda x: np.append(x, 1.0)])
@pytest.mark.parametrize("follow", [dl.branch, dl.diagram])
def test_starts_of_another_length_are_refused_by_name(follow, change):
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    start = change(net.critical_state((0,)))
    with pytest.raises(ValueError, match="^x0: needs a shape ending in .12."):
        follow(dl.equilibria(net, "weight_decay"), start, 0.1, bounds=(0.0, 0.2))


def test_branches_end_where_a_derivative_is_not_finite():
    """x = √p from p = 1 down: at p = 0 the slope is infinite, and beyond it F is NaN."""
    root = dl.branch(lambda x, p: np.sqrt(p) - x, [1.0], 1.0, bounds=(-1.0, 2.0))
    assert root.attrs["first_stop"] == "not_finite"
    assert root.attrs["last_stop"] == "bound_reached"
    assert 0.0 <= float(root.p[0]) < 0.05
    np.testing.assert_allclose(root.state[:, 0] ** 2, root.p, rtol=0, atol=1e-10)


@pytest.mark.parametrize("event", [lambda x: x[0], lambda x, p, q: q])
def test_events_of_other_arguments_are_refused(event):
    with pytest.raises(TypeError, match=r"^events: needs a function of \(x, p\)"):
        dl.branch(lambda x, p: p - x, [0.0], 0.0, bounds=(-1.0, 1.0), events=[event])


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_what_crosses_a_branch_at_a_constant_parameter_is_found_without_symmetry(size, seed):
    """p (y_0 − 1)(y_0 + ½) = 0, y_i = (c_i + e_i p) y_0 in mixed rows: p = 0, y_0 = 1 and −½."""
    rng = np.random.default_rng(seed)
    c, e = rng.normal(size=(2, size - 1))
    mix = np.linalg.qr(rng.normal(size=(size, size)))[0] + 0.2 * np.eye(size)

    def field(y, p):
        first = p * (y[0] - 1.0) * (y[0] + 0.5)
        return mix @ np.append(first, y[1:] - (c + e * p) * y[0])

    def jacobian(y, p):
        J = np.eye(size)
        J[0, 0], J[1:, 0] = p * (2.0 * y[0] - 0.5), -(c + e * p)
        return mix @ J

    def slope(y, p):
        return mix @ np.append((y[0] - 1.0) * (y[0] + 0.5), -e * y[0])

    equation = dl.Residual(field, jacobian, derivative=slope)
    branch = dl.branch(equation, np.append(0.2, 0.2 * c), 0.0, bounds=(-1.0, 1.0), max_points=30)
    assert np.ptp(branch.p.values) < 1e-9
    points = dl.special_points(branch)
    crossed = points.isel(step=dl.schema.decode(points.event).values == "branch_point")
    np.testing.assert_allclose(np.sort(crossed.state.values[:, 0]), [-0.5, 1.0], atol=1e-7)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("field", "jacobian", "x0"),
    [
        (
            lambda x, p: np.array([p - x[0] ** 2, x[0] - x[1]]),
            lambda x, p: np.array([[-2.0 * x[0], 0.0], [1.0, -1.0]]),
            [1.0, 1.0],
        ),
        (  # at x = 0 it is symmetric
            lambda x, p: np.array([p * x[0] - x[0] * x[1], p * x[1] - x[0] ** 2]),
            lambda x, p: np.array([[p - x[1], -x[0]], [-2.0 * x[0], p]]),
            [0.0, 0.0],
        ),
    ],
)
def test_equations_that_are_not_symmetric_are_not_taken_as_such(field, jacobian, x0, known):
    """Without the word, (p − x², x − y) has one fold and the index of its eigenvalues −2x, −1."""
    given = jacobian if known else None
    with pytest.raises(ValueError, match="^symmetric: "):
        dl.branch(dl.Residual(field, given, symmetric=True), x0, 1.0, bounds=(-1.0, 2.0))
    free = dl.branch(dl.Residual(field, given), x0, 1.0, bounds=(-1.0, 2.0))
    kinds = ["fold"] if any(x0) else ["branch_point"]
    assert [kind for kind, *_ in events(free)] == kinds
    if any(x0):
        regular = free.isel(step=free.event.values == 0)
        np.testing.assert_array_equal(regular["index"], regular.state[:, 0] < 0.0)


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_gradients_are_symmetric_up_to_what_differences_err_by(size):
    """F = p A x − (xᵀAx) A x/s², with eigenvalues of A from 1e-3 to 1e3, by differences."""
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    stiff = turn @ np.diag([1e-3, 1e-1, 10.0, 1e3]) @ turn.T

    def gradient(x, p):
        return stiff @ (p * x) - stiff @ x * (x @ stiff @ x) / size**2

    line = dl.branch(dl.Residual(gradient, symmetric=True), np.zeros(4), 0.5, bounds=(0.2, 1.0))
    assert line.attrs["last_stop"] == "bound_reached"


BY_WHERE_STEPS_FALL = {"step_too_small", "unresolved"}
STOPS = [
    ({"bound_reached"}, lambda x, p: x * x - p),
    ({"closed"}, lambda x, p: x * x + p * p - 2.0),
    ({"not_finite"}, lambda x, p: x - np.sqrt(p)),
    ({"step_too_small"}, lambda x, p: x - np.sign(p)),
    ({"step_too_small"}, lambda x, p: x - p + 1e-6 * np.sin(1e9 * p)),
    ({"max_points"}, lambda x, p: x * p - 1.0),
    ({"max_points"}, lambda x, p: x - np.maximum(p, 0.0)),
    ({"unresolved"}, lambda x, p: x**5 - p**3),
    (BY_WHERE_STEPS_FALL, lambda x, p: np.abs(x) - p),
    (BY_WHERE_STEPS_FALL, lambda x, p: x**2 - p**3),
    (BY_WHERE_STEPS_FALL, lambda x, p: (10.0 * np.maximum(x, 0.0) + x) / 11.0 - p),
]


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(("words", "fun"), STOPS)
def test_ends_of_branches_have_the_reasons_that_the_page_of_questions_tells(words, fun):
    """A start that is no solution is corrected, and is never the reason."""
    for x0 in (1.0, 1.0 + 1e-8):
        found = dl.branch(dl.Residual(fun), [x0], 1.0, bounds=(-1.5, 2.0), max_points=100)
        assert words & {found.attrs["first_stop"], found.attrs["last_stop"]}
        assert found.residual.max() < 1e-6


def test_starts_that_no_branch_begins_at_are_refused():
    """No solution within reach, a branch point, a symmetry that is not declared."""
    with pytest.raises(dl.ConvergenceError, match="^x0: "):
        dl.branch(dl.Residual(lambda x, p: x * x + 1.0 - p), [1.0], -1.0, bounds=(-2.0, 2.0))
    for fun, x0, p0 in (
        (lambda x, p: x * x - p * p, [0.0], 0.0),
        (lambda x, p: x * (p - x @ x), [1.0, 0.0], 1.0),
    ):
        with pytest.raises(ValueError, match="^x0: 2 directions lead on"):
            dl.branch(dl.Residual(fun), x0, p0, bounds=(-1.0, 2.0))
    near = dl.branch(dl.Residual(lambda x, p: x * x - p), [1.3], 1.0, bounds=(-1.0, 2.0))
    row = near.isel(step=near.attrs["start_step"])
    assert (row.p.item(), row.state.item()) == (1.0, pytest.approx(1.0, rel=1e-10))
