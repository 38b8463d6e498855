"""Pages at the size of each mode."""

from collections.abc import Iterable, Iterator

from backends.bundle import Bundle
from backends.tensor import Array
from toolkit.image_io import ImageSource, open_photo
from toolkit.kinds.deepencoder import PageEncoder
from toolkit.kinds.feeds.naming import name_of


def feeds(bundle: Bundle, role: str, images: Iterable[ImageSource]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Each image once, as the mode reads a page."""
    with PageEncoder(bundle) as encoder:
        for number, image in enumerate(images, 1):
            yield name_of(image, number), {"image": encoder.read(open_photo(image), role)}
