"""The section of the HTML report about messages: their bits, and the bits that flipped under each distortion."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from toolkit.images.open import read_rgb
from toolkit.images.samples import shipped_photographs
from toolkit.models.watermark.compare import ALL_DISTORTIONS, sample_name
from toolkit.models.watermark.judge import MessageDetails, MessageReading
from toolkit.models.watermark.message import Message
from toolkit.report.blocks import Beside, Block, Cell, Column, Figure, Heading, Paragraph, Picture, Section, Table
from toolkit.report.evidence import ComparedRole, Evidence
from toolkit.report.numbers import significant
from toolkit.report.scatter import FONT_PX, Drawing, text_width

_CELL_PX = 11.0
_ROW_PX = 15.0

# With fewer bits a line, the drawing is narrow, and the names stand above the cells.
_WIDE_LINE = 64


def different_bits(one: str, other: str, bits: int) -> set[int]:
    """Return the indices of the bits in which two messages, given in hex, differ."""
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
    """Draw messages as rows of cells, one cell a bit, with flipped and wrong bits marked.

    lines: (name, message in hex), "hidden" first if a message is hidden, then the reference, then the files.
    flips: the flipped bits by name. a_line: bits in a row; longer messages continue in a further group of rows.
    """
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
    files: Mapping[str, Mapping[str, MessageReading]],
    distortions: Sequence[str],
    bits: int,
) -> Figure:
    """Return a figure with a row for each distortion and a column for each bit. It marks each bit that flipped; the
    mark is taller if more files flipped the bit.

    files: name -> distortion -> reading. Distortions under which no bit flipped are left out.
    """
    flips: dict[tuple[str, int], list[str]] = {}
    for file, readings in files.items():
        for distortion, reading in readings.items():
            for flip in reading.flipped:
                flips.setdefault((distortion, flip.bit), []).append(file)
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


# The most photographs that are shown, the shipped ones first.
SHOWN = 8

_THUMBNAIL_PX = 220
_BITS_A_LINE = 64

# The most flipped bits in a table, those with the largest logits first.
_FLIPS_LISTED = 40

# The readings of one file by the sample's name, and those of one photograph by the distortion.
_Readings = Mapping[str, MessageReading]
_ByDistortion = Mapping[str, MessageReading]


def section(evidence: Evidence) -> Section | None:
    """Return a section with a part for each photograph: the picture, its messages, and the flips of all distortions.

    Return None if no role has readings of photographs.
    """
    role = next((role for role in evidence.comparisons if _files(role)), None)
    if role is None:
        return None
    bits = int(evidence.bundle.model["bits"])
    files = _files(role)
    blocks: list[Block] = [
        Paragraph(
            "A strong cell is a bit read as 1, a faint one a 0; files that read the same share a row. A red frame and "
            f"a cross are a bit that a file reads otherwise than {role.reference}; a dot under the "
            "reference's row is a bit that the reference itself reads wrong."
        )
    ]
    photographs = (*shipped_photographs(), *evidence.images)
    shown = 0
    for number, path in enumerate(photographs):
        readings = {file: _of(path, told) for file, told in files.items()}
        if shown == SHOWN or not any(readings.values()):
            continue
        shown += 1
        blocks += [Heading(path.name), Beside(_picture(path), _messages(number, path.name, role, readings, bits))]
        blocks += _flipped(number, path.name, readings, bits)
    left = len(photographs) - shown
    if left > 0:
        blocks.append(Paragraph(f"{left} more photographs were compared, and are in the numbers above.", "note"))
    return Section("photographs", "Photographs and their messages", blocks) if shown else None


def _files(role: ComparedRole) -> dict[str, _Readings]:
    """Return the readings of each file of a role, by the sample's name; empty for a role that reads no messages."""
    found = {file.name: MessageDetails.of(file.total.details) for file in role.files if file.total is not None}
    return {
        file: {reading.sample: reading for reading in details.readings}
        for file, details in found.items()
        if details is not None and details.readings
    }


def _of(path: Path, readings: _Readings) -> dict[str, MessageReading]:
    """Return the readings of one photograph by distortion: those of the marked photograph, if there are any."""
    for family in ("marked", "real"):
        named = {d: readings.get(sample_name(path, family, d)) for d in ALL_DISTORTIONS}
        if found := {distortion: reading for distortion, reading in named.items() if reading is not None}:
            return found
    return {}


def _picture(path: Path) -> Picture:
    image = read_rgb(path)
    alt = f"The photograph {path.name}, {image.width} by {image.height} pixels"
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(source, alt, image.width, image.height)


def _messages(
    number: int, photograph: str, role: ComparedRole, files: Mapping[str, _ByDistortion], bits: int
) -> tuple[Figure | Paragraph, ...]:
    """Return text and a figure of the messages that were read without a distortion."""
    plain = {file: readings["none"] for file, readings in files.items() if "none" in readings}
    if not plain:
        return (Paragraph("This photograph was read with distortions only.", "note"),)
    first = next(iter(plain.values()))
    lines = [("hidden", first.hidden)] if first.hidden else []
    lines.append((role.reference, first.reference))
    alike: dict[str, list[str]] = {}
    for file, reading in plain.items():
        alike.setdefault(reading.read, []).append(file)
    lines += [(_together(names, len(plain)), read) for read, names in alike.items()]
    drawn = {_together(names, len(plain)): {flip.bit for flip in plain[names[0]].flipped} for names in alike.values()}
    flips = {file: {flip.bit for flip in reading.flipped} for file, reading in plain.items()}
    said = _flipped_words(flips, bits)
    wide, narrow = (
        message_bits(f"bits-{number}-{form}", photograph, said, lines, drawn, bits, a_line)
        for form, a_line in (("wide", _BITS_A_LINE), ("narrow", _BITS_A_LINE // 2))
    )
    return Paragraph(_told(first, plain, bits)), Figure(said, wide, narrow)


def _flipped(number: int, photograph: str, files: Mapping[str, _ByDistortion], bits: int) -> Iterator[Block]:
    """Yield a figure and a table of the flips under all distortions, or a sentence if there are none."""
    total = sum(len(reading.flipped) for readings in files.values() for reading in readings.values())
    distortions = list(dict.fromkeys(name for readings in files.values() for name in readings))
    if not total:
        yield Paragraph(f"No file flips a bit of it, as it is or under any of {len(distortions) - 1} distortions.")
        return
    yield flip_map(f"flips-{number}", photograph, files, distortions, bits)
    yield _flips(photograph, files, total, bits)


def _together(names: list[str], files: int) -> str:
    """Return the name of a row that `names`, out of `files` files, share. The first name makes it unique."""
    if len(names) == 1:
        return names[0]
    return f"all {files} files" if len(names) == files else f"{names[0]} and {len(names) - 1} more"


def _told(first: MessageReading, plain: Mapping[str, MessageReading], bits: int) -> str:
    if first.hidden is None:
        return f"No message is hidden in it: what the reference reads is {first.reference}, of {bits} bits."
    wrong = different_bits(first.hidden, first.reference, bits)
    same = sum(reading.read == first.reference for reading in plain.values())
    return (
        f"Hidden: {first.hidden}. The reference reads {bits - len(wrong)} of {bits} bits right; {same} of "
        f"{len(plain)} files read just what it reads."
    )


def _flipped_words(flips: Mapping[str, set[int]], bits: int) -> str:
    told = [f"{file} {len(flipped)} of {bits}" for file, flipped in flips.items() if flipped]
    return f"As saved, without a distortion: {', '.join(told) + ' flipped' if told else 'no file flips a bit'}."


def _flips(photograph: str, files: Mapping[str, _ByDistortion], total: int, bits: int) -> Table:
    columns = (
        Column("Distortion"), Column("File"), Column("Bit", True), Column("Hidden", True),
        Column("Logit of the reference", True), Column("Logit of the file", True),
    )  # fmt: skip
    flips = [
        (abs(flip.reference) + abs(flip.file), distortion, file, reading.hidden, flip)
        for file, readings in files.items()
        for distortion, reading in readings.items()
        for flip in reading.flipped
    ]
    flips.sort(key=lambda entry: -entry[0])
    rows = []
    for _, distortion, file, hidden, flip in flips[:_FLIPS_LISTED]:
        bit = flip.bit
        shown = "" if hidden is None else str(Message.from_hex(hidden, bits).bits[bit])
        rows.append(
            (
                Cell(distortion),
                Cell(file),
                Cell(str(bit), bit),
                Cell(shown, float(shown) if shown else None),
                Cell(significant(flip.reference), flip.reference),
                Cell(significant(flip.file), flip.file),
            )
        )
    few = f", the {_FLIPS_LISTED} that moved furthest of {total}" if total > _FLIPS_LISTED else ""
    return Table(f"Bits of {photograph} that flipped{few}", columns, tuple(rows))
