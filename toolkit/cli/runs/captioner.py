"""`toolkit run` of a captioner: an image's reconstruction and caption, and how well a text fits it."""

from pathlib import Path

import click

from toolkit.cli.runs.output import OUTPUT, write_arrays, write_picture
from toolkit.cli.runs.request import Request, milliseconds

OPTIONS = (
    click.Option(
        ["--beams"], type=click.IntRange(min=1), default=1, show_default="greedy", help="Width of the search."
    ),
    click.Option(
        ["--length"], type=click.IntRange(min=1), help="Tokens of a caption at most; by default all there can be."
    ),
    click.Option(
        ["--tokenizer"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A tokenizer.json: texts are words. Without it they are token ids, like '17 4 250'.",
    ),
    click.Option(["--similar"], metavar="TEXT", help="How alike this text and the image are."),
    click.Option(["--caption"], metavar="TEXT", help="The image's own text: the published losses of both."),
    OUTPUT,
)


def run(
    ctx: click.Context,
    request: Request,
    beams: int,
    length: int | None,
    tokenizer: Path | None,
    similar: str | None,
    caption: str | None,
    output: Path,
) -> None:
    """Writes STEM.latent.npz and STEM.rebuilt.png for each image."""
    from toolkit.cli.bundles import warn_if_random
    from toolkit.kinds.captioner import Captioner, to_picture
    from toolkit.kinds.texts import Numbers, Tokenizer, Vocabulary

    with Captioner(request.bundle, request.backend, request.precision, request.threads) as captioner:
        vocabulary: Vocabulary = Numbers() if tokenizer is None else Tokenizer(tokenizer, captioner.vocabulary)
        other = None if similar is None else vocabulary.tokens(similar)
        own = None if caption is None else vocabulary.tokens(caption)
        warn_if_random(request.bundle)
        for name in request.inputs:
            captioner.graphs.timing_ms.clear()
            pixels = captioner.read(name)
            latent = captioner.encode(pixels)
            found = captioner.caption(latent, beams, length)
            rebuilt = captioner.decode(latent)
            likeness = None if other is None else captioner.similarity(latent, other)
            losses = {} if own is None else captioner.losses([pixels], [own])
            text = vocabulary.text(found.tokens)
            stem = output / Path(name).stem
            arrays = write_arrays(Path(f"{stem}.latent.npz"), {"latent": latent})
            picture = write_picture(Path(f"{stem}.rebuilt.png"), to_picture(rebuilt))
            row = request.row(
                name,
                "encode_image",
                tokens=list(found.tokens),
                text=text,
                log_probability=found.log_probability,
                similarity=likeness,
                losses=losses or None,
                files=[arrays, picture],
                timing_ms=captioner.graphs.timing_ms,
            )
            lines = [
                f"tokens {' '.join(map(str, found.tokens))}" if text is None else f"caption {text!r}",
                f"log probability {found.log_probability:.4f}",
                *([] if likeness is None else [f"similarity {likeness:.4f}"]),
                *(f"{key} {value:.6f}" for key, value in losses.items()),
                milliseconds(captioner.graphs.timing_ms),
                f"wrote {arrays} and {picture}",
            ]
            request.show(row, lines)
