"""The passes that fold constants, large weights here and all else in onnxsim, and remove what does nothing."""

from dataclasses import replace
from functools import partial
from math import inf, prod

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from backends.errors import InvalidArtifact
from backends.sandbox import SandboxDied, SandboxProcess
from backends.tensor import Array
from graphs.onnx.apart import run_onnxsim
from graphs.onnx.file import OPSET
from graphs.onnx.readers import static_shape
from graphs.onnx.rewriting import add_tensor, forget_shapes, new_node, replace_node, state_shapes
from graphs.onnx.weights import LARGE_BYTES, attach_weights, detach_weights
from graphs.passes.registry import GraphPass, graph_pass, passes

# Operators that a runtime must see: their weights are stored as integers.
_QUANTIZED = ("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear")


# It runs first, so that the other passes see weights: torch's exporter reorders the gates of an LSTM in the graph.
@graph_pass("export")
def compute_weights(model: ir.Model) -> tuple[ir.Model, bool]:
    """Put weights in the place of nodes that compute them from large weights alone, such as a Slice or a Transpose.

    onnxsim folds smaller ones. A node stays if its outputs are larger than its inputs, or of unknown sizes.
    """
    computed: set[ir.Value] = set()
    for node in list(model.graph):
        if node.domain or not node.inputs or node.op_type in _QUANTIZED or _has_graph(node):
            continue
        given = [value for value in node.inputs if value is not None]
        tensors = [value.const_value for value in given if value.is_initializer()]
        if len(tensors) < len(given) or any(tensor is None for tensor in tensors):
            continue
        sizes = [tensor.nbytes for tensor in tensors if tensor is not None]
        if max(sizes) < LARGE_BYTES and computed.isdisjoint(given):
            continue
        if sum(map(_nbytes, node.outputs)) <= sum(sizes):
            computed.update(_fold(model.graph, node))
    return model, bool(computed)


def _has_graph(node: ir.Node) -> bool:
    return any(value.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for value in node.attributes.values())


def _nbytes(value: ir.Value) -> float:
    """Return the bytes of a value, infinity if its sizes or its type are not known."""
    shape = static_shape(value)
    return inf if shape is None or value.dtype is None else prod(shape) * value.dtype.itemsize


def _fold(graph: ir.Graph, node: ir.Node) -> list[ir.Value]:
    """Put constants, which are computed when they are used, in the place of a node. Returns their values."""
    proto = ir.to_proto(node)
    feeds = {str(v.name): v.const_value for v in node.inputs if v is not None and v.const_value is not None}
    made = []
    for number, output in enumerate(node.outputs):
        assert output.dtype is not None and output.shape is not None  # the caller has looked
        make = partial(_evaluated, proto, feeds, number)
        tensor = ir.LazyTensor(make, dtype=output.dtype, shape=output.shape)
        name, output.name = str(output.name), None
        value = add_tensor(graph, name, tensor)
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        made.append(value)
    graph.remove(node, safe=True)
    return made


def _evaluated(node: onnx.NodeProto, feeds: dict[str, ir.TensorProtocol], number: int) -> ir.TensorProtocol:
    """Compute one output of a node on constants by name."""
    inputs = [
        onnx.helper.make_tensor_value_info(name, tensor.dtype.value, list(tensor.shape.numpy()))
        for name, tensor in feeds.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = onnx.helper.make_graph([node], "weights", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    results = ReferenceEvaluator(model).run(None, {name: tensor.numpy() for name, tensor in feeds.items()})
    array: Array = list(results)[number]
    return ir.tensor(np.ascontiguousarray(array))


# The modules that a child process imports before `steps_with` runs onnxsim in it.
PRELOADED = ("graphs.onnx.apart:load_onnxsim",)


def steps_with(child: SandboxProcess) -> list[GraphPass]:
    """Return the passes of the stage "export", of which onnxsim runs in a child process, for a graph of any origin."""
    return [
        replace(step, run=partial(step.run, child=child)) if step is simplify else step for step in passes("export")
    ]


# It runs late: onnxsim changes the Erf of a GELU, and turns a MatMul into a Gemm whose weight is not transposed.
@graph_pass("export", after="fold_affine")
def simplify(model: ir.Model, child: SandboxProcess | None = None) -> tuple[ir.Model, bool]:
    """Simplify a graph. Returns it and whether anything changed. Raises InvalidArtifact if onnxsim fails.

    Weights of LARGE_BYTES and more are inputs meanwhile, so that time and memory do not grow with them; onnxsim never
    sees them. The check inside onnxsim is off: every caller compares the graph before and after, to a stated tolerance.
    child: the process in which onnxsim runs, for a graph that may crash it; None for this process.
    """
    forget_shapes(model)  # onnxsim infers shapes itself
    taken = detach_weights(model)
    try:
        # onnxsim gets no path, so values that lie in another file must be in the model.
        before = ir.to_proto(ir.external_data.load_to_model(model))
        try:
            after = run_onnxsim(before) if child is None else child.call(run_onnxsim, before)
        except (RuntimeError, ValueError, SandboxDied) as error:
            raise InvalidArtifact(f"onnxsim cannot simplify {model.graph.name!r}: {error}") from error
    finally:
        attach_weights(model, taken)
    if after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True):
        return model, False
    simplified = ir.from_proto(after)
    attach_weights(simplified, taken)
    state_shapes(simplified)
    return compute_weights(simplified)[0], True  # of a branch that onnxsim put in the place of its If


# TFLite has no tensor of size zero. onnxsim leaves out one that is a constant, and this pass one that is computed.
@graph_pass("export", tolerance=0.0, after="simplify")
def drop_empty_parts(model: ir.Model) -> tuple[ir.Model, bool]:
    """Leave out the inputs of each Concat that have a size of zero along its axis, unless all have."""
    changed = False
    for node in [node for node in model.graph if node.op_type == "Concat" and not node.domain]:
        axis, shapes = node.attributes.get_int("axis"), [static_shape(value) for value in node.inputs]
        kept = [value for value, shape in zip(node.inputs, shapes, strict=True) if shape is None or shape[axis]]
        if 0 < len(kept) < len(node.inputs):
            name = f"{node.outputs[0].name}.parts"
            op_type, attributes = ("Concat", {"axis": axis}) if len(kept) > 1 else ("Identity", {})
            replace_node(model.graph, node, [new_node(op_type, kept, attributes, output=name, name=node.name)])
            changed = True
    return model, changed
