"""Row-level security: what a role under it sees and writes, on the oldest and the newest PostgreSQL."""

import inspect
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from lifecycle import ALL, ConfigError, SessionManager, Settings, row_security, search_index
from lifecycle.drivers import postgresql_scope as scopes
from lifecycle.errors import InvalidArgument
from lifecycle.models import tables as t
from lifecycle.models.types import Base64
from lifecycle.recipes.statement import DIALECTS
from lifecycle.web import WebServer
from tests.integration import test_contract as contract
from tests.managers import connected, opened
from tests.wire import CountingProxy

# The tests of a manager are kept by a role under row-level security too; `manager` is one.
globals().update(
    {
        name: test
        for name, test in vars(contract).items()
        if name.startswith("test_") and "manager" in inspect.signature(test).parameters
    }
)
OF_ALL = ["lifecycle_found_messages_of_all", "lifecycle_found_titles_of_all"]


@dataclass(frozen=True)
class Place:
    """A database as its owner and as a role under row-level security reach it."""

    owner: str
    url: str
    role: str

    def settings(self, **more: Any) -> Settings:
        """For a manager under the role."""
        return Settings(database={"url": self.url, "row_security": True, "notify": False} | more)

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of the role's own, as a program that forgets every filter has it."""
        return psycopg.connect(self.url, autocommit=True)


@pytest.fixture(params=["migrated_postgres15_url", "migrated_postgres_url"])
def migrated_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the schema in place, as its owner."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def role(migrated_url: str) -> Iterator[str]:
    """A role that nothing was granted to; roles are the server's, so each test has its own."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


def under(url: str, role: str, *, all_tenants: bool = False) -> Place:
    """Put the role under row-level security."""
    row_security.set_row_security(url, role, True, all_tenants=all_tenants)
    return Place(url, sa.make_url(url).set(username=role).render_as_string(hide_password=False), role)


@pytest.fixture
def place(migrated_url: str, role: str) -> Place:
    """A role for one tenant at a time."""
    return under(migrated_url, role)


@pytest.fixture
def wide(migrated_url: str, role: str) -> Place:
    """A role that may see everybody's rows, too, where a manager of all tenants asks."""
    return under(migrated_url, role, all_tenants=True)


@pytest.fixture(params=["sync", "async"])
def manager(request: pytest.FixtureRequest, migrated_url: str, role: str) -> Iterator[Any]:
    """A manager of either kind under the role; the beats of its leases are of all tenants."""
    settings = under(migrated_url, role, all_tenants=True).settings()
    with opened(settings, request.param) as behind:
        yield behind


def fill(url: str) -> None:
    """Rows of two tenants in every table that has a tenant, by the owner."""
    for tenant in ("ours", "theirs"):
        with SessionManager.open(url, tenant) as manager:
            manager.create_session(session_id="s", title=f"the title of {tenant}", user_id="ada")
            manager.save_state("s", context={"of": tenant}, plan=[tenant * 2000], append=[tenant], token="t")
            manager.add_message("s", "user", f"words of {tenant}")
            manager.checkpoint("s", "c")
            manager.request_approval("s", "act")
            manager.open_connection("s")
    now = sa.func.now()
    with connected(url) as connection:
        for tenant in ("ours", "theirs"):
            connection.execute(sa.insert(t.samples).values(tenant=tenant, name="n", sampled_at=now, value=1.0))
            for table in (t.idempotency_keys, t.graph_checkpoints, t.graph_values):
                row = {column.name: _value(column) for column in table.c if not column.nullable}
                connection.execute(sa.insert(table).values(row | {"tenant": tenant}))


def _value(column: sa.Column[Any]) -> Any:
    if isinstance(column.type, Base64):
        return "eA=="
    kind = str(column.type.compile(DIALECTS["postgresql"])).upper()
    return sa.func.now() if "TIME" in kind else (0 if "INT" in kind else (False if "BOOL" in kind else "x"))


def test_every_table_of_a_tenant_is_under_it(place: Place) -> None:
    """None that has a tenant is left out but for the keys, which tell whose they are."""
    report = row_security.row_security(place.owner)
    assert report == {
        "on": True, "roles": [place.role], "all_tenants": [], "tables": sorted(row_security.TABLES), "complete": True,
        "left_out": [],
    }  # fmt: skip
    with connected(place.owner) as connection:
        columns = connection.exec_driver_sql(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant' AND table_schema = 'public'"
        )
        assert {name for (name,) in columns} - {"api_keys"} == set(row_security.TABLES)


def test_a_statement_without_a_filter_sees_nothing_of_others(place: Place) -> None:
    """Reads, changes, removals and locks of all rows are of the tenant's own; without a tenant, of none."""
    fill(place.owner)
    for table in row_security.TABLES:
        _sees_its_own_only(place, table)


def _sees_its_own_only(place: Place, table: str) -> None:
    with place.connect() as connection:
        assert connection.execute(f"SELECT * FROM {table}").fetchall() == []
        assert connection.execute(f"SELECT * FROM {table} FOR UPDATE").fetchall() == []
        assert connection.execute(f"UPDATE {table} SET tenant = tenant").rowcount == 0
        assert connection.execute(f"DELETE FROM {table}").rowcount == 0
        with connection.transaction():
            connection.execute("SELECT set_config('lifecycle.tenant', '=ours', true)")
            seen = connection.execute(f"SELECT DISTINCT tenant FROM {table}").fetchall()
            assert seen == [("ours",)]
            changed = connection.execute(f"UPDATE {table} SET tenant = tenant").rowcount
            assert connection.execute(f"DELETE FROM {table}").rowcount == changed > 0
        # The setting is empty now, not missing as before: the tenant without a name is not meant by it.
        assert connection.execute("SELECT current_setting('lifecycle.tenant', true)").fetchone() == ("",)
        assert connection.execute(f"SELECT * FROM {table}").fetchall() == []
    with connected(place.owner) as owner:
        assert owner.exec_driver_sql(f"SELECT DISTINCT tenant FROM {table}").fetchall() == [("theirs",)]


def test_nothing_is_written_for_others(place: Place) -> None:
    """Neither by an insert nor by handing a row over."""
    fill(place.owner)
    for table in row_security.TABLES:
        _writes_for_itself_only(place, table)


def _writes_for_itself_only(place: Place, table: str) -> None:
    with place.connect() as connection:
        for setting in ("=ours", "*", ""):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                under_setting(
                    connection, setting,
                    f"INSERT INTO {table} OVERRIDING SYSTEM VALUE"
                    f" SELECT (jsonb_populate_record(null::{table}, %s::jsonb)).*",
                    a_row(place.owner, table),
                )  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            under_setting(connection, "=ours", f"UPDATE {table} SET tenant = 'another'")


def under_setting(connection: psycopg.Connection[Any], setting: str, statement: str, *values: Any) -> None:
    """Run a statement under a setting, in a transaction of its own."""
    with connection.transaction():
        connection.execute("SELECT set_config('lifecycle.tenant', %s, true)", (setting,))
        connection.execute(statement, values or None)


def a_row(url: str, table: str) -> str:
    """A row of the others', as JSON, under a tenant of its own."""
    with connected(url) as connection:
        row = connection.exec_driver_sql(
            f"SELECT to_jsonb(r) FROM {table} AS r WHERE tenant = 'theirs' LIMIT 1"
        ).scalar_one()
    return json.dumps(row | {"tenant": "third"})


def test_no_other_setting_opens_more(place: Place) -> None:
    """Neither everybody's, which this role may not, nor a tenant written otherwise."""
    fill(place.owner)
    for setting in ("*", "=*", "=", "ours", "'=ours'", "= ours", "=OURS", "==ours"):
        with place.connect() as connection, connection.transaction():
            connection.execute("SELECT set_config('lifecycle.tenant', %s, true)", (setting,))
            assert connection.execute("SELECT * FROM sessions").fetchall() == []
            for function in ("titles", "messages"):
                found = connection.execute(f"SELECT * FROM lifecycle_found_{function}('%%')").fetchall()
                assert found == []


def test_the_role_has_no_more_rights_than_it_needs(place: Place) -> None:
    """It makes no keys, changes none, removes no tables and no policies, and calls nothing of all tenants."""
    fill(place.owner)
    refused = [
        "INSERT INTO api_keys (key_id, name, scope, digest, created_at) VALUES ('a', 'a', 'admin', 'a', now())",
        "UPDATE api_keys SET scope = 'admin'",
        "DELETE FROM api_keys",
        "UPDATE service_secrets SET value = 'x'",
        "TRUNCATE sessions",
        "ALTER TABLE sessions DISABLE ROW LEVEL SECURITY",
        "DROP POLICY lifecycle_tenant ON sessions",
        "SET ROLE postgres",
        "CREATE TABLE mine (i int)",
    ]
    with place.connect() as connection:
        for statement in refused:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        for name in OF_ALL:
            with pytest.raises((psycopg.errors.UndefinedFunction, psycopg.errors.InsufficientPrivilege)):
                connection.execute(f"SELECT * FROM {name}('%%')")
        # Turning it off for oneself gives errors, not rows.
        connection.execute("SET row_security = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM sessions")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_managers_see_their_own(wide: Place, kind: str) -> None:
    """Those of a tenant their own rows, whoever used the connection before them; those of all tenants everybody's."""
    fill(wide.owner)
    with opened(wide.settings(pool_size=1), kind) as manager:
        ours, theirs, everybody = manager.for_tenant("ours"), manager.for_tenant("theirs"), manager.for_tenant(ALL)
        for _ in range(3):
            assert manager.list_sessions().items == []
            assert [one.tenant for one in ours.list_sessions().items] == ["ours"]
            assert theirs.load_state("s").context == {"of": "theirs"}
            assert {one.tenant for one in everybody.list_sessions().items} == {"ours", "theirs"}
        ours.delete_session("s")
        assert ours.get_session("s") is None
        assert theirs.get_session("s").title == "the title of theirs"


def test_a_forgotten_filter_in_our_own_statements_shows_nothing(place: Place) -> None:
    """A request that names another tenant than its manager is for finds and changes nothing."""
    from lifecycle.operations import requests as r

    def get(tenant: str) -> Any:
        return (yield r.GetSession(tenant, "s"))

    def remove(tenant: str) -> Any:
        return (yield r.DeleteSessions(((tenant, "s"),), None, None, True))

    def listed() -> Any:
        return (yield r.ListSessions(None, {}, "updated_at", True, 10, 0, None, True))

    fill(place.owner)
    with SessionManager.open(place.settings(), "ours") as manager:
        driver: Any = manager._driver
        assert driver.run(get("ours")) is not None
        assert driver.run(get("theirs")) is None
        assert driver.run(remove("theirs")) == 0
        found, total = driver.run(listed())
        assert ([row["tenant"] for row in found], total) == (["ours"], 1)


def test_a_role_for_one_tenant_at_a_time_sees_nothing_of_all(place: Place) -> None:
    """A manager of all tenants under it finds nothing, and says nothing of what is there."""
    fill(place.owner)
    with SessionManager.open(place.settings(), ALL) as manager:
        assert manager.list_sessions(count=True).total == 0


# --- search -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def searchable(wide: Place) -> Place:
    """With the search index, and enough of two tenants that reading it all is no plan."""
    search_index.set_search_index(wide.owner, True)
    with connected(wide.owner) as connection:
        for tenant, rows in (("ours", 20_000), ("theirs", 1000)):
            connection.exec_driver_sql(
                "INSERT INTO sessions (tenant, session_id, kind, title, title_folded, state, metadata, config, version,"
                " next_seq, message_count, protected, created_at, updated_at, listed_at, last_active_at, idle_override,"
                " lease_epoch, attempts, rescues, runs, pending_approvals)"
                f" SELECT '{tenant}', 's-' || i, 'chat', 'Word ' || md5(i::text), 'word ' || md5(i::text), 'active', '{{}}',"
                f" '{{}}', 1, 2, 0, false, now(), now(), now(), now(), false, 0, 0, 0, false, 0 FROM generate_series(1, {rows}) i"
            )
            connection.exec_driver_sql(
                "INSERT INTO session_messages (tenant, session_id, seq, message_id, role, content, encoding, metadata, created_at)"
                f" SELECT '{tenant}', 's-' || i, 1, 'm', 'user', 'Said ' || md5('m' || i), 'text', '{{}}', now()"
                f" FROM generate_series(1, {rows}) i"
            )
        connection.exec_driver_sql("ANALYZE sessions")
        connection.exec_driver_sql("ANALYZE session_messages")
    return wide


def plan_in(
    connection: psycopg.Connection[Any], role: str, tenant: Any, statement: str, values: tuple[Any, ...]
) -> str:
    """The plans of a role's statement and of what runs inside of the functions it calls, as it runs."""
    told: list[str] = []
    connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    for setting in (
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on",
        "client_min_messages = log",
    ):
        connection.execute(f"SET LOCAL {setting}")
    connection.execute(f"SET LOCAL ROLE {role}")
    connection.execute("SELECT set_config('lifecycle.tenant', %s, true)", (scopes.setting_for(tenant),))
    connection.execute(statement, values)
    return "\n".join(told)


@pytest.mark.parametrize("tenant", ["ours", ALL])
def test_search_goes_by_the_trigram_indexes(searchable: Place, tenant: Any) -> None:
    """Titles and messages, for a tenant and for all: out of the index, within the functions that search asks."""
    with psycopg.connect(searchable.owner, autocommit=True) as connection:
        (title, said) = connection.execute("SELECT left(md5('1'), 8), left(md5('m7'), 8)").fetchone() or ("", "")
        expected = ["ours"] if tenant == "ours" else ["ours", "theirs"]
        with SessionManager.open(searchable.settings(), tenant) as manager:
            titles = manager.list_sessions(search=title.upper(), count=True)
            messages = manager.list_sessions(search=said, search_messages=True)
        assert sorted(one.tenant for one in titles.items) == expected
        assert {one.session_id for one in titles.items} == {"s-1"}
        assert titles.total == len(expected)
        assert sorted(one.tenant for one in messages.items) == expected
        assert {one.session_id for one in messages.items} == {"s-7"}

        connection.execute("LOAD 'auto_explain'")
        more = "" if tenant == "ours" else "_of_all"
        for what, needle, index in (
            ("titles", title, "ix_sessions_title_trgm"),
            ("messages", said, "ix_session_messages_content_trgm"),
        ):
            with connection.transaction():
                statement = f"SELECT * FROM lifecycle_found_{what}{more}(%s)"
                plan = plan_in(connection, searchable.role, tenant, statement, (f"%{needle}%",))
            assert f"Bitmap Index Scan on {index}" in plan, plan


def test_a_like_under_the_policy_reads_every_row(searchable: Place) -> None:
    """Which is why search has functions: the same condition in a statement of the role's is no index condition."""
    with searchable.connect() as connection, connection.transaction():
        connection.execute("SELECT set_config('lifecycle.tenant', '=ours', true)")
        plan = connection.execute(
            "EXPLAIN SELECT * FROM sessions WHERE title_folded LIKE '%%c4ca4238a0b9%%'"
        ).fetchall()
        text = "\n".join(line for (line,) in plan)
        assert "trgm" not in text, text
        assert "title_folded ~~" in text, text


def test_the_functions_refuse_a_pattern_that_fails_row_by_row(wide: Place) -> None:
    """A pattern that ends in half an escape fails only where a row gets so far, and would tell of others' rows."""
    with wide.connect() as connection:
        for pattern in ("word%\\", "\\", "%a\\\\\\"):
            for function in ("titles", "messages", "titles_of_all", "messages_of_all"):
                statement = f"SELECT * FROM lifecycle_found_{function}(%s)"
                with pytest.raises(psycopg.errors.InvalidEscapeSequence):
                    under_setting(connection, "=ours", statement, pattern)
        with connection.transaction():
            connection.execute("SELECT set_config('lifecycle.tenant', '=ours', true)")
            assert connection.execute("SELECT * FROM lifecycle_found_titles('%%\\\\')").fetchall() == []


def test_the_functions_look_nowhere_else_for_names(wide: Place) -> None:
    """Their search path is pinned, they are the owner's, and nobody else may call them."""
    with connected(wide.owner) as connection:
        found = connection.exec_driver_sql(
            "SELECT proname, prosecdef, proconfig, pg_get_userbyid(proowner) AS owner, proacl::text AS acl FROM pg_proc"
            " WHERE proname LIKE 'lifecycle_found%%' ORDER BY proname"
        ).mappings().all()  # fmt: skip
        assert len(found) == 4
        for one in found:
            assert one["prosecdef"]
            assert "search_path=pg_catalog, pg_temp" in one["proconfig"]
            assert one["owner"] == "postgres"
            assert "=X/" not in one["acl"].replace(f"{wide.role}=X/", "").replace("postgres=X/", "")


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_tenant_costs_no_round_trip(place: Place, kind: str) -> None:
    """Each hot call is one round trip with the setting in it, as without; a transaction begins with it."""
    with CountingProxy(place.owner) as proxy:
        url = sa.make_url(proxy.url).set(username=place.role).render_as_string(hide_password=False)
        with opened(place.settings(url=url), kind) as manager:
            ours = manager.for_tenant("ours")
            calls: dict[str, Callable[[], Any]] = {
                "create_session": lambda: ours.create_session(session_id=uuid.uuid4().hex),
                "get_session": lambda: ours.get_session("s"),
                "save_state": lambda: ours.save_state("s", context={"a": 1}),
                "load_state": lambda: ours.load_state("s"),
                "add_message": lambda: ours.add_message("s", "user", "hello"),
                "touch_session": lambda: ours.touch_session("s"),
            }
            ours.create_session(session_id="s")
            ours.history("s")
            for call in calls.values():  # prepare
                call()
            counts = {}
            for name, call in calls.items():
                before = proxy.round_trips
                call()
                counts[name] = proxy.round_trips - before
            assert counts == dict.fromkeys(calls, 1)
            before = proxy.round_trips
            ours.history("s")
            assert proxy.round_trips - before == 3  # BEGIN with the setting, the statement, COMMIT


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_nothing_is_left_on_a_connection(place: Place, kind: str) -> None:
    """After a call that worked, one that failed, and one whose statement was refused by the policy."""
    fill(place.owner)
    with opened(place.settings(pool_size=1), kind) as manager:
        ours = manager.for_tenant("ours")
        ours.get_session("s")
        ours.history("s")
        with pytest.raises(Exception, match="already exists"):
            ours.create_session(session_id="s")
        ours.add_message("s", "user", "a", message_id="m")
        with pytest.raises(Exception, match="already has a different message"):
            ours.add_message("s", "user", "b", message_id="m")
        with connected(place.owner) as owner:
            states = owner.execute(
                sa.text("SELECT state FROM pg_stat_activity WHERE usename = :role"), {"role": place.role}
            ).scalars()
            assert set(states) <= {"idle"}
        # The next user of the connection is another tenant, and then nobody's statement runs on it.
        assert manager.for_tenant("theirs").get_session("s").tenant == "theirs"
        assert ours.get_session("s").tenant == "ours"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_statements_that_were_dropped_are_prepared_again(place: Place, kind: str) -> None:
    """By a pooler between us and the server, or by anybody."""
    fill(place.owner)
    with opened(place.settings(pool_size=1), kind) as manager:
        ours = manager.for_tenant("ours")
        assert ours.get_session("s").tenant == "ours"
        with connected(place.owner) as owner:
            owner.exec_driver_sql("ALTER TABLE sessions ALTER COLUMN title TYPE varchar")
        assert ours.get_session("s").tenant == "ours"
        assert ours.for_tenant("theirs").get_session("s").tenant == "theirs"


# --- switching --------------------------------------------------------------------------------------------------------


def test_off_leaves_the_database_as_it_was(migrated_url: str, role: str) -> None:
    """No policies, functions or rights are left; on and off again do the same; another role stays under it."""

    def facts() -> Any:
        with connected(migrated_url) as connection:
            tables = (
                "SELECT relname, relrowsecurity, relacl::text FROM pg_class WHERE relkind = 'r' AND"
                " relnamespace = 'public'::regnamespace AND relname LIKE 'session%%' ORDER BY relname"
            )
            return [
                connection.exec_driver_sql(text).fetchall()
                for text in (
                    tables,
                    "SELECT policyname, tablename FROM pg_policies",
                    "SELECT proname FROM pg_proc WHERE proname LIKE 'lifecycle%%'",
                    f"SELECT has_table_privilege('{role}', 'sessions', 'SELECT')",
                )
            ]

    row_security.set_row_security(migrated_url, role, True)
    row_security.set_row_security(migrated_url, role, False)
    before = facts()
    assert before[1] == before[2] == []
    assert before[3] == [(False,)]
    row_security.set_row_security(migrated_url, role, True, all_tenants=True)
    row_security.set_row_security(migrated_url, role, True, all_tenants=True)
    assert row_security.row_security(migrated_url)["all_tenants"] == [role]
    row_security.set_row_security(migrated_url, role, True)
    assert row_security.row_security(migrated_url)["all_tenants"] == []
    row_security.set_row_security(migrated_url, role, False)
    row_security.set_row_security(migrated_url, role, False)
    assert facts() == before


def test_roles_are_put_under_it_one_by_one(migrated_url: str, role: str) -> None:
    """One that is taken out leaves the others as they are; one with rights of its own is told to see nothing."""
    other = f"{role}_b"
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{other}" LOGIN')
        try:
            connection.execute(f'GRANT SELECT ON sessions TO "{other}"')
            report = row_security.set_row_security(migrated_url, role, True)
            assert report["left_out"] == [other]
            report = row_security.set_row_security(migrated_url, other, True)
            assert (report["roles"], report["left_out"]) == ([role, other], [])
            report = row_security.set_row_security(migrated_url, role, False)
            assert (report["roles"], report["on"], report["complete"]) == ([other], True, True)
        finally:
            connection.execute(f'DROP OWNED BY "{other}"')
            connection.execute(f'DROP ROLE "{other}"')


def test_roles_that_it_would_not_hold_for_are_refused(migrated_url: str, role: str) -> None:
    """Superusers, BYPASSRLS, the owner and who is a member of it, and those that are not there."""
    with pytest.raises(InvalidArgument, match="there is no role 'nobody'"):
        row_security.set_row_security(migrated_url, "nobody", True)
    with pytest.raises(InvalidArgument, match="superuser"):
        row_security.set_row_security(migrated_url, "postgres", True)
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {role} BYPASSRLS")
        with pytest.raises(InvalidArgument, match="BYPASSRLS"):
            row_security.set_row_security(migrated_url, role, True)
        connection.execute(f"ALTER ROLE {role} NOBYPASSRLS")
        connection.execute(f"GRANT postgres TO {role}")
        with pytest.raises(InvalidArgument, match="owns the tables, or is a member"):
            row_security.set_row_security(migrated_url, role, True)
        connection.execute(f"REVOKE postgres FROM {role}")


def test_a_server_that_would_not_be_under_it_does_not_start(migrated_url: str) -> None:
    """With the setting on, connecting as the owner is a mistake, and told as one."""
    settings = Settings(database={"url": migrated_url, "row_security": True}, web={"port": 0})
    with pytest.raises(ConfigError, match=r"database\.row_security: it does not hold for the role 'postgres'"):
        WebServer(settings)


def test_other_databases_have_none(sqlite_url: str) -> None:
    """The command and the setting say so."""
    with pytest.raises(InvalidArgument, match="only PostgreSQL"):
        row_security.set_row_security(sqlite_url, "api", True)
    with pytest.raises(ConfigError, match=r"database\.row_security"):
        Settings(database={"url": sqlite_url, "row_security": True})


def test_the_command(migrated_url: str, role: str) -> None:
    """On, status and off, for people and as JSON."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "lifecycle.cli", "db", "row-security", *arguments, "--url", migrated_url]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout if done.returncode == 0 else f"{done.returncode} {done.stderr}"

    assert "row security off" in run("status")
    assert f"for {role}" in run("on", "--role", role)
    assert json.loads(run("status", "--json"))["roles"] == [role]
    assert run("on").startswith("2 error: --role: name the role")
    assert run("status", "--role", role).startswith("2 error: --role")
    assert "row security off" in run("off", "--role", role)
