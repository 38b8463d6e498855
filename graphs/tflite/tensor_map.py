"""Finds the tensor of a TFLite file that holds each tensor of its ONNX graph, and in what order of axes.

The names come from the lowering, the orders from the shapes. Both may be wrong: the tensor that has the name of a Conv
may hold the values after its Relu. So the float32 file and the graph run on the same inputs, and a tensor whose values
differ is left out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from backends.tensor import TO_NCHW, TO_NHWC, Array, Binding
from graphs.onnx.part import run_part
from graphs.tflite.graph import Graph, Tensor, read_graph
from graphs.tflite.part import TflitePartSession, cut
from graphs.tflite.writer import write_graph

# The order in which the axes of an ONNX tensor lie in the TFLite file; None where it is the same.
Order = tuple[int, ...] | None
# The name of a tensor in the TFLite file, and the order of the ONNX tensor's axes in it.
TensorLocation = tuple[str, Order]
# The name of an ONNX tensor, a TFLite tensor that may hold it, and the orders that their shapes allow.
_Pair = tuple[str, Tensor, list[Order]]

# Number of axes -> the orders that onnx2tf may give them: the same, or channels last.
_ORDERS: Mapping[int, tuple[Order, ...]] = {3: (None, (0, 2, 1)), 4: (None, TO_NHWC), 5: (None, (0, 2, 3, 4, 1))}

# The largest relative difference between two float32 runs. A wrong order of axes differs by more than 0.1.
_SAME = 1e-3
# The most values of a tensor that are compared: a wrong pairing differs in many of them.
_COMPARED = 1 << 16
# The most bytes of tensors that one run holds in memory.
_TOGETHER_BYTES = 512 << 20


def fitting_orders(shape: Sequence[int], stored: Sequence[int]) -> list[Order]:
    """Return every order of the axes of `shape` that gives the shape `stored`. A scalar is stored with shape (1,)."""
    if not shape and tuple(stored) == (1,):
        return [None]
    orders = _ORDERS.get(len(shape), (None,))
    found = [o for o in orders if tuple(stored) == tuple(shape if o is None else (shape[axis] for axis in o))]
    return found[:1] if math.prod(shape) == 1 else found


def order_of(binding: Binding) -> Order:
    """Return the order in which the axes of an input or output lie in its file, or None where it is the same."""
    if binding.spec.layout == binding.stored.layout:
        return None
    return TO_NHWC if binding.stored.layout == "NHWC" else TO_NCHW


def map_tensors(
    onnx: Path,
    tflite: Path,
    names: Mapping[str, Sequence[str]],
    shapes: Mapping[str, tuple[int, ...]],
    known: Mapping[str, Order],
    feeds: dict[str, Array],
) -> dict[str, TensorLocation]:
    """Return where each tensor of an ONNX graph lies in the float32 TFLite file that the graph was lowered to.

    names: name in the ONNX graph -> possible names in the file, likeliest first. The first whose values agree counts.
    shapes: name in the ONNX graph -> shape. The ONNX file may not state the shapes, because onnx2tf rewrites a file
    whose weights lie beside it. known: the orders of axes of the graph's inputs and outputs. feeds: inputs of the
    graph, by name; no two values in them should be equal.
    Raises InvalidArtifact if a part of the graph or of the file cannot run alone.
    """
    graph = read_graph(tflite)
    made = {tensor.name: tensor for node in graph.nodes for tensor in node.outputs if tensor is not None}
    before = _before_transposes(graph)
    own = graph.inputs | graph.outputs
    places = {name: (own[name].name, order) for name, order in known.items()}
    pairs: list[_Pair] = []
    for name, likely in names.items():
        if name in known or name not in shapes:
            continue
        tensors = [made[stored] for stored in likely if stored in made]
        tensors = list(dict.fromkeys(one for tensor in tensors for one in (before.get(tensor), tensor) if one))
        found = [(tensor, fitting_orders(shapes[name], tensor.shape)) for tensor in tensors]
        pairs += [(name, tensor, orders) for tensor, orders in found if orders]
    if pairs:
        model = ir.load(onnx)
        for group in _groups(pairs):
            for name, place in _measured(model, onnx.parent, graph, tflite, group, known, feeds):
                places.setdefault(name, place)
    return places


def _before_transposes(graph: Graph) -> dict[Tensor, Tensor]:
    """Return, for the result of each TRANSPOSE, the computed tensor that it reads: that stays where the TRANSPOSE is
    removed."""
    computed = {tensor for node in graph.nodes for tensor in node.outputs}
    return {
        after: source
        for node in graph.nodes
        if node.code[0] == schema.BuiltinOperator.TRANSPOSE
        and (after := node.outputs[0]) is not None
        and (source := node.inputs[0]) is not None
        and source in computed
    }


def _groups(pairs: Sequence[_Pair]) -> Iterator[list[_Pair]]:
    group: list[_Pair] = []
    size = 0
    for pair in pairs:
        if group and size + _bytes(pair[1]) > _TOGETHER_BYTES:
            yield group
            group, size = [], 0
        group.append(pair)
        size += _bytes(pair[1])
    if group:
        yield group


def _bytes(tensor: Tensor) -> int:
    return 2 * 4 * math.prod(tensor.shape)  # float32, from the file and from the graph


def _measured(
    model: ir.Model,
    folder: Path,
    graph: Graph,
    tflite: Path,
    group: Sequence[_Pair],
    known: Mapping[str, Order],
    feeds: dict[str, Array],
) -> Iterator[tuple[str, TensorLocation]]:
    """Yield the names and locations of the tensors whose values agree with the ONNX graph, in the order that fits
    best."""
    made = ir.convenience.create_value_mapping(model.graph)
    expected = run_part(model, list(dict.fromkeys(made[name] for name, _, _ in group)), feeds, folder)
    part = cut(graph, dict.fromkeys(tensor for _, tensor, _ in group), list(graph.inputs.values()))
    stored_feeds = {}
    for name, tensor in graph.inputs.items():
        order = known[name]
        values = feeds[name] if order is None else feeds[name].transpose(order)
        stored_feeds[tensor.name] = np.ascontiguousarray(values, tensor.dtype).reshape(tensor.shape)
    path = tflite.with_suffix(".part")
    write_graph(part, path)
    got = TflitePartSession(path).run(stored_feeds)
    path.unlink()
    for name, tensor, orders in group:
        stored, wanted = tensor.name, expected[name]
        errors = [_difference(got[stored], wanted, order) for order in orders]
        best = min(range(len(orders)), key=errors.__getitem__)
        if errors[best] <= _SAME:
            yield name, (stored, orders[best])


def _difference(got: Array, expected: Array, order: Order) -> float:
    """Return the norm of got - expected over the norm of expected, with the axes of expected put in `order`.

    Of large tensors, values at _COMPARED random places are compared. Equal values differ by 0, infinities too. The
    result is NaN where one side alone is not finite.
    """
    turned = expected if order is None else expected.transpose(order)
    if got.size > _COMPARED:
        places = np.unravel_index(np.random.default_rng(0).integers(got.size, size=_COMPARED), turned.shape)
        got, turned = got.reshape(turned.shape)[places], turned[places]
    ours, wanted = got.astype(np.float64).ravel(), turned.astype(np.float64).ravel()
    same = ours == wanted
    size = _norm(wanted[np.isfinite(wanted)])
    error = _norm(np.where(same, 0.0, ours) - np.where(same, 0.0, wanted))
    return error / size if size else float(error > 0)


def _norm(values: Array) -> float:
    """Return the Euclidean norm. numpy's own wakes the threads of BLAS, for much longer than the sum takes."""
    return float(np.sqrt(np.square(values).sum()))
