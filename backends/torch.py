"""The PyTorch backends: weights in safetensors, run by their module, eagerly or through torch.compile.

Eager PyTorch is the reference with which the other backends are compared.
"""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from backends.errors import InvalidArtifact, one_line
from backends.registry import ARCHITECTURES, BackendSpec
from backends.session import RuntimeFacts, Session
from backends.tensor import Array

if TYPE_CHECKING:
    import torch

# The number of threads is a setting of the whole process. A lock keeps runs of two sessions apart, so that each run has
# the number of its session.
_TORCH_THREADS = threading.Lock()


class TorchSession(Session):
    """The module that artifact.architecture names, with its weights; called with the inputs in their recorded order."""

    def _open(self) -> None:
        # Imported late: listing the backends must not wait for torch.
        from safetensors import SafetensorError
        from safetensors.torch import load_file

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
        self._input_names = [binding.stored.name for binding in self.artifact.inputs]
        self._output_names = [binding.stored.name for binding in self.artifact.outputs]

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        import torch

        arguments = [_tensor(feeds[name]) for name in self._input_names]
        with _TORCH_THREADS:
            before = torch.get_num_threads()
            if before != self.threads:  # set_num_threads restarts the pool even for the same number
                torch.set_num_threads(self.threads)
            try:
                with torch.inference_mode():
                    results = self._module(*arguments)
            except RuntimeError as error:
                raise InvalidArtifact(f"{self.path}: torch failed to run it: {one_line(error)}") from error
            finally:
                if before != self.threads:
                    torch.set_num_threads(before)
        tensors = (results,) if isinstance(results, torch.Tensor) else results
        if len(tensors) != len(self._output_names):
            raise InvalidArtifact(
                f"{self.path}: the manifest says {len(self._output_names)} outputs, the module gave {len(tensors)}"
            )
        return {name: tensor.numpy() for name, tensor in zip(self._output_names, tensors, strict=True)}

    def describe(self) -> RuntimeFacts:
        import torch

        return {"cpu_capability": torch.backends.cpu.get_cpu_capability()}

    def _close(self) -> None:
        del self._module


def _tensor(array: Array) -> "torch.Tensor":
    import torch

    # torch has no read-only tensors: it warns of undefined behaviour for read-only arrays.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


class CompiledSession(TorchSession):
    """The module through torch.compile with default options. The first run compiles it."""

    def _open(self) -> None:
        import torch

        super()._open()
        self._module = torch.compile(self._module)  # type: ignore[assignment]  # it is called like the module

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            return super()._run(feeds)
        except InvalidArtifact:
            raise
        except Exception as error:  # errors of the compiler and of the C++ compiler that it calls
            raise InvalidArtifact(f"{self.path}: torch.compile failed: {one_line(error)}") from error

    def describe(self) -> RuntimeFacts:
        return {**super().describe(), "compiler": "inductor"}


_REQUIRES = ("torch", "safetensors")

BACKEND = BackendSpec(
    name="torch",
    title="PyTorch",
    formats=("torch",),
    package="torch",
    session=TorchSession,
    requires=_REQUIRES,
    rank=2,
)
COMPILED = BackendSpec(
    name="torch.compile",
    title="PyTorch compiled",
    formats=("torch",),
    package="torch",
    session=CompiledSession,
    requires=_REQUIRES,
    rank=3,
    compared=False,
)
