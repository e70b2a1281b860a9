"""`lifecycle archive`: what was written there before it was removed."""

import itertools
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.cli.output import say, show_facts, show_json, show_rows
from lifecycle.cli.scope import Scope, require_file, scope_of
from lifecycle.cli.values import parse_when
from lifecycle.errors import ConfigError, InvalidArgument

if TYPE_CHECKING:
    from lifecycle.archive.store import Archive

app = typer.Typer(no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_COLUMNS = ("archived_at", "session_id", "kind", "state", "title", "message_count", "reason", "file")


@app.command("list")
def list_(
    ctx: typer.Context,
    session_id: Annotated[str | None, typer.Option("--id", help="Copies of this one only.")] = None,
    kind: Annotated[str | None, typer.Option()] = None,
    user_id: Annotated[str | None, typer.Option("--user")] = None,
    since: Annotated[
        str | None, typer.Option(help="Archived since; such as 2026-11-21T07:00Z, or 2h for 2 hours ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Archived until; likewise.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    as_json: Json = False,
) -> None:
    """List the sessions in the archive, those removed last first."""
    scope = scope_of(ctx)
    entries = _archive(scope).entries(
        tenant=None if scope.all_tenants else scope.tenant or "", session_id=session_id, kind=kind, user_id=user_id,
        since=parse_when(since, "--since"), until=parse_when(until, "--until"),
    )  # fmt: skip
    found = [entry.as_dict() for entry in itertools.islice(entries, limit + 1)]
    columns = ("tenant", *_COLUMNS) if scope.all_tenants else _COLUMNS
    show_rows(found[:limit], columns, as_json=as_json or scope.as_json)
    if len(found) > limit:
        say(f"there are more: --limit {limit * 10}, or --until the oldest of these")


@app.command()
def show(
    ctx: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The session.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every row.")] = False,
) -> None:
    """Show a session of the archive, its newest copy."""
    scope = scope_of(ctx)
    archive = _archive(scope)
    entry = archive.find(_tenant(scope), session_id)
    rows: dict[str, list[Any]] = {}
    with_rows = as_json or scope.as_json
    counts: dict[str, int] = {}
    for line in archive.lines(entry):
        counts[line.name] = counts.get(line.name, 0) + 1
        if with_rows:
            rows.setdefault(line.name, []).append(line.row)
    if with_rows:
        show_json(entry.as_dict() | {"rows": rows})
    else:
        show_facts(entry.as_dict() | {"rows": counts}, as_json=False)


@app.command()
def restore(
    ctx: typer.Context,
    session_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The sessions.")],
    actor: Annotated[str | None, typer.Option(help="Who; it stands in the history.")] = None,
    as_json: Json = False,
) -> None:
    """Bring sessions back, each from its newest copy; one that exists is an error. They stay in the archive."""
    from lifecycle.archive.restoring import restore as bring_back
    from lifecycle.cli import quiet
    from lifecycle.operations.context import check_text

    scope = scope_of(ctx)
    settings = scope.settings
    quiet.prepare(settings.logging)
    require_file(settings.database.url)
    if actor is not None:
        check_text(actor, "--actor", settings.limits.id_chars)
    archive = _archive(scope)
    entries = [archive.find(_tenant(scope), session_id) for session_id in dict.fromkeys(session_ids)]
    done = []
    for entry in entries:
        row = bring_back(settings.database.url, archive, entry, settings.policy_set, actor=actor)
        done.append({name: row[name] for name in ("session_id", "state", "version", "prune_at")} | {"file": entry.file})
        if len(entries) > 1 and not (as_json or scope.as_json):
            say(f"restored {entry.session_id!r}")
    show_rows(done, ("session_id", "state", "version", "prune_at", "file"), as_json=as_json or scope.as_json)


def _archive(scope: Scope) -> "Archive":
    from lifecycle.archive.store import Archive

    section = scope.settings.archive
    if section.directory is None:
        raise ConfigError("archive.directory", "is not set, so there is no archive; set it to a directory")
    return Archive(section.directory, section.compression)


def _tenant(scope: Scope) -> str:
    if scope.all_tenants:
        raise InvalidArgument("--all-tenants is for lists and sweeps; name the session's tenant with --tenant")
    return scope.tenant or ""
