"""Imported graphs: nobody says what their inputs and outputs mean, so noise goes in and numbers are compared."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidInput
from toolkit.parity.judging import Judge, NoJudge
from toolkit.parity.kinds import RANDOM_WEIGHTS, Kind
from toolkit.parity.sample import Sample
from toolkit.parity.synthetic import signed_samples
from toolkit.preprocess import preprocess


def samples(bundle: Bundle, reference: Artifact, images: Sequence[Path]) -> Iterator[Sample]:
    """Synthetic inputs; and the user's images, for a graph whose one input takes square RGB images in [0, 1]."""
    specs = tuple(binding.spec for binding in reference.inputs)
    if images:
        shape = specs[0].shape
        if (
            len(specs) != 1
            or specs[0].dtype != "float32"
            or len(shape) != 4
            or shape[:2] != (1, 3)
            or shape[2] != shape[3]
        ):
            shown = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
            raise InvalidInput(f"images: expected a graph with one input of float32 [1, 3, S, S], it has {shown}")
        for path in images:
            yield Sample(path.name, "real", {specs[0].name: preprocess(path, shape[-1])}, None)
    yield from signed_samples(specs)


def judge(bundle: Bundle, role: str) -> Judge:
    """Nothing beside the error."""
    return NoJudge()


KIND = Kind(samples, judge, may_leave_domain=True, random_note=RANDOM_WEIGHTS)
