"""`lifecycle db`: the schema of the database."""

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from lifecycle.cli.output import show_json, write
from lifecycle.cli.scope import require_file, scope_of
from lifecycle.errors import InvalidArgument

app = typer.Typer(name="db", help="The database's schema and search index.", no_args_is_help=True)

UrlOption = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The database.  [default: database.url of the configuration]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


@app.command()
def upgrade(ctx: typer.Context, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Bring the database to this release; does nothing when it is there. Safe to run several times at once."""
    from lifecycle import migrate

    where = _url(ctx, url)
    before = migrate.current(where)
    migrate.upgrade(where)
    after = migrate.current(where)
    text = f"already at revision {after}" if before == after else f"upgraded from {before or 'nothing'} to {after}"
    _show(ctx, {"before": before, "after": after, "changed": before != after}, text, as_json=as_json)


@app.command()
def downgrade(
    ctx: typer.Context,
    revision: Annotated[str, typer.Argument(help="A revision, -1 for the one before, or base for no tables at all.")],
    url: UrlOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take the database back to an earlier revision. The data in the tables this drops is lost."""
    from lifecycle import migrate
    from lifecycle.log import mask_passwords

    where = _url(ctx, url)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Take {mask_passwords(where)} back to {revision}, and lose what it drops?", abort=True, err=True)
    before = migrate.current(where)
    migrate.downgrade(where, revision)
    after = migrate.current(where)
    text = f"downgraded from {before or 'nothing'} to {after or 'nothing'}"
    _show(ctx, {"before": before, "after": after, "changed": before != after}, text, as_json=as_json)


@app.command()
def check(ctx: typer.Context, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Fail, and say what to do, unless the database has the schema of this release."""
    from lifecycle import migrate

    migrate.check(_url(ctx, url))
    _show(
        ctx, {"revision": migrate.head(), "ok": True}, f"at revision {migrate.head()}, as it should be", as_json=as_json
    )


@app.command()
def sql(ctx: typer.Context, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Print the SQL that creates the schema on this kind of database, without connecting to it."""
    from lifecycle import migrate

    text = migrate.sql(_url(ctx, url, connects=False))
    _show(ctx, {"sql": text}, text.rstrip(), as_json=as_json)


@app.command()
def current(ctx: typer.Context, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Print the revision that the database is at, and that of this release."""
    from lifecycle import migrate

    at = migrate.current(_url(ctx, url))
    _show(
        ctx,
        {"current": at, "head": migrate.head()},
        f"{at or 'nothing'} (this release: {migrate.head()})",
        as_json=as_json,
    )


@app.command("search-index")
def set_search_index(
    ctx: typer.Context,
    switch: Annotated[Switch, typer.Argument(help="on builds the index, off drops it.")],
    url: UrlOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Build or drop the search index on messages, and say what it costs."""
    from lifecycle import search_index

    report = search_index.set_search_index(_url(ctx, url, exists=True), switch is Switch.ON)
    done = switch.value if report["changed"] else f"already {switch.value}"
    text = f"search index {done}: {report['bytes']:,} bytes, {report['seconds']} s; {report['cost']}"
    _show(ctx, report, text, as_json=as_json)


class RowSecurity(StrEnum):
    """What to do about row-level security."""

    ON = "on"
    OFF = "off"
    STATUS = "status"


@app.command("row-security")
def set_row_security(
    ctx: typer.Context,
    switch: Annotated[RowSecurity, typer.Argument(help="on or off for a role, or status for what holds.")],
    url: UrlOption = None,
    *,
    role: Annotated[
        str | None, typer.Option(help="The role that the HTTP API connects as; not the tables' owner.")
    ] = None,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Let it see everybody's rows where a manager of all tenants asks.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """On PostgreSQL, have row-level security back the tenant's filter for a role. Run it as the owner of the tables."""
    from lifecycle import row_security

    where = _url(ctx, url, exists=True)
    if (role is None) != (switch is RowSecurity.STATUS):
        raise InvalidArgument("--role: name the role to put it on or off for; status takes none")
    if role is None:
        report = row_security.row_security(where)
    else:
        report = row_security.set_row_security(where, role, switch is RowSecurity.ON, all_tenants=all_tenants)
    lines = [f"row security {'on' if report['on'] else 'off'}"]
    if report["on"]:
        lines.append(
            f"for {', '.join(report['roles'])}; everybody's rows for {', '.join(report['all_tenants']) or 'none'}"
        )
    if not report["complete"]:
        lines.append("some tables are without it: run `lifecycle db row-security on` again for each role")
    if report["left_out"]:
        lines.append(f"see nothing now, as they may read but are not under it: {', '.join(report['left_out'])}")
    _show(ctx, report, "\n".join(lines), as_json=as_json)


@app.command()
def distribute(
    ctx: typer.Context,
    url: UrlOption = None,
    *,
    shards: Annotated[
        int | None, typer.Option(help="Parts of each table, for good.  [default: the server's citus.shard_count]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL, and change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """On Citus, spread sessions with all they own over the nodes. Nothing may use the tables meanwhile."""
    from lifecycle import distribute as distributing

    report = distributing.distribute(_url(ctx, url, exists=True), shards=shards, dry_run=dry_run)
    if dry_run:
        text = "\n".join(f"{statement};" for statement in report["statements"]) or "-- all is distributed already"
    elif report["changed"]:
        names = ", ".join(report["distributed"])
        text = f"distributed by {report['column']}: {names}\non the coordinator: {', '.join(report['on_coordinator'])}"
    else:
        text = f"already distributed by {report['column']}: {', '.join(report['already'])}"
    _show(ctx, report, text, as_json=as_json)


def _url(ctx: typer.Context, url: str | None, *, exists: bool = False, connects: bool = True) -> str:
    """The URL to work on; a configuration that is not needed is not read."""
    from lifecycle.cli import quiet

    scope = scope_of(ctx)
    quiet.prepare(None if url is not None else scope.settings.logging)
    where = scope.settings.database.url if url is None else url
    if connects:
        require_file(where, exists=exists)
    return where


def _show(ctx: typer.Context, report: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json or scope_of(ctx).as_json:
        show_json(report)
    else:
        write(text + "\n")
