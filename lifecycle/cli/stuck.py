"""`lifecycle sessions stuck`: what nobody seems to get on with, and why."""

from typing import Annotated

import typer

from lifecycle.cli.output import show_rows
from lifecycle.cli.scope import scope_of

_COLUMNS = ("session_id", "kind", "state", "attempts", "rescues", "lease_holder", "lease_expires_at", "available_at")


def stuck(
    ctx: typer.Context,
    silent_for: Annotated[str, typer.Option(help="Held without a beat, or due without a runner, for so long.")] = "1m",
    limit: Annotated[int, typer.Option(help="At most so many of each.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List sessions that are held but silent, due but unclaimed, or rescued often. Exits with 1 if there are any."""
    scope = scope_of(ctx)
    with scope.manager() as manager:
        found = manager.list_stuck(silent_for=silent_for, limit=limit)
    rows = [{"why": one.why} | {name: getattr(one.session, name) for name in _COLUMNS} for one in found]
    show_rows(rows, ("why", *_COLUMNS), as_json=as_json or scope.as_json)
    if rows:
        raise typer.Exit(1)
