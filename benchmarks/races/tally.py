"""What is counted of a race, and when a write counts as stale."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.races.actors import Answer
from benchmarks.races.store import START, Standing


@dataclass(slots=True)
class Tally:
    """The counts of one entrant in one race.

    `writes` are those that raced: `accepted` on a state that was the latest, `stale` ones accepted on a state that was
    not, and refused ones, by the name of the error in `refused`. The rest are rounds: `lost`, where the state that a
    later reader finds lacks an acknowledged write; `forked`, where the history has more than one end; `misled`, where
    the reader finds the stale write's state.

    `again` is about a former holder that reads anew after a refusal and then writes: `again_accepted`, or refused;
    `successor_refused` are the rounds in which whoever had taken over was then refused.
    """

    race: str
    rounds: int = 0
    writes: int = 0
    accepted: int = 0
    stale: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    forked: int = 0
    misled: int = 0
    again: int = 0
    again_accepted: int = 0
    again_refused: Counter[str] = field(default_factory=Counter)
    successor_refused: int = 0

    def found(self, standing: Standing, acknowledged: Iterable[str], stale: Iterable[str]) -> None:
        """Note what a later reader of a round's session finds."""
        self.rounds += 1
        self.lost += not {START, *acknowledged} <= set(standing.entries)
        self.forked += standing.ends > 1
        self.misled += standing.entries[-1] in set(stale)


def acknowledged(answers: Iterable[Answer]) -> list[str]:
    """The entries that were acknowledged."""
    return [answer.entry for answer in answers if answer.refused is None]


def refusals(answers: Iterable[Answer]) -> list[str]:
    """The errors of those that were refused."""
    return [answer.refused for answer in answers if answer.refused is not None]
