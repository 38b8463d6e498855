"""Which tensor of a TFLite file holds which tensor of the ONNX graph that it was lowered from, in what order of axes.

The names come from the lowering itself, and the order from the shapes. Where these allow several, or where the lowering
inferred the name, the float32 file is run beside the graph: what differs is not written down.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from backends.tensor import TO_NCHW, TO_NHWC, Array, Binding
from graphs.onnx.part import run_part
from graphs.tflite.graph import Graph, Tensor, read_graph
from graphs.tflite.part import TflitePartSession, cut
from graphs.tflite.writer import write_graph

Order = tuple[int, ...] | None

# A tensor's name in the TFLite file, and the order in which the axes of the ONNX graph's lie in it.
TensorLocation = tuple[str, Order]

# An ONNX name, the tensor that holds it, and the orders that their shapes allow.
_Unsure = tuple[str, Tensor, list[Order]]

# What onnx2tf may have done to a tensor, by its rank: nothing, or channels first to channels last.
_ORDERS: Mapping[int, tuple[Order, ...]] = {3: (None, (0, 2, 1)), 4: (None, TO_NHWC), 5: (None, (0, 2, 3, 4, 1))}

# Between two float32 runs; another order of axes differs by more than a tenth.
_SAME = 1e-3

# Tensors of one run that are held beside each other.
_TOGETHER_BYTES = 128 << 20


def fitting_orders(shape: Sequence[int], stored: Sequence[int]) -> list[Order]:
    """Every order of the axes of `shape` that gives `stored`. A scalar is one value in TFLite."""
    if not shape and tuple(stored) == (1,):
        return [None]
    orders = _ORDERS.get(len(shape), (None,))
    found = [o for o in orders if tuple(stored) == tuple(shape if o is None else (shape[axis] for axis in o))]
    return found[:1] if math.prod(shape) == 1 else found


def order_of(binding: Binding) -> Order:
    """The order in which the axes of an input or output lie in its file."""
    if binding.spec.layout == binding.stored.layout:
        return None
    return TO_NHWC if binding.stored.layout == "NHWC" else TO_NCHW


def map_tensors(
    onnx: Path,
    tflite: Path,
    names: Mapping[str, Sequence[tuple[str, bool]]],
    shapes: Mapping[str, tuple[int, ...]],
    known: Mapping[str, Order],
    feeds: dict[str, Array],
) -> dict[str, TensorLocation]:
    """Where each tensor of an ONNX graph lies in the float32 file that it was lowered to.

    names: ONNX name -> (name that the file may have for it, whether it is only inferred), the likeliest first.
    shapes: of tensors of the graph, by name: its file may not tell them any more, because onnx2tf writes one with
    weights beside it anew. known: the orders of the graph's own inputs and outputs. feeds: inputs of the graph, by
    name; no two of its values should be alike.
    """
    graph = read_graph(tflite)
    tensors = {tensor.table.name.decode(): tensor for tensor in graph.tensors()}
    own = graph.inputs | graph.outputs
    places = {name: (own[name].table.name.decode(), order) for name, order in known.items()}
    unsure: list[_Unsure] = []
    for name, likely in names.items():
        if name in known or name not in shapes:
            continue
        for stored, inferred in likely:
            tensor = tensors.get(stored)
            if tensor is None or tensor.payload is not None:
                continue
            orders = fitting_orders(shapes[name], tensor.shape)
            if len(orders) == 1 and not inferred:
                places[name] = (stored, orders[0])
            elif orders:
                unsure.append((name, tensor, orders))
            break
    if unsure:
        model = ir.load(onnx)
        for group in _groups(unsure):
            places |= _measured(model, onnx.parent, graph, tflite, group, known, feeds)
    return places


def _groups(unsure: Sequence[_Unsure]) -> Iterator[list[_Unsure]]:
    group: list[_Unsure] = []
    size = 0
    for one in unsure:
        if group and size + _bytes(one[1]) > _TOGETHER_BYTES:
            yield group
            group, size = [], 0
        group.append(one)
        size += _bytes(one[1])
    if group:
        yield group


def _bytes(tensor: Tensor) -> int:
    return 2 * 4 * math.prod(tensor.shape)  # the file's and the graph's


def _measured(
    model: ir.Model,
    folder: Path,
    graph: Graph,
    tflite: Path,
    group: Sequence[_Unsure],
    known: Mapping[str, Order],
    feeds: dict[str, Array],
) -> dict[str, TensorLocation]:
    """The order in which each tensor is what the ONNX graph computes; nothing of one that is so in no order."""
    made = ir.convenience.create_value_mapping(model.graph)
    expected = run_part(model, [made[name] for name, _, _ in group], feeds, folder)
    part = cut(graph, dict.fromkeys(tensor for _, tensor, _ in group), list(graph.inputs.values()))
    stored_feeds = {}
    for name, tensor in graph.inputs.items():
        order, dtype = known[name], np.int32 if feeds[name].dtype == np.int64 else feeds[name].dtype
        values = feeds[name] if order is None else feeds[name].transpose(order)
        stored_feeds[tensor.table.name.decode()] = np.ascontiguousarray(values, dtype).reshape(tensor.shape)
    path = tflite.with_suffix(".part")
    write_graph(part, path)
    got = TflitePartSession(path).run(stored_feeds)
    path.unlink()
    places: dict[str, TensorLocation] = {}
    for name, tensor, orders in group:
        stored, wanted = tensor.table.name.decode(), expected[name].astype(np.float64)
        errors = [_difference(got[stored], wanted, order) for order in orders]
        best = min(range(len(orders)), key=errors.__getitem__)
        if errors[best] <= _SAME:
            places[name] = (stored, orders[best])
    return places


def _difference(got: Array, expected: Array, order: Order) -> float:
    """Of what a tensor is expected to be, the part by which it is not, both as norms."""
    turned = expected if order is None else expected.transpose(order)
    size = float(np.linalg.norm(expected))
    error = float(np.linalg.norm(got.astype(np.float64) - turned.reshape(got.shape)))
    return error / size if size else float(error > 0)
