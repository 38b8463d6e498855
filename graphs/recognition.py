"""Whose checkpoint is this? Said when a file does not fit the model that was asked for."""

from collections.abc import Mapping

from graphs.spec import MODELS, GraphSpec, ModelSpec

Shapes = Mapping[str, tuple[int, ...]]

_LAST_WEIGHT = "detector.pixel_decoder.linear.weight"  # (1 + bits, channels) in every detector of the family


def recognized(given: Shapes, spec: ModelSpec) -> str:
    """A sentence that names the models whose checkpoint this is; empty if it is none that is known, or `spec`'s own.

    given: shape of each key of the file. The whole file decides, then its detector, then its message length.
    """
    if spec.name in (whole := [name for name, model in MODELS.items() if _fits(model.graphs, given)]):
        return ""
    names = whole or [name for name, model in MODELS.items() if _fits((model.graph("detector"),), given)]
    shape = given.get(_LAST_WEIGHT, ())
    bits = shape[0] - 1 if len(shape) == 2 else None
    if not names and bits != spec.description.get("bits"):
        names = [name for name, model in MODELS.items() if model.description["bits"] == bits]
    names = [name for name in names if name != spec.name]
    if bits is None or not names:
        return ""
    return f"this is a {bits}-bit checkpoint: use {' or '.join(names)}."


def _fits(graphs: tuple[GraphSpec, ...], given: Shapes) -> bool:
    for graph in graphs:
        state = graph.expected_state()
        if any(given.get(f"{graph.role}.{name}") != tuple(value.shape) for name, value in state.items()):
            return False
    return True
