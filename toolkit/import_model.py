"""An ONNX file of anybody's becomes a bundle of kind "tensor": one graph, judged by its numbers alone."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidArtifact, InvalidInput, one_line
from backends.tensor import Array, Binding, TensorSpec
from graphs.foreign import Shapes, infer_shapes, read_foreign, specs_of
from graphs.onnx_file import check, save
from graphs.prepare.pipeline import prepare
from toolkit.folders import replacing_bundle
from toolkit.parity.synthetic import signed_samples

Progress = Callable[[str], None]

KIND = "tensor"
ROLE = "model"
# Max abs difference over the range of the output, as for our own exports.
TOLERANCE = 1e-4
_SAMPLES = ("uniform noise 0", "normal noise 0", "all 1")
_TOOLS = ("onnx", "onnxsim", "onnxruntime")


def import_model(source: Path, folder: Path, shapes: Shapes, progress: Progress = lambda step: None) -> Bundle:
    """Make a bundle in `folder` from an ONNX file, in the place of an older bundle there.

    The graph is brought to our opset, simplified and prepared, and held to the source on ONNX Runtime.
    Raises InvalidInput and InvalidArtifact as graphs.foreign.read_foreign; InvalidArtifact if ONNX Runtime cannot run
    the file, if it gives other outputs at every run, or if the prepared graph does not compute what the file does.
    """
    progress(f"reading {source}")
    foreign = read_foreign(source, shapes)
    inputs = specs_of(source, list(foreign.graph.inputs), "input")
    digest = sha256_of(source, *_external_files(source))
    with replacing_bundle(folder) as building:
        plain = building / "plain.onnx"
        progress("bringing it to our opset")
        plain_files = save(foreign, plain)
        progress("simplifying and preparing the graph")
        model, _ = prepare(foreign, {}, stepwise=False)
        model = infer_shapes(model)
        if not list(model.graph):
            raise InvalidInput(f"{source}: no operator is left of it: its outputs do not depend on its inputs' values")
        outputs = specs_of(source, list(model.graph.outputs), "output")
        path = building / f"{ROLE}.onnx"
        files = save(model, path)
        check(path)
        progress("comparing with the source on ONNX Runtime")
        _compare(source, plain, path, inputs)
        for file in plain_files:
            file.unlink()
        artifact = Artifact(
            file=path.name,
            role=ROLE,
            format="onnx",
            precision="fp32",
            route=None,
            inputs=tuple(Binding.same(spec) for spec in inputs),
            outputs=tuple(Binding.same(spec) for spec in outputs),
            sha256=sha256_of(*files),
            bytes=sum(file.stat().st_size for file in files),
            external_files=tuple(file.name for file in files[1:]),
            parent=None,
            tools={tool: version(tool) for tool in _TOOLS},
            architecture=None,
        )
        weights = {"origin": "checkpoint", "sha256": digest, "source": source.name}
        Bundle(building, {"name": folder.name, "kind": KIND}, weights, (artifact,)).write()
    return Bundle.open(folder)


def _external_files(source: Path) -> list[Path]:
    """The files of a model's external data, by name."""
    proto = onnx.load(source, load_external_data=False)
    names = {
        entry.value for tensor in proto.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    return [source.parent / name for name in sorted(names)]


def _compare(source: Path, plain: Path, prepared: Path, inputs: tuple[TensorSpec, ...]) -> None:
    """Raise InvalidArtifact where the prepared graph does not give what the source gives."""
    feeds = [dict(sample.feeds) for sample in signed_samples(inputs) if sample.name in _SAMPLES]
    feeds.append(feeds[0])  # the same twice, in one session
    try:
        expected = _run(source, feeds)
    except InvalidArtifact:
        # A file of a newer opset than the runtime knows: what it becomes at ours is the next best.
        expected = _run(plain, feeds)
    if found := _difference(expected[:1], expected[-1:]):
        raise InvalidArtifact(
            f"{source}: the same inputs give other outputs each time ({found}): a graph that draws random numbers "
            "cannot be compared with anything"
        )
    if found := _difference(expected, _run(plain, feeds)):
        raise InvalidArtifact(f"{source}: brought to our opset it gives other outputs: {found}")
    if found := _difference(expected, _run(prepared, feeds)):
        raise InvalidArtifact(f"{source}: simplified and prepared it gives other outputs: {found}")


def _run(path: Path, feeds: list[dict[str, Array]]) -> list[dict[str, Array]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]
    except Exception as error:  # the runtime's errors share no base class of their own
        raise InvalidArtifact(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot run it: {one_line(error)}"
        ) from error


def _difference(expected: Sequence[Mapping[str, Array]], got: Sequence[Mapping[str, Array]]) -> str | None:
    """The first output that is not the same, NaN in the same places, up to TOLERANCE of its range."""
    for theirs, ours in zip(expected, got, strict=True):
        for name, value in theirs.items():
            other = ours[name]
            if other.shape != value.shape or other.dtype != value.dtype:
                return f"{name!r} is {other.dtype} {other.shape}, expected {value.dtype} {value.shape}"
            if value.dtype.kind != "f":
                if not np.array_equal(value, other):
                    return f"{name!r} has other {value.dtype} values"
                continue
            a, b = value.astype(np.float64), other.astype(np.float64)
            finite = np.isfinite(a)
            if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
                return f"{name!r} has NaN or infinity in other places"
            if finite.any():
                scale = max(float(np.ptp(a[finite])), float(np.abs(a[finite]).max()), 1e-12)
                moved = float(np.abs(a[finite] - b[finite]).max()) / scale
                if not moved <= TOLERANCE:
                    return f"{name!r} moved by {moved:.1e} of its range, expected at most {TOLERANCE:.0e}"
    return None
