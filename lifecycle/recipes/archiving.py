"""Writing sessions to the archive in the transaction that removes them.

Their rows are locked from before they are read until the transaction ends. Whatever changes a session, or adds to what
it owns, locks or changes its row first: so what is removed is what was written, version and messages, and nothing
else. The file is on the disk before anything is removed.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.recipes.portable.base import Recipe, Row
from lifecycle.recipes.statement import Call, Statement
from lifecycle.recipes.whole import page_of
from lifecycle.transfer.rows import TABLES, key

_REVISION: Final = Statement(
    sa.select(sa.column("version_num", sa.String()).label("revision")).select_from(sa.table("lifecycle_schema"))
)
# Sessions are read together while they are small: so many, with so many messages, and so many characters in all.
_TOGETHER: Final = 128
_MESSAGES: Final = 2000
_CHARS: Final = 16 * 1024 * 1024
# Rows of a page: fewer at first of what may hold documents, then as many as are of a good size together.
_FIRST_PAGE: Final = 512
_FIRST_DOCUMENTS: Final = 32
_LONGEST_PAGE: Final = 2048
_SMALL_PAGE: Final = 1024 * 1024
_DOCUMENTS: Final = (
    t.session_states, t.entries, t.values, t.checkpoints, t.graph_checkpoints, t.graph_values,
)  # fmt: skip

Take = Callable[[sa.Table, list[Row]], Call | None]


class _TooLarge(Exception):
    """The sessions are to be read one by one."""


def removing(found: list[Row], request: Any, remove: Callable[[], Recipe]) -> Recipe:
    """Remove locked sessions, behind writing them to the archive where the request names one; what `remove` gives."""
    if request.archive is None or not found:
        return (yield from remove())
    (schema,) = yield _REVISION, {}
    begin = partial(request.archive.begin, schema["revision"], reason=request.reason, actor=request.actor)
    batch = yield Call(begin)
    try:
        for group in _groups(found):
            yield from _write(group, batch)
        yield Call(batch.commit)
        return (yield from remove())
    except BaseException:  # the transaction is over before its end: nothing was removed
        batch.discard()
        raise


def _groups(found: list[Row]) -> Iterator[list[Row]]:
    for _, sessions in itertools.groupby(sorted(found, key=key), itemgetter("tenant")):
        group: list[Row] = []
        messages = 0
        for row in sessions:
            if group and (len(group) == _TOGETHER or messages + row["message_count"] > _MESSAGES):
                yield group
                group, messages = [], 0
            group.append(row)
            messages += row["message_count"]
        yield group


def _write(group: list[Row], batch: Any) -> Recipe:
    """Write sessions of one tenant: together if they are small, else one by one, a page at a time."""
    if len(group) > 1:
        try:
            rows = yield from _together(group)
        except _TooLarge:
            pass
        else:
            yield Call(partial(batch.add, group, rows))
            return
    for row in group:
        yield Call(partial(batch.begin, row))
        yield from _pages([row], lambda table, page: Call(partial(batch.rows, table, page)))
        yield Call(batch.end)


def _together(group: list[Row]) -> Recipe:
    """All that belongs to some sessions, by key and table. Raises `_TooLarge`."""
    rows: dict[tuple[str, str], dict[sa.Table, list[Row]]] = {}
    chars = 0

    def take(table: sa.Table, page: list[Row]) -> None:
        nonlocal chars
        chars += _size(page)
        if chars > _CHARS:
            raise _TooLarge
        for row in page:
            rows.setdefault(key(row), {}).setdefault(table, []).append(row)

    yield from _pages(group, take)
    return rows


def _pages(group: list[Row], take: Take) -> Recipe:
    """Read what belongs to sessions of one tenant, table by table, and hand it over page by page."""
    for table in TABLES.values():
        if table is t.sessions:
            continue
        ids = [row["session_id"] for row in group]
        limit = _FIRST_DOCUMENTS if table in _DOCUMENTS else _FIRST_PAGE
        last: Row | None = None
        while True:
            page = yield page_of(table, group[0]["tenant"], ids, last, limit)
            if page and (step := take(table, page)) is not None:
                yield step
            if len(page) < limit:
                break
            last = page[-1]
            ids = [session_id for session_id in ids if session_id >= last["session_id"]]
            limit = min(limit * 2, _LONGEST_PAGE) if _size(page) < _SMALL_PAGE else max(1, limit // 4)


def _size(page: list[Row]) -> int:
    return sum(len(value) for row in page for value in row.values() if type(value) is str)
