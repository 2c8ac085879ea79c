"""Random problems, from comfortable to extreme, break no invariant of the flow."""

import naive
import numpy as np
import pytest

import dlnds as dl

EPS = float(np.finfo(float).eps)
RTOL = 1e-10
#: Gauss's rule with 16 nodes on (0, 1): exact to rounding for what varies on the scale of 1.
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
NODES, WEIGHTS = 0.5 + 0.5 * NODES, 0.5 * WEIGHTS


def random_problem(seed):
    """Depth 1 to 6, widths 1 to 32, every C; singular values that repeat, vanish or are extreme."""
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 33, size=rng.integers(2, 8)).tolist()
    net = naive.random_network(widths, seed, naive.KINDS[seed % 3])
    U, s, Vt = np.linalg.svd(net.target, full_matrices=False)
    changes = {
        "as they are": s,
        "repeated": np.maximum(1.0, np.round(s)),
        "rank-deficient": s * (rng.uniform(size=len(s)) < 0.5),
        "spread": s * 10.0 ** rng.uniform(-8, 0, size=len(s)),
        "large": s * 1e6,
        "small": s * 1e-6,
        "zero": 0.0 * s,
    }
    change = list(changes)[rng.choice(7, p=[0.2, 0.2, 0.2, 0.2, 0.08, 0.08, 0.04])]
    target = (U * changes[change]) @ Vt
    net = dl.LinearNetwork(widths=widths, target=target, input_root=net.input_root)
    return net, naive.state_of(net, seed, 10.0 ** rng.uniform(-3, 0.3) / np.sqrt(max(widths)))


def cut(net, x, rank):
    """The state without all hidden units but the first ``rank``: they stay at zero."""
    layers = [w.copy() for w in net.unpack(x)]
    for i, w in enumerate(layers):
        w[rank if i + 1 < net.depth else w.shape[0] :] = 0.0
        w[:, rank if i else w.shape[1] :] = 0.0
    return net.pack(layers)


def rate_bound(net, layers):
    """A bound of the Hessian's norm, from the norms of the layers."""
    h, root = net.depth, np.linalg.norm(naive.root(net), 2)
    size = max(np.linalg.norm(w, 2) for w in layers)
    rest = np.linalg.norm(net.target, 2) + size**h * root
    return h * size ** (2 * h - 2) * root**2 + h**2 * rest * root * size ** max(h - 2, 0)


def check(seed):
    net, x = random_problem(seed)
    rank = min(net.widths)
    if net.depth > 1 and seed % 2:
        rank = int(np.random.default_rng(seed).integers(1, rank + 1))
        x = cut(net, x, rank)
    layers = net.unpack(x)
    span = 0.5 / rate_bound(net, layers)
    run = dl.flow(net, x, (0.0, span), [0.0, *(span * NODES), span], rtol=RTOL)
    dl.schema.validate(run)
    reason = dl.schema.decode(run.stop_reason).item()
    assert reason in ("end_reached", "at_rest"), reason
    states, loss, rate = run.state.values, run.loss.values, run.loss_rate.values
    assert np.isfinite(states).all()
    np.testing.assert_array_equal(states[0], x)
    # Loss of its definition, and its rounding: that of the residual times the residual.
    image = max(float(np.linalg.norm(net.image(y))) for y in states)
    sizes = float(np.linalg.norm(net.target)) + image
    rounding = 8.0 * max(net.widths) * EPS * (np.sqrt(2.0 * loss[0]) + EPS * sizes) * sizes
    assert abs(loss[-1] - naive.loss(net, states[-1])) <= rounding
    assert (np.diff(loss) <= rounding).all()
    # C_i, to what the steps may err in them.
    size = max(float(np.sum(w**2)) for y in states for w in net.unpack(y))
    drift = np.abs(net.conserved(states) - net.conserved(x)).max(initial=0.0)
    assert drift <= 4.0 * RTOL * (run.attrs["n_steps"] + 1) * size, drift / size
    # Rank: hidden units that nothing enters and leaves stay so.
    values = np.linalg.svd(net.product(states[-1]), compute_uv=False)
    assert (values[rank:] <= 64.0 * max(net.widths) * EPS * values[0]).all()
    if reason == "end_reached":
        lost = -span * float(WEIGHTS @ rate[1:-1])
        assert lost >= 0.0
        assert abs(loss[0] - loss[-1] - lost) <= 1e-8 * lost + rounding


@pytest.mark.compiled
@pytest.mark.parametrize("first", range(0, 200, 25))
def test_random_problems_break_no_invariant(first):
    for seed in range(first, first + 25):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(200, 10_000, 100))
def test_ten_thousand_random_problems_break_no_invariant(first):
    for seed in range(first, first + 100):
        check(seed)
