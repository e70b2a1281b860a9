"""What an application knows of the keys: each is looked up in the database, and remembered for a moment."""

import hashlib
from typing import Final

from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.models.reads import ApiKey
from lifecycle.operations.keys import is_key_text
from lifecycle.web.buckets import Buckets
from lifecycle.web.fresh import Fresh
from lifecycle.web.problems import TooMany

KEY_SECONDS: Final = 2.0
"""For so long a key may go on working in a process after it was revoked, and the open mode after the first key."""

_SIGNING: Final = "web.signing"
# Failures that one address may have at once, and then one in so many seconds.
_FAILURES: Final = 10
_FAILURE_SECONDS: Final = 5


class Keyring:
    """Looks keys up for the requests of one application."""

    def __init__(self, manager: AsyncSessionManager) -> None:
        self._manager = manager
        self._by_text: Fresh[ApiKey] = Fresh(KEY_SECONDS)
        self._by_id: Fresh[ApiKey] = Fresh(KEY_SECONDS)
        # Whether there is a key; and whether there is none, which is kept as well.
        self._any: Fresh[tuple[bool]] = Fresh(KEY_SECONDS)
        self._failures = Buckets(1 / _FAILURE_SECONDS, _FAILURES)
        self._secret: str | None = None

    async def of_text(self, text: str, address: str) -> ApiKey | None:
        """The key with this text, or None. Raises `TooMany` for an address that had too many which are none."""
        found = await self._looked_up(text, address) if is_key_text(text) else None
        # Counted once it is known to be a failure: requests that come at once with a good key are none, nor is a
        # database that is away.
        if found is None:
            _refuse(self._failures.take(address))
        return found

    async def _looked_up(self, text: str, address: str) -> ApiKey | None:
        # Not the text itself: what is remembered here should open nothing.
        digest = hashlib.sha256(text.encode()).digest()
        if not self._by_text.known(digest):  # a good key goes on working beside somebody who guesses
            _refuse(self._failures.wait(address))
        return await self._by_text.get(digest, lambda: self._manager.verify_key(text))

    async def of_id(self, key_id: str) -> ApiKey | None:
        """The key with this id if it opens something, or None."""
        return await self._by_id.get(key_id, lambda: self._manager.get_key(key_id))

    async def any(self) -> bool:
        """Whether there is a key at all, revoked or not."""

        async def ask() -> tuple[bool]:
            return (await self._manager.any_key(),)

        found = await self._any.get("", ask)
        return found is not None and found[0]

    async def load_secret(self) -> str:
        """What signs cookies and tokens, shared by all processes on the database."""
        if self._secret is None:
            self._secret = await self._manager.share_secret(_SIGNING)
        return self._secret

    @property
    def secret(self) -> str:
        """The same, once `load_secret` was awaited: `caller_of` does for every caller from a browser."""
        if self._secret is None:
            raise RuntimeError("load_secret was not awaited")
        return self._secret


def _refuse(wait: float) -> None:
    if wait:
        raise TooMany("too many keys that open nothing came from this address", wait)
