"""Latency of every detector file in a bundle, each beside its runtime called directly, interleaved in one run.

`python -m benchmarks.latency build/pocketseal --out benchmarks/results/latency-pocketseal.json`
Absolute times belong to one machine and one hour; compare the ratios.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.machine import default_threads
from backends.registry import default_backend, open_session
from backends.session import Session
from benchmarks.direct import DIRECT, Run, same_runtime
from benchmarks.head import head
from toolkit.bench.cold import measure_cold_start
from toolkit.bench.together import BenchTarget as Startable

WARM_UPS = 10
RUNS = 64
OVERHEAD_RUNS = 256
COLD_STARTS = 3


@dataclass
class Candidate:
    """One file, opened by us and by its runtime, and the milliseconds of every counted run."""

    artifact: Artifact
    session: Session
    direct: Run
    ours_ms: list[float]
    direct_ms: list[float]
    overhead_ms: float = 0.0

    def run(self, image: NDArray[np.float32]) -> object:
        return self.session.run({self.artifact.inputs[0].spec.name: image})


def _open(bundle: Bundle, threads: int) -> list[Candidate]:
    candidates = []
    for artifact in bundle.artifacts:
        if artifact.role == "detector":
            session = open_session(bundle, artifact, default_backend(artifact.format).name, threads)
            direct = DIRECT[artifact.format](bundle.folder / artifact.file, artifact, threads)
            candidates.append(Candidate(artifact, session, direct, [], []))
    return candidates


def _timed(run: Run, image: NDArray[np.float32]) -> float:
    start = time.perf_counter()
    run(image)
    return 1e3 * (time.perf_counter() - start)


def _measure(candidates: list[Candidate], image: NDArray[np.float32]) -> None:
    """One round runs every file, ours and direct in turn; which goes first changes each round."""
    with Progress() as progress:
        for turn in progress.track(range(WARM_UPS + RUNS), description="timing"):
            for candidate in candidates:
                pairs = [(candidate.ours_ms, candidate.run), (candidate.direct_ms, candidate.direct)]
                for times, run in pairs if turn % 2 else reversed(pairs):
                    # The first run after another file's finds its weights out of the caches, for both alike.
                    run(image)
                    milliseconds = _timed(run, image)
                    if turn >= WARM_UPS:
                        times.append(milliseconds)


def _overhead_ms(candidate: Candidate, image: NDArray[np.float32]) -> float:
    """Our run minus a bare call of the same opened runtime, each at its lower quartile, in random order.

    A difference of microseconds drowns in what eight files do to each other's caches, and in what other tenants of
    the machine take: that only ever adds, so the quicker runs tell more than the middle ones.
    """
    runs = (candidate.run, same_runtime(candidate.session))
    times: tuple[list[float], list[float]] = ([], [])
    for first in np.random.default_rng(0).integers(0, 2, OVERHEAD_RUNS):
        for index in (first, 1 - first):
            runs[index](image)  # the other's threads still spin for a while, and would be in this one's way
            times[index].append(_timed(runs[index], image))
    ours, direct = (float(np.quantile(values, 0.25)) for values in times)
    return ours - direct


def _cold_start(bundle: Bundle, artifact: Artifact, threads: int) -> dict[str, float]:
    """Medians over fresh processes."""
    opened = Startable(artifact.file, bundle, artifact, default_backend(artifact.format).name)
    runs = [measure_cold_start(opened, threads, seconds=0) for _ in range(COLD_STARTS)]

    def median(key: str) -> float:
        return float(np.median([run[key] or 0.0 for run in runs]))

    return {
        "load_ms": median("load_ms"),
        "first_run_ms": median("first_run_ms"),
        "peak_rss_mb": median("peak_rss_bytes") / 1e6,
        "peak_rss_before_load_mb": median("peak_rss_before_load_bytes") / 1e6,
    }


def _row(candidate: Candidate, torch_ms: float, cold: dict[str, float]) -> dict[str, Any]:
    ours, direct = np.array(candidate.ours_ms), np.array(candidate.direct_ms)
    artifact = candidate.artifact
    return {
        "file": artifact.file,
        "backend": default_backend(artifact.format).name,
        "precision": artifact.precision,
        "route": artifact.route,
        "sha256": artifact.sha256,
        "bytes": artifact.bytes,
        "median_ms": float(np.median(ours)),
        "p90_ms": float(np.quantile(ours, 0.9)),
        "direct_median_ms": float(np.median(direct)),
        "direct_p90_ms": float(np.quantile(direct, 0.9)),
        "overhead_ms": candidate.overhead_ms,
        "of_torch_eager": float(np.median(ours)) / torch_ms,
        **cold,
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("file", "MB", "ms", "p90", "over direct", "of torch", "load ms", "RSS MB")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row["file"].removeprefix("detector."),
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['median_ms']:.2f}",
            f"{row['p90_ms']:.2f}",
            f"{row['overhead_ms']:+.3f} ms",
            f"{row['of_torch_eager']:.2f}x",
            f"{row['load_ms']:.0f}",
            f"{row['peak_rss_mb']:.0f}",
        )
    return table


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--threads", type=int, default=default_threads(), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(folder: Path, threads: int, out: Path | None) -> None:
    bundle = Bundle.open(folder)
    candidates = _open(bundle, threads)
    shape = candidates[0].artifact.inputs[0].spec.shape
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    _measure(candidates, image)
    for candidate in candidates:
        candidate.overhead_ms = _overhead_ms(candidate, image)
    torch_ms = next(float(np.median(c.direct_ms)) for c in candidates if c.artifact.format == "torch")
    cold = [_cold_start(bundle, candidate.artifact, threads) for candidate in candidates]
    rows = [_row(candidate, torch_ms, start) for candidate, start in zip(candidates, cold, strict=True)]
    Console().print(_table(rows))
    if bundle.weights["origin"] == "random":
        Console().print("[yellow]These weights are random.[/yellow]")
    if out is not None:
        result = {
            **head(bundle, threads),
            "warm_ups": WARM_UPS,
            "runs": RUNS,
            "overhead_runs": OVERHEAD_RUNS,
            "files": rows,
        }
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
