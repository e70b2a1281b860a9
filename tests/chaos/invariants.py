"""What has to hold of the ledgers and the database after any chaos.

A save's place among the others is its version, which the database gave it: a line of the ledger may be written long
after its save, by a process that was stopped in between. A line that stands before another was written before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lifecycle import SessionManager
from tests.chaos.cast import Kill
from tests.chaos.ledger import Line


def broken_by(lines: Sequence[Line]) -> Iterator[str]:
    """What one session's ledger shows to be wrong."""
    yield from _one_holder_for_an_epoch(lines)
    yield from _nothing_acknowledged_is_done_again(lines)
    yield from _epochs_grow(lines)
    yield from _nothing_superseded_is_acknowledged(lines)


def _one_holder_for_an_epoch(lines: Sequence[Line]) -> Iterator[str]:
    holders: dict[int, int] = {}
    for line in lines:
        if holders.setdefault(line.epoch, line.pid) != line.pid:
            yield f"epoch {line.epoch} is held by processes {holders[line.epoch]} and {line.pid}"
    claims = [line.epoch for line in lines if line.what == "claimed"]
    if len(set(claims)) != len(claims):
        yield f"an epoch was claimed twice: {sorted(claims)}"


def _nothing_acknowledged_is_done_again(lines: Sequence[Line]) -> Iterator[str]:
    """A stopped process may begin what its successor has done already, and is refused; nobody else may."""
    acknowledged: dict[int, Line] = {}
    for line in lines:
        if line.what == "acknowledged":
            if line.step in acknowledged:
                yield f"step {line.step} is acknowledged in epochs {acknowledged[line.step].epoch} and {line.epoch}"
            acknowledged.setdefault(line.step, line)
        elif line.what == "begun":
            done = acknowledged.get(line.step)
            if done is not None and done.epoch <= line.epoch:
                yield f"step {line.step}, acknowledged in epoch {done.epoch}, is begun again in epoch {line.epoch}"


def _epochs_grow(lines: Sequence[Line]) -> Iterator[str]:
    saves = sorted((line for line in lines if line.what == "acknowledged"), key=lambda line: line.version)
    for before, after in pairwise(saves):
        if before.version == after.version:
            yield f"version {after.version} is of two saves, of steps {before.step} and {after.step}"
        if after.epoch < before.epoch:
            yield f"version {after.version} is of epoch {after.epoch}, after one of epoch {before.epoch}"
        if after.step <= before.step:
            yield f"version {after.version} is step {after.step}, after step {before.step}"


def _nothing_superseded_is_acknowledged(lines: Sequence[Line]) -> Iterator[str]:
    claimed = {line.epoch: line.version for line in lines if line.what == "claimed"}
    for save in lines:
        if save.what != "acknowledged":
            continue
        for epoch, version in claimed.items():
            if epoch > save.epoch and save.version > version:
                yield (
                    f"step {save.step} of epoch {save.epoch} is acknowledged as version {save.version}, after epoch"
                    f" {epoch} was claimed at version {version}"
                )
    newest = 0
    late: set[tuple[int, int]] = set()
    for line in lines:
        if line.what == "begun" and line.epoch < newest:
            late.add((line.step, line.epoch))
        if line.what == "acknowledged" and (line.step, line.epoch) in late:
            yield f"step {line.step} is begun in epoch {line.epoch} after a later one was seen, and acknowledged"
        newest = max(newest, line.epoch)


def unfinished(manager: SessionManager, session_id: str, steps: int, lines: Sequence[Line]) -> Iterator[str]:
    """What of the session in the database is not as it has to be in the end."""
    session, state = manager.get_session(session_id), manager.load_state(session_id, any_state=True)
    if session is None or state is None:
        yield "is not in the database"
        return
    if session.state != "completed":
        last = lines[-1] if lines else "none"
        yield f"is {session.state} ({session.reason}), epoch {session.lease_epoch}; the last line: {last}"
        return
    conversation = list(state.conversation or ())
    if [done["step"] for done in conversation] != list(range(1, steps + 1)):
        yield f"has the steps {[done['step'] for done in conversation]}"
    said = [message.content for message in manager.get_messages(session_id)]
    if said != [f"step {step}" for step in range(1, steps + 1)]:
        yield f"says {said}"
    kept = {(done["step"], done["epoch"]) for done in conversation}
    for line in lines:
        if line.what == "acknowledged" and (line.step, line.epoch) not in kept:
            yield f"step {line.step}, acknowledged in epoch {line.epoch}, is not in the conversation"


@dataclass(frozen=True, slots=True)
class Takeover:
    """A session of a killed process, until another one began with it."""

    session_id: str
    pid: int
    seconds: float
    # Nothing else was wrong meanwhile.
    calm: bool


def takeovers(ledgers: Mapping[str, Sequence[Line]], kills: Sequence[Kill]) -> list[Takeover]:
    """How long sessions that a killed process held waited for the next one."""
    found = []
    for session_id, lines in ledgers.items():
        for kill in kills:
            before = [line for line in lines if line.at <= kill.at]
            if not before or before[-1].pid != kill.pid or before[-1].what not in {"claimed", "begun", "acknowledged"}:
                continue
            following = next((line for line in lines if line.at > kill.at and line.what == "claimed"), None)
            if following is not None:
                found.append(Takeover(session_id, kill.pid, following.at - kill.at, kill.calm))
    return found
