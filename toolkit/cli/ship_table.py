"""The output of `toolkit ship`: a row for each file, the file to take on each runtime, and the place of the report."""

from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolkit.cli.console import warn_if_random

if TYPE_CHECKING:
    from toolkit.shipping.choice import ShippedFile
    from toolkit.shipping.ship import Shipped

_STYLES = {"pass": "green", "fail": "bold red", "not made": "bold red"}


def print_shipped(shipped: "Shipped") -> None:
    """Print the table and the advice to stdout; notes, reasons and warnings to stderr."""
    warn_if_random(shipped.bundle)
    for note in shipped.notes:
        click.echo(f"note: {note}", err=True)
    reasons: dict[tuple[str, str], list[str]] = {}
    for file in (file for file in shipped.files if file.why):
        said = "; ".join(file.why).removeprefix(f"{file.file}: ")
        reasons.setdefault((file.verdict, said), []).append(file.file)
    for (verdict, why), names in reasons.items():
        colour = None if verdict == "impossible" else "red"
        click.secho(f"{', '.join(names)}: {verdict}: {why}", fg=colour, err=True)
    for step, why in shipped.failed.items():
        click.secho(f"error: {step}: {why}", fg="red", err=True)
    console = Console(highlight=False)
    console.print(_table(shipped))
    if shipped.bench is not None:
        console.print(Text(f"ms: {shipped.bench.threads} threads of {shipped.bench.machine}", "dim"), soft_wrap=True)
    several = len({choice.role for choice in shipped.choices}) > 1
    for choice in shipped.choices:
        console.print(Text(f"{choice.role}, {choice.reason}" if several else choice.reason), soft_wrap=True)
    if shipped.report is not None:
        console.print(Text(f"report: {shipped.report}"), soft_wrap=True)


def _table(shipped: "Shipped") -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("file", overflow="fold")
    table.add_column("runtime")
    for name in ("MB", "ms", "speed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    table.caption = "speed: over the float32 file of the same runtime, in the same rounds" if shipped.bench else None
    for file in shipped.files:
        table.add_row(file.file, file.runtime, *_figures(file), Text(file.verdict, _STYLES.get(file.verdict, "")))
    return table


def _figures(file: "ShippedFile") -> tuple[str, str, str]:
    return (
        "" if file.bytes is None else f"{file.bytes / 1e6:.2f}",
        "" if file.median_ms is None else f"{file.median_ms:.2f}",
        "" if file.speed is None else f"{file.speed:.2f}x",
    )
