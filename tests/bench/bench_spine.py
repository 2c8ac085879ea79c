"""Figures of the spine: assembled Hessian, import, first trajectory, main job.

Run by ``nox -s bench``. Every figure is the median of several runs beside its goal; a miss is
printed as a miss.
"""

import os
import statistics
import tempfile
import time

import numpy as np
from common import cpu_of, median_time, note, report

import dlnds as dl
from dlnds._kernels import jit


def hessian_against_differences():
    """Assembled Hessian against central differences of the compiled gradient, both at n = 1024."""
    net = dl.LinearNetwork(widths=(16,) * 5, target=np.random.default_rng(0).normal(size=(16, 16)))
    x = net.initial(scale=0.25, rng=0)
    gradient, params, step = jit.ready(net.field, jit.FIELD), net.params, 1e-5
    jacobian = jit.ready(net.jacobian, jit.JACOBIAN)
    exact, differenced = np.empty((net.dim, net.dim)), np.empty((net.dim, net.dim))
    ends, shifted = np.empty((2, net.dim)), x.copy()

    def assemble():
        jacobian(0.0, x, params, exact)

    def difference():
        for j in range(net.dim):
            shifted[j] = x[j] + step
            gradient(0.0, shifted, params, ends[0])
            shifted[j] = x[j] - step
            gradient(0.0, shifted, params, ends[1])
            shifted[j] = x[j]
            differenced[:, j] = (ends[0] - ends[1]) / (2.0 * step)

    slow, fast = median_time(difference, 5), median_time(assemble, 25)
    error = np.abs(exact - differenced).max() / np.abs(exact).max()
    note(f"differences {1e3 * slow:.1f} ms, assembled {1e3 * fast:.2f} ms, equal to {error:.0e}")
    bound = exact.nbytes / _fill_rate()
    note(f"writing the matrix alone takes {1e3 * bound:.2f} ms: {fast / bound:.1f} x the limit")
    report(
        "assembled Hessian at n = 1024 against central differences",
        slow / fast,
        10,
        "x",
        at_most=False,
    )


def _fill_rate():
    """Return the bytes a second at which a matrix of that size is written."""
    matrix = np.empty((1024, 1024))
    return matrix.nbytes / median_time(lambda: matrix.fill(1.0), 25)


FIRST_RUN = """
import dlnds as dl
net = dl.load_problem("semantic", hidden=(16, 16))
dl.flow(net, net.initial(scale=1e-2, rng=0), t_span=(0, 10))
"""


def cold_and_warm():
    """Import, first trajectory, and main job, in fresh processes."""
    with tempfile.TemporaryDirectory() as cache:
        ratios = []
        for _ in range(9):
            ours = cpu_of(["-c", "import dlnds"], cache, 1)
            ratios.append(ours / cpu_of(["-c", "import xarray"], cache, 1))
        ratio = statistics.median(ratios)
        report("import dlnds against import xarray, CPU", ratio, 1.3, "x", at_most=True)
        cold = cpu_of(["-c", FIRST_RUN], cache, 1)
        report("first trajectory, cold cache", cold, 15, "s of CPU", at_most=True)
        warm = cpu_of(["-c", FIRST_RUN], cache, 5)
        report("first trajectory, warm cache", warm, 2, "s of CPU", at_most=True)
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm"):
            begin = time.perf_counter()
            cpu = cpu_of(["-m", "dlnds", "atlas", "--quiet"], cache, 1)
            wall = time.perf_counter() - begin
            note(f"main job, {name}: {cpu:.1f} s of CPU")
            if name == "cold":
                report("main job, cold cache, wall", wall, 60, "s", at_most=True)


if __name__ == "__main__":
    print(f"dlnds {dl.__version__}, numpy {np.__version__}, {os.cpu_count()} cores")
    hessian_against_differences()
    cold_and_warm()
