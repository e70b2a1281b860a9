"""`lifecycle sessions stuck`: what nobody seems to get on with, and why."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.cli.output import show_rows
from lifecycle.cli.scope import scope_of
from lifecycle.durations import parse_duration
from lifecycle.errors import InvalidArgument

if TYPE_CHECKING:
    from lifecycle.models.reads import Session

_OFTEN = 2
_COLUMNS = (
    "why",
    "session_id",
    "kind",
    "state",
    "attempts",
    "rescues",
    "lease_holder",
    "lease_expires_at",
    "available_at",
)


def stuck(
    ctx: typer.Context,
    silent_for: Annotated[str, typer.Option(help="Held without a beat, or due without a runner, for so long.")] = "1m",
    limit: Annotated[int, typer.Option(help="At most so many of each.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List sessions that are held but silent, due but unclaimed, or rescued often. Exits with 1 if there are any."""
    try:
        seconds = parse_duration(silent_for)
    except ValueError as error:
        raise InvalidArgument(f"--silent-for: {error}") from error
    scope = scope_of(ctx)
    since = datetime.now(UTC) - timedelta(seconds=seconds or 0)
    rows: list[dict[str, Any]] = []
    with scope.manager() as manager:
        for why, where in _conditions(since).items():
            page = manager.list_sessions(where=where, sort="last_active_at", order="asc", limit=limit)
            rows += [{"why": why, **_fields(session)} for session in page.items]
    show_rows(rows, _COLUMNS, as_json=as_json or scope.as_json)
    if rows:
        raise typer.Exit(1)


def _conditions(since: datetime) -> dict[str, Any]:
    import sqlalchemy as sa

    from lifecycle import states
    from lifecycle.models import tables as t

    columns = t.sessions.c
    live = columns.state.in_(states.LIVE)
    return {
        "held but silent": sa.and_(live, columns.lease_holder.is_not(None), columns.lease_expires_at <= since),
        "due but unclaimed": sa.and_(columns.state == "active", columns.available_at <= since),
        "rescued often": sa.and_(live, columns.rescues >= _OFTEN),
    }


def _fields(session: "Session") -> dict[str, Any]:
    return {name: getattr(session, name) for name in _COLUMNS if name != "why"}
