"""Whole runs of a model, which use all its graphs: both passes over a clip, or a caption with or without its cache."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backends.bundle import Bundle
from toolkit.images.samples import shipped_photographs

FRAMES, TOKENS = 8, 100
SHALLOW, DEEP = (f"both passes over {FRAMES} frames, {how}" for how in ("shallow", "deep"))
CACHED, UNCACHED = (f"{TOKENS} tokens {how} cache" for how in ("with", "without"))
WHOLE_RUNS = {"foveated": (SHALLOW, DEEP), "captioner": (CACHED, UNCACHED)}


@dataclass(frozen=True)
class WholeRun:
    """A run of a bundle's whole model on a backend in a precision. name: a value of WHOLE_RUNS."""

    name: str
    folder: Path
    backend: str
    precision: str


def open_whole(whole: WholeRun, threads: int) -> Callable[[], object]:
    """Open a whole run with `threads` threads, and return the function that runs it once."""
    from toolkit.models.captioner.runner import Captioner
    from toolkit.models.foveated.compare import pan
    from toolkit.models.foveated.runner import TwoPass

    image, bundle = shipped_photographs()[0], Bundle.open(whole.folder)
    if whole.name in WHOLE_RUNS["foveated"]:
        model = TwoPass(bundle, whole.backend, whole.precision, threads)
        frames = pan(image, FRAMES)
        return lambda: model.run(frames, how="deep" if whole.name == DEEP else "shallow")
    captioner = Captioner(bundle, whole.backend, whole.precision, threads)
    latent = captioner.encode(captioner.read(image))
    write = captioner.caption if whole.name == CACHED else captioner.caption_without_cache

    def run() -> None:
        # A first token and 99 more. A text that ends early would be timed as a shorter text.
        found = len(write(latent, length=TOKENS - 1).tokens)
        if found != TOKENS - 1:
            raise ValueError(f"expected a text of {TOKENS - 1} tokens, got {found}: choose other weights")

    return run
