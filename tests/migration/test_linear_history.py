"""Saved states of before conversations were stored by entries: taken apart by the upgrade, put together by a downgrade."""

import json
from typing import Any

import sqlalchemy as sa

from lifecycle import SessionManager, migrate
from lifecycle.models import tables as t
from tests.managers import connected

CONVERSATIONS: dict[str, Any] = {
    "long": [{"n": i, "text": "é" * i, "big": 1e22} for i in range(30)],
    "empty": [],
    "none": None,
}


def _old(url: str) -> dict[str, list[Any]]:
    """The documents of the former columns, by session: those of the state and of each checkpoint."""
    found: dict[str, list[Any]] = {}
    with connected(url) as connection:
        states = "SELECT session_id, 0 AS seq, conversation, context, plan, version FROM session_states"
        kept = "SELECT session_id, seq, conversation, context, plan, version FROM session_checkpoints"
        for row in connection.exec_driver_sql(f"{states} UNION ALL {kept} ORDER BY session_id, seq"):
            found.setdefault(row[0], []).append(tuple(row[1:5]))
    return found


def _fill(url: str) -> None:
    """Sessions of today, whose documents are then written into the columns of then."""
    with SessionManager.open(url) as manager:
        for name in CONVERSATIONS:
            manager.create_session(session_id=name)
            manager.save_state(name, step=1, context={"a": name}, plan=[1])
            manager.checkpoint(name, "first")
            manager.checkpoint(name, "second")
        manager.create_session(session_id="unsaved")
    migrate.downgrade(url, "0002")
    with connected(url) as connection:
        for name, conversation in CONVERSATIONS.items():
            text = None if conversation is None else json.dumps(conversation, ensure_ascii=False, separators=(",", ":"))
            half = None if conversation is None else json.dumps(conversation[: len(conversation) // 2])
            other = None if conversation is None else json.dumps([0, *conversation])
            save = sa.text("UPDATE session_states SET conversation = :text WHERE session_id = :name")
            connection.execute(save, {"text": text, "name": name})
            keep = sa.text(
                "UPDATE session_checkpoints SET conversation = CASE label WHEN 'first' THEN :half ELSE :other END"
                " WHERE session_id = :name"
            )
            connection.execute(keep, {"half": half, "other": other, "name": name})


def test_saved_states_are_taken_apart_and_put_together(url: str) -> None:
    """They load as they were saved, with their checkpoints, and a downgrade gives the texts back."""
    _fill(url)
    before = _old(url)
    migrate.upgrade(url)
    with SessionManager.open(url) as manager:
        for name, conversation in CONVERSATIONS.items():
            state = manager.load_state(name)
            assert state is not None
            assert (state.conversation, state.context, state.plan) == (conversation, {"a": name}, [1])
            first, second = (manager.get_checkpoint(name, one.seq) for one in manager.list_checkpoints(name))
            assert first.conversation == (
                conversation if conversation is None else conversation[: len(conversation) // 2]
            )
            assert second.conversation == (conversation if conversation is None else [0, *conversation])
        assert manager.load_state("unsaved") is None
        # The state goes on, with one entry for what is the same.
        manager.save_state("long", conversation=[*CONVERSATIONS["long"], "more"])
        grown = manager.load_state("long")
        assert grown is not None
        assert grown.conversation == [*CONVERSATIONS["long"], "more"]
        manager.restore_checkpoint("long", manager.list_checkpoints("long")[0].seq)
        manager.save_state("long", conversation=CONVERSATIONS["long"])
    with connected(url) as connection:
        stored = connection.execute(
            sa.select(sa.func.count()).where(t.entries.c.session_id == "long", t.entries.c.content == "0")
        ).scalar()
    assert stored == 1
    migrate.downgrade(url, "0002")
    after = _old(url)
    assert {name: [(row[0], *map(_read, row[1:])) for row in found] for name, found in before.items()} == {
        name: [(row[0], *map(_read, row[1:])) for row in found] for name, found in after.items()
    }


def _read(text: str | None) -> Any:
    return None if text is None else json.loads(text)
