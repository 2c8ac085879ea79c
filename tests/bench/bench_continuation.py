"""Figures of branches: weight decay to its fold against bice and PyCont-Lite, and a large network.

The peers know no symmetry, and on the equation itself they fail. They get the frozen system: twelve
columns of multipliers on the orbit's orthonormal basis at the start, and twelve conditions that
hold the state in the slice across it. All take as many equal-sized steps as ours has, over the same
arclength. bice has the compiled field and Jacobian, dense; PyCont-Lite the compiled field, with its
detection off. Those that find eigenvalues at each point are compared with ours that does, the
others with ours that counts their signs.
"""

import contextlib
import io
import os
import tempfile
import time

import numpy as np
import scipy.sparse
from common import alternate, available, cpu_of, note, report, report_ratios, seconds
from scipy.stats import ortho_group
from threadpoolctl import threadpool_limits

import dlnds as dl

DECAY, DEPTH = 0.01, 3


def problem(width):
    """The equation of widths d, σ = d, d−1, …, 1, and its minimum with all modes at λ = 0.01."""
    sigma = np.arange(width, 0.0, -1.0)
    net = dl.LinearNetwork(widths=(width,) * (DEPTH + 1), target=np.diag(sigma))
    sizes = [max(np.roots([-1.0, 0.0, 0.0, s, -DECAY]).real) for s in sigma]
    return net, dl.equilibria(net, "weight_decay"), net.pack([np.diag(sizes)] * DEPTH)


def traced(equation, start, points, eigenvalues=6):
    """Our branch upwards."""
    options = {"direction": "up", "max_points": points, "n_eigenvalues": eigenvalues}
    return dl.branch(equation, start, DECAY, bounds=(0.005, 5.0), **options)


class Frozen:
    """The frozen system: F + B μ = 0, Bᵀ(x − start) = 0, for (x, μ)."""

    def __init__(self, equation, start):
        rows = equation.orbit(start, DECAY)
        self.equation, self.n, self.basis = equation, start.size, np.linalg.qr(rows.T)[0]
        self.offset = self.basis.T @ start
        self.start = np.concatenate([start, np.zeros(len(rows))])
        self.matrix = np.zeros((self.start.size, self.start.size))
        self.matrix[: self.n, self.n :] = self.basis
        self.matrix[self.n :, : self.n] = self.basis.T
        self.mass = scipy.sparse.diags(np.append(np.ones(self.n), np.zeros(len(rows))))

    def value(self, u, p):
        x, multipliers = u[: self.n], u[self.n :]
        force = self.equation.fun(x, p) + self.basis @ multipliers
        return np.concatenate([force, self.basis.T @ x - self.offset])

    def jacobian(self, u, p):
        self.matrix[: self.n, : self.n] = self.equation.jacobian(u[: self.n], p)
        return self.matrix.copy()


def bice_job(frozen, steps, size, eigenvalues):
    """Equal steps of bice, with eigenvalues at each point or without.

    All of them (None) rather than the nearest: those are repeated, and ARPACK fails now and then.
    """
    from bice import Equation, Problem
    from bice.continuation import PseudoArclengthContinuation

    class Decay(Equation):
        def __init__(self):
            super().__init__(shape=frozen.start.shape)
            self.u, self.decay = frozen.start.copy(), DECAY

        def rhs(self, u):
            return frozen.value(u, self.decay)

        def jacobian(self, u):
            return frozen.jacobian(u, self.decay)

        def mass_matrix(self):
            return frozen.mass

    def job():
        equation, case = Decay(), Problem()
        case.add_equation(equation)
        case.settings.neigs = eigenvalues
        case.continuation_parameter = (equation, "decay")
        case.continuation_stepper = PseudoArclengthContinuation(ds=size)
        case.continuation_stepper.adapt_stepsize = False
        for _ in range(steps):
            case.continuation_step()
        return equation.decay

    return job


def pycont_job(frozen, steps, size):
    """Equal steps of PyCont-Lite, without detection; its Jacobian is known by products alone."""
    import pycont

    options = {
        "bifurcation_detection": False,
        "analyze_stability": False,
        "initial_directions": "increase_p",
    }

    def job():
        with contextlib.redirect_stdout(io.StringIO()):
            found = pycont.arclengthContinuation(
                frozen.value, frozen.start, DECAY, 1e-6, size, size, steps, options, "OFF"
            )
        branch = found.branches[0]
        if len(branch.p_path) <= steps:
            raise ArithmeticError(f"stops after {len(branch.p_path) - 1} of {steps} steps")
        return float(branch.p_path[-1])

    return job


def numpy_job(net, start, steps, size):
    """The method as numpy writes it: one orbit basis by SVD, Newton, and eigenvalues a step."""

    def bordered(x, p, tangent, basis):
        n, g = x.size, basis.shape[1]
        matrix = np.zeros((n + 1 + g, n + 1 + g))
        matrix[:n, :n] = -net.hessian(x) - p * np.eye(n)
        matrix[:n, n] = -x
        matrix[:n, n + 1 :] = basis
        matrix[n, : n + 1] = tangent
        matrix[n + 1 :, :n] = basis.T
        return matrix

    def orbit(x):
        _, sizes, frame = np.linalg.svd(net.generators(x, orthogonal=True), full_matrices=False)
        return frame[sizes > 1e-9 * sizes[0]].T

    def described(x, p, tangent):
        basis, n = orbit(x), x.size
        matrix = bordered(x, p, tangent, basis)
        ahead = np.linalg.solve(matrix, np.eye(len(matrix))[n])[: n + 1]
        np.linalg.eigvalsh(matrix[:n, :n] - 1e3 * basis @ basis.T)
        return ahead / np.linalg.norm(ahead)

    def job():
        x, p, n = start.copy(), DECAY, start.size
        tangent = described(x, p, np.append(np.zeros(n), 1.0))
        for _ in range(steps):
            first = np.append(x, p) + size * tangent
            basis, point = orbit(first[:n]), first.copy()
            for _ in range(8):
                x, p = point[:n], point[n]
                lack = point - first
                right = np.concatenate(
                    [-net.gradient(x) - p * x, [tangent @ lack], basis.T @ lack[:n]]
                )
                step = np.linalg.solve(bordered(x, p, tangent, basis), right)[: n + 1]
                point = point - step
                if np.linalg.norm(step) <= 1e-12 * (1.0 + np.linalg.norm(point)):
                    break
            x, p = point[:n], point[n]
            tangent = described(x, p, tangent)
        return p

    return job


def working(name, job, truth):
    """Tell whether a peer comes near the fold; print a line if not."""
    try:
        elapsed = seconds(lambda: note(f"{name}: at {job():.6f}, the fold at {truth:.6f}"))
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as failure:
        note(f"{name}: left out, {failure}")
        return False
    note(f"{name}: first run {elapsed:.2f} s")
    return True


@threadpool_limits.wrap(limits=1, user_api="blas")
def to_the_fold():
    """Widths 4, h = 3, σ = 4, 3, 2, 1, from λ = 0.01 to the fold of σ = 1 at s³ = 1/4."""
    net, equation, start = problem(4)
    whole = traced(equation, start, 40)
    folds = np.flatnonzero(dl.schema.decode(whole.event).values == "fold")
    steps, truth = int(folds[0]), 0.75 * 0.25 ** (1.0 / 3.0)
    report("error of the fold", abs(float(whole.p[folds[0]]) - truth), 1e-12, "", at_most=True)
    size = float(whole.arclength[folds[0]]) / steps
    frozen = Frozen(equation, start)
    makers = {"ours": lambda count: lambda: traced(equation, start, count)}
    makers["ours, index only"] = lambda count: lambda: traced(equation, start, count, 0)
    makers["numpy"] = lambda count: numpy_job(net, start, count, size)
    if available("bice", "bice"):
        makers["bice"] = lambda count: bice_job(frozen, count, size, 0)
        makers["bice with all eigenvalues"] = lambda count: bice_job(frozen, count, size, None)
    if available("PyCont-Lite", "pycont"):
        makers["PyCont-Lite"] = lambda count: pycont_job(frozen, count, size)
    makers = {
        k: make
        for k, make in makers.items()
        if k.startswith("ours") or working(k, make(steps), truth)
    }
    counts = {"whole": steps, "most": steps - 1, "few": 2}
    times = alternate({(k, c): makers[k](counts[c]) for k in makers for c in counts}, 9)
    whole = {k: times[k, "whole"] / steps for k in makers}
    further = {k: (times[k, "most"] - times[k, "few"]) / (steps - 3) for k in makers}
    note(f"{steps} steps with start, location of the fold, Dataset, per step: {shown(whole)}")
    compared(whole)
    note(f"each further step before the fold: {shown(further)}")
    compared(further)


def compared(times):
    """Report ratios to those that do the same: with eigenvalues at each point, or without."""
    for ours, goals in (
        ("ours", {"bice with all eigenvalues": 20.0, "numpy": 5.0}),
        ("ours, index only", {"bice": 20.0, "PyCont-Lite": 50.0}),
    ):
        report_ratios(ours, {k: times[k] for k in (ours, *goals) if k in times}, goals)


def shown(times):
    """Write times in one line."""
    return ", ".join(f"{name} {1e3 * t:.2f} ms" for name, t in times.items())


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


def wide():
    """Width 30, n = 2,700 with an orbit of dimension 870, from a start rotated at random."""
    net, equation, start = problem(30)
    rng = np.random.default_rng(0)
    start = dl.act(net, [ortho_group.rvs(30, random_state=rng) for _ in range(2)], start)
    begin = time.perf_counter()
    found = traced(equation, start, 20)
    elapsed = time.perf_counter() - begin
    note(
        f"λ from {DECAY} to {float(found.p[-1]):.3f}, residuals ≤ {float(found.residual.max()):.1e}"
    )
    report("20 steps of width 30, with the start", elapsed, 60.0, "s", at_most=True)


if __name__ == "__main__":
    print(f"dlnds {dl.__version__}, numpy {np.__version__}, {os.cpu_count()} cores")
    to_the_fold()
    cold_and_warm()
    wide()
