"""Kinds of models: everything that the commands have to know of one kind, in one object, found through entry points.

A package adds a kind with one line of its own metadata, `NAME = "module:KIND"` in the entry-point group
`seal_toolkit.kinds`, where KIND is an instance of a `ModelKind` subclass and NAME is the `kind` of a bundle's manifest.
Ours stand in this project's pyproject.toml in the same way, each in a folder of its own beside this file.

`toolkit run --help` imports every kind: the module of KIND imports neither numpy nor a runtime, and each method
imports for itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from backends.errors import NotAvailable
from backends.plugins import Registry
from backends.precision import RECIPES, Recipe

if TYPE_CHECKING:
    import click

    from backends.artifact import Artifact
    from backends.bundle import Bundle
    from backends.tensor import Array
    from graphs.networks.spec import ModelSpec
    from toolkit.convert.rules import MessageRule
    from toolkit.images.open import ImageSource
    from toolkit.metrics.judges import Judge
    from toolkit.metrics.limit import Tolerance
    from toolkit.metrics.samples import Sample
    from toolkit.models.command import RunRequest
    from toolkit.models.runner import Pipeline
    from toolkit.report.blocks import Section
    from toolkit.report.evidence import Evidence

# Outputs of one sample by name, and the sample's truth -> arrays of answers by name.
Answers = Callable[["Mapping[str, Array]", tuple[int, ...] | None], "dict[str, Array]"]

RANDOM_WEIGHTS = (
    "The weights are random: choices between numbers that training would set apart mean nothing, so outside of float32 "
    "they are shown and not judged. The verdict is that of the error."
)


@dataclass(frozen=True)
class EndToEndCase:
    """A result of several graphs together, run one after the other or many times: a text, a clip.

    Errors add up between graphs, and one different token makes a different text: it is not enough that each graph is
    near its reference.
    graphs: the roles of the graphs. The case runs in every format and precision in which a bundle has all of them.
    samples: called with a bundle and the user's images; yields samples of the whole case.
    open: called with a bundle, a backend, a precision and a number of threads; returns the open pipeline.
    judge: called with a bundle; returns a new judge.
    """

    name: str
    graphs: tuple[str, ...]
    samples: "Callable[[Bundle, Sequence[Path]], Iterable[Sample]]"
    open: "Callable[[Bundle, str, str, int], Pipeline]"
    judge: "Callable[[Bundle], Judge]"


class ModelKind(ABC):
    """A kind of model: how its bundles are run, fed, compared, converted, recorded and reported.

    name: the `kind` of a bundle's manifest. summary: one line for a person. rank: its place in lists; ours have ranks
    below 10.
    random_note: a sentence for readers of results with random weights.
    may_leave_domain: the kind does not know the range of its inputs. Synthetic samples on which the reference is not
    finite are then left out, and counted.
    is_imported: `toolkit import` makes bundles of this kind from a foreign ONNX file, which is needed again for other
    batch sizes. Nobody else knows what its graphs compute, so that `convert` compares each file on synthetic samples.
    is_run: `toolkit run` runs models of this kind.
    """

    name: str
    summary: str
    rank: int = 100
    random_note: str = RANDOM_WEIGHTS
    may_leave_domain: bool = False
    is_imported: bool = False
    is_run: bool = True

    @property
    def specs(self) -> "tuple[ModelSpec, ...]":
        """The models of this kind that `toolkit export` makes."""
        return ()

    @property
    def end_to_end(self) -> tuple[EndToEndCase, ...]:
        """The results of several graphs together that `compare` compares."""
        return ()

    def options(self) -> "tuple[click.Option, ...]":
        """The options of `toolkit run` for this kind. An option that several kinds have is the same in each."""
        return ()

    def run(self, ctx: "click.Context", request: "RunRequest", **own: Any) -> None:
        """Run a model of this kind for `toolkit run`, and print the results. `own` holds the values of `options`."""
        raise NotAvailable(f"models of kind {self.name!r} are not run")

    @abstractmethod
    def feeds(
        self, bundle: "Bundle", role: str, images: "Iterable[ImageSource]"
    ) -> "Iterator[tuple[str, dict[str, Array]]]":
        """Yield (name, inputs by name) that images bring to a graph, one after the other, nothing kept.

        images: paths, PIL images or arrays. Raises NotAvailable where a graph that runs before is not in the bundle,
        InvalidInput for a file that is no image.
        """

    @abstractmethod
    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        """Yield every sample that the files of a role are compared on, the same ones at each call.

        reference: the reference file of the role. images: the user's own, beside the images that ship.
        """

    @abstractmethod
    def judge(self, bundle: "Bundle", role: str) -> "Judge":
        """Return a new judge for the outputs of one file of a role."""

    @final
    def tolerance(self, role: str, precision: str) -> "Tolerance":
        """Return the tolerance of the files of a role, or of an end-to-end case, in a precision.

        Raises NotAvailable for an unknown role or precision, and where the recipe of the precision lacks a limit that
        the role needs: no limit has a default.
        """
        try:
            if precision not in RECIPES:
                raise NotAvailable(f"no precision named {precision!r}; there is {', '.join(sorted(RECIPES))}")
            return self._tolerance(role, RECIPES[precision])
        except NotAvailable as error:
            raise NotAvailable(
                f"no tolerance for kind {self.name!r}, role {role!r}, precision {precision!r}, so nothing is judged: "
                f"{error}"
            ) from error

    @abstractmethod
    def _tolerance(self, role: str, recipe: Recipe) -> "Tolerance":
        """Return the tolerance made of the recipe's limits. Raises NotAvailable for an unknown role."""

    def lowered_roles(self, roles: Sequence[str]) -> tuple[str, ...]:
        """Return those of a bundle's roles whose graphs `convert` makes TFLite files of; by default all of them."""
        return tuple(roles)

    def message_rule(self, bundle: "Bundle") -> "MessageRule | None":
        """Return how the messages in the outputs are judged while a mixed file is searched; None where there are no
        messages, and so no mixed files."""
        return None

    def answers(self, bundle: "Bundle", role: str) -> Answers:
        """Return a function that reads the answers out of a role's outputs.

        An answer is the same or another, and never nearly the same. By default: integers and booleans as they are, and
        of floats named "logits" the index of the largest along the last axis.
        """
        return lambda outputs, truth: choices(outputs, lambda name, value: name == "logits")

    def report_section(self, evidence: "Evidence") -> "Section | None":
        """Return the section of the HTML report that only this kind has, if any."""
        return None


def choices(outputs: "Mapping[str, Array]", is_choice: "Callable[[str, Array], bool]") -> "dict[str, Array]":
    """Return integers and booleans as they are, and the index of the largest of each output of floats that
    `is_choice` picks by its name and value."""
    found = {}
    for name, value in outputs.items():
        if value.dtype.kind != "f":
            found[name] = value
        elif value.ndim and value.shape[-1] > 1 and is_choice(name, value):
            found[f"{name}, largest"] = value.argmax(axis=-1)
    return found


KINDS: Registry[ModelKind] = Registry("seal_toolkit.kinds", "kind of model")


def find_kind(name: str) -> ModelKind:
    """Return the kind of a name. Raises NotAvailable that lists the kinds."""
    return KINDS.load(name)


def all_kinds() -> tuple[ModelKind, ...]:
    """Return every installed kind, in the order of their ranks and then of their names."""
    return tuple(sorted(KINDS.installed(), key=lambda kind: (kind.rank, kind.name)))


def all_models() -> "dict[str, ModelSpec]":
    """Return the models that `toolkit export` makes, by name, those of one kind together.

    Raises NotAvailable where two kinds have a model of the same name.
    """
    found: dict[str, ModelSpec] = {}
    for kind in all_kinds():
        for spec in kind.specs:
            if spec.name in found:
                raise NotAvailable(f"model {spec.name!r} is registered twice, the second time by kind {kind.name!r}")
            found[spec.name] = spec
    return found


def find_model(name: str) -> "ModelSpec":
    """Return the model of a name. Raises NotAvailable that lists the names."""
    models = all_models()
    if name not in models:
        raise NotAvailable(f"no model named {name!r}; there is {', '.join(models)}")
    return models[name]
