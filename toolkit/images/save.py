"""Saving a marked image: atomically, in the format that the file's suffix names."""

from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from backends.atomic import replacing
from backends.errors import InvalidInput, one_line
from toolkit.images.photo import Photo

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}

# JPEG: the source's own quantization tables could damage the mark, and subsampled colour would blur it.
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"quality": 95, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "BMP": {},
}

_MODES = {
    "JPEG": ("L", "RGB"),
    "PNG": ("L", "LA", "I;16", "RGB", "RGBA"),
    "WEBP": ("L", "LA", "RGB", "RGBA"),
    "TIFF": ("L", "LA", "I;16", "RGB", "RGBA"),
    "BMP": ("L", "RGB", "RGBA"),
}

_WHAT = {"LA": "transparency", "RGBA": "transparency", "I;16": "16-bit grey"}


def check_target(path: Path, source_format: str | None, mode: str, force: bool) -> str:
    """Return Pillow's name of the format of the file `path`, and check before any work that it can be written.

    The suffix names the format; without a suffix, it is the source's format, or PNG if the source is not a file.
    Raises InvalidInput for a file that exists (unless force), a missing folder, a format that cannot be written, and a
    format that cannot hold images of this mode.
    """
    own = {"MPO": "JPEG", None: "PNG"}.get(source_format, source_format)
    kind = FORMATS.get(path.suffix.lower()) if path.suffix else own
    if kind not in _OPTIONS:
        what = path.suffix if path.suffix else f"the source's format {own}"
        raise InvalidInput(f"{path}: cannot write {what}; use a name that ends in one of {', '.join(FORMATS)}")
    if mode not in _MODES[kind]:
        raise InvalidInput(f"{path}: {kind} cannot hold {_WHAT[mode]}; name the output .png or .tiff")
    if not path.parent.is_dir():
        raise InvalidInput(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InvalidInput(f"{path}: expected a file name, got a folder")
    if path.exists() and not force:
        raise InvalidInput(f"{path}: exists already; choose another name or pass --force")
    return kind


def save_image(image: Image.Image, path: Path, source: Photo, force: bool) -> None:
    """Write the image atomically, with its source's ICC profile and EXIF if the format supports them.

    Raises InvalidInput as `check_target` does, and for an image that cannot be written.
    """
    kind = check_target(path, source.source_format, image.mode, force)
    options = dict(_OPTIONS[kind])
    if kind != "BMP":
        options |= {key: value for key in ("icc_profile", "exif") if (value := getattr(source, key))}
    if kind == "TIFF" and _has_folders(source.exif):
        options["compression"] = None  # Pillow's compressing writer does not support EXIF sub-directories
    try:
        with replacing(path, overwrite=force) as temporary:
            image.save(temporary, kind, **options)
    except FileExistsError as error:
        raise InvalidInput(f"{path}: exists already; choose another name or pass --force") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"{path}: cannot be written: {one_line(error)}") from error


def _has_folders(exif: bytes | None) -> bool:
    tags = Image.Exif()
    tags.load(exif or b"")
    return ExifTags.IFD.Exif in tags or ExifTags.IFD.GPSInfo in tags
