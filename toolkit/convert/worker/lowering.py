"""The direct route: ONNX to a float32 TFLite file, without TensorFlow."""

import json
from pathlib import Path
from typing import Any

import onnx
import onnx2tf


def run_onnx2tf(model: Path, folder: Path, backend: str, **options: Any) -> None:
    """onnx2tf with what both of its backends are told; `options` are its own."""
    onnx2tf.convert(
        input_onnx_file_path=str(model),
        output_folder_path=str(folder),
        tflite_backend=backend,
        # The graph comes simplified, by a newer onnxsim than the one here; see graphs/prepare.
        not_use_onnxsim=True,
        verbosity="info",
        **options,
    )


def lower(model: Path, folder: Path) -> tuple[Path, Path]:
    """Lower an ONNX file with onnx2tf's flatbuffer_direct backend. Returns two files in `folder`.

    The float32 TFLite file: four-dimensional inputs are channels last in it, and others as they are in the graph. And
    a JSON file of names: {name in the ONNX graph: [[name that the file may have for it, whether that is inferred]]}.
    """
    graph = onnx.load(model, load_external_data=False).graph
    # By itself it takes the last axis of these for channels too.
    others = [i.name for i in graph.input if len(i.type.tensor_type.shape.dim) != 4]
    run_onnx2tf(model, folder, "flatbuffer_direct", keep_shape_absolutely_input_names=others, non_verbose=True)
    # It writes a float16 file too, that no CPU runtime loads.
    (folder / f"{model.stem}_float16.tflite").unlink(missing_ok=True)
    return folder / f"{model.stem}_float32.tflite", _names(
        graph, folder / f"{model.stem}_tensor_correspondence_report.json"
    )


def _names(graph: onnx.GraphProto, report: Path) -> Path:
    """Of onnx2tf's own report what we need; its account of every renaming is thirty times as long.

    Of a map that never leaves channels last, as between two convolutions, it knows no name, and infers one downstream:
    that map is called after its node.
    """
    records = json.loads(report.read_text(encoding="utf-8"))["records"]
    names: dict[str, list[tuple[str, bool]]] = {}
    makers = {node.output[0]: node.name for node in graph.node if node.output}
    for record in records:
        name, inferred = record["onnx_output_name"], record["status"] == "inferred"
        found = names.setdefault(name, [])
        if record["exists_in_final_model"] and not inferred:
            found.append((record["resolved_tflite_tensor_name"], False))
        else:
            found.append((f"{makers.get(name)}_output_nhwc", True))
            if record["exists_in_final_model"]:
                found.append((record["resolved_tflite_tensor_name"], True))
    report.unlink()
    path = report.with_suffix(".names.json")
    path.write_text(json.dumps(names), encoding="utf-8")
    return path
