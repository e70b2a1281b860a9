"""`lifecycle keys`: who may use the HTTP API and the dashboard."""

from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.cli.output import say, show_facts, show_rows, write
from lifecycle.cli.scope import Scope, scope_of
from lifecycle.errors import InvalidArgument

if TYPE_CHECKING:
    from lifecycle.manager.blocking import SessionManager

app = typer.Typer(no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Tenant = Annotated[str | None, typer.Option(help="Whose sessions it opens, as --tenant before the command.")]
AllTenants = Annotated[bool, typer.Option("--all-tenants", help="Everybody's, as before the command.")]
_COLUMNS = ("key_id", "name", "tenant", "scope", "state", "created_at", "expires_at", "last_used_at")


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Who uses it or for what; it stands in the history as the actor.")],
    scope: Annotated[str, typer.Option(help="read, write or admin; each holds those before it.")] = "read",
    expires: Annotated[
        str | None, typer.Option(help="After how long it opens nothing, such as 90d; never without.")
    ] = None,
    tenant: Tenant = None,
    all_tenants: AllTenants = False,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once: only a digest of it is kept."""
    with _manager(scope_of(ctx), tenant, all_tenants=all_tenants) as manager:
        made = manager.create_key(name, scope, expires_in=expires)
    if as_json or scope_of(ctx).as_json:
        show_facts(made, as_json=True)
        return
    say(f"key {made.key_id} for {_whose(made.tenant)}, scope {made.scope}; it is shown this once:")
    write(made.key + "\n")


@app.command("list")
def list_(ctx: typer.Context, tenant: Tenant = None, all_tenants: AllTenants = False, as_json: Json = False) -> None:
    """List the keys, everybody's unless --tenant says whose, without their secrets: revoked and expired ones too."""
    from datetime import UTC, datetime

    from lifecycle.cli.output import plain

    named = tenant is not None or scope_of(ctx).tenant is not None
    with _manager(scope_of(ctx), tenant, all_tenants=all_tenants or not named) as manager:
        found = manager.list_keys()
    if as_json or scope_of(ctx).as_json:
        show_rows(found, (), as_json=True)
        return
    now = datetime.now(UTC)
    rows = []
    for key in found:
        state = "expired" if key.expires_at is not None and key.expires_at <= now else "good"
        rows.append(
            plain(key) | {"tenant": _whose(key.tenant), "state": "revoked" if key.revoked_at is not None else state}
        )
    show_rows(rows, _COLUMNS, as_json=False)


@app.command()
def revoke(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="Its id, as `lifecycle keys list` shows it.")],
    as_json: Json = False,
) -> None:
    """Revoke a key for good; whoever serves the API notices within two seconds."""
    if key_id.startswith("lc_"):
        raise InvalidArgument("KEY_ID is the part between the underscores of a key, not the key: do not show it around")
    scope = scope_of(ctx)
    with _manager(scope, None, all_tenants=scope.tenant is None) as manager:
        show_facts(manager.revoke_key(key_id), as_json=as_json or scope.as_json)


def _manager(scope: Scope, tenant: str | None, *, all_tenants: bool) -> "SessionManager":
    if (tenant is not None or scope.tenant is not None) and (all_tenants or scope.all_tenants):
        raise InvalidArgument("--tenant and --all-tenants exclude each other; pass one of them")
    own = Scope(
        scope.config_file, scope.url, scope.tenant if tenant is None else tenant, all_tenants or scope.all_tenants,
        scope.as_json,
    )  # fmt: skip
    return own.manager()


def _whose(tenant: str | None) -> str:
    return "all tenants" if tenant is None else f"tenant {tenant!r}"
