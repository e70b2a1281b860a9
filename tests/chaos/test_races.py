"""Eight processes work on one session at once: nothing acknowledged is lost, and nothing outside the rules commits.

The processes are real ones that share only the database. They are started once for the whole module, open a manager of
their own for each test, say that they are ready, and begin together.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import pytest

from lifecycle import (
    InvalidTransition,
    SessionBusy,
    SessionManager,
    Settings,
    TransitionRecord,
    VersionConflict,
    states,
)

PROCESSES = 8
PATIENCE = 120.0


@dataclass
class Outcome:
    """What one process was told: the versions of its saves by their entry, its transitions by their reason."""

    saves: dict[str, int] = field(default_factory=dict)
    moves: dict[str, tuple[str, int]] = field(default_factory=dict)
    repeats: int = 0
    refused: int = 0
    # What should not have happened.
    wrong: list[str] = field(default_factory=list)


def opened(url: str) -> SessionManager:
    """A manager that waits longer for its turn than any test takes."""
    return SessionManager.open(Settings(database={"url": url, "pool_size": 1, "connect_timeout": 30}))


def save_versioned(manager: SessionManager, number: int, times: int) -> Outcome:
    """Load, add an entry of one's own, save on top of just that version; again until it is taken."""
    outcome = Outcome()
    for i in range(times):
        entry = f"{number}-{i}"
        while entry not in outcome.saves:
            session = manager.get_session("s")
            state = manager.load_state("s")
            assert session is not None
            conversation = [] if state is None else state.conversation
            version = session.version if state is None else state.version
            try:
                outcome.saves[entry] = manager.save_state(
                    "s", conversation=[*conversation, entry], expected_version=version
                )
            except (VersionConflict, SessionBusy):
                outcome.refused += 1
    return outcome


def fire(manager: SessionManager, trigger: str, reason: str, outcome: Outcome) -> None:
    """Fire a trigger and note what came of it. The reason tells a transition from a no-op."""
    row = states.transition(trigger)
    try:
        session = getattr(manager, f"{trigger}_session")("s", reason=reason, actor=reason)
    except InvalidTransition as refusal:
        outcome.refused += 1
        if refusal.state in {*row.sources, row.target}:
            outcome.wrong.append(f"{trigger} refused from {refusal.state}")
    else:
        if session.state != row.target:
            outcome.wrong.append(f"{trigger} gave {session.state}")
        if session.reason == reason:
            outcome.moves[reason] = (trigger, session.version)
        else:
            outcome.repeats += 1


def fire_at_random(manager: SessionManager, number: int, times: int) -> Outcome:
    """Fire any trigger, whatever the state."""
    dice = random.Random(number)
    outcome = Outcome()
    # The ways back are thrown more often, so that the session is not finished all the time.
    triggers = [*states.TRIGGERS, "resume", "reopen", "reopen"]
    for i in range(times):
        fire(manager, dice.choice(triggers), f"{number}-{i}", outcome)
    return outcome


def save_and_fire(manager: SessionManager, number: int, times: int) -> Outcome:
    """Save on top of whatever there is, and now and then suspend, resume, expire or reopen."""
    dice = random.Random(number)
    outcome = Outcome()
    for i in range(times):
        name = f"{number}-{i}"
        if dice.random() < 0.5:
            fire(manager, dice.choice(["suspend", "resume", "resume", "expire", "reopen", "reopen"]), name, outcome)
            continue
        try:
            outcome.saves[name] = manager.save_state("s", append=[name])
        except InvalidTransition as refusal:
            outcome.refused += 1
            if refusal.state == "active":
                outcome.wrong.append("save refused from active")
        except SessionBusy:
            # It was not active, and is again.
            outcome.refused += 1
    return outcome


Work = Callable[[SessionManager, int, int], Outcome]


def serve(pipe: Connection, number: int) -> None:
    """The life of a process: take work, open a manager, say so, wait for the signal, work, report."""
    pipe.send("here")
    while True:
        try:
            work, url, times = pipe.recv()
        except EOFError:
            return
        with opened(url) as manager:
            manager.get_session("s")
            pipe.send("ready")
            pipe.recv()
            try:
                pipe.send(work(manager, number, times))
            except Exception as error:  # noqa: BLE001 - it is the test that fails of it
                pipe.send(Outcome(wrong=[f"{type(error).__name__}: {error}"]))


class Crowd:
    """The processes, seen from the test."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(PROCESSES):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, number), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            assert self._answer(pipe) == "here"

    def run(self, work: Work, url: str, times: int) -> list[Outcome]:
        """Have all of them do the work, from one moment on."""
        for pipe in self._pipes:
            pipe.send((work, url, times))
        for pipe in self._pipes:
            assert self._answer(pipe) == "ready"
        for pipe in self._pipes:
            pipe.send("go")
        outcomes: list[Outcome] = [self._answer(pipe) for pipe in self._pipes]
        assert [wrong for outcome in outcomes for wrong in outcome.wrong] == []
        return outcomes

    @staticmethod
    def _answer(pipe: Connection) -> Any:
        assert pipe.poll(PATIENCE), "a process does not answer"
        return pipe.recv()

    def close(self) -> None:
        """Let them go."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(PATIENCE)
            process.close()


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    """Eight processes that wait for work."""
    processes = Crowd()
    yield processes
    processes.close()


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the schema in place and one session, of each kind in turn."""
    found = str(request.getfixturevalue(f"migrated_{request.param}_url"))
    with opened(found) as manager:
        manager.create_session(session_id="s")
    return found


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One mapping of all the processes'."""
    return {name: value for part in parts for name, value in part.items()}


def check_log(lines: list[TransitionRecord], moves: dict[str, tuple[str, int]]) -> None:
    """The log is one chain of legal transitions, each of them acknowledged to the process that made it, and no other."""
    first, *rest = lines
    assert (first.trigger, first.from_state, first.to_state) == ("create", None, states.INITIAL)
    for before, line in zip(lines, rest, strict=False):
        assert line.from_state == before.to_state
        assert (line.version, line.seq) > (before.version, before.seq)
        row = states.transition(line.trigger)
        assert line.from_state in row.sources
        assert line.to_state == row.target
    assert {line.reason: (line.trigger, line.version) for line in rest} == moves
    assert len(rest) == len(moves)


def test_every_acknowledged_save_is_there_once(crowd: Crowd, url: str) -> None:
    """Saves under expected_version neither overwrite each other nor count twice."""
    outcomes = crowd.run(save_versioned, url, 25)
    saves = merged([outcome.saves for outcome in outcomes])
    assert len(saves) == PROCESSES * 25
    with opened(url) as manager:
        session, state = manager.get_session("s"), manager.load_state("s")
        assert session is not None
        assert state is not None
        assert session.version == state.version == 1 + len(saves)
        # Each save made the version after the one it was based on: the entries stand in the order of their versions.
        assert state.conversation == sorted(saves, key=saves.__getitem__)
        assert sorted(saves.values()) == list(range(2, len(saves) + 2))
    assert sum(outcome.refused for outcome in outcomes), "they never met"


def test_no_transition_outside_the_table_commits(crowd: Crowd, url: str) -> None:
    """Under random triggers from all sides the log is a legal chain of just the acknowledged transitions."""
    outcomes = crowd.run(fire_at_random, url, 150)
    moves = merged([outcome.moves for outcome in outcomes])
    with opened(url) as manager:
        lines, session = manager.history("s", limit=10_000), manager.get_session("s")
        assert session is not None
        check_log(lines, moves)
        assert (session.state, session.version) == (lines[-1].to_state, 1 + len(moves))
        assert (session.ended_at is not None) == (session.state in states.TERMINAL)


def test_no_save_lands_on_a_session_that_is_not_active(crowd: Crowd, url: str) -> None:
    """Saves and transitions at once: every version is one of the two, and no save has one while another state held."""
    outcomes = crowd.run(save_and_fire, url, 100)
    saves = merged([outcome.saves for outcome in outcomes])
    moves = merged([outcome.moves for outcome in outcomes])
    with opened(url) as manager:
        lines, session = manager.history("s", limit=10_000), manager.get_session("s")
        state = manager.load_state("s", any_state=True)
        assert session is not None
        assert state is not None
        check_log(lines, moves)
        assert state.conversation == sorted(saves, key=saves.__getitem__)
    made = [*saves.values(), *(version for _, version in moves.values())]
    assert sorted(made) == list(range(2, session.version + 1))
    since = {line.version: line.to_state for line in lines}
    for entry, version in saves.items():
        latest = max(known for known in since if known < version)
        assert since[latest] == "active", entry
    assert saves
    assert moves
