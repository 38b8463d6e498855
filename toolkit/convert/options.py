"""The options of a conversion: which files to make of each graph, and whether the options fit each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.bundle import Progress
from backends.errors import InvalidInput
from backends.precision import RECIPES, check_runs
from backends.recipe import Recipe
from toolkit.convert.calibration import GENERATED, Calibration
from toolkit.convert.outcome import SUFFIXES, Key, Runtime
from toolkit.convert.quantize.mixed import MixedRequest
from toolkit.convert.rules import ConversionRules


def check_needed(recipes: Sequence[Recipe], calibration: Calibration | None, mixed: MixedRequest | None) -> None:
    """Raise InvalidInput for a precision that needs a calibration or a mixed request and has none, and for a
    calibration or a mixed request that no precision needs."""
    names = " and ".join(recipe.name for recipe in recipes if recipe.calibrated)
    if names and calibration is None:
        raise InvalidInput(
            f"{names}: needs calibration images: a folder of photographs, or {GENERATED!r}; or real inputs "
            "(--inputs), for an imported model"
        )
    if calibration is not None and not names:
        known = ", ".join(recipe.name for recipe in RECIPES.values() if recipe.calibrated)
        raise InvalidInput(f"calibration images were given, and no precision that needs them: {known} do")
    if (mixed is not None) != any(recipe.keeps_layers for recipe in recipes):
        raise InvalidInput(
            "precision mixed needs a recipe file, or a budget and images; these options are for precision mixed only"
        )


def files_to_make(recipes: Sequence[Recipe], route: str, runtimes: Sequence[Runtime]) -> tuple[Key, ...]:
    """Return the files to make of each graph, in the order of the manifest: those of mixed precisions last.

    Raises InvalidInput if there is none, or for mixed files without both runtimes, which one search serves;
    NotAvailable for a precision that none of the runtimes can run.
    """
    if unknown := [runtime for runtime in runtimes if runtime not in SUFFIXES]:
        raise InvalidInput(f"runtime: expected one of {', '.join(SUFFIXES)}, got {unknown[0]!r}")
    formats = {SUFFIXES[runtime] for runtime in runtimes}
    for recipe in recipes:
        if recipe.keeps_layers and len(formats) < len(SUFFIXES):
            raise InvalidInput(f"{recipe.name}: its files are made for both runtimes together: name no runtime")
        if not formats & set(recipe.formats):
            check_runs(recipe.name, next(iter(formats)))
    found: list[Key] = []
    for mixed in (False, True):
        some = [recipe for recipe in recipes if recipe.keeps_layers == mixed]
        found += [("tflite", recipe.name) for recipe in some if {"tflite"} & formats & set(recipe.formats)]
        found += [
            ("ort", recipe.name) for recipe in some if "onnx" in formats and recipe.for_onnx and route == "direct"
        ]
    if not found:
        what = (
            "the tf route makes TFLite files only" if route == "tf" else "the float32 file of ort is the graph itself"
        )
        raise InvalidInput(f"nothing to make for {' and '.join(runtimes)}: {what}")
    return tuple(found)


@dataclass(frozen=True)
class Options:
    """The arguments of convert_bundle, checked. keys: the files to make of each graph. named: whether the user named
    the precisions."""

    rules: ConversionRules
    keys: tuple[Key, ...]
    route: str
    calibration: Calibration | None
    mixed: MixedRequest | None
    progress: Progress
    timeout_s: float
    slice_limit_bytes: int
    strict: bool
    named: bool

    @property
    def lowered(self) -> list[str]:
        """The precisions that the converter makes. A mixed file is made from an fp16 and an int8 file; where files are
        checked, the float32 one is made too, because a fault of the lowering shows in it."""
        names = {name for runtime, name in self.keys if runtime == "tflite"} | (
            {"fp16", "int8"} if self.mixed else set()
        )
        if names and self.rules.check is not None:
            names.add("fp32")
        return [name for name, recipe in RECIPES.items() if name in names and not recipe.keeps_layers]

    @property
    def calibrated(self) -> list[Key]:
        """The files that need calibration."""
        return [key for key in self.keys if RECIPES[key[1]].calibrated]

    @property
    def quantized(self) -> list[Recipe]:
        """The recipes of the files for ONNX Runtime, except mixed ones."""
        found = [RECIPES[name] for runtime, name in self.keys if runtime == "ort"]
        return [recipe for recipe in found if not recipe.keeps_layers]
