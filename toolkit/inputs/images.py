"""Images as the input of an imported model: the preprocessing that `--preprocess` describes, and its result."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from backends.artifact import Artifact
from backends.errors import InvalidInput
from backends.tensor import Array, TensorSpec
from toolkit.images.open import ImageSource, name_of, open_photo
from toolkit.images.preprocess import Interpolation, grey_of, to_channels

_CHANNELS = (1, 3)
EXAMPLE = "mean=0.485 0.456 0.406,std=0.229 0.224 0.225,order=BGR"


@dataclass(frozen=True)
class Preprocess:
    """How images and recordings become the values that a model reads. Every field has a default that fits most models.

    size: (height, width) in pixels, which must be those of the input; None to take the input's. scale: the value of
    white; None for 1, or 255 where the input is of integers. mean, std: subtracted from the scaled values, and then
    divided by; one number, or one for each channel in the order of the input; () for 0 and 1. layout: the place of the
    channels; None to take the axis of 1 or 3. order: of the colour channels. grey: make the image grey first, as is
    always done for an input of one channel. rate: of recordings, in samples a second; None for any. interpolation: of
    the resizing. crop: the share of the image, along its shorter side, whose middle is the input, and the aspect is
    kept; None for the whole image, resized without regard to its aspect.
    """

    size: tuple[int, int] | None = None
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["NCHW", "NHWC"] | None = None
    order: Literal["RGB", "BGR"] = "RGB"
    grey: bool = False
    rate: int | None = None
    interpolation: Interpolation = "bilinear"
    crop: float | None = None

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, *_CHANNELS):
                raise InvalidInput(f"--preprocess: {name}: expected 1 or 3 numbers, got {len(values)}")
        if not all(np.isfinite([*self.mean, *self.std, self.scale or 1])):
            raise InvalidInput("--preprocess: mean, std and scale: expected finite numbers")
        if 0 in self.std or self.scale == 0:
            raise InvalidInput("--preprocess: std and scale: expected numbers other than 0")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise InvalidInput(f"--preprocess: crop: expected a share above 0 and up to 1, got {self.crop:g}")
        if min(self.size or (1, 1)) < 1 or (self.rate or 1) < 1:
            raise InvalidInput("--preprocess: size and rate: expected numbers of at least 1")

    @classmethod
    def parse(cls, text: str) -> "Preprocess":
        """Read a text such as "size=224x320,mean=0.5,std=0.5,layout=NHWC,order=BGR,grey".

        Parts are separated by commas, numbers of one part by spaces. Raises InvalidInput for any other text.
        """
        found: dict[str, object] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, _, value = (side.strip() for side in part.partition("="))
            if key in found:
                raise InvalidInput(f"--preprocess: {key!r} is given twice in {text!r}")
            found[key] = _value(key, value, text)
        return cls(**found)  # type: ignore[arg-type]  # each value has the type of its field, see _value

    def __str__(self) -> str:
        """Return the text that `parse` reads, without defaults."""
        parts = []
        for one in fields(self):
            value = getattr(self, one.name)
            if value == one.default:
                continue
            if isinstance(value, tuple):
                value = ("x" if one.name == "size" else " ").join(f"{number:.12g}" for number in value)
            parts.append(one.name if value is True else f"{one.name}={value}")
        return ",".join(parts)


_EXPECTED = {
    "size": "pixels, as in 224, or height x width, as in 224x320",
    "scale": "a number",
    "mean": "numbers with spaces between them",
    "std": "numbers with spaces between them",
    "layout": "NCHW or NHWC",
    "order": "RGB or BGR",
    "grey": "no value",
    "rate": "samples a second, as in 16000",
    "interpolation": ", ".join(get_args(Interpolation)),
    "crop": "a share, as in 0.875",
}


def _value(key: str, value: str, text: str) -> object:
    """Return the value of one field of Preprocess. Raises InvalidInput for an unknown field or another value."""
    if key not in _EXPECTED:
        raise InvalidInput(
            f"--preprocess: expected {', '.join(_EXPECTED)}, got {key!r} in {text!r}; for example {EXAMPLE!r}"
        )
    try:
        return _READ[key](value)
    except (ValueError, KeyError) as error:
        raise InvalidInput(f"--preprocess: {key}: expected {_EXPECTED[key]}, got {value!r}") from error


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split() or [text])


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        return {name.upper(): name for name in names}[text.upper()]

    return read


def _flag(text: str) -> bool:
    if text.lower() not in ("", "true"):
        raise ValueError(text)
    return True


_READ: dict[str, Callable[[str], object]] = {
    "size": _size,
    "scale": float,
    "mean": _numbers,
    "std": _numbers,
    "layout": _one_of("NCHW", "NHWC"),
    "order": _one_of("RGB", "BGR"),
    "grey": _flag,
    "interpolation": _one_of(*get_args(Interpolation)),
    "crop": float,
    "rate": int,
}


@dataclass(frozen=True)
class ImageInput:
    """An input that takes images. channels_first: whether the axis of the channels is before those of the pixels."""

    spec: TensorSpec
    batch: int
    channels: int
    height: int
    width: int
    channels_first: bool
    preprocess: Preprocess

    def tensor(self, source: ImageSource) -> Array:
        """Return one image as the input reads it: (1, C, H, W) or (1, H, W, C), in the dtype of the input.

        The image is resized as `to_channels` does. Raises InvalidInput as `open_photo` does.
        """
        wanted = self.preprocess
        values = to_channels(open_photo(source), self.height, self.width, wanted.interpolation, wanted.crop)
        if len(values) == 3 and (wanted.grey or self.channels == 1):
            values = grey_of(values)
        if len(values) < self.channels:
            values = np.repeat(values, self.channels, axis=0)
        if wanted.order == "BGR":
            values = values[::-1]
        integers = np.dtype(self.spec.dtype).kind != "f"
        scale = wanted.scale if wanted.scale is not None else 255.0 if integers else 1.0
        if scale != 1:
            values = values * np.float32(scale)
        if wanted.mean:
            values = values - np.array(wanted.mean, np.float32)[:, None, None]
        if wanted.std:
            values = values / np.array(wanted.std, np.float32)[:, None, None]
        if integers:
            limits = np.iinfo(self.spec.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        if not self.channels_first:
            values = values.transpose(1, 2, 0)
        return np.ascontiguousarray(values[None], self.spec.dtype)

    def feeds(self, sources: Sequence[ImageSource]) -> dict[str, Array]:
        """Return the input by its name for a batch of images. Raises InvalidInput as `tensor` does."""
        return {self.spec.name: np.concatenate([self.tensor(source) for source in sources]).reshape(self.spec.shape)}


def image_input(where: str, specs: Sequence[TensorSpec], preprocess: Preprocess | None = None) -> ImageInput:
    """Return the only input of a model that takes images.

    where: the file or folder, for error messages. Raises InvalidInput for a model with other inputs, and for
    preprocessing that does not fit the input.
    """
    wanted = preprocess or Preprocess()
    shape, dtype = specs[0].shape, np.dtype(specs[0].dtype)
    pixels = shape[1:] if len(shape) == 4 else shape
    layouts = [] if len(pixels) != 3 else [
        layout for layout, axis in (("NCHW", 0), ("NHWC", 2)) if pixels[axis] in _CHANNELS
    ]  # fmt: skip
    if len(specs) != 1 or not layouts or dtype.kind == "b":
        shown = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
        raise InvalidInput(
            f"{where}: expected one input for images, [N, C, H, W] or [N, H, W, C] with 1 or 3 channels, it has {shown}"
            "; give other inputs as arrays by name, in .npz files"
        )
    layout = wanted.layout or layouts[0]
    what = f"{where}: --preprocess: input {specs[0].name!r} is {list(shape)}"
    if layout not in layouts:
        raise InvalidInput(f"{what}: its axis of 1 or 3 channels is that of {layouts[0]}, got layout={layout}")
    channels, height, width = pixels if layout == "NCHW" else (pixels[2], *pixels[:2])
    if wanted.size not in (None, (height, width)):
        raise InvalidInput(f"{what}: expected size={height}x{width}, got size={'x'.join(map(str, wanted.size or ()))}")
    for name, values in (("mean", wanted.mean), ("std", wanted.std)):
        if len(values) not in (0, 1, channels):
            raise InvalidInput(f"{what}: expected 1 number for {name}, got {len(values)}")
    batch = shape[0] if len(shape) == 4 else 1
    return ImageInput(specs[0], batch, channels, height, width, layout == "NCHW", wanted)


def image_feeds(
    graph: Artifact, images: Iterable[ImageSource], preprocess: Preprocess | None = None
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield (name of the last image, input) for each batch of the graph's size; an incomplete batch is left out.

    Raises InvalidInput as `image_input` does, and for a file that is not an image.
    """
    place = image_input(graph.file, [binding.spec for binding in graph.inputs], preprocess)
    batch: list[ImageSource] = []
    for number, image in enumerate(images, 1):
        batch.append(image)
        if len(batch) == place.batch:
            yield name_of(image, number), place.feeds(batch)
            batch.clear()
