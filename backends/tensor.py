"""Tensor specs, the conversion between a caller's tensors and a file's stored tensors, and seeded inputs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.errors import InvalidArtifact, InvalidInput

Array = npt.NDArray[Any]

LAYOUTS = (None, "NCHW", "NHWC")
DTYPES = ("float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")
# Arguments of transpose: from NCHW to NHWC, and from NHWC to NCHW.
TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)


@dataclass(frozen=True)
class TensorSpec:
    """Name, static shape, numpy dtype name and layout of one tensor: "NCHW", "NHWC", or None for other tensors.

    Raises InvalidArtifact for an empty name, a size below 1, or another dtype or layout.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str | None

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidArtifact("tensor spec: expected a name, got an empty one")
        if any(size < 1 for size in self.shape):
            raise InvalidArtifact(f"tensor {self.name!r}: expected sizes of at least 1, got {self.shape}")
        if self.dtype not in DTYPES:
            raise InvalidArtifact(f"tensor {self.name!r}: expected a dtype of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.layout not in LAYOUTS:
            raise InvalidArtifact(f"tensor {self.name!r}: expected layout NCHW, NHWC or none, got {self.layout!r}")
        if self.layout is not None and len(self.shape) != 4:
            raise InvalidArtifact(f"tensor {self.name!r}: layout {self.layout} needs 4 dimensions, got {self.shape}")

    def validate(self, array: Array) -> Array:
        """Return the array, or a C-contiguous copy if it is not contiguous.

        Raises InvalidInput for another dtype or shape, and for NaN or infinity.
        """
        if not isinstance(array, np.ndarray):
            raise InvalidInput(f"tensor {self.name!r}: expected a numpy array, got {type(array).__name__}")
        if array.dtype != self.dtype:
            raise InvalidInput(f"tensor {self.name!r}: expected dtype {self.dtype}, got {array.dtype}")
        if array.shape != self.shape:
            raise InvalidInput(f"tensor {self.name!r}: expected shape {self.shape}, got {array.shape}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidInput(f"tensor {self.name!r}: expected finite values, got NaN or infinity")
        return array if array.flags.c_contiguous else array.copy()


@dataclass(frozen=True)
class IntegerValues:
    """The values that an integer or boolean input of a graph can have, read from the operators that use it.

    below: the values are indices from 0 to below - 1; None if nothing limits them. mask: 1 keeps an element and 0 hides
    it, so that zeros alone hide everything. distinct: the number of consecutive values that form one index of a
    scatter, whose indices must differ from each other; 0 where equal values are allowed.
    """

    below: int | None = None
    mask: bool = False
    distinct: int = 0


@dataclass(frozen=True)
class Binding:
    """One input or output of a file: `spec` is the tensor that a caller sees, `stored` the tensor in the file.

    The stored tensor may have another name, another layout, or integers with real = (stored - zero_point) * scale. As
    in TFLite files, int64 may be stored as int32, float16 as float32, and a scalar as an array of shape (1,). Raises
    InvalidArtifact if no such rule joins the two.
    """

    spec: TensorSpec
    stored: TensorSpec
    scale: float | None = None
    zero_point: int | None = None

    def __post_init__(self) -> None:
        name = self.spec.name
        if (self.scale is None) != (self.zero_point is None):
            raise InvalidArtifact(f"tensor {name!r}: expected both scale and zero point, got one of them")
        quantized = self.scale is not None
        if self.scale is not None and not (np.isfinite(self.scale) and self.scale > 0):
            raise InvalidArtifact(f"tensor {name!r}: expected a scale above 0, got {self.scale}")
        if quantized and (self.spec.dtype != "float32" or np.dtype(self.stored.dtype).kind not in "iu"):
            raise InvalidArtifact(
                f"tensor {name!r}: a scale joins float32 and integers, got {self.spec.dtype} and {self.stored.dtype}"
            )
        if not quantized and self.spec.dtype != self.stored.dtype and not self._recast:
            raise InvalidArtifact(
                f"tensor {name!r}: {self.spec.dtype} and {self.stored.dtype} need a scale and a zero point"
            )
        if self.zero_point is not None:
            limits = np.iinfo(self.stored.dtype)
            if not limits.min <= self.zero_point <= limits.max:
                raise InvalidArtifact(f"tensor {name!r}: zero point {self.zero_point} does not fit {self.stored.dtype}")
        if self._permuted(self.spec.shape) != self.stored.shape and not self._one_value:
            raise InvalidArtifact(
                f"tensor {name!r}: {self.spec.layout} {self.spec.shape} does not become "
                f"{self.stored.layout} {self.stored.shape}"
            )

    @classmethod
    def same(cls, spec: TensorSpec) -> "Binding":
        """Return the binding of a tensor that the file stores exactly as the caller sees it."""
        return cls(spec, spec)

    def to_stored(self, array: Array) -> Array:
        """Return the caller's array in the stored layout and dtype: a view where only the layout differs.

        Raises InvalidInput for integers that the stored dtype cannot represent.
        """
        if self._transposed:
            array = array.transpose(TO_NHWC if self.stored.layout == "NHWC" else TO_NCHW)
        if self._one_value:
            array = array.reshape(self.stored.shape)
        if self._recast and array.dtype.kind == "f":
            return array.astype(self.stored.dtype)
        if self._recast:
            limits = np.iinfo(self.stored.dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise InvalidInput(
                    f"tensor {self.spec.name!r}: expected values that the file's {self.stored.dtype} holds, got "
                    f"{array.min()} to {array.max()}"
                )
            return array.astype(self.stored.dtype)
        if self.scale is None or self.zero_point is None:
            return array
        limits = np.iinfo(self.stored.dtype)
        steps = np.multiply(array, np.float32(1 / self.scale))
        np.rint(steps, out=steps)
        steps += np.float32(self.zero_point)
        np.clip(steps, limits.min, limits.max, out=steps)
        return steps.astype(self.stored.dtype)

    def from_stored(self, array: Array) -> Array:
        """Return a stored array in the caller's dtype and layout, C-contiguous."""
        if self._transposed:
            array = array.transpose(TO_NHWC if self.spec.layout == "NHWC" else TO_NCHW)
        if self._one_value:
            array = array.reshape(self.spec.shape)
        if self._recast:
            with np.errstate(over="ignore"):  # values above float16's largest become infinity
                return array.astype(self.spec.dtype)
        if self.scale is not None and self.zero_point is not None:
            array = (array.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return array if array.flags.c_contiguous else array.copy()

    @property
    def _recast(self) -> bool:
        return (self.spec.dtype, self.stored.dtype) in (("int64", "int32"), ("float16", "float32"))

    @property
    def _one_value(self) -> bool:
        return (self.spec.shape, self.stored.shape) == ((), (1,))

    @property
    def _transposed(self) -> bool:
        return self.spec.layout != self.stored.layout

    def _permuted(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not self._transposed:
            return shape
        if self.spec.layout is None or self.stored.layout is None:
            return ()  # only one side has a layout: no conversion
        order = TO_NHWC if self.stored.layout == "NHWC" else TO_NCHW
        return tuple(shape[axis] for axis in order)


def filler(dtype: np.dtype[Any]) -> int:
    """Return the number in the rows of a file of fixed sizes for which nothing was found: -1 for signed integers, else
    0."""
    return -1 if dtype.kind == "i" else 0


def probe(specs: tuple[TensorSpec, ...], seed: int = 0) -> dict[str, Array]:
    """Return seeded inputs for a comparison: 4-D float inputs uniform in [0, 1), all other inputs random 0 and 1.

    In such noise no two axes are alike, so that a transposed input changes the outputs.
    """
    generator = np.random.default_rng(seed)
    return {
        spec.name: np.asarray(
            generator.random(spec.shape, dtype=np.float32)
            if len(spec.shape) == 4 and np.dtype(spec.dtype).kind == "f"
            else generator.integers(0, 2, spec.shape),
            spec.dtype,
        )
        for spec in specs
    }
