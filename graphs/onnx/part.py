"""Parts of ONNX graphs that run alone, and the shapes of a graph's tensors.

Weights beside the graph are mapped, not copied.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
import onnxruntime

from backends.errors import InvalidArtifact, one_line
from backends.tensor import Array
from graphs.onnx.file import read
from graphs.onnx.sizes import infer_shapes

_ERRORS_ONLY = 3


def needed_nodes(outputs: Iterable[ir.Value], given: Collection[ir.Value]) -> tuple[list[ir.Node], list[ir.Value]]:
    """Return the nodes that compute `outputs`, and the values of `given` and inputs of the graph that they read.

    Both lists are in any order. The inputs of the graph are always given, as constants are.
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
    """Return the nodes between `inputs` and `outputs` as a model of their own that shares the weights of `model`."""
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
    """Compute `outputs` from `given`, or else from the inputs of the graph, on ONNX Runtime. Returns arrays by name.

    `folder` holds the weights that lie beside the graph. Raises InvalidArtifact if ONNX Runtime cannot load or run the
    part.
    """
    inputs = list(model.graph.inputs) if given is None else given
    return OnnxPartSession(part_of(model, inputs, outputs), folder, threads).run(feeds)


class OnnxPartSession:
    """An ONNX Runtime session of a model, for any number of runs.

    `folder` holds the weights that lie beside the model.
    """

    def __init__(self, model: ir.Model, folder: Path, threads: int = 1) -> None:
        """Load the model. Raises InvalidArtifact if ONNX Runtime cannot load it."""
        self._outputs = [str(value.name) for value in model.graph.outputs]
        self._inputs = [str(value.name) for value in model.graph.inputs]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
        # A packed copy of each weight is worth its memory only where a graph runs often.
        options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's errors share no base class of their own
            raise InvalidArtifact(f"{self._named}: ONNX Runtime cannot load it alone: {one_line(error)}") from error

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once on inputs by name, and return the outputs by name.

        Raises InvalidArtifact if ONNX Runtime cannot run it.
        """
        try:
            results = self._session.run(self._outputs, {name: feeds[name] for name in self._inputs})
        except Exception as error:  # as above
            raise InvalidArtifact(f"{self._named}: ONNX Runtime cannot run it alone: {one_line(error)}") from error
        return dict(zip(self._outputs, results, strict=True))

    @property
    def _named(self) -> str:
        return f"the part of the graph that makes {', '.join(map(repr, self._outputs))}"


# Sizes and numpy dtype name of a tensor.
Known = tuple[tuple[int, ...], str]


def read_with_shapes(path: Path) -> ir.Model:
    """Read an ONNX file, leaving large weights in their files, and infer the types and shapes that it does not state.

    Raises InvalidArtifact if a file of its weights has hard links.
    """
    model = read(path)
    unknown = [v for v in named_values(model).values() if shape_and_dtype(v) is None]
    if unknown:
        # Only the shapes are used: the graph that infer_shapes returns does not know where the weights beside it lie.
        inferred = named_values(infer_shapes(model))
        for value in unknown:
            like = inferred[str(value.name)]
            value.shape, value.type = like.shape, like.type
    return model


def named_values(model: ir.Model) -> dict[str, ir.Value]:
    """Return the inputs of a graph and the outputs of its nodes by name, in running order."""
    made = (value for node in model.graph for value in node.outputs)
    return {str(value.name): value for value in (*model.graph.inputs, *made) if value.name}


def shape_and_dtype(value: ir.Value) -> Known | None:
    """Return the sizes and the numpy dtype name of a value, or None where the graph does not state them."""
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return None
    return tuple(int(size) for size in value.shape.numpy()), value.dtype.numpy().name
