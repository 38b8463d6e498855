"""What each graph of the foveated model gets in both passes over a clip: an image that the camera pans across."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from backends.bundle import Bundle
from backends.tensor import Array
from toolkit.image_io import ImageSource, open_photo
from toolkit.kinds.feeds.naming import name_of
from toolkit.kinds.foveated import Look, TwoPass
from toolkit.photo import Floats

# Of the image's width and height: what the camera sees at once.
_WINDOW = 0.75


def feeds(bundle: Bundle, role: str, images: Iterable[ImageSource]) -> Iterator[tuple[str, dict[str, Array]]]:
    """For each image, what `role` gets: a frame for the encoder, and else what both passes over a clip ask of it."""
    how: Look = "deep" if role == "query_deep" else "shallow"
    with TwoPass(bundle) as model:
        seen: list[dict[str, Array]] = []

        def watch(ran: str, given: Mapping[str, Array]) -> None:
            if ran == role:
                seen.append({name: value.copy() for name, value in given.items()})

        model.graphs.watch = watch
        for number, image in enumerate(images, 1):
            name = name_of(image, number)
            if role == "encode_frames":
                yield name, {"frame": model.read(image)}
                continue
            frames = pan(image, min(model.group, model.most_frames()))
            model.run(frames, None, latents_like(model, len(frames), number), how)
            yield from ((f"{name}, pass {i}", given) for i, given in enumerate(seen, 1))
            seen.clear()


def pan(image: ImageSource, count: int) -> list[Floats]:
    """A clip of `count` frames, (H, W, 3) float32 in [0, 1]: a window that moves across an image, corner to corner."""
    photo = open_photo(image)
    height, width = (max(1, round(_WINDOW * side)) for side in (photo.height, photo.width))
    whole = photo.rows(0, photo.height)
    steps = np.linspace(0, 1, count)
    tops, lefts = ((steps * room).round().astype(int) for room in (photo.height - height, photo.width - width))
    return [whole[top : top + height, left : left + width] for top, left in zip(tops, lefts, strict=True)]


def latents_like(model: TwoPass, count: int, seed: int) -> Floats:
    """Numbers as a VAE's latents are scaled to: normal, of standard deviation 1."""
    return np.random.default_rng(seed).standard_normal((count, *model.latent_shape), dtype=np.float32)
