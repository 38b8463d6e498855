"""Quantizes float32 TFLite files with ai-edge-quantizer, by the recipes of backends/precision.py, and observes the
ranges of their activations."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.schema_py_generated import TensorType
from ai_edge_quantizer import calibrator, quantizer, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor
from ai_edge_quantizer.qtyping import TFLOperationName, UniformQuantParams
from ai_edge_quantizer.utils import tfl_flatbuffer_utils, tfl_interpreter_utils

from .ranges import HistogramObserver

SIGNATURE = "serving_default"
_OPERATIONS = {
    "dense": TFLOperationName.FULLY_CONNECTED,
    "convolution": TFLOperationName.CONV_2D,
    "depthwise": TFLOperationName.DEPTHWISE_CONV_2D,
}
# Operators whose result holds the numbers of their first input, in another order or shape.
_SAME_NUMBERS = (
    TFLOperationName.TRANSPOSE,
    TFLOperationName.RESHAPE,
    TFLOperationName.PAD,
    TFLOperationName.MAX_POOL_2D,
)
_BITS = {"int8": 8, "int16": 16}

_fix_rank = uniform_quantize_tensor.fix_quantization_params_rank


def _fix_rank_of_one_scale(values: Any, parameters: UniformQuantParams) -> UniformQuantParams:
    """Give the only scale of an activation the rank of a constant with the same scale, such as the value of a pad.

    ai-edge-quantizer adds the axes of the constant to those of the scale, and then refuses the constant.
    """
    if values.ndim and parameters.scale.size == parameters.zero_point.size == 1:
        rank = (1,) * values.ndim
        scale, zero_point = parameters.scale.reshape(rank), parameters.zero_point.reshape(rank)
        return replace(parameters, scale=scale, zero_point=zero_point)
    return _fix_rank(values, parameters)


uniform_quantize_tensor.fix_quantization_params_rank = _fix_rank_of_one_scale


def quantize(
    model: Path,
    name: str,
    recipe: dict[str, Any],
    folder: Path,
    seen: "ObservedRanges | None",
    in_float: Sequence[str] = (),
    float_activations: Sequence[str] = (),
) -> Path:
    """Quantize a float32 TFLite file by one recipe. Returns the path of the new file, STEM.NAME.tflite in `folder`.

    recipe: {"weights", "activations", "computes", "calibrated"}, as in backends.recipe.Recipe. seen: the result of
    `observe`, for calibrated recipes. in_float: names of output tensors whose operators are not quantized;
    float_activations: those of operators that compute in float32 on int8 weights.
    Raises ValueError if a calibrated recipe has no `seen`.
    """
    work = quantizer.Quantizer(str(model))
    every = TFLOperationName.ALL_SUPPORTED
    bits = _BITS.get(recipe["activations"])
    if recipe["weights"] == "float16":
        work.add_weight_only_config(".*", every, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    elif recipe["activations"] == "float32":
        work.add_weight_only_config(".*", every, num_bits=8)
    elif recipe["activations"] == "dynamic int8":
        work.add_dynamic_config(".*", every, num_bits=8)
    elif bits is not None and seen is None:
        raise ValueError(f"{name} needs calibration samples")
    elif bits is not None and "other" in recipe["computes"]:
        work.add_static_config(".*", every, activation_num_bits=bits, weight_num_bits=8)
    elif bits is not None:
        for operator, operation in _OPERATIONS.items():
            if operator in recipe["computes"]:
                work.add_static_config(".*", operation, activation_num_bits=bits, weight_num_bits=8)
            else:
                work.add_weight_only_config(".*", operation, num_bits=8)
    if recipe["weights"] == "int8" and not {"depthwise", "other"} & set(recipe["computes"]):
        depthwise = TFLOperationName.DEPTHWISE_CONV_2D
        work.add_weight_only_config(".*", depthwise, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    for output in float_activations:
        for operation in _OPERATIONS.values():
            work.add_weight_only_config(f"(^|;){re.escape(output)};", operation, num_bits=8)
    for output in in_float:  # the latest rule counts; an operator is found by the names of its outputs, each with a ";"
        work.update_quantization_recipe(f"(^|;){re.escape(output)};", every, algorithm_key=AlgorithmName.NO_QUANTIZE)
    recipes = work.get_quantization_recipe()
    ranges = None if bits is None or seen is None else seen.ranges(model, recipes, levels=1 << bits)
    path = folder / f"{model.stem}.{name}.tflite"
    path.write_bytes(bytes(work.quantize(ranges).quantized_model))
    return path


class ObservedRanges:
    """The ranges of a file's tensors on the calibration samples, from one histogram for each tensor."""

    def __init__(
        self,
        method: str,
        sample: dict[str, Any],
        tensors: dict[str, HistogramObserver],
        stated: dict[str, tuple[float, float]],
    ) -> None:
        """stated: ranges that the graph states itself, by tensor; they count instead of what was seen."""
        self._stated = stated
        self._method = method
        self._sample = sample
        self._tensors = tensors

    def ranges(self, model: Path, steps: Any, levels: int) -> dict[str, Any]:
        """Return the range of each tensor that the quantizer needs: name -> {"min", "max"}, float32 arrays.

        steps: the quantizer's own recipe. levels: how many values a quantized activation can take.
        """
        recipes = recipe_manager.RecipeManager()
        recipes.load_quantization_recipe(steps)
        # One run of the quantizer's calibrator gives the names of these tensors, and the ranges of weights.
        runs = calibrator.Calibrator(str(model), num_threads=1)
        runs.calibrate({SIGNATURE: [self._sample]}, recipes)
        ranges: dict[str, Any] = runs.get_model_qsvs()
        for name in ranges.keys() & (self._tensors.keys() | self._stated.keys()):
            known = self._stated.get(name)
            low, high = self._tensors[name].range(self._method, levels) if known is None else known
            shape = np.shape(ranges[name]["min"])
            ranges[name] = {"min": np.full(shape, low, np.float32), "max": np.full(shape, high, np.float32)}
        return ranges


def observe(model: Path, calibration: dict[str, Any], every: bool = False) -> ObservedRanges:
    """Run a file on samples, one at a time, and observe the activations around the operators that have weights, or all
    activations if `every` is set.

    calibration: {"method": one of METHODS in ranges.py, "inputs": {name: {"file", "order"}}, "outputs": {name: file},
    "stated": {tensor: [low, high]}}.
    The files are .npy files whose first axis is that of the samples. Each sample of an input is transposed by `order`
    unless it is null. Outputs are written: they are inputs of later slices.
    """
    inputs = {name: np.load(source["file"], mmap_mode="r") for name, source in calibration["inputs"].items()}
    orders = {name: source["order"] for name, source in calibration["inputs"].items()}
    interpreter = tfl_interpreter_utils.create_tfl_interpreter(str(model), num_threads=1)
    watched = {name: HistogramObserver() for name in (_floats(model) if every else _around_weights(model))}
    index = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    written: dict[str, Any] = {}
    count = len(next(iter(inputs.values())))
    for i in range(count):
        sample = {name: _ordered(values[i], orders[name]) for name, values in inputs.items()}
        outputs = tfl_interpreter_utils.invoke_interpreter_signature(interpreter, sample, SIGNATURE)
        for name, observed in watched.items():
            observed.add(interpreter.get_tensor(index[name]))
        for name, file in calibration["outputs"].items():
            if name not in written:
                shape = (count, *outputs[name].shape)
                written[name] = np.lib.format.open_memmap(file, "w+", outputs[name].dtype, shape)
            written[name][i] = outputs[name]
    first = {name: _ordered(values[0], orders[name]) for name, values in inputs.items()}
    return ObservedRanges(calibration["method"], first, watched, _carried_on(model, calibration["stated"]))


def _carried_on(model: Path, stated: dict[str, list[float]]) -> dict[str, tuple[float, float]]:
    """Return the stated ranges by tensor, and the same range for each tensor that only reorders or reshapes another."""
    ranges = {name: (low, high) for name, (low, high) in stated.items()}
    if not ranges:
        return ranges
    loaded = tfl_flatbuffer_utils.read_model(str(model))
    (graph,) = loaded.subgraphs
    names = tfl_flatbuffer_utils.TFL_OP_CODE_TO_NAME
    pairs = [
        tuple(tfl_flatbuffer_utils.get_tensor_name(graph.tensors[i]) for i in (one.inputs[0], one.outputs[0]))
        for one in graph.operators
        if names.get(loaded.operatorCodes[one.opcodeIndex].builtinCode) in _SAME_NUMBERS
    ]
    for before, after in pairs:
        if before in ranges:
            ranges.setdefault(after, ranges[before])
    for before, after in reversed(pairs):
        if after in ranges:
            ranges.setdefault(before, ranges[after])
    return ranges


def _around_weights(model: Path) -> list[str]:
    """Return the names of the activations that enter or leave dense layers and (not depthwise) convolutions."""
    loaded = tfl_flatbuffer_utils.read_model(str(model))
    (graph,) = loaded.subgraphs
    names = tfl_flatbuffer_utils.TFL_OP_CODE_TO_NAME
    found: dict[str, None] = {}
    for operator in graph.operators:
        if names.get(loaded.operatorCodes[operator.opcodeIndex].builtinCode) in _OPERATIONS.values():
            for i in (operator.inputs[0], operator.outputs[0]):
                found[tfl_flatbuffer_utils.get_tensor_name(graph.tensors[i])] = None
    return list(found)


def _floats(model: Path) -> list[str]:
    """Return the names of all float32 activations, inputs and outputs included."""
    loaded = tfl_flatbuffer_utils.read_model(str(model))
    (graph,) = loaded.subgraphs
    made = [*graph.inputs, *(i for operator in graph.operators for i in operator.outputs)]
    tensors = [graph.tensors[i] for i in dict.fromkeys(made)]
    return [tfl_flatbuffer_utils.get_tensor_name(one) for one in tensors if one.type == TensorType.FLOAT32]


def _ordered(values: Any, order: list[int] | None) -> Any:
    return np.ascontiguousarray(values if order is None else values.transpose(order))
