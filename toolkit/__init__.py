"""Take a model to several runtimes, with proof that its files agree; hide messages in images and read them back.

Ship a torch module, and run a graph of its bundle, or of any other:

    import toolkit
    print(toolkit.ship(module, x, "build/mine"))
    toolkit.load("build/mine", backend="tflite", precision="int8").run(x)["output"]

Read the message of an image:

    toolkit.load_detector("pocketseal", backend="tflite", precision="int8").detect("photo.jpg").message.hex

Importing this package loads no runtime.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

    from toolkit.models.runner import Model
    from toolkit.models.watermark.detector import Detector
    from toolkit.models.watermark.embed import Embedder
    from toolkit.shipping.ship import Shipped

__all__ = ["find_bundle", "load", "load_detector", "load_embedder", "ship"]


def find_bundle(model: str | Path) -> Path:
    """Return the folder of a bundle. A path is returned as it is; a name is searched in build/, then among the bundles
    that ship with this package.

    Raises NotAvailable if no folder of that name has a manifest; the message says how to get the bundle.
    """
    from backends.bundle import MANIFEST
    from backends.errors import NotAvailable
    from graphs.networks.models import MODELS

    if isinstance(model, Path) or Path(model).name != model:
        return Path(model)
    places = [Path("build") / model, Path(__file__).parent / "bundles" / model]
    for folder in places:
        if (folder / MANIFEST).is_file():
            return folder
    shipped = sorted(manifest.parent.name for manifest in places[1].parent.glob(f"*/{MANIFEST}"))
    variants = [name.removeprefix(f"{model}-") for name in MODELS if name.startswith(f"{model}-")]
    if model in MODELS:
        hint = f"make it with `toolkit export {model}`"
    elif variants:
        hint = f"this model has variants: give {', '.join(variants)}"
    else:
        hint = "`toolkit models` lists what can be made"
    raise NotAvailable(
        f"no bundle named {model!r} in {places[0].parent}; shipped: {', '.join(shipped) or 'none'}; {hint}"
    )


def ship(
    module: "nn.Module",
    example_inputs: object,
    folder: str | Path,
    precisions: Sequence[str] | None = None,
    runtimes: Sequence[Literal["ort", "tflite"]] = ("ort", "tflite"),
    threads: int | None = None,
    time_limit_s: float | None = 20.0,
    inputs: str | Path | None = None,
    preprocess: str | None = None,
    judge: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> "Shipped":
    """Make a bundle of a torch module in `folder`, convert, compare, time and report it, as `toolkit ship` does.

    example_inputs: a tensor, a tuple of the arguments of `forward`, or a dict of them by name. The files have the sizes
    of these inputs, and the names of the arguments. precisions: by default fp32, fp16 and int8. The other options are
    those of `toolkit ship`: inputs, preprocess and judge are the real inputs on which the files are judged, and the
    answers by which; time_limit_s=None times and reports nothing. `progress` is called with a line for each step.
    Raises InvalidInput if the inputs do not fit the module, InvalidArtifact if no exporter of torch gives an ONNX file
    that agrees with it, and the errors of `toolkit import`. A failure after that is in the result, which `print` shows.
    """
    from toolkit.environments import need

    need("export", *(["tflite"] if "tflite" in runtimes else []))
    from toolkit.inputs.images import Preprocess
    from toolkit.metrics.task import JudgeChoice
    from toolkit.shipping.ship import ShipOptions, ship_model
    from toolkit.shipping.source import bundle_of_module

    options = ShipOptions(None if precisions is None else tuple(precisions), tuple(runtimes), threads, time_limit_s)
    how = None if preprocess is None else Preprocess.parse(preprocess)
    kept = {
        "inputs": None if inputs is None else Path(inputs),
        "preprocess": how,
        "judge": None if judge is None else JudgeChoice.parse(judge),
    }
    return ship_model(
        lambda place, said, note: bundle_of_module(module, example_inputs, place, said, note, kept=kept),
        Path(folder),
        options,
        progress,
    )


def load(
    model: str | Path,
    backend: str = "ort",
    precision: str = "fp32",
    threads: int | None = None,
    route: str | None = None,
    role: str | None = None,
) -> "Model":
    """Open a graph of any bundle, given by its name or folder. See `Model.open`."""
    from toolkit.models.runner import Model

    return Model.open(find_bundle(model), backend, precision, threads, route, role)


def load_detector(
    model: str | Path = "pocketseal",
    backend: str = "ort",
    precision: str = "fp32",
    threads: int | None = None,
    route: str | None = None,
) -> "Detector":
    """Open the detector of a model, given by its name or by the folder of its bundle. See `Detector.open`."""
    from toolkit.models.watermark.detector import Detector

    return Detector.open(find_bundle(model), backend, precision, threads, route)


def load_embedder(model: str | Path = "pocketseal", threads: int | None = None) -> "Embedder":
    """Open the embedder of a model, given by its name or by the folder of its bundle. See `Embedder.open`."""
    from toolkit.models.watermark.embed import Embedder

    return Embedder.open(find_bundle(model), threads)
