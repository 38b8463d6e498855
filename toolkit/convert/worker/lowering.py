"""The direct route: ONNX to a float32 TFLite file, without TensorFlow."""

from pathlib import Path

import onnx2tf


def lower(model: Path, folder: Path) -> Path:
    """Lower an ONNX file with onnx2tf's flatbuffer_direct backend. Returns the float32 TFLite file in `folder`."""
    onnx2tf.convert(
        input_onnx_file_path=str(model),
        output_folder_path=str(folder),
        tflite_backend="flatbuffer_direct",
        # The graph comes simplified, by a newer onnxsim than the one here; see graphs/prepare.
        not_use_onnxsim=True,
        non_verbose=True,
        verbosity="info",
    )
    return folder / f"{model.stem}_float32.tflite"
