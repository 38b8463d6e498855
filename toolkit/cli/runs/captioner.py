"""`toolkit run` of a captioner: an image's reconstruction and caption, and how well a text fits it."""

from pathlib import Path

import click

from toolkit.cli.runs.output import OUTPUT, write_arrays, write_picture
from toolkit.cli.runs.request import Request, milliseconds


def _token_ids(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Token ids in one text, apart by spaces."""
    try:
        return None if value is None else tuple(int(word) for word in value.split())
    except ValueError as error:
        raise click.BadParameter(f"expected token ids apart by spaces, like '17 4 250', got {value!r}") from error


OPTIONS = (
    click.Option(
        ["--beams"], type=click.IntRange(min=1), default=1, show_default="greedy", help="Width of the search."
    ),
    click.Option(
        ["--length"], type=click.IntRange(min=1), help="Tokens of a caption at most; by default all there can be."
    ),
    click.Option(
        ["--similar"], callback=_token_ids, metavar="IDS", help="Token ids of a text: how alike it and the image are."
    ),
    click.Option(
        ["--caption"], callback=_token_ids, metavar="IDS", help="Token ids of the image's own text: the losses of both."
    ),
    OUTPUT,
)


def run(
    ctx: click.Context,
    request: Request,
    beams: int,
    length: int | None,
    similar: tuple[int, ...] | None,
    caption: tuple[int, ...] | None,
    output: Path,
) -> None:
    """Writes STEM.latent.npz and STEM.rebuilt.png for each image."""
    from toolkit.cli.bundles import warn_if_random
    from toolkit.kinds.captioner import Captioner, to_picture

    with Captioner(request.bundle, request.backend, request.precision, request.threads) as captioner:
        warn_if_random(request.bundle)
        for name in request.inputs:
            captioner.graphs.timing_ms.clear()
            pixels = captioner.read(name)
            latent = captioner.encode(pixels)
            found = captioner.caption(latent, beams, length)
            rebuilt = captioner.decode(latent)
            likeness = None if similar is None else captioner.similarity(latent, similar)
            losses = {} if caption is None else captioner.losses([pixels], [caption])
            stem = output / Path(name).stem
            arrays = write_arrays(Path(f"{stem}.latent.npz"), {"latent": latent})
            picture = write_picture(Path(f"{stem}.rebuilt.png"), to_picture(rebuilt))
            row = request.row(
                name,
                "encode_image",
                tokens=list(found.tokens),
                log_probability=found.log_probability,
                similarity=likeness,
                losses=losses or None,
                files=[arrays, picture],
                timing_ms=captioner.graphs.timing_ms,
            )
            lines = [
                f"tokens {' '.join(map(str, found.tokens))}",
                f"log probability {found.log_probability:.4f}",
                *([] if likeness is None else [f"similarity {likeness:.4f}"]),
                *(f"{key} {value:.6f}" for key, value in losses.items()),
                milliseconds(captioner.graphs.timing_ms),
                f"wrote {arrays} and {picture}",
            ]
            request.show(row, lines)
