"""The command `toolkit setup-converter`."""

from pathlib import Path

import click


@click.command("setup-converter")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Folder of the environment, new or empty.")
def setup_converter(folder: Path | None) -> None:
    """Make the environment that `toolkit convert` calls, with exactly the tested versions of its tools.

    It needs Python 3.12 or newer, an index that pip can reach, about 3 GB and a few minutes. Where it is there
    already, nothing is done. TOOLKIT_CONVERTER=PYTHON names another environment than the default.

    \b
    Example:
      toolkit setup-converter
    """
    from toolkit import environments
    from toolkit.cli.console import working

    target = folder or environments.default_folder()
    if environments.is_complete(target):
        click.echo(f"{target} is ready", err=True)
        return
    with working("setup-converter") as progress:
        python = environments.setup_converter(target, progress.say, progress.step)
    if target == environments.default_folder():
        click.echo(f"{target} is ready", err=True)
    else:
        click.echo(f"{target} is ready: export {environments.CONVERTER_VARIABLE}={python}", err=True)
