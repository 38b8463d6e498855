"""An ONNX file of anybody's becomes a bundle of kind "tensor": one graph, judged by its numbers alone."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidArtifact, InvalidInput
from backends.tensor import Binding
from graphs.external_data import external_files
from graphs.foreign import Shapes, Values, constants_of, infer_shapes, read_foreign, specs_of
from graphs.onnx_file import check, save
from graphs.prepare.pipeline import prepare
from toolkit.folders import replacing_folder
from toolkit.import_check import Feeds, Outputs, difference, outputs_of_source, run
from toolkit.parity.synthetic import signed_samples

Progress = Callable[[str], None]

KIND = "tensor"
ROLE = "model"
_SAMPLES = ("uniform noise 0", "normal noise 0", "all 1")
_TOOLS = ("onnx", "onnxsim", "onnxruntime")


def import_model(
    source: Path,
    folder: Path,
    shapes: Shapes,
    progress: Progress = lambda step: None,
    values: Values | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Make a bundle in `folder` from an ONNX file, in the place of an older bundle there.

    Inputs with one of `values` become constants. The graph is brought to our opset, simplified and prepared, and held
    to the source on ONNX Runtime; `note` is told where that cannot run the source itself, and of inputs that nothing
    reads, which are left out.
    Raises InvalidInput and InvalidArtifact as graphs.foreign.read_foreign; InvalidArtifact if the file cannot be run,
    if it gives other outputs at every run, or if the prepared graph does not compute what the file does.
    """
    progress(f"reading {source}")
    constants = constants_of(source, values or {})
    foreign = read_foreign(source, shapes, constants)
    inputs = specs_of(source, list(foreign.graph.inputs), "input")
    digest = sha256_of(source, *external_files(source))
    progress("running it")
    feeds = [dict(sample.feeds) for sample in signed_samples(inputs) if sample.name in _SAMPLES]
    expected = outputs_of_source(source, [feed | constants for feed in feeds], note)
    with replacing_folder(folder) as building:
        plain = building / "plain.onnx"
        progress("bringing it to our opset")
        plain_files = save(foreign, plain)
        progress("simplifying and preparing the graph")
        model, _ = prepare(foreign, {}, stepwise=False)
        model = infer_shapes(model)
        if not list(model.graph):
            raise InvalidInput(f"{source}: no operator is left of it: its outputs do not depend on its inputs' values")
        for value in [one for one in model.graph.inputs if not one.uses() and not one.is_graph_output()]:
            model.graph.inputs.remove(value)
            note(f"{source}: input {value.name!r}: nothing reads it, so that the bundle has no such input")
        inputs = tuple(spec for spec in inputs if spec.name in {value.name for value in model.graph.inputs})
        outputs = specs_of(source, list(model.graph.outputs), "output")
        path = building / f"{ROLE}.onnx"
        files = save(model, path)
        check(path)
        progress("comparing with the source on ONNX Runtime")
        _compare(source, expected, plain, path, feeds, {spec.name for spec in inputs})
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


def _compare(source: Path, expected: Outputs, plain: Path, prepared: Path, feeds: Feeds, read: set[str]) -> None:
    """Raise InvalidArtifact where a graph does not give what the source gives. read: the inputs that `prepared` has."""
    fewer = [{name: value for name, value in feed.items() if name in read} for feed in feeds]
    for path, what, given in ((plain, "brought to our opset", feeds), (prepared, "simplified and prepared", fewer)):
        if found := difference(expected, run(path, given)):
            raise InvalidArtifact(f"{source}: {what} it gives other outputs: {found}")
