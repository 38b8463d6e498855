"""A kind of model in one folder: an image classifier, judged by its top-1 class."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.errors import NotAvailable
from backends.recipe import Recipe
from toolkit.models.kind import ModelKind

if TYPE_CHECKING:
    import click

    from backends.artifact import Artifact
    from backends.bundle import Bundle
    from backends.tensor import Array
    from graphs.networks.spec import ModelSpec
    from toolkit.images.open import ImageSource
    from toolkit.metrics.judges import Judge
    from toolkit.metrics.limit import Tolerance
    from toolkit.metrics.samples import Sample
    from toolkit.models.command import RunRequest

CLASSES = ("black", "white", "red", "green", "blue", "yellow")
SIZE_PX = 32


class ClassifierKind(ModelKind):
    """Images to classes: `image` (1, 3, 32, 32) in [0, 1] to `logits` (1, classes)."""

    name = "classifier"
    summary = "image classifiers, judged by their top-1 class"

    @property
    def specs(self) -> "tuple[ModelSpec, ...]":
        from backends.tensor import TensorSpec
        from graphs.networks.spec import GraphSpec, ModelSpec
        from sample_plugins.classifier.config import ColourConfig

        graph = GraphSpec(
            role="classifier",
            architecture="colour-classifier",
            config=ColourConfig(len(CLASSES)),
            inputs=(TensorSpec("image", (1, 3, SIZE_PX, SIZE_PX), "float32", "NCHW"),),
            outputs=(TensorSpec("logits", (1, len(CLASSES)), "float32", None),),
        )
        description = {"name": "colours", "kind": self.name, "classes": list(CLASSES)}
        return (ModelSpec("colours", "the main colour of an image, of six", description, (graph,)),)

    def run(self, ctx: "click.Context", request: "RunRequest", **own: Any) -> None:
        from toolkit.images.preprocess import preprocess
        from toolkit.models.runner import Graphs

        with Graphs(request.bundle, self.name, request.backend, request.precision, request.threads) as graphs:
            for name in request.inputs:
                logits = graphs.run("classifier", image=preprocess(name, SIZE_PX))["logits"][0]
                found = request.bundle.model["classes"][int(logits.argmax())]
                row = request.row(name, "classifier", top1=found, logits=[float(value) for value in logits])
                request.show(row, [f"class {found}"])

    def feeds(
        self, bundle: "Bundle", role: str, images: "Iterable[ImageSource]"
    ) -> "Iterator[tuple[str, dict[str, Array]]]":
        from toolkit.images.open import name_of
        from toolkit.images.preprocess import preprocess

        for number, image in enumerate(images, 1):
            yield name_of(image, number), {"image": preprocess(image, SIZE_PX)}

    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        from toolkit.images.samples import shipped_photographs
        from toolkit.metrics.samples import Sample, unit_samples

        for name, feeds in self.feeds(bundle, reference.role, [*shipped_photographs(), *images]):
            yield Sample(name, "real", feeds, None)
        yield from unit_samples(tuple(binding.spec for binding in reference.inputs), noise=2)

    def judge(self, bundle: "Bundle", role: str) -> "Judge":
        from toolkit.metrics.judges import ChoiceJudge

        return ChoiceJudge("top1_changed", "logits")

    def _tolerance(self, role: str, recipe: Recipe) -> "Tolerance":
        from toolkit.metrics.limit import Limit, Tolerance

        if role != "classifier":
            raise NotAvailable(f"a classifier has no {role!r}")
        return Tolerance(
            outputs=(Limit("relative_l2", recipe.limit("relative_l2"), needs_training=False),),
            changed=0.0,
            task=(Limit("top1_changed", recipe.limit("choices_changed"), needs_training=True),),
            reason=recipe.reason,
        )


KIND = ClassifierKind()
