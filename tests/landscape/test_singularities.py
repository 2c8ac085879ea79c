"""Learning coefficients: dimensions of fibers, points over finite fields, volumes, known cases."""

import collections
import itertools
import math

import numpy as np
import pytest

import dlnds as dl
from dlnds.theory.singularities import coefficient, deciding_levels

FORMULA, SMOOTH, LARGEST, BOUND = range(4)


def rank_patterns(widths, rank):
    """The ranks of all products W_j … W_{i+1} that layers with a W of this rank can have.

    Layers are sums of intervals of levels, each the same number of times in every level it holds.
    """
    h = len(widths) - 1
    intervals = [(a, b) for a in range(h + 1) for b in range(a, h + 1)]

    def fill(place, left):
        if place == len(intervals):
            if not any(left):
                yield ()
            return
        a, b = intervals[place]
        most = min(left[a : b + 1])
        if (a, b) == (0, h):
            counts = range(rank, rank + 1) if rank <= most else ()
        else:  # the last interval that begins at a level takes what is left there
            counts = range(most + 1) if b < h else (left[a],) if left[a] <= most else ()
        for count in counts:
            rest = [d - count * (a <= i <= b) for i, d in enumerate(left)]
            for others in fill(place + 1, rest):
                yield (count, *others)

    for counts in fill(0, list(widths)):
        yield {
            (i, j): sum(n for n, (a, b) in zip(counts, intervals, strict=True) if a <= i and b >= j)
            for i, j in intervals
        }


def codimension_of(ranks, h):
    pairs = itertools.combinations(range(h + 1), 2)
    return sum((ranks[i, j - 1] - ranks[i, j]) * (ranks[i + 1, j] - ranks[i, j]) for i, j in pairs)


def from_patterns(widths, rank):
    """The smallest codimension of {W = W*} and how many strata have it."""
    h, fixed = len(widths) - 1, rank * (widths[0] + widths[-1] - rank)
    found = [codimension_of(ranks, h) + fixed for ranks in rank_patterns(widths, rank)]
    return min(found), found.count(min(found))


def ranks_of(widths):
    return range(min(widths) + 1)


def of(widths, rank=0, scale=1.0):
    """A network whose target has this rank, with different singular values."""
    sigma = np.zeros((widths[-1], widths[0]))
    sigma[np.arange(rank), np.arange(rank)] = scale * np.arange(rank, 0, -1)
    return dl.LinearNetwork(widths=widths, target=sigma)


SHORT = [
    *itertools.product(range(1, 6), repeat=2),
    *itertools.product(range(1, 6), repeat=3),
    *itertools.product(range(1, 4), repeat=4),
]


def check_patterns(lists):
    for widths in lists:
        for rank in ranks_of(widths):
            found = coefficient(widths, rank)
            assert (found.doubled, found.components) == from_patterns(widths, rank), (widths, rank)


def test_codimension_and_components_are_those_of_the_largest_strata():
    check_patterns(SHORT)
    check_patterns([(2, 2, 2, 2, 2), (3, 2, 1, 2, 3), (1, 2, 3, 2, 1), (3, 3, 3, 3, 3)])


@pytest.mark.slow
def test_codimension_and_components_of_longer_lists():
    check_patterns(itertools.product(range(1, 6), repeat=4))
    check_patterns(itertools.product(range(1, 4), repeat=5))


def count_by_hand(widths, rank, q):
    """Layers over F_q, q prime, with one W of this rank, by going over all of them."""
    target = np.zeros((widths[-1], widths[0]), int)
    target[np.arange(rank), np.arange(rank)] = 1
    products = {np.eye(widths[0], dtype=int).tobytes(): 1}
    for before, after in itertools.pairwise(widths):
        following = collections.Counter()
        for entries in itertools.product(range(q), repeat=after * before):
            w = np.array(entries).reshape(after, before)
            for data, count in products.items():
                product = np.frombuffer(data, int).reshape(before, widths[0])
                following[(w @ product % q).tobytes()] += count
        products = following
    return products[target.tobytes()]


def matrices_of_rank(a, b, rank, q):
    """How many a × b matrices over F_q have a rank."""
    above = math.prod((q**a - q**i) * (q**b - q**i) for i in range(rank))
    return above // math.prod(q**rank - q**i for i in range(rank))


def count_of_points(widths, rank, q):
    """The same by the ranks of the products, one layer after the other."""
    counts = {widths[0]: 1}
    for before, after in itertools.pairwise(widths):
        following = collections.Counter()
        for last, count in counts.items():  # free on what the product does not reach
            for now in range(min(after, last) + 1):
                here = q ** (after * (before - last)) * matrices_of_rank(after, last, now, q)
                following[now] += count * here
        counts = following
    whole, rest = divmod(counts[rank], matrices_of_rank(widths[-1], widths[0], rank, q))
    assert rest == 0
    return whole


def test_points_over_finite_fields_are_counted():
    for widths in [(1, 1, 1, 1), (2, 1, 2), (1, 2, 1), (2, 2, 2), (1, 2, 2, 1), (2, 1, 1, 2)]:
        for rank, q in itertools.product(ranks_of(widths), (2, 3)):
            assert count_of_points(widths, rank, q) == count_by_hand(widths, rank, q)


def test_points_over_finite_fields_grow_as_dimension_and_components_say():
    """A variety of dimension D with c components as large has c q^D (1 + O(1/q)) points over F_q.

    All widths to five and four layers; the next terms have at most some thousand pieces.
    """
    q = 10**9
    for h in range(1, 5):
        for widths in itertools.product(range(1, 6), repeat=h + 1):
            for rank in ranks_of(widths):
                found = coefficient(widths, rank)
                n = sum(a * b for a, b in itertools.pairwise(widths))
                scaled = count_of_points(widths, rank, q) / q ** (n - found.doubled)
                assert abs(scaled - found.components) < 1e-4, (widths, rank)


def reduced_rank_regression(M, N, H, r):
    """λ and m of two layers N → H → M that learn a map of rank r (Aoyagi and Watanabe 2005)."""
    odd = (M + N + H + r) % 2
    if H + r <= M + N and M + r <= N + H and N + r <= M + H:
        square = -((H + r) ** 2) - M**2 - N**2 + 2 * (H + r) * M + 2 * (H + r) * N + 2 * M * N
        return (square + odd) / 8, 1 + odd
    if N + r > M + H:
        return (H * M - H * r + N * r) / 2, 1
    if M + r > N + H:
        return (H * N - H * r + M * r) / 2, 1
    assert H + r > M + N
    return M * N / 2, 1


def test_two_layers_are_reduced_rank_regression():
    cases = set()
    for widths in itertools.product(range(1, 8), repeat=3):
        for rank in ranks_of(widths):
            found = coefficient(widths, rank)
            expected = reduced_rank_regression(widths[2], widths[0], widths[1], rank)
            assert (found.doubled / 2, found.order) == expected, (widths, rank)
            cases.add((len(found.levels), found.order))
    assert cases == {(2, 1), (3, 1), (3, 2)}


@pytest.mark.parametrize("widths", [(2, 3, 4, 2), (1, 2, 5, 3), (3, 3, 1, 4, 2), (2, 2, 3, 3, 5)])
def test_nothing_but_the_ends_depends_on_the_order_of_the_widths(widths):
    for rank in ranks_of(widths):
        found = {
            (c.doubled - rank * (w[0] + w[-1]), c.order, c.components)
            for w in set(itertools.permutations(widths))
            for c in [coefficient(w, rank)]
        }
        assert len(found) == 1


def test_a_single_layer_is_regular_and_a_chain_of_units_is_a_monomial():
    for a, b in itertools.product(range(1, 6), repeat=2):
        for rank in ranks_of((a, b)):
            assert coefficient((a, b), rank) == (a * b, 1, 1, (0, 1))
    for h in range(1, 8):
        # (w_1 … w_h)² has its pole of order h at ½, and w = w* ≠ 0 is smooth.
        assert coefficient((1,) * (h + 1), 0)[:3] == (1, h, h)
        assert coefficient((1,) * (h + 1), 1)[:3] == (1, 1, 1)


def test_order_of_a_monomial_is_the_power_of_the_logarithm():
    """Z(β) = ∫ exp(−β (w_1 w_2)²/2) over the unit square, by quadrature: ~ β^{−½} ln β."""
    points = np.polynomial.legendre.leggauss(400)
    nodes, weights = 0.5 * points[0] + 0.5, 0.5 * points[1]
    a = nodes**16  # close to zero as densely as needed
    da = weights * 16 * nodes**15
    scaled = []
    for beta in (1e4, 1e6, 1e8):
        Z = float(np.sum(np.multiply.outer(da, da)
                         * np.exp(-0.5 * beta * np.multiply.outer(a, a) ** 2)))  # fmt: skip
        scaled.append(Z * np.sqrt(beta))
    first, second = np.diff(scaled)
    found = coefficient((1, 1, 1), 0)
    assert (found.doubled, found.order) == (1, 2)
    assert first > 0
    np.testing.assert_allclose(second, first, rtol=1e-3)  # linear in ln β


def test_deciding_levels_satisfy_their_inequality_and_no_larger_set_does():
    rng = np.random.default_rng(0)
    for _ in range(200):
        widths = rng.integers(1, 9, size=rng.integers(2, 8)).tolist()
        rank = int(rng.integers(min(widths), endpoint=True))
        excess = np.array(widths) - rank
        chosen = list(deciding_levels(widths, rank))
        inside = excess[chosen]
        assert len(chosen) == 2 or inside.sum() >= (len(chosen) - 1) * inside.max()
        for size in range(len(chosen) + 1, len(widths) + 1):
            smallest = np.sort(excess)[:size]
            assert smallest.sum() < (size - 1) * smallest.max()


@pytest.mark.parametrize("widths", [(2, 3, 2), (2, 2, 2, 2), (3, 1, 2), (1, 2, 2, 1), (3, 2, 2, 3)])
def test_the_largest_fiber_dimension_is_what_the_coefficient_leaves(widths):
    rng = np.random.default_rng(0)
    for rank in range(min(widths) + 1):
        net = of(widths, rank)
        info = dl.learning_coefficient(net)
        assert info.equals(dl.learning_coefficient(net, rank=rank).assign(decision=info.decision))
        dims = [dl.fiber_dimension(net, dl.random_fiber_state(net, range(rank), rng=rng))
                for _ in range(20)]  # fmt: skip
        dims.append(dl.fiber_dimension(net, net.critical_state(range(rank))))
        largest = max(int(d.fiber_dimension) for d in dims)
        assert net.dim - 2 * float(info.learning_coefficient) == largest
        assert int(info["rank"]) == rank


@pytest.mark.parametrize("widths", [(2, 3, 2), (2, 2, 2, 2), (3, 1, 2), (1, 2, 2, 1)])
def test_local_coefficients_lie_between_their_bounds(widths):
    rng, seen = np.random.default_rng(1), set()
    for rank in range(min(widths) + 1):
        net = of(widths, rank)
        overall = dl.learning_coefficient(net)
        for _ in range(15):
            x = dl.random_fiber_state(net, range(rank), rng=rng)
            info = dl.learning_coefficient(net, at=x)
            eigenvalues = np.linalg.eigvalsh(net.hessian(x))
            half = 0.5 * np.count_nonzero(eigenvalues > 1e-9)
            decision, value = int(info.decision), float(info.learning_coefficient)
            assert value >= float(info.lower_bound) >= float(overall.learning_coefficient)
            assert value >= half
            seen.add(decision)
            if decision == SMOOTH:
                assert (value, int(info.order), int(info.order_is_exact)) == (half, 1, 1)
            if decision == LARGEST:
                assert value == float(overall.learning_coefficient)
            if decision != BOUND:
                assert value == float(info.lower_bound)
    assert SMOOTH in seen


def test_bare_layers_have_the_coefficient_of_all_minima():
    net = of((2, 2, 2, 2), 0)
    info = dl.learning_coefficient(net, at=np.zeros(net.dim))
    overall = dl.learning_coefficient(net)
    for name in ("learning_coefficient", "order", "components"):
        assert info[name] == overall[name]
    assert int(info.order_is_exact) == 1
    assert int(info.decision) == LARGEST


def test_a_point_of_a_smaller_component_is_smooth_with_more():
    """W_1 = 0 beside {rank 1, rank 1} of two layers of width two: 2λ = 3, at W_1 = 0: 4."""
    net = of((2, 2, 2), 0)
    x = net.pack([np.zeros((2, 2)), np.eye(2)])
    info = dl.learning_coefficient(net, at=x)
    assert (float(info.learning_coefficient), int(info.decision)) == (2.0, SMOOTH)
    assert float(dl.learning_coefficient(net).learning_coefficient) == 1.5


@pytest.mark.parametrize(
    ("widths", "sigma", "turning"),
    [((3, 2, 3), (3.0, 2.0, 1.0), 0), ((3, 2, 3), (3.0, 2.0, 2.0), 1),
     ((4, 2, 3, 4), (2.0, 2.0, 2.0, 2.0), 4), ((3, 1, 1, 4), (2.0, 2.0, 1.0), 1)],
)  # fmt: skip
def test_minima_at_a_bottleneck_are_a_manifold(widths, sigma, turning):
    """2λ is the rank of the Hessian, less where W can turn among equal singular values."""
    target = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(target, sigma)
    net = dl.LinearNetwork(widths=widths, target=target)
    r = min(widths)
    info = dl.learning_coefficient(net)
    eigenvalues = np.linalg.eigvalsh(net.hessian(net.critical_state(range(r))))
    assert eigenvalues[0] > -1e-12
    assert 2 * float(info.learning_coefficient) == np.count_nonzero(eigenvalues > 1e-9)
    assert 2 * float(info.learning_coefficient) == r * (widths[0] + widths[-1] - r) - turning
    assert int(info.order) == int(info.components) == 1
    local = dl.learning_coefficient(net, at=net.critical_state(range(r)))
    assert float(local.learning_coefficient) == float(info.learning_coefficient)
    assert int(local.decision) == SMOOTH


def test_inputs_without_data_are_free():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4, 2)) @ rng.normal(size=(2, 9))
    net = dl.LinearNetwork.from_data(X, rng.normal(size=(3, 9)), hidden=(3,), whiten=False)
    info = dl.learning_coefficient(net)
    assert float(info.learning_coefficient) == coefficient((2, 3, 3), 2).doubled / 2
    local = dl.learning_coefficient(net, at=dl.random_fiber_state(net, (0, 1), rng=0))
    assert float(local.learning_coefficient) == float(info.learning_coefficient)


def test_points_that_are_no_minima_are_refused():
    net = of((2, 2, 2), 2)
    with pytest.raises(
        ValueError, match="at: needs a global minimum, got the kind 'strict_saddle'"
    ):
        dl.learning_coefficient(net, at=np.zeros(net.dim))
    with pytest.raises(ValueError, match="at: needs a global minimum, got the kind 'not_critical'"):
        dl.learning_coefficient(net, at=np.ones(net.dim))
    with pytest.raises(ValueError, match="rank: is that of the state"):
        dl.learning_coefficient(net, rank=1, at=net.critical_state((0, 1)))
    with pytest.raises(ValueError, match="rank: needs at least 0 and at most 2, got 3"):
        dl.learning_coefficient(net, rank=3)


def test_more_components_than_integers_hold_are_counted():
    net = of((1,) * 101, 0)
    assert dl.learning_coefficient(net).components == 100
    net = of((2,) * 101, 0)  # s = 202, 100 choose 2
    assert dl.learning_coefficient(net).components == 100 * 99 / 2
    net = of((50,) * 101, 0)  # s = 5050, 100 choose 50
    assert float(dl.learning_coefficient(net).components) == float(math.comb(100, 50))


def test_the_atlas_says_what_the_minima_have():
    net = of((2, 2, 2), 1)
    atlas, info = dl.build_atlas(net), dl.learning_coefficient(net)
    assert atlas.attrs["learning_coefficient"] == float(info.learning_coefficient)
    assert atlas.attrs["learning_order"] == int(info.order)
