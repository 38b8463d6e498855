"""Operators of every graph of DeepEncoder, the foveated model and the captioner: as exported, prepared, and lowered.

    python -m benchmarks.kinds_operators [MODEL...] [--json FILE]

The published sizes, with random weights: zeros would let a simplifier leave out what adds them.
"lowered" is the graph that the TFLite converter is given. Chains are what walks over shapes and indices: Shape, Gather
of what is not a table, Slice, Expand, Where and the like.
"""

import argparse
import gc
import json
from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir

from backends.machine import describe
from graphs.checkpoint import State, random_weights
from graphs.export import build_loaded, export
from graphs.networks.models import find_spec
from graphs.networks.spec import GraphSpec
from graphs.passes.pipeline import prepare
from graphs.passes.registry import passes

MODELS = ("deepencoder", "foveated", "captioner-large")
CHAINS = ("Shape", "ConstantOfShape", "Range", "Expand", "Where", "Einsum", "Resize", "ScatterND", "GatherND", "If")


def stages(graph: GraphSpec, state: State) -> dict[str, dict[str, int]]:
    """Return the number of each operator in a graph by stage: "exported", "prepared" and "lowered"."""
    model = export(build_loaded(graph, state), graph)
    counts = {"exported": _counted(model)}
    model, _ = prepare(model, {}, stepwise=False)
    counts["prepared"] = _counted(model)
    model, _ = prepare(model, {}, passes("lowering"), stepwise=False)
    counts["lowered"] = _counted(model)
    return counts


def chained(counts: dict[str, int]) -> int:
    """Return the number of operators that are one of CHAINS."""
    return sum(counts.get(name, 0) for name in CHAINS)


def _counted(model: ir.Model) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph).most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.models:
        spec = find_spec(name)
        weights = random_weights(0, spec)
        for graph in spec.graphs:
            counts = stages(graph, weights.states[graph.role])
            gc.collect()
            rows.append({"model": name, "role": graph.role, **counts})
            totals = ", ".join(f"{stage} {sum(found.values())}" for stage, found in counts.items())
            left = ", ".join(f"{chained(found)}" for found in counts.values())
            print(f"{name:16} {graph.role:20} {totals}; chains {left}", flush=True)
    if arguments.json:
        result = {"machine": describe(), "graphs": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
