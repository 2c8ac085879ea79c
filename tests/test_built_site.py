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
    *("generated/api", "generated/api/dlnds.flow", "generated/api/dlnds.convergence_bounds"),
    *("generated/api/dlnds.linearize", "generated/theory", "generated/files"),
    *("generated/benchmarks", "animals"),
)


#: Elements without an end, and those with text that is code or a name.
VOID = {*("area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr")}
KEPT = ("code", "script", "style", "svg", ".math", ".sig", ".headerlink", ".classifier", ".output")
#: Where words are no terms of the glossary.
NO_TERMS = ("code", "pre", ".tests", ".output", ".sig")
#: Indices and powers that should have been set low and high; ``t_span`` is a name.
RAW = re.compile(r"(?<![A-Za-z0-9_])[^\W\d_]_(?![a-z]{3})\S|[‖\]∇∫]_\S|\S\^\S")


class Page(HTMLParser):
    """What a page refers to, the places in it that others refer to, its code and its text."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.places, self.wrong_terms = [], [], set(), []
        self.within, self.code, self.altered, self.text = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.places |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        if tag not in VOID:
            self.within.append((tag, *(f".{c}" for c in (attrs.get("class") or "").split())))
        if tag == "pre":
            self.code.append("")
        if tag in ("sub", "sup") and self.stands_in("pre"):
            self.altered.append(self.code[-1])
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag in ("script", "img") and attrs.get("src"):
            self.loaded.append(attrs["src"])
        if tag == "link" and attrs.get("rel") in ("stylesheet", "icon"):
            self.loaded.append(attrs["href"])

        if tag == "a" and "#term-" in attrs.get("href", "") and self.stands_in(*NO_TERMS):
            self.wrong_terms.append(attrs["href"])

    def handle_endtag(self, tag):
        while self.within and self.within.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self.stands_in("pre"):
            self.code[-1] += data
        elif self.stands_in("article") and not self.stands_in(*KEPT):
            self.text.append(data)

    def stands_in(self, *names):
        return any({*names}.intersection(element) for element in self.within)


@pytest.fixture(scope="module")
def site():
    return Path(os.environ["SITE"])


@pytest.fixture(scope="module")
def pages(site):
    found = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    return {path: Page(path) for path in found}


def test_terms_are_linked_in_text_and_not_in_code_or_names_of_tests(pages):
    assert {path.name: page.wrong_terms for path, page in pages.items() if page.wrong_terms} == {}
    assert any("#term-" in link for page in pages.values() for link in page.links)


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


def test_source_code_is_as_it_was_written(site, pages):
    for path, page in pages.items():
        assert page.altered == [], path
    for study in (Path(__file__).parents[1] / "studies").glob("*.py"):
        written = {line.rstrip() for line in study.read_text(encoding="utf-8").splitlines()}
        code = pages[site / "gallery" / f"{study.stem}.html"].code
        source = max(code, key=len).splitlines()
        assert len(source) > 20, study.name
        assert {line.rstrip() for line in source} - {""} <= written, study.name


def test_no_index_is_left_raw_in_text(pages):
    for path, page in pages.items():
        left = [text for text in page.text if RAW.search(text)]
        assert left == [], path


def test_keys_of_papers_lead_to_them_from_studies(pages):
    for path, page in pages.items():
        linked = [link for link in page.links if "literature.html#" in link]
        if path.parent.name == "gallery" and re.search(r"[A-Z]{2,4}\d\d", "".join(page.text)):
            assert linked, path


def test_terms_lead_to_the_glossary_once_on_a_page(site, pages):
    terms = {place for place in pages[site / "glossary.html"].places if place.startswith("term-")}
    linked = set()
    for path, page in pages.items():
        if path.name == "genindex.html":
            continue
        own = [link.partition("#")[2] for link in page.links if "glossary.html#term-" in link]
        assert len(set(own)) == len(own)
        linked |= {*own}
    assert linked <= terms
    assert len(terms - linked) < 0.1 * len(terms), "words that no page uses"
    for name in ("index", "start", "tutorial", "reading", "gallery/one_hidden_node"):
        assert any("#term-saddle" in link for link in pages[site / f"{name}.html"].links), name


def test_pages_with_pictures_show_them(site):
    for name, least in (("start", 1), ("tutorial", 5), ("reading", 4), ("training", 1)):
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        assert text.count('<img alt="_images/') >= least, name


def test_the_page_of_an_atlas_opens_from_the_manual(site, pages):
    for name in ("index", "reading"):
        assert "animals.html" in pages[site / f"{name}.html"].links, name
    assert "index.html" in pages[site / "animals.html"].links


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
    inside = "return [...document.querySelectorAll('.bd-article-container, .bd-article, main')]"
    wide = f"{inside}.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.className)"
    assert browser.execute_script(wide) == []  # these scroll by themselves
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
