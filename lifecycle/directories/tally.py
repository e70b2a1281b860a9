"""What a sync counts while it runs."""

from dataclasses import dataclass, field
from typing import Final

_LISTED: Final = 100


@dataclass
class Tally:
    """The figures of a sync's report so far."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    ended: int = 0
    failed: int = 0
    messages: int = 0
    transcripts_opened: int = 0
    transcript_bytes: int = 0
    indexes_opened: int = 0
    index_bytes: int = 0
    malformed: int = 0
    torn: int = 0
    done: int = 0
    problem_count: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """Sessions that were written."""
        return self.created + self.updated

    def problem(self, where: str, reason: str) -> None:
        """Note something that was passed over."""
        self.problem_count += 1
        if len(self.problems) < _LISTED:
            self.problems.append((where, reason))
