"""What DeepEncoder, the foveated model and the captioner cost: time, load time and peak memory of every file.

    python -m benchmarks.kinds_speed build/deepencoder [--rounds N] [--limit-s S] [--json FILE]

Every file of the bundle and, for some, the graph as it was exported; for foveated also both passes over 8 frames, for
captioner 100 tokens with the cache and without. A round runs each once, in random order, in a process of its own, so
that only one model is in memory and each peak is its own; one that fails loses its own row of that round and nothing
else. The figures are kept in FILE after every process, and a file that is there is gone on with: rounds that it lacks
are run, until S seconds are over. A ratio is the median over rounds of one row's time over another's in the same round.
The bundle needs its torch weights. The graph as exported is written to BUNDLE-exported, once.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import NotAvailable
from backends.machine import default_threads, describe
from backends.registry import default_backend
from backends.sandbox import how_it_ended
from benchmarks.kinds_rows import CACHED, DEEP, FRAMES, SHALLOW, UNCACHED, WHOLES, Row
from toolkit.bench.unprepared import NAME, write_unprepared

RUNTIMES = {"ort": "ONNX Runtime", "tflite": "TFLite", "torch": "torch eager"}
EXPORTED = "ONNX Runtime, as exported"
UNPREPARED = {"deepencoder": ("base",), "foveated": ("encode_frames",), "captioner": ("encode_image", "decode_image")}
TIMEOUT_S = 300


def rows_of(bundle: Bundle) -> list[Row]:
    """Every file, every whole run on each runtime and precision that has all of its graphs, and graphs as exported."""
    kind, folder = bundle.model["kind"], str(bundle.folder)
    rows = [
        Row(_name(a.format, a.precision), a.role, folder, a.file, default_backend(a.format).name, a.precision)
        for a in bundle.artifacts
    ]
    roles = {artifact.role for artifact in bundle.artifacts}
    for file_format, precision in dict.fromkeys((a.format, a.precision) for a in bundle.artifacts):
        has = {a.role for a in bundle.artifacts if (a.format, a.precision) == (file_format, precision)}
        if has == roles:
            rows += [
                Row(_name(file_format, precision), whole, folder, None, default_backend(file_format).name, precision)
                for whole in WHOLES.get(kind, ())
            ]
    for role in UNPREPARED[kind]:
        if role in roles:
            rows.append(Row(EXPORTED, role, str(exported(bundle, role)), NAME, "ort", "fp32"))
    return rows


def _name(file_format: str, precision: str) -> str:
    runtime = RUNTIMES[default_backend(file_format).name]
    return runtime if file_format == "torch" else f"{runtime} {precision}"


def exported(bundle: Bundle, role: str) -> Path:
    """A bundle of the unprepared graph of a role, made once. Raises NotAvailable without torch weights."""
    folder = bundle.folder.with_name(f"{bundle.folder.name}-exported") / role
    with contextlib.suppress(NotAvailable):  # none yet
        if Bundle.open(folder).weights == bundle.weights:
            return folder
    bundle.find(role, "torch", "fp32")  # raises before there is a folder
    folder.mkdir(parents=True, exist_ok=True)
    Bundle(folder, bundle.model, bundle.weights, (write_unprepared(bundle, role, folder, None),)).write()
    return folder


def run_alone(row: Row, threads: int) -> dict[str, Any]:
    """What a process of its own measured, or {"error"}."""
    command = [sys.executable, "-m", "benchmarks.kinds_rows", json.dumps(asdict(row)), str(threads)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {TIMEOUT_S} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": f"{how_it_ended(done.returncode)}: {last}"}
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def pairs(kind: str) -> Iterable[tuple[str, str, float]]:
    """Of which two rows a ratio is taken, and what it is multiplied by: a query's run looks at 8 frames."""
    ort, tflite, torch = "ONNX Runtime fp32", "TFLite fp32", RUNTIMES["torch"]
    whats = {"deepencoder": ["base"], "foveated": ["encode_frames", "query_deep", "language", "predict", SHALLOW, DEEP]}
    for what in whats.get(kind, ["encode_image", "decode_image", CACHED, UNCACHED]):
        yield f"{what}, {ort}", f"{what}, {torch}", 1
        yield f"{what}, {tflite}", f"{what}, {torch}", 1
        yield f"{what}, {ort}", f"{what}, {EXPORTED}", 1
        yield f"{what}, ONNX Runtime int8", f"{what}, {ort}", 1
        yield f"{what}, TFLite int8", f"{what}, {tflite}", 1
    for runtime in (ort, tflite, torch):
        if kind == "foveated":
            for query in ("query_shallow", "query_deep"):
                yield f"{query}, {runtime}", f"encode_frames, {runtime}", 1 / FRAMES
        if kind == "captioner":
            yield f"{UNCACHED}, {runtime}", f"{CACHED}, {runtime}", 1


def ratios(kind: str, rounds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Median, lowest and highest over the rounds in which both rows ran."""
    found = []
    for one, other, by in pairs(kind):
        both = zip(rounds.get(one, ()), rounds.get(other, ()), strict=False)
        values = [by * a["run_ms"] / b["run_ms"] for a, b in both if "run_ms" in a and "run_ms" in b]
        if values:
            found.append({"row": one, "over": other, "median": float(np.median(values)), "times": by})
            found[-1] |= {"low": min(values), "high": max(values), "rounds": len(values)}
    return found


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of a row over its rounds; the highest of its peaks."""
    good = [one for one in rounds if "error" not in one]
    if not good:
        return {}
    medians: dict[str, Any] = {
        key: None if good[0][key] is None else round(float(np.median([one[key] for one in good])), 3)
        for key in ("load_ms", "first_run_ms", "run_ms")
    }
    return medians | {key: round(max(one[key] for one in good), 1) for key in ("peak_mb", "peak_before_load_mb")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit-s", type=float, default=float("inf"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    start, threads = time.perf_counter(), default_threads()
    bundle = Bundle.open(arguments.bundle.resolve())
    rows = {row.key: row for row in rows_of(bundle)}
    hashes = {key: _sha256(row) for key, row in rows.items()}
    rounds: dict[str, list[dict[str, Any]]] = {key: [] for key in rows}
    if arguments.json and arguments.json.is_file():
        for known in json.loads(arguments.json.read_text(encoding="utf-8"))["rows"]:
            if hashes.get(known["row"]) == known["sha256"]:
                rounds[known["row"]] = known["rounds"]
    for number in range(arguments.rounds):
        for key in np.random.default_rng(number).permutation(list(rows)):
            if len(rounds[key]) > number:
                continue
            if time.perf_counter() - start > arguments.limit_s:
                return
            rounds[key].append(run_alone(rows[key], threads))
            print(f"round {number + 1}: {key}: {rounds[key][-1]}", flush=True)
            result = {
                "machine": describe(),
                "model": bundle.model["name"],
                "weights": f"{bundle.weights['origin']}, {bundle.weights['source']}",
                "threads": threads,
                "rows": [
                    {"row": key, **_facts(row), "sha256": hashes[key], **summary(rounds[key]), "rounds": rounds[key]}
                    for key, row in rows.items()
                ],
                "ratios": ratios(bundle.model["kind"], rounds),
            }
            if arguments.json:
                arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _sha256(row: Row) -> str:
    """Of the file that a row runs, or of the files of a whole run together."""
    artifacts = Bundle.open(Path(row.folder)).artifacts
    files = [a.sha256 for a in artifacts if a.file == row.file]
    if row.file is None:
        files = [
            a.sha256 for a in artifacts if (default_backend(a.format).name, a.precision) == (row.backend, row.precision)
        ]
    return " ".join(dict.fromkeys(files))


def artifact_of(row: Row) -> Artifact | None:
    """What the manifest says of the file that a row runs; None of a whole run."""
    return next((a for a in Bundle.open(Path(row.folder)).artifacts if a.file == row.file), None)


def _facts(row: Row) -> dict[str, Any]:
    artifact = artifact_of(row)
    return {"file": row.file, "bytes": None if artifact is None else artifact.bytes}


if __name__ == "__main__":
    main()
