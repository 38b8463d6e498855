"""What each pass of graphs/passes is worth, on ONNX Runtime and on TFLite.

    python -m benchmarks.prepare_passes [--model videoseal-1.0] [--rounds 40] [--json FILE]

A row is the graph after one pass more than the row above it, lowered and quantized as `toolkit convert` does it; a pass
that changes nothing has no row. A ratio is a row's time over that of the row above, in the same round. Times are CPU
time of one thread: another program on the same cores changes them little. Weights are random: time does not depend on
them.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import onnx_ir as ir
import onnxruntime
from ai_edge_litert.interpreter import Interpreter

from backends.machine import describe
from backends.precision import RECIPES
from backends.tensor import probe
from backends.timing import Quartiles, Rounds, Timing, time_rounds
from graphs.checkpoint import random_weights
from graphs.export import build_loaded, export
from graphs.networks.models import find_spec
from graphs.onnx.file import save
from graphs.passes.pipeline import prepare
from graphs.passes.registry import passes
from graphs.passes.simplify import simplify
from toolkit.convert.converter import run_worker

COLUMNS = ("ort_fp32", "tflite_fp32", "tflite_int8")


def write_rows(exported: ir.Model, feeds: Any, folder: Path) -> dict[str, dict[str, Path]]:
    """Write the files of each row, and return their paths by pass and column. The first row is only simplified."""
    proto, rows = ir.to_proto(exported), dict[str, dict[str, Path]]()
    before, behind = passes("export"), passes("lowering")
    order = [simplify, *(step for step in (*before, *behind) if step is not simplify)]
    for count, last in enumerate(order, 1):
        chosen = order[:count]
        prepared, changed = prepare(ir.from_proto(proto), feeds, [step for step in before if step in chosen])
        place = folder / last.name
        save(prepared, folder / "prepared.onnx")
        lowering = [step for step in behind if step in chosen]
        graph, changed_too = prepare(prepared, feeds, lowering)
        if last.name not in (*changed, *changed_too):
            continue
        place.mkdir()
        (folder / "prepared.onnx").replace(place / "ort_fp32.onnx")
        save(graph, place / "lower.onnx")
        asked: dict[str, Any] = {"task": "lower", "models": {"row": str(place / "lower.onnx")}}
        lowered = run_worker(asked, place, place / "log", 3600, print).files["row"]
        asked = {"task": "quantize", "models": {"row": str(lowered)}, "calibration": {}}
        asked |= {"recipes": {"int8": RECIPES["int8"].to_worker()}}
        quantized = run_worker(asked, place, place / "log", 3600, print).files["row.int8"]
        rows[last.name] = dict(zip(COLUMNS, (place / "ort_fp32.onnx", lowered, quantized), strict=True))
    return rows


def opened(path: Path, image: Any) -> Callable[[], object]:
    """Return a function that runs a file once, on the caller's thread only."""
    if path.suffix == ".onnx":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"image": image})
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.transpose(0, 2, 3, 1))
    run: Callable[[], object] = interpreter.invoke
    return run


def measure(model: str, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Time the files of every row of a model, and return the rows with operators, medians and ratios."""
    spec = find_spec(model)
    graph = spec.graph("detector")
    feeds = probe(graph.inputs)
    rows = write_rows(export(build_loaded(graph, random_weights(0, spec).states["detector"]), graph), feeds, folder)
    runs = {f"{row} {c}": opened(files[c], feeds["image"]) for row, files in rows.items() for c in COLUMNS}
    schedule = Rounds(0.0, warm_ups=2, least=rounds, until_steady=False)
    samples, found = time_rounds(runs, schedule, click.echo, clock=time.thread_time), []
    for above, row in zip([None, *rows], rows, strict=False):
        mine = {column: samples[f"{row} {column}"] for column in COLUMNS}
        medians = {column: round(Timing.of(values).median_ms, 2) for column, values in mine.items()}
        ratios = {c: Quartiles.of_ratio(mine[c], samples[f"{above} {c}"]) for c in COLUMNS if above is not None}
        operators = Counter(node.op_type for node in ir.load(rows[row]["ort_fp32"]).graph)
        ratio = {column: [round(value, 3) for value in asdict(one).values()] for column, one in ratios.items()}
        found.append({"pass": row, "operators": dict(operators.most_common()), "median_ms": medians, "ratio": ratio})
    return found


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, default=("videoseal-1.0", "pocketseal"), show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--json", "out", type=Path, default=Path(__file__).parent / "results" / "prepare-passes.json")
def main(models: tuple[str, ...], rounds: int, out: Path) -> None:
    document: dict[str, Any] = {"machine": describe(), "rounds": rounds, "models": {}}
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            document["models"][model] = measure(model, rounds, Path(folder))
    out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
