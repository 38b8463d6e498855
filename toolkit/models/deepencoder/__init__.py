"""The kind of DeepEncoder models, which encode a page of text as tokens for a language model."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backends.recipe import Recipe
from toolkit.metrics.limit import Tolerance
from toolkit.models.command import OUTPUT, RunRequest
from toolkit.models.kind import EndToEndCase, ModelKind
from toolkit.models.tolerances import vectors

if TYPE_CHECKING:
    from backends.artifact import Artifact
    from backends.bundle import Bundle
    from backends.tensor import Array
    from graphs.networks.spec import ModelSpec
    from toolkit.images.open import ImageSource
    from toolkit.metrics.judges import Judge
    from toolkit.metrics.samples import Sample

# Layers in a row: 12 + 24 blocks of two halves each.
_DEPTH = 72


class DeepEncoderKind(ModelKind):
    """Encoders of pages, one graph for each size of a page."""

    name = "deepencoder"
    summary = "a page becomes tokens for a language model"
    rank = 1

    @property
    def specs(self) -> "tuple[ModelSpec, ...]":
        from graphs.networks.deepencoder.config import SPECS

        return SPECS

    @property
    def end_to_end(self) -> tuple[EndToEndCase, ...]:
        from toolkit.models.deepencoder.compare import END_TO_END

        return END_TO_END

    def options(self) -> tuple[click.Option, ...]:
        return (
            click.Option(["--mode"], default="base", show_default=True, help="tiny, small, base, large or gundam."),
            click.Option(
                ["--compression"],
                is_flag=True,
                help="Also measure what 16 times fewer tokens save: FLOPs and seconds of the torch files, with and "
                "without.",
            ),
            OUTPUT,
        )

    def run(self, ctx: click.Context, request: RunRequest, **own: Any) -> None:
        from toolkit.models.deepencoder.command import run

        run(request, **own)

    def feeds(
        self, bundle: "Bundle", role: str, images: "Iterable[ImageSource]"
    ) -> "Iterator[tuple[str, dict[str, Array]]]":
        from toolkit.models.deepencoder.compare import feeds

        return feeds(bundle, role, images)

    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        from toolkit.models.deepencoder.compare import samples

        return samples(bundle, reference, images)

    def judge(self, bundle: "Bundle", role: str) -> "Judge":
        from toolkit.metrics.judges import VectorJudge, WithRealError

        # The tokens include newlines and the separator.
        return WithRealError(VectorJudge("tokens"))

    def _tolerance(self, role: str, recipe: Recipe) -> Tolerance:
        return vectors(recipe, _DEPTH)


KIND = DeepEncoderKind()
