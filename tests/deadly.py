"""Bundles that someone else made: their hashes are right, and LiteRT 2.3.0 calls abort() on one of their files."""

import copy
import os
from dataclasses import replace

import onnx
from ai_edge_litert import schema_py_generated as schema

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from graphs.tflite.graph import Node, Payload, Tensor, read_graph
from graphs.tflite.writer import write_graph

INT8, BOOL, FLOAT32 = schema.TensorType.INT8, schema.TensorType.BOOL, schema.TensorType.FLOAT32


def tensor(name: str, shape: tuple[int, ...], kind: int, payload: Payload | None = None) -> Tensor:
    """A tensor without a scale."""
    table = schema.TensorT()
    table.name, table.shape, table.type = name.encode(), list(shape), kind
    return Tensor(table, payload)


def operator(name: str, inputs: list[Tensor], output: Tensor) -> Node:
    """One of the first version, with the options that a new one has: "Greater"."""
    table = schema.OperatorT()
    table.builtinOptionsType = getattr(schema.BuiltinOptions, f"{name}Options")
    table.builtinOptions = getattr(schema, f"{name}OptionsT")()
    return Node(table, (getattr(schema.BuiltinOperator, name.upper()), None, 1), [*inputs], [output], [])


def greater_of_int8(one: Tensor, other: Tensor) -> Node:
    """LiteRT 2.3.0 aborts on it: it computes a multiplier from scales that are not there."""
    return operator("Greater", [one, other], tensor("above", one.shape, BOOL))


def with_deadly_file(bundle: Bundle, precision: str) -> tuple[Bundle, Artifact]:
    """The bundle, written, whose TFLite file of a precision adds 0 > 0 of two int8 to its logits."""
    artifact = bundle.find("detector", "tflite", precision)
    path = bundle.folder / artifact.file
    graph = read_graph(path)
    (logits,) = graph.outputs.values()
    inner = Tensor(copy.copy(logits.table), None)
    inner.table.name = b"inner"
    for node in graph.nodes:
        node.outputs = [inner if one is logits else one for one in node.outputs]
    node = greater_of_int8(*(tensor(name, (1,), INT8, Payload(None, 0, 1, bytes(1))) for name in ("a", "b")))
    zero = tensor("zero", (1,), FLOAT32)
    graph.nodes += [node, operator("Cast", [*filter(None, node.outputs)], zero), operator("Add", [inner, zero], logits)]
    deadly = path.with_suffix(".deadly")
    write_graph(graph, deadly)
    deadly.replace(path)
    changed = replace(artifact, sha256=sha256_of(path), bytes=path.stat().st_size)
    bundle = bundle.with_artifact(changed)
    bundle.write()
    return bundle, changed


def dying_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """In the place of run_onnxsim: the process ends. These three run where torch cannot be imported."""
    os.abort()


def wrong_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """In the place of run_onnxsim: the graph computes something else."""
    model.graph.node[0].op_type = "Abs"
    return model


def refusing_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """In the place of run_onnxsim: it raises an error."""
    raise RuntimeError("must be topologically sorted")
