"""Recordings (WAV, FLAC, OGG) as samples of a model's audio input. soundfile is imported on first use."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.errors import InvalidInput, one_line
from backends.tensor import Array, TensorSpec
from toolkit.environments import need

SUFFIXES = frozenset({".wav", ".flac", ".ogg"})
_CHANNELS = (1, 2)


@dataclass(frozen=True)
class Recordings:
    """Stretches of recordings, each of the input's length: (file, first sample) for each, in order.

    batch: the number of stretches in one run. channels_last: whether the axis of channels is after that of time.
    """

    spec: TensorSpec
    batch: int
    channels: int
    length: int
    channels_last: bool
    places: tuple[tuple[Path, int], ...]

    @classmethod
    def of(cls, paths: Sequence[Path], specs: Sequence[TensorSpec], rate: int | None) -> "Recordings":
        """Read the headers of all files, and cut the files into stretches. What is left at the end of a file is not
        used; a file shorter than the input is one stretch, with silence after it.

        rate: the expected number of samples a second; None for any, the same in all files. Raises InvalidInput for a
        model with other inputs than one of audio, a file that cannot be read, and another rate; NotAvailable without
        soundfile.
        """
        need("audio")
        import soundfile

        batch, channels, length, channels_last = _audio_input(paths[0].parent, specs)
        places = []
        for path in paths:
            try:
                info = soundfile.info(path)
            except (OSError, RuntimeError) as error:  # soundfile's errors are RuntimeErrors
                raise InvalidInput(f"{path}: not a recording that can be read: {one_line(error)}") from error
            rate = rate or info.samplerate
            if info.samplerate != rate:
                raise InvalidInput(f"{path}: expected {rate} samples a second, got {info.samplerate}: resample it")
            if info.channels not in _CHANNELS:
                raise InvalidInput(f"{path}: expected 1 or 2 channels, got {info.channels}")
            if not info.frames:
                raise InvalidInput(f"{path}: a recording without a single sample")
            places += [(path, i * length) for i in range(max(1, info.frames // length))]
        return cls(specs[0], batch, channels, length, channels_last, tuple(places))

    def stretch(self, path: Path, start: int) -> Array:
        """Return one stretch: (channels, length) float32 in [-1, 1]. Stereo becomes mono as the mean, and mono stereo
        as twice the same. Raises InvalidInput for a damaged file."""
        import soundfile

        try:
            values, _ = soundfile.read(path, self.length, start, dtype="float32", always_2d=True)
        except (OSError, RuntimeError) as error:
            raise InvalidInput(f"{path}: not a recording that can be read: {one_line(error)}") from error
        if self.channels == 1:
            values = values.mean(axis=1, keepdims=True)
        elif values.shape[1] == 1:
            values = np.repeat(values, self.channels, axis=1)
        return np.pad(values.T, ((0, 0), (0, self.length - len(values))))

    def feeds(self, number: int) -> dict[str, Array]:
        """Return the input of a run by its name. Raises InvalidInput as `stretch` does."""
        places = self.places[number * self.batch : (number + 1) * self.batch]
        values = np.stack([self.stretch(*place) for place in places])
        if self.channels_last:
            values = values.transpose(0, 2, 1)
        return {self.spec.name: np.ascontiguousarray(values.reshape(self.spec.shape), self.spec.dtype)}


def _audio_input(folder: Path, specs: Sequence[TensorSpec]) -> tuple[int, int, int, bool]:
    """Return batch, channels, length and whether channels are last, of a model's only input. Raises InvalidInput for
    other inputs: audio is (T,), (N, T), (N, C, T) or (N, T, C) in float32."""
    shape = specs[0].shape
    batch, rest = (1, shape) if len(shape) == 1 else (shape[0] if shape else 1, shape[1:])
    fits = len(specs) == 1 and specs[0].dtype in ("float32", "float16")
    if fits and len(rest) == 1:
        return batch, 1, rest[0], False
    if fits and len(rest) == 2 and min(rest) in _CHANNELS:
        return batch, min(rest), max(rest), rest[1] < rest[0]
    shown = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
    raise InvalidInput(
        f"{folder}: expected one input for recordings, [N, T], [N, C, T] or [N, T, C] in float32 with 1 or 2 channels, "
        f"it has {shown}; give other inputs as arrays by name, in .npz files"
    )
