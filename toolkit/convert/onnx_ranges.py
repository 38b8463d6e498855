"""The ranges of activations of an ONNX graph, seen on ONNX Runtime."""

from dataclasses import replace
from pathlib import Path

from backends.artifact import Artifact
from backends.errors import InvalidArtifact
from backends.registry import SESSIONS
from backends.tensor import Binding, TensorSpec
from graphs.onnx_file import load, save
from toolkit.convert.calibration import Calibrated
from toolkit.convert.onnx_quantize import calibrated_tensors
from toolkit.convert.worker.ranges import Observed


def observe(source: Path, artifact: Artifact, calibrated: Calibrated, folder: Path) -> dict[str, tuple[float, float]]:
    """Run a float32 graph on its samples, one after the other. Returns name -> (lowest, highest).

    `folder` holds a copy of the graph with more outputs meanwhile.
    """
    model = load(source)
    names = calibrated_tensors(model.graph)
    specs = []
    known = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    for value in [value for node in model.graph for value in node.outputs if value.name in names]:
        if value.shape is None or value.dtype is None or not value.shape.is_static():
            raise InvalidArtifact(f"{source}: does not state the shape of {value.name!r}; export it again")
        shape = tuple(int(size) for size in value.shape if isinstance(size, int))
        specs.append(TensorSpec(str(value.name), shape, value.dtype.numpy().name, None))
        if value.name not in known:
            model.graph.outputs.append(value)
    files = save(model, folder / "ranges.onnx")
    outputs = (*artifact.outputs, *(Binding.same(spec) for spec in specs if spec.name not in known))
    draft = replace(artifact, external_files=tuple(path.name for path in files[1:]), outputs=outputs)
    seen = {name: Observed() for name in names}
    with SESSIONS.load("ort")(files[0], draft, 1) as session:
        for run in range(calibrated.runs):
            feeds = calibrated.feeds(run)
            values = feeds | session.run(feeds)
            for name in names:
                seen[name].add(values[name])
    for path in files:
        path.unlink()
    return {name: observed.range(calibrated.method) for name, observed in seen.items()}
