"""Charts as inline SVG, made on the server. Axis texts are HTML beside them, so that they keep their size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lifecycle.web.dashboard.rendering import compact, duration

WIDE, HIGH = 720, 160
_NONE: Final = "-"
_STEPS: Final = (1, 2, 5)
_CLOCK: Final = (60, 120, 300, 600, 1800, 3600, 7200, 14_400, 43_200, 86_400, 172_800, 604_800)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: its name (also its colour's) and a value for each time, None where there is none."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Shape:
    """One line as it is drawn."""

    name: str
    path: str
    area: str
    pending: str


@dataclass(frozen=True, slots=True)
class Stop:
    """One time of a chart: where the pointer finds it, and what it is told there."""

    x: float
    wide: float
    at: datetime
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws."""

    ident: str
    title: str
    summary: str
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    stops: tuple[Stop, ...]
    grid: tuple[float, ...]
    scale: tuple[str, ...]
    marks: tuple[datetime, ...]
    wide: int = WIDE
    high: int = HIGH

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.stops


def chart(
    ident: str, title: str, times: Sequence[datetime], lines: Sequence[Line], *, seconds: bool = False,
    pending: bool = False,
) -> Chart:  # fmt: skip
    """A chart of lines over common times, oldest first; the values are counts, or durations in `seconds`.

    Where the last value is `pending`, as its time is not over, the way to it is dashed.
    """
    say = duration if seconds else compact
    known = [value for line in lines for value in line.values if value is not None]
    top = _top(max(known, default=0), clock=seconds)
    step = WIDE / max(1, len(times) - 1)
    stops = tuple(
        Stop(
            max(0.0, i * step - step / 2), step, at,
            tuple(_NONE if line.values[i] is None else say(line.values[i] or 0) for line in lines),
        )
        for i, at in enumerate(times)
    )  # fmt: skip
    last = ", ".join(
        f"{line.name} {say(value)}" for line in lines if (value := next(reversed([*line.values]), None)) is not None
    )
    most = f"at most {say(max(known, default=0))}"
    shapes = tuple(_shape(line, step, top, pending=pending) for line in lines)
    marks = tuple(times[i] for i in _spread(len(times), 5))
    grid = tuple(round(HIGH * part / 4, 2) for part in range(5))
    scale = tuple(say(top * part / 4) if top * part / 4 == int(top * part / 4) or seconds else "" for part in (4, 2, 0))
    return Chart(
        ident, title, f"{title}: {most}; last {last}." if last else f"{title}: nothing yet.",
        tuple(line.name for line in lines), shapes, stops if known else (), grid, scale, marks,
    )  # fmt: skip


def _spread(count: int, marks: int) -> list[int]:
    if count <= marks:
        return list(range(count))
    return [round(i * (count - 1) / (marks - 1)) for i in range(marks)]


def _top(most: float, *, clock: bool) -> float:
    """A round number at or above the largest value, so that the grid stands at round numbers too."""
    if clock:
        return next((float(size) for size in _CLOCK if size >= most), math.ceil(most / 604_800) * 604_800.0)
    if most <= 4:  # noqa: PLR2004 -- four lines of the grid
        return 4.0
    size = 10 ** math.floor(math.log10(most))
    return float(next(step * size for step in (*_STEPS, 10) if step * size >= most))


def _shape(line: Line, step: float, top: float, *, pending: bool) -> Shape:
    """The line, broken where a value is missing, and the area below it."""
    points = [None if value is None else (i * step, HIGH - value / top * HIGH) for i, value in enumerate(line.values)]
    if len(points) == 1 and points[0] is not None:
        points.append((WIDE, points[0][1]))  # one point would be nothing to see
    dashed = pending and len(points) > 1 and points[-1] is not None and points[-2] is not None
    last = points[-2:] if dashed else []
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points[:-1] if dashed else points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    runs = [run for run in runs if run]
    area = "".join(f"M{run[0][0]:.1f} {HIGH}L{_path(run)}L{run[-1][0]:.1f} {HIGH}Z" for run in runs)
    return Shape(
        line.name, "".join(f"M{_path(run)}" for run in runs), area, f"M{_path([p for p in last if p])}" if last else ""
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
