"""Lifecycle's session service for Google ADK, used as ADK's own is: `store_adk` with another service."""

import asyncio
from typing import ClassVar

from google.adk.errors import StaleSessionError

from benchmarks.races.store_adk import Adk
from lifecycle import AsyncSessionManager
from lifecycle.adapters.adk import LifecycleSessionService


class LifecycleAdk(Adk):
    """A session for each session, its list under a key of the session's state."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (StaleSessionError,)

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._manager = AsyncSessionManager.open(url)
        self._service = LifecycleSessionService(self._manager)
        self._known = {}

    def setup(self) -> None:
        """Migrate to this release's schema."""
        self._runner.run(self._manager.setup())

    def close(self) -> None:
        """Close the manager."""
        self._runner.run(self._manager.close())
        self._runner.close()
