"""The command `toolkit convert`."""

from functools import partial
from pathlib import Path
from typing import Literal

import click

from backends.errors import ToolkitError
from backends.precision import RECIPES
from toolkit.cli.inputs import Command, input_options, parsed
from toolkit.cli.judge import judge_option
from toolkit.metrics.task import JudgeChoice


def file_options(command: Command) -> Command:
    """Add the options that `convert` and `ship` share: --precision (precisions) and --runtime (runtimes)."""
    precision = click.option(
        "-p",
        "--precision",
        "precisions",
        multiple=True,
        help=f"{', '.join(name for name, recipe in RECIPES.items() if recipe.routes)}; may be repeated. "
        "Without it fp32, fp16 and int8, where they change a weight.",
    )
    runtime = click.option(
        "--runtime",
        "runtimes",
        type=click.Choice(["ort", "tflite"]),
        multiple=True,
        help="Files for this runtime alone: ONNX Runtime or TFLite; may be repeated.",
    )
    return precision(runtime(command))


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@file_options
@click.option("--route", default="direct", show_default=True, help="direct, or tf: through TensorFlow's own converter.")
@click.option(
    "--calibration",
    metavar="DIR|generated",
    help="A folder of photographs, or images from a seeded generator: for "
    f"{', '.join(name for name, recipe in RECIPES.items() if recipe.calibrated)}.",
)
@click.option(
    "--calibration-method",
    "method",
    show_default="min-max",
    help="min-max, percentile or entropy: which range follows from the values seen.",
)
@click.option("--budget", metavar="TEXT", help='For mixed: "flips<=0.2%", "size<=12MB" or "latency<=20ms".')
@click.option("--images", type=click.Path(path_type=Path), metavar="DIR", help="Images to keep the budget on.")
@click.option(
    "--recipe", type=click.Path(path_type=Path), metavar="FILE", help="For mixed: the layers of an earlier search."
)
@click.option(
    "--slice-mb",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Megabytes of float32 weights lowered at a time: less needs less memory, and more time.",
)
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="This graph alone, as `toolkit models` lists it.")
@judge_option("Instead of the judge that the bundle keeps.")
@input_options
@click.option("--strict", is_flag=True, help="End at the first file that cannot be made, and add none of its graph.")
@click.pass_context
def convert(
    ctx: click.Context,
    bundle: Path,
    precisions: tuple[str, ...],
    route: str,
    calibration: str | None,
    method: str | None,
    budget: str | None,
    images: Path | None,
    recipe: Path | None,
    slice_mb: int,
    roles: tuple[str, ...],
    runtimes: tuple[Literal["ort", "tflite"], ...],
    judge: JudgeChoice | None,
    inputs: Path | None,
    preprocess: str | None,
    strict: bool,
) -> None:
    """Lower the graphs of BUNDLE to TFLite and quantize them, also for ONNX Runtime where that can run it. Of a
    watermark model that is the detector.

    The work is done in the converter's own environment, see `toolkit setup-converter`; --runtime ort needs none. Each
    file is made independently: the table says which were made, and a line for each other one says why not. A file of an
    imported graph is held to the tolerance that compare knows; one that is over it is added too, and the table says so.
    A float32 file that is over it is not added: the conversion went wrong. An imported graph is then tried with less
    preparation, by the other route, and in parts; the table says which way was taken. Interrupted, and run again with
    the same options, it goes on after the last slice that was finished.

    Real inputs of an imported model, given by --inputs here or at its import, are what its files are judged on (64 of
    them, if there are more), and the calibration of int8-static and int16x8, where --calibration gives no other.

    Exit code 0 if every file was made and none is over its tolerance, 1 if one is over, 2 if one could not be made. A
    precision that would change no weight is impossible; that is an error only for one that -p names.

    \b
    Example:
      toolkit convert build/pocketseal -p fp32 -p int8
      toolkit convert build/pocketseal --runtime ort
      toolkit convert build/resnet50 --judge top1:logits
      toolkit convert build/bert -p int8-static --inputs sentences.npz
      toolkit convert build/pocketseal -p mixed --budget "flips<=0.2%" --images marked-photographs
    """
    from toolkit.cli.console import working
    from toolkit.cli.convert_table import exit_code, print_conversion
    from toolkit.environments import need

    if method is not None and calibration is None and not _has_inputs(bundle, inputs):
        raise click.UsageError("--calibration-method needs --calibration, or --inputs for an imported model", ctx)
    need("export", "tflite")
    with working(f"convert {bundle}") as progress:
        progress.step("loading onnx")
        from toolkit.convert.calibration import Calibration
        from toolkit.convert.outcome import SUFFIXES
        from toolkit.convert.pipeline import convert_bundle
        from toolkit.convert.quantize.mixed import MixedRequest
        from toolkit.parity.agreement import conversion_rules

        seen = None if (calibration, method) == (None, None) else Calibration.of(calibration, method or "min-max")
        mixed = None if (budget, images, recipe) == (None, None, None) else MixedRequest.of(budget, images, recipe)
        conversion = convert_bundle(
            bundle,
            partial(conversion_rules, chosen=judge),
            precisions or None,
            route,
            seen,
            progress.step,
            slice_limit_bytes=slice_mb << 20,
            roles=roles,
            mixed=mixed,
            runtimes=runtimes or tuple(SUFFIXES),
            strict=strict,
            inputs=inputs,
            preprocess=parsed(preprocess),
        )
        from toolkit.bench.speed import compare_speed

        made = {one.file for one in conversion.outcomes if one.made}
        artifacts = [artifact for artifact in conversion.bundle.artifacts if artifact.file in made]
        try:
            speeds = compare_speed(conversion.bundle, artifacts, progress.step)
        except ToolkitError as error:  # the files are in the bundle, and their outcomes must be said
            progress.say(f"note: the files were not timed: {error}")
            speeds = ()
    print_conversion(conversion, speeds)
    ctx.exit(exit_code(conversion))


def _has_inputs(folder: Path, inputs: Path | None) -> bool:
    """Return whether real inputs are given, or kept by the bundle in `folder`."""
    from backends.bundle import Bundle
    from toolkit.inputs.kept import KeptInputs

    return inputs is not None or KeptInputs.of(Bundle.open(folder)).path is not None
