"""The migrations on every database: what they build, that they can be repeated, and what is said about it."""

import contextlib
import gc
import json
import os
import re
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from typer.testing import CliRunner

from lifecycle import migrate
from lifecycle.cli.db import app
from lifecycle.errors import InvalidArgument, SchemaOutdated, StorageUnavailable
from lifecycle.models.tables import messages, metadata, sessions
from lifecycle.search_index import has_search_index, set_search_index
from lifecycle.urls import dialect_name, engine_url, is_memory

T = TypeVar("T")

SESSION: dict[str, Any] = {
    "tenant": "",
    "kind": "chat",
    "state": "active",
    "metadata": "{}",
    "config": "{}",
    "version": 1,
    "next_seq": 1,
}
TIMES = ("created_at", "updated_at", "listed_at", "last_active_at")


def run(url: str, work: Callable[[sa.Connection], T]) -> T:
    """Run a piece of work on a connection of its own, and commit."""
    with migrate.connected(url) as connection, migrate.transaction(connection):
        return work(connection)


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    return run(url, lambda connection: [tuple(row) for row in connection.exec_driver_sql(statement)])


def execute(url: str, *statements: str) -> None:
    """Run statements in one transaction."""
    run(url, lambda connection: [connection.exec_driver_sql(statement) for statement in statements])


def schema(url: str, *, search: bool = True) -> list[tuple[Any, ...]]:
    """Everything the database knows of its schema, in its own words; without search indexes if so asked."""
    kind = dialect_name(url)
    if kind == "sqlite":
        found = rows(url, "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        found = [(what, name, re.sub(r"\s+", " ", text or "")) for what, name, text in found]
        return sorted(
            row for row in found if row[1] != "lifecycle_schema" and (search or "sessions_title" not in row[1])
        )
    if kind == "mariadb":
        tables = [name for (name,) in rows(url, "SHOW TABLES") if name != "lifecycle_schema"]
        # The order of the keys is that of their creation.
        return sorted(
            (name, *sorted(line.strip().rstrip(",") for line in text.splitlines()))
            for table in tables
            for name, text in rows(url, f"SHOW CREATE TABLE `{table}`")
        )
    found = rows(
        url,
        "SELECT 'column', table_name, column_name || ' ' || data_type || ' ' || is_nullable || ' ' || is_identity"
        " || ' ' || coalesce(column_default, '') FROM information_schema.columns WHERE table_schema = 'public'"
        " UNION ALL SELECT 'index', tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        " UNION ALL SELECT 'check', conrelid::regclass::text, conname || pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace"
        " UNION ALL SELECT 'options', relname, reloptions::text FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL",
    )
    return sorted(row for row in found if row[1] != "lifecycle_schema" and (search or "_trgm" not in row[2]))


def create_all(connection: sa.Connection) -> None:
    """Create the tables straight from the metadata."""
    metadata.create_all(connection)


def add_session(url: str, session_id: str, title: str | None, text: str | None = None) -> None:
    """Write a session, with one message if there is a text."""
    time = sa.func.now() if dialect_name(url) != "sqlite" else sa.literal_column("0")

    def write(connection: sa.Connection) -> None:
        values = {**SESSION, "session_id": session_id, "title": title, "title_folded": title and title.casefold()}
        connection.execute(sa.insert(sessions).values(**values, **dict.fromkeys(TIMES, time)))
        if text is not None:
            message = {"tenant": "", "session_id": session_id, "seq": 1, "message_id": "m", "role": "user"}
            folded = None if text.lower() == text.casefold() and text.isascii() else text.casefold()
            connection.execute(
                sa.insert(messages).values(
                    **message, content=text, content_folded=folded, encoding="text", created_at=time
                )
            )

    run(url, write)


def test_schema_is_that_of_the_metadata(database_url: str) -> None:
    """After an upgrade Alembic finds nothing to change: tables, columns, types, defaults and indexes."""
    migrate.upgrade(database_url)

    def differences(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrate.VERSION_TABLE, **migrate.COMPARISON}
        )
        found: list[Any] = compare_metadata(context, metadata)
        return [change for change in found if not (isinstance(change, list) and all(map(means_nothing, change)))]

    def means_nothing(change: Any) -> bool:
        if dialect_name(database_url) == "postgresql" or change[0] != "modify_default":
            return False
        # Only PostgreSQL has identity columns; elsewhere it is an autoincrement, which has no default to compare.
        if change[2:4] == ("session_transitions", "id"):
            return True
        # MariaDB's booleans are numbers.
        return [str(default.arg).strip("'") for default in change[5:7] if default is not None] == ["0", "false"]

    assert run(database_url, differences) == []
    if dialect_name(database_url) != "mariadb":
        set_search_index(database_url, True)
        assert run(database_url, differences) == []


def test_schema_is_what_the_metadata_creates(database_url: str) -> None:
    """The migration and the metadata give the same in the database's own words: checks and partial indexes too."""
    migrate.upgrade(database_url)
    migrated = schema(database_url, search=False)
    migrate.downgrade(database_url, "base")
    assert schema(database_url) == []

    run(database_url, create_all)

    assert migrated == schema(database_url)


def test_down_and_up_again(database_url: str) -> None:
    """A downgrade leaves nothing behind, and the next upgrade gives the same schema; searches index and all."""
    migrate.upgrade(database_url)
    first = schema(database_url)
    if dialect_name(database_url) != "mariadb":
        assert any("trgm" in str(row) or "_fts" in str(row) for row in first)
        set_search_index(database_url, True)
    migrate.downgrade(database_url, "base")
    assert schema(database_url) == []
    assert migrate.current(database_url) is None

    migrate.upgrade(database_url)
    migrate.upgrade(database_url)

    assert schema(database_url) == first
    assert migrate.current(database_url) == migrate.head()


def test_ten_processes_at_once(database_url: str) -> None:
    """Ten processes upgrade one empty database at the same time: all succeed."""
    program = (
        "import sys; from lifecycle import migrate; print('ready', flush=True); sys.stdin.read(1);"
        " migrate.upgrade(sys.argv[1]); migrate.check(sys.argv[1])"
    )
    command = [sys.executable, "-W", "error", "-c", program, database_url]
    root = Path(__file__).parents[2]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    cwd=root,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(root)},
                )
            )
            for _ in range(10)
        ]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        errors = [process.communicate()[1] for process in processes]

    assert errors == [""] * 10
    assert [process.returncode for process in processes] == [0] * 10
    assert rows(database_url, "SELECT version_num FROM lifecycle_schema") == [(migrate.head(),)]


def test_mariadb_upgrade_can_be_repeated(mariadb_url: str) -> None:
    """An upgrade that MariaDB was interrupted in, half of the tables committed, is completed by the next."""
    migrate.upgrade(mariadb_url)
    whole = schema(mariadb_url)
    execute(
        mariadb_url,
        "DROP TABLE worker_jobs",
        "DROP INDEX ix_sessions_listed ON sessions",
        "DELETE FROM lifecycle_schema",
    )

    migrate.upgrade(mariadb_url)

    assert schema(mariadb_url) == whole


def test_mariadb_and_mysql_urls_build_the_same(mariadb_url: str) -> None:
    """The tables do not depend on which of the two names the URL begins with."""
    migrate.upgrade(mariadb_url)
    by_mysql = schema(mariadb_url)
    other = mariadb_url.replace("mysql://", "mariadb://")
    migrate.downgrade(other, "base")

    migrate.upgrade(other)

    assert schema(other) == by_mysql
    assert all("COLLATE=utf8mb4_nopad_bin" in str(row) for row in by_mysql)


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_failed_upgrade_leaves_nothing(database_url: str) -> None:
    """Where DDL is transactional (not on MariaDB) a failed upgrade leaves no table behind."""
    execute(database_url, "CREATE TABLE worker_jobs (mine integer)")
    before = schema(database_url)

    with pytest.raises(StorageUnavailable, match="worker_jobs"):
        migrate.upgrade(database_url)

    assert schema(database_url) == before


def test_check_says_what_to_do(database_url: str) -> None:
    """A database that is behind names the command; one that is ahead asks for the newer release instead."""
    with pytest.raises(SchemaOutdated, match=r"no Lifecycle tables yet; run: lifecycle db upgrade$"):
        migrate.check(database_url)
    migrate.upgrade(database_url)
    migrate.check(database_url)
    execute(database_url, "UPDATE lifecycle_schema SET version_num = '9999'")

    for work in (migrate.check, migrate.upgrade, lambda url: migrate.downgrade(url, "base")):
        with pytest.raises(SchemaOutdated, match="newer release") as raised:
            work(database_url)
        assert migrate.COMMAND not in str(raised.value)


def test_unknown_revision_and_bad_urls(sqlite_url: str) -> None:
    """What cannot be understood is an InvalidArgument, and passwords are not repeated."""
    with pytest.raises(InvalidArgument, match="nowhere"):
        migrate.upgrade(sqlite_url, "nowhere")
    with pytest.raises(InvalidArgument, match="in memory"):
        migrate.upgrade("sqlite://")
    with pytest.raises(InvalidArgument, match="oracle"):
        migrate.check("oracle://me:secret@host/db")
    with pytest.raises(InvalidArgument) as raised:
        migrate.check("postgresql://me:secret@host:port/db")
    assert "secret" not in str(raised.value)


def cause_of_failure(url: str) -> str | None:
    """The module of the error behind the StorageUnavailable that an upgrade raises."""
    with pytest.raises(StorageUnavailable) as raised:
        migrate.upgrade(url)
    cause = raised.value.__cause__
    return None if cause is None else type(cause).__module__


def test_unreachable_database(tmp_path: Path) -> None:
    """What the driver raises is the cause of a StorageUnavailable; asking does not create a SQLite file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # PyMySQL forgets the socket of a connection that fails
        for url in (
            f"postgresql://me@/db?host={tmp_path}",
            f"mysql://me@localhost/db?unix_socket={tmp_path}/none",
            f"sqlite:///{tmp_path}/none/file.db",
        ):
            cause = cause_of_failure(url)
            assert cause is not None
            assert cause.partition(".")[0] in {"psycopg", "pymysql", "sqlite3"}
        gc.collect()
    with pytest.raises(SchemaOutdated):
        migrate.check(f"sqlite:///{tmp_path}/file.db")
    assert list(tmp_path.iterdir()) == []


def test_locked_sqlite_file_is_waited_for(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another process keeps locked is waited for, and then StorageUnavailable."""
    monkeypatch.setattr(migrate, "_SQLITE_WAIT_SECONDS", 0.2)
    with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable, match="locked"):
            migrate.upgrade(sqlite_url)
        other.execute("ROLLBACK")
    migrate.upgrade(sqlite_url)


@pytest.mark.parametrize("outer", [False, True])
def test_database_in_memory(outer: bool) -> None:
    """A database in memory is upgraded on its live connection, in the caller's transaction if there is one."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.connect() as connection:
        if outer:
            connection.begin()
        migrate.upgrade_connection(connection)
        assert connection.in_transaction() == outer
        connection.rollback()
        found = set(sa.inspect(connection).get_table_names())
    engine.dispose()
    assert (set(metadata.tables) <= found) == (not outer)


def test_offline_sql_builds_the_same(database_url: str) -> None:
    """The SQL for an administrator gives the schema that an upgrade gives."""
    migrate.upgrade(database_url)
    expected = schema(database_url)
    migrate.downgrade(database_url, "base")
    execute(database_url, "DROP TABLE lifecycle_schema")
    text = migrate.sql(database_url)

    if dialect_name(database_url) == "sqlite":
        with contextlib.closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
            connection.executescript(text)
    else:
        execute(
            database_url, *(part for part in re.split(r";\n\n", text) if part.strip() not in {"", "BEGIN", "COMMIT"})
        )

    migrate.check(database_url)
    assert schema(database_url) == expected


def test_no_trigram_extension(postgres_url: str) -> None:
    """Without the right to create pg_trgm the upgrade succeeds, and only the index of titles is missing."""
    role = f"role_{os.getpid()}"
    execute(
        postgres_url,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT CREATE, USAGE ON SCHEMA public TO {role}",
    )
    url = postgres_url.replace("postgres@", f"{role}@")
    try:
        migrate.upgrade(url)
        migrate.check(url)
        assert rows(url, "SELECT to_regclass('ix_sessions_title_trgm')") == [(None,)]
        with pytest.raises(InvalidArgument, match="pg_trgm"):
            set_search_index(url, True)
    finally:
        execute(postgres_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_sqlite_title_index_keeps_step(sqlite_url: str) -> None:
    """The index of titles follows inserts, changes and deletions, and survives VACUUM."""
    migrate.upgrade(sqlite_url)

    def found(text: str) -> list[str]:
        query = (
            "SELECT session_id FROM sessions WHERE rowid IN"
            f" (SELECT rowid FROM sessions_title_fts WHERE sessions_title_fts MATCH '\"{text}\"') ORDER BY 1"
        )
        return [name for (name,) in rows(sqlite_url, query)]

    for number, title in enumerate(("first draft", None, "second draft", "third draft")):
        add_session(sqlite_url, f"s{number}", title)
    assert found("draft") == ["s0", "s2", "s3"]
    execute(
        sqlite_url,
        "UPDATE sessions SET title_folded = 'done' WHERE session_id = 's0'",
        "UPDATE sessions SET title_folded = 'draft of none' WHERE session_id = 's1'",
        "UPDATE sessions SET title_folded = NULL WHERE session_id = 's2'",
        "UPDATE sessions SET state = 'suspended'",
        "INSERT INTO sessions_title_fts (sessions_title_fts) VALUES ('integrity-check')",
    )
    assert found("draft") == ["s1", "s3"]
    execute(sqlite_url, "DELETE FROM sessions WHERE session_id = 's0'")
    with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("VACUUM")
        connection.execute("INSERT INTO sessions_title_fts (sessions_title_fts, rank) VALUES ('integrity-check', 1)")
    assert found("draft") == ["s1", "s3"]
    assert found("done") == []


def test_search_index_on_and_off(database_url: str) -> None:
    """The index on messages is built, reported, kept in step and dropped; MariaDB has none."""
    migrate.upgrade(database_url)
    assert not has_search_index(database_url)
    if dialect_name(database_url) == "mariadb":
        with pytest.raises(InvalidArgument, match="no trigram index"):
            set_search_index(database_url, True)
        return
    before = schema(database_url)
    add_session(database_url, "one", None, "Hello Straße")

    report = set_search_index(database_url, True)

    assert report["on"]
    assert report["changed"]
    assert report["bytes"] > 0
    assert has_search_index(database_url)
    assert not set_search_index(database_url, True)["changed"]
    add_session(database_url, "two", None, "HELLO again")
    if dialect_name(database_url) == "sqlite":
        matches = "SELECT rowid FROM session_messages_fts WHERE session_messages_fts MATCH '\"{}\"'"
        assert len(rows(database_url, matches.format("hello"))) == 2
        assert len(rows(database_url, matches.format("strasse"))) == 1
        execute(database_url, "UPDATE session_messages SET content = 'bye', content_folded = NULL WHERE seq = 1")
        assert len(rows(database_url, matches.format("hello"))) == 0
        assert len(rows(database_url, matches.format("bye"))) == 2
        execute(database_url, "DELETE FROM session_messages WHERE session_id = 'one'")
        assert len(rows(database_url, matches.format("bye"))) == 1
    else:

        def plan(connection: sa.Connection) -> str:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explained = connection.exec_driver_sql(
                "EXPLAIN SELECT 1 FROM session_messages"
                " WHERE coalesce(content_folded, lower(content COLLATE \"C\")) LIKE '%%strasse%%'"
            )
            return str(explained.all())

        assert migrate.CONTENT_INDEX in run(database_url, plan)

    assert set_search_index(database_url, False)["changed"]
    assert not has_search_index(database_url)
    assert not set_search_index(database_url, False)["changed"]
    assert schema(database_url) == before


def test_invalid_search_index_is_built_again(postgres_url: str) -> None:
    """What an interrupted CREATE INDEX CONCURRENTLY left behind counts as no index, and is replaced."""
    migrate.upgrade(postgres_url)
    set_search_index(postgres_url, True)
    execute(
        postgres_url,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_session_messages_content_trgm'::regclass",
    )
    assert not has_search_index(postgres_url)

    assert set_search_index(postgres_url, True)["changed"]

    assert has_search_index(postgres_url)


def test_search_index_needs_the_schema(sqlite_url: str) -> None:
    """Without tables there is nothing to index: the command to run is named."""
    with pytest.raises(SchemaOutdated, match=migrate.COMMAND):
        set_search_index(sqlite_url, True)
    assert not has_search_index(sqlite_url)


def test_commands(sqlite_url: str) -> None:
    """`lifecycle db` does what its functions do, in words or as JSON."""
    runner = CliRunner()

    def output(*arguments: str) -> str:
        done = runner.invoke(app, [*arguments, "--url", sqlite_url], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    with pytest.raises(SchemaOutdated):
        output("check")
    assert json.loads(output("upgrade", "--json")) == {"before": None, "after": migrate.head(), "changed": True}
    assert "already" in output("upgrade")
    assert migrate.head() in output("check")
    assert json.loads(output("current", "--json")) == {"current": migrate.head(), "head": migrate.head()}
    assert "CREATE TABLE sessions" in output("sql")
    assert json.loads(output("search-index", "on", "--json"))["on"]
    assert "search index off" in output("search-index", "off")
    assert "nothing" in output("downgrade", "base")


def test_urls() -> None:
    """The forms that users write become those of our drivers, passwords, sockets and parameters kept."""
    assert engine_url("sqlite:///a.db").drivername == "sqlite+pysqlite"
    url = engine_url("postgresql://postgres:p%40ss@/db?host=/run/socket")
    assert (url.drivername, url.password, url.query["host"]) == ("postgresql+psycopg", "p@ss", "/run/socket")
    for kind in ("mysql", "mariadb"):
        url = engine_url(f"{kind}://root@localhost/db?unix_socket=/s")
        assert (url.drivername, url.query["charset"]) == (f"{kind}+pymysql", "utf8mb4")
        assert dialect_name(f"{kind}://h/db") == "mariadb"
    assert is_memory("sqlite://")
    assert is_memory("sqlite:///:memory:")
    assert not is_memory("sqlite:///a.db")
    assert not is_memory("postgresql://h/db")
