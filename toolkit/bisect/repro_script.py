"""Run one layer in both files, on the same inputs, and print by how much they differ: python repro.py

Needs numpy, onnxruntime and, for a .tflite file, ai-edge-litert; for a candidate on another backend, this toolkit;
nothing else. layer.json describes the layer, and how the candidate file stores its tensors; inputs.npz has the inputs
in the layout and dtypes of reference.onnx.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent


def run_onnx(path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    """Run an ONNX file. Returns every output by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def run_tflite(path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    """Run a TFLite file. Inputs and outputs are by the tensor's name."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], feeds[detail["name"]])
    interpreter.invoke()
    return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()}


def run_on_backend(path: Path, feeds: dict[str, Any], name: str, precision: str) -> dict[str, Any]:
    """Run an ONNX file on another backend of the toolkit. Returns every output by name."""
    from backends.registry import BACKENDS
    from toolkit.bisect.candidates import run_onnx_file

    return run_onnx_file(path, BACKENDS.load(name), precision, [feeds], threads=1)[0]


def to_stored(values: Any, stored: dict[str, Any]) -> Any:
    """Convert reference values to the candidate's layout and dtype.

    If the tensor has a scale, real value = (stored value - zero_point) * scale.
    """
    if stored["order"] is not None:
        values = values.transpose(stored["order"])
    if stored["scale"] is not None:
        limits = np.iinfo(stored["dtype"])
        steps = np.rint(values / np.float32(stored["scale"])) + stored["zero_point"]
        values = np.clip(steps, limits.min, limits.max)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values.reshape(stored["shape"]).astype(stored["dtype"]))


def from_stored(values: Any, stored: dict[str, Any], shape: list[int]) -> Any:
    """Convert the candidate's values to the reference's layout and shape, as dequantized float64."""
    values = values.astype(np.float64)
    if stored["scale"] is not None:
        values = (values - stored["zero_point"]) * stored["scale"]
    if stored["order"] is not None:
        values = values.transpose(np.argsort(stored["order"]))
    return values.reshape(shape)


def main() -> None:
    """Run both files, and print a description of the layer and the difference of its results."""
    layer = json.loads((HERE / "layer.json").read_text(encoding="utf-8"))
    with np.load(HERE / "inputs.npz") as arrays:
        feeds = {name: arrays[key] for name, key in layer["reference_inputs"].items()}
        given = {stored["name"]: to_stored(arrays[stored["array"]], stored) for stored in layer["inputs"]}
    output = layer["output"]
    expected = run_onnx(HERE / "reference.onnx", feeds)[output["name"]].astype(np.float64)
    candidate = HERE / layer["file"]
    if "backend" in layer:
        results = run_on_backend(candidate, given, layer["backend"], layer["precision"])
    else:
        results = (run_tflite if candidate.suffix == ".tflite" else run_onnx)(candidate, given)
    got = from_stored(results[output["stored"]["name"]], output["stored"], output["shape"])

    finite = np.isfinite(expected)
    error = np.where(finite, got - expected, 0)
    said = [
        f"{layer['model']} ({layer['weights']} weights): {layer['candidate']} against {layer['reference']}",
        f"tensor {output['name']!r} {output['shape']}, made by {layer['onnx_node']!r} ({layer['onnx_op']})",
        f"sample: {layer['sample']}",
        f"module: {layer['module'] or 'not known'}",
        f"operators of {layer['file']}: {', '.join(layer['operators'])}",
        f"reference, first values: {expected.reshape(-1)[:4].tolist()}",
        f"candidate, first values: {got.reshape(-1)[:4].tolist()}",
        f"not finite: {int(np.count_nonzero(~np.isfinite(got[finite])))} of {got.size}",
        f"largest difference: {np.abs(error).max():.6g}",
        f"difference over signal (RMS): {np.sqrt(np.square(error).mean() / np.square(expected[finite]).mean()):.6g}",
    ]
    sys.stdout.write("\n".join(said) + "\n")


if __name__ == "__main__":
    main()
