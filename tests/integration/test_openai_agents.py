"""The OpenAI Agents SDK's sessions on a manager, on every store, with either kind of manager."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from lifecycle import (
    InvalidArgument,
    InvalidTransition,
    LeaseLost,
    LifecycleError,
    LimitExceeded,
    NotSerializable,
    SessionBusy,
    SessionManager,
    Settings,
)
from lifecycle.models import tables as t
from tests.loops import KINDS, Loops, looped
from tests.managers import backdate, connected
from tests.wire import CountingProxy

pytest.importorskip("agents", reason="openai-agents is not installed")

import agents

from lifecycle.adapters.openai_agents import LifecycleSession

Item = Any
CALL = {
    "type": "function_call",
    "call_id": "c1",
    "name": "look",
    "arguments": '{"where": "here"}',
    "status": "completed",
}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "nothing"}


@pytest.fixture(params=KINDS)
def loops(request: pytest.FixtureRequest, migrated_url: str) -> Iterator[Loops]:
    """A manager of either kind on an empty store."""
    with looped(migrated_url, request.param) as opened:
        yield opened


def user(text: Any) -> Item:
    """A plain item."""
    return {"role": "user", "content": text}


ITEMS: list[Item] = [
    user("Hello"),
    CALL,
    OUTPUT,
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x" * 5000},
    {
        "id": "m1",
        "role": "assistant",
        "type": "message",
        "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
    },
    user([{"type": "input_text", "text": "und Grüße \U0001f600"}]),
    user({"unusual": None}),
    user(""),
    user("a\x00b"),
    {"role": "r" * 300, "content": "a role too long for a column"},
    {"type": "", "content": None},
    {"role": None, "content": 1e22, "n": -0.0, "deep": {"list": [[], {}, None, True]}},
    {},
]


def test_what_is_added_comes_back(loops: Loops) -> None:
    """Items of any shape, equal and in order, over calls from any event loop; and the last ones of them."""
    session = LifecycleSession("a", loops.manager)
    assert isinstance(session, agents.Session)
    assert loops.run(session.get_items()) == []
    loops.run(session.add_items(ITEMS[:5]))
    loops.run(session.add_items([]))
    loops.run(session.add_items(ITEMS[5:]))
    assert loops.run(session.get_items()) == ITEMS
    assert [loops.run(session.get_items(n)) for n in (0, 1, 3, 100)] == [[], ITEMS[-1:], ITEMS[-3:], ITEMS]
    assert loops.run(session.get_items(-1)) == ITEMS
    assert loops.run(LifecycleSession("a", loops.manager).get_items()) == ITEMS
    assert loops.run(LifecycleSession("b", loops.manager).get_items()) == []


def test_items_are_popped_from_the_end(loops: Loops) -> None:
    """Each is given once, the last one first; then there is nothing, as in a session that is not there."""
    session = LifecycleSession("a", loops.manager)
    assert loops.run(session.pop_item()) is None
    loops.run(session.add_items(ITEMS))
    assert [loops.run(session.pop_item()) for _ in ITEMS] == ITEMS[::-1]
    assert loops.run(session.pop_item()) is None
    loops.run(session.add_items([user("again")]))
    assert loops.run(session.get_items()) == [user("again")]


def test_clearing_leaves_the_session(loops: Loops) -> None:
    """All items go; the session stays as it was, and one that is not there stays away."""
    session = LifecycleSession("a", loops.manager, user_id="ada", kind="copilot", metadata={"plan": "free"})
    loops.run(session.clear_session())
    assert loops.call("get_session", "a") is None
    loops.run(session.add_items(ITEMS))
    loops.run(session.clear_session())
    assert loops.run(session.get_items()) == []
    stored = loops.call("get_session", "a")
    assert (stored.user_id, stored.kind, stored.metadata, stored.message_count) == (
        "ada",
        "copilot",
        {"plan": "free"},
        0,
    )
    assert stored.title == "Hello"


def test_plain_items_are_messages(loops: Loops) -> None:
    """What the manager adds is an item, and a plain item is a message to read and search; notes are passed over."""
    session = LifecycleSession("a", loops.manager)
    loops.run(session.add_items([user("Where is my order?"), CALL]))
    loops.call("add_message", "a", "assistant", "On its way")
    loops.call("add_message", "a", "note", 17)
    first, call, *_ = loops.call("get_messages", "a")
    assert (first.role, first.content) == ("user", "Where is my order?")
    assert (call.role, call.content) == ("function_call", CALL)
    assert loops.run(session.get_items()) == [
        user("Where is my order?"),
        CALL,
        {"role": "assistant", "content": "On its way"},
    ]
    assert loops.call("list_sessions", search="my order", search_messages=True).items[0].session_id == "a"
    assert loops.run(session.pop_item()) == {"role": "assistant", "content": "On its way"}


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "tuple": (user(("a",)), NotSerializable, "tuple"),
    "key": ({"role": "user", "content": {1: "a"}}, NotSerializable, "keys must be text"),
    "object": ({"type": "x", "value": object()}, NotSerializable, "object is not JSON"),
    "nan": ({"type": "x", "value": float("nan")}, NotSerializable, "not a JSON number"),
    "surrogate": (user("\ud800"), InvalidArgument, "surrogate"),
    "large": (user("x" * 100_001), LimitExceeded, "limits.message_chars"),
    "text": ("Hello", InvalidArgument, r"items\[1\] must be a dict"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_batch_with_an_item_that_cannot_be_stored_is_not_stored(loops: Loops, what: str) -> None:
    """The error says what is wrong, and nothing of the batch is there."""
    item, error, says = BAD[what]
    session = LifecycleSession("a", loops.manager)
    loops.run(session.add_items([user("before")]))
    with pytest.raises(error, match=says):
        loops.run(session.add_items([user("one"), item, user("two")]))
    assert loops.run(session.get_items()) == [user("before")]


def test_the_limit_of_the_settings(loops: Loops) -> None:
    """`get_items()` takes the limit of the session's settings, and an explicit one wins."""
    for settings in (agents.SessionSettings(limit=2), {"limit": 2}):
        session = LifecycleSession("a", loops.manager, session_settings=settings)
        loops.run(session.clear_session())
        loops.run(session.add_items(ITEMS[:4]))
        assert loops.run(session.get_items()) == ITEMS[2:4]
        assert loops.run(session.get_items(3)) == ITEMS[1:4]


def test_a_lifecycle(loops: Loops) -> None:
    """What expired is reopened by the next item unless that is not wanted; what is over takes none."""
    session = LifecycleSession("a", loops.manager)
    loops.run(session.add_items(ITEMS[:1]))
    loops.call("suspend_session", "a")
    loops.run(session.add_items(ITEMS[1:2]))
    loops.call("expire_session", "a")
    assert loops.run(session.get_items()) == ITEMS[:2]
    with pytest.raises(InvalidTransition, match="expired"):
        loops.run(LifecycleSession("a", loops.manager, reopen=False).add_items(ITEMS[2:3]))
    loops.run(session.add_items(ITEMS[2:3]))
    assert loops.call("get_session", "a").state == "active"
    loops.call("complete_session", "a")
    for refused in (session.add_items(ITEMS[3:4]), session.pop_item(), session.clear_session()):
        with pytest.raises(InvalidTransition, match="completed"):
            loops.run(refused)
    assert loops.run(session.get_items()) == ITEMS[:3]


def test_under_a_lease(loops: Loops) -> None:
    """Who holds the session writes, and nobody else; once another took over, not even he."""
    LifecycleSession("a", loops.manager)
    loops.call("create_session", session_id="a")

    async def go() -> None:
        held = loops.manager.lease("a", ttl=60)
        if isinstance(loops.manager, SessionManager):
            with held as lease:
                await write(lease)
        else:
            async with held as lease:
                await write(lease)

    async def write(lease: Any) -> None:
        mine, other = LifecycleSession("a", loops.manager, lease=lease), LifecycleSession("a", loops.manager)
        await mine.add_items(ITEMS[:3])
        for refused in (other.add_items(ITEMS[3:4]), other.pop_item(), other.clear_session()):
            with pytest.raises(SessionBusy):
                await refused
        assert await mine.pop_item() == ITEMS[2]
        for move in ("suspend_session", "resume_session"):  # an operator's, which ends the lease
            answer = getattr(loops.manager, move)("a")
            if asyncio.iscoroutine(answer):
                await answer
        for late in (mine.add_items(ITEMS[3:4]), mine.pop_item(), mine.clear_session()):
            with pytest.raises(LeaseLost):
                await late
        assert await other.get_items() == ITEMS[:2]

    loops.run(go())


def test_more_than_a_page(loops: Loops) -> None:
    """Conversations of many pages come back whole, and so do the last items of them."""
    page = loops.manager.settings.limits.messages_page
    session = LifecycleSession("a", loops.manager)
    items = [user(str(i)) for i in range(2 * page + 7)]
    for start in range(0, len(items), page):
        loops.run(session.add_items(items[start : start + page]))
    for limit in (None, page - 1, page, page + 1, 2 * page, 2 * page + 7, 10**6):
        expected = items if limit is None else items[-limit:]
        assert loops.run(session.get_items(limit)) == expected


@pytest.fixture
def paged(shared_url: str) -> Iterator[tuple[SessionManager, str]]:
    """A manager whose pages are short."""
    with SessionManager.open(Settings(database={"url": shared_url}, limits={"messages_page": 4})) as manager:
        yield manager, shared_url


def test_a_broken_row_hides_nothing_else(paged: tuple[SessionManager, str]) -> None:
    """Wherever rows are that cannot be read, all others come back, as many as are wanted; popping passes over them."""
    manager, url = paged
    session = LifecycleSession("a", manager)
    items = [user(str(i)) for i in range(15)]
    asyncio.run(session.add_items(items))
    first = manager.get_messages("a", limit=1)[0].seq
    broken = {0, 3, 4, 5, 9, 14}
    with connected(url) as connection:
        for i in broken:
            connection.execute(
                sa.update(t.messages).where(t.messages.c.seq == first + i).values(content="{broken", encoding="json")
            )
    whole = [item for i, item in enumerate(items) if i not in broken]
    assert asyncio.run(session.get_items()) == whole
    for limit in range(1, 12):
        assert asyncio.run(session.get_items(limit)) == whole[-limit:]
    assert [asyncio.run(session.pop_item()) for _ in range(10)] == [*whole[::-1], None]
    assert manager.get_messages("a", limit=1) == []


def test_reading_beside_pops_and_clears_sees_one_moment(paged: tuple[SessionManager, str]) -> None:
    """Whatever comes back of many pages was there together: numbers without a gap from the first on."""
    manager, _ = paged
    session = LifecycleSession("a", manager)
    seen: list[list[str]] = []
    over = threading.Event()

    async def write() -> None:
        for generation in range(15):
            await session.add_items([user(f"{generation}.{i}") for i in range(13)])
            for _ in range(5):
                await session.pop_item()
            await session.clear_session()

    def look() -> None:
        while not over.is_set():
            seen.append([item["content"] for item in asyncio.run(session.get_items())])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        asyncio.run(write())
    finally:
        over.set()
        thread.join()
    for found in seen:
        generations = {text.split(".")[0] for text in found}
        assert len(generations) <= 1, found
        assert [int(text.split(".")[1]) for text in found] == list(range(len(found)))


def test_concurrent_pops_never_give_the_same_item(loops: Loops) -> None:
    """As many tasks as there are items, and some more: each item once, and nothing for the rest."""
    items = [user(str(i)) for i in range(40)]
    session = LifecycleSession("a", loops.manager)
    loops.run(session.add_items(items))

    async def pops() -> list[Any]:
        return list(await asyncio.gather(*(LifecycleSession("a", loops.manager).pop_item() for _ in range(45))))

    found = loops.run(pops())
    assert sorted(json.dumps(item) for item in found if item) == sorted(json.dumps(item) for item in items)
    assert found.count(None) == 5


def test_concurrent_batches_stay_whole(loops: Loops) -> None:
    """Batches of many tasks, for a session that none of them has made, stand one behind the other, none torn."""

    async def add(number: int) -> None:
        await LifecycleSession("a", loops.manager).add_items([user(f"{number}.{i}") for i in range(5)])

    async def go() -> None:
        await asyncio.gather(*(add(number) for number in range(20)))

    loops.run(go())
    found = [item["content"].split(".") for item in loops.run(LifecycleSession("a", loops.manager).get_items())]
    assert len(found) == 100
    for start in range(0, 100, 5):
        batch = found[start : start + 5]
        assert {number for number, _ in batch} == {batch[0][0]}
        assert [i for _, i in batch] == list("01234")


def test_cancelled_callers_leave_nothing_locked(loops: Loops) -> None:
    """A task cancelled at any moment has done all or nothing when it ends, and the next one goes on at once."""

    async def go() -> None:
        await LifecycleSession("a", loops.manager).add_items([user("first")])
        for spins in range(40):
            session = LifecycleSession("a", loops.manager)
            before = await session.get_items()
            batch = [user(f"{spins}.{i}") for i in range(3)]
            task = asyncio.create_task(session.add_items(batch))
            for _ in range(spins % 20):
                await asyncio.sleep(0)
            task.cancel()
            ended = await asyncio.gather(task, return_exceptions=True)
            after = await session.get_items()
            assert after in (before, before + batch)
            assert isinstance(ended[0], asyncio.CancelledError) or after == before + batch
            async with asyncio.timeout(30):
                await session.add_items([user("next")])
                assert await session.pop_item() == user("next")

    loops.run(go())


def test_an_async_manager_belongs_to_one_loop(migrated_sqlite_url: str) -> None:
    """In another one it is refused, with what to do; what is no manager is refused at once."""
    with looped(migrated_sqlite_url, "async") as loops:
        session = LifecycleSession("a", loops.manager)
        loops.run(session.add_items([user("Hello")]))
        with pytest.raises(LifecycleError, match="give the adapter a SessionManager"):
            asyncio.run(session.get_items())
        with pytest.raises(InvalidArgument, match="must be a SessionManager or an AsyncSessionManager, not str"):
            LifecycleSession("a", migrated_sqlite_url)  # type: ignore[arg-type]


def test_what_expires_is_removed_after_its_retention(migrated_sqlite_url: str) -> None:
    """Nobody comes back: the sweeps expire the conversation and remove it, and the next item begins anew."""
    with SessionManager.open(migrated_sqlite_url) as manager:
        session = LifecycleSession("a", manager, idle_timeout="1h")
        asyncio.run(session.add_items([user("Hello")]))
        past = datetime.now(UTC) - timedelta(days=1)
        backdate(migrated_sqlite_url, t.sessions, expires_at=past)
        assert manager.expire_idle().count == 1
        backdate(migrated_sqlite_url, t.sessions, prune_at=past)
        assert manager.prune_sessions().count == 1
        assert asyncio.run(session.get_items()) == []
        asyncio.run(session.add_items([user("again")]))
        assert asyncio.run(session.get_items()) == [user("again")]


def test_round_trips(migrated_postgres_url: str) -> None:
    """Each call asks PostgreSQL once, but for what removes items, which are a transaction."""
    with CountingProxy(migrated_postgres_url) as proxy, looped(proxy.settings, "async") as loops:
        session = LifecycleSession("a", loops.manager)

        def counted(work: Any) -> int:
            before = proxy.round_trips
            loops.run(work)
            return proxy.round_trips - before

        for _ in range(2):
            loops.run(session.add_items(ITEMS[:2]))
            loops.run(session.get_items())
        assert counted(session.add_items(ITEMS[:2])) == 1
        assert counted(session.get_items()) == 1
        assert counted(session.get_items(1)) == 1
