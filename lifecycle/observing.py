"""Whoever wants to know what the library does in this process: metrics and traces, when they are turned on.

As long as nobody does, a call of a manager costs one look at an empty tuple more.
"""

import threading
from collections.abc import Callable
from typing import Any

# Called when an operation ends, with what it raised or None, and with what it returned.
End = Callable[[BaseException | None, Any], None]


class Observer:
    """Is told what happens, on the thread on which it happens. Each method must be quick, and must not raise."""

    def begin(self, name: str, manager: Any) -> End:
        """An operation of a manager's begins."""
        del name, manager
        return _nothing

    def swept(self, name: str, done: dict[str, Any], error: BaseException | None) -> None:
        """A run of a worker's job ended: `done` is what it did until then."""

    def lease_lost(self, why: str) -> None:
        """A lease of this process must not be relied on any more."""


OBSERVERS: tuple[Observer, ...] = ()
_guard = threading.Lock()


def observe(observer: Observer) -> None:
    """Tell the observer from now on."""
    global OBSERVERS  # noqa: PLW0603 -- a tuple, so that who goes through it sees all or none of a change
    with _guard:
        if observer not in OBSERVERS:
            OBSERVERS = (*OBSERVERS, observer)


def forget(observer: Observer) -> None:
    """Tell it no longer."""
    global OBSERVERS  # noqa: PLW0603 -- as above
    with _guard:
        OBSERVERS = tuple(one for one in OBSERVERS if one is not observer)


def begin(name: str, manager: Any) -> list[End]:
    """Tell that an operation begins: whom to tell of its end."""
    return [observer.begin(name, manager) for observer in OBSERVERS]


def end(ends: list[End], error: BaseException | None, result: Any = None) -> None:
    """Tell that it has ended, in the opposite order: who came in last goes out first."""
    for tell in reversed(ends):
        tell(error, result)


def _nothing(_error: BaseException | None, _result: Any) -> None:
    pass
