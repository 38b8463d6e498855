"""The kind of foveated models: two passes over a clip, where the first pass decides what the second looks at."""

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

_LOOK = "The patch that a query looks at most"

# Layers or blocks in a row, by graph. "language" counts 30 layers and their projections.
_DEPTHS = {"encode_frames": 24, "query_shallow": 3, "query_deep": 24, "language": 60, "predict": 8}
_BOTH_PASSES_DEPTH = 92


class FoveatedKind(ModelKind):
    """Models of five graphs that predict the latents of a clip's frames."""

    name = "foveated"
    summary = "a clip is watched in two passes"
    rank = 2

    @property
    def specs(self) -> "tuple[ModelSpec, ...]":
        from graphs.networks.foveated.config import SPECS

        return SPECS

    @property
    def end_to_end(self) -> tuple[EndToEndCase, ...]:
        from toolkit.models.foveated.compare import END_TO_END

        return END_TO_END

    def options(self) -> tuple[click.Option, ...]:
        return (
            click.Option(
                ["--query"],
                type=click.Choice(["shallow", "deep"]),
                default="shallow",
                help="How a query looks at a frame.",
            ),
            click.Option(
                ["--frames"],
                type=click.IntRange(min=1),
                help="How many, spread over the clip; by default as many as one run of a query takes.",
            ),
            click.Option(
                ["--latents"], metavar="FILE", help="An .npz file with the true VAE latents: the losses are printed."
            ),
            click.Option(
                ["--text-embeds"], metavar="FILE", help="Embeddings of a text, .npz; by default a zero token."
            ),
            OUTPUT,
        )

    def run(self, ctx: click.Context, request: RunRequest, **own: Any) -> None:
        from toolkit.models.foveated.command import run

        run(request, **own)

    def feeds(
        self, bundle: "Bundle", role: str, images: "Iterable[ImageSource]"
    ) -> "Iterator[tuple[str, dict[str, Array]]]":
        from toolkit.models.foveated.compare import feeds

        return feeds(bundle, role, images)

    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        from toolkit.models.foveated.compare import samples

        return samples(bundle, reference, images)

    def judge(self, bundle: "Bundle", role: str) -> "Judge":
        from toolkit.models.foveated.compare import judge

        return judge(role)

    def _tolerance(self, role: str, recipe: Recipe) -> Tolerance:
        if role in ("two passes, shallow", "two passes, deep"):
            return _two_passes(recipe)
        if role not in _DEPTHS:
            raise NotAvailable(f"the roles are {', '.join(_DEPTHS)} and two passes, shallow or deep")
        depth = _DEPTHS[role]
        if role.startswith("query_"):
            return largest_of_several(recipe, depth, "attention_changed", _LOOK)
        if role == "predict":
            return _latents(recipe, depth)
        return vectors(recipe, depth, promised=role == "encode_frames")


def _latents(recipe: Recipe, depth: int) -> Tolerance:
    """Return the tolerance of predicted VAE latents: numbers of about 1, from which a decoder makes pictures."""
    limits = output_limits(recipe, depth)
    if keeps_float32(recipe):
        limits = (*limits, Limit("max_abs", recipe.limit("latent_error"), needs_training=False))
    more = "Latents are numbers of about 1: 1e-3 of one cannot be seen once decoded."
    return Tolerance(limits, 0.0, real_limits(recipe, depth), reason(recipe, depth, more))


def _two_passes(recipe: Recipe) -> Tolerance:
    """Return the tolerance of both passes over a clip. The second pass depends on the first, so errors add up."""
    plain, changed = keeps_float32(recipe), recipe.limit("choices_changed")
    return Tolerance(
        outputs=(),
        changed=0.0,
        task=(
            Limit("latent_max_abs" if plain else "latent_error", recipe.limit("latent_error"), needs_training=False),
            Limit("attention_changed", changed, needs_training=not plain),
        ),
        reason=reason(
            recipe,
            _BOTH_PASSES_DEPTH,
            "Latents are numbers of about 1: in float32 none may be off by 1e-3; elsewhere the size of their error "
            f"counts, as a share of their own size. In {changed:.1%} of frames the peak of the attention may be "
            "elsewhere.",
        ),
    )


KIND = FoveatedKind()
