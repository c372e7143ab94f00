"""The web edition, built, and in a real browser: nothing is fetched from elsewhere, nothing runs out of the page.

The pages are built once. All of them are read as files, and one of each kind is opened in both widths and themes; with
the variable COURSE_EVERY_PAGE, as nightly, all are, and axe-core looks at one of each kind.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import posixpath
import re
import threading
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import Watched, wait_for

from tools import site, site_quiz
from tools.cells import read_notebook
from tools.doctor import find_browser

pytest.importorskip("myst_nb", reason="Sphinx is not installed: pip install -r requirements-site.txt")
pytestmark = pytest.mark.slow

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium found: install one, or name it with COURSE_BROWSER"),
]
EVERY = bool(os.environ.get("COURSE_EVERY_PAGE"))
PAGES = [re.sub(r"\.(ipynb|md)$", "", path) for path in [*site.OWN, *site.pages()]]
KINDS = [
    "index",
    "ch01/ch01_main",
    "ch02/ch02_exercises",
    "appendix/I_book_sections",
    "appendix/J_traps",
    "appendix/B_solutions_index",
    "glossary",
]
QUICK_AXE = ["index", "ch02/ch02_exercises", "appendix/B_solutions_index"]  # it takes long on long pages
# The same file as in the npm package mathjax 3.2.2.
MATHJAX = "0a6ded5abbce13331658dd239f34382abd06492c74b71b61e8caa8112ec55fa5"


class Page(HTMLParser):
    """What a page holds: headings of the article, pictures, links, anchors, and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.article = False
        self.headings, self.alternatives, self.links, self.anchors, self.fetched = [], [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.article |= tag == "article"
        self.anchors |= {given["id"]} if given.get("id") else set()
        if self.article and re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img" and self.article:
            self.alternatives.append(given.get("alt") or "")
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag != "a" and given.get("rel") != "canonical":
            self.fetched += [given[name] for name in ("src", "href", "srcset") if given.get(name)]

    def handle_endtag(self, tag: str) -> None:
        self.article &= tag != "article"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder with the pages, of a build in which every warning is an error."""
    out = tmp_path_factory.mktemp("site")
    assert site.build(out) == 0
    return out / "html"


@pytest.fixture(scope="module")
def parsed(built) -> dict[str, Page]:
    paths = {path.relative_to(built).as_posix(): path for path in sorted(built.rglob("*.html"))}
    return {name: Page(path.read_text(encoding="utf-8")) for name, path in paths.items() if "_static" not in name}


# -------------------------------------------------------------------------------------------------- pages as files


def test_every_page_is_there_with_its_notebook_to_download(built, parsed):
    assert {f"{page}.html" for page in PAGES} <= set(parsed)
    for path in site.pages():
        assert (built / "_sources" / path).read_bytes() == (site.ROOT / path).read_bytes()
        page = parsed[re.sub(r"\.(ipynb|md)$", ".html", path)]
        assert any(link.endswith(f"_sources/{path}") for link in page.links)
        colab = [link for link in page.links if link.startswith("https://colab.research.google.com/github/")]
        assert [link.partition("/blob/main/")[2] for link in colab] == ([path] if path.endswith(".ipynb") else [])


def test_nothing_is_fetched_from_elsewhere(parsed):
    foreign = {name: [each for each in page.fetched if urlsplit(each).netloc] for name, page in parsed.items()}
    assert {name: found for name, found in foreign.items() if found} == {}


def test_headings_are_in_order_and_pictures_have_alternative_texts(parsed):
    for name in (f"{page}.html" for page in PAGES):
        headings = parsed[name].headings
        assert headings[0] == 1, name
        assert headings.count(1) == 1, name
        assert all(new - old <= 1 for old, new in pairwise(headings)), name
        assert all(parsed[name].alternatives), name


def test_links_between_pages_lead_to_what_they_name(parsed, built):
    wrong = []
    for name, page in parsed.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path))) if parts.path else name
            )
            anchor = unquote(parts.fragment)
            if not (built / target).exists() or (anchor and target in parsed and anchor not in parsed[target].anchors):
                wrong.append(f"{name}: {link}")
    assert wrong == []


def test_words_lead_to_the_glossary_and_sections_to_each_other(built):
    chapter = (built / "ch06" / "ch06_main.html").read_text(encoding="utf-8")
    terms = re.findall(r'<a class="term[^>]*href="\.\./glossary\.html#([^"]+)"', chapter)
    assert "term-Advantage" in terms
    assert len(terms) == len(set(terms)) > 20
    assert re.search(r'href="\.\./ch03/ch03_main\.html#problems"><span>section 3\.8</span>', chapter)
    assert "https://arxiv.org/abs/2402.03300" in chapter
    concordance = (built / "appendix" / "I_book_sections.html").read_text(encoding="utf-8")
    assert re.search(r"<td><p>2\.1</p></td>", concordance), "numbers of the book are no links"
    assert concordance.count("ch02_main.html#") > 20


def test_mathjax_is_the_published_one_and_small(built):
    folder = built / "_static" / "mathjax"
    assert hashlib.sha256((folder / "tex-chtml.js").read_bytes()).hexdigest() == MATHJAX
    assert sum(path.stat().st_size for path in built.rglob("*") if path.is_file()) < 40e6


# ------------------------------------------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def address(built):
    handler = functools.partial(Quiet, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def browser(address, tmp_path_factory):
    with Watched(find_browser(), tmp_path_factory.mktemp("profile")) as page:
        page.socket.settimeout(300)
        yield page


def opened(browser, address: str, page: str) -> None:
    """Open a page and wait for its formulas."""
    browser.evaluate("window.before = true")
    browser.open(f"http://{address}/{page}")
    wait_for(lambda: browser.evaluate("!window.before && document.readyState === 'complete'"), 180, page)
    ready = "window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true"
    assert browser.evaluate(ready)


def look(browser, width: int, theme: str) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    wait_for(lambda: browser.evaluate("document.documentElement.dataset.theme") == theme, 20, theme)
    # The page hears of its new width with the next frame.
    assert browser.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")


LOOKS = [(width, theme) for width in (1280, 400) for theme in ("light", "dark")]
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNSEEN = "[...document.images].filter(each => each.complete && !each.naturalWidth).map(each => each.src)"
UNSET = "[...document.querySelectorAll('.math')].filter(each => /\\\\\\\\[a-z(\\[]/.test(each.innerText)).length"


def in_browser(test):
    """Marks a test that needs a browser."""
    for mark in needs_browser:
        test = mark(test)
    return test


@in_browser
@pytest.mark.parametrize("page", PAGES if EVERY else KINDS)
def test_a_page_fits_in_both_widths_and_themes(browser, address, page):
    opened(browser, address, f"{page}.html")
    for width, theme in LOOKS:
        look(browser, width, theme)
        assert browser.evaluate(TOO_WIDE) <= 0, (width, theme)
    assert browser.evaluate(UNSEEN) == []
    assert browser.evaluate(UNSET) == 0


@in_browser
@pytest.mark.parametrize("page", KINDS if EVERY else QUICK_AXE)
def test_axe_finds_no_fault(browser, address, page):
    """Contrast above all, and names, landmarks, roles and what else can be found by a program."""
    found = find_spec("axe_playwright_python")
    if found is None:
        pytest.skip("axe-core is not installed: pip install --no-deps -r requirements-nodeps.txt")
    axe = Path(found.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8")
    opened(browser, address, f"{page}.html")
    browser.evaluate(f"{axe}; true")
    for width, theme in LOOKS if EVERY else LOOKS[::3]:
        look(browser, width, theme)
        faults = browser.evaluate("axe.run(document, {resultTypes: ['violations']}).then(result => result.violations)")
        told = {fault["id"]: [node["html"] for node in fault["nodes"]][:3] for fault in faults}
        assert told == {}, (width, theme)


@in_browser
def test_the_quiz_says_what_is_right(browser, address):
    opened(browser, address, f"{site_quiz.NOTEBOOK.replace('.ipynb', '.html')}")
    sources = [cell.source for cell in read_notebook(site.ROOT / site_quiz.NOTEBOOK).cells]
    answers = list(site_quiz.answers(sources).values())
    assert browser.evaluate("document.querySelectorAll('form.quiz').length") == len(answers)
    for number, answer in enumerate(answers):
        values = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, tuple) else [answer]
        assert filled(browser, number, [""] * len(values)) == "Write an answer first."
        assert filled(browser, number, ["wrong"] * len(values)).startswith("Not yet. Hint: section 1.")
        assert filled(browser, number, [str(value).upper() for value in values]).startswith("Right: ")
    assert filled(browser, 2, ["C and b"]).startswith("Right: ")
    assert filled(browser, 1, ["abcd"]).startswith("Not yet.")


def filled(browser, number: int, values: list[str]) -> str:
    """What the page says to an answer."""
    script = f"""(() => {{
        const form = document.querySelectorAll("form.quiz")[{number}], values = {json.dumps(values)};
        form.querySelectorAll("input").forEach((box, place) => box.value = values[place]);
        form.querySelector("button").click();
        return form.querySelector("output").textContent;
    }})()"""
    return browser.evaluate(script)


@in_browser
def test_the_search_finds_a_word(browser, address):
    opened(browser, address, "search.html?q=advantage")
    found = "[...document.querySelectorAll('#search-results li a')].map(each => each.getAttribute('href')).join(' ')"
    wait_for(lambda: "ch06/ch06_main.html" in browser.evaluate(found), 60, "the chapter of the advantage")


@in_browser
def test_no_other_host_was_asked_for_anything(browser, address):
    """Stands last: over all that the browser did before."""
    assert browser.asked() <= {address}
