"""What each graph of the captioner gets while it describes images, rebuilds them, and reads texts."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from backends.bundle import Bundle
from backends.tensor import Array
from graphs.captioner.config import BEGIN, END
from toolkit.image_io import ImageSource
from toolkit.kinds.captioner import Captioner
from toolkit.kinds.feeds.naming import name_of

# Of the steps of a caption, one in so many: neighbours see nearly the same.
_STEPS_APART = 6


def feeds(bundle: Bundle, role: str, images: Iterable[ImageSource]) -> Iterator[tuple[str, dict[str, Array]]]:
    """For each image: itself, its latent, a text of random tokens for the graphs that read one, the steps of its
    greedy caption."""
    with Captioner(bundle) as captioner:
        for number, image in enumerate(images, 1):
            name, pixels = name_of(image, number), captioner.read(image)
            text = captioner.padded(any_text(captioner, number))
            if role == "encode_image":
                yield name, {"image": pixels}
            elif role == "encode_text":
                yield f"text {number}", {"tokens": text}
            elif role == "decode_image":
                yield name, {"latent": captioner.encode(pixels)}
            elif role == "decode_text_prefill":
                yield name, {"latent": captioner.encode(pixels), "tokens": text}
            else:
                for step, given in enumerate(_steps(captioner, captioner.encode(pixels))):
                    if step % _STEPS_APART == 0:
                        yield f"{name}, step {step}", given


def any_text(captioner: Captioner, seed: int) -> tuple[int, ...]:
    """Tokens of a text of any length, drawn from the whole vocabulary, with begin and end."""
    random = np.random.default_rng(seed)
    length = int(random.integers(1, captioner.max_tokens - 1))
    return (BEGIN, *random.integers(END + 1, captioner.vocabulary, length).tolist(), END)


def _steps(captioner: Captioner, latent: Array) -> list[dict[str, Array]]:
    seen: list[dict[str, Array]] = []

    def watch(role: str, given: Mapping[str, Array]) -> None:
        if role == "decode_text_step":
            seen.append(dict(given))  # caches are copied before they change

    captioner.graphs.watch = watch
    captioner.caption(latent)
    return seen
