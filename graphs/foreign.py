"""Any ONNX file, with its shapes fixed, its functions inlined and its opset made ours."""

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx.inliner
import onnx_ir as ir
from onnx import version_converter

from backends.errors import InvalidArtifact, InvalidInput, one_line
from backends.tensor import DTYPES, TensorSpec
from graphs.large_weights import put_back, set_aside
from graphs.onnx_file import IR_VERSION, OPSET, check

Shapes = Mapping[str, tuple[int, ...]]


def read_foreign(path: Path, shapes: Shapes) -> ir.Model:
    """Read an ONNX file of anybody's, external data and local functions included, and bring it to our opset.

    shapes fixes inputs by name; every input without one must state static sizes. Large weights stay in their files.
    Raises InvalidArtifact for a file that is no valid ONNX model, or that cannot be brought to our opset; InvalidInput
    naming the input whose sizes are missing, wrong, or not a tensor of a dtype that we carry.
    """
    if not path.is_file():
        raise InvalidInput(f"{path}: no such ONNX file")
    check(path)
    model = ir.load(path)
    taken = set_aside(model)
    proto = onnx.inliner.inline_local_functions(ir.to_proto(model))
    _drop_initializers_from_inputs(proto.graph)
    _fix_inputs(path, proto.graph, shapes, frozenset(taken))
    proto.ir_version = IR_VERSION  # before version 4 weights had to be inputs as well
    proto = _to_opset(path, proto)
    del proto.graph.value_info[:]  # sizes that were inferred for other inputs
    ours = ir.from_proto(proto)
    put_back(ours, taken)
    return ours


def infer_shapes(model: ir.Model) -> ir.Model:
    """The same graph with every size stated that follows from its inputs' sizes."""
    taken = set_aside(model)
    try:
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    finally:
        put_back(model, taken)
    inferred = ir.from_proto(proto)
    put_back(inferred, taken)
    return inferred


def specs_of(path: Path, values: list[ir.Value], side: str) -> tuple[TensorSpec, ...]:
    """The tensors of one side of a graph. Four axes are called NCHW here, whatever they mean: see TensorSpec.

    Raises InvalidInput naming the first that has a size that is not known, or is no tensor of a dtype that we carry.
    """
    if not values:
        raise InvalidInput(f"{path}: expected at least one {side}, it has none")
    specs = []
    for value in values:
        name = str(value.name)
        _check_type(path, side, name, value.type, value.dtype)
        if value.shape is None or not value.shape.is_static():
            sizes = "unknown" if value.shape is None else [str(size) for size in value.shape]
            raise InvalidInput(f"{path}: {side} {name!r}: its sizes depend on values, not on shapes alone: {sizes}")
        shape = tuple(int(size) for size in value.shape if isinstance(size, int))
        if 0 in shape:
            raise InvalidInput(f"{path}: {side} {name!r}: expected sizes of at least 1, got {list(shape)}")
        assert value.dtype is not None
        specs.append(TensorSpec(name, shape, value.dtype.numpy().name, "NCHW" if len(shape) == 4 else None))
    return tuple(specs)


def _check_type(path: Path, side: str, name: str, kind: object, dtype: ir.DataType | None) -> None:
    if not isinstance(kind, ir.TensorType) or dtype is None:
        raise InvalidInput(f"{path}: {side} {name!r}: expected a tensor, got {kind}")
    if dtype == ir.DataType.STRING or dtype.numpy().name not in DTYPES:
        raise InvalidInput(
            f"{path}: {side} {name!r}: expected a dtype of {', '.join(DTYPES)}, got {dtype.name.lower()}"
        )


def _drop_initializers_from_inputs(graph: onnx.GraphProto) -> None:
    """Files of before IR version 4 list their weights as inputs, too."""
    constant = {tensor.name for tensor in (*graph.initializer, *(t.values for t in graph.sparse_initializer))}
    kept = [value for value in graph.input if value.name not in constant]
    del graph.input[:]
    graph.input.extend(kept)


def _fix_inputs(path: Path, graph: onnx.GraphProto, shapes: Shapes, weights: frozenset[str]) -> None:
    inputs = [value for value in graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    if unknown := sorted(set(shapes) - set(names)):
        raise InvalidInput(f"{path}: --input-shape: no input {unknown[0]!r}; there is {', '.join(names) or 'none'}")
    for value in inputs:
        if value.type.WhichOneof("value") != "tensor_type":
            raise InvalidInput(f"{path}: input {value.name!r}: expected a tensor, got {value.type.WhichOneof('value')}")
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        stated = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
        given = shapes.get(value.name)
        if given is None:
            if not tensor.HasField("shape") or any(not isinstance(size, int) for size in stated):
                shown = ",".join(map(str, stated)) if tensor.HasField("shape") else "nothing"
                raise InvalidInput(
                    f"{path}: input {value.name!r}: expected static sizes, the file states {shown}; "
                    f"give --input-shape {value.name}=..."
                )
            continue
        fits = not tensor.HasField("shape") or (
            len(given) == len(stated)
            and all(not isinstance(size, int) or size == want for size, want in zip(stated, given, strict=True))
        )
        if not fits or any(size < 1 for size in given):
            raise InvalidInput(
                f"{path}: --input-shape {value.name}={','.join(map(str, given))}: the file states "
                f"{','.join(map(str, stated))}"
            )
        tensor.shape.ClearField("dim")
        for size in given:
            tensor.shape.dim.add().dim_value = size
    for number, value in enumerate(graph.output):  # sizes there follow from the inputs'; the number of axes stands
        if value.type.WhichOneof("value") == "tensor_type":
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                dim.dim_param = f"output_{number}_{axis}"


def _to_opset(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    version = versions.get("", versions.get("ai.onnx"))
    if version is None or version == OPSET:
        return model
    newest = onnx.defs.onnx_opset_version()
    if version > newest:
        raise InvalidArtifact(f"{path}: opset {version}, expected at most {newest}, the newest that this onnx knows")
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter's errors share no base class
        reason = one_line(error).rpartition(" failed: ")[2]  # before it, a place in the converter's source
        raise InvalidArtifact(
            f"{path}: opset {version} cannot be brought to {OPSET}: {reason}; export it at {OPSET}"
        ) from error
