"""What bisecting needs of a file, whatever its format: its tensors, and its layers cut out one by one."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from backends.tensor import Array
from toolkit.bisect.tensors import Stored
from toolkit.convert.correspondence import Order


class Runner(Protocol):
    """A part that is loaded."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """One run, on the file's own tensors by name. Raises InvalidArtifact."""


class Part(Protocol):
    """The operators of a file between some of its tensors. inputs: what they read, by name; operators: their kinds."""

    inputs: tuple[str, ...]
    operators: tuple[str, ...]

    def open(self, folder: Path, threads: int) -> Runner:
        """Load the part alone; `folder` is for files that may go when the next part is opened."""

    def write(self, path: Path) -> None:
        """Write the part as a file that runs by itself."""


class Candidate(Protocol):
    """A file that is held to a reference."""

    suffix: str

    def places(self) -> Mapping[str, tuple[Stored, Order]]:
        """Where it says that it holds which tensor of the reference: the reference's name -> tensor, order of axes."""

    def cut(self, stored: str, given: Collection[str]) -> Part | None:
        """What makes a tensor out of those that are given; None for one that no operator makes."""
