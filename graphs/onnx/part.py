"""Some nodes of an ONNX graph, run alone. Weights that lie beside the graph are mapped there, not copied."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
import onnxruntime

from backends.errors import InvalidArtifact, one_line
from backends.tensor import Array
from graphs.onnx.file import read
from graphs.onnx.foreign import infer_shapes

_ERRORS_ONLY = 3


def needed_nodes(outputs: Iterable[ir.Value], given: Collection[ir.Value]) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes that compute `outputs` from constants and from what they need of `given`, and that; in any order.

    Inputs of the graph are always given.
    """
    nodes: dict[ir.Node, None] = {}
    inputs: dict[ir.Value, None] = {}
    waiting = [node for value in outputs if (node := value.producer()) is not None]
    while waiting:
        node = waiting.pop()
        if node in nodes:
            continue
        nodes[node] = None
        for value in node.inputs:
            if value is None or value.is_initializer():
                continue
            maker = value.producer()
            if value in given or maker is None:
                inputs[value] = None
            else:
                waiting.append(maker)
    return list(nodes), list(inputs)


def part_of(model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
    """The nodes between some values, as a model of its own that shares the weights."""
    graph = ir.convenience.extract(model.graph, inputs, outputs)
    return ir.Model(graph, ir_version=model.ir_version)


def run_part(
    model: ir.Model,
    outputs: Sequence[ir.Value],
    feeds: Mapping[str, Array],
    folder: Path,
    given: Sequence[ir.Value] | None = None,
    threads: int = 1,
) -> dict[str, Array]:
    """Compute `outputs` from `given`, or from the inputs of the graph, on ONNX Runtime. See `OpenPart`."""
    inputs = list(model.graph.inputs) if given is None else given
    return OnnxPartSession(part_of(model, inputs, outputs), folder, threads).run(feeds)


class OnnxPartSession:
    """A model that is ready to run, any number of times; `folder` is where the weights beside it lie."""

    def __init__(self, model: ir.Model, folder: Path, threads: int = 1) -> None:
        """Raises InvalidArtifact if ONNX Runtime cannot load it."""
        self._outputs = [str(value.name) for value in model.graph.outputs]
        self._inputs = [str(value.name) for value in model.graph.inputs]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
        # A packed copy of each weight is worth its memory where a graph runs often.
        options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's errors share no base class of their own
            raise InvalidArtifact(f"{self._named}: ONNX Runtime cannot load it alone: {one_line(error)}") from error

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """One run, on inputs by name. Raises InvalidArtifact."""
        try:
            results = self._session.run(self._outputs, {name: feeds[name] for name in self._inputs})
        except Exception as error:  # as above
            raise InvalidArtifact(f"{self._named}: ONNX Runtime cannot run it alone: {one_line(error)}") from error
        return dict(zip(self._outputs, results, strict=True))

    @property
    def _named(self) -> str:
        return f"the part of the graph that makes {', '.join(map(repr, self._outputs))}"


Known = tuple[tuple[int, ...], str]


def read_with_shapes(path: Path) -> ir.Model:
    """Read a graph, its large weights left where they are, and state the shapes that it does not state itself."""
    model = read(path)
    unknown = [v for v in named_values(model).values() if shape_and_dtype(v) is None]
    if unknown:
        # Its result is a copy, which no longer knows where the weights beside the graph lie.
        inferred = named_values(infer_shapes(model))
        for value in unknown:
            like = inferred[str(value.name)]
            value.shape, value.type = like.shape, like.type
    return model


def named_values(model: ir.Model) -> dict[str, ir.Value]:
    """Inputs of a graph and what its nodes make, in running order, by name."""
    made = (value for node in model.graph for value in node.outputs)
    return {str(value.name): value for value in (*model.graph.inputs, *made) if value.name}


def shape_and_dtype(value: ir.Value) -> Known | None:
    """Sizes and numpy dtype name of a value; None where the graph does not tell."""
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return None
    return tuple(int(size) for size in value.shape.numpy()), value.dtype.numpy().name
