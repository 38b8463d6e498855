"""The kind of imported graphs. The meaning of their inputs and outputs is not known."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.precision import Recipe
from toolkit.metrics.limit import Limit, Tolerance
from toolkit.models.kind import Answers, ModelKind, choices

if TYPE_CHECKING:
    from backends.artifact import Artifact
    from backends.bundle import Bundle
    from backends.tensor import Array
    from toolkit.images.open import ImageSource
    from toolkit.metrics.judges import Judge
    from toolkit.metrics.samples import Sample

_REASON = (
    "The meaning of the outputs is not known here. Integers and booleans follow from comparisons of numbers: in "
    "float32 they must be the same, and elsewhere as many may change as there are numbers near enough to each other."
)


class TensorKind(ModelKind):
    """Graphs that `toolkit import` took from an ONNX file of another project."""

    name = "tensor"
    summary = "an imported graph"
    rank = 4
    may_leave_domain = True
    is_imported = True
    is_run = False

    def feeds(
        self, bundle: "Bundle", role: str, images: "Iterable[ImageSource]"
    ) -> "Iterator[tuple[str, dict[str, Array]]]":
        from toolkit.models.tensor.compare import feeds

        return feeds(bundle, role, images)

    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        from toolkit.models.tensor.compare import samples

        return samples(bundle, reference, images)

    def judge(self, bundle: "Bundle", role: str) -> "Judge":
        from toolkit.metrics.judges import NoJudge

        return NoJudge()

    def answers(self, bundle: "Bundle", role: str) -> Answers:
        # An output with two axes is taken for a list of scores for each image, whatever its name is.
        return lambda outputs, truth: choices(outputs, lambda name, value: name == "logits" or value.ndim == 2)

    def _tolerance(self, role: str, recipe: Recipe) -> Tolerance:
        return Tolerance(
            outputs=(Limit("relative_l2", recipe.limit("relative_l2"), needs_training=False),),
            changed=recipe.limit("changed"),
            task=(),
            reason=f"{recipe.reason} {_REASON}",
        )


KIND = TensorKind()
