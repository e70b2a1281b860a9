"""What the dashboard draws: the machine from its table, charts, trees, differences, and times in words."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from lifecycle import states
from lifecycle.web.dashboard import machine, trees
from lifecycle.web.dashboard.charts import HIGH, WIDE, Line, chart
from lifecycle.web.dashboard.rendering import ago, compact, duration, link

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def texts(svg: str, kind: str) -> list[str]:
    """The words of a kind in a picture."""
    return re.findall(rf'class="{kind}[^>]*>(?:<rect[^>]*>)?(?:<text[^>]*>)?([a-z]+)<', svg)


@pytest.mark.parametrize("lit", states.STATES)
def test_the_machine_is_drawn_from_its_table(lit: str) -> None:
    """Every state once, the current one lit, and lit the moves that it allows."""
    svg = str(machine.draw(lit))
    assert sorted(texts(svg, "state")) == sorted(states.STATES)
    assert texts(svg, f"state state-{lit} lit") == [lit]
    assert sorted(set(texts(svg, "move lit"))) == sorted(states.allowed(lit))
    assert set(texts(svg, "move")) == set(states.TRIGGERS)


def test_an_edited_table_is_another_picture() -> None:
    """A state and a move that are added are drawn; what is escaped cannot be markup."""
    table = (
        *states.TRANSITIONS,
        states.Transition("fail", ("active",), "failed"),
        states.Transition("a<b", ("failed",), "active"),
    )
    svg = str(machine.draw("failed", table))
    assert "failed" in texts(svg, "state state-failed lit")
    assert "fail" in texts(svg, "move")
    assert "a&lt;b" in svg
    assert "a<b" not in svg


def test_a_chart_keeps_within_its_frame() -> None:
    """All points lie in it, its top is a round number at or above them, and each time says its values."""
    hours = [NOW + timedelta(hours=i) for i in range(24)]
    made = chart("x", "Things", hours, [Line("created", [float(i * 7) for i in range(24)]), Line("gone", [0.0] * 24)])
    for shape in made.shapes:
        for x, y in re.findall(r"([\d.]+) ([\d.]+)", shape.path):
            assert 0 <= float(x) <= WIDE
            assert 0 <= float(y) <= HIGH
    assert made.scale == ("200", "100", "0")
    assert made.stops[-1].values == ("161", "0")
    assert made.summary == "Things: at most 161; last created 161, gone 0."


def test_a_chart_of_nothing_and_of_one_time() -> None:
    """Nothing is told as nothing, one time as a line across."""
    assert chart("x", "Things", [], [Line("created", [])]).empty
    (shape,) = chart("x", "Things", [NOW], [Line("created", [2.0])]).shapes
    assert shape.path.endswith(f"L{WIDE}.0 80.0")


def test_a_gap_breaks_the_line_and_what_is_pending_is_dashed() -> None:
    """No line leads over a missing value; the last step stands by itself."""
    hours = [NOW + timedelta(hours=i) for i in range(5)]
    (shape,) = chart("x", "Things", hours, [Line("created", [1, None, 3, 4, 1])], pending=True).shapes
    assert shape.path.count("M") == 2
    assert shape.pending.count("L") == 1
    assert not shape.path.endswith(shape.pending.rpartition("L")[2])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.25, "250 ms"),
        (59, "59 s"),
        (60, "1 min"),
        (90, "1 min 30 s"),
        (3 * 3600 + 5, "3 h"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_in_words(seconds: float, said: str) -> None:
    """The largest unit, and the next one where it matters."""
    assert duration(seconds) == said


def test_times_in_words() -> None:
    """Behind and ahead."""
    assert ago(NOW - timedelta(minutes=5), NOW) == "5 min ago"
    assert ago(NOW + timedelta(days=4), NOW) == "in 4 d"
    assert ago(NOW, NOW) == "now"


def test_numbers_for_an_axis() -> None:
    """Short."""
    assert [compact(n) for n in (0, 999, 1500, 20_000, 2_500_000)] == ["0", "999", "1.5k", "20k", "2.5M"]


def test_an_address_holds_any_id() -> None:
    """Whatever the id, it is one value of the query."""
    assert link("/session", id="a/b?c=d&e#f", tenant="") == "/dashboard/session?id=a%2Fb%3Fc%3Dd%26e%23f"


def test_a_tree_is_bounded() -> None:
    """It shows no more nodes than it may and says how many it leaves out; long texts are cut, and say so."""
    node = trees.tree({"many": list(range(5000)), "after": 1})
    many = node.children[0]
    assert len(many.children) + many.hidden == 5000
    assert many.hidden > 0
    assert node.hidden == 1
    (leaf,) = trees.tree(["x" * 3000]).children
    assert leaf.text.endswith("(1,002 more characters)")


def test_differences_name_their_places() -> None:
    """What was added, removed and changed, down to the value; 1 and true are not the same."""
    before = {"a": {"b": [1, 2]}, "gone": None, "kind": 1, "same": [1]}
    after = {"a": {"b": [1, 3, 4]}, "kind": True, "same": [1], "new": {}}
    found, more = trees.differences(before, after)
    assert not more
    assert [(one.path, one.change, one.before, one.after) for one in found] == [
        ("a.b[1]", "changed", "2", "3"),
        ("a.b[2]", "added", None, "4"),
        ("gone", "removed", "null", None),
        ("kind", "changed", "1", "true"),
        ("new", "added", None, "{}"),
    ]
    assert trees.differences(list(range(400)), [])[1]
