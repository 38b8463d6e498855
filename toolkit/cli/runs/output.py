"""The option that says where a run's files go, and the writing of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from PIL import Image

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
