"""Arrays of .npz and .npy files as samples of a model's inputs. Headers are checked before any array is read."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from backends.errors import InvalidInput, one_line
from backends.tensor import Array, IntegerValues, TensorSpec

# Names of an array of labels, the right answers, where no input has the name.
_LABELS = ("labels", "label")
_BROKEN = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: npt.DTypeLike


@dataclass
class ArrayFiles:
    """Files of arrays, and for each sample the file and the number within it. The arrays of one file are in memory."""

    specs: Sequence[TensorSpec]
    integers: Mapping[str, IntegerValues]
    places: list[tuple[Path, int]]
    _open: tuple[Path, dict[str, Array]] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, paths: Sequence[Path], specs: Sequence[TensorSpec], integers: Mapping[str, IntegerValues] | None = None
    ) -> "ArrayFiles":
        """Read the headers of all files, and return their samples.

        integers: the possible values of integer inputs by name, to which the values of arrays are held when they are
        read. Raises InvalidInput, naming the file and the input, for a file that cannot be read, an input without an
        array, an array of another shape or dtype, inputs with different numbers of samples, and labels that are no
        integers or not one or more for each row of the inputs.
        """
        return cls(specs, integers or {}, [(path, i) for path in paths for i in range(_count(path, specs))])

    def name(self, number: int) -> str:
        """Return the name of a sample: that of its file, and its number where the file has several."""
        path, index = self.places[number]
        alone = all(other != path for other, i in self.places[max(0, number - 1) : number + 2] if i != index)
        return path.name if alone else f"{path.name} [{index}]"

    def feeds(self, number: int) -> dict[str, Array]:
        """Return the inputs of a sample by name. Raises InvalidInput for values that an input cannot take."""
        path, index = self.places[number]
        held = self._arrays(path)
        return {
            spec.name: _checked(path, spec, self.integers.get(spec.name), _sample(spec, held[spec.name], index))
            for spec in self.specs
        }

    def labels(self, number: int) -> tuple[int, ...] | None:
        """Return the labels of a sample, the right answers in the order of its rows; None if its file has none.

        They are the array `labels` or `label` of the file, with one label for each row of the inputs, or several, as
        for the steps of a sequence.
        """
        path, index = self.places[number]
        held = self._arrays(path)
        name = _name_of_labels(held, self.specs)
        if name is None:
            return None
        spec, labels = self.specs[0], held[name]
        given = held[spec.name]
        if given.shape != spec.shape:
            rows = 1 if given.ndim > len(spec.shape) else spec.shape[0]
            labels = labels[index * rows : (index + 1) * rows]
        return tuple(labels.ravel().tolist())

    def _arrays(self, path: Path) -> dict[str, Array]:
        if self._open is None or self._open[0] != path:
            self._open = path, _read(path, self.specs)
        return self._open[1]


def _name_of_labels(names: Iterable[str], specs: Sequence[TensorSpec]) -> str | None:
    """Return the name of the labels among the names of a file's arrays; None without any."""
    there, inputs = set(names), {spec.name for spec in specs}
    return next((name for name in _LABELS if name in there and name not in inputs), None)


def _count(path: Path, specs: Sequence[TensorSpec]) -> int:
    headers = _headers(path, specs)
    there = ", ".join(headers) or "nothing"
    counts = {}
    for spec in specs:
        if spec.name not in headers:
            raise InvalidInput(f"{path}: expected an array {spec.name!r} for the input of that name, it has {there}")
        header = headers[spec.name]
        counts[spec.name] = _samples_in(header.shape, spec.shape)
        if counts[spec.name] < 1 or not _is_convertible(np.dtype(header.dtype), np.dtype(spec.dtype)):
            shape = ["samples", *spec.shape] if spec.shape[:1] != (1,) else ["samples", *spec.shape[1:]]
            raise InvalidInput(
                f"{path}: input {spec.name!r}: expected {spec.dtype} [{', '.join(map(str, shape))}] or "
                f"{list(spec.shape)}, got {np.dtype(header.dtype)} {list(header.shape)}"
            )
    if (name := _name_of_labels(headers, specs)) is not None:
        given, labels = headers[specs[0].name].shape, headers[name]
        rows = None if given == specs[0].shape else given[0]
        if np.dtype(labels.dtype).kind not in "iu" or (rows is not None and labels.shape[:1] != (rows,)):
            wanted = "integers" if rows is None else f"integers for each of {rows} rows of the inputs"
            raise InvalidInput(
                f"{path}: {name}: expected {wanted}, got {np.dtype(labels.dtype)} {list(labels.shape)}; give the array "
                "another name if it does not hold the right answers"
            )
    (first, count), *others = counts.items()
    for name, other in others:
        if other != count:
            raise InvalidInput(
                f"{path}: expected as many samples of each input, got {count} of {first!r} and {other} of {name!r}"
            )
    return count


def _samples_in(shape: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    """Return the number of samples of shape `wanted` in an array; 0 if the array has another shape.

    The first axis of an array counts the samples, or the rows of all batches; rows of an incomplete batch are left out.
    """
    if shape == wanted:
        return 1
    if shape[1:] == wanted and len(shape) == len(wanted) + 1:
        return shape[0]
    return shape[0] // wanted[0] if wanted and len(shape) == len(wanted) and shape[1:] == wanted[1:] else 0


def _sample(spec: TensorSpec, array: Array, index: int) -> Array:
    if array.shape == spec.shape:
        return array
    if array.ndim > len(spec.shape):
        return np.asarray(array[index])
    rows = spec.shape[0]
    return array[index * rows : (index + 1) * rows]


def _is_convertible(given: npt.DTypeLike, wanted: npt.DTypeLike) -> bool:
    """Return whether values are converted: between floats, and between integers and booleans. Whether each value fits
    is checked when it is read. Integers are not converted to floats, because images would need to be scaled."""
    kinds = [np.dtype(one).kind for one in (given, wanted)]
    return kinds == ["f", "f"] or all(kind in "iub" for kind in kinds)


def _checked(path: Path, spec: TensorSpec, possible: IntegerValues | None, values: Array) -> Array:
    wanted = np.dtype(spec.dtype)
    if wanted.kind != "f":
        low, high = (0, 1) if wanted.kind == "b" else (int(np.iinfo(wanted).min), int(np.iinfo(wanted).max))
        what = f"values of {spec.dtype}"
        if possible is not None and possible.below is not None:
            # ONNX counts negative indices from the end.
            low, high, what = max(low, -possible.below), possible.below - 1, "indices of the table that reads them"
        if int(values.min()) < low or int(values.max()) > high:
            raise InvalidInput(
                f"{path}: input {spec.name!r}: expected {what}, {low} to {high}, got {values.min()} to {values.max()}"
            )
    try:
        with np.errstate(over="ignore"):
            return spec.validate(np.asarray(values, wanted))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def _headers(path: Path, specs: Sequence[TensorSpec]) -> dict[str, _Header]:
    """Return shape and dtype of each array of a file by name. An .npy file's array has the name of the only input."""
    if path.suffix.lower() == ".npy" and len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise InvalidInput(f"{path}: expected an .npz with an array for each of the inputs {names}, got an .npy")
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return {specs[0].name: _header(file)}
        with zipfile.ZipFile(path) as archive:
            found = {}
            for name in archive.namelist():
                with archive.open(name) as member:
                    found[name.removesuffix(".npy")] = _header(member)
            return found
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _header(file: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return _Header(shape, dtype)


def _read(path: Path, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    try:
        held = np.load(path, allow_pickle=False)
        if isinstance(held, np.ndarray):
            return {specs[0].name: held}
        with held:
            labels = _name_of_labels(held.files, specs)
            names = [spec.name for spec in specs]
            return {name: held[name] for name in (names if labels is None else [*names, labels])}
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InvalidInput:
    return InvalidInput(f"{path}: not a file of arrays that can be read: {one_line(error)}")
