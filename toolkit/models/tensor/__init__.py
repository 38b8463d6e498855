"""The kind of imported graphs. The meaning of their inputs and outputs is not known."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.errors import InvalidArtifact, InvalidInput
from backends.precision import Recipe
from toolkit.metrics.limit import Limit, Tolerance
from toolkit.metrics.task import ENOUGH, JudgeChoice, counted_line
from toolkit.models.kind import Answers, ModelKind, choices, find_kind
from toolkit.models.tolerances import keeps_float32

if TYPE_CHECKING:
    from backends.artifact import Artifact
    from backends.bundle import Bundle
    from backends.tensor import Array, TensorSpec
    from toolkit.images.open import ImageSource
    from toolkit.metrics.judges import Judge
    from toolkit.metrics.samples import Sample
    from toolkit.report.blocks import Section
    from toolkit.report.evidence import Evidence

# Keys of a manifest's `model`: the judge, as JudgeChoice writes it, and the names of rounded outputs.
JUDGE, ROUNDED = "judge", "rounded"
_REASON = (
    "The meaning of the outputs is not known here. Integers and booleans follow from comparisons of numbers: in "
    "float32 they must be the same, and elsewhere as many may change as there are numbers near enough to each other."
)

_DECIDED = f" From {ENOUGH} answers to real inputs on, these decide, and the error of the numbers does not."


class TensorKind(ModelKind):
    """Graphs that `toolkit import` took from an ONNX file of another project.

    chosen: the judge of the answers; None if none was chosen. rounded: the outputs of integers that are rounded floats.
    """

    name = "tensor"
    summary = "an imported graph"
    rank = 4
    may_leave_domain = True
    is_imported = True
    is_run = False

    def __init__(self, chosen: JudgeChoice | None = None, rounded: frozenset[str] = frozenset()) -> None:
        self.chosen = chosen
        self.rounded = rounded

    def of(self, bundle: "Bundle") -> "TensorKind":
        """Return the kind with the judge and the rounded outputs of a manifest.

        Raises InvalidArtifact if these are no texts.
        """
        text, rounded = bundle.model.get(JUDGE), bundle.model.get(ROUNDED, [])
        if not isinstance(text, str | None) or not isinstance(rounded, list):
            raise InvalidArtifact(f"{bundle.folder}: model: expected {JUDGE} as text and {ROUNDED} as a list of names")
        chosen = None if text is None else JudgeChoice.parse(text).among(output_specs(bundle))
        return TensorKind(chosen, frozenset(map(str, rounded)))

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
        from toolkit.metrics.judges import NoJudge, RealFirst

        if self.chosen is None or not self.chosen.outputs:
            return NoJudge()
        return RealFirst(partial(self.chosen.new, output_specs(bundle)))

    def details_line(self, details: Mapping[str, Any]) -> str | None:
        """Return the judge's counts in words, such as "labels changed 3 of 300"."""
        line = counted_line(details)
        return line and (line if details["on"] == "real" else f"{line}, on synthetic inputs (advisory)")

    def report_section(self, evidence: "Evidence") -> "Section | None":
        from toolkit.models.tensor.report import section

        return section(evidence)

    def answers(self, bundle: "Bundle", role: str) -> Answers:
        # An output with two axes is taken for a list of scores for each image, whatever its name is.
        return lambda outputs, truth: choices(outputs, lambda name, value: name == "logits" or value.ndim == 2)

    def _tolerance(self, role: str, recipe: Recipe) -> Tolerance:
        tolerance = Tolerance(
            outputs=(Limit("relative_l2", recipe.limit("relative_l2"), needs_training=False),),
            changed=recipe.limit("changed"),
            task=(),
            reason=f"{recipe.reason} {_REASON}",
            rounded=self.rounded,
        )
        if self.chosen is None or not self.chosen.outputs:
            return tolerance
        judge = self.chosen.judge
        decided = frozenset(self.chosen.outputs if judge.may_reorder or not keeps_float32(recipe) else ())
        counts = f"The judge {self.chosen} counts {judge.summary}.{_DECIDED if decided else ''}"
        reason = f"{tolerance.reason} {counts}"
        return replace(tolerance, task=judge.limits(recipe), reason=reason, decided=decided)


def output_specs(bundle: "Bundle") -> "tuple[TensorSpec, ...]":
    """Return the outputs of an imported graph. Raises NotAvailable for a bundle without its float32 graph."""
    graph = bundle.find(bundle.artifacts[0].role, "onnx", "fp32")
    return tuple(binding.spec for binding in graph.outputs)


def with_judge(bundle: "Bundle", choice: JudgeChoice) -> "Bundle":
    """Return the bundle, which is not written, with a judge.

    Raises InvalidInput for a bundle that `toolkit import` did not make, and for outputs that the graph does not have or
    the judge cannot read.
    """
    if not find_kind(bundle.model["kind"]).is_imported:
        raise InvalidInput(
            f"{bundle.folder}: models of kind {bundle.model['kind']!r} have a judge of their own; only those of "
            "`toolkit import` are judged by name"
        )
    chosen = choice.among(output_specs(bundle))
    return replace(bundle, model=bundle.model | {JUDGE: str(chosen)})


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
