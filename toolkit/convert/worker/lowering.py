"""Calls onnx2tf: options that both routes share, and the direct route from ONNX to a float32 TFLite file."""

import json
from pathlib import Path
from typing import Any

import onnx
import onnx2tf
from onnx2tf.tflite_builder.op_registry import get_supported_onnx_ops


def lowered_operators() -> list[str]:
    """Return the sorted names of the operators, of ONNX's default domain, that onnx2tf's dispatcher lists."""
    return sorted(get_supported_onnx_ops())


def run_onnx2tf(model: Path, folder: Path, backend: str, **options: Any) -> None:
    """Run onnx2tf with the options that both of its backends share, and with further `options` of onnx2tf.convert."""
    onnx2tf.convert(
        input_onnx_file_path=str(model),
        output_folder_path=str(folder),
        tflite_backend=backend,
        # The graph was simplified before, by a newer onnxsim than the one in this environment; see graphs/passes.
        not_use_onnxsim=True,
        verbosity="info",
        **options,
    )


def lower(model: Path, folder: Path) -> tuple[Path, Path]:
    """Lower an ONNX file with onnx2tf's flatbuffer_direct backend. Returns two files in `folder`.

    The first is the float32 TFLite file: its four-dimensional inputs are channels last, other inputs as in the graph.
    The second is a JSON file of names: {name in the ONNX graph: [names that the file may have for the tensor]}.
    """
    graph = onnx.load(model, load_external_data=False).graph
    # Without this option onnx2tf makes these inputs channels last too.
    others = [i.name for i in graph.input if len(i.type.tensor_type.shape.dim) != 4]
    run_onnx2tf(model, folder, "flatbuffer_direct", keep_shape_absolutely_input_names=others, non_verbose=True)
    # onnx2tf also writes a float16 file, which no CPU runtime loads.
    (folder / f"{model.stem}_float16.tflite").unlink(missing_ok=True)
    return folder / f"{model.stem}_float32.tflite", _names(
        graph, folder / f"{model.stem}_tensor_correspondence_report.json"
    )


def _names(graph: onnx.GraphProto, report: Path) -> Path:
    """Write the names that `lower` describes, from onnx2tf's report, and remove the report, which is thirty times as
    long. Returns the path.

    For a tensor that stays channels last, as between two convolutions, the report has no name or only the inferred name
    of a later tensor. The file names such a tensor after its node, so that name is listed first.
    """
    records = json.loads(report.read_text(encoding="utf-8"))["records"]
    names: dict[str, list[str]] = {}
    makers = {node.output[0]: node.name for node in graph.node if node.output}
    for record in records:
        name, inferred = record["onnx_output_name"], record["status"] == "inferred"
        found = names.setdefault(name, [])
        if record["exists_in_final_model"] and not inferred:
            found.append(record["resolved_tflite_tensor_name"])
        else:
            found.append(f"{makers.get(name)}_output_nhwc")
            if record["exists_in_final_model"]:
                found.append(record["resolved_tflite_tensor_name"])
    report.unlink()
    path = report.with_suffix(".names.json")
    path.write_text(json.dumps(names), encoding="utf-8")
    return path
