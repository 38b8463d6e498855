"""What bisecting needs of a file, whatever its format: its tensors, and its layers cut out one by one."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from backends.tensor import Array
from toolkit.bisect.tensors import Stored
from toolkit.convert.correspondence import Order


class Part(Protocol):
    """The operators of a file between some of its tensors. inputs: what they read, by name; operators: their kinds."""

    inputs: tuple[str, ...]
    operators: tuple[str, ...]

    def run(self, feeds: Sequence[Mapping[str, Array]], threads: int) -> list[dict[str, Array]]:
        """Load the part alone and run it on each of some feeds, all of it as the file stores it, by the tensors' names.

        Raises InvalidArtifact if the runtime cannot, or does not survive it.
        """

    def write(self, path: Path) -> None:
        """Write the part as a file that runs by itself."""


class Candidate(Protocol):
    """A file that is held to a reference. missing: why a tensor of the reference is none of its places."""

    suffix: str
    missing: str

    def places(self) -> Mapping[str, tuple[Stored, Order]]:
        """Where it says that it holds which tensor of the reference: the reference's name -> tensor, order of axes."""

    def cut(self, stored: str, given: Collection[str]) -> Part | None:
        """What makes a tensor out of those that are given; None for one that no operator makes."""
