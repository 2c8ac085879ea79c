"""One valid call of every public function, for the tests that go over all of them.

A new public name gets a line below; `test_fuzz.py` fails as long as it has none. Calls are small:
each is repeated hundreds of times with one argument spoilt.
"""

import functools
import operator
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import dlnds as dl
from dlnds.systems.protocol import SystemProtocol


class Call(NamedTuple):
    """A public function by its name, and arguments that suit it."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]


def call(name: str, of: Any = None, /, **arguments: Any) -> Call:
    """Return the call of a name of dlnds, or of a method of an object."""
    if of is None:
        return Call(name, operator.attrgetter(name)(dl), arguments)
    return Call(name, getattr(of, name.rpartition(".")[2]), arguments)


def calls_of(names: str, of: Any, **arguments: Any) -> Iterator[Call]:
    """Yield the calls of methods that take the same arguments: ``Owner: name name``."""
    owner, _, methods = names.partition(": ")
    for method in methods.split():
        yield call(f"{owner}.{method}", of, **arguments)


#: What a class answers to engines, who have checked what they ask: typed arrays, no user's input.
FOR_ENGINES = {name for name in vars(SystemProtocol) if not name.startswith("_")} | {
    *("field", "map_modes", "orbit_dimensions", "unit_coordinates", "velocity", "with_covariance"),
    *("of_fields", "undecayed", "quadratic", "orbit_time", "point_name", "point_loss"),
    *(
        "fades",
        "settled",
        "is_far",
        "escapes",
        "seen",
        "loss_on",
        "moments",
        "on",
        "original_maps",
        "of_image",
        "problem",
        "recedes",
        "steepness",
        "signal",
        "values",
    ),
}
#: What stands in a module with its own public name, but has that at the top, or is for engines.
ELSEWHERE = {"has_criterion", "LossNetwork", "BackwardNetwork", "against_time"}
#: Helpers of `schema` that write Datasets, and are given what was checked.
FOR_WRITERS = {
    *("schema.finish", "schema.flag", "schema.samples", "schema.spoken", "schema.read"),
    *(
        "schema.described",
        "schema.columns",
        "schema.by_dims",
        "schema.optional",
        "schema.attributes",
        "schema.whole",
        "schema.carries_problem",
        "schema.without_problem",
    ),
    *("events.Watch", "events.Watch.ends", "events.Watch.happened", "events.Watch.at_end"),
    *("events.Happening", "events.Happening.count", "events.Happening.index"),
}
#: Errors and constants.
NOT_CALLED = {"ConvergenceError"}


def decay(t, x, params, out):
    out[0] = -params[1][0] * x[0]


def decay_jvp(t, x, v, params, out):
    out[0] = -params[1][0] * v[0]


def decay_jacobian(t, x, params, out):
    out[0, 0] = -params[1][0]


def well(t, x, params, out):
    out[0], out[1] = x[0] - x[0] ** 3, -x[1]


def cat(t, x, params, out):
    out[0] = (2.0 * x[0] + x[1]) % 1.0
    out[1] = (x[0] + x[1]) % 1.0


def cat_jacobian(t, x, params, out):
    out[0, 0], out[0, 1], out[1, 0], out[1, 1] = 2.0, 1.0, 1.0, 1.0


def parabola(x, p):
    with np.errstate(all="ignore"):
        return p + x**2


def cubic(q):
    return lambda x, p: p + q * x - x**3


def pitchfork(q):
    return lambda x, p: (p - q**2) * x - x**3


def fraction(size: float, rng: np.random.Generator) -> xr.Dataset:
    """A task of a sweep."""
    return xr.Dataset({"value": ((), size * rng.random())})


def of_a_grid() -> xr.Dataset:
    """Return what a sweep over scales, depths and ranks could give, one point unfinished."""
    grid = {"scale": [1e-3, 1e-2, 1e-1], "depth": [2, 3], "rank": [1, 2]}
    status, steps = np.zeros((3, 2, 2), np.int8), np.arange(1.0, 13.0).reshape(3, 2, 2)
    status[1, 1, 1], steps[1, 1, 1] = 2, np.nan
    variables = {"steps": (tuple(grid), steps), "status": (tuple(grid), status)}
    return dl.schema.finish(xr.Dataset(variables, grid), "sweep", {})


X, Y, EYE = np.arange(6.0).reshape(2, 3), np.ones((2, 3)), np.eye(2)


@functools.cache
def things() -> dict[str, Any]:
    """Return the problems, states and Datasets that the calls are about."""
    net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    deep = dl.LinearNetwork(widths=(2, 2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    loss = dl.losses.logistic([[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]], [1, 1, -1])
    start = net.initial("balanced", scale=0.3, rng=0)
    runs = dl.flow(net, [start, 2 * start], save=("mode_strength",))
    prod = dl.ProductFlow(net, rank=2)
    folds = dl.special_points(dl.branch(cubic(3.0), [-2.0], -2.0, bounds=(-3.0, 3.0)))
    crossings = dl.special_points(dl.branch(pitchfork(1.0), [0.0], 0.0, bounds=(-1.0, 2.0)))
    options = {"bounds": (-1.5, 1.0), "max_points": 6}
    branches = [dl.branch(parabola, [1.0], -1.0, direction=d, **options) for d in ("down", "up")]
    return {
        "net": net,
        "deep": deep,
        "raw": dl.LinearNetwork((2, 3, 2), np.eye(2), input_root=[[1.0, 0.0], [1.0, 2.0]]),
        "loss": loss,
        "measured": dl.losses.measurements([[[1.0, -1.0]], [[2.0, 0.5]]], [1.0, 2.0]),
        "homogeneous": dl.HomogeneousNetwork(
            (2, 3, 1), [[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]], [[1.0, -1.0, 0.5]], slope=0.1
        ),
        "other_loss": dl.LossNetwork((2, 3, 1), loss),
        "prod": prod,
        "point": prod.initial(scale=1.0, rng=0),
        "decay": dl.System(decay, decay_jvp, decay_jacobian, dim=1, parameters=[2.0]),
        "well": dl.System(well, dim=2),
        "cat": dl.System(cat, jacobian=cat_jacobian, dim=2),
        "start": start,
        "saddle": net.critical_state((1,)),
        "deep_saddle": deep.critical_state((1,)),
        "run": dl.flow(net, start, (0, 2), save=("state", "singular_value", "mode_strength")),
        "runs": runs,
        "visits": dl.observed_connections(net, runs),
        "rests": dl.saddle_visits(net, dl.flow(net, net.initial("aligned", scale=1e-3))),
        "exponents": dl.lyapunov_spectrum(dl.GradientDescent(net, 0.1), start, n_steps=20, k=2),
        "chain": dl.escape_chain(net, n_starts=5),
        "table": of_a_grid(),
        "points": dl.critical_points(net),
        "graph": dl.connections(net, n_points=5, scales=(0.1, 0.01)),
        "arcs": dl.critical_arcs(deep, deep.critical_state((1,)), n_alpha=5),
        "atlas": dl.build_atlas(net, n_alpha=5),
        "spectrum": dl.canonical_spectrum(net, (1,)),
        "manifold": dl.unstable_manifold(deep, deep.critical_state(())),
        "fold": folds.isel(step=0),
        "crossing": crossings,
        "branches": branches,
        "diagram": dl.diagram(pitchfork(0.0), [0.0], -0.5, bounds=(-1.0, 1.0), max_points=30),
        "folder": Path(tempfile.mkdtemp(prefix="dlnds-fuzz-")),
    }


def _systems() -> Iterator[Call]:
    this = things()
    net = this["net"]
    whole = {"irreducible_loss": 0.5, "normalization": "as given", "specialize": False}
    data = {"hidden": (3,), "whiten": True, "normalize": True}
    roots = {"input_root": EYE.copy(), "whitening": EYE.copy()}
    yield call("LinearNetwork", widths=(2, 3, 2), target=EYE, **roots, **whole)
    yield call("LinearNetwork.from_data", X=X, Y=Y, **data)
    named = {"features": ("a", "b"), "outputs": ("p", "q"), "whiten": False}
    yield call("LinearNetwork.from_moments", M=EYE, C=EYE.copy(), hidden=(3,), **named)
    yield call("LinearNetwork.specialized", net)
    yield call("LinearNetwork.critical_state", net, modes=(1,), branch="upper")
    yield call("LinearNetwork.unwhiten", net, product=EYE)
    yield call("LinearNetwork.image", net, x=this["start"])
    yield from _of_layers("LinearNetwork", net)
    yield call("LossNetwork", widths=(2, 3, 1), criterion=this["loss"], weight_decay=0.1)
    yield from _of_layers("LossNetwork", this["other_loss"])
    form = {"power": 2, "slope": 0.5, "normalize": True, "loss": "square"}
    yield call("HomogeneousNetwork", widths=(2, 3, 2), X=X, y=Y, **form)
    yield from _of_weights("HomogeneousNetwork", this["homogeneous"], kind="gaussian")
    x = this["homogeneous"].initial(scale=0.5, rng=0)
    yield call("HomogeneousNetwork.outputs", this["homogeneous"], x=x)
    descent = dl.GradientDescent(net, 0.1)
    yield call("GradientDescent", system=net, step_size=0.1)
    yield call("GradientDescent.stability_limit", descent, x=net.critical_state((0, 1)))
    kernels = {"field": decay, "jvp": decay_jvp, "jacobian": decay_jacobian}
    about = {"parameters": [2.0], "energy": lambda x: float(x @ x), "names": ["x"]}
    yield call("System", **kernels, dim=1, **about)
    yield call("System", field=decay, dim=1, parameters={"rate": 2.0}, kind="map")
    yield from _of_maps()
    yield from _losses()
    residual = dl.Residual(parabola)
    yield from calls_of("Residual: value matrix slope orbit", residual, x=[0.5], p=0.5)


def _of_weights(owner: str, net: Any, kind: str, delta: float | None = None) -> Iterator[Call]:
    x = net.initial(scale=0.5, rng=0)
    names = "loss data_loss gradient hessian unpack adjacency unit_sizes conserved"
    yield from calls_of(f"{owner}: {names}", net, x=x)
    yield call(f"{owner}.generators", net, x=x, orthogonal=True)
    yield call(f"{owner}.hessian_product", net, x=x, v=x[::-1].copy())
    yield call(f"{owner}.pack", net, layers=list(net.unpack(x)))
    yield call(f"{owner}.from_adjacency", net, A=net.adjacency(x))
    yield call(f"{owner}.initial", net, kind=kind, scale=0.1, delta=delta, rng=0)


def _of_layers(owner: str, net: Any) -> Iterator[Call]:
    yield from _of_weights(owner, net, kind="delta_balanced", delta=0.01)
    names, x = "product imbalances adjacency_powers adjacency_field", net.initial(scale=0.5, rng=0)
    yield from calls_of(f"{owner}: {names}", net, x=x)
    yield call(f"{owner}.hidden_similarity", net, x=x, X=np.ones((net.widths[0], 2)))


def _of_maps() -> Iterator[Call]:
    prod, x, Z = things()["prod"], things()["point"], np.array([[1.0, 0.5], [0.0, -1.0]])
    yield call("ProductFlow", network=things()["net"], rank=1)
    names = "entropy hessian_modes lift loss product riemannian_gradient singular_values unpack"
    yield from calls_of(f"ProductFlow: {names}", prod, x=x)
    names = "horizontal_lift inverse_operator operator projection retraction riemannian_hessian"
    yield from calls_of(f"ProductFlow: {names}", prod, x=x, Z=Z)
    yield call("ProductFlow.critical_state", prod, modes=(0, 1))
    yield call("ProductFlow.factor", prod, W=Z)
    yield call("ProductFlow.from_balanced", prod, x=things()["start"], rtol=1e-8)
    yield call("ProductFlow.generators", prod, x=x, orthogonal=True)
    yield call("ProductFlow.initial", prod, kind="gaussian", scale=0.1, rng=0)
    yield call("ProductFlow.inner_product", prod, x=x, first=Z, second=Z)
    yield call("ProductFlow.pack", prod, factors=list(prod.unpack(x)))


def _losses() -> Iterator[Call]:
    this, W = things(), np.array([[1.0, -1.0]])
    loss = this["loss"]
    yield call("losses.logistic", X=X, y=[1, -1, 1], normalize=True)
    yield call("losses.cross_entropy", X=X, labels=[0, 1, 2], classes=3, normalize=True)
    yield call("losses.power", X=X, Y=Y, power=4.0, normalize=True)
    entries = {"shape": (1, 2), "rows": [0], "columns": [1], "values": [2.0]}
    yield call("losses.completion", **entries, weights=[1.0])
    yield call("losses.measurements", A=W[None], y=[1.0], weights=[2.0], shape=W.shape)
    parts = {"operators": W[None], "targets": [1.0], "weights": [1.0]}
    yield call("losses.Measurements", kind="measurements", shape=(1, 2), **parts)
    yield from calls_of("losses.Measurements: value gradient", this["measured"], W=W)
    yield call("losses.Measurements.second_derivative", this["measured"], W=W, V=2 * W)
    yield call("losses.Loss", kind="power", inputs=X, targets=Y, power=4.0, normalize=True)
    yield from calls_of("losses.Loss: value gradient", loss, W=W)
    yield call("losses.Loss.second_derivative", loss, W=W, V=2 * W)


def _runs() -> Iterator[Call]:
    this = things()
    net, deep, x, run = this["net"], this["deep"], this["start"], this["run"]
    times = {"t_span": (0.0, 1.0), "t_eval": [0.5, 1.0]}
    effort = {"max_steps": 300, "workers": 1, "progress": False}
    how = {"method": "auto", "rtol": 1e-6, "atol": 1e-12, "reduce_width": False, **effort}
    event = dl.events.loss_below(net, 1.0)
    what = {"save": ("state", "imbalance"), "events": event}
    yield call("flow", system=net, start=x, **times, **how, **what)
    yield call("flow", system=net, start=np.stack([x, 2 * x]), t_span=(0, 3))
    what = {"save": ("state",), "progress": False}
    descent = dl.GradientDescent(net, 0.1)
    yield call("iterate", system=descent, start=x, n_steps=20, every=2, **what)
    yield call("iterate", system=descent, start=np.stack([x, 2 * x]), n_steps=5)
    heat = {"temperature": 0.01, "step_size": 0.05, "n_steps": 40, "burn_in": 4, "every": 2}
    drawn = {"save": ("state",), "rng": 0, "workers": 1, "progress": False}
    yield call("sample", system=net, start=x, **heat, localization=1.0, center=x, **drawn)
    yield call("sample", system=net, start=np.stack([x, 2 * x]), **heat, rng=0)
    layers = [list(net.unpack(x)), list(net.unpack(2 * x))]
    yield call("observe", system=net, run=run, names=["sharpness", "alignment"])
    taken = {"save": ("state",), "inputs": "whitened", "loss": net.loss([x, 2 * x])}
    taken["orientation"] = "out_in"
    yield call("as_run", system=net, times=[0.0, 1.0], layers=layers, **taken)
    lie = {"inputs": "whitened", "orientation": "out_in"}
    yield call("Recorder", net=net, save=("state",), **lie)
    record = dl.Recorder(net)
    record.record(0.0, layers[0])
    loss = float(net.loss(2 * x))
    recording = {"time": 1.0, "layers": layers[1], "loss": loss}
    yield Call("Recorder.record", lambda **given: dl.Recorder(net).record(**given), recording)
    yield call("Recorder.run", record, save=("state", "imbalance"))
    source = [{"W1": a, "W2": b} for a, b in layers]
    listed = {"step_size": 0.1, "steps": [0, 5], "names": ["W1", "W2"], "orientation": "out_in"}
    yield call("read_checkpoints", source=source, **listed)
    yield call("convergence_bounds", net=net, run=run)
    yield call("evaluate", net=net, run=run, X=X, Y=Y)
    teacher = {"teacher": EYE.copy(), "covariance": EYE.copy(), "noise": 0.1}
    yield call("generalization_error", net=net, run=run, **teacher)
    yield call("early_stopping", net=net, teacher=EYE.copy(), strength=1e-3)
    aligned = deep.initial("aligned", scale=0.1)
    yield call("exact_flow", net=deep, start=aligned, t_eval=[0.0, 5.0], save=("state",))
    flow = {"system": net, "start": x, "t_span": (0.0, 2.0), "burn_in": 0.5, "interval": 0.25}
    flow |= {"k": 2, "rtol": 1e-6, "rng": 0, "max_steps": 100, "progress": False}
    mapped = {"system": this["cat"], "start": [0.1, 0.2], "n_steps": 20, "k": 2, "rng": 0}
    yield call("lyapunov_spectrum", **flow, t_eval=[1.0, 2.0])
    yield call("lyapunov_spectrum", **mapped)
    yield call("covariant_vectors", **flow, t_eval=[1.0, 1.5], burn_out=0.5)
    yield call("covariant_vectors", **mapped, burn_in=4)
    yield call("lyapunov_function", run=run, limit=0.0)
    yield call("saddle_visits", net=net, run=run, radius=0.05)
    yield call("observed_connections", net=net, runs=this["runs"], radius=0.05)
    yield call("overlay", graph=this["graph"], observed=this["visits"])
    yield call("quotient_run", net=net, run=run, reference=x)
    yield call("events.loss_below", net=net, level=0.1, terminal=True)
    yield call("events.mode_learnt", net=net, mode=1, fraction=0.5, terminal=True)
    near = {"branch": "upper", "radius": 0.05, "direction": "either", "terminal": True}
    yield call("events.near_saddle", net=net, modes=(0,), **near)
    first = {"function": lambda x: x[0], "name": "first", "direction": 0, "terminal": False}
    yield call("events.Event", **first)


def _points() -> Iterator[Call]:
    this = things()
    net, deep, x, saddle = this["net"], this["deep"], this["start"], this["saddle"]
    at = {"net": deep, "x": this["deep_saddle"], "rtol": 1e-8}
    turn = np.linalg.qr(np.arange(9.0).reshape(3, 3) + np.eye(3))[0]
    yield call("critical_points", net=net, max_rank=2, modes=(0, 1))
    decayed = dl.LinearNetwork((2, 2, 2, 2), np.diag([2.0, 1.0]), weight_decay=0.1)
    yield call("critical_points", net=decayed, max_rank=1)
    yield call("classify", net=decayed, x=decayed.critical_state((0,)), rtol=1e-8)
    yield call("decay_diagram", net=net, bounds=(0.0, 2.0), n_points=3, max_rank=1, modes=(0, 1))
    for name in ("classify", "canonicalize", "fiber_dimension"):
        yield call(name, net=net, x=saddle, rtol=1e-8)
    yield call("random_fiber_state", net=net, modes=(1,), rng=0)
    yield call("conservation_laws", system=net, x=x, rng=0)
    yield call("fiber_components", net=net, rank=1)
    yield call("fiber_orientation", net=net, x=saddle, rtol=1e-8)
    yield call("fiber_path", net=net, x=saddle, y=saddle, n_points=3, rtol=1e-8)
    yield call("fiber_line", net=net, x=x)
    yield call("flattest_minimum", net=net)
    yield call("learning_coefficient", net=net, rank=1, at=None)
    yield call("learning_coefficient", net=net, at=net.critical_state((0, 1)), rtol=1e-8)
    newton = {"t": 0.0, "rtol": 1e-10, "max_iterations": 50}
    yield call("find_critical_point", system=net, x0=saddle + 0.01 * x, **newton)
    yield call("canonical_spectrum", net=net, modes=(1,))
    some = {"method": "iterative", "which": "largest", "n_eigenvalues": 2}
    yield call("linearize", system=net, x=saddle, t=0.0, zero_tolerance=1e-9, **some)
    yield call("linearize", system=net, x=x, method="auto")
    yield call("linearize", system=this["decay"], x=[0.0], eigenvectors=True)
    yield call("linearize", system=net, x=x, n_eigenvalues=2, eigenvectors=True)
    yield call("hessian", system=net, x=x, t=0.0)
    yield call("hessian_product", system=net, x=x, v=saddle, t=0.0)
    yield call("inertia", system=net, x=saddle, t=0.0, zero_tolerance=1e-9)
    yield call("check_assumptions", singular_values=[2.0, 1.0], widths=(2, 3, 2), rtol=1e-9)
    yield call("act", net=net, element=[turn], x=x)
    yield call("orbit_basis", net=net, x=x, orthogonal=True, rtol=1e-9)
    yield call("split_tangent", net=net, x=x, v=2 * x, orthogonal=True, rtol=1e-9)
    yield call("orbit_distance", net=net, x=x, y=2 * x, method="procrustes", restarts=2, rng=0)
    yield call("unstable_manifold", **at)
    yield call("stable_manifold", **at)
    growth = {"n_fibres": 2, "n_points": 5, "reach": 0.5, "rtol": 1e-6, "max_steps": 500}
    quiet = {"rng": 0, "workers": 1, "progress": False}
    yield call("grow_manifold", net=deep, manifold=this["manifold"], **growth, **quiet)
    plane, middle = this["well"], [0.0, 0.0]
    local = dl.unstable_manifold(plane, middle)
    yield call("stable_manifold", net=plane, x=middle, rtol=1e-8)
    yield call("grow_manifold", net=plane, manifold=local, length=2.0, **growth, **quiet)
    fan = {"manifold": dl.stable_manifold(plane, [1.0, 0.0]), "n_fibres": 4, "n_points": 5}
    yield call("grow_manifold", net=plane, **fan, reach=0.5, length=0.6, spacing=0.9, rtol=1e-6)
    grown = {"n_fibres": 8, "n_points": 5, "reach": 5.0, "rtol": 1e-6, "max_steps": 500}
    yield call("connecting_orbits", system=plane, source=middle, target=[1.0, 0.0], **grown)
    yield call("critical_arcs", **at, n_alpha=5)
    yield call("arc_states", **at, arcs=this["arcs"], arc=0)
    which = {"max_rank": 2, "modes": (0, 1), "rank": None}
    yield call("connections", net=net, **which, n_points=5, scales=(0.1, 0.01))
    yield call("edge_states", graph=this["graph"], edge=0)
    what = {"max_rank": 1, "modes": (0, 1), "n_alpha": 5, "n_runs": 1, "scale": 0.1}
    yield call("build_atlas", net=net, **what, max_steps=2000, **quiet)


def _branches() -> Iterator[Call]:
    this = things()
    steps = {"step": 0.1, "step_min": 1e-6, "step_max": 0.5, "max_points": 20, "rtol": 1e-10}
    course = {**steps, "n_eigenvalues": 1, "events": (), "progress": False}
    through = {"residual": parabola, "x0": [1.0], "p0": -1.0, "bounds": (-1.5, 1.0), **course}
    curve = {"direction": "both", "parameter": "q", **course}
    thin, sides = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]]), this["branches"]
    functions = {
        "jacobian": lambda x, p: np.diag(2 * x),
        "derivative": lambda x, p: np.ones_like(x),
        "generators": lambda x, p: np.zeros((0, x.size)),
        "invariants": lambda x, p: x,
        "observe": lambda x, p: {"size": float(np.linalg.norm(x))},
    }
    about = {"symmetric_at": (0.0,), "symmetric": True, "parameter": "p", "vectorized": False}
    rest = {"kind": "map", "coordinates": {}, "attributes": {}}
    yield call("Residual", fun=parabola, **functions, **about, **rest)
    path = ([2**0.5, 2**0.5], [2.0, 1.0])
    yield call("equilibria", system=thin, vary="imbalance", path=path)
    yield call("equilibria", system=this["net"], vary="weight_decay")
    descent = dl.GradientDescent(this["net"], 0.1)
    yield call("equilibria", system=descent, vary="step_size", period=2)
    yield call("branch", **through, direction="both", symmetry="declared", predictor="tangent")
    yield call("diagram", **through, depth=1, max_branches=3)
    yield call("special_points", branch=sides[0])
    fold = {"family": cubic, "point": this["fold"], "q0": 3.0, "bounds": (2.0, 4.0)}
    yield call("fold_curve", **fold, **curve)
    crossing = {"family": pitchfork, "point": this["crossing"], "q0": 1.0, "bounds": (0.5, 1.0)}
    yield call("branch_point_curve", **crossing, **curve)
    further = {"bounds": (-2.0, 1.0), "step_min": 1e-6, "step_max": 0.5, "max_points": 5}
    further |= {"side": "first", "events": (), "progress": False}
    yield call("extend_branch", residual=parabola, branch=sides[0], **further)
    yield call("merge_branches", one=sides[0], other=sides[1])


def _directions() -> Iterator[Call]:
    net = things()["homogeneous"]
    kkt = dl.escape_directions(net, n_starts=10)
    first, x = kkt.isel(direction=0), kkt.state.values[0]
    search = {"rng": 0, "n_starts": 5, "starts": kkt.state.values, "saddles": True, "workers": 1}
    yield call("escape_directions", system=net, at=np.zeros(net.dim), **search)
    deep, saddle = things()["deep"], things()["deep_saddle"]
    yield call("escape_directions", system=deep, at=saddle, max_directions=3, progress=False)
    yield call("escape_time", system=net, direction=first, delta=[0.1, 0.01])
    times = {"t_eval": [-1.0, 0.0, 1.0], "rtol": 1e-9, "save": ("state",), "max_steps": 500}
    yield call("escape_path", system=net, direction=first, delta=0.05, **times)
    yield call("escape_chain", system=net, rng=0, n_starts=5, max_paths=1, max_steps=300)
    path, grid = dl.escape_path(net, first), [0.0, 0.25, 0.5]
    run = {"start": 0.05 * x, "norm": 0.3, "t_eval": grid, "rtol": 1e-8}
    yield call("compare_with_path", system=net, path=path, **run)
    yield call("zero_preserving", system=net, x=x, n_trials=2, rng=0)


def _sweeps() -> Iterator[Call]:
    folder, grid = things()["folder"], {"size": [1.0, 2.0]}
    whole = str(folder / "whole")
    dl.sweep(fraction, grid, whole, rng=0)
    how = {"workers": 1, "rng": 0, "resume": True, "retry": False, "on_failure": "mark"}
    yield call("sweep", task=fraction, grid=grid, directory=str(folder / "sweep"), **how)
    yield call("collect", directory=whole)
    yield call("verify", directory=whole)


def _stored() -> Iterator[Call]:
    this = things()
    run, folder = this["run"], this["folder"]
    stored, page = str(folder / "stored.nc"), str(folder / "page.html")
    dl.save(run, stored)
    yield call("load_problem", name="linnerud", hidden=(3,), whiten=True)
    yield call("problem_names")
    form = {"separator": "auto", "drop_missing": False}
    yield call("read_csv", path="linnerud", transform="none", **form)
    yield call("save", data=run, path=str(folder / "saved.nc"))
    yield call("load", path=stored)
    yield call("load_system", run=run)
    yield call("cite", result=run, form="text")
    yield call("save_page", atlas=this["atlas"], path=page)
    yield call("weights", dataset=run, layer=1)
    yield call("schema.weights", dataset=run, layer=1)
    yield call("schema.decode", flags=run.stop_reason)
    yield call("schema.validate", dataset=run)
    yield call("schema.index_set_label", modes=(0, 2))
    yield call("schema.index_set_labels", sets=[(0,), (0, 2)])
    yield call("schema.index_set_modes", label="{0,2}")
    yield call("schema.state_coordinates", widths=(2, 3, 2))
    yield call("accessor.validate", run.dlnds)
    yield call("accessor.weights", run.dlnds, layer=1)
    yield call("accessor.decode", run.dlnds, name="stop_reason")
    yield call("accessor.save", run.dlnds, path=str(folder / "own.nc"))
    yield call("accessor.plot", run.dlnds, points=this["points"], ax=None)


def _pictures() -> Iterator[Call]:
    this = things()
    run = this["run"]
    yield call("plot.levels", atlas=this["atlas"], ax=None)
    yield call("plot.graph", atlas=this["atlas"], ax=None)
    over = {"exact": run, "linestyle": ":", "ax": None}
    yield call("plot.loss", run=run, points=this["points"], test=run.loss, **over)
    yield call("plot.singular_values", run=run, modes=this["net"].modes, **over)
    seen = dl.observe(this["net"], run, ("alignment", "ntk_distance", "ntk_change", "sharpness"))
    yield call("plot.alignment", run=seen, level=1, ax=None)
    yield call("plot.ntk", run=seen, ax=None)
    over = dl.decay_diagram(this["net"], n_points=5)
    yield call("plot.decay_diagram", diagram=over, show="size", ax=None)
    bounds = dl.convergence_bounds(this["net"], run)
    yield call("plot.convergence", bounds=bounds, show="excess_loss", ax=None)
    yield call("plot.sharpness", run=seen, step_size=0.1, ax=None)
    yield call("plot.spectrum", linearization=this["spectrum"], ax=None)
    yield call("plot.arcs", arcs=this["arcs"], source="{1}", ax=None)
    drawn = {"data": this["diagram"], "x": "p", "y": "norm"}
    yield call("plot.branches", **drawn, xscale="linear", yscale="linear", ax=None)
    yield call("plot.visits", visits=this["rests"], ax=None)
    yield call("plot.lyapunov", exponents=this["exponents"], ax=None)
    yield call("plot.escape_chain", chain=this["chain"], ax=None)
    yield call("plot.pairs", graph=this["graph"], ax=None)
    over = {"value": "steps", "x": "scale", "sel": {"rank": 2}}
    yield call("plot.heatmap", sweep=this["table"], **over, ax=None)
    yield call("plot.by_schema", data=this["arcs"], source="{1}")
    for name in ("points", "graph", "visits", "manifold"):
        yield call("plot.by_schema", data=this[name], ax=None)


#: One valid call of every public function, by what they are about.
GROUPS: dict[str, Callable[[], Iterator[Call]]] = {
    "systems": _systems,
    "runs": _runs,
    "points": _points,
    "branches": _branches,
    "directions": _directions,
    "sweeps": _sweeps,
    "files": _stored,
    "pictures": _pictures,
}


@functools.cache
def table(group: str | None = None) -> tuple[Call, ...]:
    """Return one valid call of every public function, or of those of one group."""
    return tuple(found for name in GROUPS if group in (None, name) for found in GROUPS[name]())
