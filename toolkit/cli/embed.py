"""The command `toolkit embed`."""

from pathlib import Path

import click


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--message", metavar="HEX", required=True, help="What to hide: one hex digit for every 4 bits.")
@click.option("-m", "--model", metavar="MODEL", help="A bundle by name: build/MODEL, else ours.  [default: pocketseal]")
@click.option("--bundle", type=click.Path(path_type=Path), metavar="DIR", help="A bundle by its folder.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT", required=True, help="The marked image.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: the cores this process may use.")
def embed(
    image: Path,
    message: str,
    model: str | None,
    bundle: Path | None,
    output: Path,
    force: bool,
    threads: int | None,
) -> None:
    """Hide a message in IMAGE, at any size up to 89 megapixels.

    OUT has the format that its suffix names, and keeps the ICC profile and the EXIF of IMAGE. The image is turned
    upright where its EXIF says so.

    \b
    Example:
      toolkit embed photo.jpg --message 0123456789abcdef -o marked.jpg
    """
    from toolkit.cli.console import chosen_bundle, warn_if_random, working
    from toolkit.models.watermark.embed import Embedder

    opened = chosen_bundle(model, bundle)
    with working(f"embed {image}"), Embedder.open(opened, threads) as embedder:
        result = embedder.embed_file(image, message, output, force)
    warn_if_random(opened)
    times = sum(result.timing_ms.values())
    click.echo(
        f"{output}: {opened.model['name']} message {message.lower()}, PSNR {result.psnr_db:.1f} dB, "
        f"{times:.0f} ms (first run)"
    )
