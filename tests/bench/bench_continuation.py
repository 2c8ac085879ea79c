"""Figures of whole branches, as a user calls them, against bice, PyCont-Lite and plain numpy.

A branch is its start, its rows with eigenvalues, its special points and its Dataset. The peers
cover the same arclength in equal steps, as many as ours has rows or more. numpy's is the same
algorithm as one writes it for a study: each bordered system is set up and solved anew, eigenvalues
at each row, special points by bisection on corrected points, to 1e-12; how long it takes with
Brent's method is told beside it, without a goal. bice locates by its own bisection, which ends at
1e-4 of a step: its points are less exact. PyCont-Lite looks for special points at each fifth row;
it gets so many steps that it finds all of them to 1e-2.

The peers know no symmetry. Of weight decay they get the frozen system: twelve columns of
multipliers on the orbit's orthonormal basis at the start, and twelve conditions that hold the state
in the slice across it. bice has exact Jacobians, dense; PyCont-Lite differences the field.
"""

import contextlib
import functools
import gc
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import xarray as xr
from common import available, cpu_of, note, opening, report
from scipy.optimize import brentq
from scipy.stats import ortho_group
from threadpoolctl import threadpool_limits

import dlnds as dl

DECAY, DEPTH = 0.01, 3
GOALS = {"bice": 5.0, "PyCont-Lite": 10.0, "numpy": 3.0}
#: Length at which numpy's bisection ends.
LOCATED = 1e-12
#: Error of p within which a peer has found a special point.
NEAR = 1e-2


class Case(NamedTuple):
    """A branch: what the peers are given, and the special points that are known to be on it."""

    equation: dl.Residual
    x: np.ndarray
    p: float
    options: dict[str, Any]
    #: Values of p.
    special: tuple[float, ...]
    hopf: bool = False
    #: Generators of the orbit, as numpy is given them.
    generators: Callable[[np.ndarray], np.ndarray] | None = None


def problem(width):
    """The equation of widths d, σ = d, d−1, …, 1, and its minimum with all modes at λ = 0.01."""
    sigma = np.arange(width, 0.0, -1.0)
    net = dl.LinearNetwork(widths=(width,) * (DEPTH + 1), target=np.diag(sigma))
    sizes = [max(np.roots([-1.0, 0.0, 0.0, s, -DECAY]).real) for s in sigma]
    return net, dl.equilibria(net, "weight_decay"), net.pack([np.diag(sizes)] * DEPTH)


def weight_decay():
    """Widths 4, h = 3, σ = 4, 3, 2, 1: λ = 0.01 to the fold of σ = 1 at s³ = 1/4 and back."""
    net, equation, start = problem(4)
    return Case(
        equation,
        start,
        DECAY,
        {"bounds": (DECAY, 5.0), "direction": "up"},
        (0.75 * 0.25 ** (1.0 / 3.0),),
        generators=lambda x: net.generators(x, orthogonal=True),
    )


def cubic():
    """p + x − x³: two folds."""
    equation = dl.Residual(
        lambda x, p: p + x - x**3,
        lambda x, p: np.diag(1.0 - 3.0 * x**2),
        derivative=lambda x, p: np.ones(1),
    )
    fold = 2.0 / 27.0**0.5
    options = {"bounds": (-1.875, 1.875), "direction": "up"}
    return Case(equation, np.array([-1.5]), -1.875, options, (-fold, fold))


def bratu(n=50):
    """u″ + p eᵘ = 0 by second differences on n points: a fold."""
    second = (np.eye(n, k=1) - 2.0 * np.eye(n) + np.eye(n, k=-1)) * (n + 1.0) ** 2
    equation = dl.Residual(
        lambda x, p: second @ x + p * np.exp(x),
        lambda x, p: second + np.diag(p * np.exp(x)),
        derivative=lambda x, p: np.exp(x),
        symmetric=True,
    )
    options = {"bounds": (0.5, 4.0), "direction": "up"}
    x = np.zeros(n)
    for _ in range(20):
        x = x - np.linalg.solve(equation.jacobian(x, 0.5), equation.fun(x, 0.5))
    return Case(equation, x, 0.5, options, (3.51312779261,))


def brusselator():
    """The Brusselator with A = 1: a Hopf point at B = 2."""
    equation = dl.Residual(
        lambda x, p: np.array(
            [1.0 - (p + 1.0) * x[0] + x[0] ** 2 * x[1], p * x[0] - x[0] ** 2 * x[1]]
        ),
        lambda x, p: np.array(
            [
                [2.0 * x[0] * x[1] - p - 1.0, x[0] ** 2],
                [p - 2.0 * x[0] * x[1], -(x[0] ** 2)],
            ]
        ),
        derivative=lambda x, p: np.array([-x[0], x[0]]),
    )
    options = {"bounds": (1.0, 5.0), "direction": "up"}
    return Case(equation, np.array([1.0, 1.0]), 1.0, options, (2.0,), hopf=True)


def lorenz():
    """The convecting state of Lorenz' equations: a Hopf point at ρ = 470/19."""
    beta = 8.0 / 3.0
    equation = dl.Residual(
        lambda x, p: np.array(
            [10.0 * (x[1] - x[0]), x[0] * (p - x[2]) - x[1], x[0] * x[1] - beta * x[2]]
        ),
        lambda x, p: np.array([[-10.0, 10.0, 0.0], [p - x[2], -1.0, -x[0]], [x[1], x[0], -beta]]),
        derivative=lambda x, p: np.array([0.0, x[0], 0.0]),
    )
    side = beta**0.5
    options = {"bounds": (2.0, 40.0), "direction": "up"}
    return Case(equation, np.array([side, side, 1.0]), 2.0, options, (470.0 / 19.0,), hopf=True)


class Frozen:
    """What bice and PyCont-Lite solve: F, or F + B μ = 0 and Bᵀ(x − start) = 0 for (x, μ)."""

    def __init__(self, case):
        rows = case.equation.orbit(case.x, case.p)
        self.equation, self.n = case.equation, case.x.size
        self.basis = np.linalg.qr(rows.T)[0]
        self.offset = self.basis.T @ case.x
        self.start = np.concatenate([case.x, np.zeros(len(rows))])
        self.matrix = np.zeros((self.start.size, self.start.size))
        self.matrix[: self.n, self.n :] = self.basis
        self.matrix[self.n :, : self.n] = self.basis.T
        self.mass = scipy.sparse.diags(np.append(np.ones(self.n), np.zeros(len(rows))))

    def value(self, u, p):
        if len(u) == self.n:
            return self.equation.fun(u, p)
        x, multipliers = u[: self.n], u[self.n :]
        force = self.equation.fun(x, p) + self.basis @ multipliers
        return np.concatenate([force, self.basis.T @ x - self.offset])

    def jacobian(self, u, p):
        if len(u) == self.n:
            return self.equation.jacobian(u, p)
        self.matrix[: self.n, : self.n] = self.equation.jacobian(u[: self.n], p)
        return self.matrix.copy()


def our_job(case):
    """Our branch; its special points by p, and how many rows it has without them."""

    def job():
        branch = dl.branch(case.equation, case.x, case.p, **case.options)
        special = branch.event.values > 0
        return branch.p.values[special], int((~special).sum()), branch

    return job


def bice_job(case, steps, size):
    """Equal steps of bice, with all eigenvalues at each point, and its location."""
    from bice import Equation, Problem
    from bice.continuation import PseudoArclengthContinuation

    frozen = Frozen(case)

    class Given(Equation):
        def __init__(self):
            super().__init__(shape=frozen.start.shape)
            self.u, self.p = frozen.start.copy(), case.p

        def rhs(self, u):
            return frozen.value(u, self.p)

        def jacobian(self, u):
            return frozen.jacobian(u, self.p)

        def mass_matrix(self):
            return frozen.mass

    def job():
        equation, task = Given(), Problem()
        task.add_equation(equation)
        task.settings.neigs = None
        task.settings.eigval_zero_tolerance = 1e-9
        task.settings.always_locate_bifurcations = True
        task.continuation_parameter = (equation, "p")
        task.continuation_stepper = PseudoArclengthContinuation(ds=size)
        task.continuation_stepper.adapt_stepsize = False
        with contextlib.redirect_stdout(io.StringIO()):
            for _ in range(steps):
                task.continuation_step()
        rows = task.bifurcation_diagram.active_branch.solutions
        return np.array([row.p for row in rows if row.is_bifurcation()]), len(rows), equation.p

    return job


def pycont_job(case, steps, size):
    """Equal steps of PyCont-Lite, with its detection; its Jacobian is known by products alone."""
    import pycont

    frozen, (low, high) = Frozen(case), case.options["bounds"]
    options = {
        "bifurcation_detection": False,  # of crossing branches, of which there are none
        "analyze_stability": case.x.size > 2,  # its ARPACK needs three components
        "hopf_detection": case.hopf,
        "limit_cycle_continuation": False,
        "initial_directions": "increase_p",
        "param_min": low,
        "param_max": high,
    }

    def job():
        with contextlib.redirect_stdout(io.StringIO()):
            found = pycont.arclengthContinuation(
                frozen.value, frozen.start, case.p, 1e-6, size, size, 4 * steps, options, "OFF"
            )
        special = [event.p for event in found.events if event.kind in ("LP", "BP", "HB")]
        return np.array(special), sum(len(b.p_path) - 1 for b in found.branches), found

    return job


def numpy_job(case, steps, size, brent=False):
    """The method as numpy writes it: an orbit basis by SVD, Newton, and eigenvalues at each row.

    Special points by bisection, or by Brent's method.
    """
    value, slope = case.equation.fun, case.equation.derivative
    jacobian, symmetric, n = case.equation.jacobian, case.equation.symmetric, case.x.size

    def orbit(x):
        if case.generators is None:
            return np.zeros((n, 0))
        _, sizes, frame = np.linalg.svd(case.generators(x), full_matrices=False)
        return frame[sizes > 1e-9 * sizes[0]].T

    def bordered(z, tangent, basis):
        g = basis.shape[1]
        matrix = np.zeros((n + 1 + g, n + 1 + g))
        matrix[:n, :n] = jacobian(z[:n], z[n])
        matrix[:n, n] = slope(z[:n], z[n])
        matrix[:n, n + 1 :] = basis
        matrix[n, : n + 1] = tangent
        matrix[n + 1 :, :n] = basis.T
        return matrix

    def corrected(first, tangent):
        basis, z = orbit(first[:n]), first.copy()
        for iteration in range(1, 15):
            lack = z - first
            right = [value(z[:n], z[n]), [tangent @ lack], basis.T @ lack[:n]]
            step = np.linalg.solve(bordered(z, tangent, basis), np.concatenate(right))[: n + 1]
            z = z - step
            if np.linalg.norm(step) <= 1e-12 * (1.0 + np.linalg.norm(z)):
                return z, iteration
        raise ArithmeticError("numpy: Newton's method does not converge")

    def described(z, tangent):
        basis = orbit(z[:n])
        matrix = bordered(z, tangent, basis)
        ahead = np.linalg.solve(matrix, np.eye(len(matrix))[n])[: n + 1]
        if symmetric:
            values = np.linalg.eigvalsh(matrix[:n, :n] - 1e3 * basis @ basis.T)[basis.shape[1] :]
        else:
            values = np.linalg.eigvals(matrix[:n, :n])
        return {
            "z": z,
            "tangent": ahead / np.linalg.norm(ahead),
            "values": values,
            "index": int((values.real > 0.0).sum()),
            "orbit": basis.shape[1],
            "residual": np.linalg.norm(value(z[:n], z[n])),
            "iterations": 0,
            "event": "none",
        }

    def ahead_of(row, step):
        z, iterations = corrected(row["z"] + step * row["tangent"], row["tangent"])
        return {**described(z, row["tangent"]), "iterations": iterations}

    def tested(point, kind):
        return point["tangent"][n] if kind == "fold" else point["values"].real.max()

    def located(row, kind):
        """The zero of a test function between a row and the next, as a step from the first."""
        if brent:
            step = brentq(lambda s: tested(ahead_of(row, s), kind), 0.0, size, xtol=LOCATED)
            return {**ahead_of(row, step), "event": kind}
        low, high = 0.0, size
        while high - low > LOCATED:
            step = 0.5 * (low + high)
            point = ahead_of(row, step)
            same = tested(point, kind) * tested(row, kind) > 0.0
            low, high = (step, high) if same else (low, step)
        return {**point, "event": kind}

    def job():
        start = described(np.append(case.x, case.p), np.append(np.zeros(n), 1.0))
        rows = [start if start["tangent"][n] > 0.0 else {**start, "tangent": -start["tangent"]}]
        along = [0.0]
        for _ in range(steps):
            here = rows[-1]
            there = ahead_of(here, size)
            if here["tangent"][n] * there["tangent"][n] < 0.0:
                rows.append(located(here, "fold"))
            elif here["index"] != there["index"]:
                rows.append(located(here, "hopf"))
            if len(along) < len(rows):
                along.append(along[-1] + np.linalg.norm(rows[-1]["z"] - here["z"]))
            along.append(along[-1] + np.linalg.norm(there["z"] - rows[-1]["z"]))
            rows.append(there)
        branch = tabulated(rows, along, n)
        special = branch.event.values != "none"
        return branch.p.values[special], int((~special).sum()), branch

    return job


def tabulated(rows, along, n, count=6):
    """The Dataset of numpy's rows."""
    near = [sorted(row["values"], key=abs)[:count] for row in rows]
    whole = {
        "state": (("step", "parameter"), np.array([row["z"][:n] for row in rows])),
        "tangent": (("step", "parameter"), np.array([row["tangent"][:n] for row in rows])),
        "transverse_eigenvalue": (("step", "eigen"), np.real(near)),
        "transverse_eigenvalue_imag": (("step", "eigen"), np.imag(near)),
        "tangent_p": ("step", [row["tangent"][n] for row in rows]),
        "spectral_radius": ("step", [np.abs(row["values"]).max() for row in rows]),
        "arclength": ("step", along),
    }
    names = ("index", "orbit", "residual", "iterations", "event")
    whole |= {name: ("step", [row[name] for row in rows]) for name in names}
    return xr.Dataset(whole, coords={"p": ("step", [row["z"][n] for row in rows])})


def refined(name, make, case, steps, size):
    """Return a peer's job in the fewest steps, ours doubled and again, that find what is special.

    None if none do; a line tells what it finds.
    """
    for factor in (1, 2, 4, 8, 16):
        job = make(case, factor * steps, size / factor)
        try:
            found, rows, _ = job()
        except Exception as failure:  # whatever a peer stumbles over
            note(f"{name} in {factor * steps} steps: {type(failure).__name__}: {failure}")
            continue
        missed = [float(np.abs(found - p).min(initial=np.inf)) for p in case.special]
        note(
            f"{name} in {factor * steps} steps: {rows} rows, {len(found)} special points, errors "
            f"of p {', '.join(f'{error:.1e}' for error in missed)}"
        )
        if max(missed) <= NEAR and rows >= steps:
            return job
    return None


def in_turns(jobs, repeats):
    """Return the median wall and CPU seconds of each job, run in turns, without collection.

    Those that fail, as PyCont-Lite's search for Hopf points does now and then, are left out.
    """
    jobs, wall, used = dict(jobs), {}, {}
    gc.collect()
    gc.disable()
    for _ in range(repeats):
        for name, job in tuple(jobs.items()):
            try:
                job()
                begin, ticks = time.perf_counter(), time.process_time()
                job()
            except Exception as failure:  # whatever a peer stumbles over
                note(f"{name}: left out, {type(failure).__name__}: {failure}")
                del jobs[name]
                continue
            wall.setdefault(name, []).append(time.perf_counter() - begin)
            used.setdefault(name, []).append(time.process_time() - ticks)
        gc.collect()
    gc.enable()
    return tuple({k: statistics.median(times[k]) for k in jobs} for times in (wall, used))


@threadpool_limits.wrap(limits=1, user_api="blas")
def whole_branch(case, repeats=9):
    """Print the times of one branch beside those of the peers."""
    name = case.__name__
    case = case()
    found, rows, branch = our_job(case)()
    z = np.column_stack([branch.state.values, branch.p.values])
    length = float(np.linalg.norm(np.diff(z, axis=0), axis=1).sum())
    steps, size = rows - 1, length / (rows - 1)
    note(f"{name}: {rows} rows and {len(found)} special points in a length of {length:.3g}")
    error = max(float(np.abs(found - p).min(initial=np.inf)) for p in case.special)
    report(f"{name}, error of special p", error, 1e-10, "", at_most=True)
    makers = {"numpy": numpy_job, "numpy and brentq": functools.partial(numpy_job, brent=True)}
    if available("bice", "bice"):
        makers["bice"] = bice_job
    if available("PyCont-Lite", "pycont"):
        makers["PyCont-Lite"] = pycont_job
    jobs = {peer: refined(peer, make, case, steps, size) for peer, make in makers.items()}
    jobs = {peer: job for peer, job in jobs.items() if job is not None}
    wall, used = in_turns({"ours": our_job(case), **jobs}, repeats)
    for times, kind in ((wall, "wall"), (used, "CPU")):
        note(f"{kind}: " + ", ".join(f"{k} {1e3 * t:.2f} ms" for k, t in times.items()))
    ratios = {peer: used[peer] / used["ours"] for peer in used if peer != "ours"}
    note("; ".join(f"{peer}: {ratio:.2f} times as long" for peer, ratio in ratios.items()))
    for peer, goal in GOALS.items():
        if peer in ratios:
            report(f"{name}, against {peer}", ratios[peer], goal, "x", at_most=False)
        elif peer in makers:
            print(f"--   {name}, against {peer}: it does not find what is special, see above")


FIRST_BRANCH = """
import numpy as np, dlnds as dl
net = dl.LinearNetwork(widths=(4, 4, 4, 4), target=np.diag([4.0, 3.0, 2.0, 1.0]))
sizes = [max(np.roots([-1.0, 0.0, 0.0, s, -0.01]).real) for s in (4.0, 3.0, 2.0, 1.0)]
start = net.pack([np.diag(sizes)] * 3)
dl.branch(dl.equilibria(net, "weight_decay"), start, 0.01, bounds=(0.01, 5.0), direction="up")
"""


def cold_and_warm():
    """The first branch in a fresh process."""
    with tempfile.TemporaryDirectory() as cache:
        cold = cpu_of(["-c", FIRST_BRANCH], cache, 1)
        report("first branch, cold cache", cold, 20.0, "s of CPU", at_most=True)
        warm = cpu_of(["-c", FIRST_BRANCH], cache, 5)
        report("first branch, warm cache", warm, 3.0, "s of CPU", at_most=True)


def wide(width):
    """From a start rotated at random: width 30 is n = 2,700 with an orbit of dimension 870."""
    net, equation, start = problem(width)
    rng = np.random.default_rng(0)
    start = dl.act(net, [ortho_group.rvs(width, random_state=rng) for _ in range(2)], start)
    begin = time.perf_counter()
    options = {"bounds": (0.005, 5.0), "direction": "up", "max_points": 20}
    found = dl.branch(equation, start, DECAY, **options)
    elapsed = time.perf_counter() - begin
    note(
        f"λ from {DECAY} to {float(found.p[-1]):.3f}, residuals ≤ {float(found.residual.max()):.1e}"
    )
    report(f"20 steps of width {width}, with the start", elapsed, 30.0, "s", at_most=True)


if __name__ == "__main__":
    opening(__doc__)
    for branch in (weight_decay, cubic, bratu, brusselator, lorenz):
        whole_branch(branch)
    cold_and_warm()
    wide(30)
    wide(60)
