"""The option --judge of the commands that judge imported graphs, or keep how they are judged."""

from collections.abc import Callable
from typing import Any

import click

from toolkit.metrics.task import JUDGES, JudgeChoice


def judge_option(more: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator that gives a command the option --judge: its argument `judge` is a JudgeChoice or None.

    more: a sentence at the end of the help.
    """

    def read(ctx: click.Context, option: click.Parameter, text: str | None) -> JudgeChoice | None:
        return None if text is None else JudgeChoice.parse(text)

    return click.option(
        "--judge",
        metavar="NAME[=SETTING][:OUTPUT,...]",
        callback=read,
        help=f"The answers of an imported graph to judge by: {', '.join(JUDGES.names)}. {more}",
    )
