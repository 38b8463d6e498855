"""The runner of foveated models: it encodes each frame of a clip once, looks at it twice, and predicts its latents."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from backends.bundle import Bundle, read_learned
from backends.errors import InvalidInput
from backends.manifest import Fields
from backends.session import Closing
from backends.tensor import Array
from toolkit.images.open import ImageSource
from toolkit.images.photo import Floats
from toolkit.images.preprocess import preprocess
from toolkit.models.runner import Graphs

Look = Literal["shallow", "deep"]

MEAN, DEVIATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # ImageNet's, RGB in [0, 1]

_KEYS = (
    "name",
    "kind",
    "image_size_px",
    "grid_side",
    "frames",
    "sequence_length",
    "text_dim",
    "latent_shape",
    "lambda_coarse",
    "learned",
)


@dataclass(frozen=True)
class Passes:
    """The results of both passes over T frames.

    coarse, fine: predicted latents (T, C, side, side). coarse_attention, fine_attention: (T, grid, grid), which sums to
    1 for each frame. losses: loss_coarse, loss_fine and loss, their weighted sum; None without the true latents.
    """

    coarse: Floats
    fine: Floats
    coarse_attention: Floats
    fine_attention: Floats
    losses: dict[str, float] | None


class TwoPass(Closing):
    """The graphs of a foveated bundle. group: the number of frames that one run of a query graph takes."""

    def __init__(
        self, bundle: Bundle | Path, backend: str = "ort", precision: str = "fp32", threads: int | None = None
    ) -> None:
        self.graphs = Graphs(bundle, "foveated", backend, precision, threads)
        bundle = self.graphs.bundle
        for role in ("encode_frames", "query_shallow", "language", "predict"):
            self.graphs.artifact(role)  # says which graph is missing, before the manifest of one graph is read
        model = Fields(bundle.model, f"{bundle.folder}: model", _KEYS)
        self.image_size_px = model.integer("image_size_px")
        self.grid_side = model.integer("grid_side")
        self.text_dim = model.integer("text_dim")
        self.latent_shape = model.integers("latent_shape")
        self.group = model.integer("frames")
        self._length = model.integer("sequence_length")
        self._lambda = model.number("lambda_coarse")
        vision_dim = bundle.find("query_shallow", "onnx", "fp32").inputs[0].spec.shape[-1]
        one = (1, vision_dim)
        token = (1, self.text_dim)
        self._learned = read_learned(
            bundle,
            {
                "q_static": one,
                "q_init": one,
                "coarse_token": token,
                "fine_token": token,
                "z_vae_init": (1, *self.latent_shape),
            },
        )

    def most_frames(self, text_tokens: int = 1) -> int:
        """Return the largest number of frames that fit into the sequence beside a text of `text_tokens` tokens."""
        return self._length - text_tokens - 1

    def run(
        self,
        frames: Iterable[ImageSource],
        text: Floats | None = None,
        latents: Floats | None = None,
        how: Look = "shallow",
    ) -> Passes:
        """Run both passes over a clip. Memory holds one frame, and the encoder's outputs of all frames.

        text: embeddings (N, text_dim) float32, by default one zero token. latents: the true latents,
        (T, C, side, side) float32, by default zeros. Raises InvalidInput for wrong shapes, no frame or too many.
        """
        text = self._checked(
            "text", np.zeros((1, self.text_dim), np.float32) if text is None else text, (self.text_dim,)
        )
        if self.most_frames(len(text)) < 1:
            raise InvalidInput(
                f"text: expected at most {self.most_frames(0) - 1} tokens beside a frame, got {len(text)}; shorten it"
            )
        encoded: dict[str, list[Array]] = {}
        count = 0
        for frame in frames:
            count += 1
            if count > self.most_frames(len(text)):
                raise InvalidInput(
                    f"clip: expected at most {self.most_frames(len(text))} frames beside {len(text)} tokens of text; "
                    "take fewer frames"
                )
            for name, value in self.graphs.run("encode_frames", frame=self.read(frame)).items():
                if (name == "patches") == (how == "shallow"):  # shallow queries read patches, deep ones keys and values
                    encoded.setdefault(name, []).append(value)
        if not count:
            raise InvalidInput("clip: expected at least one frame, got none")
        true = None if latents is None else self._checked("latents", latents, self.latent_shape)
        if true is not None and len(true) != count:
            raise InvalidInput(f"latents: expected one for each of {count} frames, got {len(true)}")
        before = np.zeros((count, *self.latent_shape), np.float32) if true is None else true
        previous = np.concatenate([self._learned["z_vae_init"], before[:-1]])
        whole = {name: np.stack(encoded.pop(name)) for name in list(encoded)}
        seen = self._groups(f"query_{how}", whole, count)

        asked = np.repeat(self._learned["q_static"], count, axis=0)
        tokens, coarse_attention = self._look(asked, seen, how)
        states, raised = self._run_language_model([text, self._learned["coarse_token"], tokens])
        coarse = self._predict(states[len(text) : len(text) + count], previous)
        asked = np.concatenate([self._learned["q_init"], raised[len(text) + 1 : len(text) + count]])
        tokens, fine_attention = self._look(asked, seen, how)
        self.graphs.hold(f"query_{how}")
        states, _ = self._run_language_model([text, self._learned["fine_token"], tokens])
        fine = self._predict(states[len(text) : len(text) + count], previous)
        return Passes(coarse, fine, coarse_attention, fine_attention, self._losses(coarse, fine, true))

    def read(self, frame: ImageSource) -> Floats:
        """Return a frame as the encoder reads it: (1, 3, S, S) float32, normalised with ImageNet's statistics."""
        pixels = preprocess(frame, self.image_size_px)
        mean, deviation = (np.array(part, np.float32).reshape(1, 3, 1, 1) for part in (MEAN, DEVIATION))
        return (pixels - mean) / deviation

    def close(self) -> None:
        self.graphs.close()

    def _look(self, queries: Array, seen: list[dict[str, Array]], how: Look) -> tuple[Array, Floats]:
        """Run one query for each frame. Returns the tokens, and the attention (T, grid, grid).

        seen: the encoder's outputs for each group of frames.
        """
        made, role = [], f"query_{how}"
        asked = self._groups(role, {"query": queries}, len(queries))
        for frames, query in zip(seen, asked, strict=True):
            self.graphs.hold(role, **frames)
            made.append(self.graphs.run(role, **query))
        tokens, attention = (
            np.concatenate([part[name] for part in made])[: len(queries)] for name in ("token", "attention")
        )
        return tokens, attention.reshape(-1, self.grid_side, self.grid_side)

    def _run_language_model(self, parts: list[Array]) -> tuple[Array, Array]:
        """Run the language model on tokens. Returns its states and queries; no token sees the padding behind it."""
        sequence = np.zeros((1, self._length, self.text_dim), np.float32)
        tokens = np.concatenate(parts)
        sequence[0, : len(tokens)] = tokens
        out = self.graphs.run("language", sequence=sequence)
        return out["states"][0], out["queries"][0]

    def _predict(self, states: Array, previous: Array) -> Floats:
        groups = self._groups("predict", {"state": states, "latent": previous}, len(states))
        made = [self.graphs.run("predict", **group)["next_latent"] for group in groups]
        return np.concatenate(made)[: len(states)]

    def _groups(self, role: str, feeds: dict[str, Array], count: int) -> list[dict[str, Array]]:
        """Return the inputs of each run of a graph that takes `group` frames. The last run is filled up with copies of
        its last frame.

        feeds: arrays whose first axis is the frames. In outputs of the encoder, the axes of one output follow.
        """
        shapes = {binding.spec.name: binding.spec.shape for binding in self.graphs.artifact(role).inputs}
        starts = range(0, count, self.group)
        rows: list[slice | Array] = [slice(start, start + self.group) for start in starts]
        if count % self.group:
            rows[-1] = np.minimum(np.arange(starts[-1], starts[-1] + self.group), count - 1)
        return [{name: value[some].reshape(shapes[name]) for name, value in feeds.items()} for some in rows]

    def _losses(self, coarse: Array, fine: Array, true: Array | None) -> dict[str, float] | None:
        if true is None:
            return None
        errors = [float(((predicted - true) ** 2).mean()) for predicted in (coarse, fine)]
        return {"loss_coarse": errors[0], "loss_fine": errors[1], "loss": errors[1] + self._lambda * errors[0]}

    def _checked(self, what: str, array: Array, shape: tuple[int, ...]) -> Floats:
        if array.ndim != 1 + len(shape) or array.shape[1:] != shape or not len(array):
            expected = ", ".join(map(str, ("N", *shape)))
            raise InvalidInput(f"{what}: expected shape ({expected}), got {array.shape}")
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise InvalidInput(f"{what}: expected finite float32 values, got {array.dtype}")
        return array
