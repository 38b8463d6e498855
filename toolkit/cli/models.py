"""The command `toolkit models`."""

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def models(as_json: bool) -> None:
    """List the models that `toolkit export` can make.

    \b
    Example:
      toolkit models
    """
    from toolkit.models.kind import all_models

    if as_json:
        for spec in all_models().values():
            click.echo(json.dumps(spec.description | {"graphs": spec.roles, "summary": spec.summary}))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("model", "kind", "graphs", "what it is")
    for spec in all_models().values():
        table.add_row(spec.name, spec.description["kind"], ", ".join(spec.roles), spec.summary)
    Console().print(table)
