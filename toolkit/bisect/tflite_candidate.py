"""A TFLite file that is held to the float32 graph it was lowered from."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from backends.artifact import Artifact
from backends.errors import InvalidArtifact
from backends.tensor import Array
from toolkit.bisect.tensors import Stored
from toolkit.convert.correspondence import Order, order_of
from toolkit.convert.tflite_graph import Graph, Tensor, read_graph
from toolkit.convert.tflite_part import OpenPart, cut, name_of
from toolkit.convert.tflite_writer import write_graph
from toolkit.convert.trial import Trial, TrialEnded

_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_DTYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_DEQUANTIZE = schema.BuiltinOperator.DEQUANTIZE


class TflitePart:
    """Operators of one file; their weights stay there until the part is opened or written."""

    def __init__(self, graph: Graph, trial: Trial) -> None:
        self._graph = graph
        self._trial = trial
        self.inputs = tuple(graph.inputs)
        self.operators = tuple(_OPERATORS.get(node.code[0], str(node.code[0])) for node in graph.nodes)

    def run(self, feeds: Sequence[Mapping[str, Array]], threads: int) -> list[dict[str, Array]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.tflite"
            self.write(path)
            try:
                return self._trial.call(run_file, path, feeds, threads)
            except TrialEnded as ended:
                raise InvalidArtifact(
                    f"the layer that makes {', '.join(self._graph.outputs)} ({', '.join(self.operators)}): the process "
                    f"in which LiteRT ran it alone {ended}"
                ) from ended

    def write(self, path: Path) -> None:
        write_graph(self._graph, path)


def run_file(path: Path, feeds: Sequence[Mapping[str, Array]], threads: int) -> list[dict[str, Array]]:
    """Run a file on each of some feeds, as LiteRT takes and gives them."""
    part = OpenPart(path, threads)
    return [part.run(one) for one in feeds]


class TfliteCandidate:
    """Tensors are found by what the lowering wrote into the file; by the manifest alone where it wrote nothing."""

    suffix = ".tflite"

    def __init__(self, path: Path, artifact: Artifact, trial: Trial) -> None:
        """Its parts run in `trial`: a layer that kills the runtime is one error. Raises InvalidArtifact if damaged."""
        self._trial = trial
        self._graph = read_graph(path)
        self._tensors = {name_of(tensor): tensor for tensor in self._graph.tensors()}
        self._artifact = artifact
        self.missing = _missing(artifact, self._graph)
        self._makers = {id(t): node for node in self._graph.nodes for t in node.outputs if t is not None}

    def places(self) -> Mapping[str, tuple[Stored, Order]]:
        found = {b.spec.name: (b.stored.name, order_of(b)) for b in (*self._artifact.inputs, *self._artifact.outputs)}
        places = {name: (self._tensors[stored], order) for name, (stored, order) in found.items()}
        float_forms = self._float_forms()
        for one in self._graph.held:
            places.setdefault(one.name, (float_forms.get(id(one.tensor), one.tensor), one.order))
        return {name: (_stored(tensor), order) for name, (tensor, order) in places.items()}

    def cut(self, stored: str, given: Collection[str]) -> TflitePart | None:
        tensor = self._tensors[stored]
        if id(tensor) not in self._makers:
            return None
        stops = [self._tensors[name] for name in given if name != stored]
        return TflitePart(cut(self._graph, [tensor], stops), self._trial)

    def _float_forms(self) -> dict[int, Tensor]:
        """Quantized tensors that are only ever dequantized again: a reader of the result sees no rounding of ours."""
        users: dict[int, list[Tensor | None]] = {}
        for node in self._graph.nodes:
            for tensor in node.inputs:
                if tensor is not None:
                    users.setdefault(id(tensor), []).append(node.outputs[0] if node.code[0] == _DEQUANTIZE else None)
        return {key: made[0] for key, made in users.items() if len(made) == 1 and made[0] is not None}


def _missing(artifact: Artifact, graph: Graph) -> str:
    if graph.held:
        return "the file holds no such tensor"
    if artifact.route == "tf":
        return "files of the tf route do not say which tensors they hold: bisect one of the direct route"
    return "the file does not say which tensors it holds: run `toolkit convert` again, and it will"


def _stored(tensor: Tensor) -> Stored:
    quantization = tensor.table.quantization
    scales = None if quantization is None else quantization.scale
    dtype = _DTYPES[tensor.table.type]
    if scales is None or len(scales) != 1 or not dtype.startswith(("int", "uint")):
        return Stored(name_of(tensor), tensor.shape, dtype)
    points = quantization.zeroPoint
    zero_point = int(points[0]) if points is not None and len(points) else 0
    return Stored(name_of(tensor), tensor.shape, dtype, float(scales[0]), zero_point)
