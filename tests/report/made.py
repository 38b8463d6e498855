"""Evidence of a model that never ran: seeded logits through the real comparison, and figures by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle, WeightsOrigin
from backends.machine import Machine
from backends.profiling import OperatorTime, by_op_type
from backends.registry import default_backend
from backends.tensor import Binding, TensorSpec
from toolkit.bench.result import BenchResult, ColdStart, FileProfile, FileResult, ModuleTotal, PeerResult
from toolkit.bench.rounds import Timing
from toolkit.bisect.result import BisectReport, LayerReport, Unmatched
from toolkit.images.samples import shipped_photographs
from toolkit.metrics.error import LARGEST
from toolkit.metrics.judges import Judge
from toolkit.metrics.samples import Sample
from toolkit.models.kind import find_kind
from toolkit.models.watermark.compare import sample_name
from toolkit.models.watermark.judge import MessageJudge
from toolkit.models.watermark.message import Message
from toolkit.parity.report import FileReport, ParityReport, RoleReport, judge
from toolkit.parity.stream import RunningComparison
from toolkit.report.evidence import Evidence

BITS = 64
DISTORTIONS = ("none", "JPEG 50", "flip")
# File -> format, precision, bytes, median ms, and how far its logits are from the reference's: one file fails.
FILES = {
    "detector.safetensors": ("torch", "fp32", 5_600_000, 12.0, 0.0),
    "detector.onnx": ("onnx", "fp32", 5_620_000, 3.4, 1e-7),
    "detector.fp16.tflite": ("tflite", "fp16", 2_880_000, 3.3, 1e-6),
    "detector.int8.tflite": ("tflite", "int8", 1_600_000, 1.7, 0.02),
    "detector.int8.onnx": ("onnx", "int8", 1_550_000, 3.5, 1e-5),
}
VERSIONS = {"numpy": "2.4.6", "onnxruntime": "1.31.1"}
MACHINE = Machine("2026-01-02", "Linux x86_64", "3.11.7", 2, VERSIONS, "A processor", ["avx2"])


def artifact(file: str, format: str, precision: str, size: int) -> Artifact:
    image = TensorSpec("image", (1, 3, 8, 8), "float32", "NCHW")
    logits = TensorSpec("logits", (1, 1 + BITS), "float32", None)
    return Artifact(
        file=file,
        role="detector",
        format=format,
        precision=precision,
        route="direct" if format == "tflite" else None,
        inputs=(Binding.same(image),),
        outputs=(Binding.same(logits),),
        sha256=f"{len(file):064x}",
        bytes=size,
        external_files=(),
        parent="detector.onnx" if format == "tflite" else None,
        tools={"torch": "2.13.0"},
        architecture={"name": "x", "config": {}} if format == "torch" else None,
    )


def bundle(name: str = "made", origin: str = "trained") -> Bundle:
    artifacts = tuple(artifact(file, *about[:3]) for file, about in FILES.items())
    model = {"name": name, "kind": "watermark", "bits": BITS, "image_size_px": 8, "detection_threshold": 0.0}
    return Bundle(Path(name), model, WeightsOrigin(origin, "0" * 64, "by hand"), artifacts)


def _samples() -> list[tuple[Sample, np.ndarray]]:
    rng = np.random.default_rng(0)
    samples = []
    for path in shipped_photographs():
        message = Message(tuple(rng.integers(0, 2, BITS).tolist()))
        for distortion in DISTORTIONS:
            signs = np.array([1, *message.bits]) * 2.0 - 1
            logits = (signs * np.abs(rng.normal(0, 4, 1 + BITS)))[None].astype(np.float32)
            samples.append((Sample(sample_name(path, "marked", distortion), "marked", {}, message.bits), logits))
    samples.append((Sample("all 0", "synthetic", {}, None), rng.normal(0, 1, (1, 1 + BITS)).astype(np.float32)))
    return samples


def compared(made_of: Bundle, drift: dict[str, float], judge_of: Judge | None = None) -> ParityReport:
    """The parity of a bundle whose files lie `drift` away from the reference, by the comparison's own code."""
    reference, *others = made_of.artifacts
    reports = []
    for entry in others:
        rng = np.random.default_rng(1)
        running = RunningComparison(reference.file, judge_of or MessageJudge(BITS, 0.0))
        step = RunningComparison("detector.onnx", MessageJudge(BITS, 0.0)) if entry.parent else None
        for sample, logits in _samples():
            noise = rng.normal(0, np.sqrt(np.mean(logits**2)), logits.shape).astype(np.float32)
            got = {"logits": logits + np.float32(drift[entry.file]) * noise}
            running.add(sample, got, {"logits": logits})
            if step is not None:
                step.add(sample, got, {"logits": logits})
        tolerance = find_kind("watermark").tolerance("detector", entry.precision)
        random = made_of.weights.is_random
        total = running.result()
        checks = judge(total, tolerance, random)
        backend = default_backend(entry.format).name
        compared_step = step and step.result()
        reports.append(FileReport(entry, backend, total, compared_step, checks, None, tolerance.reason, entry.file))
    samples = {"marked": len(_samples()) - 1, "synthetic": 1}
    role = RoleReport("detector", reference, samples, 0, tuple(reports))
    return ParityReport(made_of.model["name"], "watermark", made_of.weights, (role,), ())


def on_another_backend(parity: ParityReport, file: str, precision: str | None = None) -> ParityReport:
    """The report with one more entry: `file` on a second backend, which reads every bit as the first does.

    precision: one without files of its own, in which the backend ran it.
    """
    (role,) = parity.roles
    (first,) = [one for one in role.files if one.artifact.file == file]
    second = replace(first, backend="openvino", name=f"{file} on openvino")
    if precision is not None:
        ran = replace(first.artifact, precision=precision)
        second = replace(second, artifact=ran, name=f"{file} on openvino in {precision}")
    return replace(parity, roles=(replace(role, files=(*role.files, second)),))


def benched(made_of: Bundle) -> BenchResult:
    slowest = FILES["detector.safetensors"][3]
    results = tuple(
        FileResult(
            file=entry.file, role=entry.role, precision=entry.precision, route=entry.route, sha256=entry.sha256,
            bytes=entry.bytes, timing=Timing(64, FILES[entry.file][3], 1.0, 2.0, None, 0.02, settled=True),
            of_reference=FILES[entry.file][3] / slowest, in_use={"runtime": "onnxruntime", "version": "1.31.1"},
            alone=ColdStart(10.0, 4.0, 4.0, None, 50_000_000, 30_000_000), group=1, streams=(),
            runs_a_second=100.0, batches=(),
        )
        for entry in made_of.artifacts
    )  # fmt: skip
    reference = {"detector": "detector.safetensors"}
    failed = PeerResult("openvino", "detector", "not installed")
    model = made_of.model
    return BenchResult(MACHINE, model["name"], model["kind"], made_of.weights, 2, reference, results, (failed,))


def bisected(candidate: str = "detector.int8.tflite", model: str = "made", layers: int = 20) -> BisectReport:
    rng = np.random.default_rng(2)
    told = [
        LayerReport(
            tensor=f"layer_{index}",
            onnx_node=f"node_conv2d_{index}",
            onnx_op="Conv",
            tflite_ops=("CONV_2D",),
            module=f"body.{index}",
            shape=(1, 8, 4, 4),
            inherited=0.01 + 0.001 * index,
            introduced=float(rng.uniform(1e-4, 1e-3)),
        )
        for index in range(layers)
    ]
    if layers > 7:
        told[7] = replace(told[7], introduced=0.05)
        told[5] = replace(told[5], introduced=0.0)
        told[4] = replace(told[4], inherited=LARGEST)
    unmatched = (Unmatched("dropped", "the file holds no such tensor"),)
    weights = WeightsOrigin("trained", "0" * 64, "by hand")
    return BisectReport(
        model, weights, candidate, "detector.onnx", ("a", "b", "c"), tuple(told), unmatched, "repro/layer_7"
    )


def made(
    made_of: Bundle | None = None, drift: dict[str, float] | None = None, judge_of: Judge | None = None, **changed: Any
) -> Evidence:
    """Everything there is; `changed` replaces fields of the Evidence."""
    made_of = made_of or bundle()
    drift = {file: about[4] for file, about in FILES.items()} | (drift or {})
    times = [OperatorTime(kind, ms) for kind, ms in (("Conv", 1.0), ("Gemm", 0.5), ("Conv", 0.25), ("Add", 0.25))]
    by_module = (ModuleTotal("body.0", 2, 1.25, 0.625),)
    profile = FileProfile("detector.onnx", "detector", "onnxruntime", by_op_type(times), by_module, "")
    parity = compared(made_of, drift, judge_of)
    bisections = [bisected(model=made_of.model["name"])]
    evidence = Evidence(made_of, parity, benched(made_of), [profile], bisections, MACHINE, {})
    return replace(evidence, **changed)
