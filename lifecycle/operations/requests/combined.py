"""Requests that hold others, and those about nothing stored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lifecycle.operations.requests.base import OfSession, Request


@dataclass(slots=True)
class Expect(OfSession):
    """Lock a session that is at a version and in a phase, for a `Together`: True, or None if it is not."""

    version: int
    phase: str | None


@dataclass(slots=True)
class Together(Request):
    """Meet requests in one transaction, in this order: the answer of each. Raises `Refused`, with nothing done."""

    requests: tuple[Request, ...]


@dataclass(slots=True)
class ReadTogether(Together):
    """The same of reads only."""


@dataclass(slots=True)
class SideBySide(Request):
    """Carry out requests about one session each, in one transaction as far as they go well.

    For each what it is answered, or the error that it would have raised alone: none touches another. What is asked for
    the same session is carried out in the order given.
    """

    requests: tuple[OfSession, ...]


@dataclass(slots=True)
class CallHook(Request):
    """Call a user's function; an async driver awaits what it returns. The answer is its result."""

    hook: Callable[..., Any]
    args: tuple[Any, ...]


@dataclass(slots=True)
class Pause(Request):
    """Wait for so many seconds."""

    seconds: float
