"""Make the README's pictures of a report, with the machine's Chromium.

`python -m benchmarks.report_pictures report.html`
`toolkit compare build/pocketseal --html report.html` makes the report.
"""

import io
import os
import shutil
from pathlib import Path
from typing import Literal

import click
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Playwright, sync_playwright

DOCS = Path(__file__).parent.parent / "docs"
NAMES = ("chromium", "chromium-browser", "google-chrome")
_MARGIN_PX = 16
Scheme = Literal["light", "dark"]


def chromium() -> str | None:
    """Return the path of the machine's Chromium; None without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def launched(playwright: Playwright, path: str) -> Browser:
    # As root, Chromium does not start with its sandbox.
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])


def picture(
    browser: Browser, report: Path, name: str, size: tuple[int, int], scheme: Scheme, first: str, scale: int
) -> None:
    """Write DOCS/`name`: a report in a window of `size` CSS pixels, from the element `first` down.

    scale: pixels of the picture for each CSS pixel.
    """
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, device_scale_factor=scale
    )
    page = context.new_page()
    page.goto(report.resolve().as_uri())
    top = page.locator(first).bounding_box()
    assert top is not None, first
    clip: FloatRect = {"x": 0, "y": max(0, top["y"] - _MARGIN_PX), "width": size[0], "height": size[1]}
    shot = page.screenshot(full_page=True, clip=clip)
    context.close()
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    image.save(DOCS / name, optimize=True)
    click.echo(f"{name}: {image.width} x {image.height}")


@click.command(help=__doc__)
@click.argument("report", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(report: Path) -> None:
    path = chromium()
    if path is None:
        raise click.ClickException("no Chromium on this machine; `apt-get install chromium` brings it")
    with sync_playwright() as playwright, launched(playwright, path) as browser:
        picture(browser, report, "report-light.png", (1200, 1500), "light", "header", 1)
        picture(browser, report, "report-dark.png", (1200, 1000), "dark", "#layers", 1)
        picture(browser, report, "report-phone.png", (375, 760), "light", "#tradeoff", 2)


if __name__ == "__main__":
    main()
