"""An opened image: it gives RGB rows and colour planes in known units, whatever its stored mode, a part at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Photo:
    """An opened image.

    name: of the image in error messages. pixels: an upright PIL image of mode L, LA, I;16, RGB or RGBA; or an (H, W, C)
    array of uint8, uint16 or float in [0, 1], with C of 1, 3 or 4, where the 4th channel is alpha.
    source_format: Pillow's name of the file's format, None if there was no file. frames: their number in the source.
    """

    name: str
    pixels: Image.Image | npt.NDArray[Any]
    source_format: str | None
    frames: int
    icc_profile: bytes | None
    exif: bytes | None

    @property
    def width(self) -> int:
        return self.pixels.width if isinstance(self.pixels, Image.Image) else self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.height if isinstance(self.pixels, Image.Image) else self.pixels.shape[0]

    @property
    def mode(self) -> str:
        """Pillow's mode for these pixels: L, LA, I;16, RGB or RGBA."""
        if isinstance(self.pixels, Image.Image):
            return self.pixels.mode
        if self.pixels.shape[2] == 1:
            return "I;16" if self.pixels.dtype == np.uint16 else "L"
        return "RGB" if self.pixels.shape[2] == 3 else "RGBA"

    @property
    def is_grey(self) -> bool:
        return self.mode in ("L", "LA", "I;16")

    def plane(self, channel: int) -> Image.Image:
        """Return one colour channel as a PIL image of mode F, in [0, full_scale]. Grey has only channel 0."""
        if isinstance(self.pixels, Image.Image):
            only = self.pixels if len(self.pixels.getbands()) == 1 else self.pixels.getchannel(channel)
            return only.convert("F")
        return Image.fromarray(self.pixels[:, :, channel].astype(np.float32))

    @property
    def full_scale(self) -> int:
        """The stored value that means 1.0."""
        if isinstance(self.pixels, Image.Image):
            return 65_535 if self.pixels.mode == "I;16" else 255
        return 1 if self.pixels.dtype.kind == "f" else int(np.iinfo(self.pixels.dtype).max)

    def samples(self, top: int, bottom: int) -> npt.NDArray[Any]:
        """Return rows top to bottom as stored: (bottom - top, W, C), with alpha."""
        if isinstance(self.pixels, Image.Image):
            strip = np.asarray(self.pixels.crop((0, top, self.width, bottom)))
            return strip if strip.ndim == 3 else strip[:, :, None]
        return self.pixels[top:bottom]

    def rows(self, top: int, bottom: int) -> Floats:
        """Return rows top to bottom as RGB: (bottom - top, W, 3) float32 in [0, 1], without alpha; grey is repeated."""
        samples = self.samples(top, bottom)
        colour = samples[:, :, :3] if samples.shape[2] >= 3 else samples[:, :, :1]
        values = colour.astype(np.float32)
        values /= self.full_scale
        np.clip(values, 0, 1, out=values)
        return values if values.shape[2] == 3 else np.repeat(values, 3, axis=2)

    def alpha(self, top: int, bottom: int) -> npt.NDArray[np.uint8]:
        """Return rows top to bottom of the alpha of LA or RGBA: (bottom - top, W, 1), 0 to 255."""
        alpha = self.samples(top, bottom)[:, :, -1:]
        return alpha if alpha.dtype == np.uint8 else np.rint(alpha / self.full_scale * 255).astype(np.uint8)
