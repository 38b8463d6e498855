"""Clips: their frames one at a time, and the arrays that go with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image, UnidentifiedImageError

from backends.errors import InvalidInput, one_line
from backends.tensor import Array
from toolkit.kinds.video import count_frames, video_frames

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_BROKEN = (UnidentifiedImageError, OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Clip:
    """A video, an animated image (GIF, WebP, APNG) or a folder of images by name. count: of its frames.

    A video's frames are read with PyAV.
    """

    path: Path
    count: int

    @classmethod
    def open(cls, path: Path) -> "Clip":
        """Find out what it is and count its frames; none is decoded. Raises InvalidInput, NotAvailable without PyAV."""
        if path.is_dir():
            return cls(path, len(_images(path)))
        if not path.is_file():
            raise InvalidInput(f"{path}: no such clip; give a video, an animated image or a folder of frames")
        if not path.stat().st_size:
            raise InvalidInput(f"{path}: an empty file; give a video, an animated image or a folder of frames")
        try:
            with Image.open(path) as image:
                return cls(path, getattr(image, "n_frames", 1))
        except UnidentifiedImageError:
            return cls(path, count_frames(path))
        except _BROKEN as error:
            raise _unreadable(path, error) from error

    def frames(self, most: int) -> Iterator[Image.Image]:
        """`most` frames spread over the clip from its first to its last, or all if there are fewer; RGB.

        One is in memory at a time. Raises InvalidInput for one that cannot be decoded.
        """
        wanted = np.linspace(0, self.count - 1, min(most, self.count)).round().astype(int).tolist()
        if self.path.is_dir():
            files = _images(self.path)
            for place in wanted:
                yield from _decoded(files[place], [0])
        elif _is_image(self.path):
            yield from _decoded(self.path, wanted)
        else:
            yield from video_frames(self.path, wanted)


def _images(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise InvalidInput(f"{folder}: no images in this folder (looked for {', '.join(sorted(_SUFFIXES))})")
    return files


def _is_image(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except UnidentifiedImageError:
        return False


def _decoded(path: Path, wanted: Sequence[int]) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            for place in wanted:
                image.seek(place)
                yield image.convert("RGB")
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InvalidInput:
    return InvalidInput(
        f"{path}: not an image that can be read; give a video, an animated image or a folder of frames: "
        f"{one_line(error)}"
    )


def read_array(path: Path) -> Array:
    """The one array of an .npz. Raises InvalidInput."""
    try:
        with np.load(path, allow_pickle=False) as held:
            if not isinstance(held, np.lib.npyio.NpzFile) or len(held.files) != 1:
                raise InvalidInput(f"{path}: expected an .npz that holds one array")
            return np.asarray(held[held.files[0]])
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InvalidInput(f"{path}: not an .npz that can be read: {one_line(error)}") from error
