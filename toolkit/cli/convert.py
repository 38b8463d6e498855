"""The command `toolkit convert`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backends.precision import RECIPES

if TYPE_CHECKING:
    from toolkit.bench.speed import Speed


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-p",
    "--precision",
    "precisions",
    multiple=True,
    default=("fp32", "fp16", "int8"),
    show_default="fp32, fp16 and int8",
    help=f"{', '.join(RECIPES)}; may be repeated.",
)
@click.option("--route", default="direct", show_default=True, help="direct, or tf: through TensorFlow's own converter.")
@click.option(
    "--calibration",
    metavar="DIR|generated",
    help="A folder of photographs, or images from a seeded generator: for int8-static and int16x8.",
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
def convert(
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
) -> None:
    """Lower the graphs of BUNDLE to TFLite and quantize them, also for ONNX Runtime where that can run it. Of a
    watermark model that is the detector.

    The work is done in the converter's own environment, see `toolkit setup-converter`. A graph's files are added once
    all of them are made and compared with the float32 graph. Interrupted, and run again with the same options, it goes
    on after the last slice that was finished. Of an imported graph every file is held to the tolerance that compare
    knows, and the table says whether it agrees.

    \b
    Example:
      toolkit convert build/pocketseal -p fp32 -p int8
      toolkit convert build/pocketseal -p mixed --budget "flips<=0.2%" --images marked-photographs
    """
    from toolkit.cli.console import print_artifacts, warn_if_random, working
    from toolkit.environments import need

    if method is not None and calibration is None:
        raise click.UsageError("--calibration-method needs --calibration", click.get_current_context())
    need("export", "tflite")
    with working(f"convert {bundle}") as progress:
        progress.step("loading onnx")
        from toolkit.convert.calibration import Calibration
        from toolkit.convert.pipeline import convert_bundle
        from toolkit.convert.quantize.mixed import MixedRequest
        from toolkit.parity.agreement import conversion_rules

        seen = None if calibration is None else Calibration.of(calibration, method or "min-max")
        mixed = None if (budget, images, recipe) == (None, None, None) else MixedRequest.of(budget, images, recipe)
        limit = slice_mb << 20
        judged: dict[str, tuple[str, ...]] = {}
        converted = convert_bundle(
            bundle,
            conversion_rules,
            precisions,
            route,
            seen,
            progress.step,
            slice_limit_bytes=limit,
            roles=roles,
            mixed=mixed,
            judged=judged.__setitem__,
        )
        from toolkit.bench.speed import compare_speed

        made = [a for a in converted.artifacts if a.precision in precisions and a.route in (None, route)]
        speeds = compare_speed(converted, [a for a in made if not roles or a.role in roles], progress.step)
    warn_if_random(converted)
    for speed in (speed for speed in speeds if speed.slower):
        click.secho(f"warning: {_slower(speed)}", fg="yellow", err=True)
    for file, over in judged.items():
        for check in over:
            click.secho(f"warning: {file}: {check}, on noise, constants and extremes", fg="yellow", err=True)
    print_artifacts(
        converted,
        {
            "time": {speed.file: f"{speed.ratio:.2f}x" for speed in speeds},
            "agrees": {file: "NO" if over else "yes" for file, over in judged.items()},
        },
    )
    if speeds:
        click.echo("time: over the float32 file of the same runtime, side by side on this machine")


def _slower(speed: "Speed") -> str:
    said = f"{speed.file} is slower than float32: {speed.ratio:.2f}x the time of {speed.over}"
    if speed.blame:
        said += "; what takes longer: " + ", ".join(f"{kind} (+{ms:.1f} ms)" for kind, ms in speed.blame)
    return said
