"""Networks of timm and torchvision: built without any download, with the weights of a file or with random ones."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backends.errors import InvalidArtifact, InvalidInput, NotAvailable, one_line
from graphs.weights_file import read_state

PACKAGES = ("timm", "torchvision")
SEED = 0
# The standard deviation of what is added to constant parameters: vectors such as biases, and larger ones.
_SPREADS = (0.1, 0.02)
_CLASSIFICATION_SIDE, _SEGMENTATION_SIDE, _CLIP_FRAMES, _FLOW_SIZES = 224, 520, 16, (128, 160)


def build_network(package: str, name: str) -> nn.Module:
    """Return a network of timm or torchvision in eval mode, with random weights that are the same on every run.

    Raises NotAvailable if the package is not installed or cannot be imported, or has no network of this name.
    """
    library = _imported(package)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        try:
            if package == "timm":
                network = library.create_model(name, pretrained=False)
            else:
                build = library.models.get_model_builder(name)
                backbone = {"weights_backbone": None} if "weights_backbone" in _parameters(build) else {}
                network = build(weights=None, **backbone)
        except (ValueError, RuntimeError) as error:
            near = _similar(package, library, name)
            raise NotAvailable(f"{package}/{name}: {one_line(error)}{near}") from error
        _move_off_start(network)
    network.eval()
    found: nn.Module = network
    return found


def load_weights(network: nn.Module, path: Path) -> None:
    """Load the weights of a file into a network, strictly: every tensor must be there, and no other.

    The file is a .safetensors, or what torch.save wrote of a state dict; no code in it is run.
    Raises InvalidArtifact for any other file, and for keys that are missing, unknown or of another shape.
    """
    state = read_state(path)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InvalidArtifact(f"{path}: does not fit {type(network).__name__}: {one_line(error)[:600]}") from error


def example_inputs(
    package: str, name: str, network: nn.Module, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return inputs of the sizes that a network was made for, by the names of its forward's arguments.

    shapes: sizes to use instead, by name. Raises InvalidInput for a name that is no argument.
    """
    names = list(_parameters(network.forward))
    sizes = dict(zip(names, _sizes(package, name, network), strict=False))
    if unknown := shapes.keys() - set(names):
        raise InvalidInput(f"{package}/{name}: no input {sorted(unknown)[0]!r}; it has {', '.join(names)}")
    generator = torch.Generator().manual_seed(SEED)
    return {name: torch.rand(shape, generator=generator) for name, shape in (sizes | dict(shapes)).items()}


def _sizes(package: str, name: str, network: Any) -> list[tuple[int, ...]]:
    if package == "timm":
        return [(1, *network.pretrained_cfg["input_size"])]
    module = type(network).__module__
    crop, resize = _crop(name)
    if ".video." in module:
        return [(1, 3, _CLIP_FRAMES, crop, crop)]
    if ".optical_flow." in module:
        return [(1, 3, *_FLOW_SIZES)] * 2
    if ".detection." in module:
        raise InvalidInput(
            f"{package}/{name}: a detector takes a list of images and returns as many boxes as it finds, which no "
            "fixed graph can: export its backbone and heads, and give that ONNX file"
        )
    side = resize if ".segmentation." in module else crop
    return [(1, 3, side, side)]


def _crop(name: str) -> tuple[int, int]:
    """Return the sides, in pixels, of the crop and of the whole image for which published weights were made."""
    for weights in _imported("torchvision").models.get_model_weights(name):
        if isinstance(weights.transforms, partial):
            given = weights.transforms.keywords
            sides = [_first(given.get(key)) for key in ("crop_size", "resize_size")]
            return sides[0] or _CLASSIFICATION_SIDE, sides[1] or _SEGMENTATION_SIDE
    return _CLASSIFICATION_SIDE, _SEGMENTATION_SIDE


def _first(value: Any) -> int | None:
    side = value[0] if isinstance(value, tuple | list) else value
    return None if side is None else int(side)


def _move_off_start(network: nn.Module) -> None:
    """Add noise to parameters that are constant, such as the zeros by which some networks start as an identity."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(torch.randn_like(parameter) * _SPREADS[parameter.ndim > 1])


def _imported(package: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise NotAvailable(f"not installed: {error.name}; run `pip install {package}`") from error
    except Exception as error:  # a torchvision of another torch fails with a RuntimeError
        raise NotAvailable(
            f"{package} is installed, but cannot be imported: {one_line(error)}; install the version that belongs to "
            f"torch {torch.__version__}"
        ) from error


def _parameters(function: Any) -> Mapping[str, Any]:
    return signature(function).parameters


def _similar(package: str, library: Any, name: str) -> str:
    known = library.list_models() if package == "timm" else library.models.list_models()
    close = get_close_matches(name, known, 3)
    return f"; did you mean {' or '.join(close)}?" if close and name not in known else ""
