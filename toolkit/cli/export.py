"""toolkit export"""

from pathlib import Path

import click


@click.command()
@click.argument("model")
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="Weights: .safetensors or .pth.")
@click.option(
    "--random", "seed", type=click.IntRange(min=0), metavar="SEED", help="Random weights, for tests and timing."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build"),
    show_default=True,
    metavar="DIR",
    help="The bundle becomes DIR/MODEL.",
)
def export(model: str, checkpoint: Path | None, seed: int | None, output: Path) -> None:
    """Export the networks of MODEL to ONNX, as a bundle in DIR/MODEL that replaces an older one.

    Without --checkpoint or --random the weights are those that ship with this package. `toolkit models` lists the
    models. Every graph is compared with torch before it counts.

    \b
    Example:
      toolkit export videoseal-1.0 --checkpoint y_256b_img.pth
    """
    from graphs.spec import find_spec
    from toolkit.cli.bundles import print_artifacts, warn_if_random
    from toolkit.cli.console import working
    from toolkit.extras import need

    spec = find_spec(model)
    need("export")
    with working(f"export {model}") as progress:
        progress.step("loading torch and onnx")
        from toolkit.export import export_bundle
        from toolkit.weights import choose_weights

        bundle = export_bundle(spec, choose_weights(spec, checkpoint, seed), output / model, progress=progress.step)
    warn_if_random(bundle)
    print_artifacts(bundle)
