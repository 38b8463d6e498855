"""Precisions: the number types of weights and activations, the file formats that support them, and their error limits.

A precision is one `Recipe`. This module defines nine; another package can register more in the entry-point group
`seal_toolkit.recipes`. `toolkit convert -p NAME`, the comparison, the benchmark and the report then use them too.
"""

from collections.abc import Iterable, Iterator, Mapping

from backends.errors import InvalidInput, NotAvailable
from backends.plugins import Registry
from backends.recipe import OPERATORS, ROUTES, RUNTIMES, WEIGHTED, Recipe

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
# Both runtimes convert the weights to float32 once, when the file is loaded.
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
# In TFLite, dense layers and convolutions compute on quantized activations. In ONNX Runtime, dense layers do, and the
# convolutions that quantize/onnx.py turns into dense layers.
INT8 = Recipe(
    name="int8",
    weights="int8",
    activations="dynamic int8",
    computes=WEIGHTED,
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
# Full convolutions of models that are judged by known samples stay float32: the first one reads the image, and a
# watermark is fainter than a step of eight bits (measured on pocketseal: 1.3% of bits flipped with quantized
# convolutions, 0.5% without). Those of imported models are quantized, except for layers that a search puts back.
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
# TFLite has 16-bit kernels for more operators, but a 16-bit SUB fails to load, and every norm needs a SUB.
INT16X8 = Recipe(
    name="int16x8",
    weights="int8",
    activations="int16",
    computes=WEIGHTED,
    formats=("tflite",),
    limits={**_HALF_OF_INT8, "binding_error": 0.2},
    reason=f"{_INT8_W_REASON} Activations in 16 bits add nothing that shows.",
    not_in_onnx="it has no kernels for 16-bit activations and would compute in float32, at twice the time of int8-w",
    rank=5,
)
# int8, except for layers that a recipe file names, which are fp16.
MIXED = Recipe(
    name="mixed",
    weights="int8",
    activations="dynamic int8",
    computes=WEIGHTED,
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
# The file that NPUs and microcontrollers take: integers in, out and between, so that no operator needs a float.
INT8_FULL = Recipe(
    name="int8-full",
    weights="int8",
    activations="int8",
    computes=OPERATORS,
    formats=("onnx", "tflite"),
    limits={
        "binding_error": 0.25,
        "relative_l2": 0.25,
        "changed": 0.15,
        "bits_flipped": 5e-2,
        "accuracy_loss": 5e-3,
        "verdicts_changed": 1e-2,
        "channel_changed": 2e-2,
        "layer_error": 0.05,
        "mean_cosine": 0.97,
        "lost": 6e-2,
        "choices_changed": 0.15,
        "captions_changed": 0.95,
        "latent_error": 0.5,
        "psnr_db": 22.0,
    },
    reason=(
        "As int8-static, and what lies between the layers is rounded to 256 levels as well, inputs and outputs too: a "
        "quarter more is allowed, and still less than a fault of the conversion makes."
    ),
    rank=7,
)


# No file: the runtime rounds a float32 file's numbers as it runs. OpenVINO keeps most tensors between the operators
# of `computes` in bfloat16 too, and adds up products in float32.
BF16 = Recipe(
    name="bf16",
    weights="float32",
    activations="bfloat16",
    computes=WEIGHTED,
    formats=("onnx",),
    limits={**_HALF_OF_INT8, "binding_error": 0.1},
    reason=(
        "Weights and activations rounded to 8 bits, at most 4e-3 of each, at random, and products summed in float32. "
        "An int8 step is about as large and is the same for small values and large ones: half of what int8 may do."
    ),
    routes=(),
    rank=8,
    base="fp32",
    example="toolkit run --backend openvino -p bf16",
)


class _Recipes(Mapping[str, Recipe]):
    """All registered recipes by name, sorted by rank and then by name."""

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
    """Return the recipe of a precision. Raises NotAvailable, which lists the precisions, for an unknown name."""
    if name not in RECIPES:
        raise NotAvailable(f"no precision named {name!r}; there is {', '.join(RECIPES)}")
    return RECIPES[name]


def check_runs(precision: str, file_format: str) -> None:
    """Raise NotAvailable, which names the runtimes that can, if a file format does not support a known precision."""
    if precision not in RECIPES:
        return  # the caller that looks for the file reports the unknown precision
    recipe = RECIPES[precision]
    if file_format in recipe.formats:
        return
    can = " and ".join(RUNTIMES[one] for one in recipe.formats)
    why = f": {recipe.not_in_onnx}" if recipe.not_in_onnx and file_format == "onnx" else ""
    raise NotAvailable(f"{RUNTIMES[file_format]} cannot run {precision}{why}; {can} can")


# The precisions that are made where none is named.
USUAL = (FP32.name, FP16.name, INT8.name)


def chosen(precisions: Iterable[str], route: str) -> tuple[Recipe, ...]:
    """Return the recipes of the names, in the order of RECIPES.

    Raises InvalidInput for an unknown route, no name at all, or a precision that the route does not make or that has no
    files of its own.
    """
    wanted = tuple(precisions)
    if route not in ROUTES:
        raise InvalidInput(f"route: expected one of {', '.join(ROUTES)}, got {route!r}")
    by_route = {one: [name for name, recipe in RECIPES.items() if one in recipe.routes] for one in ROUTES}
    known = ", ".join(by_route[route])
    for recipe in (RECIPES[name] for name in wanted if name in RECIPES):
        if recipe.base is not None:
            raise InvalidInput(f"{recipe.without_file}; the {route} route makes {known}")
    if unknown := [name for name in wanted if name not in by_route[route]]:
        others = [other for other, names in by_route.items() if all(name in names for name in unknown)]
        hint = f"; the {others[0]} route does" if others else ""
        raise InvalidInput(f"the {route} route makes {known}, not {', '.join(map(repr, unknown))}{hint}")
    if not wanted:
        raise InvalidInput(f"no precision given; the {route} route makes {known}")
    return tuple(RECIPES[name] for name in by_route[route] if name in wanted)
