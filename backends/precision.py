"""What each precision is: the numbers that weights and activations become, where, and which runtimes can do it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from backends.errors import InvalidInput, NotAvailable

WEIGHTS = ("float32", "float16", "int8")

# "dynamic int8": quantized as they come, float32 in and out. "int8" and "int16": on ranges seen before.
ACTIVATIONS = ("float32", "dynamic int8", "int8", "int16")

OPERATORS = ("dense", "convolution")

RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "TFLite", "torch": "PyTorch"}


@dataclass(frozen=True)
class Recipe:
    """One way to make a smaller or faster file of a float32 graph.

    weights: what weights are stored as; int8 is symmetric and per output channel. Depthwise kernels have a few dozen
    values a channel: in TFLite they are stored as float16 where others are int8, and always compute in float32, because
    that has the quickest kernels (measured on videoseal-1.0: half the time of the integer ones, see graphs/prepare).
    activations: what the `computes` operators compute on. The others compute in float32, on dequantized weights.
    formats: the runtimes that run it, by the format of their files. reason: why the others do not.
    """

    name: str
    weights: str
    activations: str
    computes: tuple[str, ...]
    formats: tuple[str, ...]
    reason: str = ""

    def __post_init__(self) -> None:
        for field, allowed, got in (
            ("weights", WEIGHTS, (self.weights,)),
            ("activations", ACTIVATIONS, (self.activations,)),
            ("computes", OPERATORS, self.computes),
            ("formats", tuple(RUNTIMES), self.formats),
        ):
            if unknown := [value for value in got if value not in allowed]:
                raise ValueError(f"{self.name}: {field}: expected one of {', '.join(allowed)}, got {unknown}")
        if bool(self.computes) != (self.activations != "float32"):
            raise ValueError(f"{self.name}: activations are quantized for the operators that compute on them")

    @property
    def calibrated(self) -> bool:
        """Whether the ranges of activations must be seen on images first."""
        return self.activations in ("int8", "int16")

    @property
    def for_onnx(self) -> bool:
        """Whether ONNX Runtime has a file of its own of this precision: float32 is the graph itself."""
        return "onnx" in self.formats and self.weights != "float32"

    @property
    def share(self) -> float:
        """Bytes of a stored weight, over the four of float32."""
        return {"float32": 1.0, "float16": 0.5, "int8": 0.25}[self.weights]

    def to_worker(self) -> dict[str, Any]:
        """What the converter's worker needs to know."""
        return {"weights": self.weights, "activations": self.activations, "computes": list(self.computes)}


_TABLE = (
    Recipe("fp32", "float32", "float32", (), ("onnx", "tflite", "torch")),
    # On both runtimes weights are made float32 once, as the file loads.
    Recipe("fp16", "float16", "float32", (), ("onnx", "tflite")),
    # What computes on quantized activations here does so on TFLite. On ONNX Runtime it is dense layers, and the
    # convolutions that onnx_unfold makes such of.
    Recipe("int8", "int8", "dynamic int8", OPERATORS, ("onnx", "tflite")),
    # Full convolutions stay float32: the first one reads the image, and a mark is fainter than a step of eight bits
    # (measured on pocketseal: 1.3% of bits flipped with them, 0.5% without).
    Recipe("int8-static", "int8", "int8", ("dense",), ("onnx", "tflite")),
    Recipe("int8-w", "int8", "float32", (), ("onnx", "tflite")),
    # TFLite has 16-bit kernels for more than these, but its SUB refuses to load, and without SUB no norm can follow.
    Recipe(
        "int16x8",
        "int8",
        "int16",
        OPERATORS,
        ("tflite",),
        "it has no kernels for 16-bit activations and would compute in float32, at twice the time of int8-w's file",
    ),
    # int8, but for the layers that a recipe file names: those are fp16.
    Recipe("mixed", "int8", "dynamic int8", OPERATORS, ("onnx", "tflite")),
)

RECIPES = {recipe.name: recipe for recipe in _TABLE}


def check_runs(precision: str, file_format: str) -> None:
    """Raise NotAvailable, naming the runtimes that can, if a runtime cannot have a file of this precision."""
    recipe = RECIPES.get(precision)
    if recipe is None or file_format in recipe.formats:
        return  # what is no precision at all is said by whoever looks for the file
    can = " and ".join(RUNTIMES[one] for one in recipe.formats)
    why = f": {recipe.reason}" if recipe.reason and file_format == "onnx" else ""
    raise NotAvailable(f"{RUNTIMES[file_format]} cannot run {precision}{why}; {can} can")


def chosen(precisions: Iterable[str], route: str) -> tuple[Recipe, ...]:
    """The recipes of these names that a route makes, in the order of the table. Raises InvalidInput for others."""
    wanted = tuple(precisions)
    if route not in ROUTES:
        raise InvalidInput(f"route: expected one of {', '.join(ROUTES)}, got {route!r}")
    known = ", ".join(ROUTES[route])
    if unknown := [name for name in wanted if name not in ROUTES[route]]:
        others = [other for other, names in ROUTES.items() if all(name in names for name in unknown)]
        hint = f"; the {others[0]} route does" if others else ""
        raise InvalidInput(f"the {route} route makes {known}, not {', '.join(map(repr, unknown))}{hint}")
    if not wanted:
        raise InvalidInput(f"no precision given; the {route} route makes {known}")
    return tuple(RECIPES[name] for name in ROUTES[route] if name in wanted)


# TensorFlow's own converter is the direct route's check: what it makes by itself, without our calibration.
ROUTES = {"direct": tuple(RECIPES), "tf": ("fp32", "fp16", "int8")}
