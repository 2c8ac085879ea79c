"""Stored branches go on as if they had never stopped, and parts join to the whole."""

import itertools
import signal

import numpy as np
import pytest
from equations import decayed, events, size_at, weight_decay

import dlnds as dl


def cubic(x, p):
    return p + x - x**3 / 3


def circle(x, p):
    return x**2 + p**2 - 1.0


def parabola(x, p):
    return p - x**2


def decay():
    """Two modes, three layers: an orbit of dimension two, and folds."""
    net, equation = weight_decay((2, 2, 2, 2), (2.0, 1.0))
    return equation, decayed(net, [size_at(s, 0.05, 3) for s in (2.0, 1.0)]), 0.05


def stored(data, folder):
    dl.save(data, folder / "branch.nc")
    found = dl.load(folder / "branch.nc")
    assert found.identical(data)
    dl.schema.validate(found)
    return found


def tiny(x, p):
    """The cubic with x in units of 1e-6 and p in units of 1e6."""
    return cubic(1e6 * x, 1e-6 * p)


CASES = {
    "cubic": (lambda: (cubic, [-2.2], 2.2 - 2.2**3 / 3), {"bounds": (-2.0, 2.0)}),
    "secant": (
        lambda: (cubic, [-2.2], 2.2 - 2.2**3 / 3),
        {"bounds": (-2.0, 2.0), "predictor": "secant"},
    ),
    "closed": (
        lambda: (circle, [1.0], 0.0),
        {"bounds": (-2.0, 2.0), "step_max": 0.1, "direction": "up"},
    ),
    "from a fold": (
        lambda: (circle, [0.0], 1.0),
        {"bounds": (-2.0, 2.0), "step_max": 0.1, "direction": "up"},
    ),
    "scales": (lambda: (tiny, [-2.2e-6], 1e6 * (2.2 - 2.2**3 / 3)), {"bounds": (-2e6, 2e6)}),
    "declared": (decay, {"bounds": (0.01, 1.0)}),
    "minimum_norm": (decay, {"bounds": (0.01, 1.0), "symmetry": "minimum_norm"}),
}


@pytest.mark.parametrize("points", [1, 2, 3])
def test_points_next_to_a_start_on_a_fold_are_gone_on_from(points):
    """What a step looks back to may be the start, which has an event here."""
    options = {"bounds": (-2.0, 2.0), "step_max": 0.1, "direction": "up"}
    whole = dl.branch(circle, [0.0], 1.0, **options)
    short = dl.branch(circle, [0.0], 1.0, max_points=points, **options)
    assert dl.extend_branch(circle, short).identical(whole)


@pytest.mark.parametrize("case", CASES)
def test_a_saved_branch_goes_on_as_if_it_had_never_stopped(case, tmp_path):
    make, options = CASES[case]
    problem = make()
    whole = dl.branch(*problem, max_points=100, **options)
    part = stored(dl.branch(*problem, max_points=4, **options), tmp_path)
    assert part.attrs["last_stop"] == "max_points"
    for side, points in itertools.product(("last", "first"), (5, 91)):
        if part.attrs[f"{side}_stop"] == "max_points":
            longer = dl.extend_branch(problem[0], part, side=side, max_points=points)
            part = stored(longer, tmp_path)
    assert whole.attrs["last_stop"] in ("bound_reached", "closed")
    assert len(events(whole)) > 0
    assert part.identical(whole)


def test_every_regular_row_is_one_to_go_on_from():
    whole = dl.branch(cubic, [-2.2], 2.2 - 2.2**3 / 3, bounds=(-2.0, 2.0))
    start, n = whole.attrs["start_step"], whole.sizes["step"]
    regular = np.flatnonzero(whole.event.values == 0)
    for row in regular[(regular >= start) & (regular < n - 1)][::3].tolist():
        cut = whole.isel(step=slice(None, row + 1))
        assert dl.extend_branch(cubic, cut).identical(whole)
        assert dl.merge_branches(cut, whole.isel(step=slice(row, None))).identical(whole)
        assert dl.merge_branches(whole.isel(step=slice(row, None)), cut).identical(whole)


def test_a_cut_at_a_special_point_goes_on_from_there():
    whole = dl.branch(cubic, [-2.2], 2.2 - 2.2**3 / 3, bounds=(-2.0, 2.0))
    fold = np.flatnonzero(whole.event.values)[0]
    found = dl.extend_branch(cubic, whole.isel(step=slice(None, fold + 1)))
    assert [kind for kind, _, _ in events(found)] == ["fold", "fold"]
    np.testing.assert_allclose(found.state[-1], whole.state[-1], rtol=1e-12)


def test_the_two_sides_of_a_start_are_one_branch():
    problem = decay()
    down, up, both = (
        dl.branch(*problem, bounds=(0.01, 1.0), direction=way) for way in ("down", "up", "both")
    )
    assert dl.merge_branches(down, up).identical(both)
    assert dl.merge_branches(up, down).identical(both)


@pytest.mark.parametrize("swapped", [False, True])
def test_branches_that_run_against_each_other_are_turned(swapped):
    """p = x²: through the fold to x = −2, and from there on, where p rises again."""
    one = dl.branch(parabola, [1.0], 1.0, bounds=(-1.0, 4.0), direction="down", step_max=0.3)
    other = dl.branch(parabola, [-2.0], 4.0, bounds=(-1.0, 9.0), direction="up", step_max=0.3)
    assert one.p[0] == other.p[0] == 4.0
    whole = dl.merge_branches(other, one) if swapped else dl.merge_branches(one, other)
    x = whole.state.values[:, 0]
    sign = -1.0 if swapped else 1.0
    assert x[[0, -1]].tolist() == pytest.approx([-3.0, 1.0][:: int(sign)], rel=1e-12)
    assert whole.sizes["step"] == one.sizes["step"] + other.sizes["step"] - 1
    np.testing.assert_allclose(whole.p, x**2, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(whole.tangent[:, 0], sign / np.sqrt(1.0 + 4.0 * x**2), rtol=1e-9)
    size, reach = whole.attrs["state_scale"], whole.attrs["parameter_scale"]
    bent = 2.0 * x * size / reach  # slope of the parabola in scaled coordinates
    exact = (bent * np.sqrt(1.0 + bent**2) + np.arcsinh(bent)) * reach / (4.0 * size**2)
    gone = sign * (exact - exact[whole.attrs["start_step"]])
    # arclength sums chords, which are shorter than arcs; tangents turn by arccos 0.95 at most
    short = np.abs(gone) - np.abs(whole.arclength.values)
    assert (short >= -1e-12).all()
    assert (short <= 0.05 * np.abs(gone)).all()
    assert (np.sign(whole.arclength) == np.sign(gone)).all()
    assert whole.attrs["bounds"].tolist() == [-1.0, 9.0]
    assert float(whole.arclength[whole.attrs["start_step"]]) == 0.0


def test_a_bound_is_passed_with_wider_ones():
    first = dl.branch(parabola, [1.0], 1.0, bounds=(0.5, 2.0), direction="up")
    with pytest.raises(ValueError, match=r"^bounds: needs room beyond.*p = 2, got \(0.5, 2\)"):
        dl.extend_branch(parabola, first)
    found = dl.extend_branch(parabola, first, bounds=(0.5, 4.0))
    assert found.p[-1] == 4.0
    assert found.attrs["bounds"].tolist() == [0.5, 4.0]
    assert found.isel(step=slice(None, first.sizes["step"])).p.identical(first.p)
    back = dl.extend_branch(parabola, found, side="first")
    assert back.p[0] == 0.5
    assert back.attrs["start_step"] == back.sizes["step"] - found.sizes["step"] > 0
    np.testing.assert_allclose(back.p, back.state[:, 0] ** 2, rtol=1e-12)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_start_on_a_fold_is_one_from_both_sides(way):
    """One row, one event, whether the sides are computed at once or one after the other."""
    whole = dl.branch(parabola, [0.0], 0.0, bounds=(-1.0, 1.0))
    assert events(whole) == [("fold", 0.0, 1)]
    half = dl.branch(parabola, [0.0], 0.0, bounds=(-1.0, 1.0), direction=way)
    assert events(half) == [("fold", 0.0, 1)]
    side = "first" if way == "up" else "last"
    assert half.attrs[f"{side}_stop"] == "start"
    assert dl.extend_branch(parabola, half, side=side).identical(whole)


def test_a_branch_point_on_a_bound_stays_one():
    """p x − x³ on x = 0, cut at p = 0: the row is kept, and seen from both sides."""

    def pitchfork(x, p):
        return p * x - x**3

    cut = dl.branch(pitchfork, [0.0], -0.5, bounds=(-1.0, 0.0))
    longer = dl.extend_branch(pitchfork, cut, bounds=(-1.0, 1.0))
    for found in (cut, longer):
        assert events(found) == [("branch_point", 0.0, 1)]
        assert found["index"].values.tolist() == (found.p > 0.0).values.tolist()
    assert longer.isel(step=slice(None, cut.sizes["step"])).state.identical(cut.state)
    assert longer.p[-1] == 1.0


def folded(size):
    """p + c x − x³: folds at x² = c/3."""
    return lambda x, p: p + size * x - x**3


def interrupted(x, p):
    return np.where(np.abs(x - 0.7) < 0.05, np.nan, p - x)


STOPS = {
    "step_too_small": (folded(0.01), {"step": 0.4, "step_min": 0.4}, {"step_min": 1e-7}),
    "unresolved": (folded(0.001), {"step": 0.1, "step_min": 0.1}, {"step_min": 1e-7}),
    "max_points": (folded(0.01), {"max_points": 2}, {}),
    "not_finite": (
        dl.Residual(interrupted, lambda x, p: -np.eye(1)),
        *({"step_max": 0.05}, {"step_min": 0.3, "step_max": 0.4}),
    ),
}


@pytest.mark.parametrize("stop", STOPS)
def test_an_end_is_left_with_other_steps(stop):
    equation, before, after = STOPS[stop]
    options = {"bounds": (-1.1, 1.0), "direction": "up"}
    short = dl.branch(equation, [-1.0], -1.0, **options, **before)
    assert short.attrs["last_stop"] == stop
    assert float(short.p[-1]) < 0.7
    longer = dl.extend_branch(equation, short, **after)
    assert longer.attrs["last_stop"] == "bound_reached"
    assert longer.isel(step=slice(None, short.sizes["step"])).state.identical(short.state)
    assert [kind for kind, *_ in events(longer)] == ([] if stop == "not_finite" else 2 * ["fold"])
    force = [equation(x, p) if callable(equation) else equation.fun(x, p)
             for x, p in zip(longer.state.values, longer.p.values, strict=True)]  # fmt: skip
    np.testing.assert_allclose(force, 0.0, atol=1e-12)


def test_files_without_scales_are_refused():
    short = dl.branch(parabola, [1.0], 1.0, bounds=(0.0, 9.0), max_points=3)
    for name in ("state_scale", "parameter_scale", "derivative_scale"):
        old = short.drop_attrs().assign_attrs({k: v for k, v in short.attrs.items() if k != name})
        for call in (dl.extend_branch, dl.merge_branches):
            with pytest.raises(ValueError, match=f"^(branch|other): lacks the attribute '{name}'$"):
                call(parabola if call is dl.extend_branch else short, old)


def test_any_row_is_a_start_of_the_same_curve():
    equation, x, p = decay()
    curve = dl.branch(equation, x, p, bounds=(0.02, 1.0))
    regular = np.flatnonzero(curve.event.values == 0)
    for k in (1, len(regular) // 2, len(regular) - 2):
        row = curve.isel(step=regular[k])
        again = dl.branch(equation, row.state, float(row.p), bounds=(0.02, 1.0))
        way = int(np.sign(row.tangent_p))  # a start looks towards larger p
        for name in ("size", "loss", "p", "transverse_eigenvalue"):
            found = again[name][[0, -1][::way]]
            np.testing.assert_allclose(found, curve[name][[0, -1]], rtol=1e-9)
        assert [e[0] for e in events(again)] == [e[0] for e in events(curve)] == ["fold"]
        assert events(again)[0][1] == pytest.approx(events(curve)[0][1], rel=1e-12)


def test_the_index_counts_against_the_row_itself():
    """An eigenvalue of 1e-4 is one beside p² < 1e4, however the rows were made."""

    def field(x, p):
        return np.array([1e-4 * x[0], -(p**2) * x[1]])

    equation = dl.Residual(
        field,
        lambda x, p: np.diag([1e-4, -(p**2)]),
        derivative=lambda x, p: 0.0 * x,
        symmetric=True,
    )
    options = {"bounds": (1.0, 90.0), "direction": "up"}
    short = dl.branch(equation, [0.0, 0.0], 1.0, max_points=3, **options)
    whole = dl.branch(equation, [0.0, 0.0], 1.0, **options)
    assert whole["index"].values.tolist() == [1] * whole.sizes["step"]
    assert dl.extend_branch(equation, short).identical(whole)
    assert dl.merge_branches(short, whole.isel(step=slice(3, None))).identical(whole)


def test_diagrams_are_stored_and_their_branches_go_on(tmp_path):
    def pitchfork(x, p):
        return p * x - x**3

    tree = stored(dl.diagram(pitchfork, [0.0], -0.5, bounds=(-1.0, 1.0)), tmp_path)
    root, half = (tree[name].to_dataset() for name in ("branch_0", "branch_1"))
    ((kind, p, _),) = events(root)
    assert (kind, half.attrs["parent"]) == ("branch_point", "branch_0")
    assert abs(p) < 1e-10
    longer = dl.extend_branch(pitchfork, half, bounds=(-1.0, 3.0))
    whole = dl.extend_branch(pitchfork, longer, side="first")  # through the branch point
    x = whole.state.values[:, 0]
    assert sorted(x[[0, -1]].tolist()) == pytest.approx([-np.sqrt(3.0), np.sqrt(3.0)])
    np.testing.assert_allclose(whole.p, x**2, atol=1e-9)


def test_max_points_stops_what_never_ends():
    def endless(x, p):
        return p - 1.0 / (1.0 + x)

    found = dl.branch(endless, [0.0], 1.0, bounds=(0.0, 2.0), direction="down", max_points=50)
    assert found.attrs["first_stop"] == "max_points"
    assert found.sizes["step"] == 51
    found = dl.extend_branch(endless, found, side="first", max_points=50)
    assert found.attrs["first_stop"] == "max_points"
    assert found.sizes["step"] == 101
    assert (np.diff(found.state[:, 0]) < 0.0).all()


@pytest.mark.parametrize("exact", [True, False])
def test_a_curve_that_cannot_be_followed_ends_there(exact):
    """Differences of fourth order reach over the edge by 2 ε^{1/5} of the size of x."""

    def cliff(x, p):
        return np.where(x > 0.7, np.nan, p - x)

    one = np.ones((1, 1))
    equation = dl.Residual(cliff, (lambda x, p: -one) if exact else None)
    found = dl.branch(equation, [0.0], 0.0, bounds=(-1.0, 1.0))
    step = np.finfo(float).eps ** 0.2 * max(found.attrs["state_scale"], 0.7)
    gap = 1e-5 if exact else 2.0 * step + 1e-6
    assert found.attrs["last_stop"] == ("not_finite" if exact else "step_too_small")
    assert 0.7 - gap < float(found.p[-1]) <= 0.7
    again = dl.extend_branch(equation, found)
    assert again.attrs["last_stop"] == found.attrs["last_stop"]
    np.testing.assert_array_equal(again.p, found.p)


def test_control_c_ends_a_branch_at_once():
    calls = []

    def interrupted(x, p):
        calls.append(p)
        if len(calls) == 40:
            signal.raise_signal(signal.SIGINT)
        return p - x

    # A shell starts what runs in the background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            dl.branch(interrupted, [0.0], 0.0, bounds=(-9.0, 9.0))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) == 40


def follow(**change):
    short = dl.branch(parabola, [1.0], 1.0, bounds=(0.0, 9.0), direction="up", max_points=3)
    return dl.extend_branch(**{"residual": parabola, "branch": short, **change})


def curve():
    """p = x² + q."""
    fold = dl.special_points(dl.branch(parabola, [0.0], 0.0, bounds=(-1.0, 1.0)))
    return dl.fold_curve(lambda q: lambda x, p: p - q - x**2, fold, 0.0, bounds=(-0.1, 0.1))


def test_a_closed_curve_has_no_end():
    ring = dl.branch(circle, [1.0], 0.0, bounds=(-2.0, 2.0), step_max=0.1, direction="up")
    with pytest.raises(ValueError, match="^branch: is closed"):
        dl.extend_branch(circle, ring)
    half = ring.isel(step=slice(None, 40))
    assert half.attrs["last_stop"] == "closed"
    assert dl.extend_branch(circle, half).identical(ring)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"branch": 3}, "^branch: needs a Dataset of the schema branch"),
        ({"branch": curve()}, "^branch: needs a branch in one parameter, got a curve"),
        ({"residual": circle}, "^residual: needs that of the branch, but at its end"),
        (
            {"residual": dl.Residual(parabola, parameter="q")},
            "^residual: needs the varied .*'p', got 'q'",
        ),
        ({"residual": dl.Residual(parabola, attributes={"system": 1})}, "^residual: .*system"),
        ({"side": "left"}, "^side: "),
        ({"bounds": (4.0, 9.0)}, "^bounds: needs room beyond the end of the branch"),
        ({"bounds": (0.0, 1.1)}, "^bounds: needs room beyond the end of the branch"),
        ({"max_points": 0}, "^max_points: "),
        ({"step_min": 1.0}, "^step_max: "),
        ({"step_min": "small"}, "^step_min: "),
        ({"events": ["x"]}, "^events: "),
        ({"steps": 1}, "^steps: "),
    ],
)
def test_what_cannot_be_followed_is_named(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        follow(**change)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("n", [1, 2])
def test_halves_that_left_a_branch_point_pass_it_when_joined(n, turned):
    """p x − x³: the halves x = ±√p of a diagram are one curve with x = 0 in the middle."""

    def pitchfork(x, p):
        return np.append(p * x[0] - x[0] ** 3, x[0] ** 2 - x[1:])

    tree = dl.diagram(pitchfork, np.zeros(n), -0.5, bounds=(-1.0, 1.0))
    halves = [tree[name].to_dataset() for name in ("branch_1", "branch_2")]
    whole = dl.merge_branches(*(halves[::-1] if turned else halves))
    dl.schema.validate(whole)
    assert whole.sizes["step"] == sum(half.sizes["step"] for half in halves) - 1
    ((kind, p, kernel),) = events(whole)
    assert (kind, kernel) == ("branch_point", 1)
    assert abs(p) < 1e-9
    special = dl.special_points(whole)
    assert np.isnan(special.accuracy).all()
    np.testing.assert_allclose(whole.state[:, 0] ** 2, whole.p, atol=1e-9)
    assert (np.diff(whole.arclength) > 0.0).all()
    # Halves without the row where they left it are regular wherever they meet.
    one = dl.branch(pitchfork, whole.state[-3], float(whole.p[-3]), bounds=(0.2, 1.0))
    sides = one.isel(step=slice(None, 3)), one.isel(step=slice(2, None))
    assert events(dl.merge_branches(*sides)) == []


def test_a_shared_row_is_special_if_either_branch_says_so():
    """The arm of p x − x³ that left x = 0 there, and x = 0 up to there, where p is a bound."""
    line = dl.branch(lambda x, p: p * x - x**3, [0.0], -0.5, bounds=(-1.0, 0.0))
    assert events(line) == [("branch_point", 0.0, 1)]
    upper = dl.branch(lambda x, p: p * x - x**3, [0.0], 0.5, bounds=(-1.0, 1.0), direction="up")
    upper = dl.extend_branch(lambda x, p: p * x - x**3, upper, side="first")
    start = int(np.argmin(np.abs(upper.p.values)))
    rest = upper.isel(step=slice(start, None))
    quiet = rest.assign(event=rest.event * 0)
    for pair in ((line, quiet), (quiet, line)):
        whole = dl.merge_branches(*pair)
        assert [kind for kind, *_ in events(whole)] == ["branch_point"]


def test_what_cannot_be_joined_is_named():
    def make(form=parabola, x=1.0, **options):
        whole = {"bounds": (0.0, 9.0), "direction": "up", "max_points": 3, **options}
        return dl.branch(form, [x], 1.0, **whole)

    one = make()
    fork = dl.Residual(parabola, attributes={"system": "fork"})
    named = dl.Residual(parabola, parameter="q")
    symmetric = dl.Residual(parabola, symmetric=True)
    for other, message in [
        (3, "^other: needs a Dataset of the schema branch"),
        (one.drop_attrs().assign_attrs(schema="branch"), "^other: lacks"),
        (make(x=-1.0), "^other: shares no end with one, the nearest ends are 2 apart"),
        (make(max_points=5), "^other: leaves the end that it shares"),
        (make(fork), "^other: needs the system of one, None, got 'fork'"),
        (make(named), "^other: needs the varied parameter of one, 'p', got 'q'"),
        (make(symmetric), "^other: needs the variables of one"),
        (make(lambda x, p: 2.0 * parabola(x, p), direction="down"), "^other: needs to be a branch"),
        (
            make(n_eigenvalues=1).isel(eigen=[0, 0]),
            "^other: needs the number of eigenvalues",
        ),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            dl.merge_branches(one, other)
    with pytest.raises(TypeError, match="^one: needs a Dataset of the schema branch"):
        dl.merge_branches(None, one)


def test_stored_branches_may_have_their_dims_in_any_order():
    form = dl.Residual(lambda x, p: np.array([p * x[0] - x[1], x[0] + p * x[1]]) - x * (x @ x))
    whole = dl.branch(form, [0.0, 0.0], -0.5, bounds=(-1.0, 1.0), direction="up", max_points=3)
    assert "transverse_eigenvalue_imag" in whole
    turned = whole.transpose(..., "step")
    longer = dl.extend_branch(form, whole, max_points=3)
    assert dl.extend_branch(form, turned, max_points=3).identical(longer)
