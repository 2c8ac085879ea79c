"""Engines keep BLAS to one thread where another does not pay, and give it back."""

import importlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import scipy.linalg  # noqa: F401 - loads the library that compiled code calls
import threadpoolctl

import dlnds as dl
from dlnds import threads

SMALL = dl.LinearNetwork(widths=(2, 3, 2), target=np.diag([2.0, 1.0]))
DESCENT = dl.GradientDescent(SMALL, step_size=0.1)
START, SADDLE = SMALL.initial(scale=0.5, rng=0), SMALL.critical_state((0,))


@pytest.fixture(autouse=True)
def two():
    """Let the caller have two threads."""
    with threadpoolctl.threadpool_limits(2):
        yield
        assert count() == {2}


def count():
    """Return the numbers of threads that the libraries of BLAS have."""
    known = threadpoolctl.threadpool_info()
    return {library["num_threads"] for library in known if library["user_api"] == "blas"}


def test_small_products_take_one_thread_and_large_ones_those_of_the_caller():
    with threads.threads_for(1e6):
        assert count() == {1}
        with threads.threads_for(1e12):  # inside of small ones there is nothing large
            assert count() == {1}
        assert count() == {1}
    with threads.threads_for(1e12):
        assert count() == {2}


def test_the_number_is_given_back_after_an_error():
    def engine():
        with threads.threads_for(1.0), threads.single_threaded():
            assert count() == {1}
            raise RuntimeError

    with pytest.raises(RuntimeError):
        engine()
    assert count() == {2}


def test_the_last_of_several_threads_gives_the_number_back():
    together = Barrier(3)

    def engine(i):
        with threads.threads_for(1.0) if i else threads.single_threaded():
            together.wait(10.0)
            return count()

    with ThreadPoolExecutor(3) as pool:
        for _ in range(20):
            assert list(pool.map(engine, range(3))) == 3 * [{1}]
            assert count() == {2}


ENGINES = {
    "flow": ("runs.flow.integrate", lambda: dl.flow(SMALL, START, (0.0, 1.0))),
    "stack": ("runs.flow.together", lambda: dl.flow(SMALL, [START, START], (0.0, 1.0), workers=2)),
    "iterate": ("runs.flow.observed", lambda: dl.iterate(DESCENT, START, n_steps=3)),
    "lyapunov": (
        "runs.lyapunov._Motion.advance",
        lambda: dl.lyapunov_spectrum(SMALL, START, (0, 9)),
    ),
    "iterative": (
        "theory.spectra.lowest_modes",
        lambda: dl.linearize(SMALL, SADDLE, method="iterative"),
    ),
    "dense": (
        "theory.spectra.symmetric_modes",
        lambda: dl.linearize(SMALL, SADDLE, method="dense"),
    ),
    "newton": ("landscape.newton.Search.run", lambda: dl.find_critical_point(SMALL, START)),
    "branch": (
        "continuation.branches.followed",
        lambda: dl.branch(lambda x, p: p + x**2, [1.0], -1.0, bounds=(-1.1, -0.9)),
    ),
    "diagram": (
        "continuation.diagram._found",
        lambda: dl.diagram(lambda x, p: p + x**2, [1.0], -1.0, bounds=(-1.1, -0.9)),
    ),
    "escape": ("saddles.directions._leading", lambda: dl.escape_directions(SMALL)),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_keep_small_products_to_one_thread(engine, monkeypatch):
    (place, call), seen = ENGINES[engine], []
    *modules, name = place.split(".")
    owner = importlib.import_module(".".join(["dlnds", *modules[:2]]))
    for part in modules[2:]:
        owner = getattr(owner, part)
    inner = getattr(owner, name)

    def watched(*arguments, **options):
        seen.append(count())
        return inner(*arguments, **options)

    monkeypatch.setattr(owner, name, watched)
    call()
    assert seen
    assert seen == len(seen) * [{1}]
