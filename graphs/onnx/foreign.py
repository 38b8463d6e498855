"""Reads ONNX files of any origin: checks their external data, fixes the sizes of inputs, and brings them to OPSET."""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript.optimizer import fold_constants

from backends.artifact import SIZES
from backends.errors import InvalidArtifact, InvalidInput, ToolkitError, one_line
from backends.tensor import Array
from graphs.onnx.file import IR_VERSION, OPSET, check
from graphs.onnx.floats import other_floats, to_float32
from graphs.onnx.opset import NotOurOpset, nodes, to_opset
from graphs.onnx.rewriting import remove_unused_nodes
from graphs.onnx.sizes import Shapes, fix_inputs, infer_outputs, infer_shapes, remove_shapes
from graphs.onnx.unroll import put_time_first, unroll_loops
from graphs.onnx.weights import attach_weights, detach_weights

_SHOWN = 5
_NO_SIZES = "Field 'shape' of 'type' is required but missing"
_STALE = "sizes that the file states are wrong, and were inferred again"
# Parts of the checker's errors about files that every runtime runs, and what is done about them.
_MENDED = {
    "topologically sorted": "nodes that stood before those that they read were sorted",
    "Inferred shape and existing shape differ": _STALE,
    "Inferred shape and declared shape": _STALE,
    _NO_SIZES: "the file does not state the sizes of all tensors, and they were inferred",
}


@contextmanager
def weights_beside(path: Path) -> Iterator[Path]:
    """Give, for a block, the path of a model whose weights lie beside it as files, where onnx reads them.

    That is `path`, or the file that `path` links to if the weights lie beside that. In the Hugging Face cache the model
    and its weights are links to files of one folder, which have other names there: these are copied for the block, and
    errors in it name `path`. onnx refuses all other links, since they may lead to files that are not the model's.
    Raises InvalidArtifact if the file is not a readable ONNX model.
    """
    if not path.is_symlink() or not path.is_file():
        yield path
        return
    real, names = path.resolve(), _locations(path)
    if all((real.parent / name).is_file() for name in names):
        yield real
    elif not all(_is_kept_with(real, path.parent, name) for name in names):
        yield path
    else:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            for name in (path.name, *names):
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path.parent / name, Path(folder) / name)
            try:
                yield copy
            except ToolkitError as error:
                raise type(error)(str(error).replace(str(copy), str(path))) from error


def _locations(path: Path) -> list[str]:
    """Return the names of the files that hold a model's weights, as the model states them."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common base class
        raise InvalidArtifact(f"{path}: not a readable ONNX model: {one_line(error)}") from error
    return sorted({entry.value for t in _tensors(model.graph) for entry in t.external_data if entry.key == "location"})


def _is_kept_with(real: Path, folder: Path, name: str) -> bool:
    """Return whether a name in `folder` leads to a file of the folder in which the model's own file, `real`, lies."""
    file = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or not file.is_file():
        return False
    return file.resolve().parent == real.parent


def external_files(path: Path) -> tuple[Path, ...]:
    """Return the files of a model's external data, sorted by name, after checking the place of each weight in them.

    Run `check` before: onnx's checker refuses data that does not lie beside the model (absolute paths, links and `..`).
    Raises InvalidArtifact naming the weight whose bytes are not all in its file.
    """
    model = onnx.load(path, load_external_data=False)
    names = set()
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names.add(_checked(path, tensor))
    return tuple(path.parent / name for name in sorted(names))


def _checked(path: Path, tensor: onnx.TensorProto) -> str:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location: str = entries.get("location", "")
    offset, length = entries.get("offset", "0"), entries.get("length")
    for key, value in (("offset", offset), ("length", length or "0")):
        if not value.isdecimal():
            raise InvalidArtifact(f"{path}: weight {tensor.name!r}: expected a number as its {key}, got {value!r}")
    file = path.parent / location
    if Path(location).is_absolute() or ".." in Path(location).parts or file.is_symlink():
        raise InvalidArtifact(f"{path}: weight {tensor.name!r}: expected a file beside the model, got {location!r}")
    if not file.is_file():
        raise InvalidArtifact(f"{path}: weight {tensor.name!r}: no file {location!r} beside the model")
    size = file.stat().st_size
    need = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    for dim in tensor.dims:
        need *= dim
    claimed = need if length is None else int(length)
    if claimed < need or int(offset) + claimed > size:
        raise InvalidArtifact(
            f"{path}: weight {tensor.name!r}: expected {need} bytes from byte {offset} of {location}, which the file "
            f"says are {claimed}; it has {size} in all"
        )
    return location


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every weight and constant, also those inside the branches of nodes."""
    yield from graph.initializer
    for node in nodes(graph):
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from inner.initializer
            yield from (attribute.t, *attribute.tensors)


Values = Mapping[str, Array]


def read_foreign(
    path: Path,
    shapes: Shapes,
    constants: Values | None = None,
    cut_at: Sequence[str] = (),
    mended: Callable[[str], None] = lambda line: None,
) -> ir.Model:
    """Read an ONNX file of any origin, bring it to OPSET and IR_VERSION, and state its sizes.

    External data and local functions are included; large weights stay in their files. `shapes` gives sizes of inputs by
    name, and names of axes that stay open; every other input must have static sizes in the file. Inputs among
    `constants`, see constants_of, become weights: sizes inside the graph may depend on their values. cut_at: the names
    of tensors that become the outputs; nothing behind them is read. Tensors of float16, bfloat16 and float64 become
    float32. `mended` is called with a line for everything else that is done to the graph.
    Raises InvalidArtifact if the file is not a valid ONNX model or cannot be brought to OPSET; InvalidInput if there is
    no file, or naming an input that does not exist, whose sizes are missing or wrong, or that is not a tensor, or a
    tensor of `cut_at` that no node makes.
    """
    if not path.is_file():
        raise InvalidInput(f"{path}: no such ONNX file")
    broken = _what_checker_says(path)
    external_files(path)
    model = ir.load(path)
    model.metadata_props.pop(SIZES, None)  # of a file of this project, whose open axes get other sizes here
    if broken is not None:
        try:
            model.graph.sort()
        except ValueError:  # a cycle
            raise broken from None
        mended(next(done for words, done in _MENDED.items() if words in str(broken)))
    if cut_at:
        _cut(path, model, cut_at)
        mended(f"it was cut at {', '.join(cut_at)}, which are its outputs now")
    before = len(model.graph.initializers)
    LiftConstantsToInitializersPass()(model)  # weights of layers, in files of Paddle: only initializers are quantized
    if lifted := len(model.graph.initializers) - before:
        mended(f"{lifted} Constant nodes became initializers")
    if model.functions:
        mended(f"{len(model.functions)} functions of the file were inlined")
    taken = detach_weights(model)
    _load_small_weights(model)
    proto = onnx.inliner.inline_local_functions(ir.to_proto(model))
    stated = remove_shapes(proto.graph)
    _drop_initializers_from_inputs(proto.graph)
    _drop_missing_last_inputs(proto.graph)
    _fix_values(proto.graph, constants or {})
    for name in constants or {}:
        mended(f"input {name!r} became a constant")
    fix_inputs(path, proto.graph, shapes, frozenset(taken))
    put_time_first(proto.graph)
    if other_floats(proto):
        taken = to_float32(proto, taken)
    infer_outputs(proto, stated)
    if broken is not None:
        try:
            onnx.checker.check_model(proto, full_check=True)
        except Exception as error:  # noqa: BLE001  the checker's errors share no base class
            if _NO_SIZES not in str(error):  # of an operator that onnx does not know; ONNX Runtime may know the sizes
                raise broken from None
    proto.ir_version = IR_VERSION  # before IR version 4, weights had to be inputs as well
    # Noted before to_opset, which may change the model before it fails.
    opsets = [(entry.domain or "ai.onnx", entry.version) for entry in proto.opset_import]
    versions = " and ".join(f"{domain} {version}" for domain, version in opsets)
    try:
        proto = to_opset(proto)
    except NotOurOpset as error:
        raise InvalidArtifact(f"{path}: its opset ({versions}) cannot be brought to {OPSET}: {error}") from error
    if ("ai.onnx", OPSET) not in opsets:
        mended(f"the opset ({versions}) was brought to {OPSET}")
    ours = ir.from_proto(proto)
    attach_weights(ours, taken)
    ours = infer_shapes(ours)  # passes need shapes: without shapes, a dense layer stays a MatMul
    branching, looping = (_count(ours, name) for name in ("If", "Loop"))
    ours = without_control_flow(ours)
    if taken_branches := branching - _count(ours, "If"):
        mended(f"{taken_branches} If nodes with a constant condition became the branch that it takes")
    if unrolled := looping - _count(ours, "Loop"):
        mended(f"{unrolled} Loop nodes of a fixed number of turns were unrolled")
    return ours


def without_control_flow(model: ir.Model) -> ir.Model:
    """Put the taken branch in the place of each If with a constant condition, and unroll each Loop of a fixed number of
    turns, those inside other Loops too.

    onnxsim puts such a branch behind its readers, and ONNX Runtime refuses some of them.
    """
    while any(node.op_type in ("If", "Loop") for node in model.graph):
        fold_constants(model)  # conditions and numbers of turns may be computed from sizes
        model = infer_shapes(model)
        taken = detach_weights(model)
        try:
            proto = ir.to_proto(model)
        finally:
            attach_weights(model, taken)
        if not unroll_loops(proto.graph):
            break
        model = ir.from_proto(proto)
        attach_weights(model, taken)
        model = infer_shapes(model)
    return model


def _cut(path: Path, model: ir.Model, cut_at: Sequence[str]) -> None:
    """Make tensors the outputs of a graph in place, and remove the nodes and weights that they do not need."""
    made = {str(value.name): value for node in model.graph for value in node.outputs if value.name}
    for name in cut_at:
        if name not in made:
            near = ", ".join(get_close_matches(name, made)) or ", ".join(list(made)[-_SHOWN:])
            raise InvalidInput(f"{path}: --cut-at {name}: no node makes such a tensor; there is {near}")
    model.graph.outputs.clear()
    model.graph.outputs.extend(made[name] for name in dict.fromkeys(cut_at))
    remove_unused_nodes(model)


def _count(model: ir.Model, op_type: str) -> int:
    return sum(node.op_type == op_type for node in model.graph)


def _what_checker_says(path: Path) -> InvalidArtifact | None:
    """Run onnx's checker. Return its error if the error may be mended: an order of nodes, or stated sizes.

    Raises InvalidArtifact for any other error.
    """
    try:
        check(path)
    except InvalidArtifact as error:
        if any(words in str(error) for words in _MENDED):
            return error
        raise
    return None


def _load_small_weights(model: ir.Model) -> None:
    """Read into memory the weights that are still in other files: a ModelProto does not know where the files lie."""
    ir.external_data.load_to_model(model)
    for node in model.graph.all_nodes():
        for name, attribute in node.attributes.items():
            if isinstance(attribute.value, ir.ExternalTensor):
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(attribute.value.numpy()))


def constants_of(path: Path, values: Values) -> dict[str, Array]:
    """Return values of inputs as arrays of the dtypes and shapes that the file states.

    A one-dimensional array of as many elements takes any static shape. Raises InvalidInput naming the input that does
    not exist or that the value does not fit, and InvalidArtifact if the file is not a valid ONNX model.
    """
    if not values:
        return {}
    check(path)
    inputs = {value.name: value.type.tensor_type for value in onnx.load(path, load_external_data=False).graph.input}
    return {name: _constant(path, name, inputs, array) for name, array in values.items()}


def _constant(path: Path, name: str, inputs: Mapping[str, onnx.TypeProto.Tensor], array: Array) -> Array:
    what = f"{path}: --input-value {name}"
    if name not in inputs:
        raise InvalidInput(f"{what}: no such input; there is {', '.join(inputs) or 'none'}")
    if inputs[name].elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        raise InvalidInput(f"{what}: the input is no tensor of numbers")
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in inputs[name].shape.dim]
    static = [size for size in sizes if size is not None]
    if array.ndim == 1 and len(static) == len(sizes) and math.prod(static) == array.size:
        array = array.reshape(static)
    if len(sizes) != array.ndim or any(a is not None and a != b for a, b in zip(sizes, array.shape, strict=True)):
        stated = " x ".join("any" if size is None else str(size) for size in sizes) or "one"
        raise InvalidInput(f"{what}: expected {stated} value(s), got {array.size}")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(inputs[name].elem_type)
    typed = array.astype(dtype)
    if dtype.kind in "iub" and not np.array_equal(typed, array):
        raise InvalidInput(f"{what}: the input is {dtype}, which cannot hold {array.tolist()}")
    return typed


def _fix_values(graph: onnx.GraphProto, constants: Values) -> None:
    """Turn inputs of a graph into initializers with the given values."""
    kept = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())


def _drop_initializers_from_inputs(graph: onnx.GraphProto) -> None:
    """Remove weights from the inputs of a graph: files before IR version 4 list them there, too."""
    constant = {tensor.name for tensor in (*graph.initializer, *(t.values for t in graph.sparse_initializer))}
    kept = [value for value in graph.input if value.name not in constant]
    del graph.input[:]
    graph.input.extend(kept)


def _drop_missing_last_inputs(graph: onnx.GraphProto) -> None:
    """Remove empty names from the end of each node's inputs, where a missing optional input need not be named.

    ONNX Runtime 1.31 crashes on a norm whose bias has an empty name.
    """
    for node in nodes(graph):
        while node.input and not node.input[-1]:
            del node.input[-1]


def drop_unread_inputs(model: ir.Model) -> None:
    """Remove the inputs of a graph that no operator reads and that are no outputs, in place."""
    for value in [value for value in model.graph.inputs if not value.uses() and not value.is_graph_output()]:
        model.graph.inputs.remove(value)


def drop_given_outputs(model: ir.Model) -> dict[str, str]:
    """Remove the outputs that no node computes: constants, inputs, and an output's second mention.

    Returns what is said of each, by its name.
    """
    kept: list[ir.Value] = []
    dropped = {}
    for value in model.graph.outputs:
        node = value.producer()
        if value in kept:
            dropped[str(value.name)] = "is listed twice, and the bundle has it once"
        elif value.is_graph_input():
            dropped[str(value.name)] = "is an input, so the bundle leaves it out"
        elif node is None or node.op_type == "Constant":
            dropped[str(value.name)] = "is a constant, so the bundle leaves it out"
        else:
            kept.append(value)
    if dropped:
        model.graph.outputs.clear()
        model.graph.outputs.extend(kept)
    return dropped
