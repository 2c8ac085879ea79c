"""Large equations that fall into parts: the same as taken as a whole."""

import itertools
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import xarray as xr
from scipy.stats import ortho_group

import dlnds as dl
from dlnds.continuation import bordered, correct, parts, start
from dlnds.theory import thin

EPS = np.finfo(float).eps


@pytest.fixture
def few(monkeypatch):
    """Take problems of more than ten components as large ones; return what is solved by parts."""
    taken = []

    def lowered():
        monkeypatch.setattr(bordered, "_in_parts", spied(bordered._in_parts, taken))
        for module in (parts, bordered, start):
            monkeypatch.setattr(module, "LARGE", 10)
        monkeypatch.setattr(parts, "SPARSE", 1)
        monkeypatch.setattr(thin, "LARGE", 10)
        return taken

    return lowered


def scattered(rng, sizes):
    """Return a symmetric matrix of blocks of these sizes in a random order, and their places."""
    n = sum(sizes)
    order = rng.permutation(n)
    places = np.split(order, np.cumsum(sizes)[:-1])
    matrix = np.zeros((n, n))
    for place in places:
        block = rng.normal(size=(len(place), len(place)))
        matrix[np.ix_(place, place)] = block + block.T
    return matrix, places


def orbit_of(rng, n, places):
    """Return a basis with one unit vector in each of these places."""
    basis = np.zeros((n, len(places)))
    for k, place in enumerate(places):
        v = rng.normal(size=len(place))
        basis[place, k] = v / np.linalg.norm(v)
    return basis


def test_parts_are_what_entries_join():
    rng = np.random.default_rng(0)
    matrix, places = scattered(rng, [1, 2, 2, 3, 7, 7] + [4] * 160)
    moved = np.zeros(len(matrix), bool)
    moved[[places[0][0], places[3][1]]] = True
    basis = orbit_of(rng, len(matrix), [np.append(places[1], places[2])])  # it joins two parts
    found = parts.parts_of(parts.thinned(matrix), basis, moved)
    assert set(found.moving) == {*places[0], *places[3]}
    others = {frozenset(part) for group in found.others for part in group.tolist()}
    known = [{*places[1], *places[2]}, *map(set, places[4:])]
    assert others == {frozenset(map(int, part)) for part in known}


def test_what_does_not_fall_apart_is_taken_as_a_whole():
    rng = np.random.default_rng(1)
    dense = rng.normal(size=(650, 650))
    chain = np.eye(650, k=1) + np.eye(650, k=-1)
    small = np.eye(50)
    for matrix in (dense, chain, small):
        n = len(matrix)
        found = parts.parts_of(parts.thinned(matrix), np.zeros((n, 0)), np.zeros(n, bool))
        assert found is None


@pytest.mark.parametrize("singular", [False, True])
def test_systems_are_solved_part_by_part_as_a_whole(singular):
    rng = np.random.default_rng(2)
    matrix, places = scattered(rng, [5] * 130)
    n, ratio = len(matrix), 0.7
    if singular:  # a part that the border does not reach has a kernel
        block = np.diag([1.0, 2.0, 3.0, -1.0, 0.0])
        matrix[np.ix_(places[9], places[9])] = block
    basis = orbit_of(rng, n, places[3:6])
    slope, normal = np.zeros(n), np.zeros(n + 1)
    slope[places[0]], normal[places[1]], normal[n] = 1.0, 0.5, 1.0
    factors, weight = bordered.assembled(parts.thinned(matrix), slope, normal, basis, ratio)
    assert factors.parts
    whole = np.zeros((n + 1, n + 1))
    whole[:n, :n] = matrix / weight - basis @ basis.T
    whole[:n, n], whole[n] = slope * ratio / weight, normal
    condition = 0.0 if singular else 1.0 / np.linalg.cond(whole, 1)
    np.testing.assert_allclose(factors.condition, condition, rtol=1e-8, atol=1e-15)
    inverse = np.linalg.pinv(whole, rcond=1e-9)
    sizes = np.linalg.svd(whole, compute_uv=False)
    lost = 100.0 * n * EPS * sizes[0] / sizes[sizes > 1e-9 * sizes[0]][-1] ** 2
    right = rng.normal(size=n + 1)
    for transposed, known in ((False, inverse @ right), (True, inverse.T @ right)):
        assert np.linalg.norm(factors.solve(right, transposed) - known) <= lost * 1e2
    if not singular:
        sign, volume = np.linalg.slogdet(whole)
        assert factors.sign == sign
        assert abs(factors.volume - volume) <= 1e-9 * n


def test_a_span_by_parts_is_that_of_all_rows():
    rng = np.random.default_rng(3)
    _, places = scattered(rng, [4] * 170)
    rows = np.zeros((400, 680))
    for k, place in enumerate(places):
        rows[2 * k, place], rows[2 * k + 1, place] = rng.normal(size=(2, 4))
    rows[5] = 2.0 * rows[4]  # which is one direction, not two
    rows[7] *= 1e-3
    rows = rows[rng.permutation(400)]
    few = parts.thinned(rows)
    assert scipy.sparse.issparse(few)
    basis = parts.span(few, 1e-9, 1.0).toarray()
    assert basis.shape == (680, 339)
    assert np.abs(basis.T @ basis - np.eye(339)).max() <= 100.0 * EPS
    left = rows - (rows @ basis) @ basis.T
    assert np.abs(left).max() <= 1e3 * EPS
    assert parts.span(rows, 1e-2, 1.0).shape[1] == 338  # what is small counts as zero


def root(sigma, decay, depth, which=0):
    """Return a root of λ = s^{h−2} (σ − s^h), the larger first."""
    if depth == 2:
        return np.sqrt(sigma - decay)
    found = np.roots([-1.0, *[0.0] * (depth - 1), sigma, *[0.0] * (depth - 3), -decay])
    return np.sort(found.real[(np.abs(found.imag) < 1e-9) & (found.real > 0.0)])[::-1][which]


def at_decay(net, decay, learnt, rng):
    """Return a critical state in which some modes are learnt, turned at random."""
    left, sigma, right = net.singular_modes
    layers = []
    for i in range(net.depth):
        w = np.zeros((net.widths[i + 1], net.widths[i]))
        for unit, j in enumerate(learnt):
            out = left[:, j] if i == net.depth - 1 else np.eye(len(w))[unit]
            into = right[:, j] if i == 0 else np.eye(w.shape[1])[unit]
            w += root(sigma[j], decay, net.depth) * np.outer(out, into)
        layers.append(w)
    turns = [ortho_group.rvs(d, random_state=rng) for d in net.widths[1:-1]]
    return dl.act(net, turns, net.pack(layers))


CASES = {
    "pitchforks": ((5, 5, 5), np.diag([5.0, 4.0, 3.0, 2.0, 1.0]), 0.9, (0, 2), (0.8, 6.0)),
    "one spare unit": ((6, 3, 6), np.diag([4.0, 3.0, 2.0, 1.0, 0.0, 0.0]), 1.5, (0, 1), (1.2, 5.0)),
    "other widths": ((4, 3, 5), None, 0.5, (0, 1), (0.4, 6.0)),
    "a tie": ((4, 4, 4, 4), np.diag([3.0, 2.0, 2.0, 1.0]), 0.02, (0, 1, 2), (0.01, 3.0)),
    "folds": ((4, 4, 4, 4), np.diag([4.0, 3.0, 2.0, 1.0]), 0.02, (0, 1, 2, 3), (0.01, 3.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_branches_by_parts_are_those_of_the_whole(name, few):
    widths, target, decay, learnt, bounds = CASES[name]
    rng = np.random.default_rng(4)
    target = rng.normal(size=(widths[-1], widths[0])) if target is None else target
    net = dl.LinearNetwork(widths, target)
    x = at_decay(net, decay, learnt, rng)
    level = float(x[: widths[0]] @ x[: widths[0]])  # of weights that turns change
    options = {"bounds": bounds, "max_points": 60, "events": [lambda x, p: x[0] ** 2 - 0.9 * level]}
    equation = dl.equilibria(net, vary="weight_decay")
    whole = dl.branch(equation, x, decay, **options)
    taken = few()
    by_parts = dl.branch(equation, x, decay, **options)
    assert len(taken) > by_parts.sizes["step"]
    assert passed_by(by_parts) == passed_by(whole)
    one, other = (
        found.isel(step=[0, *np.flatnonzero(found.event), -1]) for found in (by_parts, whole)
    )
    for word in ("event", "kernel_dimension", "fold_direction", "criticality"):
        assert (one[word].values == other[word].values).all(), word
    assert np.abs(one.p.values - other.p.values).max() <= 1e-9
    # Next to pitchforks rounding leaves states their square root.
    assert np.abs(one.state.values - other.state.values).max() <= 1e-7
    assert by_parts.residual.max() <= 1e-11
    assert by_parts.attrs["problem_digest"] == whole.attrs["problem_digest"]


def test_large_steps_of_descent_have_the_multipliers_of_small_ones(few):
    """F = η f: the fixed points of the flow's branch, with η times its eigenvalues."""
    net = dl.LinearNetwork((4, 4, 4), np.diag([4.0, 3.0, 2.0, 1.0]))
    x = at_decay(net, 0.5, (0, 1), np.random.default_rng(10))
    options = {"bounds": (0.4, 0.9), "direction": "up", "max_points": 3}
    equation = dl.equilibria(dl.GradientDescent(net, step_size=0.1), vary="weight_decay")
    small = dl.branch(equation, x, 0.5, **options)
    taken = few()
    large = dl.branch(equation, x, 0.5, **options)
    assert taken
    for found in (small, large):
        s = np.sqrt(np.array([4.0, 3.0]) - found.p.values[:, None])
        largest = np.maximum(2.0 * s[:, 0] ** 2, 7.0)  # of the pair: σ_1 + σ_2
        assert np.abs(found.spectral_radius.values - 0.1 * largest).max() <= 1e-12
    assert (small["index"].values == 4).all()  # λ − σ_q of two units and two modes
    assert (large["index"].values == 4).all()


def passed_by(branch):
    """Return what rows have in common, in their order; steps need not be the same."""
    words = ("event", "index", "nullity", "orbit_dimension", "isotropy_dimension", "label")
    rows = zip(*(branch[word].values.tolist() for word in words), strict=True)
    return [row for row, _ in itertools.groupby(rows)]


def test_large_branches_have_the_closed_spectrum(monkeypatch):
    """Width 15, n = 675, by parts, from a start that is turned at random."""
    taken = []
    monkeypatch.setattr(bordered, "_in_parts", spied(bordered._in_parts, taken))
    width, depth, decay = 15, 3, 0.01
    sigma = np.arange(width, 0.0, -1.0)
    net = dl.LinearNetwork((width,) * (depth + 1), np.diag(sigma))
    x = at_decay(net, decay, range(width), np.random.default_rng(5))
    equation = dl.equilibria(net, vary="weight_decay")
    found = dl.branch(equation, x, decay, bounds=(0.005, 0.6), direction="up", max_points=25)
    assert taken
    assert all(factors.parts for factors, _ in taken)
    events = dl.special_points(found)
    assert dl.schema.decode(events.event).values.tolist() == ["fold"]
    s = 0.25 ** (1.0 / 3.0)
    assert abs(float(events.p[0]) - s * (1.0 - s**3)) <= 1e-12
    assert (found.orbit_dimension == width * (width - 1)).all()
    for k in range(found.sizes["step"]):
        row = found.isel(step=k)
        if not int(row.event):
            lower = k > int(np.flatnonzero(found.event)[0])
            values = closed_spectrum(sigma, float(row.p), lower)
            nonzero = values[np.abs(values) > 1e-8]
            near = nonzero[np.argsort(np.abs(nonzero), kind="stable")[:6]]
            own = np.sort(-row.transverse_eigenvalue.values)
            assert np.abs(own - np.sort(near)).max() <= 1e-9
            assert int(row["index"]) == np.count_nonzero(nonzero < 0.0)
            assert int(row.nullity) == len(values) - len(nonzero)
            assert abs(float(row.spectral_radius) - np.abs(values).max()) <= 1e-9


def spied(function, answers):
    """Return a function whose answers are kept."""

    def kept(*arguments):
        answers.append(function(*arguments))
        return answers[-1]

    return kept


def closed_spectrum(sigma, decay, lower):
    """Return the Hessian's eigenvalues at equal widths and depth 3, the last mode on a root."""
    roots = [root(value, decay, 3) for value in sigma[:-1]]
    s = np.array([*roots, root(sigma[-1], decay, 3, int(lower))])
    values = [*(3.0 * s**4 - decay), *np.repeat(2.0 * decay, 2 * s.size)]
    for a in range(s.size):
        for b in range(a + 1, s.size):
            kappa = sum(s[a] ** (2 * (3 - i)) * s[b] ** (2 * (i - 1)) for i in (1, 2, 3))
            mu = s[b] / s[a] + s[a] / s[b]
            values += [kappa + decay - decay * mu, kappa + decay + decay * mu]
            values += [0.0, 0.0, 2.0 * decay, 2.0 * decay]
    return np.array(values)


def test_null_directions_of_parts_are_those_of_the_whole():
    rng = np.random.default_rng(6)
    matrix, places = scattered(rng, [5] * 130)
    n = len(matrix)
    block = np.diag([1.0, 2.0, 3.0, 0.0, 0.0])
    matrix[np.ix_(places[9], places[9])] = block
    slope = np.zeros(n)
    slope[places[0]] = 1.0
    none = np.zeros((n, 0))
    matrix = parts.thinned(matrix)
    found = parts.parts_of(matrix, none, slope != 0.0)
    nulls = correct._null_vectors(parts.decomposed(found, matrix, none, 1.0, slope), 1e-9)
    known = scipy.linalg.null_space(np.column_stack([matrix.toarray(), slope]), rcond=1e-9)
    assert nulls.shape == (3, n + 1)
    assert known.shape == (n + 1, 3)
    assert np.abs(nulls @ nulls.T - np.eye(3)).max() <= 100.0 * EPS
    assert np.linalg.svd(nulls @ known, compute_uv=False).min() >= 1.0 - 1e-9


def test_an_equation_may_be_followed_in_coordinates_that_suit_its_start(few):
    """F = Q f(Qᵀ x): f falls into parts, F does not; the user's events see x."""
    rng = np.random.default_rng(7)
    n = 24
    turn = ortho_group.rvs(n, random_state=rng)
    shift, pushed = np.arange(1.0, n + 1.0), 1.0 * (np.arange(n) < 2)

    def own(y, p):
        return y**3 - shift - p * pushed

    def own_matrix(y, p):
        return np.diag(3.0 * y**2)

    seen = []
    plain = dl.Residual(own, own_matrix, derivative=lambda y, p: -pushed, symmetric=True)
    turned = dl.Residual(
        lambda x, p: turn @ own(turn.T @ x, p),
        lambda x, p: turn @ own_matrix(turn.T @ x, p) @ turn.T,
        derivative=lambda x, p: -turn @ pushed,
        symmetric=True,
        aligned=lambda x: seen.append(x) or (plain, turn.T @ x, lambda rows: rows @ turn.T),
    )
    start_at = turn @ np.cbrt(shift)
    options = {"bounds": (0.0, 1.0), "events": [lambda x, p: float((turn.T @ x)[1] ** 3) - 2.5]}
    whole = dl.branch(turned, start_at, 0.0, **options)
    assert not seen
    taken = few()
    found = dl.branch(turned, start_at, 0.0, **options)
    assert seen
    assert taken
    for row in range(found.sizes["step"]):
        x, p = found.state.values[row], float(found.p[row])
        exact = turn @ np.cbrt(shift + p * pushed)
        assert np.linalg.norm(x - exact) <= 1e-11 * np.linalg.norm(exact)
        assert abs(np.linalg.norm(np.append(found.tangent[row], found.tangent_p[row])) - 1) <= 1e-12
    for branch in (whole, found):
        events = dl.special_points(branch)
        assert dl.schema.decode(events.event).values.tolist() == ["user"]
        assert abs(float(events.p[0]) - 0.5) <= 1e-12


def test_aligned_needs_a_function():
    with pytest.raises(TypeError, match=r"^aligned: "):
        dl.Residual(lambda x, p: x, aligned=3)


def turned_problem(widths, sigma, decay):
    """Return a network in bases at random, and a start whose last mode is not learnt."""
    rng = np.random.default_rng(8)
    ends = widths[-1], widths[0]
    left, right = (np.linalg.qr(rng.normal(size=(d, sigma.size)))[0] for d in ends)
    net = dl.LinearNetwork(widths, left * sigma @ right.T)
    return net, at_decay(net, decay, range(sigma.size - 1), rng)


def test_large_branches_take_a_small_part_of_the_memory_of_a_matrix():
    """n = 50,816: a matrix has n² numbers, 21 GB."""
    net, x = turned_problem((784, 64, 10), np.arange(10.0, 0.0, -1.0), 0.4)
    equation = dl.equilibria(net, vary="weight_decay")
    tracemalloc.start()
    found = dl.branch(equation, x, 0.4, bounds=(0.3, 0.8), direction="up", max_points=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.sizes["step"] == 3
    assert peak <= 0.05 * 8.0 * net.dim**2
    assert found.residual.max() <= 1e-10


def test_where_a_mode_of_a_large_network_is_learnt_all_spare_units_can_do_so():
    """Two layers, n = 7,200: W = Σ_j (σ_j − λ) u_j v_jᵀ, and the Hessian has λ ± σ_q."""
    sigma, units = np.arange(10.0, 0.0, -1.0), 60
    net, x = turned_problem((units, units, units), sigma, 0.9)
    equation = dl.equilibria(net, vary="weight_decay")
    found = dl.branch(equation, x, 0.9, bounds=(0.8, 1.1), direction="up", max_points=8)
    event, p, learnt = dl.schema.decode(found.event).values, found.p.values, sigma.size - 1
    (at,) = np.flatnonzero(event != "none")
    assert event[at] == "branch_point"
    assert abs(p[at] - sigma[-1]) <= 1e-9
    assert int(found.kernel_dimension[at]) == units - learnt
    before = np.arange(p.size) < at
    assert (found["index"].values == np.where(before, units - learnt, 0)).all()
    turns = learnt * (units - learnt) + learnt * (learnt - 1) // 2
    assert (found.orbit_dimension == turns).all()
    maps = np.sqrt(((sigma[:-1] - p[:, None]) ** 2).sum(axis=1))
    assert np.abs(found.product_norm.values - maps).max() <= 1e-10
    largest = np.maximum(2.0 * (sigma[0] - p), sigma[0] + sigma[1])
    assert np.abs(found.spectral_radius.values - largest).max() <= 1e-9


def blocks_of(x, p):
    """Return F of pairs (a, b) with a² + b = 1 + p, b − a = 0, as one vector, and its Jacobian."""
    a, b = x[::2], x[1::2]
    force = np.empty_like(x)
    force[::2], force[1::2] = a**2 + b - 1.0 - p * (np.arange(a.size) == 0), b - a
    rows = np.repeat(np.arange(x.size).reshape(-1, 2), 2)
    columns = np.tile(np.arange(x.size).reshape(-1, 2), 2).ravel()
    data = np.stack([2.0 * a, np.ones_like(a), -np.ones_like(a), np.ones_like(a)], axis=1).ravel()
    return force, scipy.sparse.coo_array((data, (rows, columns)), shape=(x.size, x.size))


def test_a_jacobian_may_be_sparse():
    """The moving pair is a² + a = 1 + p, and turns at p = −5/4; the others rest."""
    force, matrix = (lambda x, p, k=k: blocks_of(x, p)[k] for k in (0, 1))
    size, golden = 700, 0.5 * (np.sqrt(5.0) - 1.0)
    answers = []
    for jacobian in (matrix, lambda x, p: matrix(x, p).toarray()):
        equation = dl.Residual(force, jacobian)
        x = np.full(size, golden)
        assert (equation.matrix(x, 0.0) == matrix(x, 0.0).toarray()).all()
        answers.append(
            dl.branch(equation, x, 0.0, bounds=(-2.0, 1.0), direction="down", max_points=15)
        )
    found, whole = answers
    events = dl.special_points(found)
    assert dl.schema.decode(events.event).values.tolist() == ["fold"]
    assert abs(float(events.p[0]) + 1.25) <= 1e-12
    a = found.state.values[:, 0]
    assert np.abs(a**2 + a - 1.0 - found.p.values).max() <= 1e-12
    assert np.abs(found.state.values[:, 2:] - golden).max() <= 1e-12
    xr.testing.assert_identical(found, whole)


def test_what_does_not_fit_into_the_memory_is_refused_at_once(monkeypatch):
    """A start with full layers, of which no coordinates make sparse ones."""
    net = dl.LinearNetwork((40, 40, 40), np.diag(np.arange(40.0, 0.0, -1.0)))
    equation = dl.equilibria(net, vary="weight_decay")
    x = np.random.default_rng(9).normal(size=net.dim)
    free = 8 * net.dim**2
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    with pytest.raises(ValueError, match=r"^x.*: this takes .* bytes, more than half of the free"):
        dl.branch(equation, x, 0.1, bounds=(0.05, 1.0), max_points=10)
