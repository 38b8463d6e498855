"""Measure how near the speed of each file comes to the ceilings of this machine, and which operators take the time.

    python -m benchmarks.limits build/pocketseal build/videoseal-1.0 ... [--json FILE]; python -m benchmarks.readme

Each bundle's detector files are timed alone, one after the other, between two measurements of the machine's ceilings;
the higher of both counts. The profile is the runtime's own. Weights may be random: time does not depend on them.
`benchmarks.readme` writes LIMITS.md of the result.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.machine import Machine, default_threads
from backends.profiling import by_op_type, profile
from backends.registry import BACKENDS
from backends.timing import Rounds
from benchmarks.ceilings import ceilings
from benchmarks.graph_cost import cost
from graphs.onnx.file import load
from toolkit.bench.rounds import measure_rows
from toolkit.bench.together import BenchTarget, target_row

ROUNDS = Rounds(2.0, warm_ups=1, until_steady=False)
# A file with a longer run is profiled over one run only: the shares of its operator kinds vary little.
LONG_MS, PROFILED_RUNS, KINDS = 1000, 5, 5
OUT = Path(__file__).parent / "results" / "limits.json"


def measure(bundle: Bundle, artifact: Artifact, operations: int, threads: int) -> dict[str, Any]:
    """Time one file alone, profile it, and return the figures. operations: of one run of the graph."""
    target = BenchTarget.of(bundle, artifact)
    timing = measure_rows([target_row(target, threads)], ROUNDS).measured[target.name].timing
    runs = 1 if timing.median_ms > LONG_MS else PROFILED_RUNS
    profiler = BACKENDS.load(target.backend).profile
    operators = by_op_type(profile(bundle.folder / artifact.file, profiler, threads, runs))
    return {
        **{key: getattr(artifact, key) for key in ("file", "precision", "sha256")},
        "median_ms": timing.median_ms,
        "best_ms": timing.lowest_ms,
        "gops": operations / 1e6 / timing.median_ms,
        "operators": sum(kind.count for kind in operators),
        "profile": [{"kind": k.kind, "count": k.count, "share": k.share} for k in operators[:KINDS]],
    }


@click.command(help=__doc__)
@click.argument("folders", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option("--json", "out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(folders: tuple[Path, ...], out: Path) -> None:
    machine, threads = Machine.here(), default_threads()
    before, models = ceilings(threads), []
    for bundle in map(Bundle.open, folders):
        spent = cost(load(bundle.verify(bundle.find("detector", "onnx", "fp32"))))
        files = [a for a in bundle.artifacts if a.role == "detector" and a.format != "torch"]
        rows = [measure(bundle, artifact, spent.operations, threads) for artifact in files]
        about = {"name": bundle.model["name"], "weights": bundle.weights.origin, "cost": asdict(spent)}
        models.append({**about, "files": rows})
    after = ceilings(threads)
    most = {key: max(before[key], after[key]) for key in before}
    document = {"machine": machine.to_json(), "threads": threads, "ceilings": most, "models": models}
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
