"""The direct route: ONNX to a float32 TFLite file, without TensorFlow."""

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


def lower(model: Path, folder: Path) -> Path:
    """Lower an ONNX file with onnx2tf's flatbuffer_direct backend. Returns the float32 TFLite file in `folder`.

    Four-dimensional inputs are channels last in the file, and others as they are in the graph.
    """
    inputs = onnx.load(model, load_external_data=False).graph.input
    # By itself it takes the last axis of these for channels too.
    others = [i.name for i in inputs if len(i.type.tensor_type.shape.dim) != 4]
    run_onnx2tf(model, folder, "flatbuffer_direct", keep_shape_absolutely_input_names=others, non_verbose=True)
    # It writes a float16 file too, that no CPU runtime loads.
    (folder / f"{model.stem}_float16.tflite").unlink(missing_ok=True)
    return folder / f"{model.stem}_float32.tflite"
