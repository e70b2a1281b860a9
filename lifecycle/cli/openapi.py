"""`lifecycle openapi`: the HTTP API's document, as the server has it at /api/v1/openapi.json."""

from typing import Annotated

import typer

from lifecycle.cli.output import show_json
from lifecycle.cli.scope import scope_of


def openapi(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as it does anyway.")] = False,  # noqa: ARG001
) -> None:
    """Print the OpenAPI document of the HTTP API, without a server or a database."""
    from lifecycle.errors import ConfigError

    try:
        from lifecycle.web import create_app
    except ModuleNotFoundError as missing:
        raise ConfigError(
            "web", f"{missing.name} is not installed: pip install 'session-lifecycle[web]'", source="lifecycle openapi"
        ) from missing
    show_json(create_app(scope_of(ctx).settings).openapi())
