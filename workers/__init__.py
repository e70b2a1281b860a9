"""The daemon: a process that runs the cleanup jobs for all tenants of a database."""

from workers.daemon import Daemon, run

__all__ = ["Daemon", "run"]
