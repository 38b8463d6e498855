"""The runtimes called as their own documentation does, without this toolkit: what our overhead is measured against."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.artifact import Artifact
from backends.registry import ARCHITECTURES
from backends.session import Session

Run = Callable[[NDArray[np.float32]], object]


def onnx(path: Path, artifact: Artifact, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx_call(session, artifact)


def onnx_call(session: Any, artifact: Artifact) -> Run:
    name = artifact.inputs[0].stored.name
    return lambda image: session.run(None, {name: image})[0]


def tflite(path: Path, artifact: Artifact, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    return tflite_call(interpreter, artifact)


def tflite_call(interpreter: Any, artifact: Artifact) -> Run:
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
    return torch_call(module, artifact)


def torch_call(module: Any, artifact: Artifact) -> Run:
    import torch as pytorch

    def run(image: NDArray[np.float32]) -> object:
        with pytorch.inference_mode():
            return module(pytorch.from_numpy(image)).numpy()

    return run


def openvino_call(compiled: Any) -> Run:
    return lambda image: compiled([image])[0]


DIRECT: dict[str, Callable[[Path, Artifact, int], Run]] = {"onnx": onnx, "tflite": tflite, "torch": torch}


def same_runtime(session: Session) -> Run:
    """The runtime object that our session has opened, called as its documentation does.

    Two sessions of one file differ by more than our overhead: where their memory lies is luck.
    """
    opened: Any = session
    if session.FORMAT == "onnx":
        if hasattr(opened, "_compiled"):  # OpenVINO's, which only toolkit/bench opens
            return openvino_call(opened._compiled)
        return onnx_call(opened._session, session.artifact)
    if session.FORMAT == "tflite":
        return tflite_call(opened._interpreter, session.artifact)
    return torch_call(opened._module, session.artifact)
