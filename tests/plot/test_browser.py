"""The page of an atlas in a real browser: nox -s browser."""

import re
import shutil

import matplotlib.image
import numpy as np
import pytest
import xarray as xr

import dlnds as dl

pytestmark = pytest.mark.browser
NETWORKS = {
    16: dl.LinearNetwork(widths=(4, 5, 5, 4), target=np.diag([3.0, 2.2, 1.3, 0.6])),
    256: dl.load_problem("semantic", hidden=(16, 16)),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if None in programs.values():
        pytest.fail(f"needs Chromium and its driver (apt-get install them), found {programs}")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for argument in (
        *("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-dev-shm-usage"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        *(f"user-data-dir={tmp_path_factory.mktemp('profile')}", "window-size=1500,950"),
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture(params=NETWORKS, scope="module")
def atlas(request):
    net = NETWORKS[request.param]
    atlas = dl.build_atlas(net)
    atlas["connections"] = dl.connections(net)
    atlas["visits"] = xr.Dataset(
        {
            "visited": ("edge", [20, 4, 2]),
            "probability": ("edge", [1.0, 0.2, 0.5]),
            "mean_escape_time": ("edge", [7.0, 8.0, 9.0]),
        },
        coords={
            "source": ("edge", ["{}", "{0}", "{2}"]),
            "target": ("edge", ["{0}", "{0,2}", "{0}"]),
        },
        attrs={"schema": "observed_connections"},
    )
    return atlas


@pytest.fixture
def opened(browser, atlas, tmp_path):
    """Open the page, and look afterwards whether anything was amiss or loaded."""
    dl.save_page(atlas, tmp_path / "atlas.html")
    browser.get_log("browser")
    browser.get((tmp_path / "atlas.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def all_of(browser, selector):
    return browser.find_elements("css selector", selector)


def one(browser, selector):
    return browser.find_element("css selector", selector)


def actions(browser):
    from selenium.webdriver.common.action_chains import ActionChains

    return ActionChains(browser)


def node(browser, atlas, label):
    labels = atlas["points"].critical_point.values.tolist()
    return browser.execute_script("return nodes[arguments[0]]", labels.index(label))


def numbers(element):
    names = [e.text for e in element.find_elements("tag name", "dt")]
    return dict(zip(names, (e.text for e in element.find_elements("tag name", "dd")), strict=True))


def check_numbers(shown, atlas, label):
    point = atlas["points"].to_dataset().sel(critical_point=label)
    for name in ("rank", "loss", "index", "nullity", "order_of_descent", "departure_rate"):
        number = float(shown[point[name].attrs["long_name"]])
        assert number == pytest.approx(float(point[name]), rel=1e-4)
    fiber = shown[point.fiber_dimension.attrs["long_name"]]
    assert fiber == ("" if point.is_complete else "≥ ") + str(int(point.fiber_dimension))
    assert shown["kind"] == dl.schema.spoken(dl.schema.decode(point.kind).item())


def check_screenshot(browser, path):
    browser.save_screenshot(str(path))
    picture = matplotlib.image.imread(path)[..., :3]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100, "an empty picture"


@pytest.mark.parametrize("label", ["{}", "{1}", "{0,2}"])
def test_a_point_under_the_pointer_tells_its_numbers(opened, atlas, label, tmp_path):
    actions(opened).move_to_element(node(opened, atlas, label)).perform()
    tip = one(opened, "#tip")
    assert tip.find_element("tag name", "h2").text == label
    check_numbers(numbers(tip), atlas, label)
    check_screenshot(opened, tmp_path / "hover.png")
    actions(opened).move_to_element(one(opened, "h1")).perform()
    assert not tip.is_displayed()


def rows(browser, table):
    script = """return [...document.querySelectorAll(arguments[0])].map(
        (row) => [...row.cells].map((cell) => cell.innerText));"""
    return browser.execute_script(script, f"#{table} tbody tr")


def check_lists(browser, atlas, label):
    graph, arcs = atlas["connections"].to_dataset(), atlas["arcs"].to_dataset()
    for table, end, other in (("from", "source", "target"), ("into", "target", "source")):
        mine = graph.isel(edge=np.flatnonzero(graph[end].values == label))
        listed = {row[0]: row for row in rows(browser, table)}
        assert sorted(listed) == sorted(mine[other].values)
        for edge in range(mine.sizes["edge"]):
            row = mine.isel(edge=edge)
            cells = listed[row[other].item()]
            assert cells[1].split()[0] == dl.schema.decode(row["kind"]).item()
            shown = [float(cell) for cell in cells[2:6]]
            time = float(row.escape_time.sel(scale=1e-3))
            expected = [float(row["drop"]), float(row["length"]), float(row["rate"]), time]
            assert shown == pytest.approx(expected, rel=1e-3)
    mine = arcs.target.values[arcs.source.values == label].tolist()
    assert sorted(row[0] for row in rows(browser, "arcs")) == sorted(mine)
    assert len(all_of(browser, "#chart path")) == len(mine)


def test_a_click_lists_connections_and_arcs_and_dims_the_others(opened, atlas, tmp_path):
    label = "{0,2}"
    graph = atlas["connections"].to_dataset()
    actions(opened).click(node(opened, atlas, label)).perform()
    assert one(opened, "#details h2").text == label
    check_numbers(numbers(one(opened, "#details dl")), atlas, label)
    check_lists(opened, atlas, label)
    ends = np.stack([graph.source.values, graph.target.values])
    mine = (ends == label).any(axis=0)
    assert len(all_of(opened, "#chosen path")) == mine.sum()
    shown = all_of(opened, "#graph [id^=points-] use.near")
    near = {n.get_attribute("aria-label").split(", ")[0] for n in shown}
    assert near == set(ends[:, mine].ravel())
    far = node(opened, atlas, "{3}")
    assert float(far.value_of_css_property("opacity")) < 0.3
    assert float(node(opened, atlas, "{0}").value_of_css_property("opacity")) == 1.0
    check_screenshot(opened, tmp_path / "click.png")
    fastest = rows(opened, "from")[0][0]
    one(opened, "#from button").click()
    assert one(opened, "#details h2").text == fastest
    actions(opened).move_to_element_with_offset(one(opened, "#graph"), -350, 200).click().perform()
    assert all_of(opened, "#details *") == all_of(opened, ".near") == []


def test_runs_are_listed_beside_the_law(opened, atlas):
    actions(opened).click(node(opened, atlas, "{0}")).perform()
    listed = {row[0]: row[6:] for row in rows(opened, "from")}
    assert listed.pop("{0,2}") == ["4", "0.2", "8"]
    assert set(map(tuple, listed.values())) == {("0", "–", "–")}


def test_the_keyboard_reaches_the_same(opened, atlas):
    from selenium.webdriver.common.keys import Keys

    def press(*keys):
        actions(opened).send_keys(*keys).perform()
        return opened.switch_to.active_element

    opened.execute_script("document.getElementById('whole').focus()")
    first = press(Keys.TAB)
    assert first.get_attribute("aria-label").startswith("{}, non-strict saddle, loss ")
    assert one(opened, "#tip h2").text == "{}"
    press(Keys.ARROW_DOWN)
    label = one(opened, "#tip h2").text
    assert label != "{}"
    press(Keys.ENTER)
    assert one(opened, "#details h2").text == label
    check_lists(opened, atlas, label)
    button = press(Keys.TAB)
    assert button.text == rows(opened, "from")[0][0]
    target = button.text
    press(Keys.ENTER)
    assert one(opened, "#details h2").text == target
    press(Keys.ESCAPE)
    assert all_of(opened, "#details *") == []
    one(opened, "#find").send_keys("2 1", Keys.ENTER)
    assert one(opened, "#details h2").text == "{1,2}"


def test_escape_times_are_those_of_the_chosen_distance(opened, atlas):
    graph = atlas["connections"].to_dataset()
    actions(opened).click(node(opened, atlas, "{1}")).perform()
    before = [path.value_of_css_property("stroke") for path in all_of(opened, "#chosen path")]
    one(opened, "#scale option:last-child").click()
    edge = (graph.source == "{1}") & (graph.target == "{0}")
    time = float(graph.escape_time[edge.values][0, -1])
    listed = {row[0]: row for row in rows(opened, "from")}
    assert float(listed["{0}"][5]) == pytest.approx(time, rel=1e-3)
    assert float(one(opened, "#slowest").text) == pytest.approx(
        float(graph.escape_time[:, -1].max()), rel=1e-4
    )
    after = [path.value_of_css_property("stroke") for path in all_of(opened, "#chosen path")]
    assert len(set(before)) > 2
    assert before != after


def test_labels_do_not_overlap_on_the_screen(opened, tmp_path):
    script = """return [...document.querySelectorAll('[id^=label-] text')].map((t) => {
        const box = t.getBBox(); return [box.x, box.y, box.x + box.width, box.y + box.height]; })"""
    boxes = np.array(opened.execute_script(script))
    count = opened.execute_script("return nodes.length")
    assert len(boxes) == 16 if count == 16 else len(boxes) > 80
    low, high = boxes[:, :2], boxes[:, 2:]
    margin = 0.2 * np.array([0.0, 1.0]) * (high - low).min(axis=0)[1]  # lines have leading
    apart = (low[:, None] + margin >= high[None] - margin).any(axis=-1)
    apart |= apart.T
    assert apart[~np.eye(len(boxes), dtype=bool)].all()
    check_screenshot(opened, tmp_path / "page.png")


def test_it_can_be_zoomed_and_read_in_the_dark(opened, tmp_path):
    def background():
        return one(opened, "body").value_of_css_property("background-color")

    def shown():
        return [float(v) for v in one(opened, "#graph").get_dom_attribute("viewBox").split()]

    light = background()
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    assert background() != light
    check_screenshot(opened, tmp_path / "dark.png")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    one(opened, "#closer").click()
    assert shown()[2] == pytest.approx(0.6 * 720.0)
    one(opened, "#whole").click()
    assert shown() == [0.0, 0.0, 720.0, 522.0]


def test_modes_are_named_beside_the_graph_in_tips_and_in_lists(browser, tmp_path):
    """Input j is output j but for the sign of the second: each mode reads and writes one."""
    names = {"features": ("a", "b", "c"), "outputs": ("d", "e", "f")}
    net = dl.LinearNetwork((3, 3, 3), np.diag([3.0, -2.0, 1.0]), **names)
    atlas = dl.build_atlas(net)
    dl.save_page(atlas, tmp_path / "atlas.html")
    browser.get((tmp_path / "atlas.html").as_uri())
    every = ["0: a → d", "1: −b → e", "2: c → f"]
    assert [line.text for line in all_of(browser, "#names li")] == every
    actions(browser).move_to_element(node(browser, atlas, "{1}")).perform()
    assert [line.text for line in all_of(browser, "#tip li")] == every[1:2]
    actions(browser).click(node(browser, atlas, "{1}")).perform()
    assert [line.text for line in all_of(browser, "#details li")] == every[1:2]
    kinds = {row[0]: row[1].split("\n") for row in rows(browser, "from")}
    assert kinds["{1,2}"] == ["add 2", "c → f"]
    assert kinds["{0}"] == ["swap 1 for 0", "a → d"]


@pytest.mark.parametrize("count", NETWORKS)
def test_on_a_phone_the_whole_picture_can_be_read(browser, count, tmp_path):
    """It is as wide as the screen, its letters are no smaller than on a wide one, and it works."""
    atlas = dl.build_atlas(NETWORKS[count])
    dl.save_page(atlas, tmp_path / "atlas.html")
    letters = "return document.querySelector('#label-0 text').getBoundingClientRect().height"
    browser.get((tmp_path / "atlas.html").as_uri())
    wide = browser.execute_script(letters)
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        browser.get((tmp_path / "atlas.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        assert browser.execute_script(letters) > 0.9 * wide > 7.0
        # The box of the turned label of an axis is wider than what is seen.
        script = """return [...document.querySelectorAll('#graph :is(use, text)')]
            .filter((part) => !part.closest("[transform*='-90']"))
            .map((part) => part.getBoundingClientRect()).map((box) => [box.left, box.right])"""
        sides = np.array(browser.execute_script(script))
        assert len(sides) > count
        assert sides.min() >= 0.0
        assert sides.max() <= 390.0
        browser.execute_script("choose(1)")
        paths = "return [...document.querySelectorAll('{} path')].map(p => p.getAttribute('d'))"
        lines = browser.execute_script(paths.format("#chosen"))
        place = browser.execute_script("return at[1].join(' ')")
        assert lines
        assert all(line.startswith(f"M{place}Q") or line.endswith(f" {place}") for line in lines)
        drawn = map(_numbers, browser.execute_script(paths.format("[id^=edges-]")))
        curves = np.array([line for line in drawn if len(line) == 6])
        for line in lines:  # it lies on one of those of the picture
            assert np.abs(curves - _numbers(line)).max(axis=1).min() < 0.2
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def _numbers(line):
    return np.array(re.findall(r"-?[\d.]+", line), float)


def test_texts_of_data_sets_run_nothing(browser, tmp_path):
    nasty = "<img src=x onerror='document.title=1'><script>document.title=1</script>"
    atlas = dl.build_atlas(NETWORKS[16])
    atlas["connections"] = dl.connections(NETWORKS[16])
    labels = [nasty, *atlas["points"].critical_point.values[1:].tolist()]
    points = atlas["points"].to_dataset().assign_coords(critical_point=labels)
    points["loss"].attrs["long_name"] = nasty
    atlas["points"] = points
    atlas.attrs["title"] = nasty
    dl.save_page(atlas, tmp_path / "atlas.html")
    browser.get((tmp_path / "atlas.html").as_uri())
    first = browser.execute_script("return nodes[0]")
    actions(browser).move_to_element(first).click().perform()
    assert one(browser, "#details h2").text == one(browser, "h1").text == nasty
    assert browser.title == nasty
    assert all_of(browser, "img") == []
