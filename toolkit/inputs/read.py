"""Reads the inputs that a user gives, a file or a folder, as samples of the family "real"."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from backends.errors import InvalidInput
from backends.tensor import Array, IntegerValues, TensorSpec
from toolkit.images.open import files_below, image_files, image_suffixes
from toolkit.inputs.arrays import ArrayFiles
from toolkit.inputs.images import ImageInput, Preprocess, image_input
from toolkit.inputs.recordings import SUFFIXES, Recordings
from toolkit.metrics.samples import Sample

_ARRAYS = frozenset({".npz", ".npy"})


@dataclass(frozen=True)
class RealInputs:
    """The samples of a file or folder. One sample is in memory at a time, beside the arrays of one file.

    path: as it was given. count: the number of samples, at least 1.
    """

    path: Path
    count: int
    _name: Callable[[int], str]
    _feeds: Callable[[int], dict[str, Array]]
    _labels: Callable[[int], tuple[int, ...] | None] = lambda number: None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return map(self.sample, range(self.count))

    def sample(self, number: int) -> Sample:
        """Return a sample, numbered from 0. Raises InvalidInput for values that an input cannot take."""
        return Sample(self._name(number), "real", self._feeds(number), self._labels(number))

    def spread(self, most: int) -> Iterator[Sample]:
        """Yield at most `most` samples, spread evenly from the first to the last."""
        chosen = np.linspace(0, self.count - 1, min(most, self.count)).round().astype(int)
        return map(self.sample, chosen.tolist())


def read_inputs(
    path: Path,
    specs: Sequence[TensorSpec],
    preprocess: Preprocess | None = None,
    integers: Mapping[str, IntegerValues] | None = None,
) -> RealInputs:
    """Return the samples in a file or folder for the inputs `specs` of a model.

    An .npz file has an array for each input, by its name; of other arrays `labels` or `label` is read, whose values are
    the truth of the samples. An array of the input's
    shape is one sample. Else its first axis counts the samples, or the rows of all batches. An .npy file serves a model
    with one input. Image files serve a model whose only input takes images, recordings one whose only input takes
    audio; `preprocess` is for these. integers: the possible values of integer inputs by name, if they are known. Of a
    folder and its subfolders all files of one such sort are read, in the order of files_below; files with other
    suffixes are left out. Incomplete batches are left out.
    Raises InvalidInput, naming the file and the input, if there is no such file, or nothing in it that fits the inputs.
    Array values are checked when a sample is read.
    """
    sort, chosen = _files(path)
    if sort == "arrays":
        arrays = ArrayFiles.of(chosen, specs, integers)
        return RealInputs(path, len(arrays.places), arrays.name, arrays.feeds, arrays.labels)
    if sort == "recordings":
        recordings = Recordings.of(chosen, specs, (preprocess or Preprocess()).rate)
        count = _batches(path, len(recordings.places), recordings.batch, "stretches of recordings")
        return RealInputs(path, count, partial(_name_of_recording, path, recordings), recordings.feeds)
    return image_inputs(path, image_files(path) if path.is_dir() else chosen, specs, preprocess)


def image_inputs(
    path: Path, images: Sequence[Path], specs: Sequence[TensorSpec], preprocess: Preprocess | None = None
) -> RealInputs:
    """Return the samples that image files are for a model whose only input takes images. path: where they are.

    Raises InvalidInput as `image_input` does, and for fewer images than a batch of the model.
    """
    place = image_input(str(path), specs, preprocess)
    count = _batches(path, len(images), place.batch, "images")
    return RealInputs(
        path, count, partial(_name_of_image, path, images, place.batch), partial(_image_feeds, images, place)
    )


def _files(path: Path) -> tuple[str, list[Path]]:
    """Return the sort of the files at a path ("arrays", "images" or "recordings"), and the files in their order."""
    if not path.exists():
        raise InvalidInput(f"{path}: no such file or folder of inputs")
    files = [path / name for name in files_below(path)] if path.is_dir() else [path]
    suffixes = {"arrays": _ARRAYS, "images": image_suffixes(), "recordings": SUFFIXES}
    found = {sort: [file for file in files if file.suffix.lower() in known] for sort, known in suffixes.items()}
    found = {sort: chosen for sort, chosen in found.items() if chosen}
    if not found:
        raise InvalidInput(
            f"{path}: no inputs: expected .npz or .npy files, images, or recordings ({', '.join(sorted(SUFFIXES))}), "
            "in the folder or its subfolders"
        )
    if len(found) > 1:
        counted = " and ".join(f"{len(chosen)} files of {sort}" for sort, chosen in found.items())
        raise InvalidInput(f"{path}: expected inputs of one sort, got {counted}")
    return next(iter(found.items()))


def _batches(path: Path, rows: int, batch: int, what: str) -> int:
    if rows < batch:
        raise InvalidInput(f"{path}: expected at least {batch} {what}, the model's batch, got {rows}")
    return rows // batch


def _inside(folder: Path, file: Path) -> str:
    """Return the path of a file from the folder, or its name if it was given alone."""
    return file.name if folder not in file.parents else file.relative_to(folder).as_posix()


def _name_of_image(folder: Path, images: Sequence[Path], batch: int, number: int) -> str:
    first, last = (_inside(folder, images[at]) for at in (number * batch, (number + 1) * batch - 1))
    return first if batch == 1 else f"{first} to {last}"


def _image_feeds(images: Sequence[Path], place: ImageInput, number: int) -> dict[str, Array]:
    return place.feeds([images[i] for i in range(number * place.batch, (number + 1) * place.batch)])


def _name_of_recording(folder: Path, recordings: Recordings, number: int) -> str:
    path, start = recordings.places[number * recordings.batch]
    name = _inside(folder, path)
    return f"{name} from {start}" if start else name
