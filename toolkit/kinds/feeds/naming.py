"""What an image is called in a report."""

from pathlib import Path

from toolkit.image_io import ImageSource


def name_of(image: ImageSource, number: int) -> str:
    """The name of a file, else the image's place in the order, from 1 on."""
    return Path(image).name if isinstance(image, str | Path) else f"image {number}"
