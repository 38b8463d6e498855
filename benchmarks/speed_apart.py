"""What preparing and quantizing a model of gigabytes is worth: its files turn by turn, each alone in a process.

    python -m benchmarks.speed_apart build/chunkyseal [--only FILE ...] [--rounds 8] [--json FILE]

Nobody runs two runtimes of such a model in one process, where their threads, caches and memory meet. A round runs every
file once, in random order; a ratio is the median over the rounds of one file's time over another's in the same round.
With torch weights in the bundle, or after a run with them, the graph as it was exported is timed as well.
"""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backends.bundle import Bundle
from backends.errors import NotAvailable
from backends.machine import default_threads
from backends.registry import default_backend
from benchmarks.head import head
from benchmarks.kinds_rows import Row
from benchmarks.kinds_speed import EXPORTED, artifact_of, exported, run_alone
from toolkit.bench.unprepared import NAME

FILES = ("detector.onnx", "detector.int8.onnx", "detector.int8.tflite")


def rows_of(bundle: Bundle, files: tuple[str, ...]) -> dict[str, Row]:
    """By name: the files, and the graph of the first one's role as it was exported, where there can be one."""
    by_file = {artifact.file: artifact for artifact in bundle.artifacts}
    if missing := sorted(set(files) - set(by_file)):
        raise click.UsageError(f"{bundle.folder} has no {', '.join(missing)}")
    rows = {}
    for file in files:
        one = by_file[file]
        rows[file] = Row(file, one.role, str(bundle.folder), file, default_backend(one.format).name, one.precision)
    try:
        unprepared = exported(bundle, by_file[files[0]].role)
    except NotAvailable:
        return rows
    return rows | {EXPORTED: Row(EXPORTED, by_file[files[0]].role, str(unprepared), NAME, "ort", "fp32")}


def measure(rows: dict[str, Row], rounds: int, threads: int) -> dict[str, list[dict[str, Any]]]:
    """What each row's processes said, in the order of the rounds."""
    order, names = np.random.default_rng(0), list(rows)
    said: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with Progress(console=Console(stderr=True)) as progress:
        for _ in progress.track(range(rounds), description="rounds"):
            for index in order.permutation(len(names)):
                name = names[index]
                said[name].append(run_alone(rows[name], threads))
                if "error" in said[name][-1]:
                    raise click.ClickException(f"{name}: {said[name][-1]['error']}")
    return said


def ratios(said: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of every file over the first one, and of that over the graph as exported: quartiles over the rounds."""
    first, *others = [name for name in said if name != EXPORTED]
    pairs = [(other, first) for other in others] + [(first, EXPORTED)] * (EXPORTED in said)
    found = []
    for one, over in pairs:
        values = [a["run_ms"] / b["run_ms"] for a, b in zip(said[one], said[over], strict=True)]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        found.append({"file": one, "over": over, "low": float(low), "median": float(middle), "high": float(high)})
    return found


def _file(row: Row) -> dict[str, Any]:
    artifact = artifact_of(row)
    assert artifact is not None  # rows_of makes rows of files
    return {"sha256": artifact.sha256, "bytes": artifact.bytes}


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--only", "files", multiple=True, default=FILES, show_default=True, help="The first is what others are over."
)
@click.option("--rounds", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures here.")
def main(folder: Path, files: tuple[str, ...], rounds: int, out: Path | None) -> None:
    bundle, threads = Bundle.open(folder.resolve()), default_threads()
    rows = rows_of(bundle, files)
    said = measure(rows, rounds, threads)
    table = Table("", "ms", "over", "", title="milliseconds, each file alone")
    compared = {row["file"]: row for row in ratios(said)}
    for name, runs in said.items():
        row = compared.get(name)
        share = (row["over"], f"{row['median']:.2f} ({row['low']:.2f}-{row['high']:.2f})") if row else ("", "")
        table.add_row(name, f"{np.median([one['run_ms'] for one in runs]):.1f}", *share)
    Console().print(table)
    if out is not None:
        document = {
            **head(bundle, threads),
            "rounds": rounds,
            "timed": [
                {
                    "name": name,
                    **_file(rows[name]),
                    "median_ms": float(np.median([one["run_ms"] for one in runs])),
                    "rounds": runs,
                }
                for name, runs in said.items()
            ],
            "ratios": list(compared.values()),
        }
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
