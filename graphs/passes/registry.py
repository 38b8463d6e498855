"""The rewrites of a graph, each a GraphPass: found through entry points, and run in the order that they state.

A package adds a pass with one decorated function and one entry point of the group `seal_toolkit.passes`, which names
the module of the function. The pipeline, `toolkit bisect --pass` and the benchmark of the passes then have it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import entry_points
from typing import Any, Literal, get_args

import onnx_ir as ir

from backends.errors import InvalidInput, NotAvailable

GROUP = "seal_toolkit.passes"

# export: for the ONNX file that every runtime gets. lowering: for TFLite alone, on the graph that is about to be
# lowered; ONNX Runtime has one kernel for each operator that these passes split.
Stage = Literal["export", "lowering"]

# Float32 sums in another order, over the depth of these networks.
ROUNDING = 2e-5

Rewrite = Callable[..., tuple[ir.Model, bool]]


@dataclass(frozen=True)
class GraphPass:
    """A rewrite of a graph. Calling it calls `run`.

    tolerance: how far it may move an output, as max abs difference over the largest absolute value before.
    after: the names of passes of the same stage that run before it.
    run: takes a model, which it may change, and options that have defaults; returns the model, or another one, and
    whether anything changed. It need not describe the tensors that it makes: the pipeline infers their shapes.
    """

    name: str
    stage: Stage
    tolerance: float
    after: tuple[str, ...]
    run: Rewrite

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise InvalidInput(f"pass {self.name!r}: expected a name of letters, digits and underscores")
        if self.stage not in get_args(Stage):
            raise InvalidInput(
                f"pass {self.name}: expected a stage of {', '.join(get_args(Stage))}, got {self.stage!r}"
            )
        if not 0 <= self.tolerance < math.inf:
            raise InvalidInput(f"pass {self.name}: expected a tolerance of at least 0, got {self.tolerance}")

    def __call__(self, model: ir.Model, *values: Any, **options: Any) -> tuple[ir.Model, bool]:
        return self.run(model, *values, **options)


def graph_pass(
    stage: Stage, tolerance: float = ROUNDING, after: str | Sequence[str] = ()
) -> Callable[[Rewrite], GraphPass]:
    """Make a GraphPass of a function, under its name. Raises InvalidInput for a bad stage or tolerance."""
    names = (after,) if isinstance(after, str) else tuple(after)
    return lambda run: GraphPass(run.__name__, stage, tolerance, names, run)


@cache
def passes(stage: Stage) -> tuple[GraphPass, ...]:
    """Return every installed pass of a stage in the order in which they run. Raises what `in_order` raises."""
    return in_order([found for found in installed() if found.stage == stage])


def find_pass(name: str) -> GraphPass:
    """Return the pass of this name. Raises InvalidInput that lists the names there are."""
    known = {step.name: step for stage in get_args(Stage) for step in passes(stage)}
    if name not in known:
        raise InvalidInput(f"no pass {name!r}; there is {', '.join(known)}")
    return known[name]


def installed() -> list[GraphPass]:
    """Return the passes of every module that an entry point names.

    Raises NotAvailable where no entry point is installed, and InvalidInput for two passes of one name.
    """
    found: dict[str, GraphPass] = {}
    points = entry_points(group=GROUP)
    if not points:
        raise NotAvailable(f"no package with passes is installed (entry points {GROUP}): run `pip install` on it again")
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        for value in vars(point.load()).values():
            if not isinstance(value, GraphPass):
                continue
            if found.setdefault(value.name, value) is not value:
                raise InvalidInput(f"two passes are called {value.name!r}; one of them is in {point.value}: rename it")
    return list(found.values())


def in_order(steps: Iterable[GraphPass]) -> tuple[GraphPass, ...]:
    """Order passes of one stage so that each runs after those that it names, and otherwise as early as it can.

    Passes that could run at the same place run in the order of their names, so that the order is always the same.
    Raises InvalidInput for a pass after one that is not there, and for passes that wait for each other.
    """
    by_name = {step.name: step for step in steps}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for step in by_name.values():
        if unknown := [name for name in step.after if name not in by_name]:
            raise InvalidInput(
                f"pass {step.name}: expected to run after a pass of stage {step.stage}, there is no {unknown[0]!r}; "
                f"there is {', '.join(by_name)}"
            )
        sorter.add(step.name, *step.after)
    try:
        sorter.prepare()
    except CycleError as error:
        raise InvalidInput(f"passes wait for each other: {' after '.join(reversed(error.args[1]))}") from error
    order: list[GraphPass] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += [by_name[name] for name in ready]
        sorter.done(*ready)
    return tuple(order)
