"""What would not fit into the memory is refused at once, with the bytes it would take."""

import time

import numpy as np
import pytest

import dlnds as dl

EYE = np.eye(2)
NET = dl.LinearNetwork(widths=(2, 3, 3, 2), target=np.diag([2.0, 1.0]))
WIDE = dl.LinearNetwork((1, 10**6, 1), [[1.0]])
FLAT = dl.LinearNetwork((10**5, 1), np.ones((1, 10**5)))
MAP = dl.GradientDescent(NET, 0.1)
X = np.full(NET.dim, 0.1)
SADDLE = NET.critical_state((1,))
MANY = 10**12


def decay(t, x, params, out):
    out[0] = -x[0]


def diagonal(t, x, params, out):
    out[0, 0] = -1.0


def parabola(x, p):
    return p + x**2


def fold(q):
    return lambda x, p: p + q * x - x**3


def branch(**options):
    return dl.branch(parabola, [1.0], -1.0, bounds=(-1.5, 1.0), **options)


def folds(**options):
    point = dl.special_points(dl.branch(fold(3.0), [-2.0], -2.0, bounds=(-3.0, 3.0)))
    return dl.fold_curve(fold, point.isel(step=0), 3.0, bounds=(2.0, 4.0), **options)


CASES = [
    ("widths", lambda: dl.LinearNetwork((2, MANY, 2), EYE)),
    ("hidden", lambda: dl.LinearNetwork.from_data(EYE, EYE, (10**6, 10**6))),
    ("hidden", lambda: dl.LinearNetwork.from_moments(EYE, EYE, (MANY,))),
    ("hidden", lambda: dl.load_problem("linnerud", hidden=(MANY,))),
    ("widths", lambda: dl.LossNetwork((2, MANY, 1), dl.losses.logistic(EYE, [1, -1]))),
    ("classes", lambda: dl.losses.cross_entropy(EYE, [0, 1], classes=MANY)),
    ("dim", lambda: dl.System(decay, jacobian=diagonal, dim=MANY)),
    ("x", lambda: WIDE.hessian(np.zeros(WIDE.dim))),
    ("x", lambda: WIDE.adjacency(np.zeros(WIDE.dim))),
    ("x", lambda: WIDE.generators(np.zeros(WIDE.dim))),
    ("x", lambda: WIDE.conserved(np.zeros(WIDE.dim))),
    ("x", lambda: WIDE.imbalances(np.zeros(WIDE.dim))),
    ("kind", lambda: WIDE.initial("delta_balanced", delta=0.1, rng=0)),
    ("x", lambda: dl.orbit_basis(WIDE, np.zeros(WIDE.dim))),
    ("x", lambda: dl.classify(WIDE, np.zeros(WIDE.dim))),
    ("x", lambda: dl.canonicalize(WIDE, np.zeros(WIDE.dim))),
    ("net", lambda: dl.random_fiber_state(WIDE, [0], rng=0)),
    ("system", lambda: dl.flow(WIDE, np.ones(WIDE.dim), (0, 1))),
    ("t_eval", lambda: dl.flow(FLAT, np.ones(FLAT.dim), (0, 1), np.linspace(0.0, 1.0, 10**6))),
    ("n_steps", lambda: dl.iterate(MAP, X, MANY)),
    ("n_steps", lambda: dl.iterate(MAP, X, 10**13, every=3)),
    ("n_steps", lambda: dl.sample(NET, X, temperature=1.0, step_size=0.1, n_steps=MANY)),
    ("interval", lambda: dl.lyapunov_spectrum(NET, X, (0, 1), interval=1e-9)),
    ("n_points", lambda: dl.connections(NET, n_points=MANY)),
    ("n_alpha", lambda: dl.critical_arcs(NET, SADDLE, n_alpha=MANY)),
    ("n_alpha", lambda: dl.build_atlas(NET, n_alpha=MANY)),
    ("n_runs", lambda: dl.build_atlas(NET, n_runs=MANY)),
    ("n_fibres", lambda: dl.grow_manifold(NET, dl.unstable_manifold(NET, SADDLE), MANY)),
    ("n_points", lambda: dl.grow_manifold(NET, dl.unstable_manifold(NET, SADDLE), n_points=MANY)),
    ("max_points", lambda: branch(max_points=MANY)),
    ("max_points", lambda: dl.extend_branch(parabola, branch(max_points=3), max_points=MANY)),
    (
        "max_points",
        lambda: dl.diagram(parabola, [1.0], -1.0, bounds=(-1.5, 1.0), max_points=MANY),
    ),
    ("max_points", lambda: folds(max_points=MANY)),
]


@pytest.mark.parametrize(("name", "call"), CASES, ids=range(len(CASES)))
def test_what_takes_more_than_half_of_the_free_memory_is_refused_at_once(name, call):
    took = []
    for _ in range(2):  # the first may load or compile something
        began = time.monotonic()
        with pytest.raises(
            ValueError,
            match=rf"^{name}: this takes [\d,]+ bytes, more than half of the free [\d,]+",
        ):
            call()
        took.append(time.monotonic() - began)
    assert min(took) < 1.0
