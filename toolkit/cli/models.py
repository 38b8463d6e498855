"""toolkit models"""

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def models(as_json: bool) -> None:
    """List the models: what `toolkit export` can make, and what each one is.

    \b
    Example:
      toolkit models
    """
    from graphs.networks.models import MODELS

    if as_json:
        for spec in MODELS.values():
            click.echo(json.dumps(spec.description | {"graphs": spec.roles, "summary": spec.summary}))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("model", "kind", "graphs", "what it is")
    for spec in MODELS.values():
        table.add_row(spec.name, spec.description["kind"], ", ".join(spec.roles), spec.summary)
    Console().print(table)
