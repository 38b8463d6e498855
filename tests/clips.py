"""Small real videos: a grey that grows from frame to frame."""

from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, STEP = 64, 48, 12


def write_video(path: Path, frames: int) -> None:
    """MPEG-4, whose index stands before the frames: WIDTH x HEIGHT, frame i of grey STEP * i, its top left corner
    white."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 1_000_000
        for i in range(frames):
            pixels = np.full((HEIGHT, WIDTH, 3), STEP * i, np.uint8)
            pixels[: HEIGHT // 4, : WIDTH // 4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
