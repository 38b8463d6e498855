"""Results go to stdout; progress and warnings to stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Progress:
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
def working(what: str) -> Iterator[Progress]:
    """Show a spinner while something takes long. Where no person watches there is none."""
    console = Console(stderr=True)
    with console.status(escape(what)) as status:
        yield Progress(console, status, what)
