"""The commands of `benchmarks.large_export` that make files. Each runs in a child process; its imports are steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.large_runs import SEED
from benchmarks.peaks import Steps, Watch

Command = Callable[[Path, str, Steps], dict[str, Any]]
PRECISIONS = ("fp32", "fp16", "int8")
# Steps of a conversion whose names contain one of these are the converter's time; the others are this project's own.
CONVERTER_TOOLS = ("onnx2tf", "ai-edge-quantizer")


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
        convert_bundle(bundle, conversion_rules, PRECISIONS, progress=steps, strict=True)
    steps(None)
    own = sum(row["seconds"] for row in steps.rows if not any(tool in row["step"] for tool in CONVERTER_TOOLS))
    return {
        "own_seconds": round(own, 1),
        "converter_runs": len(watch.started_mb),
        "converter_peak_rss_mb": round(max(watch.started_mb.values())),
    }


def run_command(command: Command, bundle: Path, subject: str) -> dict[str, Any]:
    """Call a command for a role or a file, and return its result with the seconds and peak memory of each step."""
    steps = Steps()
    result = command(bundle, subject, steps)
    steps(None)
    return {"steps": steps.rows, **result}
