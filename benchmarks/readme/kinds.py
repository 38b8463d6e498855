"""The README's block on DeepEncoder, the foveated model and the captioner: time, memory and operators."""

from typing import Any

import msgspec

from backends.machine import Machine
from benchmarks.kinds_operators import count_removed
from benchmarks.readme import machines, measured_on, read, table
from benchmarks.whole_runs import CACHED, DEEP, FRAMES, UNCACHED

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


def kinds() -> str:
    """Return the block: time and peak memory of each kind's main graphs and runs on every runtime, and operators.

    The times are there once for each machine on which all models were measured.
    """
    first, *others = (set(machines(f"kinds-speed-{model}")) for model in KINDS)
    timed = [_timed(ending) for ending in sorted(first.intersection(*others))]
    return "\n\n".join([*timed, f"{_operators()}\n"])


def _timed(ending: str) -> str:
    results = {model: read(f"kinds-speed-{model}{ending}") for model in KINDS}
    first = next(iter(results.values()))
    place = measured_on(msgspec.convert(first["machine"], Machine), first["threads"])
    lines = []
    for model, result in results.items():
        rows = {row["row"]: row for row in result["rows"]}
        for role, name in KINDS[model].items():
            found = [rows.get(f"{role}, {runtime}", {}) for runtime in RUNTIMES]
            lines.append([name, *(_cell(row) for row in found)])
    return (
        "Median milliseconds, and in brackets the peak megabytes of a process that does nothing else; random weights, "
        f"{place}, all files of a model in turn:\n\n{table(['', *RUNTIMES], lines)}\n\n"
        f"{_looks(results['foveated'])} {_loads(results)}"
    )


def _cell(row: dict[str, Any]) -> str:
    return f"{row['run_ms']:,.0f} ({row['peak_mb']:,.0f})" if "run_ms" in row else ""


def _looks(result: dict[str, Any]) -> str:
    """Return sentences on the time of one more look at a frame, and on the frames a second of both deep passes."""
    ratios = {(row["row"], row["over"]): row["median"] for row in result["ratios"]}
    shares = [
        f"1/{1 / ratios[f'{query}, {runtime}', f'encode_frames, {runtime}']:.0f}"
        for query in ("query_shallow", "query_deep")
        for runtime in FLOAT32
    ]
    rows = {row["row"]: row for row in result["rows"]}
    rates = [f"{1e3 * FRAMES / rows[f'{DEEP}, {runtime}']['run_ms']:.1f}" for runtime in FLOAT32]
    return (
        f"One more look at a frame that is held encoded costs, of encoding it: shallow {shares[0]} on ONNX Runtime "
        f"and {shares[1]} on TFLite, deep {shares[2]} and {shares[3]}. Both deep passes over 8 frames are "
        f"{' and '.join(rates)} frames a second."
    )


def _loads(results: dict[str, Any]) -> str:
    """Return a sentence on the shortest and the longest load time of all files."""
    rows = [(model, row) for model, result in results.items() for row in result["rows"] if row["file"]]
    found = [(row["load_ms"], model, row["file"]) for model, row in rows]
    quickest, slowest = (f"{ms / 1e3:.3f} s ({model}'s {file})" for ms, model, file in (min(found), max(found)))
    return (
        f"Loading a file, its hash checked, takes {quickest} to {slowest}: all of them, with their memory, are in "
        "`benchmarks/results/kinds-speed-*.json`."
    )


def _operators() -> str:
    """Return sentences on the number of operators of some graphs after each stage."""
    found = {(row["model"], row["role"]): row for row in read("kinds-operators")["graphs"]}
    parts = []
    for key, name in OPERATORS.items():
        stages = [found[key][stage] for stage in ("exported", "prepared", "lowered")]
        parts.append(f"{name} {', '.join(f'{sum(stage.values())} ({count_removed(stage)})' for stage in stages)}")
    return (
        "Operators as exported, as prepared and as lowered to TFLite, in brackets those of kinds that the passes "
        "remove (Einsum, Resize, ScatterND, GatherND, If, and operators on shapes such as Expand): "
        f"{'; '.join(parts)}. Long attention is done some queries at a time, which is more operators and no map of "
        "hundreds of megabytes."
    )
