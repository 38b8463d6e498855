"""How commands name a bundle, and what they say of one."""

from collections.abc import Mapping
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from backends.bundle import Bundle
from toolkit import find_bundle


def chosen_bundle(model: str | None, folder: Path | None) -> Bundle:
    """What --model or --bundle names; with neither, pocketseal."""
    if model is not None and folder is not None:
        raise click.UsageError("--model and --bundle both name a bundle: give one", click.get_current_context())
    return Bundle.open(find_bundle(folder or model or "pocketseal"))


def warn_if_random(bundle: Bundle) -> None:
    """Say on stderr that the weights are random, where they are: then no result means anything."""
    if bundle.weights["origin"] == "random":
        source = bundle.weights["source"]
        click.secho(
            f"warning: {bundle.folder} has random weights ({source}): its results mean nothing", fg="yellow", err=True
        )


def print_artifacts(bundle: Bundle, columns: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """The files of a bundle, with their sizes in decimal megabytes, and what further columns say of some of them."""
    click.echo(f"{bundle.folder}: {bundle.weights['origin']} weights ({bundle.weights['source']})")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("format")
    table.add_column("precision")
    table.add_column("MB", justify="right")
    further = {title: cells for title, cells in (columns or {}).items() if cells}
    for title in further:
        table.add_column(title, justify="right")
    for artifact in bundle.artifacts:
        row = (artifact.file, artifact.format, artifact.precision, f"{artifact.bytes / 1e6:.2f}")
        table.add_row(*row, *(cells.get(artifact.file, "") for cells in further.values()))
    Console().print(table)
