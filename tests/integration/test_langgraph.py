"""LangGraph's saver on a manager: what comes back, who may write, and what becomes of a thread as a session."""

import json
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

pytest.importorskip("langgraph.checkpoint.base", reason="langgraph-checkpoint is not installed")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import create_checkpoint, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from lifecycle import (
    InvalidArgument,
    InvalidTransition,
    LeaseLost,
    SessionBusy,
    SessionManager,
    Settings,
)
from lifecycle.adapters.langgraph import LifecycleSaver
from lifecycle.archive.restoring import restore
from lifecycle.archive.store import Archive
from lifecycle.graphs import items_of
from lifecycle.models import tables as t
from lifecycle.recipes.portable import graphs as portable_graphs
from lifecycle.transfer.exporting import export_sessions
from lifecycle.transfer.importing import import_sessions
from tests.managers import backdate, connected

GRAPH = (t.graph_checkpoints, t.graph_values)


def config_of(thread_id: str, **more: Any) -> Any:
    """A config that names a thread."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **more}}


def checkpoint_of(step: int, **values: Any) -> Any:
    """A checkpoint with values, all of this step's version."""
    checkpoint = create_checkpoint(empty_checkpoint(), None, step)
    return {**checkpoint, "channel_values": values, "channel_versions": dict.fromkeys(values, step)}


def put(saver: Any, config: Any, step: int, **values: Any) -> Any:
    """Put one behind the config's."""
    return saver.put(
        config, checkpoint_of(step, **values), {"source": "loop", "step": step}, dict.fromkeys(values, step)
    )


def values_at(saver: Any, config: Any) -> Any:
    """The values of a checkpoint."""
    return saver.get_tuple(config).checkpoint["channel_values"]


def counts(url: str, thread_id: str | None = None) -> list[int]:
    """How many checkpoints are stored, how many items of lists, and how many large values."""
    with connected(url) as connection:
        checkpoints, values = (
            connection.execute(
                sa.select(table).where(sa.true() if thread_id is None else table.c.session_id == thread_id)
            ).all()
            for table in GRAPH
        )
    assert all(row.body or row.writes or row.new_items for row in checkpoints)
    there = [row for row in checkpoints if row.body or row.writes]
    return [len(there), sum(len(items_of(row.new_items)) for row in checkpoints), len(values)]


@pytest.fixture
def manager(migrated_url: str) -> Iterator[SessionManager]:
    """A manager on a database of each kind."""
    with SessionManager.open(migrated_url) as opened:
        yield opened


def texts(count: int, size: int = 600) -> list[str]:
    """Texts unlike all others."""
    return [f"{i}:{secrets.token_urlsafe(size)}" for i in range(count)]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.binary(max_size=8)
    | st.sampled_from(["x" * 300, "é" * 700, "\x00" * 400, b"\xff" * 5000, "", b""]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
    | st.builds(HumanMessage, st.text("ab\x00é", max_size=400)) | st.builds(_DeltaSnapshot, st.lists(inner, max_size=3)),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(PLAIN, max_size=12), after=st.lists(PLAIN, max_size=12), other=PLAIN, cold=st.booleans())
def test_what_comes_back_is_what_their_saver_gives(
    migrated_sqlite_url: str, before: list[Any], after: list[Any], other: Any, cold: bool
) -> None:
    """Any values, a list that grows into another one, whether the process has seen the last checkpoint or not."""
    with SessionManager.open(migrated_sqlite_url) as manager:
        thread_id = secrets.token_hex(8)
        theirs, ours = InMemorySaver(), LifecycleSaver(manager)
        configs = []
        for saver in (theirs, ours):
            config = put(saver, config_of(thread_id), 1, many=before, other=other)
            saver.put_writes(config, [("many", after), ("other", other)], "task", "path")
            fresh = LifecycleSaver(manager) if cold and saver is ours else saver
            last = put(fresh, config, 2, many=[*before, *after], other=other)
            last = put(fresh, last, 3, many=after, other=None)
            configs.append((config, last, fresh))
        (first, last, _), (our_first, our_last, ours_again) = configs
        for their_config, our_config in ((first, our_first), (last, our_last)):
            their, our = theirs.get_tuple(their_config), ours_again.get_tuple(our_config)
            assert their is not None
            assert our is not None
            assert repr(our.checkpoint["channel_values"]) == repr(their.checkpoint["channel_values"])
            assert repr(our.pending_writes) == repr(their.pending_writes)


def test_large_values_on_every_database(manager: SessionManager) -> None:
    """Texts and bytes of a megabyte, a thousand messages, nothing at all."""
    saver = LifecycleSaver(manager)
    values: dict[str, Any] = {
        "text": "é\x00" * 400_000, "bytes": secrets.token_bytes(1_000_000), "none": None, "empty": [],
        "messages": [HumanMessage(text) for text in texts(1000, 300)], "small": list(range(3000)),
    }  # fmt: skip
    config = put(saver, config_of("t"), 1, **values)
    assert values_at(LifecycleSaver(manager), config) == values
    values["messages"] = [*values["messages"][5:], HumanMessage("more " * 100)]
    values["small"] = [*values["small"], "more"]
    config = put(saver, config, 2, **values)
    assert values_at(LifecycleSaver(manager), config) == values


def test_a_list_costs_what_is_added(manager: SessionManager, migrated_url: str) -> None:
    """It grows, loses its beginning, is edited in the middle and turned around: what is the same is not stored again."""
    saver = LifecycleSaver(manager)
    many = texts(20)
    configs = [put(saver, config_of("t"), 1, many=many)]
    lists = [many, [*many, *texts(1)], many[5:], [*many[:3], "edited " * 50, *many[4:]], many[::-1], many + many]
    new = [20, 1, 0, 1, 0, 20]
    for step, (wanted, added) in enumerate(zip(lists[1:], new[1:], strict=True), 2):
        before = counts(migrated_url)[1]
        base = configs[0] if step > 3 else configs[-1]
        saver.get_tuple(base)
        configs.append(put(saver, base, step, many=wanted))
        assert counts(migrated_url)[1] - before == added
    assert [values_at(LifecycleSaver(manager), config)["many"] for config in configs] == lists


class _Reversing(CipherProtocol):
    """A cipher for tests."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        """Turn around."""
        return "reversing", plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """Turn back."""
        assert ciphername == "reversing"
        return ciphertext[::-1]


class Own:
    """What msgpack does not know."""

    def __eq__(self, other: object) -> bool:
        """All are the same."""
        return isinstance(other, Own)

    def __hash__(self) -> int:
        """As all are."""
        return 1


@pytest.mark.parametrize(
    "serde", [EncryptedSerializer(_Reversing()), JsonPlusSerializer(pickle_fallback=True)], ids=["encrypted", "pickle"]
)
def test_other_serializers(migrated_url: str, serde: Any) -> None:
    """What cannot be looked into is stored whole, and comes back."""
    with SessionManager.open(migrated_url) as manager:
        saver = LifecycleSaver(manager, serde=serde)
        values: dict[str, Any] = {"many": [HumanMessage("secret " * 100)] * 3, "text": "secret " * 100}
        if isinstance(serde, JsonPlusSerializer):
            values["own"] = [(1, 2), Own()]
        config = put(saver, config_of("t"), 1, **values)
        saver.put_writes(config, [("text", "secret")], "task")
        found = LifecycleSaver(manager, serde=serde).get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == values
        assert found.pending_writes == [("task", "text", "secret")]


def test_writes_may_come_first(manager: SessionManager) -> None:
    """LangGraph stores in the background: a task's writes may be there before their checkpoint."""
    saver = LifecycleSaver(manager)
    checkpoint = checkpoint_of(1, a="x" * 500)
    config = config_of("t", checkpoint_id=checkpoint["id"])
    saver.put_writes(config, [("a", "y" * 500)], "task")
    assert saver.get_tuple(config_of("t")) is None
    assert list(saver.list(config_of("t"))) == []
    saver.put(config_of("t"), checkpoint, {"step": 1}, {"a": 1})
    found = saver.get_tuple(config_of("t"))
    assert found is not None
    assert found.pending_writes == [("task", "a", "y" * 500)]


def test_namespaces_of_any_depth(manager: SessionManager) -> None:
    """A subgraph's in a subgraph's and so on, as long as they get."""
    saver = LifecycleSaver(manager)
    names = ["", "a:1", "|".join(f"node:{secrets.token_hex(16)}" for _ in range(20)), "x" * 200, "x" * 201]
    for name in names:
        config = put(saver, {"configurable": {"thread_id": "t", "checkpoint_ns": name}}, 1, a=name)
        assert config["configurable"]["checkpoint_ns"] == name
        put(saver, config, 2, a=name)
        found = LifecycleSaver(manager).get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": name}})
        assert found is not None
        assert (found.checkpoint["channel_values"], found.parent_config) == ({"a": name}, config)
        assert found.config["configurable"]["checkpoint_ns"] == name
        assert len(list(saver.list(found.config))) == 1
        assert len(list(saver.list({"configurable": {"thread_id": "t", "checkpoint_ns": name}}))) == 2
    saver.prune(["t"])
    found_again = list(saver.list({"configurable": {"thread_id": "t"}}))
    assert sorted(one.config["configurable"]["checkpoint_ns"] for one in found_again) == sorted(names)
    for wrong in ("a\x1fb", "a\x1eb", "\x1d"):
        with pytest.raises(InvalidArgument, match="checkpoint_ns"):
            put(saver, {"configurable": {"thread_id": "t", "checkpoint_ns": wrong}}, 1, a=1)


def test_a_checkpoint_that_was_removed_is_not_built_on(manager: SessionManager, migrated_url: str) -> None:
    """A put behind a checkpoint that another process removed brings all that it needs."""
    saver, other = LifecycleSaver(manager), LifecycleSaver(manager)
    many, large = texts(10), "large " * 500
    config = put(saver, config_of("t"), 1, many=many, large=large)
    other.prune(["t"], strategy="delete")
    assert counts(migrated_url) == [0, 0, 0]
    checkpoint: Any = {
        **checkpoint_of(2, many=[*many, "more"], large=large),
        "channel_versions": {"many": 2, "large": 1},
    }
    config = saver.put(config, checkpoint, {"step": 2}, {"many": 2})
    assert values_at(LifecycleSaver(manager), config) == {"many": [*many, "more"], "large": large}
    # The thread was removed and made anew, too.
    manager.delete_session("t")
    checkpoint = {**checkpoint_of(3, many=many), "channel_versions": {"many": 2}}
    config = saver.put(config, checkpoint, {"step": 3}, {})
    assert values_at(LifecycleSaver(manager), config) == {"many": many}


def test_a_checkpoint_that_was_put_again_is_not_built_on(manager: SessionManager) -> None:
    """What it said before may be gone though it is there."""
    saver, other = LifecycleSaver(manager), LifecycleSaver(manager)
    many = texts(5)
    checkpoint = checkpoint_of(1, many=many)
    config = saver.put(config_of("t"), checkpoint, {"step": 1}, {"many": 1})
    again: Any = {**checkpoint, "channel_values": {"many": texts(3)}}
    other.put(config_of("t"), again, {"step": 1}, {"many": 1})
    put(other, config_of("t", run_id="r"), 0, many=[])
    other.delete_for_runs(["r"])
    config = put(saver, config, 2, many=[*many, "more"])
    assert values_at(LifecycleSaver(manager), config) == {"many": [*many, "more"]}


def test_a_list_for_which_a_row_has_no_room(
    manager: SessionManager, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its elements stand in several rows, where a database takes so much and no more."""
    monkeypatch.setattr(portable_graphs, "_MOST_CHARS", 500)
    saver = LifecycleSaver(manager)
    many = texts(30)
    first = put(saver, config_of("t"), 1, many=many)
    second = put(saver, first, 2, many=[*many, *texts(20)])
    assert values_at(LifecycleSaver(manager), first) == {"many": many}
    assert len(list(saver.list(config_of("t")))) == 2
    assert counts(migrated_url)[:2] == [2, 50]
    last = put(saver, second, 3, many=many[10:])
    saver.prune(["t"])
    assert values_at(LifecycleSaver(manager), last) == {"many": many[10:]}
    assert counts(migrated_url)[:2] == [1, 20]


def test_a_removed_checkpoint_leaves_what_others_share(manager: SessionManager, migrated_url: str) -> None:
    """It is gone for all; written to and put again, it does what a new one does, and the others stay whole."""
    saver = LifecycleSaver(manager)
    many = texts(4)
    checkpoint = checkpoint_of(1, many=many)
    one = config_of("t", run_id="one")
    first = saver.put(one, checkpoint, {"step": 1}, {"many": 1})
    second = put(saver, first, 2, many=[*many, "more " * 100])
    saver.delete_for_runs(["one"])
    saver.delete_for_runs(["one"])
    assert counts(migrated_url) == [1, 5, 5]
    assert saver.get_tuple(first) is None
    assert [found.config for found in saver.list(config_of("t"))] == [second]
    saver.put_writes(first, [("many", "written")], "task")
    assert saver.get_tuple(first) is None
    again: Any = {**checkpoint, "channel_values": {"many": texts(3)}}
    saver.put(one, again, {"step": 1}, {"many": 1})
    found = LifecycleSaver(manager).get_tuple(first)
    assert found is not None
    assert found.checkpoint["channel_values"] == again["channel_values"]
    assert found.pending_writes == [("task", "many", "written")]
    assert values_at(LifecycleSaver(manager), second) == {"many": [*many, "more " * 100]}
    saver.delete_for_runs(["one"])
    assert counts(migrated_url) == [1, 5, 5]
    assert values_at(LifecycleSaver(manager), second) == {"many": [*many, "more " * 100]}
    saver.copy_thread("t", "copied")
    assert values_at(
        LifecycleSaver(manager), {**second, "configurable": {**second["configurable"], "thread_id": "copied"}}
    ) == {"many": [*many, "more " * 100]}
    saver.prune(["t", "copied"], strategy="delete")
    assert counts(migrated_url) == [0, 0, 0]


def test_what_no_checkpoint_needs_is_removed(manager: SessionManager, migrated_url: str) -> None:
    """By `delete_for_runs` and `prune`; what is left is whole."""
    saver = LifecycleSaver(manager)
    many = texts(6)
    first = put(saver, config_of("t", run_id="one"), 1, many=many[:3], large="first " * 500)
    second = put(
        saver, {"configurable": {**first["configurable"], "run_id": "two"}}, 2, many=many[1:], large="second " * 500
    )
    saver.put_writes(second, [("large", "written " * 500)], "task")
    before = counts(migrated_url)
    saver.delete_for_runs(["one", "unknown"])
    after = counts(migrated_url)
    assert saver.get_tuple(first) is None
    assert [a - b for a, b in zip(after, before, strict=True)] == [-1, -1, -2]
    found = LifecycleSaver(manager).get_tuple(second)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"many": many[1:], "large": "second " * 500}
    assert found.pending_writes == [("task", "large", "written " * 500)]
    third = put(saver, second, 3, many=many[4:])
    saver.prune(["t"])
    assert values_at(LifecycleSaver(manager), third) == {"many": many[4:]}
    assert counts(migrated_url) == [1, 2, 2]


def test_pruning_keeps_what_delta_channels_are_rebuilt_from(manager: SessionManager) -> None:
    """Back to the nearest stored value, and no further; the history is what LangGraph's own way of walking gives."""
    saver = LifecycleSaver(manager)
    config = config_of("t")
    for step in range(1, 7):
        values = {"delta": _DeltaSnapshot([f"all up to {step}"])} if step in {1, 3} else {}
        checkpoint: Any = {**checkpoint_of(step, **values), "channel_versions": {"delta": step}}
        counters = {"delta": (step, step)}
        config = saver.put(
            config, checkpoint, {"step": step, "counters_since_delta_snapshot": counters}, {"delta": step}
        )
        for task in ("b", "a"):
            saver.put_writes(config, [("delta", f"{task} {step}"), ("other", 1)], f"{task}{step}", f"path {task}")
    latest = saver.get_tuple(config_of("t"))
    assert latest is not None
    history = saver.get_delta_channel_history(config=config_of("t"), channels=["delta", "none"])
    assert history["delta"]["seed"] == _DeltaSnapshot(["all up to 3"])
    assert [value for *_, value in history["delta"]["writes"]] == [
        f"{task} {step}" for step in (3, 4, 5) for task in "ab"
    ]
    assert history["none"] == {"writes": []}
    walked = super(LifecycleSaver, saver).get_delta_channel_history(config=config_of("t"), channels=["delta", "none"])
    assert history == walked
    saver.prune(["t"])
    assert [found.metadata["step"] for found in saver.list(config_of("t"))] == [6, 5, 4, 3]
    again = LifecycleSaver(manager).get_delta_channel_history(config=config_of("t"), channels=["delta"])
    assert again["delta"] == history["delta"]


def test_a_copy_goes_on_by_itself(manager: SessionManager) -> None:
    """A copied thread has all, shares nothing, and takes the next checkpoint; one with checkpoints takes no copy."""
    saver = LifecycleSaver(manager)
    many = texts(5)
    config = put(saver, config_of("a"), 1, many=many)
    saver.put_writes(config, [("many", many)], "task")
    saver.copy_thread("a", "b")
    saver.delete_thread("a")
    copied = saver.get_tuple(config_of("b"))
    assert copied is not None
    assert copied.pending_writes == [("task", "many", many)]
    last = put(saver, copied.config, 2, many=[*many, "more " * 100])
    assert values_at(LifecycleSaver(manager), last) == {"many": [*many, "more " * 100]}
    put(saver, config_of("c"), 1, many=many)
    with pytest.raises(InvalidArgument, match="has checkpoints of its own"):
        saver.copy_thread("b", "c")


def test_a_thread_is_a_session(manager: SessionManager, migrated_url: str) -> None:
    """It is made with the given values, reopened when it has expired, refuses once it is over, and goes as a whole."""
    saver = LifecycleSaver(manager, kind="chat", user_id="ada")
    config = put(saver, config_of("t"), 1, many=texts(3))
    session = manager.get_session("t")
    assert session is not None
    assert (session.kind, session.user_id, session.state) == ("chat", "ada", "active")
    manager.expire_session("t")
    with pytest.raises(InvalidTransition):
        put(LifecycleSaver(manager, reopen=False), config, 2, many=[])
    config = put(saver, config, 2, many=texts(3))
    manager.complete_session("t")
    with pytest.raises(InvalidTransition):
        put(saver, config, 3, many=[])
    with pytest.raises(InvalidTransition):
        saver.put_writes(config, [("many", [])], "task")
    assert saver.get_tuple(config) is not None
    manager.delete_session("t", soft=True)
    assert saver.get_tuple(config) is None
    manager.undelete_session("t")
    backdate(migrated_url, t.sessions, prune_at=sa.func.coalesce(t.sessions.c.created_at, None))
    assert manager.prune_sessions().count == 1
    assert counts(migrated_url) == [0, 0, 0]


def test_tenants_do_not_meet(manager: SessionManager) -> None:
    """A thread of one tenant is nothing to another, nor are its runs."""
    ours, theirs = LifecycleSaver(manager.for_tenant("a")), LifecycleSaver(manager.for_tenant("b"))
    config = put(ours, config_of("t", run_id="r"), 1, a=1)
    assert theirs.get_tuple(config) is None
    assert list(theirs.list(None)) == []
    theirs.delete_for_runs(["r"])
    assert [found.config for found in ours.list(None)] == [config]


def test_only_the_holder_writes(manager: SessionManager) -> None:
    """Fenced: under the live lease only. Going on from an older checkpoint stays possible under it."""
    saver = LifecycleSaver(manager, fenced=True)
    manager.create_session(session_id="t")
    with pytest.raises(InvalidArgument, match="fenced"):
        put(saver, config_of("t"), 1, a=1)
    with manager.lease("t", ttl=60) as lease:
        first = put(saver, config_of("t", lease=lease), 1, a=texts(2))
        held = {"configurable": {**first["configurable"], "lease": lease}}
        put(saver, held, 2, a=texts(2))
        fork = put(saver, held, 3, a=texts(2))
        assert saver.get_tuple(fork) is not None
        with pytest.raises(SessionBusy):
            put(LifecycleSaver(manager), first, 4, a=1)
        with pytest.raises(SessionBusy):
            LifecycleSaver(manager).put_writes(first, [("a", 1)], "task")
        LifecycleSaver(manager, lease=lease, fenced=True).put_writes(first, [("a", 1)], "task")
    with manager.lease("t", ttl=60), pytest.raises(LeaseLost):
        put(saver, held, 5, a=1)
    assert [found.metadata["step"] for found in saver.list(config_of("t"))] == [3, 2, 1]


def test_checkpoints_go_with_an_export(migrated_url: str, sqlite_url: str, tmp_path: Path) -> None:
    """Out of any database and into another: the saver finds all as it was."""
    file, copy = str(tmp_path / "sessions.jsonl"), sqlite_url + ".copy"
    with SessionManager.open(migrated_url) as manager:
        many = texts(4)
        config = put(LifecycleSaver(manager), config_of("t"), 1, many=many, raw=secrets.token_bytes(900))
        LifecycleSaver(manager).put_writes(config, [("many", many)], "task")
        before = LifecycleSaver(manager).get_tuple(config)
    export_sessions(migrated_url, file)
    with SessionManager.open(copy) as manager:
        manager.setup()
        import_sessions(copy, file)
        assert LifecycleSaver(manager).get_tuple(config) == before
    kinds = {next(iter(json.loads(line))) for line in Path(file).read_text().splitlines()}
    assert kinds >= {table.name for table in GRAPH}


def test_checkpoints_come_back_from_the_archive(migrated_url: str, tmp_path: Path) -> None:
    """A thread that is deleted is archived with all it owns."""
    archived = Settings(database={"url": migrated_url}, archive={"directory": str(tmp_path / "archive")})
    with SessionManager.open(archived) as manager:
        saver = LifecycleSaver(manager)
        config = put(saver, config_of("t"), 1, many=texts(4))
        before = saver.get_tuple(config)
        saver.delete_thread("t")
        assert saver.get_tuple(config) is None
        policies = manager.settings.policy_set
    assert counts(migrated_url) == [0, 0, 0]
    archive = Archive(tmp_path / "archive")
    restore(migrated_url, archive, archive.find("", "t"), policies)
    with SessionManager.open(archived) as manager:
        assert LifecycleSaver(manager).get_tuple(config) == before


def test_pruning_beside_a_thread_that_goes_on(shared_url: str) -> None:
    """One process prunes, another puts behind what it knows: every checkpoint that is read is whole."""
    with SessionManager.open(shared_url) as manager, SessionManager.open(shared_url) as other:
        saver, many = LifecycleSaver(manager), texts(3)
        config = put(saver, config_of("t"), 1, many=many)

        def prune() -> None:
            pruner = LifecycleSaver(other)
            for count in range(20):
                pruner.prune(["t"], strategy="keep_latest" if count % 3 else "delete")
                found = pruner.get_tuple(config_of("t"))
                assert found is None or found.checkpoint["channel_values"]["many"][:3] == many[:3]

        with ThreadPoolExecutor(1) as threads:
            pruned = threads.submit(prune)
            step = 1
            while not pruned.done():
                step += 1
                many = [*many, *texts(1)]
                config = put(saver, config, step, many=many)
                saver.put_writes(config, [("many", many[-1:])], "task")
            pruned.result()
        config = put(saver, config, step + 1, many=many)
        assert values_at(LifecycleSaver(other), config) == {"many": many}
