"""Samples, the inputs on which files are compared, and the synthetic ones for inputs of known and unknown range."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from backends.tensor import Array, IntegerValues, TensorSpec

# marked: a real image with a message hidden in it. real: an image without one. synthetic: noise, constants, extremes.
FAMILIES = ("marked", "real", "synthetic")


@dataclass(frozen=True)
class Sample:
    """The inputs of a run by name (`feeds`), their family, and the true answer if it is known.

    truth: the right answer as integers, such as the bits of a hidden message or the class of an image; their meaning
    depends on the kind of model. None if it is not known.
    """

    name: str
    family: str
    feeds: Mapping[str, Array]
    truth: tuple[int, ...] | None


NOISE_SAMPLES = 16

_Fill = Callable[[TensorSpec, np.random.Generator], Array]


def unit_samples(specs: tuple[TensorSpec, ...], noise: int = NOISE_SAMPLES) -> Iterator[Sample]:
    """Yield synthetic samples for inputs in [0, 1], such as images and bits.

    They are `noise` samples of uniform noise, constants of 0, 1 and 0.5, stripes of one pixel, one bright value, and
    noise up to 1e-6. Integer and boolean inputs get 0 and 1.
    """
    yield from _noise(specs, "uniform noise", _uniform, noise)
    yield from _constants(specs, (0.0, 1.0, 0.5))
    yield _sample("stripes of one pixel", specs, _stripes)
    yield _sample("one bright value", specs, _one_bright)
    yield _sample("noise up to 1e-6", specs, lambda spec, rng: _uniform(spec, rng) * np.float32(1e-6))


def signed_samples(
    specs: tuple[TensorSpec, ...], noise: int = NOISE_SAMPLES, integers: Mapping[str, IntegerValues] | None = None
) -> Iterator[Sample]:
    """Yield synthetic samples for inputs of unknown range.

    They are `noise` samples each of uniform noise in [0, 1) and of normal noise, normal noise ten times as large,
    constants of 0, 1 and -1, one bright value, and noise up to 1e-6. Integer and boolean inputs named in `integers` get
    the values that are possible there: indices of the whole range, masks that keep all elements or the first ones of
    each row, indices that differ. All others get 0 and 1, which are valid indices nearly everywhere.
    """
    for sample in _signed(specs, noise):
        given = {spec.name: values for spec in specs if (values := (integers or {}).get(spec.name)) is not None}
        rng = np.random.default_rng(zlib.crc32(sample.name.encode()))
        made = {
            spec.name: possible_integers(spec, given[spec.name], sample.name, rng)
            for spec in specs
            if spec.name in given and np.dtype(spec.dtype).kind != "f"
        }
        yield replace(sample, feeds={**sample.feeds, **made})


def _signed(specs: tuple[TensorSpec, ...], noise: int) -> Iterator[Sample]:
    yield from _noise(specs, "uniform noise", _uniform, noise)
    yield from _noise(specs, "normal noise", _normal, noise)
    yield _sample("normal noise x10", specs, lambda spec, rng: _normal(spec, rng) * np.float32(10))
    yield from _constants(specs, (0.0, 1.0, -1.0))
    yield _sample("one bright value", specs, _one_bright)
    yield _sample("noise up to 1e-6", specs, lambda spec, rng: _uniform(spec, rng) * np.float32(1e-6))


def possible_integers(spec: TensorSpec, values: IntegerValues, name: str, rng: np.random.Generator) -> Array:
    """Return values that an integer or boolean input can have, in the shape and dtype of `spec`.

    name: of the sample. The constants "all 0", "all 1" and "all -1" are the first, second and last index of a table,
    unless the indices must differ. Of a mask, samples of uniform noise keep the first elements of each row, at least
    one; all other samples keep everything.
    """
    shape, below = spec.shape, values.below or 2
    if values.mask:
        length = shape[-1] if shape else 1
        kept = rng.integers(1, length + 1, (*shape[:-1], 1)) if name.startswith("uniform noise") else length
        return np.broadcast_to(np.arange(length) < kept, shape or (1,)).reshape(shape).astype(spec.dtype)
    if values.distinct:
        return _distinct(shape, values.distinct, below, rng).astype(spec.dtype)
    if name in (constants := {"all 0": 0, "all 1": min(1, below - 1), "all -1": below - 1}):
        return np.full(shape, constants[name], spec.dtype)
    return np.asarray(rng.integers(0, below, shape), spec.dtype)


def _distinct(shape: tuple[int, ...], width: int, below: int, rng: np.random.Generator) -> Array:
    """Return random indices of `width` equal values each, which differ in the whole array or else, if there are more
    than `below` of them, in each row."""
    count = int(np.prod(shape)) // width
    row = shape[-1] if shape and width == 1 else count
    if count <= below:
        indices = rng.permutation(below)[:count]
    elif row <= below:
        indices = np.concatenate([rng.permutation(below)[:row] for _ in range(count // row)])
    else:
        indices = rng.integers(0, below, count)
    return np.repeat(indices, width).reshape(shape)


def moved(samples: Iterable[Sample], to: Callable[[str, Array], Array]) -> Iterator[Sample]:
    """Yield the samples with each input replaced by `to(name, values)`."""
    for sample in samples:
        yield replace(sample, feeds={name: to(name, values) for name, values in sample.feeds.items()})


def _noise(specs: tuple[TensorSpec, ...], name: str, fill: _Fill, count: int) -> Iterator[Sample]:
    for seed in range(count):
        yield _sample(f"{name} {seed}", specs, fill, seed)


def _constants(specs: tuple[TensorSpec, ...], values: tuple[float, ...]) -> Iterator[Sample]:
    for value in values:
        yield _sample(f"all {value:g}", specs, partial(_full, value))


def _sample(name: str, specs: tuple[TensorSpec, ...], fill: _Fill, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    return Sample(name, "synthetic", {spec.name: _as(spec, fill(spec, rng), rng) for spec in specs}, None)


def _as(spec: TensorSpec, values: Array, rng: np.random.Generator) -> Array:
    if np.dtype(spec.dtype).kind == "f":
        return np.asarray(values, spec.dtype)
    if np.unique(values).size > 1:  # noise
        return np.asarray(rng.integers(0, 2, spec.shape), spec.dtype)
    return np.asarray(np.clip(np.rint(values), 0, 1), spec.dtype)


def _full(value: float, spec: TensorSpec, rng: np.random.Generator) -> Array:
    return np.full(spec.shape, value, np.float32)


def _uniform(spec: TensorSpec, rng: np.random.Generator) -> Array:
    return rng.random(spec.shape, dtype=np.float32)


def _normal(spec: TensorSpec, rng: np.random.Generator) -> Array:
    return rng.standard_normal(spec.shape, dtype=np.float32)


def _stripes(spec: TensorSpec, rng: np.random.Generator) -> Array:
    return np.broadcast_to(np.arange(spec.shape[-1]) % 2 if spec.shape else 0, spec.shape)


def _one_bright(spec: TensorSpec, rng: np.random.Generator) -> Array:
    values = np.zeros(spec.shape, np.float32)
    values.flat[values.size // 2] = 1
    return values
