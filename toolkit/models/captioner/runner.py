"""The runner of captioners: images, latents, pictures and captions, and the similarity of an image and a text."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.manifest import Fields
from backends.session import Closing
from backends.tensor import Array
from graphs.networks.captioner.config import BEGIN, END, PADDING, TEMPERATURE
from toolkit.images.open import ImageSource
from toolkit.images.photo import Floats
from toolkit.images.preprocess import preprocess
from toolkit.models.runner import Graphs

_KEYS = ("name", "kind", "image_size_px", "latent", "vocabulary", "max_tokens", "layers_and_heads")


@dataclass(frozen=True)
class Caption:
    """A text. tokens: without begin and end. log_probability: of the whole text, with its end token if it has one."""

    tokens: tuple[int, ...]
    log_probability: float


@dataclass(frozen=True)
class _Beam:
    """An unfinished text: its tokens, BEGIN first, and the keys and values of all tokens but the last."""

    tokens: tuple[int, ...]
    log_probability: float
    keys: Array
    values: Array

    @property
    def ended(self) -> bool:
        return self.tokens[-1] == END


class Captioner(Closing):
    """The graphs of a captioner bundle."""

    def __init__(
        self, bundle: Bundle | Path, backend: str = "ort", precision: str = "fp32", threads: int | None = None
    ) -> None:
        self.graphs = Graphs(bundle, "captioner", backend, precision, threads)
        model = Fields(self.graphs.bundle.model, f"{self.graphs.bundle.folder}: model", _KEYS)
        self.image_size_px = model.integer("image_size_px")
        self.vocabulary = model.integer("vocabulary")
        self.max_tokens = model.integer("max_tokens")
        self._heads = model.integer("layers_and_heads")

    def read(self, image: ImageSource) -> Floats:
        """Return an image as the encoder reads it: (1, 3, S, S) float32 in [-1, 1]."""
        return preprocess(image, self.image_size_px) * 2 - 1

    def encode(self, pixels: Floats) -> Floats:
        """Encode an image, (1, 3, S, S) in [-1, 1], to its latent (1, latent)."""
        return self.graphs.run("encode_image", image=pixels)["latent"]

    def decode(self, latent: Floats) -> Floats:
        """Decode a latent (1, latent) to an image, (1, 3, S, S) in [-1, 1]."""
        return self.graphs.run("decode_image", latent=latent)["image"]

    def caption(self, latent: Floats, beams: int = 1, length: int | None = None) -> Caption:
        """Return the likeliest text of a greedy search, or with more than one beam, of a beam search.

        length: the most tokens, by default as many as the model can write. Raises InvalidInput for no beam, and for a
        length out of range.
        """
        most = self.max_tokens - 1 if length is None else length
        if beams < 1 or not 1 <= most < self.max_tokens:
            raise InvalidInput(
                f"expected at least 1 beam and a length of 1 to {self.max_tokens - 1}, got {beams} and {most}"
            )
        start = self._prefill(latent, (BEGIN,))
        memory, room = start["memory"], start["keys"].shape
        nothing = np.zeros(room, np.float32)
        alive = [_Beam((BEGIN,), 0.0, nothing, nothing)]
        for _ in range(most):
            grown: list[_Beam] = []
            for beam in alive:
                grown += [beam] if beam.ended else self._grow(beam, memory, beams)
            # sorted() is stable: of equal scores the smaller token stays first, on every backend.
            alive = sorted(grown, key=lambda beam: -beam.log_probability)[:beams]
            if all(beam.ended for beam in alive):
                break
        best = alive[0]
        return Caption(tuple(token for token in best.tokens[1:] if token != END), best.log_probability)

    def caption_without_cache(self, latent: Floats, length: int) -> Caption:
        """Return the greedy text without a cache: each token is computed from the whole text before it."""
        tokens, total = [BEGIN], 0.0
        while len(tokens) <= length and tokens[-1] != END:
            scores = log_softmax(self._prefill(latent, tuple(tokens))["logits"][0, len(tokens) - 1])
            tokens.append(int(scores.argmax()))
            total += float(scores[tokens[-1]])
        return Caption(tuple(token for token in tokens[1:] if token != END), total)

    def similarity(self, latent: Floats, tokens: tuple[int, ...]) -> float:
        """Return the cosine of an image's latent and a text's latent, over the temperature of the contrastive loss."""
        text = self.graphs.run("encode_text", tokens=self.padded((BEGIN, *tokens, END)))["latent"]
        cosine = float((latent * text).sum() / max(float(np.linalg.norm(latent) * np.linalg.norm(text)), 1e-12))
        return cosine / TEMPERATURE

    def losses(self, pixels: list[Floats], captions: list[tuple[int, ...]]) -> dict[str, float]:
        """Return the published losses: "reconstruction", "caption", "contrastive", and "loss", their weighted sum.

        pixels: images, (1, 3, S, S) in [-1, 1]. captions: the tokens of their texts, without begin and end.
        """
        latents = [self.encode(image) for image in pixels]
        errors = [float(((self.decode(z) - image) ** 2).mean()) for z, image in zip(latents, pixels, strict=True)]
        nats: list[float] = []
        for latent, tokens in zip(latents, captions, strict=True):
            whole = (BEGIN, *tokens, END)
            logits = self._prefill(latent, whole[:-1])["logits"][0]
            nats += [-float(log_softmax(logits[i])[token]) for i, token in enumerate(whole[1:])]
        scores = np.array([[self.similarity(latent, tokens) for tokens in captions] for latent in latents])
        own = [-float(log_softmax(row)[i]) for side in (scores, scores.T) for i, row in enumerate(side)]
        parts = {
            "reconstruction": float(np.mean(errors)),
            "caption": float(np.mean(nats)),
            "contrastive": float(np.mean(own)),
        }
        return {**parts, "loss": parts["reconstruction"] + 2 * parts["caption"] + 0.5 * parts["contrastive"]}

    def padded(self, tokens: tuple[int, ...]) -> Array:
        """Return tokens as the graphs read a text: (1, max_tokens) int32, padded.

        Raises InvalidInput for too many tokens, and for a token that is not in the vocabulary.
        """
        if len(tokens) > self.max_tokens:
            raise InvalidInput(f"text: expected at most {self.max_tokens} tokens with begin and end, got {len(tokens)}")
        if wrong := [token for token in tokens if not 0 <= token < self.vocabulary]:
            raise InvalidInput(f"text: token {wrong[0]} is not in the vocabulary, which has {self.vocabulary}")
        row = np.full((1, self.max_tokens), PADDING, np.int32)
        row[0, : len(tokens)] = tokens
        return row

    def close(self) -> None:
        self.graphs.close()

    def _grow(self, beam: _Beam, memory: Array, best: int) -> list[_Beam]:
        """Return a text continued by each of its `best` likeliest next tokens."""
        at = len(beam.tokens) - 1
        out = self.graphs.run(
            "decode_text_step",
            token=np.array([beam.tokens[-1:]], np.int32),
            position=np.array([at], np.int32),
            keys=beam.keys,
            values=beam.values,
            memory=memory,
        )
        keys, values = self._kept(beam.keys, out["new_keys"], at), self._kept(beam.values, out["new_values"], at)
        scores = log_softmax(out["logits"][0])
        return [
            _Beam((*beam.tokens, token), beam.log_probability + float(scores[token]), keys, values)
            for token in likeliest(scores, best)
        ]

    def _kept(self, cache: Array, new: Array, at: int) -> Array:
        """Return a copy of a cache (1, heads * room, d) that has a token's (1, heads, d) at the position `at`."""
        copy = cache.copy()
        copy.reshape(self._heads, -1, cache.shape[-1])[:, at] = new[0]
        return copy

    def _prefill(self, latent: Floats, tokens: tuple[int, ...]) -> dict[str, Array]:
        return self.graphs.run("decode_text_prefill", latent=latent, tokens=self.padded(tokens))


def log_softmax(logits: Array) -> Array:
    """Return the log probabilities of one row of logits, in float64."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def likeliest(scores: Array, best: int) -> list[int]:
    """Return the tokens of the `best` highest scores, the highest first; of equal scores the smaller token first."""
    best = min(best, len(scores))
    # Sorting a whole vocabulary would take longer than a step of the text decoder.
    least = np.partition(scores, -best)[-best] if best > 1 else scores.max()
    candidates = np.flatnonzero(scores >= least)
    order = np.argsort(-scores[candidates], kind="stable")[:best]
    chosen: list[int] = candidates[order].tolist()
    return chosen


def to_picture(image: Floats) -> Image.Image:
    """Return a decoded image (1, 3, S, S) in [-1, 1] as an RGB picture."""
    pixels = np.clip((image[0].transpose(1, 2, 0) + 1) / 2, 0, 1)
    return Image.fromarray((255 * pixels).round().astype(np.uint8))
