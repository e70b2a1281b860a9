"""The checkpoints of graphs on any database.

Whatever stores or removes locks the session's row first. A checkpoint shares items and values with the one before it;
while that one is there, so is all that it needs.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from lifecycle import states
from lifecycle.entries import Run, outside
from lifecycle.errors import StorageUnavailable
from lifecycle.graphs import bounds, items_of, needed, needs_of, numbered_lines, place_of_more, said
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import (
    LOCK_SHORT,
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
    padded,
    set_row,
)
from lifecycle.recipes.statement import Many, Statement

C, V = t.graph_checkpoints.c, t.graph_values.c
_KEY: Final = ("tenant", "session_id")
_ROW: Final[tuple[str, ...]] = ("place", "run_id", "first_item", "needs", "body")
# So many names or places stand in one statement.
_SOME: Final = 100
_TRIES: Final = 5
# So much of a list stands in one row: MariaDB takes no more than max_allowed_packet, which may be small.
_MOST_CHARS: Final = 256 * 1024

_AT = sa.and_(of_key(t.graph_checkpoints), C.place == p("place"))
_HAS = Statement(sa.select(C.place, C.needs, C.first_item).where(_AT, C.body.is_not(None)))


def _change(**values: Any) -> Statement:
    return Statement(sa.update(t.graph_checkpoints).where(_AT).values(values))


_STORE = _change(**{name: p(name, C[name].type) for name in _ROW if name != "place"})
_WRITE = _change(
    writes=sa.func.coalesce(C.writes, sa.literal_column("''", sa.Text())).concat(p("writes", C.writes.type))
)
_FIELDS = (C.place, C.first_item, C.needs, C.body, C.writes)
_VISIBLE = (
    sa.select(1)
    .where(t.sessions.c.tenant == C.tenant, t.sessions.c.session_id == C.session_id, t.sessions.c.deleted_at.is_(None))
    .exists()
)
_ONE = Statement(sa.select(*_FIELDS).where(_AT, C.body.is_not(None), _VISIBLE))
_IN = sa.and_(of_key(t.graph_checkpoints), C.place >= p("since"), C.place < p("until"))
_LATEST = Statement(
    sa.select(*_FIELDS).where(_IN, C.body.is_not(None), _VISIBLE).order_by(C.place.desc()).limit(sa.literal_column("1"))
)
_HAVE_ITEMS = sa.and_(of_key(t.graph_checkpoints), C.new_items.is_not(None))
_ITEMS = Statement(sa.select(C.new_items).where(_HAVE_ITEMS, C.last_item >= p("since", C.last_item.type)))
_ALL_ITEMS = Statement(sa.select(C.place, C.new_items).where(_HAVE_ITEMS))
_ALL = Statement(sa.select(C.place, C.first_item, C.needs, C.writes).where(of_key(t.graph_checkpoints)))
_ALL_VALUES = Statement(sa.select(V.name, V.needs).where(of_key(t.graph_values)))
_NOTHING_LEFT = (C.body.is_(None), C.writes.is_(None))
_EMPTIED: Final = dict.fromkeys(("run_id", "first_item", "needs", "body", "writes"), sa.null())
_KEEP_ITEMS = _change(new_items=p("new_items", C.new_items.type))
_DROP_HOLLOW = Statement(
    sa.delete(t.graph_checkpoints).where(of_key(t.graph_checkpoints), *_NOTHING_LEFT, C.new_items.is_(None))
)
_DROP_VALUE = Statement(sa.delete(t.graph_values).where(of_key(t.graph_values), V.name == p("name")))
_GRAPH: Final = (t.graph_values, t.graph_checkpoints)


def _copy(table: sa.Table) -> Statement:
    rest = [column for column in table.c if column.name not in _KEY]
    chosen = sa.select(table.c.tenant, p("new_id", table.c.session_id.type), *rest).where(of_key(table))
    return Statement(sa.insert(table).from_select([*_KEY, *(column.name for column in rest)], chosen))


_COPIES: Final = tuple(map(_copy, _GRAPH))


def put_checkpoint(request: r.PutGraphCheckpoint) -> Recipe:
    """Number the new items, store what is not there, then the checkpoint."""
    row = yield from lock(request, LOCK_SHORT)
    if row is None or row["state"] not in states.LIVE or barred(row, request.fence):
        return None
    of = key(request)
    if request.parent is not None:
        there = yield _HAS, {**of, "p_place": request.parent[0]}
        if [(one["place"], one["needs"], one["first_item"]) for one in there] != [request.parent]:
            return None
    first: int = row["next_seq"]
    yield from _store_values(of, request.values)
    values = of | bound({name: getattr(request, name) for name in _ROW if name != "first_item"})
    values["p_first_item"] = first if request.items else None
    texts: list[tuple[str | None, int | None]] = [*numbered_lines(request.items, first, _MOST_CHARS)]
    if not (yield _STORE, values):
        text, last = texts.pop(0) if texts else (None, None)
        values |= {"p_new_items": text, "p_last_item": last}
        yield insert(t.graph_checkpoints, (*_KEY, *_ROW, "new_items", "last_item")), values
    for part, (text, last) in enumerate(texts):
        more = {"p_place": place_of_more(first, part), "p_new_items": text, "p_last_item": last}
        yield insert(t.graph_checkpoints, (*_KEY, "place", "new_items", "last_item")), of | more
    moved: Row = {"next_seq": first + len(request.items), "ghost_at": None, **changed_now(row), **active_now(row)}
    yield from set_row(row, moved)
    return first


def put_writes(request: r.PutGraphWrites) -> Recipe:
    """Add the line, in a row that waits for its checkpoint where that is not there yet."""
    row = yield from lock(request, LOCK_SHORT)
    if row is None or row["state"] not in states.LIVE or barred(row, request.fence):
        return None
    of = key(request)
    yield from _store_values(of, request.values)
    values = {**of, "p_place": request.place, "p_writes": request.line}
    if not (yield _WRITE, values):
        yield insert(t.graph_checkpoints, (*_KEY, "place", "writes")), values
    yield from set_row(row, {"ghost_at": None, **changed_now(row), **active_now(row)})
    return True


def _store_values(of: Row, values: tuple[tuple[str, str | None, str], ...]) -> Recipe:
    there: set[str] = set()
    for some in _parts([name for name, _, _ in values]):
        found = yield _named(len(some)), of | {f"p_name_{i}": name for i, name in enumerate(some)}
        there.update(value["name"] for value in found)
    new = {name: (needs, content) for name, needs, content in values if name not in there}
    if new:
        rows = [
            {**of, "p_name": name, "p_needs": needs, "p_content": content} for name, (needs, content) in new.items()
        ]
        yield Many(insert(t.graph_values, (*_KEY, "name", "needs", "content")), rows)


def _parts(names: list[str]) -> Iterable[list[str]]:
    return (padded(names[start : start + _SOME]) for start in range(0, len(names), _SOME))


@cache
def _named(size: int) -> Statement:
    return Statement(sa.select(V.name).where(of_key(t.graph_values), V.name.in_([p(f"name_{i}") for i in range(size)])))


@cache
def _values(size: int) -> Statement:
    wanted = V.name.in_([p(f"name_{i}") for i in range(size)])
    return Statement(sa.select(V.name, V.needs, V.content).where(of_key(t.graph_values), wanted))


@cache
def _rows(size: int) -> Statement:
    return Statement(sa.select(*_FIELDS).where(_placed(size), C.body.is_not(None), _VISIBLE))


def read_graph(request: r.ReadGraph) -> Recipe:
    """Read the checkpoint, then what it needs; anew where that was removed in between."""
    of = key(request)
    if request.place is None:
        since, until = bounds(request.namespace)
        statement, values = _LATEST, {**of, "p_since": since, "p_until": until}
    else:
        statement, values = _ONE, {**of, "p_place": request.place}
    for _ in range(_TRIES):
        found = yield statement, values
        if not found:
            return None
        parts = yield from _parts_of(of, found)
        if parts is not None:
            return found[0], *parts
    raise StorageUnavailable(f"parts of a checkpoint of session {request.session_id!r} are missing")


def read_rows(request: r.ReadGraphRows) -> Recipe:
    """The same of several."""
    of = key(request)
    for _ in range(_TRIES):
        rows: list[Row] = []
        for some in _parts(list(request.places)):
            rows += yield _rows(len(some)), of | {f"p_place_{i}": place for i, place in enumerate(some)}
        if not request.whole:
            return rows, {}, {}
        parts = yield from _parts_of(of, rows)
        if parts is not None:
            return rows, *parts
    raise StorageUnavailable(f"parts of checkpoints of session {request.session_id!r} are missing")


def _parts_of(of: Row, rows: list[Row]) -> Recipe:
    """The items and values that checkpoints need; None where one is missing."""
    runs: list[Run] = []
    names: set[str] = set()
    for row in rows:
        own_runs, own_names = needs_of(row)
        runs += own_runs
        names.update(own_names)
    items: dict[int, str] = {}
    if runs:
        spans = _merged(runs)
        stored = {}
        for row in (yield _ITEMS, {**of, "p_since": spans[0][0]}):
            stored.update(items_of(row["new_items"]))
        if sum(last - first + 1 for first, last in spans) > len(stored):
            return None
        wanted = [number for first, last in spans for number in range(first, last + 1)]
        items = {number: stored[number] for number in wanted if number in stored}
        if len(items) < len(wanted):
            return None
        names.update(name for line in items.values() for name in said(line)[0])
    values: dict[str, Row] = {}
    while missing := sorted(names - values.keys()):
        for some in _parts(missing):
            found = yield _values(len(some)), of | {f"p_name_{i}": name for i, name in enumerate(some)}
            values.update({value["name"]: value for value in found})
            names.update(name for value in found for name in needed(value["needs"])[1])
        if not values.keys() >= set(missing):
            return None
    return items, values


def _merged(runs: Iterable[Run]) -> list[Run]:
    merged: list[Run] = []
    for first, last in sorted(runs):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


@cache
def _places(one: bool, runs: int | None, since: bool, until: bool) -> Statement:
    chosen = sa.select(C.session_id, C.place).where(C.tenant == p("tenant"), C.body.is_not(None), _VISIBLE)
    if one:
        chosen = chosen.where(C.session_id == p("session_id"))
    if runs is not None:
        chosen = chosen.where(C.run_id.in_([p(f"run_{i}") for i in range(runs)]))
    if since:
        chosen = chosen.where(C.place >= p("since"))
    if until:
        chosen = chosen.where(C.place < p("until"))
    return Statement(chosen.order_by(C.session_id, C.place))


def list_places(request: r.ListGraphPlaces) -> Recipe:
    """Read the keys only."""
    runs = [None] if request.run_ids is None else list(_parts(list(request.run_ids)))
    places: list[tuple[str, str]] = []
    for some in runs:
        statement = _places(
            request.session_id is not None,
            None if some is None else len(some),
            request.since is not None,
            request.until is not None,
        )
        values = bound({name: getattr(request, name) for name in ("tenant", "session_id", "since", "until")})
        found = yield statement, values | {f"p_run_{i}": run_id for i, run_id in enumerate(some or ())}
        places += [(row["session_id"], row["place"]) for row in found]
    return places


def remove_checkpoints(request: r.RemoveGraphCheckpoints) -> Recipe:
    """Remove the checkpoints, then what those that are left do not need."""
    row = yield from lock(request, LOCK_SHORT)
    if row is None or barred(row, request.fence):
        return None
    of = key(request)
    removed = 0
    for some in _parts(list(request.places)):
        at = of | {f"p_place_{i}": place for i, place in enumerate(some)}
        removed += yield _drop(len(some)), at
        removed += yield _empty(len(some)), at
    if removed:
        yield from _collect(of)
        yield from set_row(row, changed_now(row))
    return removed


def _placed(size: int) -> Any:
    return sa.and_(of_key(t.graph_checkpoints), C.place.in_([p(f"place_{i}") for i in range(size)]))


@cache
def _drop(size: int) -> Statement:
    """Remove checkpoints that no items came with."""
    return Statement(sa.delete(t.graph_checkpoints).where(_placed(size), C.new_items.is_(None)))


@cache
def _empty(size: int) -> Statement:
    """Remove all of the others but their items, until it is known who needs these."""
    some = sa.update(t.graph_checkpoints).where(_placed(size), sa.not_(sa.and_(*_NOTHING_LEFT)))
    return Statement(some.values(_EMPTIED))


def _collect(of: Row) -> Recipe:
    runs: list[Run] = []
    names: set[str] = set()
    for row in (yield _ALL, of):
        own_runs, own_names = needs_of(row)
        runs += own_runs
        names.update(own_names)
    stored = {row["place"]: items_of(row["new_items"]) for row in (yield _ALL_ITEMS, of)}
    gone = outside(sorted(number for lines in stored.values() for number in lines), runs)
    lost = {number for first, last in gone for number in range(first, last + 1)}
    changed = []
    for place, lines in stored.items():
        kept = {number: line for number, line in lines.items() if number not in lost}
        if len(kept) < len(lines):
            text = "".join(f"{number} {line}\n" for number, line in kept.items())
            changed.append({**of, "p_place": place, "p_new_items": text or None})
        names.update(name for line in kept.values() for name in said(line)[0])
    if changed:
        yield Many(_KEEP_ITEMS, changed)
    yield _DROP_HOLLOW, of
    values = {value["name"]: needed(value["needs"])[1] for value in (yield _ALL_VALUES, of)}
    names.update(name for holder in list(names) for name in values.get(holder, ()))
    unneeded = sorted(values.keys() - names)
    if unneeded:
        yield Many(_DROP_VALUE, [{**of, "p_name": name} for name in unneeded])


def copy_graph(request: r.CopyGraph) -> Recipe:
    """Copy what the one session has into the other, under the same numbers."""
    rows: dict[str, Any] = {}
    for session_id in sorted({request.session_id, request.new_id}):
        rows[session_id] = yield from lock(r.OfSession(request.tenant, session_id), LOCK_SHORT)
    source, target = rows[request.session_id], rows[request.new_id]
    if target is None or target["state"] not in states.LIVE or barred(target, request.fence):
        return None
    if (yield _ALL, bound(own_key(target))):
        return -1
    if source is None:
        return 0
    copied = 0
    for statement in _COPIES:
        copied = yield statement, bound(own_key(source)) | {"p_new_id": request.new_id}
    moved = {"next_seq": max(target["next_seq"], source["next_seq"]), "ghost_at": None}
    yield from set_row(target, moved | changed_now(target) | active_now(target))
    return copied


RECIPES: Final[Mapping[type[r.Request], Callable[[Any], Recipe]]] = {
    r.PutGraphCheckpoint: put_checkpoint,
    r.PutGraphWrites: put_writes,
    r.ReadGraph: read_graph,
    r.ReadGraphRows: read_rows,
    r.ListGraphPlaces: list_places,
    r.RemoveGraphCheckpoints: remove_checkpoints,
    r.CopyGraph: copy_graph,
}
