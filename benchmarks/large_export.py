"""What it costs to export, simplify, convert and run a model: time, peak memory and disk, and what its files compute.

    python -m benchmarks.large_export [--model videoseal-1.0] [--model chunkyseal] [--folder DIR] [--json FILE]

Weights are random: neither time nor memory depends on their values. Every command is a process of its own. Peak memory
is the process's resident set, files that it maps included, as the kernel counts it (VmHWM), reset before every step.
Files are compared with torch on photographs; logits of random weights lie near 0, so that bits flip easily.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from backends.machine import describe
from benchmarks.peaks import Steps, Watch
from toolkit.images.preprocess import preprocess

MODELS = ("videoseal-1.0", "chunkyseal")
PRECISIONS = ("fp32", "fp16", "int8")
# Steps of a conversion that name one of these are its time; the others are this project's own.
CONVERTER_TOOLS = ("onnx2tf", "ai-edge-quantizer")
SEED = 0
PHOTOGRAPHS = Path(__file__).parent.parent / "toolkit" / "photographs"
# What a file may take when it runs: this much of its size, and this much for results and the runtime itself.
RUN_SHARE, RUN_MB = 1.25, 1000


def export(bundle: Path, role: str, steps: Steps) -> dict[str, Any]:
    steps("importing torch and onnx")
    from graphs.checkpoint import random_weights
    from graphs.networks.models import find_spec
    from toolkit.export import export_bundle

    spec = find_spec(bundle.name).only(role)
    steps("drawing random weights")
    weights = random_weights(SEED, spec)
    export_bundle(spec, weights, bundle, progress=steps, with_torch=False)
    return {"parameters": spec.count_parameters()}


def simplify(bundle: Path, role: str, steps: Steps) -> dict[str, Any]:
    steps("importing onnx")
    import onnxsim as _onnxsim  # noqa: F401  its import is no part of what it does

    from graphs.onnx.file import load
    from graphs.passes.simplify import simplify as run_onnxsim

    steps("reading the graph")
    graph = load(bundle / f"{role}.onnx")
    steps("simplifying it again")
    simplified, _ = run_onnxsim(graph)
    return {"operators": len(list(simplified.graph))}


def convert(bundle: Path, role: str, steps: Steps) -> dict[str, Any]:
    steps("importing onnx")
    from toolkit.convert.pipeline import convert_bundle
    from toolkit.parity.agreement import conversion_rules

    with Watch(bundle) as watch:
        convert_bundle(bundle, conversion_rules, PRECISIONS, progress=steps)
    steps(None)
    own = sum(row["seconds"] for row in steps.rows if not any(tool in row["step"] for tool in CONVERTER_TOOLS))
    return {
        "own_seconds": round(own, 1),
        "converter_runs": len(watch.started_mb),
        "converter_peak_rss_mb": round(max(watch.started_mb.values())),
    }


def torch(bundle: Path, role: str, steps: Steps) -> dict[str, Any]:
    """The reference: what the module computes of the photographs."""
    steps("importing torch")
    import torch

    from graphs.checkpoint import random_weights
    from graphs.export import build_loaded
    from graphs.networks.models import find_spec

    steps("drawing random weights")
    spec = find_spec(bundle.name).only(role)
    module = build_loaded(spec.graph(role), random_weights(SEED, spec).states[role])
    steps("running")
    with torch.no_grad():
        logits = [module(torch.from_numpy(image)).numpy() for image in _images(spec.description["image_size_px"])]
    np.save(bundle / "torch.npy", np.concatenate(logits))
    return {}


def run(bundle: Path, file: str, steps: Steps) -> dict[str, Any]:
    """One file, in a process that does nothing else."""
    from backends.bundle import Bundle
    from backends.machine import default_threads
    from backends.registry import open_session

    steps("opening it")  # everything counts: imports, hashing, loading
    opened = Bundle.open(bundle)
    artifact = next(artifact for artifact in opened.artifacts if artifact.file == file)
    seconds, logits = [], []
    backend = {"onnx": "ort", "tflite": "tflite"}[artifact.format]
    with open_session(opened, artifact, backend, default_threads()) as session:
        for image in _images(artifact.inputs[0].spec.shape[-1]):
            steps("running it")
            start = time.perf_counter()
            logits.append(session.run({"image": image})["logits"])
            seconds.append(round(time.perf_counter() - start, 3))
    steps(None)
    np.save(bundle / f"{file}.npy", np.concatenate(logits))
    limit = round(RUN_SHARE * artifact.bytes / 1e6 + RUN_MB)
    return {"bytes": artifact.bytes, "sha256": artifact.sha256, "run_seconds": seconds, "limit_rss_mb": limit}


def _images(size_px: int) -> list[Any]:
    return [preprocess(path, size_px) for path in sorted(PHOTOGRAPHS.glob("*.jpg"))]


COMMANDS: dict[str, Callable[[Path, str, Steps], dict[str, Any]]] = {
    "export": export,
    "simplify": simplify,
    "convert": convert,
    "torch": torch,
    "run": run,
}


def _in_a_process(command: str, bundle: Path, what: str) -> dict[str, Any]:
    arguments = [sys.executable, "-m", "benchmarks.large_export", "--child", command, "--folder", str(bundle)]
    with Watch(bundle.parent) as watch:
        shown = subprocess.run([*arguments, "--what", what], check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(shown)
    result["seconds"] = round(sum(step["seconds"] for step in result["steps"]), 1)
    result["peak_rss_mb"] = max(step["peak_rss_mb"] for step in result["steps"])
    return result | {"peak_disk_mb": round(watch.disk_mb)}


def measure(model: str, folder: Path) -> dict[str, Any]:
    """Every command, one after the other. The embedder, which nothing converts, comes last and alone."""
    bundle = folder / model
    measured = {f"{command} detector": _in_a_process(command, bundle, "detector") for command in list(COMMANDS)[:4]}
    reference = np.load(bundle / "torch.npy")
    files = [f"detector.{name}" for name in ("onnx", "int8.onnx", *(f"{p}.tflite" for p in PRECISIONS))]
    for file in files:
        row = _in_a_process("run", bundle, file)
        median_s = round(median(row["run_seconds"]), 3)
        row |= {"median_run_seconds": median_s} | _compare(np.load(bundle / f"{file}.npy"), reference)
        measured[f"run {file}"] = {key: value for key, value in row.items() if key not in ("steps", "peak_disk_mb")}
    for path in bundle.iterdir():
        path.unlink()
    bundle.rmdir()
    return measured | {"export embedder": _in_a_process("export", bundle, "embedder")}


def _compare(logits: Any, reference: Any) -> dict[str, Any]:
    """Bits and raw error; channel 0 is the detection logit and no bit."""
    difference = logits - reference
    noise = float(np.square(difference).sum())
    return {
        "bits": int(reference[:, 1:].size),
        "flipped_bits": int(((logits > 0) != (reference > 0))[:, 1:].sum()),
        "max_abs": float(np.abs(difference).max()),
        "largest_logit": float(np.abs(reference).max()),
        "cosine": float((logits * reference).sum() / np.linalg.norm(logits) / np.linalg.norm(reference)),
        "snr_db": round(10 * float(np.log10(np.square(reference).sum() / noise)), 1) if noise else None,
    }


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, default=MODELS)
@click.option("--folder", type=click.Path(path_type=Path), help="For the bundles, 12 GB for chunkyseal; then removed.")
@click.option(
    "--json", "out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "large-export.json"
)
@click.option("--child", type=click.Choice(list(COMMANDS)), hidden=True)
@click.option("--what", hidden=True)
def main(models: tuple[str, ...], folder: Path | None, out: Path, child: str | None, what: str) -> None:
    if child is not None:
        assert folder is not None
        steps = Steps()
        result = COMMANDS[child](folder, what, steps)
        steps(None)
        print(json.dumps({"steps": steps.rows, **result}))
        return
    for model in models:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            measured = measure(model, Path(name))
        # One model's result takes the place of its own last one: they need not be measured in one go.
        document = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        document[model] = {"machine": describe(), "weights": f"random, seed {SEED}", "measured": measured}
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
