"""Systems in the files of their runs: whatever was run can be run again from its file."""

import dataclasses
import json
import pickle

import naive
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings

import dlnds as dl
from dlnds.systems import stored


def stays(t, x, params, out):
    out[0], out[1] = -x[0], -2.0 * x[1]


def data(seed=0, features=3, samples=12):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(features, samples)), rng.normal(size=(2, samples))


def linear_networks():
    X, Y = data()
    flat = np.concatenate([X, X[:1] + X[1:2]])  # of which one feature is the sum of two
    M, C = Y @ X.T, X @ X.T
    for whiten in (True, False):
        yield dl.LinearNetwork.from_data(X, Y, (4,), whiten=whiten)
        yield dl.LinearNetwork.from_data(flat, Y, (4, 3), whiten=whiten, normalize=False)
        yield dl.LinearNetwork.from_moments(M, C, (), whiten=whiten)
    yield dl.LinearNetwork((3, 2, 2), np.arange(6.0).reshape(2, 3)[:, ::-1], irreducible_loss=0.3)
    yield dl.LinearNetwork((2, 3, 2), np.eye(2)).specialized()
    yield dl.LinearNetwork((2, 3, 2), np.eye(2), features=("a", "b"), outputs=("c", "d"))
    for widths, decay in (((2, 2), 0.3), ((2, 3, 2), 0.3), ((2, 3, 2), (0.3, 0.0))):
        yield dl.LinearNetwork(widths, np.eye(2), weight_decay=decay)


def systems():
    X, Y = data(1)
    labels = np.sign(Y)
    yield from linear_networks()
    yield dl.LossNetwork((3, 4, 2), dl.losses.logistic(X, labels))
    yield dl.LossNetwork((3, 2), dl.losses.cross_entropy(X, np.arange(12) % 2, normalize=False))
    yield dl.LossNetwork((3, 2, 2), dl.losses.power(X, Y, power=3.5))
    yield dl.LossNetwork((2, 2), dl.losses.completion((2, 2), [0], [0], [1.0]), weight_decay=0.3)
    yield dl.HomogeneousNetwork((3, 4, 2), X, Y, power=3, slope=-0.25, normalize=False)
    yield dl.HomogeneousNetwork((3, 4, 2), X, labels, loss="logistic")
    yield dl.HomogeneousNetwork((3, 2, 2), X, Y, power=1, slope=1.0)
    yield dl.ProductFlow(dl.LinearNetwork.from_data(X, Y, (4, 3), whiten=False), 2)


def run_of(system, **options):
    """A run of a few rows."""
    x = np.random.default_rng(0).normal(size=system.dim)
    if system.kind == "map":
        return dl.iterate(system, x, 2, **options)
    return dl.flow(system, x, (0, 0.01), [0.0, 0.01], **options)


def assert_same(one, other):
    """The same class with the same fields, arrays bit for bit."""
    assert type(one) is type(other)
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if dataclasses.is_dataclass(a):
            assert_same(a, b)
        elif isinstance(a, np.ndarray):
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes()
        else:
            assert type(a) is type(b)
            assert a == b or (a != a and b != b)  # a loss that moments do not tell is NaN


def assert_same_dynamics(one, other):
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=one.dim)
        results = []
        for system in (one, other):
            out = np.empty(system.dim)
            system.field(0.0, x, system.params, out)
            results.append(out.tobytes())
        assert results[0] == results[1]
    assert dl.schema.finish(xr.Dataset(attrs=one.attributes()), "run", {}).identical(
        dl.schema.finish(xr.Dataset(attrs=other.attributes()), "run", {})
    )


@pytest.mark.compiled
@pytest.mark.parametrize("system", [*systems()], ids=repr)
def test_the_system_of_a_file_is_that_of_the_run(tmp_path, system):
    """Fields and vector field bit for bit, of the run and of its file, of flow and descent."""
    for one in (system, dl.GradientDescent(system, 0.1)):
        run = run_of(one)
        dl.schema.validate(run)
        dl.save(run, tmp_path / "run.nc")
        kept = [dl.load_system(source) for source in (run, dl.load(tmp_path / "run.nc"))]
        sent = pickle.loads(pickle.dumps(one))  # noqa: S301 - as to another process
        for again in (*kept, sent):
            assert_same(one, again)
            assert_same_dynamics(one, again)
            assert again.attributes()["problem_digest"] == run.attrs["problem_digest"]
    assert dl.load(tmp_path / "run.nc").identical(run)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(naive.networks, naive.seeds)
def test_random_networks_come_back_bit_for_bit(tmp_path, net, seed):
    x = naive.state_of(net, seed)
    run = dl.as_run(net, [0.0], [net.unpack(x)])
    dl.save(run, tmp_path / "run.nc")
    again = dl.load_system(dl.load(tmp_path / "run.nc"))
    assert_same(net, again)
    assert again.digest == net.digest
    assert again.gradient(x).tobytes() == net.gradient(x).tobytes()


@pytest.mark.compiled
def test_analyses_of_last_months_run_need_no_script(tmp_path):
    net = dl.LinearNetwork.from_data(*data(2), (4,))
    dl.save(dl.flow(net, net.initial(scale=1e-2, rng=0)), tmp_path / "run.nc")
    run = dl.load(tmp_path / "run.nc")
    visits = dl.saddle_visits(dl.load_system(run), run)
    assert visits.critical_point.values.tolist() == ["{}", "{0}", "{0,1}"]


def test_all_that_is_of_a_system_carries_it():
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    x = net.initial("aligned", scale=0.1)
    stack = dl.flow(net, np.stack([x, 2 * x]), (0, 1), save=())
    assert stack.problem.dims == ("number",)
    exact, imported = dl.exact_flow(net, x, [0.0, 1.0]), dl.as_run(net, [0.0], [net.unpack(x)])
    for one in (stack, stack.isel(sample=1), exact, imported, dl.build_atlas(net)):
        assert_same(net, dl.load_system(one))


@pytest.mark.compiled
def test_branches_of_equilibria_carry_the_system_that_they_are_of(tmp_path):
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    steps = dl.GradientDescent(net, 0.1)
    x, options = net.critical_state((0, 1)), {"bounds": (0.0, 0.5), "max_points": 8}
    for system, vary in ((net, "weight_decay"), (steps, "step_size"), (steps, "weight_decay")):
        branch = dl.branch(dl.equilibria(system, vary), x, 0.1, **options)
        dl.schema.validate(branch)
        dl.save(branch, tmp_path / "branch.nc")
        for found in (branch, dl.special_points(branch), dl.load(tmp_path / "branch.nc")):
            assert_same(system, dl.load_system(found))
    plain = dl.System(stays, dim=2, parameters=[1.0])
    assert "problem" not in dl.branch(dl.equilibria(plain, 0), np.zeros(2), 0.1, **options).coords


@pytest.mark.compiled
def test_stacks_are_of_the_network_that_was_given():
    """And not of that with a field of its own, with which many runs are integrated."""
    net = dl.LinearNetwork((1, 1, 1), [[1.0]])
    runs = dl.flow(net, np.full((100, 2), 0.5), (0, 1), [1.0], save=())
    assert_same(net, dl.load_system(runs))


def test_runs_of_one_system_share_the_numbers():
    net = naive.random_network((3, 4, 2), 0, "full")
    one, other = (dl.as_run(net, [t], [net.unpack(naive.state_of(net, 0))]) for t in (0.0, 1.0))
    assert np.shares_memory(one.problem.values, other.problem.values)
    with pytest.raises(ValueError, match="read-only"):
        one.problem.values[0] = 7.0
    assert one.identical(dl.as_run(net, [0.0], [net.unpack(naive.state_of(net, 0))]))


def test_what_is_computed_of_runs_carries_the_system_as_long_as_it_is_of_one():
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    other = dl.LinearNetwork((2, 2, 2), np.diag([3.0, 1.0]))
    starts = np.stack([net.initial(scale=0.1, rng=k) for k in range(3)])
    runs, others = (
        dl.flow(each, starts, (0, 1), [0.0, 1.0]).drop_vars("limit") for each in (net, other)
    )
    numbers = ["loss", "state"]
    for one in (
        runs.isel(time=0),
        runs.mean("sample"),
        runs + runs,
        xr.concat([runs, runs], "trial"),
        runs.stack(row_of=("sample", "time")),
    ):
        assert_same(net, dl.load_system(one))
    assert "problem" not in runs[numbers]
    assert "problem" not in runs.loss.coords
    assert "problem" not in (runs - others).coords
    both = xr.concat([runs, others], "network")
    with pytest.raises(ValueError, match="^run: is of several systems; select one along network"):
        dl.load_system(both)
    # Of the second the numbers alone: the digest tells that all else is of the first.
    assert_same(net, dl.load_system(both.isel(network=0)))
    with pytest.raises(ValueError, match="not its own"):
        dl.load_system(both.isel(network=1))


def run_at(scale):
    return run_of(dl.LinearNetwork((2, 2, 2), np.diag([scale, 1.0])), save=())


def test_points_of_a_sweep_may_be_of_any_system(tmp_path):
    grid = {"scale": [2.0, 3.0]}
    found = dl.sweep(run_at, grid, tmp_path / "sweep")
    assert dl.schema.decode(found.status).values.tolist() == ["finished", "finished"]
    assert "problem" not in found.variables
    assert "number" not in found.dims


def test_what_cannot_be_rebuilt_says_why_and_what_to_do(monkeypatch):
    class Own(dl.LinearNetwork):
        pass

    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    plain = dl.System(stays, dim=2)
    run = run_of(net)
    for one, error, said in [
        (3, TypeError, "needs a Dataset such as flow and load return, got int"),
        ("run.nc", TypeError, "needs a Dataset such as flow and load return, got str"),
        (xr.Dataset(), ValueError, "does not say of which system it is"),
        (run_of(plain), TypeError, "is of a System, made of functions, which are code"),
        (run_of(dl.GradientDescent(plain, 0.1)), TypeError, "is of a System, made of functions"),
        (run_of(Own((2, 2), np.eye(2))), TypeError, "is of a Own, that is not stored"),
        (run.drop_vars("problem"), ValueError, f".*dlnds {dl.__version__} wrote.*be {net.digest}$"),
        (run[["loss"]], ValueError, ".* its coordinate 'problem' was dropped; build the LinearNet"),
        (dl.build_atlas(net)["arcs"], ValueError, "is a Dataset of the schema 'arcs'"),
    ]:
        with pytest.raises(error, match=f"^run: {said}"):
            dl.load_system(one)
    monkeypatch.setattr(stored, "MOST", 3)
    large = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    run = run_of(large)
    assert run.sizes["number"] == 0
    with pytest.raises(ValueError, match=f"^run: its problem of 0 MB .* be {large.digest}$"):
        dl.load_system(run)


@pytest.mark.compiled
def test_problems_that_are_not_stored_are_saved_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "MOST", 3)
    run = run_of(dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0])))
    dl.save(run, tmp_path / "run.nc")
    assert dl.load(tmp_path / "run.nc").identical(run)


def test_what_was_changed_is_refused_and_nothing_else_is_made():
    net = dl.LinearNetwork((2, 2, 2), np.diag([2.0, 1.0]))
    run = run_of(net)
    text = run.problem.attrs["description"]

    def told(**changes):
        words = json.loads(text)
        words["system"] |= changes.pop("system", {})
        words["system"]["fields"] |= changes.pop("fields", {})
        return json.dumps(words | changes)

    def with_text(changed, numbers=run.problem.values):
        stored = {"problem": ("number", numbers, {"description": changed})}
        return run.drop_vars("problem").assign_coords(stored)

    def with_numbers(numbers):
        return with_text(text, numbers)

    for one, said in [
        (with_text("{"), "what it tells of its system is damaged"),
        (with_text("3"), "what it tells of its system is damaged"),
        (with_text(told(form=2)), "tells of its system in the form 2, this version knows 1"),
        (with_text(told(system={"class": "System"})), "its system cannot be rebuilt"),
        (with_text(told(system={"class": "eval"})), "its system cannot be rebuilt"),
        (with_text(told(fields={"hidden": 3})), "its system cannot be rebuilt"),
        (with_text(told(fields={"widths": [2, 0, 2]})), "its system cannot be rebuilt"),
        (with_text(told(fields={"target": {"shape": [2, 2, 2]}})), "its system cannot be rebuilt"),
        (with_text(told(fields={"target": {"shape": [2]}})), "its system cannot be rebuilt"),
        (with_text(told(fields={"widths": [2, 3, 2]})), "what it carries makes a system with"),
        (with_numbers(np.array([2.0, 0.0, 0.0, 1.5])), "what it carries makes a system with"),
        (with_numbers(np.array([2.0, 0.0, 0.0, np.nan])), "its system cannot be rebuilt"),
        (with_numbers(np.arange(5.0)), "what it carries makes a system with the digest"),
        (run.isel(number=0), "needs all numbers of 'problem', got one"),
        (run.isel(number=slice(3)), "its system cannot be rebuilt"),
        (run.assign_attrs(problem_digest="0" * 64), "what it carries makes a system with the dig"),
    ]:
        with pytest.raises(ValueError, match=f"^run: {said}"):
            dl.load_system(one)
    assert_same(net, dl.load_system(with_text(text)))


def test_results_that_carry_no_problem_are_not_called_old():
    net = dl.LinearNetwork((2, 3, 2), np.diag([2.0, 1.0]))
    run = dl.flow(net, net.initial(scale=1e-2, rng=0))
    for result, schema in (
        (dl.saddle_visits(net, run), "visits"),
        (dl.evaluate(net, run, np.eye(2), np.eye(2)), "evaluation"),
        (dl.critical_points(net), "critical_points"),
    ):
        with pytest.raises(ValueError, match=f"^run: .* schema '{schema}', .*take the run"):
            dl.load_system(result)
