"""The numbers of the overview, from the samples that a worker takes: no page counts sessions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lifecycle import states
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.models.reads import SessionCounts
from lifecycle.web.dashboard.charts import Chart, Line, chart

# What the lines of the first chart add up: a session finishes by being completed or ended.
_HAPPENED: Final[Mapping[str, tuple[str, ...]]] = {
    "created": ("create",),
    "finished": tuple(row.trigger for row in states.TRANSITIONS if row.target in {"completed", "ended"}),
    "expired": ("expire",),
}
_NAMES: Final = (*(name for names in _HAPPENED.values() for name in names), "backlog_age")


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a worker counted last, None if none ever did, and the charts of the last day."""

    counts: SessionCounts | None
    happened: Chart
    backlog: Chart

    @property
    def total(self) -> int:
        """All sessions."""
        return 0 if self.counts is None else sum(self.counts.by_state.values())


async def read_numbers(manager: AsyncSessionManager) -> Numbers:
    """The numbers of whom a manager is for."""
    counts = await manager.get_counts()
    samples = await manager.get_samples(_NAMES)
    hours = [at for at, _ in samples.series["create"]]
    lines = [
        Line(name, [sum(values) for values in zip(*(_values(samples.series[one]) for one in parts), strict=True)])
        for name, parts in _HAPPENED.items()
    ]
    backlog = samples.series["backlog_age"]
    return Numbers(
        counts,
        chart("happened", "Sessions created, finished and expired per hour", hours, lines, pending=True),
        chart(
            "backlog",
            "Age of the backlog",
            [at for at, _ in backlog],
            [Line("backlog", _values(backlog))],
            seconds=True,
        ),
    )


def _values(points: list[tuple[datetime, float]]) -> list[float]:
    return [value for _, value in points]
