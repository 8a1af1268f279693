"""The report in a real browser: the first screen, dark mode, and what is left on paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixopt.pipelines.views.report import write_report
from tests.pipelines.finished_study import finished_study

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Page = playwright.Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREEN = {"width": 1330, "height": 1150}
READABLE = 4.5  # WCAG 2.2, 1.4.3: least contrast of text with what is behind it
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
QUESTIONS = 5
# The contrast of every text with the nearest background that is not transparent.
CONTRASTS = """
() => {
  const light = (text) => {
    const found = text.match(/[\\d.]+/g).map(Number);
    const of = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * of(found[0]) + 0.7152 * of(found[1]) + 0.0722 * of(found[2]);
  };
  const behind = (node) => {
    for (let it = node; it; it = it.parentElement) {
      const colour = getComputedStyle(it).backgroundColor;
      if (colour.startsWith("rgb(")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const all = document.querySelectorAll("h1,h2,h3,p,dt,dd,td,th,figcaption,a,code,strong,small");
  return [...all].filter((it) => it.innerText && it.offsetParent).map((it) => {
    const [a, b] = [light(getComputedStyle(it).color), light(behind(it))];
    const words = it.tagName + " " + it.innerText.slice(0, 40);
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), words];
  });
}
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(finished_study(tmp_path_factory.mktemp("study"), "seen", trials=30))


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def page(browser: playwright.Browser, report: Path, errors: list[str]) -> Iterator[Page]:
    """The report as it opens, its figures drawn; `errors` keeps what goes wrong in it."""
    page = browser.new_page(viewport=SCREEN)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda it: errors.append(it.text) if it.type == "error" else None)
    page.on("request", lambda it: errors.append(it.url) if it.url.startswith("http") else None)
    page.goto(report.as_uri())
    yield page
    page.close()


def drawn(page: Page) -> None:
    """Go through the page, and wait until all its figures are drawn."""
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator("svg.main-svg").first.wait_for(timeout=60_000)


def test_the_five_answers_are_on_the_first_screen(page: Page) -> None:
    answers = page.locator("dl.answers > div")
    assert answers.count() == QUESTIONS
    for answer in answers.all():
        box = answer.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= SCREEN["height"]
        assert answer.locator("b").inner_text()
    lead = page.locator(".lead").bounding_box()
    assert lead is not None
    assert lead["y"] >= 0
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= SCREEN["width"]  # nothing has to be scrolled sideways


def test_figures_are_drawn_and_tables_sorted_without_an_error(
    page: Page, errors: list[str]
) -> None:
    drawn(page)
    table = page.locator("table.sortable").first
    numbers = "all => all.map(row => row.cells[0].dataset.key ?? row.cells[0].innerText)"
    before = table.locator("tbody tr").evaluate_all(numbers)
    table.locator("thead button").first.click()
    once = table.locator("tbody tr").evaluate_all(numbers)
    table.locator("thead button").first.click()
    assert table.locator("tbody tr").evaluate_all(numbers) == once[::-1]
    assert sorted(before) == sorted(once)
    assert errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    drawn(page)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shade = sum(map(int, background.removeprefix("rgb(").removesuffix(")").split(",")))
    assert (shade > 600) == (scheme == "light")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    assert [it for it in contrasts if it[0] < READABLE] == []


def test_on_paper_and_without_a_script_all_tables_are_there(
    browser: playwright.Browser, report: Path
) -> None:
    context = browser.new_context(java_script_enabled=False, viewport=SCREEN)
    page = context.new_page()
    page.goto(report.as_uri())
    tables = page.locator("section .card table:not(details table)")
    on_screen = tables.count()
    page.emulate_media(media="print")
    assert tables.count() == on_screen > 5
    for table in tables.all():
        assert table.is_visible()
        assert table.locator("tbody tr").last.is_visible()
    needs = page.locator("noscript").first
    assert "needs a script" in needs.inner_text()
    assert page.locator("dl.answers > div").count() == QUESTIONS
    assert page.pdf().startswith(b"%PDF")
    context.close()
