"""The inputs of an imported model that its bundle's manifest keeps: where real ones are, how images become tensors, and
which values integers can have. All commands take their samples from here."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from backends.bundle import MANIFEST, Bundle
from backends.errors import InvalidArtifact, InvalidInput
from backends.tensor import Array, IntegerValues, TensorSpec
from toolkit.inputs import KEY
from toolkit.inputs.images import Preprocess
from toolkit.inputs.read import RealInputs, read_inputs
from toolkit.metrics.samples import Sample, signed_samples


@dataclass(frozen=True)
class KeptInputs:
    """The value of `model["inputs"]` in the manifest of an imported model.

    path: of the real inputs, relative to the bundle's folder, so that both can be moved together; None without any.
    preprocess: for images and recordings; None for the defaults. integers: the possible values of integer inputs, by
    name.
    """

    path: str | None = None
    preprocess: Preprocess | None = None
    integers: Mapping[str, IntegerValues] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: Bundle) -> "KeptInputs":
        """Return what a bundle's manifest keeps. Raises InvalidArtifact for another value than this class writes."""
        try:
            return msgspec.convert(bundle.model.get(KEY, {}), cls)
        except (msgspec.ValidationError, InvalidInput) as error:
            raise InvalidArtifact(
                f"{bundle.folder / MANIFEST}: model.{KEY}: {error}; import the model again"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the JSON value, without what is the default."""
        found: dict[str, Any] = {}
        if self.path is not None:
            found["path"] = self.path
        if self.preprocess is not None:
            found["preprocess"] = _without_defaults(self.preprocess, Preprocess())
        if self.integers:
            found["integers"] = {n: _without_defaults(held, IntegerValues()) for n, held in self.integers.items()}
        return found


def _without_defaults(held: object, default: object) -> dict[str, Any]:
    values, defaults = (msgspec.json.decode(msgspec.json.encode(one)) for one in (held, default))
    return {key: value for key, value in values.items() if value != defaults[key]}


def relative_path(path: Path, folder: Path) -> str:
    """Return the path of inputs as a bundle in `folder` keeps it."""
    return os.path.relpath(path.resolve(), folder.resolve())


def with_inputs(bundle: Bundle, path: Path | None, preprocess: Preprocess | None) -> Bundle:
    """Return the bundle with other inputs or another preprocessing in its manifest, which is not written.

    None leaves what the bundle has. Raises InvalidInput if there is nothing at `path`, or if the bundle's graph does
    not take the inputs; the first sample is read.
    """
    if path is None and preprocess is None:
        return bundle
    kept = KeptInputs.of(bundle)
    if path is not None:
        kept = replace(kept, path=relative_path(path, bundle.folder))
    if preprocess is not None:
        kept = replace(kept, preprocess=preprocess)
    changed = replace(bundle, model=bundle.model | {KEY: kept.to_json()})
    for artifact in bundle.artifacts:
        if path is not None and (artifact.format, artifact.parent) == ("onnx", None):
            read_inputs(path, [binding.spec for binding in artifact.inputs], kept.preprocess, kept.integers).sample(0)
    return changed


def not_imported(bundle: Bundle) -> InvalidInput:
    """Return the error for real inputs that were given for a model of a known kind, which has its own samples."""
    return InvalidInput(
        f"{bundle.folder}: --inputs and --preprocess are for imported models, and this is a {bundle.model['kind']} "
        "model, which has its own samples; --images adds yours to them"
    )


def moved_model(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Return the `model` of a bundle for another bundle in `folder`, with the path of the same real inputs."""
    kept = KeptInputs.of(bundle)
    if (path := _place(bundle, kept)) is None:
        return bundle.model
    return bundle.model | {KEY: replace(kept, path=relative_path(path, folder)).to_json()}


def real_inputs(bundle: Bundle, specs: Sequence[TensorSpec]) -> RealInputs | None:
    """Return the real inputs of a bundle; None if it has none, or if the file or folder is gone.

    Raises InvalidInput as `read_inputs` for inputs that do not fit.
    """
    kept = KeptInputs.of(bundle)
    path = _place(bundle, kept)
    return None if path is None or not path.exists() else read_inputs(path, specs, kept.preprocess, kept.integers)


def synthetic_samples(bundle: Bundle, specs: Sequence[TensorSpec]) -> Iterator[Sample]:
    """Yield synthetic samples, in which integer inputs have possible values: see `signed_samples`."""
    return signed_samples(tuple(specs), integers=KeptInputs.of(bundle).integers)


def first_inputs(bundle: Bundle, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return the first real inputs of a bundle by name, or noise if it has none."""
    real = real_inputs(bundle, specs)
    return dict((next(synthetic_samples(bundle, specs)) if real is None else real.sample(0)).feeds)


def advisory(bundle: Bundle) -> str | None:
    """Return a sentence for the user if a bundle has no real inputs, on which alone a verdict can rest; else None."""
    path = _place(bundle, KeptInputs.of(bundle))
    if path is not None and path.exists():
        return None
    why = "no real inputs were given" if path is None else f"the real inputs are gone: there is no {path}"
    return (
        f"The verdict is advisory: {why}, and synthetic inputs say little about the values that this model reads; "
        "give some with --inputs FILE.npz|DIR"
    )


def _place(bundle: Bundle, kept: KeptInputs) -> Path | None:
    return None if kept.path is None else Path(os.path.normpath(bundle.folder.resolve() / kept.path))
