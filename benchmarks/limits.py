"""How near each file comes to what this machine can do, and where the rest of its time goes: benchmarks/LIMITS.md.

    python -m benchmarks.limits build/videoseal-1.0 build/videoseal-0.0 ... [--json FILE] [--markdown FILE]

Each bundle's detector files are timed alone, one after the other, between two measurements of the machine's ceilings;
the higher of both counts. The profile is the runtime's own. Weights may be random: time does not depend on them.
"""

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.machine import default_threads, describe
from backends.profiling import by_op_type, profile
from backends.registry import default_backend, open_session
from backends.tensor import probe
from benchmarks.ceilings import ceilings
from benchmarks.graph_cost import Cost, cost
from graphs.onnx.file import load

SECONDS = 2.0
LEAST_RUNS = 3
PROFILED_RUNS = 5
# A file that takes longer is profiled over one run: what it spends on each kind of operator varies little.
LONG_S = 1.0
KINDS = 5
RESULTS = Path(__file__).parent / "results"


def measure(bundle: Bundle, artifact: Artifact, cost: Cost, threads: int) -> dict[str, Any]:
    feeds = probe(tuple(binding.spec for binding in artifact.inputs))
    times: list[float] = []
    with open_session(bundle, artifact, default_backend(artifact.format).name, threads) as session:
        session.run(feeds)
        end = time.perf_counter() + SECONDS
        while len(times) < LEAST_RUNS or time.perf_counter() < end:
            start = time.perf_counter()
            session.run(feeds)
            times.append(time.perf_counter() - start)
    profiled_runs = 1 if np.median(times) > LONG_S else PROFILED_RUNS
    operators = by_op_type(profile(bundle.folder / artifact.file, threads, profiled_runs))
    return {
        "file": artifact.file,
        "precision": artifact.precision,
        "sha256": artifact.sha256,
        "median_ms": 1e3 * float(np.median(times)),
        "best_ms": 1e3 * min(times),
        "gops": cost.operations / 1e9 / float(np.median(times)),
        "operators": sum(kind.count for kind in operators),
        "profile": [{"kind": k.kind, "count": k.count, "share": k.share} for k in operators[:KINDS]],
    }


def markdown(document: dict[str, Any]) -> str:
    machine, most = document["machine"], document["ceilings"]
    lines = [
        "# Limits",
        "",
        "What the files reach of what the machine can do. Written by `python -m benchmarks.limits`, from "
        "[results/limits.json](results/limits.json); do not edit.",
        "",
        f"{machine.get('processor', 'unknown processor')}, {document['threads']} threads, {machine['date']}. "
        f"Matrix products of {most['side']} rows and columns reach at most **{most['float32_gops']:.0f} GFLOP/s** in "
        f"float32 and **{most['int8_gops']:.0f} GOP/s** in eight bits; copying memory moves "
        f"{most['copy_gb_s']:.0f} GB/s. "
        "A multiplication and an addition count as two. Files of int8 precisions are held to the second figure, the "
        "others to the first.",
    ]
    for model in document["models"]:
        c, floor = model["cost"], most["float32_gops"]
        lines += [
            "",
            f"## {model['name']}",
            "",
            f"{c['operations'] / 1e9:.2f} GFLOP an image, {c['weight_bytes'] / 1e6:.1f} MB of float32 weights, "
            f"{c['map_bytes'] / 1e6:.0f} MB read and written between operators if no cache held any of it. At the "
            f"ceilings: {c['operations'] / 1e6 / floor:.2f} ms in float32, "
            f"{c['operations'] / 1e6 / most['int8_gops']:.2f} ms in eight bits. Weights are {model['weights']}.",
            "",
            "| file | ms | GOP/s | of the ceiling | operators | where the time goes |",
            "|---|--:|--:|--:|--:|---|",
        ]
        for row in model["files"]:
            ceiling = most["int8_gops" if row["precision"] in ("int8", "int8-static", "mixed") else "float32_gops"]
            kinds = ", ".join(f"{k['kind'].replace('|', '/')} {k['share']:.0%}" for k in row["profile"])
            lines.append(
                f"| {row['file'].removeprefix('detector.')} | {row['median_ms']:.1f} | {row['gops']:.0f} "
                f"| {row['gops'] / ceiling:.0%} | {row['operators']} | {kinds} |"
            )
    return "\n".join(lines) + "\n"


@click.command(help=__doc__)
@click.argument("folders", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option("--json", "out", type=click.Path(path_type=Path), default=RESULTS / "limits.json", show_default=True)
@click.option(
    "--markdown", "text", type=click.Path(path_type=Path), default=RESULTS.parent / "LIMITS.md", show_default=True
)
def main(folders: tuple[Path, ...], out: Path, text: Path) -> None:
    threads = default_threads()
    before = ceilings(threads)
    models = []
    with Progress(console=Console(stderr=True)) as progress:
        for folder in progress.track(folders, description="measuring"):
            bundle = Bundle.open(folder)
            graph = bundle.find("detector", "onnx", "fp32")
            spent = cost(load(bundle.verify(graph)))
            files = [a for a in bundle.artifacts if a.role == "detector" and a.format != "torch"]
            models.append(
                {
                    "name": bundle.model["name"],
                    "weights": bundle.weights["origin"],
                    "cost": vars(spent),
                    "files": [measure(bundle, artifact, spent, threads) for artifact in files],
                }
            )
    after = ceilings(threads)
    most = {key: max(before[key], after[key]) for key in before}
    document = {"machine": describe(), "threads": threads, "ceilings": most, "models": models}
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text.write_text(markdown(document), encoding="utf-8")


if __name__ == "__main__":
    main()
