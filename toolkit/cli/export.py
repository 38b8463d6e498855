"""The command `toolkit export`."""

from pathlib import Path

import click


@click.command()
@click.argument("model")
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Weights: .safetensors, the .index.json of a sharded one, or .pth. Again for each part in a file of its own.",
)
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
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="This graph alone, as `toolkit models` lists it.")
@click.option("--no-torch", is_flag=True, help="Leave out the .safetensors, which only `--backend torch` reads.")
def export(
    model: str, checkpoints: tuple[Path, ...], seed: int | None, output: Path, roles: tuple[str, ...], no_torch: bool
) -> None:
    """Export the networks of MODEL to ONNX, as a bundle in DIR/MODEL that replaces an older one.

    Without --checkpoint or --random the weights are those that ship with this package. `toolkit models` lists the
    models. Every graph is compared with torch before it counts. The weights of a network over 256 MB lie in a file
    of their own beside its graph.

    \b
    Example:
      toolkit export videoseal-1.0 --checkpoint y_256b_img.pth
      toolkit export chunkyseal --checkpoint checkpoint.pth --role detector
      toolkit export deepencoder --checkpoint model.safetensors.index.json --role base
    """
    from toolkit.cli.console import print_artifacts, warn_if_random, working
    from toolkit.environments import need
    from toolkit.models.kind import find_model

    spec = find_model(model).only(*roles)
    need("export")
    with working(f"export {model}") as progress:
        progress.step("loading torch and onnx")
        from toolkit.export import choose_weights, export_bundle

        progress.step(f"reading {' and '.join(map(str, checkpoints))}" if checkpoints else "choosing weights")
        weights = choose_weights(spec, checkpoints, seed)
        bundle = export_bundle(spec, weights, output / model, progress=progress.step, with_torch=not no_torch)
    warn_if_random(bundle)
    click.echo(f"{spec.count_parameters() / 1e6:.2f} million parameters")
    print_artifacts(bundle)
