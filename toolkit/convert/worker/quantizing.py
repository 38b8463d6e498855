"""A float32 TFLite file to FP16, dynamic INT8 and static INT8, with ai-edge-quantizer."""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName

SIGNATURE = "serving_default"
# These compute in static int8. A norm divides by what may round to zero in eight bits, and element by element little is
# gained. Dense convolutions keep int8 weights but compute in float32: the first one reads the image, and a mark is
# fainter than a step of eight bits (measured on pocketseal: 1.3% of bits flipped with them, 0.5% without).
_STATIC = (TFLOperationName.DEPTHWISE_CONV_2D, TFLOperationName.FULLY_CONNECTED)


def quantize(model: Path, precision: str, folder: Path, calibration: str | None) -> Path:
    """Write one precision of a float32 TFLite file into `folder` and return its path.

    fp16: weights in float16, dequantized as the file loads; float32 in between.
    int8: weights in int8 per channel, activations quantized as they come; float32 in and out.
    int8-static: depthwise and fully connected layers compute in int8, on activations whose ranges were seen on
    `calibration`: an .npz of input name -> samples, first axis the samples, each in the file's own layout.
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
        ranges = work.calibrate({SIGNATURE: _samples(Path(calibration))}, num_threads=1)
    else:
        raise ValueError(f"unknown precision {precision!r}")
    path = folder / f"{model.stem}.{precision}.tflite"
    path.write_bytes(bytes(work.quantize(ranges).quantized_model))
    return path


def _samples(path: Path) -> list[dict[str, Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        inputs = {name: arrays[name] for name in arrays.files}
    count = len(next(iter(inputs.values())))
    return [{name: values[i] for name, values in inputs.items()} for i in range(count)]
