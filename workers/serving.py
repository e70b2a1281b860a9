"""What a daemon serves over HTTP: the API and the dashboard in `lifecycle up`, and how it is, on a port of its own."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from lifecycle import SessionManager, Settings
from lifecycle.log import get_logger
from lifecycle.upkeep import Upkeep

if TYPE_CHECKING:
    from lifecycle.web import WebServer

log = get_logger(__name__)

# The scheduler has something to do every second; when it has not done it for so long, it hangs.
_HANGS_AFTER: Final = 15.0


def web_server(settings: Settings, manager: SessionManager, upkeep: Upkeep) -> "WebServer | None":
    """The server of the API and the dashboard, not yet started; None where the extra `web` is missing.

    The address is taken here, or refused with `ConfigError`.
    """
    try:
        from lifecycle.web import WebServer
    except ModuleNotFoundError as missing:
        _say_missing(missing)
        return None
    _export_pool(settings, manager)
    return WebServer(settings, lambda: _hanging(upkeep))


@contextlib.contextmanager
def monitored(settings: Settings, manager: SessionManager, upkeep: Upkeep) -> Iterator[None]:
    """Serve `/metrics`, `/livez` and `/readyz` on `worker.port`, if there is one. Raises `ConfigError`."""
    if settings.worker.port is None:
        yield
        return
    try:
        from lifecycle.web import MonitorServer
    except ModuleNotFoundError as missing:
        _say_missing(missing)
        yield
        return
    _export_pool(settings, manager)
    server = MonitorServer(settings, lambda: _hanging(upkeep))
    server.start()
    try:
        yield
    finally:
        server.stop()


def _hanging(upkeep: Upkeep) -> str | None:
    late = upkeep.since_tick
    return None if late < _HANGS_AFTER else f"the worker's scheduler has not ticked for {late:.0f} seconds"


def _export_pool(settings: Settings, manager: SessionManager) -> None:
    if settings.web.metrics != "off":
        from lifecycle import metrics

        metrics.of_process().add_pool("worker", manager._driver)  # noqa: SLF001 -- the manager's own connections


def _say_missing(missing: ModuleNotFoundError) -> None:
    log.warning("not_serving", missing=missing.name, install="pip install 'session-lifecycle[web]'")
