"""Judges by name, chosen with `--judge NAME[=SETTING][:OUTPUT,...]`: they count the changed answers of any graph.

A package adds a judge with one line of its own metadata, `NAME = "module:JUDGE"` in the entry-point group
`seal_toolkit.judges`, where JUDGE is a TaskJudge. The judges of this project are registered in the same way.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backends.errors import InvalidInput
from backends.plugins import Registry
from backends.recipe import Recipe
from toolkit.metrics.limit import Limit

if TYPE_CHECKING:
    from backends.tensor import TensorSpec
    from toolkit.metrics.judges import Judge

# From this many real answers on, the answers judge an output, and not the error of its numbers: a share of 5% is one
# answer of 20.
ENOUGH = 20


@dataclass(frozen=True)
class Setting:
    """The number of a judge: its meaning in words, its default, and the range (both ends included) of its values."""

    meaning: str
    default: float
    low: float
    high: float
    is_whole: bool = False

    def read(self, text: str) -> float:
        """Return the number in a text. Raises InvalidInput for any other text and outside the range."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high or (self.is_whole and not value.is_integer()):
            whole = "whole number" if self.is_whole else "number"
            within = f" from {self.low:g}" if math.isfinite(self.low) else ""
            within += f" to {self.high:g}" if math.isfinite(self.high) else ""
            raise InvalidInput(f"{self.meaning}: expected a {whole}{within}, got {text!r}")
        return value


@dataclass(frozen=True)
class TaskJudge:
    """A judge that can be chosen by name.

    summary: what it counts, in a few words. make: called with the specs of the outputs and the setting; returns a new
    Judge, which sees real samples only, and raises InvalidInput for outputs that it cannot read. Its `details` may have
    "counted": by words, such as "labels changed", how many of how many, as two integers.
    Further words may follow, such as how many answers are right.
    limits: called with the recipe of a file's precision; returns the limits of the judge's numbers.
    outputs: the fewest and the most outputs that it reads. setting: None for a judge without one.
    may_reorder: whether rows of the outputs may come in any order, so that the error of their numbers says nothing even
    in float32.
    """

    name: str
    summary: str
    make: "Callable[[Sequence[TensorSpec], float], Judge]"
    limits: Callable[[Recipe], tuple[Limit, ...]]
    outputs: tuple[int, int] = (1, 1)
    setting: Setting | None = None
    may_reorder: bool = False


JUDGES: Registry[TaskJudge] = Registry("seal_toolkit.judges", "judge")


@dataclass(frozen=True)
class JudgeChoice:
    """A judge with its setting and the names of the outputs that it reads; () for the only ones that it can read."""

    judge: TaskJudge
    setting: float
    outputs: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "JudgeChoice":
        """Return the choice that a text such as "topk=5:logits" makes; the first ":" ends the name and the setting.

        Raises NotAvailable for an unknown judge, which lists the known ones, and InvalidInput for a wrong setting.
        """
        chosen, _, outputs = text.partition(":")
        name, equals, setting = chosen.partition("=")
        judge = JUDGES.load(name)
        if judge.setting is None and equals:
            raise InvalidInput(f"judge {text!r}: {name} has no setting, so nothing may follow the name but :OUTPUT")
        value = 0.0
        if judge.setting is not None:
            try:
                value = judge.setting.read(setting) if equals else judge.setting.default
            except InvalidInput as error:
                raise InvalidInput(f"judge {text!r}: {error}") from error
        return cls(judge, value, tuple(outputs.split(",")) if outputs else ())

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        setting = f"={self.setting:g}" if self.judge.setting is not None else ""
        outputs = f":{','.join(self.outputs)}" if self.outputs else ""
        return f"{self.judge.name}{setting}{outputs}"

    def among(self, specs: "Sequence[TensorSpec]") -> "JudgeChoice":
        """Return the choice with its outputs, for a graph with these outputs.

        Raises InvalidInput for an output that the graph does not have or the judge cannot read, and if none is named
        and not exactly one choice can be read.
        """
        fewest, most = self.judge.outputs
        known = {spec.name: spec for spec in specs}
        shown = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
        if unknown := [name for name in self.outputs if name not in known]:
            raise InvalidInput(f"judge {self}: there is no output {unknown[0]!r}; the graph has {shown}")
        if self.outputs or not most:
            if not fewest <= len(self.outputs) <= most:
                number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
                raise InvalidInput(f"judge {self}: expected {number} outputs, got {len(self.outputs)}")
            try:
                self.new(specs)
            except InvalidInput as error:
                raise InvalidInput(f"judge {self}: {error}") from error
            return self
        # All outputs together, where the judge reads several, and else the only one of them that it can read.
        together = [tuple(known)] if max(fewest, 2) <= len(specs) <= most else []
        for tried in (together, [(name,) for name in known] if fewest == 1 else []):
            fitting, why = [], None
            for names in tried:
                try:
                    fitting.append(replace(self, outputs=names).among(specs))
                except InvalidInput as error:
                    why = error
            if len(fitting) == 1:
                return fitting[0]
        if len(specs) == 1 and why is not None:
            raise why
        raise InvalidInput(f"judge {self}: name the output, as in {self}:NAME; the graph has {shown}")

    def new(self, specs: "Sequence[TensorSpec]") -> "Judge":
        """Return a new judge. specs: all outputs of the graph. Raises InvalidInput for outputs that it cannot read."""
        known = {spec.name: spec for spec in specs}
        return self.judge.make([known[name] for name in self.outputs], self.setting)


def counted_line(details: Mapping[str, Any]) -> str | None:
    """Return the counts of a judge in words, such as "labels changed 3 of 300"; None if it has none.

    details: of a Judge.
    """
    counted: Mapping[str, Sequence[int]] = details.get("counted", {})
    return ", ".join(f"{words} {changed} of {of}" for words, (changed, of) in counted.items()) or None


def is_enough(details: Mapping[str, Any]) -> bool:
    """Return whether a judge counted at least ENOUGH answers of real inputs. details: of a Judge."""
    counted: Mapping[str, Sequence[int]] = details.get("counted", {})
    return details.get("on") == "real" and bool(counted) and next(iter(counted.values()))[1] >= ENOUGH


def _top1(specs: "Sequence[TensorSpec]", setting: float) -> "Judge":
    return _topk(specs, 1)


def _topk(specs: "Sequence[TensorSpec]", setting: float) -> "Judge":
    from toolkit.metrics.labels import LabelJudge

    return LabelJudge(specs[0], int(setting))


def _argmax_sequence(specs: "Sequence[TensorSpec]", setting: float) -> "Judge":
    from toolkit.metrics.labels import SequenceJudge

    return SequenceJudge(specs[0], int(setting))


def _boxes(specs: "Sequence[TensorSpec]", setting: float) -> "Judge":
    from toolkit.metrics.boxes import BoxJudge

    return BoxJudge(specs, setting)


def _mask_iou(specs: "Sequence[TensorSpec]", setting: float) -> "Judge":
    from toolkit.metrics.masks import MaskJudge

    return MaskJudge(specs[0], setting)


def _embedding_cosine(specs: "Sequence[TensorSpec]", setting: float) -> "Judge":
    from toolkit.metrics.judges import EmbeddingJudge

    return EmbeddingJudge(specs[0])


def _tensor(specs: "Sequence[TensorSpec]", setting: float) -> "Judge":
    from toolkit.metrics.judges import NoJudge

    return NoJudge()


def _choices(*numbers: str) -> Callable[[Recipe], tuple[Limit, ...]]:
    """Return limits of shares of changed choices: rounding swaps those of nearly equal scores, which random weights
    give everywhere."""

    def limits(recipe: Recipe) -> tuple[Limit, ...]:
        random_too = (recipe.weights, recipe.activations) == ("float32", "float32")
        return tuple(
            Limit(number, recipe.limit("choices_changed"), needs_training=not random_too) for number in numbers
        )

    return limits


def _texts(recipe: Recipe) -> tuple[Limit, ...]:
    """Return the limits of strings: of their characters as of any choice, of whole strings as of whole captions."""
    (characters,) = _choices("characters_changed")(recipe)
    return characters, replace(characters, number="strings_changed", at_most=recipe.limit("captions_changed"))


def _vectors(recipe: Recipe) -> tuple[Limit, ...]:
    return (
        Limit("mean_cosine", None, needs_training=False, at_least=recipe.limit("mean_cosine")),
        Limit("lost", recipe.limit("lost"), needs_training=False),
    )


TOP1 = TaskJudge("top1", "labels, the largest score of each row", _top1, _choices("labels_changed"))
TOPK = TaskJudge(
    "topk",
    "labels among the K largest scores of each row",
    _topk,
    _choices("labels_changed"),
    setting=Setting("K", 5, 1, math.inf, is_whole=True),
)
ARGMAX_SEQUENCE = TaskJudge(
    "argmax-sequence",
    "strings: the largest score of each step, repeats once, without blanks",
    _argmax_sequence,
    _texts,
    setting=Setting("the label of the blank", 0, -math.inf, math.inf, is_whole=True),
)
BOXES = TaskJudge(
    "boxes",
    "boxes, matched by class and overlap (IoU)",
    _boxes,
    _choices("boxes_changed"),
    outputs=(1, 3),
    setting=Setting("the least IoU of boxes that match", 0.5, 0.0, 1.0),
    may_reorder=True,
)
MASK_IOU = TaskJudge(
    "mask-iou",
    "masks, of objects or classes, by their overlap (IoU)",
    _mask_iou,
    _choices("masks_changed"),
    setting=Setting("the least IoU of a mask that did not change", 0.9, 0.0, 1.0),
)
EMBEDDING_COSINE = TaskJudge(
    "embedding-cosine", "vectors nearer to another input's vector than to their own", _embedding_cosine, _vectors
)
TENSOR = TaskJudge("tensor", "nothing: the error of the numbers alone", _tensor, lambda recipe: (), outputs=(0, 0))
