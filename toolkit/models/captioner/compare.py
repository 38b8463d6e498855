"""Samples, judges and end-to-end cases of captioners."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.tensor import Array
from graphs.networks.captioner.config import BEGIN, END, PADDING
from toolkit.images.open import ImageSource, name_of
from toolkit.images.samples import shipped_photographs
from toolkit.metrics.judges import NOTHING_REAL, ChoiceJudge, Judge, NoJudge, VectorJudge, WithRealError
from toolkit.metrics.samples import Sample, moved, signed_samples, unit_samples
from toolkit.models.captioner.runner import Captioner
from toolkit.models.kind import EndToEndCase
from toolkit.models.runner import Pipeline

# One step of a caption in this many is a sample, because neighbouring steps have nearly the same inputs.
_STEPS_APART = 6


def feeds(bundle: Bundle, role: str, images: Iterable[ImageSource]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield (name, inputs) of the graph `role` for each image: its pixels, its latent, a text of random tokens, or
    steps of its greedy caption."""
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
    """Return the tokens of a random text of random length, from the whole vocabulary, with begin and end."""
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


_NOISE_SAMPLES = 4
_PEAK = 2.0  # values are in [-1, 1]
_LEAST_ERROR = 1e-20  # equal pictures get this mean squared error, which is 206 dB


def samples(bundle: Bundle, reference: Artifact, images: Sequence[Path]) -> Iterator[Sample]:
    """Yield the inputs of a graph for the shipped photographs, the user's images and random texts, then synthetic
    inputs."""
    for name, given in feeds(bundle, reference.role, [*shipped_photographs(), *images]):
        yield Sample(name, "real", given, None)
    specs = tuple(binding.spec for binding in reference.inputs)
    if reference.role == "encode_image":
        yield from moved(unit_samples(specs, _NOISE_SAMPLES), lambda name, values: values * 2 - 1)
    else:
        yield from moved(signed_samples(specs, _NOISE_SAMPLES), _with_a_token)


def _with_a_token(name: str, values: Array) -> Array:
    """Return `values`, in "tokens" with BEGIN in place of padding: a text of padding alone has no meaning."""
    return np.maximum(values, BEGIN) if name == "tokens" else values


def judge(role: str) -> Judge:
    """Return a new judge for a graph: it judges latents by direction, pictures by their signal-to-noise ratio, and
    logits by the chosen token."""
    return WithRealError(_judge(role))


def _judge(role: str) -> Judge:
    if role == "decode_image":
        return PictureJudge()
    if role == "decode_text_prefill":
        return ChoiceJudge("tokens_changed", "logits", lambda sample: sample.feeds["tokens"][0] != PADDING)
    if role == "decode_text_step":
        return ChoiceJudge("tokens_changed", "logits")
    return VectorJudge("latent")


class PictureJudge:
    """A judge of the output "image", with values in [-1, 1]. Its number is psnr_db, over all pixels of real images."""

    def __init__(self) -> None:
        self._squares = 0.0
        self._values = 0

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        if sample.family == "real":
            difference = got["image"].astype(np.float64) - expected["image"]
            self._squares += float(np.square(difference).sum())
            self._values += difference.size

    def numbers(self) -> dict[str, float]:
        if not self._values:
            return {}
        return {"psnr_db": 10 * float(np.log10(_PEAK**2 / max(self._squares / self._values, _LEAST_ERROR)))}

    def uncounted(self) -> dict[str, str]:
        return {} if self._values else {"psnr_db": NOTHING_REAL}

    def details(self) -> dict[str, Any]:
        return {}


class _Captions(Pipeline):
    """A pipeline from `image` (1, 3, S, S) in [-1, 1] to the `tokens` of its greedy caption, padded:
    (1, max_tokens - 1) int32."""

    def __init__(self, bundle: Bundle, backend: str, precision: str, threads: int) -> None:
        self._captioner = Captioner(bundle, backend, precision, threads)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        captioner = self._captioner
        tokens = captioner.caption(captioner.encode(feeds["image"])).tokens
        row = np.full((1, captioner.max_tokens - 1), PADDING, np.int32)
        row[0, : len(tokens)] = tokens
        return {"tokens": row}

    def close(self) -> None:
        self._captioner.close()


class _CaptionJudge:
    """A judge of captions. Its number is captions_changed, the share of captions in which any token differs."""

    def __init__(self) -> None:
        self._same_tokens: list[int] = []
        self._lengths: list[int] = []
        self._changed = 0

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        differs = np.flatnonzero(got["tokens"][0] != expected["tokens"][0])
        self._lengths.append(int((expected["tokens"] != PADDING).sum()))
        self._same_tokens.append(int(differs[0]) if len(differs) else self._lengths[-1])
        self._changed += bool(len(differs))

    def numbers(self) -> dict[str, float]:
        return {"captions_changed": self._changed / len(self._lengths)}

    def uncounted(self) -> dict[str, str]:
        return {}

    def details(self) -> dict[str, Any]:
        return {"tokens": self._lengths, "tokens_before_the_first_other": self._same_tokens}


class _Losses(Pipeline):
    """A pipeline from `image` (N, 3, S, S) in [-1, 1] and the `tokens` of their texts, (N, max_tokens) int32, padded,
    to the published losses, each (1,) float32."""

    def __init__(self, bundle: Bundle, backend: str, precision: str, threads: int) -> None:
        self._captioner = Captioner(bundle, backend, precision, threads)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        images = list(feeds["image"][:, None])
        losses = self._captioner.losses(images, [tuple(text[text != PADDING].tolist()) for text in feeds["tokens"]])
        return {name: np.array([value], np.float32) for name, value in losses.items()}

    def close(self) -> None:
        self._captioner.close()


def _images(bundle: Bundle, images: Sequence[Path]) -> Iterator[Sample]:
    with Captioner(bundle) as captioner:
        for path in (*shipped_photographs(), *images):
            yield Sample(path.name, "real", {"image": captioner.read(path)}, None)


def _pairs(bundle: Bundle, images: Sequence[Path]) -> Iterator[Sample]:
    """Yield one sample of all images, each with a random text, because the contrastive loss needs a batch."""
    with Captioner(bundle) as captioner:
        paths = (*shipped_photographs(), *images)
        pixels = np.concatenate([captioner.read(path) for path in paths])
        texts = [any_text(captioner, number)[1:-1] for number in range(len(paths))]
        tokens = np.full((len(paths), captioner.max_tokens), PADDING, np.int32)
        for row, text in zip(tokens, texts, strict=True):
            row[: len(text)] = text
        yield Sample("all images", "real", {"image": pixels, "tokens": tokens}, None)


END_TO_END = (
    EndToEndCase(
        "caption",
        ("encode_image", "decode_text_prefill", "decode_text_step"),
        _images,
        _Captions,
        lambda bundle: _CaptionJudge(),
    ),
    EndToEndCase(
        "losses",
        ("encode_image", "decode_image", "encode_text", "decode_text_prefill"),
        _pairs,
        _Losses,
        lambda bundle: NoJudge(),
    ),
)
