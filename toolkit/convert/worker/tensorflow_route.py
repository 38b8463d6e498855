"""The tf route: from ONNX to a SavedModel with onnx2tf, then to TFLite with TensorFlow's own converter."""

import json
from pathlib import Path
from typing import Any

import onnx
import tensorflow as tf

from .lowering import run_onnx2tf

SIGNATURE = "serving_default"


class _ModelIsBuilt(BaseException):
    """Carries the Keras model out of onnx2tf. It is not an Exception, so that no handler in onnx2tf catches it."""

    def __init__(self, model: Any) -> None:
        self.model = model


def write_saved_model(model: Path, folder: Path, outputs: list[str]) -> Path:
    """Convert an ONNX file to a SavedModel whose signature has the ONNX names. Returns its folder.

    outputs: names of the graph's outputs, in the graph's order.
    """
    built = _build(model, folder / "onnx2tf")
    inputs = [tf.TensorSpec(value.shape, value.dtype, value.name) for value in built.inputs]

    @tf.function(input_signature=inputs)  # type: ignore[untyped-decorator]  # TensorFlow is not installed for mypy
    def serve(*values: Any) -> dict[str, Any]:
        return dict(zip(outputs, tf.nest.flatten(built(values)), strict=True))

    path = folder / "saved_model"
    tf.saved_model.save(built, str(path), signatures={SIGNATURE: serve})
    return path


def convert(saved_model: Path, precision: str, folder: Path) -> Path:
    """Convert a SavedModel to a TFLite file of precision fp32, fp16 (weights) or int8 (dynamic range, per channel).
    Returns its path."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if precision in ("fp16", "int8"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    path = folder / f"{precision}.tf.tflite"
    path.write_bytes(converter.convert())
    return path


def _build(model: Path, folder: Path) -> Any:
    """Return onnx2tf's Keras model. onnx2tf is stopped there: its own conversions of the model take minutes and are not
    used."""

    def stop(model: Any) -> None:
        raise _ModelIsBuilt(model)

    tf.lite.TFLiteConverter.from_keras_model = stop
    try:
        parameters = _keep_cubes(model, folder)
        run_onnx2tf(model, folder, "tf_converter", output_signaturedefs=True, param_replacement_file=parameters)
    except _ModelIsBuilt as result:
        return result.model
    raise RuntimeError("onnx2tf ended without converting its Keras model: its steps are not those of 2.6.9")


def _keep_cubes(model: Path, folder: Path) -> str:
    """Write a parameter file for onnx2tf that disables the layout transposes of cubes: tensors with the same height,
    width and number of channels. Returns its path.

    onnx2tf keeps activations channels last, and finds from their shapes which transposes are not needed any more. The
    shapes of cubes do not tell, so that it would transpose them to a wrong layout.
    """
    graph = onnx.shape_inference.infer_shapes(onnx.load(model, load_external_data=False)).graph
    shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in graph.value_info}
    fixes = [
        {"op_name": node.name, "param_target": "attributes", "param_name": "perm", "values": [0, 1, 2, 3]}
        for node in graph.node
        if node.op_type == "Transpose"
        and list(onnx.helper.get_node_attr_value(node, "perm")) in ([0, 3, 1, 2], [0, 2, 3, 1])
        and len(set(shapes[node.output[0]][1:])) == 1
    ]
    folder.mkdir()
    path = folder / "parameters.json"
    path.write_text(json.dumps({"format_version": 1, "operations": fixes}), encoding="utf-8")
    return str(path)
