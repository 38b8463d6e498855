"""The recipe of a precision: the number types of weights and activations, the file formats, and the error limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.errors import NotAvailable

WEIGHTS = ("float32", "float16", "int8")
# "dynamic int8": each run quantizes activations by their own range; operators take and give float32. "int8" and
# "int16": activations are quantized by ranges that were measured in a calibration. "bfloat16": the runtime rounds them,
# and the weights of the operators that read them, while it runs.
ACTIVATIONS = ("float32", "bfloat16", "dynamic int8", "int8", "int16")
# "other": every other operator for which the runtime has an integer kernel, and the inputs and outputs of the graph.
OPERATORS = ("dense", "convolution", "other")
WEIGHTED = ("dense", "convolution")  # those with weights
RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "TFLite", "torch": "PyTorch"}
# Ways to make a TFLite file: "direct" uses onnx2tf alone; "tf" uses TensorFlow's converter, to check the direct route.
ROUTES = ("direct", "tf")


@dataclass(frozen=True)
class Recipe:
    """A precision: how a file is made from a float32 graph, and how far its results may differ from float32.

    weights: the stored type of weights; int8 is symmetric and per output channel. Depthwise kernels have a few dozen
    values a channel: TFLite files store them as float16 where others are int8, and always compute them in float32,
    which has the quickest kernels (measured on videoseal-1.0: half the time of the integer kernels).
    activations: the number type on which the operators of `computes` compute. All other operators compute in float32,
    on dequantized weights.
    formats: the file formats that support it. not_in_onnx: the reason why ONNX is not among them.
    limits: the allowed difference from float32 by the name of the measure; see `limit`. reason: why these limits.
    "binding_error", the RMS of the difference over the RMS of the outputs, only tells a fault from rounding and does
    not judge accuracy: a wrong layout gave at least 0.26, so every limit is below that.
    routes: the routes that make a TFLite file of it. keeps_layers: layers that a search or a recipe file names stay in
    float16. rank: the order in tables; this project's recipes have ranks below 10.
    base: for a precision without files of its own, the precision of the files that a runtime runs in it; such a
    precision has no routes. example: a command that runs a file in it.
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
    base: str | None = None
    example: str = ""

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
        if (self.base is None) != bool(self.routes):
            raise ValueError(
                f"{self.name}: a precision has routes that make its files, or the base whose files it runs"
            )

    @property
    def calibrated(self) -> bool:
        """Whether the ranges of activations must be measured in a calibration first."""
        return self.activations in ("int8", "int16")

    @property
    def is_integer(self) -> bool:
        """Whether files compute in integers throughout, from their inputs to their outputs."""
        return "other" in self.computes

    @property
    def for_onnx(self) -> bool:
        """Whether a conversion makes an ONNX file of this precision, besides the float32 graph."""
        return "onnx" in self.formats and self.weights != "float32"

    @property
    def share(self) -> float:
        """Size of a stored weight over that of a float32 weight: 1.0, 0.5 or 0.25."""
        return {"float32": 1.0, "float16": 0.5, "int8": 0.25}[self.weights]

    @property
    def without_file(self) -> str:
        """A sentence for a precision without files of its own: how a file runs in it."""
        return f"{self.name} has no files of its own: `{self.example}` runs the {self.base} file in it"

    def limit(self, measure: str) -> float:
        """Return the highest allowed value of a measure; for cosines and decibels, the lowest.

        Raises NotAvailable for a measure without a limit: there are no defaults.
        """
        if measure not in self.limits:
            raise NotAvailable(
                f"precision {self.name!r} states no limit for {measure!r}, so nothing is judged by it; it has "
                f"{', '.join(sorted(self.limits)) or 'none'}"
            )
        return self.limits[measure]

    def to_worker(self, convolutions: bool = False) -> dict[str, Any]:
        """Return the fields that the converter's worker needs, as JSON values.

        convolutions: whether a calibrated file computes its convolutions in integers even if `computes` leaves them
        out.
        """
        more = [one for one in WEIGHTED if convolutions and self.calibrated and one not in self.computes]
        return {
            "weights": self.weights,
            "activations": self.activations,
            "computes": [*self.computes, *more, *(["depthwise"] if convolutions and self.calibrated else [])],
            "calibrated": self.calibrated,
        }
