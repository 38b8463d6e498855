"""Weights in safetensors, run by the module they belong to: the reference that the other backends are held to."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from backends.errors import InvalidArtifact, one_line
from backends.registry import ARCHITECTURES
from backends.session import Session
from backends.tensor import Array

# torch counts threads for the whole process. Runs of all sessions take turns, so that each has its own count.
_TORCH_THREADS = threading.Lock()


class TorchSession(Session):
    """Builds the module that artifact.architecture names and calls it with the inputs in their recorded order."""

    FORMAT = "torch"

    def _open(self) -> None:
        architecture = self.artifact.architecture
        if architecture is None:
            raise InvalidArtifact(f"{self.path}: the manifest names no architecture")
        build = ARCHITECTURES.load(architecture["name"])
        try:
            module: torch.nn.Module = build(architecture["config"])
            weights = load_file(self.path)
            module.load_state_dict(weights, strict=True)
        except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
            raise InvalidArtifact(f"{self.path}: does not load as {architecture['name']}: {one_line(error)}") from error
        for name, value in module.state_dict().items():
            if value.dtype != weights[name].dtype:
                raise InvalidArtifact(f"{self.path}: {name}: expected {value.dtype}, got {weights[name].dtype}")
        self._module = module.eval()

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        arguments = [_tensor(feeds[binding.stored.name]) for binding in self.artifact.inputs]
        with _threads(self.threads), torch.inference_mode():
            try:
                results = self._module(*arguments)
            except RuntimeError as error:
                raise InvalidArtifact(f"{self.path}: torch failed to run it: {one_line(error)}") from error
        tensors = [results] if isinstance(results, torch.Tensor) else list(results)
        if len(tensors) != len(self.artifact.outputs):
            raise InvalidArtifact(
                f"{self.path}: the manifest says {len(self.artifact.outputs)} outputs, the module gave {len(tensors)}"
            )
        pairs = zip(self.artifact.outputs, tensors, strict=True)
        return {binding.stored.name: tensor.numpy() for binding, tensor in pairs}

    def _close(self) -> None:
        del self._module


def _tensor(array: Array) -> torch.Tensor:
    # torch has no read-only tensors, and warns of undefined behaviour.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Run with `count` threads and leave the process's own setting as it was."""
    with _TORCH_THREADS:
        before = torch.get_num_threads()
        if count == before:
            yield
            return
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)
