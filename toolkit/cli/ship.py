"""The command `toolkit ship`."""

import json
from pathlib import Path
from typing import Literal

import click

from toolkit.cli.convert import file_options
from toolkit.cli.group import Target
from toolkit.cli.import_ import size_options, sizes_and_values
from toolkit.cli.inputs import input_options, parsed
from toolkit.cli.judge import judge_option
from toolkit.metrics.task import JudgeChoice


@click.command()
@click.argument("model", metavar="MODEL.onnx|CHECKPOINT|timm/NAME|torchvision/NAME")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", required=True, help="The bundle.")
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Weights for timm/NAME, torchvision/NAME or a name of `toolkit models`; without it they are random.",
)
@size_options
@judge_option("The bundle keeps it.")
@input_options
@file_options
@click.option("--threads", type=click.IntRange(min=1), help="Default: the cores this process may use.")
@click.option(
    "--time-limit",
    "time_limit_s",
    type=click.FloatRange(min=0),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="For the rounds of timing of each graph.",
)
@click.option("--json", "out", type=Target(), metavar="FILE", help="Write files, figures and advice to FILE.")
@click.pass_context
def ship(
    ctx: click.Context,
    model: str,
    output: Path,
    checkpoints: tuple[Path, ...],
    shapes: tuple[str, ...],
    values: tuple[str, ...],
    cut_at: tuple[str, ...] | None,
    judge: JudgeChoice | None,
    inputs: Path | None,
    preprocess: str | None,
    precisions: tuple[str, ...],
    runtimes: tuple[Literal["ort", "tflite"], ...],
    threads: int | None,
    time_limit_s: float,
    out: Path | None,
) -> None:
    """Import or export MODEL, convert it, compare and time its files, and write DIR/report.html.

    The summary names the file to take on each runtime: the smallest and the fastest that passes. MODEL is an ONNX file;
    a published checkpoint of a model of `toolkit models`, or the name of such a model; or a network of timm or
    torchvision, which must be installed. Nothing is downloaded: without --checkpoint a network has random weights, and
    the output says so. A step or a file that fails costs no other one. --inputs gives the inputs that the model is used
    on: the files are judged on them, and int8-static is calibrated with them.

    Exit code 0 if every file was made and passes, 1 if one is over its tolerance, 2 if a file or a step failed. A
    precision that would change no weight is impossible; that is a failure only for one that -p names.

    \b
    Example:
      toolkit ship resnet50.onnx -o build/resnet50 --inputs photographs
      toolkit ship torchvision/resnet50 --checkpoint resnet50.pth -o build/resnet50
    """
    from toolkit.cli.console import working
    from toolkit.cli.ship_table import print_shipped
    from toolkit.environments import need

    need("export", *(() if runtimes == ("ort",) else ("tflite",)))
    sizes, constants = sizes_and_values(shapes, values)
    with working(f"ship {model}") as progress:
        progress.step("loading torch and onnx")
        import numpy as np

        from backends.atomic import replacing
        from toolkit.shipping.ship import ShipOptions, ship_model
        from toolkit.shipping.source import Source

        arrays = {name: np.array(numbers) for name, numbers in constants.items()}
        kept = {"inputs": inputs, "preprocess": parsed(preprocess), "judge": judge, "cut_at": cut_at}
        source = Source(model, checkpoints, sizes, arrays, kept)
        options = ShipOptions(precisions or None, runtimes or ShipOptions.runtimes, threads, time_limit_s)
        shipped = ship_model(source.make, output, options, progress.step)
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(shipped.to_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print_shipped(shipped)
    ctx.exit(shipped.exit_code)
