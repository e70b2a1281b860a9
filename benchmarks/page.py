"""The page in the documentation: what is asked, what was measured, on what machine."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import asks, charts
from benchmarks.bench import Section

_IMAGES: Final = Path("images") / "benchmarks"

_HEAD: Final = """# Benchmarks

`make bench` takes these figures anew in some {minutes:.0f} minutes, and writes this page: the library, the floor (the same work by
hand on raw driver calls) and the stores of LangGraph, OpenAI Agents and Google ADK, on the same servers, by turns in one
run. Ratios hold on a noisy machine, the times are those of this one. Every commit is durable, on all sides.

In the environment that it makes, `.venv-peers/bin/python -m benchmarks` takes `--only NAME`, again and again, for some of the
sections ({names}), `--quick` to try them out in a minute or two, `--json` and `--into DIRECTORY`. Ctrl-C ends it with what
there is by then.
"""
_ASKED: Final = """## What is asked of it

What is said of PostgreSQL, with the default settings: audit rows, leases and entries that are stored once. A ratio is the median
of what was measured at the same time.
"""
_WITHOUT_CHARTS: Final = "matplotlib is not installed here, so there are no charts.\n"


def write(
    path: Path,
    sections: Sequence[Section],
    machine: Mapping[str, str],
    *,
    seconds: Mapping[str, float],
    left_out: Mapping[str, str],
    names: Sequence[str],
) -> None:
    """Write the page and, in `images/benchmarks` beside it, its charts.

    `seconds` is how long each section took; `left_out` says why sections are missing; `names` are all there are.
    """
    measured = {name: value for section in sections for name, value in section.asked.items()}
    parts = [
        _HEAD.format(minutes=max(1.0, round(sum(seconds.values()) / 60)), names=", ".join(names)),
        _ASKED,
        asks.table(measured).markdown(),
        _machine(machine, seconds),
        *(f"{name} left out: {why}.\n" for name, why in left_out.items()),
    ]
    images = path.parent / _IMAGES
    if charts.drawable():
        images.mkdir(parents=True, exist_ok=True)
    else:
        parts.append(_WITHOUT_CHARTS)
    parts += [_with_charts(section, images) for section in sections]
    path.write_text("\n".join(parts), encoding="utf-8")


def _machine(machine: Mapping[str, str], seconds: Mapping[str, float]) -> str:
    lines = [f"- {name}: {text}" for name, text in machine.items()]
    spent = ", ".join(f"{name} {taken:.0f}" for name, taken in seconds.items())
    return "\n".join(
        [
            f"## The machine\n\nTaken on {datetime.now(UTC):%d %B %Y} on\n",
            *lines,
            f"\nin {sum(seconds.values()) / 60:.1f} minutes; seconds for each section: {spent}.\n",
        ]
    )


def _with_charts(section: Section, images: Path) -> str:
    """The section's text with its charts below its heading."""
    if not charts.drawable():
        return section.markdown
    heading, rest = section.markdown.split("\n", 1)
    drawn = [(chart.title, charts.draw(chart, images)) for chart in section.charts]
    pictures = "".join(f"\n![{title}]({_IMAGES / path.name})\n" for title, path in drawn)
    return f"{heading}\n{pictures}{rest}"
