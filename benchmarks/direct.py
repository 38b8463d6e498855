"""The runtimes called as their own documentation does, without this toolkit: what our overhead is measured against."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.artifact import Artifact
from backends.registry import ARCHITECTURES

Run = Callable[[NDArray[np.float32]], object]


def onnx(path: Path, artifact: Artifact, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = artifact.inputs[0].stored.name
    return lambda image: session.run(None, {name: image})[0]


def tflite(path: Path, artifact: Artifact, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    binding = artifact.inputs[0]

    def run(image: NDArray[np.float32]) -> object:
        # The caller of the bare runtime must bring the file's own layout and dtype: that is part of its cost.
        interpreter.set_tensor(given["index"], np.ascontiguousarray(binding.to_stored(image)))
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    return run


def torch(path: Path, artifact: Artifact, threads: int) -> Run:
    import torch as pytorch
    from safetensors.torch import load_file

    assert artifact.architecture is not None
    module = ARCHITECTURES.load(artifact.architecture["name"])(artifact.architecture["config"])
    module.load_state_dict(load_file(path))
    module.eval()
    pytorch.set_num_threads(threads)

    def run(image: NDArray[np.float32]) -> object:
        with pytorch.inference_mode():
            return module(pytorch.from_numpy(image)).numpy()

    return run


DIRECT: dict[str, Callable[[Path, Artifact, int], Run]] = {"onnx": onnx, "tflite": tflite, "torch": torch}
