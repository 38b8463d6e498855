"""The model that is shipped, as the user names it, and the bundle made of it: an ONNX file, a checkpoint, a network of
a package, a model of `toolkit models`, or a torch module."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.bundle import Bundle, Progress, sha256_of
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable, ToolkitError
from backends.tensor import Array
from graphs.networks.models import fitting
from graphs.onnx.sizes import Shapes, fixed_shapes, sizes_of_axes
from graphs.weights_file import read_tensors
from toolkit.export import choose_weights, export_bundle
from toolkit.import_model import import_model
from toolkit.models.kind import all_models, find_model
from toolkit.shipping.module import export_module
from toolkit.shipping.networks import PACKAGES, SEED, build_network, example_inputs, load_weights, published_preprocess

if TYPE_CHECKING:
    from torch import nn

    from graphs.networks.spec import ModelSpec

_ONNX = ".onnx"
_CHECKPOINTS = (".pth", ".pt", ".safetensors", ".index.json")
_EXPECTED = (
    "an ONNX file, a checkpoint (.pth or .safetensors), timm/NAME, torchvision/NAME, or a name of `toolkit models`"
)


@dataclass(frozen=True)
class Source:
    """The model to ship, and the options that say how its bundle is made.

    model: an ONNX file, a checkpoint of a model of this toolkit, "timm/NAME", "torchvision/NAME", or the name of a
    model. checkpoints: files with its weights. shapes: sizes of inputs by name. values: inputs to make constants.
    kept: further arguments of import_model, for what the bundle keeps, such as real inputs.
    """

    model: str
    checkpoints: tuple[Path, ...] = ()
    shapes: Shapes = field(default_factory=dict)
    values: Mapping[str, Array] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(default_factory=dict)

    def make(self, folder: Path, progress: Progress, note: Callable[[str], None]) -> Bundle:
        """Make the bundle in `folder`; an older bundle there is replaced. `note` is called with lines for the user.

        Raises NotAvailable for a model that there is none of, or a package that is not installed; InvalidInput for
        options that this model does not take; and the errors of import_model, export_bundle and export_module.
        """
        path, (package, _, name) = Path(self.model), self.model.partition("/")
        if package in PACKAGES and name and not path.exists():
            return self._of_package(package, name, folder, progress, note)
        if path.suffix == _ONNX:
            self._refuse(_ONNX + " file", checkpoint=True)
            return import_model(path, folder, dict(self.shapes), progress, dict(self.values), note, **self.kept)
        if self.model in all_models():
            self._refuse("model of this toolkit", sizes=True)
            return _exported(find_model(self.model), self.checkpoints, folder, progress, note)
        if path.name.endswith(_CHECKPOINTS):
            self._refuse("checkpoint", sizes=True)
            files = (path, *self.checkpoints)
            return _exported(_recognized(files), files, folder, progress, note)
        if path.exists():
            raise InvalidInput(f"{path}: expected {_EXPECTED}")
        raise NotAvailable(f"{self.model}: there is no such file; expected {_EXPECTED}")

    def _refuse(self, what: str, checkpoint: bool = False, sizes: bool = False) -> None:
        """Raise InvalidInput for an option that a model of this sort does not take."""
        if checkpoint and self.checkpoints:
            raise InvalidInput(f"{self.model}: the weights of an {what} are in it: give no --checkpoint")
        if sizes and (self.shapes or self.values):
            raise InvalidInput(
                f"{self.model}: the inputs of a {what} have fixed sizes: give neither --input-shape nor --input-value"
            )
        if sizes and any(self.kept.values()):
            raise InvalidInput(f"{self.model}: a {what} has its own samples: give no {_options(self.kept)}")

    def _of_package(
        self, package: str, name: str, folder: Path, progress: Progress, note: Callable[[str], None]
    ) -> Bundle:
        if len(self.checkpoints) > 1:
            raise InvalidInput(f"{self.model}: expected one --checkpoint, got {len(self.checkpoints)}")
        if self.values:
            raise InvalidInput(f"{self.model}: --input-value is for ONNX files")
        if sizes_of_axes(self.shapes):
            raise InvalidInput(f"{self.model}: --input-shape: only axes of ONNX files stay open: give sizes alone")
        progress(f"building {self.model}")
        network = build_network(package, name)
        file = next(iter(self.checkpoints), None)
        inputs = example_inputs(package, name, network, fixed_shapes(self.shapes), file)
        kept, stated = dict(self.kept), published_preprocess(package, name, network, inputs, file)
        if kept.get("preprocess") is None and stated is not None:
            kept["preprocess"] = stated
            note(
                f'{self.model}: images are read as {package} states it, --preprocess "{stated}"; yours takes its place'
            )
        weights = {"origin": "random", "source": f"{self.model}, seed {SEED}"}
        if self.checkpoints:
            (path,) = self.checkpoints
            load_weights(network, path)
            weights = {"origin": "checkpoint", "source": f"{self.model}, {path.name}, {sha256_of(path)[:16]}"}
        else:
            note(
                f"{self.model}: its weights are random, because nothing is downloaded: --checkpoint FILE gives it the "
                "weights of a file that you have"
            )
        return bundle_of_module(network, inputs, folder, progress, note, weights, kept)


def bundle_of_module(
    module: "nn.Module",
    inputs: object,
    folder: Path,
    progress: Progress,
    note: Callable[[str], None],
    weights: Mapping[str, str] | None = None,
    kept: Mapping[str, Any] | None = None,
) -> Bundle:
    """Make the bundle of a torch module in `folder`. weights: their origin and source, see import_model. kept: as in
    Source.

    The ONNX file of the exporter is temporary, and no note or error names it.
    Raises the errors of export_module and import_model.
    """
    title = type(module).__name__
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"{title}.onnx"

        def said(line: str) -> str:
            return line.replace(str(path), title)

        progress(f"exporting {title} to ONNX")
        export_module(module, inputs, path, note)
        try:
            return import_model(
                path,
                folder,
                {},
                lambda step: progress(said(step)),
                None,
                lambda line: note(said(line)),
                weights={"source": f"{title}, a torch module"} | dict(weights or {}),
                **(kept or {}),
            )
        except ToolkitError as error:
            raise type(error)(said(str(error))) from error


def _options(kept: Mapping[str, Any]) -> str:
    return " or ".join(f"--{name.replace('_', '-')}" for name in kept)


def _recognized(files: Sequence[Path]) -> "ModelSpec":
    """Return the model whose checkpoint the files are, with the graphs that they hold.

    Raises InvalidArtifact if it is no model's, or that of several.
    """
    for path in files:
        if not path.is_file():
            raise NotAvailable(f"{path}: no such checkpoint file")
    shapes = {key: tuple(value.shape) for path in files for key, value in read_tensors(path).items()}
    found, where = fitting(shapes), " + ".join(map(str, files))
    if not found:
        raise InvalidArtifact(
            f"{where}: the checkpoint of no model in `toolkit models`; export your network to ONNX, or call "
            "toolkit.ship(module, inputs, folder) from Python, and give weights of a timm or torchvision network by "
            f"`toolkit ship timm/NAME --checkpoint {files[0].name}`"
        )
    if len(found) > 1:
        raise InvalidArtifact(
            f"{where}: fits several models: name one, `toolkit ship {next(iter(found))} --checkpoint {files[0].name}`; "
            f"there is {', '.join(found)}"
        )
    ((name, roles),) = found.items()
    spec = find_model(name)
    return spec if roles == spec.roles else spec.only(*roles)


def _exported(
    spec: "ModelSpec", checkpoints: Sequence[Path], folder: Path, progress: Progress, note: Callable[[str], None]
) -> Bundle:
    try:
        weights = choose_weights(spec, checkpoints)
    except InvalidInput:
        if checkpoints:
            raise
        note(f"{spec.name}: its weights are random, because none ship with this package: give --checkpoint FILE")
        weights = choose_weights(spec, (), SEED)
    return export_bundle(spec, weights, folder, progress=progress)
