"""What preparing, lowering and quantizing a detector are worth: every file beside what a user would run instead.

    python -m benchmarks.speed build/videoseal-1.0 [--only NAME ...] [--json FILE]

Beside the files of the bundle run: PyTorch, eager and compiled; ONNX Runtime and OpenVINO on the graph as it was
exported; and TFLite on what onnx2tf makes of that graph. All are opened in one process, and opened anew twice: where a
runtime's memory comes to lie is luck that moves a file by several percent. One round runs each of them in random order:
uncounted until the threads of the one before have gone to sleep, then once that counts. OpenVINO is no part of
requirements/run.lock, but of requirements/evaluation.txt; without it its row is missing. `toolkit bench --peers` runs
the same peers through this project's own sessions.
A ratio is the median over the rounds of one time over another's in the same round.
"""

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backends.bundle import Bundle
from backends.machine import default_threads
from benchmarks.direct import DIRECT, Run, same_runtime
from benchmarks.head import head
from toolkit.bench.peers import COMPILED, EAGER, EXPORTED, ONNX2TF, OPENVINO, make_peers
from toolkit.bench.rounds import time_after_warmup
from toolkit.bench.together import BenchTarget

WARM_UPS = 3
OPENINGS = 3
ROUNDS = 24
# A model that takes seconds stops after fewer rounds.
LEAST_ROUNDS, TIME_LIMIT_S = 9, 180.0
PEERS = (EAGER, COMPILED, EXPORTED, OPENVINO)
UNPREPARED = ONNX2TF


class Timed:
    """Whatever is timed: a name, how to open it, and what is known of the file."""

    def __init__(self, name: str, open_: Callable[[ExitStack], Run], **facts: Any) -> None:
        self.name, self.open, self.facts = name, open_, facts
        self.times_ms: list[float] = []


def bundle_files(bundle: Bundle, threads: int, wanted: Callable[[str], bool]) -> list[Timed]:
    return [
        Timed(
            artifact.file,
            lambda stack, artifact=artifact: DIRECT[artifact.format](bundle.folder / artifact.file, artifact, threads),
            sha256=artifact.sha256,
            bytes=artifact.bytes,
        )
        for artifact in bundle.artifacts
        if artifact.role == "detector" and artifact.format != "torch" and wanted(artifact.file)
    ]


def peers(bundle: Bundle, folder: Path, threads: int, wanted: Callable[[str], bool]) -> list[Timed]:
    """What a user would run without this project, on the same weights, called without this project."""
    made = []
    for peer in make_peers(bundle, "detector", folder, names=[name for name in (*PEERS, UNPREPARED) if wanted(name)]):
        if peer.candidate is None:
            Console(stderr=True).print(f"{peer.name}: {peer.note}", markup=False, highlight=False)
            continue
        made.append(Timed(peer.name, partial(_opened, peer.candidate, threads)))
    return made


def _opened(candidate: BenchTarget, threads: int, stack: ExitStack) -> Run:
    return same_runtime(stack.enter_context(candidate.open(threads)))


def measure(timed: list[Timed], image: NDArray[np.float32]) -> None:
    """ROUNDS rounds in all, or as many as the time limit lets there be, LEAST_ROUNDS at least."""
    order = np.random.default_rng(0)
    with Progress() as progress:
        task = progress.add_task("timing", total=OPENINGS * (WARM_UPS + ROUNDS // OPENINGS))
        for _ in range(OPENINGS):
            with ExitStack() as stack:
                _opening(timed, image, order, stack, lambda: progress.advance(task))


def _opening(
    timed: list[Timed],
    image: NDArray[np.float32],
    order: np.random.Generator,
    stack: ExitStack,
    done: Callable[[], None],
) -> None:
    """The rounds of one opening: all that is open here is closed, and out of memory, at its end."""
    runs = [entry.open(stack) for entry in timed]
    end = time.perf_counter() + TIME_LIMIT_S / OPENINGS
    for turn in range(WARM_UPS + ROUNDS // OPENINGS):
        if turn >= WARM_UPS + LEAST_ROUNDS // OPENINGS and time.perf_counter() > end:
            return
        for index in order.permutation(len(timed)):
            seconds = time_after_warmup(lambda run=runs[index]: run(image))
            if turn >= WARM_UPS:
                timed[index].times_ms.append(1e3 * seconds)
        done()


def ratio(one: Timed, other: Timed) -> dict[str, float]:
    """Quartiles over the rounds."""
    low, middle, high = np.quantile(np.array(one.times_ms) / np.array(other.times_ms), [0.25, 0.5, 0.75])
    return {"low": float(low), "median": float(middle), "high": float(high)}


def comparisons(timed: list[Timed]) -> list[dict[str, Any]]:
    """The ratios that say what a step is worth, where both sides were measured."""
    by_name = {entry.name: entry for entry in timed}
    quickest = min(
        (by_name[name] for name in PEERS if name in by_name), key=lambda entry: np.median(entry.times_ms), default=None
    )
    pairs = [
        ("detector.int8.tflite", "detector.fp32.tflite"),
        ("detector.fp16.tflite", "detector.fp32.tflite"),
        ("detector.fp32.tflite", UNPREPARED),
        ("detector.fp32.tflite", "detector.fp32.tf.tflite"),
        ("detector.onnx", PEERS[2]),
        ("detector.int8.onnx", "detector.onnx"),
        ("detector.int8.tflite", "detector.onnx"),
    ]
    if quickest is not None:
        pairs += [(name, quickest.name) for name in ("detector.int8.tflite", "detector.fp32.tflite", "detector.onnx")]
    return [
        {"file": one, "over": other, **ratio(by_name[one], by_name[other])}
        for one, other in pairs
        if one in by_name and other in by_name
    ]


def _table(timed: list[Timed], ratios: list[dict[str, Any]]) -> Table:
    table = Table("", "ms", "p90", title="milliseconds")
    for entry in sorted(timed, key=lambda entry: float(np.median(entry.times_ms))):
        median, p90 = np.quantile(entry.times_ms, [0.5, 0.9])
        table.add_row(entry.name, f"{median:.1f}", f"{p90:.1f}")
    table.add_section()
    for row in ratios:
        table.add_row(f"{row['file']} / {row['over']}", f"{row['median']:.2f}", f"{row['low']:.2f}-{row['high']:.2f}")
    return table


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--only", multiple=True, help="A name in the table; may be repeated. Everything by default.")
@click.option("--threads", type=int, default=default_threads(), show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures here.")
def main(folder: Path, only: tuple[str, ...], threads: int, out: Path | None) -> None:
    bundle = Bundle.open(folder)

    def wanted(name: str) -> bool:
        return not only or name in only

    with tempfile.TemporaryDirectory() as temporary:
        timed = [*bundle_files(bundle, threads, wanted), *peers(bundle, Path(temporary), threads, wanted)]
        if missing := set(only) - {entry.name for entry in timed}:
            raise click.UsageError(f"nothing named {', '.join(sorted(missing))}")
        image = np.random.default_rng(0).random(
            bundle.find("detector", "onnx", "fp32").inputs[0].spec.shape, np.float32
        )
        measure(timed, image)
    ratios = comparisons(timed)
    Console().print(_table(timed, ratios))
    if out is not None:
        document = {
            **head(bundle, threads),
            "rounds": len(timed[0].times_ms),
            "timed": [
                {
                    "name": entry.name,
                    **entry.facts,
                    "median_ms": float(np.median(entry.times_ms)),
                    "p90_ms": float(np.quantile(entry.times_ms, 0.9)),
                }
                for entry in timed
            ],
            "ratios": ratios,
        }
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
