"""A browser for the pages: the machine's own Chromium, headless."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from benchmarks.report_pictures import chromium, launched
from tests.report.made import made
from toolkit.report.page import render


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        reason = "no Chromium on this machine; `apt-get install chromium` brings it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright, launched(playwright, path) as opened:
        yield opened


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it, as a file."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(made()), encoding="utf-8")
    return path
