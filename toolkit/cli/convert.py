"""toolkit convert"""

from pathlib import Path

import click


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-p",
    "--precision",
    "precisions",
    multiple=True,
    default=("fp32", "fp16", "int8"),
    show_default="fp32, fp16 and int8",
    help="fp32, fp16, int8 or int8-static; may be repeated.",
)
@click.option("--route", default="direct", show_default=True, help="direct, or tf: through TensorFlow's own converter.")
@click.option("--calibration", type=click.Path(path_type=Path), metavar="DIR", help="Photographs, for int8-static.")
@click.option(
    "--slice-mb",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Megabytes of float32 weights lowered at a time: less needs less memory, and more time.",
)
def convert(bundle: Path, precisions: tuple[str, ...], route: str, calibration: Path | None, slice_mb: int) -> None:
    """Lower the detector of BUNDLE to TFLite and quantize it; int8 is also made for ONNX Runtime.

    The work is done in the converter's own environment, see `toolkit setup-converter`. The bundle changes only once
    every file is made and compared with the float32 graph. Interrupted, and run again with the same options, it goes
    on after the last slice that was finished.

    \b
    Example:
      toolkit convert build/pocketseal -p fp32 -p int8
    """
    from toolkit.cli.bundles import print_artifacts, warn_if_random
    from toolkit.cli.console import working
    from toolkit.extras import need

    need("export", "tflite")
    with working(f"convert {bundle}") as progress:
        progress.step("loading onnx")
        from toolkit.convert.pipeline import convert_bundle

        converted = convert_bundle(
            bundle, precisions, route, calibration, progress.step, slice_limit_bytes=slice_mb << 20
        )
    warn_if_random(converted)
    print_artifacts(converted)
