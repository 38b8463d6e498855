"""`toolkit run` of a foveated model, and pictures that show where it looked in the frames of a clip."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.images.clips import Clip, read_array
from toolkit.images.photo import Floats
from toolkit.models.command import RunRequest, milliseconds, write_animation, write_arrays, write_picture
from toolkit.models.foveated.runner import TwoPass

_FRAME_PX = 192


def attention_views(frames: Iterable[Image.Image], attention: Sequence[Floats]) -> list[list[Image.Image]]:
    """Return small RGB squares for each frame: the frame, then one for each pass, brighter where it looked more.

    attention: for each pass (T, grid, grid), at least 0.
    """
    views = []
    for number, frame in enumerate(frames):
        small = frame.resize((_FRAME_PX, _FRAME_PX), Image.Resampling.BILINEAR)
        views.append([small, *(_lit(small, maps[number]) for maps in attention)])
    return views


def attention_picture(views: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Return one picture of all squares, with a column for each frame."""
    sheet = Image.new("RGB", (_FRAME_PX * len(views), _FRAME_PX * len(views[0])))
    for column, view in enumerate(views):
        for row, square in enumerate(view):
            sheet.paste(square, (column * _FRAME_PX, row * _FRAME_PX))
    return sheet


def attention_animation(views: Sequence[Sequence[Image.Image]]) -> list[Image.Image]:
    """Return a picture for each frame: the frame, the first pass and the second pass, side by side."""
    return [attention_picture([[square] for square in view]) for view in views]


def _lit(frame: Image.Image, weights: Floats) -> Image.Image:
    """Return a frame that is darker where `weights` (grid, grid) are smaller."""
    share = weights / max(float(weights.max()), 1e-12)
    light = Image.fromarray((255 * share).round().astype(np.uint8)).resize(frame.size, Image.Resampling.NEAREST)
    return Image.composite(frame, frame.point(lambda value: value // 4), light)


def run(
    request: RunRequest,
    query: str,
    frames: int | None,
    latents: str | None,
    text_embeds: str | None,
    output: Path,
) -> None:
    """Run both passes over each clip, and print the results.

    Writes predictions and attention to STEM.QUERY.npz, and the attention of both passes over the frames as a picture to
    STEM.QUERY.png and as an animation to STEM.QUERY.gif.
    """
    true = None if latents is None else read_array(Path(latents))
    text = None if text_embeds is None else read_array(Path(text_embeds))
    with TwoPass(request.bundle, request.backend, request.precision, request.threads) as model:
        request.warn_if_random(request.bundle)
        for name in request.inputs:
            model.graphs.forget_times()
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
                milliseconds(model.graphs.timing_ms, model.graphs.first_runs),
                f"wrote {file}, {picture} and {animation}",
            ]
            request.show(row, lines)
