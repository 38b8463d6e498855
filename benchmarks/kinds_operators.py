"""Count the operators of every graph of DeepEncoder, the foveated model and the captioner after each stage.

    python -m benchmarks.kinds_operators [MODEL...] [--json FILE]

The stages are "exported", "prepared", and "lowered": the graph that the TFLite converter gets. Models have their
published sizes and random weights: with weights of zero, the simplifier would remove operators.
"""

import gc
import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
import onnx_ir as ir

from backends.machine import Machine
from graphs.checkpoint import State, random_weights
from graphs.export import build_loaded, export
from graphs.networks.models import find_spec
from graphs.networks.spec import GraphSpec
from graphs.passes.pipeline import prepare
from graphs.passes.registry import passes

MODELS = ("deepencoder", "foveated", "captioner-large")
# Operators that the passes remove: those that compute shapes and indices, and Einsum, Resize, scatters and If.
REMOVED = ("Shape", "ConstantOfShape", "Range", "Expand", "Where", "Einsum", "Resize", "ScatterND", "GatherND", "If")


def stages(graph: GraphSpec, state: State) -> dict[str, dict[str, int]]:
    """Return the number of each operator in a graph by stage: "exported", "prepared" and "lowered"."""
    model = export(build_loaded(graph, state), graph)
    counts = {"exported": _counted(model)}
    model, _ = prepare(model, {}, stepwise=False)
    counts["prepared"] = _counted(model)
    model, _ = prepare(model, {}, passes("lowering"), stepwise=False)
    counts["lowered"] = _counted(model)
    return counts


def count_removed(counts: dict[str, int]) -> int:
    """Return the number of operators of the kinds in REMOVED."""
    return sum(counts.get(name, 0) for name in REMOVED)


def _counted(model: ir.Model) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph).most_common())


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(models: tuple[str, ...], out: Path | None) -> None:
    rows: list[dict[str, Any]] = []
    for spec in map(find_spec, models or MODELS):
        weights = random_weights(0, spec)
        for graph in spec.graphs:
            counts = stages(graph, weights.states[graph.role])
            gc.collect()
            rows.append({"model": spec.name, "role": graph.role, **counts})
            totals = {stage: (sum(found.values()), count_removed(found)) for stage, found in counts.items()}
            click.echo(f"{spec.name} {graph.role}, operators and those to be removed: {totals}")
    if out is not None:
        out.write_text(
            json.dumps({"machine": Machine.here().to_json(), "graphs": rows}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
