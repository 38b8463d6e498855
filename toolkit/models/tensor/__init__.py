"""The kind of imported graphs. The meaning of their inputs and outputs is not known."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import InvalidInput
from backends.precision import Recipe
from toolkit.metrics.limit import Limit, Tolerance
from toolkit.models.kind import Answers, ModelKind, choices

if TYPE_CHECKING:
    from backends.artifact import Artifact
    from backends.bundle import Bundle
    from backends.tensor import Array, TensorSpec
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
        return image_feeds(bundle, role, images)

    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        """Yield the user's images, if any, then synthetic inputs. Raises InvalidInput as `image_input` does."""
        from toolkit.images.preprocess import preprocess
        from toolkit.metrics.samples import Sample, signed_samples

        if images:
            spec = image_input(reference, batch=1)
            for path in images:
                yield Sample(path.name, "real", {spec.name: preprocess(path, spec.shape[-1])}, None)
        yield from signed_samples(tuple(binding.spec for binding in reference.inputs))

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


def image_input(graph: "Artifact", batch: int | None = None) -> "TensorSpec":
    """Return the only input of a graph that takes RGB images: float32 (N, 3, S, S).

    batch: the expected N; by default any. Raises InvalidInput for a graph with other inputs.
    """
    specs = [binding.spec for binding in graph.inputs]
    shape = specs[0].shape
    square = len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3] and shape[0] == (batch or shape[0])
    if len(specs) != 1 or specs[0].dtype != "float32" or not square:
        shown = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
        raise InvalidInput(
            f"{graph.file}: expected one input for images, float32 [{batch or 'N'}, 3, S, S], it has {shown}"
        )
    return specs[0]


def image_feeds(
    bundle: "Bundle", role: str, images: "Iterable[ImageSource]"
) -> "Iterator[tuple[str, dict[str, Array]]]":
    """Yield (name of the last image, input) for each batch of the graph's size; an incomplete batch is left out.

    Raises InvalidInput as `image_input` does, and for a file that is not an image.
    """
    import numpy as np

    from toolkit.images.open import name_of
    from toolkit.images.preprocess import preprocess

    spec = image_input(bundle.find(role, "onnx", "fp32"))
    batch: list[Array] = []
    for number, image in enumerate(images, 1):
        batch.append(preprocess(image, spec.shape[-1]))
        if len(batch) == spec.shape[0]:
            yield name_of(image, number), {spec.name: np.concatenate(batch)}
            batch.clear()


KIND = TensorKind()
