"""Figures of `flow` beside those of its peers, at equal measured error.

Run by ``nox -s bench``; ``nox -s bench -- one_run plateaus`` runs some parts only. The error of a
tool is the largest ‖x − x_ref‖ / ‖x_ref‖ over the saved states, against scipy's DOP853 at its
tightest tolerance. Each tool runs at the loosest tolerance that meets the common level. Times are
medians of runs in turns; compilation is not in them. Parts with large matrix products give BLAS one
thread, for all tools: on two cores shared with other programs, two threads that wait for each other
were three to thirty times slower for the skinny products.
"""

import functools
import itertools
import sys
import tempfile
import time
import warnings

import numba
import numpy as np
import peers
import scipy.integrate
import threadpoolctl
from common import (
    alternate,
    at_equal_error,
    available,
    cpu_of,
    heading,
    median_time,
    note,
    opening,
    relative_error,
    report,
    report_ratios,
    seconds,
)

import dlnds as dl
from dlnds._kernels import jit
from dlnds.theory.laws import growth_time

GRID = np.linspace(0.0, 400.0, 200)


def small_network():
    """Return the network of the short runs, with the fastest right-hand side we have for it."""
    net = dl.LinearNetwork(widths=(4, 4, 4, 4), target=np.diag([4.0, 3.0, 2.0, 1.0]))
    return net.specialized()


def reference(net, starts, grid):
    """Return the states of one start or of a stack, by another program at its tightest."""
    value, _ = peers.compiled_field(net)
    limits = {"rtol": 3e-14, "atol": 1e-15 * peers.size_of(starts)}
    states = [
        scipy.integrate.solve_ivp(
            value, (grid[0], grid[-1]), start, "DOP853", t_eval=grid, **limits
        ).y.T
        for start in np.atleast_2d(starts)
    ]
    return np.stack(states).reshape(*starts.shape[:-1], grid.size, net.dim)


def flow_tool(net, starts, grid, **options):
    """`flow` with the default method."""
    span = (grid[0], grid[-1])

    def tool(rtol):
        def job():
            return dl.flow(net, starts, span, grid, rtol=rtol, **options).state.values

        return job

    return tool


def milliseconds(times):
    """Print the median of each tool."""
    note(", ".join(f"{name} {1e3 * value:.4g} ms" for name, value in times.items()))


def one_run():
    """One run of a small network."""
    heading("one run, widths (4, 4, 4, 4), T = 400, 200 saved times, error 1e-6")
    net = small_network()
    start = net.initial(scale=1e-2, rng=0)
    truth, timed = reference(net, start, GRID), {}
    tools = {
        "dlnds": flow_tool(net, start, GRID),
        "scipy LSODA": peers.scipy_tool(net, start, GRID, "LSODA"),
        "scipy odeint": peers.odeint_tool(net, start, GRID),
        "scipy LSODA, numpy field": peers.scipy_tool(
            net, start, GRID, "LSODA", peers.numpy_field(net)
        ),
    }
    if available("numbalsoda-dop853", "numbalsoda"):
        tools["numbalsoda-dop853"] = peers.numbalsoda_tool(net, start, GRID)
    if available("heyoka", "heyoka"):
        tools["heyoka"] = peers.heyoka_tool(net, start, GRID, compact=True)
        timed["heyoka"] = peers.heyoka_tool(net, start, GRID, compact=False)
    times = alternate(at_equal_error(tools, truth, 1e-6, timed), 11)
    milliseconds(times)
    report_ratios("dlnds", times, {"numbalsoda-dop853": 0.6, "heyoka": 5, "scipy odeint": 5})


def thousand_runs():
    """A thousand runs of a small network on two cores."""
    count, sample, slow = 1000, 24, 40
    net = small_network()
    starts = np.stack([net.initial(scale=1e-2, rng=seed) for seed in range(count)])
    truth = reference(net, starts[:sample], GRID)
    ours = functools.partial(flow_tool, net, grid=GRID, workers=peers.CORES)
    level = relative_error(ours(starts[:sample])(1e-6)(), truth)
    heading(f"{count} runs, rtol 1e-6, {peers.CORES} cores")
    note(f"error {level:.1e}")
    jobs = {"dlnds": ours(starts)(1e-6)}
    pool = peers.ScipyPool(net, GRID)
    tools = {"scipy pool": pool.tool(starts[:sample])}
    timed, runs = {"scipy pool": pool.tool(starts[:slow])}, {"scipy pool": slow}
    if available("heyoka", "heyoka"):
        ensemble = functools.partial(peers.heyoka_ensemble_tool, net, grid=GRID)
        tools["heyoka ensemble"] = ensemble(starts[:sample], compact=True)
        timed["heyoka ensemble"] = ensemble(starts, compact=False)
    if available("diffrax", "diffrax", "jax"):
        tools["diffrax vmap"] = peers.diffrax_tool(net, starts[:sample], GRID)
        timed["diffrax vmap"] = peers.diffrax_tool(net, starts[:slow], GRID)
        runs["diffrax vmap"] = slow
    jobs.update(at_equal_error(tools, truth, level, timed))
    times = alternate(jobs, 3)
    pool.pool.terminate()
    note(f"timed with {slow} runs and scaled to {count}: {', '.join(runs)}")
    times = {name: value * count / runs.get(name, count) for name, value in times.items()}
    milliseconds(times)
    goals = {"heyoka ensemble": 1.5, "diffrax vmap": 15, "scipy pool": 8}
    report_ratios("dlnds", times, goals)


@threadpoolctl.threadpool_limits.wrap(limits=1, user_api="blas")
def wide_network():
    """Widths at which the matrix products count."""
    heading("widths (64, 64, 64, 64, 64), T = 10, 11 saved times, error 1e-6")
    target = np.random.default_rng(0).normal(size=(64, 64)) / 8.0
    net = dl.LinearNetwork(widths=(64,) * 5, target=target)
    start, grid = net.initial(scale=0.1, rng=0), np.linspace(0.0, 10.0, 11)
    tools = {
        "dlnds": flow_tool(net, start, grid),
        "scipy DOP853": peers.scipy_tool(net, start, grid, "DOP853"),
    }
    if available("diffrax", "diffrax", "jax"):
        tools["diffrax Dopri8"] = peers.diffrax_tool(net, start, grid)
    times = alternate(at_equal_error(tools, reference(net, start, grid), 1e-6), 9)
    milliseconds(times)
    report_ratios("dlnds", times, {"diffrax Dopri8": 1.5, "scipy DOP853": 1.5})


@threadpoolctl.threadpool_limits.wrap(limits=1, user_api="blas")
def completion():
    """A deep factorization of a matrix, some of whose entries are known."""
    heading("100 x 100 of rank 5, 30 % known, depth 3, start 1e-3, T = 300, error 1e-4")
    rng = np.random.default_rng(0)
    target = rng.normal(size=(100, 5)) @ rng.normal(size=(5, 100))
    target *= 10.0 / np.linalg.norm(target, 2)
    known = rng.random(target.shape) < 0.3
    loss = dl.losses.completion(target.shape, *np.nonzero(known), target[known])
    net = dl.LossNetwork((100,) * 4, loss)
    start, grid = net.initial(scale=1e-3, rng=0), np.array([0.0, 300.0])
    truth = reference(net, start, grid)
    note(f"loss {net.loss(truth[-1]) / net.loss(start):.1e} of the first at the end")
    tools = {"dlnds": flow_tool(net, start, grid)}
    if available("diffrax", "diffrax", "jax"):
        tools["diffrax Dopri8"] = peers.diffrax_tool(net, start, grid, target, 1.0 * known)
    times = alternate(at_equal_error(tools, truth, 1e-4), 3)
    milliseconds(times)
    report_ratios("dlnds", times, {"diffrax Dopri8": 3})


def skinny_products(net):
    """Return the matrix products of one right-hand side as (a, b, out), in their memory order."""
    rng, products = np.random.default_rng(0), []
    layers = [rng.normal(size=(d, c)) for c, d in itertools.pairwise(net.widths)]
    outputs = net.widths[-1]
    lefts = [rng.normal(size=(outputs, d)) for d in net.widths]
    for i in range(net.depth - 1, 0, -1):  # L_{i−1} = L_i W_i
        products.append((lefts[i], layers[i - 1], np.empty((outputs, net.widths[i - 1]))))
    for i in range(1, net.depth):  # Ẇ_i = L_iᵀ T_{i−1} and T_i = T_{i−1} W_iᵀ
        products.append((lefts[i].T, lefts[i - 1], np.empty((net.widths[i], net.widths[i - 1]))))
        products.append((lefts[i - 1], layers[i - 1].T, np.empty((outputs, net.widths[i]))))
    return products


@numba.njit
def compiled_dot(a, b, out):
    """Multiply by the BLAS that compiled code calls, which is scipy's."""
    np.dot(a, b, out)


@threadpoolctl.threadpool_limits.wrap(limits=1, user_api="blas")
def skinny_network():
    """Many inputs and few outputs: products that are bound by memory."""
    heading("widths (784, 256, 256, 10): rates")
    target = np.random.default_rng(0).normal(size=(10, 784)) / 28.0
    net = dl.LinearNetwork(widths=(784, 256, 256, 10), target=target)
    start, out = net.initial(scale=0.05, rng=0), np.empty(net.dim)
    field, params, products = jit.ready(net.field, jit.FIELD), net.params, skinny_products(net)
    operations = 2.0 * sum(a.shape[0] * a.shape[1] * b.shape[1] for a, b, _ in products)
    counts, grid, calls = {}, np.array([0.0, 40.0]), 20

    def evaluate():
        for _ in range(calls):
            field(0.0, start, params, out)

    def multiply(dot):
        for _ in range(calls):
            for product in products:
                dot(*product)

    def run():
        counts.update(dl.flow(net, start, (0.0, 40.0), grid, rtol=1e-6, method="dop853").attrs)

    jobs = {
        "right-hand side": evaluate,
        "products by numpy": functools.partial(multiply, np.dot),
        "products by scipy's BLAS": functools.partial(multiply, compiled_dot),
        "run": run,
    }
    for job in jobs.values():
        job()
    times = alternate(jobs, 7)
    once = {name: value / calls for name, value in times.items() if name != "run"}
    rates = {name: f"{1e-9 * operations / value:.3g}" for name, value in once.items()}
    note("Gflop/s: " + ", ".join(f"{name} {rate}" for name, rate in rates.items()))
    mine = once.pop("right-hand side")
    ratio = min(once.values()) / mine
    report("right-hand side against its matrix products", ratio, 0.8, "x", at_most=False)
    note(f"{counts['n_steps']} steps, {counts['n_rhs']} right-hand sides in {times['run']:.3g} s")
    ratio = counts["n_rhs"] * mine / times["run"]
    report("step loop against the right-hand side", ratio, 0.7, "x", at_most=False)


# Plateaus

SIGMA, SIZES = (3.0, 2.0, 1.0), (1e-3, 1e-6, 1e-9, 1e-12)
#: Steps after which a run is given up; the goal is fewer than 1,500.
MOST_STEPS = 3000


def patience(ours):
    """Return the seconds that a peer gets: enough to be ten times slower than we are."""
    return max(1.0, 12.0 * ours)


def plateau_peer(method, net, start, eps, t_end, limit, accuracy):
    """Run a stiff method of scipy at the loosest tolerance that meets an accuracy of the escapes.

    If none does, at the one that comes nearest without failing.
    """
    runs = []
    for rtol in (1e-6, 1e-7, 1e-8, 1e-9, 1e-10):
        runs.append(plateau_run(method, net, start, eps, t_end, limit, rtol))
        if runs[-1][2] <= accuracy:
            return runs[-1]
    ended = [run for run in runs if run[1] == "finished"]
    return min(ended, key=lambda run: run[2]) if ended else runs[0]


def plateau_run(method, net, start, eps, t_end, limit, rtol):
    """Run a stiff method of scipy with our compiled right-hand side and Jacobian.

    Every step is kept, as we keep ours. Returns the seconds, how it ended, and the escape error.
    """
    value, jacobian = peers.compiled_field(net)
    begin, times, states, status = time.perf_counter(), [0.0], [start], "running"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limits = {"rtol": rtol, "atol": 1e-2 * rtol * eps}
        solver = method(value, 0.0, start, t_end, jac=jacobian, **limits)
        while status == "running" and time.perf_counter() - begin < limit:
            solver.step()
            status = solver.status
            times.append(solver.t)
            states.append(solver.y)
    spent, strength = time.perf_counter() - begin, net.problem.strength(net.product(states))
    return spent, status, escape_error(np.array(times), strength, eps, net.depth)


def outcome(name, spent, status, escapes):
    """Say how a peer ended."""
    if status == "finished":
        return f"{name} {1e3 * spent:.3g} ms (escapes to {escapes:.0e})"
    return f"{name} {'not finished' if status == 'running' else 'failed'} after {spent:.3g} s"


def escape_error(times, strengths, start, depth):
    """Return the largest relative error of the times of the three escapes; infinite if one lacks.

    Each mode is looked up in the first row in which it is learnt: the exact law gives the time at
    which it has just this strength, so that no interpolation between rows is needed.
    """
    worst = 0.0
    for sigma, strength in zip(SIGMA, strengths.T, strict=True):
        learnt = np.flatnonzero(strength >= 0.5 * sigma)
        if not learnt.size:
            return np.inf
        reached = min(strength[learnt[0]], sigma * (1.0 - 1e-12))
        exact = growth_time(start**depth, reached, sigma, depth)
        worst = max(worst, abs(times[learnt[0]] / exact - 1.0))
    return worst if np.isfinite(worst) else np.inf


def drift(net, run):
    """Return the largest change of the conserved C_i relative to the squared weights there."""
    conserved = run.conserved.values
    weights = np.sum(run.state.values**2, axis=1)
    return float((np.abs(conserved - conserved[0]).max(axis=1) / weights).max())


def plateau_case(depth, eps):
    """Run one plateau problem; print a line and return its figures."""
    net = dl.LinearNetwork(widths=(3,) * (depth + 1), target=np.diag(SIGMA))
    start = net.initial("aligned", scale=eps)
    names = ("state", "mode_strength", "conserved")

    def solve(save=("state",)):
        return dl.flow(net, start, rtol=1e-6, max_steps=MOST_STEPS, save=save)

    run, spent = solve(names), median_time(solve, 9)
    escapes = escape_error(run.time.values, run.mode_strength.values, eps, depth)
    steps, loss = int(run.attrs["n_steps"]), run.loss.values
    # Peers need not go on to infinity, as we do: a little further than the last escape is enough.
    t_end = 1.01 * growth_time(eps**depth, 0.5 * SIGMA[-1], SIGMA[-1], depth)
    solvers = {"Radau": scipy.integrate.Radau, "LSODA": scipy.integrate.LSODA}
    theirs = {
        name: plateau_peer(method, net, start, eps, t_end, patience(spent), 2.0 * escapes)
        for name, method in solvers.items()
    }
    reason = dl.schema.decode(run.stop_reason).item()
    note(
        f"h = {depth}, eps = {eps:.0e}: {steps} steps, {run.attrs['n_rhs']} f, "
        f"{run.attrs['n_jac']} J, {1e3 * spent:.3g} ms, {reason}, "
        f"escapes to {escapes:.1e}, drift {drift(net, run):.1e}; "
        + ", ".join(outcome(name, *result) for name, result in theirs.items())
    )
    return {
        "steps": steps if np.isfinite(escapes) else np.inf,
        "rises": float(np.max(np.diff(loss) / loss[0], initial=0.0)),
        "drift": drift(net, run),
        "escapes": escapes,
        "ratios": {
            name: theirs_spent / spent if np.isfinite(escapes) else 0.0
            for name, (theirs_spent, status, _) in theirs.items()
            if status in ("finished", "running")
        },
    }


def plateaus():
    """Long rests at saddles, from tiny aligned starts."""
    heading("plateaus, widths (3, …, 3), Sigma = diag(3, 2, 1), rtol 1e-6, t to infinity")
    cases = {(h, eps): plateau_case(h, eps) for h in (3, 4, 5) for eps in SIZES}
    steps = {key: case["steps"] for key, case in cases.items()}
    report("most steps", max(steps.values()), 1500, "steps", at_most=True)
    growth = [
        (steps[h, SIZES[-1]] - steps[h, SIZES[-2]])
        / max(steps[h, SIZES[1]] - steps[h, SIZES[0]], 1)
        if np.isfinite(steps[h, SIZES[-1]])
        else np.inf
        for h in (3, 4, 5)
    ]
    # Equal growth for each factor of 1000 is log(1/eps); a power of 1/eps would give 10^6 and more.
    report("steps added by the last 1000 against the first", max(growth), 2, "x", at_most=True)
    # Rounding of a loss that stands still for whole plateaus.
    report("rise of the loss", worst(cases, "rises"), 1e-14, "of the first", at_most=True)
    report("drift of C_i", worst(cases, "drift"), 1e-9, "of the weights squared", at_most=True)
    report("escape times against the exact law", worst(cases, "escapes"), 1e-3, "x", at_most=True)
    for name in ("Radau", "LSODA"):
        ratios = [case["ratios"][name] for case in cases.values() if name in case["ratios"]]
        what = f"against scipy {name}, least of {len(ratios)} cases that it did not fail"
        report(what, min(ratios, default=0.0), 3, "x", at_most=False)


def worst(cases, name):
    """Return the largest figure of that name."""
    return max(case[name] for case in cases.values())


FIRST_RUN = """
import numpy as np, dlnds as dl
net = dl.LinearNetwork(widths=(4, 4, 4, 4), target=np.diag([4.0, 3.0, 2.0, 1.0]))
dl.flow(net, net.initial(scale=1e-2, rng=0), t_span=(0, 400), method={method!r})
"""


def first_runs():
    """The first run of a fresh process, by each method."""
    heading("first run of a process, with an empty and with a filled cache")
    for method in ("dop853", "radau", "auto"):
        with tempfile.TemporaryDirectory() as cache:
            code = ["-c", FIRST_RUN.format(method=method)]
            cold, warm = cpu_of(code, cache, 1), cpu_of(code, cache, 3)
        note(f"{method}: cold {cold:.2f} s of CPU, warm {warm:.2f} s")


def chains():
    """A million Langevin steps of a network of 48 weights, in four chains."""
    heading("Langevin steps, widths (4, 6, 4), four chains")
    net = dl.LinearNetwork((4, 6, 4), np.diag([3.0, 2.0, 1.0, 0.5]))
    starts = np.stack([net.initial(scale=0.5, rng=seed) for seed in range(4)])
    options = {"temperature": 1e-3, "step_size": 1e-4, "n_steps": 250_000, "rng": 0}
    spent = median_time(lambda: dl.sample(net, starts, **options), 3)
    report("10^6 Langevin steps at 48 weights", spent, 5.0, "s", at_most=True)


PARTS = (
    *(one_run, thousand_runs, wide_network, completion, skinny_network, plateaus, chains),
    first_runs,
)

if __name__ == "__main__":
    opening(__doc__)
    for part in PARTS:
        if part.__name__ in sys.argv[1:] or len(sys.argv) == 1:
            note(f"({seconds(part):.0f} s)")
