"""Kinds of models: one ModelKind holds all that the commands need to know of its kind, and is found by entry point.

A package adds a kind with one line of its own metadata, `NAME = "module:KIND"` in the entry-point group
`seal_toolkit.kinds`, where KIND is an instance of a `ModelKind` subclass and NAME is the `kind` of a bundle's manifest.
The kinds of this project are registered in its pyproject.toml in the same way; each has its folder beside this file.

`toolkit run --help` imports every kind. The module of KIND must therefore import neither numpy nor a runtime: each
method imports the modules that it needs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from backends.errors import NotAvailable
from backends.plugins import Registry
from backends.precision import RECIPES
from backends.recipe import Recipe

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

# Takes the outputs of one sample by name, and the sample's hidden bits or None; returns arrays of answers by name.
Answers = Callable[["Mapping[str, Array]", tuple[int, ...] | None], "dict[str, Array]"]

RANDOM_WEIGHTS = (
    "The weights are random: choices between numbers that training would set apart mean nothing, so outside of float32 "
    "they are shown and not judged. The verdict is that of the error."
)


@dataclass(frozen=True)
class EndToEndCase:
    """A result that several graphs produce together, such as a text or the predictions for a clip.

    Errors add up between graphs, and one different token changes the rest of a text, so the result is compared as well
    as each graph.
    graphs: the roles of the graphs. The case runs in every format and precision in which a bundle has all of them.
    samples: called with a bundle and the user's images; yields the samples of the case.
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

    name: the `kind` in a bundle's manifest. summary: one line of text. rank: the place in lists, the lowest first; the
    kinds of this project have ranks below 10.
    random_note: the text that explains results with random weights.
    may_leave_domain: the range of valid inputs is not known. Synthetic samples on which the reference is not finite are
    then left out, and counted.
    is_imported: `toolkit import` makes bundles of this kind from a foreign ONNX file, which is needed again for other
    batch sizes. The meaning of its graphs is not known, so `convert` compares each file on synthetic samples, and a
    judge can be chosen by name.
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
        """Return the options of `toolkit run` for this kind. An option that several kinds share must be the same."""
        return ()

    def run(self, ctx: "click.Context", request: "RunRequest", **own: Any) -> None:
        """Run a model of this kind for `toolkit run`, and print the results. own: the values of `options`.

        Raises NotAvailable for a kind whose models are not run.
        """
        raise NotAvailable(f"models of kind {self.name!r} are not run")

    @abstractmethod
    def feeds(
        self, bundle: "Bundle", role: str, images: "Iterable[ImageSource]"
    ) -> "Iterator[tuple[str, dict[str, Array]]]":
        """Yield (sample name, inputs by name) of a graph, made from one image after the other; none is kept in memory.

        images: paths, PIL images or arrays. Raises NotAvailable if the bundle lacks a graph that must run before this
        one, InvalidInput for a file that is not an image.
        """

    @abstractmethod
    def samples(self, bundle: "Bundle", reference: "Artifact", images: Sequence[Path]) -> "Iterator[Sample]":
        """Yield the samples on which the files of a role are compared. Every call yields the same samples.

        reference: the reference file of the role. images: the user's images, used beside the shipped ones.
        """

    def of(self, bundle: "Bundle") -> "ModelKind":
        """Return the kind with the judge that the bundle's manifest names, if models of this kind are judged by name.

        By default the kind has a judge of its own. Raises InvalidInput and NotAvailable as JudgeChoice does.
        """
        return self

    def judged_families(self, bundle: "Bundle", precision: str, images: Sequence[Path]) -> tuple[str, ...]:
        """Return the families of samples whose errors count for files of a precision; by default all.

        images: the user's images, as for `samples`. A judge sees the samples of these families only.
        """
        from toolkit.metrics.samples import FAMILIES

        return FAMILIES

    def advisory(self, bundle: "Bundle", images: Sequence[Path]) -> str | None:
        """Return a sentence on why a verdict on the bundle's files is only advisory; None if it is more than that.

        images: the user's images, as for `samples`.
        """
        return None

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
        """Return the roles, out of a bundle's roles, whose graphs `convert` lowers to TFLite; by default all."""
        return tuple(roles)

    def message_rule(self, bundle: "Bundle") -> "MessageRule | None":
        """Return the rule that judges messages in the outputs during the search for a mixed file.

        Return None for models without messages, of which no mixed files are made.
        """
        return None

    def answers(self, bundle: "Bundle", role: str) -> Answers:
        """Return a function that reads the answers from a role's outputs.

        Answers are compared exactly. By default they are integer and boolean outputs as they are, and for a float
        output named "logits" the index of the largest value along the last axis.
        """
        return lambda outputs, truth: choices(outputs, lambda name, value: name == "logits")

    def details_line(self, details: "Mapping[str, Any]") -> str | None:
        """Return a line about one file below its row in the table of `compare`, if there is anything to say.

        details: what the `details` of this kind's judge returned, see `judge`.
        """
        return None

    def report_section(self, evidence: "Evidence") -> "Section | None":
        """Return the section of the HTML report that only this kind has, if any."""
        return None


def choices(outputs: "Mapping[str, Array]", is_choice: "Callable[[str, Array], bool]") -> "dict[str, Array]":
    """Return integer and boolean outputs as they are, and for each float output that `is_choice(name, value)` selects
    the index of the largest value along the last axis."""
    found = {}
    for name, value in outputs.items():
        if value.dtype.kind != "f":
            found[name] = value
        elif value.ndim and value.shape[-1] > 1 and is_choice(name, value):
            found[f"{name}, largest"] = value.argmax(axis=-1)
    return found


KINDS: Registry[ModelKind] = Registry("seal_toolkit.kinds", "kind of model")


def find_kind(name: str) -> ModelKind:
    """Return the kind with this name. Raises NotAvailable, which lists the kinds, for an unknown name."""
    return KINDS.load(name)


def kind_of(bundle: "Bundle") -> ModelKind:
    """Return the kind of a bundle, with the judge that its manifest names. Raises NotAvailable for an unknown kind or
    judge, and InvalidInput for a judge that cannot read the outputs."""
    return find_kind(bundle.model["kind"]).of(bundle)


def all_kinds() -> tuple[ModelKind, ...]:
    """Return every installed kind, sorted by rank and then by name."""
    return tuple(sorted(KINDS.installed(), key=lambda kind: (kind.rank, kind.name)))


def all_models() -> "dict[str, ModelSpec]":
    """Return the models that `toolkit export` makes, by name, grouped by kind.

    Raises NotAvailable if two models have the same name.
    """
    found: dict[str, ModelSpec] = {}
    for kind in all_kinds():
        for spec in kind.specs:
            if spec.name in found:
                raise NotAvailable(f"model {spec.name!r} is registered twice, the second time by kind {kind.name!r}")
            found[spec.name] = spec
    return found


def find_model(name: str) -> "ModelSpec":
    """Return the model with this name. Raises NotAvailable, which lists the names, for an unknown name."""
    models = all_models()
    if name not in models:
        raise NotAvailable(f"no model named {name!r}; there is {', '.join(models)}")
    return models[name]
