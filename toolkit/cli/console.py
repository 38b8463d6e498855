"""Results go to stdout; progress and warnings to stderr."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.status import Status

Item = TypeVar("Item")


class Working:
    """What a long command says while it works."""

    def __init__(self, console: Console, status: Status, what: str) -> None:
        self._console = console
        self._status = status
        self._what = what

    def say(self, line: str) -> None:
        """A line that stays, on a terminal and in a log."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def step(self, line: str) -> None:
        """What is being done right now: beside the spinner of a terminal, and nowhere else."""
        self._status.update(escape(f"{self._what}: {line}"[: self._console.width - 4]))


@contextmanager
def working(what: str) -> Iterator[Working]:
    """Show a spinner while something takes long. Where no person watches there is none."""
    console = Console(stderr=True)
    with console.status(escape(what)) as status:
        yield Working(console, status, what)


def tracked(items: Sequence[Item], what: str, show: bool = True) -> Iterator[Item]:
    """Go through `items` under a progress bar on stderr, which shows on a terminal alone."""
    console = Console(stderr=True)
    # rich would lead stdout through its own console too, which is stderr here.
    progress = Progress(
        console=console, transient=True, redirect_stdout=False, disable=not (show and console.is_terminal)
    )
    with progress:
        yield from progress.track(items, description=what)
