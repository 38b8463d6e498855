"""The runner of DeepEncoder: a page in one of four sizes, or as tiles and the whole page, becomes tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.manifest import Fields
from backends.session import Closing
from backends.tensor import Array
from toolkit.images.open import ImageSource, open_photo
from toolkit.images.photo import Floats, Photo
from toolkit.models.runner import Graphs

GUNDAM = "gundam"
TILE_MODE, GLOBAL_MODE = "small", "base"

_PADDED = ("base", "large")  # pages of the other modes are resized without keeping the aspect
_GREY = 127 / 255
_MOST_TILES = 6
_CORNERS = 4


@dataclass(frozen=True)
class Page:
    """An encoded page.

    sequence: (N, dim) float32, as the language model reads it: each row of a grid ends with a newline token, and the
    sequence with a separator. grid: (rows, columns, dim), the tokens without newlines and separator, of the tiles if
    there are tiles. tiles: (columns, rows) of the tiles, (1, 1) without tiles.
    """

    mode: str
    sequence: Floats
    grid: Floats
    tiles: tuple[int, int]


class PageEncoder(Closing):
    """The graphs of a DeepEncoder bundle. sizes_px: the side of the input in pixels, by mode."""

    def __init__(
        self, bundle: Bundle | Path, backend: str = "ort", precision: str = "fp32", threads: int | None = None
    ) -> None:
        self.graphs = Graphs(bundle, "deepencoder", backend, precision, threads)
        where = f"{self.graphs.bundle.folder}: model"
        model = Fields(self.graphs.bundle.model, where, ("name", "kind", "tokens_dim", "modes"))
        self.sizes_px = {
            mode: Fields(size, f"{where}.modes.{mode}", ("image_size_px", "grid_side")).integer("image_size_px")
            for mode, size in model.mapping("modes").items()
        }

    @property
    def modes(self) -> tuple[str, ...]:
        return (*self.sizes_px, GUNDAM)

    def encode(self, page: ImageSource, mode: str = GLOBAL_MODE) -> Page:
        """Encode one page. Raises InvalidInput for an unknown mode, and for a file that is not an image."""
        if mode not in self.modes:
            raise InvalidInput(f"mode: expected one of {', '.join(self.modes)}, got {mode!r}")
        photo = open_photo(page)
        if mode != GUNDAM:
            sequence = self._run(mode, self.read(photo, mode))
            return Page(mode, sequence, _grid(sequence), (1, 1))
        return self._gundam(photo)

    def read(self, photo: Photo, mode: str) -> Floats:
        """Return a whole page as the graph of a mode reads it: (1, 3, S, S) float32 in [-1, 1]."""
        size = self.sizes_px[mode]
        return _normalised(padded(photo, size) if mode in _PADDED else _resized(photo, size, size))

    def close(self) -> None:
        self.graphs.close()

    def _run(self, mode: str, image: Floats) -> Floats:
        tokens: Floats = self.graphs.run(mode, image=image)["tokens"][0]
        return tokens

    def _gundam(self, photo: Photo) -> Page:
        """Encode tiles in the small mode, which form one grid, and the whole page in the base mode."""
        size = self.sizes_px[TILE_MODE]
        columns, rows = choose_tiles(photo.width, photo.height, size)
        whole = self._run(GLOBAL_MODE, self.read(photo, GLOBAL_MODE))
        if (columns, rows) == (1, 1):
            return Page(GUNDAM, whole, _grid(whole), (1, 1))
        pixels = _resized(photo, columns * size, rows * size)
        tiles = [self._run(TILE_MODE, _normalised(tile)) for tile in _tiles(pixels, size)]
        grids = np.stack([_grid(tile) for tile in tiles])
        _, side, _, dim = grids.shape
        grid = grids.reshape(rows, columns, side, side, dim).transpose(0, 2, 1, 3, 4)
        grid = grid.reshape(rows * side, columns * side, dim)
        newlines = np.broadcast_to(newline_of(whole), (len(grid), 1, dim))
        lines = np.concatenate([grid, newlines], axis=1).reshape(-1, dim)
        return Page(GUNDAM, np.concatenate([lines, whole]), grid, (columns, rows))


def choose_tiles(width: int, height: int, size_px: int) -> tuple[int, int]:
    """Return the columns and rows of 2 to 6 tiles whose aspect is nearest to the page's.

    Return (1, 1) for a page that is no larger than a tile. If two layouts are equally near, the one with more tiles
    wins if the page has more pixels than half of its tiles.
    """
    if width <= size_px and height <= size_px:
        return (1, 1)
    layouts = [
        (c, r) for c in range(1, _MOST_TILES + 1) for r in range(1, _MOST_TILES + 1) if 2 <= c * r <= _MOST_TILES
    ]
    best, nearest = (1, 1), float("inf")
    for columns, rows in sorted(layouts, key=lambda layout: layout[0] * layout[1]):
        distance = abs(width / height - columns / rows)
        roomy = width * height > 0.5 * size_px**2 * columns * rows
        if distance < nearest or (distance == nearest and roomy):
            best, nearest = (columns, rows), distance
    return best


def newline_of(sequence: Floats) -> Floats:
    """Return the newline token (dim,) of a sequence of one grid: the last token of its first row."""
    return np.asarray(sequence[_side(sequence)])


def principal_picture(grid: Floats, width: int, height: int) -> Image.Image:
    """Draw a grid (rows, columns, dim): its first three principal components as red, green and blue.

    Each token is a cell of an RGB picture of width x height pixels.
    """
    rows, columns, dim = grid.shape
    tokens = grid.reshape(-1, dim).astype(np.float64)
    centred = tokens - tokens.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    components = centred @ axes[:3].T
    components = np.pad(components, ((0, 0), (0, 3 - components.shape[1])))
    low, high = np.percentile(components, [1, 99], axis=0)
    colours = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1).reshape(rows, columns, 3)
    cells = Image.fromarray((255 * colours).round().astype(np.uint8))
    return cells.resize((width, height), Image.Resampling.NEAREST)


def laid_over(page: ImageSource, grid: Floats, mode: str) -> Image.Image:
    """Return `principal_picture`, half transparent, over the page as the mode sees it."""
    photo = open_photo(page)
    pixels = _rgb(photo)
    if mode in _PADDED:
        pixels = padded(photo, max(photo.width, photo.height))
    seen = Image.fromarray((255 * pixels).round().astype(np.uint8))
    return Image.blend(seen, principal_picture(grid, *seen.size), 0.5)


def _side(sequence: Floats) -> int:
    """Return the side of the grid in a sequence of side * (side + 1) + 1 tokens."""
    return int(((_CORNERS * len(sequence) - 3) ** 0.5 - 1) / 2 + 0.5)


def _grid(sequence: Floats) -> Floats:
    """Return a sequence without newlines and separator, as (side, side, dim)."""
    side = _side(sequence)
    return sequence[:-1].reshape(side, side + 1, -1)[:, :side]


def _tiles(pixels: Floats, size: int) -> Iterator[Floats]:
    """Yield the squares of an (H, W, 3) image, row by row."""
    for top in range(0, pixels.shape[0], size):
        for left in range(0, pixels.shape[1], size):
            yield pixels[top : top + size, left : left + size]


def _rgb(photo: Photo) -> Floats:
    """Return a photo as (H, W, 3) float32 in [0, 1]."""
    return _resized(photo, photo.width, photo.height)


def _resized(photo: Photo, width: int, height: int) -> Floats:
    """Return a photo as (height, width, 3) float32 in [0, 1], resized by bicubic with antialias."""
    planes = [photo.plane(channel) for channel in range(1 if photo.is_grey else 3)]
    resized = [np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)) for plane in planes]
    stacked: Array = np.stack(resized * (3 // len(resized)), axis=-1) / np.float32(photo.full_scale)
    return np.clip(stacked, 0, 1).astype(np.float32)


def padded(photo: Photo, size: int) -> Floats:
    """Return a photo as (size, size, 3) float32 in [0, 1], as large as fits with its aspect, in the middle of grey.

    Sizes and place are rounded as Pillow's `ImageOps.pad` rounds them, which the reference code calls.
    """
    width, height = photo.width, photo.height
    if width > height:
        width, height = size, max(1, round(height / width * size))
    else:
        width, height = max(1, round(width / height * size)), size
    square = np.full((size, size, 3), _GREY, np.float32)
    top, left = round((size - height) * 0.5), round((size - width) * 0.5)
    square[top : top + height, left : left + width] = _resized(photo, width, height)
    return square


def _normalised(pixels: Floats) -> Floats:
    """Return (H, W, 3) in [0, 1] as (1, 3, H, W) in [-1, 1]: mean and deviation are 0.5."""
    return np.ascontiguousarray((pixels * 2 - 1).transpose(2, 0, 1)[None])
