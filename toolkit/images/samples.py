"""Sample images: the photographs that ship with this package, and drawn pages of text for document models."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# A4 at 100 pixels an inch.
WIDTH_PX, HEIGHT_PX = 827, 1169

_MARGIN_PX = 70
_LETTERS = tuple("etaoinshrdlcumwfgypbvkjxqz")


def text_pages() -> dict[str, Image.Image]:
    """Return RGB pages by name: a letter, two columns of small print with a headline, and a table with rules.

    Every call draws the same pages.
    """
    return {
        "a letter": _prose(np.random.default_rng(1), size=20, columns=1, headline=False),
        "two columns": _prose(np.random.default_rng(2), size=13, columns=2, headline=True),
        "a table": _table(np.random.default_rng(3)),
    }


def _prose(random: np.random.Generator, size: int, columns: int, headline: bool) -> Image.Image:
    page, top = _blank(), _MARGIN_PX
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size)
    if headline:
        draw.text((_MARGIN_PX, top), _words(random, 4).title(), "black", ImageFont.load_default(40))
        top += 80
    width = (WIDTH_PX - (1 + columns) * _MARGIN_PX) // columns
    for column in range(columns):
        left, y = _MARGIN_PX + column * (width + _MARGIN_PX), top
        while y + size < HEIGHT_PX - _MARGIN_PX:
            line = _words(random, 1)
            while draw.textlength(longer := f"{line} {_words(random, 1)}", font) <= width:
                line = longer
            draw.text((left, y), line, "black", font)
            y += round(1.4 * size) * (2 if random.random() < 0.1 else 1)
    return page


def _table(random: np.random.Generator) -> Image.Image:
    page = _blank()
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(18)
    rows, columns = 24, 4
    height, width = (HEIGHT_PX - 2 * _MARGIN_PX) // rows, (WIDTH_PX - 2 * _MARGIN_PX) // columns
    for row in range(rows):
        y = _MARGIN_PX + row * height
        draw.line((_MARGIN_PX, y, WIDTH_PX - _MARGIN_PX, y), "grey", 2 if row == 1 else 1)
        for column in range(columns):
            cell = _words(random, 1) if column == 0 or row == 0 else f"{random.uniform(0, 9999):.2f}"
            draw.text((_MARGIN_PX + column * width + 6, y + 8), cell, "black", font)
    return page


def _blank() -> Image.Image:
    return Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "white")


def _words(random: np.random.Generator, count: int) -> str:
    weights = np.arange(len(_LETTERS), 0, -1.0)
    lengths = random.integers(2, 11, count)
    return " ".join("".join(random.choice(_LETTERS, n, p=weights / weights.sum())) for n in lengths)


PHOTOGRAPHS = Path(__file__).parent.parent / "photographs"


def shipped_photographs() -> list[Path]:
    """Return the photographs that ship with this package, sorted by name."""
    return sorted(PHOTOGRAPHS.glob("*.jpg"))


def generator_of(name: str) -> np.random.Generator:
    """Return a random generator with a seed made from `name`, so that results do not depend on order or machine."""
    return np.random.default_rng(zlib.crc32(name.encode()))
