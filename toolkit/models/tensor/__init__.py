"""The kind of imported graphs. The meaning of their inputs and outputs is not known."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.errors import InvalidArtifact, InvalidInput
from backends.precision import RECIPES
from backends.recipe import Recipe
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
        from toolkit.inputs.images import image_feeds
        from toolkit.inputs.kept import KeptInputs

        return image_feeds(bundle.find(role, "onnx", "fp32"), images, KeptInputs.of(bundle).preprocess)

    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        """Yield the user's images, if any, then the bundle's real inputs, if any, then synthetic ones.

        Raises InvalidInput for images or inputs that the graph does not take.
        """
        from toolkit.images.open import ImageFiles
        from toolkit.inputs.kept import KeptInputs, real_inputs, synthetic_samples
        from toolkit.inputs.read import image_inputs

        specs = [binding.spec for binding in reference.inputs]
        if images:
            folder = images.folder if isinstance(images, ImageFiles) else images[0].parent
            yield from image_inputs(folder, images, specs, KeptInputs.of(bundle).preprocess)
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


KIND = TensorKind()
