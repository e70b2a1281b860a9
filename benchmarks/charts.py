"""The charts of the page, as SVG. They need matplotlib; without it the page has its tables only."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_COLOURS: Final = ("#2563eb", "#0d9488", "#d97706", "#dc2626", "#7c3aed", "#64748b", "#0891b2", "#be185d")
# What is ours stands out from the floor and the peers.
_OURS, _THEIRS = "#2563eb", "#94a3b8"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of `series` over `labels`: bars with their figures, or lines where `lines` is set.

    A None is a gap. With `log`, the axis of the figures is logarithmic. With one series, bars whose label begins with
    Lifecycle are told apart from the others.
    """

    name: str
    title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    unit: str
    log: bool = False
    lines: bool = False


def drawable() -> bool:
    """Whether charts can be drawn here."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(chart: Chart, folder: Path) -> Path:
    """Write the chart into the folder as an SVG of some kilobytes; the same figures give the same file."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    # Text stays text, so that a file is small and can be searched.
    quiet = {"svg.fonttype": "none", "svg.hashsalt": chart.name, "font.family": "sans-serif", "font.size": 10}
    with mpl.rc_context(quiet):
        high = 4 if chart.lines else 1.2 + len(chart.labels) * (0.15 + 0.15 * len(chart.series))
        figure, axes = plt.subplots(figsize=(8, high), layout="constrained")
        (_lines if chart.lines else _bars)(chart, axes)
        axes.set_title(chart.title, loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        if len(chart.series) > 1:
            figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        path = folder / f"{chart.name}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return path


def _bars(chart: Chart, axes: Any) -> None:
    """Lying bars, as names are long; the first label at the top."""
    thick = 0.8 / len(chart.series)
    for number, (name, values) in enumerate(chart.series.items()):
        places = [place + (number - (len(chart.series) - 1) / 2) * thick for place in range(len(chart.labels))]
        colours: Any = _COLOURS[number % len(_COLOURS)]
        if len(chart.series) == 1:
            colours = [_OURS if label.startswith("Lifecycle") else _THEIRS for label in chart.labels]
        bars = axes.barh(places, [value or 0 for value in values], thick * 0.9, label=name, color=colours)
        axes.bar_label(bars, ["" if value is None else figure(value) for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(chart.labels)), chart.labels)
    axes.invert_yaxis()
    axes.set_xlabel(chart.unit)
    axes.margins(x=0.12, y=0.02)
    if chart.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_plain)


def _lines(chart: Chart, axes: Any) -> None:
    for number, (name, values) in enumerate(chart.series.items()):
        known = [(label, value) for label, value in zip(chart.labels, values, strict=True) if value is not None]
        if known:
            axes.plot(*zip(*known, strict=True), marker="o", label=name, color=_COLOURS[number % len(_COLOURS)])
    axes.set_ylabel(chart.unit)
    if chart.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain)
    else:
        axes.set_ylim(bottom=0)


def _plain(value: float, _place: int) -> str:
    return f"{value:,g}"


def figure(value: float) -> str:
    """A figure with as many digits as it deserves."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
