"""`lifecycle runner`: handlers from a module, run until they are stopped."""

import contextlib
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.errors import ConfigError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.settings import Settings

NOT_DRAINED = 75


def runner(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:NAME", help="Where the SessionRunner is, as in agents:runner.")
    ],
    until_idle: Annotated[bool, typer.Option("--until-idle", help="Stop when nothing waits any more.")] = False,
    monitor: Annotated[
        int | None,
        typer.Option(help="Serve /metrics, /livez and /readyz on this port of worker.host.", min=0, max=65_535),
    ] = None,
) -> None:
    """Run the handlers of a SessionRunner until SIGTERM or Ctrl-C; a second one stops at once."""
    from lifecycle.log import configure_logging
    from lifecycle.runner import SessionRunner

    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise InvalidArgument(f"name the runner as MODULE:NAME, as in agents:runner; not {target!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise InvalidArgument(f"there is no module {module_name!r} here or installed") from error
    found = getattr(module, name, None)
    if not isinstance(found, SessionRunner):
        kind = "nothing" if found is None else type(found).__name__
        raise InvalidArgument(f"{target} must be a SessionRunner; it is {kind}")
    logging = found.manager.settings.logging
    configure_logging(logging.level, logging.format)
    with _monitored(found.manager.settings, monitor), found:
        raise typer.Exit(0 if found.run(until_idle=until_idle) else NOT_DRAINED)


@contextlib.contextmanager
def _monitored(settings: "Settings", port: int | None) -> "Iterator[None]":
    """Say how the process is on a port, if one is given. Raises `ConfigError`."""
    if port is None:
        yield
        return
    try:
        from lifecycle.web import MonitorServer
    except ModuleNotFoundError as missing:
        raise ConfigError(
            "web", f"{missing.name} is not installed: pip install 'session-lifecycle[web]'", source="lifecycle runner"
        ) from missing
    worker = settings.worker.model_copy(update={"port": port})
    server = MonitorServer(settings.model_copy(update={"worker": worker}))
    server.start()
    try:
        yield
    finally:
        server.stop()
