"""A sweep from the command line, batch by batch: it shows how far it is, and Ctrl-C ends it between two batches."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from lifecycle.cli.output import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from lifecycle.models.reads import SweepReport

# Who waits longer wants to see how far it is; what is due is counted only then.
_PATIENCE_SECONDS: Final = 1.0

Sweep = Callable[..., "SweepReport"]


def in_batches(run: Sweep, budget: float | None) -> tuple["SweepReport", bool]:
    """Run a sweep until nothing is due, the budget is used up or Ctrl-C; its report, and whether that was Ctrl-C.

    A second Ctrl-C does not wait for the batch under way, which is then rolled back.
    """
    began = time.monotonic()
    with _asked_to_stop() as asked, _bar(run) as show:

        def go_on(count: int) -> bool:
            if not asked():
                show(count, time.monotonic() - began)
            return not asked()

        done = run(budget=budget, go_on=go_on)
        interrupted = asked() and not done.complete
    if interrupted:
        say(f"interrupted: {done.count:,} done in {done.batches:,} batches, more are due; run it again to go on")
    return done, interrupted


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed."""
    pressed = False

    def stop(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(run: Sweep) -> Iterator[Callable[[int, float], None]]:
    """Give a function that shows how many are done after so many seconds; on a terminal only."""
    shown: tuple[Progress, TaskID] | None = None

    def show(count: int, seconds: float) -> None:
        nonlocal shown
        if shown is None:
            if seconds < _PATIENCE_SECONDS or not sys.stderr.isatty():
                return
            shown = _started(count + run(dry_run=True).count)
        shown[0].update(shown[1], completed=count)

    try:
        yield show
    finally:
        if shown is not None:
            shown[0].stop()


def _started(total: int) -> "tuple[Progress, TaskID]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("Ctrl-C stops after this batch"))
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.start()
    return progress, progress.add_task("", total=total)
