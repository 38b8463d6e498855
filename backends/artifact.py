"""Artifacts: a file that a backend can run, with its tensors, hash, precision and origin."""

import re
from dataclasses import dataclass, fields
from typing import Any

from backends.errors import InvalidArtifact
from backends.manifest import Fields
from backends.precision import RECIPES
from backends.recipe import ROUTES
from backends.tensor import Binding, TensorSpec

# Key of an ONNX file's metadata: the size of each open axis, by its name as JSON, wherever one size is needed.
SIZES = "seal_toolkit.sizes"
# In the place of an open axis's name: its size follows from those of other axes; or it is the number of results that
# the graph finds in the values of a run, such as the boxes of a NonMaxSuppression.
ANY_SIZE, FOUND = "?", "*"
FORMATS = ("onnx", "tflite", "torch")

# A plain name: no folder, no leading dot, no character that a shell or another system reads differently.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_ROLE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Artifact:
    """A runnable file of a bundle.

    role: its part in the model; the model's spec lists all roles.
    file, external_files: plain names inside the bundle's folder. sha256 and bytes cover file, then the external files
    in order. parent: the file that it was made from, or None. tools: version by tool.
    route (TFLite only): how it was converted, one of recipe.ROUTES.
    architecture (torch only): the name of the module and its config, {"name": ..., "config": {...}}.
    modules (ONNX only): the path of the source module by node; None where the source states no modules.
    axes (ONNX only): the inputs and outputs with open axes, by the names that callers see: for each axis its name, or
    None for a fixed size. Axes of one name have one size in a run; the size of an axis "?" follows from the others, and
    an axis "*" has as many entries as the graph finds, 0 among them. The specs have the sizes at which the file is
    compared, and for an axis "*" the largest number. None where all sizes are fixed.
    Raises InvalidArtifact for a field outside these rules.
    """

    file: str
    role: str
    format: str
    precision: str
    route: str | None
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    sha256: str
    bytes: int
    external_files: tuple[str, ...]
    parent: str | None
    tools: dict[str, str]
    architecture: dict[str, Any] | None
    modules: dict[str, str] | None = None
    axes: dict[str, tuple[str | None, ...]] | None = None

    def __post_init__(self) -> None:
        for name in self.files:
            if not _FILE_NAME.fullmatch(name) or name.endswith("."):
                raise InvalidArtifact(f"artifact: expected a plain file name without a folder, got {name!r}")
        if len(set(self.files)) != len(self.files):
            raise InvalidArtifact(f"{self.file}: a file is listed twice among {', '.join(self.files)}")
        if not _ROLE.fullmatch(self.role):
            raise InvalidArtifact(f"{self.file}: expected a role like 'detector' or 'encode_image', got {self.role!r}")
        for field, allowed in (("format", FORMATS), ("precision", tuple(RECIPES))):
            if getattr(self, field) not in allowed:
                raise InvalidArtifact(
                    f"{self.file}: expected {field} to be one of {', '.join(allowed)}, got {getattr(self, field)!r}"
                )
        if (self.route is not None) != (self.format == "tflite") or self.route not in (None, *ROUTES):
            raise InvalidArtifact(
                f"{self.file}: expected a route of {', '.join(ROUTES)} for a tflite file and none "
                f"for others, got {self.route!r}"
            )
        if (self.architecture is not None) != (self.format == "torch"):
            raise InvalidArtifact(f"{self.file}: expected an architecture for a torch file, and for no other")
        if self.architecture is not None:
            architecture = Fields(self.architecture, f"{self.file}: architecture", ("name", "config"))
            architecture.text("name"), architecture.mapping("config")
        if self.modules is not None and self.format != "onnx":
            raise InvalidArtifact(f"{self.file}: only ONNX files list modules of nodes, got a {self.format} file")
        if self.axes is not None:
            self._check_axes(self.axes)
        if not _SHA256.fullmatch(self.sha256):
            raise InvalidArtifact(f"{self.file}: expected sha256 as 64 lowercase hex digits, got {self.sha256!r}")
        if self.bytes < 1:
            raise InvalidArtifact(f"{self.file}: expected at least 1 byte, got {self.bytes}")
        for kind, bindings in (("input", self.inputs), ("output", self.outputs)):
            for side in ("spec", "stored"):
                names = [getattr(binding, side).name for binding in bindings]
                if not names or len(set(names)) != len(names):
                    raise InvalidArtifact(f"{self.file}: expected distinct {kind} names, got {names}")

    def _check_axes(self, axes: dict[str, tuple[str | None, ...]]) -> None:
        if self.format != "onnx":
            raise InvalidArtifact(f"{self.file}: only ONNX files have open axes, got a {self.format} file")
        specs = {binding.spec.name: binding.spec for binding in (*self.inputs, *self.outputs)}
        for name, of_tensor in axes.items():
            rank = len(specs[name].shape) if name in specs else None
            if rank != len(of_tensor) or not any(of_tensor):
                raise InvalidArtifact(
                    f"{self.file}: axes of {name!r}: expected those of an input or output, got {list(of_tensor)}"
                )

    def open_axes(self, name: str) -> tuple[str | None, ...]:
        """Return the entry of `axes` for an input or output, by the name that callers see; empty if all are fixed."""
        return () if self.axes is None else self.axes.get(name, ())

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the file and its external data, in the order in which sha256 covers them."""
        return (self.file, *self.external_files)

    def to_json(self) -> dict[str, Any]:
        """Return the artifact as JSON values for the manifest, one key for each field."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["external_files"] = list(self.external_files)
        values["inputs"] = [_binding_to_json(binding) for binding in self.inputs]
        values["outputs"] = [_binding_to_json(binding) for binding in self.outputs]
        for name in ("modules", "axes"):
            if values[name] is None:
                del values[name]
        return values

    @classmethod
    def from_json(cls, value: object, where: str) -> "Artifact":
        """Return the artifact that to_json wrote. Raises InvalidArtifact, which names `where`, for any other value, and
        for a precision that has no files of its own."""
        if isinstance(value, dict):
            value = {"modules": None, "axes": None, **value}  # where there is none, manifests lack these keys
        data = Fields(value, where, tuple(field.name for field in fields(cls)))
        tools, modules = data.mapping("tools"), data.optional_mapping("modules")
        for name, version in tools.items():
            if not isinstance(version, str):
                raise InvalidArtifact(f"{where}.tools.{name}: expected a version as text, got {version!r}")
        for name, module in (modules or {}).items():
            if not isinstance(module, str):
                raise InvalidArtifact(f"{where}.modules.{name}: expected the path of a module, got {module!r}")
        axes = data.optional_mapping("axes")
        precision = data.text("precision")
        if precision in RECIPES and RECIPES[precision].base is not None:
            raise InvalidArtifact(f"{where}.precision: {RECIPES[precision].without_file}")
        return cls(
            file=data.text("file"),
            role=data.text("role"),
            format=data.text("format"),
            precision=precision,
            route=data.optional_text("route"),
            inputs=tuple(_binding_from_json(v, f"{where}.inputs[{i}]") for i, v in enumerate(data.items("inputs"))),
            outputs=tuple(_binding_from_json(v, f"{where}.outputs[{i}]") for i, v in enumerate(data.items("outputs"))),
            sha256=data.text("sha256"),
            bytes=data.integer("bytes"),
            external_files=data.texts("external_files"),
            parent=data.optional_text("parent"),
            tools=tools,
            architecture=data.optional_mapping("architecture"),
            modules=modules,
            axes=None if axes is None else {name: _axes_from_json(axes, name, f"{where}.axes") for name in axes},
        )


def _axes_from_json(axes: dict[str, Any], name: str, where: str) -> tuple[str | None, ...]:
    found = Fields(axes, where, tuple(axes)).items(name)
    for axis in found:
        if axis is not None and (not isinstance(axis, str) or not axis):
            raise InvalidArtifact(f"{where}.{name}: expected names of axes and null, got {axis!r}")
    return tuple(found)


def _binding_to_json(binding: Binding) -> dict[str, Any]:
    return {
        "spec": _spec_to_json(binding.spec),
        "stored": _spec_to_json(binding.stored),
        "scale": binding.scale,
        "zero_point": binding.zero_point,
    }


def _spec_to_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype, "layout": spec.layout}


def _binding_from_json(value: object, where: str) -> Binding:
    data = Fields(value, where, ("spec", "stored", "scale", "zero_point"))
    return Binding(
        _spec_from_json(data["spec"], f"{where}.spec"),
        _spec_from_json(data["stored"], f"{where}.stored"),
        None if data["scale"] is None else data.number("scale"),
        None if data["zero_point"] is None else data.integer("zero_point"),
    )


def _spec_from_json(value: object, where: str) -> TensorSpec:
    data = Fields(value, where, ("name", "shape", "dtype", "layout"))
    return TensorSpec(data.text("name"), data.integers("shape"), data.text("dtype"), data.optional_text("layout"))
