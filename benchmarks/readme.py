"""Writes the README's blocks on speed, size and memory from the committed results: `python -m benchmarks.readme`."""

import json
from pathlib import Path
from typing import Any

from benchmarks.kinds_operators import chained
from benchmarks.kinds_rows import CACHED, DEEP, FRAMES, UNCACHED
from benchmarks.readme_block import write_block

RESULTS = Path(__file__).parent / "results"
MODELS = ("pocketseal", "videoseal-1.0", "videoseal-0.0")
QUICK, LARGE = "videoseal-1.0", "chunkyseal"
FILES = {
    "detector.fp32.tflite": "TFLite float32",
    "detector.fp16.tflite": "TFLite FP16",
    "detector.int8.tflite": "TFLite INT8",
    "detector.onnx": "ONNX Runtime float32",
    "detector.int8.onnx": "ONNX Runtime INT8",
}


def small() -> list[str]:
    """Milliseconds of our files, and of the quickest that a user would run instead."""
    speeds = {model: json.loads((RESULTS / f"speed-{model}.json").read_text()) for model in MODELS}
    rows = {model: {row["name"]: row for row in speeds[model]["timed"]} for model in MODELS}
    peers = {model: {name: row for name, row in rows[model].items() if "bytes" not in row} for model in MODELS}
    machine = speeds[MODELS[0]]["machine"]
    lines = [
        f"Median milliseconds an image, megabytes in brackets; {speeds[MODELS[0]]['threads']} threads of an "
        f"{machine['processor']}, {machine['date']}, all files of a model interleaved in one run:",
        "",
        "| | " + " | ".join(MODELS) + " |",
        "|---|" + "--:|" * len(MODELS),
    ]
    for file, name in FILES.items():
        cells = [f"{rows[m][file]['median_ms']:.1f} ({rows[m][file]['bytes'] / 1e6:.1f})" for m in MODELS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name in peers[MODELS[0]]:
        cells = [f"{peers[m][name]['median_ms']:.1f}" if name in peers[m] else "" for m in MODELS]
        lines.append(f"| *{name}* | " + " | ".join(cells) + " |")
    return lines


def large() -> list[str]:
    """The model over 2 GB: its conversion, and each file's size, memory and bits."""
    results = json.loads((RESULTS / "large-export.json").read_text())
    measured = results[LARGE]["measured"]
    convert = measured["convert detector"]
    quick = results[QUICK]["measured"]["convert detector"]
    lines = [
        f"{QUICK} is converted to all its files in {quick['seconds']:.0f} s, of which {quick['own_seconds']:.0f} s are "
        f"this project's own. {_simplified(results)}",
        "",
        f"{LARGE}, {measured['export detector']['parameters'] / 1e6:.1f} million parameters, random weights: converted "
        f"in {convert['seconds'] / 60:.1f} minutes, at most "
        f"{max(convert['peak_rss_mb'], convert['converter_peak_rss_mb']) / 1e3:.1f} GB of memory in any process and "
        f"{convert['peak_disk_mb'] / 1e3:.1f} GB of disk.",
        "",
        "| file | MB | seconds an image | peak memory, MB | bits flipped |",
        "|---|--:|--:|--:|--:|",
    ]
    for key, row in measured.items():
        if key.startswith("run "):
            lines.append(
                f"| {key.removeprefix('run ')} | {row['bytes'] / 1e6:.0f} | {row['median_run_seconds']:.2f} "
                f"| {row['peak_rss_mb']} | {row['flipped_bits']} of {row['bits']} |"
            )
    return lines


def _simplified(results: dict[str, Any]) -> str:
    """What the graph's simplification takes, which does not grow with the weights."""
    parts = []
    for model in (QUICK, LARGE):
        steps = results[model]["measured"]["simplify detector"]["steps"]
        (step,) = (step for step in steps if step["step"].startswith("simplifying"))
        parts.append(f"{step['seconds']:.1f} s and {step['peak_rss_mb']} MB for {model}")
    return f"Simplification never sees large weights: it takes {' and '.join(parts)}."


KINDS = {
    "deepencoder": {"base": "DeepEncoder, a page of 1024 pixels"},
    "foveated": {
        "encode_frames": "foveated, a frame encoded",
        "query_deep": "one more deep look at 8 frames",
        DEEP: "both passes over 8 frames",
    },
    "captioner-large": {
        "encode_image": "captioner-large, an image encoded",
        "decode_image": "an image decoded",
        CACHED: "100 tokens",
        UNCACHED: "100 tokens without cache",
    },
}
FLOAT32 = ("ONNX Runtime fp32", "TFLite fp32")
OPERATORS = {
    ("deepencoder", "base"): "DeepEncoder",
    ("foveated", "encode_frames"): "a frame's encoder",
    ("foveated", "query_deep"): "a deep query",
    ("captioner-large", "decode_text_step"): "a step of the captioner",
}
RUNTIMES = ("torch eager", "ONNX Runtime fp32", "ONNX Runtime int8", "TFLite fp32", "TFLite int8")


def kinds() -> list[str]:
    """Milliseconds and peak memory of what each kind does most, on every runtime."""
    results = {model: json.loads((RESULTS / f"kinds-speed-{model}.json").read_text()) for model in KINDS}
    first = next(iter(results.values()))
    lines = [
        "Median milliseconds, and in brackets the peak megabytes of a process that does nothing else; random weights, "
        f"{first['threads']} threads of an {first['machine']['processor']}, {first['machine']['date']}, all files of a "
        "model in turn:",
        "",
        "| | " + " | ".join(RUNTIMES) + " |",
        "|---|" + "--:|" * len(RUNTIMES),
    ]
    for model, result in results.items():
        rows = {row["row"]: row for row in result["rows"]}
        for what, name in KINDS[model].items():
            found = [rows.get(f"{what}, {runtime}", {}) for runtime in RUNTIMES]
            cells = [f"{row['run_ms']:,.0f} ({row['peak_mb']:,.0f})" if "run_ms" in row else "" for row in found]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    ratios = {(row["row"], row["over"]): row["median"] for row in results["foveated"]["ratios"]}
    shares = [
        f"1/{1 / ratios[f'{query}, {runtime}', f'encode_frames, {runtime}']:.0f}"
        for query in ("query_shallow", "query_deep")
        for runtime in FLOAT32
    ]
    return [
        *lines,
        "",
        f"One more look at a frame that is held encoded costs, of encoding it: shallow {shares[0]} on ONNX Runtime "
        f"and {shares[1]} on TFLite, deep {shares[2]} and {shares[3]}. Both deep passes over 8 frames are "
        f"{_frames_a_second(results)} frames a second. {_loads(results)}",
        "",
        _operators(),
    ]


def _operators() -> str:
    """How many operators some graphs have after each stage."""
    rows = json.loads((RESULTS / "kinds-operators.json").read_text())["graphs"]
    found = {(row["model"], row["role"]): row for row in rows}
    parts = []
    for (model, role), name in OPERATORS.items():
        stages = [found[model, role][stage] for stage in ("exported", "prepared", "lowered")]
        counts = ", ".join(f"{sum(stage.values())} ({chained(stage)})" for stage in stages)
        parts.append(f"{name} {counts}")
    return (
        "Operators as exported, as prepared and as lowered to TFLite, in brackets those that only walk over shapes and "
        f"indices: {'; '.join(parts)}. Long attention is done some queries at a time, which is more operators and no "
        "map of hundreds of megabytes."
    )


def _frames_a_second(results: dict[str, Any]) -> str:
    """Of both deep passes, on each runtime in float32."""
    rows = {row["row"]: row for row in results["foveated"]["rows"]}
    rates = [1e3 * FRAMES / rows[f"{DEEP}, {runtime}"]["run_ms"] for runtime in FLOAT32]
    return " and ".join(f"{rate:.1f}" for rate in rates)


def _loads(results: dict[str, Any]) -> str:
    """How long the quickest and the slowest of all files take to load, and where the others' figures are."""
    rows = [(model, row) for model, result in results.items() for row in result["rows"] if row["file"]]
    found = [(row["load_ms"], model, row["file"]) for model, row in rows]
    quickest, slowest = (f"{ms / 1e3:.3f} s ({model}'s {file})" for ms, model, file in (min(found), max(found)))
    return (
        f"Loading a file, its hash checked, takes {quickest} to {slowest}: all of them, with their memory, are in "
        "`benchmarks/results/kinds-speed-*.json`."
    )


def main() -> None:
    note = "What limits each file is in [benchmarks/LIMITS.md](benchmarks/LIMITS.md)."
    write_block("speed", "\n".join([*small(), "", *large(), "", note, ""]))
    write_block("kinds", "\n".join([*kinds(), ""]))


if __name__ == "__main__":
    main()
