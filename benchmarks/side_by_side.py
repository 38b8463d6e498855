"""Is this tree as quick as another one? Every detector file, opened by the sessions of both, in the same rounds.

    git worktree add ../before COMMIT
    python -m benchmarks.side_by_side ../before build/pocketseal build/videoseal-1.0 [--json FILE]

Each file is open in three processes, which take turns: two import the packages of the other tree, one those of this
tree. Ratios are of runs of the same round, over the first process: "now" of this tree, and "again" of the other tree,
which shows the noise. A file is slower or quicker if the median of "now" is off by 5% more than that of "again" is, and
its quartiles lie on one side of 1: then the exit code is 1. Nothing else may run on the machine.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from backends.bundle import Bundle
from backends.machine import default_threads, describe
from backends.timing import Clock, Rounds, Run
from toolkit.bench.regressions import LEAST
from toolkit.bench.rounds import OpenRow, Row, measure_rows

HERE = Path(__file__).parents[1]
OPENINGS = 3
ROUNDS = Rounds(60.0, warm_ups=3, least=9, most=48, until_steady=False)

# The child's program, for either tree. It answers each line with the seconds of one run after a warm-up as in
# `backends.timing`.
CHILD = """
import os, sys, time
from pathlib import Path
from backends.bundle import Bundle
replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
bundle = Bundle.open(Path(sys.argv[1]))
(artifact,) = (a for a in bundle.artifacts if a.file == sys.argv[2])
try:
    from toolkit.bench.together import BenchTarget, timing_feeds
    target = BenchTarget.of(bundle, artifact)
except ImportError:  # a tree older than these names
    from toolkit.bench.feeds import timing_feeds
    from toolkit.bench.rows import candidate_of
    target = candidate_of(bundle, artifact)
feeds = timing_feeds(artifact)
with target.open(int(sys.argv[3])) as session:
    for _ in sys.stdin:
        end = time.perf_counter() + 0.02
        while True:
            session.run(feeds)
            start = time.perf_counter()
            if start >= end:
                break
        session.run(feeds)
        print(time.perf_counter() - start, file=replies, flush=True)
"""


@contextmanager
def opened(tree: Path, folder: Path, file: str) -> Iterator[OpenRow]:
    """Open a file in a child process that imports the packages of `tree`. Its run returns seconds."""
    command = [sys.executable, "-c", CHILD, str(folder.resolve()), file, str(default_threads())]
    with subprocess.Popen(command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        asked, answered = child.stdin, child.stdout
        assert asked is not None
        assert answered is not None

        def run() -> float:
            print(file=asked, flush=True)
            return float(answered.readline())

        yield OpenRow(run)
        asked.close()


def sample(run: Run, clock: Clock) -> float:
    """Return the seconds that the child measured for one run."""
    return float(str(run()))


@click.command(help=__doc__)
@click.argument("before", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("folders", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(before: Path, folders: tuple[Path, ...], out: Path | None) -> None:
    trees, rows = {"before": before, "again": before, "now": HERE}, []
    for folder in folders:
        files = [a.file for a in Bundle.open(folder).artifacts if a.role == "detector" and a.format != "torch"]
        for file in files:
            three = [Row(name, partial(opened, tree, folder, file)) for name, tree in trees.items()]
            found = measure_rows(three, ROUNDS, "before", openings=OPENINGS, sample=sample).measured
            ratio, noise = found["now"].ratio, abs(found["again"].ratio.median - 1)
            off = abs(ratio.median - 1) > LEAST + noise and not ratio.low <= 1 <= ratio.high
            medians = {name: one.timing.median_ms for name, one in found.items()}
            ratios = {name: asdict(found[name].ratio) for name in ("again", "now")}
            rows.append({"bundle": folder.name, "file": file, "ms": medians, "ratios": ratios, "outside_noise": off})
            shown = f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), noise {noise:.3f}"
            print(
                f"{folder.name} {file}: {medians['before']:.2f} ms before, {medians['now']:.2f} now, {shown}",
                flush=True,
            )
    for row in (row for row in rows if row["outside_noise"]):
        print(f"{row['bundle']} {row['file']}: outside the noise")
    if out is not None:
        out.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(any(row["outside_noise"] for row in rows))


if __name__ == "__main__":
    main()
