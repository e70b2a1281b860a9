"""What the drivers share: feeding an operation, calling hooks, and refusing a forked process."""

import inspect
import os
from collections.abc import Awaitable, Callable
from typing import Any

from lifecycle.errors import InvalidArgument, LifecycleError, StorageUnavailable
from lifecycle.log import get_logger
from lifecycle.operations.lifecycle import AfterHook
from lifecycle.operations.requests import READS, CallHook, DuplicateKey, EraseArchived, Request
from lifecycle.operations.typing import Steps, T

log = get_logger("lifecycle")

# A transaction that the database broke off (deadlock, serialisation) was rolled back whole: it is safe to run again.
ATTEMPTS = 8
# Seconds that a transaction may stand still before the server breaks it off: a client that was stopped, or whose
# network is gone, would keep its locks for as long, and everybody waiting.
IDLE = 10


class Aborted(Exception):
    """The database rolled the transaction back for a reason that passes; run it again."""


class Stepper:
    """Remembers the process it was made in."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def check_process(self) -> None:
        """A connection shared with a parent process mixes up the answers of both: refuse."""
        if os.getpid() != self._pid:
            raise LifecycleError("this manager was opened before fork(): open one in the child process")


def erase_archived(request: EraseArchived) -> int:
    """Erase a user's sessions from the archive, which may take long, outside of any transaction."""
    erased: int = request.archive.erase(request.tenant, request.user_id)
    return erased


def is_read(request: Request) -> bool:
    """Whether a request changes nothing, so that it may be repeated on another connection."""
    return isinstance(request, READS)


def run(operation: Steps[T], meet: Callable[[Any], Any]) -> T:
    """Feed an operation the answers to its requests and return what it returns."""
    try:
        request = next(operation)
        while True:
            try:
                answer = meet(request)
            except (DuplicateKey, StorageUnavailable) as error:
                request = operation.throw(error)
            else:
                request = operation.send(answer)
    except StopIteration as done:
        value: T = done.value
        return value


async def run_async(operation: Steps[T], meet: Callable[[Any], Awaitable[Any]]) -> T:
    """The same, awaiting each answer."""
    try:
        request = next(operation)
        while True:
            try:
                answer = await meet(request)
            except (DuplicateKey, StorageUnavailable) as error:
                request = operation.throw(error)
            else:
                request = operation.send(answer)
    except StopIteration as done:
        value: T = done.value
        return value


def call_hook(request: CallHook) -> Any:
    """Call a user's function; the failure of one behind a commit is logged, as the work stands."""
    try:
        return request.hook(*request.args)
    except Exception:
        if not isinstance(request.hook, AfterHook):
            raise
        _log_failure(request.hook)
        return None


def call_sync_hook(request: CallHook) -> Any:
    """Call a hook where nobody can await it."""
    answer = call_hook(request)
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise InvalidArgument("an async hook needs an AsyncSessionManager: nobody could await it here")
    return answer


async def call_async_hook(request: CallHook) -> Any:
    """Call a hook and await what it returns."""
    answer = call_hook(request)
    if not inspect.isawaitable(answer):
        return answer
    try:
        return await answer
    except Exception:
        if not isinstance(request.hook, AfterHook):
            raise
        _log_failure(request.hook)
        return None


def _log_failure(hook: AfterHook) -> None:
    log.exception(  # noqa: LOG004 - called from within the handlers
        "hook_failed", hook=getattr(hook.hook, "__qualname__", repr(hook.hook))
    )
