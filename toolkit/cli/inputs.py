"""The options --inputs and --preprocess, which give an imported model the inputs that it is used on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from backends.bundle import Bundle
    from toolkit.inputs.images import Preprocess

Command = TypeVar("Command", bound=Callable[..., Any])

INPUTS_HELP = (
    "Real inputs: an .npz with an array for each input by its name, the first axis counting samples; or a folder of "
    ".npz files, of .npy files, images or recordings where the model has one input."
)
PREPROCESS_HELP = (
    'How images become the input, as in "mean=0.485 0.456 0.406,std=0.229 0.224 0.225,order=BGR". Parts: mean, std, '
    "scale (the value of white, 1), size (224 or height x width), layout (NCHW or NHWC), order (RGB or BGR), grey, "
    "interpolation (bilinear, bicubic, lanczos or nearest), crop (0.875 takes that much of the middle and keeps the "
    "aspect); and rate (in Hz) of recordings. What is left out follows from the input."
)


def input_options(command: Command) -> Command:
    """Add --inputs and --preprocess to a command, as the parameters `inputs` and `preprocess`."""
    inputs = click.option("--inputs", type=click.Path(path_type=Path), metavar="FILE.npz|DIR", help=INPUTS_HELP)
    preprocess = click.option("--preprocess", metavar="TEXT", help=PREPROCESS_HELP)
    return inputs(preprocess(command))


def parsed(preprocess: str | None) -> "Preprocess | None":
    """Return the value of --preprocess. Raises InvalidInput for a text that it cannot read."""
    from toolkit.inputs.images import Preprocess

    return None if preprocess is None else Preprocess.parse(preprocess)


def with_given_inputs(bundle: "Bundle", inputs: Path | None, preprocess: str | None) -> "Bundle":
    """Return the bundle with the inputs that the options give; the manifest is not written.

    Raises InvalidInput for a model that was not imported, and for inputs that do not fit the model.
    """
    from toolkit.inputs.kept import not_imported, with_inputs
    from toolkit.models.kind import find_kind

    if inputs is None and preprocess is None:
        return bundle
    if not find_kind(bundle.model["kind"]).is_imported:
        raise not_imported(bundle)
    return with_inputs(bundle, inputs, parsed(preprocess))
