"""What every step of one conversion needs, and the two ways in which a file becomes an artifact."""

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from backends.tensor import Array
from toolkit.convert.binding import bind_tflite, check_onnx
from toolkit.convert.calibration import Calibrated
from toolkit.convert.converter import Progress, WorkerResult, run_worker
from toolkit.convert.onnx_quantize import quantize_onnx
from toolkit.convert.onnx_ranges import observe
from toolkit.convert.recipes import Recipe

# An artifact and its files, still outside the bundle.
Made = tuple[Artifact, tuple[Path, ...]]


@dataclass(frozen=True)
class Reference:
    """The float32 graph, inputs for it, and what ONNX Runtime makes of them."""

    path: Path
    artifact: Artifact
    feeds: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True)
class Job:
    """One conversion. `folder` is a temporary one inside the bundle's."""

    bundle: Bundle
    folder: Path
    log: Path
    timeout_s: float
    progress: Progress
    reference: Reference

    def run(self, task: str, **request: object) -> WorkerResult:
        """One request to the converter."""
        return run_worker({"task": task, **request}, self.folder, self.log, self.timeout_s, self.progress)

    def tflite(self, precision: str, route: str, path: Path, tools: dict[str, str]) -> Made:
        """A whole TFLite file, run and compared with the float32 graph."""
        parent = self.reference.artifact
        draft = replace(
            parent,
            file=f"{parent.role}.{precision}{'.tf' if route == 'tf' else ''}.tflite",
            format="tflite",
            precision=precision,
            route=route,
            sha256=sha256_of(path),
            bytes=path.stat().st_size,
            external_files=(),
            parent=parent.file,
            tools=tools,
        )
        self.progress(f"comparing {draft.file} with the float32 graph")
        return bind_tflite(path, draft, self.reference.feeds, self.reference.outputs), (path,)

    def onnx(self, recipe: Recipe, calibrated: Calibrated | None) -> Made:
        """The graph quantized for ONNX Runtime, run and compared with the float32 one."""
        parent = self.reference.artifact
        ranges = None
        if recipe.calibrated and calibrated is not None:
            self.progress("calibrating (ONNX Runtime)")
            ranges = observe(self.reference.path, parent, calibrated, self.folder)
        self.progress(f"quantizing to {recipe.name} (ONNX Runtime)")
        name = f"{parent.role}.{recipe.name}.onnx"
        files = quantize_onnx(self.reference.path, self.folder / name, recipe, ranges)
        artifact = replace(
            parent,
            file=name,
            precision=recipe.name,
            sha256=sha256_of(*files),
            bytes=sum(path.stat().st_size for path in files),
            external_files=tuple(path.name for path in files[1:]),
            parent=parent.file,
            tools={"onnxruntime": version("onnxruntime")},
        )
        check_onnx(files[0], artifact, self.reference.feeds, self.reference.outputs)
        return artifact, files
