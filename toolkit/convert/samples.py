"""The calibration samples that pass from slice to slice, each tensor's in a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.tensor import Binding
from toolkit.convert.calibration import Calibrated
from toolkit.convert.slices import Slice
from toolkit.convert.stitch import seam_permutation


class Samples:
    """Samples for inputs of slices that have not run yet; none at all where nothing is calibrated.

    Ranges are seen slice by slice, on what the float32 slices before it made of them: the uncut float32 file
    of a large graph passes what the converter's runtime loads, and one slice after the other gives the same ranges.
    """

    def __init__(self, folder: Path, slices: Sequence[Slice], calibrated: Calibrated | None) -> None:
        self._folder = folder
        self._slices = slices
        self._calibrated = calibrated
        self._written: set[str] = set()
        self._files: dict[str, tuple[str, str | None]] = {}  # tensor -> file and the layout of each sample in it

    def write_inputs(self, bindings: Sequence[Binding]) -> None:
        """The samples of those of the graph's own inputs that a slice is the first to have, in its layout."""
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

    def request(self, i: int, layouts: dict[str, str | None]) -> dict[str, Any] | None:
        """What the quantizer needs to know: where slice i's samples are, and where its outputs go as samples."""
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
        return {"method": self._calibrated.method, "inputs": inputs, "outputs": outputs}

    def forget(self, i: int) -> None:
        """Remove what no slice after i needs."""
        needed = self._needed_after(i)
        for name in [name for name in self._files if name not in needed]:
            (self._folder / self._files.pop(name)[0]).unlink(missing_ok=True)

    def needed_state(self, i: int) -> dict[str, tuple[str, str | None]]:
        """What slices after i need, as `restore` takes it and JSON holds it."""
        return {name: where for name, where in self._files.items() if name in self._needed_after(i)}

    def restore(self, state: dict[str, tuple[str, str | None]]) -> bool:
        """Go on from a state. False, and nothing changes, if a file of it is gone."""
        if not all((self._folder / file).is_file() for file, _ in state.values()):
            return False
        self._files = {name: (file, layout) for name, (file, layout) in state.items()}
        self._written |= self._files.keys()
        return True

    def _needed_after(self, i: int) -> set[str]:
        return {name for piece in self._slices[i + 1 :] for name in piece.inputs}
