"""Samples, judges and end-to-end cases of foveated models; a clip is an image across which a camera pans."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.tensor import Array
from toolkit.images.open import ImageSource, name_of, open_photo
from toolkit.images.photo import Floats
from toolkit.images.samples import shipped_photographs
from toolkit.metrics.judges import ChoiceJudge, Judge, NoJudge, VectorJudge, WithRealError
from toolkit.metrics.samples import Sample, moved, signed_samples, unit_samples
from toolkit.models.foveated.runner import DEVIATION, MEAN, Look, TwoPass
from toolkit.models.kind import EndToEndCase
from toolkit.models.runner import Pipeline

# The share of an image's width and of its height that is in a frame.
_WINDOW = 0.75


def feeds(bundle: Bundle, role: str, images: Iterable[ImageSource]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield (name, inputs) of the graph `role` for each image: one frame for "encode_frames", else the inputs of each
    run of the graph in both passes over a clip."""
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
    """Return a clip of `count` frames, (H, W, 3) float32 in [0, 1]: a window that moves from the image's top left
    corner to its bottom right."""
    photo = open_photo(image)
    height, width = (max(1, round(_WINDOW * side)) for side in (photo.height, photo.width))
    whole = photo.rows(0, photo.height)
    steps = np.linspace(0, 1, count)
    tops, lefts = ((steps * room).round().astype(int) for room in (photo.height - height, photo.width - width))
    return [whole[top : top + height, left : left + width] for top, left in zip(tops, lefts, strict=True)]


def latents_like(model: TwoPass, count: int, seed: int) -> Floats:
    """Return random numbers in place of a VAE's scaled latents: (count, C, side, side) float32, standard normal."""
    return np.random.default_rng(seed).standard_normal((count, *model.latent_shape), dtype=np.float32)


_NOISE_SAMPLES = 4

_JUDGES: Mapping[str, Callable[[], Judge]] = {
    "encode_frames": lambda: VectorJudge("patches"),
    "query_shallow": lambda: ChoiceJudge("attention_changed", "attention"),
    "query_deep": lambda: ChoiceJudge("attention_changed", "attention"),
    "language": lambda: VectorJudge("states"),
    "predict": NoJudge,
}


def samples(bundle: Bundle, reference: Artifact, images: Sequence[Path]) -> Iterator[Sample]:
    """Yield the inputs of a graph in clips made from the shipped photographs and the user's images, then synthetic
    inputs."""
    for name, given in feeds(bundle, reference.role, [*shipped_photographs(), *images]):
        yield Sample(name, "real", given, None)
    specs = tuple(binding.spec for binding in reference.inputs)
    if reference.role == "encode_frames":
        mean, deviation = (np.array(part, np.float32).reshape(1, 3, 1, 1) for part in (MEAN, DEVIATION))
        yield from moved(unit_samples(specs, _NOISE_SAMPLES), lambda name, values: (values - mean) / deviation)
    else:
        yield from signed_samples(specs, _NOISE_SAMPLES)


def judge(role: str) -> Judge:
    """Return a new judge for a graph: it judges features and states by direction, attention by its peak, and latents
    by their error."""
    return WithRealError(_JUDGES[role]())


class _TwoPasses(Pipeline):
    """A pipeline from `frames` (T, H, W, 3) in [0, 1] and their `latents` to the arrays of `Passes`."""

    def __init__(self, how: Look, bundle: Bundle, backend: str, precision: str, threads: int) -> None:
        self._how: Look = how
        self._model = TwoPass(bundle, backend, precision, threads)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        passes = self._model.run(list(feeds["frames"]), None, feeds["latents"], self._how)
        return {name: getattr(passes, name) for name in ("coarse", "fine", "coarse_attention", "fine_attention")}

    def close(self) -> None:
        self._model.close()


class _PassesJudge:
    """A judge of both passes.

    Its numbers are latent_max_abs and latent_error (norm of the error over the reference's norm), the larger of both
    passes, and attention_changed, the share of frames of both passes whose attention has its peak elsewhere.
    """

    def __init__(self) -> None:
        self._largest = 0.0
        self._squares = np.zeros((2, 2))  # pass: of the difference, of the reference
        self._looks = self._changed = 0

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        for i, name in enumerate(("coarse", "fine")):
            theirs = expected[name].astype(np.float64)
            difference = got[name] - theirs
            self._largest = max(self._largest, float(np.abs(difference).max()))
            self._squares[i] += np.square(difference).sum(), np.square(theirs).sum()
            looks, wanted = (side[f"{name}_attention"].reshape(len(theirs), -1).argmax(1) for side in (got, expected))
            self._looks += len(looks)
            self._changed += int((looks != wanted).sum())

    def numbers(self) -> dict[str, float]:
        errors = np.sqrt(self._squares[:, 0] / np.maximum(self._squares[:, 1], 1e-30))
        return {
            "latent_max_abs": self._largest,
            "latent_error": float(errors.max()),
            "attention_changed": self._changed / self._looks,
        }

    def uncounted(self) -> dict[str, str]:
        return {}

    def details(self) -> dict[str, Any]:
        return {"looks": self._looks, "changed": self._changed}


def _clips(bundle: Bundle, images: Sequence[Path]) -> Iterator[Sample]:
    with TwoPass(bundle) as model:
        count = min(model.group, model.most_frames())
        for number, path in enumerate((*shipped_photographs(), *images)):
            clip = {"frames": np.stack(pan(path, count)), "latents": latents_like(model, count, number)}
            yield Sample(path.name, "real", clip, None)


END_TO_END = tuple(
    EndToEndCase(
        f"two passes, {how}",
        ("encode_frames", f"query_{how}", "language", "predict"),
        _clips,
        partial(_TwoPasses, how),
        lambda bundle: _PassesJudge(),
    )
    for how in ("shallow", "deep")
)
