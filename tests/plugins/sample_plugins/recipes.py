"""A precision in one object: like int8, but only dense layers compute in 8 bits."""

from backends.precision import INT8
from backends.recipe import Recipe

INT8_DENSE = Recipe(
    name="int8-dense",
    weights="int8",
    activations="dynamic int8",
    computes=("dense",),
    formats=("onnx", "tflite"),
    limits=INT8.limits,
    reason=f"{INT8.reason} Convolutions compute in float32, so that it is nearer than int8.",
)
