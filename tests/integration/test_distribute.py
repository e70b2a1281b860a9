"""`lifecycle db distribute`: what it would send to Citus, what it refuses, and what managers make of the outcome."""

import json
import subprocess
import sys

import psycopg
import pytest

from lifecycle import ALL, ConfigError, SessionManager, migrate, row_security
from lifecycle.distribute import distribute
from lifecycle.errors import InvalidArgument, SchemaOutdated
from lifecycle.models import tables as t
from lifecycle.recipes.citus_catalog import DISTRIBUTED
from tests import citus

TRIGGER = """
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER mine AFTER INSERT ON session_messages FOR EACH ROW EXECUTE FUNCTION f()
"""
KEY = (
    "ALTER TABLE session_transitions DROP CONSTRAINT pk_session_transitions,"
    " ADD CONSTRAINT pk_session_transitions PRIMARY KEY (id, session_id)"
)
NAMES = {table.name for table in DISTRIBUTED}


@pytest.fixture(params=["migrated_postgres15_url", "migrated_postgres_url"])
def plain_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the schema in place, without Citus."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def ready_url(plain_url: str) -> str:
    """The URL of a database that takes itself for a coordinator's, with nothing distributed."""
    citus.pretend(plain_url)
    return plain_url


def execute(url: str, statement: str) -> None:
    """Change something behind everybody's back."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def distributed(url: str) -> set[str]:
    """The tables that the catalog says are distributed."""
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT logicalrelid::text FROM pg_dist_partition")}


def key_of(url: str) -> list[str]:
    """The columns of the audit log's primary key."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT a.attname FROM pg_index AS i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)"
            " JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number"
            " WHERE i.indisprimary AND i.indrelid = 'session_transitions'::regclass ORDER BY k.place"
        )
        return [name for (name,) in rows]


def test_every_table_is_somewhere() -> None:
    """What has a session's id goes with its session, and its primary key can have it; all else stays."""
    assert {table.name for table in t.metadata.sorted_tables if "session_id" in table.c} == NAMES
    assert {table.name for table in (t.sessions, *t.CHILDREN, t.transitions)} <= NAMES
    loose = {table.name for table in DISTRIBUTED if "session_id" not in table.primary_key.columns}
    assert loose == {"session_transitions"}


def test_the_sql(ready_url: str) -> None:
    """The audit log's key takes the session's id in, the sessions go first, and everything else beside them."""
    report = distribute(ready_url, dry_run=True, shards=64)
    assert report["dry_run"]
    assert not report["changed"]
    statements = report["statements"]
    assert statements[:5] == [
        "BEGIN",
        "SET LOCAL lock_timeout = '5s'",
        "SET LOCAL citus.multi_shard_modify_mode = 'sequential'",
        "SET LOCAL citus.shard_replication_factor = 1",
        KEY,
    ]
    moves, (commit, *rest) = statements[5 : 5 + len(NAMES)], statements[5 + len(NAMES) :]
    assert commit == "COMMIT"
    assert (
        moves[0]
        == "SELECT create_distributed_table('sessions', 'session_id', colocate_with => 'none', shard_count => 64)"
    )
    assert {
        f"SELECT create_distributed_table('{name}', 'session_id', colocate_with => 'sessions')"
        for name in NAMES - {"sessions"}
    } == set(moves[1:])
    assert {f"SELECT truncate_local_data_after_distributing_table('{name}')" for name in NAMES} == set(rest)
    assert distributed(ready_url) == set()
    assert key_of(ready_url) == ["id"]


def test_it_is_done_once(ready_url: str) -> None:
    """All tables, or none; a second run finds nothing to do; and managers speak to it as to Citus, from then on."""
    with SessionManager.open(ready_url) as manager:
        manager.create_session(session_id="before")
    report = distribute(ready_url)
    assert report["changed"]
    assert set(report["distributed"]) == NAMES == distributed(ready_url)
    assert set(report["on_coordinator"]) == {table.name for table in t.metadata.sorted_tables} - NAMES
    assert key_of(ready_url) == ["id", "session_id"]
    again = distribute(ready_url, dry_run=True)
    assert again["distributed"] == []
    assert set(again["already"]) == NAMES
    asked: set[str] = set()
    with citus.watched(lambda request, _: asked.add(request)), SessionManager.open(ready_url) as manager:
        assert manager.end_session("before").state == "ended"
    assert asked == {"Move"}


def test_what_an_upgrade_brought_is_added(ready_url: str) -> None:
    """Until then a manager says what is missing and what to run."""
    distribute(ready_url)
    execute(ready_url, "DELETE FROM pg_dist_partition WHERE logicalrelid = 'session_messages'::regclass")
    with (
        SessionManager.open(ready_url) as manager,
        pytest.raises(SchemaOutdated, match=r"session_messages.*db distribute"),
    ):
        manager.get_session("s")
    assert distribute(ready_url)["distributed"] == ["session_messages"]
    with SessionManager.open(ready_url) as manager:
        assert manager.get_session("s") is None


def test_a_failure_leaves_all_as_it_was(ready_url: str) -> None:
    """One transaction: what was distributed before the failure is not."""
    execute(ready_url, "ALTER TABLE session_tokens DROP CONSTRAINT pk_session_tokens, ADD UNIQUE (token)")
    with pytest.raises(Exception, match="session_tokens"):
        distribute(ready_url)
    assert distributed(ready_url) == set()
    assert key_of(ready_url) == ["id"]


def test_without_citus(plain_url: str) -> None:
    """A server without the extension is told what to do."""
    with pytest.raises(InvalidArgument, match=r"no extension citus.*CREATE EXTENSION citus"):
        distribute(plain_url, dry_run=True)


def test_elsewhere(migrated_sqlite_url: str) -> None:
    """Only PostgreSQL has Citus."""
    with pytest.raises(InvalidArgument, match="only PostgreSQL"):
        distribute(migrated_sqlite_url)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE pg_extension SET extversion = '11.1-1' WHERE extname = 'citus'", r"Citus 11.1-1 is too old: 12"),
        ("UPDATE pg_dist_local_group SET groupid = 3", "a worker of Citus: connect to the coordinator"),
        ("UPDATE pg_dist_node SET shouldhaveshards = false", r"no node takes shards.*citus_add_node"),
        ("INSERT INTO pg_dist_partition VALUES ('sessions', 'h', 'tenant', 32)", "by tenant, not by session_id"),
        ("INSERT INTO pg_dist_partition VALUES ('session_states', 'h', 'tenant', 32)", "without `sessions`"),
        (
            "CREATE TABLE mine (tenant text, id text, FOREIGN KEY (tenant, id) REFERENCES sessions (tenant, session_id))",
            r"sessions: the foreign key mine\.\S+ holds it back",
        ),
        (TRIGGER, "session_messages: the trigger mine is on it"),
        ("ALTER TABLE session_states ENABLE ROW LEVEL SECURITY", "session_states: row-level security is on"),
    ],
)
def test_what_stands_in_the_way(ready_url: str, change: str, problem: str) -> None:
    """It is named, with what to do about it, and nothing was changed."""
    execute(ready_url, "SET allow_system_table_mods = on; " + change)
    known = distributed(ready_url)
    with pytest.raises(InvalidArgument, match=problem):
        distribute(ready_url)
    assert distributed(ready_url) == known


def test_nobody_may_be_at_work(ready_url: str) -> None:
    """A process that found plain tables would go on as if they were."""
    with SessionManager.open(ready_url, ALL) as manager:
        manager.get_stats()
        with pytest.raises(InvalidArgument, match="connections of Lifecycle's are open: stop every worker"):
            distribute(ready_url)


def test_an_old_schema(postgres_url: str) -> None:
    """It is upgraded first."""
    with pytest.raises(SchemaOutdated, match="db upgrade"):
        distribute(postgres_url)


@pytest.mark.parametrize("shards", [0, 64_001])
def test_the_number_of_shards(ready_url: str, shards: int) -> None:
    """It is what Citus takes."""
    with pytest.raises(InvalidArgument, match=r"--shards: must be from 1 to 64,000"):
        distribute(ready_url, shards=shards)


def test_a_manager_on_a_worker(stand_in_url: str) -> None:
    """Transactions are told apart by the coordinator's numbers: everybody goes through it."""
    execute(stand_in_url, "UPDATE pg_dist_local_group SET groupid = 2")
    with SessionManager.open(stand_in_url) as manager, pytest.raises(ConfigError, match="connect to the coordinator"):
        manager.get_session("s")


def test_row_security_is_refused(stand_in_url: str) -> None:
    """The nodes are not told whose sessions a statement is for."""
    with pytest.raises(InvalidArgument, match="Citus"):
        row_security.set_row_security(stand_in_url, "somebody", True)


class TestCommand:
    """`lifecycle db distribute`."""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it as a person does."""
        command = [sys.executable, "-m", "lifecycle.cli", "db", "distribute", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def test_dry_run_then_done_then_nothing(self, migrated_postgres_url: str) -> None:
        """It prints SQL that can be run, says what it did, and what there was nothing to do about."""
        citus.pretend(migrated_postgres_url)
        url = ("--url", migrated_postgres_url)
        dry = self.run(*url, "--dry-run")
        assert dry.returncode == 0, dry.stderr
        assert dry.stdout.startswith("BEGIN;\nSET LOCAL ")
        assert all(line.endswith(";") for line in dry.stdout.splitlines())
        assert distributed(migrated_postgres_url) == set()
        done = self.run(*url, "--json")
        assert set(json.loads(done.stdout)["distributed"]) == NAMES
        again = self.run(*url)
        assert again.stdout.startswith("already distributed by session_id: ")
        assert self.run(*url, "--dry-run").stdout == "-- all is distributed already\n"

    def test_without_citus(self, migrated_postgres_url: str) -> None:
        """One line on stderr, and the exit code of misuse."""
        refused = self.run("--url", migrated_postgres_url)
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: distribute: this database has no extension citus")
        assert refused.stdout == ""


def test_it_can_be_taken_down(stand_in_url: str) -> None:
    """Migrations know a distributed schema as any other."""
    migrate.check(stand_in_url)
    migrate.downgrade(stand_in_url, "base")
    assert migrate.current(stand_in_url) is None
