"""Sizes of the tensors of foreign graphs: inputs get the sizes that are given, and all others follow from them."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from backends.artifact import SIZES
from backends.errors import InvalidInput
from backends.tensor import DTYPES, TensorSpec
from graphs.onnx.readers import constant, static_shape
from graphs.onnx.weights import attach_weights, detach_weights


@dataclass(frozen=True)
class OpenAxis:
    """An axis of an input that stays open in ONNX files.

    Axes of one name have one size. size: at which files are compared, and that all other files have; None for the size
    of another axis of the name, or else a usual one.
    """

    name: str
    size: int | None = None

    def __str__(self) -> str:
        return self.name if self.size is None else f"{self.name}:{self.size}"


Shapes = Mapping[str, tuple[int | OpenAxis, ...]]
FixedShapes = Mapping[str, tuple[int, ...]]

# Operators whose number of results depends on the values that they are given.
_SEARCHES = frozenset({"NonMaxSuppression", "NonZero", "Unique", "Compress"})
# The name of an axis along which a NonMaxSuppression gives its results: the largest number of them, then a number that
# tells such axes apart.
_AT_MOST = re.compile(r"at_most_(\d+)(_\d+)?")
# Sizes for an example: of the first axis, of other axes of an image, and of all others.
_BATCH, _PIXELS, _LENGTH = 1, 224, 128


def sizes_of_axes(shapes: Shapes) -> dict[str, int]:
    """Return the size of each open axis by its name. Raises InvalidInput if one is given two sizes."""
    usual: dict[str, int] = {}
    given: dict[str, int] = {}
    for sizes in shapes.values():
        for at, axis in enumerate(sizes):
            if not isinstance(axis, OpenAxis):
                continue
            usual.setdefault(axis.name, _usual(at, len(sizes)))
            if axis.size is not None and given.setdefault(axis.name, axis.size) != axis.size:
                raise InvalidInput(f"--input-shape: axis {axis.name} has the sizes {given[axis.name]} and {axis.size}")
    return usual | given


def fixed_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs with the sizes of `sizes_of_axes` in the places of open axes."""
    known = sizes_of_axes(shapes)
    return {
        name: tuple(known[size.name] if isinstance(size, OpenAxis) else size for size in sizes)
        for name, sizes in shapes.items()
    }


def close_axes(model: ir.Model) -> ir.Model:
    """Return a graph with the sizes that its file states for open axes, and every size that follows from them.

    A graph without open axes is returned as it is. Sizes are computed where shape inference does not tell them.
    """
    sizes = json.loads(model.metadata_props.get(SIZES, "{}"))
    if not sizes:
        return model
    taken = detach_weights(model)
    proto = ir.to_proto(ir.external_data.load_to_model(model))
    attach_weights(model, taken)
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    remove_shapes(proto.graph)
    closed = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    attach_weights(closed, taken)
    if any(v.shape is None or not v.shape.is_static() for node in closed.graph for v in node.outputs if v.name):
        from onnxscript.optimizer import fold_constants  # takes a second to import, and few graphs need it

        fold_constants(closed)
        closed = infer_shapes(closed)
    return closed


def fix_inputs(path: Path, graph: onnx.GraphProto, shapes: Shapes, weights: frozenset[str]) -> None:
    """Give the inputs of a graph the sizes and the names of open axes in `shapes`.

    Raises InvalidInput naming the input whose sizes do not fit.
    """
    inputs = [value for value in graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    if unknown := sorted(set(shapes) - set(names)):
        raise InvalidInput(f"{path}: --input-shape: no input {unknown[0]!r}; there is {', '.join(names) or 'none'}")
    open_inputs: list[tuple[str, list[int | str] | None]] = []
    for value in inputs:
        if value.type.WhichOneof("value") != "tensor_type":
            raise InvalidInput(f"{path}: input {value.name!r}: expected a tensor, got {value.type.WhichOneof('value')}")
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        # Exporters of Paddle write -1 for an open size.
        stated = [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims]
        given = shapes.get(value.name)
        if given is None:
            if not tensor.HasField("shape") or any(not isinstance(size, int) for size in stated):
                open_inputs.append((value.name, stated if tensor.HasField("shape") else None))
            continue
        fits = not tensor.HasField("shape") or (
            len(given) == len(stated)
            and all(not isinstance(size, int) or size == want for size, want in zip(stated, given, strict=True))
        )
        if any((size.size or 1) < 1 if isinstance(size, OpenAxis) else size < 1 for size in given):
            raise InvalidInput(
                f"{path}: --input-shape {value.name}={','.join(map(str, given))}: expected sizes of at least 1"
            )
        if not fits:
            raise InvalidInput(
                f"{path}: --input-shape {value.name}={','.join(map(str, given))}: the file states "
                f"{','.join(map(str, stated))}"
                + (
                    "; only an axis that the file leaves open can have a name"
                    if _has_open(given) and len(given) == len(stated)
                    else ""
                )
            )
        tensor.shape.ClearField("dim")
        for size in given:
            dim = tensor.shape.dim.add()
            if isinstance(size, OpenAxis):
                dim.dim_param = size.name
            else:
                dim.dim_value = size
    if open_inputs:
        name, sizes = open_inputs[0]
        shown = "nothing" if sizes is None else ",".join(map(str, sizes))
        options = " ".join(f"--input-shape {name}={_example(sizes)}" for name, sizes in open_inputs)
        raise InvalidInput(
            f"{path}: input {name!r}: expected static sizes, the file states {shown}; give {options}, with the sizes "
            "that you run it at"
        )


def _has_open(sizes: Iterable[int | OpenAxis]) -> bool:
    return any(isinstance(size, OpenAxis) for size in sizes)


def _example(sizes: list[int | str] | None) -> str:
    """Return sizes that an input may have, where the file leaves some open."""
    if sizes is None:
        return "1,3,224,224"
    return ",".join(str(size if isinstance(size, int) else _usual(axis, len(sizes))) for axis, size in enumerate(sizes))


def _usual(axis: int, rank: int) -> int:
    """Return the usual size of an axis, which is a batch, the pixels of an image, or a length."""
    return _BATCH if axis == 0 else _PIXELS if rank == 4 else _LENGTH


def remove_shapes(graph: onnx.GraphProto) -> dict[str, onnx.TensorShapeProto]:
    """Remove the shapes of all tensors but the inputs: they may have been stated for other sizes of the inputs.

    Returns the shapes of the outputs by name, for the outputs whose shape cannot be inferred.
    """
    del graph.value_info[:]
    stated = {}
    for value in graph.output:
        tensor = value.type.tensor_type
        if value.type.WhichOneof("value") == "tensor_type" and tensor.HasField("shape"):
            stated[value.name] = onnx.TensorShapeProto()
            stated[value.name].CopyFrom(tensor.shape)
            tensor.ClearField("shape")
    return stated


def infer_outputs(proto: onnx.ModelProto, stated: Mapping[str, onnx.TensorShapeProto]) -> None:
    """Give each output its inferred shape, or the stated one where no shape or an open size is inferred."""
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output
    for value, found in zip(proto.graph.output, inferred, strict=True):
        if found.type.WhichOneof("value") != "tensor_type":
            continue
        value.type.CopyFrom(found.type)
        dims, known = value.type.tensor_type.shape.dim, stated.get(value.name)
        if known is not None and (not value.type.tensor_type.HasField("shape") or len(dims) == len(known.dim)):
            for axis, size in enumerate(known.dim):
                if axis == len(dims):
                    dims.add()
                if dims[axis].dim_value < 1:
                    dims[axis].CopyFrom(size)


def infer_shapes(model: ir.Model) -> ir.Model:
    """Return a copy of the graph that states every size that follows from the sizes of its inputs."""
    taken = detach_weights(model)
    try:
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    finally:
        attach_weights(model, taken)
    inferred = ir.from_proto(proto)
    attach_weights(inferred, taken)
    return inferred


def specs_of(path: Path, values: list[ir.Value], side: str, known: FixedShapes | None = None) -> tuple[TensorSpec, ...]:
    """Return the TensorSpecs of one side of a graph; `side` is "input" or "output".

    known: shapes of tensors with open axes, by name.
    A tensor of four axes has the layout "NCHW", whatever its axes mean: see TensorSpec. Raises InvalidInput if there is
    no tensor, or naming the first tensor with an unknown size, a size of 0, or a dtype that is not in DTYPES.
    """
    if not values:
        raise InvalidInput(f"{path}: expected at least one {side}, it has none")
    specs = []
    for value in values:
        name = str(value.name)
        _check_type(path, side, name, value.type, value.dtype)
        shape = (known or {}).get(name)
        if shape is None and (value.shape is None or not value.shape.is_static()):
            sizes = "unknown" if value.shape is None else [str(size) for size in value.shape]
            what = f"{path}: {side} {name!r}: its sizes depend on values, not on shapes alone: {sizes}"
            if depends_on_values(value):
                raise InvalidInput(f"{what}; {how_to_fix_sizes(value)}")
            raise InvalidInput(f"{what}; where those are an input's, give --input-value NAME=...")
        if shape is None:
            shape = tuple(int(size) for size in value.shape or () if isinstance(size, int))
        if 0 in shape:
            raise InvalidInput(f"{path}: {side} {name!r}: expected sizes of at least 1, got {list(shape)}")
        assert value.dtype is not None
        specs.append(TensorSpec(name, shape, value.dtype.numpy().name, "NCHW" if len(shape) == 4 else None))
    return tuple(specs)


def how_to_fix_sizes(value: ir.Value) -> str:
    """Return a sentence about the operator on whose results the sizes of a value depend: see `depends_on_values`."""
    node = _searching(value)
    assert node is not None  # the caller has asked depends_on_values
    computed = ",".join(str(one.name) for one in node.inputs if one is not None and _is_computed(one))
    way = (
        f"import it with --cut-at {computed}, which makes its inputs the outputs, and search in your program"
        if computed
        else "it reads inputs of the graph, so that nothing is left to run: search in your program"
    )
    if node.op_type == "NonMaxSuppression":
        way += ", or export it with a constant max_output_boxes_per_class, up to which a file can be filled"
    return f"{node.name or node.outputs[0].name!r} ({node.op_type}) gives as many as it finds: {way}"


def depends_on_values(value: ir.Value) -> bool:
    """Return whether a value has an unknown size that follows from the number of results that an operator finds."""
    return (value.shape is None or not value.shape.is_static()) and _searching(value) is not None


def name_found_axes(model: ir.Model) -> ir.Model:
    """Name the axes of outputs along which a NonMaxSuppression's results lie after the largest number of results.

    Returns a copy, or the graph itself if it has no NonMaxSuppression of a known largest number.
    """
    found = [(node, most) for node in model.graph if (most := _most_found(node)) is not None]
    if not found:
        return model
    named = model.clone()
    values = {str(value.name): value for node in named.graph for value in node.outputs if value.name}
    stated = {name: value.shape for name, value in values.items() if value.shape is None or not value.shape.is_static()}
    for name in stated:
        values[name].shape = None
    for i, (node, most) in enumerate(found):
        values[str(node.outputs[0].name)].shape = ir.Shape([f"at_most_{most}" + (f"_{i}" if i else ""), 3])
    named = infer_shapes(named)
    for value in named.graph.outputs:
        if value.shape is None:
            value.shape = stated[str(value.name)]
    return named


def most_along(size: int | ir.SymbolicDim) -> int | None:
    """Return the largest size of an axis of an output: of a fixed size, or one that `name_found_axes` named."""
    if isinstance(size, int):
        return size
    match = _AT_MOST.fullmatch(str(size.value))
    return int(match[1]) if match else None


def _most_found(node: ir.Node) -> int | None:
    """Return how many results a NonMaxSuppression gives at most, or None for any other operator and unknown sizes."""
    if node.op_type != "NonMaxSuppression" or node.domain or len(node.inputs) < 3:
        return None
    boxes, scores = static_shape(node.inputs[0]), static_shape(node.inputs[1])
    most = constant(node.inputs[2])
    if boxes is None or scores is None or most is None or int(most.item()) < 1:
        return None
    return math.prod(scores[:2]) * min(int(most.item()), boxes[1])


def _is_computed(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type != "Constant"


def _searching(value: ir.Value) -> ir.Node | None:
    """Return the nearest node that a value is computed from and whose number of results depends on values, or None."""
    waiting, seen = [value], {value}
    while waiting:
        node = waiting.pop(0).producer()
        if node is None:
            continue
        if node.op_type in _SEARCHES:
            return node
        more = [one for one in node.inputs if one is not None and one not in seen]
        seen.update(more)
        waiting += more
    return None


def _check_type(path: Path, side: str, name: str, kind: object, dtype: ir.DataType | None) -> None:
    if not isinstance(kind, ir.TensorType) or dtype is None:
        raise InvalidInput(f"{path}: {side} {name!r}: expected a tensor, got {kind}")
    if dtype == ir.DataType.STRING or dtype.numpy().name not in DTYPES:
        raise InvalidInput(
            f"{path}: {side} {name!r}: expected a dtype of {', '.join(DTYPES)}, got {dtype.name.lower()}"
        )
