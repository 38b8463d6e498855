"""Reads and writes records: the outputs of a bundle's files for some samples, on one machine, with one version of each
runtime.

A record is one .npz file: "meta" is JSON, the other arrays are inputs and outputs. Photographs are kept as 8-bit
inputs, so that neither the image decoder nor the embedder that marks them can change the inputs; synthetic inputs are
made again and compared with their hashes.
"""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from backends.atomic import replacing
from backends.bundle import WeightsOrigin
from backends.errors import InvalidInput
from backends.machine import Machine
from backends.session import RuntimeFacts
from backends.tensor import Array

FORMAT_VERSION = 1
_META = "meta"


@dataclass(frozen=True)
class KeptSample:
    """One sample of a record.

    sha256: of its inputs' bytes, in the order of their names. truth: as in Sample; its key in a record file is
    "message". kept: whether its inputs are in the record; otherwise they are made again by its name.
    """

    name: str
    family: str
    sha256: str
    truth: tuple[int, ...] | None
    kept: bool


@dataclass(frozen=True)
class KeptOutput:
    """One output over all samples of its role. shape and dtype are those of one sample's output.

    values: (samples, n), the whole output, or a seeded choice of n values of a large output. sha256: one hash of the
    whole output for each sample.
    """

    shape: tuple[int, ...]
    dtype: str
    values: Array
    sha256: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether `values` has every value of the output."""
        return bool(self.values.shape[1] == np.prod(self.shape))


@dataclass(frozen=True)
class KeptFile:
    """One file of a bundle: its identity, the environment that it ran in (in_use of toolkit.bench.together), and its
    outputs by name."""

    file: str
    role: str
    format: str
    sha256: str
    in_use: RuntimeFacts
    outputs: dict[str, KeptOutput]

    @property
    def threads(self) -> int:
        """The number of threads that the file ran with."""
        return int(str(self.in_use["threads"]))


@dataclass(frozen=True)
class Record:
    """The content of a record file.

    samples: by role. inputs: by (role, sample, input name), only of samples that are kept.
    """

    model: str
    kind: str
    weights: WeightsOrigin
    machine: Machine
    samples: dict[str, tuple[KeptSample, ...]]
    inputs: dict[tuple[str, str, str], Array]
    files: tuple[KeptFile, ...]

    @property
    def key(self) -> str:
        """The part of a record's file name that names the version of each runtime."""
        versions = sorted({f"{file.in_use['runtime']}-{file.in_use['version']}" for file in self.files})
        return "_".join(version.partition("+")[0] for version in versions)


def write_record(record: Record, path: Path) -> Path:
    """Write a record to `path`, or to MODEL-KEY.npz if `path` is a folder. Returns the path of the file."""
    if path.is_dir():
        path = path / f"{record.model}-{record.key}.npz"
    arrays: dict[str, Array] = {}
    for number, value in enumerate(record.inputs.values()):
        arrays[f"input-{number}"] = _packed(value)
    for i, file in enumerate(record.files):
        for j, output in enumerate(file.outputs.values()):
            arrays[f"output-{i}-{j}"] = output.values
    meta = {
        "format_version": FORMAT_VERSION,
        "model": record.model,
        "kind": record.kind,
        "weights": asdict(record.weights),
        "machine": record.machine.to_json(),
        "samples": {role: [_sample_json(sample) for sample in samples] for role, samples in record.samples.items()},
        "inputs": [[*key, value.dtype.name] for key, value in record.inputs.items()],
        "files": [
            {
                **{key: getattr(file, key) for key in ("file", "role", "format", "sha256", "in_use")},
                "outputs": {
                    name: {"shape": output.shape, "dtype": output.dtype, "sha256": output.sha256}
                    for name, output in file.outputs.items()
                },
            }
            for file in record.files
        ],
    }
    arrays[_META] = np.frombuffer(json.dumps(meta, allow_nan=False).encode(), np.uint8)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    return path


def _sample_json(sample: KeptSample) -> dict[str, Any]:
    return {
        "name": sample.name,
        "family": sample.family,
        "sha256": sample.sha256,
        "message": sample.truth,
        "kept": sample.kept,
    }


def _truth(message: list[int] | None) -> tuple[int, ...] | None:
    return None if message is None else tuple(message)


def read_record(path: Path) -> Record:
    """Read a record. Raises InvalidInput if the file cannot be read or is not a valid record."""
    try:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("no .npz file")  # numpy's own message would advise to unpickle the file
        with np.load(path, allow_pickle=False) as arrays:
            return _read({name: arrays[name] for name in arrays.files})
    except OSError as error:
        raise InvalidInput(f"record {path}: cannot read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"record {path}: not one that `toolkit compare --record` wrote: {error!r}") from error


def _read(arrays: dict[str, Array]) -> Record:
    meta = json.loads(arrays[_META].tobytes())
    if meta["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format_version {meta['format_version']}, expected {FORMAT_VERSION}; record it again")
    files = []
    for i, file in enumerate(meta["files"]):
        outputs = {
            name: KeptOutput(tuple(one["shape"]), one["dtype"], arrays[f"output-{i}-{j}"], tuple(one["sha256"]))
            for j, (name, one) in enumerate(file.pop("outputs").items())
        }
        files.append(KeptFile(**file, outputs=outputs))
    samples = {
        role: tuple(
            KeptSample(one["name"], one["family"], one["sha256"], _truth(one["message"]), one["kept"]) for one in found
        )
        for role, found in meta["samples"].items()
    }
    inputs = {
        (role, sample, name): _unpacked(arrays[f"input-{number}"], dtype)
        for number, (role, sample, name, dtype) in enumerate(meta["inputs"])
    }
    return Record(
        model=meta["model"],
        kind=meta["kind"],
        weights=msgspec.convert(meta["weights"], WeightsOrigin),
        machine=msgspec.convert(meta["machine"], Machine),
        samples=samples,
        inputs=inputs,
        files=tuple(files),
    )


def in_eight_bits(value: Array) -> Array:
    """Round a float32 image batch (4 axes, values in [0, 1]) to whole 255ths; return any other input as it is."""
    if not _is_image(value):
        return value
    return _unpacked(_packed(value), "float32")


def _is_image(value: Array) -> bool:
    return value.dtype == np.float32 and value.ndim == 4 and bool(((value >= 0) & (value <= 1)).all())


def _packed(value: Array) -> Array:
    return np.rint(value * 255).astype(np.uint8) if _is_image(value) else value


def _unpacked(value: Array, dtype: str) -> Array:
    if value.dtype == np.uint8 and dtype == "float32":
        return np.asarray(value / np.float32(255), np.float32)
    return value
