"""Every statement that is sent on Citus, with its class: none that Citus refuses, and none that docs/statements.md lacks.

    LIFECYCLE_WRITE_STATEMENTS=1 pytest tests/integration/test_citus_statements.py

writes the list anew; what changed in it is for a person to look at.
"""

import os
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lifecycle import ALL, SessionManager, Settings
from lifecycle.graphs import bounds, place
from lifecycle.models import tables as t
from lifecycle.operations import attempts, graphs
from lifecycle.operations.importing import create_sessions
from lifecycle.recipes import book
from lifecycle.recipes.statement import Statement
from tests import citus
from tests.managers import backdate
from tests.statements import classify, shown, written

LIST = Path(__file__).resolve().parents[2] / "docs" / "statements.md"
VARIABLE = "LIFECYCLE_WRITE_STATEMENTS"
PAST = datetime.now(UTC) - timedelta(days=400)

HEAD = """# The statements that are sent on Citus

Written by `LIFECYCLE_WRITE_STATEMENTS=1 pytest tests/integration/test_citus_statements.py`, which otherwise fails where
this list is not what is sent. Each statement once, under the requests (`lifecycle/operations/requests`) it serves.

| class | what it is |
|---|---|
| router | every part names one session by tenant and id: one node does it |
| read | a plain SELECT of all nodes: no locks, nothing recursive, tables met on the session's id only |
| write | a plain UPDATE or DELETE by a list of keys or a condition on the table itself, or an INSERT of a list |
| copy | an INSERT of what one session has into another, through the coordinator |
| coordinator | of tables that are on the coordinator alone, or of none |
| upkeep | no query |
"""


def run(manager: Any, operation: Any, *arguments: Any, **options: Any) -> Any:
    """Run an operation that has no method."""
    return manager._driver.run(operation(manager._context, *arguments, **options))


def everything(url: str, directory: Path) -> None:
    """Call every method in the ways that make statements of their own."""
    policies: dict[str, Any] = {"kinds": {"thin": {"checkpoints": {"keep_last": 1, "keep_every": "1h"}}}}
    settings = Settings(database={"url": url}, archive={"directory": str(directory)}, policies=policies)
    with SessionManager.open(url) as manager, SessionManager.open(url, ALL) as everybody:
        of_sessions(manager)
        of_states(manager)
        of_people(manager)
        of_leases(manager, everybody, url)
        of_graphs(manager)
        for each in (manager, everybody):
            of_lists(each)
            of_the_worker(each)
    with SessionManager.open(settings) as manager:
        of_states(manager, kind="thin")
    for opened in (settings, url):
        with SessionManager.open(opened) as manager, SessionManager.open(opened, ALL) as everybody:
            for each in (everybody, manager):
                of_sweeps(each, manager, url)


def of_sessions(manager: Any) -> None:
    """Sessions, their transitions and their messages."""
    manager.create_session(
        session_id="a", title="A title", metadata={"x": 1}, context={"a": 1}, conversation=[{"b": 1}]
    )
    manager.open_session("a")
    manager.open_session("b", kind="chat", user_id="u")
    manager.update_session("b", title="Other", idle_timeout="1h")
    manager.touch_session("a")
    manager.touch_session(["a", "b"])
    for trigger in ("suspend", "resume", "complete"):
        getattr(manager, f"{trigger}_session")("b", reason="r", actor="me", expected_version=None)
    manager.expire_session("a", expected_version=manager.get_session("a").version)
    manager.reopen_session("a")
    manager.create_session(session_id="e")
    manager.end_session("e")
    manager.history("a")
    manager.add_message("a", "user", "one", message_id="m")
    manager.add_messages("a", [{"role": "user", "content": f"more {i}"} for i in range(3)])
    manager.add_message("a", "user", "one", message_id="m")
    for which in ({}, {"since": PAST}, {"after": 1}, {"before": 3}, {"after": 1, "before": 9}):
        manager.get_messages("a", **which)
    manager.pop_message("a")
    manager.delete_message("a", "m")
    manager.delete_session("a", soft=True)
    manager.get_session("a")
    manager.undelete_session("a")
    manager.create_session(session_id="child", parent_id="a")
    manager.cleanup_after_delegation("child")
    manager.delete_session("b")
    manager.delete_user("u")
    run(manager, create_sessions, [({"session_id": "i"}, [{"role": "user", "content": "x", "message_id": "1"}])])


def of_states(manager: Any, kind: str = "chat") -> None:
    """Saved states and checkpoints."""
    name = f"state {kind}"
    manager.create_session(session_id=name, kind=kind)
    manager.save_state(name, context={"a": 1}, plan=["p"], conversation=[{"m": 1}], phase="p", step=1)
    manager.save_state(name, append=[{"m": 2}], token="t", expected_version=2)
    manager.save_state(name, append=[{"m": 2}], token="t", expected_version=2)
    manager.save_state(name, conversation=[{"m": 1}, {"m": 2}, {"m": 3}], context={"a": "x" * 20_000})
    manager.save_state(name, conversation=[{"m": 3}], context={"a": "x" * 20_000, "b": "y" * 20_000})
    manager.load_state(name)
    manager.load_state(name, any_state=True)
    saves = [{"session_id": name, "step": 2, "token": f"many {step}"} for step in range(2)]
    manager.save_many(
        [*saves, saves[0], {"session_id": name, "conversation": [{"m": 3}, {"m": 4}]}, {"session_id": "none"}]
    )
    manager.add_messages_many([{"session_id": name, "messages": [{"role": "user", "content": "one of many"}]}])
    manager.touch_many([name, "none"])
    first = manager.checkpoint(name, "first", {"d": 1})
    manager.save_state(name, append=[{"m": 4}], context={"c": 1})
    for number in range(2):
        manager.checkpoint(name, f"{number}")
    last = manager.checkpoint(name, "last")
    manager.list_checkpoints(name)
    manager.get_checkpoint(name, last.seq)
    manager.restore_checkpoint(name, (first if kind == "chat" else last).seq)
    manager.add_message(name, "user", "said")
    manager.fork_session(name, new_id=f"fork {kind}")
    manager.fork_session(name, checkpoint=last.seq, new_id=f"other {kind}")


def of_people(manager: Any) -> None:
    """Approvals, connections, keys and what the API noted."""
    manager.create_session(session_id="p")
    one = manager.request_approval("p", "act")
    manager.resolve_approval("p", one.approval_id, approved=True, by="me")
    manager.request_approval("p", "act", expires_in="1h")
    for which in ({}, {"session_id": "p"}, {"state": "pending"}):
        manager.list_approvals(**which)
    opened = manager.open_connection("p", client={"c": 1})
    manager.beat_connection("p", opened.connection_id)
    manager.list_connections()
    manager.list_connections("p")
    manager.close_connection("p", opened.connection_id)
    manager.any_key()
    key = manager.create_key("name", scope="read")
    manager.verify_key(key.key)
    manager.list_keys()
    manager.get_key(key.key_id)
    manager.revoke_key(key.key_id)
    manager.share_secret("s")
    row = run(manager, attempts.claim_attempt, "", "c", "k", "d", repeatable=True)
    run(manager, attempts.claim_attempt, "", "c", "k", "d", repeatable=True)
    run(manager, attempts.answer_attempt, row, 200, "{}", "{}")
    run(manager, attempts.drop_attempt, run(manager, attempts.claim_attempt, "", "c", "2", "d", repeatable=True))


def of_leases(manager: Any, everybody: Any, url: str) -> None:
    """Leases, what is written under them, and claims."""
    manager.create_session(session_id="l", available_at=PAST)
    epoch = manager.acquire_lease("l", holder="h", ttl=30)
    manager.renew_leases([("", "l", epoch, 30.0)], holder="h")
    with manager.lease("p", holder="own") as lease:
        manager.save_state("p", step=1, lease=lease)
        manager.add_message("p", "user", "held", lease=lease)
    manager.release_lease("l", holder="h", epoch=epoch)
    everybody.beat_worker("w1", host="h", pid=1, release="r")
    for each in (manager, everybody):
        (claimed,) = each.claim_sessions(["chat"], holder="w2", ttl=30)
        manager.hand_back("l", holder="w2", epoch=claimed.lease_epoch, retry_in=0, forget=True)
        (claimed,) = each.claim_sessions(["chat", "cron"], holder="w2", ttl=30)
        backdate(url, t.sessions, t.sessions.c.session_id == "l", lease_expires_at=PAST)
        (claimed,) = each.claim_sessions(["chat"], holder="w1", ttl=30)
        manager.hand_back("l", holder="w1", epoch=claimed.lease_epoch, retry_in=0)


def of_lists(manager: Any) -> None:
    """Lists, numbers, watches."""
    manager.list_sessions()
    manager.list_sessions(limit=1, cursor=manager.list_sessions(limit=1).next_cursor)
    for sort in ("created_at", "last_active_at", "title", "session_id"):
        manager.list_sessions(sort=sort, order="asc")
    manager.list_sessions(user_id="u", agent_id="a", kind="chat", state="active", parent_id="p", since=PAST, until=PAST)
    manager.list_sessions(metadata={"x": 1}, count=True)
    manager.list_sessions(search="ti", count=True)
    manager.list_sessions(search="title", search_messages=True)
    manager.list_sessions(where=t.sessions.c.step > 0, count=True)
    manager.get_active_sessions()
    manager.get_stats()
    manager.get_counts()
    manager.get_samples()
    manager.get_health()
    manager.list_stuck()
    manager.recent_transitions()
    if manager._context.tenant_or_all is not None:
        manager.recent_transitions(session_id="a")
    for after in (None, ""):
        with manager.watch(after, timeout=0, batch=2) as watch:
            list(watch)


def of_the_worker(manager: Any) -> None:
    """What the daemon asks, samples among it."""
    manager.beat_worker("w", host="h", pid=1, release="r")
    manager.beat_worker("w", host="h", pid=1, release="r")
    manager.list_workers()
    term = manager.take_job("j", holder="w", ttl=30)
    manager.end_job("j", holder="w", term=term, result='{"n": 1}')
    manager.remove_worker("w")
    for _ in range(2):
        manager.take_sample()
    manager.apply_policies(dry_run=True)


def of_sweeps(manager: Any, own: Any, url: str) -> None:
    """Every sweep with something to do, as a dry run first."""
    sweeps: dict[str, dict[str, Any]] = {
        "expire_idle": {"expires_at": PAST},
        "cleanup_stale_sessions": {"last_active_at": PAST, "listed_at": PAST},
        "delete_ghosts": {"ghost_at": PAST},
        "prune_sessions": {"prune_at": PAST},
    }
    for name, moved in sweeps.items():
        made = own.create_session().session_id
        if name == "prune_sessions":
            own.end_session(made)
        backdate(url, t.sessions, t.sessions.c.session_id == made, **moved)
        sweep = getattr(manager, name)
        arguments = ("30d",) if name == "cleanup_stale_sessions" else ()
        assert sweep(*arguments, dry_run=True).count >= 1
        assert sweep(*arguments).count >= 1
    of_old(manager, own, url)


def of_old(manager: Any, own: Any, url: str) -> None:
    """The sweeps of what belongs to sessions, pruning by age, and what is kept for a while only."""
    kept = own.create_session().session_id
    own.request_approval(kept, "act", expires_in="1h")
    backdate(url, t.approvals, expires_at=PAST)
    own.open_connection(kept)
    backdate(url, t.connections, beat_at=PAST, silent_at=PAST)
    version = own.save_state(kept, step=1, token="t")
    own.together(
        [
            ("expect_session", {"session_id": kept, "version": version, "phase": None}),
            ("save_state", {"session_id": kept, "step": 2, "append": ["x"]}),
            ("add_message", {"session_id": kept, "role": "user", "content": "hello"}),
        ]
    )
    own.together([("get_session", {"session_id": kept}), ("load_state", {"session_id": kept})])
    own.clear_messages(kept)
    for table in (t.tokens, t.transitions, t.idempotency_keys):
        backdate(url, table, created_at=PAST)
    backdate(url, t.samples, sampled_at=PAST)
    manager.expire_approvals()
    manager.reap_connections()
    manager.prune_sessions(older_than="900d", states=["completed"])
    manager.prune_sessions(older_than="900d", states=["active", "ended"], kind="none")
    manager.expire_idle(kind="none", where=t.sessions.c.step > 3)
    manager.trim()
    backdate(url, t.sessions, idle_active=7)
    manager.apply_policies()


def of_graphs(manager: Any) -> None:
    """Checkpoints of graphs: put, read, listed, copied, removed."""
    for name in ("graph", "copy"):
        manager.create_session(session_id=name)
    first = place("", "1")
    given: dict[str, Any] = {
        "body": "AAAA",
        "items": [" AAAA\n"] * 2,
        "values": [("v", None, "AAAA"), ("w", None, "AAAA")],
    }
    run(manager, graphs.put_graph_checkpoint, "graph", first, needs='[[-1,-2],"v","w"]', run_id="r", **given)
    given |= {"items": [], "values": []}
    run(
        manager,
        graphs.put_graph_checkpoint,
        "graph",
        place("", "2"),
        needs="[[2,2]]",
        parent=(first, '[[-1,-2],"v","w"]', 2),
        **given,
    )
    for one in (first, place("", "3")):
        run(manager, graphs.put_graph_writes, "graph", one, line="v AAAA\n", values=[("v", None, "AAAA")])
    assert run(manager, graphs.read_graph, "graph", "", None) is not None
    assert run(manager, graphs.read_graph, "graph", "", first) is not None
    assert len(run(manager, graphs.read_graph_rows, "graph", [first, place("", "2")])[0]) == 2
    since, until = bounds("")
    for options in (
        {},
        {"session_id": "graph"},
        {"session_id": "graph", "since": since, "until": until},
        {"run_ids": ["r"]},
    ):
        assert run(manager, graphs.list_graph_places, **options)
    assert run(manager, graphs.copy_graph, "graph", "copy") == 3
    assert run(manager, graphs.remove_graph_checkpoints, "graph", [first]) == 1


def test_each_statement_has_its_class(stand_in_url: str, tmp_path: Path) -> None:
    """Every request that Citus is asked makes statements that it takes, and the list says which."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def note(request: str, statement: Statement) -> None:
        sql, names = written(statement)
        found[classify(sql, names)][shown(sql, names)].add(request)

    with citus.watched(note):
        everything(stand_in_url, tmp_path / "archive")
    asked = {name for statements in found.values() for names in statements.values() for name in names}
    # One recipe meets a save, edited or not, and so the second request is never made; an expectation is part of others.
    assert asked | {"SaveEdited", "Expect"} == {
        kind.__name__ for kind in (*book.RECIPES["citus"], *book.SINGLES["citus"])
    }
    text = HEAD
    for kind in sorted(found):
        text += f"\n## {kind}\n"
        for statement, requests in sorted(found[kind].items(), key=lambda one: (sorted(one[1]), one[0])):
            text += f"\n{', '.join(sorted(requests))}\n\n    {statement}\n"
    if os.environ.get(VARIABLE):
        LIST.write_text(text)
    assert LIST.read_text() == text, (
        f"look at what is new, then write it down: {VARIABLE}=1 pytest {Path(__file__).name}"
    )
