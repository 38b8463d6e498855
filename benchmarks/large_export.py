"""What it costs to export, simplify, quantize and run a model: time and peak memory of every step.

    python -m benchmarks.large_export [--model videoseal-1.0] [--model chunkyseal] [--folder DIR] [--json FILE]

Weights are random: neither time nor memory depends on their values. Every command is a process of its own. Peak memory
is the process's resident set, files that it maps included, as the kernel counts it (VmHWM), reset before every step.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.machine import describe

MODELS = ("videoseal-1.0", "chunkyseal")
SEED = 0
_RESET_PEAK = "5"  # proc(5): clear_refs


class Steps:
    """Seconds and peak megabytes of each step: call it with the name of the one that begins."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._name: str | None = None

    def __call__(self, name: str | None) -> None:
        now = time.perf_counter()
        if self._name is not None:
            row = {"step": self._name, "seconds": round(now - self._start, 2), "peak_rss_mb": round(_peak_mb())}
            self.rows.append(row)
            print(row, file=sys.stderr, flush=True)
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="utf-8")
        self._name, self._start = name, time.perf_counter()


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def export(model: str, folder: Path, steps: Steps) -> dict[str, Any]:
    steps("importing torch and onnx")
    from graphs.checkpoint import random_weights
    from graphs.spec import find_spec
    from toolkit.export import export_bundle

    spec = find_spec(model)
    steps("drawing random weights")
    weights = random_weights(SEED, spec)
    bundle = export_bundle(spec, weights, folder / model, progress=steps)
    return {artifact.file: artifact.bytes for artifact in bundle.artifacts}


def simplify(model: str, folder: Path, steps: Steps) -> dict[str, Any]:
    from graphs import simplify as onnxsim
    from graphs.onnx_file import load

    operators = {}
    for role in ("detector", "embedder"):
        steps(f"{role}: reading the graph")
        graph = load(folder / model / f"{role}.onnx")
        steps(f"{role}: simplifying it again")
        simplified, _ = onnxsim.simplify(graph)
        operators[role] = len(list(simplified.graph))
    return {"operators": operators}


def quantize(model: str, folder: Path, steps: Steps) -> dict[str, Any]:
    steps("importing onnx")
    from toolkit.convert.onnx_quantize import quantize_onnx
    from toolkit.convert.recipes import RECIPES

    steps("detector: quantizing to int8")
    files = quantize_onnx(folder / model / "detector.onnx", folder / model / "detector.int8.onnx", RECIPES["int8"])
    return {"bytes": sum(file.stat().st_size for file in files)}


def run(model: str, folder: Path, steps: Steps, file: str) -> dict[str, Any]:
    steps("importing onnxruntime")
    from dataclasses import replace

    from backends.bundle import Bundle
    from backends.ort import OrtSession
    from graphs.export import probe
    from toolkit.threads import default_threads

    bundle = Bundle.open(folder / model)
    role = file.partition(".")[0]
    artifact = replace(bundle.find(role, "onnx", "fp32"), file=file, external_files=())
    feeds = probe(tuple(binding.spec for binding in artifact.inputs))
    steps(f"loading {file}")
    with OrtSession(folder / model / file, artifact, default_threads()) as session:
        for turn in ("first", "second", "third"):
            steps(f"running {file}, {turn} time")
            session.run(feeds)
        steps(None)
    return {}


COMMANDS = {"export": export, "simplify": simplify, "quantize": quantize, "run": run}


def _in_a_process(command: str, model: str, folder: Path, *more: str) -> dict[str, Any]:
    arguments = [sys.executable, "-m", "benchmarks.large_export", "--child", command, "--model", model]
    shown = subprocess.run(
        [*arguments, "--folder", str(folder), *more], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    result: dict[str, Any] = json.loads(shown)
    result["seconds"] = round(sum(step["seconds"] for step in result["steps"]), 1)
    result["peak_rss_mb"] = max(step["peak_rss_mb"] for step in result["steps"])
    return result


def _measure(model: str, folder: Path) -> dict[str, Any]:
    measured = {command: _in_a_process(command, model, folder) for command in ("export", "simplify", "quantize")}
    for file in ("detector.onnx", "detector.int8.onnx", "embedder.onnx"):
        measured[f"run {file}"] = _in_a_process("run", model, folder, "--file", file)
    return measured


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, default=MODELS)
@click.option("--folder", type=click.Path(path_type=Path), help="For the bundles, 15 GB for chunkyseal; then removed.")
@click.option(
    "--json", "out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "large-export.json"
)
@click.option("--child", type=click.Choice(list(COMMANDS)), hidden=True)
@click.option("--file", hidden=True)
def main(models: tuple[str, ...], folder: Path | None, out: Path, child: str | None, file: str | None) -> None:
    if child is not None:
        assert folder is not None
        steps = Steps()
        result = COMMANDS[child](models[0], folder, steps, *([file] if file else []))
        steps(None)
        print(json.dumps({"steps": steps.rows, **result}))
        return
    measured = {}
    for model in models:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            measured[model] = _measure(model, Path(name))
    document = {"machine": describe(), "weights": f"random, seed {SEED}", "models": measured}
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
