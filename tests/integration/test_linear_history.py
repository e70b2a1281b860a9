"""What a save stores as a conversation grows: what is new, once, however many checkpoints have it."""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifecycle import SessionManager, Settings, StorageUnavailable
from lifecycle.models import tables as t
from lifecycle.pieces import WHOLE
from tests.chaos.test_hazards import Stage, outcome
from tests.managers import connected, opened
from tests.populations import stored_bytes


def entry(i: int, size: int = 40) -> dict[str, Any]:
    """An entry of a conversation, unlike all others."""
    return {"role": "user", "n": i, "content": f"{i}:" + "é" * size}


def numbers(url: str, session_id: str = "s") -> list[int]:
    """The numbers of the entries that are stored."""
    chosen = sa.select(t.entries.c.number).where(t.entries.c.session_id == session_id).order_by(t.entries.c.number)
    with connected(url) as connection:
        return list(connection.scalars(chosen))


def values(url: str, session_id: str = "s") -> int:
    """How many large pieces are stored."""
    with connected(url) as connection:
        return len(connection.execute(sa.select(t.values.c.name).where(t.values.c.session_id == session_id)).all())


@pytest.mark.parametrize("way", ["sync", "async"])
def test_appending_stores_an_entry_each(migrated_url: str, way: str) -> None:
    """One by one or several at once; the whole comes back, of a session that was created with some too."""
    with opened(Settings(database={"url": migrated_url}), way) as manager:
        manager.create_session(session_id="s", conversation=[entry(0), entry(1)])
        manager.save_state("s", append=[entry(2)])
        manager.save_state("s", append=[entry(3), entry(4), entry(5)], step=3)
        manager.save_state("s", append=[])
        state = manager.load_state("s")
        assert (state.conversation, state.step, state.version) == ([entry(i) for i in range(6)], 3, 4)
        manager.create_session(session_id="none")
        manager.save_state("none", step=1)
        assert manager.load_state("none").conversation is None
        manager.save_state("none", append=["x"])
        assert manager.load_state("none").conversation == ["x"]
        manager.save_state("none", conversation=[])
        assert manager.load_state("none").conversation == []
    assert numbers(migrated_url) == [1, 2, 3, 4, 5, 6]
    assert numbers(migrated_url, "none") == []


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_whole_list_stores_what_is_new(migrated_url: str, way: str) -> None:
    """It grew, its last entry changed, its first, it lost its beginning, was turned around, and emptied."""
    conversation = [entry(i) for i in range(30)]
    with opened(Settings(database={"url": migrated_url}), way) as manager:
        manager.create_session(session_id="s")

        def save(new: list[Any]) -> list[int]:
            conversation[:] = new
            manager.save_state("s", conversation=conversation)
            assert manager.load_state("s").conversation == conversation
            return numbers(migrated_url)

        assert save(conversation) == list(range(1, 31))
        assert save([*conversation, entry(30)]) == list(range(1, 32))
        assert save([*conversation[:-1], entry(-1)]) == [*range(1, 31), 32]
        assert save([entry(-2), *conversation[1:]]) == [*range(2, 31), 32, 33]
        assert save([*conversation[10:], entry(31)]) == [*range(11, 31), 32, 34]
        assert save(conversation) == [*range(11, 31), 32, 34]
        assert save(conversation[::-1]) == [*range(11, 31), 32, 34]
        manager.save_state("s", append=[entry(40)])
        conversation.append(entry(40))
        assert manager.load_state("s").conversation == conversation
        assert save([]) == []
        assert save([entry(1), entry(1), entry(1)]) == [36, 37, 38]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_checkpoints_share_entries_and_keep_them(migrated_url: str, way: str) -> None:
    """Whatever the state becomes, a checkpoint gives back what it was; what only it had goes with it."""
    kept = Settings(database={"url": migrated_url}, policies={"default": {"checkpoints": {"keep_last": 2}}})
    with opened(kept, way) as manager:
        manager.create_session(session_id="s")
        seqs = []
        for i in range(3):
            manager.save_state("s", append=[entry(i)], context={"n": i, "pad": "x" * 2 * WHOLE})
            seqs.append(manager.checkpoint("s", f"step {i}").seq)
        assert numbers(migrated_url) == [1, 2, 3]
        assert values(migrated_url) == 1
        manager.save_state("s", conversation=[entry(9)], context={"n": 9})
        assert numbers(migrated_url) == [1, 2, 3, 4]
        old = manager.get_checkpoint("s", seqs[1])
        assert (old.conversation, old.context["n"]) == ([entry(0), entry(1)], 1)
        manager.restore_checkpoint("s", seqs[1])
        assert numbers(migrated_url) == [1, 2, 3]
        state = manager.load_state("s")
        assert (state.conversation, state.context) == ([entry(0), entry(1)], {"n": 1, "pad": "x" * 2 * WHOLE})
        manager.save_state("s", append=[entry(7)])
        assert manager.load_state("s").conversation == [entry(0), entry(1), entry(7)]
        manager.save_state("s", conversation=[entry(7)], context={})
        for label in ("a", "b"):
            manager.checkpoint("s", label)
        assert (len(numbers(migrated_url)), values(migrated_url)) == (1, 0)
        assert manager.load_state("s").conversation == [entry(7)]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_fork_outlives_what_it_came_from(migrated_url: str, way: str) -> None:
    """From the state and from a checkpoint: it has copies of its own, and both go on apart."""
    with opened(Settings(database={"url": migrated_url}), way) as manager:
        large = {"text": "y" * 3 * WHOLE, "n": 1}
        manager.create_session(session_id="s", conversation=[entry(0), entry(1)], context=large)
        seq = manager.checkpoint("s", "early").seq
        manager.save_state("s", conversation=[entry(5), entry(1), entry(2)], plan=["p" * 2 * WHOLE])
        manager.fork_session("s", new_id="now")
        manager.fork_session("s", new_id="then", checkpoint=seq)
        manager.save_state("s", conversation=[], context={})
        manager.delete_session("s", force=True)
        assert (numbers(migrated_url), values(migrated_url)) == ([], 0)
        now, then = manager.load_state("now"), manager.load_state("then")
        assert (now.conversation, now.context, now.plan) == ([entry(5), entry(1), entry(2)], large, ["p" * 2 * WHOLE])
        assert (then.conversation, then.context, then.plan) == ([entry(0), entry(1)], large, None)
        for name in ("now", "then"):
            before = manager.load_state(name).conversation
            manager.save_state(name, append=[entry(8)])
            assert manager.load_state(name).conversation == [*before, entry(8)]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_large_document_stores_what_changed(migrated_url: str, way: str) -> None:
    """Its pieces are exchanged, not piled up; the plan's stay when the context is saved."""
    notes = [secrets.token_hex(300) for _ in range(60)]
    with opened(Settings(database={"url": migrated_url}), way) as manager:
        manager.create_session(session_id="s", context={"notes": notes})
        manager.save_state("s", plan=[notes[0] * 8])
        first = values(migrated_url)
        for i in range(60):
            notes[i] = secrets.token_hex(300)
            manager.save_state("s", context={"step": i, "notes": notes})
        assert manager.load_state("s").context == {"step": 59, "notes": notes}
        assert abs(values(migrated_url) - first) < 12
        manager.save_state("s", context={"small": True})
        assert values(migrated_url) == 1
        state = manager.load_state("s")
        assert (state.context, state.plan) == ({"small": True}, [manager.load_state("s").plan[0]])
        manager.save_state("s", plan=None)
        assert (values(migrated_url), manager.load_state("s").plan) == (0, None)


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("lost", ["entry", "entry of a run", "piece"])
def test_what_was_lost_is_told(shared_url: str, way: str, lost: str) -> None:
    """A database that lost rows gives no shortened conversation for the whole one."""
    with opened(Settings(database={"url": shared_url}), way) as manager:
        conversation = list(range(40))
        manager.create_session(session_id="s", conversation=conversation, context={"a": "x" * 2 * WHOLE})
        if lost == "entry of a run":
            manager.save_state("s", conversation=["x", *conversation[1:]])
        manager.checkpoint("s", "one")
        with connected(shared_url) as connection:
            gone = sa.delete(t.values) if lost == "piece" else sa.delete(t.entries).where(t.entries.c.number == 2)
            connection.execute(gone)
        what = "context" if lost == "piece" else "conversation"
        (kept,) = manager.list_checkpoints("s")
        with pytest.raises(StorageUnavailable, match=f"lost parts of the {what}"):
            manager.load_state("s")
        with pytest.raises(StorageUnavailable, match=f"lost parts of the {what}"):
            manager.get_checkpoint("s", kept.seq)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 3), min_size=1, max_size=3)),
        st.tuples(st.just("whole"), st.lists(st.integers(0, 3), max_size=8)),
        st.tuples(st.just("edit"), st.integers(0, 30)),
        st.tuples(st.just("cut"), st.integers(1, 4)),
        st.tuples(st.just("context"), st.lists(st.integers(0, 9), max_size=40)),
        st.tuples(st.just("checkpoint"), st.none()),
        st.tuples(st.just("restore"), st.integers(0, 9)),
    ),
    max_size=25,
)


def _check(
    manager: SessionManager, steps: list[Any], session_id: str, read: Callable[[], tuple[set[int], int]]
) -> None:
    manager.create_session(session_id=session_id)
    conversation: list[Any] | None = None
    context: Any = None
    checkpoints: list[tuple[int, Any, Any]] = []
    for what, given_ in steps:
        if what == "append":
            conversation = [*(conversation or []), *given_]
            manager.save_state(session_id, append=given_)
        elif what in {"whole", "edit", "cut"}:
            conversation = list(conversation or [])
            if what == "whole":
                conversation = given_
            elif what == "cut":
                conversation = conversation[given_:]
            elif conversation:
                conversation[given_ % len(conversation)] = f"edit {given_}"
            manager.save_state(session_id, conversation=conversation)
        elif what == "context":
            context = {"notes": [f"{n}" * 700 for n in given_]}
            manager.save_state(session_id, context=context)
        elif what == "checkpoint":
            kept = manager.checkpoint(session_id, "c")
            checkpoints = [*checkpoints, (kept.seq, conversation, context)][-2:]
        elif checkpoints:
            seq, conversation, context = checkpoints[given_ % len(checkpoints)]
            manager.restore_checkpoint(session_id, seq)
        state = manager.load_state(session_id)
        found = (None, None) if state is None else (state.conversation, state.context)
        assert found == (conversation, context)
        for seq, kept_conversation, kept_context in checkpoints:
            one = manager.get_checkpoint(session_id, seq)
            assert (one.conversation, one.context) == (kept_conversation, kept_context)
    stored, _ = read()
    most = len(conversation or []) + sum(len(kept or []) for _, kept, _ in checkpoints)
    assert len(stored) <= most


def _stored(url: str, session_id: str) -> tuple[set[int], int]:
    return set(numbers(url, session_id)), values(url, session_id)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_sequence_comes_back_and_leaves_nothing_behind(shared_url: str, steps: list[Any]) -> None:
    """State and checkpoints say what was saved after each step, and no entry is stored that none of them has."""
    session_id = secrets.token_hex(8)
    with SessionManager.open(
        Settings(database={"url": shared_url}, policies={"default": {"checkpoints": {"keep_last": 2}}})
    ) as manager:
        _check(manager, steps, session_id, lambda: _stored(shared_url, session_id))


@pytest.fixture
def stage(migrated_postgres_url: str) -> Any:
    """PostgreSQL with one session, and a hand that lays down who comes after whom."""
    built = Stage(migrated_postgres_url)
    built.manager.create_session(session_id="s", conversation=[0, 1])
    yield built
    built.close()


def test_a_whole_list_behind_an_append_replaces_it(stage: Stage) -> None:
    """What the save sees is older than the row it comes to: it is made again, and what is loaded is its list."""
    with stage.hand():
        added = stage.queue(stage.manager.save_state, "s", append=[2])
        saved = stage.queue(stage.manager.save_state, "s", conversation=[0, 1, "x"])
    assert (outcome(added), outcome(saved)) == (2, 3)
    assert stage.manager.load_state("s").conversation == [0, 1, "x"]  # type: ignore[union-attr]
    assert len(stage.rows(t.entries)) == 3


def test_an_append_behind_an_edit_adds_to_it(stage: Stage) -> None:
    """The numbers it takes are those of the row as it is by then."""
    with stage.hand():
        edited = stage.queue(stage.manager.save_state, "s", conversation=[0, "x", 5])
        added = stage.queue(stage.manager.save_state, "s", append=[2])
    assert (outcome(edited), outcome(added)) == (2, 3)
    assert stage.manager.load_state("s").conversation == [0, "x", 5, 2]  # type: ignore[union-attr]


def test_a_save_behind_a_checkpoint_leaves_what_it_has(stage: Stage) -> None:
    """The pieces that a checkpoint came to need while the save waited are not removed with the document."""
    stage.manager.save_state("s", context={"a": "x" * 2 * WHOLE})
    with stage.hand():
        kept = stage.queue(stage.manager.checkpoint, "s", "one")
        saved = stage.queue(stage.manager.save_state, "s", context={"b": "y" * 2 * WHOLE}, conversation=[0])
    assert outcome(saved) == 3
    assert stage.manager.load_state("s").context == {"b": "y" * 2 * WHOLE}  # type: ignore[union-attr]
    before = stage.manager.get_checkpoint("s", outcome(kept).seq)
    assert (before.conversation, before.context) == ([0, 1], {"a": "x" * 2 * WHOLE})


def test_many_at_once_lose_nothing(shared_url: str) -> None:
    """Threads that append to one session: every entry is there once."""
    with SessionManager.open(shared_url) as manager, ThreadPoolExecutor(4) as threads:
        manager.create_session(session_id="s")
        list(threads.map(lambda i: manager.save_state("s", append=[i]), range(40)))
        state = manager.load_state("s")
        assert state is not None
        assert sorted(state.conversation) == list(range(40))


PAYLOAD = 2048
TURNS = 200


@pytest.mark.parametrize(
    ("how", "most"), [("append", 1.5), ("whole", 1.5), ("checkpoints", 2.0), ("whole, checkpoints", 2.0)]
)
def test_turns_take_little_more_than_they_say(migrated_postgres_url: str, how: str, most: float) -> None:
    """200 turns of 2 KB that cannot be compressed; and a late turn logs what an early one does."""
    with (
        SessionManager.open(migrated_postgres_url) as manager,
        psycopg.connect(migrated_postgres_url, autocommit=True) as raw,
    ):
        manager.create_session(session_id="s")
        manager.save_state("s", append=["warm"])
        manager.checkpoint("s", "warm")
        empty = stored_bytes(raw)
        logged: list[int] = []
        conversation: list[Any] = ["warm"]
        for i in range(TURNS):
            text = secrets.token_urlsafe(PAYLOAD * 3 // 4)
            conversation.append(text)
            before = raw.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            if "whole" in how:
                manager.save_state("s", conversation=conversation, step=i)
            else:
                manager.save_state("s", append=[text], step=i)
            if "checkpoints" in how:
                manager.checkpoint("s", f"step {i}")
            (size,) = raw.execute("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before).fetchone() or (0,)
            logged.append(int(size))
        stored = stored_bytes(raw) - empty
        early, late = sorted(logged[5:25])[10], sorted(logged[-20:])[10]
    assert stored <= most * PAYLOAD * TURNS
    assert late <= early * 1.2
