"""What came of the races: as tables on the terminal, and as JSON."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from benchmarks.races.entrants import Entrant
from benchmarks.races.scenarios import FALSE_DEATH, RACES
from benchmarks.races.tally import Tally

HEAD = ("store", "writes", "accepted", "stale accepted", "refused", "refused with", "a later reader finds")
AGAIN = ("store", "reads anew", "then accepted", "refused", "refused with", "successor refused")
TEXTS = frozenset({"store", "refused with", "a later reader finds"})
AFTERWARDS = f"{FALSE_DEATH}, after the refusal"


@dataclass(slots=True)
class Results:
    """The tallies of each entrant that ran, why the others did not, and on what all this ran."""

    rounds: int
    seed: int
    versions: dict[str, str] = field(default_factory=dict)
    ran: list[tuple[Entrant, Tally]] = field(default_factory=list)
    missing: list[tuple[Entrant, str]] = field(default_factory=list)

    @property
    def broken(self) -> list[tuple[Entrant, Tally]]:
        """Those that must refuse every stale write, and accepted some."""
        return [(entrant, tally) for entrant, tally in self.ran if entrant.guarded and tally.stale]


def rows(results: Results, race: str) -> list[tuple[str, ...]]:
    """The cells under `HEAD` of one race."""
    return [
        (
            entrant.name,
            *(f"{n:,}" for n in (tally.writes, tally.accepted, tally.stale, tally.refused.total())),
            _errors(tally.refused),
            _found(tally),
        )
        for entrant, tally in results.ran
        if tally.race == race
    ]


def again_rows(results: Results) -> list[tuple[str, ...]]:
    """The cells under `AGAIN`, of those who refused the former holder."""
    return [
        (
            entrant.name,
            *(f"{n:,}" for n in (tally.again, tally.again_accepted, tally.again_refused.total())),
            _errors(tally.again_refused),
            f"{tally.successor_refused:,}",
        )
        for entrant, tally in results.ran
        if tally.race == FALSE_DEATH and tally.again
    ]


def tables(results: Results) -> list[Table]:
    """A table for each race, where whoever could not run says why, and one of what came after the refusals."""
    shown = []
    for race in RACES:
        table = _table(race, HEAD)
        for row in rows(results, race):
            table.add_row(*row)
        for entrant, reason in results.missing:
            table.add_row(entrant.name, *["-"] * (len(HEAD) - 2), reason)
        shown.append(table)
    afterwards = _table(AFTERWARDS, AGAIN)
    for row in again_rows(results):
        afterwards.add_row(*row)
    return [table for table in (*shown, afterwards) if table.row_count]


def as_json(results: Results) -> dict[str, Any]:
    """The same for programs: a result for each store, use and race, with the fields of `Tally`."""
    return {
        "rounds": results.rounds,
        "seed": results.seed,
        "versions": results.versions,
        "results": [
            {"store": entrant.store, "use": entrant.use, "guarded": entrant.guarded} | _counts(tally)
            for entrant, tally in results.ran
        ],
        "missing": [{"store": entrant.store, "use": entrant.use, "why": why} for entrant, why in results.missing],
    }


def versions_line(versions: Mapping[str, str]) -> str:
    """What it ran on, in one line."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _table(title: str, head: tuple[str, ...]) -> Table:
    table = Table(*head, title=title, title_justify="left")
    for column in table.columns:
        column.justify = "left" if column.header in TEXTS else "right"
    return table


def _counts(tally: Tally) -> dict[str, Any]:
    counts = {name: getattr(tally, name) for name in Tally.__slots__}
    return {name: dict(count) if isinstance(count, Counter) else count for name, count in counts.items()}


def _errors(refused: Counter[str]) -> str:
    if len(refused) == 1:
        return next(iter(refused))
    return ", ".join(f"{name} ({count:,})" for name, count in refused.most_common()) or "-"


def _found(tally: Tally) -> str:
    counts = {"the stale state": tally.misled, "an update lost": tally.lost, "a forked history": tally.forked}
    return ", ".join(f"{what} ({count:,})" for what, count in counts.items() if count) or "every acknowledged write"
