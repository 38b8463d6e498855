"""toolkit run"""

from pathlib import Path
from types import ModuleType
from typing import Any

import click
from click.core import ParameterSource

from toolkit.models.captioner import command as captioner
from toolkit.models.command import RunRequest
from toolkit.models.deepencoder import command as deepencoder
from toolkit.models.foveated import command as foveated
from toolkit.models.watermark import command as watermark

# By the kind that a bundle's manifest states.
KINDS: dict[str, ModuleType] = {
    "watermark": watermark,
    "deepencoder": deepencoder,
    "foveated": foveated,
    "captioner": captioner,
}


def _own_options() -> list[click.Parameter]:
    """The options of all kinds; one that several have is the same for each."""
    options = {option.name: option for kind in KINDS.values() for option in kind.OPTIONS}
    return list(options.values())


@click.command(params=_own_options())
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-m", "--model", metavar="MODEL", help="A bundle by name: build/MODEL, else ours.  [default: pocketseal]")
@click.option("--variant", metavar="NAME", help="Of a model that has several: -m captioner --variant small.")
@click.option("--bundle", type=click.Path(path_type=Path), metavar="DIR", help="A bundle by its folder.")
@click.option("-b", "--backend", default="ort", show_default=True, help="ort, tflite or torch.")
@click.option("-p", "--precision", default="fp32", show_default=True, help="fp32, fp16, int8 or int8-static.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: the cores this process may use.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each image, and nothing else.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    images: tuple[str, ...],
    model: str | None,
    variant: str | None,
    bundle: Path | None,
    backend: str,
    precision: str,
    threads: int | None,
    as_json: bool,
    **own: Any,
) -> None:
    """Read the message that each IMAGE carries; or run a model of another kind on it.

    Without --expect the verdict comes from the model's detection channel, where it has one. With --expect it is a
    test: would random bits match the expected message this well at most once in a million times? An image that cannot
    be read is reported on stderr, the others are read all the same, and the exit code is 2.

    A deepencoder gives a page's tokens, a captioner an image's reconstruction and caption. For a foveated model IMAGE
    is a clip: a video, an animated image or a folder of frames. What they write goes to the folder of --output.

    \b
    Example:
      toolkit run marked.jpg --expect 0123456789abcdef
      toolkit run page.png -m deepencoder --mode gundam
      toolkit run clip.mp4 -m foveated --query deep
    """
    from toolkit.cli.console import chosen_bundle

    if variant is not None:
        if model is None:
            raise click.UsageError("--variant goes with --model", ctx)
        model = f"{model}-{variant}"
    opened = chosen_bundle(model, bundle)
    kind = opened.model["kind"]
    if kind not in KINDS:
        raise click.UsageError(
            f"{opened.folder}: models of kind {kind!r} are not run; there is {', '.join(KINDS)}", ctx
        )
    names = {option.name for option in KINDS[kind].OPTIONS}
    for name in own:
        if name not in names and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            others = [other for other, module in KINDS.items() if name in {option.name for option in module.OPTIONS}]
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option} is for {' and '.join(others)} models, and this is a {kind}", ctx)
    request = RunRequest(opened, images, backend, precision, threads, as_json)
    KINDS[kind].run(ctx, request, **{name: value for name, value in own.items() if name in names})
