"""A float32 TFLite file to FP16, dynamic INT8 and static INT8, with ai-edge-quantizer."""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName

SIGNATURE = "serving_default"
# These compute in static int8. A norm divides by what may round to zero in eight bits, and element by element little is
# gained. Dense convolutions keep int8 weights but compute in float32: the first one reads the image, and a mark is
# fainter than a step of eight bits (measured on pocketseal: 1.3% of bits flipped with them, 0.5% without).
_STATIC = (TFLOperationName.DEPTHWISE_CONV_2D, TFLOperationName.FULLY_CONNECTED)


def quantize(model: Path, precision: str, folder: Path, calibration: dict[str, Any] | None) -> Path:
    """Write one precision of a float32 TFLite file into `folder` and return its path.

    fp16: weights in float16, dequantized as the file loads; float32 in between.
    int8: weights in int8 per channel, activations quantized as they come; float32 in and out.
    int8-static: depthwise and fully connected layers compute in int8, on activations whose ranges were seen on
    `calibration`, see _ranges.
    """
    work = quantizer.Quantizer(str(model))
    ranges: dict[str, Any] | None = None
    if precision == "fp16":
        work.add_weight_only_config(
            ".*", TFLOperationName.ALL_SUPPORTED, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
    elif precision == "int8":
        work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    elif precision == "int8-static":
        work.add_weight_only_config(".*", TFLOperationName.CONV_2D, num_bits=8)
        for operation in _STATIC:
            work.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=8)
        if calibration is None:
            raise ValueError("int8-static needs calibration samples")
        ranges = _ranges(model, work.get_quantization_recipe(), calibration)
    else:
        raise ValueError(f"unknown precision {precision!r}")
    path = folder / f"{model.stem}.{precision}.tflite"
    path.write_bytes(bytes(work.quantize(ranges).quantized_model))
    return path


def _ranges(model: Path, steps: Any, calibration: dict[str, Any]) -> dict[str, Any]:
    """Run a file on samples, one at a time, and note the range of each tensor.

    `calibration` names .npy files whose first axis are the samples: {"inputs": {name: {"file", "order"}}} to read,
    each sample transposed by `order` unless that is null, and {"outputs": {name: file}} to write, which are inputs
    of the slices that follow. One sample after the other gives the ranges that the uncut graph would have.
    """
    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(steps)
    runs = calibrator.Calibrator(str(model), num_threads=1)
    inputs = {name: np.load(source["file"], mmap_mode="r") for name, source in calibration["inputs"].items()}
    orders = {name: source["order"] for name, source in calibration["inputs"].items()}
    written: dict[str, Any] = {}
    count = len(next(iter(inputs.values())))
    for i in range(count):
        sample = {name: _ordered(values[i], orders[name]) for name, values in inputs.items()}
        runs.calibrate({SIGNATURE: [sample]}, recipes, cache_output=True)
        outputs = runs.get_cached_output()[0]
        runs.clear_cached_output()
        for name, file in calibration["outputs"].items():
            if name not in written:
                shape = (count, *outputs[name].shape)
                written[name] = np.lib.format.open_memmap(file, "w+", outputs[name].dtype, shape)
            written[name][i] = outputs[name]
    ranges: dict[str, Any] = runs.get_model_qsvs()
    return ranges


def _ordered(values: Any, order: list[int] | None) -> Any:
    return np.ascontiguousarray(values if order is None else values.transpose(order))
