"""`toolkit run` of a foveated model: both passes over a clip, and what each looked at."""

from pathlib import Path

import click

from toolkit.cli.runs.output import OUTPUT, write_animation, write_arrays, write_picture
from toolkit.cli.runs.request import Request, milliseconds

OPTIONS = (
    click.Option(
        ["--query"], type=click.Choice(["shallow", "deep"]), default="shallow", help="How a query looks at a frame."
    ),
    click.Option(
        ["--frames"],
        type=click.IntRange(min=1),
        help="How many, spread over the clip; by default as many as one run of a query takes.",
    ),
    click.Option(["--latents"], metavar="FILE", help="The true VAE latents, .npz: then the losses are printed."),
    click.Option(["--text-embeds"], metavar="FILE", help="Embeddings of a text, .npz; by default one zero token."),
    OUTPUT,
)


def run(
    ctx: click.Context,
    request: Request,
    query: str,
    frames: int | None,
    latents: str | None,
    text_embeds: str | None,
    output: Path,
) -> None:
    """Writes STEM.QUERY.npz with predictions and attention, and both passes' attention over the frames as a picture,
    STEM.QUERY.png, and as an animation, STEM.QUERY.gif."""
    from toolkit.cli.bundles import warn_if_random
    from toolkit.kinds.attention import attention_animation, attention_picture, attention_views
    from toolkit.kinds.clip import Clip, read_array
    from toolkit.kinds.foveated import TwoPass

    true = None if latents is None else read_array(Path(latents))
    text = None if text_embeds is None else read_array(Path(text_embeds))
    with TwoPass(request.bundle, request.backend, request.precision, request.threads) as model:
        warn_if_random(request.bundle)
        for name in request.inputs:
            model.graphs.timing_ms.clear()
            clip, most = Clip.open(Path(name)), frames or model.group
            passes = model.run(clip.frames(most), text, true, "deep" if query == "deep" else "shallow")
            stem = output / f"{Path(name).stem}.{query}"
            arrays = {
                "coarse": passes.coarse,
                "fine": passes.fine,
                "coarse_attention": passes.coarse_attention,
                "fine_attention": passes.fine_attention,
            }
            file = write_arrays(Path(f"{stem}.npz"), arrays)
            views = attention_views(clip.frames(most), [passes.coarse_attention, passes.fine_attention])
            picture = write_picture(Path(f"{stem}.png"), attention_picture(views))
            animation = write_animation(Path(f"{stem}.gif"), attention_animation(views))
            losses = passes.losses or {}
            row = request.row(
                name,
                "encode_frames",
                query=query,
                frames=len(passes.fine),
                **{key: losses.get(key) for key in ("loss_coarse", "loss_fine", "loss")},
                files=[file, picture, animation],
                timing_ms=model.graphs.timing_ms,
            )
            lines = [
                f"{len(passes.fine)} frames, {query} queries",
                *(f"{key} {value:.6f}" for key, value in losses.items()),
                milliseconds(model.graphs.timing_ms),
                f"wrote {file}, {picture} and {animation}",
            ]
            request.show(row, lines)
