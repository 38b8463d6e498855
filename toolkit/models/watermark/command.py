"""`toolkit run` of a watermark model: the message that each image carries."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backends.errors import InvalidInput
from toolkit.models.command import RunRequest
from toolkit.models.watermark.detector import Detector
from toolkit.models.watermark.message import Message

NOT_DETECTED = 1
BAD_IMAGE = 2
_FIRST = "ms: opening the image and the first run of the network, which is slower than later ones."
_FIRST_OF_SEVERAL = (
    "ms: opening the image and one run of the network. The first row has its first run, which is slower."
)


def run(ctx: click.Context, request: RunRequest, expect: str | None) -> None:
    """Read every image and print the results; the exit code is 1 if the expected message is missing in any image.

    An image that cannot be read is reported on stderr, and the exit code is 2.
    """
    images, as_json = request.inputs, request.as_json
    with Detector.open(request.bundle, request.backend, request.precision, request.threads) as detector:
        expected = None if expect is None else Message.from_hex(expect, detector.model.bits)
        request.warn_if_random(request.bundle)
        rows = []
        # On a terminal the lines of --json already show the progress.
        bar = not (as_json and sys.stdout.isatty())
        for row in _read(detector, request.tracked(images, "reading", bar), expected):
            rows.append(row)
            if as_json:
                click.echo(json.dumps(row, allow_nan=False))
        if not as_json and rows:
            _print(rows, request.bundle.folder)
    if len(rows) < len(images):
        ctx.exit(BAD_IMAGE)
    if expected is not None and not all(row["detected"] for row in rows):
        ctx.exit(NOT_DETECTED)


def _read(detector: Detector, images: Iterable[str], expected: Message | None) -> Iterator[dict[str, Any]]:
    """Yield an object as --json prints it for each image that can be read; report the other images on stderr."""
    for image in images:
        try:
            detection = detector.detect(image)
        except InvalidInput as error:
            click.echo(f"error: {error}", err=True)
            continue
        match = None if expected is None else detection.match(expected)
        yield {
            "image": image,
            "model": detector.model.name,
            "backend": detector.backend,
            "precision": detector.artifact.precision,
            "artifact_sha256": detector.artifact.sha256,
            "weights": detector.bundle.weights.origin,
            "confidence": detection.confidence,
            "message": detection.message.hex,
            "bits": len(detection.message),
            "expected": match and match.expected.hex,
            "matching_bits": match and match.matching_bits,
            "p_value": match and match.p_value,
            "detected": match.detected if match else detection.detected,
            "timing_ms": detection.timing_ms,
        }


def _print(rows: list[dict[str, Any]], folder: Path) -> None:
    first = rows[0]
    click.echo(f"{first['model']} on {first['backend']}, {first['precision']}: {first['weights']} weights")
    expected = first["expected"] is not None
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("message", overflow="fold", min_width=min(16, len(first["message"])))
    table.add_column("verdict", no_wrap=True)
    for name in ("bits right", "p-value", "ms") if expected else ("confidence", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    verdicts = {True: "[green]detected", False: "[red]not detected", None: "[dim]needs --expect"}
    for row in rows:
        judged = (f"{row['matching_bits']} of {row['bits']}", f"{row['p_value']:.1e}") if expected else ()
        table.add_row(
            Text(row["image"]),
            Text(row["message"]),
            verdicts[row["detected"]],
            *(judged or (f"{row['confidence']:.3f}",)),
            f"{sum(row['timing_ms'].values()):.1f}",
        )
    console = Console(highlight=False)
    console.print(table)
    note = _FIRST if len(rows) == 1 else _FIRST_OF_SEVERAL
    console.print(Text(f"{note} `toolkit bench {folder}` times warm runs.", "dim"))
