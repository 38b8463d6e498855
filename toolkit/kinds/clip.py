"""Clips: their frames one at a time, the arrays that go with them, and a picture of where a model looked."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from backends.errors import InvalidInput, one_line
from backends.tensor import Array
from toolkit.photo import Floats

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_FRAME_PX = 192


def read_frames(path: Path) -> Iterator[Image.Image]:
    """The frames of an animated image (GIF, WebP, APNG), or the images of a folder by name, in RGB.

    Raises InvalidInput for what is neither.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        if not files:
            raise InvalidInput(f"{path}: no images in this folder (looked for {', '.join(sorted(_SUFFIXES))})")
        for file in files:
            yield from _decoded(file, every=False)
    elif path.is_file():
        yield from _decoded(path, every=True)
    else:
        raise InvalidInput(f"{path}: no such clip; give an animated image or a folder of frames")


def _decoded(path: Path, every: bool) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image) if every else (image,):
                yield frame.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInput(
            f"{path}: not an image that can be read, give an animated image or a folder of frames: {one_line(error)}"
        ) from error


def read_array(path: Path) -> Array:
    """The one array of an .npz. Raises InvalidInput."""
    try:
        with np.load(path, allow_pickle=False) as held:
            if not isinstance(held, np.lib.npyio.NpzFile) or len(held.files) != 1:
                raise InvalidInput(f"{path}: expected an .npz that holds one array")
            return np.asarray(held[held.files[0]])
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InvalidInput(f"{path}: not an .npz that can be read: {one_line(error)}") from error


def attention_picture(frames: Iterator[Image.Image], attention: Sequence[Floats]) -> Image.Image:
    """A column a frame: the frame, then what each pass looked at, brighter where it looked more.

    attention: for each pass (T, grid, grid).
    """
    small = [frame.resize((_FRAME_PX, _FRAME_PX), Image.Resampling.BILINEAR) for frame in frames]
    sheet = Image.new("RGB", (_FRAME_PX * len(small), _FRAME_PX * (1 + len(attention))))
    for column, frame in enumerate(small):
        sheet.paste(frame, (column * _FRAME_PX, 0))
        for row, maps in enumerate(attention, start=1):
            share = maps[column] / max(float(maps[column].max()), 1e-12)
            light = Image.fromarray((255 * share).round().astype(np.uint8)).resize(frame.size, Image.Resampling.NEAREST)
            dark = frame.point(lambda value: value // 4)
            sheet.paste(Image.composite(frame, dark, light), (column * _FRAME_PX, row * _FRAME_PX))
    return sheet
