"""What is put into every file that is compared."""

from collections.abc import Mapping
from dataclasses import dataclass

from backends.tensor import Array
from toolkit.message import Message

# marked: a real image with a message that was hidden in it. real: as it is. synthetic: noise, constants, extremes.
FAMILIES = ("marked", "real", "synthetic")


@dataclass(frozen=True)
class Sample:
    """Inputs by name, where they come from, and the message that is hidden in them, if any."""

    name: str
    family: str
    feeds: Mapping[str, Array]
    message: Message | None
