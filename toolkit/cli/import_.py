"""The command `toolkit import`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.cli.inputs import Command, input_options, parsed
from toolkit.cli.judge import judge_option
from toolkit.metrics.task import JudgeChoice

if TYPE_CHECKING:
    from graphs.onnx.sizes import OpenAxis


# A size; or the name of an axis that stays open, with or without a size.
_SIZE = re.compile(r"\s*(?:(\d+)|([A-Za-z_]\w*)(?::(\d+))?)\s*")


def _shape(text: str) -> "tuple[str, tuple[int | OpenAxis, ...]]":
    from graphs.onnx.sizes import OpenAxis

    name, _, sizes = text.rpartition("=")
    found = [_SIZE.fullmatch(size) for size in sizes.split(",")]
    parts = [match.groups() for match in found if match is not None]
    if not name or len(parts) < len(found):
        raise click.UsageError(
            f"--input-shape: expected NAME=1,3,224,224, got {text!r}; a name in place of a size, as in "
            "NAME=N,3,H:224,W:224, keeps the axis open",
            click.get_current_context(silent=True),
        )
    return name, tuple(int(size) if size else OpenAxis(axis, int(at) if at else None) for size, axis, at in parts)


def _value(text: str) -> tuple[str, tuple[float, ...]]:
    name, _, values = text.rpartition("=")
    try:
        numbers = tuple(float(value) for value in values.split(","))
    except ValueError:
        numbers = ()
    if not name or not numbers:
        raise click.UsageError(
            f"--input-value: expected NAME=2,3, got {text!r}", click.get_current_context(silent=True)
        )
    return name, numbers


def _names(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(text.split(","))


def size_options(command: Command) -> Command:
    """Add the options that `import` and `ship` share: --input-shape (shapes), --input-value (values) and --cut-at."""
    for option in (
        click.option(
            "--cut-at",
            metavar="TENSOR[,TENSOR]",
            callback=_names,
            help="Make these tensors the outputs and leave out all behind them, such as a NonMaxSuppression.",
        ),
        click.option(
            "--input-value",
            "values",
            multiple=True,
            metavar="NAME=2,3",
            help="Make an input a constant, where sizes inside the graph depend on it; may be repeated.",
        ),
        click.option(
            "--input-shape",
            "shapes",
            multiple=True,
            metavar="NAME=1,3,224,224",
            help="Sizes of an input, where the file leaves some open. A name in place of a size, as in "
            "NAME=N,3,H:640,W:640, keeps the axis open for ONNX Runtime. May be repeated.",
        ),
    ):
        command = option(command)
    return command


def sizes_and_values(
    shapes: Sequence[str], values: Sequence[str]
) -> "tuple[dict[str, tuple[int | OpenAxis, ...]], dict[str, tuple[float, ...]]]":
    """Return the sizes and the constants by the names of inputs. Raises UsageError for text of another form."""
    return dict(_shape(text) for text in shapes), dict(_value(text) for text in values)


@click.command("import")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", required=True, help="The bundle.")
@size_options
@judge_option("The bundle keeps it.")
@input_options
def import_(
    model: Path,
    output: Path,
    shapes: tuple[str, ...],
    values: tuple[str, ...],
    cut_at: tuple[str, ...] | None,
    judge: JudgeChoice | None,
    inputs: Path | None,
    preprocess: str | None,
) -> None:
    """Make a bundle of any ONNX file, which convert, compare and bench then work on.

    Opsets 11 to the newest that the installed onnx knows, external data, several inputs and outputs. The graph is
    simplified and held to the file on ONNX Runtime. Operators that TFLite will not have are named here.

    The bundle keeps the place of --inputs, relative to DIR, and --preprocess: later commands need neither. If the
    inputs are gone by then, those commands go on without them, and say so.

    An axis with a name in --input-shape stays open in the ONNX files: ONNX Runtime runs them at any size of it. Files
    for TFLite, and all comparisons, have the size behind the name, or else 1 for a batch, 224 for the sides of an image
    and 128 for other lengths.

    With --judge, compare and convert count how many answers change: labels (top1:OUTPUT, topk=5:OUTPUT), strings
    (argmax-sequence=BLANK:OUTPUT), boxes (boxes=IOU:BOXES,SCORES,CLASSES, or boxes=IOU:OUTPUT as YOLO writes it), masks
    (mask-iou=IOU:OUTPUT) or embeddings (embedding-cosine:OUTPUT).

    \b
    Example:
      toolkit import resnet50.onnx -o build/resnet50 --input-shape input=1,3,224,224 --judge top1:logits
      toolkit import resnet50.onnx -o build/resnet50 --input-shape input=N,3,H:224,W:224
      toolkit import bert.onnx -o build/bert --inputs sentences.npz
      toolkit import grey.onnx -o build/grey --inputs photographs --preprocess "mean=0.5,std=0.5,grey"
      toolkit import detector.onnx -o build/detector --cut-at boxes,scores
    """
    from toolkit.cli.console import print_artifacts, working
    from toolkit.environments import need

    notes: list[str] = []
    need("export")
    given, fixed = sizes_and_values(shapes, values)
    with working(f"import {model}") as progress:
        progress.step("loading onnx")
        import numpy as np

        from toolkit.convert.preflight import lowering_problems
        from toolkit.import_model import import_model

        constants = {name: np.array(numbers) for name, numbers in fixed.items()}
        bundle = import_model(
            model,
            output,
            given,
            progress.step,
            constants,
            notes.append,
            inputs,
            parsed(preprocess),
            judge,
            cut_at,
        )
        notes += lowering_problems(bundle, progress.step)
    for note in notes:
        click.secho(f"warning: {note}", fg="yellow", err=True)
    print_artifacts(bundle)
