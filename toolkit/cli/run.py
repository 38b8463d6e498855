"""The command `toolkit run`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from backends.plugins import entry_points_of
from backends.precision import RECIPES
from toolkit.models.command import RunRequest
from toolkit.models.kind import KINDS, ModelKind, all_kinds


def _list(names: Iterable[str], last: str) -> str:
    """Return names as a sentence lists them, such as "a, b or c", with `last` before the last name."""
    *first, end = names
    return f"{', '.join(first)} {last} {end}" if first else end


def _own_options(kinds: Iterable[ModelKind]) -> dict[str, tuple[click.Option, tuple[str, ...]]]:
    """Return the options of the kinds by name, each with the names of the kinds that have it."""
    found: dict[str, tuple[click.Option, tuple[str, ...]]] = {}
    for kind in kinds:
        for option in kind.options():
            assert option.name is not None  # click names an option by its first long form
            first, others = found.get(option.name, (option, ()))
            found[option.name] = (first, (*others, kind.name))
    return found


class _RunCommand(click.Command):
    """The command `run`, which has the options of every installed kind of model. `--help` lists the kinds, and the
    options of each kind under its name."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.own = _own_options(all_kinds())
        self.params += [option for option, _ in self.own.values()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options that all kinds have, then those of each kind or group of kinds."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None:
                _, kinds = self.own.get(parameter.name or "", (None, ()))
                title = f"Options for {_list(kinds, 'and')} models" if kinds else "Options"
                sections.setdefault(title, []).append(record)
        sections["Kinds of models"] = [(kind.name, kind.summary) for kind in all_kinds() if kind.is_run]
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


@click.command(cls=_RunCommand)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-m", "--model", metavar="MODEL", help="A bundle by name: build/MODEL, else ours.  [default: pocketseal]")
@click.option("--variant", metavar="NAME", help="Of a model that has several: -m captioner --variant small.")
@click.option("--bundle", type=click.Path(path_type=Path), metavar="DIR", help="A bundle by its folder.")
@click.option(
    "-b",
    "--backend",
    default="ort",
    show_default=True,
    help=f"{_list(entry_points_of('seal_toolkit.backends', 'backend'), 'or')}.",
)
@click.option("-p", "--precision", default="fp32", show_default=True, help=f"{_list(RECIPES, 'or')}.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: the cores this process may use.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each image, and nothing else.")
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
    is a clip: a video, an animated image or a folder of frames. Their files go to the folder of --output.

    \b
    Example:
      toolkit run marked.jpg --expect 0123456789abcdef
      toolkit run page.png -m deepencoder --mode gundam
      toolkit run clip.mp4 -m foveated --query deep
    """
    from toolkit.cli.console import chosen_bundle, tracked, warn_if_random

    if variant is not None:
        if model is None:
            raise click.UsageError("--variant goes with --model", ctx)
        model = f"{model}-{variant}"
    opened = chosen_bundle(model, bundle)
    name = opened.model["kind"]
    kind = KINDS.load(name) if name in KINDS.names else None
    if kind is None or not kind.is_run:
        known = ", ".join(other.name for other in all_kinds() if other.is_run)
        raise click.UsageError(f"{opened.folder}: models of kind {name!r} are not run; there is {known}", ctx)
    options = _own_options(all_kinds())
    for key in own:
        owners = options[key][1]
        if name not in owners and ctx.get_parameter_source(key) is ParameterSource.COMMANDLINE:
            option = key.replace("_", "-")
            raise click.UsageError(f"--{option} is for {_list(owners, 'and')} models, and this is a {name}", ctx)
    request = RunRequest(opened, images, backend, precision, threads, as_json, warn_if_random, tracked)
    kind.run(ctx, request, **{key: value for key, value in own.items() if name in options[key][1]})
