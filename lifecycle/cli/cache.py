"""`lifecycle cache`."""

from typing import Annotated

import typer

from lifecycle.cli.output import show_facts
from lifecycle.cli.scope import scope_of

app = typer.Typer(no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def check(ctx: typer.Context, as_json: _Json = False) -> None:
    """Say whether the cache can be used, what the database is called in it, and how long an answer takes."""
    _show(ctx, "check", as_json)


@app.command()
def clear(ctx: typer.Context, as_json: _Json = False) -> None:
    """Outdate all that is cached of this database, for all processes: after a backup was restored, say."""
    _show(ctx, "clear", as_json)


def _show(ctx: typer.Context, what: str, as_json: bool) -> None:
    from lifecycle.cache import clearing

    scope = scope_of(ctx)
    health = getattr(clearing, what)(scope.settings)
    facts = {
        "cache": "ok" if what == "check" else "cleared",
        "url": health.url,
        "namespace": health.namespace,
        "round_trip_ms": round(health.round_trip * 1000, 3),
    }
    show_facts(facts, as_json=as_json or scope.as_json)
