"""The commands of `benchmarks.large_export`. Each runs in a child process, and its imports count as steps."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peaks import Steps, Watch
from toolkit.images.preprocess import preprocess

PRECISIONS = ("fp32", "fp16", "int8")
# Steps of a conversion whose names contain one of these are the converter's time; the others are this project's own.
CONVERTER_TOOLS = ("onnx2tf", "ai-edge-quantizer")
SEED = 0
PHOTOGRAPHS = Path(__file__).parent.parent / "toolkit" / "photographs"
# Memory that a running file may take: this multiple of its size, and this much for results and the runtime.
RUN_SHARE, RUN_MB = 1.25, 1000


def export(bundle: Path, role: str, steps: Steps) -> dict[str, Any]:
    """Export a graph with random weights, and return the number of its parameters."""
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
    """Simplify an exported graph again, and return the number of its operators."""
    steps("importing onnx")
    import onnxsim as _onnxsim  # noqa: F401  so that its import does not count as simplification

    from graphs.onnx.file import load
    from graphs.passes.simplify import simplify as simplify_pass

    steps("reading the graph")
    graph = load(bundle / f"{role}.onnx")
    steps("simplifying it again")
    simplified, _ = simplify_pass.run(graph)
    return {"operators": len(list(simplified.graph))}


def convert(bundle: Path, role: str, steps: Steps) -> dict[str, Any]:
    """Convert a bundle to PRECISIONS, and return this project's own seconds and the converter's runs and memory."""
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
    """Run the torch module on the photographs and write its logits, the reference, to torch.npy."""
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
    """Run a file on each photograph, write its logits to FILE.npy, and return its size, times and memory limit."""
    from backends.bundle import Bundle
    from backends.machine import default_threads
    from backends.timing import Rounds, time_rounds
    from toolkit.bench.together import BenchTarget

    steps("opening it")  # with imports, hashing and loading
    opened = Bundle.open(bundle)
    artifact = next(artifact for artifact in opened.artifacts if artifact.file == file)
    seconds, logits = [], []
    once = Rounds(0.0, warm_ups=0, least=1, until_steady=False)
    with BenchTarget.of(opened, artifact).open(default_threads()) as session:
        for image in _images(artifact.inputs[0].spec.shape[-1]):
            steps("running it")
            logits.append(session.run({"image": image})["logits"])
            (milliseconds,) = time_rounds({file: partial(session.run, {"image": image})}, once)[file]
            seconds.append(round(milliseconds / 1e3, 3))
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


def run_command(command: str, bundle: Path, subject: str) -> dict[str, Any]:
    """Run one of COMMANDS on a role or a file, and return its result with the seconds and peak memory of each step."""
    steps = Steps()
    result = COMMANDS[command](bundle, subject, steps)
    steps(None)
    return {"steps": steps.rows, **result}
