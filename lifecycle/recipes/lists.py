"""Lists, search and statistics. A list's statement is made once for each combination of filters."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from lifecycle import states
from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp, now
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import Recipe, Row, bound, is_in, p
from lifecycle.recipes.statement import Statement


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """A step: the rest of this transaction may take so long, or `SearchTimeout` is raised."""


class contains(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """Whether a folded text holds the searched one; `%`, `_` and backslash are ordinary characters."""

    type = sa.Integer()
    inherit_cache = True
    name = "contains"


@compiles(contains, "postgresql")
def _contains_postgresql(element: contains, compiler: Any, **more: Any) -> str:
    text, _, pattern = element.clauses
    # LIKE is what a trigram index serves; the pattern comes escaped with backslashes, its default.
    return f"({compiler.process(text, **more)} LIKE {compiler.process(pattern, **more)})"


@compiles(contains, "sqlite")
def _contains_sqlite(element: contains, compiler: Any, **more: Any) -> str:
    text, needle, _ = element.clauses
    return f"(instr({compiler.process(text, **more)}, {compiler.process(needle, **more)}) > 0)"


@compiles(contains, "mysql", "mariadb")
def _contains_mariadb(element: contains, compiler: Any, **more: Any) -> str:
    text, needle, _ = element.clauses
    return f"(LOCATE({compiler.process(needle, **more)}, {compiler.process(text, **more)}) > 0)"


class in_fts(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """Whether SQLite's trigram index has the searched text in a row; a LIKE finds its index itself elsewhere."""

    # Not Boolean, which SQLite and MariaDB would be asked to compare with 1: that hides the index.
    type = sa.Integer()
    inherit_cache = True
    name = "in_fts"


@compiles(in_fts)
def _in_fts(_element: in_fts, _compiler: Any, **_: Any) -> str:
    return "(1 = 1)"


@compiles(in_fts, "sqlite")
def _in_fts_sqlite(element: in_fts, compiler: Any, **more: Any) -> str:
    index, table, phrase = element.clauses
    name, of = index.name, table.name
    return f"({of}.rowid IN (SELECT rowid FROM {name} WHERE {name} MATCH {compiler.process(phrase, **more)}))"


def in_index(index: str, table: str, names: frozenset[str]) -> Any:
    """The condition for SQLite's index; true where the text is too short for trigrams."""
    if "trigram" not in names:
        return sa.true()
    return in_fts(sa.literal_column(index), sa.literal_column(table), p("phrase", sa.Text()))


class has_search_index(FunctionElement[bool]):  # noqa: N801 - reads as the SQL function it is
    """Whether the messages have a trigram index."""

    type = sa.Boolean()
    inherit_cache = True
    name = "has_search_index"


@compiles(has_search_index)
def _has_index(_element: has_search_index, _compiler: Any, **_: Any) -> str:
    return "(1 = 0)"


@compiles(has_search_index, "postgresql")
def _has_index_postgresql(_element: has_search_index, _compiler: Any, **_: Any) -> str:
    name = "ix_session_messages_content_trgm"
    return f"EXISTS (SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('{name}') AND indisvalid)"


@compiles(has_search_index, "sqlite")
def _has_index_sqlite(_element: has_search_index, _compiler: Any, **_: Any) -> str:
    return "EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'session_messages_fts')"


_HAS_INDEX = Statement(sa.select(has_search_index().label("there")))
_TRIGRAM = 3


class folded_content(FunctionElement[str]):  # noqa: N801 - reads as the SQL function it is
    """A message's text as search compares it; spelt as the search index is."""

    type = sa.Text()
    inherit_cache = True
    name = "folded_content"


@compiles(folded_content)
def _folded_content(_element: folded_content, compiler: Any, **_: Any) -> str:
    collate = ' COLLATE "C"' if compiler.dialect.name == "postgresql" else ""
    return f"coalesce(session_messages.content_folded, lower(session_messages.content{collate}))"


class metadata_is(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """Whether a top-level value of the metadata is this JSON text."""

    type = sa.Integer()
    inherit_cache = True
    name = "metadata_is"


@compiles(metadata_is, "postgresql")
def _metadata_is_postgresql(element: metadata_is, compiler: Any, **more: Any) -> str:
    name, value, _ = (compiler.process(clause, **more) for clause in element.clauses)
    # `->` fails on a name with U+0000, which JSON text can hold: one such session would fail the list of all. No filter
    # asks for that character, so another escape, which nothing that is stored is written with, does in its place.
    document, asked, wanted = (
        rf"replace({one}, '\u0000', '\uffff')" for one in ("sessions.metadata", name, value)
    )  # fmt: skip
    return f"(({document}::json -> {asked})::text = {wanted})"


@compiles(metadata_is, "sqlite")
def _metadata_is_sqlite(element: metadata_is, compiler: Any, **more: Any) -> str:
    _, value, path = (compiler.process(clause, **more) for clause in element.clauses)
    return f"((sessions.metadata -> {path}) = {value})"


@compiles(metadata_is, "mysql", "mariadb")
def _metadata_is_mariadb(element: metadata_is, compiler: Any, **more: Any) -> str:
    _, value, path = (compiler.process(clause, **more) for clause in element.clauses)
    # As text: MariaDB would compare a JSON string without its quotes.
    return f"(CONCAT(JSON_EXTRACT(sessions.metadata, {path})) = {value})"


def escape_like(needle: str) -> str:
    """The LIKE pattern for a substring, with backslash as the escape."""
    for special in ("\\", "%", "_"):
        needle = needle.replace(special, "\\" + special)
    return f"%{needle}%"


_SORT: Mapping[str, Any] = {
    "updated_at": t.sessions.c.updated_at,
    "created_at": t.sessions.c.created_at,
    "last_active_at": t.sessions.c.last_active_at,
    "title": sa.func.coalesce(t.sessions.c.title_folded, ""),
    "session_id": t.sessions.c.session_id,
}
_EQUAL = ("user_id", "agent_id", "kind", "state", "parent_id")


def conditions(names: frozenset[str], metadata: int, tenant: bool) -> list[Any]:
    """The filters as conditions."""
    columns = t.sessions.c
    chosen: list[Any] = [columns.tenant == p("tenant")] if tenant else []
    if "deleted" not in names:
        chosen.append(columns.deleted_at.is_(None))
    chosen += [columns[name] == p(name) for name in _EQUAL if name in names]
    if "since" in names:
        chosen += [columns.updated_at >= p("since", Timestamp()), columns.listed_at >= p("since_minute", Timestamp())]
    if "until" in names:
        chosen += [columns.updated_at <= p("until", Timestamp()), columns.listed_at <= p("until", Timestamp())]
    chosen += [
        metadata_is(p(f"name_{i}", sa.Text()), p(f"value_{i}", sa.Text()), p(f"path_{i}", sa.Text()))
        for i in range(metadata)
    ]
    if "search" in names:
        needle, pattern = p("search", sa.Text()), p("pattern", sa.Text())
        found: Any = contains(columns.title_folded, needle, pattern)
        if "secured" in names:
            found = _found_by_functions(names, pattern, tenant=tenant)
        elif "trigram" in names:
            found = sa.and_(in_index("sessions_title_fts", "sessions", names), found)
        if "secured" in names and "search_index" in names:
            pass  # the functions have found what was said, too
        elif "search_index" in names:
            # Once for all sessions, out of the index; without one, session by session behind the other filters.
            said = sa.select(t.messages.c.tenant, t.messages.c.session_id).where(
                contains(folded_content(), needle, pattern), in_index("session_messages_fts", "session_messages", names)
            )
            found = sa.or_(found, sa.tuple_(columns.tenant, columns.session_id).in_(said))
        elif "search_messages" in names:
            spoken = (
                sa.select(1)
                .select_from(t.messages)
                .where(
                    t.messages.c.tenant == columns.tenant,
                    t.messages.c.session_id == columns.session_id,
                    contains(folded_content(), needle, pattern),
                )
                .exists()
            )
            found = sa.or_(found, spoken)
        chosen.append(found)
    return chosen


def _found_by_functions(names: frozenset[str], pattern: Any, *, tenant: bool) -> Any:
    """What `lifecycle.row_security` has functions for, as the policies keep a LIKE out of the index."""
    functions = ["lifecycle_found_titles", *(["lifecycle_found_messages"] if "search_index" in names else [])]
    made = [getattr(sa.func, name if tenant else f"{name}_of_all")(pattern) for name in functions]
    rows = [one.table_valued(sa.column("tenant", sa.Text()), sa.column("session_id", sa.Text())) for one in made]
    chosen = [sa.select(one.c.tenant, one.c.session_id) for one in rows]
    keys: Any = chosen[0] if len(chosen) == 1 else sa.union_all(*chosen)
    return sa.tuple_(t.sessions.c.tenant, t.sessions.c.session_id).in_(keys)


def page(
    names: frozenset[str], metadata: int, tenant: bool, sort: str, descending: bool, cursor: bool, where: Any
) -> sa.Select[Any]:
    """The statement of a page."""
    columns = t.sessions.c
    chosen = sa.select(*columns).where(*conditions(names, metadata, tenant))
    if where is not None:
        chosen = chosen.where(where)
    by = _SORT[sort]
    # The index holds the minute; rows are sorted by the exact time within it.
    order = [by, columns.session_id, columns.tenant] if sort != "updated_at" else [
        columns.listed_at, by, columns.session_id, columns.tenant,
    ]  # fmt: skip
    if cursor:
        kind = Timestamp() if sort.endswith("_at") else sa.Text()
        here = (p("at", kind), p("at_id", sa.Text()), p("at_tenant", sa.Text()))
        there = (by, columns.session_id, columns.tenant)
        beyond = _beyond(there, here, descending)
        if sort == "updated_at":
            edge = p("at_minute", Timestamp())
            beyond = sa.and_(columns.listed_at <= edge if descending else columns.listed_at >= edge, beyond)
        chosen = chosen.where(beyond)
    order = [column.desc() if descending else column.asc() for column in order]
    return chosen.order_by(*order).limit(p("limit", sa.Integer())).offset(p("offset", sa.Integer()))


def _beyond(columns: tuple[Any, ...], values: tuple[Any, ...], descending: bool) -> Any:
    """The row comparison spelt out, as not every type of every database compares in rows."""
    first, value = columns[0], values[0]
    past = first < value if descending else first > value
    if len(columns) == 1:
        return past
    return sa.or_(past, sa.and_(first == value, _beyond(columns[1:], values[1:], descending)))


@cache
def page_statement(*shape: Any) -> Statement:
    """A page's statement, kept."""
    names, metadata, tenant, sort, descending, cursor = shape
    return Statement(page(names, metadata, tenant, sort, descending, cursor, None))


@cache
def count_statement(names: frozenset[str], metadata: int, tenant: bool) -> Statement:
    """The statement of a total."""
    return Statement(
        sa.select(sa.func.count().label("total")).select_from(t.sessions).where(*conditions(names, metadata, tenant))
    )


def values_of(request: r.ListSessions) -> Row:
    """The parameters of a page, but for those of a search and of pairs of metadata."""
    left_out = {"deleted", "metadata", "search_messages"}
    values: Row = {name: value for name, value in request.filters.items() if name not in left_out}
    if "since" in values:
        values["since_minute"] = values["since"].replace(second=0, microsecond=0)
    if request.cursor is not None:
        values |= dict(zip(("at_minute", "at", "at_tenant", "at_id"), request.cursor, strict=True))
    return values | {"tenant": request.tenant, "limit": request.limit + 1, "offset": request.offset}


def list_sessions(request: r.ListSessions, *, secured: bool = False) -> Recipe:
    """Read a page, and the total if asked for."""
    filters = dict(request.filters)
    pairs = filters.pop("metadata", ())
    if not filters.get("search_messages", True):
        del filters["search_messages"]
    names, tenant = frozenset(filters), request.tenant is not None
    values = values_of(request)
    if "search" in filters:
        needle = filters["search"]
        values |= {"pattern": escape_like(needle), "phrase": '"' + needle.replace('"', '""') + '"'}
        if len(needle) >= _TRIGRAM:
            names |= {"trigram", "secured"} if secured else {"trigram"}
            if "search_messages" in names and (yield _HAS_INDEX, {})[0]["there"]:
                names |= {"search_index"}
    for i, (name, text) in enumerate(pairs):
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        values |= {f"name_{i}": name, f"value_{i}": _value_of(name, text), f"path_{i}": f'$."{quoted}"'}
    shape = (names, len(pairs), tenant, request.sort, request.descending, request.cursor is not None)
    statement = page_statement(*shape) if request.where is None else Statement(page(*shape, request.where))
    if "search" in filters or pairs or request.where is not None:
        yield TimeLimit()
    found = yield statement, bound(values)
    if not request.count:
        return found, None
    total = count_statement(names, len(pairs), tenant)
    if request.where is not None:
        chosen = conditions(names, len(pairs), tenant)
        total = Statement(
            sa.select(sa.func.count().label("total")).select_from(t.sessions).where(*chosen, request.where)
        )
    (counted,) = yield total, bound(values)
    return found, counted["total"]


def _value_of(name: str, pair: str) -> str:
    """The value's JSON text in `"name":value`."""
    from lifecycle.documents import encode

    return pair[len(encode(name, "name", limit=2**31)) + 1 :]


@cache
def _grouped(column: str, tenant: bool) -> Statement:
    chosen = sa.select(t.sessions.c[column].label("name"), sa.func.count().label("n"))
    return Statement(_of(chosen, tenant).where(t.sessions.c.deleted_at.is_(None)).group_by(t.sessions.c[column]))


@cache
def _totals(tenant: bool) -> Statement:
    columns = t.sessions.c
    shown = columns.deleted_at.is_(None)
    due = sa.and_(
        shown, is_in(columns.state, states.LIVE), sa.text("NOT sessions.protected"), columns.expires_at <= now()
    )
    count = sa.func.count
    return Statement(
        _of(
            sa.select(
                sa.func.coalesce(sa.func.sum(sa.case((shown, 1), else_=0)), 0).label("total"),
                (count() - count(sa.case((shown, 1)))).label("deleted"),
                sa.func.coalesce(sa.func.sum(columns.message_count), 0).label("messages"),
                sa.func.min(columns.created_at, type_=Timestamp()).label("oldest_session_at"),
                sa.func.max(columns.last_active_at, type_=Timestamp()).label("newest_activity_at"),
                count(sa.case((due, 1))).label("due_to_expire"),
                sa.func.min(sa.case((due, columns.expires_at)), type_=Timestamp()).label("oldest_due_at"),
                now().label("now"),
            ).select_from(t.sessions),
            tenant,
        )
    )


def _of(chosen: sa.Select[Any], tenant: bool) -> sa.Select[Any]:
    return chosen.where(t.sessions.c.tenant == p("tenant")) if tenant else chosen


def get_stats(request: r.GetStats) -> Recipe:
    """Count by state, kind and agent."""
    tenant = request.tenant is not None
    values = bound({"tenant": request.tenant})
    (totals,) = yield _totals(tenant), values
    groups: dict[str, dict[str, int]] = {}
    for column, name in (("state", "by_state"), ("kind", "by_kind"), ("agent_id", "by_agent")):
        found = yield _grouped(column, tenant), values
        groups[name] = {row["name"]: row["n"] for row in found if row["name"] is not None}
    groups["by_state"] = {state: groups["by_state"].get(state, 0) for state in states.STATES}
    at, oldest = totals.pop("now"), totals["oldest_due_at"]
    sizes = yield SIZES, {}
    numbers = {name: int(totals[name]) for name in ("total", "deleted", "messages", "due_to_expire")}
    return {
        **totals,
        **numbers,
        **groups,
        "backlog_age": max(0.0, (at - oldest).total_seconds()) if oldest else 0.0,
        "sizes": {row["name"]: int(row["bytes"]) for row in sizes},
    }


class table_sizes(FunctionElement[Any]):  # noqa: N801 - reads as the SQL function it is
    """Names and bytes of our tables, as a table."""

    inherit_cache = True
    name = "table_sizes"


_NAMES = ", ".join(f"'{table.name}'" for table in t.metadata.sorted_tables)


@compiles(table_sizes, "postgresql")
def _sizes_postgresql(_element: table_sizes, _compiler: Any, **_: Any) -> str:
    return (
        "(SELECT relname AS name, pg_total_relation_size(oid) AS bytes FROM pg_class"
        f" WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND relname IN ({_NAMES})) AS sizes"
    )


@compiles(table_sizes, "sqlite")
def _sizes_sqlite(_element: table_sizes, _compiler: Any, **_: Any) -> str:
    return (
        "(SELECT 'database' AS name, page_count * page_size AS bytes"
        " FROM pragma_page_count(), pragma_page_size()) AS sizes"
    )


@compiles(table_sizes, "mysql", "mariadb")
def _sizes_mariadb(_element: table_sizes, _compiler: Any, **_: Any) -> str:
    return (
        "(SELECT table_name AS name, coalesce(data_length + index_length, 0) AS bytes FROM information_schema.tables"
        f" WHERE table_schema = database() AND table_name IN ({_NAMES})) AS sizes"
    )


SIZES = Statement(
    sa.select(sa.column("name", sa.Text()), sa.column("bytes", sa.BigInteger())).select_from(table_sizes())
)
