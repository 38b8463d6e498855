"""The rules of a kind of model that a conversion follows. The caller of a conversion passes them in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.tensor import Array
from toolkit.images.open import ImageSource

# The key in a manifest's model that says that an imported graph was quantized already.
QUANTIZED = "quantized"

# Called with a bundle, a role and images; yields (name, inputs by name) of the role's graph, made from the images.
Feeds = Callable[[Bundle, str, Iterable[ImageSource]], Iterator[tuple[str, dict[str, Array]]]]

# Called with the path and the artifact of the float32 ONNX graph, then of a file made of it; returns a sentence for
# each number of the file that is over its tolerance. It is called in another process, so it must be picklable.
Check = Callable[[Path, Artifact, Path, Artifact], tuple[str, ...]]


@dataclass(frozen=True)
class MessageRule:
    """How a message is read from logits (1 + bits): channel 0 is the detection logit, and a bit is 1 if its logit is
    above 0.

    bits_needed: number of matching bits for a positive verdict; None if the message has too few bits for a verdict.
    detection_threshold: of the detection logit; None if the model was not trained for detection.
    """

    bits_needed: int | None
    detection_threshold: float | None


@dataclass(frozen=True)
class ConversionRules:
    """The part of a conversion that depends on the kind of model.

    lowered_roles: called with the roles of a bundle's float32 graphs; returns the roles to make TFLite files of.
    feeds: makes a graph's inputs from calibration images.
    check: judges each finished file, as `toolkit compare` does; None for kinds with known samples, whose files are
        judged later.
    advisory: why the judgement of the check is only advisory; None if it is more than that.
    may_leave_domain: whether noise may be outside the graph's domain, because the range of its inputs is not known;
        files are then compared on noise for which the graph's outputs are finite.
    message_rule: called with the bundle; returns how messages are read for mixed files, or None if the kind has none.
    """

    lowered_roles: Callable[[Sequence[str]], tuple[str, ...]]
    feeds: Feeds
    check: Check | None
    may_leave_domain: bool
    message_rule: Callable[[Bundle], MessageRule | None]
    advisory: str | None = None

    @property
    def searches_layers(self) -> bool:
        """Whether a static file may quantize convolutions, and layers are put back to float until it passes."""
        return self.check is not None


# Called with the opened bundle; returns the rules of its kind.
FindRules = Callable[[Bundle], ConversionRules]
