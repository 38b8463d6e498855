"""What the manifest of a watermark model says: message length, sizes, and how a watermark is blended in."""

from dataclasses import dataclass
from typing import Any

from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from backends.manifest import Fields

ATTENUATIONS = (None, "jnd_1_1")


@dataclass(frozen=True)
class EmbedderModel:
    """marked = clamp(scaling_i * image + scaling_w * attenuation * watermark, 0, 1), at the image's own size."""

    image_size_px: int
    channels: int
    scaling_w: float
    scaling_i: float
    attenuation: str | None


@dataclass(frozen=True)
class WatermarkModel:
    """detection_threshold is for logit 0; None: that channel was not trained and says nothing."""

    name: str
    bits: int
    image_size_px: int
    detection_threshold: float | None
    embedder: EmbedderModel | None

    @classmethod
    def of(cls, bundle: Bundle) -> "WatermarkModel":
        """Read bundle.model strictly. Raises InvalidArtifact."""
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
