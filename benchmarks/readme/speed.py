"""The README's block on speed: files beside their peers, and the cost of the largest model."""

from pathlib import Path
from typing import Any

from benchmarks.readme import RESULTS, read, table
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
    """Return the block: the times of files and peers, then the cost of the largest model."""
    note = "What limits each file is in [benchmarks/LIMITS.md](benchmarks/LIMITS.md)."
    return "\n\n".join([_small(), _large(), note]) + "\n"


def _timed(model: str) -> tuple[dict[str, Any], dict[str, float], dict[str, int]]:
    """Return the machine with its threads, the medians in ms by name, and the bytes by name of the bundle's files.

    They are from a result of `toolkit bench --json`, or else from a result of the script that came before it.
    """
    path: Path = RESULTS / f"bench-{model}.json"
    if path.is_file():
        result = BenchResult.read(path)
        files = [file for file in result.files if file.role == "detector" and file.in_use["runtime"] != "torch"]
        medians = {file.name: file.timing.median_ms for file in files}
        peers = [peer for peer in result.peers if peer.role == "detector" and peer.name in PEERS]
        medians |= {peer.name: peer.timing.median_ms for peer in peers if peer.timing is not None}
        machine = {"processor": result.machine.processor, "date": result.machine.date, "threads": result.threads}
        return machine, medians, {file.name: file.bytes for file in files}
    older = read(f"speed-{model}")
    sizes = {row["name"]: row["bytes"] for row in older["timed"] if "bytes" in row}
    machine = older["machine"] | {"threads": older["threads"]}
    return machine, {row["name"]: row["median_ms"] for row in older["timed"]}, sizes


def _small() -> str:
    """Return the milliseconds of files and of peers, as a paragraph and a table."""
    timed = [_timed(model) for model in MODELS]
    machine = timed[0][0]
    rows = [
        [name, *(f"{ms[file]:.1f} ({sizes[file] / 1e6:.1f})" for _, ms, sizes in timed)]
        for file, name in FILES.items()
        if all(file in ms for _, ms, _ in timed)  # results of older versions had default backends alone
    ]
    peers = [name for name in timed[0][1] if name not in timed[0][2]]
    rows += [[f"*{name}*", *(f"{ms[name]:.1f}" if name in ms else "" for _, ms, _ in timed)] for name in peers]
    return (
        f"Median milliseconds an image, megabytes in brackets; {machine['threads']} threads of an "
        f"{machine['processor']}, {machine['date']}, all files of a model interleaved in one run:\n\n"
        + table(["", *MODELS], rows)
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
