"""Clips: the frames of a video, an animated image or a folder of images; and arrays of .npz files.

One frame is in memory at a time. PyAV is imported on first use.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from PIL import Image, UnidentifiedImageError

from backends.errors import InvalidInput, one_line
from backends.tensor import Array
from toolkit.environments import need
from toolkit.images.open import MAX_PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


def count_frames(path: Path) -> int:
    """Return the number of frames of a video. Packets are counted, and no frame is decoded.

    Raises InvalidInput for a file that is not a video, has no frame or is cut short; NotAvailable without PyAV.
    """
    with _opened(path) as (container, stream):
        count = 0
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise InvalidInput(f"{path}: cut short: frame {count + 1} is not all there")
            count += packet.size > 0
        if not count:
            raise InvalidInput(f"{path}: a video without a single frame")
        if count < stream.frames:
            raise InvalidInput(
                f"{path}: cut short: its header states {stream.frames} frames, but only {count} can be read"
            )
        return count


def video_frames(path: Path, wanted: Sequence[int]) -> Iterator[Image.Image]:
    """Yield the frames with the numbers `wanted`, ascending from 0, upright and in RGB.

    Raises InvalidInput for a frame that is damaged or missing, NotAvailable without PyAV.
    """
    remaining = iter(wanted)
    next_wanted = next(remaining, None)
    number = -1
    with _opened(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if next_wanted is None:
                return
            if number == next_wanted:
                # Phones store frames rotated, with the rotation beside them.
                image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]  # av has no types here
                yield image.rotate(frame.rotation, expand=True) if frame.rotation else image
                next_wanted = next(remaining, None)
    if next_wanted is not None:
        raise InvalidInput(f"{path}: cut short: expected a frame {next_wanted + 1}, the last one is {number + 1}")


@contextmanager
def _opened(path: Path) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """Open a file and its first video stream. Every error of FFmpeg becomes InvalidInput."""
    need("video")
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InvalidInput(f"{path}: has no picture; give a video, an animated image or a folder of frames")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise InvalidInput(f"{path}: expected at most {MAX_PIXELS} pixels, got {stream.width}x{stream.height}")
            yield container, stream
    except av.FFmpegError as error:
        raise InvalidInput(
            f"{path}: not a clip that can be read; give a video, an animated image or a folder of frames: "
            f"{one_line(error)}"
        ) from error


_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_BROKEN = (UnidentifiedImageError, OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Clip:
    """A video, an animated image (GIF, WebP, APNG) or a folder of images sorted by name. count: of its frames.

    PyAV reads the frames of a video, Pillow all others.
    """

    path: Path
    count: int

    @classmethod
    def open(cls, path: Path) -> "Clip":
        """Open a clip and count its frames, without decoding any.

        Raises InvalidInput for a path that is not a clip, NotAvailable for a video without PyAV.
        """
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
        """Yield `most` RGB frames, spread evenly from the first frame to the last; all frames if there are fewer.

        Raises InvalidInput for a frame that cannot be decoded.
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
    """Return the only array of an .npz file. Raises InvalidInput for a broken file, and for no or several arrays."""
    try:
        with np.load(path, allow_pickle=False) as held:
            if not isinstance(held, np.lib.npyio.NpzFile) or len(held.files) != 1:
                raise InvalidInput(f"{path}: expected an .npz that holds one array")
            return np.asarray(held[held.files[0]])
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InvalidInput(f"{path}: not an .npz that can be read: {one_line(error)}") from error
