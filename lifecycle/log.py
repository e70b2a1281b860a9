"""Logging: structured events, on top of the standard library's loggers.

`get_logger` gives a structlog logger that hands its events to the stdlib logger of the same name. So an application
that embeds Lifecycle keeps its own logging set-up and reads `event key=value` lines, and importing this configures
nothing. The daemon and the command line call `configure_logging`, which renders everything that reaches the root
logger (APScheduler, SQLAlchemy and Alembic too) as JSON lines or for a console, with passwords in URLs masked.

An event's name and fields are API. Tests read them with pytest's `caplog`: `caplog.records[0].msg["event"]`.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, cast, get_args

import structlog
from structlog.types import EventDict, Processor

from lifecycle.errors import InvalidArgument

Level = Literal["debug", "info", "warning", "error", "critical"]
Format = Literal["auto", "json", "console"]

_HANDLER: Final = "lifecycle"
# SQLAlchemy logs every statement at INFO and rows at DEBUG, APScheduler every tick and Alembic every look at INFO.
# psycopg sets a level of its own, warnings, which a quieter one must replace.
_CHATTY: Final = ("sqlalchemy", "apscheduler", "alembic", "psycopg")

# Greedy up to the last @ of a word, as an unescaped password may hold :, / and @ itself. Bounded, so that a long
# hostile line costs linear time.
_URL_PASSWORD: Final = re.compile(r"(://[^\s:/?#@]{0,256}:)\S{1,4096}@")
_NAMED_PASSWORD: Final = re.compile(r"\b((?:ssl)?password|passwd|pwd)=('(?:[^'\\]|\\.)*'|[^\s&'\"]+)", re.IGNORECASE)


def configure_logging(level: Level = "info", format: Format = "auto") -> None:  # noqa: A002 -- the setting's name
    """Send every log event of this process to stderr, from `level` up.

    `json` is one object a line, `console` is for people, `auto` is console on a terminal and json elsewhere.
    Calling it again replaces what the last call set up; handlers of others stay. Raises InvalidArgument for an
    unknown level or format.
    """
    if level not in get_args(Level):
        raise InvalidArgument(f"level must be one of {', '.join(get_args(Level))}; not {level!r}")
    if format not in get_args(Format):
        raise InvalidArgument(f"format must be one of {', '.join(get_args(Format))}; not {format!r}")
    on_terminal = sys.stderr.isatty()
    as_json = format == "json" or (format == "auto" and not on_terminal)

    handler = logging.StreamHandler(sys.stderr)
    handler.set_name(_HANDLER)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _drop_formatted],
            processors=[
                structlog.stdlib.add_log_level,
                _add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
                structlog.processors.StackInfoRenderer(),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_json_renderers() if as_json else _console_renderers(colors=on_terminal)),
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == _HANDLER]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    number = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    structlog.configure(
        processors=_CHAIN,
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module: `get_logger(__name__).info("event_name", key=value)`.

    Its level and handlers are those of the stdlib logger `name`; `.bind(session_id=...)` adds fields to its events.
    """
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=_CHAIN,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return cast("structlog.stdlib.BoundLogger", logger)


def mask_passwords(text: str) -> str:
    """Return `text` with each password in a URL (`://user:secret@`) or a DSN (`password=secret`) replaced by `***`."""
    if "@" in text:
        text = _URL_PASSWORD.sub(r"\1***@", text)
    if "=" in text:
        text = _NAMED_PASSWORD.sub(r"\1=***", text)
    return text


class _Event(dict[str, Any]):
    """An event as a log record's message: a mapping to our formatter, `event key=value` to any other."""

    def __str__(self) -> str:
        pairs = (f"{key}={value!r}" for key, value in self.items() if key not in ("event", "exc_info", "stack_info"))
        return mask_passwords(" ".join((str(self.get("event", "")), *pairs)))


def _to_record(logger: logging.Logger, name: str, event_dict: EventDict) -> tuple[tuple[_Event], dict[str, Any]]:
    """Hand the event to the stdlib logger, in the form ProcessorFormatter knows as structlog's."""
    passed = {key: event_dict[key] for key in ("exc_info", "stack_info") if key in event_dict}
    return (_Event(event_dict),), {**passed, "extra": {"_logger": logger, "_name": name}}


_CHAIN: Final[list[Any]] = [
    structlog.stdlib.filter_by_level,
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.PositionalArgumentsFormatter(),
    _to_record,
]


def _add_logger_name(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    event_dict["logger"] = event_dict["_record"].name
    return event_dict


def _drop_formatted(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    # Another handler's formatter leaves these on the record, where they look like extra fields.
    event_dict.pop("message", None)
    event_dict.pop("asctime", None)
    return event_dict


def _mask_event(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    return cast("MutableMapping[str, Any]", _masked(event_dict))


def _masked(value: object) -> object:
    if isinstance(value, str):
        return mask_passwords(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(item) for item in value]
    # What is left would be rendered by its repr later, after the masking: an exception's repr quotes its URL.
    return mask_passwords(repr(value))


def _json_renderers() -> list[Processor]:
    # Locals are left out of tracebacks: they hold sessions' content and secrets.
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(transformer),
        _mask_event,
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]


def _console_renderers(*, colors: bool) -> list[Processor]:
    # The traceback becomes text before the masking, so the console renderer has nothing left to format.
    return [
        structlog.processors.format_exc_info,
        _mask_event,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback),
    ]
