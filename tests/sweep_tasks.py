"""Tasks for the tests of sweeps, in a module that worker processes can import."""

import os
import signal
import sys
import time

import numpy as np
import xarray as xr

import dlnds as dl


def plain(a, b, rng):
    """Numbers, text, integers, matrix products that depend on the number of threads."""
    matrix = rng.normal(size=(80, 80))
    values = {
        "size": float(np.linalg.norm(matrix @ matrix.T)) * a,
        "count": int(rng.integers(100)),
        "trace": ("k", rng.normal(size=3)),
        "word": f"{a}-{b}",
    }
    return xr.Dataset(values, coords={"k": ["x", "y", "z"]}, attrs={"same": 1, "own": a})


def quick(i, rng):
    """A few milliseconds of work."""
    time.sleep(0.002)
    return xr.Dataset({"value": ("k", rng.normal(size=4)), "twice": 2 * i})


def slow(i, rng):
    time.sleep(0.05)
    return xr.Dataset({"value": ("k", rng.normal(size=4)), "twice": 2 * i})


def learns(scale, depth, rng):
    """A real run, compiled."""
    net = dl.LinearNetwork(widths=(2,) * (depth + 1), target=[[2.0, 0.0], [0.0, 1.0]])
    run = dl.flow(net, net.initial(scale=scale, rng=rng), save=())
    return xr.Dataset({"end": run["loss"][-1].item(), "steps": run.attrs["n_steps"]})


def troubled(what):
    """Every way in which a task can go wrong."""
    if what == "raises":
        raise ArithmeticError("told so")
    if what == "exits":
        sys.exit("bye")
    if what == "nan":
        return xr.Dataset({"x": 1.0, "y": ("k", [1.0, np.nan])})
    if what == "number":
        return 3.0
    if what == "dims":
        return xr.Dataset({"x": ("k", [1.0]), "y": ("k", [1.0, 2.0][:1])})
    if what == "sizes":
        return xr.Dataset({"x": 1.0, "y": ("k", [1.0, 2.0, 3.0])})
    if what == "coordinates":
        return xr.Dataset({"x": 1.0, "y": ("k", [1.0, 2.0])}, coords={"k": [5, 6]})
    if what == "names":
        return xr.Dataset({"x": 1.0, "what": 1.0})
    if what == "objects":
        return xr.Dataset({"x": ("k", np.array([None, {}], dtype=object))})
    if what == "attributes":
        return xr.Dataset({"x": 1.0}, attrs={"thing": object()})
    if what == "empty":
        return xr.Dataset()
    if what == "hangs":
        time.sleep(1000.0)
    if what == "hangs deep":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        time.sleep(1000.0)
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return xr.Dataset({"x": 1.0, "y": ("k", [1.0, 2.0])})


def fills(i):
    return xr.Dataset({"text": "x" * 10_000 * i})


def raises_in_the_second_half(i):
    if i > 4:
        raise ValueError("no")
    return xr.Dataset({"x": i})


FACTOR = 2.0


def multiplies(i):
    return xr.Dataset({"x": FACTOR * i})
