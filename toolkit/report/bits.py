"""Messages drawn bit by bit, and where under the distortions they flipped."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from toolkit.message import Message
from toolkit.report.blocks import Figure
from toolkit.report.svg import FONT_PX, Drawing, text_width

_CELL_PX = 11.0
_ROW_PX = 15.0
# A message that is longer goes on in a further line; a narrow one has its names above the cells.
_WIDE_LINE = 64


def different_bits(one: str, other: str, bits: int) -> set[int]:
    """The bits that two messages in hex do not share."""
    pair = (Message.from_hex(text, bits).bits for text in (one, other))
    return {i for i, (a, b) in enumerate(zip(*pair, strict=True)) if a != b}


def message_bits(
    key: str,
    photograph: str,
    said: str,
    lines: Sequence[tuple[str, str]],
    flips: Mapping[str, set[int]],
    bits: int,
    a_line: int,
) -> Markup:
    """lines: names with hex messages, the hidden one first where there is one, then the reference, then the files.

    One row of cells a message; messages longer than `a_line` go on in a further group of rows."""
    names = [name.removeprefix("detector.") for name, _ in lines]
    above = a_line < _WIDE_LINE  # no room for names beside the cells
    left = 4.0 if above else max(text_width(name) for name in names) + 10
    row_px = _ROW_PX * 2 if above else _ROW_PX
    groups = range(0, bits, a_line)
    high = len(groups) * (len(lines) * row_px + 14) + 4
    cell = _CELL_PX if not above else 10.0
    drawing = Drawing(key, left + min(a_line, bits) * cell + 4, high, f"Bits read of {photograph}", said)
    hidden = dict(lines).get("hidden")
    for group, start in enumerate(groups):
        for row, (name, text) in enumerate(lines):
            y = group * (len(lines) * row_px + 14) + row * row_px + (row_px - _ROW_PX) + 2
            label_at = (left - 6, y + 10, "end") if not above else (left, y - 3, "start")
            if not above or group == 0:
                drawing.text("label", label_at[0], label_at[1], names[row], label_at[2])
            values = Message.from_hex(text, bits).bits
            wrong = different_bits(hidden, text, bits) if hidden and row == 1 else set()
            for bit in range(start, min(start + a_line, bits)):
                x = left + (bit - start) * cell
                flipped = bit in flips.get(name, ())
                kind = f"bit{values[bit]}" + (" flipped" if flipped else "")
                drawing.rect(kind, x + 0.5, y, cell - 2, _CELL_PX - 1, f"bit {bit}, {name}" if flipped else "")
                if flipped:
                    drawing.line("cross", x + 1, y, x + cell - 2, y + _CELL_PX - 1)
                    drawing.line("cross", x + cell - 2, y, x + 1, y + _CELL_PX - 1)
                if bit in wrong:
                    drawing.circle("wrong", x + cell / 2 - 0.5, y + _CELL_PX + 1, 1.4)
    return drawing.markup()


def flip_map(
    key: str,
    photograph: str,
    files: Mapping[str, Mapping[str, Mapping[str, Any]]],
    distortions: Sequence[str],
    bits: int,
) -> Figure:
    """A row a distortion, a column a bit; a mark where files flipped it, the taller the more of them did.

    files: name -> distortion -> what it read. Distortions under which nothing flipped are left out.
    """
    flips: dict[tuple[str, int], list[str]] = {}
    for file, readings in files.items():
        for distortion, reading in readings.items():
            for flip in reading["flipped"]:
                flips.setdefault((distortion, flip["bit"]), []).append(file)
    rows = [name for name in distortions if any(name == distortion for distortion, _ in flips)]
    most = max(len(who) for who in flips.values())
    said = (
        f"{len(flips)} of the {bits * len(distortions):,} bits of all {len(distortions)} readings "
        f"{'flip' if len(flips) > 1 else 'flips'} in some file, in at most {most} of {len(files)}. Drawn are the "
        "readings in which they lie; a taller mark is a bit that more files flip."
    )
    drawings = []
    for form, width in (("wide", 760.0), ("narrow", 335.0)):
        left = max(text_width(name) for name in rows) + 10 if form == "wide" else 2.0
        row_px = 16.0 if form == "wide" else 32.0
        drawing = Drawing(f"{key}-{form}", width, len(rows) * row_px + 34, f"Bits of {photograph} that flipped", said)
        step = (width - left - 4) / bits
        for index, distortion in enumerate(rows):
            bottom = (index + 1) * row_px
            if form == "wide":
                drawing.text("label", left - 6, bottom - 3, distortion, "end")
            else:
                drawing.text("label", left, bottom - 17, distortion)
            drawing.line("grid", left, bottom, width - 4, bottom)
            for bit in range(bits):
                if who := flips.get((distortion, bit)):
                    high = 5 + 8 * len(who) / len(files)
                    hint = f"bit {bit}, {distortion}: {', '.join(who)}"
                    drawing.rect("flip", left + bit * step, bottom - high, max(step - 1, 3), high, hint)
        for bit in sorted({0, bits // 4, bits // 2, 3 * bits // 4, bits - 1}):
            anchor = "start" if bit == 0 else "end" if bit == bits - 1 else "middle"
            drawing.text("tick", left + (bit + 0.5) * step, len(rows) * row_px + FONT_PX + 3, str(bit), anchor)
        drawing.text("name", (left + width) / 2, len(rows) * row_px + 30, "bit of the message", "middle")
        drawings.append(drawing.markup())
    return Figure(said, *drawings)
