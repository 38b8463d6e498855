"""Any torch module as an ONNX file: names from its forward, two exporters, and a comparison with the module itself."""

import copy
import inspect
import io
import logging
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from backends.errors import InvalidArtifact, InvalidInput, one_line
from backends.sandbox import SandboxDied, SandboxProcess
from backends.tensor import Array
from graphs.onnx.apart import run
from toolkit.import_check import difference

_TIMEOUT_S = 600.0
# torch's exporters by the names that notes give them: the newer one reads the program, the older one traces a run.
EXPORTERS = {"torch's exporter": True, "the TorchScript exporter": False}


def export_module(
    module: nn.Module,
    example_inputs: object,
    path: Path,
    note: Callable[[str], None] = lambda line: None,
    exporters: Collection[str] = tuple(EXPORTERS),
) -> None:
    """Write a torch module as an ONNX file, in eval mode, with the sizes of the example inputs.

    example_inputs: a tensor, a tuple of the arguments of `forward`, or a dict of them by name. Arguments may be lists,
    tuples and dicts of tensors; arguments that hold no tensor become constants. An input has the name of its argument
    of `forward`, with a number or a key behind it inside of lists and dicts. An output has the name that the module
    returns it under (a key of a dict, a field of a named tuple or a dataclass), or else "output".
    The module stays as it is. The file is compared with the module on the example inputs. If the newer exporter of
    torch fails, or its file differs, the TorchScript exporter is used, and `note` is called with a line that says so.
    exporters: those of EXPORTERS that may be used.
    Raises InvalidInput if the inputs do not fit `forward`, or if the module fails on them or returns no tensor;
    InvalidArtifact, with both reasons, if no exporter gives a file that agrees with the module.
    """
    arguments = _bound(module, example_inputs)
    inputs = dict(_leaves(arguments, ""))
    if not inputs:
        raise InvalidInput(f"{_title(module)}: expected a tensor among the example inputs, got none")
    traced = _Traced(_on_cpu(module), arguments)
    try:
        with torch.no_grad():
            expected = dict(_leaves(traced.result(*inputs.values()), ""))
    except Exception as error:  # the module is anybody's code
        raise InvalidInput(f"{_title(module)}: it fails on the example inputs: {one_line(error)}") from error
    if not expected:
        raise InvalidInput(f"{_title(module)}: expected outputs that are tensors, got none")
    plain = traced.is_plain(expected)
    target = traced.module if plain else traced
    failed: list[str] = []
    for title, dynamo in ((title, dynamo) for title, dynamo in EXPORTERS.items() if title in exporters):
        try:
            with _quiet(), torch.no_grad():
                torch.onnx.export(
                    target,
                    tuple(inputs.values()),
                    path,
                    input_names=list(inputs),
                    output_names=list(expected),
                    dynamo=dynamo,
                    verbose=False,
                )
            _check(path, inputs, expected)
        except Exception as error:  # noqa: BLE001  exporters raise anything on a module that they do not understand
            failed.append(f"{title} failed: {_short(error)}")
            continue
        if failed:
            note(f"{_title(module)}: exported by {title}; {failed[0]}")
        if not dynamo and (found := _fixed_path(path, traced, inputs)) is not None:
            note(
                f"{_title(module)}: the file follows the branches that the example inputs take, and is wrong for "
                f"others: {found}"
            )
        return
    raise InvalidArtifact(f"{_title(module)}: no exporter gives an ONNX file of it: {'; '.join(failed)}")


class _Traced(nn.Module):
    """A module whose arguments are the tensors among its arguments, and whose result is the tensors of its result."""

    def __init__(self, module: nn.Module, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.module = module.eval()
        self._arguments = dict(arguments)
        self._signature = inspect.signature(module.forward)

    def result(self, *tensors: Tensor) -> object:
        """Return the result of the module for other tensors in the places of the first ones."""
        rebuilt = _rebuilt(self._arguments, iter(tensors))
        given = self._signature.bind_partial()
        given.arguments.update(rebuilt)
        return self.module(*given.args, **given.kwargs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the module's result."""
        return tuple(tensor for _, tensor in _leaves(self.result(*tensors), ""))

    def is_plain(self, outputs: Mapping[str, Tensor]) -> bool:
        """Return whether the module takes its tensors by position and returns a tensor or a tuple of tensors, so that
        it can be exported itself: its layers then keep their names."""
        positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
        by_place = [one.kind for one in self._signature.parameters.values()][: len(self._arguments)]
        names = list(self._signature.parameters)[: len(self._arguments)]
        return (
            all(isinstance(value, Tensor) for value in self._arguments.values())
            and names == list(self._arguments)
            and set(by_place) == {positional}
            and all(name == "output" or name.startswith("output_") for name in outputs)
        )


def _bound(module: nn.Module, given: object) -> dict[str, Any]:
    """Return the arguments of a module's forward by name."""
    signature = inspect.signature(module.forward)
    try:
        if isinstance(given, Mapping):
            bound = signature.bind(**given)
        else:
            bound = signature.bind(*(given if isinstance(given, tuple) else (given,)))
    except TypeError as error:
        raise InvalidInput(
            f"{_title(module)}: the example inputs do not fit forward{signature}: {error}; give a tensor, a tuple of "
            "arguments, or a dict of arguments by name"
        ) from error
    return dict(bound.arguments)


def _leaves(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a value with their names. Values that are no tensors are left out."""
    if isinstance(value, Tensor):
        yield name or "output", value.detach().cpu()
        return
    for key, part in _parts(value):
        label = f"{name}_{key}" if name else f"output_{key}" if isinstance(key, int) else str(key)
        yield from _leaves(part, label)


def _parts(value: object) -> list[tuple[int | str, Any]]:
    """Return the parts of a dict, a dataclass, a named tuple, a tuple or a list, each with its key."""
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def _rebuilt(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a value with each tensor in it replaced by the next one of `tensors`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, dict):
        return {key: _rebuilt(part, tensors) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_rebuilt(part, tensors) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(_rebuilt(part, tensors) for part in value)
    return value


def _on_cpu(module: nn.Module) -> nn.Module:
    """Return the module, or a copy of it if it trains or lies on another device: the caller's stays as it is."""
    elsewhere = any(tensor.device.type != "cpu" for tensor in (*module.parameters(), *module.buffers()))
    return copy.deepcopy(module).cpu().eval() if elsewhere or module.training else module


def _check(path: Path, inputs: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise InvalidArtifact if the outputs of the file at `path` differ from the module's."""
    there = {value.name for value in onnx.load(path, load_external_data=False).graph.input}
    feeds = {name: _array(tensor) for name, tensor in inputs.items() if name in there}
    try:
        with SandboxProcess(Path(os.devnull), _TIMEOUT_S) as child:
            (got,) = child.call(run, path, [feeds])
    except SandboxDied as ended:
        raise InvalidArtifact(f"ONNX Runtime crashes on its file: the process {ended}") from ended
    wanted = {name: _array(tensor) for name, tensor in expected.items()}
    if found := difference([wanted], [got]):
        raise InvalidArtifact(f"its file has other outputs than the module: {found}")


def _fixed_path(path: Path, traced: _Traced, inputs: Mapping[str, Tensor]) -> str | None:
    """Describe how a traced file differs from its module on the negated example inputs, or return None.

    None as well if the module takes no such inputs, for example because they are no valid images or indices.
    """
    others = {name: -tensor if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    try:
        with torch.no_grad():
            expected = dict(_leaves(traced.result(*others.values()), ""))
    except Exception:  # noqa: BLE001  the module is anybody's code, and may refuse them in any way
        return None
    try:
        _check(path, others, expected)
    except InvalidArtifact as error:
        return one_line(error)
    return None


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.numpy()
    return array


def _title(module: nn.Module) -> str:
    return type(module).__name__


def _short(error: BaseException) -> str:
    """Return the first line of the error behind an exporter's error, without its pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no reason given'}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters: their messages are about their own code, or about values that the comparison checks."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
