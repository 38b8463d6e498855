"""A network of a few layers, each of another kind, imported and converted once a test run."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from tests.shared import made_once
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules

# Tensors of the network, by the node that makes each. 8 channels of 8 x 8: no shape tells a layout.
_NODES = (
    helper.make_node(
        "Conv", ["image", "stem.conv.weight", "stem.conv.bias"], ["stem"], "stem", pads=[1] * 4, strides=[2, 2]
    ),
    helper.make_node("Tanh", ["stem"], ["bent"], "bent"),
    helper.make_node("Conv", ["bent", "body.mix.weight", "body.mix.bias"], ["mixed"], "mixed", pads=[1] * 4),
    helper.make_node("Tanh", ["mixed"], ["squeezed"], "squeezed"),
    helper.make_node("Add", ["squeezed", "bent"], ["joined"], "joined"),
    helper.make_node("Transpose", ["joined"], ["turned"], "turned", perm=[0, 2, 3, 1]),
    helper.make_node("Reshape", ["turned", "rows"], ["tokens"], "tokens"),
    helper.make_node("Gemm", ["tokens", "head.wide.weight", "head.wide.bias"], ["wide"], "wide", transB=1),
    helper.make_node("Tanh", ["wide"], ["active"], "active"),
    helper.make_node("Gemm", ["active", "head.out.weight", "head.out.bias"], ["logits"], "logits", transB=1),
)  # fmt: skip
_SHAPES = {"stem.conv": (8, 3, 3, 3), "body.mix": (8, 8, 3, 3), "head.wide": (64, 8), "head.out": (8, 64)}


# The modules that an exporter would name, by the node.
_MODULES = {"stem": "stem.conv", "mixed": "body.mix", "wide": "head.wide", "logits": "head.out"}


def _scoped(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node with its scope as torch's exporter writes it; a node of no module lies in the network itself."""
    path = _MODULES.get(node.name, "").split(".")
    scopes = ["", *(".".join(path[: depth + 1]) for depth in range(len(path)) if path[0]), node.name]
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(scopes))
    return node


def _source(path: Path) -> Path:
    random = np.random.default_rng(0)
    constants = [numpy_helper.from_array(np.array([64, 8], np.int64), "rows")]
    for name, shape in _SHAPES.items():
        weight = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"))
        constants.append(
            numpy_helper.from_array(random.standard_normal(shape[0]).astype(np.float32) / 8, f"{name}.bias")
        )
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [_scoped(node) for node in _NODES],
        "small",
        [helper.make_tensor_value_info("image", float32, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("logits", float32, [64, 8])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def converted(folder: Path, precisions: tuple[str, ...]) -> Bundle:
    """The network's bundle, made in an empty folder."""
    import_model(_source(folder / "small.onnx"), folder / "small", {})
    return convert_bundle(folder / "small", conversion_rules, precisions, strict=True).bundle


def _made(folder: Path) -> None:
    converted(folder, ("fp32", "fp16", "int8"))


def small(folder: Path) -> Bundle:
    """A copy of the bundle, free to be damaged."""
    shutil.copytree(made_once("small", _made) / "small", folder / "small")
    return Bundle.open(folder / "small")


def replaced(bundle: Bundle, artifact: Artifact) -> Bundle:
    """The bundle after a file of it was written anew."""
    path = bundle.folder / artifact.file
    changed = replace(artifact, sha256=sha256_of(path), bytes=path.stat().st_size)
    new = replace(bundle, artifacts=tuple(changed if a is artifact else a for a in bundle.artifacts))
    new.write()
    return new
