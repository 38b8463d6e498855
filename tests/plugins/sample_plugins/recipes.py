"""A precision in one object: as int8, but only dense layers compute on eight bits."""

from backends.precision import INT8, Recipe

INT8_DENSE = Recipe(
    name="int8-dense",
    weights="int8",
    activations="dynamic int8",
    computes=("dense",),
    formats=("onnx", "tflite"),
    limits=INT8.limits,
    reason=f"{INT8.reason} Convolutions compute in float32, so that it is nearer than int8.",
)
