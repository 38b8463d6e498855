"""Blocks, of which sections of the page are made. The template escapes every string except Markup."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from toolkit.report.numbers import has_value


@dataclass(frozen=True)
class Column:
    """A table's column. numeric: cells are right-aligned and sort by value. bar: cells start with a bar."""

    title: str
    numeric: bool = False
    bar: bool = False


@dataclass(frozen=True)
class Cell:
    """A table's cell. value: the number to sort by, None to sort by `text`.

    tone: "", pass, fail, muted, code, or wrap for a text that may take several lines in the summary.
    bar: a share in [0, 1] that is drawn before the text.
    """

    text: str
    value: float | None = None
    tone: str = ""
    bar: float | None = None

    @property
    def sort_value(self) -> str:
        """The value to sort by, as text; "" to sort by the cell's text."""
        return "" if self.value is None or not has_value(self.value) else repr(float(self.value))


@dataclass(frozen=True)
class Table:
    """A table with sortable columns. The first cell of a row is its header.

    Raises ValueError for a row with more or fewer cells than columns.
    """

    block: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.caption}: expected {len(self.columns)} cells, got {len(row)}")


@dataclass(frozen=True)
class Tables:
    """Narrow tables, two side by side where there is room."""

    block: ClassVar[str] = "tables"
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Figure:
    """A drawing with a sentence that explains it. narrow: the drawing for a phone, if it differs."""

    block: ClassVar[str] = "figure"
    caption: str
    wide: Markup
    narrow: Markup | None = None


@dataclass(frozen=True)
class Grid:
    """Small figures, as many side by side as there is room for."""

    block: ClassVar[str] = "grid"
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Pair(Grid):
    """Figures that are read together, two side by side where there is room."""

    block: ClassVar[str] = "row"


@dataclass(frozen=True)
class Picture:
    """A photograph. source: its data URI. width, height: its size in pixels."""

    source: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Paragraph:
    """One or more sentences. tone: "", note, warn, fail or pass."""

    block: ClassVar[str] = "paragraph"
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Heading:
    """The heading of a part of a section."""

    block: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Facts:
    """Terms with their values."""

    block: ClassVar[str] = "facts"
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Beside:
    """A picture beside figures and paragraphs about it."""

    block: ClassVar[str] = "beside"
    picture: Picture
    told: tuple[Figure | Paragraph, ...]


Block = Table | Tables | Figure | Grid | Beside | Paragraph | Heading | Facts


@dataclass(frozen=True)
class Section:
    """A section of the page. key: its anchor, of letters and dashes."""

    key: str
    title: str
    blocks: Sequence[Block]
