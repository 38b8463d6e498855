"""The group of commands, which imports each on first use and ends failures in one line and an exit code; and the type
of options that name a file to write."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from backends.errors import ToolkitError

BAD_INPUT = 2  # also click's code for a wrong option
INTERRUPTED = 130  # 128 + SIGINT, as in shells
BROKEN_PIPE = 141  # 128 + SIGPIPE: the reader of our output has stopped


class CommandGroup(click.Group):
    """A group of commands, each in a module that is imported on first use.

    table: by name, the command as "module:function" and the line that `--help` shows. The line is in the table so that
    listing the commands imports none of them.
    """

    def __init__(self, table: dict[str, tuple[str, str]], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or return None if there is no such name."""
        if cmd_name not in self.table:
            return None
        module, attribute = self.table[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])

    def main(self, *arguments: Any, **options: Any) -> NoReturn:
        """Run a command, and exit with 0 (done), 1 (negative judgement), 2 (bad usage or input), 130 or 141."""
        try:
            # Without standalone mode click raises its errors, and returns the code of ctx.exit().
            code = super().main(*arguments, **(options | {"standalone_mode": False}))
        except SystemExit as left:
            # Our commands exit through ctx.exit(). If the reader of stdout is gone, click and rich exit with 1, which
            # would mean a negative judgement here.
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
    """The type of options that name a file to write. A missing folder, or a folder in the file's place, is an error.

    or_folder: whether the path may be a folder.
    """

    def __init__(self, or_folder: bool = False) -> None:
        super().__init__(path_type=Path)
        self._or_folder = or_folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail as click's types do."""
        path = Path(str(super().convert(value, param, ctx)))
        if path.is_dir() and not self._or_folder:
            self.fail(f"{path}: expected a file name, got a folder", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"{path}: there is no folder {path.parent}", param, ctx)
        return path
