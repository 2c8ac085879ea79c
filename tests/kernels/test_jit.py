"""What compiling costs, and what is said of it."""

import gc
import importlib
import os
import pathlib
import pkgutil
import shutil
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import dlnds as dl
from dlnds import _kernels
from dlnds._kernels import dense, jit

pytestmark = pytest.mark.skipif(jit.DISABLED, reason="nothing is compiled")


def slow_kernel(cached=True):
    """Return what `jit.ready` takes for a kernel, which takes a while to compile."""
    kernel = types.SimpleNamespace(__name__="slow", overloads={}, _can_compile=True)
    kernel.stats = types.SimpleNamespace(cache_path="here" if cached else None)
    library = types.SimpleNamespace(get_pointer_to_function=lambda name: 0)
    names = types.SimpleNamespace(llvm_func_name="f", llvm_cfunc_wrapper_name="g")
    result = types.SimpleNamespace(fndesc=names, library=library, entry_point=None)

    def compiled(signature):
        time.sleep(0.3)
        kernel.overloads[signature.args] = result

    kernel.compile, kernel.disable_compile = compiled, lambda: None
    return kernel


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(jit, "PATIENCE", 0.05)
    monkeypatch.setattr(jit._Patience, "told", False)
    monkeypatch.setattr(jit._Patience, "waited", 0.0)


def test_an_interactive_session_is_told_once_what_it_waits_for(impatient, monkeypatch, capsys):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    jit.ready(slow_kernel(), jit.FIELD)
    told = capsys.readouterr()
    assert "'slow'" in told.err
    assert "once per machine" in told.err
    assert not told.out
    jit.ready(slow_kernel(), jit.FIELD)
    assert not capsys.readouterr().err


def test_what_is_short_adds_up_until_it_is_told(impatient, monkeypatch, capsys):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr(jit, "PATIENCE", 0.45)
    jit.ready(slow_kernel(), jit.FIELD)
    assert not capsys.readouterr().err
    jit.ready(slow_kernel(), jit.FIELD)
    assert "once per machine" in capsys.readouterr().err


def test_scripts_are_told_nothing(impatient, monkeypatch, capsys):
    monkeypatch.delattr(sys, "ps1", raising=False)
    jit.ready(slow_kernel(), jit.FIELD)
    assert not capsys.readouterr().err


def test_nothing_is_told_of_what_is_compiled_each_time(impatient, monkeypatch, capsys):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    jit.ready(slow_kernel(cached=False), jit.FIELD)
    assert not capsys.readouterr().err


@jit.jit
def sums_of_rooms(size, out):
    """Write what is in three vectors after all are filled, the first through a view of it."""
    first, second = dense.room(size), dense.room(size)
    first[:], second[:] = 1.0, 2.0
    view = dense.matrix_at(first, 0, 1, size)  # the vector itself has no further use
    third = dense.room(size)
    third[:] = 3.0
    out[0], out[1], out[2] = view.sum(), second.sum(), third.sum()


@pytest.mark.parametrize("size", [0, 1, dense.LITTLE, dense.LITTLE + 1, 100_000])
def test_rooms_are_apart_and_last_as_long_as_they_are_used(size):
    out = np.empty(3)
    sums_of_rooms(size, out)
    assert out.tolist() == [size, 2 * size, 3 * size]


@jit.jit
def pick(pairs, number, out):
    """Copy one of the arrays of a tuple, and use the other."""
    chosen, other = pairs[0] if number == 0 else pairs[1], pairs[1]
    row = chosen[0]
    out[:] = row + 0.0 * other[0]


def test_arrays_that_kernels_are_given_are_neither_kept_nor_let_go():
    pairs, out = (np.zeros((2, 3)), np.ones((2, 3))), np.empty(3)
    pick(pairs, 0, out)  # to compile leaves garbage that holds what was given
    gc.collect()
    held, picked = [sys.getrefcount(a) for a in (*pairs, out)], []
    for number in (0, 1, 1):
        pick(pairs, number, out)
        picked.append(float(out.sum()))
    assert picked == [0.0, 3.0, 3.0]
    assert [sys.getrefcount(a) for a in (*pairs, out)] == held


COUNTED = """
import numba.core.event as event
compiled = []
class Listener(event.Listener):
    def on_start(self, e):
        compiled.append(e.data["dispatcher"].py_func.__qualname__)
    def on_end(self, e):
        pass
event.register("numba:compile", Listener())
import dlnds as dl
from dlnds import _kernels
{work}
print(compiled)
"""
FIRST_RUNS = """
net = dl.LinearNetwork(widths=(2, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])
for method in ("auto", "radau"):
    dl.flow(net, net.initial(scale=1e-2, rng=0), (0.0, 2.0), method=method)
"""


def compiled_by(work, cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    run = subprocess.run(
        [sys.executable, "-c", COUNTED.format(work=work)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return run.stdout.strip()


def with_files():
    """Yield the names of all kernels that have files of their own in Numba's cache."""
    for module in pkgutil.iter_modules(_kernels.__path__):
        folder = importlib.import_module(f"{_kernels.__name__}.{module.name}")
        for kernel in vars(folder).values():
            if isinstance(kernel, Dispatcher) and kernel.stats.cache_path is not None:
                text = kernel.py_func.__code__.co_filename
                yield f"{pathlib.Path(text).stem}.{kernel.py_func.__qualname__}"


@pytest.mark.slow
def test_nothing_is_left_to_compile_after_all_cores_have(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    assert "advance" in compiled_by(FIRST_RUNS, tmp_path.parent / "other")
    subprocess.run([sys.executable, "-m", "dlnds", "warm"], env=environment, check=True)
    files = sorted(tmp_path.glob("**/*.nb[ic]"))
    names = {path.name.partition("-")[0] for path in files if path.suffix == ".nbi"}
    assert names == set(with_files())
    again = "for number in range(len(_kernels._groups())): _kernels.compile_group(number)"
    assert compiled_by(again, tmp_path) == "[]"
    assert compiled_by(FIRST_RUNS, tmp_path) == "[]"
    assert sorted(tmp_path.glob("**/*.nb[ic]")) == files


ASKED = """
from dlnds._kernels import caller
print(caller.ask(), sum(caller.ask.stats.cache_hits.values()))
"""
CALLEE = "from dlnds._kernels.jit import part\n\n@part\ndef number():\n    return {}\n"
CALLER = """
from dlnds._kernels.callee import number
from dlnds._kernels.jit import jit

@jit
def ask():
    return number()
"""


def printed(code, folder, cache):
    """Return what another process prints, with the package that lies in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(cache)}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return run.stdout.split()


def test_an_edit_of_what_a_kernel_calls_is_compiled_and_nothing_else_is(tmp_path):
    package = pathlib.Path(dl.__file__).parent
    tree, cache = tmp_path / "tree", tmp_path / "cache"
    shutil.copytree(package, tree / "dlnds", ignore=shutil.ignore_patterns("__pycache__"))
    kernels = tree / "dlnds" / "_kernels"
    callee = kernels / "callee.py"
    (kernels / "caller.py").write_text(CALLER, encoding="utf-8")
    seen = []
    for number in (1, 2):  # texts of one length, and of one time: only the contents differ
        callee.write_text(CALLEE.format(number), encoding="utf-8")
        os.utime(callee, (1_000_000_000, 1_000_000_000))
        shutil.rmtree(kernels / "__pycache__", ignore_errors=True)  # Python goes by the time too
        seen += [printed(ASKED, tree, cache) for _ in range(2)]
    assert seen == [["1", "0"], ["1", "1"], ["2", "0"], ["2", "1"]]


GRADIENTS = """
import numpy as np, dlnds as dl
for decay in {decays}:
    net = dl.HomogeneousNetwork((2, 3, 1), np.eye(2), [1.0, -1.0], weight_decay=decay)
    x = net.initial(scale=0.1, rng=0)
    print(abs(net.gradient(x) - decay * x).sum())
"""


@pytest.mark.slow
@pytest.mark.parametrize("made", [[(0.0,), (0.5,)], [(0.5,), (0.0,)]])
def test_kernels_that_processes_have_compiled_in_any_order_go_together(made, tmp_path):
    """A kernel is compiled once by itself, and once for those that call it."""
    folder = pathlib.Path(dl.__file__).parents[1]
    alone = {d: printed(GRADIENTS.format(decays=d), folder, tmp_path) for d in made}
    for both in ((0.0, 0.5), (0.5, 0.0)):
        plain, decayed = map(float, printed(GRADIENTS.format(decays=both), folder, tmp_path))
        assert plain > 0.0
        assert decayed == pytest.approx(plain, rel=1e-14)
        assert {float(text) for (text,) in alone.values()} == {plain, decayed}
