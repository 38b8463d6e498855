"""What each kind of model is compared on, and who judges its answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.plugins import Registry
from backends.session import Closing
from backends.tensor import Array
from toolkit.metrics.judges import Judge
from toolkit.metrics.samples import Sample


class Runner(Protocol):
    """What a Session is to a comparison."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name."""


class Pipeline(Closing, Runner):
    """Several graphs of one bundle on one backend and in one precision, run as one."""


@dataclass(frozen=True)
class EndToEndCase:
    """What several graphs make together, one after the other or many times: a text, a clip.

    Errors add up between graphs, and one token that is another makes another text: each graph being near is not enough.
    graphs: their roles. Whatever formats and precisions a bundle has all of them in are compared.
    samples: as Kind's, for the whole. open: with a bundle, a backend, a precision and threads. judge: a new one.
    """

    name: str
    graphs: tuple[str, ...]
    samples: Callable[[Bundle, Sequence[Path]], Iterable[Sample]]
    open: Callable[[Bundle, str, str, int], Pipeline]
    judge: Callable[[Bundle], Judge]


@dataclass(frozen=True)
class ComparisonSpec:
    """How models of one kind are compared.

    samples: for a bundle, the reference artifact of one role, and images of the user's, everything that is put in. It
    is called for each pass over the samples, and gives the same ones each time.
    judge: a new judge for one file of a role.
    may_leave_domain: synthetic samples on which the reference itself is not finite are left out, and counted. For
    kinds that do not know what their inputs may be.
    random_note: what a reader must know of the numbers where the weights are random.
    wholes: what its graphs make together, where a model has several that do.
    """

    samples: Callable[[Bundle, Artifact, Sequence[Path]], Iterable[Sample]]
    judge: Callable[[Bundle, str], Judge]
    may_leave_domain: bool
    random_note: str
    wholes: tuple[EndToEndCase, ...] = ()


RANDOM_WEIGHTS = (
    "The weights are random: choices between numbers that training would set apart mean nothing, so outside of float32 "
    "they are shown and not judged. The verdict is that of the error."
)

# By the `kind` of a bundle's manifest. Each value is a Kind.
KINDS: Registry[ComparisonSpec] = Registry("seal_toolkit.kind_comparisons", "kind of model to compare")

# By the `kind` of a bundle's manifest. Each value is called with a bundle, a role and images (paths, PIL images or
# arrays), and yields (name, inputs by name) one after the other, nothing kept. It raises NotAvailable where a graph
# that runs before is not in the bundle, and InvalidInput for what is no image.
FEEDS: Registry[Any] = Registry("seal_toolkit.kind_feeds", "kind of model whose graphs can be fed with images")
