"""What a section of the page is made of. Text is text: the template escapes it. Only Markup is taken as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from toolkit.report.numbers import has_value


@dataclass(frozen=True)
class Column:
    """numeric: its cells are right-aligned and sort by their value. bar: they start with a bar."""

    title: str
    numeric: bool = False
    bar: bool = False


@dataclass(frozen=True)
class Cell:
    """text is shown; value is what the column sorts by, where that is not the text. tone: "", pass, fail, muted, code.

    bar: a share in [0, 1] that is drawn before the text.
    """

    text: str
    value: float | None = None
    tone: str = ""
    bar: float | None = None

    @property
    def sort_value(self) -> str:
        return "" if self.value is None or not has_value(self.value) else repr(float(self.value))


@dataclass(frozen=True)
class Table:
    """Rows under headers that sort. The first cell of a row is its header."""

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
    """Narrow tables, two in a line where there is room."""

    block: ClassVar[str] = "tables"
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Figure:
    """A drawing with a sentence that says what to see in it. narrow: the same for a phone, where that differs."""

    block: ClassVar[str] = "figure"
    caption: str
    wide: Markup
    narrow: Markup | None = None


@dataclass(frozen=True)
class Grid:
    """Small figures side by side, as many as there is room for."""

    block: ClassVar[str] = "grid"
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Pair(Grid):
    """Figures that are read together, two in a line where there is room."""

    block: ClassVar[str] = "row"


@dataclass(frozen=True)
class Picture:
    """A photograph as a data URI, at its own size in pixels."""

    source: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Paragraph:
    """A sentence or some. tone: "", note, warn, fail, pass."""

    block: ClassVar[str] = "paragraph"
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Heading:
    """Of a part of a section."""

    block: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Facts:
    """Terms with their values."""

    block: ClassVar[str] = "facts"
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Beside:
    """A picture with what is told of it."""

    block: ClassVar[str] = "beside"
    picture: Picture
    told: tuple[Figure | Paragraph, ...]


Block = Table | Tables | Figure | Grid | Beside | Paragraph | Heading | Facts


@dataclass(frozen=True)
class Section:
    """A landmark of the page. key: its anchor, of letters and dashes."""

    key: str
    title: str
    blocks: Sequence[Block]
