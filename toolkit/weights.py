"""Which weights an export takes: a checkpoint's, random ones from a seed, or those that ship with this package."""

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file

from backends.bundle import MANIFEST, Bundle
from backends.errors import InvalidInput
from graphs.checkpoint import Weights, load_checkpoint, random_weights
from graphs.model_spec import ModelSpec

SHIPPED = Path(__file__).parent / "bundles"


def choose_weights(spec: ModelSpec, checkpoints: Sequence[Path] = (), seed: int | None = None) -> Weights:
    """The weights of a checkpoint's files or of a seed; with neither, the shipped ones of this model.

    Raises InvalidInput for both, or for neither where none ship; and what load_checkpoint raises.
    """
    if checkpoints and seed is not None:
        raise InvalidInput("weights: a checkpoint and random ones were both asked for; give one")
    if checkpoints:
        return load_checkpoint(checkpoints, spec)
    if seed is not None:
        return random_weights(seed, spec)
    folder = SHIPPED / spec.name
    if not (folder / MANIFEST).is_file():
        raise InvalidInput(
            f"{spec.name}: no weights ship with this package; download its checkpoint and give --checkpoint FILE, "
            "or take --random SEED for tests and timing"
        )
    bundle = Bundle.open(folder)
    states = {graph.role: load_file(bundle.verify(bundle.find(graph.role, "torch", "fp32"))) for graph in spec.graphs}
    return Weights(bundle.weights["origin"], bundle.weights["source"], bundle.weights["sha256"], states)
