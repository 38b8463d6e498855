"""The README's block on speed: files beside their peers, and the cost of the largest model."""

from typing import Any

import msgspec

from backends.machine import Machine
from benchmarks.readme import machines, measured_on, path_of, read, table
from toolkit.bench.peers import COMPILED, EAGER, EXPORTED, ONNX2TF, OPENVINO
from toolkit.bench.result import BenchResult

MODELS = ("pocketseal", "videoseal-1.0", "videoseal-0.0")
PEERS = (EAGER, COMPILED, EXPORTED, OPENVINO, ONNX2TF)
QUICK, LARGE = "videoseal-1.0", "chunkyseal"
FILES = {
    "detector.fp32.tflite": "TFLite float32",
    "detector.fp16.tflite": "TFLite FP16",
    "detector.int8.tflite": "TFLite INT8",
    "detector.onnx": "ONNX Runtime float32",
    "detector.int8.onnx": "ONNX Runtime INT8",
    "detector.onnx on openvino": "OpenVINO float32",
    "detector.onnx on openvino in bf16": "OpenVINO bf16",
}


def speed() -> str:
    """Return the block: the times of files and peers on each machine, then the cost of the largest model."""
    note = "What limits each file is in [benchmarks/LIMITS.md](benchmarks/LIMITS.md)."
    endings = {ending for model in MODELS for ending in machines(f"bench-{model}")}
    return "\n\n".join([*(_small(ending) for ending in sorted(endings)), _large(), note]) + "\n"


def _timed(model: str, ending: str = "") -> tuple[str, dict[str, float], dict[str, int]]:
    """Return the machine and its threads in words, and the medians in ms and the bytes of files, each by name.

    ending: of the result's name, as `machines` returns it. The figures are from a result of `toolkit bench --json`, or
    else from a result of the script that came before it.
    """
    path = path_of(f"bench-{model}{ending}")
    if path.is_file():
        result = BenchResult.read(path)
        files = [file for file in result.files if file.role == "detector" and file.in_use["runtime"] != "torch"]
        medians = {file.name: file.timing.median_ms for file in files}
        peers = [peer for peer in result.peers if peer.role == "detector" and peer.name in PEERS]
        medians |= {peer.name: peer.timing.median_ms for peer in peers if peer.timing is not None}
        return measured_on(result.machine, result.threads), medians, {file.name: file.bytes for file in files}
    older = read(f"speed-{model}")
    sizes = {row["name"]: row["bytes"] for row in older["timed"] if "bytes" in row}
    machine = measured_on(msgspec.convert(older["machine"], Machine), older["threads"])
    return machine, {row["name"]: row["median_ms"] for row in older["timed"]}, sizes


def _small(ending: str) -> str:
    """Return the milliseconds of files and of peers on one machine, as a paragraph and a table.

    The machine that has no ending has results of all models; another one has a column for each model measured there.
    """
    models = [model for model in MODELS if not ending or path_of(f"bench-{model}{ending}").is_file()]
    timed = [_timed(model, ending) for model in models]
    rows = [
        [name, *(f"{ms[file]:.1f} ({sizes[file] / 1e6:.1f})" for _, ms, sizes in timed)]
        for file, name in FILES.items()
        if all(file in ms for _, ms, _ in timed)  # results of older versions had default backends alone
    ]
    peers = [name for name in timed[0][1] if name not in timed[0][2]]
    rows += [[f"*{name}*", *(f"{ms[name]:.1f}" if name in ms else "" for _, ms, _ in timed)] for name in peers]
    return (
        f"Median milliseconds an image, megabytes in brackets; {timed[0][0]}, all files of a model interleaved in one "
        "run:\n\n" + table(["", *models], rows)
    )


def _large() -> str:
    """Return the cost of converting the model over 2 GB, and a table of its files' size, time, memory and bits."""
    results = read("large-export")
    measured, quick = results[LARGE]["measured"], results[QUICK]["measured"]["convert detector"]
    convert = measured["convert detector"]
    peak_mb = max(convert["peak_rss_mb"], convert["converter_peak_rss_mb"])
    parameters = measured["export detector"]["parameters"]
    runs = {key.removeprefix("run "): row for key, row in measured.items() if key.startswith("run ")}
    rows = [
        [file, f"{row['bytes'] / 1e6:.0f}", f"{row['median_run_seconds']:.2f}", str(row["peak_rss_mb"]),
         f"{row['flipped_bits']} of {row['bits']}"]
        for file, row in runs.items()
    ]  # fmt: skip
    return (
        f"{QUICK} is converted to all its files in {quick['seconds']:.0f} s, of which {quick['own_seconds']:.0f} s are "
        f"this project's own. Simplification never sees large weights: it takes {_simplified(results)}.\n\n"
        f"{LARGE}, {parameters / 1e6:.1f} million parameters, random weights: converted "
        f"in {convert['seconds'] / 60:.1f} minutes, at most {peak_mb / 1e3:.1f} GB of memory in any process and "
        f"{convert['peak_disk_mb'] / 1e3:.1f} GB of disk.\n\n"
        + table(["file", "MB", "seconds an image", "peak memory, MB", "bits flipped"], rows)
    )


def _simplified(results: dict[str, Any]) -> str:
    """Return the seconds and the memory of simplification, which do not grow with the weights, for two models."""
    parts = []
    for model in (QUICK, LARGE):
        steps = results[model]["measured"]["simplify detector"]["steps"]
        (step,) = (step for step in steps if step["step"].startswith("simplifying"))
        parts.append(f"{step['seconds']:.1f} s and {step['peak_rss_mb']} MB for {model}")
    return " and ".join(parts)
