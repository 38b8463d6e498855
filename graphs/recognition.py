"""Whose checkpoint is this? Said when a file does not fit the model that was asked for."""

from collections.abc import Iterable, Mapping

from graphs.model_spec import GraphSpec, ModelSpec
from graphs.spec import MODELS

Shapes = Mapping[str, tuple[int, ...]]

_LAST_WEIGHT = "detector.pixel_decoder.linear.weight"  # (1 + bits, channels) in every detector of the Seal family


def recognized(given: Shapes, spec: ModelSpec) -> str:
    """A sentence that names the models whose checkpoint this is; empty if it is none that is known, or `spec`'s own.

    given: shape of each key of the file, as the file names it. The whole file decides, then a model's first graph,
    then the message length of a watermark.
    """
    if spec.name in (whole := [name for name, model in MODELS.items() if _fits(model, model.graphs, given)]):
        return ""
    names = whole or [name for name, model in MODELS.items() if _fits(model, model.graphs[:1], given)]
    shape = given.get(_LAST_WEIGHT, ())
    bits = shape[0] - 1 if len(shape) == 2 else None
    if not names and bits is not None and bits != spec.description.get("bits"):
        names = [name for name, model in MODELS.items() if model.description.get("bits") == bits]
    names = [name for name in names if name != spec.name]
    if not names:
        return ""
    what = "a checkpoint of another model" if bits is None else f"a {bits}-bit checkpoint"
    return f"this is {what}: use {' or '.join(names)}."


def _fits(model: ModelSpec, graphs: Iterable[GraphSpec], given: Shapes) -> bool:
    keys = {model.key_names.key(name): shape for name, shape in given.items()}
    for graph in graphs:
        state = graph.expected_state()
        if any(keys.get(graph.key(name)) != tuple(value.shape) for name, value in state.items()):
            return False
    return True
