"""Run one operator that could not be lowered, in both files, and print what becomes of it: python repro.py

Needs numpy, onnxruntime and ai-edge-litert; nothing else. reference.onnx is the operator, inputs.npz has its inputs,
and candidate.tflite is the file that onnx2tf made of it, if it made one. part.json says what went wrong, and how the
file stores its tensors.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent


def run_onnx(feeds: dict[str, Any]) -> dict[str, Any]:
    """Run reference.onnx. Returns every output by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(HERE / "reference.onnx"), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def run_tflite(feeds: dict[str, Any], orders: dict[str, list[int] | None]) -> dict[str, Any]:
    """Run candidate.tflite, whose tensors have the axes of the reference in `orders`. Returns every output by name."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(HERE / "candidate.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    given = {}
    for name, values in feeds.items():
        turned = values if orders.get(name) is None else values.transpose(orders[name])
        given[name] = np.ascontiguousarray(turned, details[name]["dtype"]).reshape(details[name]["shape"])
    results = runner(**given)
    for name, order in orders.items():
        if order is not None and name in results:
            results[name] = results[name].transpose(np.argsort(order))
    return dict(results)


def main() -> None:
    """Run both files, and print the operator, what went wrong with it, and the difference of each output."""
    part = json.loads((HERE / "part.json").read_text(encoding="utf-8"))
    sys.stdout.write(f"{part['node']}: {part['why']}\n")
    with np.load(HERE / "inputs.npz") as arrays:
        feeds = {name: arrays[key] for name, key in part["inputs"].items()}
    expected = run_onnx(feeds)
    for name, values in expected.items():
        sys.stdout.write(f"reference: {name} {values.shape}, first values {values.reshape(-1)[:4].tolist()}\n")
    if not (HERE / "candidate.tflite").is_file():
        sys.stdout.write("onnx2tf makes no file of it: onnx2tf -i reference.onnx\n")
        return
    try:
        got = run_tflite(feeds, part["orders"])
    except (RuntimeError, ValueError) as error:
        sys.stdout.write(f"candidate: LiteRT does not run it: {error}\n")
        return
    for name, values in expected.items():
        difference = np.abs(got[name].reshape(values.shape).astype(np.float64) - values.astype(np.float64)).max()
        sys.stdout.write(f"candidate: {name}, largest difference {difference:.6g}\n")


if __name__ == "__main__":
    main()
