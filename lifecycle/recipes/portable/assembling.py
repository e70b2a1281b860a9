"""Putting together what was stored in parts: a conversation of its entries, a document of its pieces.

All of it has to be read as it was at one moment (`requests.ASSEMBLED`): entries of a session that was removed and made anew
have the numbers of the former one's.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import sqlalchemy as sa

from lifecycle.entries import Run, runs_of
from lifecycle.models import tables as t
from lifecycle.pieces import joined, names_in
from lifecycle.recipes.portable.base import Recipe, Row, bound, of_key, p
from lifecycle.recipes.statement import Statement

E, V = t.entries.c, t.values.c
_RUN = Statement(
    sa.select(E.number, E.content)
    .where(of_key(t.entries), E.number >= p("first", E.number.type), E.number <= p("last", E.number.type))
    .order_by(E.number)
)
_AT_ONCE: Final = 128
AMONG = V.name.in_([p(f"name_{i}", V.name.type) for i in range(_AT_ONCE)])
"""Whether a piece is among those whose names `batched` gives."""
_VALUES = Statement(sa.select(V.name, V.content).where(of_key(t.values), AMONG))


def assembled(statement: Statement, values: Row) -> Recipe:
    """The row that the statement reads, with the texts of its conversation, context and plan; None for no such row.

    A text is empty where parts of it are missing for good.
    """
    found = yield statement, values
    if not found:
        return None
    row: Row = found[0]
    yield from _put_together(row, {name: values[name] for name in ("p_tenant", "p_session_id")})
    return row


def _put_together(row: Row, of: Row) -> Recipe:
    row["conversation"] = None
    if row["entries_from"] is not None:
        row["conversation"] = yield from _conversation(runs_of(row), of)
    if any(row[f"{name}_pieces"] is not None for name in ("context", "plan")):
        contents = yield from _contents(row, of)
        for name in ("context", "plan"):
            if row[f"{name}_pieces"] is not None:
                row[name] = joined(row[f"{name}_pieces"], contents) or ""


def batched(names: Sequence[str]) -> Iterator[Row]:
    """The parameters of statements that ask for so many names at a time; the last one is asked for again to fill them."""
    for start in range(0, len(names), _AT_ONCE):
        some = [*names[start : start + _AT_ONCE]]
        some += some[-1:] * (_AT_ONCE - len(some))
        yield bound({f"name_{i}": name for i, name in enumerate(some)})


def _contents(row: Row, of: Row) -> Recipe:
    """The pieces that the row's documents name: checkpoints may keep a thousand times as many."""
    names = sorted({name for column in ("context_pieces", "plan_pieces") for name in names_in(row[column])})
    contents: dict[str, str] = {}
    for some in batched(names):
        found = yield _VALUES, of | some
        contents.update((value["name"], value["content"]) for value in found)
    return contents


def _conversation(runs: list[Run], of: Row) -> Recipe:
    texts: list[str] = []
    for first, last in runs:
        found = yield _RUN, {**of, "p_first": first, "p_last": last}
        if len(found) != last - first + 1:
            return ""
        texts += [entry["content"] for entry in found]
    return f"[{','.join(texts)}]"
