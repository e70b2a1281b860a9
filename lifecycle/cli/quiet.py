"""What libraries log during a command: on stderr in our format, and never what our own error says anyway."""

import logging
from typing import Final

from lifecycle.log import configure_logging
from lifecycle.settings import LoggingSettings

_POOL: Final = "psycopg.pool"
_FAILED: Final = "error connecting in 'lifecycle': "
_CHARS: Final = 300


class _LastReason(logging.Handler):
    """Keeps why the pool could not connect last: it tries on until its time is up, and then has no reason to give."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first line of the message, without where it comes from."""
        first, *_ = record.getMessage().splitlines() or [""]
        if first.startswith(_FAILED):
            self.text = first.removeprefix(_FAILED).removeprefix("connection failed: ")[:_CHARS]


_reason: Final = _LastReason(logging.WARNING)


def prepare(settings: LoggingSettings | None = None) -> None:
    """Set the logging of one command up; by default with the default settings."""
    settings = settings or LoggingSettings()
    configure_logging(settings.level, settings.format)
    logging.captureWarnings(capture=True)
    pool = logging.getLogger(_POOL)
    pool.propagate = False
    if _reason not in pool.handlers:
        pool.addHandler(_reason)
    _reason.text = ""


def with_reason(problem: str) -> str:
    """The problem, and why no connection was made if that is what happened."""
    if not _reason.text or _reason.text in problem:
        return problem
    return f"{problem}: {_reason.text}"
