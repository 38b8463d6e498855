"""Drawings from numbers: inline SVG with a title and a description, coloured by the page's style sheet."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

FONT_PX = 12
# Advance of a character in the fonts that browsers take for system-ui, over the font size: an upper bound of the mean.
_ADVANCE = 0.58


def text_width(text: str, size_px: float = FONT_PX) -> float:
    """About how wide a text will be, for what must not run into it."""
    return len(text) * size_px * _ADVANCE


class Drawing:
    """One SVG. `kind` of each part is its class in page.css; coordinates are in pixels of the drawing's own box."""

    def __init__(self, key: str, width: float, height: float, title: str, description: str) -> None:
        """key: unique on the page. title and description are what a screen reader says."""
        self.width, self.height = width, height
        self._root = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {_number(width)} {_number(height)}",
                "width": _number(width),
                "height": _number(height),
                "role": "img",
                "aria-labelledby": f"{key}-t {key}-d",
            },
        )
        for tag, text in (("title", title), ("desc", description)):
            ElementTree.SubElement(self._root, tag, {"id": f"{key}-{tag[0]}"}).text = text

    def line(self, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self._add("line", kind, x1=x1, y1=y1, x2=x2, y2=y2)

    def rect(self, kind: str, x: float, y: float, width: float, height: float, hint: str = "") -> None:
        self._add("rect", kind, hint, x=x, y=y, width=width, height=height)

    def circle(self, kind: str, x: float, y: float, radius: float, hint: str = "") -> None:
        self._add("circle", kind, hint, cx=x, cy=y, r=radius)

    def path(self, kind: str, points: Iterable[Sequence[float]]) -> None:
        """A line through points, in order."""
        steps = [f"{'M' if i == 0 else 'L'}{_number(x)} {_number(y)}" for i, (x, y) in enumerate(points)]
        if steps:
            ElementTree.SubElement(self._root, "path", {"class": kind, "d": "".join(steps)})

    def text(self, kind: str, x: float, y: float, text: str, anchor: str = "start") -> None:
        """y is the baseline; anchor is start, middle or end."""
        place = {"class": kind, "x": _number(x), "y": _number(y), "text-anchor": anchor}
        ElementTree.SubElement(self._root, "text", place).text = text

    def markup(self) -> Markup:
        """Everything drawn. The serializer escapes what came as text."""
        return Markup(ElementTree.tostring(self._root, encoding="unicode"))

    def _add(self, tag: str, kind: str, hint: str = "", **numbers: float) -> None:
        places = {name: _number(value) for name, value in numbers.items()}
        element = ElementTree.SubElement(self._root, tag, {"class": kind, **places})
        if hint:
            ElementTree.SubElement(element, "title").text = hint


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels, with ticks. A log axis puts 0 (and less) at `zero`, where it has such a place."""

    place: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]


def log_axis(
    values: Iterable[float], start: float, end: float, label: Callable[[float], str], zero: float | None = None
) -> Axis:
    """Decades around the positive values. `zero`: the pixel of 0, which then has a tick of its own."""
    positive = [value for value in values if value > 0]
    low, high = (min(positive), max(positive)) if positive else (1.0, 10.0)
    low, high = math.log10(low), math.log10(high)
    margin = max(0.06 * (high - low), 0.04)
    low, high = low - margin, high + margin
    if high - low < 0.5:
        low, high = (low + high) / 2 - 0.25, (low + high) / 2 + 0.25

    def place(value: float) -> float:
        if value <= 0:
            return start if zero is None else zero
        return start + (math.log10(value) - low) / (high - low) * (end - start)

    ticks = [(value, label(value)) for value in _log_ticks(low, high)] if positive else []
    if zero is not None:
        ticks.insert(0, (0.0, "0"))
    return Axis(place, tuple(ticks))


def _log_ticks(low: float, high: float) -> list[float]:
    decades = high - low
    steps = (1, 1.5, 2, 3, 5, 7) if decades <= 0.8 else (1, 2, 5) if decades <= 2 else (1,)
    stride = max(1, math.ceil(decades / 6))
    exponents = range(math.floor(low), math.ceil(high) + 1)
    values = [step * 10.0**e for e in exponents if e % stride == 0 for step in steps]
    return [value for value in values if low <= math.log10(value) <= high]


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
