"""Distributing the tables over the nodes of Citus: what belongs to a session goes where the session is.

The distribution column is the session's id, so that a session with all it owns is on one node, and any number of
sessions of one tenant are spread. What belongs to no session (workers and their jobs, keys, what the API answered,
samples, the schema's revision) stays on the coordinator: every process talks to it anyway, rows are locked there as
on any PostgreSQL, and a write is one on one server, where a reference table would be written on all.
"""

from typing import Any, Final

import sqlalchemy as sa

from lifecycle import migrate
from lifecycle.errors import InvalidArgument
from lifecycle.models import tables as t
from lifecycle.recipes.citus_catalog import DISTRIBUTED, Layout, layout
from lifecycle.urls import dialect_name

COLUMN: Final = t.sessions.c.session_id.name
LOCAL: Final = tuple(table.name for table in t.metadata.sorted_tables if table not in DISTRIBUTED)
LEAST_VERSION: Final = 12
"""Of Citus: the first whose identity columns and policies all work with the PostgreSQL that is needed here."""

_SETTINGS: Final = (
    "SET LOCAL lock_timeout = '5s'",
    # Several tables in one transaction, all of them or none.
    "SET LOCAL citus.multi_shard_modify_mode = 'sequential'",
    # No row of a shard that is kept twice can be locked; the nodes' own replicas keep it safe.
    "SET LOCAL citus.shard_replication_factor = 1",
)
_HINT: Final = "stop every worker, server and runner first, and start them again behind it"


def distribute(url: str, *, shards: int | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Distribute what is not distributed yet, moving its rows, and report: the statements, and which table is where.

    All tables or none; what is already so stays as it is, so it can be run again, and has to be after an upgrade that
    brought tables. `shards` is the number of parts of each table, by default the server's `citus.shard_count`; it
    holds for good. The dry run looks at everything and changes nothing. Run it on the coordinator, as the owner of the
    tables, while nobody uses them: they are locked until all rows are moved. Raises `InvalidArgument` for what stands in
    the way, `SchemaOutdated`, and `StorageUnavailable` when a row or a table could not be moved.
    """
    if dialect_name(url) != "postgresql":
        raise InvalidArgument("distribute: only PostgreSQL with the extension Citus distributes tables")
    if shards is not None and not 1 <= shards <= _MOST_SHARDS:
        raise InvalidArgument(f"--shards: must be from 1 to {_MOST_SHARDS:,}, not {shards}")
    migrate.check(url)
    with migrate.connected(url) as connection:
        with connection.begin():
            version = _citus(connection)
            found = layout(lambda sql: connection.exec_driver_sql(sql).one())
            _check_place(connection, found)
            todo = [table for table in DISTRIBUTED if table.name in found.missing]
            if todo:
                _check_tables(connection, todo, found)
            statements = _statements(connection, todo, shards)
            if not dry_run:
                for statement in statements:
                    connection.exec_driver_sql(statement.replace("%", "%%"))
        with connection.begin():
            moved = (
                DISTRIBUTED if dry_run and todo else [table for table in DISTRIBUTED if _has_rest(connection, table)]
            )
            rest = [f"SELECT truncate_local_data_after_distributing_table('{table.name}')" for table in moved]
            if not dry_run:
                for statement in rest:
                    connection.exec_driver_sql(statement)
    return {
        "citus": version,
        "column": COLUMN,
        "dry_run": dry_run,
        "changed": bool(todo or rest) and not dry_run,
        "distributed": [table.name for table in todo],
        "already": sorted(table.name for table in DISTRIBUTED if table not in todo),
        "on_coordinator": list(LOCAL),
        "statements": [*(["BEGIN", *statements, "COMMIT"] if statements else []), *rest],
    }


_MOST_SHARDS: Final = 64_000


def is_distributed(connection: sa.Connection) -> bool:
    """Whether the sessions of a PostgreSQL database are on the nodes of Citus."""
    return layout(lambda sql: connection.exec_driver_sql(sql).one()).is_distributed


def _citus(connection: sa.Connection) -> str:
    found = connection.exec_driver_sql("SELECT extversion FROM pg_extension WHERE extname = 'citus'").scalar()
    if found is None:
        raise InvalidArgument(
            "distribute: this database has no extension citus: put citus into shared_preload_libraries of the"
            " coordinator and every node, restart them, run CREATE EXTENSION citus in this database of each, and add"
            " the nodes with SELECT citus_add_node('host', 5432)"
        )
    version = str(found)
    if int(version.partition(".")[0]) < LEAST_VERSION:
        raise InvalidArgument(f"distribute: Citus {version} is too old: {LEAST_VERSION}.0 or later is needed")
    return version


def _check_place(connection: sa.Connection, found: Layout) -> None:
    if found.group:
        raise InvalidArgument("distribute: this is a worker of Citus: connect to the coordinator")
    nodes, taking = connection.exec_driver_sql(
        "SELECT count(*), count(*) FILTER (WHERE shouldhaveshards AND isactive) FROM pg_dist_node"
        " WHERE noderole = 'primary'"
    ).one()
    # With no node at all the coordinator takes the shards itself.
    if nodes and not taking:
        raise InvalidArgument(
            "distribute: no node takes shards: add one with SELECT citus_add_node('host', 5432), or let one take them"
            " with SELECT citus_set_node_property('host', 5432, 'shouldhaveshards', true)"
        )
    others = connection.exec_driver_sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND application_name LIKE 'lifecycle%%'"
    ).scalar_one()
    if others:
        raise InvalidArgument(f"distribute: {others} connections of Lifecycle's are open: {_HINT}")
    column = connection.exec_driver_sql(
        "SELECT column_to_column_name(logicalrelid, partkey) FROM pg_dist_partition"
        " WHERE logicalrelid = to_regclass('sessions') AND partmethod = 'h'"
    ).scalar()
    if column not in {None, COLUMN}:
        raise InvalidArgument(
            f"distribute: sessions is distributed by {column}, not by {COLUMN}: SELECT undistribute_table('sessions')"
            " and run this again"
        )


# What Citus does not move, and what to do about it: a query that names the first of them on a table.
_OBSTACLES: Final = (
    (
        """
        SELECT conrelid::regclass::text || '.' || conname FROM pg_constraint WHERE contype = 'f'
            AND (conrelid = to_regclass(:name) OR confrelid = to_regclass(:name)) LIMIT 1
        """,
        "the foreign key {found} holds it back: drop it",
    ),
    (
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = to_regclass(:name) LIMIT 1",
        "the trigger {found} is on it: drop it, as Citus runs none",
    ),
    (
        "SELECT relname FROM pg_class WHERE relrowsecurity AND oid = to_regclass(:name)",
        "row-level security is on: turn it off (`lifecycle db row-security off`), as no worker is told for whom it works",
    ),
    (
        """
        SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass(:name)
            AND NOT pg_has_role(relowner, 'USAGE')
        """,
        "it belongs to {found}: run this as that role",
    ),
)


def _check_tables(connection: sa.Connection, todo: list[sa.Table], found: Layout) -> None:
    if found.distributed and not found.is_distributed:
        already = ", ".join(sorted(found.distributed & {table.name for table in DISTRIBUTED}))
        if already:
            raise InvalidArgument(
                f"distribute: {already}: distributed without `sessions`: SELECT undistribute_table(...) for each"
            )
    for table in todo:
        for query, problem in _OBSTACLES:
            name = connection.execute(sa.text(query), {"name": table.name}).scalar()
            if name is not None:
                raise InvalidArgument(f"distribute: {table.name}: {problem.format(found=name)}")


def _has_rest(connection: sa.Connection, table: sa.Table) -> bool:
    """Whether rows that were copied to the nodes are still in the coordinator's own table, which nobody sees."""
    size = sa.text("SELECT pg_relation_size(to_regclass(:name))")
    return bool(connection.execute(size, {"name": table.name}).scalar_one())


def _statements(connection: sa.Connection, todo: list[sa.Table], shards: int | None) -> list[str]:
    if not todo:
        return []
    # The sessions first: all else is put beside them.
    ordered = sorted(todo, key=lambda table: table is not t.sessions)
    keys = [_key(table) for table in ordered if not _is_keyed(connection, table)]
    moves = [_move(table, shards) for table in ordered]
    return [*_SETTINGS, *keys, *moves]


def _is_keyed(connection: sa.Connection, table: sa.Table) -> bool:
    """Whether the table's primary key has the distribution column, without which no node can tell that it is unique."""
    return bool(
        connection.execute(
            sa.text(
                "SELECT EXISTS (SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid"
                " AND a.attnum = ANY (i.indkey::int2[]) WHERE i.indisprimary AND a.attname = :column"
                " AND i.indrelid = to_regclass(:name))"
            ),
            {"name": table.name, "column": COLUMN},
        ).scalar_one()
    )


def _key(table: sa.Table) -> str:
    columns = ", ".join([*(column.name for column in table.primary_key), COLUMN])
    name = table.primary_key.name
    return f"ALTER TABLE {table.name} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} PRIMARY KEY ({columns})"


def _move(table: sa.Table, shards: int | None) -> str:
    where = f"colocate_with => '{t.sessions.name}'"
    if table is t.sessions:
        where = "colocate_with => 'none'" + (f", shard_count => {shards}" if shards is not None else "")
    return f"SELECT create_distributed_table('{table.name}', '{COLUMN}', {where})"
