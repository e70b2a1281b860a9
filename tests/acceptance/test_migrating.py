"""What users of other session stores do, walked through with our names: see docs/migrating.md."""

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lifecycle import InvalidTransition, SessionBusy, SessionManager, Settings
from lifecycle.models import tables as t
from tests.managers import backdate, connected, opened
from tests.valkey import ValkeyServer

TOP = Path(__file__).parents[2]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def ids(page: Any) -> list[str]:
    """The ids on a page, sorted."""
    return sorted(session.session_id for session in page.items)


def test_the_chat_store(manager: Any, migrated_url: str) -> None:
    """Create, search, messages since, end, prune with a dry run, stats."""
    for number, title in enumerate(("Refund for order 17", "Where is my parcel", "A refund again")):
        manager.create_session(session_id=f"chat-{number}", user_id="ada", agent_id="support", title=title)
        manager.add_message(f"chat-{number}", "user", f"{title}?", metadata={"channel": "web"})
        manager.add_message(f"chat-{number}", "assistant", "Let me look", agent_id="support")
    manager.create_session(session_id="other", user_id="bob", title="Refund of mine")

    assert ids(manager.list_sessions(user_id="ada", search="refund")) == ["chat-0", "chat-2"]
    page = manager.list_sessions(user_id="ada", sort="created_at", order="asc", limit=2, count=True)
    assert ([session.session_id for session in page.items], page.total) == (["chat-0", "chat-1"], 3)
    following = manager.list_sessions(user_id="ada", sort="created_at", order="asc", limit=2, cursor=page.next_cursor)
    assert (ids(following), following.has_more) == (["chat-2"], False)

    first, answer = manager.get_messages("chat-0")
    assert [message.role for message in (first, answer)] == ["user", "assistant"]
    manager.add_message("chat-0", "user", "Thanks")
    assert [message.content for message in manager.get_messages("chat-0", after=answer.seq)] == ["Thanks"]
    since = manager.get_messages("chat-0", since=answer.created_at)
    assert since[-1].content == "Thanks"
    assert manager.get_messages("chat-0", since=datetime.now(UTC) + timedelta(hours=1)) == []

    assert manager.end_session("chat-0", reason="solved").state == "ended"
    with pytest.raises(InvalidTransition):
        manager.add_message("chat-0", "user", "One more thing")
    finished = t.sessions.c.ended_at.is_not(None)
    backdate(migrated_url, t.sessions, finished, ended_at=LONG_AGO, prune_at=LONG_AGO)
    would = manager.prune_sessions(dry_run=True)
    assert (would.count, would.dry_run) == (1, True)
    assert manager.get_session("chat-0") is not None
    did = manager.prune_sessions()
    assert (did.count, did.session_ids) == (1, ["chat-0"])
    assert manager.get_session("chat-0") is None
    assert manager.get_messages("chat-1") != []

    stats = manager.get_stats()
    assert (stats.total, stats.by_state["active"], stats.messages) == (3, 3, 4)
    assert stats.by_agent["support"] == 2


def test_the_workflow_store(manager: Any, migrated_url: str) -> None:
    """Create, save, load, suspend, resume, complete, delete; and what is left of others is cleaned up."""
    manager.create_session(session_id="flow", kind="workflow", config={"model": "large"})
    version = manager.save_state(
        "flow",
        conversation=[{"role": "user", "content": "deploy"}],
        context={"cluster": "blue", "replicas": 3},
        phase="plan",
        step=1,
        plan=["build", "deploy", "verify"],
    )
    version = manager.save_state("flow", step=2, phase="build", expected_version=version)
    state = manager.load_state("flow")
    assert (state.phase, state.step, state.version) == ("build", 2, version)
    assert (state.context, state.plan) == ({"cluster": "blue", "replicas": 3}, ["build", "deploy", "verify"])
    assert state.conversation == [{"role": "user", "content": "deploy"}]

    asked = manager.request_approval("flow", "deploy to blue", details={"replicas": 3}, suspend=True)
    assert manager.get_session("flow").state == "suspended"
    assert [one.approval_id for one in manager.list_approvals("flow")] == [asked.approval_id]
    assert manager.resolve_approval("flow", asked.approval_id, approved=True, by="ada").state == "approved"
    assert manager.get_session("flow").state == "active"
    manager.suspend_session("flow", reason="the night")
    assert manager.load_state("flow").step == 2
    manager.resume_session("flow")
    manager.complete_session("flow")
    assert manager.load_state("flow") is None
    assert manager.load_state("flow", any_state=True).step == 2
    assert manager.delete_session("flow")
    assert manager.get_session("flow") is None

    manager.create_session(session_id="left", kind="workflow", context={"a": 1})
    late = manager.request_approval("left", "anything", expires_in="1h")
    manager.open_connection("left", connection_id="socket-1", client={"ip": "10.0.0.7"})
    backdate(migrated_url, t.connections, beat_at=LONG_AGO, silent_at=LONG_AGO)
    backdate(migrated_url, t.approvals, expires_at=LONG_AGO)
    assert manager.reap_connections().count == 1
    assert manager.list_connections("left") == []
    assert manager.expire_approvals().count == 1
    assert [one.approval_id for one in manager.list_approvals("left", state="expired")] == [late.approval_id]
    backdate(migrated_url, t.sessions, expires_at=LONG_AGO)
    assert manager.expire_idle().session_ids == ["left"]
    assert manager.get_session("left").state == "expired"


def test_the_multi_user_agent_store(manager: Any) -> None:
    """The same id of two users' is two sessions; one works on a session at a time, the other waits or fails."""
    ada, bob = manager.for_tenant("ada"), manager.for_tenant("bob")
    for own, name in ((ada, "ada"), (bob, "bob")):
        own.create_session(session_id="main", user_id=name, context={"name": name})
    assert ada.load_state("main").context == {"name": "ada"}
    assert bob.load_state("main").context == {"name": "bob"}
    assert ids(ada.list_sessions()) == ["main"]
    bob.delete_session("main")
    assert ada.get_session("main") is not None

    with ada.lease("main", holder="worker-1", ttl=30, heartbeat=10) as held:
        ada.save_state("main", step=1, lease=held)
        with pytest.raises(SessionBusy) as busy, ada.lease("main", holder="worker-2"):
            pass
        assert busy.value.holder == "worker-1"
        with pytest.raises(SessionBusy), ada.lease("main", holder="worker-2", wait=0.05):
            pass
        with pytest.raises(SessionBusy):
            ada.save_state("main", step=9)

        epochs: list[int] = []

        def wait() -> None:
            with ada.lease("main", holder="worker-2", wait=60) as lease:
                ada.save_state("main", step=2, lease=lease)
                epochs.append(lease.epoch)

        waiting = threading.Thread(target=wait)
        waiting.start()
    waiting.join(60)
    assert epochs == [held.epoch + 1]
    assert ada.load_state("main").step == 2


def test_the_hybrid_store(manager: Any, migrated_url: str) -> None:
    """Checkpoints, sessions whose owner fell silent, with the reason, and removal that can be taken back."""
    manager.create_session(session_id="task", kind="task", context={"progress": 0})
    manager.save_state("task", context={"progress": 40}, step=4)
    mark = manager.checkpoint("task", "before the migration", data={"rows": 1000})
    manager.save_state("task", context={"progress": 90}, step=9)
    assert [(one.seq, one.label) for one in manager.list_checkpoints("task")] == [(mark.seq, "before the migration")]
    manager.restore_checkpoint("task", mark.seq)
    assert (manager.load_state("task").context, manager.load_state("task").step) == ({"progress": 40}, 4)
    assert manager.fork_session("task", checkpoint=mark.seq, new_id="variant").parent_id == "task"

    backdate(migrated_url, t.sessions, last_active_at=LONG_AGO, listed_at=LONG_AGO, updated_at=LONG_AGO)
    manager.touch_session("variant")
    stale = manager.cleanup_stale_sessions("10m", reason="no heartbeat for 10 minutes", dry_run=True)
    assert stale.count == 1
    assert manager.cleanup_stale_sessions("10m", reason="no heartbeat for 10 minutes").session_ids == ["task"]
    failed = manager.get_session("task")
    assert (failed.state, failed.reason) == ("ended", "no heartbeat for 10 minutes")
    assert manager.get_session("variant").state == "active"

    assert manager.delete_session("variant", soft=True)
    assert manager.get_session("variant") is None
    assert manager.undelete_session("variant").state == "active"
    assert manager.load_state("variant").context == {"progress": 40}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_hybrid_stores_cache(kind: str, migrated_postgres_url: str, valkey_server: ValkeyServer) -> None:
    """What is read comes from the cache where it can, a write shows at once, and without the server all goes on."""
    settings = Settings(database={"url": migrated_postgres_url}, cache={"url": valkey_server.url, "timeout": 5})
    with opened(settings, kind) as manager, opened(settings, kind) as other:
        manager.create_session(session_id="task", context={"progress": 0})
        for progress in (40, 90):
            version = manager.save_state("task", context={"progress": progress})
            for reader in (manager, other):
                state = reader.load_state("task")
                assert (state.context, state.version) == ({"progress": progress}, version)
        # Changed behind the cache's back, the row shows that it was the cache that answered.
        with connected(migrated_postgres_url) as connection:
            connection.execute(sa.update(t.session_states).values(context='{"progress": -1}'))
        assert other.load_state("task").context == {"progress": 90}
        manager.delete_session("task")
        assert other.load_state("task") is None
    with opened(
        Settings(database={"url": migrated_postgres_url}, cache={"url": "unix:///none/there"}), kind
    ) as manager:
        manager.create_session(session_id="task", context={"progress": 1})
        assert manager.load_state("task").context == {"progress": 1}


def test_the_disk_store(tmp_path: Path, migrated_sqlite_url: str) -> None:
    """All its functions from another program: scan, sync, show, delete, prune, orphans, what is removed for good."""
    sessions = tmp_path / "root/agents/cook/sessions"
    sessions.mkdir(parents=True)
    now = int(time.time() * 1000)
    long_ago = now - 3 * 60 * 60 * 1000
    entries = {
        "agent:cook:main": {"sessionId": "m", "updatedAt": long_ago},
        "agent:cook:cron:1:run:a": {"sessionId": "a", "updatedAt": long_ago, "label": "night"},
        "agent:cook:cron:1:run:b": {"sessionId": "b", "updatedAt": now},
        "agent:cook:subagent:c": {"sessionId": "c", "updatedAt": long_ago},
    }
    (sessions / "sessions.json").write_text(json.dumps(entries))
    for name in ("m", "a", "b", "c", "orphan"):
        message = {"type": "message", "id": f"{name}1", "message": {"role": "user", "content": f"hello {name}"}}
        header = {"type": "session", "id": name, "timestamp": "2026-01-01T00:00:00Z"}
        transcript = sessions / f"{name}.jsonl"
        transcript.write_text(f"{json.dumps(header)}\n{json.dumps(message)}\n")
        os.utime(transcript, (long_ago / 1000, long_ago / 1000))

    def call(name: str, **arguments: Any) -> Any:
        command = [sys.executable, "-m", "lifecycle.cli", "--url", migrated_sqlite_url, "call", name]
        done = subprocess.run(
            [*command, json.dumps(arguments)], check=False, capture_output=True, text=True, cwd=TOP, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    root = str(tmp_path / "root")
    assert call("directory.scan", root=root)["total"]["sessions"] == 4
    assert call("directory.sync", root=root)["created"] == 5
    listed = {session["session_id"]: session["kind"] for session in call("list_sessions", limit=100)["items"]}
    kept = {"cook:m": "chat", "cook:a": "run", "cook:b": "run", "cook:c": "subagent"}
    assert {name: listed.get(name) for name in kept} == kept
    (said,) = call("get_messages", session_id="cook:a")
    assert said["content"] == "hello a"

    deleted = call("directory.delete", session_id="c", root=root)
    assert deleted == {
        "deleted": "c", "removed_keys": ["agent:cook:subagent:c"], "transcript_archived": True, "database_updated": True,
    }  # fmt: skip
    would = call("directory.prune", max_age="60m", root=root, dry_run=True)
    assert (would["pruned_count"], would["dry_run"]) == (1, True)
    pruned = call("directory.prune", max_age="60m", root=root)
    assert (pruned["deleted_ids"], pruned["kept_count"], pruned["threshold_minutes"]) == (["a"], 2, 60)
    assert set(json.loads((sessions / "sessions.json").read_text())) == {"agent:cook:main", "agent:cook:cron:1:run:b"}
    assert call("get_session", session_id="cook:a")["state"] == "ended"
    call("directory.orphans", root=root, archive=True)
    assert not (sessions / "orphan.jsonl").exists()
    assert len(list(sessions.glob("*.jsonl.deleted.*"))) == 3
    call("directory.retention", root=root, older_than="1s", disk_budget="1KB", dry_run=True)
    assert len(list(sessions.glob("*.jsonl.deleted.*"))) == 3


def test_a_session_of_each_comes_back_after_a_restart(migrated_url: str) -> None:
    """What all of them were for."""
    with SessionManager.open(migrated_url) as before:
        before.open_session("s", kind="chat", user_id="ada", context={"step": 1})
        before.suspend_session("s")
    with SessionManager.open(migrated_url) as after:
        assert after.open_session("s").state == "suspended"
        assert after.resume_session("s").state == "active"
        state = after.load_state("s")
        assert state is not None
        assert state.context == {"step": 1}
