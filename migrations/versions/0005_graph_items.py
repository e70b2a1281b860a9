"""The items of graphs' lists as lines in the rows of checkpoints, without a row and an index entry of their own.

Revision ID: 0005
Revises: 0004
"""

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from lifecycle.models.types import Base64, key_text, long_text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ITEMS = "session_graph_items"
_CHECKPOINTS = "session_graph_checkpoints"
_COLUMN = "new_items"
# Items whose checkpoint is not known stand in rows of their own, at places that begin with this; so much in each.
_MORE = "\x1d"
_BEHIND_MORE = "\x1e"
_MOST_CHARS = 4 * 1024 * 1024
_PAGE = 1000
_OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}
_KEY = ("tenant", "session_id")
_items = sa.table(_ITEMS, *map(sa.column, (*_KEY, "number", "needs")), sa.column("content", Base64()))
_checkpoints = sa.table(_CHECKPOINTS, *map(sa.column, (*_KEY, "place", "body", "writes", _COLUMN)))


def upgrade() -> None:
    """Add the column, move the items into it, and drop their table."""
    if not (_repeatable() and _has_column()):
        op.add_column(_CHECKPOINTS, sa.Column(_COLUMN, long_text(), nullable=True))
    if context.is_offline_mode():
        _refuse_items()
    elif _has_items():
        _move_into_rows(op.get_bind())
    op.drop_table(_ITEMS, if_exists=True)


def downgrade() -> None:
    """Create the table, move the items into it, and drop the column."""
    op.create_table(
        _ITEMS,
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("needs", long_text(), nullable=True),
        sa.Column("content", Base64(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "number", name=op.f("pk_session_graph_items")),
        if_not_exists=_repeatable(),
        postgresql_with={"toast_tuple_target": 2704},
        **_OPTIONS,
    )
    if _has_column():
        _move_into_table(op.get_bind())
        op.drop_column(_CHECKPOINTS, _COLUMN)


def _repeatable() -> bool:
    # DDL commits by itself there, so an upgrade that was interrupted must be able to start again.
    return op.get_context().dialect.name in {"mysql", "mariadb"}


def _has_column() -> bool:
    if context.is_offline_mode():
        return False
    return _COLUMN in {found["name"] for found in sa.inspect(op.get_bind()).get_columns(_CHECKPOINTS)}


def _has_items() -> bool:
    return sa.inspect(op.get_bind()).has_table(_ITEMS)


def _refuse_items() -> None:
    """Make a printed script fail on a database with items: moving them needs more than SQL."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            f"DO $$ BEGIN IF EXISTS (SELECT FROM {_ITEMS}) THEN RAISE EXCEPTION"
            " 'there are checkpoints of graphs: run lifecycle db upgrade instead of this script'; END IF; END $$"
        )


def _paged(connection: sa.Connection, table: Any, within: str, *conditions: Any) -> Iterator[dict[str, Any]]:
    """The rows of a table in the order of its key, which ends with the column `within`."""
    order = [table.c[name] for name in (*_KEY, within)]
    behind: list[Any] = []
    while True:
        page = connection.execute(sa.select(table).where(*conditions, *behind).order_by(*order).limit(_PAGE))
        rows = page.mappings().all()
        yield from map(dict, rows)
        if len(rows) < _PAGE:
            return
        tenant, session_id, last = (rows[-1][name] for name in (*_KEY, within))
        of_session = sa.and_(table.c.tenant == tenant, table.c.session_id == session_id)
        behind = [
            sa.or_(
                table.c.tenant > tenant,
                sa.and_(table.c.tenant == tenant, table.c.session_id > session_id),
                sa.and_(of_session, table.c[within] > last),
            )
        ]


def _move_into_rows(connection: sa.Connection) -> None:
    """Store the items as lines of rows that hold nothing else, which go when no checkpoint needs their items."""
    places = sa.and_(_checkpoints.c.place >= _MORE, _checkpoints.c.place < _BEHIND_MORE)
    connection.execute(sa.delete(_checkpoints).where(places))  # of an upgrade that was interrupted
    owner: tuple[str, str] | None = None
    lines: list[str] = []
    first, size = 0, 0

    def store() -> None:
        if owner is not None and lines:
            row = {"tenant": owner[0], "session_id": owner[1], "place": f"{_MORE}{first}-0", _COLUMN: "".join(lines)}
            connection.execute(sa.insert(_checkpoints).values(row))

    for item in _paged(connection, _items, "number"):
        names = [] if item["needs"] is None else json.loads(item["needs"])
        line = f"{item['number']} {','.join(names)} {item['content']}\n"
        size += len(line)
        if owner != (item["tenant"], item["session_id"]) or size > _MOST_CHARS:
            store()
            owner, first, size = (item["tenant"], item["session_id"]), item["number"], len(line)
            lines.clear()
        lines.append(line)
    store()


def _move_into_table(connection: sa.Connection) -> None:
    """Store each line as a row, and remove the rows that hold lines only."""
    connection.execute(sa.delete(_items))
    for row in _paged(connection, _checkpoints, "place", _checkpoints.c[_COLUMN].is_not(None)):
        found = []
        for line in row[_COLUMN].splitlines():
            number, names, content = line.split(" ")
            needs = json.dumps(names.split(","), separators=(",", ":")) if names else None
            found.append(
                {name: row[name] for name in _KEY} | {"number": int(number), "needs": needs, "content": content}
            )
        connection.execute(sa.insert(_items), found)
    connection.execute(sa.delete(_checkpoints).where(_checkpoints.c.body.is_(None), _checkpoints.c.writes.is_(None)))
