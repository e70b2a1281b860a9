"""What the benchmark reckons with: bounds, tables, and who is timed when."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import asks, charts
from benchmarks.asks import ASKS, Ask
from benchmarks.charts import Chart
from benchmarks.grid import Grid
from benchmarks.measure import Pair, alternate, compare, warming
from benchmarks.placing import apart


@pytest.mark.parametrize(
    ("ask", "measured", "holds", "asked"),
    [
        (Ask("fast", 1.5, least=True), 1.5, True, "at least 1.5x"),
        (Ask("fast", 1.5, least=True), 1.49, False, "at least 1.5x"),
        (Ask("small", 2.0), 2.0, True, "at most 2x"),
        (Ask("small", 5.0, unit="ms"), 5.1, False, "at most 5 ms"),
    ],
)
def test_a_bound_holds_up_to_itself(ask: Ask, measured: float, holds: bool, asked: str) -> None:
    """A figure on the bound keeps it, one beyond does not."""
    assert (ask.holds(measured), ask.asked()) == (holds, asked)


def test_every_bound_is_told_of() -> None:
    """What was not measured stands in the table too, and a figure for which there is no bound is refused."""
    rows = asks.table({"list": 3.0, "prune": 0.5}).rows
    assert len(rows) == len(ASKS)
    told = {row[0]: row[2:] for row in rows}
    assert told[ASKS["list"].what] == ("3.00 ms", "yes")
    assert told[ASKS["prune"].what] == ("0.50x", "**no**")
    assert told[ASKS["expire"].what] == ("not measured", "")
    with pytest.raises(KeyError, match="speed"):
        asks.table({"speed": 1.0})


def test_who_goes_first_changes() -> None:
    """Both sides are called at every turn, by turns first, and those that warm up are not timed."""
    calls: list[tuple[str, int]] = []
    pair = Pair("call", lambda turn: calls.append(("floor", turn)), lambda turn: calls.append(("ours", turn)))
    (result,) = compare("here", [pair], 10, lambda: None)
    total = 10 + warming(10)
    assert sorted(calls) == sorted((side, turn) for side in ("floor", "ours") for turn in range(total))
    assert [side for side, _ in calls[::2]] == ["floor", "ours"] * (total // 2)
    assert result.turns == 10


def test_time_that_is_over_ends_it() -> None:
    """Past the time, every call is still measured five times, and then no more."""
    (result,) = compare("here", [Pair("call", lambda _: None, lambda _: None)], 1000, lambda: None, until=0.0)
    assert result.turns == 5


def test_caller_and_server_have_cores_of_their_own() -> None:
    """While one caller is timed; afterwards both may run where they could before."""
    if not hasattr(os, "sched_getaffinity"):
        with apart(os.getpid()) as done:
            assert not done
        return
    before = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
        with apart(server.pid) as done:
            caller, theirs = os.sched_getaffinity(0), os.sched_getaffinity(server.pid)
            assert done == (len(before) > 1)
            assert (len(caller), theirs) == (1, before - caller) if done else theirs == caller == before
        assert os.sched_getaffinity(0) == os.sched_getaffinity(server.pid) == before
        server.communicate(b"\n")


def test_any_number_of_calls_can_be_compared() -> None:
    """What several calls took comes back by their names, as often as was asked for."""

    async def call(_turn: int) -> None:
        await asyncio.sleep(0)

    taken = asyncio.run(alternate({"one": call, "two": call, "three": call}, 7, lambda: None))
    assert {name: len(times) for name, times in taken.items()} == {"one": 7, "two": 7, "three": 7}


def test_a_table_has_names_to_the_left_and_figures_to_the_right() -> None:
    """On the page, columns of figures are marked as such; on a terminal, a repeated name is told once."""
    grid = Grid(("a", "b", "c"), [("x", "y", "1"), ("x", "z", "2")], texts=2)
    assert grid.markdown() == "| a | b | c |\n| --- | --- | ---: |\n| x | y | 1 |\n| x | z | 2 |\n"
    first, _, last = grid.rich().columns
    assert (list(first.cells), last.justify) == (["x", ""], "right")


@pytest.mark.parametrize("lines", [False, True])
def test_the_same_figures_give_the_same_chart(tmp_path: Path, lines: bool) -> None:
    """A chart with gaps is drawn, and again to the same bytes, so that a page only changes with its figures."""
    if not charts.drawable():
        pytest.skip("matplotlib is not installed here")
    chart = Chart("c", "Title", ["1", "2"], {"a": [1.0, None], "b": [2.0, 300.0]}, "ms", log=True, lines=lines)
    once, again = charts.draw(chart, tmp_path).read_bytes(), charts.draw(chart, tmp_path).read_bytes()
    assert once == again
    assert len(once) < 50_000


def test_figures_have_as_many_digits_as_they_deserve() -> None:
    """Large ones none, small ones two."""
    assert [charts.figure(value) for value in (1234.5, 12.34, 1.234)] == ["1,234", "12.3", "1.23"]
