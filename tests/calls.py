"""One valid call of every public function, for the tests that go over all of them.

A new public name gets a line in `table`; `test_fuzz.py` fails as long as it has none. Calls are
small: each is repeated hundreds of times with one argument spoilt.
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import dlnds as dl
from dlnds.systems.protocol import SystemProtocol


class Call(NamedTuple):
    """A function, arguments that suit it, and what it documents to raise beside the usual.

    ``may_overflow`` says that it returns numbers of the user's own function as they are.
    """

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    raises: tuple[type[Exception], ...] = ()
    may_overflow: bool = False


#: What a class answers to engines, who have checked what they ask: typed arrays, no user's input.
FOR_ENGINES = {name for name in vars(SystemProtocol) if not name.startswith("_")} | {
    *("outputs_at_slope", "params_at_slope", "of_image"),
    "image_of",
    "image_strength",
    "is_learnt",
    "map_modes",
    "orbit_dimensions",
    "velocity",
    "values",
}
#: Helpers of `schema` that write Datasets, and are given what was checked.
FOR_WRITERS = {
    *("schema.finish", "schema.flag", "schema.samples", "schema.spoken"),
    *("schema.check_content", "schema.check_digest", "schema.check_whole", "schema.read"),
    "losses.labelled_data",
}
#: Errors and constants.
NOT_CALLED = {"ConvergenceError"}


def decay(t, x, params, out):
    out[0] = -params[1][0] * x[0]


def decay_jvp(t, x, v, params, out):
    out[0] = -params[1][0] * v[0]


def decay_jacobian(t, x, params, out):
    out[0, 0] = -params[1][0]


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


@functools.cache
def things() -> dict[str, Any]:
    """Return the problems, states and Datasets that the calls are about."""
    net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    deep = dl.LinearNetwork(widths=(2, 2, 2, 2), target=[[2.0, 0.0], [0.0, 1.0]])
    raw = dl.LinearNetwork((2, 3, 2), np.eye(2), input_root=[[1.0, 0.0], [1.0, 2.0]])
    loss = dl.losses.logistic([[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]], [1, 1, -1])
    start = net.initial("balanced", scale=0.3, rng=0)
    run = dl.flow(net, start, (0, 2), save=("state", "singular_value", "mode_strength"))
    runs = dl.flow(net, [start, 2 * start], save=("mode_strength",))
    prod = dl.ProductFlow(net, rank=2)
    folds = dl.special_points(dl.branch(cubic(3.0), [-2.0], -2.0, bounds=(-3.0, 3.0)))
    crossings = dl.special_points(dl.branch(pitchfork(1.0), [0.0], 0.0, bounds=(-1.0, 2.0)))
    options = {"bounds": (-1.5, 1.0), "max_points": 6}
    branches = [dl.branch(parabola, [1.0], -1.0, direction=d, **options) for d in ("down", "up")]
    mani = dl.unstable_manifold(deep, deep.critical_state(()))
    return {
        "net": net,
        "deep": deep,
        "raw": raw,
        "loss": loss,
        "homogeneous": dl.HomogeneousNetwork(
            (2, 3, 1), [[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]], [[1.0, -1.0, 0.5]], slope=0.1
        ),
        "other_loss": dl.LossNetwork((2, 3, 1), loss),
        "prod": prod,
        "point": prod.initial(scale=1.0, rng=0),
        "decay": dl.System(decay, decay_jvp, decay_jacobian, dim=1, parameters=[2.0]),
        "cat": dl.System(cat, jacobian=cat_jacobian, dim=2),
        "start": start,
        "saddle": net.critical_state((1,)),
        "deep_saddle": deep.critical_state((1,)),
        "run": run,
        "runs": runs,
        "visits": dl.observed_connections(net, runs),
        "points": dl.critical_points(net),
        "graph": dl.connections(net, n_points=5, scales=(0.1, 0.01)),
        "arcs": dl.critical_arcs(deep, deep.critical_state((1,)), n_alpha=5),
        "atlas": dl.build_atlas(net, n_alpha=5),
        "spectrum": dl.canonical_spectrum(net, (1,)),
        "manifold": mani,
        "fold": folds.isel(step=0),
        "crossing": crossings,
        "branches": branches,
        "diagram": dl.diagram(pitchfork(0.0), [0.0], -0.5, bounds=(-1.0, 1.0), max_points=30),
        "folder": Path(tempfile.mkdtemp(prefix="dlnds-fuzz-")),
    }


def _systems() -> list[Call]:
    this = things()
    net, prod, loss, x = this["net"], this["prod"], this["loss"], this["start"]
    X, Y, EYE = np.arange(6.0).reshape(2, 3), np.ones((2, 3)), np.eye(2)
    calls = [
        Call(
            "LinearNetwork",
            dl.LinearNetwork,
            {
                "widths": (2, 3, 2),
                "target": EYE,
                "input_root": EYE.copy(),
                "whitening": EYE.copy(),
                "irreducible_loss": 0.5,
                "normalization": "as given",
                "specialize": False,
            },
        ),
        Call(
            "LinearNetwork.from_data",
            dl.LinearNetwork.from_data,
            {"X": X, "Y": Y, "hidden": (3,), "whiten": True, "normalize": True},
        ),
        Call(
            "LinearNetwork.from_moments",
            dl.LinearNetwork.from_moments,
            {"M": EYE, "C": EYE.copy(), "hidden": (3,), "whiten": False},
        ),
        Call("LinearNetwork.specialized", net.specialized, {}),
        Call("LinearNetwork.critical_state", net.critical_state, {"modes": (1,)}),
        Call("LinearNetwork.unwhiten", net.unwhiten, {"product": EYE}),
        Call("LinearNetwork.image", net.image, {"x": x}),
        *_of_layers("LinearNetwork", net),
        Call("LossNetwork", dl.LossNetwork, {"widths": (2, 3, 1), "criterion": loss}),
        *_of_layers("LossNetwork", this["other_loss"]),
        Call(
            "HomogeneousNetwork",
            dl.HomogeneousNetwork,
            {
                "widths": (2, 3, 2),
                "X": X,
                "y": Y,
                "power": 2,
                "slope": 0.5,
                "normalize": True,
                "loss": "square",
            },
        ),
        *_of_homogeneous(this["homogeneous"]),
        Call("GradientDescent", dl.GradientDescent, {"system": net, "step_size": 0.1}),
        Call(
            "GradientDescent.stability_limit",
            dl.GradientDescent(net, 0.1).stability_limit,
            {"x": net.critical_state((0, 1))},
        ),
        Call(
            "System",
            dl.System,
            {
                "field": decay,
                "jvp": decay_jvp,
                "jacobian": decay_jacobian,
                "dim": 1,
                "parameters": [2.0],
                "energy": lambda x: float(x @ x),
                "names": ["x"],
            },
        ),
        Call("ProductFlow", dl.ProductFlow, {"network": net, "rank": 1}),
        *_of_maps(prod),
        *_losses(X),
    ]
    residual = dl.Residual(parabola)
    calls += [
        Call(f"Residual.{name}", getattr(residual, name), {"x": [0.5], "p": 0.5}, may_overflow=True)
        for name in ("value", "matrix", "slope", "orbit")
    ]
    return calls


def _of_homogeneous(net: Any) -> list[Call]:
    x = net.initial(scale=0.5, rng=0)
    names = (
        *("loss", "gradient", "hessian", "outputs", "unpack", "conserved", "adjacency"),
        "unit_sizes",
    )
    return [
        *(Call(f"HomogeneousNetwork.{name}", getattr(net, name), {"x": x}) for name in names),
        Call("HomogeneousNetwork.generators", net.generators, {"x": x, "orthogonal": True}),
        Call("HomogeneousNetwork.hessian_product", net.hessian_product, {"x": x, "v": 2 * x}),
        Call("HomogeneousNetwork.pack", net.pack, {"layers": list(net.unpack(x))}),
        Call(
            "HomogeneousNetwork.initial",
            net.initial,
            {"kind": "gaussian", "scale": 0.1, "delta": None, "rng": 0},
        ),
    ]


def _of_layers(owner: str, net: Any) -> list[Call]:
    x = net.initial(scale=0.5, rng=0)
    names = (
        *("loss", "gradient", "hessian", "product", "unpack", "adjacency", "imbalances"),
        "unit_sizes",
    )
    return [
        *(Call(f"{owner}.{name}", getattr(net, name), {"x": x}) for name in names),
        Call(f"{owner}.conserved", net.conserved, {"x": x}),
        Call(f"{owner}.generators", net.generators, {"x": x, "orthogonal": True}),
        Call(f"{owner}.hessian_product", net.hessian_product, {"x": x, "v": x[::-1].copy()}),
        Call(f"{owner}.pack", net.pack, {"layers": list(net.unpack(x))}),
        Call(
            f"{owner}.initial",
            net.initial,
            {"kind": "delta_balanced", "scale": 0.1, "delta": 0.01, "rng": 0},
        ),
    ]


def _of_maps(prod: Any) -> list[Call]:
    x, Z = things()["point"], np.array([[1.0, 0.5], [0.0, -1.0]])
    calls = [
        *(
            Call(f"ProductFlow.{name}", getattr(prod, name), {"x": x})
            for name in (
                *("entropy", "hessian_modes", "lift", "loss", "product"),
                *("riemannian_gradient", "singular_values", "unpack"),
            )
        ),
        *(
            Call(f"ProductFlow.{name}", getattr(prod, name), {"x": x, "Z": Z})
            for name in (
                *("horizontal_lift", "inverse_operator", "operator", "projection", "retraction"),
                "riemannian_hessian",
            )
        ),
    ]
    return [
        *calls,
        Call("ProductFlow.critical_state", prod.critical_state, {"modes": (0, 1)}),
        Call("ProductFlow.factor", prod.factor, {"W": Z}),
        Call(
            "ProductFlow.from_balanced",
            prod.from_balanced,
            {"x": things()["start"], "rtol": 1e-8},
        ),
        Call("ProductFlow.generators", prod.generators, {"x": x, "orthogonal": True}),
        Call("ProductFlow.initial", prod.initial, {"kind": "gaussian", "scale": 0.1, "rng": 0}),
        Call("ProductFlow.inner_product", prod.inner_product, {"x": x, "first": Z, "second": Z}),
        Call("ProductFlow.pack", prod.pack, {"factors": list(prod.unpack(x))}),
    ]


def _losses(X: Any) -> list[Call]:
    loss, W = things()["loss"], np.array([[1.0, -1.0]])
    return [
        Call("losses.logistic", dl.losses.logistic, {"X": X, "y": [1, -1, 1], "normalize": True}),
        Call(
            "losses.cross_entropy",
            dl.losses.cross_entropy,
            {"X": X, "labels": [0, 1, 2], "classes": 3, "normalize": True},
        ),
        Call(
            "losses.power",
            dl.losses.power,
            {"X": X, "Y": np.ones((2, 3)), "power": 4.0, "normalize": True},
        ),
        Call(
            "losses.Loss",
            dl.losses.Loss,
            {
                "kind": "power",
                "inputs": X,
                "targets": np.ones((2, 3)),
                "power": 4.0,
                "normalize": True,
            },
        ),
        Call("losses.Loss.value", loss.value, {"W": W}),
        Call("losses.Loss.gradient", loss.gradient, {"W": W}),
        Call("losses.Loss.second_derivative", loss.second_derivative, {"W": W, "V": 2 * W}),
    ]


def _runs() -> list[Call]:
    this = things()
    net, x, run = this["net"], this["start"], this["run"]
    flow = {
        "system": net,
        "start": x,
        "t_span": (0.0, 1.0),
        "t_eval": [0.5, 1.0],
        "method": "auto",
        "rtol": 1e-6,
        "atol": 1e-12,
        "events": dl.events.loss_below(net, 1.0),
        "save": ("state", "imbalance"),
        "max_steps": 300,
        "reduce_width": False,
        "workers": 1,
        "progress": False,
    }
    exponents = {
        "system": net,
        "start": x,
        "t_span": (0.0, 2.0),
        "k": 2,
        "burn_in": 0.5,
        "interval": 0.25,
        "t_eval": [1.0, 2.0],
        "rtol": 1e-6,
        "rng": 0,
        "max_steps": 100,
        "progress": False,
    }
    failing = (dl.ConvergenceError,)
    mapped = {"system": this["cat"], "start": [0.1, 0.2], "n_steps": 20, "k": 2, "rng": 0}
    return [
        Call("flow", dl.flow, flow),
        Call("flow", dl.flow, {"system": net, "start": np.stack([x, 2 * x]), "t_span": (0, 3)}),
        Call(
            "iterate",
            dl.iterate,
            {
                "system": dl.GradientDescent(net, 0.1),
                "start": x,
                "n_steps": 20,
                "every": 2,
                "save": ("state",),
                "progress": False,
            },
        ),
        Call(
            "as_run",
            dl.as_run,
            {
                "system": net,
                "times": [0.0, 1.0],
                "layers": [list(net.unpack(x)), list(net.unpack(2 * x))],
                "save": ("state",),
            },
        ),
        Call(
            "exact_flow",
            dl.exact_flow,
            {
                "net": this["deep"],
                "start": this["deep"].initial("aligned", scale=0.1),
                "t_eval": [0.0, 5.0],
                "save": ("state",),
            },
        ),
        Call("lyapunov_spectrum", dl.lyapunov_spectrum, exponents, failing),
        Call("lyapunov_spectrum", dl.lyapunov_spectrum, mapped, failing),
        Call(
            "covariant_vectors",
            dl.covariant_vectors,
            {**exponents, "t_eval": [1.0, 1.5], "burn_out": 0.5},
            failing,
        ),
        Call("covariant_vectors", dl.covariant_vectors, {**mapped, "burn_in": 4}, failing),
        Call("lyapunov_function", dl.lyapunov_function, {"run": run, "limit": 0.0}),
        Call("saddle_visits", dl.saddle_visits, {"net": net, "run": run, "radius": 0.05}),
        Call(
            "observed_connections",
            dl.observed_connections,
            {"net": net, "runs": this["runs"], "radius": 0.05},
        ),
        Call("overlay", dl.overlay, {"graph": this["graph"], "observed": this["visits"]}),
        Call("quotient_run", dl.quotient_run, {"net": net, "run": run, "reference": x}),
        Call(
            "events.loss_below", dl.events.loss_below, {"net": net, "level": 0.1, "terminal": True}
        ),
        Call(
            "events.mode_learnt",
            dl.events.mode_learnt,
            {"net": net, "mode": 1, "fraction": 0.5, "terminal": True},
        ),
        Call(
            "events.near_saddle",
            dl.events.near_saddle,
            {
                "net": net,
                "modes": (0,),
                "radius": 0.05,
                "direction": "either",
                "terminal": True,
            },
        ),
        Call(
            "events.Event",
            dl.events.Event,
            {"function": lambda x: x[0], "name": "first", "direction": 0, "terminal": False},
        ),
    ]


def _points() -> list[Call]:
    this = things()
    net, deep, x, saddle = this["net"], this["deep"], this["start"], this["saddle"]
    turn = np.linalg.qr(np.arange(9.0).reshape(3, 3) + np.eye(3))[0]
    return [
        Call("critical_points", dl.critical_points, {"net": net, "max_rank": 2, "modes": (0, 1)}),
        Call("classify", dl.classify, {"net": net, "x": saddle, "rtol": 1e-8}),
        Call("canonicalize", dl.canonicalize, {"net": net, "x": saddle, "rtol": 1e-8}),
        Call("fiber_dimension", dl.fiber_dimension, {"net": net, "x": saddle, "rtol": 1e-8}),
        Call("random_fiber_state", dl.random_fiber_state, {"net": net, "modes": (1,), "rng": 0}),
        Call(
            "find_critical_point",
            dl.find_critical_point,
            {
                "system": net,
                "x0": saddle + 0.01 * x,
                "t": 0.0,
                "rtol": 1e-10,
                "max_iterations": 50,
            },
            (dl.ConvergenceError,),
        ),
        Call("canonical_spectrum", dl.canonical_spectrum, {"net": net, "modes": (1,)}),
        Call(
            "linearize",
            dl.linearize,
            {
                "system": net,
                "x": saddle,
                "t": 0.0,
                "zero_tolerance": 1e-9,
                "method": "iterative",
                "which": "largest",
                "n_eigenvalues": 2,
            },
            (dl.ConvergenceError,),
        ),
        Call("linearize", dl.linearize, {"system": net, "x": x, "method": "auto"}),
        Call("inertia", dl.inertia, {"system": net, "x": saddle, "t": 0.0, "zero_tolerance": 1e-9}),
        Call(
            "check_assumptions",
            dl.check_assumptions,
            {"singular_values": [2.0, 1.0], "widths": (2, 3, 2), "rtol": 1e-9},
        ),
        Call("act", dl.act, {"net": net, "element": [turn], "x": x}),
        Call("orbit_basis", dl.orbit_basis, {"net": net, "x": x, "orthogonal": True, "rtol": 1e-9}),
        Call(
            "split_tangent",
            dl.split_tangent,
            {"net": net, "x": x, "v": 2 * x, "orthogonal": True, "rtol": 1e-9},
        ),
        Call(
            "orbit_distance",
            dl.orbit_distance,
            {
                "net": net,
                "x": x,
                "y": 2 * x,
                "method": "procrustes",
                "restarts": 2,
                "rng": 0,
            },
        ),
        Call(
            "unstable_manifold",
            dl.unstable_manifold,
            {"net": deep, "x": this["deep_saddle"], "rtol": 1e-8},
        ),
        Call(
            "stable_manifold",
            dl.stable_manifold,
            {"net": deep, "x": this["deep_saddle"], "rtol": 1e-8},
        ),
        Call(
            "grow_manifold",
            dl.grow_manifold,
            {
                "net": deep,
                "manifold": this["manifold"],
                "n_fibres": 2,
                "n_points": 5,
                "reach": 0.5,
                "rtol": 1e-6,
                "max_steps": 500,
                "rng": 0,
                "workers": 1,
                "progress": False,
            },
        ),
        Call(
            "critical_arcs",
            dl.critical_arcs,
            {"net": deep, "x": this["deep_saddle"], "n_alpha": 5, "rtol": 1e-8},
        ),
        Call(
            "arc_states",
            dl.arc_states,
            {
                "net": deep,
                "x": this["deep_saddle"],
                "arcs": this["arcs"],
                "arc": 0,
                "rtol": 1e-8,
            },
        ),
        Call(
            "connections",
            dl.connections,
            {
                "net": net,
                "max_rank": 2,
                "modes": (0, 1),
                "rank": None,
                "n_points": 5,
                "scales": (0.1, 0.01),
            },
        ),
        Call("edge_states", dl.edge_states, {"graph": this["graph"], "edge": 0}),
        Call(
            "build_atlas",
            dl.build_atlas,
            {
                "net": net,
                "max_rank": 1,
                "modes": (0, 1),
                "n_alpha": 5,
                "n_runs": 1,
                "scale": 0.1,
                "rng": 0,
                "max_steps": 2000,
                "workers": 1,
                "progress": False,
            },
        ),
    ]


def _branches() -> list[Call]:
    this = things()
    course = {
        "bounds": (-1.5, 1.0),
        "step": 0.1,
        "step_min": 1e-6,
        "step_max": 0.5,
        "max_points": 20,
        "rtol": 1e-10,
        "n_eigenvalues": 1,
        "events": (),
        "progress": False,
    }
    through = {"x0": [1.0], "p0": -1.0, **course}
    curve = {"direction": "both", "parameter": "q", **course}
    failing = (dl.ConvergenceError,)
    path = ([2**0.5, 2**0.5], [2.0, 1.0])
    thin = dl.LinearNetwork(widths=(1, 1, 1), target=[[2.0]])
    sides = this["branches"]
    return [
        Call(
            "Residual",
            dl.Residual,
            {
                "fun": parabola,
                "jacobian": lambda x, p: np.diag(2 * x),
                "derivative": lambda x, p: np.ones_like(x),
                "generators": lambda x, p: np.zeros((0, x.size)),
                "invariants": lambda x, p: x,
                "symmetric_at": (0.0,),
                "symmetric": True,
                "parameter": "p",
                "observe": lambda x, p: {"size": float(np.linalg.norm(x))},
                "vectorized": False,
                "coordinates": {},
                "attributes": {},
                "compiled": None,
            },
        ),
        Call(
            "equilibria",
            dl.equilibria,
            {"system": thin, "vary": "imbalance", "path": path},
        ),
        Call("equilibria", dl.equilibria, {"system": this["net"], "vary": "weight_decay"}),
        Call(
            "branch",
            dl.branch,
            {
                "residual": parabola,
                **through,
                "direction": "both",
                "symmetry": "declared",
                "predictor": "tangent",
            },
            failing,
        ),
        Call(
            "diagram",
            dl.diagram,
            {"residual": parabola, **through, "depth": 1, "max_branches": 3},
            failing,
        ),
        Call("special_points", dl.special_points, {"branch": sides[0]}),
        Call(
            "fold_curve",
            dl.fold_curve,
            {"family": cubic, "point": this["fold"], "q0": 3.0, **curve, "bounds": (2.0, 4.0)},
            failing,
        ),
        Call(
            "branch_point_curve",
            dl.branch_point_curve,
            {
                "family": pitchfork,
                "point": this["crossing"],
                "q0": 1.0,
                **curve,
                "bounds": (0.5, 1.0),
            },
            failing,
        ),
        Call(
            "extend_branch",
            dl.extend_branch,
            {
                "residual": parabola,
                "branch": sides[0],
                "side": "first",
                "bounds": (-2.0, 1.0),
                "step_min": 1e-6,
                "step_max": 0.5,
                "events": (),
                "max_points": 5,
                "progress": False,
            },
            failing,
        ),
        Call("merge_branches", dl.merge_branches, {"one": sides[0], "other": sides[1]}),
    ]


def _directions() -> list[Call]:
    net, failing = things()["homogeneous"], (dl.ConvergenceError,)
    kkt = dl.escape_directions(net, n_starts=10)
    path = dl.escape_path(net, kkt.isel(direction=0))
    return [
        Call(
            "escape_directions",
            dl.escape_directions,
            {
                **{"system": net, "at": np.zeros(net.dim), "rng": 0, "n_starts": 5},
                **{"starts": kkt.state.values, "saddles": True, "workers": 1},
            },
        ),
        Call(
            "escape_time",
            dl.escape_time,
            {"system": net, "direction": kkt.isel(direction=0), "delta": [0.1, 0.01]},
        ),
        Call(
            "escape_path",
            dl.escape_path,
            {
                **{"system": net, "direction": kkt.isel(direction=0), "delta": 0.05},
                **{"t_eval": [-1.0, 0.0, 1.0], "rtol": 1e-9, "save": ("state",)},
                "max_steps": 500,
            },
            failing,
        ),
        Call(
            "escape_chain",
            dl.escape_chain,
            {"system": net, "rng": 0, "n_starts": 5, "max_paths": 1, "max_steps": 300},
            failing,
        ),
        Call(
            "compare_with_path",
            dl.compare_with_path,
            {
                **{"system": net, "path": path, "start": 0.05 * kkt.state.values[0]},
                **{"norm": 0.3, "t_eval": [0.0, 0.25, 0.5], "rtol": 1e-8},
            },
            failing,
        ),
        Call(
            "zero_preserving",
            dl.zero_preserving,
            {"system": net, "x": kkt.state.values[0], "n_trials": 2, "rng": 0},
        ),
    ]


def fraction(size: float, rng: np.random.Generator) -> xr.Dataset:
    """A task of a sweep."""
    return xr.Dataset({"value": ((), size * rng.random())})


def _sweeps() -> list[Call]:
    folder = things()["folder"]
    grid = {"size": [1.0, 2.0]}
    dl.sweep(fraction, grid, folder / "whole", rng=0)
    return [
        Call(
            "sweep",
            dl.sweep,
            {
                **{"task": fraction, "grid": grid, "directory": str(folder / "sweep")},
                **{"workers": 1, "rng": 0, "resume": True, "retry": False, "on_failure": "mark"},
            },
            (OSError, RuntimeError),
        ),
        Call("collect", dl.collect, {"directory": str(folder / "whole")}, (OSError,)),
        Call("verify", dl.verify, {"directory": str(folder / "whole")}, (OSError,)),
    ]


def _stored() -> list[Call]:
    this = things()
    run, folder = this["run"], this["folder"]
    stored = str(folder / "stored.nc")
    dl.save(run, stored)
    return [
        Call("load_problem", dl.load_problem, {"name": "linnerud", "hidden": (3,), "whiten": True}),
        Call("problem_names", dl.problem_names, {}),
        Call("read_csv", dl.read_csv, {"path": "linnerud", "transform": "none"}, (OSError,)),
        Call("save", dl.save, {"data": run, "path": str(folder / "saved.nc")}, (OSError,)),
        Call("load", dl.load, {"path": stored}, (OSError,)),
        Call(
            "save_page",
            dl.save_page,
            {"atlas": this["atlas"], "path": str(folder / "page.html")},
            (OSError,),
        ),
        Call("weights", dl.weights, {"dataset": run, "layer": 1}),
        Call("schema.weights", dl.schema.weights, {"dataset": run, "layer": 1}),
        Call("schema.decode", dl.schema.decode, {"flags": run.stop_reason}),
        Call("schema.validate", dl.schema.validate, {"dataset": run}),
        Call("schema.index_set_label", dl.schema.index_set_label, {"modes": (0, 2)}),
        Call("schema.index_set_labels", dl.schema.index_set_labels, {"sets": [(0,), (0, 2)]}),
        Call("schema.index_set_modes", dl.schema.index_set_modes, {"label": "{0,2}"}),
        Call("schema.state_coordinates", dl.schema.state_coordinates, {"widths": (2, 3, 2)}),
        Call("accessor.validate", run.dlnds.validate, {}),
        Call("accessor.weights", run.dlnds.weights, {"layer": 1}),
        Call("accessor.decode", run.dlnds.decode, {"name": "stop_reason"}),
        Call("accessor.save", run.dlnds.save, {"path": str(folder / "own.nc")}, (OSError,)),
        Call("accessor.plot", run.dlnds.plot, {"points": this["points"], "ax": None}),
    ]


def _pictures() -> list[Call]:
    this = things()
    plot, run = dl.plot, this["run"]
    return [
        Call("plot.levels", plot.levels, {"atlas": this["atlas"], "ax": None}),
        Call("plot.graph", plot.graph, {"atlas": this["atlas"], "ax": None}),
        Call("plot.loss", plot.loss, {"run": run, "points": this["points"], "ax": None}),
        Call(
            "plot.singular_values",
            plot.singular_values,
            {"run": run, "modes": this["net"].modes, "ax": None},
        ),
        Call("plot.spectrum", plot.spectrum, {"linearization": this["spectrum"], "ax": None}),
        Call("plot.arcs", plot.arcs, {"arcs": this["arcs"], "source": "{1}", "ax": None}),
        Call(
            "plot.branches",
            plot.branches,
            {"data": this["diagram"], "x": "p", "y": "norm", "ax": None},
        ),
        Call("plot.by_schema", plot.by_schema, {"data": this["arcs"], "source": "{1}"}),
    ]


#: One valid call of every public function, by what they are about.
GROUPS: dict[str, Callable[[], list[Call]]] = {
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
    return tuple(call for name in GROUPS if group in (None, name) for call in GROUPS[name]())
