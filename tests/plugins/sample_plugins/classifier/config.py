"""The size of the classifier. Importing this imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ColourConfig:
    """classes: of the output."""

    classes: int
