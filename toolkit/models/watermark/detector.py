"""Detectors, which read the message in an image; and the model entry of a watermark bundle's manifest."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from backends.machine import default_threads
from backends.manifest import Fields
from backends.registry import find_artifact, open_session
from backends.session import Closing, Session
from toolkit.images.open import ImageSource
from toolkit.images.photo import Floats
from toolkit.images.preprocess import preprocess
from toolkit.models.watermark.message import DEFAULT_FPR, Match, Message, compare

ATTENUATIONS = (None, "jnd_1_1")


@dataclass(frozen=True)
class EmbedderModel:
    """The embedder in the manifest of a watermark model, and how its output marks an image.

    marked = clamp(scaling_i * image + scaling_w * attenuation * watermark, 0, 1), at the image's own size.
    """

    image_size_px: int
    channels: int
    scaling_w: float
    scaling_i: float
    attenuation: str | None


@dataclass(frozen=True)
class WatermarkModel:
    """The model entry of a watermark bundle's manifest.

    image_size_px: the side of the detector's input. detection_threshold: for logit 0, None if that channel was not
    trained. embedder: None for a model that only detects.
    """

    name: str
    bits: int
    image_size_px: int
    detection_threshold: float | None
    embedder: EmbedderModel | None

    @classmethod
    def of(cls, bundle: Bundle) -> "WatermarkModel":
        """Read bundle.model. Raises InvalidArtifact for another kind, and for missing, unknown or invalid entries."""
        where = f"{bundle.folder}: model"
        if bundle.model["kind"] != "watermark":
            raise InvalidArtifact(f"{where}: expected a watermark model, got kind {bundle.model['kind']!r}")
        keys = ("name", "kind", "bits", "image_size_px", "embedder", "detection_threshold")
        data = Fields(bundle.model, where, keys)
        embedder = data.optional_mapping("embedder")
        return cls(
            name=data.text("name"),
            bits=_positive(data, "bits", where),
            image_size_px=_positive(data, "image_size_px", where),
            detection_threshold=None if data["detection_threshold"] is None else data.number("detection_threshold"),
            embedder=None if embedder is None else _embedder(embedder, f"{where}.embedder"),
        )


def _embedder(value: dict[str, Any], where: str) -> EmbedderModel:
    data = Fields(value, where, ("image_size_px", "channels", "scaling_w", "scaling_i", "attenuation"))
    if data["channels"] not in (1, 3):
        raise InvalidArtifact(f"{where}.channels: expected 1 or 3, got {data['channels']!r}")
    if data["attenuation"] not in ATTENUATIONS:
        raise InvalidArtifact(f"{where}.attenuation: expected jnd_1_1 or none, got {data['attenuation']!r}")
    return EmbedderModel(
        image_size_px=_positive(data, "image_size_px", where),
        channels=data.integer("channels"),
        scaling_w=data.number("scaling_w"),
        scaling_i=data.number("scaling_i"),
        attenuation=data.optional_text("attenuation"),
    )


def _positive(data: Fields, key: str, where: str) -> int:
    value = data.integer(key)
    if value < 1:
        raise InvalidArtifact(f"{where}.{key}: expected at least 1, got {value}")
    return value


@dataclass(frozen=True)
class Detection:
    """The result of reading one image.

    message: read from every image, marked or not; `match` or `detected` tells whether it has a meaning.
    logits: (1 + bits,) float32; channel 0 is the detection logit, bit i is set when logits[1 + i] > 0.
    confidence, in [0, 1]: the sigmoid of logit 0 where the model trained it, else the mean certainty of the bits
    (mean of |2 * sigmoid(logit) - 1|), which says how clear the bits are and not whether they are right.
    detected: whether logit 0 is above the model's threshold; None if the model did not train that channel.
    timing_ms: "preprocess" (opening and resizing) and "run", in milliseconds.
    """

    message: Message
    logits: Floats
    confidence: float
    detected: bool | None
    timing_ms: dict[str, float]

    def match(self, expected: Message | str, fpr: float = DEFAULT_FPR) -> Match:
        """Compare with the expected message, given as a Message or as hex.

        Raises InvalidInput for a message of another length and for an fpr outside (0, 1).
        """
        if isinstance(expected, str):
            expected = Message.from_hex(expected, len(self.message))
        return compare(self.message, expected, fpr)


class Detector(Closing):
    """An opened detector. Close it, or use it as a context manager."""

    def __init__(self, session: Session, model: WatermarkModel, bundle: Bundle, backend: str) -> None:
        self.model = model
        self.bundle = bundle
        self.backend = backend
        self._session = session

    @classmethod
    def open(
        cls,
        bundle: Bundle | Path | str,
        backend: str = "ort",
        precision: str = "fp32",
        threads: int | None = None,
        route: str | None = None,
    ) -> "Detector":
        """Open the detector of a bundle, given as a Bundle or its folder.

        threads: by default the number of cores this process may use. route: of a TFLite file, by default any.
        Raises NotAvailable for a backend or precision that is not there, InvalidArtifact for a broken file.
        """
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(Path(bundle))
        model = WatermarkModel.of(bundle)
        artifact = find_artifact(bundle, "detector", backend, precision, route)
        _check_signature(artifact, model)
        session = open_session(bundle, artifact, backend, default_threads() if threads is None else threads)
        return cls(session, model, bundle, backend)

    @property
    def artifact(self) -> Artifact:
        return self._session.artifact

    def detect(self, image: ImageSource) -> Detection:
        """Read one image: a path, a PIL image or an array (see toolkit.images.open.open_photo).

        Raises InvalidInput for an image that cannot be opened, InvalidArtifact for logits that are not finite.
        """
        start = time.perf_counter()
        tensor = preprocess(image, self.model.image_size_px)
        ready = time.perf_counter()
        logits = self._session.run({"image": tensor})["logits"][0]
        done = time.perf_counter()
        if not np.isfinite(logits).all():
            raise InvalidArtifact(f"{self._session.path}: gave logits that are not finite")
        timing_ms = {"preprocess": 1e3 * (ready - start), "run": 1e3 * (done - ready)}
        return _read(logits, self.model.detection_threshold, timing_ms)

    def detect_batch(self, images: Iterable[ImageSource]) -> list[Detection]:
        """Read images one after the other. Returns the results, and raises the errors, of `detect` on each image."""
        return [self.detect(image) for image in images]

    def close(self) -> None:
        self._session.close()


def _read(logits: Floats, threshold: float | None, timing_ms: dict[str, float]) -> Detection:
    message = Message(tuple(int(bit) for bit in logits[1:] > 0))
    if threshold is None:
        # tanh(x / 2) is 2 * sigmoid(x) - 1, and does not overflow.
        confidence = float(np.abs(np.tanh(logits[1:].astype(np.float64) / 2)).mean())
        return Detection(message, logits, confidence, None, timing_ms)
    confidence = float((1 + np.tanh(np.float64(logits[0]) / 2)) / 2)
    return Detection(message, logits, confidence, bool(logits[0] > threshold), timing_ms)


def _check_signature(artifact: Artifact, model: WatermarkModel) -> None:
    got = {b.spec.name: (b.spec.dtype, b.spec.shape) for b in (*artifact.inputs, *artifact.outputs)}
    side = model.image_size_px
    expected = {"image": ("float32", (1, 3, side, side)), "logits": ("float32", (1, 1 + model.bits))}
    if got != expected:
        raise InvalidArtifact(f"{artifact.file}: a detector of this model has {expected}, the manifest says {got}")
