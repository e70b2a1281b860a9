"""`lifecycle policies`."""

from typing import Annotated

import typer

from lifecycle.cli.output import show_facts, show_rows
from lifecycle.cli.scope import scope_of

app = typer.Typer(no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the limits of every kind that has its own, and the default."""
    from dataclasses import fields

    scope = scope_of(ctx)
    known = scope.settings.policy_set
    names = [field.name for field in fields(known.default)]
    rows = [
        {"kind": kind, **{name: _written(name, getattr(policy, name)) for name in names}}
        for kind, policy in (("(default)", known.default), *known.kinds.items())
    ]
    show_rows(rows, ("kind", *names), as_json=as_json or scope.as_json)


def _written(name: str, limit: int | None) -> str | int:
    """A limit as the configuration has it: a number of checkpoints, all else durations."""
    from lifecycle.durations import format_duration
    from lifecycle.policies import COUNTS

    if name in COUNTS:
        return "all" if limit is None else limit
    return format_duration(limit)


@app.command()
def apply(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Stamp the deadlines of the sessions that are there anew, after a change of the policies."""
    scope = scope_of(ctx)
    with scope.manager() as manager:
        changed = manager.apply_policies(dry_run=dry_run)
    show_facts({"changed": changed, "dry_run": dry_run}, as_json=as_json or scope.as_json)
