"""The kind of watermark models, which hide a message in an image and read it back."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import atan, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backends.errors import NotAvailable
from backends.recipe import Recipe
from toolkit.metrics.limit import Limit, Tolerance
from toolkit.models.command import RunRequest
from toolkit.models.kind import Answers, ModelKind
from toolkit.models.tolerances import keeps_float32

if TYPE_CHECKING:
    from backends.artifact import Artifact
    from backends.bundle import Bundle
    from backends.tensor import Array
    from graphs.networks.spec import ModelSpec
    from toolkit.convert.rules import MessageRule
    from toolkit.images.open import ImageSource
    from toolkit.metrics.judges import Judge
    from toolkit.metrics.samples import Sample
    from toolkit.report.blocks import Section
    from toolkit.report.evidence import Evidence

_RANDOM = (
    "The weights are random: logits lie about zero, and a Gaussian logit changes its sign with probability "
    "arctan(relative error)/pi. Bits, verdicts and the detection channel are shown and not judged; the verdict is that "
    "of the error."
)


class WatermarkKind(ModelKind):
    """Detectors that read a message in an image, some with an embedder that hides it there."""

    name = "watermark"
    summary = "a message is hidden in an image, and read back"
    rank = 0
    random_note = _RANDOM

    @property
    def specs(self) -> "tuple[ModelSpec, ...]":
        from graphs.networks.seal.cards import SPECS

        return SPECS

    def options(self) -> tuple[click.Option, ...]:
        return (
            click.Option(
                ["--expect"], metavar="HEX", help="The message that should be there; exit code 1 where it is not."
            ),
        )

    def run(self, ctx: click.Context, request: RunRequest, **own: Any) -> None:
        from toolkit.models.watermark.command import run

        run(ctx, request, **own)

    def feeds(
        self, bundle: "Bundle", role: str, images: "Iterable[ImageSource]"
    ) -> "Iterator[tuple[str, dict[str, Array]]]":
        # A detector takes RGB images in [0, 1], like an imported graph that takes images.
        from toolkit.inputs.images import image_feeds

        return image_feeds(bundle.find(role, "onnx", "fp32"), images)

    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        from toolkit.models.watermark.compare import samples

        return samples(bundle, reference, images)

    def judge(self, bundle: "Bundle", role: str) -> "Judge":
        from toolkit.models.watermark.judge import judge_of

        return judge_of(bundle, role)

    def lowered_roles(self, roles: Sequence[str]) -> tuple[str, ...]:
        # Embedding always runs on ONNX Runtime, detection on every runtime.
        return ("detector",)

    def message_rule(self, bundle: "Bundle") -> "MessageRule":
        from toolkit.convert.rules import MessageRule
        from toolkit.models.watermark.detector import WatermarkModel
        from toolkit.models.watermark.message import matching_bits_needed

        model = WatermarkModel.of(bundle)
        return MessageRule(matching_bits_needed(model.bits), model.detection_threshold)

    def answers(self, bundle: "Bundle", role: str) -> Answers:
        from toolkit.models.watermark.judge import message_answers

        # The output of an embedder is a picture, from which no answers are read.
        return message_answers(bundle) if role == "detector" else lambda outputs, truth: {}

    def details_line(self, details: Mapping[str, Any]) -> str | None:
        from toolkit.models.watermark.judge import flipped_line

        return flipped_line(details)

    def report_section(self, evidence: "Evidence") -> "Section | None":
        from toolkit.models.watermark.report import section

        return section(evidence)

    def _tolerance(self, role: str, recipe: Recipe) -> Tolerance:
        if role == "detector":
            return _detector(recipe)
        if role != "embedder":
            raise NotAvailable("the roles are detector and embedder")
        if not keeps_float32(recipe):
            raise NotAvailable("an embedder is compared in float32 alone")
        return Tolerance(
            outputs=(Limit("relative_l2", recipe.limit("relative_l2"), needs_training=False),),
            changed=0.0,
            task=(),
            reason=f"{recipe.reason} The watermark is added to an image at a fifth of its size or less: 1e-4 of it "
            "cannot be seen, nor stored in 8 bits.",
        )


def _detector(recipe: Recipe) -> Tolerance:
    error, verdicts, loss = (recipe.limit(name) for name in ("relative_l2", "verdicts_changed", "accuracy_loss"))
    flipped = recipe.limit("bits_flipped")
    verdict = (
        f"A verdict may change on at most {verdicts:.1%} of the readings, those that stand within a bit or two of its "
        "border anyway."
        if verdicts
        else "No verdict may change."
    )
    return Tolerance(
        outputs=(
            Limit("relative_l2", error, needs_training=False),
            # At 1.0 the error is as large as the output's variation between inputs: the file might ignore its input.
            Limit("of_variation", 1.0, needs_training=False),
        ),
        changed=0.0,
        task=(
            Limit("bits_flipped", flipped, needs_training=True),
            Limit("accuracy_loss", loss, needs_training=True),
            Limit("verdicts_changed", verdicts, needs_training=True),
            Limit("channel_changed", recipe.limit("channel_changed"), needs_training=True),
        ),
        reason=f"{recipe.reason} Of marked photographs: a Gaussian logit changes its sign with probability "
        f"arctan(relative error)/pi, so such an error explains a share of {atan(error) / pi:.2g} of flipped bits where "
        f"the logits are as near to zero as they can be. {flipped:g} of them may flip, because trained logits lie "
        f"further from zero. Most of these bits were as likely wrong as right before, so the share of right bits may "
        f"fall by {loss:g} at most. {verdict}",
    )


KIND = WatermarkKind()
