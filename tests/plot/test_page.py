"""The page of an atlas: what it holds, that it loads and runs nothing else."""

import base64
import functools
import hashlib
import html.parser
import itertools
import json
import os
import re
import stat

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr

import dlnds as dl
from dlnds.plot import landscape, layout
from dlnds.plot import page as pages

VOID = {"meta", "link", "input"}


class Page(html.parser.HTMLParser):
    """The elements of a page, each with its tag, attributes, text, and the ids around it.

    Of its two pictures it has the wide one, or that of a phone.
    """

    def __init__(self, text, picture="wide"):
        super().__init__(convert_charrefs=True)
        self.text, self.elements, self.open, self.picture = text, [], [], picture
        self.feed(text)
        self.close()
        assert not self.open, "all elements are closed"

    def handle_starttag(self, tag, attrs):
        inside = [e["attrs"].get("id") for e in self.open]
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "inside": inside}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1]["text"] += data

    def find(self, tag, **wanted):
        inside = wanted.pop("inside", None)
        return [
            e
            for e in self.elements
            if e["tag"] == tag
            and ("graph" not in e["inside"] or ("narrow" in e["inside"]) == self.is_narrow)
            and (inside is None or inside in e["inside"])
            and all(e["attrs"].get(name) == value for name, value in wanted.items())
        ]

    @property
    def is_narrow(self):
        return self.picture == "narrow"

    def column(self):
        """Return how far the columns of two ranks stand from each other in the picture."""
        wide, narrow = self.find("svg", id="graph")
        return float((narrow if self.is_narrow else wide)["attrs"]["data-column"])

    def data(self):
        (element,) = self.find("script", id="data")
        return json.loads(element["text"])


@functools.cache
def large():
    """Return an atlas of 256 points."""
    return connected(dl.LinearNetwork((8, 8, 8, 8), np.diag(1.5 * 0.8 ** np.arange(8.0))))


def connected(net):
    atlas = dl.build_atlas(net)
    atlas["connections"] = dl.connections(net)
    return atlas


@functools.cache
def small():
    return connected(dl.LinearNetwork(widths=(3, 4, 4, 3), target=np.diag([3.0, 2.0, 0.7])))


def written(atlas, folder, picture="wide"):
    path = folder / "atlas.html"
    dl.save_page(atlas, path)
    return Page(path.read_text(encoding="utf-8"), picture)


def test_the_page_holds_the_numbers_of_all_points(tmp_path):
    atlas = small()
    data, points = written(atlas, tmp_path).data(), atlas["points"].to_dataset()
    assert data["labels"] == points.critical_point.values.tolist()
    names = [column["name"] for column in data["columns"]]
    assert names == [
        *("rank", "loss", "kind", "index", "nullity", "order_of_descent", "fiber_dimension"),
        *("departure_rate", "convergence_rate"),
    ]
    for column in data["columns"]:
        assert column["title"] == points[column["name"]].attrs["long_name"]
        np.testing.assert_allclose(
            data["points"][column["name"]], points[column["name"]], rtol=5.01e-7
        )
    words = [data["kinds"][kind] for kind in data["points"]["kind"]]
    assert words == [dl.schema.spoken(k) for k in dl.schema.decode(points.kind).values]


def test_the_page_holds_the_numbers_of_all_connections(tmp_path):
    data, graph = written(small(), tmp_path).data(), small()["connections"].to_dataset()
    ends = [[data["labels"][n] for n in data["edges"][end]] for end in ("source", "target")]
    assert ends == [graph.source.values.tolist(), graph.target.values.tolist()]
    orbit = np.array(data["edges"]["orbit"])
    assert len(data["orbits"]["word"]) == 6 < len(orbit) == 18
    for name in ("length", "rate"):
        np.testing.assert_allclose(np.array(data["orbits"][name])[orbit], graph[name], rtol=5.01e-7)
    times = np.array(data["orbits"]["time"])[orbit]
    np.testing.assert_allclose(times, graph.escape_time, rtol=5.01e-7)
    assert data["scales"] == graph.scale.values.tolist()
    assert data["scales"][data["scale"]] == 1e-3
    loss = np.array(data["points"]["loss"])  # of which the page makes the drops
    drops = loss[data["edges"]["source"]] - loss[data["edges"]["target"]]
    np.testing.assert_allclose(drops, graph["drop"], rtol=0, atol=1e-6 * loss.max())
    words = np.array(data["orbits"]["word"])[orbit]
    kinds = [word.split()[0] for word in words]
    np.testing.assert_array_equal(kinds, dl.schema.decode(graph.kind).values)
    expected = [
        f"add {j}" if i < 0 else f"swap {i} for {j}"
        for i, j in zip(graph.mode_lost.values, graph["mode"].values, strict=True)
    ]
    assert words.tolist() == expected


def test_the_page_holds_the_loss_along_all_arcs(tmp_path):
    data, arcs = written(small(), tmp_path).data(), small()["arcs"].to_dataset()
    listed = data["arcs"]
    assert [data["labels"][n] for n in listed["source"]] == arcs.source.values.tolist()
    targets = [data["labels"][n] if isinstance(n, int) else n for n in listed["target"]]
    assert targets == arcs.target.values.tolist()
    assert [data["arcKinds"][k] for k in listed["kind"]] == dl.schema.decode(
        arcs.kind
    ).values.tolist()
    np.testing.assert_allclose(data["alpha"], arcs.alpha, rtol=5.01e-7)
    assert len(data["curves"]) < arcs.sizes["arc"] / 2
    start = np.array(data["points"]["loss"])[listed["source"]]
    curves = start[:, None] + np.array(data["curves"])[listed["curve"]]
    np.testing.assert_allclose(curves, arcs.exact_loss, rtol=0, atol=2e-6 * float(arcs.loss.max()))


def curves(page, *names):
    return [p for name in names for p in page.find("path", inside=f"edges-{name}")]


def marks(page):
    """Return the marks of the points in their order, as the script of the page finds them."""
    kinds = page.data()["points"]["kind"]
    by_kind = {kind: iter(page.find("use", inside=f"points-{kind}")) for kind in set(kinds)}
    found = [next(by_kind[kind]) for kind in kinds]
    assert not any(list(rest) for rest in by_kind.values())
    return found


def labels(page):
    return {
        element["inside"][-1]: element
        for element in page.find("text")
        if str(element["inside"][-1]).startswith("label-")
    }


@pytest.mark.parametrize("picture", ["wide", "narrow"])
def test_the_picture_shows_every_point_at_its_loss_and_every_edge_once(tmp_path, picture):
    page, points = written(small(), tmp_path, picture), small()["points"].to_dataset()
    places = [[float(mark["attrs"][name]) for name in "xy"] for mark in marks(page)]
    x, y = np.array(places).T
    slope, _ = np.polyfit(points.loss, y, 1)
    assert slope < 0.0
    np.testing.assert_allclose(np.diff(y), slope * np.diff(points.loss), atol=0.02)
    columns = np.round(x / (x.max() - x.min()) * 3.0 - 0.5)
    assert (np.diff(columns - columns[0]) >= 0).all()
    data, shown = page.data(), page.data()["shown"]
    rows = [row for name in ("plain", "lead", "path") for row in shown.get(f"edges-{name}", [])]
    assert sorted(rows) == list(range(18))
    for name in ("generic", "plain", "lead"):
        paths = curves(page, name)
        assert len(paths) == len(shown[f"edges-{name}"])
        for row, path in zip(shown[f"edges-{name}"], paths, strict=True):
            curve = np.array(re.findall(r"[\d.]+", path["attrs"]["d"]), float)
            a, b = data["edges"]["source"][row], data["edges"]["target"][row]
            bend = page.column() * data["bend"][row]
            middle = [0.5 * (x[a] + x[b]) + bend, 0.5 * (y[a] + y[b])]
            expected = [x[a], y[a], *middle, x[b], y[b]]
            np.testing.assert_allclose(curve, expected, atol=0.1)
    assert len(curves(page, "generic")) == 3
    assert len(curves(page, "lead")) == 7
    texts = {int(name.removeprefix("label-")): e["text"] for name, e in labels(page).items()}
    assert texts == dict(enumerate(points.critical_point.values))


def test_the_colours_of_the_script_are_those_of_the_picture(tmp_path):
    page = written(small(), tmp_path)
    data = page.data()
    times = [data["orbits"]["time"][o][data["scale"]] for o in data["edges"]["orbit"]]
    (style,) = (e for e in page.find("style") if "graph" in e["inside"])
    rules = dict(re.findall(r"\.(s\d+)\{([^}]*)\}", style["text"]))
    for row, path in zip(data["shown"]["edges-lead"], curves(page, "lead"), strict=True):
        part = np.log(times[row] / min(times)) / np.log(max(times) / min(times))
        drawn = re.search("#[0-9a-f]{6}", rules[path["attrs"]["class"]])[0]
        near = data["ramp"][round(part * (len(data["ramp"]) - 1))]
        pairs = [np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in (drawn, near)]
        assert np.abs(pairs[0] - pairs[1]).max() <= 8


def test_what_runs_did_is_on_the_page(tmp_path):
    atlas = small().copy()
    atlas["visits"] = xr.Dataset(
        {
            "visited": ("edge", [9, 1]),
            "probability": ("edge", [1.0, 0.25]),
            "mean_escape_time": ("edge", [31.5, np.nan]),
        },
        coords={"source": ("edge", ["{}", "{0}"]), "target": ("edge", ["{0}", "{0,1,2}"])},
        attrs={"schema": "observed_connections"},
    )
    page = written(atlas, tmp_path)
    data = page.data()
    edges = {
        (data["labels"][a], data["labels"][b]): e
        for e, (a, b) in enumerate(
            zip(data["edges"]["source"], data["edges"]["target"], strict=True)
        )
    }
    first, second = edges["{}", "{0}"], edges["{0}", "{0,1,2}"]
    assert data["edges"]["visited"] == {str(first): [9, 1, 31.5], str(second): [1, 0.25, None]}
    assert data["edges"]["orbit"][second] == -1
    assert data["shown"]["edges-observed"] == [second]
    assert data["shown"]["edges-case"] == data["shown"]["edges-taken"] == [first]
    for name in ("observed", "case", "taken"):
        assert len(curves(page, name)) == 1
    assert "taken by runs (2)" in page.text


def test_the_page_loads_nothing_and_runs_only_its_own_script(tmp_path):
    page = written(small(), tmp_path)
    for element in page.elements:
        for name in ("src", "srcset", "data", "action", "poster", "background"):
            assert name not in element["attrs"]
        address = element["attrs"].get("href", "#")
        assert address.startswith("#") or address == "data:,"
        assert not any(name.startswith("on") for name in element["attrs"])
    for word in ("http:", "https:", "url(", "@import", "fetch(", "XMLHttp", "import(", "innerHTML"):
        assert word not in page.text, word
    data, script = page.find("script")
    assert data["attrs"]["type"] == "application/json"
    (policy,) = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.split(maxsplit=1) for rule in policy["attrs"]["content"].split("; "))
    digest = base64.b64encode(hashlib.sha256(script["text"].encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"


NASTY = "</script></title><script>alert(1)</script><img src=x onerror=alert(1)>&quot;{{data}}"


def test_texts_of_data_sets_stay_texts(tmp_path):
    clean, atlas = written(small(), tmp_path), small().copy(deep=True)
    labels = atlas["points"].critical_point.values.astype(object)
    labels[[0, 2]] = [NASTY, "{1}" + NASTY]
    points = atlas["points"].to_dataset().assign_coords(critical_point=labels.astype(str))
    points["loss"].attrs["long_name"] = NASTY
    arcs = atlas["arcs"].to_dataset()
    arcs["target"][0] = "{0}"  # keeps the width of the array
    arcs = arcs.assign_coords(target=("arc", [NASTY, *arcs.target.values[1:].tolist()]))
    arcs["alpha"].attrs["long_name"] = NASTY
    atlas["points"], atlas["arcs"] = points, arcs
    atlas.attrs["title"] = NASTY
    page = written(atlas, tmp_path)
    kinds = [
        [e["tag"] for e in p.elements if e["tag"] not in ("text", "tspan", "path", "g")]
        for p in (page, clean)
    ]
    assert kinds[0] == kinds[1]
    assert page.find("title")[0]["text"] == page.find("h1")[0]["text"] == NASTY
    data = page.data()
    assert data["labels"][0] == NASTY
    assert data["columns"][1]["title"] == data["words"]["alpha"] == NASTY
    assert page.text.count("</script>") == 2
    assert "<img" not in page.text


def test_without_connections_the_decreasing_arcs_join_the_points(tmp_path):
    net = dl.LinearNetwork.from_moments(
        np.diag([3.0, 2.0, 1.0]), np.diag([1.0, 2.0, 0.5]), hidden=(3, 3), whiten=False
    )
    atlas = dl.build_atlas(net)
    data, arcs = written(atlas, tmp_path).data(), atlas["arcs"].to_dataset()
    assert data["scales"] == []
    down = np.flatnonzero(dl.schema.decode(arcs.kind) == "decreasing")
    expected = {(arcs.source.values[a], arcs.target.values[a]) for a in down}
    ends = zip(data["edges"]["source"], data["edges"]["target"], strict=True)
    joined = [(data["labels"][a], data["labels"][b]) for a, b in ends]
    assert sorted(joined) == sorted(pair for pair in expected if pair[1])
    assert len(joined) >= 12
    assert data["words"]["edges"] == "Decreasing arcs"
    assert "departure_rate" not in data["points"]


def test_what_is_left_out_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(landscape, "MOST_EDGES", 10)
    page = written(small(), tmp_path)
    assert len(curves(page, "plain", "lead")) == 7
    assert "11 other edges are drawn only when one of their points is chosen" in page.text
    assert len(page.data()["edges"]["source"]) == 18
    monkeypatch.setattr(pages, "MOST_ARCS", 5)
    atlas = small().copy(deep=True)
    atlas["arcs"]["kind"][:4] = dl.schema.ARC_KINDS.index("constant")
    page = written(atlas, tmp_path)
    kept = int((dl.schema.decode(atlas["arcs"]["kind"]) == "decreasing").sum())
    assert len(page.data()["arcs"]["source"]) == kept
    others = atlas["arcs"].sizes["arc"] - kept
    assert f"{others} arcs that do not decrease are left out of this page" in page.text


def test_the_shape_of_arcs_is_told(tmp_path):
    atlas = small().copy(deep=True)
    shape = (np.arange(atlas["arcs"].sizes["arc"]) % 2).astype(np.int8)
    atlas["arcs"]["shape"].values = shape
    data = written(atlas, tmp_path).data()
    assert data["shapes"] == [word.replace("_", " ") for word in dl.schema.ARC_SHAPES]
    assert data["arcs"]["shape"] == shape.tolist()


def test_the_size_is_in_proportion(tmp_path):
    few, many = (len(written(atlas, tmp_path).text) for atlas in (small(), large()))
    assert few < 60_000
    nodes = {"points": "critical_point", "connections": "edge", "arcs": "arc"}
    assert many - few < 60 * sum(large()[node].sizes[dim] for node, dim in nodes.items())


@pytest.mark.parametrize(("picture", "least"), [("wide", 60), ("narrow", 20)])
def test_labels_of_the_page_never_overlap(tmp_path, picture, least):
    """In letters of 0.62 of the size of the font, which no common fixed-width font exceeds."""
    page = written(large(), tmp_path, picture)
    boxes = []
    for text in labels(page).values():
        size = 9.0 if "…" in text["text"] or "{0,1,2,3}".startswith(text["text"][:-1]) else 7.0
        x, y = float(text["attrs"]["x"]), float(text["attrs"]["y"])
        boxes.append((x, y - 0.7 * size, x + 0.6 * size * len(text["text"]), y + 0.2 * size))
    assert len(boxes) > least
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_the_script_finds_strong_and_faint_marks_of_many_points(tmp_path):
    page, points = written(large(), tmp_path), large()["points"].to_dataset()
    data = page.data()
    ranks, learnt = points["rank"].values, points.learnt.values
    path = (learnt == (np.arange(learnt.shape[1]) < ranks[:, None])).all(axis=1)
    np.testing.assert_array_equal(np.array(data["faint"]) == 0, path)  # it ends at the minimum
    groups = list(zip(data["points"]["kind"], data["faint"], strict=True))
    for kind, faint in set(groups):
        marks = page.find("use", inside=f"points-{kind}" + "-faint" * faint)
        assert len(marks) == groups.count((kind, faint))


def test_two_pages_of_one_atlas_are_the_same(tmp_path):
    assert written(small(), tmp_path).text == written(small().copy(deep=True), tmp_path).text


def test_problems_with_one_critical_point_have_a_page(tmp_path):
    for net in (
        dl.LinearNetwork(widths=(2, 2), target=np.eye(2)),
        dl.LinearNetwork(widths=(2, 2, 2), target=np.zeros((2, 2))),
    ):
        page = written(connected(net), tmp_path)
        assert len(marks(page)) == 1
        assert page.data()["edges"]["source"] == []


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "atlas.html"
    path.write_text("something else")
    dl.save_page(small(), str(path))
    before = path.read_bytes()
    assert before.startswith(b"<!DOCTYPE html>")
    current = os.umask(0)
    os.umask(current)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        dl.save_page(small(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["atlas.html"]


def test_other_data_and_places_are_refused(tmp_path, monkeypatch):
    atlas, path = small(), tmp_path / "atlas.html"
    for name, arguments in [
        ("atlas", (atlas["points"].to_dataset(), path)),
        ("atlas", (np.zeros(3), path)),
        ("path", (atlas, tmp_path)),
        ("path", (atlas, tmp_path / "no" / "atlas.html")),
        ("path", (atlas, 3)),
    ]:
        with pytest.raises((ValueError, TypeError), match=f"^{name}: "):
            dl.save_page(*arguments)
    with pytest.raises(TypeError, match="^pth: save_page has no such option"):
        dl.save_page(atlas, pth=path)
    monkeypatch.setattr(pages, "MOST_POINTS", 7)
    with pytest.raises(ValueError, match="^atlas: has 8 critical points, a page holds at most 7"):
        dl.save_page(atlas, path)
    assert list(tmp_path.iterdir()) == []


@hypothesis.given(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
)
def test_rounding_keeps_seven_digits(value):
    (result,) = pages.rounded([value]).tolist()
    if abs(value) > 1e-300:
        assert abs(result - value) <= 5.001e-7 * abs(value)
    assert len(re.sub(r"e.*|\D", "", repr(result)).strip("0")) <= 7
    assert pages.rounded([result]).tolist() == [result]


def test_edges_to_points_that_are_not_listed_are_left_out():
    atlas = small().copy()
    atlas["points"] = atlas["points"].to_dataset().isel(critical_point=slice(0, 4))
    edges = layout.edges(atlas)
    assert len(edges.kind) == 6
    assert max(edges.source.max(), edges.target.max()) == 3
