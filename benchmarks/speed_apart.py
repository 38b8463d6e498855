"""What quantizing a model of gigabytes is worth: its files turn by turn, each turn a process that runs one alone.

    python -m benchmarks.speed_apart build/chunkyseal [--only FILE ...] [--rounds 12] [--json FILE]

Nobody runs two runtimes of such a model in one process, where their threads, caches and memory meet. A round runs every
file once, in random order; a ratio is the median over the rounds of one file's time over another's in the same round.
"""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import BACKENDS
from benchmarks.kinds_rows import Row
from benchmarks.kinds_speed import run_alone
from toolkit.bench.machine import describe
from toolkit.threads import default_threads

FILES = ("detector.onnx", "detector.int8.onnx", "detector.int8.tflite")


def measure(bundle: Bundle, artifacts: list[Artifact], rounds: int, threads: int) -> dict[str, list[dict[str, Any]]]:
    """What each file's processes said, by file, in the order of the rounds."""
    order = np.random.default_rng(0)
    said: dict[str, list[dict[str, Any]]] = {artifact.file: [] for artifact in artifacts}
    with Progress(console=Console(stderr=True)) as progress:
        for _ in progress.track(range(rounds), description="rounds"):
            for index in order.permutation(len(artifacts)):
                one = artifacts[index]
                row = Row(
                    one.file, one.role, str(bundle.folder.resolve()), one.file, BACKENDS[one.format], one.precision
                )
                said[one.file].append(run_alone(row, threads))
                if "error" in said[one.file][-1]:
                    raise click.ClickException(f"{one.file}: {said[one.file][-1]['error']}")
    return said


def ratios(said: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of every file over the first one: quartiles over the rounds."""
    (first, reference), *others = said.items()
    found = []
    for file, rounds in others:
        values = [one["run_ms"] / other["run_ms"] for one, other in zip(rounds, reference, strict=True)]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        found.append({"file": file, "over": first, "low": float(low), "median": float(middle), "high": float(high)})
    return found


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--only", "files", multiple=True, default=FILES, show_default=True, help="The first is what others are over."
)
@click.option("--rounds", type=click.IntRange(min=1), default=12, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures here.")
def main(folder: Path, files: tuple[str, ...], rounds: int, out: Path | None) -> None:
    bundle, threads = Bundle.open(folder), default_threads()
    by_file = {artifact.file: artifact for artifact in bundle.artifacts}
    if missing := sorted(set(files) - set(by_file)):
        raise click.UsageError(f"{folder} has no {', '.join(missing)}")
    said = measure(bundle, [by_file[file] for file in files], rounds, threads)
    table = Table("", "ms", "over the first", title="milliseconds, each file alone")
    compared = {row["file"]: row for row in ratios(said)}
    for file, runs in said.items():
        row = compared.get(file)
        of_first = f"{row['median']:.2f} ({row['low']:.2f}-{row['high']:.2f})" if row else ""
        table.add_row(file, f"{np.median([one['run_ms'] for one in runs]):.1f}", of_first)
    Console().print(table)
    if out is not None:
        document = {
            "machine": describe(),
            "model": bundle.model["name"],
            "weights": bundle.weights,
            "threads": threads,
            "rounds": rounds,
            "timed": [
                {
                    "name": file,
                    "sha256": by_file[file].sha256,
                    "bytes": by_file[file].bytes,
                    "median_ms": float(np.median([one["run_ms"] for one in runs])),
                    "rounds": runs,
                }
                for file, runs in said.items()
            ],
            "ratios": list(compared.values()),
        }
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
