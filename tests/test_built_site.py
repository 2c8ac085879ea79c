"""The documentation as it is built: links, pictures, pages in a browser. nox -s docs runs these."""

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

pytestmark = pytest.mark.site
PAGES = (
    *("index", "start", "tutorial", "gallery/index", "gallery/one_hidden_node"),
    *("generated/api", "generated/api/dlnds.flow", "generated/theory", "generated/files"),
    *("generated/benchmarks", "animals"),
)


class Page(HTMLParser):
    """What a page refers to, and the places in it that others refer to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.places = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.places |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag in ("script", "img") and attrs.get("src"):
            self.loaded.append(attrs["src"])
        if tag == "link" and attrs.get("rel") in ("stylesheet", "icon"):
            self.loaded.append(attrs["href"])


@pytest.fixture(scope="module")
def site():
    return Path(os.environ["SITE"])


@pytest.fixture(scope="module")
def pages(site):
    found = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    return {path: Page(path) for path in found}


def test_links_lead_to_pages_and_to_places_in_them(pages):
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            file, _, place = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), f"{path}: {link}"
            if place and target in pages:
                assert place in pages[target].places, f"{path}: {link}"


def test_pages_load_nothing_from_elsewhere(pages):
    for path, page in pages.items():
        for source in page.loaded:
            assert not re.match(r"(https?:)?//", source), f"{path}: {source}"
            assert source.startswith("data:") or (path.parent / source.partition("?")[0]).is_file()


def test_every_study_shows_its_picture(site):
    for study in (Path(__file__).parents[1] / "studies").glob("*.py"):
        text = (site / "gallery" / f"{study.stem}.html").read_text(encoding="utf-8")
        assert f"sphx_glr_{study.stem}_001" in text, study.name


def test_pages_with_pictures_show_them(site):
    for name, least in (("start", 1), ("tutorial", 5), ("reading", 4), ("training", 1)):
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        assert text.count('<img alt="_images/') >= least, name


def test_the_page_of_an_atlas_opens_from_the_manual(site, pages):
    for name in ("index", "reading"):
        assert "animals.html" in pages[site / f"{name}.html"].links, name
    assert (site / "animals.html").is_file()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if None in programs.values():
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    yield driver
    driver.quit()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_pages_show_their_pictures_and_no_error(site, browser, name, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get((site / f"{name}.html").as_uri())
    bad = "return [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
    assert browser.execute_script(bad) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
