"""Saved states on any database."""

from collections.abc import Mapping

import sqlalchemy as sa

from lifecycle import states
from lifecycle.entries import Entries, arrange, columns_of, runs_of, within
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.pieces import Document
from lifecycle.recipes.portable.assembling import AMONG, assembled, batched
from lifecycle.recipes.portable.base import (
    LOCK_SHORT,
    TOKEN,
    Recipe,
    Row,
    active_now,
    barred,
    bound,
    changed_now,
    insert,
    key,
    lock,
    of_key,
    own_key,
    p,
    set_row,
    setting,
)
from lifecycle.recipes.portable.collecting import DELETE_VALUE, collect
from lifecycle.recipes.statement import Many, Statement

V = t.values.c


def save_state(request: r.SaveState) -> Recipe:
    """Check, bump the version, write the documents and entries."""
    row = yield from lock(request, LOCK_SHORT)
    if row is None or row["state"] != "active" or barred(row, request.fence):
        return None
    if request.expected is not None and row["version"] != request.expected:
        if request.token is not None and (yield TOKEN, key(request) | {"p_token": request.token}):
            raise r.DuplicateKey
        return None
    version = row["version"] + 1
    if request.token is not None:
        if (yield TOKEN, key(request) | {"p_token": request.token}):
            raise r.DuplicateKey
        token = {
            **own_key(row), "token": request.token, "digest": request.digest, "version": version, "created_at": row["now"],
        }  # fmt: skip
        yield insert(t.tokens, tuple(token)), bound(token)
    entries, dropped = yield from _entries(request, row)
    yield from set_row(
        row,
        {
            "version": version, "saved_at": row["now"], "ghost_at": None, **request.fields, **entries,
            **changed_now(row), **active_now(row),
        },
    )  # fmt: skip
    if request.documents:
        columns = document_columns(request.documents)
        if (yield setting(t.session_states, own_key(row), columns)) == 0:
            yield insert(t.session_states, ("tenant", "session_id", *columns)), bound(own_key(row) | columns)
        yield from _exchange_values(request.documents, row, version)
    if dropped:
        yield from collect(row, pieces=False)
    return version


def _entries(request: r.SaveState, row: Row) -> Recipe:
    """Store what is new of the conversation: the session's columns, and whether entries fell out of it."""
    if request.append is not None:
        start = row["entries_from"] if row["entries_from"] is not None else row["next_entry"]
        yield from store_entries(row, request.append, row["next_entry"])
        return {"entries_from": start, "next_entry": row["next_entry"] + len(request.append.texts)}, False
    if request.conversation is None:
        return {}, False
    given = request.conversation
    found = yield DIGESTS, key(request)
    stored = {entry["number"]: entry["digest"] for entry in found}
    runs, new = arrange(given.digests, stored, row["next_entry"])
    added = Entries(tuple(given.texts[i] for i in new), tuple(given.digests[i] for i in new))
    yield from store_entries(row, added, row["next_entry"])
    return columns_of(runs, row["next_entry"] + len(new)), not within(runs_of(row), runs)


DIGESTS = Statement(
    sa.select(t.entries.c.number, t.entries.c.digest).where(of_key(t.entries)).order_by(t.entries.c.number)
)
_ENTRY = ("tenant", "session_id", "number", "digest", "content")


def store_entries(of: Row, added: Entries, first: int) -> Recipe:
    """Store entries of a session under numbers from `first` on."""
    rows = [bound(own_key(of) | entry) for entry in added.rows(first)]
    if len(rows) == 1:
        yield insert(t.entries, _ENTRY), rows[0]
    elif rows:
        yield Many(insert(t.entries, _ENTRY), rows)


def document_columns(documents: Mapping[str, Document]) -> Row:
    """The columns of documents, each as its text or its pieces."""
    columns: Row = {}
    for name, document in documents.items():
        columns |= {name: document.text, f"{name}_pieces": document.pieces}
    return columns


_KNOWN = Statement(sa.select(V.name).where(of_key(t.values), AMONG))
# Those that no checkpoint can have: checkpoints may keep a thousand times as many.
_FREE = Statement(
    sa.select(V.name).where(
        of_key(t.values),
        V.version > p("checkpoint_version", V.version.type),
        sa.func.substr(V.name, 1, 1) == p("initial", V.name.type),
    )
)
_VALUE = ("tenant", "session_id", "name", "version", "content")


def store_values(
    of: Row, documents: Mapping[str, Document], version: int, known: frozenset[str] = frozenset()
) -> Recipe:
    """Store the large pieces of documents that are not known yet."""
    rows = [
        bound(own_key(of) | {"name": name, "version": version, "content": content})
        for document in documents.values()
        for name, content in document.values
        if name not in known
    ]
    if rows:
        yield Many(insert(t.values, _VALUE), rows)


def _exchange_values(documents: Mapping[str, Document], row: Row, version: int) -> Recipe:
    """Keep the large pieces of documents, and remove those that they had and no checkpoint can have."""
    for name, document in documents.items():
        kept = sorted({value for value, _ in document.values})
        free = yield _FREE, key_of(row) | bound({"initial": name[0], "checkpoint_version": row["checkpoint_version"]})
        known = {value["name"] for value in free}
        gone = sorted(known.difference(kept))
        for some in batched(kept):
            found = yield _KNOWN, key_of(row) | some
            known.update(value["name"] for value in found)
        yield from store_values(row, {name: document}, version, frozenset(known))
        if gone:
            yield Many(DELETE_VALUE, [key_of(row) | {"p_name": value} for value in gone])


def key_of(row: Row) -> Row:
    """The parameters of `of_key` for a row's session."""
    return bound(own_key(row))


_S = t.sessions.c
_DOCUMENTS = tuple(t.session_states.c[name] for name in ("context", "context_pieces", "plan", "plan_pieces"))
_LOAD = Statement(
    sa.select(
        _S.tenant, _S.session_id, _S.state, _S.phase, _S.step, _S.version, _S.saved_at, _S.next_entry, _S.entries_from,
        _S.entries_before, *_DOCUMENTS,
    )
    .select_from(
        sa.outerjoin(
            t.sessions,
            t.session_states,
            sa.and_(t.session_states.c.tenant == _S.tenant, t.session_states.c.session_id == _S.session_id),
        )
    )
    .where(of_key(t.sessions), _S.saved_at.is_not(None), _S.deleted_at.is_(None))
)  # fmt: skip
_STATE = ("session_id", "conversation", "context", "plan", "phase", "step", "version", "saved_at")


def load_state(request: r.LoadState) -> Recipe:
    """Read the state, and what it is made of."""
    row = yield from assembled(_LOAD, key(request))
    if row is None or not (request.any_state or row["state"] in states.LIVE):
        return None
    return {name: row[name] for name in _STATE}


STATE = Statement(sa.select(*t.session_states.c).where(of_key(t.session_states)))
