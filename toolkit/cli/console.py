"""Output that several commands share, and the choice of a bundle. Results go to stdout, all other lines to stderr."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.status import Status
from rich.table import Table

from backends.bundle import Bundle
from toolkit import find_bundle

Item = TypeVar("Item")


class Working:
    """The progress messages of a long command."""

    def __init__(self, console: Console, status: Status, what: str) -> None:
        self._console = console
        self._status = status
        self._what = what

    def say(self, line: str) -> None:
        """Print a line that stays, on a terminal and in a log."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def step(self, line: str) -> None:
        """Show the current step beside the spinner. Nothing is shown without a terminal."""
        self._status.update(escape(f"{self._what}: {line}"[: self._console.width - 4]))


@contextmanager
def working(what: str) -> Iterator[Working]:
    """Show a spinner on stderr during long work, if stderr is a terminal."""
    console = Console(stderr=True)
    with console.status(escape(what)) as status:
        yield Working(console, status, what)


def tracked(items: Sequence[Item], what: str, show: bool = True) -> Iterator[Item]:
    """Yield `items` under a progress bar on stderr, if `show` is set and stderr is a terminal."""
    console = Console(stderr=True)
    # By default rich also redirects stdout to its console, which is stderr here.
    progress = Progress(
        console=console, transient=True, redirect_stdout=False, disable=not (show and console.is_terminal)
    )
    with progress:
        yield from progress.track(items, description=what)


def chosen_bundle(model: str | None, folder: Path | None) -> Bundle:
    """Open the bundle that --model or --bundle names; without both, pocketseal. Raises UsageError if both are given."""
    if model is not None and folder is not None:
        raise click.UsageError("--model and --bundle both name a bundle: give one", click.get_current_context())
    return Bundle.open(find_bundle(folder or model or "pocketseal"))


def warn_if_random(bundle: Bundle) -> None:
    """Print a warning on stderr if a bundle's weights are random, because its results then mean nothing."""
    if bundle.weights.is_random:
        source = bundle.weights.source
        click.secho(
            f"warning: {bundle.folder} has random weights ({source}): its results mean nothing", fg="yellow", err=True
        )


_GAP = 2  # characters between two columns of a table, and at its edges together


def print_artifacts(
    bundle: Bundle,
    columns: Mapping[str, Mapping[str, str]] | None = None,
    missing: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Print the files of a bundle with their sizes in decimal megabytes.

    columns: further columns by title, each with the cells of some files by name; a column without cells is left out.
    missing: the name, format and precision of files that could not be made; a row for each that the bundle does not
    have.
    """
    click.echo(f"{bundle.folder}: {bundle.weights.origin} weights ({bundle.weights.source})")
    there = {artifact.file for artifact in bundle.artifacts}
    files = [(one.file, one.format, one.precision, f"{one.bytes / 1e6:.2f}") for one in bundle.artifacts]
    files += [(*name, "") for name in missing if name[0] not in there]
    further = {title: cells for title, cells in (columns or {}).items() if cells}
    titles = ("file", "format", "precision", "MB", *further)
    rows = [(*file, *(cells.get(file[0], "") for cells in further.values())) for file in files]
    console = Console()
    widths = _widths(list(zip(titles, *rows, strict=True)), console.width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title, width in zip(titles, widths, strict=True):
        is_text = title in ("file", "format", "precision")
        table.add_column(title, justify="left" if is_text else "right", overflow="fold", width=width)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the width of each column of a table that is `room` characters wide.

    Where there is too little room, each column is as wide as its longest word, so that no word is cut. The rest of the
    room goes to the column with the longest texts. If even the words need more room, the first column is folded.
    """
    natural = [max(map(len, column)) for column in columns]
    if sum(natural) + _GAP * len(columns) <= room:
        return natural
    widths = [max(len(word) for text in column for word in text.split()) for column in columns]
    spare = room - sum(widths) - _GAP * len(columns)
    if spare < 0:
        widths[0] = max(1, widths[0] + spare)
    else:
        longest = max(range(len(columns)), key=lambda number: natural[number] - widths[number])
        widths[longest] = min(natural[longest], widths[longest] + spare)
    return widths
