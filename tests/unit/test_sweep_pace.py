"""How a sweep chooses the size of its batches, and where each begins: the operation, fed by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle import ALL, InvalidArgument, Settings, StorageUnavailable
from lifecycle.models.reads import SweepReport
from lifecycle.operations import sweeps
from lifecycle.operations.context import Context
from lifecycle.operations.pace import AIM, FIRST
from lifecycle.operations.requests import OldestDue, Pause, SweepBatch, SweptIds, Trim

AT = datetime(2026, 11, 21, 7, tzinfo=UTC)
TOO_LONG = StorageUnavailable("the statement took longer than database.statement_timeout")


@dataclass
class Table:
    """So many due rows, a second apart, which take `each` seconds a row; statements on more than `most` run too long."""

    context: Context
    due: int
    each: float = 0.0001
    most: int = 10_000
    batches: list[tuple[int, datetime | None]] = field(default_factory=list)
    clock: float = 0.0

    def run(self, **options: Any) -> SweepReport:
        """Sweep it."""
        self.context.monotonic = lambda: self.clock
        report: SweepReport = self.feed(sweeps.expire_idle(self.context, **options))
        return report

    def feed(self, steps: Any) -> Any:
        """Answer an operation's requests."""
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                request = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as done:
                return done.value
            answer, error = None, None
            match request:
                case OldestDue():
                    answer = (AT if self.due else None), AT
                case Pause():
                    self.clock += request.seconds
                case SweepBatch() if request.limit > self.most:
                    self.batches.append((request.limit, request.since))
                    error = TOO_LONG
                case SweepBatch():
                    answer = self._swept(request)
                case Trim():
                    answer = min(request.limit, self.due)
                    self.due -= answer
                    self.batches.append((request.limit, None))
                    self.clock += answer * self.each

    def _swept(self, request: SweepBatch) -> SweptIds:
        self.batches.append((request.limit, request.since))
        count = min(request.limit, self.due)
        self.due -= count
        self.clock += count * self.each
        return SweptIds([("", f"s{n}") for n in range(count)], AT - timedelta(seconds=self.due))

    @property
    def sizes(self) -> list[int]:
        """How many rows each batch asked for."""
        return [size for size, _ in self.batches]


@pytest.fixture
def table() -> Callable[..., Table]:
    """Make tables, each swept by a manager of its own."""
    return lambda due, **more: Table(Context(Settings(), ALL), due, **more)


@pytest.mark.parametrize(("each", "size"), [(0.0001, 2500), (0.00005, 5000), (0.001, 250)])
def test_batches_come_to_take_a_quarter_of_a_second(table: Callable[..., Table], each: float, size: int) -> None:
    """The first one has 500 rows; then each has as many as are done in the time, and 5,000 at most."""
    swept = table(30_000, each=each)
    report = swept.run()
    assert (report.count, report.complete, swept.due) == (30_000, True, 0)
    assert swept.sizes[0] == FIRST
    assert swept.sizes[5:-2] == [size] * (len(swept.sizes) - 7) != []
    assert size * each <= AIM


def test_a_batch_has_no_more_than_the_caller_says(table: Callable[..., Table]) -> None:
    """However quick they are; and what he said is not kept for the next one."""
    swept = table(100)
    assert swept.run(batch=7).batches == 15
    assert set(swept.sizes) == {7}
    swept.due = 1000
    swept.run()
    assert swept.sizes[-3:] == [500, 1000, 1000]


def test_what_is_slow_for_another_reason_is_not_cut_up(table: Callable[..., Table]) -> None:
    """Batches of rows that take 50 ms each come down to a hundred, not to five: fewer may take as long."""
    swept = table(2000, each=0.05)
    swept.run()
    assert swept.sizes[:4] == [500, 250, 125, 100]
    assert set(swept.sizes[3:]) == {100}


def test_the_next_sweep_goes_on_as_the_last_one_did(table: Callable[..., Table]) -> None:
    """What one learnt is not learnt again, and a short batch says nothing."""
    swept = table(20_000)
    swept.run()
    learnt = swept.sizes[-1]
    for due in (1, 20_000):
        swept.batches.clear()
        swept.due = due
        swept.run()
        assert swept.sizes[0] == learnt == 2500


def test_a_statement_that_takes_too_long_is_tried_with_a_quarter(table: Callable[..., Table]) -> None:
    """Again and again; the sweep still does all of it, and the next one does not begin anew."""
    swept = table(60, most=20)
    report = swept.run()
    assert (report.count, report.complete) == (60, True)
    assert swept.sizes[:4] == [500, 125, 31, 7]
    assert max(swept.sizes[3:]) <= 28
    swept.batches.clear()
    swept.due = 7
    swept.run()
    assert swept.sizes[0] <= 28


def test_one_row_that_takes_too_long_is_an_error(table: Callable[..., Table]) -> None:
    """There is no smaller batch."""
    swept = table(5, most=0)
    with pytest.raises(StorageUnavailable, match="statement_timeout"):
        swept.run()
    assert swept.sizes == [500, 125, 31, 7, 1]


def test_each_batch_begins_where_the_last_one_ended(table: Callable[..., Table]) -> None:
    """A last one begins anew, for what others held meanwhile; one that is short at once is the last."""
    swept = table(25)
    swept.run(batch=10)
    assert [since for _, since in swept.batches] == [None, AT - timedelta(seconds=15), AT - timedelta(seconds=5), None]
    swept.batches.clear()
    swept.due = 5
    swept.run(batch=10)
    assert [since for _, since in swept.batches] == [None]


def test_a_sweep_ends_when_it_is_told_to(table: Callable[..., Table]) -> None:
    """`go_on` hears after each batch how many are done, and ends it; so does the budget, after the first at least."""
    heard: list[int] = []

    def go_on(count: int) -> bool:
        heard.append(count)
        return count < 20

    report = table(100).run(batch=10, go_on=go_on)
    assert (heard, report.count, report.batches, report.complete) == ([10, 20], 20, 2, False)
    report = table(100, each=1.0).run(batch=10, budget=15)
    assert (report.count, report.complete) == (20, False)
    report = table(100).run(batch=10, budget=0.0)
    assert (report.count, report.complete) == (10, False)


def test_a_sweep_with_nothing_to_do_asks_nobody(table: Callable[..., Table]) -> None:
    """There is no batch, and nothing to go on with."""
    swept = table(0)
    assert swept.run(go_on=lambda _: pytest.fail("asked")).complete
    assert swept.batches == []


@pytest.mark.parametrize("options", [{"go_on": True}, {"batch": 0}, {"batch": 10_001}])
def test_what_cannot_be_is_refused(table: Callable[..., Table], options: dict[str, Any]) -> None:
    """With the parameter's name."""
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        table(1).run(**options)


def test_trimming_goes_by_the_same_pace(table: Callable[..., Table]) -> None:
    """And ends when it is told to, after the batch under way."""
    swept = table(20_000)
    swept.context.monotonic = lambda: swept.clock
    assert swept.feed(sweeps.trim(swept.context, go_on=lambda count: count < 10_000)) >= 10_000
    assert swept.sizes == [500, 1000, 2000, 2500, 2500, 2500]
