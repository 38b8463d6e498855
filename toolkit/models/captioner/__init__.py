"""The kind of captioners, which describe an image in words and draw it again."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backends.errors import NotAvailable
from backends.recipe import Recipe
from toolkit.metrics.limit import Limit, Tolerance
from toolkit.models.command import OUTPUT, RunRequest
from toolkit.models.kind import EndToEndCase, ModelKind
from toolkit.models.tolerances import keeps_float32, largest_of_several, output_limits, real_limits, reason, vectors

if TYPE_CHECKING:
    from backends.artifact import Artifact
    from backends.bundle import Bundle
    from backends.tensor import Array
    from graphs.networks.spec import ModelSpec
    from toolkit.images.open import ImageSource
    from toolkit.metrics.judges import Judge
    from toolkit.metrics.samples import Sample

# Layers in a row, by graph.
_DEPTHS = {"encode_image": 5, "decode_image": 5, "encode_text": 2, "decode_text_prefill": 8, "decode_text_step": 8}
_TEXT_DEPTH = _DEPTHS["decode_text_step"]


class CaptionerKind(ModelKind):
    """Models of five graphs that describe an image in words, and draw it again."""

    name = "captioner"
    summary = "an image becomes a caption, and an image again"
    rank = 3

    @property
    def specs(self) -> "tuple[ModelSpec, ...]":
        from graphs.networks.captioner.config import SPECS

        return SPECS

    @property
    def end_to_end(self) -> tuple[EndToEndCase, ...]:
        from toolkit.models.captioner.compare import END_TO_END

        return END_TO_END

    def options(self) -> tuple[click.Option, ...]:
        return (
            click.Option(
                ["--beams"], type=click.IntRange(min=1), default=1, show_default="greedy", help="Width of the search."
            ),
            click.Option(
                ["--length"],
                type=click.IntRange(min=1),
                help="Tokens of a caption at most; by default all there can be.",
            ),
            click.Option(
                ["--tokenizer"],
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="A tokenizer.json: texts are words. Without it they are token ids, like '17 4 250'.",
            ),
            click.Option(["--similar"], metavar="TEXT", help="How alike this text and the image are."),
            click.Option(["--caption"], metavar="TEXT", help="The image's own text: the published losses of both."),
            OUTPUT,
        )

    def run(self, ctx: click.Context, request: RunRequest, **own: Any) -> None:
        from toolkit.models.captioner.command import run

        run(request, **own)

    def feeds(
        self, bundle: "Bundle", role: str, images: "Iterable[ImageSource]"
    ) -> "Iterator[tuple[str, dict[str, Array]]]":
        from toolkit.models.captioner.compare import feeds

        return feeds(bundle, role, images)

    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        from toolkit.models.captioner.compare import samples

        return samples(bundle, reference, images)

    def judge(self, bundle: "Bundle", role: str) -> "Judge":
        from toolkit.models.captioner.compare import judge

        return judge(role)

    def _tolerance(self, role: str, recipe: Recipe) -> Tolerance:
        if role == "caption":
            return _captions(recipe)
        if role == "losses":
            return _losses(recipe)
        if role not in _DEPTHS:
            raise NotAvailable(f"the roles are {', '.join(_DEPTHS)}, caption and losses")
        depth = _DEPTHS[role]
        if role == "decode_image":
            return _pictures(recipe, depth)
        if role.startswith("decode_text_"):
            return largest_of_several(recipe, depth, "tokens_changed", "The next token")
        return vectors(recipe, depth)


def _pictures(recipe: Recipe, depth: int) -> Tolerance:
    """Return the tolerance of pictures.

    Their values are in [-1, 1], so that the peak is 2. A typical value is a quarter of the peak: the ratio of peak to
    noise is 12 dB more than the ratio of values to noise.
    """
    least = recipe.limit("psnr_db")
    return Tolerance(
        outputs=output_limits(recipe, depth),
        changed=0.0,
        task=real_limits(recipe, depth, Limit("psnr_db", None, needs_training=False, at_least=least)),
        reason=reason(
            recipe, depth, f"A picture against the reference's own: {least:g} dB; half a step of 8 bits is 54 dB."
        ),
    )


def _captions(recipe: Recipe) -> Tolerance:
    """Return the tolerance of whole texts.

    A text is the same only if each token is. If a token changes with probability p, a caption of twenty tokens changes
    with probability 1 - (1 - p)^20.
    """
    share = recipe.limit("captions_changed")
    return Tolerance(
        outputs=(),
        changed=1.0,
        task=(Limit("captions_changed", share, needs_training=not keeps_float32(recipe)),),
        reason=reason(
            recipe,
            _TEXT_DEPTH,
            f"A caption of twenty tokens is twenty choices: {share:.0%} of captions may be others. In float32 a "
            "hundred greedy tokens must be the same.",
        ),
    )


def _losses(recipe: Recipe) -> Tolerance:
    """Return the tolerance of the published losses, which are means of errors."""
    return Tolerance(
        outputs=(Limit("relative_l2", recipe.limit("relative_l2"), needs_training=False),),
        changed=0.0,
        task=(),
        reason=reason(recipe, _TEXT_DEPTH, "A loss is a mean, and moves by no more than the values of that mean do."),
    )


KIND = CaptionerKind()
