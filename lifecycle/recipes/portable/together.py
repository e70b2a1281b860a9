"""Many sessions in one statement: locked in the order of their keys, and written with the same values."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import Any, Final

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.models.types import now
from lifecycle.recipes.portable.base import Recipe, Row, bound, p
from lifecycle.recipes.statement import Statement

S = t.sessions.c
# Of the statements for so many sessions at most: each is compiled once.
_SIZES: Final = (1, 10, 100)
Key = tuple[str, str]


def among(tenant: str, ids: list[str]) -> tuple[int, Row]:
    """For how many ids a statement on these has to be made (see `of_these`), and its values."""
    return _size(ids), {"p_tenant": tenant, **_ids(ids)}


def of_these(size: int) -> list[Any]:
    """The condition that a session is one of so many of a tenant's."""
    return [S.tenant == p("tenant"), S.session_id.in_([p(f"id_{i}") for i in range(size)])]


def lock_these(keys: Iterable[Key], columns: tuple[str, ...], *, skip: bool = False) -> Recipe:
    """Lock the sessions: their rows with `now`. With `skip`, without those that somebody else has locked."""
    rows: list[Row] = []
    for tenant, ids in by_tenant(keys):
        rows += yield _lock(columns, _size(ids), skip), {"p_tenant": tenant, **_ids(ids)}
    return rows


def set_these(rows: Collection[Row], values: Mapping[str, Any], own: tuple[tuple[str, Any], ...] = ()) -> Recipe:
    """Write the same values to locked sessions, and what `own` reckons of each one's row: (column, expression)."""
    for tenant, ids in by_tenant((row["tenant"], row["session_id"]) for row in rows):
        yield _set(tuple(values), own, _size(ids)), {"p_tenant": tenant, **bound(values), **_ids(ids)}


def by_tenant(keys: Iterable[Key]) -> Iterator[tuple[str, list[str]]]:
    """The ids of each tenant's, in order, and no more at once than a statement takes."""
    for tenant, some in groupby(sorted(keys), key=lambda key: key[0]):
        ids = [session_id for _, session_id in some]
        for start in range(0, len(ids), _SIZES[-1]):
            yield tenant, ids[start : start + _SIZES[-1]]


def alike(rows: Iterable[tuple[Row, Row]]) -> Iterator[tuple[Row, list[Row]]]:
    """Values with the rows that are to have them: from pairs of a row and its values."""
    found: dict[tuple[Any, ...], tuple[Row, list[Row]]] = {}
    for row, values in rows:
        found.setdefault(tuple(values.values()), (values, []))[1].append(row)
    yield from found.values()


def _size(ids: Collection[str]) -> int:
    return next(size for size in _SIZES if len(ids) <= size)


def _ids(ids: list[str]) -> Row:
    """The parameters of `of_these`, the last one again and again for what is left over."""
    return {f"p_id_{i}": ids[min(i, len(ids) - 1)] for i in range(_size(ids))}


@cache
def _lock(columns: tuple[str, ...], size: int, skip: bool) -> Statement:
    locked = sa.select(*(S[name] for name in columns), now().label("now")).where(*of_these(size))
    return Statement(locked.order_by(S.session_id).with_for_update(skip_locked=skip))


@cache
def _set(columns: tuple[str, ...], own: tuple[tuple[str, Any], ...], size: int) -> Statement:
    values = {name: p(name, S[name].type) for name in columns}
    return Statement(sa.update(t.sessions).where(*of_these(size)).values({**values, **dict(own)}))
