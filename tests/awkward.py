"""Calls of `branch` that are awkward, each with the law that decides.

Right, or an error or a stop that says what happened: what is wrong without telling fails. Each
function raises AssertionError if its law is broken.
"""

import re

import decays
import numpy as np
import xarray as xr
from equations import events

import dlnds as dl

CALLS = {}
#: Stops of a branch that do not say that it is whole.
TOLD = {"step_too_small", "not_finite", "unresolved"}
#: What is said of a start on a branch point: what it is, and to start elsewhere.
AT_BRANCH_POINT = "branch point.*(start|away)|(start|away).*branch point"
PROBLEMS = (ValueError, TypeError, dl.ConvergenceError)


def call(function):
    """Put a function among the calls, by its name and its law."""
    CALLS[function.__name__] = function
    return function


def _says(match, error):
    if match is None or not re.search(match, str(error)):
        raise AssertionError(f"says {error!s:.300}, not {match!r}")


def refused(match, function, *args, **kwargs):
    """An error whose message matches, so that it says what is wrong with what."""
    try:
        found = function(*args, **kwargs)
    except PROBLEMS as error:
        _says(match, error)
        return
    raise AssertionError(f"returns {shown(found)}, needs an error that says {match!r}")


def shown(branch):
    if not isinstance(branch, xr.Dataset) or "p" not in branch.coords:
        return repr(branch)[:200]
    p, stops = branch.p.values, (branch.attrs["first_stop"], branch.attrs["last_stop"])
    return f"{len(p)} rows, p {p[0]!r} to {p[-1]!r}, stops {stops}, events {events(branch)[:6]}"


def stops(branch):
    return branch.attrs["first_stop"], branch.attrs["last_stop"]


def valid(branch, fun, p0, bounds, near=1e-8):
    """What holds of every branch: start, bounds, residual, no change without an event."""
    x, p = branch.state.values, branch.p.values
    assert p[branch.attrs["start_step"]] == p0, f"starts at {p[branch.attrs['start_step']]!r}"
    assert (p >= bounds[0]).all(), f"{p.min()!r} is out of bounds"
    assert (p <= bounds[1]).all(), f"{p.max()!r} is out of bounds"
    force = np.array(
        [np.abs(np.asarray(fun(a, b), float)).max() for a, b in zip(x, p, strict=True)]
    )
    assert np.isfinite(force).all(), f"F is not finite in row {np.isfinite(force).argmin()}"
    assert force.max() <= near, f"‖F‖ = {force.max():.2e} in row {force.argmax()}, {shown(branch)}"
    event = branch.event.values > 0
    for name in ("index", "nullity", "orbit_dimension"):
        values = branch[name].values
        changed = (np.diff(values) != 0) & ~event[1:] & ~event[:-1]
        assert not changed.any(), f"{name} changes without an event at p = {p[changed.argmax()]!r}"
    return branch


def whole(branch, bounds):
    """Whether both ends are at bounds, one at each."""
    assert stops(branch) == ("bound_reached",) * 2, shown(branch)
    assert sorted(branch.p.values[[0, -1]].tolist()) == sorted(bounds), shown(branch)


def specials(branch, known, near=1e-8):
    """Kinds and places of the special points, in either direction."""
    got = [(kind, p) for kind, p, _ in events(branch)]
    for order in (known, known[::-1]):
        same = len(got) == len(order) and all(
            kind in one.split("/") and abs(p - q) <= near
            for (kind, p), (one, q) in zip(got, order, strict=True)
        )
        if same:
            return
    raise AssertionError(f"special points {got[:8]}, there are {known}; {shown(branch)}")


def right_or_told(check, function, errors=None):
    """Right, or an error that matches, or a branch that is valid and says that it ends early."""
    try:
        branch = function()
    except PROBLEMS as error:
        _says(errors, error)
        return
    check(branch)


def fold(x, p):
    return p + x**2


def line(x, p):
    return p - x


def pitchfork(x, p):
    return p * x - x**3


def transcritical(x, p):
    return p * x - x**2


def cubic(x, p):
    return p + x - x**3 / 3


def circle(x, p):
    return x**2 + p**2 - 1.0


# Starts that are no solutions.


@call
def a_start_near_a_solution():
    """Corrected at p0 itself."""
    b = valid(dl.branch(line, [0.3], 0.1, bounds=(-1, 1)), line, 0.1, (-1, 1))
    assert b.state.values[b.attrs["start_step"]].tolist() == [0.1]
    whole(b, (-1, 1))


@call
def a_start_near_a_fold_branch():
    """The solution at p0 is x = 1, not another p with x = 1.05."""
    b = valid(dl.branch(fold, [1.05], -1.0, bounds=(-2, 1)), fold, -1.0, (-2, 1))
    assert abs(b.state.values[b.attrs["start_step"], 0] - 1.0) < 1e-10
    specials(b, [("fold", 0.0)])
    assert b.p.values[[0, -1]].tolist() == [-2.0, -2.0]


@call
def a_start_near_the_lower_branch():
    """The nearest solution is −1."""
    b = valid(dl.branch(fold, [-0.8], -1.0, bounds=(-2, 1)), fold, -1.0, (-2, 1))
    assert abs(b.state.values[b.attrs["start_step"], 0] + 1.0) < 1e-10


@call
def a_far_start():
    """An error with numbers, or the solution at p0."""

    def check(b):
        valid(b, fold, -1.0, (-2, 1))
        specials(b, [("fold", 0.0)])

    call = lambda: dl.branch(fold, [50.0], -1.0, bounds=(-2, 1))  # noqa: E731
    right_or_told(check, call, r"^x0: .*\d")


@call
def no_solution_anywhere():
    """x² + 1 + p² has no zero: an error with ‖F‖."""
    refused(
        r"^x0: .*\d",
        *(dl.branch, lambda x, p: x**2 + 1.0 + p**2, [1.0], 0.0),
        bounds=(-1, 1),
    )


@call
def no_solution_at_p0_but_elsewhere():
    """−x² = 1/2 has none; that at p = 0 is no answer."""
    refused(r"^x0: .*\d", dl.branch, fold, [0.3], 0.5, bounds=(-1, 1))


@call
def no_solution_at_p0_just_beyond_a_fold():
    """The fold is 1e-3 away: no answer either."""
    refused(r"^x0: .*\d", dl.branch, fold, [0.0], 1e-3, bounds=(-1, 1))


@call
def a_start_off_in_two_components():
    """Corrected at p0."""

    def two(x, p):
        return np.array([p - x[0] - x[1] ** 2, x[0] * p - x[1]])

    y = np.roots([0.5**2, 1.0, -0.5])  # x_0 with p = 1/2
    x = np.array([y.max(), 0.5 * y.max()])
    b = valid(dl.branch(two, x + 1e-3, 0.5, bounds=(0.0, 1.0)), two, 0.5, (0.0, 1.0))
    np.testing.assert_allclose(b.state.values[b.attrs["start_step"]], x, atol=1e-10)
    whole(b, (0, 1))


@call
def a_start_ten_times_too_far_next_to_a_fold():
    """x = 1e-4 at p = 1e-8."""
    b = dl.branch(lambda x, p: p - x**2, [1e-3], 1e-8, bounds=(-1, 1))
    valid(b, lambda x, p: p - x**2, 1e-8, (-1, 1), 1e-12)
    assert abs(b.state.values[b.attrs["start_step"], 0] - 1e-4) < 1e-9
    specials(b, [("fold", 0.0)])


@call
def a_start_where_newtons_method_has_no_direction():
    """The Jacobian is zero at x = 0: an error, or the cube root."""

    def cube(x, p):
        return p - x**3

    def check(b):
        whole(valid(b, cube, 0.5, (0.1, 1.0)), (0.1, 1.0))

    right_or_told(check, lambda: dl.branch(cube, [0.0], 0.5, bounds=(0.1, 1.0)), r"^x0: .*\d")


@call
def a_start_without_decay_for_a_network_with_it():
    """critical_state at λ = 0.3: begins at 0.3, in bounds, with the fold of σ = 1."""
    case = decays.Case((3.0, 2.0, 1.0), (3, 3, 3, 3), (0, 1, 2), "uuu", 0.3, (0.3, 2.5))
    net = decays.network(case)
    equation = dl.equilibria(net, vary="weight_decay")
    b = dl.branch(equation, net.critical_state((0, 1, 2)), 0.3, bounds=(0.3, 2.5))
    wrong = decays.complaints(case, net, b)
    assert not wrong, wrong[0]


@call
def a_start_without_decay_where_the_mode_has_folded():
    """λ = 0.6 is beyond the fold of σ = 1 at 0.472: an error with numbers, or fewer modes told."""
    net = dl.LinearNetwork((3, 3, 3, 3), np.diag([3.0, 2.0, 1.0]))
    equation = dl.equilibria(net, vary="weight_decay")
    x = net.critical_state((0, 1, 2))

    def check(b):
        valid(b, equation.fun, 0.6, (0.3, 2.5))

    right_or_told(check, lambda: dl.branch(equation, x, 0.6, bounds=(0.3, 2.5)), r"^x0: .*\d")


# Starts on special points.


@call
def a_start_on_a_fold():
    """Flagged on the start row, both sides followed."""
    b = valid(dl.branch(fold, [0.0], 0.0, bounds=(-1, 1)), fold, 0.0, (-1, 1))
    specials(b, [("fold", 0.0)])
    assert b.event.values[b.attrs["start_step"]] > 0, "the start row is not flagged"
    assert b.p.values[[0, -1]].tolist() == [-1.0, -1.0], shown(b)
    assert stops(b) == ("bound_reached",) * 2


@call
def a_start_on_a_fold_that_opens_upwards():
    """The same the other way."""
    f = lambda x, p: p - x**2  # noqa: E731
    b = valid(dl.branch(f, [0.0], 0.0, bounds=(-1, 1)), f, 0.0, (-1, 1))
    specials(b, [("fold", 0.0)])
    assert b.event.values[b.attrs["start_step"]] > 0, "the start row is not flagged"
    assert b.p.values[[0, -1]].tolist() == [1.0, 1.0], shown(b)


@call
def a_start_on_a_fold_at_the_bound():
    """Both sides lie within the bounds."""
    b = valid(dl.branch(fold, [0.0], 0.0, bounds=(-1, 0)), fold, 0.0, (-1, 0))
    specials(b, [("fold", 0.0)])
    assert b.p.values[[0, -1]].tolist() == [-1.0, -1.0], shown(b)


@call
def a_start_on_a_fold_in_one_direction():
    """Up: along the tangent that is called so; one side, from the fold to the bound."""
    b = valid(dl.branch(fold, [0.0], 0.0, bounds=(-1, 1), direction="up"), fold, 0.0, (-1, 1))
    specials(b, [("fold", 0.0)])
    assert sorted(b.p.values[[0, -1]].tolist()) == [-1.0, 0.0], shown(b)
    assert sorted(stops(b)) == ["bound_reached", "start"], shown(b)


@call
def a_start_on_a_fold_of_two_components():
    """The same in turned coordinates."""
    A = np.array([[0.6, -0.8], [0.8, 0.6]])

    def two(x, p):
        y = A.T @ x
        return A @ np.array([p + y[0] ** 2, -y[1] + y[0]])

    b = valid(dl.branch(two, [0.0, 0.0], 0.0, bounds=(-1, 1)), two, 0.0, (-1, 1))
    specials(b, [("fold", 0.0)])
    assert b.event.values[b.attrs["start_step"]] > 0, "the start row is not flagged"


@call
def a_start_on_one_of_two_folds():
    """p + x − x³/3 at x = 1: that fold and the other."""
    b = valid(dl.branch(cubic, [1.0], -2.0 / 3.0, bounds=(-2, 2)), cubic, -2.0 / 3.0, (-2, 2))
    specials(b, [("fold", -2 / 3), ("fold", 2 / 3)])
    whole(b, (-2, 2))


@call
def a_start_next_to_a_fold():
    """1e-12 away: one fold, no more."""
    b = valid(dl.branch(fold, [1e-6], -1e-12, bounds=(-1, 1)), fold, -1e-12, (-1, 1))
    specials(b, [("fold", 0.0)])
    assert b.p.values[[0, -1]].tolist() == [-1.0, -1.0], shown(b)


def _on_a_branch_point(form, lines, p0=0.0, x0=0.0):
    """Right along one of the solutions, with the event at 0, or an error that says what to do."""

    def check(b):
        valid(b, form, p0, (-1, 1))
        if set(stops(b)) & TOLD:
            return
        specials(b, [("branch_point/fold", 0.0)])
        x, p = b.state.values[:, 0], b.p.values
        gaps = [np.abs(solution(x, p)).max() for solution in lines]
        assert min(gaps) < 1e-8, "is on more than one of the crossing branches"
        assert stops(b) == ("bound_reached",) * 2, shown(b)

    right_or_told(check, lambda: dl.branch(form, [x0], p0, bounds=(-1, 1)), AT_BRANCH_POINT)


@call
def a_start_on_a_transcritical_point():
    """x = 0 or x = p from end to end with its event, or an error that says what to do."""
    _on_a_branch_point(transcritical, [lambda x, p: x, lambda x, p: x - p])


@call
def a_start_on_a_pitchfork():
    """x = 0 or p = x² from end to end with its event, or an error that says what to do."""
    _on_a_branch_point(pitchfork, [lambda x, p: x, lambda x, p: p - x**2])


@call
def a_start_next_to_a_pitchfork():
    """1e-10 away, on x = 0: the event at 0, or an error that says what to do."""
    _on_a_branch_point(pitchfork, [lambda x, p: x], 1e-10)


@call
def a_start_next_to_a_transcritical_point():
    """1e-10 away, on x = p."""
    _on_a_branch_point(transcritical, [lambda x, p: x - p, lambda x, p: x], 1e-10, 1e-10)


@call
def a_start_on_a_hopf_point():
    """Brusselator at b = 5: the event is on the start row."""

    def brusselator(x, b):
        return np.array([2 - (b + 1) * x[0] + x[0] ** 2 * x[1], b * x[0] - x[0] ** 2 * x[1]])

    b = dl.branch(brusselator, [2.0, 2.5], 5.0, bounds=(4, 6))
    whole(valid(b, brusselator, 5.0, (4, 6)), (4, 6))
    specials(b, [("hopf", 5.0)], 1e-6)


@call
def a_start_on_a_vertical_inflection():
    """p = x³ goes on upwards: no fold."""
    f = lambda x, p: p - x**3  # noqa: E731
    b = valid(dl.branch(f, [0.0], 0.0, bounds=(-1, 1)), f, 0.0, (-1, 1))
    whole(b, (-1, 1))
    assert "fold" not in [kind for kind, _, _ in events(b)], shown(b)


@call
def passing_a_vertical_inflection():
    """The same from p = −1/2: p goes on, and the eigenvalue only touches zero."""
    f = lambda x, p: p - x**3  # noqa: E731
    b = valid(dl.branch(f, [-(0.5 ** (1 / 3))], -0.5, bounds=(-1, 1)), f, -0.5, (-1, 1))
    whole(b, (-1, 1))
    assert "fold" not in [kind for kind, _, _ in events(b)], shown(b)


@call
def a_start_on_an_isolated_point():
    """x² + p² = 0 has nothing to follow: an error, or one row that says so."""

    def check(b):
        assert b.sizes["step"] == 1, shown(b)
        assert set(stops(b)) <= TOLD, shown(b)

    f = lambda x, p: x**2 + p**2  # noqa: E731
    right_or_told(check, lambda: dl.branch(f, [0.0], 0.0, bounds=(-1, 1)), r"branch point|\d")


@call
def a_start_where_two_eigenvalues_vanish():
    """x_i (p − 1) − x_i³ at p = 1: x = 0 with a kernel of 2, or an error that says what to do."""
    f = lambda x, p: x * (p - 1.0) - x**3  # noqa: E731

    def check(b):
        whole(valid(b, f, 1.0, (0, 2)), (0, 2))
        assert [(k, n) for k, _, n in events(b)] == [("branch_point", 2)], shown(b)

    call = lambda: dl.branch(f, [0.0, 0.0], 1.0, bounds=(0, 2))  # noqa: E731
    right_or_told(check, call, AT_BRANCH_POINT)


@call
def a_network_that_starts_where_another_mode_is_born():
    """h = 2, λ = σ_q: as by theory, or an error that says what to do."""
    case = decays.Case((3.0, 2.0, 1.0), (3, 4, 3), (0, 1), "uu", 1.0, (0.1, 1.5))

    def check(found):
        wrong = decays.complaints(case, *found)
        assert not wrong, wrong[0]

    right_or_told(check, lambda: decays.followed(case), AT_BRANCH_POINT)


# F that is not finite.


def quietly(form):
    def fun(x, p):
        with np.errstate(all="ignore"):
            return form(x, p)

    return fun


def _ends_early(form, x0, p0, bounds, low_end, **options):
    """The upper end is at its bound; the lower one says that it is not."""
    fun = quietly(form)
    b = valid(dl.branch(fun, x0, p0, bounds=bounds, **options), fun, p0, bounds, 1e-6)
    order = 1 if b.p.values[-1] >= b.p.values[0] else -1
    below, above = stops(b)[::order]
    assert above == "bound_reached", shown(b)
    assert below in TOLD | {"max_points"}, shown(b)
    assert b.p.values.min() >= low_end - 1e-9, shown(b)
    assert b.p.values.min() <= low_end + 0.1, shown(b)


@call
def a_logarithm_of_p():
    """x = log p: nothing at p ≤ 0, told."""
    _ends_early(lambda x, p: np.log(p) - x, [0.0], 1.0, (-1, 2), 0.0)


@call
def a_root_of_p():
    """x = √p ends at p = 0, upright: beyond it F is not finite, and the stop says so."""
    fun = quietly(lambda x, p: np.sqrt(p) - x)
    for x0, p0 in ((1.0, 1.0), (np.sqrt(0.5), 0.5)):
        b = valid(dl.branch(fun, [x0], p0, bounds=(-1, 2)), fun, p0, (-1, 2))
        assert stops(b) == ("not_finite", "bound_reached"), shown(b)
        assert 0.0 <= float(b.p.min()) < 0.01, shown(b)


@call
def a_root_of_x():
    """√x = p ends at x = 0."""
    _ends_early(lambda x, p: p - np.sqrt(x), [0.25], 0.5, (-1, 1), 0.0)


@call
def a_reciprocal_of_x():
    """x = 1/p: to infinity at p = 0, told."""
    _ends_early(lambda x, p: 1.0 / x - p, [1.0], 1.0, (-1, 2), 0.0)


@call
def a_pole_of_p():
    """x = 1/(p − ½): to infinity at p = ½; the other side of the pole is another branch."""
    _ends_early(lambda x, p: x - 1.0 / (p - 0.5), [2.0], 1.0, (-1, 2), 0.5)


@call
def a_force_that_is_infinite_beyond():
    """F = ∞ for x < 0: ends there."""
    _ends_early(lambda x, p: np.where(x < 0.0, np.inf, p - x), [0.5], 0.5, (-1, 1), 0.0)


@call
def a_force_that_is_no_number_beyond():
    """The same with NaN for p < 0."""
    _ends_early(lambda x, p: p - x if p >= 0.0 else x * np.nan, [0.5], 0.5, (-1, 1), 0.0)


@call
def a_jacobian_that_is_no_number_beyond():
    """F is fine, its Jacobian not: told."""
    r = dl.Residual(
        lambda x, p: p - x, lambda x, p: np.array([[-1.0 if p >= 0.0 else np.nan]]),
        derivative=lambda x, p: np.array([1.0]),
    )  # fmt: skip

    def check(b):
        valid(b, line, 0.5, (-1, 1))
        assert set(stops(b)) & TOLD, shown(b)
        assert b.p.values.min() >= 0.0, shown(b)

    right_or_told(check, lambda: dl.branch(r, [0.5], 0.5, bounds=(-1, 1)), "^jacobian: ")


@call
def an_exponential_that_overflows_at_the_start():
    """Named as x0."""
    f = quietly(lambda x, p: np.exp(x) - p)
    refused("^x0: ", dl.branch, f, [800.0], 1.0, bounds=(0.5, 2))


@call
def an_exponential_that_overflows_in_newtons_method():
    """x0 = −7: Newton's first step goes to 1096 where exp overflows; damped it comes to 0."""
    f = quietly(lambda x, p: np.exp(x) - p)

    def check(b):
        whole(valid(b, f, 1.0, (0.5, 2)), (0.5, 2))

    right_or_told(check, lambda: dl.branch(f, [-7.0], 1.0, bounds=(0.5, 2)), r"^x0: .*\d")


@call
def a_force_that_is_nowhere_finite():
    """Named as x0."""
    refused("^x0: ", dl.branch, lambda x, p: x * np.nan, [1.0], 0.0, bounds=(-1, 1))


@call
def nothing_is_asked_beyond_the_bounds():
    """F raises outside: its derivatives are known, so that nobody needs to ask there."""

    def fun(x, p):
        if not 0.0 <= p <= 1.0:
            raise RuntimeError(f"asked at {p}")
        return p - x

    r = dl.Residual(fun, lambda x, p: -np.eye(1), derivative=lambda x, p: np.ones(1))
    try:
        b = dl.branch(r, [0.5], 0.5, bounds=(0, 1), step=0.3)
    except RuntimeError as error:
        raise AssertionError(f"F was {error}") from None
    whole(valid(b, fun, 0.5, (0, 1)), (0, 1))


@call
def nothing_is_differenced_beyond_the_bounds():
    """NaN outside, derivatives by differences: whole, or told."""
    fun = lambda x, p: p - x if 0.0 <= p <= 1.0 else x * np.nan  # noqa: E731

    def check(b):
        valid(b, fun, 0.5, (0, 1))
        if not set(stops(b)) & TOLD:
            whole(b, (0, 1))

    right_or_told(check, lambda: dl.branch(fun, [0.5], 0.5, bounds=(0, 1)))


# F that raises.


class OwnError(Exception):
    pass


def _propagates(function, error=OwnError):
    try:
        found = function()
    except error:
        return
    except Exception as other:
        raise AssertionError(f"{type(other).__name__} {other!s:.200} in place of {error}") from None
    raise AssertionError(f"returns {shown(found)}, the error is lost")


def _raising(limit):
    def fun(x, p):
        if p > limit:
            raise OwnError
        return p - x

    return fun


@call
def an_error_of_fun_at_the_start():
    """It propagates."""
    _propagates(lambda: dl.branch(_raising(-1.0), [0.0], 0.0, bounds=(-1, 1)))


@call
def an_error_of_fun_on_the_way():
    """It propagates."""
    _propagates(lambda: dl.branch(_raising(0.5), [0.0], 0.0, bounds=(-1, 1)))


@call
def a_division_by_zero_of_fun():
    """It propagates as it is."""
    f = lambda x, p: [x[0] - 1.0 / float(p)]  # noqa: E731
    _propagates(lambda: dl.branch(f, [1.0], 0.0, bounds=(-1, 1)), ZeroDivisionError)


@call
def an_error_of_the_jacobian():
    """It propagates."""

    def jacobian(x, p):
        if p > 0.5:
            raise OwnError
        return np.array([[-1.0]])

    _propagates(lambda: dl.branch(dl.Residual(line, jacobian), [0.0], 0.0, bounds=(-1, 1)))


@call
def an_error_of_an_event():
    """It propagates."""

    def event(x, p):
        if p > 0.5:
            raise OwnError
        return 1.0

    _propagates(lambda: dl.branch(line, [0.0], 0.0, bounds=(-1, 1), events=[event]))


@call
def an_error_of_observe():
    """It propagates."""

    def observe(x, p):
        raise OwnError

    _propagates(lambda: dl.branch(dl.Residual(line, observe=observe), [0.0], 0.0, bounds=(-1, 1)))


@call
def an_interrupt():
    """KeyboardInterrupt ends the call."""

    def fun(x, p):
        if p > 0.5:
            raise KeyboardInterrupt
        return p - x

    _propagates(lambda: dl.branch(fun, [0.0], 0.0, bounds=(-1, 1)), KeyboardInterrupt)


# Wrong derivatives.


def _wrong(name, fun, x0, p0, **given):
    refused(f"^{name}: ", dl.branch, dl.Residual(fun, **given), x0, p0, bounds=(-3, 3))


def three(x, p):
    return np.array([p - x[0] + x[1] ** 2, x[0] * x[2] - 2.0 * x[1], x[1] - x[2] + 0.3 * p])


def jacobian_of_three(x, p):
    return np.array([[-1.0, 2.0 * x[1], 0.0], [x[2], -2.0, x[0]], [0.0, 1.0, -1.0]])


#: There the Jacobian is not symmetric.
X3 = np.array([1.0, 0.3, 0.5])


def p_three(x, p):  # zero at X3, p = 1
    return three(x, p) - three(X3, 1.0)


@call
def a_right_jacobian():
    """Not refused."""
    b = dl.branch(dl.Residual(p_three, jacobian_of_three), X3, 1.0, bounds=(0.5, 1.5))
    valid(b, p_three, 1.0, (0.5, 1.5))


@call
def a_jacobian_twice_too_large():
    """Refused by name."""
    _wrong("jacobian", p_three, X3, 1.0, jacobian=lambda x, p: 2.0 * jacobian_of_three(x, p))


@call
def a_jacobian_of_the_other_sign():
    """Refused by name."""
    _wrong("jacobian", p_three, X3, 1.0, jacobian=lambda x, p: -jacobian_of_three(x, p))


@call
def a_transposed_jacobian():
    """Refused by name."""
    _wrong("jacobian", p_three, X3, 1.0, jacobian=lambda x, p: jacobian_of_three(x, p).T)


@call
def a_jacobian_with_one_wrong_entry():
    """Refused by name."""

    def jacobian(x, p):
        J = jacobian_of_three(x, p)
        J[1, 0] *= 1.1
        return J

    _wrong("jacobian", p_three, X3, 1.0, jacobian=jacobian)


@call
def a_jacobian_of_one_component_that_is_wrong():
    """Refused by name, also where Newton's method gets along with it."""
    _wrong("jacobian", pitchfork, [1.0], 1.0, jacobian=lambda x, p: np.array([[p - x[0] ** 2]]))


@call
def a_jacobian_that_misses_a_term_that_vanishes_at_x0():
    """x0 is on x = 0, where 3x² is not seen: refused, or right along x = 0."""

    def check(b):
        whole(valid(b, pitchfork, -0.5, (-1, 1)), (-1, 1))
        specials(b, [("branch_point", 0.0)])

    r = dl.Residual(pitchfork, lambda x, p: np.array([[p]]))
    right_or_told(check, lambda: dl.branch(r, [0.0], -0.5, bounds=(-1, 1)), "^jacobian: ")


@call
def a_derivative_of_the_other_sign():
    """Refused by name."""
    _wrong("derivative", line, [0.0], 0.0, derivative=lambda x, p: -np.ones(1))


@call
def a_derivative_that_is_zero():
    """Refused by name."""
    _wrong("derivative", line, [0.0], 0.0, derivative=lambda x, p: np.zeros(1))


@call
def a_derivative_with_one_wrong_entry():
    """Refused by name."""
    d = lambda x, p: np.array([1.0, 0.0, 0.2])  # noqa: E731
    _wrong("derivative", p_three, X3, 1.0, derivative=d)


@call
def a_derivative_of_another_length():
    """Refused by name."""
    _wrong("derivative", p_three, X3, 1.0, derivative=lambda x, p: np.ones(2))


@call
def a_jacobian_of_another_shape():
    """Refused by name."""
    _wrong("jacobian", p_three, X3, 1.0, jacobian=lambda x, p: np.eye(2))


@call
def a_jacobian_that_is_no_number():
    """Refused by name."""
    _wrong("jacobian", p_three, X3, 1.0, jacobian=lambda x, p: np.full((3, 3), np.nan))


@call
def a_jacobian_said_to_be_symmetric():
    """It is not: refused by name."""
    refused(
        "^(jacobian|symmetric|residual): .*symmetric",
        dl.branch,
        dl.Residual(p_three, jacobian_of_three, symmetric=True),
        *(X3, 1.0),
        bounds=(0.5, 1.5),
    )


@call
def right_derivatives_of_badly_scaled_equations():
    """Entries of 1e3 and 1e-3: not refused, whole."""
    size = np.array([1e3, 1.0, 1e-3])
    r = dl.Residual(
        lambda x, p: size * p_three(x, p),
        lambda x, p: size[:, None] * jacobian_of_three(x, p),
        derivative=lambda x, p: size * np.array([1.0, 0.0, 0.3]),
    )
    b = dl.branch(r, X3, 1.0, bounds=(0.5, 1.5))
    valid(b, p_three, 1.0, (0.5, 1.5))


@call
def a_start_at_zero_of_small_components_beside_a_linear_one():
    """p x − c x³ and −y from (0, 0): rows of one size where x is as small as it is, for any c."""
    for c in (1.0, 1e8, 1e12, 1e14):
        b = dl.branch(
            lambda x, p, c=c: np.array([p * x[0] - c * x[0] ** 3, -x[1]]),
            [0.0, 0.0],
            -0.5,
            bounds=(-1.0, 1.0),
        )
        whole(b, (-1.0, 1.0))
        ((kind, place, _),) = events(b)
        assert kind == "branch_point"
        assert abs(place) <= 1e-8


@call
def right_derivatives_of_an_equation_with_large_curvature():
    """F = p − x − 1e6 (x − x0)²…: differences see the curvature, the Jacobian is right."""
    r = dl.Residual(
        lambda x, p: p - x + 1e4 * (x - p) ** 2,
        lambda x, p: np.array([[-1.0 + 2e4 * (x[0] - p)]]),
        derivative=lambda x, p: np.array([1.0 - 2e4 * (x[0] - p)]),
    )
    whole(valid(dl.branch(r, [0.0], 0.0, bounds=(-1, 1)), line, 0.0, (-1, 1)), (-1, 1))


@call
def generators_that_are_no_symmetry():
    """Refused, or right all the same."""

    def two(x, p):
        return np.array([p - x[0] ** 2, -x[1]])

    def check(b):
        whole(valid(b, two, 1.0, (0.5, 2)), (0.5, 2))
        assert events(b) == []

    r = dl.Residual(two, generators=lambda x, p: np.array([[1.0, 0.0]]))
    right_or_told(check, lambda: dl.branch(r, [1.0, 0.0], 1.0, bounds=(0.5, 2)), "generators")


# Bounds and p0.


@call
def a_start_on_the_lower_bound():
    """One side, both stops at bounds."""
    whole(valid(dl.branch(line, [0.0], 0.0, bounds=(0, 1)), line, 0.0, (0, 1)), (0, 1))


@call
def a_start_on_the_upper_bound():
    """One side, both stops at bounds."""
    whole(valid(dl.branch(line, [1.0], 1.0, bounds=(0, 1)), line, 1.0, (0, 1)), (0, 1))


@call
def a_start_on_a_bound_that_is_no_solution():
    """Corrected at the bound, not beyond it."""
    whole(valid(dl.branch(line, [0.3], 0.0, bounds=(0, 1)), line, 0.0, (0, 1)), (0, 1))


@call
def a_start_on_a_bound_and_away_from_it():
    """Nothing to follow: one row, told."""
    b = valid(dl.branch(line, [0.0], 0.0, bounds=(0, 1), direction="down"), line, 0.0, (0, 1))
    assert b.sizes["step"] == 1, shown(b)
    assert "bound_reached" in stops(b), shown(b)


@call
def p0_out_of_bounds():
    """Named."""
    refused(r"^p0: .*\d", dl.branch, line, [2.0], 2.0, bounds=(-1, 1))


@call
def p0_that_is_no_number():
    """Named."""
    refused("^p0: ", dl.branch, line, [0.0], np.nan, bounds=(-1, 1))


@call
def p0_that_is_infinite():
    """Named."""
    refused("^p0: ", dl.branch, line, [0.0], np.inf, bounds=(-1, 1))


@call
def p0_as_an_array():
    """Named, or taken as the number that it is."""

    def check(b):
        whole(valid(b, line, 0.0, (-1, 1)), (-1, 1))

    call = lambda: dl.branch(line, [0.0], np.array([0.0]), bounds=(-1, 1))  # noqa: E731
    right_or_told(check, call, "^p0: ")


def _bad_bounds(bounds):
    refused("^bounds: ", dl.branch, line, [0.0], 0.0, bounds=bounds)


@call
def reversed_bounds():
    """Named."""
    _bad_bounds((1.0, -1.0))


@call
def equal_bounds():
    """Named."""
    _bad_bounds((0.0, 0.0))


@call
def bounds_that_are_no_numbers():
    """Named."""
    _bad_bounds((np.nan, 1.0))


@call
def infinite_bounds():
    """Named, or followed for max_points."""

    def check(b):
        valid(b, line, 0.0, (-np.inf, np.inf))
        assert stops(b) == ("max_points",) * 2, shown(b)

    call = lambda: dl.branch(line, [0.0], 0.0, bounds=(-np.inf, np.inf), max_points=20)  # noqa: E731
    right_or_told(check, call, "^bounds: ")


@call
def three_bounds():
    """Named."""
    _bad_bounds((-1.0, 0.0, 1.0))


@call
def bounds_as_text():
    """Named."""
    _bad_bounds("01")


@call
def bounds_a_hair_apart():
    """Whole, or named."""
    bounds = (1.0, 1.0 + 1e-15)

    def check(b):
        whole(valid(b, line, 1.0, bounds), bounds)

    right_or_told(check, lambda: dl.branch(line, [1.0], 1.0, bounds=bounds), "^bounds: ")


@call
def tiny_bounds():
    """p of size 1e-12: whole."""
    whole(valid(dl.branch(line, [0.0], 0.0, bounds=(0, 1e-12)), line, 0.0, (0, 1e-12)), (0, 1e-12))


@call
def huge_bounds():
    """p up to 1e12: whole, or told."""

    def check(b):
        valid(b, line, 0.0, (0, 1e12), 1.0)
        if "max_points" not in stops(b):
            whole(b, (0, 1e12))

    check(dl.branch(line, [0.0], 0.0, bounds=(0, 1e12)))


@call
def integer_bounds_and_p0():
    """Taken as numbers."""
    whole(valid(dl.branch(line, [0], 0, bounds=[-1, 1]), line, 0, (-1, 1)), (-1, 1))


# Steps.


def _cubic(check_steps=None, **options):
    def check(b):
        valid(b, cubic, CUBIC[1], (-2, 2))
        specials(b, [("fold", -2 / 3), ("fold", 2 / 3)])
        whole(b, (-2, 2))

    return lambda: dl.branch(cubic, [CUBIC[0]], CUBIC[1], bounds=(-2, 2), **options), check


CUBIC = (-2.2, 2.2 - 2.2**3 / 3)


def _steps(errors=None, **options):
    run, check = _cubic(**options)
    right_or_told(check, run, errors)


@call
def step_max_below_the_default_step():
    """The step follows; no step is longer."""
    _steps(step_max=0.02)
    run, _ = _cubic(step_max=0.02)
    b = run()
    assert b.sizes["step"] > 100, shown(b)


@call
def a_step_above_step_max():
    """Named, or cut to it."""
    _steps("^step(_max)?: ", step=1.0, step_max=0.1)


@call
def step_min_above_the_step():
    """Named, or right."""
    _steps("^step(_min)?: ", step=0.01, step_min=0.1)


@call
def step_min_above_step_max():
    """Named."""
    run, _ = _cubic(step_min=0.2, step_max=0.1)
    refused("^step_m(ax|in): ", run)


@call
def a_step_below_the_default_step_min():
    """Named, or right."""
    _steps("^step(_min)?: ", step=1e-9)


@call
def a_huge_step():
    """Longer than the whole branch: both folds all the same."""
    _steps(step=10.0, step_max=20.0)


@call
def steps_of_one():
    """Both folds all the same."""
    _steps(step=1.0, step_max=1.0)


@call
def a_huge_step_over_a_closed_curve():
    """Gone round once, with two folds."""
    b = valid(dl.branch(circle, [1.0], 0.0, bounds=(-2, 2), step=5, step_max=9), circle, 0, (-2, 2))
    assert sorted(round(p, 8) for _, p, _ in events(b)) == [-1.0, 1.0], shown(b)
    assert "closed" in stops(b), shown(b)


@call
def tiny_steps():
    """max_points is told."""
    b = dl.branch(line, [0.0], 0.0, bounds=(-1, 1), step=1e-4, step_max=1e-4, max_points=20)
    valid(b, line, 0.0, (-1, 1))
    assert stops(b) == ("max_points",) * 2, shown(b)


@call
def a_step_min_too_large_for_a_fold():
    """p = −1000 x²…: right, or step_too_small is told."""
    f = lambda x, p: p + 1e3 * x**2  # noqa: E731

    def check(b):
        valid(b, f, -1.0, (-1, 1))
        if not set(stops(b)) & TOLD:
            specials(b, [("fold", 0.0)])

    call = lambda: dl.branch(  # noqa: E731
        f, [1e3**-0.5], -1.0, bounds=(-1, 1), step=0.2, step_min=0.2
    )
    right_or_told(check, call)


@call
def steps_that_are_no_lengths():
    """Zero, negative, NaN, infinite, text: each named."""
    for name in ("step", "step_min", "step_max"):
        for value in (0.0, -0.1, np.nan, "0.1", [0.1, 0.2]):
            run, _ = _cubic(**{name: value})
            refused(f"^{name}: ", run)


@call
def one_point():
    """A row on each side at most, max_points is told."""
    b = valid(dl.branch(line, [0.0], 0.0, bounds=(-1, 1), max_points=1), line, 0.0, (-1, 1))
    assert 1 <= b.sizes["step"] <= 3, shown(b)
    assert stops(b) == ("max_points",) * 2, shown(b)


@call
def one_point_up():
    """The start, and a row more at most."""
    b = dl.branch(line, [0.0], 0.0, bounds=(-1, 1), max_points=1, direction="up")
    valid(b, line, 0.0, (-1, 1))
    assert 1 <= b.sizes["step"] <= 2, shown(b)
    assert stops(b) == ("start", "max_points"), shown(b)


@call
def counts_of_points_that_are_none():
    """Named."""
    for value in (0, -1, 2.5, "3", np.nan):
        refused("^max_points: ", dl.branch, line, [0.0], 0.0, bounds=(-1, 1), max_points=value)


@call
def tolerances_out_of_range():
    """Named."""
    for value in (0.0, -1e-9, 1e-20, 1.0, np.nan):
        refused("^rtol: ", dl.branch, line, [0.0], 0.0, bounds=(-1, 1), rtol=value)


@call
def a_loose_tolerance():
    """1e-3: valid to that, both folds."""
    run, _ = _cubic(rtol=1e-3)
    b = valid(run(), cubic, CUBIC[1], (-2, 2), 3e-2)
    specials(b, [("fold", -2 / 3), ("fold", 2 / 3)], 1e-2)
    whole(b, (-2, 2))


# Forms of F and x0.


@call
def an_equation_without_p():
    """x² = 1 for all p: a straight line."""
    f = lambda x, p: x**2 - 1.0  # noqa: E731
    b = valid(dl.branch(f, [1.0], 0.0, bounds=(-1, 1)), f, 0.0, (-1, 1))
    whole(b, (-1, 1))
    assert events(b) == []


@call
def a_component_that_is_always_zero():
    """Nothing determines it: an error that says so."""
    f = lambda x, p: np.array([p - x[0], 0.0])  # noqa: E731
    refused("singular|null direction|declare", dl.branch, f, [0.0, 0.0], 0.0, bounds=(-1, 1))


@call
def an_equation_that_says_nothing():
    """F = 0 for all x: an error that says so."""
    f = lambda x, p: 0.0 * x  # noqa: E731
    refused("singular|null direction|declare", dl.branch, f, [0.0, 0.0], 0.0, bounds=(-1, 1))


@call
def powers_of_an_equation():
    """(x − p)ⁿ is singular at all of its solutions: an error that says so."""
    for n, x0 in ((2, 0.5), (3, 0.5), (3, 0.4)):
        alone = lambda x, p, n=n: (x - p) ** n  # noqa: E731
        refused("singular all along", dl.branch, alone, [x0], 0.5, bounds=(-1, 1))
        beside = lambda x, p, n=n: np.array([(x[0] - p) ** n, x[1] - x[0]])  # noqa: E731
        refused("singular all along", dl.branch, beside, [x0, x0], 0.5, bounds=(-1, 1))


@call
def a_vertical_branch_of_an_equation_that_is_not_declared_symmetric():
    """p (x − p − 3/10) = 0 along p = 0: x = p + 3/10 leaves it at x = 3/10."""
    f = lambda x, p: p * (x - p - 0.3)  # noqa: E731
    b = valid(dl.branch(f, [-1.0], 0.0, bounds=(-1, 1), max_points=30), f, 0.0, (-1, 1))
    assert np.abs(b.p).max() < 1e-9, "left the vertical branch"
    (row,) = np.flatnonzero(b.event.values)
    specials(b, [("branch_point", 0.0)])
    assert abs(float(b.state[row, 0]) - 0.3) < 1e-8


@call
def an_equation_of_p_alone():
    """F = p has x free at p = 0: told, or an error."""
    f = lambda x, p: p + 0.0 * x  # noqa: E731

    def check(b):
        valid(b, f, 0.0, (-1, 1))
        assert set(stops(b)) <= TOLD | {"max_points"}, shown(b)

    call = lambda: dl.branch(f, [0.3], 0.0, bounds=(-1, 1), max_points=50)  # noqa: E731
    right_or_told(check, call, "singular|null direction|declare|vertical")


@call
def a_vertical_branch_that_crosses_another():
    """p x = 0 from x = ½ at p = 0: valid and told, with the event at x = 0; or an error."""
    f = lambda x, p: p * x  # noqa: E731

    def check(b):
        valid(b, f, 0.0, (-1, 1))
        assert set(stops(b)) <= TOLD | {"max_points"}, shown(b)
        assert np.abs(b.p).max() < 1e-9, "left the vertical branch"
        if float(b.state.min()) < 0.0:
            specials(b, [("branch_point", 0.0)])

    r = dl.Residual(f, symmetric=True)
    call = lambda: dl.branch(r, [0.5], 0.0, bounds=(-1, 1), max_points=60)  # noqa: E731
    right_or_told(check, call, "singular|null direction|declare|vertical")


@call
def a_trivial_branch_across_a_vertical_one():
    """p x = 0 along x = 0: the event at p = 0."""
    f = lambda x, p: p * x  # noqa: E731
    b = valid(dl.branch(f, [0.0], -0.5, bounds=(-1, 1)), f, -0.5, (-1, 1))
    whole(b, (-1, 1))
    specials(b, [("branch_point", 0.0)])


@call
def a_linear_equation():
    """A x = p b: whole, without events."""
    A, v = np.array([[2.0, 1.0], [0.0, -3.0]]), np.array([1.0, 2.0])
    f = lambda x, p: A @ x - p * v  # noqa: E731
    b = valid(dl.branch(f, [0.0, 0.0], 0.0, bounds=(-5, 5)), f, 0.0, (-5, 5))
    whole(b, (-5, 5))
    assert events(b) == []


def _taken(x0):
    whole(valid(dl.branch(line, x0, 0.0, bounds=(-1, 1)), line, 0.0, (-1, 1)), (-1, 1))


@call
def x0_as_a_list_of_integers():
    """Taken."""
    _taken([0])


@call
def x0_in_single_precision():
    """Taken, and followed in double."""
    _taken(np.array([0.1], np.float32))
    b = dl.branch(line, np.array([0.1], np.float32), 0.1, bounds=(-1, 1))
    valid(b, line, 0.1, (-1, 1), 1e-11)


@call
def x0_as_a_data_array():
    """Taken."""
    _taken(xr.DataArray([0.0], dims="parameter"))


@call
def x0_as_a_tuple_of_fractions():
    """Taken."""
    _taken((np.float16(0.25),))


def _bad_start(x0, fun=line):
    refused("^(x0|fun): ", dl.branch, fun, x0, 0.0, bounds=(-1, 1))


@call
def x0_that_is_complex():
    """Named."""
    _bad_start([1j])


@call
def x0_as_a_number():
    """Named, or taken as one component."""

    def check(b):
        whole(valid(b, line, 0.0, (-1, 1)), (-1, 1))

    right_or_told(check, lambda: dl.branch(line, 0.0, 0.0, bounds=(-1, 1)), "^x0: ")


@call
def x0_as_a_matrix():
    """Named."""
    _bad_start(np.zeros((2, 2)))


@call
def x0_without_components():
    """Named."""
    _bad_start([])


@call
def x0_as_text():
    """Named."""
    _bad_start(["a"])


@call
def x0_with_a_nan():
    """Named."""
    _bad_start([np.nan])


@call
def x0_that_is_none():
    """Named."""
    _bad_start(None)


@call
def x0_that_is_huge():
    """1e200 overflows when it is squared: named, or the solution at p0."""

    def check(b):
        whole(valid(b, line, 0.0, (-1, 1)), (-1, 1))

    right_or_told(check, lambda: dl.branch(line, [1e200], 0.0, bounds=(-1, 1)), "^x0: ")


@call
def x0_of_another_length_than_the_system():
    """Named."""
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    equation = dl.equilibria(net, vary="weight_decay")
    refused("^x0: ", dl.branch, equation, np.ones(7), 0.5, bounds=(0.1, 1))


@call
def x0_is_not_changed():
    """The array that was given stays."""
    x0 = np.array([0.3])
    dl.branch(line, x0, 0.0, bounds=(-1, 1))
    assert x0.tolist() == [0.3]


@call
def fun_of_another_length():
    """Named."""
    refused("^fun: ", dl.branch, lambda x, p: np.zeros(3), [0.0, 0.0], 0.0, bounds=(-1, 1))


@call
def fun_that_returns_a_list():
    """Taken."""
    f = lambda x, p: [p - x[0]]  # noqa: E731
    whole(valid(dl.branch(f, [0.0], 0.0, bounds=(-1, 1)), f, 0.0, (-1, 1)), (-1, 1))


@call
def fun_that_returns_a_number():
    """Named, or taken as one component."""
    f = lambda x, p: p - x[0]  # noqa: E731

    def check(b):
        whole(valid(b, f, 0.0, (-1, 1)), (-1, 1))

    right_or_told(check, lambda: dl.branch(f, [0.0], 0.0, bounds=(-1, 1)), "^fun: ")


@call
def fun_that_returns_complex_numbers():
    """Named."""
    refused("^fun: ", dl.branch, lambda x, p: p - x + 0j, [0.0], 0.0, bounds=(-1, 1))


@call
def fun_that_returns_nothing():
    """Named."""
    refused("^fun: ", dl.branch, lambda x, p: None, [0.0], 0.0, bounds=(-1, 1))


@call
def fun_of_one_argument():
    """Named."""
    refused("^(fun|residual): ", dl.branch, lambda x: x, [0.0], 0.0, bounds=(-1, 1))


@call
def fun_that_writes_into_x():
    """Right, or its error propagates."""

    def fun(x, p):
        x -= p
        return -x

    def check(b):
        valid(b, line, 0.0, (-1, 1))
        if not set(stops(b)) & TOLD:
            whole(b, (-1, 1))

    right_or_told(check, lambda: dl.branch(fun, [0.0], 0.0, bounds=(-1, 1)), "read-only|^fun: |^x0")


@call
def fun_that_returns_the_same_array_again():
    """Results in a buffer of the user's are not kept by reference."""
    buffer = np.zeros(2)

    def fun(x, p):
        buffer[:] = p - x[0], x[0] ** 2 - x[1]
        return buffer

    true = lambda x, p: np.array([p - x[0], x[0] ** 2 - x[1]])  # noqa: E731
    whole(valid(dl.branch(fun, [0.0, 0.0], 0.0, bounds=(-1, 1)), true, 0.0, (-1, 1)), (-1, 1))


@call
def fun_that_returns_its_argument():
    """Nor is x itself."""
    f = lambda x, p: x  # noqa: E731
    whole(valid(dl.branch(f, [0.0], 0.0, bounds=(-1, 1)), f, 0.0, (-1, 1)), (-1, 1))


@call
def a_residual_that_is_none():
    """Named."""
    refused("^residual: ", dl.branch, 3.0, [0.0], 0.0, bounds=(-1, 1))


@call
def an_option_that_does_not_exist():
    """Named."""
    refused("^stepmax: ", dl.branch, line, [0.0], 0.0, bounds=(-1, 1), stepmax=0.1)


@call
def a_direction_that_does_not_exist():
    """Named."""
    refused("^direction: ", dl.branch, line, [0.0], 0.0, bounds=(-1, 1), direction="left")


@call
def an_event_that_is_no_number():
    """NaN, or an array: an error that names it."""
    for bad in (lambda x, p: np.nan, lambda x, p: np.zeros(2), lambda x, p: "a"):
        refused("event", dl.branch, line, [0.0], 0.0, bounds=(-1, 1), events=[bad])


@call
def an_event_at_the_start():
    """x = 0 at the start itself: one row is flagged."""
    b = dl.branch(line, [0.0], 0.0, bounds=(-1, 1), events=[lambda x, p: x[0]])
    specials(valid(b, line, 0.0, (-1, 1)), [("user", 0.0)])


@call
def an_event_on_many_nodes():
    """Zeros on round numbers: each once."""
    zeros = [k / 20 for k in range(-19, 20, 3)]
    event = lambda x, p: float(np.prod([20 * (p - z) for z in zeros])) / 1e6  # noqa: E731
    b = dl.branch(line, [-1.0], -1.0, bounds=(-1, 1), events=[event], step=0.05, step_max=0.05)
    specials(valid(b, line, -1.0, (-1, 1)), [("user", z) for z in zeros])


# F that is not smooth.


@call
def a_corner():
    """p = |x|: the corner is a fold, or the end is told; rows are on one side or on both."""
    f = lambda x, p: p - np.abs(x)  # noqa: E731

    def check(b):
        valid(b, f, 1.0, (-1, 2))
        if not set(stops(b)) & TOLD:
            specials(b, [("fold", 0.0)], 1e-6)
            assert b.p.values[[0, -1]].tolist() == [2.0, 2.0], shown(b)

    right_or_told(check, lambda: dl.branch(f, [1.0], 1.0, bounds=(-1, 2)))


@call
def a_second_derivative_that_jumps():
    """p = x |x| goes on through zero: no fold."""
    f = lambda x, p: p - x * np.abs(x)  # noqa: E731

    def check(b):
        valid(b, f, -1.0, (-2, 2))
        assert "fold" not in [kind for kind, _, _ in events(b)], shown(b)
        if not set(stops(b)) & TOLD:
            whole(b, (-2, 2))

    right_or_told(check, lambda: dl.branch(f, [-1.0], -1.0, bounds=(-2, 2)))


@call
def a_slope_that_jumps():
    """p = x + max(x, 0): whole, or told."""
    f = lambda x, p: p - 0.5 * x - np.maximum(x, 0.0)  # noqa: E731

    def check(b):
        valid(b, f, -1.0, (-2, 2))
        assert events(b) == [], shown(b)
        if not set(stops(b)) & TOLD:
            whole(b, (-2, 2))

    right_or_told(check, lambda: dl.branch(f, [-2.0], -1.0, bounds=(-2, 2)))


@call
def a_jump_in_x():
    """p = x + sign(x)/2 has no solution between: it ends there, told."""
    f = lambda x, p: p - x - 0.5 * np.sign(x)  # noqa: E731
    b = valid(dl.branch(f, [-1.0], -1.5, bounds=(-2, 2)), f, -1.5, (-2, 2))
    assert (b.state < 0.0).all(), "jumped over the gap"
    assert set(stops(b)) & TOLD, shown(b)


@call
def a_jump_in_p():
    """x jumps from 0 to 1 at p = 0.3: that is two branches; told, not passed over."""
    f = lambda x, p: x - (1.0 if p > 0.3 else 0.0)  # noqa: E731
    b = valid(dl.branch(f, [0.0], 0.0, bounds=(-1, 1)), f, 0.0, (-1, 1))
    assert (b.state < 0.5).all(), "jumped"
    assert set(stops(b)) & TOLD, shown(b)


@call
def a_small_jump_in_p():
    """The same by 0.01, less than a step: an error, told, or at least never beyond the residual."""
    f = lambda x, p: x - (0.01 if p > 0.3 else 0.0)  # noqa: E731
    b = valid(dl.branch(f, [0.0], 0.0, bounds=(-1, 1)), f, 0.0, (-1, 1))
    assert events(b) == [], shown(b)


@call
def a_noisy_line():
    """Noise of 1e-10: whole, without events, or told."""

    def noisy(x, p):
        return p - x + 1e-10 * np.sin(1e12 * (x + 3.0 * p))

    def check(b):
        valid(b, line, 0.0, (-1, 1), 1e-8)
        assert events(b) == [], shown(b)
        if not set(stops(b)) & (TOLD | {"max_points"}):
            whole(b, (-1, 1))

    r = dl.Residual(noisy, lambda x, p: -np.eye(1), derivative=lambda x, p: np.ones(1))
    right_or_told(check, lambda: dl.branch(r, [0.0], 0.0, bounds=(-1, 1)), r"^x0: .*\d|^jacobian")


@call
def a_noisy_fold_without_a_jacobian():
    """Noise of 1e-10, differenced: one fold near 0, or told."""
    rng = np.random.default_rng(0)

    def noisy(x, p):
        return p + x**2 + 1e-10 * rng.normal(size=1)

    def check(b):
        valid(b, fold, -1.0, (-2, 1), 1e-7)
        if not set(stops(b)) & TOLD:
            specials(b, [("fold", 0.0)], 1e-5)

    right_or_told(check, lambda: dl.branch(noisy, [1.0], -1.0, bounds=(-2, 1)), r"\d")


# Several solutions, and networks at λ = 0.


@call
def the_nearest_of_several_solutions():
    """p = 0 has −√3, 0, √3: each from its neighbourhood."""
    for x0, near in ((-1.6, -np.sqrt(3.0)), (0.2, 0.0), (1.8, np.sqrt(3.0))):
        b = valid(dl.branch(cubic, [x0], 0.0, bounds=(-2, 2)), cubic, 0.0, (-2, 2))
        assert abs(b.state.values[b.attrs["start_step"], 0] - near) < 1e-9, shown(b)
        specials(b, [("fold", -2 / 3), ("fold", 2 / 3)])


def _at_zero(widths, modes, bounds=(0.0, 0.3)):
    sigma = (3.0, 2.0)
    net = dl.LinearNetwork(widths, np.diag(sigma))
    equation = dl.equilibria(net, vary="weight_decay")
    x = net.critical_state(modes)
    case = decays.Case(sigma, widths, modes, "u" * len(modes), 0.0, bounds)

    def check(b):
        wrong = decays.complaints(case, net, b)
        assert not wrong, wrong[0]

    say = r"(?s)(p0|x0|residual): .*(weight_decay|λ|p) = 0.*(start|away|p0|begin)"
    right_or_told(check, lambda: dl.branch(equation, x, 0.0, bounds=bounds), say)


@call
def a_saddle_of_three_layers_at_zero_decay():
    """Right, or an error that says p = 0 is a branch point, and to start elsewhere."""
    _at_zero((2, 2, 2, 2), (0,))


@call
def a_saddle_of_two_layers_at_zero_decay():
    """The same of two layers, where no eigenvalue but those of the orbit vanishes."""
    _at_zero((2, 2, 2), (1,))


@call
def a_wide_saddle_of_two_layers_at_zero_decay():
    """The same with more hidden units."""
    _at_zero((2, 4, 2), (0,))


@call
def the_origin_of_three_layers_at_zero_decay():
    """All of the Hessian vanishes."""
    _at_zero((2, 2, 2, 2), ())


@call
def a_minimum_at_zero_decay():
    """Full rank: the symmetry changes at the start, nothing else."""
    _at_zero((2, 2, 2, 2), (0, 1))


@call
def a_minimum_at_zero_decay_on_both_sides():
    """The same within the bounds."""
    _at_zero((2, 2, 2), (0, 1), (-0.3, 0.3))


# Symmetry.


def ring(x, p):
    return (p - x @ x) * x


@call
def an_undeclared_symmetry():
    """(p − |x|²) x: an error that says to declare it."""
    refused("declare generators|minimum_norm", dl.branch, ring, [1.0, 0.0], 1.0, bounds=(0.1, 2.0))


@call
def an_undeclared_symmetry_across_it():
    """minimum_norm: whole, without events."""
    b = dl.branch(ring, [1.0, 0.0], 1.0, bounds=(0.1, 2.0), symmetry="minimum_norm")
    whole(valid(b, ring, 1.0, (0.1, 2.0)), (0.1, 2.0))
    assert events(b) == [], shown(b)


@call
def a_declared_symmetry():
    """Whole, without events, an orbit of one dimension."""
    r = dl.Residual(ring, generators=lambda x, p: np.array([[-x[1], x[0]]]))
    b = dl.branch(r, [0.6, 0.8], 1.0, bounds=(0.1, 2.0))
    whole(valid(b, ring, 1.0, (0.1, 2.0)), (0.1, 2.0))
    assert events(b) == [], shown(b)
    assert set(b.orbit_dimension.values.tolist()) == {1}


@call
def minimum_norm_without_a_symmetry():
    """The same as without."""
    b = dl.branch(fold, [1.0], -1.0, bounds=(-2, 1), symmetry="minimum_norm")
    specials(valid(b, fold, -1.0, (-2, 1)), [("fold", 0.0)])


@call
def minimum_norm_from_a_fold():
    """At the start the kernel is the fold's: told, or right."""

    def check(b):
        valid(b, fold, 0.0, (-1, 1))
        specials(b, [("fold", 0.0)])

    call = lambda: dl.branch(fold, [0.0], 0.0, bounds=(-1, 1), symmetry="minimum_norm")  # noqa: E731
    right_or_told(check, call, "fold|singular|null direction")


# Eigenvalues.


def _counted(n_eigenvalues, symmetric):
    f = lambda x, p: np.array([p * x[0] - x[0] ** 3, (p - 0.5) * x[1] - x[1] ** 3, -x[2]])  # noqa: E731
    r = dl.Residual(f, symmetric=symmetric)
    b = dl.branch(r, np.zeros(3), -0.75, bounds=(-1, 1), n_eigenvalues=n_eigenvalues)
    whole(valid(b, f, -0.75, (-1, 1)), (-1, 1))
    specials(b, [("branch_point", 0.0), ("branch_point", 0.5)])
    assert sorted(b["index"].values[[0, -1]].tolist()) == [0, 2], shown(b)
    assert b.sizes["eigen"] <= max(n_eigenvalues, 0), b.sizes


@call
def no_eigenvalues_of_a_symmetric_jacobian():
    """Only counted: the same events and index."""
    _counted(0, True)


@call
def no_eigenvalues_of_another_jacobian():
    """The same."""
    _counted(0, False)


@call
def one_eigenvalue():
    """The same."""
    _counted(1, True)


@call
def more_eigenvalues_than_components():
    """The same."""
    _counted(50, False)


@call
def counts_of_eigenvalues_that_are_none():
    """Named."""
    for value in (-1, 1.5, "2"):
        refused(
            "^n_eigenvalues: ", dl.branch, line, [0.0], 0.0, bounds=(-1, 1), n_eigenvalues=value
        )


# Zeros on nodes.


def _round(form, known, bounds=(-1, 1)):
    """From every round start, with round steps: the same event, index from 0 to 1."""
    for start in range(-19, 0, 2):
        for step in (0.05, 0.1, 0.25, 0.5):
            b = dl.branch(form, [0.0], start / 20, bounds=bounds, step=step)
            whole(valid(b, form, start / 20, bounds), bounds)
            specials(b, known)


@call
def a_pitchfork_on_a_node():
    """p x − x³ from 10 round starts and 4 steps."""
    _round(pitchfork, [("branch_point", 0.0)])


@call
def a_transcritical_point_on_a_node():
    """p x − x² the same."""
    _round(transcritical, [("branch_point", 0.0)])


@call
def small_steps_onto_a_node():
    """step_max = 0.05 from −½: 0 is met by each node."""
    for form in (pitchfork, transcritical):
        b = dl.branch(form, [0.0], -0.5, bounds=(-1, 1), step_max=0.05)
        specials(valid(b, form, -0.5, (-1, 1)), [("branch_point", 0.0)])


@call
def a_fold_on_a_node():
    """p + x² from round x with small round steps."""
    for k in (2, 5, 10, 16):
        for step in (0.01, 0.05, 0.1):
            x = k / 20
            b = dl.branch(fold, [x], -(x**2), bounds=(-1, 1), step=step, step_max=0.1)
            specials(valid(b, fold, -(x**2), (-1, 1)), [("fold", 0.0)])


@call
def a_branch_point_on_a_bound():
    """p x − x³ along x = 0 with the bound 0: flagged on the end, no index change without it."""
    b = valid(dl.branch(pitchfork, [0.0], -0.5, bounds=(-1, 0)), pitchfork, -0.5, (-1, 0))
    whole(b, (-1, 0))
    specials(b, [("branch_point", 0.0)])


@call
def a_fold_on_a_bound():
    """p + x² with the bound 0: the fold is told, both arms or one."""
    b = valid(dl.branch(fold, [1.0], -1.0, bounds=(-1.5, 0)), fold, -1.0, (-1.5, 0))
    specials(b, [("fold", 0.0)])


# Closed curves.


@call
def a_circle_from_a_fold():
    """Once round, both folds, one of them on the start."""
    b = valid(dl.branch(circle, [0.0], -1.0, bounds=(-2, 2)), circle, -1.0, (-2, 2))
    assert sorted(round(p, 8) for _, p, _ in events(b)) == [-1.0, 1.0], shown(b)
    assert "closed" in stops(b), shown(b)


@call
def a_circle_between_its_folds():
    """Bounds on both folds: closed, or ended at a bound; two folds."""
    b = valid(dl.branch(circle, [1.0], 0.0, bounds=(-1, 1)), circle, 0.0, (-1, 1))
    assert sorted({round(p, 8) for _, p, _ in events(b)}) == [-1.0, 1.0], shown(b)
    assert len(events(b)) <= 3, shown(b)
    x = b.state.values[:, 0]
    assert "closed" in stops(b) or stops(b) == ("bound_reached",) * 2, shown(b)
    assert "closed" not in stops(b) or (x.min() < -0.9 and x.max() > 0.9), shown(b)


@call
def a_circle_cut_by_the_bounds():
    """From bound to bound over the top, without a fold."""
    b = valid(dl.branch(circle, [1.0], 0.0, bounds=(-0.5, 0.5)), circle, 0.0, (-0.5, 0.5))
    whole(b, (-0.5, 0.5))
    assert events(b) == [], shown(b)
    assert (b.state > 0.0).all(), shown(b)


@call
def a_tiny_circle():
    """Radius 0.01, less than a step: once round."""
    f = lambda x, p: x**2 + p**2 - 1e-4  # noqa: E731
    b = valid(dl.branch(f, [0.01], 0.0, bounds=(-1, 1)), f, 0.0, (-1, 1), 1e-12)
    assert sorted(round(p, 8) for _, p, _ in events(b)) == [-0.01, 0.01], shown(b)
    assert "closed" in stops(b), shown(b)


@call
def two_circles_side_by_side():
    """A jump to the other one is refused."""

    def two(x, p):
        return (x**2 + p**2 - 1.0) * ((x - 2.02) ** 2 + p**2 - 1.0)

    b = valid(dl.branch(two, [-1.0], 0.0, bounds=(-2, 2)), two, 0.0, (-2, 2))
    assert float(b.state.max()) < 1.005, "jumped to the other circle"
    assert sorted(round(p, 8) for _, p, _ in events(b)) == [-1.0, 1.0], shown(b)
    assert "closed" in stops(b), shown(b)


@call
def two_near_lines():
    """x = p and x = p + 0.01: no jump from one to the other."""
    f = lambda x, p: -(x - p) * (x - p - 0.01) * 100.0  # noqa: E731
    b = valid(dl.branch(f, [0.0], 0.0, bounds=(-1, 1)), f, 0.0, (-1, 1))
    whole(b, (-1, 1))
    assert np.abs(b.state.values[:, 0] - b.p.values).max() < 1e-6, "jumped"
    assert events(b) == []


@call
def crossings_at_small_angles():
    """A curve φ(p), crossed twice by one whose slope differs by 0.1: it stays on φ."""

    def phi(p):
        return 1.0 + 0.4 * p - 0.85 * p**2 + 0.3 * p**3

    def f(x, p):
        return (x - phi(p)) * (-(p + 0.15) * (p + 0.05) - (x - phi(p)))

    b = valid(dl.branch(f, [phi(0.95)], 0.95, bounds=(-1.4, 1.85)), f, 0.95, (-1.4, 1.85))
    assert np.abs(b.state.values[:, 0] - phi(b.p.values)).max() < 1e-8, "jumped, " + shown(b)
    specials(b, [("branch_point", -0.15), ("branch_point", -0.05)])


@call
def two_crossings_within_one_step():
    """Both are events, though the index is the same before and after."""

    def f(x, p):
        return (x - 0.15) * (-(p + 0.25) * (p + 0.1) - (x - 0.15) ** 2)

    for step in (0.05, 0.1, 0.25, 0.5):
        b = dl.branch(f, [0.15], -1.35, bounds=(-1.8, 0.95), step=step)
        valid(b, f, -1.35, (-1.8, 0.95))
        specials(b, [("branch_point", -0.25), ("branch_point", -0.1)])


# Branches that go on.


@call
def extending_beyond_a_bound():
    """No room: named."""
    b = dl.branch(line, [0.0], 0.0, bounds=(-1, 1))
    refused("^bounds: ", dl.extend_branch, line, b)


@call
def extending_with_wider_bounds():
    """The same special points as in one go."""
    b = dl.branch(pitchfork, [0.0], -0.75, bounds=(-1, -0.5))
    longer = dl.extend_branch(pitchfork, b, bounds=(-1, 1))
    valid(longer, pitchfork, -0.75, (-1, 1))
    specials(longer, [("branch_point", 0.0)])
    assert longer.p.values.max() == 1.0


@call
def extending_to_bounds_elsewhere():
    """Named."""
    b = dl.branch(line, [0.0], 0.0, bounds=(-1, 1))
    refused("^bounds: ", dl.extend_branch, line, b, bounds=(2, 3))


@call
def extending_a_closed_branch():
    """Named."""
    b = dl.branch(circle, [1.0], 0.0, bounds=(-2, 2), step_max=0.1)
    refused("^branch: .*closed", dl.extend_branch, circle, b)


@call
def extending_another_equation():
    """Named."""
    b = dl.branch(line, [0.0], 0.0, bounds=(-1, 1))
    refused("^residual: ", dl.extend_branch, lambda x, p: p - 2.0 * x, b, bounds=(-2, 2))


@call
def extending_after_one_point():
    """The rest, as in one go."""
    b = dl.branch(fold, [1.0], -1.0, bounds=(-2, 1), max_points=1, direction="up")
    longer = valid(dl.extend_branch(fold, b), fold, -1.0, (-2, 1))
    specials(longer, [("fold", 0.0)])
    assert longer.p.values[-1] == -2.0, shown(longer)


@call
def extending_where_nothing_is_finite():
    """Told again."""
    fun = quietly(lambda x, p: p - np.sqrt(x))
    b = dl.branch(fun, [0.25], 0.5, bounds=(-1, 1), direction="down")
    side = "first" if b.p.values[0] < b.p.values[-1] else "last"

    def check(longer):
        valid(longer, fun, 0.5, (-1, 1), 1e-6)
        assert longer.attrs[f"{side}_stop"] in TOLD, shown(longer)

    call = lambda: dl.extend_branch(fun, b, side=side)  # noqa: E731
    right_or_told(check, call, r"^(branch|bounds): ")


@call
def extending_from_a_bound_that_is_a_branch_point():
    """The event stays once, the index changes there."""
    b = dl.branch(pitchfork, [0.0], -0.5, bounds=(-1, 0))
    longer = valid(dl.extend_branch(pitchfork, b, bounds=(-1, 1)), pitchfork, -0.5, (-1, 1))
    specials(longer, [("branch_point", 0.0)])


@call
def a_diagram_of_x_and_minus_x():
    """p x − x³ without a declared symmetry: x = 0, x > 0 and x < 0, without parts twice."""
    tree = dl.diagram(pitchfork, [0.0], -0.5, bounds=(-1, 1))
    sides = [float(np.sign(b.state.values.sum())) for b in map(_node, tree.children.values())]
    assert sorted(sides) == [-1.0, 0.0, 1.0], sides


@call
def a_diagram_of_crossing_lines():
    """p x − x² has x = 0 and both halves of x = p."""
    for step_max in (0.5, 0.05):
        tree = dl.diagram(transcritical, [0.0], -0.5, bounds=(-1, 1), step_max=step_max)
        nodes = [_node(node) for node in tree.children.values()]
        ends = sorted(tuple(np.sort(b.p.values[[0, -1]]).round(6).tolist()) for b in nodes)
        assert ends == [(-1.0, 0.0), (-1.0, 1.0), (0.0, 1.0)], ends


def _node(node):
    return node.to_dataset()
