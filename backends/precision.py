"""Precisions: the numbers that weights and activations become, the file formats that can carry them, and their limits.

A precision is one `Recipe`. Ours are below; another package registers one in the entry-point group
`seal_toolkit.recipes`, and it is made by `toolkit convert -p NAME`, compared, timed and reported like ours.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.errors import InvalidInput, NotAvailable
from backends.plugins import Registry

WEIGHTS = ("float32", "float16", "int8")
# "dynamic int8": each run quantizes activations by their own range, float32 in and out. "int8" and "int16": by ranges
# that were seen in a calibration.
ACTIVATIONS = ("float32", "dynamic int8", "int8", "int16")
OPERATORS = ("dense", "convolution")
RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "TFLite", "torch": "PyTorch"}
# The ways to a TFLite file: onnx2tf alone, or through TensorFlow's own converter, which is the first one's check.
ROUTES = ("direct", "tf")


@dataclass(frozen=True)
class Recipe:
    """One way to make a smaller or faster file of a float32 graph.

    weights: the stored form of weights; int8 is symmetric and per output channel. Depthwise kernels have a few dozen
    values a channel: in TFLite they are stored as float16 where others are int8, and always compute in float32, which
    has the quickest kernels (measured on videoseal-1.0: half the time of the integer ones).
    activations: the numbers that the `computes` operators compute on. All others compute in float32, on dequantized
    weights.
    formats: the file formats that can carry it. not_in_onnx: why ONNX files are not among them.
    limits: how far a file of this precision may be from float32, by the name of the measure; see `limit`. reason: why
    that far. "binding_error", the root of the mean squared difference over that of the outputs, tells a fault from
    rounding and is no verdict on accuracy: a wrong layout gave 0.26 at the least, so every one stays below that.
    routes: the ways on which a TFLite file of it is made. keeps_layers: some layers, which a search or a recipe file
    names, stay in float16. rank: its place in tables; ours have ranks below 10.
    """

    name: str
    weights: str
    activations: str
    computes: tuple[str, ...]
    formats: tuple[str, ...]
    limits: Mapping[str, float]
    reason: str
    not_in_onnx: str = ""
    routes: tuple[str, ...] = ("direct",)
    keeps_layers: bool = False
    rank: int = 100

    def __post_init__(self) -> None:
        for name, allowed, got in (
            ("weights", WEIGHTS, (self.weights,)),
            ("activations", ACTIVATIONS, (self.activations,)),
            ("computes", OPERATORS, self.computes),
            ("formats", tuple(RUNTIMES), self.formats),
            ("routes", ROUTES, self.routes),
        ):
            if unknown := [value for value in got if value not in allowed]:
                raise ValueError(f"{self.name}: {name}: expected one of {', '.join(allowed)}, got {unknown}")
        if bool(self.computes) != (self.activations != "float32"):
            raise ValueError(f"{self.name}: activations are quantized for the operators that compute on them")

    @property
    def calibrated(self) -> bool:
        """Whether the ranges of activations must be seen on real inputs first."""
        return self.activations in ("int8", "int16")

    @property
    def for_onnx(self) -> bool:
        """Whether there is an ONNX file of this precision besides the float32 graph itself."""
        return "onnx" in self.formats and self.weights != "float32"

    @property
    def share(self) -> float:
        """Bytes of a stored weight, over the four of float32."""
        return {"float32": 1.0, "float16": 0.5, "int8": 0.25}[self.weights]

    def limit(self, measure: str) -> float:
        """The most (of a cosine or decibels: the least) that a measure may be. Raises NotAvailable: no limit has a
        default."""
        if measure not in self.limits:
            raise NotAvailable(
                f"precision {self.name!r} states no limit for {measure!r}, so nothing is judged by it; it has "
                f"{', '.join(sorted(self.limits)) or 'none'}"
            )
        return self.limits[measure]

    def to_worker(self) -> dict[str, Any]:
        """The part that the converter's worker needs, as JSON values."""
        return {"weights": self.weights, "activations": self.activations, "computes": list(self.computes)}


_INT8_W_REASON = (
    "Weights in steps of 1/127 of the largest of their channel, activations as in float32: half of what int8 may do."
)

FP32 = Recipe(
    name="fp32",
    weights="float32",
    activations="float32",
    computes=(),
    formats=("onnx", "tflite", "torch"),
    limits={
        "binding_error": 1e-4,
        "relative_l2": 1e-4,
        "changed": 0.0,
        "bits_flipped": 1e-4,
        "accuracy_loss": 1e-4,
        "verdicts_changed": 0.0,
        "channel_changed": 1e-4,
        "mean_cosine": 0.999999,
        "lost": 0.0,
        "choices_changed": 0.0,
        "captions_changed": 0.0,
        "latent_error": 1e-3,
        "psnr_db": 80.0,
    },
    reason=(
        "Float32 sums in another order: 6e-8 an addition, grown by some tens of layers. 1e-4 is a thousand roundings "
        "and far below what a wrong layout, padding or constant does."
    ),
    routes=ROUTES,
    rank=0,
)
# On both runtimes weights are made float32 once, as the file loads.
FP16 = Recipe(
    name="fp16",
    weights="float16",
    activations="float32",
    computes=(),
    formats=("onnx", "tflite"),
    limits={
        "binding_error": 1e-2,
        "relative_l2": 1e-2,
        "changed": 1e-2,
        "bits_flipped": 1e-3,
        "accuracy_loss": 2e-4,
        "verdicts_changed": 0.0,
        "channel_changed": 1e-3,
        "mean_cosine": 0.9999,
        "lost": 1e-3,
        "choices_changed": 1e-2,
        "captions_changed": 0.2,
        "latent_error": 1e-2,
        "psnr_db": 50.0,
    },
    reason=(
        "Weights rounded to 11 bits, at most 5e-4 of each, at random; products average that out, layers add it up. "
        "1e-2 leaves a factor of twenty, and an overflow or a lost subnormal is over it."
    ),
    routes=ROUTES,
    rank=1,
)
# The operators of `computes` compute on quantized activations in TFLite. On ONNX Runtime those are dense layers, and
# the convolutions that quantize/onnx.py makes into dense layers.
INT8 = Recipe(
    name="int8",
    weights="int8",
    activations="dynamic int8",
    computes=OPERATORS,
    formats=("onnx", "tflite"),
    limits={
        "binding_error": 0.1,
        "relative_l2": 0.1,
        "changed": 5e-2,
        "bits_flipped": 1e-2,
        "accuracy_loss": 1e-3,
        "verdicts_changed": 2e-3,
        "channel_changed": 5e-3,
        "layer_error": 0.02,
        "mean_cosine": 0.995,
        "lost": 1e-2,
        "choices_changed": 0.05,
        "captions_changed": 0.65,
        "latent_error": 0.2,
        "psnr_db": 30.0,
    },
    reason=(
        "Weights and activations in steps of 1/127 of the largest, about 4e-3 of it a rounding, several times that of "
        "a typical value. Twenty layers that add it up independently come to some percent; at 10% the answer is "
        "another one."
    ),
    routes=ROUTES,
    rank=2,
)
# Full convolutions stay float32: the first one reads the image, and a mark is fainter than a step of eight bits
# (measured on pocketseal: 1.3% of bits flipped with them, 0.5% without).
INT8_STATIC = Recipe(
    name="int8-static",
    weights="int8",
    activations="int8",
    computes=("dense",),
    formats=("onnx", "tflite"),
    limits={
        "binding_error": 0.2,
        "relative_l2": 0.2,
        "changed": 0.1,
        "bits_flipped": 2e-2,
        "accuracy_loss": 2e-3,
        "verdicts_changed": 5e-3,
        "channel_changed": 1e-2,
        "layer_error": 0.04,
        "mean_cosine": 0.98,
        "lost": 4e-2,
        "choices_changed": 0.1,
        "captions_changed": 0.9,
        "latent_error": 0.4,
        "psnr_db": 24.0,
    },
    reason=(
        "As int8, with ranges that were chosen beforehand: values outside them are cut off, so twice as much is "
        "allowed."
    ),
    rank=3,
)
_HALF_OF_INT8: Mapping[str, float] = {
    "relative_l2": 0.05,
    "changed": 2.5e-2,
    "bits_flipped": 5e-3,
    "accuracy_loss": 1e-3,
    "verdicts_changed": 2e-3,
    "channel_changed": 5e-3,
    "layer_error": 0.01,
    "mean_cosine": 0.998,
    "lost": 5e-3,
    "choices_changed": 0.025,
    "captions_changed": 0.4,
    "latent_error": 0.1,
    "psnr_db": 36.0,
}
INT8_W = Recipe(
    name="int8-w",
    weights="int8",
    activations="float32",
    computes=(),
    formats=("onnx", "tflite"),
    limits={**_HALF_OF_INT8, "binding_error": 0.1},
    reason=_INT8_W_REASON,
    rank=4,
)
# TFLite has 16-bit kernels for more than these, but its SUB refuses to load, and without SUB no norm can follow.
INT16X8 = Recipe(
    name="int16x8",
    weights="int8",
    activations="int16",
    computes=OPERATORS,
    formats=("tflite",),
    limits={**_HALF_OF_INT8, "binding_error": 0.2},
    reason=f"{_INT8_W_REASON} Activations in 16 bits add nothing that shows.",
    not_in_onnx="it has no kernels for 16-bit activations and would compute in float32, at twice the time of int8-w",
    rank=5,
)
# int8, but for the layers that a recipe file names: those are fp16.
MIXED = Recipe(
    name="mixed",
    weights="int8",
    activations="dynamic int8",
    computes=OPERATORS,
    formats=("onnx", "tflite"),
    limits={
        "binding_error": 0.1,
        "relative_l2": 0.05,
        "changed": 2.5e-2,
        "bits_flipped": 2e-3,
        "accuracy_loss": 1e-3,
        "verdicts_changed": 0.0,
        "channel_changed": 2e-3,
    },
    reason=(
        "Layers that were measured to matter stay in floats: it must be as near as weights alone in int8 are, change "
        "no verdict, and flip no more than 0.2% of bits. That is what it is made for."
    ),
    keeps_layers=True,
    rank=6,
)


class _Recipes(Mapping[str, Recipe]):
    """Every registered recipe by name, in the order of their ranks and then of their names."""

    def __init__(self) -> None:
        self.registry: Registry[Recipe] = Registry("seal_toolkit.recipes", "precision")

    def __getitem__(self, name: str) -> Recipe:
        if name not in self.registry.names:
            raise KeyError(name)
        return self.registry.load(name)

    def __iter__(self) -> Iterator[str]:
        found = (self.registry.load(name) for name in self.registry.names)
        return iter([recipe.name for recipe in sorted(found, key=lambda recipe: (recipe.rank, recipe.name))])

    def __len__(self) -> int:
        return len(self.registry.names)


RECIPES = _Recipes()


def find_recipe(name: str) -> Recipe:
    """The recipe of a precision. Raises NotAvailable that lists the precisions."""
    if name not in RECIPES:
        raise NotAvailable(f"no precision named {name!r}; there is {', '.join(RECIPES)}")
    return RECIPES[name]


def check_runs(precision: str, file_format: str) -> None:
    """Raise NotAvailable, naming the runtimes that can, if a file format cannot carry a precision."""
    if precision not in RECIPES:
        return  # whoever looks for the file says that there is no such precision
    recipe = RECIPES[precision]
    if file_format in recipe.formats:
        return
    can = " and ".join(RUNTIMES[one] for one in recipe.formats)
    why = f": {recipe.not_in_onnx}" if recipe.not_in_onnx and file_format == "onnx" else ""
    raise NotAvailable(f"{RUNTIMES[file_format]} cannot run {precision}{why}; {can} can")


def chosen(precisions: Iterable[str], route: str) -> tuple[Recipe, ...]:
    """The recipes of these names that a route makes, in the order of the table. Raises InvalidInput for others."""
    wanted = tuple(precisions)
    if route not in ROUTES:
        raise InvalidInput(f"route: expected one of {', '.join(ROUTES)}, got {route!r}")
    by_route = {one: [name for name, recipe in RECIPES.items() if one in recipe.routes] for one in ROUTES}
    known = ", ".join(by_route[route])
    if unknown := [name for name in wanted if name not in by_route[route]]:
        others = [other for other, names in by_route.items() if all(name in names for name in unknown)]
        hint = f"; the {others[0]} route does" if others else ""
        raise InvalidInput(f"the {route} route makes {known}, not {', '.join(map(repr, unknown))}{hint}")
    if not wanted:
        raise InvalidInput(f"no precision given; the {route} route makes {known}")
    return tuple(RECIPES[name] for name in by_route[route] if name in wanted)
