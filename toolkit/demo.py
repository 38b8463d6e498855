"""`make demo`: hides a message in a photograph, saves it as JPEG, reads it back with every file of a bundle on every
backend that runs the file, and times all of them in the same rounds."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import InvalidArtifact, NotAvailable, one_line
from backends.machine import Machine, default_threads
from backends.timing import Rounds
from toolkit.bench.rounds import measure_rows
from toolkit.bench.together import BenchTarget, target_row
from toolkit.cli.console import warn_if_random, working
from toolkit.models.watermark.detector import Detector
from toolkit.models.watermark.embed import Embedder
from toolkit.models.watermark.message import Match, Message

JPEG_QUALITY = 80
# A few seconds in all. Each run that counts comes after a warm-up of its own, see backends.timing.
ROUNDS = Rounds(3.0, warm_ups=3, least=5, until_steady=False)
_PICTURE_COLUMNS = 80
# rich's SVG template without its web fonts, so that the reader's browser downloads nothing.
_PICTURE = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px monospace; line-height: {line_height}px }}
.{unique_id}-title {{ font: bold 18px sans-serif }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@dataclass(frozen=True)
class Reading:
    """The result of one file on one backend: its message compared with the hidden one, and the time of a run.

    run_ms: the median of `runs` runs. fastest: whether no other file is clearly faster: in at least a quarter of the
    rounds it took no longer than the file with the lowest median.
    """

    backend: str
    artifact: Artifact
    match: Match
    run_ms: float
    runs: int
    fastest: bool

    @property
    def precision(self) -> str:
        """The precision of the file, with its route if that is not the usual one."""
        return self.artifact.precision + (", tf route" if self.artifact.route == "tf" else "")


def read_with_everything(
    bundle: Bundle,
    image: Path,
    expected: Message,
    step: Progress = lambda line: None,
    say: Progress = lambda line: None,
) -> list[Reading]:
    """Read `image` with every detector file on every backend and in every precision that runs it, and time them side by
    side.

    expected: the hidden message. step: called with each step. say: called with a line for each backend that does not
    run a file, unless it is the default of the file's format, whose errors are raised. The readings are sorted by
    backend.
    """
    threads, matches, targets = default_threads(), dict[str, Match](), list[BenchTarget]()
    detectors = [artifact for artifact in bundle.artifacts if artifact.role == "detector"]
    for target in (target for artifact in detectors for target in BenchTarget.all_of(bundle, artifact)):
        step(f"reading with {target.name}")
        precision, route = target.artifact.precision, target.artifact.route
        try:
            with Detector.open(bundle, target.backend, precision, threads, route) as detector:
                matches[target.name] = detector.detect(image).match(expected)
        except (NotAvailable, InvalidArtifact) as error:
            if target.is_default:
                raise
            say(f"{target.name}: left out: {one_line(error)}")
            continue
        targets.append(target)
    timed = measure_rows([target_row(target, threads) for target in targets], ROUNDS, progress=step)
    quickest = min(timed.measured, key=lambda name: timed.measured[name].timing.median_ms)
    readings = []
    for target in targets:
        timing = timed.measured[target.name].timing
        fastest = timed.ratio(target.name, quickest).low <= 1
        match = matches[target.name]
        readings.append(Reading(target.backend, target.artifact, match, timing.median_ms, timing.runs, fastest))
    return sorted(readings, key=lambda reading: reading.backend)


def table_of(readings: list[Reading]) -> Table:
    """Return the readings as the table that the README shows."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("backend", "precision"):
        table.add_column(name)
    for name in ("MB", "bits right", "p-value"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    table.add_column("ms", justify="right")
    for reading in readings:
        match, artifact = reading.match, reading.artifact
        table.add_row(
            reading.backend,
            reading.precision,
            f"{artifact.bytes / 1e6:.2f}",
            f"{match.matching_bits} of {match.bits}",
            f"{match.p_value:.1e}",
            "[green]detected" if match.detected else "[red]not detected",
            Text(f"{reading.run_ms:.2f}", "bold green" if reading.fastest else ""),
        )
    return table


def timing_note(readings: list[Reading], machine: Machine) -> str:
    """Return sentences on the times of the table: the fastest files, how the times were taken, and on which machine."""
    fastest = sorted((reading for reading in readings if reading.fastest), key=lambda reading: reading.run_ms)
    names = [f"{reading.backend} {reading.precision} ({reading.run_ms:.2f} ms)" for reading in fastest]
    busy = " That is more than it has cores for: the times are too long." if machine.is_busy else ""
    ties = f", and not clearly slower: {', '.join(names[1:])}" if names[1:] else ""
    return (
        f"Fastest: {names[0]}{ties}.\n"
        f"ms: one image through the network, the median of {fastest[0].runs} runs. All files take turns, each after a "
        f"warm-up; {default_threads()} threads of {machine}.{busy}"
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("photograph", type=click.Path(path_type=Path))
@click.option("--svg", type=click.Path(path_type=Path), help="Write what is printed as a picture, too.")
def main(folder: Path, photograph: Path, svg: Path | None) -> None:
    """Hide a random message in PHOTOGRAPH with the bundle in FOLDER, and read it back."""
    bundle = Bundle.open(folder)
    warn_if_random(bundle)
    machine = Machine.here()
    with tempfile.TemporaryDirectory() as temporary, working("demo") as progress:
        marked = Path(temporary) / "marked.jpg"
        with Embedder.open(bundle) as embedder:
            message = Message.random(embedder.model.bits)
            result = embedder.embed(photograph, message)
        result.image.save(marked, "JPEG", quality=JPEG_QUALITY)
        readings = read_with_everything(bundle, marked, message, progress.step, progress.say)
    console = Console(record=svg is not None, width=_PICTURE_COLUMNS if svg else None, highlight=False)
    size = f"{result.image.width} x {result.image.height}"
    console.print(f"Hid {message.hex} in {photograph.name}, {size}, PSNR {result.psnr_db:.1f} dB.", soft_wrap=True)
    console.print(f"Saved it as JPEG, quality {JPEG_QUALITY}, and read it back with every file of the bundle:")
    console.print(table_of(readings))
    console.print(timing_note(readings, machine))
    if svg is not None:
        console.save_svg(str(svg), title=f"make demo: {bundle.model['name']}", code_format=_PICTURE)


if __name__ == "__main__":
    main()
