"""The dashboard: pages for the person on call, made on the server, with a little script for what moves."""

from lifecycle.web.dashboard.mounting import mount

__all__ = ["mount"]
