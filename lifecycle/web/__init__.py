"""The HTTP API and the dashboard: `create_app` makes the ASGI application, `WebServer` serves it."""

from lifecycle.web.app import create_app
from lifecycle.web.monitor import MonitorServer
from lifecycle.web.server import WebServer

__all__ = ["MonitorServer", "WebServer", "create_app"]
