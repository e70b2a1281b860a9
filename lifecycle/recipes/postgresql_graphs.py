"""Putting and reading a graph's checkpoint on PostgreSQL: one statement each.

What is stored takes its numbers from the session's row, which the statement has changed, and so locked. The checkpoint
whose items and values a new one shares is locked behind it: whoever removes checkpoints locks the session first, so it
is there, with all that it needs, or the statement stores nothing.
"""

from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from lifecycle.graphs import bounds
from lifecycle.models import tables as t
from lifecycle.models.types import from_base64
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import bound, key, of_key, p
from lifecycle.recipes.postgresql import ACTIVE_NOW, CHANGED_NOW, LIVE, allowed, fence
from lifecycle.recipes.postgresql_chunks import ONE, TEXTS
from lifecycle.recipes.statement import Single, Statement

S, C, V = t.sessions.c, t.graph_checkpoints.c, t.graph_values.c
_COUNT: Any = sa.cast(p("count"), sa.BigInteger())
_AS_IT_WAS: Final = (
    C.place == p("parent"),
    C.body.is_not(None),
    C.needs.is_not_distinct_from(p("parent_needs", sa.Text())),
    C.first_item.is_not_distinct_from(sa.cast(p("parent_first"), sa.BigInteger())),
)
_ROW: Final = ("place", "run_id", "needs", "body")


def _given(**names: str) -> Any:
    arrays = [p(name, TEXTS) for name in names]
    columns = sa.func.unnest(*arrays).table_valued(*names.values(), with_ordinality="at", name=next(iter(names)))
    return columns.render_derived()


def _open(fenced: bool) -> list[Any]:
    return [of_key(t.sessions), LIVE, allowed(fenced)]


def _stored_values(moved: Any) -> Any:
    given = _given(value_names="name", value_needs="needs", value_contents="content")
    chosen = sa.select(moved.c.tenant, moved.c.session_id, given.c.name, given.c.needs, from_base64(given.c.content))
    columns = ["tenant", "session_id", "name", "needs", "content"]
    insert = pg_insert(t.graph_values).from_select(columns, chosen.select_from(moved.join(given, sa.true())))
    return insert.on_conflict_do_nothing().cte("stored_values")


def _numbered_lines(first: Any) -> Any:
    """The lines of items, as `lifecycle.graphs.numbered_lines` makes them."""
    given = _given(items="line")
    line = sa.func.concat(first + given.c.at - ONE, sa.literal_column("' '"), given.c.line)
    lines = sa.func.string_agg(line, sa.literal_column("''")).aggregate_order_by(given.c.at)
    return sa.select(lines).select_from(given).scalar_subquery()


@cache
def put_statement(fenced: bool, shares: bool, items: bool, values: bool) -> Statement:
    """Number the new items, and store them, the values and the checkpoint."""
    moved = sa.update(t.sessions).where(*_open(fenced))
    if shares:
        locked = sa.select(S.tenant, S.session_id).where(*_open(fenced)).with_for_update(key_share=True).cte("locked")
        parent = (
            sa.select(C.tenant, C.session_id)
            .join(locked, sa.and_(C.tenant == locked.c.tenant, C.session_id == locked.c.session_id))
            .where(of_key(t.graph_checkpoints), *_AS_IT_WAS)
            # Not for a key share: a removal that was waited for may have left the row, emptied.
            .with_for_update(read=True, of=t.graph_checkpoints)
            .cte("parent")
        )
        moved = moved.where(S.tenant == parent.c.tenant, S.session_id == parent.c.session_id)
    changed = (
        moved.values({"next_seq": S.next_seq + _COUNT, "ghost_at": sa.null(), **CHANGED_NOW, **ACTIVE_NOW})
        .returning(S.tenant, S.session_id, (S.next_seq - _COUNT).label("first"))
        .cte("moved")
    )
    parts = []
    if values:
        parts.append(_stored_values(changed))
    first = changed.c.first if items else sa.null()
    row = [changed.c.tenant, changed.c.session_id, first, *(p(name, C[name].type) for name in _ROW)]
    columns = ["tenant", "session_id", "first_item", *_ROW]
    if items:
        row += [_numbered_lines(changed.c.first), changed.c.first + _COUNT - ONE]
        columns += ["new_items", "last_item"]
    insert = pg_insert(t.graph_checkpoints).from_select(columns, sa.select(*row))
    given_again: dict[str, Any] = {name: insert.excluded[name] for name in ("first_item", *_ROW) if name != "place"}
    if items:
        given_again["new_items"] = sa.func.concat(C.new_items, insert.excluded.new_items)
        given_again["last_item"] = insert.excluded.last_item
    upsert = insert.on_conflict_do_update(index_elements=["tenant", "session_id", "place"], set_=given_again)
    parts.append(upsert.cte("stored"))
    return Statement(sa.select(changed.c.first).add_cte(*parts))


@cache
def writes_statement(fenced: bool, values: bool) -> Statement:
    """Add a line to a checkpoint's writes."""
    moved = (
        sa.update(t.sessions)
        .where(*_open(fenced))
        .values({"ghost_at": sa.null(), **CHANGED_NOW, **ACTIVE_NOW})
        .returning(S.tenant, S.session_id)
        .cte("moved")
    )
    parts = [_stored_values(moved)] if values else []
    row = sa.select(moved.c.tenant, moved.c.session_id, p("place", sa.Text()), p("line", sa.Text()))
    insert = pg_insert(t.graph_checkpoints).from_select(["tenant", "session_id", "place", "writes"], row)
    longer = sa.func.concat(C.writes, insert.excluded.writes)
    upsert = insert.on_conflict_do_update(index_elements=["tenant", "session_id", "place"], set_={"writes": longer})
    return Statement(sa.select(moved.c.session_id).add_cte(*parts, upsert.cte("stored")))


# The parts of a checkpoint as rows of one shape. Runs below zero are counted from the first item, as
# `lifecycle.graphs.numbered` does. A value may need others, which need none. Arrays, as the planner takes a call of
# string_to_table for a thousand rows, and a statement that is thought so dear is compiled (JIT) for most of a second.
_READ: Final = """
WITH held AS (
    SELECT c.place, c.first_item, c.needs, c.body, c.writes
    FROM session_graph_checkpoints c
    JOIN sessions s ON s.tenant = c.tenant AND s.session_id = c.session_id AND s.deleted_at IS NULL
    WHERE c.tenant = :p_tenant AND c.session_id = :p_session_id AND c.body IS NOT NULL AND {which}
), said AS (
    SELECT needed.one, held.first_item FROM held, jsonb_array_elements(held.needs::jsonb) AS needed(one)
), runs AS (
    SELECT CASE WHEN (one ->> 0)::bigint < 0 THEN first_item - 1 - (one ->> 0)::bigint ELSE (one ->> 0)::bigint END AS first,
    CASE WHEN (one ->> 1)::bigint < 0 THEN first_item - 1 - (one ->> 1)::bigint ELSE (one ->> 1)::bigint END AS last
    FROM said
    WHERE jsonb_typeof(one) = 'array'
), lines AS MATERIALIZED (
    SELECT split_part(line, ' ', 1)::bigint AS number, substr(line, strpos(line, ' ') + 1) AS said
    FROM session_graph_checkpoints i, unnest(string_to_array(rtrim(i.new_items, E'\\n'), E'\\n')) AS line
    WHERE i.tenant = :p_tenant AND i.session_id = :p_session_id AND i.new_items IS NOT NULL
    AND i.last_item >= (SELECT min(runs.first) FROM runs)
), items AS (
    SELECT DISTINCT l.number, l.said
    FROM runs
    JOIN lines l
    ON l.number BETWEEN runs.first AND runs.last
), names AS (
    SELECT one #>> '{{}}' AS name FROM said WHERE jsonb_typeof(one) = 'string'
    UNION
    SELECT named.name
    FROM held, unnest(string_to_array(held.writes, E'\\n')) AS line,
    unnest(string_to_array(split_part(line, ' ', 1), ',')) AS named(name)
    UNION
    SELECT needed.name FROM items, unnest(string_to_array(split_part(items.said, ' ', 1), ',')) AS needed(name)
), own AS (
    SELECT v.name, v.needs, v.content
    FROM names
    JOIN session_graph_values v ON v.tenant = :p_tenant AND v.session_id = :p_session_id AND v.name = names.name
), inner_names AS (
    SELECT DISTINCT needed.name FROM own, jsonb_array_elements_text(own.needs::jsonb) AS needed(name)
)
SELECT 'row' AS part, first_item AS number, place AS name, needs, {body} AS content, writes FROM held
UNION ALL SELECT 'item', number, NULL, NULL, said, NULL FROM items
UNION ALL SELECT 'value', NULL, name, needs, {content}, NULL FROM own
UNION ALL SELECT 'value', NULL, v.name, v.needs, {inner}, NULL
FROM inner_names
JOIN session_graph_values v ON v.tenant = :p_tenant AND v.session_id = :p_session_id AND v.name = inner_names.name
"""

_BYTES: Final = {"body": "body", "content": "content", "inner": "v.content"}


@cache
def read_statement(latest: bool) -> Statement:
    """Read a checkpoint with all that it needs."""
    which = "c.place = :p_place"
    parameters = ["tenant", "session_id"]
    if latest:
        which = (
            "c.place = (SELECT max(l.place) FROM session_graph_checkpoints l WHERE l.tenant = :p_tenant"
            " AND l.session_id = :p_session_id AND l.body IS NOT NULL AND l.place >= :p_since AND l.place < :p_until)"
        )
    parameters += ["since", "until"] if latest else ["place"]
    texts = {name: f"translate(encode({column}, 'base64'), E'\\n', '')" for name, column in _BYTES.items()}
    text = sa.text(_READ.format(which=which, **texts)).bindparams(*(p(name, sa.Text()) for name in parameters))
    columns: list[Any] = [sa.column("number", sa.BigInteger())]
    columns += [sa.column(name, sa.Text()) for name in ("name", "needs", "content", "writes")]
    return Statement(text.columns(sa.column("part", sa.Text()), *columns))


def _bind_values(values: tuple[tuple[str, str | None, str], ...]) -> dict[str, Any]:
    if not values:
        return {}
    names, needs, contents = (list(column) for column in zip(*values, strict=True))
    return {"value_names": names, "value_needs": needs, "value_contents": contents}


def _bind_put(request: r.PutGraphCheckpoint) -> dict[str, Any]:
    values = {name: getattr(request, name) for name in _ROW} | {"count": len(request.items)}
    if request.parent is not None:
        values |= dict(zip(("parent", "parent_needs", "parent_first"), request.parent, strict=True))
    if request.items:
        values["items"] = list(request.items)
    return key(request) | fence(request) | bound(values | _bind_values(request.values))


def _bind_writes(request: r.PutGraphWrites) -> dict[str, Any]:
    values = {"place": request.place, "line": request.line} | _bind_values(request.values)
    return key(request) | fence(request) | bound(values)


def _bind_read(request: r.ReadGraph) -> dict[str, Any]:
    since, until = bounds(request.namespace)
    return key(request) | bound({"place": request.place, "since": since, "until": until})


def _read(_request: Any, rows: list[dict[str, Any]]) -> Any:
    row = None
    items: dict[int, str] = {}
    values: dict[str, dict[str, Any]] = {}
    for part in rows:
        if part["part"] == "item":
            items[part["number"]] = part["content"]
        elif part["part"] == "value":
            values[part["name"]] = part
        else:
            row = {"place": part["name"], "first_item": part["number"], "body": part["content"]}
            row |= {"needs": part["needs"], "writes": part["writes"]}
    return None if row is None else (row, items, values)


SINGLES: dict[type[r.Request], Single] = {
    r.PutGraphCheckpoint: Single(
        lambda request: put_statement(
            request.fence is not None, request.parent is not None, bool(request.items), bool(request.values)
        ),
        _bind_put,
        lambda _, rows: rows[0]["first"] if rows else None,
    ),
    r.PutGraphWrites: Single(
        lambda request: writes_statement(request.fence is not None, bool(request.values)),
        _bind_writes,
        lambda _, rows: True if rows else None,
    ),
    r.ReadGraph: Single(lambda request: read_statement(request.place is None), _bind_read, _read),
}
