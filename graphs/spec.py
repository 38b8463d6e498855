"""Every model by its name. Importing this imports neither torch nor onnx, and names all architectures."""

from backends.errors import NotAvailable
from graphs.captioner.spec import SPECS as CAPTIONERS
from graphs.deepencoder.spec import SPECS as DEEPENCODERS
from graphs.foveated.spec import SPECS as FOVEATED
from graphs.model_spec import ModelSpec
from graphs.seal.spec import SPECS as SEALS


def _by_name(*specs: ModelSpec) -> dict[str, ModelSpec]:
    by_name = {spec.name: spec for spec in specs}
    if len(by_name) != len(specs):
        raise ValueError(f"two models have the same name among {[spec.name for spec in specs]}")
    return by_name


MODELS = _by_name(*SEALS, *DEEPENCODERS, *FOVEATED, *CAPTIONERS)


def find_spec(name: str) -> ModelSpec:
    """The model of a name. Raises NotAvailable that lists the names."""
    if name not in MODELS:
        raise NotAvailable(f"no model named {name!r}; there is {', '.join(MODELS)}")
    return MODELS[name]
