"""The command line, as a user calls it."""

import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

import dlnds as dl
from dlnds import cli
from dlnds.systems import problems


def call(*arguments, cwd, command=(sys.executable, "-m", "dlnds")):
    return subprocess.run(
        [*command, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def check_pictures(folder, stem="atlas"):
    for name in ("graph", "arcs", "loss", "singular-values"):
        picture = matplotlib.image.imread(folder / f"{stem}-{name}.png")
        assert picture.shape[0] > 500
        assert 0.001 < np.mean(picture[..., :3].min(axis=-1) < 0.9) < 0.9, "an empty picture"


@pytest.mark.compiled
def test_main_job_from_data_to_atlas(tmp_path):
    done = call("atlas", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    titles = next(line for line in lines if line.startswith("index set"))
    assert titles.split("  ")[0] == "index set"
    for word in ("rank", "loss", "kind", "Morse index", "nullity", "order", "fiber", "rate"):
        assert word in titles
    assert "256 critical points" in done.stdout
    assert "2,816 connections: 1,024 add a mode, 1,792 swap two" in done.stdout
    assert "8 runs from such starts: " in done.stdout
    last = next(line for line in lines if line.startswith("{0,1,2,3,4,5,6,7}"))
    assert last.split() == [
        *("{0,1,2,3,4,5,6,7}", "8", "0.000000", "global", "minimum"),
        *("0", "672", "0", "672", "-0.25"),
    ]
    assert "100%" in done.stderr
    for name in ("atlas.nc", "atlas-graph.png", "atlas-loss.png", "atlas-singular-values.png"):
        assert name in done.stdout
        assert (tmp_path / name).is_file()
    check_pictures(tmp_path)
    atlas = dl.load(tmp_path / "atlas.nc")
    dl.schema.validate(atlas)
    assert atlas["points"].sizes["critical_point"] == 256
    assert atlas["arcs"].sizes["arc"] == 7 * 1024 + 3 * 3584
    assert atlas["run"].attrs["limit"] == "{0,1,2,3,4,5,6,7}"
    assert atlas["connections"].sizes["edge"] == 2816
    visits = atlas["visits"].to_dataset()
    assert visits.sizes["sample"] == 8
    assert visits.attrs["rng_entropy"] == atlas["run"].attrs["rng_entropy"] == "0"
    one = dl.saddle_visits(dl.load_problem("semantic", hidden=(16, 16)), atlas["run"].to_dataset())
    assert visits.sequence.values[0].split() == one.critical_point.values.tolist()
    assert "number of samples" in atlas.attrs["normalization"]
    modes = atlas["modes"].to_dataset()
    learnt = (modes.left * modes.singular_value).dot(modes.reading, dim="mode")
    data = dl.read_csv("semantic")
    np.testing.assert_allclose(learnt.transpose("output", "feature"), data.Y, atol=1e-12)
    assert modes.output.values.tolist() == data.feature_out.values.tolist()


@pytest.mark.compiled
def test_own_csv_file_through_the_installed_command(tmp_path):
    shutil.copy(problems._data_folder() / "linnerud.csv", tmp_path / "mine.csv")
    (tmp_path / "out").mkdir()
    command = [str(Path(sys.executable).with_name("dlnds"))]
    arguments = (
        "atlas --data mine.csv --transform standardize --hidden 8 8 --out out/men.nc --quiet"
    )
    done = call(*arguments.split(), cwd=tmp_path, command=command)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    check_pictures(tmp_path / "out", "men")
    atlas = dl.load(tmp_path / "out" / "men.nc")
    np.testing.assert_allclose(atlas["modes"].singular_value, [0.9371, 0.0949, 0.0595], atol=5e-5)
    assert atlas.attrs["widths"].tolist() == [3, 8, 8, 3]


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["--raw-inputs"],
        ["--max-rank", "1"],
        ["--modes", "0", "2"],
        ["--rows", "3"],
        ["--runs", "0"],
        ["--html"],
        ["--saddle", "0"],
    ],
)
def test_variants_in_process(tmp_path, capsys, extra):
    out = str(tmp_path / "atlas.nc")
    code = cli.main(
        [
            "atlas",
            "--data",
            "linnerud",
            "--hidden",
            "4",
            "--scale",
            "0.3",
            "--out",
            out,
            "--quiet",
            *extra,
        ]
    )
    assert code == 0
    text = capsys.readouterr().out
    assert ("more rows" in text) == (extra == ["--rows", "3"])
    assert ("runs from such starts" in text) == (extra != ["--runs", "0"])
    assert ("connections: " in text) == (extra != ["--raw-inputs"])
    page = tmp_path / "atlas.html"
    assert page.exists() == (str(page) in text) == (extra == ["--html"])
    dl.schema.validate(dl.load(out))


def test_runs_are_told_in_a_few_lines():
    """Modes at once, swaps, and runs that were cut off."""
    net = dl.LinearNetwork(widths=(3, 3, 3, 3), target=np.diag([3.0, 2.0, 1.0]))
    swap = dl.edge_states(dl.connections(net), ("{1}", "{0}")).state.values[1]
    starts = [swap, net.initial("aligned", scale=0.01)]
    runs = dl.flow(net, np.stack(starts), save=["mode_strength"])
    text = cli._visits(dl.observed_connections(net, runs.isel(sample=[0])))
    assert text.splitlines()[:2] == [
        "1 run from such starts: 2 critical points visited, 1 transition, 1 along a connection",
        "most often (1 of 1) they learn modes 1, 0 for 1",
    ]
    assert text.splitlines()[2].startswith("on connections a mode grows in 1.00 to 1.00 times")
    fast = dl.observed_connections(net, runs.isel(sample=[0]))
    fast["mean_growth_time"] *= 1e-4
    assert "in 0.000100 to 0.000100 times" in cli._visits(fast), "digits show"
    cut = dl.flow(net, np.stack(starts), save=["mode_strength"], max_steps=5)
    assert "; 2 cut off" in cli._visits(dl.observed_connections(net, cut))
    assert cli._learning("{} {0,2} {0,1,2}") == "modes 0+2, 1"
    assert cli._learning("{}") == "no mode"
    assert cli._learning("{} {0}") == "mode 0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data digits --hidden 40 40", "1,073,741,824 critical points"),
        ("--data nothing.csv", "--data: there is no file nothing.csv"),
        ("--out atlas.csv", "--out: needs a file name that ends in .nc"),
        ("--hidden 99999999 99999999", "--hidden: this takes"),
        ("--hidden 0", "--hidden: needs at least 1"),
        ("--out none/atlas.nc", "--out: there is no folder none"),
        ("--data linnerud --modes 7", "--modes: needs at least 0 and at most 2"),
        ("--data linnerud --seed -1", "--seed: "),
        ("--data linnerud --runs -1", "--runs: needs at least 0"),
    ],
)
def test_errors_are_one_line_and_leave_no_files(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["atlas", "--quiet", *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("dlnds: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_data_are_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, option in (("mine.nc", []), ("mine.html", ["--html"])):
        (tmp_path / name).write_text("x:a,y:b\n1,2\n2,3\n")
        assert cli.main(["atlas", "--data", name, "--out", "mine.nc", *option]) == 2
        assert "--out: would overwrite the data" in capsys.readouterr().err


def test_a_run_that_does_not_end_says_what_would_help(tmp_path, capsys):
    out = str(tmp_path / "atlas.nc")
    arguments = f"atlas --data linnerud --hidden 4 4 4 4 --max-steps 50 --quiet --out {out}"
    assert cli.main(arguments.split()) == 0
    text = capsys.readouterr().out
    assert "out of steps" in text
    assert "it needs a larger --scale" in text


def test_help_documents_the_csv_form(capsys):
    with pytest.raises(SystemExit):
        cli.main(["atlas", "--help"])
    text = capsys.readouterr().out
    assert "x:NAME" in text
    assert "y:NAME" in text


def test_broken_assumptions_are_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text(
        "x:a,x:b,x:c,y:a,y:b,y:c\n1,0,0,5,0,0\n0,1,0,0,4,0\n0,0,1,0,0,3\n"
    )
    assert cli.main(["atlas", "--data", "d.csv", "--hidden", "3", "--quiet", "--scale", "0.3"]) == 0
    assert (
        "distinct subset sums: do NOT hold; for example {0} and {1,2} agree"
        in capsys.readouterr().out
    )


def test_modes_are_named_in_any_terminal(tmp_path):
    """Outputs 2 a and −b: the second falls with its input. The terminal knows ASCII only."""
    (tmp_path / "d.csv").write_text("x:a,x:é,y:c,y:d\n2,0,4,0\n0,2,0,-2\n", encoding="utf-8")
    arguments = ["atlas", "--data", "d.csv", "--hidden", "2", "--quiet", "--runs", "0"]
    command = ("env", "PYTHONIOENCODING=ascii", sys.executable, "-m", "dlnds")
    told = call(*arguments, cwd=tmp_path, command=command)
    assert told.returncode == 0, told.stderr
    assert "most read -> most written\n0: a -> c\n1: -? -> d\n" in told.stdout


def test_constant_columns_are_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("x:a,x:b,y:c\n1,2,3\n1,3,3\n1,5,3\n")
    call = ["atlas", "--data", "d.csv", "--hidden", "2", "--quiet", "--runs", "0"]
    assert cli.main([*call, "--transform", "center"]) == 0
    assert "there is no mode to learn" in capsys.readouterr().out
    (tmp_path / "d.csv").write_text("x:a,y:c\n1,2\n1,3\n")
    assert cli.main([*call, "--transform", "center"]) == 2
    assert capsys.readouterr().err.startswith(
        "dlnds: --data: all inputs are zero, as constant ones"
    )


def test_tables_of_spreadsheets_are_read(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ["x:a;x:b;y:c", "1,5;0;3", ";1;2", "0;1;2", "1;1;4,5"]
    (tmp_path / "d.csv").write_bytes("\r\n".join(rows).encode())
    call = ["atlas", "--data", "d.csv", "--hidden", "3", "--quiet", "--runs", "0"]
    assert cli.main(call) == 2
    assert "--data: d.csv needs numbers, but column 'x:a' of sample 2" in capsys.readouterr().err
    assert cli.main([*call, "--drop-missing"]) == 0
    assert "d.csv: 3 samples (1 with missing values left out), 2 inputs" in capsys.readouterr().out


@pytest.mark.compiled
def test_warm_compiles_everything(capsys):
    assert cli.main(["warm"]) == 0
    assert "compiled" in capsys.readouterr().out


SWEEP = """
import time
import xarray as xr
import dlnds as dl

def growth(rate, rng):
    if rate == 3.0:
        raise ValueError("too fast")
    return xr.Dataset({"size": rate + rng.normal()})

if __name__ == "__main__":
    dl.sweep(growth, {"rate": [0.0, 1.0, 2.0]}, "runs", rng=0)
"""


def test_a_sweep_is_looked_after(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "own_sweep.py"
    script.write_text(SWEEP)
    done = call("own_sweep.py", cwd=tmp_path, command=(sys.executable,))
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    reference = dl.collect("runs")
    assert cli.main(["sweep", "status", "runs"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "__main__:growth on 3 points (3 rate)",
        "3 finished, 0 failed, 0 missing",
        "nobody is at work",
    ]
    assert cli.main(["sweep", "verify", "runs"]) == 0
    (tmp_path / "runs" / "points" / "00000001.record").write_bytes(b"damage")
    assert cli.main(["sweep", "verify", "runs"]) == 1
    assert "1 damaged" in capsys.readouterr().out
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert cli.main(["sweep", "resume", "runs", "--quiet"]) == 0
    assert dl.collect("runs").identical(reference)
    assert cli.main(["sweep", "collect", "runs"]) == 0
    assert dl.load("runs.nc").identical(reference)
    assert "written: " in capsys.readouterr().out
    for out in ("no/runs.nc", "runs", "runs.txt"):
        assert cli.main(["sweep", "collect", "runs", "--out", out]) == 2
        assert capsys.readouterr().err.startswith("dlnds: --out: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda script: script.unlink(), "cannot be imported: there is no such file"),
        (lambda script: script.write_text("import nothing_such"), "No module named 'nothing_such'"),
        (lambda script: script.write_text("x = 1"), "it has no 'growth'"),
        (lambda script: script.write_text("exit(3)"), "cannot be imported: SystemExit: 3"),
        (
            lambda script: script.write_text(SWEEP.replace("rate +", "rate -")),
            "task: differs from that of the directory in growth",
        ),
    ],
)
def test_a_sweep_whose_task_is_gone_is_not_resumed(tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    name = f"sweep_{abs(hash(message))}"
    script = tmp_path / f"{name}.py"
    script.write_text(SWEEP)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sweep_of = __import__(name)
    dl.sweep(sweep_of.growth, {"rate": [0.0, 1.0, 3.0]}, "runs", rng=0)
    monkeypatch.delitem(sys.modules, name)
    __import__("importlib").invalidate_caches()
    change(script)
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    __import__("linecache").checkcache()
    assert cli.main(["sweep", "resume", "runs", "--quiet"]) == 2
    assert message in capsys.readouterr().err


def test_sweeps_that_are_not_there_are_one_line(tmp_path, capsys):
    for action in ("status", "verify", "resume", "collect"):
        assert cli.main(["sweep", action, str(tmp_path)]) == 2
        assert "directory: " in capsys.readouterr().err


def test_a_script_with_a_name_of_pythons_own_is_not_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "time.py").write_text(SWEEP.replace("import time\n", ""))
    assert call("time.py", cwd=tmp_path, command=(sys.executable,)).returncode == 0
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert cli.main(["sweep", "resume", "runs", "--quiet"]) == 2
    assert "cannot be imported: time is a part of Python" in capsys.readouterr().err
