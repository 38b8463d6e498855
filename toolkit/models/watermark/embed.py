"""Embedding: hide a message in an image of any size, strip by strip, with numpy.

`jnd_1_1` computes the just-noticeable-difference map: how much change each pixel hides. Its values equal those of the
reference, graphs.networks.seal.embedder.jnd_heatmap, which needs torch.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from backends.machine import default_threads
from backends.registry import find_artifact, open_session
from backends.session import Closing, Session
from toolkit.images.open import ImageSource, open_photo
from toolkit.images.photo import Floats, Photo
from toolkit.images.preprocess import resize, to_tensor
from toolkit.images.save import check_target, save_image
from toolkit.models.watermark.detector import EmbedderModel, WatermarkModel
from toolkit.models.watermark.message import Message

# The map of a strip depends on this many rows above and below it.
HALO = 2


def luma(rows: Floats) -> Floats:
    """Return the luma (Y of YUV) of RGB rows: (H, W, 3) -> (H, W), in the same range."""
    # Not `rows @ weights`: the threads of a matrix library wait for each other when cores are busy.
    y: Floats = 0.299 * rows[:, :, 0]
    y += 0.587 * rows[:, :, 1]
    y += 0.114 * rows[:, :, 2]
    return y


def jnd_1_1(rows: Floats, above: int, below: int) -> Floats:
    """Return the just-noticeable-difference map of a strip: (H, W) float32, at least 0, in the units of the image.

    rows: (above + H + below, W, 3) float32 in [0, 1]. above, below: how many rows around the H rows of the strip are
    given: HALO, or fewer at the image's border, where zeros take their place.
    """
    y = np.pad(255 * luma(rows), ((HALO - above, HALO - below), (HALO, HALO)))
    height, width = y.shape[0] - 2 * HALO, y.shape[1] - 2 * HALO

    def shifted(down: int, right: int) -> Floats:
        return y[HALO + down : HALO + down + height, HALO + right : HALO + right + width]

    # The 5x5 kernel of ones, with twos around its centre and 0 at it, is two boxes minus twice the centre.
    background = (_box(y, 2, height, width) + _box(y, 1, height, width) - 2 * shifted(0, 0)) / 32
    np.clip(background, 0, None, out=background)  # the sums of boxes may round to just below 0
    dark = 17 * (1 - np.sqrt(np.minimum(background, 127) / 127 + 1e-5))
    light = 3 / 128 * (background - 127) + 3
    luminance_mask = np.where(background <= 127, dark, light)

    # Sobel.
    right = shifted(-1, 1) + 2 * shifted(0, 1) + shifted(1, 1)
    left = shifted(-1, -1) + 2 * shifted(0, -1) + shifted(1, -1)
    down = shifted(1, -1) + 2 * shifted(1, 0) + shifted(1, 1)
    up = shifted(-1, -1) + 2 * shifted(-1, 0) + shifted(-1, 1)
    squared = (right - left) ** 2 + (down - up) ** 2
    contrast_mask = 0.117 * 16 * squared**1.2 / (squared + 26**2)

    overlap = 0.3 * np.minimum(luminance_mask, contrast_mask)
    heatmap: Floats = np.maximum(luminance_mask + contrast_mask - overlap, 0) / 255
    return heatmap.astype(np.float32, copy=False)


def _box(y: Floats, reach: int, height: int, width: int) -> Floats:
    """Return the sum over the square with sides of 2 * reach + 1 pixels around each pixel of the strip."""
    first, last = HALO - reach, HALO + reach
    columns = y[:, first : first + width].copy()
    for left in range(first + 1, last + 1):
        columns += y[:, left : left + width]
    total = columns[first : first + height].copy()
    for top in range(first + 1, last + 1):
        total += columns[top : top + height]
    return total


_ATTENUATIONS: dict[str, Callable[[Floats, int, int], Floats]] = {"jnd_1_1": jnd_1_1}

# Pixels of a strip: so few that its arrays, about twenty at once, nearly fit into the processor's cache.
_STRIP_PIXELS = 1 << 18


def blended_strips(photo: Photo, watermark: Floats, model: EmbedderModel) -> Iterator[tuple[int, Floats, Floats]]:
    """Mark a photo, strip by strip from top to bottom; `EmbedderModel` has the formula.

    watermark: (C, E, E) float32 in [-1, 1]; it is resized to the photo's size with antialias.
    Yields (top row, original, marked): both images are (rows, W, 3) float32 in [0, 1].
    """
    planes = [Image.fromarray(channel) for channel in watermark]
    height, width = photo.height, photo.width
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        change = np.stack([_blended_strip(plane, width, height, top, bottom) for plane in planes], axis=2)
        above, below = min(HALO, top), min(HALO, height - bottom)
        rows = photo.rows(top - above, bottom + below)
        original = rows[above : above + bottom - top]
        if model.attenuation is not None:
            change *= _ATTENUATIONS[model.attenuation](rows, above, below)[:, :, None]
        marked = model.scaling_i * original + model.scaling_w * change
        yield top, original, np.clip(marked, 0, 1, out=marked)


def _blended_strip(plane: Image.Image, width: int, height: int, top: int, bottom: int) -> Floats:
    """Return rows top to bottom of a square plane resized to height x width: (bottom - top, width)."""
    size_px = plane.height
    scale = size_px / height
    # Pillow stores a box in float32. Cropping the plane first keeps the box's coordinates, and their rounding, small.
    margin = math.ceil(max(scale, 1)) + 1
    first = max(0, math.floor(top * scale) - margin)
    last = min(size_px, math.ceil(bottom * scale) + margin)
    box = (0.0, top * size_px / height - first, float(size_px), bottom * size_px / height - first)
    return resize(plane.crop((0, first, size_px, last)), width, bottom - top, box)


_BACKEND = "ort"


@dataclass(frozen=True)
class EmbedResult:
    """A marked image.

    image: upright, because the rotation of the source's EXIF is applied and its tag removed. It keeps the source's
    mode, with alpha unchanged and grey in 8 or 16 bits; palette and CMYK images become RGB.
    psnr_db: of the image's stored values against the source's; infinite if none changed.
    timing_ms: "preprocess" (opening and resizing), "run" and "blend", in milliseconds.
    """

    image: Image.Image
    message: Message
    psnr_db: float
    timing_ms: dict[str, float]
    source: Photo

    def save(self, path: Path | str, force: bool = False) -> None:
        """Write the image atomically, with the source's ICC profile and EXIF; no other metadata is kept.

        The suffix names the format; without a suffix, it is the source's. JPEG has quality 95 and no colour
        subsampling. Raises InvalidInput for a file that cannot be written, or that exists if force is False.
        """
        save_image(self.image, Path(path), self.source, force)


class Embedder(Closing):
    """An opened embedder, on ONNX Runtime. Close it, or use it as a context manager."""

    def __init__(self, session: Session, model: WatermarkModel, embedder: EmbedderModel) -> None:
        self.model = model
        self._embedder = embedder
        self._session = session

    @classmethod
    def open(cls, bundle: Bundle | Path | str, threads: int | None = None) -> "Embedder":
        """Open the embedder of a bundle, given as a Bundle or its folder.

        threads: by default the number of cores this process may use. Raises NotAvailable if the bundle has no
        embedder, InvalidArtifact for a broken file.
        """
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(Path(bundle))
        model = WatermarkModel.of(bundle)
        if model.embedder is None:
            raise NotAvailable(f"{bundle.folder}: {model.name} has no embedder, it only detects")
        artifact = find_artifact(bundle, "embedder", _BACKEND, "fp32")
        _check_signature(artifact, model, model.embedder)
        session = open_session(bundle, artifact, _BACKEND, default_threads() if threads is None else threads)
        return cls(session, model, model.embedder)

    @property
    def artifact(self) -> Artifact:
        return self._session.artifact

    def embed(self, image: ImageSource, message: Message | str) -> EmbedResult:
        """Mark one image: a path, a PIL image or an array (see toolkit.images.open.open_photo).

        message: a Message or its hex. Memory holds the image, its marked copy, and one strip. Raises InvalidInput for a
        message of another length, and for an image that cannot be opened or has several frames.
        """
        checked = self._message(message)
        start = time.perf_counter()
        return self._embed(open_photo(image), checked, start)

    def embed_file(
        self, image: Path | str, message: Message | str, out: Path | str, force: bool = False
    ) -> EmbedResult:
        """Mark an image file, and save the result to `out`.

        Raises InvalidInput as `embed` and `EmbedResult.save` do; `out` is checked before any work is done.
        """
        checked, path = self._message(message), Path(out)
        start = time.perf_counter()
        photo = open_photo(image)
        check_target(path, photo.source_format, photo.mode, force)
        result = self._embed(photo, checked, start)
        result.save(path, force)
        return result

    def _message(self, message: Message | str) -> Message:
        if isinstance(message, str):
            return Message.from_hex(message, self.model.bits)
        if len(message) != self.model.bits:
            raise InvalidInput(f"message: this model takes {self.model.bits} bits, got {len(message)}")
        return message

    def _embed(self, photo: Photo, message: Message, start: float) -> EmbedResult:
        if photo.frames > 1 and photo.source_format != "MPO":  # a camera's MPO is a JPEG with previews
            raise InvalidInput(f"{photo.name}: expected a still image, got {photo.frames} frames")
        tensor = to_tensor(photo, self._embedder.image_size_px)
        ready = time.perf_counter()
        bits = np.array([message.bits], np.float32)
        watermark = self._session.run({"image": tensor, "message": bits})["watermark"][0]
        if not np.isfinite(watermark).all():
            raise InvalidArtifact(f"{self._session.path}: gave a watermark that is not finite")
        drawn = time.perf_counter()
        marked, psnr_db = _blend(photo, watermark, self._embedder)
        done = time.perf_counter()
        times = {"preprocess": ready - start, "run": drawn - ready, "blend": done - drawn}
        return EmbedResult(marked, message, psnr_db, {name: 1e3 * s for name, s in times.items()}, photo)

    def close(self) -> None:
        self._session.close()


def _blend(photo: Photo, watermark: Floats, model: EmbedderModel) -> tuple[Image.Image, float]:
    """Return the marked image in the photo's mode, and its PSNR in dB."""
    mode = photo.mode
    full_scale = 65_535 if mode == "I;16" else 255
    result = Image.new(mode, (photo.width, photo.height))
    squared_error, count = 0.0, 0
    for top, original, marked in blended_strips(photo, watermark, model):
        colour = luma(marked)[:, :, None] if photo.is_grey else marked
        before = original[:, :, :1] if photo.is_grey else original
        stored = np.rint(colour * full_scale)
        difference = stored / full_scale - before
        squared_error += float(np.square(difference).sum(dtype=np.float64))
        count += difference.size
        result.paste(_strip(stored, photo, top), (0, top))
    mean = squared_error / count
    return result, float("inf") if mean == 0 else -10 * float(np.log10(mean))


def _strip(stored: Floats, photo: Photo, top: int) -> Image.Image:
    """Return stored values (rows, W, 1 or 3) as a strip of the result, with the photo's alpha."""
    samples: npt.NDArray[Any] = stored.astype(np.uint16 if photo.mode == "I;16" else np.uint8)
    if photo.mode in ("LA", "RGBA"):
        samples = np.concatenate([samples, photo.alpha(top, top + len(samples))], axis=2)
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)


def _check_signature(artifact: Artifact, model: WatermarkModel, embedder: EmbedderModel) -> None:
    got = {b.spec.name: (b.spec.dtype, b.spec.shape) for b in (*artifact.inputs, *artifact.outputs)}
    side = embedder.image_size_px
    expected = {
        "image": ("float32", (1, 3, side, side)),
        "message": ("float32", (1, model.bits)),
        "watermark": ("float32", (1, embedder.channels, side, side)),
    }
    if got != expected:
        raise InvalidArtifact(f"{artifact.file}: an embedder of this model has {expected}, the manifest says {got}")
