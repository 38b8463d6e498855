"""Seeded inputs to compare two files by. Without torch, which a conversion does not need."""

import numpy as np

from backends.tensor import Array, TensorSpec


def probe(specs: tuple[TensorSpec, ...], seed: int = 0) -> dict[str, Array]:
    """Seeded inputs for a comparison: images and other maps uniform in [0, 1], everything else 0 and 1.

    No two axes are alike in such noise, so that a transposed input cannot go unseen.
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
