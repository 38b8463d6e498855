"""Bundles: a folder with the artifacts of one model, and the manifest with their hashes and learned tensors."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.artifact import Artifact
from backends.atomic import replacing
from backends.errors import InvalidArtifact, NotAvailable
from backends.manifest import Fields, parse
from backends.tensor import Array

if TYPE_CHECKING:
    from torch import Tensor


MANIFEST = "bundle.json"
# Key of the model in the manifest: a list of lines.
MENDINGS = "mendings"
# Called with a short line that names the current step.
Progress = Callable[[str], None]
FORMAT_VERSION = 1
ORIGINS = ("trained", "checkpoint", "random")
_MANIFEST_LIMIT_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class WeightsOrigin:
    """Where the weights of a model come from.

    origin: "trained" by this project, from a "checkpoint", or "random". sha256: of the weights. source: the name of the
    file, or the seed. Raises InvalidArtifact for another origin.
    """

    origin: str
    sha256: str
    source: str

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise InvalidArtifact(f"weights.origin: expected one of {', '.join(ORIGINS)}, got {self.origin!r}")

    @property
    def is_random(self) -> bool:
        """Whether the answers of the model mean nothing."""
        return self.origin == "random"

    @classmethod
    def from_json(cls, value: object, where: str) -> "WeightsOrigin":
        """Return the origin that a manifest states. Raises InvalidArtifact, which names `where`, for another value."""
        data = Fields(value, f"{where}: weights", ("origin", "sha256", "source"))
        try:
            return cls(data.text("origin"), data.text("sha256"), data.text("source"))
        except InvalidArtifact as error:
            raise InvalidArtifact(f"{where}: {error}") from error


@dataclass(frozen=True)
class Bundle:
    """A folder of artifacts with its parsed manifest.

    model: the description of the model, {"name", "kind", ...}; the kind reads the other keys.
    Raises InvalidArtifact for a wrong model, or two artifacts of one role, format, precision and route.
    """

    folder: Path
    model: dict[str, Any]
    weights: WeightsOrigin
    artifacts: tuple[Artifact, ...]

    def __post_init__(self) -> None:
        where = str(self.folder / MANIFEST)
        for key in ("name", "kind"):
            if not isinstance(self.model.get(key), str) or not self.model[key]:
                raise InvalidArtifact(f"{where}: model.{key}: expected text, got {self.model.get(key)!r}")
        if twice := _listed_twice(self.artifacts):
            raise InvalidArtifact(f"{where}: listed twice: {', '.join(twice)}")
        keys = [(a.role, a.format, a.precision, a.route) for a in self.artifacts]
        if len(set(keys)) != len(keys):
            raise InvalidArtifact(f"{where}: two artifacts have the same role, format, precision and route")

    @property
    def mendings(self) -> tuple[str, ...]:
        """A line for everything that was done to the graph of an imported file; empty for other models.

        Raises InvalidArtifact if the manifest has anything but a list of texts there.
        """
        held = {MENDINGS: self.model.get(MENDINGS, [])}
        return Fields(held, f"{self.folder / MANIFEST}: model", (MENDINGS,)).texts(MENDINGS)

    @classmethod
    def open(cls, folder: Path) -> "Bundle":
        """Read the manifest of a bundle strictly. The artifacts' files are checked later, by `verify`.

        Raises NotAvailable if the folder has no manifest, InvalidArtifact if the manifest is invalid.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        if not path.is_file():
            raise NotAvailable(f"{folder}: no bundle here ({MANIFEST} is missing); make one with `toolkit export`")
        try:
            with path.open("rb") as file:
                text = file.read(_MANIFEST_LIMIT_BYTES + 1)
        except OSError as error:
            raise InvalidArtifact(f"{path}: cannot read: {error.strerror}") from error
        if len(text) > _MANIFEST_LIMIT_BYTES:
            raise InvalidArtifact(f"{path}: expected a manifest of at most {_MANIFEST_LIMIT_BYTES} bytes")
        data = Fields(parse(text, str(path)), str(path), ("format_version", "model", "weights", "artifacts"))
        if data.integer("format_version") != FORMAT_VERSION:
            raise InvalidArtifact(
                f"{path}: expected format_version {FORMAT_VERSION}, got {data['format_version']}; export it again"
            )
        artifacts = tuple(
            Artifact.from_json(value, f"{path}: artifacts[{i}]") for i, value in enumerate(data.items("artifacts"))
        )
        return cls(folder, data.mapping("model"), WeightsOrigin.from_json(data["weights"], str(path)), artifacts)

    def write(self) -> None:
        """Write the manifest in one step, after everything else. Raises InvalidArtifact if a listed file is missing."""
        for artifact in self.artifacts:
            for name in artifact.files:
                self._path(name)
        document = {
            "format_version": FORMAT_VERSION,
            "model": self.model,
            "weights": asdict(self.weights),
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
        }
        with replacing(self.folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def find(self, role: str, format: str, precision: str, route: str | None = None) -> Artifact:
        """Return the artifact of a role, format and precision. Without `route`, the direct route is preferred.

        Raises NotAvailable, which lists the bundle's files.
        """
        found = [a for a in self.artifacts if (a.role, a.format, a.precision) == (role, format, precision)]
        for wanted in ("direct", None, "tf") if route is None else (route,):
            for artifact in found:
                if artifact.route == wanted:
                    return artifact
        what = " ".join(part for part in (role, format, precision, route and f"route {route}") if part)
        here = ", ".join(a.file for a in self.artifacts) or "nothing"
        exported = any((a.role, a.format, a.precision) == (role, "onnx", "fp32") for a in self.artifacts)
        converted = exported and format != "torch"
        how = f"`toolkit convert {self.folder}`" if converted else "`toolkit export`"
        raise NotAvailable(f"{self.folder}: no {what}; there is {here}; {how} makes more")

    def verify(self, artifact: Artifact) -> Path:
        """Return the path of an artifact's file after checking size and sha256, external data included.

        Raises InvalidArtifact if a file is missing, is a link out of the bundle, or does not match.
        """
        paths = [self._path(name) for name in artifact.files]
        size = sum(path.stat().st_size for path in paths)
        if size != artifact.bytes:
            raise InvalidArtifact(f"{paths[0]}: expected {artifact.bytes} bytes, got {size}; export or copy it again")
        digest = sha256_of(*paths)
        if digest != artifact.sha256:
            raise InvalidArtifact(
                f"{paths[0]}: does not match its manifest: expected sha256 {artifact.sha256}, got {digest}; "
                "export or copy it again"
            )
        return paths[0]

    def with_artifact(self, artifact: Artifact) -> "Bundle":
        """Return the bundle with one more artifact, which replaces an artifact of the same role and file."""
        kept = tuple(a for a in self.artifacts if (a.role, a.file) != (artifact.role, artifact.file))
        return replace(self, artifacts=(*kept, artifact))

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise InvalidArtifact(f"{path}: the manifest lists it, but there is no such file; export or copy it again")
        if path.resolve().parent != self.folder.resolve():
            raise InvalidArtifact(f"{path}: a link that leads out of the bundle, to {path.resolve()}")
        return path


def _listed_twice(artifacts: tuple[Artifact, ...]) -> list[str]:
    """Return the file names that are used for two different files. Several roles may share one file."""
    uses: dict[str, set[object]] = {MANIFEST: {None}}
    for artifact in artifacts:
        # Names that differ only by case are the same file on some systems.
        whole = (artifact.file, artifact.format, artifact.sha256)
        uses.setdefault(artifact.file.lower(), set()).add(whole)
        for name in artifact.external_files:
            uses.setdefault(name.lower(), set()).add((name, artifact.format))
    own = [(artifact.role, artifact.file.lower()) for artifact in artifacts]
    again = {name for role, name in own if own.count((role, name)) > 1}
    return sorted(again | {name for name, different in uses.items() if len(different) > 1})


def sha256_of(*paths: Path) -> str:
    """Return the hex sha256 of the contents of the files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


_FLOAT32 = np.dtype("<f4")


def learned_json(tensors: "Mapping[str, Tensor]") -> dict[str, Any]:
    """Return {"learned": {name: {"shape", "float32"}}} with little-endian values in base64; {} for no tensors."""
    if not tensors:
        return {}
    return {
        "learned": {
            name: {
                "shape": list(tensor.shape),
                "float32": base64.b64encode(tensor.numpy().astype(_FLOAT32).tobytes()).decode(),
            }
            for name, tensor in tensors.items()
        }
    }


def read_learned(bundle: Bundle, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return the learned float32 tensors of a bundle's manifest by name.

    Raises InvalidArtifact for other names or shapes than those of `shapes`, and for NaN or infinity.
    """
    where = f"{bundle.folder}: model.learned"
    held = Fields(bundle.model.get("learned"), where, tuple(shapes))
    return {name: _read(held[name], shape, f"{where}.{name}") for name, shape in shapes.items()}


def _read(value: object, shape: tuple[int, ...], where: str) -> Array:
    data = Fields(value, where, ("shape", "float32"))
    if data.integers("shape") != shape:
        raise InvalidArtifact(f"{where}: expected shape {shape}, got {data.integers('shape')}")
    try:
        array = np.frombuffer(base64.b64decode(data.text("float32"), validate=True), _FLOAT32).reshape(shape)
    except (binascii.Error, ValueError) as error:
        raise InvalidArtifact(f"{where}: not float32 of shape {shape} in base64: {error}") from error
    if not np.isfinite(array).all():
        raise InvalidArtifact(f"{where}: holds NaN or infinity")
    return array.astype(np.float32)
