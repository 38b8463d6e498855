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
    from graphs.spec import MODELS

    if as_json:
        for spec in MODELS.values():
            click.echo(json.dumps(spec.description | {"summary": spec.summary}))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("model", "bits", "image", "what it is")
    for spec in MODELS.values():
        side = spec.description["image_size_px"]
        table.add_row(spec.name, str(spec.description["bits"]), f"{side} x {side}", spec.summary)
    Console().print(table)
