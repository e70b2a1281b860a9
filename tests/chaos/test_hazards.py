"""Two callers meet on one session in an order that is laid down, and whichever comes first, what is left belongs together.

A connection of the test's own (the hand) locks the session's row, calls queue up behind it one by one, each seen to wait
in the server's own view, and then the hand lets go: the calls run in the order in which they came.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from lifecycle import (
    InvalidTransition,
    LifecycleError,
    SessionExists,
    SessionManager,
    SessionNotFound,
    VersionConflict,
    migrate,
    urls,
)
from lifecycle.models import tables as t
from tests.servers import PostgresServer

PATIENCE = 60.0
PAST = datetime.now(UTC) - timedelta(days=400)
FUTURE = datetime.now(UTC) + timedelta(days=400)
KEY = (t.sessions.c.tenant == "", t.sessions.c.session_id == "s")

_WAITING = {
    "postgresql": "SELECT (SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock')",
    # INNODB_TRX shows what it showed last time as long as somebody keeps asking.
    "mysql": "SELECT (SELECT variable_value FROM information_schema.global_status"
    " WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS')"
    " + (SELECT count(*) FROM information_schema.processlist WHERE LEFT(state, 17) = 'Waiting for table')",
}
_LOCK_SESSIONS = {
    "postgresql": "LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE",
    "mysql": "LOCK TABLES sessions WRITE",
}


class Stage:
    """A database with one session `s`, and the means to lay down who comes after whom."""

    def __init__(self, url: str) -> None:
        self.manager = SessionManager.open(url)
        self.engine = sa.create_engine(urls.engine_url(url), isolation_level="READ COMMITTED")
        self._audience = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._dialect = self.engine.dialect.name
        self._threads = ThreadPoolExecutor(4)
        self._queue: list[Future[Any]] = []

    def close(self) -> None:
        """Leave nothing behind."""
        self._threads.shutdown()
        self._audience.close()
        self.engine.dispose()
        self.manager.close()

    @contextlib.contextmanager
    def hand(self, session_id: str = "s") -> Iterator[sa.Connection]:
        """A transaction that holds the row of a session, and commits at the end."""
        self._queue.clear()
        with self.engine.begin() as connection:
            key = (t.sessions.c.tenant == "", t.sessions.c.session_id == session_id)
            assert connection.execute(sa.select(t.sessions.c.version).where(*key).with_for_update()).all()
            yield connection

    @contextlib.contextmanager
    def sessions_locked(self) -> Iterator[sa.Connection]:
        """A connection that keeps all others from reading and writing sessions at all."""
        self._queue.clear()
        with self.engine.begin() as connection:
            connection.exec_driver_sql(_LOCK_SESSIONS[self._dialect])
            try:
                yield connection
            finally:
                if self._dialect == "mysql":
                    connection.exec_driver_sql("UNLOCK TABLES")

    @contextlib.contextmanager
    def log_held(self) -> Iterator[None]:
        """Nobody can write the audit log: who comes to that has locked the rows that it tells of, and keeps them."""
        self._queue.clear()
        with self.engine.connect() as connection:
            if self._dialect == "mysql":
                connection.exec_driver_sql("LOCK TABLES session_transitions READ")
                try:
                    yield
                finally:
                    connection.exec_driver_sql("UNLOCK TABLES")
                return
            # A lock of the table would stop a statement before it begins; a number that is perhaps taken stops it there.
            number = connection.exec_driver_sql("SELECT nextval(pg_get_serial_sequence('session_transitions', 'id'))")
            connection.execute(
                sa.insert(t.transitions).values(
                    id=number.scalar_one() + 1, tenant="", session_id="none", seq=1, trigger_name="none", version=1,
                    created_at=PAST,
                )
            )  # fmt: skip
            yield
            connection.rollback()

    def queue(self, call: Callable[..., Any], *args: Any, **options: Any) -> "Future[Any]":
        """Make a call in a thread; it is waiting for a lock when this returns, as are all those queued before it."""
        future = self._threads.submit(call, *args, **options)
        self._queue.append(future)
        self.until(f"{_WAITING[self._dialect]} >= {len(self._queue)}", unless=future)
        return future

    def until(self, condition: str, unless: "Future[Any] | None" = None) -> None:
        """Ask the server until it says that something holds."""
        deadline = time.monotonic() + PATIENCE
        while not self._audience.exec_driver_sql(condition).scalar_one():
            assert unless is None or not unless.done(), "the call did not wait"
            assert time.monotonic() < deadline, "the server does not see it"
            time.sleep(0.002)

    def backdate(self, session_id: str, **values: Any) -> None:
        """Write into a session's row."""
        with self.engine.begin() as connection:
            connection.execute(
                sa.update(t.sessions)
                .where(t.sessions.c.tenant == "", t.sessions.c.session_id == session_id)
                .values(**values)
            )

    def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        """All rows of a table."""
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.select(table)).mappings()]

    def check_nothing_is_orphaned(self) -> None:
        """Every row belongs to a session that is there, and every count is true."""
        sessions = {row["session_id"]: row for row in self.rows(t.sessions)}
        for table in t.CHILDREN:
            assert {row["session_id"] for row in self.rows(table)} <= set(sessions), table.name
        messages = [row["session_id"] for row in self.rows(t.messages)]
        for session_id, row in sessions.items():
            assert row["message_count"] == messages.count(session_id)

    def changes(self, session_id: str = "s") -> list[tuple[str | None, str | None]]:
        """The audit log as pairs of states, the creation aside."""
        return [(line.from_state, line.to_state) for line in self.manager.history(session_id)[1:]]


@pytest.fixture(params=["postgres", "postgres15", "mariadb"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The stage on each database that knows row locks."""
    with opened(str(request.getfixturevalue(f"migrated_{request.param}_url"))) as found:
        yield found


@contextlib.contextmanager
def opened(url: str) -> Iterator[Stage]:
    """A stage with one session on it."""
    found = Stage(url)
    try:
        found.manager.create_session(session_id="s", user_id="u")
        yield found
    finally:
        found.close()


def outcome(future: "Future[Any]") -> Any:
    """What a call returned, or the type of the error it raised."""
    try:
        return future.result(PATIENCE)
    except LifecycleError as error:
        return type(error)


def add_one(manager: SessionManager) -> Any:
    """Add a message."""
    return manager.add_message("s", "user", "hi")


def add_two(manager: SessionManager) -> Any:
    """Add messages, one of them under an id of its own."""
    return manager.add_messages("s", [{"role": "user", "content": "a", "message_id": "m"}, {"role": "b", "content": 1}])


def save(manager: SessionManager) -> Any:
    """Save a state."""
    return manager.save_state("s", append=["x"], context={"n": 1})


def save_once(manager: SessionManager) -> Any:
    """Save a state under a retry token."""
    return manager.save_state("s", context={"n": 1}, token="t")


def keep(manager: SessionManager) -> Any:
    """Make a checkpoint."""
    return manager.checkpoint("s", "kept")


def ask(manager: SessionManager) -> Any:
    """Ask for an approval, and wait for it."""
    return manager.request_approval("s", "deploy", suspend=True)


def connect(manager: SessionManager) -> Any:
    """Open a connection."""
    return manager.open_connection("s", client={"ip": "::1"})


WRITES = [add_one, add_two, save, save_once, keep, ask, connect]


@pytest.mark.parametrize("write", WRITES)
def test_a_write_behind_a_deletion_leaves_no_orphan(stage: Stage, write: Callable[[SessionManager], Any]) -> None:
    """Once a session is deleted, what waited to write into it is refused and writes nothing."""
    with stage.hand():
        deleted = stage.queue(stage.manager.delete_session, "s")
        written = stage.queue(write, stage.manager)
    assert outcome(deleted) is True
    assert outcome(written) is SessionNotFound
    stage.check_nothing_is_orphaned()
    assert [line.trigger for line in stage.manager.history("s")] == ["delete"]


@pytest.mark.parametrize("write", WRITES)
def test_a_deletion_behind_a_write_takes_it_along(stage: Stage, write: Callable[[SessionManager], Any]) -> None:
    """A deletion removes rows that were committed while it waited, too."""
    with stage.hand():
        written = stage.queue(write, stage.manager)
        deleted = stage.queue(stage.manager.delete_session, "s")
    assert not isinstance(outcome(written), type)
    assert outcome(deleted) is True
    stage.check_nothing_is_orphaned()
    assert [line.trigger for line in stage.manager.history("s")] == ["delete"]


def test_a_write_behind_a_deletion_by_hand(stage: Stage) -> None:
    """A row that vanishes while it is waited for is a session that is not there."""
    with stage.hand() as hand:
        hand.execute(sa.delete(t.sessions).where(*KEY))
        written = stage.queue(add_one, stage.manager)
    assert outcome(written) is SessionNotFound
    stage.check_nothing_is_orphaned()


def kept_by(stage: Stage) -> tuple[int, str]:
    """Version and context of the one checkpoint."""
    (row,) = stage.rows(t.checkpoints)
    return row["version"], row["context"]


def test_a_checkpoint_behind_a_save_copies_that_save(stage: Stage) -> None:
    """The new version comes with the new documents."""
    stage.manager.save_state("s", context={"n": 2})
    with stage.hand():
        saved = stage.queue(stage.manager.save_state, "s", context={"n": 3})
        kept = stage.queue(keep, stage.manager)
    assert (outcome(saved), outcome(kept).version) == (3, 3)
    assert kept_by(stage) == (3, '{"n":3}')


def test_a_checkpoint_before_a_save_copies_the_former_one(stage: Stage) -> None:
    """The old version comes with the old documents."""
    stage.manager.save_state("s", context={"n": 2})
    with stage.hand():
        kept = stage.queue(keep, stage.manager)
        saved = stage.queue(stage.manager.save_state, "s", context={"n": 3})
    assert (outcome(saved), outcome(kept).version) == (3, 2)
    assert kept_by(stage) == (2, '{"n":2}')


def test_a_checkpoint_behind_a_save_by_hand(stage: Stage) -> None:
    """What was not committed yet when the checkpoint began is copied whole once it is."""
    stage.manager.save_state("s", context={"n": 2})
    with stage.hand() as hand:
        hand.execute(sa.update(t.sessions).where(*KEY).values(version=3))
        hand.execute(sa.update(t.session_states).values(context='{"n":3}'))
        kept = stage.queue(keep, stage.manager)
    assert outcome(kept).version == 3
    assert kept_by(stage) == (3, '{"n":3}')


def test_a_restore_behind_a_save_is_the_later_version(stage: Stage) -> None:
    """Both versions are made, and the last one's documents stand."""
    stage.manager.save_state("s", context={"n": 2})
    seq = stage.manager.checkpoint("s", "kept").seq
    with stage.hand():
        saved = stage.queue(stage.manager.save_state, "s", context={"n": 3})
        restored = stage.queue(stage.manager.restore_checkpoint, "s", seq)
    assert (outcome(saved), outcome(restored)) == (3, 4)
    state = stage.manager.load_state("s")
    assert state is not None
    assert (state.version, state.context) == (4, {"n": 2})


def test_the_log_tells_the_state_that_was_left(stage: Stage) -> None:
    """A transition that waited for another begins where that one ended."""
    with stage.hand():
        suspended = stage.queue(stage.manager.suspend_session, "s")
        completed = stage.queue(stage.manager.complete_session, "s")
    assert (outcome(suspended).version, outcome(completed).version) == (2, 3)
    assert stage.changes() == [("active", "suspended"), ("suspended", "completed")]


def test_the_log_tells_the_state_that_was_left_by_hand(stage: Stage) -> None:
    """The state is read from the row as it is once the lock is held, not as it was before."""
    with stage.hand() as hand:
        hand.execute(sa.update(t.sessions).where(*KEY).values(state="suspended", version=2))
        completed = stage.queue(stage.manager.complete_session, "s")
    assert outcome(completed).version == 3
    assert stage.changes() == [("suspended", "completed")]


def test_a_transition_that_became_illegal_while_it_waited(stage: Stage) -> None:
    """The state is compared under the lock."""
    with stage.hand():
        completed = stage.queue(stage.manager.complete_session, "s")
        suspended = stage.queue(stage.manager.suspend_session, "s")
    assert outcome(completed).state == "completed"
    assert outcome(suspended) is InvalidTransition
    assert stage.changes() == [("active", "completed")]


def test_the_same_transition_twice_is_made_once(stage: Stage) -> None:
    """The second one finds it done."""
    with stage.hand():
        futures = [stage.queue(stage.manager.suspend_session, "s") for _ in range(2)]
    assert [outcome(future).version for future in futures] == [2, 2]
    assert stage.changes() == [("active", "suspended")]


def test_a_save_behind_a_save_is_a_conflict(stage: Stage) -> None:
    """Of two saves on top of one version the later is refused, though the version was right when it came."""
    with stage.hand():
        first = stage.queue(stage.manager.save_state, "s", step=1, expected_version=1)
        second = stage.queue(stage.manager.save_state, "s", step=2, expected_version=1)
    assert (outcome(first), outcome(second)) == (2, VersionConflict)
    state = stage.manager.load_state("s")
    assert state is not None
    assert (state.version, state.step) == (2, 1)


def test_two_first_saves_append_both(stage: Stage) -> None:
    """An entry is added to a saved state that was not there yet when its save came."""
    with stage.hand():
        futures = [stage.queue(stage.manager.save_state, "s", append=[n]) for n in (1, 2)]
    assert [outcome(future) for future in futures] == [2, 3]
    state = stage.manager.load_state("s")
    assert state is not None
    assert (state.version, state.conversation) == (3, [1, 2])


def test_one_save_under_two_equal_tokens_is_made_once(stage: Stage) -> None:
    """A repeat that overtakes the answer to the first try gets the same version."""
    with stage.hand():
        futures = [stage.queue(save_once, stage.manager) for _ in range(2)]
    assert [outcome(future) for future in futures] == [2, 2]
    session = stage.manager.get_session("s")
    assert session is not None
    assert session.version == 2


def test_a_save_behind_a_suspension_is_refused(stage: Stage) -> None:
    """No save lands on a session that is not active any more."""
    with stage.hand():
        suspended = stage.queue(stage.manager.suspend_session, "s")
        saved = stage.queue(save, stage.manager)
    assert outcome(suspended).state == "suspended"
    assert outcome(saved) is InvalidTransition
    assert stage.rows(t.session_states) == []


def test_no_two_callers_pop_the_same_message(stage: Stage) -> None:
    """Each takes the last one that is there once the other is through."""
    for content in ("one", "two"):
        stage.manager.add_message("s", "user", content)
    with stage.hand():
        futures = [stage.queue(stage.manager.pop_message, "s") for _ in range(2)]
    assert [outcome(future).content for future in futures] == ["two", "one"]
    stage.check_nothing_is_orphaned()


def test_one_message_sent_twice_is_added_once(stage: Stage) -> None:
    """The repeat under the same id waits, and gets the first one's number."""
    with stage.hand():
        futures = [stage.queue(stage.manager.add_message, "s", "user", "hi", message_id="m") for _ in range(2)]
    assert [outcome(future).seq for future in futures] == [2, 2]
    stage.check_nothing_is_orphaned()


def test_the_expiry_passes_over_a_session_that_is_being_touched(stage: Stage) -> None:
    """A due session with a touch under way is left alone, and afterwards it is not due."""
    stage.backdate("s", expires_at=PAST)
    assert stage.manager.expire_idle(dry_run=True).count == 1
    with stage.hand():
        touched = stage.queue(stage.manager.touch_session, "s")
        assert stage.manager.expire_idle().count == 0
    assert outcome(touched) == 1
    assert stage.manager.expire_idle().count == 0
    assert stage.changes() == []


def test_an_expiry_that_waited_sees_a_touch_by_hand(stage: Stage) -> None:
    """What was due when the sweep came, and is not when it may go on, is not expired; the rest is."""
    stage.manager.create_session(session_id="other")
    for session_id in ("s", "other"):
        stage.backdate(session_id, expires_at=PAST)
    with stage.sessions_locked() as hand:
        swept = stage.queue(stage.manager.expire_idle)
        hand.execute(sa.update(t.sessions).where(*KEY).values(expires_at=FUTURE))
    assert outcome(swept).session_ids == ["other"]
    assert stage.changes() == []


def test_a_touch_behind_the_expiry_is_refused(stage: Stage) -> None:
    """The sweep has the row already: the touch learns that it came too late."""
    stage.backdate("s", expires_at=PAST)
    with stage.log_held():
        swept = stage.queue(stage.manager.expire_idle)
        touched = stage.queue(stage.manager.touch_session, "s")
    assert outcome(swept).session_ids == ["s"]
    assert outcome(touched) is InvalidTransition
    assert stage.changes() == [("active", "expired")]


def reopen(manager: SessionManager) -> Any:
    """Bring an expired session back."""
    return manager.reopen_session("s")


def undelete(manager: SessionManager) -> Any:
    """Bring a hidden session back."""
    return manager.undelete_session("s")


def protect(manager: SessionManager) -> Any:
    """Protect a session from removal."""
    return manager.update_session("s", protected=True)


def due_for_pruning(stage: Stage, rescue: Callable[[SessionManager], Any]) -> None:
    """Let the session be one that `rescue` can still save from the next sweep."""
    stage.manager.add_message("s", "user", "hi")
    if rescue is undelete:
        stage.manager.delete_session("s", soft=True)
    else:
        stage.manager.expire_session("s")
    stage.backdate("s", prune_at=PAST)
    assert stage.manager.prune_sessions(dry_run=True).count == 1


@pytest.mark.parametrize("rescue", [reopen, undelete, protect])
def test_pruning_passes_over_a_session_that_is_being_rescued(
    stage: Stage, rescue: Callable[[SessionManager], Any]
) -> None:
    """A session whose rescue is under way is left alone, and afterwards it is not due."""
    due_for_pruning(stage, rescue)
    with stage.hand():
        rescued = stage.queue(rescue, stage.manager)
        assert stage.manager.prune_sessions().count == 0
    assert outcome(rescued).session_id == "s"
    assert stage.manager.prune_sessions().count == 0
    assert [message.content for message in stage.manager.get_messages("s")] == ["hi"]
    stage.check_nothing_is_orphaned()


@pytest.mark.parametrize("rescue", [reopen, undelete, protect])
def test_a_rescue_behind_the_pruning_finds_nothing(stage: Stage, rescue: Callable[[SessionManager], Any]) -> None:
    """Once the sweep has the row, it is removed whole."""
    due_for_pruning(stage, rescue)
    with stage.log_held():
        swept = stage.queue(stage.manager.prune_sessions)
        rescued = stage.queue(rescue, stage.manager)
    assert outcome(swept).session_ids == ["s"]
    assert outcome(rescued) is SessionNotFound
    stage.check_nothing_is_orphaned()
    assert stage.rows(t.sessions) == []
    assert [line.trigger for line in stage.manager.history("s")] == ["delete"]


@pytest.mark.parametrize("write", [add_one, save])
def test_the_ghost_sweep_passes_over_a_session_that_is_being_used(
    stage: Stage, write: Callable[[SessionManager], Any]
) -> None:
    """A session that gets its first content is no ghost, however long it had none."""
    stage.backdate("s", ghost_at=PAST)
    with stage.hand():
        written = stage.queue(write, stage.manager)
        assert stage.manager.delete_ghosts().count == 0
    assert not isinstance(outcome(written), type)
    assert stage.manager.delete_ghosts().count == 0
    assert stage.manager.get_session("s") is not None


def is_free(stage: Stage, session_id: str) -> bool:
    """Whether nobody holds the row of a session."""
    key = (t.sessions.c.tenant == "", t.sessions.c.session_id == session_id)
    with stage.engine.begin() as connection:
        chosen = sa.select(t.sessions.c.session_id).where(*key).with_for_update(skip_locked=True)
        return bool(connection.execute(chosen).all())


def test_batches_in_opposite_orders_do_not_deadlock(stage: Stage) -> None:
    """Both take the rows in the order of their keys: who waits holds none that the one in front still needs."""
    for session_id in ("a", "b", "c"):
        stage.manager.create_session(session_id=session_id)
    with stage.hand("b"):
        first = stage.queue(stage.manager.touch_session, ["a", "b", "c"])
        second = stage.queue(stage.manager.touch_session, ["c", "b", "a"])
        assert not is_free(stage, "a")
        assert is_free(stage, "c")
    assert (outcome(first), outcome(second)) == (3, 3)


def test_a_batch_and_a_removal_of_many_do_not_deadlock(stage: Stage) -> None:
    """A touch of many and the removal of a user agree on the order."""
    ids = ["a", "B", "é", "c"]
    for session_id in ids:
        stage.manager.create_session(session_id=session_id, user_id="many")
    with stage.hand("a"):
        touched = stage.queue(stage.manager.touch_session, ids)
        removed = stage.queue(stage.manager.delete_user, "many")
    assert (outcome(touched), outcome(removed)) == (4, 4)
    stage.check_nothing_is_orphaned()


@pytest.fixture
def collated_stage(postgres15_server: PostgresServer) -> Iterator[Stage]:
    """The stage on a database that sorts as people do, a before B."""
    name = sql.Identifier("hazards_collated")
    make = sql.SQL("CREATE DATABASE {} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'").format(name)
    try:
        postgres15_server.execute(make)
    except psycopg.errors.FeatureNotSupported as reason:
        pytest.skip(str(reason))
    url = postgres15_server.url("hazards_collated")
    migrate.upgrade(url)
    with opened(url) as found:
        yield found
    postgres15_server.drop_database("hazards_collated")


def test_a_batch_and_a_removal_of_many_agree_under_any_collation(collated_stage: Stage) -> None:
    """Who locks many sessions takes them in one order, whatever the database's own is: else they deadlock."""
    for session_id in ("a", "B"):
        collated_stage.manager.create_session(session_id=session_id, user_id="many")
    free = []
    for call, many in (
        (collated_stage.manager.touch_session, ["a", "B"]),
        (collated_stage.manager.delete_user, "many"),
    ):
        with collated_stage.hand("a"):
            done = collated_stage.queue(call, many)
            free.append(is_free(collated_stage, "B"))
        assert outcome(done) == 2
    assert free in ([True, True], [False, False])


def fork(manager: SessionManager) -> Any:
    """Go on from a session in a new one."""
    return manager.fork_session("s", new_id="f")


def test_a_fork_behind_the_deletion_of_its_source(stage: Stage) -> None:
    """There is nothing to go on from, and nothing is left of the try."""
    stage.manager.add_message("s", "user", "hi")
    save(stage.manager)
    with stage.hand():
        deleted = stage.queue(stage.manager.delete_session, "s")
        forked = stage.queue(fork, stage.manager)
    assert (outcome(deleted), outcome(forked)) == (True, SessionNotFound)
    assert stage.rows(t.sessions) == []
    assert stage.manager.history("f") == []
    stage.check_nothing_is_orphaned()


def test_a_fork_before_the_deletion_of_its_source(stage: Stage) -> None:
    """The copy is whole, and the removal of the source breaks nothing."""
    stage.manager.add_message("s", "user", "hi")
    save(stage.manager)
    with stage.hand():
        forked = stage.queue(fork, stage.manager)
        deleted = stage.queue(stage.manager.delete_session, "s")
    assert (outcome(forked).parent_id, outcome(deleted)) == ("s", True)
    state = stage.manager.load_state("f")
    assert state is not None
    assert (state.conversation, state.context) == (["x"], {"n": 1})
    assert [message.content for message in stage.manager.get_messages("f")] == ["hi"]
    stage.check_nothing_is_orphaned()


def test_two_forks_under_one_id_make_one(stage: Stage) -> None:
    """The second is told that the id is taken."""
    with stage.hand():
        futures = [stage.queue(fork, stage.manager) for _ in range(2)]
    first, second = (outcome(future) for future in futures)
    assert (first.session_id, second) == ("f", SessionExists)
    assert len(stage.rows(t.sessions)) == 2
