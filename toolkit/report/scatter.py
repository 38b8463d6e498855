"""Drawings as inline SVG, coloured by the page's style sheet: basic shapes, logarithmic axes and scatter plots."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree

from markupsafe import Markup

FONT_PX = 12

# Upper bound of a character's mean width over the font size, in the fonts that browsers use for system-ui.
_ADVANCE = 0.58


def text_width(text: str, size_px: float = FONT_PX) -> float:
    """Return the estimated width of a text in pixels, so that other texts can keep clear of it."""
    return len(text) * size_px * _ADVANCE


class Drawing:
    """An SVG drawing. `kind`: the class of a shape in page.css. Coordinates are pixels in the drawing's view box."""

    def __init__(self, key: str, width: float, height: float, title: str, description: str) -> None:
        """Begin an empty drawing. key: unique on the page. title, description: the texts for screen readers."""
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
        """Add a straight line."""
        self._add("line", kind, x1=x1, y1=y1, x2=x2, y2=y2)

    def rect(self, kind: str, x: float, y: float, width: float, height: float, hint: str = "") -> None:
        """Add a rectangle with its upper left corner at (x, y). hint: the text that a pointer over it shows."""
        self._add("rect", kind, hint, x=x, y=y, width=width, height=height)

    def circle(self, kind: str, x: float, y: float, radius: float, hint: str = "") -> None:
        """Add a circle around (x, y). hint: the text that a pointer over it shows."""
        self._add("circle", kind, hint, cx=x, cy=y, r=radius)

    def path(self, kind: str, points: Iterable[Sequence[float]]) -> None:
        """Add a line through points (x, y), in order."""
        steps = [f"{'M' if i == 0 else 'L'}{_number(x)} {_number(y)}" for i, (x, y) in enumerate(points)]
        if steps:
            ElementTree.SubElement(self._root, "path", {"class": kind, "d": "".join(steps)})

    def text(self, kind: str, x: float, y: float, text: str, anchor: str = "start") -> None:
        """Add a text. y: its baseline. anchor: "start", "middle" or "end"."""
        place = {"class": kind, "x": _number(x), "y": _number(y), "text-anchor": anchor}
        ElementTree.SubElement(self._root, "text", place).text = text

    def markup(self) -> Markup:
        """Return the drawing as SVG. The serializer escapes all texts."""
        return Markup(ElementTree.tostring(self._root, encoding="unicode"))

    def _add(self, tag: str, kind: str, hint: str = "", **numbers: float) -> None:
        places = {name: _number(value) for name, value in numbers.items()}
        element = ElementTree.SubElement(self._root, tag, {"class": kind, **places})
        if hint:
            ElementTree.SubElement(element, "title").text = hint


@dataclass(frozen=True)
class Axis:
    """A scale. place: returns the pixel of a value. ticks: values with their labels."""

    place: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]


def log_axis(
    values: Iterable[float], start: float, end: float, label: Callable[[float], str], zero: float | None = None
) -> Axis:
    """Return a logarithmic axis over the positive values, from pixel `start` to pixel `end`.

    label: returns the label of a tick. zero: the pixel for 0 and below, with a tick for 0; None to put them at `start`.
    """
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


_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 24.0, 44.0
_RADIUS, _PEER_RADIUS = 5.0, 3.5
_ZERO_PX = 26.0
# Places for a name, relative to its point: first beside the point, then above and below at a growing distance.
_PLACES = [
    (sign_x * (_RADIUS + 4 + far), sign_y * far * 0.8)
    for far in (0.0, 14.0, 26.0, 40.0, 56.0, 74.0)
    for sign_x in (1, -1)
    for sign_y in ((0,) if not far else (-1, 1))
]

# The kind of points that are drawn only for comparison and cannot be on the front.
PEER = "peer"


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot. kind: the class of its mark. tells: the text of its hint after the name."""

    name: str
    x: float
    y: float
    kind: str
    tells: str


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def scatter(
    key: str,
    size: tuple[float, float],
    titles: tuple[str, str],
    axes: tuple[str, str],
    points: Sequence[Point],
    x_label: Callable[[float], str],
    y_label: Callable[[float], str],
) -> Drawing:
    """Return a scatter plot with the line of its Pareto front. Names without room are shown only in the hint.

    key: see Drawing. size: width and height in pixels. titles: the drawing's title and description. axes: the titles of
    x and y. x_label, y_label: return the label of a tick.
    """
    width, height = size
    drawing = Drawing(key, width, height, *titles)
    has_zero = any(point.x <= 0 for point in points)
    start = _LEFT + (_ZERO_PX if has_zero else 0)
    x = log_axis([p.x for p in points], start, width - _RIGHT, x_label, _LEFT + 10 if has_zero else None)
    y = log_axis([p.y for p in points], height - _BOTTOM, _TOP, y_label)
    _draw_axes(drawing, x, y, axes)
    front = lower_left(points)
    steps: list[tuple[float, float]] = []
    for point in front:
        if steps:
            steps.append((x.place(point.x), steps[-1][1]))
        steps.append((x.place(point.x), y.place(point.y)))
    drawing.path("front", steps)
    taken = [
        _Box(a - _RADIUS, b - _RADIUS, a + _RADIUS, b + _RADIUS)
        for a, b in ((x.place(p.x), y.place(p.y)) for p in points)
    ]
    taken += [_along(one, two) for one, two in pairwise(steps)]
    for point in points:
        at = x.place(point.x), y.place(point.y)
        radius = _PEER_RADIUS if point.kind == PEER else _RADIUS
        drawing.circle(f"mark {point.kind}", *at, radius, f"{point.name}: {point.tells}")
        if point.kind == "failed":
            for sign in (1, -1):
                drawing.line("cross", at[0] - _RADIUS, at[1] - sign * _RADIUS, at[0] + _RADIUS, at[1] + sign * _RADIUS)
    # Names of files are placed first; names of peers get the room that is left.
    for point in sorted(points, key=lambda p: (p.kind == PEER, y.place(p.y), x.place(p.x))):
        _draw_name(drawing, point, x.place(point.x), y.place(point.y), taken)
    return drawing


def _along(one: tuple[float, float], two: tuple[float, float]) -> _Box:
    """Return the box around a line of the front, which names must not cover."""
    (left, right), (top, bottom) = sorted((one[0], two[0])), sorted((one[1], two[1]))
    return _Box(left - 2, top - 2, right + 2, bottom + 2)


def lower_left(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto front of the points, from left to right, without failed files and peers."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, p.y)):
        if point.kind not in ("failed", PEER) and (not front or point.y < front[-1].y):
            front.append(point)
    return front


def _draw_axes(drawing: Drawing, x: Axis, y: Axis, titles: tuple[str, str]) -> None:
    bottom, right = drawing.height - _BOTTOM, drawing.width - _RIGHT
    drawing.line("axis", _LEFT, bottom, right, bottom)
    drawing.line("axis", _LEFT, _TOP, _LEFT, bottom)
    end = -1.0
    for value, label in x.ticks:
        at, half = x.place(value), text_width(label) / 2
        drawing.line("grid", at, _TOP, at, bottom)
        if at - half > end + 4:
            drawing.text("tick", at, bottom + 16, label, "middle")
            end = at + half
    for value, label in y.ticks:
        drawing.line("grid", _LEFT, y.place(value), right, y.place(value))
        drawing.text("tick", _LEFT - 6, y.place(value) + 4, label, "end")
    drawing.text("name", (_LEFT + right) / 2, drawing.height - 8, titles[0], "middle")
    drawing.text("name", 0, FONT_PX, titles[1])


def _draw_name(drawing: Drawing, point: Point, x: float, y: float, taken: list[_Box]) -> None:
    wide = text_width(point.name)
    for dx, dy in _PLACES:
        left = x + dx if dx > 0 else x + dx - wide
        box = _Box(left, y + dy - FONT_PX * 0.6, left + wide, y + dy + FONT_PX * 0.6)
        inside = (
            box.left > _LEFT
            and box.right < drawing.width
            and box.top > _TOP
            and (box.bottom < drawing.height - _BOTTOM)
        )
        if inside and not any(box.meets(other) for other in taken):
            taken.append(box)
            if abs(dy) > 0:
                drawing.line("leader", x, y, x + dx - (2 if dx > 0 else -2), y + dy)
            drawing.text(
                "label peer" if point.kind == PEER else "label",
                x + dx,
                y + dy + 4,
                point.name,
                "start" if dx > 0 else "end",
            )
            return
