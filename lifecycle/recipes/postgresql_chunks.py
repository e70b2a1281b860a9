"""The parts of PostgreSQL's statements that write documents and entries of conversations.

They take from a CTE that has changed the session's row, and with it holds its lock: what that row says is the newest,
while whatever a part reads of other tables is of the statement's snapshot. So nothing is read of those that the row
does not bear out: the numbers of entries come from the row, and a piece is removed only where no checkpoint was made
since it came.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as pg_insert

from lifecycle.entries import Entries
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.pieces import Document
from lifecycle.recipes.portable.base import bound, p

TEXTS = ARRAY(sa.Text())
ONE: Any = sa.literal_column("1", sa.BigInteger())
V = t.values.c


def columns_of(documents: tuple[str, ...]) -> list[str]:
    """The columns that documents with these names are stored in."""
    return [column for name in documents for column in (name, f"{name}_pieces")]


def documents_of(request: Any) -> tuple[tuple[str, ...], bool]:
    """The names of a request's documents, and whether any of them is in pieces."""
    documents: dict[str, Document] = request.documents
    return tuple(documents), any(document.pieces is not None for document in documents.values())


def bind_documents(request: r.SaveState | r.CreateSession) -> dict[str, Any]:
    """The parameters of `states` and `pieces`."""
    values: dict[str, Any] = {}
    names: list[str] = []
    contents: list[str] = []
    chunked = False
    for name, document in request.documents.items():
        values[name] = document.text
        values[f"{name}_pieces"] = document.pieces
        chunked = chunked or document.pieces is not None
        for kept, content in document.values:
            names.append(kept)
            contents.append(content)
    if chunked:
        values |= {"value_names": names, "value_contents": contents}
    return bound(values)


def states(source: Any, documents: tuple[str, ...], *, new: bool) -> Any:
    """Write the documents' row of a session, which is there already unless it is `new`."""
    columns = columns_of(documents)
    insert = pg_insert(t.session_states).from_select(
        ["tenant", "session_id", *columns],
        sa.select(source.c.tenant, source.c.session_id, *[p(name, sa.Text()) for name in columns]),
    )
    if not new:
        insert = insert.on_conflict_do_update(
            index_elements=["tenant", "session_id"], set_={name: insert.excluded[name] for name in columns}
        )
    return insert.cte("written")


def pieces(source: Any, documents: tuple[str, ...], *, chunked: bool, new: bool) -> list[Any]:
    """Keep the large pieces of documents, and remove those that they had and no checkpoint has."""
    parts = []
    if chunked:
        given = _given(value_names="name", value_contents="content")
        columns = ["tenant", "session_id", "name", "version", "content"]
        chosen = sa.select(source.c.tenant, source.c.session_id, given.c.name, source.c.version, given.c.content)
        insert = pg_insert(t.values).from_select(columns, chosen.select_from(source.join(given, sa.true())))
        parts.append(insert.on_conflict_do_nothing().cte("kept_values"))
    if not new:
        initials: list[Any] = [sa.literal_column(f"'{name[0]}'") for name in documents]
        gone = sa.delete(t.values).where(
            V.tenant == source.c.tenant,
            V.session_id == source.c.session_id,
            sa.func.left(V.name, ONE).in_(initials),
            V.version > source.c.checkpoint_version,
        )
        if chunked:
            gone = gone.where(V.name != sa.all_(p("value_names", TEXTS)))
        parts.append(gone.cte("gone_values"))
    return parts


def entries(source: Any, first: Any, *, one: bool, behind: Any = None) -> Any:
    """Store entries under numbers from `first` on; the first `behind` of them are there already."""
    columns = ["tenant", "session_id", "number", "digest", "content"]
    if one:
        chosen = sa.select(
            source.c.tenant, source.c.session_id, first, p("entry_digests", sa.Text()), p("entry_contents", sa.Text())
        )
    else:
        given = _given(entry_digests="digest", entry_contents="content")
        place = given.c.place if behind is None else given.c.place - behind
        chosen = sa.select(
            source.c.tenant, source.c.session_id, first + place - ONE, given.c.digest, given.c.content
        ).select_from(source.join(given, sa.true()))
        if behind is not None:
            chosen = chosen.where(given.c.place > behind)
    return sa.insert(t.entries).from_select(columns, chosen).cte("added_entries")


def bind_entries(added: Entries, *, one: bool) -> dict[str, Any]:
    """The parameters of `entries`."""
    if one:
        return bound({"entry_digests": added.digests[0], "entry_contents": added.texts[0]})
    return bound({"entry_digests": list(added.digests), "entry_contents": list(added.texts)})


def _given(**names: str) -> Any:
    arrays = [p(name, TEXTS) for name in names]
    columns = sa.func.unnest(*arrays).table_valued(*names.values(), with_ordinality="place", name="given")
    return columns.render_derived()
