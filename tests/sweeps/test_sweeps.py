"""Sweeps: nothing finished is lost, nothing damaged is taken, nothing depends on who computes."""

import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg  # noqa: F401 - loads its library before the threads of all are counted
import sweep_tasks as tasks
import threadpoolctl
import xarray as xr

import dlnds as dl
from dlnds.store import SEAL
from dlnds.sweeps import folder as records
from dlnds.sweeps import sweep as sweeps
from dlnds.sweeps import workers as pools

TESTS = Path(__file__).parents[1]
PLAIN = {"a": [1, 2, 3], "b": [0.5, 2.0]}


def words(found):
    return dl.schema.decode(found["status"]).values.tolist()


def files(folder):
    """What is in the files of points, and which files they are."""
    return {
        p.name: (p.read_bytes(), p.stat().st_ino, p.stat().st_mtime_ns)
        for p in sorted((folder / "points").iterdir())
    }


class Shuffled(ThreadPoolExecutor):
    """Threads that take work in another order than it was given."""

    def submit(self, function, /, *args):
        def later():
            time.sleep(random.Random(args[1].number).uniform(0.0, 0.02))
            return function(*args)

        return super().submit(later)


# Laws of results


def test_results_do_not_depend_on_who_computes_them(tmp_path):
    reference = dl.sweep(tasks.plain, PLAIN, tmp_path / "one", rng=7)
    dl.schema.validate(reference)
    with Shuffled(4) as threads:
        shuffled = dl.sweep(tasks.plain, PLAIN, tmp_path / "shuffled", rng=7, executor=threads)
    pooled = dl.sweep(tasks.plain, PLAIN, tmp_path / "two", rng=7, workers=2)
    for other in (shuffled, pooled, dl.collect(tmp_path / "two")):
        xr.testing.assert_identical(other, reference)
    contents = [[c for c, *_ in files(tmp_path / n).values()] for n in ("one", "shuffled", "two")]
    assert contents[0] == contents[1] == contents[2]


def test_each_point_has_the_generator_of_its_number(tmp_path):
    found = dl.sweep(tasks.plain, PLAIN, tmp_path / "s", rng=7)
    for number in range(6):
        generator = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(number,)))
        a, b = PLAIN["a"][number // 2], PLAIN["b"][number % 2]
        one, at = tasks.plain(a, b, generator), found.sel(a=a, b=b)
        assert at["count"].item() == one["count"].item()
        np.testing.assert_array_equal(at["trace"], one["trace"])
        assert at["word"].item() == f"{a}-{b}"


def test_the_dataset_is_labelled_and_can_be_stored(tmp_path):
    found = dl.sweep(tasks.plain, PLAIN, tmp_path / "s", rng=7)
    assert dict(found.sizes) == {"a": 3, "b": 2, "k": 3}
    assert found["trace"].dims == ("a", "b", "k")
    assert found["count"].dtype.kind == "i"
    assert found.attrs["same"] == 1
    assert "own" not in found.attrs
    assert found.attrs["rng_entropy"] == "7"
    assert found.attrs["n_finished"] == 6
    dl.save(found, tmp_path / "found.nc")
    assert dl.load(tmp_path / "found.nc").identical(found)


def no_rng(a, b=1.0):
    return xr.Dataset({"sum": a + b})


def test_points_may_come_from_a_mapping_a_dataset_or_a_table(tmp_path):
    product = dl.sweep(no_rng, {"a": [1.0, 2.0], "b": [10.0, 20.0]}, tmp_path / "product")
    assert product["sum"].values.tolist() == [[11.0, 21.0], [12.0, 22.0]]
    same = xr.Dataset(coords={"a": [1.0, 2.0], "b": [10.0, 20.0]})
    again = dl.sweep(no_rng, same, tmp_path / "again")
    np.testing.assert_array_equal(again["sum"], product["sum"])
    table = pd.DataFrame({"a": [1.0, 2.0, 2.0], "b": [3.0, 3.0, 4.0]})
    listed = dl.sweep(no_rng, table, tmp_path / "listed")
    assert listed["sum"].values.tolist() == [4.0, 5.0, 6.0]
    assert listed["a"].dims == ("point",)
    crossed = xr.Dataset({"a": ("x", [1.0, 2.0]), "b": (("x", "y"), np.ones((2, 3)))})
    assert dl.sweep(no_rng, crossed, tmp_path / "crossed")["sum"].sizes == {"x": 2, "y": 3}
    assert dl.sweep(no_rng, {"a": [1.0]}, tmp_path / "default")["sum"].values.tolist() == [2.0]


def test_points_keep_their_places_whatever_the_order_of_dims(tmp_path):
    steps = xr.DataArray(np.arange(6.0).reshape(3, 2), dims=("y", "x"))
    grid = xr.Dataset(coords={"x": [1.0, 2.0], "y": [5, 6, 7]}).assign(a=steps, b=steps * 10.0)
    found = dl.sweep(no_rng, grid, tmp_path / "s")
    np.testing.assert_array_equal(found["sum"].transpose("y", "x"), 11.0 * steps)
    assert dl.collect(tmp_path / "s").identical(found)
    (tmp_path / "s" / "points" / "00000004.record").unlink()
    assert sweeps.continue_sweep(tmp_path / "s").identical(found)


def has_own_points(a):
    return xr.Dataset({"x": ("point", [a, 2.0, 3.0])}, coords={"point": [5, 6, 7]})


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<i2", ">u4"])
def test_points_of_a_task_and_bytes_of_a_grid_are_no_matter(tmp_path, dtype):
    grid = {"a": np.array([1, 4], dtype)}
    found = dl.sweep(has_own_points, grid, tmp_path / "s")
    assert found["x"].dims == ("a", "point")
    assert found["x"].values.tolist() == [[1.0, 2.0, 3.0], [4.0, 2.0, 3.0]]
    assert found["point"].values.tolist() == [5, 6, 7]
    assert dl.collect(tmp_path / "s").identical(found)


def test_seeds_are_kept_and_compared(tmp_path):
    drawn = dl.sweep(tasks.quick, {"i": [1, 2]}, tmp_path / "none")
    assert dl.sweep(tasks.quick, {"i": [1, 2]}, tmp_path / "none").identical(drawn)
    other = dl.sweep(tasks.quick, {"i": [1, 2]}, tmp_path / "other")
    assert other.attrs["rng_entropy"] != drawn.attrs["rng_entropy"]
    first = dl.sweep(tasks.quick, {"i": [1]}, tmp_path / "a", rng=np.random.default_rng(3))
    second = dl.sweep(tasks.quick, {"i": [1]}, tmp_path / "b", rng=np.random.default_rng(3))
    assert first.identical(second)
    with pytest.raises(ValueError, match="^rng: the sweep in .* was begun with"):
        dl.sweep(tasks.quick, {"i": [1, 2]}, tmp_path / "none", rng=1)


# Laws of failures


@pytest.mark.compiled
def test_every_failure_has_its_status_inputs_and_traceback(tmp_path):
    expected = {
        "fine": "finished", "fine too": "finished", "fine as well": "finished",
        "raises": "raised", "exits": "raised", "nan": "not_a_number", "number": "wrong_form",
        "dims": "wrong_form", "sizes": "wrong_form", "coordinates": "wrong_form",
        "names": "wrong_form", "objects": "wrong_form", "attributes": "wrong_form",
        "empty": "wrong_form", "hangs": "timed_out", "dies": "died",
    }  # fmt: skip
    folder = tmp_path / "s"
    found = dl.sweep(tasks.troubled, {"what": list(expected)}, folder, workers=2, time_limit=2.0)
    assert dict(zip(expected, words(found), strict=True)) == expected
    bad = found["status"].values != 0
    assert np.isnan(found["x"].values[bad]).all()
    assert (found["x"].values[~bad] == 1.0).all()
    notes = {}
    for path in (folder / "failures").iterdir():
        _, note = records.decode(path.read_bytes())
        notes[note["inputs"]["what"]] = note
    others = {"sizes", "coordinates", "dims"}  # whole results, which only others tell to be wrong
    assert {what: note["status"] for what, note in notes.items()} == {
        what: status
        for what, status in expected.items()
        if status != "finished" and what not in others
    }
    assert "ArithmeticError: told so" in notes["raises"]["traceback"]
    assert "sweep_tasks.py" in notes["raises"]["traceback"]
    assert notes["hangs"]["message"] == "took more than 2.0 s"
    assert notes["dies"]["message"] == "its worker process died, 3 times"
    assert notes["names"]["message"].endswith("uses the name what of the grid")
    before = files(folder)
    assert dl.sweep(tasks.troubled, {"what": list(expected)}, folder).identical(found)
    assert files(folder) == before


@pytest.mark.slow
def test_a_task_that_cannot_be_interrupted_is_ended(tmp_path):
    grid = {"what": ["fine", "hangs deep", "fine too", "fine as well"]}
    begin = time.monotonic()
    found = dl.sweep(tasks.troubled, grid, tmp_path / "s", workers=2, time_limit=1.0)
    assert words(found) == ["finished", "timed_out", "finished", "finished"]
    assert time.monotonic() - begin < 60.0


def test_failures_are_computed_again_only_on_request(tmp_path, monkeypatch):
    def count(number):
        return [s == "raised" for s in words(number)].count(True)

    monkeypatch.setenv("DLNDS_TEST_FAIL", "1")
    grid = {"i": [0, 1, 2]}
    assert count(dl.sweep(fails_by_environment, grid, tmp_path / "s")) == 3
    monkeypatch.delenv("DLNDS_TEST_FAIL")
    assert count(dl.sweep(fails_by_environment, grid, tmp_path / "s")) == 3
    healed = dl.sweep(fails_by_environment, grid, tmp_path / "s", retry=True)
    assert count(healed) == 0
    assert list((tmp_path / "s" / "failures").iterdir()) == []


def has_a_form_by_environment(i):
    wrong = i == 1 and os.environ.get("DLNDS_TEST_FAIL")
    return xr.Dataset({"x": ("k", [1.0] * (2 if wrong else 3))})


def test_results_of_another_form_are_computed_again_on_request(tmp_path, monkeypatch):
    grid, folder = {"i": [0, 1, 2]}, tmp_path / "s"
    monkeypatch.setenv("DLNDS_TEST_FAIL", "1")
    assert words(dl.sweep(has_a_form_by_environment, grid, folder))[1] == "wrong_form"
    monkeypatch.delenv("DLNDS_TEST_FAIL")
    assert words(dl.sweep(has_a_form_by_environment, grid, folder))[1] == "wrong_form"
    before = files(folder)
    healed = dl.sweep(has_a_form_by_environment, grid, folder, retry=True)
    assert words(healed) == ["finished"] * 3
    assert list((folder / "failures").iterdir()) == []
    assert [name for name in before if files(folder)[name] != before[name]] == ["00000001.record"]


def fails_by_environment(i):
    if os.environ.get("DLNDS_TEST_FAIL"):
        raise ValueError("on purpose")
    return xr.Dataset({"x": i})


def test_the_first_failure_ends_the_sweep_on_request(tmp_path):
    task, grid = tasks.raises_in_the_second_half, {"i": range(10)}
    with pytest.raises(RuntimeError, match=r"i=5: raised: ValueError: no"):
        dl.sweep(task, grid, tmp_path / "s", on_failure="raise")
    assert words(dl.collect(tmp_path / "s"))[:5] == ["finished"] * 5
    with pytest.raises(RuntimeError, match=r"i=\d: raised: ValueError: no"):
        dl.sweep(task, grid, tmp_path / "s", on_failure="raise")
    marked = dl.sweep(task, grid, tmp_path / "s")
    assert words(marked) == ["finished"] * 5 + ["raised"] * 5
    assert marked["x"].dtype.kind == "f"


# Laws of resuming


def test_only_what_is_missing_or_damaged_is_computed_again(tmp_path):
    folder = tmp_path / "s"
    reference = dl.sweep(tasks.plain, PLAIN, folder, rng=7)
    before = files(folder)
    (folder / "points" / "00000001.record").unlink()
    damaged = folder / "points" / "00000004.record"
    damaged.write_bytes(damaged.read_bytes()[:-100] + b"?" * 100)
    for place in (folder, folder / "points", folder / "failures"):
        (place / ".00000003.record.0123456789ab.tmp").write_bytes(b"half")
    assert words(dl.verify(folder)) == [
        ["finished", "missing"],
        ["finished"] * 2,
        ["damaged", "finished"],
    ]
    assert dl.verify(folder).attrs["n_finished"] == 4
    partial = dl.collect(folder)
    assert np.isnan(partial["size"].values.ravel()[[1, 4]]).all()
    assert partial["word"].values.ravel()[1] == ""
    assert dl.sweep(tasks.plain, PLAIN, folder).identical(reference)
    after = files(folder)
    assert [name for name in after if after[name] != before[name]] == [
        "00000001.record", "00000004.record",
    ]  # fmt: skip
    assert [c for c, *_ in after.values()] == [c for c, *_ in before.values()]
    assert list(folder.rglob("*.tmp")) == []


def write_task(folder, text):
    """Return the task of a module that is written anew."""
    name = f"module_{abs(hash(text))}"
    path = folder / f"{name}.py"
    path.write_text("import xarray as xr\nFACTOR = 2.0\ndef half(x):\n    return x / 2\n" + text)
    spec = __import__("importlib.util").util.spec_from_file_location(name, path)
    module = __import__("importlib.util").util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_another_task_grid_or_seed_is_refused_and_named(tmp_path):
    folder = tmp_path / "s"
    text = "def task(x):\n    return xr.Dataset({'y': FACTOR * half(x)})\n"
    module = write_task(tmp_path, text)
    dl.sweep(module.task, {"x": [1.0, 2.0]}, folder)
    module.FACTOR = 3.0
    with pytest.raises(ValueError, match="^task: differs from that of the directory in FACTOR;"):
        dl.sweep(module.task, {"x": [1.0, 2.0]}, folder)
    module.FACTOR = 2.0
    with pytest.raises(ValueError, match="^grid: differs from that of the directory in x;"):
        dl.sweep(module.task, {"x": [1.0, 2.5]}, folder)
    with pytest.raises(ValueError, match="^grid: has the sizes {'x': 3}"):
        dl.sweep(module.task, {"x": [1.0, 2.0, 3.0]}, folder)
    changed = write_task(tmp_path, text.replace("half(x)", "half(x) + 1"))
    with pytest.raises(ValueError, match="^task: differs from that of the directory in task;"):
        dl.sweep(changed.task, {"x": [1.0, 2.0]}, folder)
    same = write_task(tmp_path, text + "\n# nothing that the task uses\n")
    assert dl.sweep(same.task, {"x": [1.0, 2.0]}, folder)["y"].values.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="^directory: .* holds a sweep already"):
        dl.sweep(module.task, {"x": [1.0, 2.0]}, folder, resume=False)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("K = 8\ndef task(x, k=K):", "K"),
        ("K = 8\ndef h(x, *, k=K):\n    return k\ndef task(x):\n    h(x)", "K"),
        ("K = [None, range(8)]\ndef task(x):\n    K", "K"),
        ("K = {b'8'}\ndef task(x):\n    K", "K"),
        ("K = np.float32(8)\ndef task(x):\n    K", "K"),
        ("K = [np.ones(8)]\ndef task(x):\n    K", "K"),
        ("K = lambda x: 8\nL = lambda x: 3\ndef task(x):\n    K, L", "K"),
        ("K = {'a': lambda x: 8}\ndef task(x):\n    K", "K"),
        ("K = functools.cache(lambda x: 8)\ndef task(x):\n    K", "K"),
        ("class K:\n    x = 8\ndef task(x):\n    K()", "K"),
        ("class K(enum.Enum):\n    A = 8\ndef task(x):\n    K.A", "K"),
        ("L = 8\nclass J:\n    x = L\nclass K(J):\n    pass\ndef task(x):\n    K()", "L"),
        ("L = 8\nclass K:\n    @property\n    def f(self):\n        return L\n"
         "def task(x):\n    K()", "L"),
        ("def decorated(f):\n    return f\n@decorated\ndef h(x):\n    return 8\n"
         "def task(x):\n    h", "h"),
    ],
)  # fmt: skip
def test_whatever_a_task_uses_of_its_module_is_compared(tmp_path, monkeypatch, text, named):
    def written(text):
        head = "import enum, functools\nimport numpy as np\n"
        module = write_task(tmp_path, head + text + "\n    return xr.Dataset({'y': 1.0})\n")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module.task

    dl.sweep(written(text), {"x": [1.0]}, tmp_path / "s")
    dl.sweep(written("# the same\n" + text), {"x": [1.0]}, tmp_path / "s")
    with pytest.raises(ValueError, match=f"^task: differs from that of the directory in {named};"):
        dl.sweep(written(text.replace("8", "9")), {"x": [1.0]}, tmp_path / "s")


@pytest.mark.compiled
def test_workers_whose_task_is_another_compute_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "FACTOR", 3.0)
    grid = {"i": [1.0, 2.0]}
    with pytest.raises(ValueError, match="^task: where it is computed it differs in FACTOR;"):
        dl.sweep(tasks.multiplies, grid, tmp_path / "s", workers=2)
    assert dl.collect(tmp_path / "s").attrs["n_finished"] == 0
    assert dl.sweep(tasks.multiplies, grid, tmp_path / "s")["x"].values.tolist() == [3.0, 6.0]


def test_a_file_of_another_point_or_sweep_is_not_taken(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    dl.sweep(tasks.quick, {"i": [0, 1, 2]}, one, rng=0)
    dl.sweep(tasks.quick, {"i": [0, 1, 2]}, other, rng=1)
    shutil.copy(one / "points" / "00000000.record", one / "points" / "00000001.record")
    shutil.copy(other / "points" / "00000002.record", one / "points" / "00000002.record")
    assert words(dl.verify(one)) == ["finished", "damaged", "damaged"]
    shutil.copy(other / "manifest.record", one / "manifest.record")
    assert words(dl.verify(one)) == ["damaged", "damaged", "finished"]


def looks_around(folder, i):
    seen = dl.collect(folder)
    return xr.Dataset({"seen": seen.attrs["n_finished"], "points": seen["status"].size})


def test_a_sweep_can_be_collected_while_it_runs(tmp_path):
    folder = tmp_path / "s"
    found = dl.sweep(looks_around, {"folder": [str(folder)], "i": range(8)}, folder)
    assert words(found) == [["finished"] * 8]
    seen = found["seen"].values[0]
    assert (np.diff(seen) >= 0).all()
    assert (seen <= np.arange(8)).all()


def test_there_is_one_writer(tmp_path):
    folder = tmp_path / "s"
    dl.sweep(no_rng, {"a": [1.0]}, folder)
    with (
        records.only_writer(folder),
        pytest.raises(ValueError, match=rf"^directory: process {os.getpid()} on .* is at work"),
    ):
        dl.sweep(no_rng, {"a": [1.0]}, folder)
    (folder / "lock").write_text("process 1 on this machine")  # of one that died
    assert words(dl.sweep(no_rng, {"a": [1.0]}, folder)) == ["finished"]


# Laws of growing


COMPUTED = []


def counted(a, b):
    COMPUTED.append((a, b))
    return xr.Dataset({"size": ("k", [a, a * b]), "word": f"{a} {b}"}, coords={"k": ["x", "y"]})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": [1, 3], "b": [0.5]}, {"a": [0, 1, 2, 3], "b": [2.0, 0.5]}),
        ({"b": [0.5, 2.0], "a": [3]}, {"a": [4, 3], "b": [2.0, 1.0, 0.5]}),
        ({"a": [1, 2], "b": [0.5]}, {"a": [2, 1], "b": [0.5]}),
        (
            pd.DataFrame({"a": [1, 2, 2], "b": [0.5, 1.0, 1.0]}),
            pd.DataFrame({"a": [2, 1, 2, 2], "b": [1.0, 0.5, 1.0, 1.0]}),
        ),
        (pd.DataFrame({"a": [2], "b": [0.5]}), {"a": [1, 2], "b": [0.5, 1.0]}),
    ],
)
def test_a_grown_grid_gives_what_a_fresh_sweep_gives_and_computes_what_is_new(tmp_path, old, new):
    folder = tmp_path / "s"
    COMPUTED.clear()
    first = dl.sweep(counted, old, folder, rng=3, extend=True)
    before = files(folder)
    COMPUTED.clear()
    grown = dl.sweep(counted, new, folder, extend=True)
    assert len(COMPUTED) == grown["status"].size - first["status"].size
    assert {name: files(folder)[name] for name in before} == before
    fresh = dl.sweep(counted, new, tmp_path / "fresh", rng=3)
    assert grown.drop_attrs(deep=False).identical(fresh.drop_attrs(deep=False))
    COMPUTED.clear()
    assert dl.collect(folder).identical(grown)
    assert dl.sweep(counted, new, folder).identical(grown)
    assert dl.sweep(counted, new, folder, extend=True).identical(grown)
    assert COMPUTED == []


def test_old_points_keep_their_random_numbers_when_a_grid_grows(tmp_path):
    first = dl.sweep(tasks.plain, PLAIN, tmp_path / "s", rng=7)
    more = {"a": [0, 1, 2, 3], "b": [2.0, 1.0, 0.5]}
    grown = dl.sweep(tasks.plain, more, tmp_path / "s", extend=True)
    same = grown.sel(a=PLAIN["a"], b=PLAIN["b"])
    for name in ("size", "count", "trace", "word"):
        np.testing.assert_array_equal(same[name], first[name])
    # New ones are numbered after the six old ones, in C order.
    for number, (a, b) in {6: (0, 2.0), 7: (0, 1.0), 8: (0, 0.5), 9: (1, 1.0)}.items():
        generator = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(number,)))
        one = tasks.plain(a, b, generator)
        np.testing.assert_array_equal(grown["trace"].sel(a=a, b=b), one["trace"])
    again = dl.sweep(tasks.plain, PLAIN, tmp_path / "t", rng=7)
    assert dl.sweep(tasks.plain, more, tmp_path / "t", extend=True, workers=2).identical(grown)
    assert again.identical(first)


def test_a_grown_grid_is_kept_with_those_before_it(tmp_path):
    folder = tmp_path / "s"
    for size in (1, 3, 4):
        found = dl.sweep(tasks.quick, {"i": range(size)}, folder, rng=0, extend=True)
    head, line, _ = (folder / "manifest.record").read_bytes().split(b"\n", 2)
    told = json.loads(line)["about"]
    assert head == b"dlnds record 2"
    assert [grid["sizes"] for grid in told["grids"]] == [{"i": 1}, {"i": 3}, {"i": 4}]
    assert (told["task"], told["rng_entropy"]) == ("sweep_tasks:quick", "0")
    assert told["grids"][0]["versions"]["dlnds"] == dl.__version__
    # Numbers that are appended are those of a fresh sweep, and so is what is random.
    fresh = dl.sweep(tasks.quick, {"i": range(4)}, tmp_path / "fresh", rng=0)
    assert found.drop_attrs(deep=False).identical(fresh.drop_attrs(deep=False))
    assert sweeps.continue_sweep(folder).identical(found)


def test_a_grid_that_lacks_what_is_there_is_refused(tmp_path):
    folder = tmp_path / "s"
    COMPUTED.clear()
    dl.sweep(counted, {"a": [1, 2], "b": [0.5]}, folder)
    for grid, message in [
        ({"a": [1, 3], "b": [0.5]}, "^grid: lacks the point a=2, b=0.5"),
        (
            {"a": [1, 2], "b": [1.0, 2.0]},
            "^grid: lacks the point a=1, b=0.5, which the directory has",
        ),
        ({"a": [1.0, 2.0, 3.0], "b": [0.5]}, "^grid: a has floats, the directory has integers"),
        ({"a": ["1", "2"], "b": [0.5]}, "^grid: a has text, the directory has integers"),
    ]:
        COMPUTED.clear()
        with pytest.raises(ValueError, match=message):
            dl.sweep(counted, grid, folder, extend=True)
    with pytest.raises(ValueError, match="^grid: .* with extend=True it may grow"):
        dl.sweep(counted, {"a": [1, 2, 3], "b": [0.5]}, folder)
    with pytest.raises(ValueError, match="^task: differs"):
        dl.sweep(no_rng, {"a": [1, 2, 3], "b": [0.5]}, folder, extend=True)
    with pytest.raises(TypeError, match="^extend: "):
        dl.sweep(counted, {"a": [1, 2], "b": [0.5]}, folder, extend=1)
    assert words(dl.collect(folder)) == [["finished"]] * 2


# Laws of damage


def interrupts_once(i, marker):
    if i == 3 and not os.path.exists(marker):
        Path(marker).touch()
        raise KeyboardInterrupt
    return xr.Dataset({"x": i})


def test_an_interrupted_sweep_keeps_what_was_finished(tmp_path):
    grid = {"i": range(6), "marker": [str(tmp_path / "marker")]}
    with pytest.raises(KeyboardInterrupt):
        dl.sweep(interrupts_once, grid, tmp_path / "s")
    assert dl.collect(tmp_path / "s").attrs["n_finished"] == 3
    found = dl.sweep(interrupts_once, grid, tmp_path / "s")
    assert found["x"].values.ravel().tolist() == list(range(6))


def test_a_full_disk_loses_nothing(tmp_path):
    whole = dl.sweep(tasks.fills, {"i": range(6)}, tmp_path / "whole", rng=0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (35_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"directory: .* cannot be written, what is there"):
            dl.sweep(tasks.fills, {"i": range(6)}, tmp_path / "s", rng=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert words(dl.collect(tmp_path / "s")) == ["finished"] * 4 + ["missing"] * 2
    assert list((tmp_path / "s").rglob("*.tmp")) == []
    assert dl.sweep(tasks.fills, {"i": range(6)}, tmp_path / "s").identical(whole)


READ_ONLY = """
import os, sys, dlnds as dl
sys.path.insert(0, sys.argv[1])
import sweep_tasks as tasks
dl.sweep(tasks.fills, {"i": [1, 2]}, sys.argv[2] + "/warm")
if os.geteuid() == 0:
    os.seteuid(65534)
for folder in sys.argv[2:]:
    try:
        dl.sweep(tasks.fills, {"i": [1, 2]}, folder + "/new")
    except ValueError as error:
        print(error)
try:
    dl.sweep(tasks.fills, {"i": [1, 2]}, sys.argv[2] + "/warm")
except ValueError as error:
    print(error)
print(dl.collect(sys.argv[2] + "/warm").attrs["n_finished"])
"""


def test_a_read_only_folder_is_refused_and_can_be_collected():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders let no other user in
        os.chmod(folder, 0o755)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(TESTS), folder],
            capture_output=True, text=True, timeout=120, check=True, umask=0o022,
        )  # fmt: skip
    refused, again, count = done.stdout.splitlines()
    assert refused.startswith(f"directory: {folder}/new cannot be written (")
    assert again.startswith(f"directory: {folder}/warm cannot be written (")
    assert count == "2"


def test_no_flipped_bit_and_no_truncation_is_silent(tmp_path):
    folder = tmp_path / "s"
    reference = dl.sweep(tasks.raises_in_the_second_half, {"i": [3, 4, 5]}, folder)
    kept = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "lock"]
    contents = {path: path.read_bytes() for path in kept}
    assert len(kept) == 1 + 3
    plan, rng = records.read_plan(folder), np.random.default_rng(0)
    for trial in range(1100):
        path = kept[trial % len(kept)]
        content = contents[path]
        if trial < 1000:
            damaged = bytearray(content)
            damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        else:
            damaged = content[: rng.integers(len(content))]
        path.write_bytes(damaged)
        if path.parent == folder:
            with pytest.raises(ValueError, match=f"^directory: {path.name} in .* is damaged"):
                dl.collect(folder)
            path.write_bytes(content)
            continue
        number = int(path.stem)
        assert plan.look(number)[0] == "damaged"
        if trial % 21 == 0:  # no multiple of 5, so that each file has its turn
            found = dl.collect(folder)
            assert words(found)[number] == "damaged"
            rest = [i for i in range(3) if i != number]
            np.testing.assert_array_equal(found["x"][rest], reference["x"][rest])
        path.write_bytes(content)
    assert dl.collect(folder).identical(reference)


def seal(content):
    return content + SEAL + hashlib.sha256(content).hexdigest().encode()


def record(words, numbers=b""):
    text = json.dumps(words).encode()
    return seal(records.HEAD + len(text).to_bytes(8, "little") + text + numbers)


def test_texts_are_not_blown_up_beyond_the_memory():
    found = {0: xr.Dataset({"x": "x" * 10**6}), 1: xr.Dataset({"x": ""})}
    with pytest.raises(ValueError, match="^directory: this takes 4,000,000,000,000 bytes"):
        sweeps._stacked(found, ["i"], [10**6])


def test_other_bytes_are_no_records():
    for content in (b"", SEAL, records.HEAD, seal(b""), seal(records.HEAD), seal(b"x" * 100)):
        with pytest.raises(ValueError, match="its bytes do not agree|not enough values"):
            records.decode(content)


def test_a_copy_without_empty_folders_goes_on(tmp_path):
    folder = tmp_path / "s"
    reference = dl.sweep(tasks.quick, {"i": [0, 1]}, folder, rng=0)
    (folder / "failures").rmdir()
    assert sweeps.progress_of(folder)["finished"] == 2
    assert dl.sweep(tasks.quick, {"i": [0, 1]}, folder).identical(reference)
    shutil.rmtree(folder / "points")
    assert words(dl.verify(folder)) == ["missing"] * 2
    assert dl.sweep(tasks.quick, {"i": [0, 1]}, folder).identical(reference)


def test_points_whose_manifest_is_gone_are_not_written_over(tmp_path):
    folder = tmp_path / "s"
    dl.sweep(tasks.quick, {"i": [0, 1]}, folder, rng=0)
    before = files(folder)
    (folder / "manifest.record").unlink()
    for grid, seed in (({"i": [0, 1]}, 0), ({"i": [0, 2]}, 0)):
        with pytest.raises(ValueError, match="^directory: .* holds points, but the manifest"):
            dl.sweep(tasks.quick, grid, folder, rng=seed)
    assert files(folder) == before


# Laws of arguments


def test_wrong_arguments_are_named(tmp_path):
    here = 3

    def closes(a):
        return xr.Dataset({"x": a + here})

    def tells(status):
        return xr.Dataset({"x": status})

    good = {"a": [1.0]}
    dated = xr.Dataset({"a": ("t", [1.0])}, coords={"t": np.array(["2000"], "M8[ns]")})
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    for error, name, call in [
        (TypeError, "task", (print, good, tmp_path / "s")),
        (TypeError, "task", (3, good, tmp_path / "s")),
        (TypeError, "task: takes here", (closes, good, tmp_path / "s")),
        (TypeError, "task", (lambda *a: None, good, tmp_path / "s")),
        (TypeError, "grid", (no_rng, [1, 2], tmp_path / "s")),
        (ValueError, "grid: is empty", (no_rng, {"a": []}, tmp_path / "s")),
        (ValueError, "grid: lacks a", (no_rng, {}, tmp_path / "s")),
        (ValueError, "grid: the task has no parameter 'c'", (no_rng, {"c": [1]}, tmp_path / "s")),
        (ValueError, "grid: 'a' needs numbers", (no_rng, {"a": [np.nan]}, tmp_path / "s")),
        (ValueError, "grid: 'a' has values that", (no_rng, {"a": [1, 1]}, tmp_path / "s")),
        (TypeError, "grid: 'a' mixes", (no_rng, {"a": [1, "b"]}, tmp_path / "s")),
        (TypeError, "grid: 'a' needs a seq", (no_rng, {"a": "text"}, tmp_path / "s")),
        (TypeError, "grid: 'a' needs real", (no_rng, {"a": [1j]}, tmp_path / "s")),
        (TypeError, "grid: 'a' needs real", (no_rng, {"a": [None]}, tmp_path / "s")),
        (ValueError, "grid: 'a' needs plain", (no_rng, {"a": [[1], [1, 2]]}, tmp_path / "s")),
        (TypeError, "grid: needs names", (no_rng, {3: [1]}, tmp_path / "s")),
        (ValueError, "grid: 'a' needs one dim", (no_rng, {"a": [[1, 2]]}, tmp_path / "s")),
        (ValueError, "grid: this takes", (no_rng, {"a": range(10**11)}, tmp_path / "s")),
        (TypeError, "grid: 'a' needs a seq", (no_rng, {"a": iter([1])}, tmp_path / "s")),
        (TypeError, "grid: 'a' needs a seq", (no_rng, {"a": {"x", "y"}}, tmp_path / "s")),
        (TypeError, "grid: 'a' needs a seq", (no_rng, {"a": b"ab"}, tmp_path / "s")),
        (TypeError, "grid: 'a' needs real", (no_rng, {"a": np.ones(1, "g")}, tmp_path / "s")),
        (ValueError, "grid: is empty", (no_rng, xr.Dataset({"a": 1.0}), tmp_path / "s")),
        (TypeError, "grid: 't' is of type", (no_rng, dated, tmp_path / "s")),
        (ValueError, "grid: needs columns", (no_rng, twice, tmp_path / "s")),
        (ValueError, "grid: 'status' is the name", (tells, {"status": [1]}, tmp_path / "s")),
        (TypeError, "directory", (no_rng, good, 3)),
        (ValueError, "directory", (no_rng, good, tmp_path / "no" / "s")),
        (ValueError, "directory", (no_rng, good, __file__)),
    ]:  # fmt: skip
        with pytest.raises(error, match=f"^{name}"):
            dl.sweep(*call)
    for error, name, options in [
        (ValueError, "workers", {"workers": 0}),
        (TypeError, "workers", {"workers": 1.5}),
        (TypeError, "executor", {"executor": 3}),
        (ValueError, "workers", {"executor": ThreadPoolExecutor(1), "workers": 2}),
        (ValueError, "time_limit", {"executor": ThreadPoolExecutor(1), "time_limit": 2.0}),
        (ValueError, "time_limit", {"time_limit": 0.0}),
        (ValueError, "on_failure", {"on_failure": "shrug"}),
        (TypeError, "resume", {"resume": 1}),
        (TypeError, "progress", {"progress": None}),
        (TypeError, "rng", {"rng": "seed"}),
        (TypeError, "worker: sweep has no such option; did you mean 'workers'", {"worker": 2}),
        (TypeError, "task: cannot be sent to another process", {"workers": 2}),
    ]:
        with pytest.raises(error, match=f"^{name}"):
            dl.sweep(lambda a: xr.Dataset({"x": a}), good, tmp_path / "s", **options)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="^directory: .* holds no sweep, but 'thesis.tex'"):
        dl.sweep(no_rng, good, tmp_path / "full")
    for function in (dl.collect, dl.verify):
        with pytest.raises(FileNotFoundError, match="^directory: "):
            function(tmp_path / "none")
        with pytest.raises(FileNotFoundError, match="^directory: .* holds no sweep"):
            function(tmp_path)


def test_threads_environment_and_folder_are_left_as_they_were(tmp_path):
    def state():
        threads = [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]
        return threads, dict(os.environ), os.getcwd(), signal.getsignal(signal.SIGINT)

    with threadpoolctl.threadpool_limits(2):
        before, grid = state(), dict(PLAIN)
        dl.sweep(tasks.plain, grid, tmp_path / "s", rng=0)
        with ThreadPoolExecutor(3) as threads:
            dl.sweep(tasks.plain, grid, tmp_path / "t", rng=0, executor=threads)
        assert state() == before
        assert grid == PLAIN


def test_progress_tells_rate_and_failures(tmp_path, capsys):
    grid = {"i": range(10)}
    dl.sweep(tasks.raises_in_the_second_half, grid, tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    dl.sweep(tasks.raises_in_the_second_half, grid, tmp_path / "s", progress=True)
    text = capsys.readouterr().err
    assert "10/10" in text
    assert "failed=5" in text
    assert "run/s" in text


def test_a_task_of_a_notebook_is_not_sent_to_workers(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(no_rng, "__module__", "__main__")
    job = pools.Job(no_rng, False, 0, "", (), None, {})
    with pytest.raises(TypeError, match="^task: was defined in a notebook"):
        next(pools.run_apart(job, [pools.Point(0, {"a": 1.0})], 2))


class Failing(ThreadPoolExecutor):
    """An executor that fails at once."""

    def __init__(self, error):
        super().__init__(1)
        self.error = error

    def submit(self, function, /, *args):
        def fail():
            raise self.error

        return super().submit(fail)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (AttributeError("Can't get local object"), TypeError, "^task: cannot be sent"),
        (ImportError("No module named 'study'"), TypeError, "^task: cannot be sent .*'study'"),
        (ValueError("task: it differs in K"), ValueError, "^task: it differs in K"),
        (BrokenExecutor("all gone"), RuntimeError, "^executor: broke down .all gone.; a new one"),
    ],
)
def test_an_executor_that_can_do_nothing_ends_the_sweep(tmp_path, error, kind, message):
    with Failing(error) as executor, pytest.raises(kind, match=message):
        dl.sweep(tasks.quick, {"i": range(20)}, tmp_path / "s", rng=0, executor=executor)
    assert dl.collect(tmp_path / "s").attrs["n_finished"] == 0
    assert dl.sweep(tasks.quick, {"i": range(20)}, tmp_path / "s").attrs["n_finished"] == 20


# Long versions


DRIVER = """
import os, signal, sys, time, dlnds as dl
from random import Random
sys.path.insert(0, sys.argv[1])
import sweep_tasks as tasks
def main():
    folder, kills, workers = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    grid, random = {"i": list(range(200))}, Random(0)
    work = lambda at: dl.sweep(tasks.quick, grid, at, rng=5, workers=workers)
    reference = work(folder + "/reference")  # imports, compiles
    begin = time.monotonic()
    work(folder + "/timed")
    duration = time.monotonic() - begin
    killed = completed = rounds = 0
    seen = {}
    while killed < kills:
        place = f"{folder}/{completed}"
        child = os.fork()
        if child == 0:
            work(place)
            os._exit(0)
        time.sleep(random.uniform(0.0, 0.6 * duration))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        rounds += 1
        points = place + "/points"
        now = {}
        if os.path.isdir(points) and os.path.exists(place + "/manifest.record"):
            states = dl.schema.decode(dl.verify(place).status).values.tolist()
            assert set(states) <= {"finished", "missing"}, states
            names = [n for n in os.listdir(points) if n.endswith(".record")]
            assert len(names) == states.count("finished"), "a file that is not whole"
            now = {n: os.stat(f"{points}/{n}").st_ino for n in names}
        assert seen.items() <= now.items(), "something finished was lost or computed again"
        seen = now
        if len(now) == 200 or rounds % 10 == 0 or killed == kills:
            assert work(place).identical(reference)
            assert {n: os.stat(f"{points}/{n}").st_ino for n in now} == now
            completed, seen = completed + 1, {}
    print(killed, completed)
if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(1, 100), (2, 5)])
def test_nothing_is_lost_when_the_sweep_is_killed(tmp_path, workers, kills):
    # One thread: a process with more of them must not fork.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    (tmp_path / "sweeps").mkdir()
    done = subprocess.run(
        [sys.executable, script, TESTS, tmp_path / "sweeps", str(kills), str(workers)],
        capture_output=True, text=True, timeout=1800, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    killed, completed = map(int, done.stdout.split())
    assert killed == kills
    assert completed >= 1


@pytest.mark.slow
def test_nothing_is_lost_when_workers_are_killed(tmp_path):
    grid, results = {"i": range(200)}, []
    reference = dl.sweep(tasks.slow, grid, tmp_path / "one", rng=5)

    def work():
        results.append(dl.sweep(tasks.slow, grid, tmp_path / "two", rng=5, workers=2))

    def finished():
        return len(list(tmp_path.glob("two/points/*.record")))

    thread, killed, choose, before = threading.Thread(target=work), 0, random.Random(0), 0
    thread.start()
    while thread.is_alive():
        time.sleep(choose.uniform(0.1, 1.0))
        children = multiprocessing.active_children()
        if children and killed < 5 and finished() > before:  # they have come up since the last
            before = finished()
            os.kill(choose.choice(children).pid, signal.SIGKILL)
            killed += 1
    thread.join()
    assert killed > 0
    assert results[0].identical(reference)


INTERRUPTED = """
import sys, dlnds as dl
sys.path.insert(0, sys.argv[1])
import sweep_tasks as tasks
if __name__ == "__main__":
    dl.sweep(tasks.slow, {"i": range(400)}, sys.argv[2], rng=5, workers=int(sys.argv[3]))
"""


def has_members(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_workers_end_with_the_process_that_began_them(tmp_path):
    script, folder = tmp_path / "script.py", tmp_path / "s"
    script.write_text(INTERRUPTED)
    command = [sys.executable, script, TESTS, folder, "2"]
    begun = subprocess.Popen(command, start_new_session=True)
    while len(list(folder.glob("points/*.record"))) < 20:
        time.sleep(0.1)
        assert begun.poll() is None
    begun.kill()
    begun.wait()
    last = time.monotonic() + 20.0
    while has_members(begun.pid) and time.monotonic() < last:
        time.sleep(0.1)
    assert not has_members(begun.pid)
    assert not records.is_locked(folder)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_lost_by_control_c(tmp_path, workers):
    script, folder = tmp_path / "script.py", tmp_path / "s"
    script.write_text(INTERRUPTED)
    begun = subprocess.Popen(
        [sys.executable, script, TESTS, folder, str(workers)],
        start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while len(list(folder.glob("points/*.record"))) < 20:
        time.sleep(0.1)
        assert begun.poll() is None
    os.killpg(begun.pid, signal.SIGINT)
    _, told = begun.communicate(timeout=60)
    assert "KeyboardInterrupt" in told
    states = words(dl.verify(folder))
    assert set(states) == {"finished", "missing"}
    before = files(folder)
    found = dl.sweep(tasks.slow, {"i": range(400)}, folder, workers=2)
    assert found.identical(dl.sweep(tasks.slow, {"i": range(400)}, tmp_path / "t", rng=5))
    assert {name: files(folder)[name] for name in before} == before


@pytest.mark.slow
def test_runs_of_networks_do_not_depend_on_the_number_of_workers(tmp_path):
    grid = {"scale": [1e-1, 1e-2, 1e-3, 1e-4], "depth": [2, 3, 4]}
    reference = dl.sweep(tasks.learns, grid, tmp_path / "1", rng=1)
    for workers in (2, 4):
        found = dl.sweep(tasks.learns, grid, tmp_path / str(workers), rng=1, workers=workers)
        assert found.identical(reference)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        found = dl.sweep(tasks.learns, grid, tmp_path / "executor", rng=1, executor=executor)
    assert found.identical(reference)


@pytest.mark.compiled
@pytest.mark.filterwarnings("default")
def test_a_cluster_gives_the_same_and_survives_a_worker_that_is_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    grid, results = {"i": range(60)}, []
    reference = dl.sweep(tasks.slow, grid, tmp_path / "one", rng=5)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:

        def work():
            results.append(dl.sweep(tasks.slow, grid, tmp_path / "two", rng=5, executor=client))

        thread = threading.Thread(target=work)
        thread.start()
        while len(list(tmp_path.glob("two/points/*.record"))) < 10:
            time.sleep(0.02)
            assert thread.is_alive()
        pids = sorted(client.run(os.getpid).values())
        os.kill(pids[0], signal.SIGKILL)
        thread.join()
    assert results[0].identical(reference)


@pytest.mark.slow
def test_a_script_that_lacks_the_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED.replace('if __name__ == "__main__":', "if True:"))
    done = subprocess.run(
        [sys.executable, script, TESTS, tmp_path / "s", "2"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "RuntimeError: workers: their processes did not start; a script that is run needs"
    )


def test_names_of_a_task_mean_what_they_mean_there(tmp_path):
    """A parameter may be called like a word of ours, and is not described as ours is."""

    def task(scale, loss):
        return xr.Dataset({"rate": scale + loss})

    found = dl.sweep(task, {"scale": [1.0, 2.0], "loss": [3.0]}, tmp_path / "sweep")
    for name in ("scale", "loss", "rate"):
        assert found[name].attrs["long_name"] == name
        assert found[name].attrs["symbol"] == ""
    assert found["status"].attrs["long_name"] != "status"


def test_a_turned_table_is_told_to_be_one(tmp_path):
    def task(a, b):
        return xr.Dataset({"sum": a + b})

    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    with pytest.raises(ValueError, match="^grid: .* a column for each parameter"):
        dl.sweep(task, table.T, tmp_path / "sweep")
