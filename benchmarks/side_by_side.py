"""Compare the speed of this tree with that of another tree: every detector file runs in both, in the same rounds.

    git worktree add ../before COMMIT
    python -m benchmarks.side_by_side ../before build/pocketseal build/videoseal-1.0 [--json FILE]

Each file is open in two processes that import the other tree, "before" and "again", and in one that imports this tree,
"now". Ratios are over "before" in the same round. A file is outside the noise if the median ratio of "now" is off by 5%
more than that of "again", and its quartiles lie on one side of 1: then the exit code is 1.
The older tree must have made the bundles, so that both trees can read them. Nothing else may run on the machine.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from backends.bundle import Bundle
from backends.machine import Machine, default_threads
from backends.timing import Clock, Rounds, Run, time_after_warmup
from toolkit.bench.regressions import LEAST
from toolkit.bench.rounds import OpenRow, Row, measure_rows

HERE = Path(__file__).parents[1]
OPENINGS = 3
ROUNDS = Rounds(60.0, warm_ups=3, least=9, most=48, until_steady=False)
CHILD = HERE / "benchmarks" / "timed_child.py"


@contextmanager
def opened(tree: Path, folder: Path, file: str) -> Iterator[OpenRow]:
    """Open a file in a child process that imports the packages of `tree`. Its run returns seconds."""
    command = [sys.executable, "-P", str(CHILD), str(folder.resolve()), file, str(default_threads())]
    env = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        asked, answered = child.stdin, child.stdout
        assert asked is not None
        assert answered is not None

        def run() -> float:
            print(file=asked, flush=True)
            return float(answered.readline())

        yield OpenRow(run)
        asked.close()


def sample(run: Run, clock: Clock) -> float:
    """Return the seconds that the child measures for one run after a warm-up."""
    time_after_warmup(run, clock)
    return float(str(run()))


@click.command(help=__doc__)
@click.argument("before", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("folders", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(before: Path, folders: tuple[Path, ...], out: Path | None) -> None:
    machine, trees, rows = Machine.here(), {"before": before, "again": before, "now": HERE}, []
    detectors = [(folder, a) for folder in folders for a in Bundle.open(folder).artifacts if a.role == "detector"]
    for folder, file in [(folder, artifact.file) for folder, artifact in detectors if artifact.format != "torch"]:
        three = [Row(name, partial(opened, tree, folder, file)) for name, tree in trees.items()]
        found = measure_rows(three, ROUNDS, "before", openings=OPENINGS, sample=sample).measured
        ratios = {name: found[name].ratio for name in ("again", "now")}
        now, noise = ratios["now"], abs(ratios["again"].median - 1)
        off = abs(now.median - 1) > LEAST + noise and not now.low <= 1 <= now.high
        medians = {name: row.timing.median_ms for name, row in found.items()}
        figures = {"ms": medians, "ratios": {name: asdict(ratio) for name, ratio in ratios.items()}}
        rows.append({"bundle": folder.name, "file": file, **figures, "outside_noise": off})
        click.echo(f"{folder.name} {file}: {'outside' if off else 'within'} the noise of {noise:.3f}: {now}, {medians}")
    if out is not None:
        out.write_text(json.dumps({"machine": machine.to_json(), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(any(row["outside_noise"] for row in rows))


if __name__ == "__main__":
    main()
