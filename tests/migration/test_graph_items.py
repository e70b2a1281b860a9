"""The items of graphs' lists, from rows of their own into the rows of checkpoints, and back."""

import secrets
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

pytest.importorskip("langgraph.checkpoint.base", reason="langgraph is not installed")

from lifecycle import SessionManager, migrate
from lifecycle.adapters.langgraph import LifecycleSaver
from lifecycle.graphs import parted
from lifecycle.models import tables as t
from lifecycle.models.types import Base64
from tests.managers import connected
from tests.threads import put_list, thread_config

THREADS = ("short", "long", "none")
TENANTS = ("", "a", "B")
Stored = dict[str, list[tuple[Any, list[str]]]]


def _fill(url: str, tenant: str) -> Stored:
    """Threads whose lists grow, by their ids: the config and the list of each checkpoint that is left."""
    stored: Stored = {}
    with SessionManager.open(url, tenant) as manager:
        saver = LifecycleSaver(manager)
        for thread_id, length in zip(THREADS, (1, 1500, 0), strict=True):
            messages = [secrets.token_urlsafe(150 + 30 * (i % 7)) for i in range(length)]
            config = put_list(saver, thread_config(thread_id, run_id="first"), 1, messages)
            stored[thread_id] = [(config, messages)]
            for step in (2, 3):
                messages = [*messages[step:], secrets.token_urlsafe(300)]
                config = put_list(saver, config, step, messages)
                stored[thread_id].append((config, messages))
            # What is left of the first one is what the others share.
            saver.delete_for_runs(["first"])
            del stored[thread_id][0]
    return stored


def _check(url: str, tenant: str, stored: Stored) -> None:
    with SessionManager.open(url, tenant) as manager:
        saver = LifecycleSaver(manager)
        for thread_id, checkpoints in stored.items():
            assert [found.config for found in saver.list(thread_config(thread_id))] == [one for one, _ in checkpoints][
                ::-1
            ]
            for config, messages in checkpoints:
                found = saver.get_tuple(config)
                assert found is not None
                assert found.checkpoint["channel_values"] == {"messages": messages}


def _go_on(url: str, tenant: str, stored: Stored) -> None:
    with SessionManager.open(url, tenant) as manager:
        saver = LifecycleSaver(manager)
        for checkpoints in stored.values():
            config, messages = checkpoints[-1]
            saver.get_tuple(config)
            checkpoints.append((put_list(saver, config, 4, [*messages, "more " * 50]), [*messages, "more " * 50]))


def _prune(url: str, tenant: str, strategy: str) -> None:
    with SessionManager.open(url, tenant) as manager:
        LifecycleSaver(manager).prune(THREADS, strategy=strategy)


def _add_many(connection: sa.Connection) -> list[str]:
    """Checkpoints of the former schema in one namespace, whose ids are UUIDs of a few seconds: the ids, in order."""
    former = sa.table(
        "session_graph_checkpoints", *map(sa.column, ("tenant", "session_id", "place")), sa.column("body", Base64())
    )
    ids = [str(UUID(int=(0x1F1E6267 << 96) + (n << 80) + n)) for n in range(2500)]
    key = {"tenant": "a", "session_id": "many"}
    connection.execute(sa.insert(former), [{**key, "place": f"\x1f{one}", "body": "AAAA"} for one in ids])
    return ids


def _rows(url: str) -> list[int]:
    with connected(url) as connection:
        tables = (t.graph_checkpoints, t.graph_values)
        return [connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in tables]


def test_items_move_into_the_rows_of_checkpoints_and_back(url: str) -> None:
    """What graphs keep stays whole, goes on, and leaves nothing behind."""
    stored = {tenant: _fill(url, tenant) for tenant in TENANTS}
    migrate.downgrade(url, "0004")
    with connected(url) as connection:
        items = connection.exec_driver_sql("SELECT tenant, session_id, number FROM session_graph_items").all()
        places = connection.exec_driver_sql("SELECT place FROM session_graph_checkpoints").scalars().all()
    assert len({*items}) == len(items) > 3000
    checkpoints = [config["configurable"] for kept in stored.values() for own in kept.values() for config, _ in own]
    assert sorted(places) == sorted(f"\x1f{config['checkpoint_id']}" for config in checkpoints)
    with connected(url) as connection:
        ids = _add_many(connection)
    migrate.upgrade(url)
    with connected(url) as connection:
        chosen = sa.select(t.graph_checkpoints.c.place).where(t.graph_checkpoints.c.session_id == "many")
        assert sorted(map(parted, connection.execute(chosen).scalars())) == [("", one) for one in ids]
        connection.execute(sa.delete(t.graph_checkpoints).where(t.graph_checkpoints.c.session_id == "many"))
    for tenant, kept in stored.items():
        _check(url, tenant, kept)
        _go_on(url, tenant, kept)
        _check(url, tenant, kept)
        _prune(url, tenant, "keep_latest")
        _check(url, tenant, {thread_id: own[-1:] for thread_id, own in kept.items()})
        _prune(url, tenant, "delete")
    assert _rows(url) == [0, 0]


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("event", ["before_cursor_execute", "after_cursor_execute"])
def test_mariadb_goes_on_where_it_was_interrupted(mariadb_url: str, direction: str, event: str) -> None:
    """Before any statement that changes the schema, or behind it, when what came before is committed: nothing is lost."""
    migrate.upgrade(mariadb_url)
    stored = _fill(mariadb_url, "")
    for at in count(1):
        if direction == "up":
            migrate.downgrade(mariadb_url, "0004")
        if not _interrupted(mariadb_url, direction, event, at):
            break
        _migrate(mariadb_url, direction)
        migrate.upgrade(mariadb_url)
        _check(mariadb_url, "", stored)
    assert at > 3


def _migrate(url: str, direction: str) -> None:
    if direction == "up":
        migrate.upgrade(url)
    else:
        migrate.downgrade(url, "0004")


def _interrupted(url: str, direction: str, event: str, at: int) -> bool:
    """Migrate up to a change of the schema, the first or a later one; whether there are so many."""
    seen = 0

    def interrupt(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal seen
        seen += statement.lstrip().startswith(("ALTER", "DROP", "CREATE", "RENAME"))
        if seen == at:
            raise KeyboardInterrupt

    sa.event.listen(sa.Engine, event, interrupt)
    try:
        _migrate(url, direction)
    except KeyboardInterrupt:
        return True
    finally:
        sa.event.remove(sa.Engine, event, interrupt)
    return False
