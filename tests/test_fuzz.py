"""Every public function with every argument spoilt: a valid result, or an error by its name."""

import ast
import copy
import inspect
import itertools
import os
import random
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import calls
import hostile
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dlnds as dl

LONGEST = 5.0  # seconds that a call may take
FATAL = 300  # seconds after which it is interrupted: some compile something first
PAIRS = 12  # pairs of arguments that are spoilt together, for each call
#: One of so many cases is in the ordinary suite; primes, so that all kinds of values come.
STRIDES = {
    **{"systems": 11, "runs": 11, "points": 11, "branches": 11, "files": 11, "pictures": 11},
    **{"directions": 23, "sweeps": 11},
}
#: Functions that may also fail to find, and those that read and write files.
SEARCHING = {
    *("lyapunov_spectrum", "covariant_vectors", "find_critical_point", "linearize", "branch"),
    *("diagram", "fold_curve", "branch_point_curve", "extend_branch", "escape_path"),
    *("escape_chain", "compare_with_path"),
}
FILES = {"sweep", "collect", "verify", "read_csv", "save", "load", "save_page", "accessor.save"}
#: Those that return numbers of the user's own function as they are.
OWN_NUMBERS = {f"Residual.{name}" for name in ("value", "matrix", "slope", "orbit")}

#: What is NaN by design: means over nothing, what was not checked, rows beyond an end.
MAY_BE_NAN = {
    "assumptions": {"smallest_gap"},
    "branch": {"test_value", "accuracy", "transverse_eigenvalue", "transverse_eigenvalue_imag"},
    "classification": {"decision_gap"},  # of what is not critical
    "convergence_bounds": {"rate", "rate_bound", "rate_margin", "excess_bound"},
    "decay_diagram": {"loss", "size"},
    "early_stopping": {"best_time", "stopping_time"},
    "connections": {"mean_escape_time", "mean_growth_time"},
    "visits": {"escape_time", "predicted_escape_time", "predicted_growth_time", "growth_time"},
    "observed_connections": {
        *("mean_duration", "mean_entry", "mean_escape_time", "mean_growth_time"),
        *("std_escape_time", "std_growth_time", "law_escape_time", "law_growth_time"),
    },
}


def cases(group: str) -> Iterator[tuple[calls.Call, dict[str, Any], str]]:
    """Yield calls, the arguments to replace in them and words for these, in a fixed order."""
    for call in calls.table(group):
        bad = {
            name: [*hostile.anything(), *hostile.spoilt(value)]
            for name, value in call.arguments.items()
        }
        for name, values in bad.items():
            for words, value in values:
                yield call, {name: value}, f"{call.name}({name}: {words})"
        rng = random.Random(call.name)
        for _ in range(PAIRS if len(bad) > 1 else 0):
            names = rng.sample(list(bad), 2)
            chosen = [rng.choice(bad[name]) for name in names]
            changed = {name: value for name, (_, value) in zip(names, chosen, strict=True)}
            text = ", ".join(f"{n}: {w}" for n, (w, _) in zip(names, chosen, strict=True))
            yield call, changed, f"{call.name}({text})"


def outcome(call: calls.Call, changed: dict[str, Any]) -> str:
    """Return what is wrong with what a call with other arguments does, or nothing."""
    problem = once(call, changed)
    return once(call, changed) if problem.endswith(" s") else problem  # compiled on the way


def once(call: calls.Call, changed: dict[str, Any]) -> str:
    """Return what is wrong with it the first time."""
    arguments = {**call.arguments, **changed}
    before, around = copy.deepcopy(_kept(arguments)), surroundings()
    began = time.monotonic()
    signal.alarm(FATAL)
    try:
        result = call.function(**arguments)
        problem = "" if call.name in OWN_NUMBERS else _wrong_with(result)
    except Exception as error:
        problem = _wrong_with_error(call, arguments, error)
    finally:
        signal.alarm(0)
    if time.monotonic() - began > LONGEST:
        problem += f" took {time.monotonic() - began:.1f} s"
    changes = [name for name, value in surroundings().items() if value != around[name]]
    if changes:
        problem += f" changed {', '.join(changes)}"
    if not all(_equal(value, arguments[name]) for name, value in before.items()):
        problem += " changed an argument"
    plt.close("all")
    return problem


def _wrong_with_error(call: calls.Call, arguments: dict[str, Any], error: Exception) -> str:
    if isinstance(error, dl.ConvergenceError) and call.name in SEARCHING:
        return ""
    if isinstance(error, OSError | RuntimeError) and call.name in FILES:
        return ""
    if not isinstance(error, ValueError | TypeError):
        return f"{type(error).__name__}: {error}"
    name, colon, _ = str(error).partition(": ")
    own = {"fun", "jacobian"} if {"residual", "family"} & set(arguments) else set()
    if call.name in ("plot.by_schema", "accessor.plot"):  # of the function that draws
        own |= {"arcs", "atlas", "connections", "linearization", "points", "run"}
    if colon and name in {*inspect.signature(call.function).parameters, *arguments, *own}:
        return ""
    return f"{type(error).__name__} names no argument: {error}"


def _wrong_with(result: Any) -> str:
    if isinstance(result, tuple | list):
        return next(filter(None, map(_wrong_with, result)), "")
    if isinstance(result, xr.DataTree):
        dl.schema.validate(result)
        nodes = [node.to_dataset() for node in result.children.values()]
        return next(filter(None, map(_wrong_with, nodes)), "")
    if isinstance(result, xr.Dataset):
        return _wrong_with_dataset(result)
    if isinstance(result, float | np.ndarray) and np.asarray(result).dtype.kind in "fc":
        return "" if np.isfinite(result).all() else "returned NaN or infinity"
    return ""


def _wrong_with_dataset(data: xr.Dataset) -> str:
    name = data.attrs.get("schema")
    if name is None:
        return ""
    dl.schema.validate(data)
    if {"sample", "fibre", "orbit"} & {*data.dims}:  # rows beyond an end, or no end
        return ""
    if "stop_reason" in data and int(data["stop_reason"]) >= dl.schema.STOP_REASONS.index(
        "step_too_small"
    ):
        return ""
    for key, variable in data.variables.items():
        known = variable.dtype.kind != "f" or key in MAY_BE_NAN.get(name, ())
        if not known and not np.isfinite(variable.values).all():
            return f"has NaN in {key!r} of schema {name!r}"
    return ""


def _kept(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that could be changed, and can be compared."""
    kinds = np.ndarray | list | xr.Dataset | xr.DataArray | xr.DataTree | dict | set
    return {name: value for name, value in arguments.items() if isinstance(value, kinds)}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, xr.Dataset | xr.DataArray | xr.DataTree):
        return bool(one.identical(other))
    if isinstance(one, np.ndarray) and one.dtype.kind != "O":
        flags = one.flags.writeable, one.dtype, one.shape
        return flags == (other.flags.writeable, other.dtype, other.shape) and (
            np.asarray(one).tobytes() == np.asarray(other).tobytes()
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other)


def surroundings() -> dict[str, Any]:
    """Return what a call must leave as it was."""
    return {
        "numpy's random state": str(np.random.get_state()[1:]),  # noqa: NPY002
        "the random state": hash(random.getstate()),
        "warnings filters": list(warnings.filters),
        "rcParams": hash(tuple(map(str, dict.values(mpl.rcParams)))),
        "the environment": dict(os.environ),
        "the working folder": os.getcwd(),
        "numpy's handling of errors": np.geterr(),
    }


@pytest.fixture
def _watched(tmp_path, monkeypatch):
    """Run in an empty folder, under a watchdog."""

    def bark(number, frame):
        raise TimeoutError(f"still running after {FATAL} s")

    monkeypatch.chdir(tmp_path)
    xr.decode_cf(xr.Dataset())  # each time xarray reads a file it sees to a filter of its own
    before = signal.signal(signal.SIGALRM, bark)
    yield
    signal.signal(signal.SIGALRM, before)


def check(group: str, stride: int) -> int:
    """Try one of so many cases of a group; return how many these were."""
    failures, count = [], 0
    for call, changed, words in itertools.islice(cases(group), 0, None, stride):
        count += 1
        if problem := outcome(call, changed):
            failures.append(f"{words} {problem}"[:300])
    assert not failures, "\n".join([f"{len(failures)} of {count}", *failures])
    return count


@pytest.mark.compiled
@pytest.mark.parametrize("group", calls.GROUPS)
@pytest.mark.usefixtures("_watched")
def test_spoilt_arguments_are_refused_by_their_name_or_coped_with(group, capsys):
    check(group, STRIDES[group])


@pytest.mark.slow
@pytest.mark.parametrize("group", calls.GROUPS)
@pytest.mark.usefixtures("_watched")
def test_all_spoilt_arguments_are_refused_by_their_name_or_coped_with(group, capsys):
    check(group, 1)


@pytest.mark.compiled
@pytest.mark.parametrize("group", calls.GROUPS)
@pytest.mark.usefixtures("_watched")
def test_the_layout_of_arrays_changes_nothing(group):
    for call in calls.table(group):
        for name, value in call.arguments.items():
            for words, same in hostile.same(value):
                wanted = call.function(**call.arguments)
                got = call.function(**{**call.arguments, name: same})
                plt.close("all")
                if isinstance(wanted, xr.Dataset):  # overlays keep the order that they are given
                    got = got.transpose(*wanted.dims)
                    wanted = wanted.transpose(*wanted.dims)
                if isinstance(wanted, xr.Dataset | np.ndarray | float):
                    assert _equal(wanted, got) or wanted == got, f"{call.name}({name}: {words})"


def test_no_number_depends_on_the_order_of_dims():
    """With modes whose matrices are not symmetric."""
    net = dl.LinearNetwork((2, 3, 2), [[1.0, 2.0], [-0.5, 1.5]])
    graph, arcs = dl.connections(net), dl.critical_arcs(net, net.critical_state((0,)))
    paths = [dl.edge_states(data, ("{}", "{1}")) for data in (graph, hostile.turned(graph))]
    assert paths[0].identical(paths[1])
    paths = [
        dl.arc_states(net, net.critical_state((0,)), data, 0)
        for data in (arcs, hostile.turned(arcs))
    ]
    assert paths[0].identical(paths[1])
    starts = np.random.default_rng(0).normal(size=(net.dim, net.dim))
    runs = dl.flow(net, starts, (0.0, 1.0), [0.0, 1.0])
    columns = xr.DataArray(starts.T, dims=("parameter", "sample"))
    assert dl.flow(net, columns, (0.0, 1.0), [0.0, 1.0]).identical(runs)
    np.testing.assert_array_equal(net.loss(columns), net.loss(starts))
    start = net.initial(scale=1e-2, rng=0)
    for save in ("product", "state", "mode_strength"):
        run = dl.flow(net, start, save=[save])
        both = [dl.saddle_visits(net, data) for data in (run, hostile.turned(run))]
        assert both[0].identical(both[1])


def refused(name: str, function: Any, *arguments: Any, **options: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
        function(*arguments, **options)


def test_rows_of_runs_are_refused_out_of_the_order_of_time_or_with_gaps():
    """As sorted by the loss, or of runs on two grids that were put into one Dataset."""
    net = dl.LinearNetwork((2, 3, 2), [[1.0, 2.0], [-0.5, 1.5]])
    starts = [net.initial(scale=1e-2, rng=seed) for seed in (0, 1)]
    runs = [dl.flow(net, x, save=["state", "mode_strength"]) for x in starts]
    gaps = runs[0].where(runs[0].loss < 1.0).assign(stop_reason=runs[0].stop_reason)
    words = {"coords": "minimal", "compat": "override"}
    twice = xr.concat([runs[0], runs[0]], "time", data_vars="minimal", **words)
    for bad in (runs[0].sortby("loss"), runs[0].isel(time=slice(None, None, -1)), gaps, twice):
        refused("run", dl.saddle_visits, net, bad)
        refused("run", dl.lyapunov_function, bad)
        refused("run", dl.quotient_run, net, bad)
    both = xr.concat(
        runs, "sample", data_vars="all", coords="different", compat="equals", join="outer"
    )
    refused("runs", dl.observed_connections, net, both)
    path = dl.saddle_visits(net, runs[0])
    every = runs[0].isel(time=np.repeat(np.arange(runs[0].sizes["time"]), 2))
    assert dl.saddle_visits(net, every).identical(path)


def test_weights_and_modes_are_refused_out_of_their_order():
    net = dl.LinearNetwork((2, 3, 2), [[1.0, 2.0], [-0.5, 1.5]])
    start = net.initial(scale=1e-2, rng=0)
    run = dl.flow(net, start, save=["state"])
    for bad in (run.sortby("column"), run.isel(parameter=slice(None, None, -1))):
        refused("run", dl.saddle_visits, net, bad)
        refused("run", dl.quotient_run, net, bad)
        refused("dataset", dl.weights, bad, 1)
        refused("x", net.loss, bad.state)
    refused("dataset", dl.weights, run.isel(parameter=slice(0, 5)), 1)
    run = dl.flow(net, start, save=["mode_strength"])
    for bad in (run.isel(mode=[1, 0]), run.sortby("mode", ascending=False)):
        refused("run", dl.saddle_visits, net, bad)
    wide = dl.LinearNetwork((3, 4, 3), np.diag([3.0, 2.0, 1.0]))
    graph = dl.connections(wide)
    refused("graph", dl.edge_states, graph.isel(mode=[1, 2]), ("{}", "{0}"))
    branch = dl.branch(calls.parabola, [1.0], -1.0, bounds=(-1.5, 1.0), direction="both")
    refused("branch", dl.extend_branch, calls.parabola, branch.sortby("p"), bounds=(-2.0, 1.0))


def test_labelled_matrices_may_have_their_dims_in_any_order():
    net = dl.LinearNetwork((2, 3, 2), [[1.0, 2.0], [-0.5, 1.5]])
    start = net.initial(scale=1.0, rng=0)
    run = dl.flow(net, start, (0.0, 1.0), [0.0, 1.0], save=["state"])
    layers = [dl.weights(run, layer)[0] for layer in (1, 2)]
    np.testing.assert_array_equal(net.pack([w.transpose("column", "row") for w in layers]), start)


def test_datasets_of_another_network_of_the_same_sizes_are_refused():
    nets = [dl.LinearNetwork((2, 3, 2), np.diag([2.0, s])) for s in (1.0, 1.5)]
    run = dl.flow(nets[0], nets[0].initial(scale=0.1, rng=0), (0.0, 1.0))
    refused("run", dl.quotient_run, nets[1], run)
    first = dl.escape_directions(nets[0], n_starts=5).isel(direction=0)
    refused("direction", dl.escape_time, nets[1], first, 0.1)
    refused("direction", dl.escape_path, nets[1], first)
    path, start = dl.escape_path(nets[0], first), 0.01 * first.state.values
    options = {"norm": 0.3, "t_eval": [0.0, 0.5]}
    refused("path", dl.compare_with_path, nets[1], path, start, **options)


def test_points_of_an_atlas_may_be_some_of_all(tmp_path):
    """Edges to the others are left out."""
    atlas = calls.things()["atlas"].copy()
    points = atlas["points"].to_dataset()
    atlas["points"] = points.isel(critical_point=(points["rank"] < 2).values)
    dl.save_page(atlas, tmp_path / "some.html")
    for function in (dl.plot.levels, dl.plot.graph):
        marks = [c.get_offsets() for c in function(atlas).collections if c.get_zorder() == 3]
        assert len(np.concatenate(marks)) == 3
        plt.close("all")


def test_samples_are_paired_by_their_labels_or_refused():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(2, 2, 6))
    names = list("abcdef")
    arrays = [xr.DataArray(a, dims=("f", "sample"), coords={"sample": names}) for a in (X, Y)]
    frames = [pd.DataFrame(a, columns=names) for a in (X, Y)]
    plain = dl.LinearNetwork.from_data(X, Y, (3,))
    for (x, y), mixed in ((arrays, arrays[1][:, ::-1]), (frames, frames[1][names[::-1]])):
        assert dl.LinearNetwork.from_data(x, y, (3,)).digest == plain.digest
        refused("Y", dl.LinearNetwork.from_data, x, mixed, (3,))
        refused("y", dl.HomogeneousNetwork, (2, 3, 2), x, mixed)
        refused("Y", dl.losses.power, x, mixed)
        refused("targets", dl.losses.Loss, "power", x, mixed)
    signs = pd.Series([1, 1, -1, -1, 1, -1], index=names)
    assert dl.losses.logistic(frames[0], signs).targets.tolist() == [signs.tolist()]
    refused("y", dl.losses.logistic, frames[0], signs[::-1])
    square = [a[:, :2] for a in arrays]
    losses = [dl.losses.Loss("power", *data) for data in (square, [a.T for a in square])]
    np.testing.assert_array_equal(losses[0].inputs, losses[1].inputs)


def test_types_of_pandas_are_refused_by_save(tmp_path):
    frame = pd.DataFrame({"count": pd.array([1, 2], dtype="Int64")})
    refused("data", dl.save, frame.to_xarray(), tmp_path / "frame.nc")


def test_numbers_that_were_masked_are_refused():
    """As ``where`` leaves them: NaN in what is computed with."""
    things = calls.things()
    graph, seen, mani = things["graph"], things["visits"], things["manifold"]
    refused("observed", dl.overlay, graph, seen.assign(visited=seen.visited.where(False)))
    options = {"bounds": (2.0, 4.0)}
    refused("point", dl.fold_curve, calls.cubic, things["fold"].where(False), 3.0, **options)
    masked = graph.assign(size=graph["size"].where(False))
    refused("graph", dl.edge_states, masked, 0)
    at = things["deep"], things["deep_saddle"]
    arcs = things["arcs"].assign(arc_parameter=things["arcs"].arc_parameter.where(False))
    refused("arcs", dl.arc_states, *at, arcs, 0)
    refused("manifold", dl.grow_manifold, at[0], mani.assign(rate=mani.rate.where(False)))
    net = dl.LinearNetwork((1, 1, 1), [[2.0]])
    first = dl.escape_directions(net, n_starts=5).isel(direction=0)
    refused("direction", dl.escape_time, net, first.where(False), 0.1)


@pytest.mark.compiled
@pytest.mark.usefixtures("_watched")
def test_the_valid_calls_are_valid():
    for call in calls.table():
        assert not outcome(call, {}), call.name


def test_more_than_two_thousand_calls_are_made():
    made = {group: len(range(0, sum(1 for _ in cases(group)), STRIDES[group])) for group in STRIDES}
    assert sum(made.values()) > 2000, made


def public_names() -> Iterator[str]:
    """Yield what users can call: functions, classes with their methods, functions of modules."""
    stub = Path(dl.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    imports = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
    for alias in itertools.chain.from_iterable(node.names for node in imports):
        found = getattr(dl, alias.name)
        if inspect.ismodule(found):
            for name, member in vars(found).items():
                own = getattr(member, "__module__", "").startswith("dlnds.")
                if own and callable(member) and name[0] != "_" and name not in calls.ELSEWHERE:
                    yield from _callables(f"{alias.name}.{name}", member, found)
        else:
            yield from _callables(alias.name, found, dl)
    accessor = type(xr.Dataset().dlnds)
    yield from (f"accessor.{name}" for name in vars(accessor) if not name.startswith("_"))


def _callables(name: str, found: Any, owner: Any) -> Iterator[str]:
    is_picture = name.startswith("plot.") and found.__module__.startswith("dlnds.plot.")
    if found.__module__ != owner.__name__ and owner is not dl and not is_picture:
        return
    yield name
    if inspect.isclass(found):
        methods = (n for n, m in inspect.getmembers(found) if callable(m) and n[0] != "_")
        yield from (f"{name}.{method}" for method in methods if method not in calls.FOR_ENGINES)


def test_every_public_name_has_a_valid_call():
    covered = {call.name for call in calls.table()} | calls.FOR_WRITERS | calls.NOT_CALLED
    missing = {n for n in public_names() if n.partition(".")[0] not in calls.NOT_CALLED} - covered
    assert not missing, f"add a valid call to tests/calls.py of {sorted(missing)}"
