"""The request of `toolkit run` to a kind of model, and functions that write the files and lines of its results."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from PIL import Image

    from backends.bundle import Bundle

OUTPUT = click.Option(
    ["-o", "--output"],
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    show_default="here",
    metavar="DIR",
    help="Where arrays and pictures go.",
)

_MS_A_PICTURE = 500


def write_arrays(path: Path, arrays: dict[str, Any]) -> str:
    """Write arrays by name to an .npz file, atomically. Make missing folders. Returns the path as text."""
    import numpy as np

    from backends.atomic import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    return str(path)


def write_picture(path: Path, picture: "Image.Image") -> str:
    """Write a .png file, atomically. Make missing folders. Returns the path as text."""
    from backends.atomic import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.save(temporary, "PNG")
    return str(path)


def write_animation(path: Path, pictures: "list[Image.Image]") -> str:
    """Write a .gif file that shows one or more pictures in an endless loop, atomically. Returns the path as text."""
    from backends.atomic import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = pictures
    with replacing(path) as temporary:
        first.save(temporary, "GIF", save_all=True, append_images=others, duration=_MS_A_PICTURE, loop=0)
    return str(path)


@dataclass(frozen=True)
class RunRequest:
    """The options of `toolkit run` that all kinds share, and the command line's functions for messages.

    warn_if_random: prints a warning on stderr if the weights of a bundle are random. tracked: called with the inputs, a
    word for the work and whether to show a progress bar; yields the inputs under a progress bar on stderr.
    """

    bundle: "Bundle"
    inputs: tuple[str, ...]
    backend: str
    precision: str
    threads: int | None
    as_json: bool
    warn_if_random: "Callable[[Bundle], None]"
    tracked: Callable[[Sequence[str], str, bool], Iterator[str]]

    def row(self, name: str, role: str, **found: Any) -> dict[str, Any]:
        """Return one result as --json prints it: the file that ran, then the values in `found`.

        name: the image. role: the graph whose file is named. Raises NotAvailable if the bundle has no such file.
        """
        from backends.registry import find_artifact

        artifact = find_artifact(self.bundle, role, self.backend, self.precision)
        return {
            "image": name,
            "model": self.bundle.model["name"],
            "backend": self.backend,
            "precision": self.precision,
            "artifact_sha256": artifact.sha256,
            "weights": self.bundle.weights.origin,
            **found,
        }

    def show(self, row: dict[str, Any], lines: list[str]) -> None:
        """Print one result: the row with --json, else a heading and the lines below it."""
        if self.as_json:
            click.echo(json.dumps(row, allow_nan=False))
            return
        click.echo(f"{row['image']}: {row['model']} on {row['backend']}, {row['precision']}, {row['weights']} weights")
        for line in lines:
            click.echo(f"  {line}")


def milliseconds(timing_ms: Mapping[str, Sequence[float]], first_runs: Collection[str]) -> str:
    """Return text with the times of each graph, such as "encode 31.0 ms (first run), then 3 x 9.2 ms".

    timing_ms: the time of each run, by role. The text has the median of the runs, and a first run apart from the
    others, since it is slower. first_runs: the roles of which the first time is of a first run.
    """
    parts = []
    for role, times in timing_ms.items():
        first, rest = (times[:1], times[1:]) if role in first_runs else ([], times)
        shown = [f"{ms:.1f} ms (first run)" for ms in first]
        if rest:
            shown.append(f"{'then ' if first else ''}{len(rest)} x {median(rest):.1f} ms")
        parts.append(f"{role} {', '.join(shown)}")
    return "; ".join(parts)
