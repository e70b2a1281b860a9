"""The three races, each of so many rounds, each round on a session of its own."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.races.actors import Actor, Answer, RaceFailed
from benchmarks.races.entrants import Entrant
from benchmarks.races.tally import Tally, acknowledged, refusals

Progress = Callable[[int], None]

PAUSED, SERVERS, FALSE_DEATH = "paused holder", "two servers", "false death"
RACES = (PAUSED, SERVERS, FALSE_DEATH)

_LONG = 60.0  # seconds: a lease that does not run out in a race
_SHORT = 1.0  # one that does
_BATCH = 100  # sessions whose holder is stopped at once, so that they wait for their leases together
_LATE_WRITES = 3


@dataclass(frozen=True, slots=True)
class Cast:
    """The processes: the holder that is stopped, who takes over from it, and somebody who reads afterwards."""

    holder: Actor
    successor: Actor
    reader: Actor


def enter(cast: Cast, entrant: Entrant, url: str) -> None:
    """Have all of them open the store, on a database that gets its tables. Raises `RaceFailed`."""
    everybody = (cast.reader, cast.holder, cast.successor)
    for actor in everybody:
        actor.tell("enter", entrant, url)
    for actor in everybody:
        actor.answer()
    cast.reader.call("setup")


def run(race: str, cast: Cast, rounds: int, dice: random.Random, progress: Progress) -> Tally:
    """Run one of `RACES`. Raises `RaceFailed` when something fails that is not a refusal."""
    if race == SERVERS:
        return _two_servers(cast, rounds, dice, progress)
    tally = Tally(race)
    size = 1 if race == PAUSED else _BATCH
    for sessions in _sessions(race, rounds, size):
        _take_over(tally, cast, sessions, dice)
        progress(len(sessions))
    return tally


def _two_servers(cast: Cast, rounds: int, dice: random.Random, progress: Progress) -> Tally:
    """Both read the same version, and once both have read, both write on it."""
    tally = Tally(SERVERS)
    both = {"a": cast.holder, "b": cast.successor}
    for sessions in _sessions(SERVERS, rounds, 1):
        (session,) = sessions
        cast.reader.call("create", sessions)
        order = dice.sample(sorted(both), 2)
        for name in order:
            both[name].tell("take", sessions, _LONG, 0.0)
        refused = {name: both[name].answer() for name in order}
        racing = [name for name in dice.sample(order, 2) if not refused[name]]
        for name in racing:
            both[name].tell("write", sessions, [f"{name}1"])
        answers: list[Answer] = [both[name].answer()[session][0] for name in racing]
        done = acknowledged(answers)
        tally.writes += len(both)
        tally.accepted += len(done[:1])
        tally.stale += len(done[1:])
        tally.refused.update([*refusals(answers), *(refused[name][session] for name in order if refused[name])])
        for actor in both.values():
            actor.call("release", sessions)
        # Which of two accepted writes came second cannot be told from outside: either can be what is found.
        tally.found(cast.reader.call("standing", sessions)[session], done, ())
        progress(1)
    return tally


def _take_over(tally: Tally, cast: Cast, sessions: Sequence[str], dice: random.Random) -> None:
    """The holder has read and is stopped; another takes over and writes; the holder goes on with what it had read."""
    hung = tally.race == FALSE_DEATH
    cast.reader.call("create", sessions)
    _all_taken(cast.holder.call("take", sessions, _SHORT if hung else _LONG, 0.0))
    cast.holder.stop()
    if not hung:
        cast.successor.call("give_up", sessions)
    _all_taken(cast.successor.call("take", sessions, _LONG, _LONG if hung else 0.0))
    ahead = [f"b{i}" for i in range(1, dice.randint(1, 3) + 1)]
    for answers in cast.successor.call("write", sessions, ahead).values():
        if wrong := refusals(answers):
            raise RaceFailed(f"whoever took over was refused with {wrong[0]}, before anybody else wrote")

    cast.holder.tell("write", sessions, [f"a{i}" for i in range(1, (_LATE_WRITES if hung else 1) + 1)])
    cast.holder.go_on()
    late: dict[str, list[Answer]] = cast.holder.answer()
    standings = cast.reader.call("standing", sessions)
    for session, answers in late.items():
        stale = acknowledged(answers)
        tally.writes += len(answers)
        tally.stale += len(stale)
        tally.refused.update(refusals(answers))
        tally.found(standings[session], [*ahead, *stale], stale)
    if hung:
        _read_anew(tally, cast, [session for session, answers in late.items() if answers[-1].refused])
    cast.holder.call("release", sessions)
    cast.successor.call("release", sessions)


def _read_anew(tally: Tally, cast: Cast, sessions: Sequence[str]) -> None:
    """The former holder reads again, as its refusal says, and writes; then whoever took over goes on."""
    tally.again += len(sessions)
    refused: dict[str, str] = cast.holder.call("take", sessions, _SHORT, 0.0)
    tally.again_refused.update(refused.values())
    taken = [session for session in sessions if session not in refused]
    for answers in cast.holder.call("write", taken, ["anew"]).values():
        tally.again_accepted += len(acknowledged(answers))
        tally.again_refused.update(refusals(answers))
    for answers in cast.successor.call("write", sessions, ["next"]).values():
        tally.successor_refused += len(refusals(answers))


def _all_taken(refused: dict[str, str]) -> None:
    for session, error in refused.items():
        raise RaceFailed(f"session {session!r} could not be taken: {error}")


def _sessions(race: str, rounds: int, size: int) -> Iterator[list[str]]:
    """Names for so many rounds, in batches."""
    names = (f"{race.replace(' ', '-')}-{number}" for number in range(rounds))
    while batch := list(itertools.islice(names, size)):
        yield batch
