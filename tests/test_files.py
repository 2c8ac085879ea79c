"""Schema and store."""

import os
import stat

import numpy as np
import pytest
import xarray as xr

import dlnds as dl

NET = dl.LinearNetwork(widths=(2, 3, 3, 2), target=[[2.0, 0.0], [0.0, 1.0]])


def samples():
    atlas = dl.build_atlas(NET)
    run = dl.flow(
        NET, NET.initial(scale=0.1, rng=0), (0, 3), save=("state", "product", "conserved")
    )
    stack = dl.flow(NET, np.stack([NET.initial(scale=0.1, rng=i) for i in range(3)]), (0, 1))
    atlas["run"] = run
    return {
        "atlas": atlas,
        "run": run,
        "stack": stack,
        "points": dl.critical_points(NET),
        "spectrum": dl.linearize(NET, NET.critical_state((1,))),
        "single layer": dl.build_atlas(dl.LinearNetwork((2, 2), np.eye(2))),
        "assumptions": dl.check_assumptions([5.0, 4.0, 3.0]),
        "modes": NET.modes,
    }


@pytest.mark.parametrize("name", samples())
def test_what_is_loaded_is_identical_to_what_was_saved(tmp_path, name):
    data = samples()[name]
    before = data.copy(deep=True)
    dl.save(data, tmp_path / "file.nc")
    assert data.identical(before)
    again = dl.load(tmp_path / "file.nc")
    assert type(again) is type(data)
    assert again.identical(data)
    dl.schema.validate(again)
    again.dlnds.save(tmp_path / "again.nc")
    assert dl.load(str(tmp_path / "again.nc")).identical(data)


def test_saving_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file.nc"
    path.write_text("something else")
    dl.save(NET.modes, path)
    assert dl.load(path).identical(NET.modes)
    assert [p.name for p in tmp_path.iterdir()] == ["file.nc"]
    current = os.umask(0)
    os.umask(current)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.nc"
    dl.save(NET.modes, path)
    strange = NET.modes.assign_attrs(thing=object())
    with pytest.raises(TypeError, match="data: cannot store"):
        dl.save(strange, path)
    for value in (None, {"a": 1}, True, 1j, np.zeros((2, 2))):
        with pytest.raises(TypeError, match="^data: cannot store the attribute 'thing'"):
            dl.save(NET.modes.assign_attrs(thing=value), path)
    for value in ([], (), [1, "a"], [1, [2]], [None]):
        strange = NET.modes.copy()
        strange["left"].attrs["thing"] = value
        with pytest.raises(TypeError, match="^data: cannot store the attribute 'thing' of 'left'"):
            dl.save(strange, path)
    with pytest.raises(TypeError, match="not give back unchanged, in the attribute 'thing'$"):
        dl.save(NET.modes.assign_attrs(thing=["alone"]), path)
    lossy = NET.modes.assign(extra=("mode", np.array([None, 1], dtype=object)))
    with pytest.raises((TypeError, ValueError)):
        dl.save(lossy, path)
    assert dl.load(path).identical(NET.modes)
    assert [p.name for p in tmp_path.iterdir()] == ["file.nc"]


def test_every_flipped_byte_and_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "file.nc"
    dl.save(NET.modes, path)
    content = path.read_bytes()
    seal = len(content) - content.rindex(b"\ndlnds sha256 ")
    assert seal == 14 + 64
    rng = np.random.default_rng(0)
    damages = [content[:length] for length in rng.integers(0, len(content) - seal, 20)]
    for place in rng.integers(0, len(content) - seal, 100):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        damages.append(bytes(flipped))
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="^path: "):
            dl.load(path)
    path.write_bytes(content[:-5])
    assert dl.load(path).identical(NET.modes), "the data are whole without the seal"


def test_files_that_other_tools_copied_are_verified_by_their_content(tmp_path):
    path = tmp_path / "file.nc"
    dl.save(NET.modes, path)
    with xr.open_dataset(path, engine="h5netcdf") as stored:
        copied = stored.load()
    copied.to_netcdf(path, engine="h5netcdf")
    assert dl.load(path).identical(NET.modes)
    copied["singular_value"][0] = 7.0
    copied.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match="does not agree with its digest"):
        dl.load(path)


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "file.nc"
    NET.modes.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=r"not written by dlnds\.save"):
        dl.load(path)
    with pytest.raises(FileNotFoundError, match="^path: there is no file"):
        dl.load(tmp_path / "none.nc")


def test_saving_where_one_cannot_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^path: the folder .* does not exist"):
        dl.save(NET.modes, tmp_path / "no" / "file.nc")
    with pytest.raises(ValueError, match="^path: .* is a folder"):
        dl.save(NET.modes, tmp_path)
    with pytest.raises(TypeError, match="^data: "):
        dl.save(np.zeros(3), tmp_path / "file.nc")
    for name in (3, None, "a\0b"):
        with pytest.raises(TypeError, match="^path: "):
            dl.save(NET.modes, name)


def test_validation_names_what_is_missing():
    run, atlas = samples()["run"], samples()["atlas"]
    for broken, message in [
        (run.drop_vars("stop_reason"), "lacks the variable 'stop_reason'"),
        (run.assign_attrs(schema="strange"), "unknown schema 'strange'"),
        (run.drop_attrs(), "unknown schema None"),
        (run.assign(stop_reason=99), "'stop_reason'"),
        (run.assign(new=1.0), "'new' lacks the attribute 'long_name'"),
        (atlas.to_dataset(), "lacks the node 'points'"),
        (dl.critical_points(NET).isel(mode=0), "needs dims"),
    ]:
        with pytest.raises(ValueError, match=f"dataset: .*{message}"):
            dl.schema.validate(broken)
    del run.attrs["dlnds_version"]
    with pytest.raises(ValueError, match="lacks the attribute 'dlnds_version'"):
        dl.schema.validate(run)
    atlas["points"].attrs["schema"] = "arcs"
    with pytest.raises(ValueError, match="node 'points' needs the schema"):
        dl.schema.validate(atlas)
    with pytest.raises(TypeError, match="^dataset: "):
        dl.schema.validate(np.zeros(3))


def test_every_variable_says_what_it_is():
    for data in samples().values():
        nodes = [data] if isinstance(data, xr.Dataset) else [n.to_dataset() for n in data.subtree]
        for dataset in nodes:
            for name, variable in dataset.variables.items():
                assert {"long_name", "units", "symbol"} <= set(variable.attrs), name
                assert str(name) in dl.schema.DESCRIPTIONS or name in {
                    "assumption",
                    "first",
                    "second",
                    "smallest_gap",
                }


@pytest.mark.parametrize("modes", [(), (0,), (0, 2), (10, 2)])
def test_index_set_labels_can_be_read_back(modes):
    label = dl.schema.index_set_label(modes)
    assert dl.schema.index_set_modes(label) == tuple(sorted(modes))


@pytest.mark.parametrize("labels", [("", "", ""), ("{0⁺,2⁻}", "", "{σ=1×2}")])
def test_names_of_solutions_come_back_from_a_file(tmp_path, labels):
    branch = dl.branch(lambda x, p: p - x, [0.0], 0.0, bounds=(-1.0, 1.0)).isel(step=slice(3))
    named = dl.schema.finish(branch.assign(label=("step", list(labels))), "branch", {})
    tree = xr.DataTree.from_dict({"branch_0": named})
    tree.attrs = {"schema": "diagram", "dlnds_version": dl.__version__}
    for number, data in enumerate((named, tree)):
        dl.save(data, tmp_path / f"{number}.nc")
        found = dl.load(tmp_path / f"{number}.nc")
        assert found.identical(data)
        found.dlnds.validate()
        assert labels[0] in repr(found)


@pytest.mark.parametrize("label", ["", "{", "{a}", "{1,}", "0,1", 3, None])
def test_other_texts_are_no_index_sets(label):
    with pytest.raises(ValueError, match="^label: "):
        dl.schema.index_set_modes(label)


def test_accessor_offers_the_same():
    run = samples()["run"]
    run.dlnds.validate()
    assert run.dlnds.weights(2).identical(dl.weights(run, 2))
    assert run.dlnds.decode("stop_reason").item() == "end_reached"
    assert samples()["atlas"].dlnds.plot().get_xlabel() == "rank $r$"


def test_decoding_needs_flags():
    with pytest.raises(ValueError, match="^flags: "):
        dl.schema.decode(samples()["run"].loss)


def test_what_is_read_back_has_its_dims_in_order_or_is_refused_by_name():
    run = samples()["run"]
    wanted = {"state": ("time", "parameter"), "time": ("time",)}

    def read(data, **options):
        return dl.schema.read("run", data, "run", wanted, **options)

    assert read(run.transpose("parameter", "time", ...)).identical(run)
    assert read(xr.DataTree(run), digest=NET.digest, attributes=["n_steps"]).identical(run)
    none = run.isel(time=slice(0, 0))
    assert read(none, empty=["time"]).sizes["time"] == 0
    gaps = run.assign(state=run.state.where(run.time > 1.0))
    assert read(gaps, partial=["state"]).identical(gaps)
    clock = {"time_low": ("time",), "nothing": ("time",)}
    assert read(run, optional=clock).identical(run)
    for bad, options in [
        (np.zeros(3), {}),
        (dl.critical_points(NET), {}),
        (run.assign(time_low=run.time_low * np.nan), {"optional": clock}),
        (run, {"optional": {"time_low": ("parameter",)}}),
        (run, {"digest": "of another network"}),
        (run, {"attributes": ["nothing"]}),
        (run.drop_vars("state"), {}),
        (run.isel(time=0), {}),
        (none, {}),
        (gaps, {}),
        (run.assign(state=run.state.astype(str)), {}),
        (run.isel(time=slice(None, None, -1)), {}),
        (run.isel(parameter=slice(None, None, -1)), {}),
    ]:
        with pytest.raises((ValueError, TypeError), match="^run: "):
            read(bad, **options)
