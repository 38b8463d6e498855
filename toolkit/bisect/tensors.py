"""A tensor of the reference, and the one of a candidate that holds it: its layout, its dtype, its scale."""

from dataclasses import dataclass

import numpy as np

from backends.tensor import Array
from toolkit.convert.correspondence import Order, fitting_orders


@dataclass(frozen=True)
class Stored:
    """A tensor as a candidate's file has it; real = (stored - zero_point) * scale where it has a scale."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True)
class Match:
    """A tensor of the reference, by its name there, and where the candidate holds it, its axes in `order`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: Stored
    order: Order

    def to_stored(self, values: Array) -> Array:
        """The reference's values as the candidate takes them. Raises nothing: what does not fit is cut off."""
        if self.order is not None:
            values = values.transpose(self.order)
        values = values.reshape(self.stored.shape)
        dtype = np.dtype(self.stored.dtype)
        if self.stored.scale is not None:
            limits = np.iinfo(dtype)
            steps = np.rint(values / np.float32(self.stored.scale)) + self.stored.zero_point
            values = np.clip(steps, limits.min, limits.max)
        with np.errstate(over="ignore"):  # beyond float16: infinite, as in the file
            return np.ascontiguousarray(values.astype(dtype, copy=False))

    def from_stored(self, values: Array) -> Array:
        """The candidate's values in the reference's layout, float32 where they are quantized."""
        if self.stored.scale is not None:
            values = (values.astype(np.float32) - self.stored.zero_point) * np.float32(self.stored.scale)
        if self.order is not None:
            values = values.transpose(np.argsort(self.order))
        return values.reshape(self.shape)


def unfit(shape: tuple[int, ...], dtype: str, stored: Stored, order: Order) -> str | None:
    """Why a tensor of the candidate cannot hold one of the reference; None where it can."""
    if order not in fitting_orders(shape, stored.shape):
        turned = "" if order is None else f" with its axes as {list(order)}"
        return f"the file's {stored.name!r} has shape {list(stored.shape)}, expected {list(shape)}{turned}"
    kinds = {np.dtype(dtype).kind, np.dtype(stored.dtype).kind}
    if stored.scale is None and kinds != {"f"} and not kinds <= {"i", "u"} and kinds != {"b"}:
        return f"the file's {stored.name!r} is {stored.dtype}, expected {dtype}"
    return None
