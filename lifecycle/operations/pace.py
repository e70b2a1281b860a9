"""How many rows a sweep takes at a time: as many as are done in a quarter of a second."""

from typing import Final

# Seconds that a batch should take. It holds the locks of its rows for as long, on SQLite the only writer's place.
AIM: Final = 0.25
# Rows of the first batch.
FIRST: Final = 500
# Fewer are taken only where a statement ran into its timeout: what takes that long with so few is not their number.
_LEAST: Final = 100


class Pace:
    """The number of rows that the next batch takes, learnt from the time that the last one took."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        self.rows = FIRST

    def took(self, asked: int, done: int, seconds: float) -> None:
        """Learn from a batch of at most `asked` rows that did `done` of them."""
        if seconds <= AIM and (done < asked or asked < self.rows):
            # There were no more, or the caller wanted no more: it says nothing of how many could be done.
            return
        factor = min(2.0, max(0.5, AIM / max(seconds, 0.001)))
        self.rows = max(round(asked * factor), min(asked, _LEAST))

    def timed_out(self, asked: int) -> int:
        """Take a quarter of what was too many; how many that is."""
        self.rows = max(1, asked // 4)
        return self.rows
