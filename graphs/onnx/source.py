"""What a bundle's manifest keeps of the file that it was imported from, so that the file can be read again."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from backends.bundle import Bundle, sha256_of
from backends.errors import InvalidArtifact
from backends.manifest import Fields
from backends.tensor import Array
from graphs.onnx.foreign import Values, constants_of, drop_unread_inputs, external_files, read_foreign, weights_beside
from graphs.onnx.sizes import FixedShapes

SOURCE = "source"
# Key of the model in a bundle's manifest: the inputs that became constants.
VALUES = "input_values"


def values_json(constants: Values) -> dict[str, Any]:
    """Return constants as JSON: {name: {"shape", "values"}}; values are texts, which can be "inf" and "nan" too."""
    return {
        name: {"shape": list(array.shape), "values": [str(float(value)) for value in array.ravel()]}
        for name, array in constants.items()
    }


def given_values(bundle: Bundle) -> dict[str, Array]:
    """Return the inputs that became constants when a bundle was imported, by name, as float64.

    Raises InvalidArtifact for a manifest that states them in another form than values_json.
    """
    where, found = f"{bundle.folder}: model.{VALUES}", {}
    for name, value in Fields({VALUES: bundle.model.get(VALUES, {})}, where, (VALUES,)).mapping(VALUES).items():
        data = Fields(value, f"{where}.{name}", ("shape", "values"))
        try:
            found[name] = np.array([float(text) for text in data.texts("values")]).reshape(data.integers("shape"))
        except ValueError as error:
            raise InvalidArtifact(f"{where}.{name}: expected numbers of that shape: {error}") from error
    return found


def source_json(source: Path, folder: Path, shapes: FixedShapes, cut_at: Sequence[str]) -> dict[str, Any]:
    """Return the place of a file from a bundle's folder, and the arguments of `read_foreign` by which it was read.

    It is {"file": path, "sizes": {input: sizes}, "cut_at": names of tensors}, without empty parts.
    """
    found = {
        "file": os.path.relpath(source.absolute(), folder.absolute()),
        "sizes": {name: list(sizes) for name, sizes in shapes.items()},
        "cut_at": list(cut_at),
    }
    return {key: value for key, value in found.items() if value}


def cut_of(bundle: Bundle) -> tuple[str, ...]:
    """Return the names of the tensors at which an imported file was cut; none for a file that was not."""
    source = bundle.model.get(SOURCE)
    return tuple(source.get("cut_at", ())) if isinstance(source, Mapping) else ()


def is_source(bundle: Bundle, path: Path) -> bool:
    """Whether the file at `path`, as `weights_beside` gives it, is the one that a bundle was imported from.

    Raises the errors of onnx for a file that is no readable ONNX model.
    """
    return bool(sha256_of(path, *external_files(path)) == bundle.weights.sha256)


def is_there(bundle: Bundle) -> bool:
    """Whether the file that a bundle was imported from lies where it lay, and is the same."""
    source = bundle.model.get(SOURCE)
    if not isinstance(source, Mapping):
        return False
    try:
        with weights_beside(bundle.folder / source["file"]) as path:
            return path.is_file() and is_source(bundle, path)
    except Exception:  # noqa: BLE001  anything may lie there now, of which onnx raises errors without a base class
        return False


def read_again(bundle: Bundle) -> ir.Model:
    """Read the file that a bundle was imported from, where it lay then, as `read_source`. Run `is_there` before."""
    named = bundle.folder / bundle.model[SOURCE]["file"]
    with weights_beside(named) as path:
        model = read_source(bundle, path)
        if path.resolve() != named.resolve():  # a copy, which is there for this block
            model = ir.external_data.load_to_model(model)
    return model


def read_source(bundle: Bundle, path: Path) -> ir.Model:
    """Read the source file of a bundle again, in the way in which the import read it, before any pass.

    Its inputs and outputs are those of the bundle's graph, which has no input that nothing reads and no output that
    nothing computes.
    """
    source = bundle.model.get(SOURCE, {})
    graph = next(a for a in bundle.artifacts if (a.format, a.parent) == ("onnx", None))
    sizes = {name: tuple(shape) for name, shape in source.get("sizes", {}).items()}
    sizes |= {binding.spec.name: binding.spec.shape for binding in graph.inputs}
    model = read_foreign(path, sizes, constants_of(path, given_values(bundle)), cut_of(bundle))
    names = {binding.spec.name for binding in graph.outputs}
    kept = [value for value in dict.fromkeys(model.graph.outputs) if value.name in names]
    model.graph.outputs.clear()
    model.graph.outputs.extend(kept)
    drop_unread_inputs(model)
    return model
