"""Documents that are too large for one statement of MariaDB: written empty, then appended to in pieces.

A statement must fit max_allowed_packet with its quotes and backslashes escaped, which at worst doubles it. The value
in the row must fit too: the server computes no longer text.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle.errors import LimitExceeded
from lifecycle.models import tables as t
from lifecycle.recipes.portable.base import Recipe, p
from lifecycle.recipes.statement import Many, Statement

_TABLES = (
    t.session_states, t.entries, t.values, t.checkpoints, t.graph_checkpoints, t.graph_values,
)  # fmt: skip


def split(recipe: Recipe, largest: Callable[[], int]) -> Recipe:
    """The recipe with each step that is too large as several; `largest` gives the bound in bytes."""
    answer: Any = None
    try:
        while True:
            step = recipe.send(answer)
            if isinstance(step, tuple) and _has_large(step[1], largest()):
                answer = yield from _in_pieces(step[0], step[1], largest())
            elif isinstance(step, Many) and any(_has_large(values, largest()) for values in step.values):
                answer = None
                for values in step.values:
                    if _has_large(values, largest()):
                        yield from _in_pieces(step.statement, values, largest())
                    else:
                        yield step.statement, values
            else:
                answer = yield step
    except StopIteration as done:
        return done.value
    finally:
        recipe.close()


def _has_large(values: Mapping[str, Any], largest: int) -> bool:
    return any(_is_large(value, largest) for value in values.values())


def _is_large(value: Any, largest: int) -> bool:
    if not isinstance(value, str) or len(value) * 4 <= largest // 8:
        return False
    return len(value.encode()) > largest // 8


def _in_pieces(statement: Statement, values: Mapping[str, Any], largest: int) -> Recipe:
    table: Any = getattr(statement.expression, "table", None)
    large = {name: value.encode() for name, value in values.items() if _is_large(value, largest)}
    for name, data in large.items():
        if len(data) > largest or table not in _TABLES:
            raise LimitExceeded(name.removeprefix("p_"), len(data), largest, "bytes", "MariaDB's max_allowed_packet")
    changed = yield statement, {**values, **dict.fromkeys(large, "")}
    if changed == 0:
        return changed  # there is no such row; the recipe inserts one
    own = {
        column.name: values.get(f"p_by_{column.name}", values.get(f"p_{column.name}")) for column in table.primary_key
    }
    for name, data in large.items():
        for piece in _pieces(data, largest * 2 // 5):
            given = {f"p_{column}": value for column, value in own.items()} | {"p_piece": piece}
            yield _append(table, name.removeprefix("p_")), given
    return changed


def _pieces(data: bytes, size: int) -> Iterator[str]:
    start = 0
    while start < len(data):
        end = min(start + size, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # noqa: PLR2004 - within a character of UTF-8
            end -= 1
        yield data[start:end].decode()
        start = end


@cache
def _append(table: sa.Table, column: str) -> Statement:
    mine = [key == p(key.name, key.type) for key in table.primary_key]
    longer = sa.func.concat(table.c[column], p("piece", sa.Text()))
    return Statement(sa.update(table).where(*mine).values({column: longer}))
