"""A table of the benchmark's, for a terminal and for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Grid:
    """A head and rows of text. The first `texts` columns are names, the others figures, which stand to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    title: str | None = None

    def rich(self) -> Table:
        """For a terminal; a name that the row above has in the first column too is told once."""
        table = Table(*self.head, title=self.title, title_justify="left")
        for column in table.columns[self.texts :]:
            column.justify = "right"
        told = [True, *(before[0] != row[0] for before, row in pairwise(self.rows))]
        for first, row in zip(told, self.rows, strict=False):
            table.add_row(row[0] if first or self.texts == 1 else "", *row[1:])
        return table

    def markdown(self) -> str:
        """For the page, with a line break at the end."""
        marks = ["---" if place < self.texts else "---:" for place in range(len(self.head))]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.head, marks, *self.rows)]
        return "\n".join(lines) + "\n"
