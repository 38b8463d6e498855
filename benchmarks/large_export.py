"""Measure the time, memory and disk to export, simplify, convert and run a model, and the error of its files.

    python -m benchmarks.large_export [--model videoseal-1.0] [--model chunkyseal] [--folder DIR] [--json FILE]

Weights are random: neither time nor memory depends on their values. Every command is a process of its own. Peak memory
is the process's resident set, files that it maps included, as the kernel counts it (VmHWM), reset before every step.
Files are compared with torch on photographs; logits of random weights lie near 0, so that bits flip easily.
"""

import json
import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from backends.machine import Machine
from backends.sandbox import SandboxProcess
from benchmarks.large_runs import SEED, compare, run, torch
from benchmarks.large_steps import PRECISIONS, Command, convert, export, run_command, simplify
from benchmarks.peaks import Watch

MODELS = ("videoseal-1.0", "chunkyseal")
TIMEOUT_S = 4 * 3600.0
OUT = Path(__file__).parent / "results" / "large-export.json"


def _in_a_process(command: Command, bundle: Path, subject: str) -> dict[str, Any]:
    """Run one command in a child process, and add its seconds, its peak memory, and the peak disk of bundle.parent."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Watch(bundle.parent) as watch,
        SandboxProcess(Path(folder) / "log", TIMEOUT_S) as process,
    ):
        result = process.call(run_command, command, bundle, subject)
    result["seconds"] = round(sum(step["seconds"] for step in result["steps"]), 1)
    result["peak_rss_mb"] = max(step["peak_rss_mb"] for step in result["steps"])
    return result | {"peak_disk_mb": round(watch.disk_mb)}


def measure(model: str, folder: Path) -> dict[str, Any]:
    """Run every command on a model's detector and then export its embedder, and return the results by command.

    The bundle of the detector is removed before the embedder, which is not converted, is exported.
    """
    bundle = folder / model
    measured = {
        f"{command.__name__} detector": _in_a_process(command, bundle, "detector")
        for command in (export, simplify, convert, torch)
    }
    reference = np.load(bundle / "torch.npy")
    files = [f"detector.{name}" for name in ("onnx", "int8.onnx", *(f"{p}.tflite" for p in PRECISIONS))]
    for file in files:
        row = _in_a_process(run, bundle, file)
        median_s = round(median(row["run_seconds"]), 3)
        row |= {"median_run_seconds": median_s} | compare(np.load(bundle / f"{file}.npy"), reference)
        measured[f"run {file}"] = {key: value for key, value in row.items() if key not in ("steps", "peak_disk_mb")}
    shutil.rmtree(bundle)
    return measured | {"export embedder": _in_a_process(export, bundle, "embedder")}


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, default=MODELS)
@click.option("--folder", type=click.Path(path_type=Path), help="For the bundles, 12 GB for chunkyseal; then removed.")
@click.option("--json", "out", type=click.Path(path_type=Path), default=OUT)
def main(models: tuple[str, ...], folder: Path | None, out: Path) -> None:
    for model in models:
        machine = Machine.here()
        with tempfile.TemporaryDirectory(dir=folder) as name:
            measured = measure(model, Path(name))
        # Replace only this model's result: models can be measured at different times.
        document = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        document[model] = {"machine": machine.to_json(), "weights": f"random, seed {SEED}", "measured": measured}
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
