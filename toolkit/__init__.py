"""Hide messages in images and read them back, on several runtimes.

    import toolkit
    toolkit.load_detector("pocketseal", backend="tflite", precision="int8").detect("photo.jpg").message.hex

Run a graph of any bundle, such as one of `toolkit import`:

    toolkit.load("build/resnet50", backend="tflite", precision="int8").run(x)["logits"]

Importing this package loads no runtime.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.models.runner import Model
    from toolkit.models.watermark.detector import Detector
    from toolkit.models.watermark.embed import Embedder

__all__ = ["find_bundle", "load", "load_detector", "load_embedder"]


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
