"""The images of a folder, whatever they are for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from PIL import Image

from backends.errors import InvalidInput
from toolkit.image_io import MAX_PIXELS


@dataclass(frozen=True)
class ImageFiles(Sequence[Path]):
    """Files of a folder. Their names alone are kept: a Path takes seven times as much, and there may be many."""

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


def image_files(folder: Path, what: str = "images") -> ImageFiles:
    """Every image in a folder, by name. Raises InvalidInput, which says `what` they are for, for a folder that is
    missing, has none, or holds a broken one.

    Only headers are read here, so that what cannot be read is said before anything is computed.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{what} {folder}: no such folder; give one with photographs")
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in suffixes)
    found = ImageFiles(folder, tuple(names))
    if not found:
        raise InvalidInput(f"{what} {folder}: no images in it that Pillow knows by their suffix")
    for path in found:
        try:
            with Image.open(path) as image:
                width, height = image.size
        except Exception as error:  # decoders of damaged files raise nearly anything
            raise InvalidInput(f"{path}: not an image that can be read; remove it or give another folder") from error
        if width * height > MAX_PIXELS:
            raise InvalidInput(f"{path}: expected at most {MAX_PIXELS} pixels, got {width} x {height}")
    return found
