"""Time, load time and peak memory of every file of a bundle, turn by turn, each run in a process of its own.

    python -m benchmarks.apart build/foveated [--rounds 5] --json benchmarks/results/kinds-speed-foveated.json

Only one model is in memory at once, and each peak is its own. Of foveated and captioner bundles, whole runs of the
model are measured too. Interrupted, the same command goes on where it stopped.
"""

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click

from backends.bundle import Bundle
from backends.machine import Machine, default_threads
from backends.timing import Clock, Rounds, Run
from benchmarks.alone import run_alone, subjects
from benchmarks.whole_runs import FRAMES
from toolkit.bench.rounds import Measurement, OpenRow, ResumeLog, Row, measure_rows
from toolkit.bench.together import BenchTarget


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of a row's times over its rounds, and the highest peaks of memory."""
    times = {key: [one[key] for one in rounds] for key in ("load_ms", "first_run_ms", "run_ms")}
    medians = {key: None if values[0] is None else round(median(values), 3) for key, values in times.items()}
    return medians | {key: round(max(one[key] for one in rounds), 1) for key in ("peak_mb", "peak_before_load_mb")}


def looks(found: Measurement) -> list[dict[str, Any]]:
    """Return, for each query and runtime, the median ratio of its time per frame over the time to encode a frame."""
    ratios = []
    for name in found.measured:
        role, _, runtime = name.partition(", ")
        if role.startswith("query_"):
            ratio = found.ratio(name, over := f"encode_frames, {runtime}")
            ratios.append({"row": name, "over": over, "times": 1 / FRAMES, "median": ratio.median / FRAMES})
    return ratios


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
def main(folder: Path, rounds: int, out: Path) -> None:
    machine, bundle, threads = Machine.here(), Bundle.open(folder.resolve()), default_threads()
    chosen, said = subjects(bundle), dict[str, list[dict[str, Any]]]()
    head = {
        "machine": machine.to_json(),
        "model": bundle.model["name"],
        "weights": asdict(bundle.weights),
        "threads": threads,
    }
    hashes = {artifact.file: artifact.sha256 for artifact in bundle.artifacts}
    kept_of = head | {"machine": replace(machine, load=None).to_json()}
    log = ResumeLog(out.with_name(f"{out.name}.unfinished"), [kept_of, hashes])

    def seconds(name: str) -> float:
        before = said.setdefault(name, [])
        before.append(log.once(f"{name}, {len(before)}", partial(run_alone, chosen[name], threads)))
        return float(before[-1]["run_ms"]) / 1e3

    def sample(run: Run, clock: Clock) -> float:
        return float(str(run()))

    def opened(name: str) -> AbstractContextManager[OpenRow]:
        return nullcontext(OpenRow(partial(seconds, name)))

    rows = [Row(name, partial(opened, name)) for name in chosen]
    each_once = Rounds(0.0, warm_ups=0, least=rounds, most=rounds, until_steady=False)
    found = measure_rows(rows, each_once, progress=click.echo, sample=sample)
    told = []
    for name, subject in chosen.items():
        artifact = subject.artifact if isinstance(subject, BenchTarget) else None
        facts = {key: getattr(artifact, key, None) for key in ("file", "bytes", "sha256")}
        told.append({"row": name, **facts, **summary(said[name])})
    out.write_text(json.dumps({**head, "rounds": rounds, "rows": told, "ratios": looks(found)}, indent=1) + "\n")
    log.close()


if __name__ == "__main__":
    main()
