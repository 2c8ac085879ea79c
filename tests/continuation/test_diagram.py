"""Diagrams: every branch of normal forms and of weight decay is found, and none twice."""

import itertools

import numpy as np
import pytest
from equations import along, decayed, events, weight_decay

import dlnds as dl


def branches(tree):
    return [node.to_dataset() for node in tree.children.values()]


@pytest.mark.parametrize(
    ("form", "count"),
    [
        (lambda x, p: p * x - x**3, 3),
        (lambda x, p: p * x + x**3, 3),
        (lambda x, p: p * x - x**2, 3),
        (lambda x, p: p**2 * x - x**3, 5),
        (lambda x, p: x * (x - p**2), 3),
    ],
)
def test_normal_forms_have_their_branches(form, count):
    """Both halves of a pitchfork, and of each line that crosses, are branches."""
    tree = dl.diagram(form, [0.0], -0.5, bounds=(-1.0, 1.0))
    dl.schema.validate(tree)
    assert tree.attrs["complete"] == 1
    assert len(tree.children) == count
    for branch in branches(tree)[1:]:
        assert branch.attrs["parent"] == "branch_0"
        row = branches(tree)[0].isel(step=branch.attrs["parent_step"])
        assert dl.schema.decode(row.event).item() == "branch_point"
        np.testing.assert_allclose(branch.state[0], row.state, atol=1e-12)
        values = [form(x, p) for x, p in zip(branch.state.values, branch.p.values, strict=True)]
        assert np.abs(values).max() < 1e-9
        assert float(np.abs(branch.state[-1]).max()) > 0.5
    ends = [(*branch.state.values[-1], float(branch.p[-1])) for branch in branches(tree)]
    assert len({tuple(np.round(end, 6)) for end in ends}) == count


@pytest.mark.parametrize(
    ("sigma", "modes", "start"),
    [
        ((2.0, 1.999), (0,), 0.1),
        ((2.0, 1.9998), (0, 1), 0.7),
        ((2.0, 1.9998), (0,), 0.1),
        ((2.0, 1.9999), (1,), 0.1),
        ((2.0, 1.9999, 1.99975), (0,), 0.1),
    ],
)
def test_modes_that_die_next_to_one_another_have_all_their_branches(sigma, modes, start):
    """Of h = 2 mode i is dead, or lives up to λ = σ_i: every index set is there below all."""
    d, decay = len(sigma), 0.3
    net = dl.LinearNetwork(widths=(d, d, d), target=np.diag(sigma))
    equation = dl.equilibria(net, vary="weight_decay")
    tree = dl.diagram(equation, net.critical_state(modes), start, bounds=(0.02, 2.6), depth=4)
    assert tree.attrs["complete"] == 1
    passing = set()
    for branch in branches(tree):
        place, names = branch.p.values, branch.label.values
        for k in np.flatnonzero((place[1:] - decay) * (place[:-1] - decay) < 0.0):
            passing |= {str(names[k]), str(names[k + 1])}
    sets = (s for r in range(d + 1) for s in itertools.combinations(range(d), r))
    assert passing == {"{" + ",".join(map(str, modes)) + "}" for modes in sets}


@pytest.mark.parametrize(("most", "complete"), [(1000, 1), (20, 0)])
def test_a_ring_that_is_cut_short_leaves_a_diagram_incomplete(most, complete):
    ring = dl.diagram(
        lambda x, p: x**2 + p**2 - 1.0, [1.0], 0.0, bounds=(-2.0, 2.0), max_points=most
    )
    (branch,) = branches(ring)
    assert branch.attrs["last_stop"] == ("closed" if complete else "max_points")
    assert ring.attrs["complete"] == complete


def test_the_lorenz_equations_have_a_pair_with_its_hopf_point():
    lorenz = dl.Residual(
        lambda x, r: np.array(
            [10 * (x[1] - x[0]), x[0] * (r - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]]
        )
    )
    tree = dl.diagram(lorenz, np.zeros(3), 0.5, bounds=(0.0, 30.0))
    _, *pair = branches(tree)
    assert [np.sign(half.state.values[-1, 0]) for half in pair] == [1.0, -1.0]
    for half in pair:
        assert [kind for kind, _, _ in events(half)] == ["hopf"]
        assert events(half)[0][1] == pytest.approx(470 / 19, abs=1e-8)


@pytest.mark.parametrize("d", [2, 3])
def test_two_layers_with_weight_decay_reach_every_index_set(d):
    """λ = σ_j − s_j² for the modes that are there: 2^d branches, met at λ = σ_j."""
    sigma = np.arange(d, 0, -1.0)
    net, equation = weight_decay((d, d, d), sigma)
    start = decayed(net, np.sqrt(sigma - 0.3))
    tree = dl.diagram(equation, start, 0.3, bounds=(0.2, d + 0.5), depth=2 * d, step_max=0.3)
    sets = set()
    for branch in branches(tree):
        for x, p in zip(branch.state.values, branch.p.values, strict=True):
            W = net.product(x)
            np.testing.assert_allclose(W, np.diag(np.diag(W)), atol=1e-7)
            there = np.diag(W) > 1e-4
            np.testing.assert_allclose(np.diag(W)[there], (sigma - p)[there], atol=1e-7)
            if p < 0.9:
                sets.add(tuple(np.flatnonzero(there).tolist()))
        for kind, p, _ in events(branch):
            assert kind in ("branch_point", "symmetry_change")
            assert np.abs(sigma - p).min() < 1e-8
    assert len(sets) == 2**d


def test_no_orbit_is_followed_twice_from_a_sphere_of_directions():
    """F_i = −x_i + λ x_i/2 − ‖x‖² x_i in three dimensions: one branch stands for the sphere."""

    def field(x, p):
        return -x + 0.5 * p * x - (x @ x) * x

    def generators(x, p):
        i, j = np.triu_indices(3, 1)
        rows = np.zeros((3, 3))
        rows[range(3), i], rows[range(3), j] = -x[j], x[i]
        return rows

    equation = dl.Residual(field, generators=generators, symmetric=True)
    tree = dl.diagram(equation, np.zeros(3), 1.0, bounds=(0.0, 4.0))
    first, ring = branches(tree)
    assert events(first)[0][0] == "branch_point"
    assert events(first)[0][1:] == (pytest.approx(2.0, abs=1e-9), 3)
    radius = np.linalg.norm(ring.state.values, axis=1)
    np.testing.assert_allclose(radius**2, 0.5 * ring.p.values - 1.0, atol=1e-9)
    assert set(ring.orbit_dimension.values[1:].tolist()) == {2}
    assert tree.attrs["complete"] == 1


@pytest.mark.parametrize("depth", [2, 3])
def test_crossing_modes_are_joined_from_any_point_of_an_orbit_of_gl(depth):
    """Σ = diag(3, 1 + θ, 2 − θ): {0,1} and {0,2} are joined at θ = 1/2 by all projectors between.

    Orbits of GL are not compact: neither sizes nor eigenvalues of states are those of an orbit.
    """
    net, equation, start = along([3.0, 1.0, 2.0], [0.0, 1.0, -1.0], (0, 1), depth)
    rng = np.random.default_rng(depth)
    group = [rng.normal(size=(2, 2)) for _ in range(depth - 1)]
    for x in (start, dl.act(net, group, start)):
        tree = dl.diagram(equation, x, 0.0, bounds=(0.0, 1.0), depth=3, step_max=0.2)
        first, circle, *others = branches(tree)
        parents = [branch.attrs["parent"] for branch in (circle, *others)]
        assert parents == ["branch_0", "branch_1", "branch_1"]
        assert tree.attrs["complete"] == 1
        for branch, mode in ((first, 1), *((other, 2) for other in others)):
            regular = branch.isel(step=slice(mode == 2, None))  # without what was located before
            for state, p in zip(regular.state.values, regular.p.values, strict=True):
                sigma = np.array([3.0, 1.0 + p, 2.0 - p])
                known = np.where(np.isin(np.arange(3), (0, mode)), sigma, 0.0)
                np.testing.assert_allclose(net.product(state), np.diag(known), atol=1e-9)
        ends = [branch.p.values[[0, -1]].round(12).tolist() for branch in (first, *others)]
        assert ends[0] == [0.0, 1.0]
        assert sorted(ends[1:]) == [[0.5, 0.0], [0.5, 1.0]]
        # Round the circle once: a line between the modes comes back after half a turn.
        np.testing.assert_allclose(circle.p, 0.5, atol=1e-9)
        assert circle.attrs["last_stop"] == "closed"
        W = np.stack([net.product(state) for state in circle.state.values]) / 1.5
        doubled = np.unwrap(np.arctan2(2.0 * W[:, 1, 2], W[:, 1, 1] - W[:, 2, 2]))
        turn = np.abs(np.diff(doubled))
        assert abs(doubled[-1] - doubled[0]) == pytest.approx(2 * np.pi, abs=2.0 * turn.max())
        np.testing.assert_allclose(np.trace(W[:, 1:, 1:], axis1=1, axis2=2), 1.0, atol=1e-9)


def test_declared_invariants_decide_what_is_one_orbit():
    """Of a pitchfork both halves are one orbit to |x|, and two to x."""

    def form(x, p):
        return p * x - x**3

    for invariants, count in ((lambda x, p: np.abs(x), 2), (lambda x, p: x, 3)):
        equation = dl.Residual(form, invariants=invariants)
        tree = dl.diagram(equation, [0.0], -0.5, bounds=(-1.0, 1.0))
        assert len(tree.children) == count


def counted(tree):
    """How many branches start at each p, and how they end."""
    starts = [float(branch.p[0]) for branch in branches(tree)[1:]]
    stops = {branch.attrs["last_stop"] for branch in branches(tree)}
    return {p: sum(abs(q - p) < 1e-6 for q in starts) for p in np.round(starts, 5)}, stops


@pytest.mark.parametrize(
    ("height", "slope", "start", "count"),
    [
        (0.5, 0.0, (0.6, 0.8), 3),
        (0.5, 0.0, (0.5, 0.1), 2),
        (0.3, 0.0, (0.3, -0.35), 2),
        (0.9, 0.0, (0.9, -0.35), 2),
        (0.0, 1.0, (0.96, -0.28), 3),
        (0.0, 1.0, (0.1, 0.1), 2),
    ],
)
def test_a_circle_and_a_line_that_cross_twice_are_followed_once(height, slope, start, count):
    """(x² + p² − 1)(x − h − s p): a closed branch, and a line that is one branch or two halves."""

    def form(x, p):
        return (x**2 + p**2 - 1.0) * (x - height - slope * p)

    tree = dl.diagram(form, [start[0]], start[1], bounds=(-2.0, 2.0))
    assert tree.attrs["complete"] == 1
    assert len(tree.children) == count
    everything = branches(tree)
    (ring,) = [branch for branch in everything if branch.attrs["last_stop"] == "closed"]
    np.testing.assert_allclose(ring.state[:, 0] ** 2 + ring.p**2, 1.0, atol=1e-9)
    assert [kind for kind, *_ in events(ring)].count("fold") == 2
    for line in everything:
        if line is not ring:
            np.testing.assert_allclose(line.state[:, 0], height + slope * line.p, atol=1e-9)


def test_two_branch_points_of_equal_p_both_have_their_branches():
    """y² + p² = 1 has y = ±1 at p = 0, where z = ±√p leave: six solutions up to p = ½."""

    def form(x, p):
        return np.array([x[0] ** 2 + p**2 - 1.0, p * x[1] - x[1] ** 3])

    tree = dl.diagram(form, [np.sqrt(0.84), 0.0], 0.4, bounds=(-2.0, 0.5))
    assert tree.attrs["complete"] == 1
    ends = [b.state.values[k] for b in branches(tree) for k in (0, -1) if b.p[k] > 0.25]
    y, z = np.sqrt(0.75), np.sqrt(0.5)
    expected = [(s * y, t * z) for s in (-1, 1) for t in (-1, 0, 1)]
    np.testing.assert_allclose(sorted(ends, key=lambda x: (*x.round(6),)), expected, atol=1e-9)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("roots", "count"), [("tt", 7), ("ttt", 15), ("tp", 7), ("pp", 9)])
def test_decoupled_crossings_are_known_to_be_all(roots, count, turned):
    """x_i = 0 or p (t), or 0 or ±√p (p): all combinations are lines or parabolas, of two halves."""
    power = np.array([2 if kind == "t" else 3 for kind in roots])
    turn = np.eye(len(roots))
    if turned:
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=2 * turn.shape[:1]))[0]

    def form(y, p):
        x = turn.T @ y
        return turn @ (p * x - x**power)

    tree = dl.diagram(form, np.zeros(len(roots)), -0.5, bounds=(-1.0, 1.0))
    assert tree.attrs["complete"] == 1
    assert len(tree.children) == count
    ends = np.array([branch.state.values[-1] @ turn for branch in branches(tree)])
    assert len(np.unique(ends.round(6), axis=0)) == count


@pytest.mark.parametrize("rotation", [None, 0])
def test_repeated_modes_have_a_branch_for_each_sign_pattern(rotation):
    """F_i = −x_i + λ x_i/i − x_i³ with i repeated i times: 3^i − 1 at λ = i."""
    modes = np.array([1.0, 2.0, 2.0, 3.0, 3.0, 3.0])
    turn = np.eye(6)
    if rotation is not None:
        turn = np.linalg.qr(np.random.default_rng(rotation).normal(size=(6, 6)))[0]

    def field(y, p):
        x = turn.T @ y
        return turn @ ((p / modes - 1.0) * x - x**3)

    equation = dl.Residual(field, symmetric=True)
    tree = dl.diagram(equation, np.zeros(6), 0.5, bounds=(0.2, 3.5))
    assert tree.attrs["complete"] == 1
    assert counted(tree) == ({1.0: 2, 2.0: 8, 3.0: 26}, {"bound_reached"})
    for branch in branches(tree):
        x = branch.state.values @ turn
        lack = (branch.p.values[:, None] / modes - 1.0) * x - x**3
        assert np.abs(lack).max() < 1e-9


def test_coupled_pitchforks_are_joined_by_one_closed_branch():
    """x (p − x² − 2y²) and y (p − δ − y² − x²/4): the axes meet mixed solutions at 4δ/3 and 2δ.

    These are an ellipse around the origin, reached from each of the four points on the axes.
    """

    def field(x, p):
        a, b = x**2
        return np.array([x[0] * (p - a - 2.0 * b), x[1] * (p - 0.3 - b - 0.25 * a)])

    tree = dl.diagram(field, np.zeros(2), -0.5, bounds=(-1.0, 2.0), depth=5)
    first, *axes, ring = branches(tree)
    assert tree.attrs["complete"] == 1
    assert [kind for kind, *_ in events(first)] == ["branch_point"] * 2
    np.testing.assert_allclose([p for _, p, _ in events(first)], [0.0, 0.3], atol=1e-9)
    assert len(axes) == 4
    places = sorted(p for axis in axes for _, p, _ in events(axis))
    np.testing.assert_allclose(places, [0.4, 0.4, 0.6, 0.6], atol=1e-8)
    assert ring.attrs["last_stop"] == "closed"
    a, b = (ring.state.values**2).T
    np.testing.assert_allclose(a + 2.0 * b, ring.p, atol=1e-10)
    np.testing.assert_allclose(b + 0.25 * a, ring.p - 0.3, atol=1e-10)


def test_a_rod_on_which_diffusion_fights_reaction_has_its_modes():
    """−u″ = λ (u − u³) with Neumann ends in finite differences: λ = (2/h sin(kπh/2L))², and λ = 0.

    At λ = 0 all constants are solutions: two branches lead along them, at a constant λ.
    """
    n, length = 20, np.pi
    h = length / (n - 1)
    second = (np.eye(n, k=1) + np.eye(n, k=-1) - 2.0 * np.eye(n)) / h**2
    second[0, 1] = second[-1, -2] = 2.0 / h**2
    equation = dl.Residual(
        lambda u, p: second @ u + p * (u - u**3),
        lambda u, p: second + p * np.diag(1.0 - 3.0 * u**2),
        derivative=lambda u, p: u - u**3,
    )
    tree = dl.diagram(equation, np.zeros(n), 0.5, bounds=(0.25, 5.0))
    known = (2.0 / h * np.sin(np.arange(1, 3) * np.pi * h / (2.0 * length))) ** 2
    assert tree.attrs["complete"] == 1
    starts = [float(branch.p[0]) for branch in branches(tree)[1:]]
    np.testing.assert_allclose(starts, np.repeat(known, 2), atol=1e-8)
    for number, branch in enumerate(branches(tree)[1:]):
        end = branch.state.values[-1]
        assert np.count_nonzero(np.diff(np.sign(end))) == 1 + number // 2


def test_a_continuum_that_no_symmetry_accounts_for_is_incomplete():
    def field(x, p):
        return p * x - (x @ x) * x

    tree = dl.diagram(dl.Residual(field, symmetric=True), np.zeros(2), -0.5, bounds=(-1.0, 1.0))
    assert list(tree.children) == ["branch_0"]
    assert tree.attrs["complete"] == 0


def test_diagrams_stop_at_their_limits():
    tree = dl.diagram(lambda x, p: p * x - x**2, [0.0], -0.5, bounds=(-1.0, 1.0), depth=0)
    assert list(tree.children) == ["branch_0"]
    tree = dl.diagram(lambda x, p: p * x - x**2, [0.0], -0.5, bounds=(-1.0, 1.0), max_branches=2)
    assert len(tree.children) == 2
    assert tree.attrs["complete"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": -1}, "^depth: needs at least 0"),
        ({"max_branches": 0}, "^max_branches: needs at least 1"),
        ({"bounds": (1.0, 0.0)}, "^bounds: needs"),
        ({"p0": 3.0}, "^p0: needs"),
    ],
)
def test_bad_input_is_named(change, message):
    options = {"x0": [0.0], "p0": 0.0, "bounds": (-1.0, 1.0)}
    with pytest.raises((ValueError, TypeError), match=message):
        dl.diagram(lambda x, p: p + x, **{**options, **change})


@pytest.mark.parametrize(("sigma", "symmetry"), [(1.0, "declared"), (2.0, "minimum_norm")])
def test_cycles_of_descent_pass_the_fixed_points_that_they_are_born_at(sigma, symmetry):
    """At ησ = 1 a 2-cycle leaves the minima, a curve of them; s_1 s_2 = 1/η, s_1² + s_2² = σ + 1/η.

    With A = 1 + ησ its multipliers are 9 − 2A² and 5 − 2A, of which −1 is at ησ = √5 − 1.
    """
    eta = 1.15 / sigma
    size = 0.5 * (np.sqrt(sigma + 3.0 / eta) + np.sqrt(sigma - 1.0 / eta))
    descent = dl.GradientDescent(dl.LinearNetwork(widths=(1, 1, 1), target=[[sigma]]), eta)
    tree = dl.diagram(
        *(dl.equilibria(descent, "step_size", period=2), [size, size], eta),
        bounds=(0.3 / sigma, 1.6 / sigma),
        symmetry=symmetry,
    )
    branch = tree["branch_0"].to_dataset()
    assert tree.attrs["complete"] == 0  # the minima are no branch
    assert branch.attrs["first_stop"] == branch.attrs["last_stop"] == "bound_reached"
    assert branch.attrs["symmetry"] == symmetry
    special = dl.special_points(branch)
    kinds = dl.schema.decode(special.event).values.tolist()
    assert kinds == ["flip", "branch_point", "flip"]
    assert special.kernel_dimension.values.tolist() == [0, 2, 0]
    edges = (np.sqrt(5.0) - 1.0) / sigma, 1.0 / sigma, (np.sqrt(5.0) - 1.0) / sigma
    np.testing.assert_allclose(special.p.values, edges, rtol=1e-10)
    assert (
        abs(float(branch.state[0, 0] - branch.state[-1, 0])) > 0.3
    )  # one end is the other a step later
    amount = 1.0 + sigma * branch.p.values
    known = np.sort(np.stack([9.0 - 2.0 * amount**2, 5.0 - 2.0 * amount], axis=1), axis=1)
    found = np.sort(1.0 + branch.transverse_eigenvalue.values, axis=1)
    np.testing.assert_allclose(found, known, rtol=0, atol=1e-9)


@pytest.mark.parametrize("x0", [(1.0, 1.0), (1.0, 0.0)])
def test_arms_pass_branch_points_at_which_another_eigenvalue_touches_zero(x0):
    """ẋ_i = p x_i − x_i (‖x‖² + x_i²/2) has a kernel of 2 at 0, and four arms with p = c‖x‖²."""
    x = np.array(x0)

    def form(x, p):
        return p * x - x * (x @ x + 0.5 * x**2)

    weight = float(form(x, 0.0)[0] / -x[0])
    arm = dl.branch(form, x * np.sqrt(0.5 / weight), 0.5, bounds=(-1.0, 1.0))
    assert arm.attrs["first_stop"] == arm.attrs["last_stop"] == "bound_reached"
    special = dl.special_points(arm)
    assert dl.schema.decode(special.event).values.tolist() == ["branch_point"]
    assert special.kernel_dimension.values.tolist() == [2]
    np.testing.assert_allclose(special.p, 0.0, atol=1e-12)
