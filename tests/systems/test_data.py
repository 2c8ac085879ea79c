"""Moments, assumptions, data sets, CSV files."""

import hashlib
import itertools
import tomllib

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import dlnds as dl
from dlnds.systems import problems

CATALOGUE = tomllib.loads((problems._data_folder() / "datasets.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CATALOGUE)
def test_data_sets_have_their_checksum_and_singular_values(name):
    entry = CATALOGUE[name]
    content = (problems._data_folder() / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    net = dl.load_problem(name, hidden=(16, 16))
    expected = entry["singular_values"]
    np.testing.assert_allclose(net.singular_values[: len(expected)], expected, rtol=0, atol=5.1e-5)
    data = dl.read_csv(name)
    for word in ("title", "origin", "licence", "transform"):
        assert data.attrs[word], word
    assert "number of samples" in net.attributes()["normalization"]
    centred = np.abs(data.mean("sample").to_array()).max() < 1e-12
    assert centred == (entry["transform"] != "none")


def test_shapes_and_ranks_of_the_data_sets():
    nets = {name: dl.load_problem(name, hidden=(5,)) for name in dl.problem_names()}
    assert {name: net.widths for name, net in nets.items()} == {
        "semantic": (8, 5, 36),
        "digits": (31, 5, 32),
        "diabetes": (4, 5, 6),
        "linnerud": (3, 5, 3),
    }
    digits = dl.load_problem("digits", hidden=(40,))
    assert np.count_nonzero(digits.singular_values) == digits.max_rank == 30
    assert dl.load_problem("digits", hidden=(40,), whiten=False).widths == (32, 40, 32)


def test_semantic_items_have_the_attributes_of_the_hierarchy():
    data = dl.read_csv("semantic")
    np.testing.assert_array_equal(data.X, np.eye(8))
    Y = data.Y
    assert Y.sizes == {"feature_out": 36, "sample": 8}
    assert Y.sel(feature_out="ISA living thing").sum() == 8
    assert (
        Y.sel(feature_out="can fly", sample=["robin", "canary"]).sum()
        == 2
        == Y.sel(feature_out="can fly").sum()
    )
    assert Y.sel(feature_out="ISA salmon").values.tolist() == [0] * 7 + [1]


@pytest.mark.parametrize("name", CATALOGUE)
def test_standardized_and_centred_data(name):
    for transform in ("none", "center", "standardize"):
        data = dl.read_csv(name, transform=transform)
        assert data.attrs["transform"] == transform
        for part in (data.X, data.Y):
            assert np.isfinite(part).all()
            if transform == "standardize":
                spread = part.std("sample").values
                assert (np.isclose(spread, 1.0, rtol=1e-12) | (spread == 0.0)).all()


def write(tmp_path, text):
    file = tmp_path / "data.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_csv_of_the_documented_form_is_read(tmp_path):
    file = write(tmp_path, "sample,x:a,y:u,x:b\nfirst,1,2,3\nsecond,4,5e0,-6\n")
    data = dl.read_csv(file)
    assert data.X.values.tolist() == [[1, 4], [3, -6]]
    assert data.Y.values.tolist() == [[2, 5]]
    assert data.sample.values.tolist() == ["first", "second"]
    assert data.feature_in.values.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a\n1\n", "column 'a' .* starts neither .* inputs 'x:NAME' and outputs 'y:NAME'"),
        ("x:a\n1\n", "has one column, 'x:a'; .* 'y:NAME'"),
        ("x:a y:b\n1 2\n", "has one column, 'x:a y:b'; .* commas, semicolons or tabs"),
        ("x:a,y:b\n", "no samples"),
        ("x:a,x:b\n1,2\n", "no column that starts with 'y:'"),
        ("y:a,y:b\n1,2\n", "no column that starts with 'x:'"),
        ("x:a,y:b,c\n1,2,3\n", "column 'c' .* starts neither"),
        ("x:a,y:b\n1,\n", "column 'y:b' of sample 1 has none"),
        ("x:a,y:b\n1,2\n3,four\n", "column 'y:b' of sample 2 has 'four'"),
        ("x:a,y:b\n1,inf\n", "column 'y:b' of sample 1 has 'inf'"),
        ("x:a,y:b\n1,2\n1,2,3,4\n", "line 3 of .* has 4 values, those before have 2"),
        ('x:a,y:b\n1,"2\n', "cannot be read as CSV"),
        ("x:a|y:b\n1|2\n", "has one column"),
        ("x:a;y:b\n1,5;2\n3.5;4\n", "decimal commas, but column 'x:a' of sample 2 has '3.5'"),
        ("x:a;y:b\n1.234,5;2\n", "decimal commas, but column 'x:a' of sample 1 has '1.234,5'"),
        ("x:a,y:b\n1,2\n,3\n4,NA\n", "missing in 2 of 3 samples \\(2, 3\\)"),
        ("x:a,y:b,x:a\n1,2,3\n", "has the column 'x:a' twice"),
        ("x:a,y:b\n1,2+3j\n", "has '2\\+3j'"),
        ("# only this\n\n", "is empty"),
        ("sep=;\n", "is empty"),
        ("sep=|\nx:a|y:b\n1|2\n", "says 'sep=\\|', but needs ',', ';' or a tab"),
        ("x:a,y:b\n1 # one,2\n", "column 'x:a' of sample 1 has '1 # one'"),
        ("#x:a,y:b\n1,2\n", "column '1' .* starts neither"),
        ('# "\nx:a,y:b\n1,2\n"3,4\n5,6', "a quote that opens in line 4 is never closed"),
        ('x:a,y:b\n"1,234",1\n"2,500",2\n', "thousands .* of sample 1 has '1,234'"),
        ('x:a,y:b\n"1,5",1\n2.5,2\n', "decimal commas, but column 'x:a' of sample 2 has '2.5'"),
        ('x:a,y:b\n"1,5,5",1\n', "column 'x:a' of sample 1 has '1,5,5'"),
        ("age;mass;speed\n1,5;2;3\n2;1;4\n", "column 'age' .* starts neither"),
        ("id;x:a;y:c\n1;2,5;3\n", "column 'id' .* starts neither"),
        ("x:a;y:c;id\n1,5;2,5;3,5\n", "column 'id' .* starts neither"),
        ("id\tx:a, or b, or c\ty:c\n1\t2\t3\n", "column 'id' .* starts neither"),
        ("id,x:a;b\n1,2\n", "column 'id' .* starts neither"),
        ("x:a,id;b,y:c\n1,2,3,4\n", "column 'id;b' .* starts neither"),
        ("x:a,y:b\n1,?\n2,3\n", "of sample 1 has '\\?'; missing are cells that are empty, or NA"),
        ("x:a,y:b\n1,-\n2,\n2,3\n", "missing are cells that are empty, or NA"),
        ("x:a;y:b;\n1;2;3\n", "line 2 of .* has 3 values, those before have 2"),
    ],
)
def test_csv_of_another_form_is_refused_with_the_place(tmp_path, text, message):
    file = write(tmp_path, text)
    with pytest.raises(ValueError, match=r"^path: .*" + message):
        dl.read_csv(file)


@pytest.mark.parametrize(
    "text",
    [
        "sample\tx:a\ty:u\tx:b\nfirst\t1.5\t2\t3\nsecond\t4\t5e0\t-6\n",
        "sample;x:a;y:u;x:b\nfirst;1,5;2;3\nsecond;4;5e0;-6\n",
        "sample\tx:a\ty:u\tx:b\nfirst\t1,5\t2\t3\nsecond\t4\t5\t-6\n",
        "sample;x:a;y:u;x:b\r\nfirst;1.5;2;3\r\nsecond;4;5;-6\r\n",
        "\ufeffsample,x:a,y:u,x:b\r\nfirst,1.5,2,3\r\nsecond,4,5,-6\r\n",
        "# made elsewhere\nsample ; x:a ; y:u ; x:b\nfirst ; 1,5 ; 2 ; 3\nsecond ; 4 ; 5 ; -6",
        "sample;x:a;y:u;x:b;;\nfirst;1,5;2;3;;\nsecond;4;5;-6;;\n",
        "sample,x:a,y:u,x:b\nfirst,1.5,2,3,\nsecond,4,5,-6,\n",
        "sep=;\r\nsample;x:a;y:u;x:b\r\nfirst;1,5;2;3\r\nsecond;4;5;-6\r\n",
        '"sep=\t"\nsample\tx:a\ty:u\tx:b\nfirst\t1,5\t2\t3\nsecond\t4\t5\t-6\n',
        'sample,x:a,y:u,x:b\nfirst,"1,5","2,0",3\nsecond,4,"5",-6\n',
        '"sample" ; "x:a" ; "y:u" ; "x:b"\n"first" ; "1,500" ; 2 ; 3\nsecond ; 4 ; 5 ; -6',
    ],
)
def test_other_separators_commas_and_ends_of_lines_are_read(tmp_path, text):
    (tmp_path / "data.csv").write_bytes(text.encode())
    data = dl.read_csv(tmp_path / "data.csv")
    assert data.X.values.tolist() == [[1.5, 4], [3, -6]]
    assert data.Y.values.tolist() == [[2, 5]]
    assert data.feature_in.values.tolist() == ["a", "b"]


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_hash_within_a_line_is_text(tmp_path, mark, quote):
    names = [f"{quote}{name}{quote}" for name in ("sample", "x:a#1", "y: #b")]
    rows = [names, [f"{quote}A #2{quote}", "1", "2"], ["B#", "2", "3"], ['"#C"', "4", "1"]]
    lines = [mark.join(row) for row in rows]
    data = dl.read_csv(write(tmp_path, "\n".join(["# first", *lines[:2], "#x,y,z", *lines[2:]])))
    assert data.sample.values.tolist() == ["A #2", "B#", "#C"]
    assert (data.feature_in.item(), data.feature_out.item()) == ("a#1", " #b")
    assert data.X.values.tolist() == [[1, 2, 4]]
    assert data.Y.values.tolist() == [[2, 3, 1]]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_what_is_in_quotes_may_be_anything(tmp_path, mark):
    """Separators, quotes that are doubled, ends of lines, and lines that look like comments."""
    header = mark.join(['"x:a; cm, or\tinch"', '"y:the ""b"""', "sample"])
    text = header + "\n" + mark.join(["1", "2", '"one\n# two\n"'])
    data = dl.read_csv(write(tmp_path, text))
    assert data.feature_in.values.tolist() == ["a; cm, or\tinch"]
    assert data.feature_out.values.tolist() == ['the "b"']
    assert data.sample.values.tolist() == ["one\n# two"]
    assert (data.X.item(), data.Y.item()) == (1, 2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_encodings_are_read_or_named(tmp_path, encoding):
    """UTF-16 is known by its mark, which Python writes for "utf-16" alone."""
    file = tmp_path / "data.csv"
    file.write_bytes("x:größe;y:b\n1,5;2\n".encode(encoding))
    if encoding in ("utf-16-le", "latin-1"):
        with pytest.raises(ValueError, match=r"^path: .*data.csv is no text .* save it as UTF-8"):
            dl.read_csv(file)
    else:
        assert dl.read_csv(file).feature_in.values.tolist() == ["größe"]
    file.write_bytes(b"\xfe\xff" + "x:größe;y:b\n1,5;2\n".encode("utf-16-be"))
    assert dl.read_csv(file).feature_in.values.tolist() == ["größe"]


def test_samples_that_lack_values_are_left_out_if_asked(tmp_path):
    file = write(tmp_path, "x:a,y:u\n1,2\n,3\n4,NA\n5,6\n")
    data = dl.read_csv(file, drop_missing=True)
    assert data.X.values.tolist() == [[1, 5]]
    assert data.sample.values.tolist() == [1, 4]
    assert data.attrs["dropped_samples"] == 2
    with pytest.raises(ValueError, match=r"in all 3 .*, in 2 of them .*'y:u', .* none would be"):
        dl.read_csv(write(tmp_path, "x:a,y:u\n1,\n,2\n3,NA\n"), drop_missing=True)
    with pytest.raises(ValueError, match=r"^path: .* no such separator"):
        dl.read_csv(file, separator=";")


def test_missing_files_and_binary_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^path: there is no file .*semantic"):
        dl.read_csv(tmp_path / "none.csv")
    file = tmp_path / "binary.csv"
    file.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"^path: "):
        dl.read_csv(file)


def test_a_damaged_data_set_is_noticed(tmp_path, monkeypatch):
    for file in problems._data_folder().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "linnerud.csv").write_text("x:a,y:b\n1,2\n")
    monkeypatch.setattr(problems, "_data_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match="checksum"):
        dl.load_problem("linnerud", hidden=(2,))


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=8), st.booleans())
def test_smallest_gap_of_subset_sums_is_that_of_all_pairs(values, repeat):
    sigma = np.sort(np.array(values + values[:1] * repeat))[::-1]
    check = dl.check_assumptions(sigma)
    sets = [s for r in range(len(sigma) + 1) for s in itertools.combinations(range(len(sigma)), r)]
    sums = np.sort([np.sum(sigma[list(s)] ** 2) for s in sets])
    gap = np.min(np.diff(sums)) / sums[-1]
    assert check.smallest_gap.values[1] == pytest.approx(gap, abs=1e-14)
    for first, second in zip(check["first"].values, check["second"].values, strict=True):
        a, b = (list(dl.schema.index_set_modes(s)) for s in (first, second))
        assert set(a).isdisjoint(b)
        assert np.sum(sigma[a] ** 2) == pytest.approx(np.sum(sigma[b] ** 2), rel=1e-7)
    if repeat:
        assert check.holds.values[:2].tolist() == [0, 0]
    dl.schema.validate(check)


def test_assumptions_name_the_offending_sets():
    check = dl.check_assumptions([5.0, 4.0, 3.0], widths=(3, 2, 3))
    assert dict(zip(check.assumption.values, check.holds.values, strict=True)) == {
        "distinct_singular_values": 1,
        "distinct_subset_sums": 0,
        "wide_enough": 0,
    }
    assert (check["first"].item(), check["second"].item()) == ("{0}", "{1,2}")


def test_too_many_modes_are_said_to_be_unchecked():
    check = dl.check_assumptions(np.arange(30.0, 0.0, -1.0))
    assert check.holds.values.tolist() == [1, -1, -1]


def test_a_network_can_be_asked_for_its_assumptions():
    net = dl.LinearNetwork(widths=(3, 2, 3), target=np.diag([5.0, 4.0, 3.0]))
    expected = dl.check_assumptions([5.0, 4.0, 3.0], widths=(3, 2, 3))
    assert dl.check_assumptions(net).identical(expected)
    wider = dl.check_assumptions(net, widths=(3, 3, 3))
    assert wider.holds.sel(assumption="wide_enough").item() == 1


def test_networks_report_their_assumptions():
    assert dl.load_problem("semantic", hidden=(16, 16)).assumptions.holds.values.tolist() == [
        1,
        1,
        1,
    ]
    equal = dl.LinearNetwork(widths=(2, 1, 2), target=np.eye(2))
    assert equal.assumptions.holds.values.tolist() == [0, 0, 0]


@pytest.mark.parametrize("whiten", [True, False])
def test_units_of_the_inputs_change_neither_rank_nor_modes(whiten):
    """An input that is measured in units of 1e-8 or 1e8 is the same input."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(3, 200)), rng.normal(size=(2, 200))
    Y[0] += 3 * X[1]
    units = np.array([[1e8], [1e-8], [1.0]])
    plain = dl.LinearNetwork.from_data(X, Y, (3,), whiten=whiten)
    scaled = dl.LinearNetwork.from_data(units * X, Y, (3,), whiten=whiten)
    np.testing.assert_allclose(scaled.singular_values, plain.singular_values, rtol=1e-7)
    assert scaled.irreducible_loss == pytest.approx(plain.irreducible_loss, rel=1e-10)
    moments_of = dl.LinearNetwork.from_moments(
        Y @ (units * X).T / 200, (units * X) @ (units * X).T / 200, (3,), whiten=whiten
    )
    np.testing.assert_allclose(moments_of.singular_values, plain.singular_values, rtol=1e-7)


def test_rank_does_not_depend_on_the_number_of_samples():
    X = np.random.default_rng(0).normal(size=(2, 300_000)) * [[1.0], [1e-9]]
    assert dl.LinearNetwork.from_data(X, X, (2,)).widths == (2, 2, 2)


def test_rounding_noise_is_no_mode(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 20))
    X -= X.mean(axis=1, keepdims=True)
    Y = np.full((2, 20), 0.1) + rng.normal(size=(2, 1)) * 0
    assert dl.LinearNetwork.from_data(X, Y, (3,)).max_rank == 0
    rows = "".join(f"{a},0.1\n" for a in X[0])
    data = dl.read_csv(write(tmp_path, "x:a,y:b\n" + rows), transform="center")
    assert not data.Y.values.any()


def test_a_turned_table_is_told_to_have_its_samples_in_rows():
    rng = np.random.default_rng(0)
    X, Y = (pd.DataFrame(rng.normal(size=(n, 20))) for n in (3, 2))
    for inputs, outputs in ((X, Y.T), (X.T, Y)):
        with pytest.raises(ValueError, match="^Y: needs as many samples .* transpose"):
            dl.LinearNetwork.from_data(inputs, outputs, hidden=(4,))
    other = Y[Y.columns[::-1]]
    with pytest.raises(ValueError, match="^Y: needs the samples of the inputs in the same order"):
        dl.LinearNetwork.from_data(X, other, hidden=(4,))


@pytest.mark.parametrize("whiten", [True, False])
def test_names_of_moments_label_the_modes_as_those_of_data(whiten):
    """Of arrays in any order of dims and of tables, or as they are given; their order is looked at.

    The moments of named data are named: the same network with the same modes.
    """
    rng = np.random.default_rng(0)
    X = xr.DataArray(rng.normal(size=(3, 9)), {"feature": ["a", "b", "c"]}, ("feature", "sample"))
    Y = xr.DataArray(rng.normal(size=(2, 9)), {"output": ["p", "q"]}, ("output", "sample"))
    M, C = Y @ X / 9, X @ X.rename(feature="other") / 9
    expected = dl.LinearNetwork.from_data(X, Y, (4,), whiten=whiten).modes
    plain = (M.values, C.values), {"features": ("a", "b", "c"), "outputs": ("p", "q")}
    tables = (M.to_pandas(), C.to_pandas()), {}
    for (cross, covariance), names in (((M, C), {}), ((M.T, C), {}), tables, plain):
        net = dl.LinearNetwork.from_moments(cross, covariance, (4,), whiten=whiten, **names)
        assert (net.features, net.outputs) == (("a", "b", "c"), ("p", "q"))
        for dim in ("feature", "output"):
            np.testing.assert_array_equal(net.modes[dim], expected[dim])
        turned = np.sign(np.sum(net.modes.left * expected.left, axis=0))  # of singular vectors
        np.testing.assert_allclose(net.modes.reading * turned, expected.reading, atol=1e-12)
    of_one = dl.LinearNetwork.from_moments(M.values, C, (4,), whiten=whiten)
    assert (of_one.features, of_one.outputs) == (("a", "b", "c"), ())
    assert dl.LinearNetwork.from_moments(M, C, (4,), features=(), outputs=()).features == ()
    assert dl.load_system(dl.build_atlas(net)).modes.identical(net.modes)


def test_moments_of_other_inputs_are_refused():
    """What names tell is not in order would be another problem, without a word."""
    C = pd.DataFrame(np.diag([3.0, 2.0]), ["a", "b"], ["a", "b"])
    M = pd.DataFrame(np.eye(2), ["p", "q"], ["a", "b"])
    for cross, covariance in ((M[["b", "a"]], C), (M, C[["b", "a"]]), (M, C.loc[["b", "a"]])):
        with pytest.raises(ValueError, match="^C: needs the same inputs in the same order, got"):
            dl.LinearNetwork.from_moments(cross, covariance, (2,))
    for wrong in ({"features": ("a",)}, {"outputs": ("a", "b", "c")}):
        with pytest.raises(ValueError, match="needs 2 names or none"):
            dl.LinearNetwork.from_moments(M, C, (2,), **wrong)


@pytest.mark.parametrize("whiten", [True, False])
def test_names_of_features_and_outputs_label_the_modes(whiten):
    """Of arrays in any order of dims and of tables, also on the range of dependent inputs."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2, 9))[[0, 1, 1]]
    inputs = xr.DataArray(X, {"feature_in": ["a", "b", "c"]}, ("feature_in", "sample"))
    for data in (inputs, inputs.T, pd.DataFrame(X, index=["a", "b", "c"])):
        net = dl.LinearNetwork.from_data(data, X[:2], hidden=(4,), whiten=whiten)
        modes = net.modes
        assert modes.feature.values.tolist() == ["a", "b", "c"]
        assert "output" not in modes.coords
        again = dl.load_system(dl.build_atlas(net))
        assert again.modes.identical(modes)
    assert dl.LinearNetwork.from_data(X, X, (4,), whiten=whiten).features == ()
