"""`lifecycle serve`: the HTTP API and the dashboard by themselves."""

from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

import typer

from lifecycle.cli.scope import require_file, scope_of
from lifecycle.errors import ConfigError


def serve(
    ctx: typer.Context,
    host: Annotated[str | None, typer.Option(help="The address to listen on, instead of web.host.")] = None,
    port: Annotated[int | None, typer.Option(help="The port, instead of web.port.", min=0, max=65_535)] = None,
) -> None:
    """Serve the HTTP API and the dashboard, without the worker's jobs, until it is stopped."""
    run_server(ctx, {"host": host, "port": port})


def run_server(ctx: typer.Context, web: Mapping[str, Any]) -> NoReturn:
    """Serve until it is stopped, with settings of `web` (but for those that are None) instead of the configured ones."""
    from lifecycle import migrate
    from lifecycle.log import configure_logging
    from lifecycle.settings import Settings

    settings = scope_of(ctx).settings
    given = {name: value for name, value in web.items() if value is not None}
    if given:
        sections = {name: getattr(settings, name) for name in Settings.model_fields}
        settings = Settings(**sections | {"web": settings.web.model_dump(mode="json") | given})
    configure_logging(settings.logging.level, settings.logging.format)
    require_file(settings.database.url)
    migrate.check(settings.database.url)
    try:
        from lifecycle.web import WebServer
    except ModuleNotFoundError as missing:
        raise ConfigError(
            "web", f"{missing.name} is not installed: pip install 'session-lifecycle[web]'", source="lifecycle serve"
        ) from missing
    raise typer.Exit(0 if WebServer(settings).run() else 1)
