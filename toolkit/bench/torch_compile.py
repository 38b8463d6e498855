"""torch.compile behind the interface of every other runtime, so that all are timed alike."""

from collections.abc import Mapping

import torch

from backends.errors import InvalidArtifact, one_line
from backends.tensor import Array
from backends.torch import TorchSession


class CompiledSession(TorchSession):
    """The module through torch.compile with its defaults. The first run compiles it."""

    def _open(self) -> None:
        super()._open()
        self._module = torch.compile(self._module)  # type: ignore[assignment]  # it is called like the module

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            return super()._run(feeds)
        except InvalidArtifact:
            raise
        except Exception as error:  # the compiler's own, and those of the C++ compiler that it calls
            raise InvalidArtifact(f"{self.path}: torch.compile failed: {one_line(error)}") from error
