"""The configuration of the classifier, in a module that does not import torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ColourConfig:
    """The size of the network. classes: the number of values in its output."""

    classes: int
