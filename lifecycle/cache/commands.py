"""What is asked of the cache server: commands on keys, and two scripts that decide within the server.

Who finds nothing leaves a token in the entry's place before reading the database, and fills only where the token
still stands. Whoever writes removes what stands there, entry or token, behind his commit: so a fill that comes late
is refused, however late it comes, and there is no tombstone that could be evicted. Keys that tell generations work
alike: one that is missing is made anew with another value, which outdates every entry of the generation before.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Any, Final

_TOKEN: Final = b"T1"
_NONCE: Final = 8
# How long a read of the database may take and still fill.
_TOKEN_MS: Final = b"60000"
# When it runs out, every entry is read anew: once a year.
_GENERATION_MS: Final = b"31536000000"

_CLAIM: Final = b"""
local function text(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'string' then return value end
  if value then redis.call('UNLINK', key) end
  return false
end
local function generation(key)
  local value = text(key)
  if not value or #value ~= 16 then
    value = ARGV[2]
    redis.call('SET', key, value, 'PX', ARGV[4])
  end
  return value
end
local all, own = generation(KEYS[2]), generation(KEYS[3])
local found = text(KEYS[1])
if found then
  local kind = string.sub(found, 1, 2)
  if kind == 'T1' and #found == 18 then return {found, all, own} end
  if kind == 'E1' and ARGV[5] ~= string.sub(found, 1, #ARGV[5]) then return {found, all, own} end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return {ARGV[1], all, own}
"""

_FILL: Final = b"""
local found = redis.pcall('GET', KEYS[1])
if found ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

# Every session of every tenant, as a key to drop.
EVERYTHING: Final = b"g"


@dataclass(slots=True)
class Ask:
    """A command: what comes ahead of its keys, the keys without the connection's own prefix, what comes behind them."""

    head: tuple[Any, ...]
    keys: tuple[bytes, ...]
    tail: tuple[Any, ...] = ()


def key_of(kind: bytes, tenant: str, session_id: str) -> bytes:
    """The key of one session's entry of a kind."""
    text = f"{len(tenant)}:{tenant}{session_id}".encode()
    return kind + hashlib.blake2b(text, digest_size=16).hexdigest().encode()


def generation_of(tenant: str) -> bytes:
    """The key that tells the generation of a tenant's entries."""
    return b"t" + hashlib.blake2b(tenant.encode(), digest_size=16).hexdigest().encode()


def look(key: bytes, generation: bytes) -> Ask:
    """Read an entry and the generations it must be of. Of keys that hold no text the server says that there is nothing."""
    return Ask(("MGET",), (key, EVERYTHING, generation))


def claim(key: bytes, generation: bytes, bad: bytes | None) -> Ask:
    """Leave a token: (token, or an entry that came meanwhile; generations). `bad` is what was found and is no good."""
    nonce = os.urandom(_NONCE).hex().encode()
    # So much of it tells one entry from another: all up to the checksum.
    known = b"" if bad is None else bad[:82]
    keys = (key, EVERYTHING, generation)
    return Ask(("EVAL", _CLAIM, 3), keys, (_TOKEN + nonce, nonce, _TOKEN_MS, _GENERATION_MS, known or b"-"))


def is_token(value: Any) -> bool:
    """Whether a claim gave a token."""
    return isinstance(value, bytes) and value[:2] == _TOKEN


def fill(key: bytes, token: bytes, entry: bytes, ttl: int) -> Ask:
    """Put an entry where the token stands."""
    return Ask(("EVAL", _FILL, 1), (key,), (token, entry, ttl * 1000))


def drop(keys: tuple[bytes, ...]) -> Ask:
    """Remove entries, tokens and generations."""
    return Ask(("UNLINK",), keys)
