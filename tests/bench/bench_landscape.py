"""Figures of the landscape: spectra known, assembled and without a matrix; atlas, connections.

Run by ``nox -s bench``. Every figure is the median of several runs beside its goal; a miss is
printed as a miss.
"""

import contextlib
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import scipy.linalg
from common import alternate, available, median_time, note, opening, report, seconds
from threadpoolctl import threadpool_limits

import dlnds as dl
from dlnds import cli

SIZE = 16
NET = dl.LinearNetwork(widths=(SIZE,) * 5, target=np.random.default_rng(0).normal(size=(SIZE,) * 2))


def change_bases(net, x, strength=None):
    """Move a state along its orbit, by orthogonal changes of the hidden bases or by any."""
    rng, layers = np.random.default_rng(1), [w.copy() for w in net.unpack(x)]
    for i, width in enumerate(net.widths[1:-1]):
        P = rng.normal(size=(width, width))
        P = np.linalg.qr(P)[0] if strength is None else np.eye(width) + strength * P
        layers[i], layers[i + 1] = P @ layers[i], layers[i + 1] @ np.linalg.inv(P)
    return net.pack(layers)


def known_spectrum(what, modes, strength, goal):
    """The whole call of `linearize` against the eigenvalues alone of a Hessian that is there."""
    x = change_bases(NET, NET.critical_state(modes), strength)
    hessian = NET.hessian(x)
    jobs = {
        "known": lambda: dl.linearize(NET, x),
        "dense": lambda: scipy.linalg.eigvalsh(hessian),
        "numpy": lambda: np.linalg.eigvalsh(hessian),
    }
    found, expected = jobs["known"](), jobs["dense"]()
    with threadpool_limits(1, user_api="blas"):  # so that no thread waits for another program's
        times = alternate(jobs, 15)
    note(
        f"{what} ({found.attrs['method']}): linearize {1e3 * times['known']:.2f} ms, eigvalsh of "
        f"scipy {1e3 * times['dense']:.0f} ms, of numpy {1e3 * times['numpy']:.0f} ms"
    )
    error = np.abs(found.eigenvalue.values - expected).max() / np.abs(expected).max()
    report(f"error {what}, relative", error, 1e-12, "", at_most=True)
    fastest = min(times["dense"], times["numpy"])
    report(f"spectrum {what}, n = 1024", fastest / times["known"], goal, "x", at_most=False)


def hessian_against_jax():
    """The Hessian of the loss, in double precision, compiled and warm."""
    if not available("Hessian against jax.hessian", "jax"):
        return
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    target = jnp.asarray(NET.target)

    def loss(x):
        product = jnp.eye(SIZE)
        for w in x.reshape(4, SIZE, SIZE):
            product = w @ product
        return 0.5 * jnp.sum((target - product) ** 2)

    compiled, x = jax.jit(jax.hessian(loss)), NET.initial(scale=0.25, rng=0)
    there = jnp.asarray(x)
    jobs = {
        "dlnds": lambda: NET.hessian(x),
        "jax": lambda: compiled(there).block_until_ready(),
    }
    ours, theirs = jobs["dlnds"](), np.asarray(jobs["jax"]())
    times = alternate(jobs, 15)
    error = np.abs(ours - theirs).max() / np.abs(ours).max()
    note(
        f"Hessian: dlnds {1e3 * times['dlnds']:.2f} ms, jax.hessian {1e3 * times['jax']:.1f} ms, "
        f"equal to {error:.0e}"
    )
    ratio = times["jax"] / times["dlnds"]
    report("assembled Hessian at n = 1024 against jax.hessian", ratio, 3, "x", at_most=False)


@contextlib.contextmanager
def busy_cores():
    """Keep each core busy with another process."""
    work = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(work) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def beside_others(widths, modes):
    """All negative eigenvalues, alone with one thread and with another process on each core."""
    sigma = np.sort(np.random.default_rng(1).uniform(1.0, 3.0, widths[0]))[::-1]
    net = dl.LinearNetwork(widths=widths, target=np.diag(sigma))
    x = change_bases(net, net.critical_state(modes), 0.02)

    def job():
        dl.linearize(net, x, method="iterative")

    job()
    with threadpool_limits(1, user_api="blas"):
        quiet = median_time(job, 3)
    with busy_cores():
        busy = median_time(job, 3)
    name = f"{'-'.join(map(str, widths))}, a process at work on each core"
    report(name, busy, 6, "s", at_most=True)
    report(f"{name}, against one thread alone", busy / quiet, 2, "x", at_most=True)


def negative_eigenvalues(widths, modes):
    """All negative eigenvalues at a critical point that is not balanced, n = 20,000."""
    sigma = np.sort(np.random.default_rng(1).uniform(1.0, 3.0, widths[0]))[::-1]
    net = dl.LinearNetwork(widths=widths, target=np.diag(sigma))
    x = change_bases(net, net.critical_state(modes), 0.02)
    net.hessian_product(x, x)  # compiles it
    product = median_time(lambda: net.hessian_product(x, x), 9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin, cpu = time.perf_counter(), time.process_time()
    tracemalloc.start()
    found = dl.linearize(net, x, method="iterative")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    closed = int(dl.canonical_spectrum(net, modes)["index"])
    name = f"{'-'.join(map(str, widths))}, n = {net.dim:,}"
    note(
        f"{name}: {wall:.1f} s ({cpu:.1f} s of CPU), one product {1e3 * product:.1f} ms; peak "
        f"{peak / 1e6:.0f} MB, resident {grown / 1e6:+.0f} MB; lowest "
        f"{float(found.eigenvalue[0]):.6g}"
    )
    report(f"{name}: negative eigenvalues off the index", abs(int(found["index"]) - closed), 0, "",
           at_most=True)  # fmt: skip
    report(f"{name}: memory against the Hessian's", peak / (8.0 * net.dim**2), 0.1, "x",
           at_most=True)  # fmt: skip
    report(f"{name}: {closed} negative eigenvalues", wall, 60, "s", at_most=True)


def whole_atlas():
    """The command, warm: 256 points, all connections, 9 runs, pictures and file."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["atlas", "--quiet", "--out", str(Path(folder) / "atlas.nc")]

        def job():
            with contextlib.redirect_stdout(io.StringIO()):
                assert cli.main(arguments) == 0

        job()
        report("whole atlas of the semantic data set", seconds(job), 20, "s", at_most=True)


def time_of_connections():
    """Seconds for each 1,000 edges of 8, 10 and 12 modes, and for far and near starts."""
    times = {}
    for modes in (8, 10, 12):
        net = dl.LinearNetwork((modes,) * 4, np.diag(np.linspace(2.0, 0.5, modes)))
        graph = dl.connections(net)
        edges = graph.sizes["edge"]
        times[modes] = median_time(lambda net=net: dl.connections(net), 5) * 1000 / edges
        tracemalloc.start()
        dl.connections(net)
        peak = tracemalloc.get_traced_memory()[1] / graph.nbytes
        tracemalloc.stop()
        note(f"{modes} modes: {edges:,} edges, {1e3 * times[modes]:.1f} ms for each 1,000; peak "
             f"memory {peak:.2f} times the result of {graph.nbytes / 1e6:.0f} MB")  # fmt: skip
    report("time of an edge, 12 modes against 8", times[12] / times[8], 1, "x", at_most=True)
    report("peak memory against the result, 12 modes", peak, 3, "x", at_most=True)
    far, near = (
        median_time(lambda s=s: dl.connections(net, 4, scales=[s]), 5) for s in (1e-2, 1e-12)
    )
    report("time at distance 1e-12 against 1e-2", near / far, 1.2, "x", at_most=True)


if __name__ == "__main__":
    opening(__doc__)
    whole_atlas()
    time_of_connections()
    known_spectrum("at a perfect fit", tuple(range(SIZE)), 0.05, 20)
    known_spectrum("at a balanced saddle", (0, 2, 3, 7), None, 50)
    known_spectrum("at a balanced minimum", tuple(range(SIZE)), None, 50)
    hessian_against_jax()
    negative_eigenvalues((100, 100, 100), tuple(range(95)))
    beside_others((100, 100, 100), tuple(range(95)))
    negative_eigenvalues((71,) * 5, tuple(range(1, 71)))
