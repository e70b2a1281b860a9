"""`lifecycle config`."""

from typing import Annotated

import typer

from lifecycle.cli.output import show_facts, show_json
from lifecycle.cli.scope import scope_of

app = typer.Typer(no_args_is_help=True)


@app.command()
def show(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as it does anyway.")] = False,  # noqa: ARG001
) -> None:
    """Print the configuration in force, passwords hidden, as JSON."""
    show_json(scope_of(ctx).settings.redacted())


@app.command()
def check(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say whether the configuration is right; a wrong one is named with its key and what is allowed."""
    scope = scope_of(ctx)
    _ = scope.settings  # reading it is the check
    show_facts({"configuration": "ok"}, as_json=as_json or scope.as_json)
