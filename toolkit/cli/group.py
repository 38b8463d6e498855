"""What every command shares: it is imported on first use, and a failure ends in one line and an exit code."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from backends.errors import ToolkitError

BAD_INPUT = 2  # also what click gives a wrong option

INTERRUPTED = 130  # 128 + SIGINT, as shells say it

BROKEN_PIPE = 141  # 128 + SIGPIPE: whoever read our output stopped


class CommandGroup(click.Group):
    """A group whose commands live one a module, named `module:function` with the line that `--help` shows.

    The line stands in the table so that listing the commands imports none of them.
    """

    def __init__(self, table: dict[str, tuple[str, str]], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order a user meets them."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None if there is no such name."""
        if cmd_name not in self.table:
            return None
        module, attribute = self.table[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])

    def main(self, *arguments: Any, **options: Any) -> NoReturn:
        """Run, and leave with 0 (done), 1 (a negative judgement), 2 (bad usage or input), 130 or 141."""
        try:
            # Without standalone mode click hands errors over, and the code of ctx.exit() as the result.
            code = super().main(*arguments, **(options | {"standalone_mode": False}))
        except SystemExit as left:
            # Our commands leave through ctx.exit(). click and rich leave with 1, a negative judgement with us, when
            # the reader of stdout is gone.
            sys.exit(BROKEN_PIPE if left.code == 1 else left.code)
        except (click.Abort, KeyboardInterrupt):
            _leave("interrupted", INTERRUPTED)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(BAD_INPUT)
        except click.UsageError as error:
            helped = f"; see `{error.ctx.command_path} --help`" if error.ctx else ""
            _leave(f"error: {error.format_message().rstrip('.')}{helped}", BAD_INPUT)
        except click.ClickException as error:
            _leave(f"error: {error.format_message()}", BAD_INPUT)
        except (ToolkitError, OSError) as error:
            _leave(f"error: {error}", BAD_INPUT)
        sys.exit(code if isinstance(code, int) else 0)


def _leave(line: str, code: int) -> NoReturn:
    click.echo(" ".join(line.split()), err=True)
    sys.exit(code)


class Target(click.Path):
    """A file that will be written. A folder that is missing, or one in the file's place, is said at once."""

    def __init__(self, or_folder: bool = False) -> None:
        super().__init__(path_type=Path)
        self._or_folder = or_folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail in click's way."""
        path = Path(str(super().convert(value, param, ctx)))
        if path.is_dir() and not self._or_folder:
            self.fail(f"{path}: expected a file name, got a folder", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"{path}: there is no folder {path.parent}", param, ctx)
        return path
