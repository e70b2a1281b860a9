"""Logging: events to stderr as JSON or for people, others' loggers too, and no passwords."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.errors import InvalidArgument
from lifecycle.log import configure_logging, get_logger, mask_passwords

URL = "postgresql://me:hunter2@host/db"


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Put the process's logging back as it was."""
    loggers = [logging.getLogger(name) for name in (None, "sqlalchemy", "apscheduler", "alembic", "psycopg")]
    levels, handlers = [logger.level for logger in loggers], list(loggers[0].handlers)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    loggers[0].handlers[:] = handlers
    structlog.reset_defaults()


class Stderr:
    """What a test's process writes to stderr, which is no terminal here."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    @property
    def text(self) -> str:
        """Return what was written since the last look."""
        return self._capsys.readouterr().err

    def events(self) -> list[dict[str, Any]]:
        """Return the JSON lines written since the last look."""
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Stderr:
    """Return the test's stderr."""
    return Stderr(capsys)


def fail(error: Exception, cause: Exception | None = None) -> None:
    """Raise `error`, with locals that must not be logged."""
    content = "of a session"
    raise error from (cause if content else None)


def test_an_event_is_one_json_line(stderr: Stderr) -> None:
    """Away from a terminal: name, fields, level, logger, and the time in ISO 8601 and UTC."""
    configure_logging()
    get_logger("lifecycle.sweep").info("swept", rows=3, name="a\nb", args=[1], module="ü")
    (event,) = stderr.events()
    written = datetime.fromisoformat(event.pop("timestamp"))
    assert written.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)
    expected = {"event": "swept", "level": "info", "logger": "lifecycle.sweep", "rows": 3}
    assert event == expected | {"name": "a\nb", "args": [1], "module": "ü"}


def test_on_a_terminal_events_are_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` asks stderr; what is logged is no JSON there, in colours."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    configure_logging()
    get_logger("lifecycle").info("swept", rows=3)
    assert "swept" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_the_format_can_be_told(monkeypatch: pytest.MonkeyPatch, stderr: Stderr) -> None:
    """JSON on a terminal is json; console elsewhere has no colours."""
    configure_logging(format="console")
    get_logger("lifecycle").info("swept", rows=3)
    text = stderr.text
    assert "rows=3" in text
    assert "\x1b[" not in text
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    configure_logging(format="json")
    get_logger("lifecycle").info("swept", rows=3)
    assert json.loads(terminal.getvalue())["rows"] == 3


@pytest.mark.parametrize("name", ["apscheduler.scheduler", "sqlalchemy.pool", "alembic.runtime.migration"])
def test_other_libraries_go_the_same_way(stderr: Stderr, name: str) -> None:
    """A stdlib record comes out as our events do, its arguments filled in and its extra fields kept."""
    configure_logging()
    logging.getLogger(name).warning("late by %s", "3s", extra={"job": "prune"})
    (event,) = stderr.events()
    assert (event["event"], event["level"], event["logger"], event["job"]) == ("late by 3s", "warning", name, "prune")


@pytest.mark.parametrize(
    ("level", "passed"),
    [
        ("debug", ["lifecycle", "lifecycle"]),
        ("info", ["lifecycle"]),
        ("error", []),
    ],
)
def test_the_level_holds_and_statements_are_never_logged(stderr: Stderr, level: Any, passed: list[str]) -> None:
    """What is below the level is dropped; libraries that are chatty at info speak from warning up."""
    configure_logging(level)
    get_logger("lifecycle").debug("quiet")
    get_logger("lifecycle").info("said")
    for name in ("alembic", "sqlalchemy.engine", "apscheduler", "psycopg.pool"):
        logging.getLogger(name).info("INSERT")
    assert [event["logger"] for event in stderr.events()] == passed


def test_calling_again_replaces_and_leaves_others(stderr: Stderr) -> None:
    """An event is written once however often logging is configured, and a host's handlers stay."""
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    configure_logging()
    configure_logging()
    get_logger("lifecycle").info("said")
    assert len(stderr.events()) == 1
    assert other in logging.getLogger().handlers


def test_an_exception_is_structured_and_shows_no_locals(stderr: Stderr) -> None:
    """Type, message and frames are fields; values of variables, which hold secrets, are not there."""
    configure_logging()
    try:
        try:
            fail(ValueError(1))
        except ValueError as cause:
            fail(ConnectionError(f"cannot reach {URL}"), cause)
    except ConnectionError:
        get_logger("lifecycle").exception("failed")
        logging.getLogger("alembic").exception("failed too")
    text = stderr.text
    assert text.count("\n") == 2
    for line in text.splitlines():
        event = json.loads(line)
        first, second = event["exception"]
        assert (first["exc_type"], first["exc_value"]) == (
            "ConnectionError",
            "cannot reach postgresql://me:***@host/db",
        )
        assert second["exc_type"] == "ValueError"
        assert first["frames"][-1]["name"] == "fail"
    assert "hunter2" not in text
    assert "of a session" not in text


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_password_is_written(stderr: Stderr, form: Any) -> None:
    """Not from the event, a field, something nested, an exception's text, its repr or a stdlib record."""
    configure_logging(format=form)
    log = get_logger("lifecycle").bind(url=URL)
    log.info("open %s", URL, nested={"urls": [(URL,)]}, error=ValueError(URL), raw=URL.encode())
    try:
        fail(ConnectionError(URL))
    except ConnectionError:
        log.exception("failed")
    logging.getLogger("sqlalchemy").warning("lost %s", URL)
    text = stderr.text
    assert text.count("me:***@host") >= 8
    assert "hunter2" not in text


def test_without_configuration_an_event_is_a_plain_record(caplog: pytest.LogCaptureFixture) -> None:
    """An application's own handlers get readable text and a traceback, and its tests the fields."""
    with caplog.at_level("INFO", logger="lifecycle"):
        get_logger("lifecycle.lease").info("lease_lost", session_id="s1", url=URL)
        try:
            fail(KeyError(1))
        except KeyError:
            get_logger("lifecycle.lease").exception("broken")
    first, second = caplog.records
    assert (first.name, first.levelname) == ("lifecycle.lease", "INFO")
    assert first.getMessage() == "lease_lost session_id='s1' url='postgresql://me:***@host/db'"
    assert first.msg == {"event": "lease_lost", "session_id": "s1", "url": URL}
    assert second.exc_info is not None
    assert second.exc_info[0] is KeyError


def test_importing_configures_nothing() -> None:
    """In a new process, the import leaves the root logger and structlog as they were, and info is not printed."""
    code = (
        "import logging, structlog; from lifecycle.log import get_logger\n"
        "get_logger('lifecycle').info('said')\n"
        "assert not logging.getLogger().handlers and not structlog.is_configured()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_an_unknown_level_or_format_is_refused() -> None:
    """And what is allowed is told."""
    with pytest.raises(InvalidArgument, match="debug, info, warning"):
        configure_logging("loud")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="auto, json, console"):
        configure_logging(format="xml")  # type: ignore[arg-type]


@given(password=st.text(st.characters(exclude_categories=("Z", "C")), min_size=1))
def test_any_password_of_a_url_is_masked(password: str) -> None:
    """Whatever it is made of, @ and / included, and whatever stands around it."""
    text = f"cannot open postgresql://me:{password}@host/db now"
    assert mask_passwords(text) == "cannot open postgresql://me:***@host/db now"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:pw@host", "redis://:***@host"),
        ("host=h password=pw user=u", "host=h password=*** user=u"),
        (r"password='p \' w' user=u", "password=*** user=u"),
        ("a://u:p@h, b://u:q@h", "a://u:***@h, b://u:***@h"),
        ("http://host:80/path", "http://host:80/path"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("at 10:30 mail a@b.c", "at 10:30 mail a@b.c"),
    ],
)
def test_what_is_masked_and_what_is_left(text: str, masked: str) -> None:
    """Passwords go; user, host and everything else stay."""
    assert mask_passwords(text) == masked
