"""All models by name, and the models that a checkpoint fits. Importing this imports neither torch nor onnx."""

from collections.abc import Iterable, Mapping

from backends.errors import NotAvailable
from graphs.networks.captioner.config import SPECS as CAPTIONERS
from graphs.networks.deepencoder.config import SPECS as DEEPENCODERS
from graphs.networks.foveated.config import SPECS as FOVEATED
from graphs.networks.seal.cards import SPECS as SEALS
from graphs.networks.spec import GraphSpec, ModelSpec, unwrapped


def _by_name(*specs: ModelSpec) -> dict[str, ModelSpec]:
    by_name = {spec.name: spec for spec in specs}
    if len(by_name) != len(specs):
        raise ValueError(f"two models have the same name among {[spec.name for spec in specs]}")
    return by_name


MODELS = _by_name(*SEALS, *DEEPENCODERS, *FOVEATED, *CAPTIONERS)


def find_spec(name: str) -> ModelSpec:
    """Return the model of this name. Raises NotAvailable listing the names."""
    if name not in MODELS:
        raise NotAvailable(f"no model named {name!r}; there is {', '.join(MODELS)}")
    return MODELS[name]


Shapes = Mapping[str, tuple[int, ...]]

_LAST_WEIGHT = "detector.pixel_decoder.linear.weight"  # (1 + bits, channels) in every detector of the Seal family


def recognized(given: Shapes, spec: ModelSpec) -> str:
    """Return a sentence that names the models whose checkpoint this is, or "" if none is known or it is `spec`'s.

    given: shape of each key of the file, as the file names it. All graphs of a model are compared, else its first
    graph, else the length of a watermark's message.
    """
    given = {unwrapped(name): shape for name, shape in given.items()}
    if spec.name in (whole := [name for name, model in MODELS.items() if _fits(model, model.graphs, given)]):
        return ""
    names = whole or [name for name, model in MODELS.items() if _fits(model, model.graphs[:1], given)]
    if spec.name in names and not spec.left_out:
        return f"part of it is {spec.name}'s."
    shape = given.get(_LAST_WEIGHT, ())
    bits = shape[0] - 1 if len(shape) == 2 else None
    if not names and bits is not None and bits != spec.description.get("bits"):
        names = [name for name, model in MODELS.items() if model.description.get("bits") == bits]
    names = [name for name in names if name != spec.name]
    if not names:
        return ""
    what = "a checkpoint of another model" if bits is None else f"a {bits}-bit checkpoint"
    return f"this is {what}: use {' or '.join(names)}."


def fitting(given: Shapes) -> dict[str, tuple[str, ...]]:
    """Return, by the name of a model, the roles of the graphs whose weights a checkpoint holds in the right shapes.

    given: the shape of each key of the file, as the file names it. Models of which the file holds every graph leave out
    all others.
    """
    given = {unwrapped(name): shape for name, shape in given.items()}
    found = {
        name: tuple(graph.role for graph in model.graphs if _fits(model, (graph,), given))
        for name, model in MODELS.items()
    }
    whole = {name: roles for name, roles in found.items() if roles == MODELS[name].roles}
    return whole or {name: roles for name, roles in found.items() if roles}


def _fits(model: ModelSpec, graphs: Iterable[GraphSpec], given: Shapes) -> bool:
    """Return whether the file has every key of these graphs, in the right shape."""
    keys = {model.key_names.key(name): shape for name, shape in given.items()}
    for graph in graphs:
        state = graph.expected_state()
        if any(keys.get(graph.key(name)) != tuple(value.shape) for name, value in state.items()):
            return False
    return True
