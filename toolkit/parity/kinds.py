"""What each kind of model is compared on, and who judges its answers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import Registry
from toolkit.parity.judging import Judge
from toolkit.parity.sample import Sample


@dataclass(frozen=True)
class Kind:
    """How models of one kind are compared.

    samples: for a bundle, the reference artifact of one role, and images of the user's, everything that is put in. It
    is called for each pass over the samples, and gives the same ones each time.
    judge: a new judge for one file of a role.
    may_leave_domain: synthetic samples on which the reference itself is not finite are left out, and counted. For
    kinds that do not know what their inputs may be.
    """

    samples: Callable[[Bundle, Artifact, Sequence[Path]], Iterable[Sample]]
    judge: Callable[[Bundle, str], Judge]
    may_leave_domain: bool


# By the `kind` of a bundle's manifest. Each value is a Kind.
KINDS = Registry("kind of model to compare")
KINDS.register("watermark", "toolkit.parity.watermark:KIND", needs="pillow")
KINDS.register("tensor", "toolkit.parity.tensors:KIND", needs="pillow")
