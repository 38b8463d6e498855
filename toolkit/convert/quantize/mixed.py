"""Makes mixed files, which are INT8 with some layers in FP16. A budget or a recipe file decides which layers."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from backends.artifact import Artifact
from backends.errors import InvalidArtifact, InvalidInput
from backends.manifest import Fields, parse
from backends.precision import MIXED
from backends.registry import BACKENDS
from backends.tensor import Array
from graphs.onnx.file import save
from graphs.tflite.stitch import layer_names, mix
from graphs.tflite.writer import write_graph
from toolkit.convert.job import Job
from toolkit.convert.outcome import Made
from toolkit.convert.quantize.layers import layers
from toolkit.convert.quantize.onnx import quantize_model
from toolkit.convert.quantize.search import Budget, FileVariants, Found, Watched, read_logits, search

FORMAT_VERSION = 1
RECIPE_FILE = "detector.mixed.recipe.json"
_KEYS = ("format_version", "source_sha256", "kept", "found")


@dataclass(frozen=True)
class MixedRecipe:
    """The layers in FP16: ONNX nodes by name, and TFLite operators by the names of their weights.

    source_sha256: of the float32 graph. found: figures of the search, for people to read; None if a person chose the
    layers.
    """

    onnx: tuple[str, ...]
    tflite: tuple[str, ...]
    source_sha256: str
    found: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Return the content of the recipe file as JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "source_sha256": self.source_sha256,
            "kept": {"onnx": list(self.onnx), "tflite": list(self.tflite)},
            "found": self.found,
        }

    def to_json(self) -> str:
        """Return the text of the recipe file."""
        return json.dumps(self.document(), indent=2) + "\n"

    @classmethod
    def from_json(cls, value: object, where: str) -> "MixedRecipe":
        """Read the JSON values that `document` returns. Raises InvalidArtifact, which names the place, for others."""
        data = Fields(value, where, _KEYS)
        if data.integer("format_version") != FORMAT_VERSION:
            raise InvalidArtifact(f"{where}: expected format_version {FORMAT_VERSION}, got {data['format_version']}")
        kept = Fields(data.mapping("kept"), f"{where}: kept", ("onnx", "tflite"))
        return cls(kept.texts("onnx"), kept.texts("tflite"), data.text("source_sha256"), data.optional_mapping("found"))


@dataclass(frozen=True)
class MixedRequest:
    """The user's choice of layers to keep in FP16: a recipe, or a budget and a folder of images to measure it on.

    Raises InvalidInput unless exactly one of the two is given.
    """

    kept: MixedRecipe | None = None
    budget: Budget | None = None
    images: Path | None = None

    def __post_init__(self) -> None:
        if (self.kept is None) == (self.budget is None) or (self.budget is None) != (self.images is None):
            raise InvalidInput("mixed: give a recipe file, or a budget with a folder of images to keep it on")

    @classmethod
    def of(cls, budget: str | None, images: Path | None, recipe: Path | None) -> "MixedRequest":
        """Make a MixedRequest from a budget's text and a folder, or from a recipe file. Raises InvalidInput."""
        return cls(
            None if recipe is None else read_recipe(recipe), None if budget is None else Budget.parse(budget), images
        )


def read_recipe(path: Path) -> MixedRecipe:
    """Read a recipe file. Raises InvalidInput, which says what is wrong, if it cannot be read or is not valid."""
    try:
        return MixedRecipe.from_json(parse(path.read_bytes(), str(path)), str(path))
    except OSError as error:
        raise InvalidInput(f"recipe {path}: cannot read: {error.strerror}") from error
    except InvalidArtifact as error:
        raise InvalidInput(str(error)) from error


def make_mixed_tflite(job: Job, fp16: Made, int8: Made, kept: MixedRecipe) -> Made:
    """Make the mixed TFLite file from the INT8 and FP16 ones.

    Raises InvalidInput if `kept` names an unknown layer, InvalidArtifact if the file is not close to the float32 graph.
    """
    job.progress("mixing INT8 with FP16 (TFLite)")
    path = job.folder / "detector.mixed.tflite"
    write_graph(mix(fp16.files[0], int8.files[0], kept.tflite), path)
    return job.tflite(MIXED.name, "direct", path, int8.artifact.tools)


def find_mixed_recipe(job: Job, fp16: Made, int8: Made, budget: Budget, images: Array) -> MixedRecipe:
    """Search, for each runtime, the layers to keep in FP16 for a budget, measured on images (N, 3, S, S).

    Raises NotAvailable if the budget cannot be kept.
    """
    rule = job.rules.message_rule(job.bundle)
    assert rule is not None  # convert_bundle refuses mixed files of other kinds
    job.progress(f"reading {len(images)} images with the float32 graph")
    reference = job.reference
    watched = Watched(images, read_logits(reference.path, reference.artifact, "ort", images), rule)
    found = {
        trials.backend: search(trials, budget, watched, job.progress)
        for trials in (_onnx_trials(job), _tflite_trials(job, fp16, int8))
    }
    account = {"budget": budget.text, "images": len(images)}
    account |= {BACKENDS.load(backend).formats[0]: _account(one) for backend, one in found.items()}
    return MixedRecipe(found["ort"].kept, found["tflite"].kept, reference.artifact.sha256, account)


def _account(found: Found) -> dict[str, Any]:
    """Return the figures of a search for the recipe file, with the worst layers first."""
    return {
        "kept_layers": len(found.kept),
        "layers": len(found.alone),
        "files_checked": found.checked_files,
        "measured": asdict(found.measured),
        "each_layer_quantized_alone": {
            layer: {"error": one.error, "flips": one.flips, "verdicts_changed": one.verdicts_changed}
            for layer, one in sorted(found.alone.items(), key=lambda item: -item[1].error)
        },
    }


def _onnx_trials(job: Job) -> FileVariants:
    path = job.folder / "trial.onnx"

    def write(kept: Collection[str]) -> tuple[Artifact, tuple[Path, ...]]:
        # Use ir.load, which does not check the graph: it was checked when exported, and a check takes longer than this.
        files = save(quantize_model(ir.load(job.reference.path), MIXED, kept=kept), path)
        return job.onnx_artifact(MIXED, files), files

    return FileVariants("ort", tuple(layer.name for layer in layers(ir.load(job.reference.path).graph)), write)


def _tflite_trials(job: Job, fp16: Made, int8: Made) -> FileVariants:
    path = job.folder / "trial.tflite"

    def write(kept: Collection[str]) -> tuple[Artifact, tuple[Path, ...]]:
        write_graph(mix(fp16.files[0], int8.files[0], kept), path)
        return replace(fp16.artifact, file="trial.tflite", precision=MIXED.name), (path,)

    return FileVariants("tflite", layer_names(int8.files[0]), write)
