"""Rules of one kind of model that a conversion follows. Whoever converts hands them in: nothing here knows a kind."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.tensor import Array
from toolkit.images.open import ImageSource

# Called with a bundle, a role and images; yields (name, inputs by name) that the images bring to the graph.
Feeds = Callable[[Bundle, str, Iterable[ImageSource]], Iterator[tuple[str, dict[str, Array]]]]

# Called with the path and the artifact of the float32 ONNX graph, then of a file made of it; returns a sentence for
# each number of the file that is over its tolerance. It runs in a process of its own, and so can be pickled.
Check = Callable[[Path, Artifact, Path, Artifact], tuple[str, ...]]


@dataclass(frozen=True)
class MessageRule:
    """How a message is judged in logits (1 + bits): channel 0 is the detection logit, bit i is set above 0.

    bits_needed: bits that must match a message for a positive verdict; None where the bits are too few for a verdict.
    detection_threshold: of the detection logit; None where the model did not train it.
    """

    bits_needed: int | None
    detection_threshold: float | None


@dataclass(frozen=True)
class ConversionRules:
    """The part of a conversion that the kind of model decides.

    lowered_roles: called with the roles of a bundle's float32 graphs; returns those that TFLite files are made of.
    feeds: brings calibration images to a graph.
    check: judges each finished file on synthetic samples; None for kinds whose samples are known and judged later.
    may_leave_domain: the range of the inputs is not known, so that the graph is probed with noise on which it is
        finite.
    message_rule: called with the bundle; returns how messages are judged for mixed files, or None where there are none.
    """

    lowered_roles: Callable[[Sequence[str]], tuple[str, ...]]
    feeds: Feeds
    check: Check | None
    may_leave_domain: bool
    message_rule: Callable[[Bundle], MessageRule | None]


# Called with the opened bundle.
FindRules = Callable[[Bundle], ConversionRules]
