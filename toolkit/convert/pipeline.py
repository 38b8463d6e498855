"""Adds lowered and quantized artifacts to a bundle."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidInput
from backends.registry import open_session
from backends.tensor import Array, Binding
from graphs.export import probe
from toolkit.convert.binding import bind_tflite, check_onnx
from toolkit.convert.calibration import read_calibration
from toolkit.convert.converter import Progress, WorkerResult, run_worker
from toolkit.convert.onnx_int8 import quantize_onnx
from toolkit.environments import converter_python

PRECISIONS = {"direct": ("fp32", "fp16", "int8", "int8-static"), "tf": ("fp32", "fp16", "int8")}
DEFAULT_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class _Reference:
    """The float32 graph, inputs for it, and what ONNX Runtime makes of them."""

    path: Path
    artifact: Artifact
    feeds: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True)
class _Job:
    """What every step of one conversion needs. `folder` is a temporary one inside the bundle's."""

    bundle: Bundle
    folder: Path
    log: Path
    timeout_s: float
    progress: Progress
    reference: _Reference

    def run(self, task: str, model: Path, **request: object) -> WorkerResult:
        """One request to the converter."""
        content = {"task": task, "model": str(model), **request}
        return run_worker(content, self.folder, self.log, self.timeout_s, self.progress)

    def copy_graph(self) -> Path:
        """The float32 graph in the temporary folder: onnx2tf writes over the file it is given."""
        for name in self.reference.artifact.files:
            shutil.copyfile(self.bundle.folder / name, self.folder / name)
        return self.folder / self.reference.artifact.file


def convert_bundle(
    folder: Path,
    precisions: Sequence[str] = ("fp32", "fp16", "int8"),
    route: str = "direct",
    calibration: Path | None = None,
    progress: Progress = lambda step: None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Bundle:
    """Lower the detector of a bundle, and add the files to the bundle once all of them are made and checked.

    The direct route makes detector.PRECISION.tflite for fp32, fp16, int8 and int8-static, and with int8 also
    detector.int8.onnx; the tf route makes detector.PRECISION.tf.tflite for fp32, fp16 and int8. int8-static needs
    `calibration`, a folder of images. timeout_s bounds each run of the converter; its log is convert-ROUTE.log.
    Every file is run and compared with the float32 graph on ONNX Runtime.
    Raises InvalidInput for wrong options, NotAvailable without a bundle or a converter, ConversionFailed, and
    InvalidArtifact for a result that is not close to the float32 graph. Then the bundle is as it was.
    """
    bundle = Bundle.open(folder.resolve())  # the converter runs in a folder of its own
    precisions = _check_options(precisions, route, calibration)
    parent = bundle.find("detector", "onnx", "fp32")
    path = bundle.verify(parent)
    samples = None
    if "int8-static" in precisions and calibration is not None:
        progress(f"reading calibration images from {calibration}")
        samples = read_calibration(calibration, parent.inputs[0].spec.shape[-1])
    converter_python()  # a missing converter is said before anything is computed
    feeds = probe(tuple(binding.spec for binding in parent.inputs))
    with open_session(bundle, parent, "ort", threads=1) as session:
        outputs = session.run(feeds)
    log = bundle.folder / f"convert-{route}.log"
    log.write_text("", encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=bundle.folder) as name:
        job = _Job(bundle, Path(name), log, timeout_s, progress, _Reference(path, parent, feeds, outputs))
        made = _direct(job, precisions, samples) if route == "direct" else _tensorflow(job, precisions)
        for artifact, files in made:
            for file, target in zip(files, artifact.files, strict=True):
                file.replace(bundle.folder / target)
            bundle = bundle.with_artifact(artifact)
    bundle.write()
    return bundle


def _check_options(precisions: Sequence[str], route: str, calibration: Path | None) -> tuple[str, ...]:
    if route not in PRECISIONS:
        raise InvalidInput(f"route: expected one of {', '.join(PRECISIONS)}, got {route!r}")
    if unknown := [precision for precision in precisions if precision not in PRECISIONS[route]]:
        known = ", ".join(PRECISIONS[route])
        raise InvalidInput(f"the {route} route makes {known}, not {', '.join(map(repr, unknown))}")
    if not precisions:
        raise InvalidInput(f"no precision given; the {route} route makes {', '.join(PRECISIONS[route])}")
    if ("int8-static" in precisions) != (calibration is not None):
        raise InvalidInput("int8-static and a calibration folder go together: give both or neither")
    return tuple(precision for precision in PRECISIONS[route] if precision in precisions)


_Made = list[tuple[Artifact, tuple[Path, ...]]]


def _direct(job: _Job, precisions: tuple[str, ...], samples: Array | None) -> _Made:
    lowered = job.run("lower", job.copy_graph())
    base = _tflite(job, "fp32", "direct", lowered.files["fp32"], job.reference.artifact.file, lowered.tools)
    made: _Made = [(base, (lowered.files["fp32"],))] if "fp32" in precisions else []
    if quantized := [precision for precision in precisions if precision != "fp32"]:
        npz = None if samples is None else _write_samples(job.folder / "calibration.npz", base.inputs[0], samples)
        result = job.run("quantize", lowered.files["fp32"], precisions=quantized, calibration=npz)
        tools = lowered.tools | result.tools
        for precision in quantized:
            file = result.files[precision]
            made.append((_tflite(job, precision, "direct", file, job.reference.artifact.file, tools), (file,)))
    if "int8" in precisions:
        job.progress("quantizing to int8 (ONNX Runtime)")
        made.append(_onnx_int8(job))
    return made


def _tensorflow(job: _Job, precisions: tuple[str, ...]) -> _Made:
    outputs = [binding.spec.name for binding in job.reference.artifact.outputs]
    result = job.run("lower-tf", job.copy_graph(), precisions=list(precisions), outputs=outputs)
    return [
        (_tflite(job, precision, "tf", file, job.reference.artifact.file, result.tools), (file,))
        for precision, file in result.files.items()
    ]


def _tflite(job: _Job, precision: str, route: str, path: Path, parent: str, tools: dict[str, str]) -> Artifact:
    suffix = ".tf.tflite" if route == "tf" else ".tflite"
    draft = replace(
        job.reference.artifact,
        file=f"{job.reference.artifact.role}.{precision}{suffix}",
        format="tflite",
        precision=precision,
        route=route,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        external_files=(),
        parent=parent,
        tools=tools,
    )
    job.progress(f"comparing {draft.file} with the float32 graph")
    return bind_tflite(path, draft, job.reference.feeds, job.reference.outputs)


def _onnx_int8(job: _Job) -> tuple[Artifact, tuple[Path, ...]]:
    parent = job.reference.artifact
    name = f"{parent.role}.int8.onnx"
    files = quantize_onnx(job.reference.path, job.folder / name)
    artifact = replace(
        parent,
        file=name,
        precision="int8",
        sha256=sha256_of(*files),
        bytes=sum(path.stat().st_size for path in files),
        external_files=tuple(path.name for path in files[1:]),
        parent=parent.file,
        tools={"onnxruntime": version("onnxruntime")},
    )
    check_onnx(files[0], artifact, job.reference.feeds, job.reference.outputs)
    return artifact, files


def _write_samples(path: Path, binding: Binding, samples: Array) -> str:
    """Calibration images in the layout of the file's own input, one run of the file each."""
    batch = binding.spec.shape[0]
    runs = [samples[start : start + batch] for start in range(0, len(samples) - batch + 1, batch)]
    arrays: dict[str, Any] = {binding.spec.name: np.stack([binding.to_stored(run) for run in runs])}
    np.savez(path, **arrays)
    return str(path)
