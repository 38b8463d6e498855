"""`make demo`: hides a message in a photograph, saves it as JPEG, and reads it back with every file of a bundle."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import run_targets
from toolkit.cli.console import warn_if_random, working
from toolkit.models.watermark.detector import Detector
from toolkit.models.watermark.embed import Embedder
from toolkit.models.watermark.message import Match, Message

JPEG_QUALITY = 80
RUNS = 20
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
    """The result of one file: its message compared with the hidden one, and the median time of a run in ms."""

    backend: str
    artifact: Artifact
    match: Match
    run_ms: float


def read_with_everything(
    bundle: Bundle, image: Path, expected: Message, step: Callable[[str], None] = lambda file: None
) -> list[Reading]:
    """Run every detector file of the bundle on `image`, on every backend and precision that runs it, RUNS times each.

    `expected` is the hidden message; `step` is called with the name of each file. The readings are sorted by backend.
    """
    readings = []
    for target in (target for one in bundle.artifacts if one.role == "detector" for target in run_targets(one)):
        step(target.name)
        artifact = target.artifact
        with Detector.open(bundle, target.backend, artifact.precision, route=artifact.route) as detector:
            detections = [detector.detect(image) for _ in range(RUNS)]
        times = sorted(detection.timing_ms["run"] for detection in detections)
        readings.append(Reading(target.backend, artifact, detections[0].match(expected), times[RUNS // 2]))
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
            artifact.precision + (", tf route" if artifact.route == "tf" else ""),
            f"{artifact.bytes / 1e6:.2f}",
            f"{match.matching_bits} of {match.bits}",
            f"{match.p_value:.1e}",
            "[green]detected" if match.detected else "[red]not detected",
            f"{reading.run_ms:.2f}",
        )
    return table


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("photograph", type=click.Path(path_type=Path))
@click.option("--svg", type=click.Path(path_type=Path), help="Write what is printed as a picture, too.")
def main(folder: Path, photograph: Path, svg: Path | None) -> None:
    """Hide a random message in PHOTOGRAPH with the bundle in FOLDER, and read it back."""
    bundle = Bundle.open(folder)
    warn_if_random(bundle)
    with tempfile.TemporaryDirectory() as temporary, working("demo") as progress:
        marked = Path(temporary) / "marked.jpg"
        with Embedder.open(bundle) as embedder:
            message = Message.random(embedder.model.bits)
            result = embedder.embed(photograph, message)
        result.image.save(marked, "JPEG", quality=JPEG_QUALITY)
        readings = read_with_everything(bundle, marked, message, progress.step)
    console = Console(record=svg is not None, width=_PICTURE_COLUMNS if svg else None, highlight=False)
    size = f"{result.image.width} x {result.image.height}"
    console.print(f"Hid {message.hex} in {photograph.name}, {size}, PSNR {result.psnr_db:.1f} dB.", soft_wrap=True)
    console.print(f"Saved it as JPEG, quality {JPEG_QUALITY}, and read it back with every file of the bundle:")
    console.print(table_of(readings))
    if svg is not None:
        console.save_svg(str(svg), title=f"make demo: {bundle.model['name']}", code_format=_PICTURE)


if __name__ == "__main__":
    main()
