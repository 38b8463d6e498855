"""The result of a conversion: for each file that was asked for, whether it was made, why not, and what is over its
tolerance."""

import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidArtifact, ToolkitError, one_line
from backends.sandbox import SandboxDied
from toolkit.convert.resume import NO_ROOM
from toolkit.convert.weights import NothingToChange, Shares

Runtime = Literal["ort", "tflite"]
# The runtimes that files are made for, and the suffix of their files.
SUFFIXES: dict[Runtime, str] = {"ort": "onnx", "tflite": "tflite"}


@dataclass(frozen=True)
class FileOutcome:
    """The result of one file that a conversion was asked for.

    file: its name in the bundle. why: the reason if it was not made, else None. over: one sentence for each number that
    is over its tolerance; empty for a file that agrees with the float32 graph, or that is not judged at conversion.
    weights, operations: the share of the bytes of weights, and of the multiply-adds, in each number type, the largest
    first; empty for a file that was not made.
    mostly_float: the operators that keep most of the weights in float32; empty where the precision holds for half of
    them or more.
    in_float: the operators whose weights stay in float32 because LiteRT does not load them as the precision has it, or
    because they divide by numbers that integers may round to 0.
    way: how the graph was lowered where the usual way failed, such as "without the pass scale_elu", else None.
    impossible: whether it was not made because its precision changes no weight of the graph, and the user did not ask
    for this precision by name: that is no failure.
    """

    file: str
    role: str
    precision: str
    runtime: Runtime
    why: str | None = None
    over: tuple[str, ...] = ()
    in_float: tuple[str, ...] = ()
    weights: Shares = ()
    operations: Shares = ()
    mostly_float: tuple[str, ...] = ()
    way: str | None = None
    impossible: bool = False

    @property
    def format(self) -> str:
        """The format of the file: "onnx" or "tflite"."""
        return SUFFIXES[self.runtime]

    @property
    def made(self) -> bool:
        """Whether the file is in the bundle."""
        return self.why is None


@dataclass(frozen=True)
class Conversion:
    """The bundle after a conversion, the outcome of every file that was asked for, and notes for the user.

    advisory: why the judgement of the files is only advisory; None if it is more than that.
    """

    bundle: Bundle
    outcomes: tuple[FileOutcome, ...]
    notes: tuple[str, ...] = ()
    advisory: str | None = None

    @property
    def failed(self) -> tuple[FileOutcome, ...]:
        """The files that were not made, without those that are impossible."""
        return tuple(one for one in self.outcomes if not (one.made or one.impossible))

    @property
    def over(self) -> tuple[FileOutcome, ...]:
        """The files that were made and are over their tolerance."""
        return tuple(one for one in self.outcomes if one.over)


@dataclass(frozen=True)
class Made:
    """An artifact and its files, which are not in the bundle yet.

    notes: for the user, on how the file was made. The other fields are those of FileOutcome.
    """

    artifact: Artifact
    files: tuple[Path, ...]
    over: tuple[str, ...] = ()
    in_float: tuple[str, ...] = ()
    weights: Shares = ()
    operations: Shares = ()
    mostly_float: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# A file of one graph, by its runtime and precision.
Key = tuple[Runtime, str]
_HIDDEN_FOLDER = re.compile(r"\S*/\.convert-[\w-]+/(?:way-\w+/)?")


@dataclass
class Attempts:
    """The attempts to make the files of one graph: what was made, and why others failed.

    strict: raise the first error instead of recording it. named: whether the user named the precisions; else one that
    changes nothing is no failure. log: where an unexpected error is written with its traceback.
    notes: for the user, on steps that failed without costing a file. way: as in FileOutcome, of the TFLite files.
    """

    graph: Artifact
    route: str
    strict: bool
    named: bool
    log: Path
    notes: list[str] = field(default_factory=list)
    way: str | None = None
    _made: dict[Key, Made] = field(default_factory=dict)
    _failed: dict[Key, str] = field(default_factory=dict)
    _errors: dict[Key, Exception] = field(default_factory=dict)

    def copy(self) -> "Attempts":
        """Return attempts that begin with the same results, and go on independently."""
        return replace(
            self,
            notes=list(self.notes),
            _made=dict(self._made),
            _failed=dict(self._failed),
            _errors=dict(self._errors),
        )

    def make(self, key: Key, work: Callable[[], Made]) -> None:
        """Make one file, unless it has failed already. Record the result, or the error as the reason of its failure."""
        if key not in self._failed:
            with self.guard([key]):
                made = work()
                self.notes += made.notes
                self._made[key] = made

    @contextmanager
    def guard(self, keys: Sequence[Key]) -> Iterator[None]:
        """Record an error in the block as the reason why these files failed, so that no other file is lost."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever ends one file must not end the others
            self.fail(keys, error)

    def fail(self, keys: Sequence[Key], error: Exception) -> None:
        """Record an error as the reason of the failure of files, unless they have failed before. Raises it if `strict`
        is set, and if the disk is full, which ends the whole conversion."""
        if (self.strict and not self._is_impossible(error)) or (isinstance(error, OSError) and error.errno in NO_ROOM):
            raise error
        why = self._explained(error)
        for key in keys:
            self._made.pop(key, None)
            self._failed.setdefault(key, why)
            self._errors.setdefault(key, error)

    def note(self, what: str, error: Exception) -> None:
        """Record a note for the user: `what` was left out because of an error that costs no file."""
        self.notes.append(f"{what}: {self._explained(error)}")

    def made(self, key: Key) -> Made:
        """Return a file that was made. Raises InvalidArtifact, with the reason, for one that was not."""
        if key not in self._made:
            raise InvalidArtifact(f"it is made of {self._file(key)}, which was not made: {self._failed[key]}")
        return self._made[key]

    def why(self, key: Key) -> str | None:
        """Return the reason why a file failed, or None."""
        return self._failed.get(key)

    def error(self, key: Key) -> Exception | None:
        """Return the error with which a file failed, or None."""
        return self._errors.get(key)

    def explain(self, key: Key, more: str) -> None:
        """Add `more` to the reason why a file failed, and to every other file that failed for the same reason."""
        why = self._failed[key]
        self._failed |= {other: f"{why}; {more}" for other, said in self._failed.items() if said == why}

    def outcome(self, key: Key) -> FileOutcome:
        """Return the outcome of a file that was tried."""
        role, (runtime, precision) = self.graph.role, key
        if key in self._failed:
            impossible = self._is_impossible(self._errors[key])
            return FileOutcome(self._file(key), role, precision, runtime, self._failed[key], impossible=impossible)
        made = self._made[key]
        found = (made.over, made.in_float, made.weights, made.operations, made.mostly_float)
        way = self.way if runtime == "tflite" else None
        return FileOutcome(made.artifact.file, role, precision, runtime, None, *found, way)

    def _is_impossible(self, error: Exception) -> bool:
        return isinstance(error, NothingToChange) and not self.named

    def _explained(self, error: Exception) -> str:
        said = _HIDDEN_FOLDER.sub("", one_line(error))
        if isinstance(error, ToolkitError | SandboxDied):
            return said
        with self.log.open("a", encoding="utf-8") as log:
            log.writelines(traceback.format_exception(error))
        return f"{type(error).__name__}: {said}; this is a fault of the toolkit, please report it with {self.log}"

    def _file(self, key: Key) -> str:
        return file_name(self.graph.role, key[1], key[0], self.route)


def file_name(role: str, precision: str, runtime: Runtime, route: str) -> str:
    """Return the name of a converted file, such as "detector.int8.tflite"."""
    mark = ".tf" if (runtime, route) == ("tflite", "tf") else ""
    return f"{role}.{precision}{mark}.{SUFFIXES[runtime]}"
