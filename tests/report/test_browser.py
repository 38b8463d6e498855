"""The page in a browser: alone, legible, sortable, on a phone, on paper, by keyboard, to a screen reader."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

DESK, PHONE = {"width": 1200, "height": 900}, {"width": 375, "height": 740}
# Contrast of a text's colour with the background that shows behind it, as WCAG 2 computes it.
CONTRAST = """
selector => {
  const parts = color => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = parts(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll(selector)].filter(e => e.checkVisibility()).map(e => {
    const style = getComputedStyle(e);
    const text = luminance(parts(e instanceof SVGElement ? style.fill : style.color)), back = luminance(behind(e));
    return (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
  });
}
"""
# Of each plot: its box, its marks that have an extent, and the pixels of its letters as they are shown.
PLOTS = """
plots => plots.map(svg => {
  const {x, width, height} = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll("rect, circle, path")].map(mark => mark.getBBox());
  return {
    title: svg.querySelector("title").textContent, x, width, height,
    marks: marks.filter(box => box.width + box.height > 1).length,
    letters: 12 * width / svg.viewBox.baseVal.width,
  };
})
"""
SUMMARY = "#summary table"


@pytest.fixture
def open_page(browser: Browser, report: Path) -> Iterator[Any]:
    """Opens the page with options of a browser context; what it asked for and complained of must be nothing."""
    contexts, wrong = [], []

    def opened(path: Path = report, **options: Any) -> Page:
        context = browser.new_context(**({"viewport": DESK} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: None if request.url == path.as_uri() else wrong.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    # Data URIs never leave the browser, and the protocol reports them as requests all the same.
    assert [what for what in wrong if not what.startswith("data:")] == []


def column(page: Page, name: str) -> list[str]:
    """The texts of one column of the summary, from the top."""
    titles = [text.strip() for text in page.locator(f"{SUMMARY} thead th").all_inner_texts()]
    index = titles.index(name)
    return page.locator(f"{SUMMARY} tbody tr").evaluate_all(f"rows => rows.map(row => row.cells[{index}].innerText)")


def header(page: Page, name: str) -> Any:
    return page.locator(f"{SUMMARY} thead th", has=page.get_by_role("button", name=name, exact=True))


def test_it_opens_from_disk_and_its_plots_have_something_in_them(open_page: Any) -> None:
    page = open_page()
    for section, least in (("tradeoff", 2), ("layers", 1), ("histograms", 4), ("photographs", 5)):
        plots = page.locator(f"#{section} svg[role=img]:visible").evaluate_all(PLOTS)
        assert len(plots) >= least, section
        for plot in plots:
            assert plot["width"] > 100, plot
            assert plot["height"] > 40, plot
            assert plot["marks"] > 0, plot
    assert page.locator("#operators svg.bar rect").count() > 0
    assert page.locator("img").evaluate_all("all => all.every(img => img.complete && img.naturalWidth > 50)")


def test_a_header_sorts_its_table_up_and_then_down_by_number(open_page: Any) -> None:
    page = open_page()
    button = page.locator(SUMMARY).get_by_role("button", name="Median, ms", exact=True)
    assert header(page, "Median, ms").get_attribute("aria-sort") == "none"
    button.click()
    assert column(page, "Median, ms") == ["1.70", "3.30", "3.40", "3.50", "12.0"]
    assert header(page, "Median, ms").get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(page, "Median, ms") == ["12.0", "3.50", "3.40", "3.30", "1.70"]
    assert header(page, "Median, ms").get_attribute("aria-sort") == "descending"
    page.locator(SUMMARY).get_by_role("button", name="File", exact=True).click()
    assert header(page, "Median, ms").get_attribute("aria-sort") == "none"
    assert column(page, "File") == sorted(column(page, "File"))


def test_the_keyboard_reaches_the_table_sorts_it_and_shows_where_it_is(open_page: Any) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    skip = page.locator(":focus")
    assert skip.inner_text() == "Skip to the summary"
    assert (skip.bounding_box() or {"x": -1})["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.locator(":focus").inner_text().startswith("Size, MB"):
            break
    assert page.locator(":focus").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert header(page, "Size, MB").get_attribute("aria-sort") == "ascending"
    assert column(page, "Size, MB") == ["1.55", "1.60", "2.88", "5.60", "5.62"]
    page.keyboard.press("Space")
    assert column(page, "Size, MB")[0] == "5.62"


def test_what_has_no_value_stays_last_either_way(open_page: Any) -> None:
    page = open_page()
    button = page.locator(SUMMARY).get_by_role("button", name="Limit used", exact=True)
    for _ in range(2):
        button.click()
        assert column(page, "Limit used")[-1] == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_light_and_dark(open_page: Any, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    for selector in ("p, h1, h2, h3, td, th, dt, dd, a, button, caption, figcaption, .verdict", "svg text"):
        contrasts = page.evaluate(CONTRAST, selector)
        assert len(contrasts) > 20
        assert min(contrasts) >= 4.5, selector
    marks = page.evaluate(CONTRAST, "svg .bin, svg .introduced, svg .best, svg .flip, svg .bit1")
    assert min(marks) >= 3


def test_the_switch_turns_light_to_dark_and_back(open_page: Any) -> None:
    page = open_page(color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background)
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate(background) != before
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(background) == before


def test_a_phone_scrolls_tables_and_never_the_page(open_page: Any) -> None:
    page = open_page(viewport=PHONE, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for plot in page.locator("svg[role=img]:visible").evaluate_all(PLOTS):
        assert plot["x"] >= 0, plot
        assert plot["x"] + plot["width"] <= PHONE["width"], plot
        assert plot["letters"] >= 9.5, plot


def test_on_paper_there_are_no_controls_and_dark_is_light(open_page: Any) -> None:
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    for selector in ("#theme", "nav", ".skip"):
        assert not page.locator(selector).is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("thead button").first.evaluate("e => getComputedStyle(e, '::after').content") == "none"
    page.set_viewport_size({"width": 700, "height": 990})  # A4 between its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    cut = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText.slice(0, 60))"
    assert page.locator(".scroll").evaluate_all(cut) == []
    assert page.locator("#tradeoff .wide").first.is_visible()
    assert not page.locator("#tradeoff .narrow").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_to_complain_of(open_page: Any, scheme: str, viewport: dict[str, int]) -> None:
    page = open_page(color_scheme=scheme, viewport=viewport, bypass_csp=True)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_screen_reader_hears_landmarks_captions_and_what_a_plot_shows(open_page: Any) -> None:
    page = open_page()
    for role in ("banner", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("navigation", name="Sections").count() == 1
    assert page.get_by_role("region", name="Summary").count() == 1
    assert page.get_by_role("table", name=re.compile("^Every file of the detector")).count() == 1
    image = page.get_by_role("img", name="Error along the layers of detector.int8.tflite").first
    assert "introduces most" in (image.locator("desc").text_content() or "")
