"""Samples and the end-to-end case of DeepEncoder: pages at the size of a mode, and as tiles."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.tensor import Array
from toolkit.images.open import ImageSource, name_of, open_photo
from toolkit.images.samples import shipped_photographs, text_pages
from toolkit.metrics.judges import VectorJudge, WithRealError
from toolkit.metrics.samples import Sample, moved, unit_samples
from toolkit.models.deepencoder.runner import GLOBAL_MODE, GUNDAM, TILE_MODE, PageEncoder
from toolkit.models.kind import EndToEndCase
from toolkit.models.runner import Pipeline


def feeds(bundle: Bundle, role: str, images: Iterable[ImageSource]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield (name, input) for each image: a page as the graph of the mode `role` reads it."""
    with PageEncoder(bundle) as encoder:
        for number, image in enumerate(images, 1):
            yield name_of(image, number), {"image": encoder.read(open_photo(image), role)}


# Few, because a page takes seconds.
_NOISE_SAMPLES = 4


def samples(bundle: Bundle, reference: Artifact, images: Sequence[Path]) -> Iterator[Sample]:
    """Yield the shipped photographs, the user's images, drawn pages, then synthetic inputs in [-1, 1]."""
    pages = text_pages()
    sources: list[ImageSource] = [*shipped_photographs(), *images, *pages.values()]
    names = [path.name for path in (*shipped_photographs(), *images)] + list(pages)
    for name, (_, given) in zip(names, feeds(bundle, reference.role, sources), strict=True):
        yield Sample(name, "real", given, None)
    specs = tuple(binding.spec for binding in reference.inputs)
    yield from moved(unit_samples(specs, _NOISE_SAMPLES), lambda name, values: values * 2 - 1)


class _Tiles(Pipeline):
    """A pipeline in gundam mode, from `page` (H, W, 3) in [0, 1] to `sequence` (N, dim)."""

    def __init__(self, bundle: Bundle, backend: str, precision: str, threads: int) -> None:
        self._encoder = PageEncoder(bundle, backend, precision, threads)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"sequence": self._encoder.encode(feeds["page"], GUNDAM).sequence}

    def close(self) -> None:
        self._encoder.close()


def _pages(bundle: Bundle, images: Sequence[Path]) -> Iterator[Sample]:
    """Yield one page only, because its tiles and the whole page take up to seven runs."""
    with PageEncoder(bundle) as encoder:
        tile = encoder.sizes_px[TILE_MODE]
    name, page = next(iter(text_pages().items()))
    # The page gets 2 columns and 3 rows of tiles, whatever the size of a tile.
    pixels = np.asarray(page.resize((2 * tile, 3 * tile)), np.float32) / 255
    yield Sample(name, "real", {"page": pixels}, None)


END_TO_END = (
    EndToEndCase(
        GUNDAM, (TILE_MODE, GLOBAL_MODE), _pages, _Tiles, lambda bundle: WithRealError(VectorJudge("sequence"))
    ),
)
