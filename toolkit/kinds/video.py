"""Frames of a video file, decoded one after the other and let go; PyAV is imported on first use."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from backends.errors import InvalidInput, one_line
from toolkit.extras import need
from toolkit.image_io import MAX_PIXELS

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


def count_frames(path: Path) -> int:
    """How many frames a video has: its packets are counted, nothing is decoded.

    Raises InvalidInput for what is no video, has no frame or is cut short; NotAvailable without PyAV.
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
            raise InvalidInput(f"{path}: cut short: it says that it has {stream.frames} frames, and {count} are there")
        return count


def video_frames(path: Path, wanted: Sequence[int]) -> Iterator[Image.Image]:
    """The frames at these places, ascending from 0, upright and in RGB. What lies between is decoded and dropped.

    Raises InvalidInput for a frame that is damaged or not there.
    """
    remaining = iter(wanted)
    next_wanted = next(remaining, None)
    number = -1
    with _opened(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if next_wanted is None:
                return
            if number == next_wanted:
                # Stored turned, as a phone stores it, with a note of how to turn it back.
                image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]  # av has no types here
                yield image.rotate(frame.rotation, expand=True) if frame.rotation else image
                next_wanted = next(remaining, None)
    if next_wanted is not None:
        raise InvalidInput(f"{path}: cut short: expected a frame {next_wanted + 1}, the last one is {number + 1}")


@contextmanager
def _opened(path: Path) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """A file and its first video stream. Whatever FFmpeg says becomes InvalidInput."""
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
