"""Requests of `toolkit run`, and the files and lines that a run writes."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    """Write an .npz, whole or not at all. Returns its name."""
    import numpy as np

    from backends.atomic import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    return str(path)


def write_picture(path: Path, picture: "Image.Image") -> str:
    """Write a .png, whole or not at all. Returns its name."""
    from backends.atomic import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.save(temporary, "PNG")
    return str(path)


def write_animation(path: Path, pictures: "list[Image.Image]") -> str:
    """Write a .gif that shows one picture after the other, again and again, whole or not at all. Returns its name."""
    from backends.atomic import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = pictures
    with replacing(path) as temporary:
        first.save(temporary, "GIF", save_all=True, append_images=others, duration=_MS_A_PICTURE, loop=0)
    return str(path)


@dataclass(frozen=True)
class RunRequest:
    """The options of `toolkit run` that all kinds have, and the command line's own ways to speak to a person.

    warn_if_random: warns on stderr where the weights of a bundle are random. tracked: called with inputs, a word for
    the work and whether to show; yields the inputs under a progress bar on stderr.
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
        """One answer as --json prints it: what ran, then what was found."""
        from backends.registry import find_artifact

        artifact = find_artifact(self.bundle, role, self.backend, self.precision)
        return {
            "image": name,
            "model": self.bundle.model["name"],
            "backend": self.backend,
            "precision": self.precision,
            "artifact_sha256": artifact.sha256,
            "weights": self.bundle.weights["origin"],
            **found,
        }

    def show(self, row: dict[str, Any], lines: list[str]) -> None:
        """Print one answer: the row with --json, else the lines under what was read."""
        if self.as_json:
            click.echo(json.dumps(row, allow_nan=False))
            return
        click.echo(f"{row['image']}: {row['model']} on {row['backend']}, {row['precision']}, {row['weights']} weights")
        for line in lines:
            click.echo(f"  {line}")


def milliseconds(timing_ms: dict[str, list[float]]) -> str:
    """Each graph, how often it ran, and how long that took."""
    parts = [f"{role} {len(times)} x {sum(times) / len(times):.1f}" for role, times in timing_ms.items()]
    return f"{', '.join(parts)} ms"
