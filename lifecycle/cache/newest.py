"""The newest versions that this process has seen: what the cache says that is older is not believed."""

import sys
import threading
from typing import Final

Seen = int | None

# Newer than any version: the session was not there, so nothing that the cache says of it is believed.
GONE: Final = sys.maxsize


class Newest:
    """Versions by kind of entry and session, for the `size` that changed last."""

    def __init__(self, size: int = 65_536) -> None:
        self._size = size
        self._guard = threading.Lock()
        self._versions: dict[bytes, int] = {}

    def get(self, key: bytes) -> Seen:
        """The newest version seen, `GONE`, or None for a session not known here."""
        return self._versions.get(key)

    def learn(self, key: bytes, before: Seen, version: Seen) -> None:
        """Note what the database said (None: there is nothing) to somebody who had seen `before` when he asked.

        What the database says goes, even if it is an older version: the session was made anew under its id. Only
        where another thread learnt something meanwhile, it is the newer one of both.
        """
        told = GONE if version is None else version
        with self._guard:
            now = self._versions.pop(key, None)
            self._versions[key] = told if now == before or now is None else max(now, told)
            if len(self._versions) > self._size:
                del self._versions[next(iter(self._versions))]

    def saw(self, key: bytes, version: int) -> None:
        """Note a version that the cache told."""
        if version > (self._versions.get(key) or 0):
            with self._guard:
                now = self._versions.pop(key, None)
                self._versions[key] = version if now is None else max(now, version)
                if len(self._versions) > self._size:
                    del self._versions[next(iter(self._versions))]
