"""The inputs that files are timed on."""

from backends.artifact import Artifact
from backends.tensor import Array
from toolkit.parity.synthetic import signed_samples


def timing_feeds(artifact: Artifact) -> dict[str, Array]:
    """Uniform noise in [0, 1), seeded, for floats; 0 and 1 for integers. Zeros could take shortcuts."""
    return dict(next(signed_samples(tuple(binding.spec for binding in artifact.inputs))).feeds)
