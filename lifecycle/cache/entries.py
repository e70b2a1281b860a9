"""The form of what stands in the cache: written whole, and trusted only when it reads back whole.

    E1 | version, activity (20 digits each) | generations (2 x 16) | checksum (8) | payload

The server compares the digits; generations tell whether a sweep went over all of them since. The payload begins with
the columns it is made of, so that another release takes it for garbage, and with the session's key.
"""

import json
import zlib
from typing import Any, Final

from lifecycle.models.reads import SavedState, Session
from lifecycle.models.types import from_microseconds, to_microseconds
from lifecycle.operations import requests as r

ENTRY: Final = b"E1"
LEASED_SECONDS: Final = 10
_STAMP: Final = slice(2, 42)
_GENERATIONS: Final = slice(42, 74)
_CHECKSUM: Final = slice(74, 82)
_HEAD: Final = 82
_DIGITS: Final = 20

_SESSION: Final = tuple(Session.model_fields)
_SESSION_MARK: Final = zlib.crc32(",".join(_SESSION).encode())
_SESSION_TIMES: Final = tuple(name for name in _SESSION if name.endswith("_at"))
_DOCUMENTS: Final = ("conversation", "context", "plan")
_STATE: Final = tuple(name for name in SavedState.model_fields if name not in _DOCUMENTS)
_STATE_MARK: Final = zlib.crc32(",".join((*_STATE, *_DOCUMENTS)).encode())

Row = dict[str, Any]


class SessionForm:
    """A session's row, for `GetSession`."""

    kind: Final = b"s"

    @staticmethod
    def pack(_request: r.GetSession, row: Row, generations: bytes) -> bytes:
        """The entry for a row as the database gave it."""
        values = [to_microseconds(row[name]) if name in _SESSION_TIMES else row[name] for name in _SESSION]
        payload = json.dumps([_SESSION_MARK, *values], ensure_ascii=False, separators=(",", ":")).encode()
        return _sealed(row["version"], to_microseconds(row["last_active_at"]) or 0, generations, payload)

    @staticmethod
    def ttl(row: Row, most: int) -> int:
        """Seconds to keep it: few while somebody holds the session, as his beats move its times and drop nothing."""
        return most if row["lease_holder"] is None else min(most, LEASED_SECONDS)

    @staticmethod
    def unpack(request: r.GetSession, payload: bytes) -> Row | None:
        """The row, as the database gave it; None if it is another's."""
        mark, *values = json.loads(payload)
        row = dict(zip(_SESSION, values, strict=True))
        if (mark, row["tenant"], row["session_id"]) != (_SESSION_MARK, request.tenant, request.session_id):
            return None
        for name in _SESSION_TIMES:
            row[name] = from_microseconds(row[name])
        return row


class StateForm:
    """A saved state's row, for `LoadState`. The documents are kept as the text they are, beside a line of JSON."""

    kind: Final = b"l"

    @staticmethod
    def pack(request: r.LoadState, row: Row, generations: bytes) -> bytes:
        """The entry for a row as the database gave it."""
        documents = [None if row[name] is None else row[name].encode() for name in _DOCUMENTS]
        values = [to_microseconds(row[name]) if name == "saved_at" else row[name] for name in _STATE]
        sizes = [None if text is None else len(text) for text in documents]
        head = [_STATE_MARK, request.tenant, request.any_state, *sizes, *values]
        line = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
        return _sealed(row["version"], 0, generations, b"\n".join([line, b"".join(filter(None, documents))]))

    @staticmethod
    def ttl(_row: Row, most: int) -> int:
        """Seconds to keep it."""
        return most

    @staticmethod
    def unpack(request: r.LoadState, payload: bytes) -> Row | None:
        """The row; None if it is another's, or may be that of a finished session, which was not asked for."""
        end = payload.index(b"\n")
        mark, tenant, any_state, *rest = json.loads(payload[:end])
        sizes, values = rest[: len(_DOCUMENTS)], rest[len(_DOCUMENTS) :]
        kept = dict(zip(_STATE, values, strict=True))
        if (mark, tenant, kept["session_id"]) != (_STATE_MARK, request.tenant, request.session_id):
            return None
        if any_state and not request.any_state:
            return None
        kept["saved_at"] = from_microseconds(kept["saved_at"])
        start = end + 1
        for name, size in zip(_DOCUMENTS, sizes, strict=True):
            kept[name] = None if size is None else payload[start : start + size].decode()
            start += size or 0
        return {name: kept[name] for name in SavedState.model_fields} if start == len(payload) else None


FORMS: Final[dict[type[r.Request], Any]] = {r.GetSession: SessionForm, r.LoadState: StateForm}


def read(form: Any, request: Any, entry: Any, generations: bytes) -> Row | None:
    """The row that an entry holds, or None for one that is garbage, outdated by a sweep, or another's."""
    if not isinstance(entry, bytes) or entry[:2] != ENTRY or entry[_GENERATIONS] != generations:
        return None
    try:
        if int(entry[_CHECKSUM], 16) != zlib.crc32(entry[_HEAD:], zlib.crc32(entry[: _GENERATIONS.stop])):
            return None
        row: Row | None = form.unpack(request, entry[_HEAD:])
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None
    if row is None or int(entry[_STAMP][:_DIGITS]) != row["version"]:
        return None
    return row


def _sealed(version: int, activity: int, generations: bytes, payload: bytes) -> bytes:
    head = b"".join([ENTRY, b"%020d%020d" % (version, max(0, activity)), generations])
    return b"".join([head, b"%08x" % zlib.crc32(payload, zlib.crc32(head)), payload])
