"""Quantizes activations and weights of an ONNX graph by ranges that were observed, with ONNX Runtime's own quantizer:
convolutions too, which other recipes leave in float, or every operator, from the inputs to the outputs.

ONNX Runtime joins the QuantizeLinear and DequantizeLinear nodes and the operator between them into integer kernels.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from backends.recipe import Recipe
from backends.tensor import Binding, TensorSpec
from graphs.onnx.file import save
from graphs.onnx.rewriting import remove_unused_nodes
from toolkit.convert.quantize.constants import promised_share, store_constants
from toolkit.convert.quantize.layers import QuantizableLayer, Ranges, drop_unused, layers, store_int8

_ACTIVATIONS = ("Relu", "Clip")
_OPERATORS = frozenset({*QDQRegistry, *QLinearOpsRegistry})
# TopK, ArgMax and CumSum decide or add up: rounded first, they give other results, not nearly the same ones.
_IN_FLOAT = frozenset({"TopK", "ArgMax", "CumSum", "EmbedLayerNormalization"})


def static_layers(graph: ir.Graph) -> list[QuantizableLayer]:
    """Return the dense layers and convolutions that a static file may quantize, in running order: small ones too."""
    return layers(graph, least_conv_weight=0)


def observed_tensors(graph: ir.Graph, recipe: Recipe) -> list[str]:
    """Return the names of the tensors whose ranges a static file needs: those around its layers, or all floats."""
    if recipe.is_integer:
        values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
        floats = [value for value in values if value.name and value.dtype == ir.DataType.FLOAT]
        return [str(value.name) for value in floats if value.shape is not None and value.shape.is_static()]
    around = [(layer.input, *(node.outputs[0] for node in _with_activation(layer))) for layer in static_layers(graph)]
    return list(dict.fromkeys(str(value.name) for values in around for value in values))


def quantize_static(
    model: ir.Model, recipe: Recipe, ranges: Ranges, folder: Path, in_float: Collection[str] = ()
) -> ir.Model:
    """Quantize a prepared float32 graph, which is changed, and return the quantized one.

    ranges: of the tensors of `observed_tensors`; an operator without them stays float. folder: for files that are
    removed at the end. in_float: names of layers that compute in float32; their weights are stored as int8.
    Memory: a few times all weights, which may be 2 GB at most.
    """
    graph = model.graph
    found = static_layers(graph)
    for node in graph:
        node.name = node.name or node.outputs[0].name
    others = list(graph.initializers)
    chosen = _every_operator(graph, ranges) if recipe.is_integer else _layers_alone(found, ranges)
    for layer in found:
        if layer.name in in_float:
            chosen -= {str(node.name) for node in _with_activation(layer)}
            if layer.weight.const_value is not None and layer.weight.const_value.size > 1:
                store_int8(graph, layer)
    drop_unused(graph)
    quantized = ir.from_proto(_with_pairs(model, recipe, ranges, chosen, folder))
    store_constants(quantized.graph, others, recipe)
    if promised_share(quantized.graph, recipe) < 0.1:
        store_constants(quantized.graph, others, recipe, least_values=2)
    drop_unused(quantized.graph)
    return quantized


def _with_pairs(
    model: ir.Model, recipe: Recipe, ranges: Ranges, chosen: Collection[str], folder: Path
) -> onnx.ModelProto:
    files = save(model, folder / "float.onnx")
    proto = onnx.load(files[0])
    for path in files:
        path.unlink()
    del proto.graph.value_info[:]
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    if not chosen:
        return proto
    work = QDQQuantizer(
        proto,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=data,
        nodes_to_quantize=sorted(chosen),
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in proto.graph.node}),
        extra_options={
            "ForceQuantizeNoInputCheck": True,
            "OpTypesToExcludeOutputQuantization": [] if recipe.is_integer else ["Gemm", "MatMul"],
        },
    )
    work.quantize_model()
    work.model.topological_sort()
    made: onnx.ModelProto = work.model.model
    return made


def _with_activation(layer: QuantizableLayer) -> list[ir.Node]:
    """Return the node of a layer, and that of the activation behind it which the integer kernel can apply."""
    users = list(layer.node.outputs[0].uses())
    fused = len(users) == 1 and users[0].node.op_type in _ACTIVATIONS and not layer.node.outputs[0].is_graph_output()
    return [layer.node, users[0].node] if fused else [layer.node]


def _layers_alone(found: Iterable[QuantizableLayer], ranges: Ranges) -> set[str]:
    chosen = set()
    for layer in found:
        nodes = _with_activation(layer)
        if all(str(value.name) in ranges for value in (layer.input, *(node.outputs[0] for node in nodes))):
            chosen |= {str(node.name) for node in nodes}
    return chosen


def _every_operator(graph: ir.Graph, ranges: Ranges) -> set[str]:
    """Return the names of the nodes that can be quantized: all of their computed tensors are floats with a range."""

    def is_known(value: ir.Value | None) -> bool:
        if value is None or value.const_value is not None:
            return True
        return str(value.name) in ranges if value.dtype == ir.DataType.FLOAT else value.dtype is not None

    return {
        str(node.name)
        for node in graph
        if node.op_type in _OPERATORS - _IN_FLOAT
        and node.domain in ("", "ai.onnx")
        and any(value.dtype == ir.DataType.FLOAT for value in node.outputs)
        and all(is_known(value) for value in (*node.inputs, *node.outputs))
    }


def integer_ends(
    model: ir.Model, inputs: Iterable[Binding], outputs: Iterable[Binding]
) -> tuple[tuple[Binding, ...], tuple[Binding, ...]]:
    """Remove the QuantizeLinear nodes behind the inputs and the DequantizeLinear nodes before the outputs of a graph,
    in place, so that it takes and gives integers. Return the new bindings.

    An input or output that is not quantized stays as it is.
    """
    graph = model.graph
    given = tuple(_integer_input(graph, binding) for binding in inputs)
    made = tuple(_integer_output(graph, binding) for binding in outputs)
    remove_unused_nodes(model)
    return given, made


def _integer_input(graph: ir.Graph, binding: Binding) -> Binding:
    value = next(value for value in graph.inputs if value.name == binding.spec.name)
    readers = [use.node for use in value.uses()]
    if not readers or value.is_graph_output() or {node.op_type for node in readers} != {"QuantizeLinear"}:
        return binding
    scales = {_parameters(node) for node in readers}
    parameters = scales.pop()
    if scales or parameters is None:
        return binding
    index = list(graph.inputs).index(value)
    stored = ir.Value(name=value.name, type=ir.TensorType(parameters.dtype), shape=value.shape)
    graph.inputs[index] = stored
    for node in readers:
        node.outputs[0].replace_all_uses_with(stored)
        graph.remove(node, safe=True)
    return _bound(binding, parameters)


def _integer_output(graph: ir.Graph, binding: Binding) -> Binding:
    index, value = next((i, value) for i, value in enumerate(graph.outputs) if value.name == binding.spec.name)
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None or list(value.uses()):
        return binding
    stored = node.inputs[0]
    if stored.is_graph_input() or stored.is_graph_output() or stored.const_value is not None:
        return binding
    parameters = _parameters(node)
    if parameters is None:
        return binding
    graph.outputs[index] = stored
    shape = value.shape
    graph.remove(node, safe=True)
    value.name, stored.name = None, value.name
    stored.type, stored.shape = ir.TensorType(parameters.dtype), shape
    return _bound(binding, parameters)


class _Parameters(NamedTuple):
    scale: float
    zero: int
    dtype: ir.DataType


def _parameters(node: ir.Node) -> _Parameters | None:
    """Return scale, zero point and dtype of a QuantizeLinear or DequantizeLinear; None for several scales or none."""
    scale, zero = (None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs[1:3])
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return None
    return _Parameters(float(scale.numpy().item()), int(zero.numpy().item()), zero.dtype)


def _bound(binding: Binding, parameters: _Parameters) -> Binding:
    spec, dtype = binding.spec, parameters.dtype.numpy().name
    stored = TensorSpec(spec.name, spec.shape, dtype, spec.layout)
    return Binding(spec, stored, parameters.scale, parameters.zero)
