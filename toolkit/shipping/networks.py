"""Networks of timm and torchvision: built without any download, with the weights of a file or with random ones."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from backends.errors import InvalidArtifact, InvalidInput, NotAvailable, one_line
from graphs.weights_file import read_state
from toolkit.images.preprocess import Interpolation
from toolkit.inputs.images import Preprocess

PACKAGES = ("timm", "torchvision")
SEED = 0
_COLOURS = 3
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
    package: str, name: str, network: nn.Module, shapes: Mapping[str, tuple[int, ...]], file: Path | None = None
) -> dict[str, Tensor]:
    """Return inputs of the sizes that a network was made for, by the names of its forward's arguments.

    shapes: sizes to use instead, by name. file: of the network's weights, if they are published ones. Raises
    InvalidInput for a name that is no argument.
    """
    names = list(_parameters(network.forward))
    sizes = dict(zip(names, _sizes(package, name, network, file), strict=False))
    if unknown := shapes.keys() - set(names):
        raise InvalidInput(f"{package}/{name}: no input {sorted(unknown)[0]!r}; it has {', '.join(names)}")
    generator = torch.Generator().manual_seed(SEED)
    return {name: torch.rand(shape, generator=generator) for name, shape in (sizes | dict(shapes)).items()}


def published_preprocess(
    package: str, name: str, network: nn.Module, inputs: Mapping[str, Tensor], file: Path | None = None
) -> Preprocess | None:
    """Return the preprocessing for which the published weights of a network were made, as its package states it.

    inputs: as example_inputs returns them. file: of the network's weights, if they are published ones. Returns None for
    a network whose input is not one image of three channels, or whose package states nothing.
    """
    shapes = [tuple(value.shape) for value in inputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != _COLOURS:
        return None
    size = shapes[0][2:]
    if package == "timm":
        stated: Mapping[str, Any] = getattr(network, "pretrained_cfg", {})
        crop = stated.get("crop_pct") if stated.get("crop_mode", "center") == "center" else None
    else:
        given = _transforms(name, file)
        if given is None or not hasattr(given, "mean"):
            return None
        stated = vars(given) | {"interpolation": given.interpolation.value}
        cut, whole = _first(stated.get("crop_size")), _first(stated["resize_size"])
        crop = None if cut is None or whole is None else min(1.0, cut / whole)
    mean, std = (tuple(map(float, stated.get(key) or ())) for key in ("mean", "std"))
    if not mean or not std:
        return None
    known: dict[str, Interpolation] = {one: one for one in get_args(Interpolation)}
    interpolation = known.get(stated.get("interpolation", ""), "bilinear")
    return Preprocess((size[0], size[1]), mean=mean, std=std, interpolation=interpolation, crop=crop)


def _sizes(package: str, name: str, network: Any, file: Path | None) -> list[tuple[int, ...]]:
    if package == "timm":
        return [(1, *network.pretrained_cfg["input_size"])]
    module = type(network).__module__
    crop, resize = _crop(name, file)
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


def _crop(name: str, file: Path | None) -> tuple[int, int]:
    """Return the sides, in pixels, of the crop and of the whole image for which published weights were made."""
    given = _transforms(name, file)
    sides = [_first(getattr(given, key, None)) for key in ("crop_size", "resize_size")]
    return sides[0] or _CLASSIFICATION_SIDE, sides[1] or _SEGMENTATION_SIDE


def _transforms(name: str, file: Path | None) -> Any:
    """Return what torchvision does to an image before the network: for the published weights that have the name of
    `file`, or else for the first ones; None if it does nothing that has sizes."""
    published = [
        one for one in _imported("torchvision").models.get_model_weights(name) if isinstance(one.transforms, partial)
    ]
    named = [one for one in published if file is not None and one.url.endswith(f"/{file.name}")]
    return next((one.transforms() for one in (*named, *published)), None)


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
