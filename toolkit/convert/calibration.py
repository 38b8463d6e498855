"""Calibration inputs, on which a static quantizer observes the ranges of activations. They are the real inputs of an
imported model, or the kind of model makes them from the images of a folder or from generated images."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.tensor import Array, Binding
from graphs.tflite.stitch import seam_permutation
from toolkit.convert.rules import Feeds
from toolkit.convert.slices import Slice
from toolkit.convert.worker.ranges import METHODS
from toolkit.images.open import ImageSource, image_files
from toolkit.images.preprocess import preprocess
from toolkit.inputs.kept import advisory, real_inputs

GENERATED = "generated"

# More images do not change the ranges, and each costs a float32 run. The inputs of all runs lie on the disk meanwhile.
MOST_IMAGES = MOST_RUNS = 128
MOST_BYTES = 1 << 30
GENERATED_IMAGES = 64
_GENERATED_PX = 256  # for a graph without an image input: the graphs that run before it resize the images
_SEED = 0


@dataclass(frozen=True)
class Calibration:
    """The source of calibration inputs: a folder of images; without one generated images or, with `of_inputs`, the real
    inputs that the bundle's manifest names. method: one of METHODS in worker/ranges.py.

    Raises InvalidInput for an unknown method.
    """

    folder: Path | None
    method: str = "min-max"
    of_inputs: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidInput(f"calibration method: expected one of {', '.join(METHODS)}, got {self.method!r}")

    @classmethod
    def of(cls, source: str | None, method: str) -> "Calibration":
        """Make a Calibration from a folder's path, "generated", or None for the bundle's real inputs.

        Raises InvalidInput for an unknown method.
        """
        return cls(None if source in (None, GENERATED) else Path(source), method, of_inputs=source is None)

    @property
    def source(self) -> str:
        """The source in words."""
        return "the real inputs" if self.of_inputs else str(self.folder or "a generator")


@dataclass(frozen=True)
class Calibrated:
    """Calibration inputs by name, each (runs, *shape) and mapped from a file, and the calibration method.

    All inputs have the same number of runs.
    """

    inputs: Mapping[str, Array]
    method: str

    @property
    def runs(self) -> int:
        """The number of runs."""
        return len(next(iter(self.inputs.values())))

    def feeds(self, run: int) -> dict[str, Array]:
        """Return a graph's inputs by name for one run."""
        return {name: values[run] for name, values in self.inputs.items()}


def read_calibration(
    calibration: Calibration, feeds: Feeds, bundle: Bundle, graph: Artifact, make_file: Callable[[], BinaryIO]
) -> Calibrated:
    """Make a graph's inputs, and write them to files run after run, so that memory does not grow.

    feeds: the kind of model's function that makes inputs from images. make_file: returns a new file to write to.
    Of a folder with more than MOST_IMAGES images a seeded choice is used, and real inputs are taken evenly. There are
    at most MOST_RUNS runs, and at most MOST_BYTES of inputs (but one run at least).
    Raises InvalidInput if the folder is missing or has no images, if an image or an input cannot be read, or if the
    images are too few for one run; NotAvailable if the bundle has no graphs that must run before this one.
    """
    shapes = {binding.spec.name: binding.spec.shape for binding in graph.inputs}
    dtypes = {binding.spec.name: np.dtype(binding.spec.dtype) for binding in graph.inputs}
    run_bytes = sum(int(np.prod(shape)) * dtypes[name].itemsize for name, shape in shapes.items())
    most = max(1, min(MOST_RUNS, MOST_BYTES // run_bytes))
    files = {name: make_file() for name in shapes}
    runs = 0
    if calibration.of_inputs:
        given_inputs = _real_feeds(bundle, graph, most)
    else:
        given_inputs = (given for _, given in feeds(bundle, graph.role, _images(calibration, graph)))
    for given in islice(given_inputs, most):
        for name, file in files.items():
            file.write(np.ascontiguousarray(given[name], dtypes[name]).tobytes())
        runs += 1
    if not runs:
        raise InvalidInput(f"{graph.file}: the calibration images are too few for one run of {shapes}")
    for file in files.values():
        file.flush()
    return Calibrated(
        {name: np.memmap(files[name], dtypes[name], "r", shape=(runs, *shape)) for name, shape in shapes.items()},
        calibration.method,
    )


def _real_feeds(bundle: Bundle, graph: Artifact, most: int) -> Iterator[Mapping[str, Array]]:
    real = real_inputs(bundle, [binding.spec for binding in graph.inputs])
    if real is None:
        raise InvalidInput(
            f"{bundle.folder}: no real inputs to calibrate with: {advisory(bundle)}, or images with --calibration"
        )
    return (sample.feeds for sample in real.spread(most))


def _images(calibration: Calibration, graph: Artifact) -> Iterator[ImageSource]:
    """Yield the images of a folder, or generated images of the size of the graph's image input."""
    if calibration.folder is None:
        shapes = [binding.spec.shape for binding in graph.inputs if binding.spec.layout == "NCHW"]
        # An imported graph may have the channels last: a size of 3 is not that of pixels.
        sizes = [shape[-2] if shape[-1] in (1, 3) else shape[-1] for shape in shapes]
        yield from (image.transpose(1, 2, 0) for image in generated((sizes or [_GENERATED_PX])[0], GENERATED_IMAGES))
        return
    paths = image_files(calibration.folder, "calibration")
    chosen = np.arange(len(paths))
    if len(paths) > MOST_IMAGES:
        chosen = np.sort(np.random.default_rng(_SEED).choice(len(paths), MOST_IMAGES, replace=False))
    yield from (paths[int(i)] for i in chosen)


def read_images(folder: Path, size_px: int, file: BinaryIO) -> Array:
    """Preprocess every image of a folder and write them to `file`. Returns them mapped: (N, 3, size_px, size_px)
    float32.

    Raises InvalidInput as `image_files` and `preprocess` do.
    """
    paths = image_files(folder)
    return _written((preprocess(path, size_px)[0] for path in paths), len(paths), size_px, file)


def _written(images: Iterable[Array], count: int, size_px: int, file: BinaryIO) -> Array:
    mapped: Array = np.memmap(file, np.float32, "w+", shape=(count, 3, size_px, size_px))
    for i, image in enumerate(images):
        mapped[i] = image
    return mapped


def generated(size_px: int, count: int, seed: int = _SEED) -> Iterator[Array]:
    """Yield `count` images with the statistics of photographs: (3, size_px, size_px) float32 in [0, 1], the same for
    the same seed.

    Each image has a surface with amplitudes that fall as 1/frequency, as in natural scenes, and correlated colours;
    edges of flat discs and bars; sometimes fine noise; an exposure from dim to blown out. The images have no watermark
    and no scene: ranges observed on photographs like those of the application are better, and cost the same.
    """
    random = np.random.default_rng(seed)
    for _ in range(count):
        grey = _surface(size_px, random)
        image = np.stack([0.8 * grey + 0.2 * _surface(size_px, random) for _ in range(3)])
        for _ in range(int(random.integers(0, 6))):
            inside = _shape(size_px, random)
            image = np.where(inside, image * 0.2 + random.normal(0, 1.5, (3, 1, 1)), image)
        image += random.normal(0, random.choice([0.0, 0.02, 0.1]), image.shape)
        image = random.uniform(0.2, 0.8) + image * random.uniform(0.05, 0.35)
        yield np.clip(image, 0, 1).astype(np.float32)


def _surface(size_px: int, random: np.random.Generator) -> Array:
    """Return noise with amplitudes that fall as 1/frequency: (size_px, size_px), mean 0 and standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((size_px, size_px))) / frequency
    surface = np.fft.irfft2(spectrum, (size_px, size_px))
    normal: Array = surface / surface.std()
    return normal


def _shape(size_px: int, random: np.random.Generator) -> Array:
    """Return a mask that is true inside a random disc or slanted bar: (size_px, size_px) bool."""
    y, x = np.indices((size_px, size_px)) / size_px - random.random((2, 1, 1))
    if random.random() < 0.5:
        disc: Array = np.hypot(x, y) < random.uniform(0.05, 0.4)
        return disc
    angle = random.uniform(0, np.pi)
    bar: Array = np.abs(x * np.cos(angle) + y * np.sin(angle)) < random.uniform(0.01, 0.15)
    return bar


class SliceSamples:
    """Files with the calibration samples of the inputs of slices that have not been calibrated yet; without
    calibration there are no files.

    Each slice is calibrated on the outputs of the float32 slices before it. The ranges are those of the uncut graph,
    whose float32 file may be too large for the converter's runtime.
    """

    def __init__(self, folder: Path, slices: Sequence[Slice], calibrated: Calibrated | None) -> None:
        self._folder = folder
        self._slices = slices
        self._calibrated = calibrated
        self._written: set[str] = set()
        self._files: dict[str, tuple[str, str | None]] = {}  # tensor -> file and the layout of each sample in it

    def write_inputs(self, bindings: Sequence[Binding]) -> None:
        """Write the samples of the graph's own inputs that are among `bindings`, in the stored layout, unless they are
        written already."""
        if self._calibrated is None:
            return
        for binding in bindings:
            name, values = binding.spec.name, self._calibrated.inputs.get(binding.spec.name)
            if values is None or name in self._written:
                continue
            file = f"samples-input-{len(self._written)}.npy"
            shape = (len(values), *binding.stored.shape)
            stored = np.lib.format.open_memmap(self._folder / file, "w+", np.dtype(binding.stored.dtype), shape)
            for i, sample in enumerate(values):
                stored[i] = binding.to_stored(sample)
            self._files[name] = (file, binding.stored.layout)
            self._written.add(name)

    def request(
        self, i: int, layouts: dict[str, str | None], stated: Mapping[str, tuple[float, float]]
    ) -> dict[str, Any] | None:
        """Return the quantizer's request for slice i: the files of its input samples, and the files to write its
        outputs to, as samples of later slices. None without calibration.

        stated: the ranges of tensors of the file that need not be observed.
        """
        if self._calibrated is None:
            return None
        inputs = {}
        for name in self._slices[i].inputs:
            file, layout = self._files[name]
            inputs[name] = {"file": str(self._folder / file), "order": seam_permutation(layout, layouts[name])}
        needed = self._needed_after(i)
        outputs = {}
        for k, name in enumerate(self._slices[i].outputs):
            if name in needed:
                self._files[name] = (f"samples-{i}-{k}.npy", layouts[name])
                outputs[name] = str(self._folder / self._files[name][0])
        return {"method": self._calibrated.method, "inputs": inputs, "outputs": outputs, "stated": dict(stated)}

    def forget(self, i: int) -> None:
        """Remove the sample files that no slice after slice i needs."""
        needed = self._needed_after(i)
        for name in [name for name in self._files if name not in needed]:
            (self._folder / self._files.pop(name)[0]).unlink(missing_ok=True)

    def needed_state(self, i: int) -> dict[str, tuple[str, str | None]]:
        """Return the files and layouts that slices after slice i need, as JSON values for `restore`."""
        return {name: where for name, where in self._files.items() if name in self._needed_after(i)}

    def restore(self, state: dict[str, tuple[str, str | None]]) -> bool:
        """Continue from a state of `needed_state`. Returns False, and changes nothing, if a file is missing."""
        if not all((self._folder / file).is_file() for file, _ in state.values()):
            return False
        self._files = {name: (file, layout) for name, (file, layout) in state.items()}
        self._written |= self._files.keys()
        return True

    def _needed_after(self, i: int) -> set[str]:
        return {name for piece in self._slices[i + 1 :] for name in piece.inputs}
