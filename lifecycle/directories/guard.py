"""Which sessions are never removed from disk, unless forced."""

import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from lifecycle.directories.layout import database_id

_LIFE: Final = re.compile("~[0-9]+$")
CALLER: Final = "LIFECYCLE_SESSION_ID"
"""The environment variable that names the session in which a command runs."""


class Guard:
    """Knows what is protected: the agents' main sessions, the caller's own, and what is listed."""

    def __init__(self, protected: Iterable[str], *, force: bool = False) -> None:
        # A session's later lives have ids of their own in the database: `a:1~2` is `a:1` on disk.
        self._protected = [pattern for given in protected for pattern in {given, _LIFE.sub("", given)}]
        self._caller = _LIFE.sub("", os.environ.get(CALLER) or "") or None
        self._force = force

    def reason(self, agent_id: str, session_id: str, keys: Iterable[str]) -> str | None:
        """Why a session may not be removed; None if it may. The caller's own is named by id or by key."""
        if self._force:
            return None
        keys = list(keys)
        names = (session_id, database_id(agent_id, session_id), *keys)
        if f"agent:{agent_id}:main" in keys:
            return f"it is the main session of agent {agent_id}"
        if self._caller in names:
            return f"it is the session this runs in ({CALLER})"
        for pattern in self._protected:
            if any(name == pattern or fnmatchcase(name, pattern) for name in names):
                return f"it is protected ({pattern})"
        return None
