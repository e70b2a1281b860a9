"""`lifecycle mcp`: sessions as tools for agents."""

from typing import Annotated, Literal

import typer

from lifecycle.cli.scope import require_file, scope_of
from lifecycle.errors import ConfigError, InvalidArgument


def mcp(
    ctx: typer.Context,
    scope: Annotated[
        Literal["read", "write", "admin"],
        typer.Option(help="Over stdio: look only, keep sessions, or prune them too. Over HTTP the key's scope counts."),
    ] = "write",
    actor: Annotated[str, typer.Option(help="Over stdio: the name for the history.")] = "mcp",
    http: Annotated[bool, typer.Option("--http", help="Serve over HTTP, at /mcp, instead of stdio.")] = False,
    host: Annotated[str | None, typer.Option(help="With --http: the address, instead of web.host.")] = None,
    port: Annotated[
        int | None, typer.Option(help="With --http: the port, instead of web.port.", min=0, max=65_535)
    ] = None,
) -> None:
    """Serve sessions as tools to agents, over the Model Context Protocol: on stdin and stdout, or over HTTP."""
    if http:
        from lifecycle.cli.serve import run_server

        run_server(ctx, {"host": host, "port": port, "mcp": True, "dashboard": False})
    if host is not None or port is not None:
        raise InvalidArgument("--host and --port go with --http")
    import anyio

    from lifecycle import migrate
    from lifecycle.log import configure_logging
    from lifecycle.operations.context import ALL

    chosen = scope_of(ctx)
    settings = chosen.settings
    configure_logging(settings.logging.level, settings.logging.format)
    require_file(settings.database.url)
    migrate.check(settings.database.url)
    try:
        from lifecycle.mcp.server import serve_stdio
    except ModuleNotFoundError as missing:
        raise ConfigError(
            "mcp", f"{missing.name} is not installed: pip install 'session-lifecycle[mcp]'", source="lifecycle mcp"
        ) from missing
    tenant = ALL if chosen.all_tenants else chosen.tenant or ""
    anyio.run(serve_stdio, settings, tenant, scope, actor)
