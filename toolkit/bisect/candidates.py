"""Candidates: ONNX and TFLite files whose tensors are matched with the reference's and whose parts run alone."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from backends.artifact import Artifact
from backends.bundle import sha256_of
from backends.errors import InvalidArtifact
from backends.registry import BackendSpec
from backends.sandbox import SandboxDied, SandboxProcess
from backends.tensor import Array, Binding, TensorSpec
from graphs.onnx.file import save
from graphs.onnx.part import OnnxPartSession, named_values, needed_nodes, part_of, read_with_shapes, shape_and_dtype
from graphs.tflite.graph import Graph, Tensor, read_graph
from graphs.tflite.part import TflitePartSession, cut
from graphs.tflite.tensor_map import Order, fitting_orders, order_of
from graphs.tflite.writer import write_graph


@dataclass(frozen=True)
class Stored:
    """A tensor in a candidate's file. If scale is not None, real value = (stored value - zero_point) * scale."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True)
class MatchedTensor:
    """A tensor of the reference (name, shape, dtype) and the candidate's tensor that holds the same values.

    order: the permutation of the axes from the reference's layout to the stored one; None if no axes are permuted.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: Stored
    order: Order

    def to_stored(self, values: Array) -> Array:
        """Convert the reference's values to the candidate's layout and dtype.

        Values outside the range of a quantized tensor are clipped; values too large for float16 become infinite.
        """
        if self.order is not None:
            values = values.transpose(self.order)
        values = values.reshape(self.stored.shape)
        dtype = np.dtype(self.stored.dtype)
        if self.stored.scale is not None:
            limits = np.iinfo(dtype)
            steps = np.rint(values / np.float32(self.stored.scale)) + self.stored.zero_point
            values = np.clip(steps, limits.min, limits.max)
        with np.errstate(over="ignore"):
            return np.asarray(values.astype(dtype, copy=False), order="C")  # ascontiguousarray would give () an axis

    def from_stored(self, values: Array) -> Array:
        """Convert the candidate's values to the reference's layout, and dequantize them to float32 if quantized."""
        if self.stored.scale is not None:
            values = (values.astype(np.float32) - self.stored.zero_point) * np.float32(self.stored.scale)
        if self.order is not None:
            values = values.transpose(np.argsort(self.order))
        return values.reshape(self.shape)


def unfit(shape: tuple[int, ...], dtype: str, stored: Stored, order: Order) -> str | None:
    """Return why `stored` cannot hold a reference tensor of this shape and dtype, or None if it can."""
    if order not in fitting_orders(shape, stored.shape):
        turned = "" if order is None else f" with its axes as {list(order)}"
        return f"the file's {stored.name!r} has shape {list(stored.shape)}, expected {list(shape)}{turned}"
    kinds = {np.dtype(dtype).kind, np.dtype(stored.dtype).kind}
    if stored.scale is None and kinds != {"f"} and not kinds <= {"i", "u"} and kinds != {"b"}:
        return f"the file's {stored.name!r} is {stored.dtype}, expected {dtype}"
    return None


class OnnxPart:
    """The part of an ONNX graph that computes `output` from `inputs`. Weights stay in the source file until it runs."""

    def __init__(
        self,
        model: ir.Model,
        inputs: list[ir.Value],
        output: ir.Value,
        nodes: list[ir.Node],
        folder: Path,
        backend: BackendSpec | None = None,
        precision: str = "fp32",
    ) -> None:
        self._cut = (model, inputs, output)
        self._folder = folder
        self._backend = backend
        self._precision = precision
        self.inputs = tuple(str(value.name) for value in inputs)
        self.operators = tuple(node.op_type for node in nodes)

    def run(self, feeds: Sequence[Mapping[str, Array]], threads: int) -> list[dict[str, Array]]:
        # A part without inputs is a constant, which no session can be given.
        if self._backend is not None and self.inputs:
            return self._run_as_file(self._backend, feeds, threads)
        part = OnnxPartSession(self._model(), self._folder, threads)
        return [part.run(one) for one in feeds]

    def _run_as_file(
        self, backend: BackendSpec, feeds: Sequence[Mapping[str, Array]], threads: int
    ) -> list[dict[str, Array]]:
        """Write the part to a temporary ONNX file and run that on `backend`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.onnx"
            self.write(path)
            return run_onnx_file(path, backend, self._precision, feeds, threads)

    def write(self, path: Path) -> None:
        save(self._model(), path)

    def _model(self) -> ir.Model:
        model, inputs, output = self._cut
        return part_of(model, inputs, [output])


def run_onnx_file(
    path: Path, backend: BackendSpec, precision: str, feeds: Sequence[Mapping[str, Array]], threads: int
) -> list[dict[str, Array]]:
    """Run an ONNX file, with the external data beside it, on each of `feeds` on a backend, in a precision.

    Raises InvalidArtifact if an input or an output of the file has no shape.
    """
    graph = read_with_shapes(path).graph
    external = {
        str(data.location)
        for value in graph.initializers.values()
        if isinstance(data := value.const_value, ir.ExternalTensor)
    }
    files = [path, *(path.parent / name for name in sorted(external))]
    artifact = Artifact(
        file=path.name,
        role="part",
        format="onnx",
        precision=precision,
        route=None,
        inputs=tuple(Binding.same(_spec(value)) for value in graph.inputs),
        outputs=tuple(Binding.same(_spec(value)) for value in graph.outputs),
        sha256=sha256_of(*files),
        bytes=sum(file.stat().st_size for file in files),
        external_files=tuple(file.name for file in files[1:]),
        parent=None,
        tools={},
        architecture=None,
    )
    names = [binding.spec.name for binding in artifact.inputs]
    with backend.session(path, artifact, threads) as session:
        return [session.run({name: one[name] for name in names}) for one in feeds]


def _spec(value: ir.Value) -> TensorSpec:
    known = shape_and_dtype(value)
    if known is None:
        raise InvalidArtifact(f"tensor {value.name!r}: its shape is not stated, so that no backend can be given it")
    return TensorSpec(str(value.name), *known, layout=None)


class OnnxCandidate:
    """An ONNX file. Tensors are matched by name. Parts run on ONNX Runtime in memory or, as files, on a backend, in the
    given precision."""

    suffix = ".onnx"
    missing = "the file holds no such tensor"

    def __init__(self, path: Path, backend: BackendSpec | None = None, precision: str = "fp32") -> None:
        self._backend = backend
        self._precision = precision
        self._model = read_with_shapes(path)
        self._folder = path.parent
        self._values = named_values(self._model)
        self._index = {node: i for i, node in enumerate(self._model.graph)}

    def places(self) -> Mapping[str, tuple[Stored, Order]]:
        found = {}
        for name, value in self._values.items():
            if (known := shape_and_dtype(value)) is not None:
                found[name] = (Stored(name, *known), None)
        return found

    def cut(self, stored: str, given: Collection[str]) -> OnnxPart | None:
        value = self._values[stored]
        if value.producer() is None:
            return None
        nodes, inputs = needed_nodes([value], {self._values[name] for name in given if name != stored})
        ordered = sorted(nodes, key=self._index.__getitem__)
        return OnnxPart(self._model, inputs, value, ordered, self._folder, self._backend, self._precision)


_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_DTYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_DEQUANTIZE = schema.BuiltinOperator.DEQUANTIZE


class TflitePart:
    """Operators of one TFLite file. Their weights stay in that file until the part is run or written."""

    def __init__(self, graph: Graph, trial: SandboxProcess) -> None:
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
            except SandboxDied as ended:
                raise InvalidArtifact(
                    f"the layer that makes {', '.join(self._graph.outputs)} ({', '.join(self.operators)}): the process "
                    f"in which LiteRT ran it alone {ended}"
                ) from ended

    def write(self, path: Path) -> None:
        write_graph(self._graph, path)


def run_file(path: Path, feeds: Sequence[Mapping[str, Array]], threads: int) -> list[dict[str, Array]]:
    """Run a TFLite file on each of `feeds`. Inputs and outputs are by tensor name, in the file's layout and dtype."""
    part = TflitePartSession(path, threads)
    return [part.run(one) for one in feeds]


class TfliteCandidate:
    """A TFLite file. Its tensors are matched by the map that the lowering wrote into the file.

    Without this map only inputs and outputs are matched, by the manifest.
    """

    suffix = ".tflite"

    def __init__(self, path: Path, artifact: Artifact, trial: SandboxProcess) -> None:
        """Read the file. Its parts run in the process `trial`, so that a crash of the runtime becomes an error.

        Raises InvalidArtifact for a damaged file.
        """
        self._trial = trial
        self._graph = read_graph(path)
        self._tensors = {tensor.name: tensor for tensor in self._graph.tensors()}
        self._artifact = artifact
        self.missing = _missing(artifact, self._graph)
        self._makers = {id(t): node for node in self._graph.nodes for t in node.outputs if t is not None}

    def places(self) -> Mapping[str, tuple[Stored, Order]]:
        found = {b.spec.name: (b.stored.name, order_of(b)) for b in (*self._artifact.inputs, *self._artifact.outputs)}
        places = {name: (self._tensors[stored], order) for name, (stored, order) in found.items()}
        float_forms = self._float_forms()
        for one in self._graph.origins:
            places.setdefault(one.name, (float_forms.get(id(one.tensor), one.tensor), one.order))
        return {name: (_stored(tensor), order) for name, (tensor, order) in places.items()}

    def cut(self, stored: str, given: Collection[str]) -> TflitePart | None:
        tensor = self._tensors[stored]
        if id(tensor) not in self._makers:
            return None
        stops = [self._tensors[name] for name in given if name != stored]
        return TflitePart(cut(self._graph, [tensor], stops), self._trial)

    def _float_forms(self) -> dict[int, Tensor]:
        """Map the id of each tensor whose only reader is a DEQUANTIZE to the output of that operator.

        The file is cut at this output, so that the reference's values are fed to later layers without quantizing them.
        """
        users: dict[int, list[Tensor | None]] = {}
        for node in self._graph.nodes:
            for tensor in node.inputs:
                if tensor is not None:
                    users.setdefault(id(tensor), []).append(node.outputs[0] if node.code[0] == _DEQUANTIZE else None)
        return {key: made[0] for key, made in users.items() if len(made) == 1 and made[0] is not None}


def _missing(artifact: Artifact, graph: Graph) -> str:
    if graph.origins:
        return "the file holds no such tensor"
    if artifact.route == "tf":
        return "files of the tf route do not say which tensors they hold: bisect one of the direct route"
    return "the file does not say which tensors it holds: run `toolkit convert` again, and it will"


def _stored(tensor: Tensor) -> Stored:
    quantization = tensor.table.quantization
    scales = None if quantization is None else quantization.scale
    dtype = _DTYPES[tensor.table.type]
    if scales is None or len(scales) != 1 or not dtype.startswith(("int", "uint")):
        return Stored(tensor.name, tensor.shape, dtype)
    points = quantization.zeroPoint
    zero_point = int(points[0]) if points is not None and len(points) else 0
    return Stored(tensor.name, tensor.shape, dtype, float(scales[0]), zero_point)
