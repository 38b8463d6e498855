"""The kind of imported graphs. The meaning of their inputs and outputs is not known."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.precision import RECIPES, Recipe
from toolkit.metrics.limit import Limit, Tolerance
from toolkit.models.kind import Answers, ModelKind, choices
from toolkit.models.tolerances import keeps_float32

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
        from toolkit.inputs.images import image_feeds
        from toolkit.inputs.kept import KeptInputs

        return image_feeds(bundle.find(role, "onnx", "fp32"), images, KeptInputs.of(bundle).preprocess)

    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        """Yield the user's images, if any, then the bundle's real inputs, if any, then synthetic ones.

        Raises InvalidInput for images or inputs that the graph does not take.
        """
        from toolkit.inputs.images import image_feeds
        from toolkit.inputs.kept import KeptInputs, real_inputs, synthetic_samples
        from toolkit.metrics.samples import Sample

        if images:
            for name, feeds in image_feeds(reference, images, KeptInputs.of(bundle).preprocess):
                yield Sample(name, "real", feeds, None)
        specs = [binding.spec for binding in reference.inputs]
        yield from real_inputs(bundle, specs) or ()
        yield from synthetic_samples(bundle, specs)

    def judged_families(self, bundle: "Bundle", precision: str, images: Sequence[Path]) -> tuple[str, ...]:
        """Return "real" alone where there are real inputs, and all families for files of float32.

        Rounding is judged where it matters: noise may be far from every value that the model was trained on. A file of
        float32 must be right for every input.
        """
        from toolkit.inputs.kept import advisory
        from toolkit.metrics.samples import FAMILIES

        is_real = bool(images) or advisory(bundle) is None
        return FAMILIES if keeps_float32(RECIPES[precision]) or not is_real else ("real",)

    def advisory(self, bundle: "Bundle", images: Sequence[Path]) -> str | None:
        from toolkit.inputs.kept import advisory

        return None if images else advisory(bundle)

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
