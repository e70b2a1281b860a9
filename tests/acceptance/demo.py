"""A store as a busy team's might look, for the dashboard's tests and pictures."""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from lifecycle import SessionManager
from lifecycle.folding import fold
from lifecycle.models import tables as t
from tests.managers import backdate, connected

HERO = "support/2026-11/refund-1047"
APPROVAL = "release-2.4"
_USERS = ("ada", "grace", "linus", "margaret", "barbara", "ken", "radia", "edsger")
_AGENTS = {"chat": "support", "copilot": "coder", "cron": "nightly", "research": "scout"}
_TITLES = {
    "chat": (
        "Where is my parcel?", "Refund for order 17", "Cannot sign in on the new phone", "Invoice shows the wrong VAT",
        "Change the delivery address", "Two charges for one order", "Cancel the trial",
    ),
    "copilot": (
        "Make the importer stream", "Flaky test in the scheduler", "Split the settings module", "Upgrade to Python 3.13",
        "Retry on 429 from the gateway", "Index for the slow report",
    ),
    "cron": ("Nightly ledger check", "Rebuild search index", "Rotate the keys", "Mail the weekly numbers"),
    "research": ("Compare vector stores", "Who else prices per seat?", "Survey of queue semantics"),
}  # fmt: skip
_ENDINGS = {"completed": "complete", "ended": "end", "expired": "expire"}


def fill(url: str, sessions: int = 640, seed: int = 11) -> None:
    """Fill a store: sessions of a day and a half in every state, a few with everything, a backlog, approvals, workers."""
    dice = random.Random(seed)
    now = datetime.now(UTC).replace(microsecond=0)
    lines: list[dict[str, Any]] = []
    rows = [_row(dice, now, index, lines) for index in range(sessions)]
    with SessionManager.open(url) as manager:
        _hero(manager)
        _approvals(manager)
        _stuck(manager)
    _age(url, now)
    with connected(url) as connection:
        connection.execute(sa.insert(t.sessions), rows)
        connection.execute(sa.insert(t.samples), _samples(dice, now))
        # In the order of their times, as they would have come.
        lines += [dict(line) for line in connection.execute(sa.select(t.transitions)).mappings()]
        lines.sort(key=lambda line: line["created_at"])
        for line in lines:
            line.pop("id", None)
        connection.execute(sa.delete(t.transitions))
        connection.execute(sa.insert(t.transitions), lines)


def _row(dice: random.Random, now: datetime, index: int, lines: list[dict[str, Any]]) -> dict[str, Any]:
    kind = dice.choice(("chat", "chat", "chat", "copilot", "copilot", "cron", "research"))
    # More by day than by night.
    while True:
        born = now - timedelta(minutes=dice.uniform(3, 36 * 60))
        if dice.random() < 0.35 + 0.65 * math.sin(math.pi * (born.hour + born.minute / 60) / 24) ** 2:
            break
    state = dice.choice(("active",) * 3 + ("suspended",) + ("completed",) * 9 + ("ended",) * 2 + ("expired",) * 2)
    changed = born + timedelta(minutes=dice.expovariate(1 / 50))
    if changed > now - timedelta(minutes=2):
        # Not over yet.
        state, changed = "active", now - (now - born) * dice.uniform(0.3, 0.9)
    title = dice.choice(_TITLES[kind])
    key = {"tenant": "", "session_id": f"{kind}-{born:%m%d}-{dice.getrandbits(28):07x}"}
    finished = state in _ENDINGS
    user = None if kind == "cron" else dice.choice(_USERS)

    def line(seq: int, trigger: str, before: str | None, after: str, at: datetime, reason: str | None = None) -> None:
        actor = {"expire": "sweeper", "create": "api"}.get(trigger, user or "nightly")
        lines.append(
            {
                **key, "seq": seq, "trigger_name": trigger, "from_state": before, "to_state": after, "reason": reason,
                "actor": actor, "version": seq, "txid": None, "created_at": at,
            }
        )  # fmt: skip

    line(1, "create", None, "active", born)
    if state == "suspended":
        line(2, "suspend", "active", "suspended", changed, "waits for the customer")
    elif finished:
        reason = {"ended": "asked to stop", "expired": "idle"}.get(state)
        line(2, _ENDINGS[state], "active", state, changed, reason)
    return {
        **key,
        **dict.fromkeys(c.name for c in t.sessions.c if c.nullable and c.name not in key),
        "kind": kind, "user_id": user, "agent_id": _AGENTS[kind], "title": title, "title_folded": fold(title),
        "state": state, "metadata": '{"channel":"web"}' if index % 3 else "{}", "config": "{}",
        "version": dice.randint(2, 30), "step": dice.randint(1, 20), "next_seq": 40, "message_count": dice.randint(2, 38),
        "last_message_at": changed, "protected": False, "created_at": born, "updated_at": changed,
        "listed_at": changed.replace(second=0, microsecond=0), "last_active_at": changed, "idle_active": 86_400,
        "idle_suspended": 2_592_000, "idle_override": False,
        "expires_at": None if finished else now + timedelta(hours=dice.uniform(4, 24)),
        "ended_at": changed if finished else None,
        "prune_at": changed + timedelta(days=30) if finished else None,
        "lease_epoch": 0, "attempts": 0, "rescues": 0, "runs": False, "pending_approvals": 0,
    }  # fmt: skip


def _samples(dice: random.Random, now: datetime) -> list[dict[str, Any]]:
    """What a worker would have counted every ten minutes: quiet, with one outage that was worked off."""
    first = (now - timedelta(hours=24)).replace(minute=0, second=0)
    last = now - timedelta(minutes=20)
    found = []
    for index in range(int((last - first) / timedelta(minutes=10))):
        at = first + timedelta(minutes=10 * index)
        since = index - 70
        age = 600.0 * since if 0 < since < 7 else max(0.0, 4200 - 700 * (since - 6)) if 7 <= since < 13 else 0.0
        for name, value in (("*active", 100.0), ("*backlog_age", age + dice.uniform(0, 25))):
            found.append({"tenant": "", "name": name, "sampled_at": at, "value": value})
    return found


def _hero(manager: SessionManager) -> None:
    """One session with everything: messages, saves, checkpoints, a lease."""
    manager.create_session(
        session_id=HERO, kind="chat", user_id="ada", agent_id="support", title="Refund for order 1047, paid twice",
        metadata={"channel": "web", "language": "en", "priority": 2}, config={"model": "large", "temperature": 0.2},
        actor="api",
    )  # fmt: skip
    said = (
        ("user", "Hello, I was charged twice for order 1047. Can you refund one of them?"),
        ("assistant", "I am sorry about that. Let me look at both charges."),
        ("tool", '{"charges": [{"id": "ch_81", "amount": 4900}, {"id": "ch_82", "amount": 4900}]}'),
        ("assistant", "I can see two charges of €49.00, four seconds apart. The second one should not be there."),
        ("user", "Exactly. I only pressed the button once…"),
    )
    order = {"id": 1047, "charges": ["ch_81", "ch_82"], "amount": 4900, "currency": "EUR"}
    manager.add_messages(HERO, [{"role": role, "content": text, "agent_id": "support"} for role, text in said[:3]])
    manager.save_state(
        HERO, context={"order": order, "verified": False}, plan=["find the charges", "check the policy", "refund"],
        conversation=[{"role": role, "content": text} for role, text in said[:3]], phase="triage", step=1,
    )  # fmt: skip
    manager.checkpoint(HERO, "before refund")
    manager.suspend_session(HERO, reason="waits for the payment provider", actor="support")
    manager.resume_session(HERO, reason="provider answered", actor="ada")
    manager.add_messages(HERO, [{"role": role, "content": text, "agent_id": "support"} for role, text in said[3:]])
    manager.save_state(
        HERO,
        context={"order": order, "verified": True, "refund": {"charge": "ch_82", "amount": 4900}},
        plan=["find the charges", "check the policy", "refund", "tell the customer"],
        append=[{"role": role, "content": text} for role, text in said[3:]], phase="refund", step=3,
    )  # fmt: skip
    manager.acquire_lease(HERO, holder="runner-eu-1:4711:9c2e", ttl=86_000)


def _approvals(manager: SessionManager) -> None:
    for session_id, kind, title, action, details, by in (
        (APPROVAL, "copilot", "Release 2.4", "Deploy release 2.4 to production",
         {"commit": "8f3c1e2", "tests": {"passed": 1284, "failed": 0}, "regions": ["eu-west", "us-east"]}, "coder"),
        ("refund-0993", "chat", "Goodwill for a late parcel", "Refund €120.00 to ada: above the limit of €100",
         {"order": 993, "amount": 12_000}, "support"),
    ):  # fmt: skip
        manager.create_session(session_id=session_id, kind=kind, user_id="grace", agent_id=by, title=title, actor="api")
        manager.save_state(session_id, context={"waits": True}, step=4)
        manager.request_approval(session_id, action, details=details, requested_by=by, expires_in="6h", suspend=True)


def _stuck(manager: SessionManager) -> None:
    for session_id, title in (("run-71-import", "Import of the old catalogue"), ("run-72-embed", "Embed 40,000 pages")):
        manager.create_session(
            session_id=session_id,
            kind="research",
            agent_id="scout",
            title=title,
            available_at=datetime.now(UTC),
            actor="api",
        )
        manager.save_state(session_id, context={"page": 812}, step=12)
    manager.claim_sessions(["research"], holder="runner-eu-2:88:01fa", ttl=30, limit=1)


def _age(url: str, now: datetime) -> None:
    """Move what was just done into the past, as far as the pages show it."""
    c = t.sessions.c
    past = now - timedelta(minutes=14)
    backdate(url, t.sessions, c.lease_holder == "runner-eu-2:88:01fa", lease_expires_at=past, rescues=2, attempts=3)
    backdate(url, t.sessions, c.available_at.is_not(None), available_at=past)
    backdate(url, t.approvals, t.approvals.c.session_id == APPROVAL, requested_at=now - timedelta(minutes=41))
    rich = (HERO, APPROVAL, "refund-0993", "run-71-import", "run-72-embed")
    with connected(url) as connection:
        for session_id in rich:
            found = connection.execute(
                sa.select(t.transitions.c.id)
                .where(t.transitions.c.session_id == session_id)
                .order_by(t.transitions.c.id)
            ).scalars()
            for index, number in enumerate(found):
                at = now - timedelta(minutes=50 - 12 * index)
                connection.execute(sa.update(t.transitions).where(t.transitions.c.id == number).values(created_at=at))
        for seq_at, table in ((t.messages.c.seq, t.messages), (t.checkpoints.c.seq, t.checkpoints)):
            for seq in connection.execute(sa.select(seq_at).where(table.c.session_id == HERO)).scalars().all():
                connection.execute(
                    sa.update(table)
                    .where(table.c.session_id == HERO, seq_at == seq)
                    .values(created_at=now - timedelta(minutes=48 - 3 * seq))
                )
        for minutes, session_id in (
            (9, HERO),
            (41, APPROVAL),
            (3, "refund-0993"),
            (15, "run-71-import"),
            (15, "run-72-embed"),
        ):
            at = now - timedelta(minutes=minutes)
            connection.execute(
                sa.update(t.sessions)
                .where(c.session_id == session_id)
                .values(
                    updated_at=at, listed_at=at.replace(second=0, microsecond=0), created_at=now - timedelta(minutes=50)
                )
            )
