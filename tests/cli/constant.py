"""A bundle of 32 bits whose detector answers every image alike: enough bits for a verdict at one in a million."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from backends.artifact import Artifact
from backends.bundle import Bundle, WeightsOrigin, sha256_of
from backends.tensor import Binding, TensorSpec


def constant_bundle(folder: Path) -> Path:
    """Write it into `folder`, for ONNX Runtime alone, without a detection channel or an embedder."""
    logits = np.linspace(-1, 1, 33, dtype=np.float32)[None]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 33])
    nodes = [
        helper.make_node("ReduceMin", ["image"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
        helper.make_node("Add", ["constant", "nothing"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(logits, "constant"), numpy_helper.from_array(np.float32(0), "zero")]
    graph = helper.make_graph(nodes, "constant", [image], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = folder / "detector.onnx"
    onnx.save(model, path)
    artifact = Artifact(
        file=path.name,
        role="detector",
        format="onnx",
        precision="fp32",
        route=None,
        inputs=(Binding.same(TensorSpec("image", (1, 3, 32, 32), "float32", "NCHW")),),
        outputs=(Binding.same(TensorSpec("logits", (1, 33), "float32", None)),),
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        external_files=(),
        parent=None,
        tools={},
        architecture=None,
    )
    described = {
        "name": "constant", "kind": "watermark", "bits": 32, "image_size_px": 32,
        "embedder": None, "detection_threshold": None,
    }  # fmt: skip
    weights = WeightsOrigin("random", "0" * 64, "seed 0")
    Bundle(folder, described, weights, (artifact,)).write()
    return folder
