"""What came of a transfer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from lifecycle.models import tables as t


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What was written (or would be, in a dry run): `rows` by table, and `sessions` among them.

    `skipped` and `replaced` are sessions that were there already; `bytes` are those of the file.
    """

    file: str
    dry_run: bool
    sessions: int
    skipped: int
    replaced: int
    rows: dict[str, int]
    rows_total: int
    bytes: int
    seconds: float
    rows_per_second: int

    @classmethod
    def of_rows(cls, file: str, rows: Mapping[str, int], *, size: int, seconds: float, **more: Any) -> Self:
        """A report on so many rows by table, in a file of `size` bytes."""
        total = sum(rows.values())
        counted = {"dry_run": False, "skipped": 0, "replaced": 0} | more
        return cls(
            file=file, sessions=rows.get(t.sessions.name, 0), rows=dict(rows), rows_total=total, bytes=size,
            seconds=round(seconds, 3), rows_per_second=round(total / max(seconds, 1e-9)), **counted,
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)
