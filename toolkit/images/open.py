"""Opening images: files, PIL images and arrays of every common kind, and all images of a folder."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, ImageOps

from backends.errors import InvalidInput, one_line
from toolkit.images.photo import Photo

ImageSource = str | Path | Image.Image | npt.NDArray[Any]

# A file of a few kilobytes can claim any size. 89 megapixels is Pillow's own limit.
MAX_PIXELS = 89_478_485
MAX_SIDE_PX = 65_535

_ROUNDING = 1e-3  # a resize or a colour conversion may leave floats this far outside [0, 1]
_CHANNELS = (1, 3, 4)
_ORIENTATION = ExifTags.Base.Orientation

_DESCRIBING = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)


def open_photo(source: ImageSource) -> Photo:
    """Open a path, a PIL image or an array.

    Files and PIL images may be greyscale, palette, 16-bit or CMYK images, and have alpha; they are opened as a viewer
    shows them: CMYK through its ICC profile if it has one, turned as EXIF says, and the first of several frames. Pillow
    reads 16-bit colour as 8 bits. Arrays: (H, W), HWC, CHW, or each with a batch of 1; uint8, uint16, or float in
    [0, 1]. Raises InvalidInput for a source that is not an image, is cut short, too large or not finite, and for an
    array whose channels could be first or last.
    """
    if isinstance(source, str | Path):
        return _open_file(Path(source))
    if isinstance(source, Image.Image):
        with _decoding("image"):
            return _from_pil(source, "image")
    if isinstance(source, np.ndarray):
        return Photo("array", _to_hwc(source), None, 1, None, None)
    raise InvalidInput(f"image: expected a path, a PIL image or a numpy array, got {type(source).__name__}")


def _open_file(path: Path) -> Photo:
    if not path.is_file():
        raise InvalidInput(f"{path}: no such image file")
    with _decoding(str(path)), Image.open(path) as image:
        return _from_pil(image, str(path))


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn every error that Pillow raises while it reads into InvalidInput."""
    try:
        with warnings.catch_warnings():
            # Above its limit Pillow only warns; it raises an error above twice the limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except InvalidInput:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{name}: expected at most {MAX_PIXELS} pixels: {one_line(error)}") from error
    except MemoryError as error:
        raise InvalidInput(f"{name}: not enough memory to read it") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise InvalidInput(f"{name}: not an image that can be read: {one_line(error)}") from error


def _from_pil(image: Image.Image, name: str) -> Photo:
    width, height = image.size
    if width < 1 or height < 1:
        raise InvalidInput(f"{name}: expected an image of at least 1 x 1, got {width} x {height}")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        raise InvalidInput(
            f"{name}: expected at most {MAX_PIXELS} pixels and sides of {MAX_SIDE_PX}, got {width} x {height}"
        )
    frames = getattr(image, "n_frames", 1)
    source_format = image.format
    image.load()
    upright = image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    # A CMYK profile describes inks, so it is wrong for the converted RGB pixels.
    icc_profile = None if upright.mode == "CMYK" else upright.info.get("icc_profile")
    return Photo(name, _known_mode(upright, name), source_format, frames, icc_profile, _exif(upright))


def _exif(image: Image.Image) -> bytes | None:
    """Return the EXIF block unchanged; of a TIFF, whose tags also describe its pixels, only tags of camera and author.

    Return None if there is no EXIF.
    """
    raw = image.info.get("exif")
    if isinstance(raw, bytes):
        return raw
    tags, kept = image.getexif(), Image.Exif()
    for tag in _DESCRIBING:
        if tag in tags:
            kept[tag] = tags[tag]
    for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if folder in tags:
            kept[folder] = tags.get_ifd(folder)
    return kept.tobytes() if len(kept) else None


def _known_mode(image: Image.Image, name: str) -> Image.Image:
    """Return the image in a mode that Photo supports, without loss if the mode allows."""
    mode = image.mode
    if mode in ("L", "LA", "RGB", "RGBA", "I;16"):
        # A transparent colour in the image's info becomes alpha.
        return image if mode in ("LA", "RGBA") or "transparency" not in image.info else image.convert("RGBA")
    if mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    if mode in ("PA", "RGBa", "La"):
        return image.convert("LA" if mode == "La" else "RGBA")
    if mode == "1":
        return image.convert("L")
    if mode == "CMYK":
        return _cmyk_to_rgb(image)
    if mode in ("YCbCr", "LAB", "HSV", "RGBX"):
        return image.convert("RGB")
    if mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65_535:
            raise InvalidInput(
                f"{name}: expected 32-bit grey values from 0 to 65535, got {values.min()} to {values.max()}"
            )
        return Image.fromarray(values.astype(np.uint16))
    if mode == "F":
        values = np.asarray(image)
        _check_floats(values, name)
        return Image.fromarray(np.rint(np.clip(values, 0, 1) * 65_535).astype(np.uint16))
    raise InvalidInput(f"{name}: expected a greyscale or colour image, got Pillow's mode {mode!r}")


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    inks = ImageCms.ImageCmsProfile(BytesIO(profile))
    converted = ImageCms.profileToProfile(image, inks, ImageCms.createProfile("sRGB"), outputMode="RGB")
    if converted is None:
        raise InvalidInput("image: its CMYK profile gives no RGB image")
    return converted


def _to_hwc(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shape = array.shape
    if array.size == 0:
        raise InvalidInput(f"image array: expected pixels, got an empty array of shape {shape}")
    if array.ndim == 4:
        if shape[0] != 1:
            raise InvalidInput(
                f"image array: expected one image, got a batch of {shape[0]} in shape {shape}; give one at a time"
            )
        array = array[0]
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3:
        first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
        if first == last:
            which = "could be channels first or last" if first else "has 1, 3 or 4 channels neither first nor last"
            raise InvalidInput(f"image array: shape {shape} {which}; give (H, W, 3) or a PIL image")
        array = array if last else array.transpose(1, 2, 0)
    else:
        raise InvalidInput(f"image array: expected (H, W), (H, W, C) or (C, H, W), got shape {shape}")
    if array.shape[0] * array.shape[1] > MAX_PIXELS or max(array.shape) > MAX_SIDE_PX:
        raise InvalidInput(f"image array: expected at most {MAX_PIXELS} pixels and sides of {MAX_SIDE_PX}, got {shape}")
    if array.dtype.kind == "f":
        _check_floats(array, "image array")
    elif array.dtype not in (np.uint8, np.uint16):
        raise InvalidInput(f"image array: expected uint8, uint16 or float in [0, 1], got {array.dtype}")
    return array


def _check_floats(values: npt.NDArray[Any], name: str) -> None:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InvalidInput(f"{name}: expected finite values, got NaN or infinity")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InvalidInput(
            f"{name}: expected float values from 0 to 1, got {low:g} to {high:g}; for 0 to 255 give uint8"
        )


@dataclass(frozen=True)
class ImageFiles(Sequence[Path]):
    """The image files of a folder, by their paths in it, which are text: a Path takes seven times the memory."""

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageFiles": ...
    def __getitem__(self, index: int | slice) -> "Path | ImageFiles":
        if isinstance(index, slice):
            return ImageFiles(self.folder, self.names[index])
        return self.folder / self.names[index]


def image_suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of the image files that Pillow can open."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN)


def files_below(folder: Path) -> list[str]:
    """Return the paths, from `folder`, of the files in it and in its subfolders, in the order of their names.

    Hidden files and folders, whose names begin with a dot, are left out, and so are links to folders.
    """
    found: list[tuple[str, ...]] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(place).relative_to(folder).parts
        found += [(*inside, name) for name in files if not name.startswith(".")]
    return ["/".join(parts) for parts in sorted(found)]


def image_files(folder: Path, what: str = "images") -> ImageFiles:
    """Return the image files of a folder and its subfolders, see files_below. Their headers are read to find broken
    files at once.

    what: what the images are for, for error messages. Raises InvalidInput for a folder that is missing, has no images,
    or has an image that is broken or too large.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{what} {folder}: no such folder; give one with photographs")
    suffixes = image_suffixes()
    found = ImageFiles(folder, tuple(name for name in files_below(folder) if Path(name).suffix.lower() in suffixes))
    if not found:
        raise InvalidInput(
            f"{what} {folder}: no images in it: no file has a suffix of an image that Pillow can open, nor has one in "
            "a subfolder"
        )
    for path in found:
        try:
            with Image.open(path) as image:
                width, height = image.size
        except Exception as error:  # decoders of damaged files raise nearly anything
            raise InvalidInput(f"{path}: not an image that can be read; remove it or give another folder") from error
        if width * height > MAX_PIXELS:
            raise InvalidInput(f"{path}: expected at most {MAX_PIXELS} pixels, got {width} x {height}")
    return found


def name_of(image: ImageSource, number: int) -> str:
    """Return the name of a file, or "image NUMBER" for an image that is not a file."""
    return Path(image).name if isinstance(image, str | Path) else f"image {number}"


def read_rgb(path: Path) -> Image.Image:
    """Return a photograph in 8-bit RGB, as a viewer shows it. Raises InvalidInput as `open_photo` does."""
    photo = open_photo(path)
    if isinstance(photo.pixels, Image.Image) and photo.mode != "I;16":
        return photo.pixels.convert("RGB")
    return Image.fromarray(np.rint(photo.rows(0, photo.height) * 255).astype(np.uint8))
