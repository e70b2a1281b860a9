"""Any sequence of calls leaves every database as a small model of it says.

Hypothesis makes up the sequences: it creates, saves, moves, hides, removes and sweeps sessions whose ids collide, sets
rows back in time, and after each call compares what the manager gives with a model that is plain Python.

The sequences are the same at every run, so that a failure is news. To look for new ones, say how many:

    LIFECYCLE_MODEL_EXAMPLES=2000 LIFECYCLE_MODEL_STEPS=60 pytest --timeout=0 tests/chaos/test_model.py

Without LIFECYCLE_MODEL_EXAMPLES a Hypothesis profile of the caller's own, chosen with `--hypothesis-profile`, decides on
the number of examples, the steps, and whether they are random.
"""

import contextlib
import copy
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import hypothesis
import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from lifecycle import (
    CheckpointNotFound,
    InvalidTransition,
    LifecycleError,
    MessageExists,
    SessionExists,
    SessionManager,
    SessionNotFound,
    SessionProtected,
    Settings,
    TokenReused,
    VersionConflict,
    states,
)
from lifecycle.models import tables as t
from tests.managers import connected

PAST = datetime.now(UTC) - timedelta(days=400)

# `keep` has no deadline of any kind; `aged` has one that no activity moves.
POLICIES = {
    "kinds": {
        "keep": {"idle": {"active": "never", "suspended": "never"}, "retention": "never", "ghosts": "never"},
        "aged": {"max_age": "1h"},
    }
}

# Alike enough that a store which folds case or drops blanks takes one for another.
IDS = st.sampled_from(["s", "S", "s ", "é"])
MESSAGE_IDS = st.sampled_from(["m", "M", "m "])
TOKENS = st.sampled_from(["t", "T"])
KINDS = st.sampled_from(["chat", "chat", "keep", "aged"])
TEXTS = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
ENTRIES = st.lists(JSON, max_size=3)
DOCUMENTS = st.fixed_dictionaries({}, optional={"conversation": ENTRIES, "context": JSON, "plan": JSON})
FIELDS = st.fixed_dictionaries(
    {}, optional={"phase": st.none() | st.sampled_from(["plan", "é"]), "step": st.none() | st.integers(0, 2**63 - 1)}
)
SHORT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@dataclass
class ModelMessage:
    """A message as it should be given back."""

    seq: int
    message_id: str
    role: str
    content: Any
    metadata: dict[str, Any]


@dataclass
class ModelCheckpoint:
    """A checkpoint as it should be given back."""

    label: str
    data: Any
    documents: dict[str, Any]
    phase: str | None
    step: int | None
    version: int


@dataclass
class Model:
    """A session as it should be. Of its deadlines only this is known: whether there is one, and whether it has passed."""

    kind: str
    title: str | None = None
    protected: bool = False
    phase: str | None = None
    step: int | None = None
    parent_id: str | None = None
    # What was saved; None as long as nothing was.
    documents: dict[str, Any] | None = None
    state: str = states.INITIAL
    reason: str | None = None
    version: int = 1
    next_seq: int = 2
    messages: list[ModelMessage] = field(default_factory=list)
    checkpoints: dict[int, ModelCheckpoint] = field(default_factory=dict)
    tokens: dict[str, tuple[str, int]] = field(default_factory=dict)
    hidden: bool = False
    overdue: bool = False
    aged: bool = False
    idle_long: bool = False
    unchanged_long: bool = False
    ended_long: bool = False
    # None for never, else whether the time has passed.
    ghost: bool | None = None
    prune: bool | None = None

    @property
    def live(self) -> bool:
        """Whether work goes on."""
        return self.state in states.LIVE

    def changed(self) -> None:
        """Its content changed now."""
        self.unchanged_long = False

    def used(self) -> None:
        """A sign of life: the deadline moves, though not past the greatest age."""
        self.idle_long = False
        self.overdue = self.aged

    def worked_on(self) -> None:
        """Its content changed through work on it."""
        self.changed()
        self.used()

    def retention(self, *, passed: bool = False) -> bool | None:
        """The pruning deadline it gets on becoming terminal or hidden."""
        return None if self.kind == "keep" else passed

    def take_seq(self) -> int:
        """The next number in its order."""
        self.next_seq += 1
        return self.next_seq - 1

    def move(self, target: str, reason: str | None) -> None:
        """What a transition does, its line in the log aside."""
        reopened = self.state in states.TERMINAL
        self.state, self.reason = target, reason
        self.version += 1
        self.worked_on()
        self.ended_long = False
        if target in states.TERMINAL:
            self.overdue, self.ghost, self.prune = False, None, self.retention()
        else:
            self.prune = None
            if reopened:
                self.aged = False
            self.overdue = self.aged

    def add(self, message_id: str, role: str, content: Any, metadata: dict[str, Any]) -> None:
        """Append a message."""
        self.messages.append(ModelMessage(self.take_seq(), message_id, role, content, metadata))
        self.ghost = None
        self.worked_on()


def words(value: Any) -> list[str]:
    """The texts within a message's content."""
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in children for text in words(child)]


def title_of(content: Any) -> str | None:
    """The title that a user's message gives to a session without one."""
    line = " ".join(" ".join(words(content)).replace("\0", "").split())
    return (line if len(line) <= 80 else line[:79].rstrip() + "…") or None


def exactly(value: Any) -> str:
    """A value down to the sign of a zero and the order of its keys."""
    return repr(value)


class Sessions(RuleBasedStateMachine):
    """Sessions of one tenant, beside their model."""

    manager_of_all: ClassVar[SessionManager]
    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.tenant = uuid.uuid4().hex
        self.manager = self.manager_of_all.for_tenant(self.tenant)
        self.models: dict[str, Model] = {}
        self.log: dict[str, list[tuple[Any, ...]]] = {}
        self.touched: set[str] = set()

    # The model's side of things

    def shown(self, session_id: str) -> Model | None:
        """The session that a call finds under an id."""
        self.touched.add(session_id)
        model = self.models.get(session_id)
        return None if model is None or model.hidden else model

    @contextlib.contextmanager
    def refused(self, error: type[LifecycleError]) -> Iterator[None]:
        """Exactly this error is raised."""
        with pytest.raises(error) as caught:
            yield
        assert type(caught.value) is error

    def absent_or_not(self, session_id: str, allowed: tuple[str, ...], call: Callable[[], Any]) -> Model | None:
        """The session that a call may work on; None once the call was refused, as it should be."""
        model = self.shown(session_id)
        if model is None:
            with self.refused(SessionNotFound):
                call()
            return None
        if model.state not in allowed:
            with self.refused(InvalidTransition):
                call()
            return None
        return model

    def record(self, session_id: str, trigger: str, source: str | None, target: str | None, seq: int) -> None:
        """Write a line of the audit log."""
        line = (seq, trigger, source, target, self.models[session_id].version)
        self.log.setdefault(session_id, []).append(line)

    def born(self, session_id: str, model: Model) -> None:
        """Take a new session in."""
        if model.documents is None and model.parent_id is None and model.kind != "keep":
            model.ghost = False
        self.models[session_id] = model
        self.record(session_id, "create", None, states.INITIAL, 1)

    def moved(self, session_id: str, trigger: str, reason: str | None) -> None:
        """Fire a trigger that is legal."""
        model = self.models[session_id]
        source, seq, target = model.state, model.take_seq(), states.transition(trigger).target
        model.move(target, reason)
        self.record(session_id, trigger, source, target, seq)

    def removed(self, session_id: str) -> None:
        """Nothing is left but a line in the log."""
        model = self.models[session_id]
        self.log[session_id] = []
        self.record(session_id, "delete", model.state, None, model.next_seq)
        del self.models[session_id]
        self.touched.add(session_id)

    # Making sessions

    @initialize(kinds=st.tuples(KINDS, KINDS))
    def begin(self, kinds: tuple[str, str]) -> None:
        """Two sessions to begin with: most rules have nothing to do without."""
        for session_id, kind in zip(("s", "S"), kinds, strict=True):
            self.manager.create_session(session_id=session_id, kind=kind)
            self.born(session_id, Model(kind))
            self.touched.add(session_id)

    @rule(
        session_id=IDS,
        kind=KINDS,
        title=st.none() | SHORT,
        documents=st.fixed_dictionaries({}, optional={"conversation": ENTRIES, "context": JSON}),
        phase=st.none() | st.just("plan"),
        protected=st.booleans(),
        get=st.booleans(),
    )
    def create(
        self,
        session_id: str,
        kind: str,
        title: str | None,
        documents: dict[str, Any],
        phase: str | None,
        *,
        protected: bool,
        get: bool,
    ) -> None:
        """Create a session, or open one that may be there."""
        model = self.shown(session_id)
        values: dict[str, Any] = {"kind": kind, "title": title, "phase": phase, "protected": protected, **documents}
        if get and model is not None:
            assert self.manager.open_session(session_id, **values) == self.manager.get_session(session_id)
            return
        make = self.manager.open_session if get else self.manager.create_session
        if session_id in self.models:
            with self.refused(SessionExists):
                make(session_id=session_id, **values)
            return
        made = make(session_id=session_id, **values)
        kept = {name: value for name, value in documents.items() if value is not None} or None
        self.born(session_id, Model(kind, title, protected, phase, documents=kept))
        assert made == self.manager.get_session(session_id)

    @rule(session_id=IDS, new_id=IDS, pick=st.none() | st.integers(0, 3))
    def fork(self, session_id: str, new_id: str, pick: int | None) -> None:
        """Go on from a session, or from a checkpoint of it, in a new one."""
        model = self.shown(session_id)
        self.touched.add(new_id)
        seq = None if pick is None else self.checkpoint_seq(model, pick)

        def call() -> Any:
            return self.manager.fork_session(session_id, checkpoint=seq, new_id=new_id)

        if model is None:
            with self.refused(SessionNotFound if seq is None else CheckpointNotFound):
                call()
            return
        if seq is not None and seq not in model.checkpoints:
            with self.refused(CheckpointNotFound):
                call()
            return
        if new_id in self.models:
            with self.refused(SessionExists):
                call()
            return
        call()
        source = model if seq is None else model.checkpoints[seq]
        messages = [m for m in model.messages if seq is None or m.seq < seq]
        fork = Model(
            model.kind,
            model.title,
            phase=source.phase,
            step=source.step,
            parent_id=session_id,
            documents=copy.deepcopy(source.documents) or None,
        )
        fork.messages = [
            ModelMessage(2 + i, m.message_id, m.role, m.content, m.metadata) for i, m in enumerate(messages)
        ]
        fork.next_seq += len(messages)
        self.born(new_id, fork)

    # The saved state

    @rule(
        session_id=IDS,
        documents=DOCUMENTS,
        append=st.none() | ENTRIES,
        fields=FIELDS,
        version=st.sampled_from([None, None, 0, -1, 1]),
        token=st.none() | TOKENS,
        repeats=st.integers(1, 2),
    )
    def save(
        self,
        session_id: str,
        documents: dict[str, Any],
        append: list[Any] | None,
        fields: dict[str, Any],
        version: int | None,
        token: str | None,
        repeats: int,
    ) -> None:
        """Save on top of the current version or of another, with a retry token or without, once or twice."""
        model = self.shown(session_id)
        values: dict[str, Any] = {**documents, **fields}
        if append is not None:
            values.pop("conversation", None)
            values["append"] = append
        if version is not None:
            values["expected_version"] = max(0, version + (1 if model is None else model.version))
        for _ in range(repeats):
            self.save_once(session_id, model, values, token)

    def save_once(self, session_id: str, model: Model | None, values: dict[str, Any], token: str | None) -> None:
        """Save and see that it was accepted or refused as it should be."""

        def call() -> Any:
            return self.manager.save_state(session_id, token=token, **values)

        # Appending nothing is the same save as appending not at all.
        said = exactly(sorted((name, value) for name, value in values.items() if (name, value) != ("append", [])))
        known = None if model is None or token is None else model.tokens.get(token)
        if known is not None:
            if known[0] == said:
                assert call() == known[1]
            else:
                with self.refused(TokenReused):
                    call()
            return
        if self.absent_or_not(session_id, ("active",), call) is None:
            return
        assert model is not None
        if values.get("expected_version", model.version) != model.version:
            with self.refused(VersionConflict):
                call()
            return
        model.version += 1
        assert call() == model.version
        if token is not None:
            model.tokens[token] = (said, model.version)
        model.phase = values.get("phase", model.phase)
        model.step = values.get("step", model.step)
        saved = dict(model.documents or {})
        saved |= {name: values[name] for name in ("conversation", "context", "plan") if name in values}
        if values.get("append"):
            saved["conversation"] = [*(saved.get("conversation") or []), *values["append"]]
        model.documents = saved
        model.ghost = None
        model.worked_on()

    @rule(session_id=IDS, label=st.sampled_from(["before", "é"]), data=JSON)
    def checkpoint(self, session_id: str, label: str, data: Any) -> None:
        """Keep a copy of the saved state."""

        def call() -> Any:
            return self.manager.checkpoint(session_id, label, data)

        model = self.absent_or_not(session_id, states.LIVE, call)
        if model is None:
            return
        kept = call()
        seq = model.take_seq()
        assert (kept.seq, kept.version) == (seq, model.version)
        model.checkpoints[seq] = ModelCheckpoint(
            label, data, copy.deepcopy(model.documents or {}), model.phase, model.step, model.version
        )
        model.worked_on()

    @staticmethod
    def checkpoint_seq(model: Model | None, pick: int) -> int:
        """The number of one of the checkpoints, or one that is none."""
        seqs: list[int] = [*(() if model is None else model.checkpoints), 999]
        return seqs[pick % len(seqs)]

    @rule(session_id=IDS, pick=st.integers(0, 3))
    def restore(self, session_id: str, pick: int) -> None:
        """Go back to a checkpoint."""
        seq = self.checkpoint_seq(self.shown(session_id), pick)

        def call() -> Any:
            return self.manager.restore_checkpoint(session_id, seq)

        model = self.absent_or_not(session_id, ("active",), call)
        if model is None:
            return
        if seq not in model.checkpoints:
            with self.refused(CheckpointNotFound):
                call()
            return
        model.version += 1
        assert call() == model.version
        kept = model.checkpoints[seq]
        model.documents, model.phase, model.step = copy.deepcopy(kept.documents), kept.phase, kept.step
        model.ghost = None
        model.worked_on()

    # Messages

    @rule(
        session_id=IDS,
        items=st.lists(
            st.tuples(
                st.none() | MESSAGE_IDS,
                st.sampled_from(["user", "assistant"]),
                st.sampled_from(["hello", "né"]) | JSON,
                st.dictionaries(SHORT, st.integers(), max_size=1),
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda item: item[0] or object(),
        ),
        again=st.none() | st.tuples(st.integers(0, 3), st.booleans()),
    )
    def add_messages(
        self,
        session_id: str,
        items: list[tuple[str | None, str, Any, dict[str, Any]]],
        again: tuple[int, bool] | None,
    ) -> None:
        """Append messages, some of which may be there: the same ones again, or others under their ids."""
        model = self.shown(session_id)
        if again is not None and model is not None and model.messages:
            place, changed = again
            old = model.messages[place % len(model.messages)]
            content = [old.content] if changed else old.content
            items = [item for item in items if item[0] != old.message_id]
            items.append((old.message_id, old.role, content, {}))
        dicts = [
            {"role": role, "content": content, "metadata": metadata, "message_id": message_id}
            for message_id, role, content, metadata in items
        ]

        def call() -> Any:
            if len(dicts) == 1:
                return [self.manager.add_message(session_id, **dicts[0])]
            return self.manager.add_messages(session_id, dicts)

        model = self.absent_or_not(session_id, states.LIVE, call)
        if model is None:
            return
        there = {m.message_id: m for m in model.messages}
        repeated = [item for item in items if item[0] in there]
        for message_id, role, content, _ in repeated:
            before = there[message_id or ""]
            if (before.role, exactly(before.content)) != (role, exactly(content)):
                with self.refused(MessageExists):
                    call()
                return
        added = call()
        for message, (_, role, content, metadata) in zip(added, items, strict=True):
            if message.message_id not in there:
                model.add(message.message_id, role, content, metadata)
        if not repeated and model.title is None:
            titles = [title_of(content) for _, role, content, _ in items if role == "user"]
            model.title = next((title for title in titles if title), None)
        known = {m.message_id: m.seq for m in model.messages}
        assert [message.seq for message in added] == [known[message.message_id] for message in added]

    @rule(session_id=IDS)
    def pop_message(self, session_id: str) -> None:
        """Take the last message back."""

        def call() -> Any:
            return self.manager.pop_message(session_id)

        model = self.absent_or_not(session_id, states.LIVE, call)
        if model is None:
            return
        popped = call()
        if not model.messages:
            assert popped is None
            return
        assert popped.seq == model.messages.pop().seq
        model.worked_on()

    @rule(session_id=IDS, message_id=MESSAGE_IDS)
    def delete_message(self, session_id: str, message_id: str) -> None:
        """Remove a message that may be there."""

        def call() -> Any:
            return self.manager.delete_message(session_id, message_id)

        model = self.absent_or_not(session_id, states.LIVE, call)
        if model is None:
            return
        rest = [m for m in model.messages if m.message_id != message_id]
        assert call() is (len(rest) < len(model.messages))
        if len(rest) < len(model.messages):
            model.messages = rest
            model.worked_on()

    # The session itself

    @rule(session_id=IDS, trigger=st.sampled_from(states.TRIGGERS), reason=st.none() | SHORT)
    def transition(self, session_id: str, trigger: str, reason: str | None) -> None:
        """Fire any trigger from any state."""
        model = self.shown(session_id)

        def call() -> Any:
            return getattr(self.manager, f"{trigger}_session")(session_id, reason=reason, actor="me")

        row = states.transition(trigger)
        if self.absent_or_not(session_id, (*row.sources, row.target), call) is None:
            return
        assert model is not None
        if model.state in row.sources:
            self.moved(session_id, trigger, reason)
        assert call() == self.manager.get_session(session_id)

    @rule(session_id=IDS)
    def touch(self, session_id: str) -> None:
        """A sign of life of one session."""

        def call() -> Any:
            return self.manager.touch_session(session_id)

        model = self.absent_or_not(session_id, states.LIVE, call)
        if model is not None:
            assert call() == 1
            model.used()

    @rule(session_ids=st.lists(IDS, max_size=4))
    def touch_many(self, session_ids: list[str]) -> None:
        """A sign of life of many, of which some may be finished or gone."""
        found = [model for model in map(self.shown, sorted(set(session_ids))) if model is not None and model.live]
        assert self.manager.touch_session(session_ids) == len(found)
        for model in found:
            model.used()

    @rule(session_id=IDS, protected=st.booleans(), title=st.none() | SHORT, version=st.sampled_from([None, 0, 1]))
    def update(self, session_id: str, title: str | None, version: int | None, *, protected: bool) -> None:
        """Change what can be changed in any state."""
        model = self.shown(session_id)
        expected = None if version is None else version + (1 if model is None else model.version)

        def call() -> Any:
            return self.manager.update_session(session_id, protected=protected, title=title, expected_version=expected)

        if self.absent_or_not(session_id, states.STATES, call) is None:
            return
        assert model is not None
        if version:
            with self.refused(VersionConflict):
                call()
            return
        model.version += 1
        model.protected, model.title = protected, title
        model.changed()
        assert call() == self.manager.get_session(session_id)

    @rule(session_id=IDS, force=st.booleans())
    def delete(self, session_id: str, *, force: bool) -> None:
        """Remove a session, hidden or not."""
        self.touched.add(session_id)
        model = self.models.get(session_id)
        if model is not None and model.protected and not force:
            with self.refused(SessionProtected):
                self.manager.delete_session(session_id)
            return
        assert self.manager.delete_session(session_id, force=force) is (model is not None)
        if model is not None:
            self.removed(session_id)

    @rule(session_id=IDS)
    def hide(self, session_id: str) -> None:
        """Delete a session softly."""
        model = self.shown(session_id)
        if model is not None and model.protected:
            with self.refused(SessionProtected):
                self.manager.delete_session(session_id, soft=True)
            return
        assert self.manager.delete_session(session_id, soft=True) is (model is not None)
        if model is not None:
            model.hidden, model.prune = True, model.retention()
            model.version += 1
            model.changed()
            self.record(session_id, "soft_delete", model.state, model.state, model.take_seq())

    @rule(session_id=IDS)
    def show(self, session_id: str) -> None:
        """Bring a softly deleted session back."""
        self.touched.add(session_id)
        model = self.models.get(session_id)
        if model is None:
            with self.refused(SessionNotFound):
                self.manager.undelete_session(session_id)
            return
        back = self.manager.undelete_session(session_id)
        if model.hidden:
            model.hidden = False
            model.prune = None if model.live else model.retention(passed=model.ended_long)
            model.version += 1
            model.changed()
            if model.live:
                model.used()
            self.record(session_id, "undelete", model.state, model.state, model.take_seq())
        assert back == self.manager.get_session(session_id)

    # Time, and what becomes due with it

    @rule(
        session_ids=st.sets(IDS, min_size=1),
        what=st.sampled_from(["expires_at", "max_age_at", "ghost_at", "prune_at", "last_active_at", "ended_at"]),
    )
    def let_time_pass(self, session_ids: set[str], what: str) -> None:
        """Set the times of some rows back."""
        for session_id in sorted(session_ids):
            columns = {"max_age_at": ["max_age_at", "expires_at"], "last_active_at": ["last_active_at", "listed_at"]}
            self.backdate(session_id, columns.get(what, [what]))
            model = self.models.get(session_id)
            self.touched.add(session_id)
            if model is None:
                continue
            match what:
                case "expires_at":
                    model.overdue |= model.live and model.kind != "keep"
                case "max_age_at":
                    model.aged |= model.kind == "aged"
                    model.overdue |= model.live and model.kind == "aged"
                case "ghost_at":
                    model.ghost = None if model.ghost is None else True
                case "prune_at":
                    model.prune = None if model.prune is None else True
                case "last_active_at":
                    model.idle_long = model.unchanged_long = True
                case _:
                    model.ended_long |= not model.live

    def backdate(self, session_id: str, columns: list[str]) -> None:
        """Write a time long past into columns, where all of them have one."""
        there = [t.sessions.c[name].is_not(None) for name in columns]
        key = (t.sessions.c.tenant == self.tenant, t.sessions.c.session_id == session_id)
        with connected(self.url) as connection:
            connection.execute(sa.update(t.sessions).where(*key, *there).values(dict.fromkeys(columns, PAST)))

    def sweep(self, call: Callable[..., Any], due: set[str], batch: int) -> None:
        """The dry run, the sweep and the model agree on what is due; afterwards nothing is."""
        assert call(dry_run=True).count == len(due)
        report = call(batch=batch)
        assert (set(report.session_ids), report.count, report.complete) == (due, len(due), True)
        assert call(dry_run=True).count == 0
        self.touched |= due

    def due(self, condition: Callable[[Model], Any]) -> set[str]:
        """The unprotected sessions for which a condition holds."""
        return {name for name, model in self.models.items() if not model.protected and condition(model)}

    @rule(batch=st.integers(1, 4))
    def expire_idle(self, batch: int) -> None:
        """Whose deadline has passed is expired."""
        due = self.due(lambda model: model.live and not model.hidden and model.overdue)
        self.sweep(self.manager.expire_idle, due, batch)
        for session_id in due:
            self.moved(session_id, "expire", "idle")

    @rule(batch=st.integers(1, 4))
    def cleanup_stale(self, batch: int) -> None:
        """What nobody used for long is ended."""
        due = self.due(lambda model: model.live and not model.hidden and model.idle_long and model.unchanged_long)

        def call(**options: Any) -> Any:
            return self.manager.cleanup_stale_sessions("1d", **options)

        self.sweep(call, due, batch)
        for session_id in due:
            self.moved(session_id, "end", "stale")

    @rule(batch=st.integers(1, 4), by_age=st.booleans())
    def prune(self, batch: int, *, by_age: bool) -> None:
        """What is finished or hidden for long is removed."""

        def call(**options: Any) -> Any:
            return self.manager.prune_sessions(older_than="1d" if by_age else None, **options)

        if by_age:
            due = self.due(lambda model: not model.live and model.ended_long)
        else:
            due = self.due(lambda model: model.prune and (model.hidden or not model.live))
        self.sweep(call, due, batch)
        for session_id in due:
            self.removed(session_id)

    @rule(batch=st.integers(1, 4))
    def delete_ghosts(self, batch: int) -> None:
        """What nothing was ever stored in is removed."""
        due = self.due(
            lambda m: m.ghost and m.live and not m.hidden and not m.messages and m.documents is None,
        )
        self.sweep(self.manager.delete_ghosts, due, batch)
        for session_id in due:
            self.removed(session_id)

    # The comparison

    @invariant()
    def the_touched_are_as_the_model_says(self) -> None:
        """What the last rule was about, and the list, are as they should be."""
        for session_id in sorted(self.touched):
            self.compare(session_id)
        self.touched.clear()
        shown = {name for name, model in self.models.items() if not model.hidden}
        page = self.manager.list_sessions(limit=100, count=True)
        assert ({item.session_id for item in page.items}, page.total) == (shown, len(shown))

    def compare(self, session_id: str) -> None:
        """One session, from every side it can be read from."""
        model = self.models.get(session_id)
        session = self.manager.get_session(session_id)
        state = self.manager.load_state(session_id, any_state=True)
        messages = self.manager.get_messages(session_id, limit=500)
        checkpoints = self.manager.list_checkpoints(session_id)
        history = [(h.seq, h.trigger, h.from_state, h.to_state, h.version) for h in self.manager.history(session_id)]
        assert history == self.log.get(session_id, [])
        if model is None or model.hidden:
            assert (session, state, messages, checkpoints) == (None, None, [], [])
            return
        assert session is not None
        for name in ("kind", "title", "protected", "phase", "step", "parent_id", "state", "reason", "version"):
            assert getattr(session, name) == getattr(model, name), name
        assert session.message_count == len(model.messages)
        assert (session.expires_at is not None) == (model.live and model.kind != "keep")
        assert (session.ended_at is not None) == (not model.live)
        assert (session.prune_at is not None) == (model.prune is not None)
        self.compare_state(model, state)
        assert (self.manager.load_state(session_id) is None) == (model.documents is None or not model.live)
        for given, kept in zip(messages, model.messages, strict=True):
            for name in ("seq", "message_id", "role", "metadata"):
                assert getattr(given, name) == getattr(kept, name), name
            assert exactly(given.content) == exactly(kept.content)
        for (seq, point), found in zip(model.checkpoints.items(), checkpoints, strict=True):
            assert (found.seq, found.label, exactly(found.data)) == (seq, point.label, exactly(point.data))
            assert (found.phase, found.step, found.version) == (point.phase, point.step, point.version)

    @staticmethod
    def compare_state(model: Model, state: Any) -> None:
        """The saved state as it comes back."""
        if model.documents is None:
            assert state is None
            return
        for name in ("conversation", "context", "plan"):
            assert exactly(getattr(state, name)) == exactly(model.documents.get(name)), name
        assert (state.phase, state.step, state.version) == (model.phase, model.step, model.version)

    def teardown(self) -> None:
        """At the end all sessions are as they should be, and nothing is left of those that are gone."""
        self.touched |= set(self.models) | set(self.log)
        self.the_touched_are_as_the_model_says()
        with connected(self.url) as connection:
            for table in t.CHILDREN:
                chosen = sa.select(table.c.session_id).where(table.c.tenant == self.tenant)
                assert set(connection.scalars(chosen)) <= set(self.models), table.name


def chosen_settings() -> hypothesis.settings:
    """Few and always the same sequences, unless the environment or a profile of the caller's asks for others."""
    # A failing sequence takes a while to shrink; how long a step may take is none of the model's business.
    wanted = os.environ.get("LIFECYCLE_MODEL_EXAMPLES")
    steps = int(os.environ.get("LIFECYCLE_MODEL_STEPS", "30"))
    if wanted is not None:
        return hypothesis.settings(
            max_examples=int(wanted), stateful_step_count=steps, deadline=None, derandomize=False
        )
    if hypothesis.settings.get_current_profile_name() not in {"default", "ci"}:
        return hypothesis.settings(deadline=None)
    return hypothesis.settings(
        max_examples=60, stateful_step_count=steps, deadline=None, derandomize=True, database=None
    )


def test_any_sequence_of_calls_leaves_what_the_model_says(migrated_url: str) -> None:
    """Whatever is called in whatever order, the manager gives back what the model expects."""
    settings = Settings(database={"url": migrated_url}, policies=POLICIES)
    with SessionManager.open(settings) as opened:

        class SessionsHere(Sessions):
            manager_of_all = opened
            url = migrated_url

        run_state_machine_as_test(SessionsHere, settings=chosen_settings())


def test_messages_are_added_all_or_none(migrated_url: str) -> None:
    """A call that is refused for one of its messages adds none of them."""
    with SessionManager.open(migrated_url) as manager:
        manager.create_session(session_id="s")
        manager.add_message("s", "user", "one", message_id="m1")
        new = {"role": "user", "content": "two", "message_id": "m2"}
        with pytest.raises(MessageExists):
            manager.add_messages("s", [new, {"role": "user", "content": "another", "message_id": "m1"}])
        assert [message.message_id for message in manager.get_messages("s")] == ["m1"]


def test_force_also_hides_a_protected_session(migrated_url: str) -> None:
    """What the refusal of a soft deletion advises, force, is heeded."""
    with SessionManager.open(migrated_url) as manager:
        manager.create_session(session_id="s", protected=True)
        assert manager.delete_session("s", soft=True, force=True)
        assert manager.get_session("s") is None
