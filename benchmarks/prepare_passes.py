"""What each installed pass is worth, on ONNX Runtime and on TFLite.

    python -m benchmarks.prepare_passes [--model videoseal-1.0] [--rounds 40] [--json FILE]

A row is the graph after one pass more than the row above it, lowered and quantized as `toolkit convert` does it. All
graphs are timed in turn, in random order, on one thread; what counts is a row's time over that of the row above,
round by round, so that a machine that slows down slows both. Times are CPU time of the thread: another program on
the same cores changes them little. Weights are random: time does not depend on them.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from ai_edge_litert.interpreter import Interpreter

from backends.machine import describe
from backends.precision import RECIPES
from backends.tensor import probe
from graphs.checkpoint import random_weights
from graphs.export import build_loaded, export
from graphs.networks.models import find_spec
from graphs.onnx.file import save
from graphs.passes.pipeline import prepare
from graphs.passes.registry import passes
from graphs.passes.simplify import simplify
from toolkit.convert.converter import run_worker

Run = Callable[[], object]

COLUMNS = ("ort_fp32", "tflite_fp32", "tflite_int8")


def build(model: str, folder: Path) -> dict[str, dict[str, Any]]:
    """row -> column -> file, and what changed; rows whose pass changes nothing are left out."""
    spec = find_spec(model)
    graph = spec.graph("detector")
    exported = ir.to_proto(export(build_loaded(graph, random_weights(0, spec).states["detector"]), graph))
    feeds = probe(graph.inputs)
    rows: dict[str, dict[str, Any]] = {}
    export_steps, lowering_steps = passes("export"), passes("lowering")
    # onnxsim runs on every row, the first one included: the files of a row without it would say little.
    added = [simplify, *(step for step in (*export_steps, *lowering_steps) if step is not simplify)]
    for count, last in enumerate(added, start=1):
        so_far = added[:count]
        steps = [step for step in export_steps if step in so_far]
        prepared, changed = prepare(ir.from_proto(exported), feeds, steps)
        steps = [step for step in lowering_steps if step in so_far]
        lower, changed_too = prepare(ir.from_proto(ir.to_proto(prepared)), feeds, steps)
        name = last.name
        if name not in (*changed, *changed_too):
            print(f"{name}: changes nothing in {model}")
            continue
        place = folder / name
        place.mkdir()
        save(prepared, place / "detector.onnx")
        save(lower, place / "lower.onnx")
        log = place / "log"
        lowered = run_worker({"task": "lower", "models": {name: str(place / "lower.onnx")}}, place, log, 3600, print)
        models, recipe = {name: str(lowered.files[name])}, RECIPES["int8"]
        request = {"task": "quantize", "models": models, "recipes": {"int8": recipe.to_worker()}, "calibration": {}}
        quantized = run_worker(request, place, log, 3600, print)
        rows[name] = {
            "ort_fp32": place / "detector.onnx",
            "tflite_fp32": lowered.files[name],
            "tflite_int8": quantized.files[f"{name}.int8"],
            "operators": dict(Counter(node.op_type for node in prepared.graph).most_common()),
        }
    return rows


def opened(path: Path, image: Any) -> Run:
    """A function that runs a file once on one thread of the caller."""
    if path.suffix == ".onnx":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"image": image})
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.transpose(0, 2, 3, 1))
    return interpreter.invoke


def measure(rows: dict[str, dict[str, Any]], image: Any, rounds: int) -> dict[tuple[str, str], Any]:
    """(row, column) -> CPU milliseconds of each round."""
    runs = {(row, column): opened(files[column], image) for row, files in rows.items() for column in COLUMNS}
    for run in runs.values():
        run(), run()
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    order = np.random.default_rng(0)
    keys = list(runs)
    for _ in range(rounds):
        for index in order.permutation(len(keys)):
            start = time.thread_time()
            runs[keys[index]]()
            times[keys[index]].append((time.thread_time() - start) * 1e3)
    return {key: np.array(values) for key, values in times.items()}


def report(rows: dict[str, dict[str, Any]], times: dict[tuple[str, str], Any]) -> list[dict[str, Any]]:
    """One object a row: median times, and quartiles of the ratio to the row above."""
    result: list[dict[str, Any]] = []
    names = list(rows)
    for above, name in zip([None, *names], names, strict=False):
        entry: dict[str, Any] = {"pass": name, "operators": rows[name]["operators"], "median_ms": {}, "ratio": {}}
        for column in COLUMNS:
            mine = times[name, column]
            entry["median_ms"][column] = round(float(np.median(mine)), 2)
            if above is not None:
                quartiles = np.quantile(mine / times[above, column], [0.25, 0.5, 0.75])
                entry["ratio"][column] = [round(float(value), 3) for value in quartiles]
        result.append(entry)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="may be repeated; videoseal-1.0 and pocketseal by default")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "prepare-passes.json")
    options = parser.parse_args()
    models = {}
    for model in options.model or ["videoseal-1.0", "pocketseal"]:
        with tempfile.TemporaryDirectory() as folder:
            rows = build(model, Path(folder))
            image = probe(find_spec(model).graph("detector").inputs)["image"]
            models[model] = report(rows, measure(rows, image, options.rounds))
        for row in models[model]:
            print(f"{model} {row['pass']:26} {row['median_ms']} {row['ratio']}")
    document = {
        "what": "CPU ms on one thread; ratio = quartiles of a row's time over the row above, interleaved",
        "machine": describe(),
        "rounds": options.rounds,
        "models": models,
    }
    options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
