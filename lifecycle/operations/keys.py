"""Keys to the HTTP API, and the secret that signs its cookies.

A key's text is `lc_<key id>_<secret>`. Only its SHA-256 is stored: the secret is 256 bits from the operating system, so
there is nothing to guess, and what makes a digest slow, as passwords need it, would only slow every request.
"""

import hashlib
import hmac
import re
import secrets
from typing import Final

from lifecycle.errors import InvalidArgument, KeyNotFound
from lifecycle.models.reads import ApiKey, NewApiKey
from lifecycle.operations.context import Context, check_text
from lifecycle.operations.requests import (
    AnyKey,
    CreateKey,
    DuplicateKey,
    GetKey,
    ListKeys,
    RevokeKey,
    Row,
    ShareSecret,
    StampKey,
)
from lifecycle.operations.sessions import Duration, _duration
from lifecycle.operations.typing import Steps

SCOPES: Final = ("read", "write", "admin")
"""Each holds those before it."""

_SECRET_BYTES: Final = 32
_NAME_CHARS: Final = 255
_TEXT: Final = re.compile(r"lc_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
# What a key that is not there is compared with, so that it takes as long as one that is.
_NOBODY: Final = hashlib.sha256(secrets.token_bytes(_SECRET_BYTES)).hexdigest()
# How often a key's last use is written, in seconds: each request would be a write otherwise.
_STAMP_SECONDS: Final = 60


def create_key(
    context: Context, name: str, scope: str = "read", *, expires_in: Duration | None = None
) -> Steps[NewApiKey]:
    """Make a key to the HTTP API, for the manager's tenant or all of them, and return it with its text, this once.

    `scope` is read, write or admin, each holding those before it; `expires_in` bounds its life. Raises
    `InvalidArgument`.
    """
    if not str(name).strip():
        raise InvalidArgument(f"name must say who uses the key or for what, not {name!r}")
    check_text(name, "name", _NAME_CHARS, "a key's name")
    if scope not in SCOPES:
        raise InvalidArgument(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    key_id = secrets.token_hex(8)
    text = f"lc_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    values = {
        "key_id": key_id, "tenant": context.tenant_or_all, "name": name, "scope": scope, "digest": _digest(text),
    }  # fmt: skip
    row = yield CreateKey(values, _duration(expires_in, "expires_in"))
    return NewApiKey.of(_fields(row) | {"key": text})


def list_keys(context: Context) -> Steps[list[ApiKey]]:
    """The keys to the HTTP API of the manager's tenant, or all there are; the oldest first, revoked ones too."""
    found = yield ListKeys(context.tenant_or_all)
    return [_key(row) for row in found]


def get_key(context: Context, key_id: str) -> Steps[ApiKey | None]:
    """A key to the HTTP API that opens something now; None where it was revoked, has expired, or never was."""
    row = yield GetKey(_known_id(key_id))
    if row is None or not _opens(row) or not _within(context, row):
        return None
    return _key(row)


def is_key_text(text: str) -> bool:
    """Whether a text has the form of a key's; no other opens anything. It is then ASCII."""
    return _TEXT.fullmatch(text) is not None


def verify_key(context: Context, text: str) -> Steps[ApiKey | None]:
    """The key to the HTTP API whose text this is, if it opens something now; else None.

    An unknown key takes the work of a known one with a wrong secret, and the comparison is constant-time. That a key
    was used is written once a minute.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    row = yield GetKey(match[1])
    same = hmac.compare_digest(_digest(text), _NOBODY if row is None else row["digest"])
    if row is None or not same or not _opens(row) or not _within(context, row):
        return None
    if row["last_used_at"] is None or (row["now"] - row["last_used_at"]).total_seconds() >= _STAMP_SECONDS:
        yield StampKey(row["key_id"], _STAMP_SECONDS)
    return _key(row)


def revoke_key(context: Context, key_id: str) -> Steps[ApiKey]:
    """Revoke a key to the HTTP API for good and return it; once more changes nothing. Raises `KeyNotFound`.

    Processes that serve the API notice within seconds (`KEY_SECONDS` of lifecycle.web.keyring).
    """
    row = yield RevokeKey(_known_id(key_id), context.tenant_or_all)
    if row is None:
        raise KeyNotFound(key_id)
    return _key(row)


def any_key(context: Context) -> Steps[bool]:
    """Whether there is a key to the HTTP API at all, revoked or not, whoever's: the API is open only without."""
    del context
    return bool((yield AnyKey()))


def share_secret(context: Context, name: str) -> Steps[str]:
    """A secret that all processes on the database have in common, made by the first that asks for it."""
    del context
    request = ShareSecret(check_text(name, "name", _NAME_CHARS), secrets.token_urlsafe(_SECRET_BYTES))
    try:
        value: str = yield request
    except DuplicateKey:  # another process made it between our look and our insert
        value = yield request
    return value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _known_id(key_id: str) -> str:
    if not key_id:
        raise InvalidArgument(f"key_id must be the id of a key, as `lifecycle keys list` shows it, not {key_id!r}")
    return check_text(key_id, "key_id", _NAME_CHARS, "a key's id")


def _opens(row: Row) -> bool:
    return row["revoked_at"] is None and (row["expires_at"] is None or row["expires_at"] > row["now"])


def _within(context: Context, row: Row) -> bool:
    """Whether a key is the manager's to know of."""
    return context.tenant_or_all is None or row["tenant"] == context.tenant_or_all


def _key(row: Row) -> ApiKey:
    return ApiKey.of(_fields(row))


def _fields(row: Row) -> Row:
    return {name: row[name] for name in ApiKey.model_fields}
