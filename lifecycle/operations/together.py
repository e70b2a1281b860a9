"""Several calls in one transaction: all of them, or none."""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final

from lifecycle.errors import InvalidArgument, LimitExceeded, SessionNotFound, VersionConflict
from lifecycle.operations import messages, saving, sessions
from lifecycle.operations.context import Context, check_count
from lifecycle.operations.requests import (
    READS,
    CreateSession,
    DuplicateKey,
    Expect,
    GetSession,
    OfSession,
    ReadTogether,
    Refused,
    Together,
)
from lifecycle.operations.typing import Steps

Call = tuple[str, Mapping[str, Any]]
"""The name of a method, and its arguments by their names."""


def expect_session(context: Context, session_id: str, *, version: int, phase: str | None) -> Steps[bool]:
    """True where the session is at this version and in this phase. Raises `SessionNotFound`, `VersionConflict`.

    A session that was removed and made anew may come to a version that the one before had: its phase, where that never
    recurs, tells them apart.
    """
    check_count(version, "version", 1, 2**63 - 1)
    session_id = context.check_id(session_id)
    answer = yield Expect(context.tenant, session_id, version, context.check_short(phase, "phase"))
    if answer is None:
        row = yield GetSession(context.tenant, session_id)
        if row is None:
            raise SessionNotFound(session_id)
        raise VersionConflict(session_id, version, row["version"])
    return True


_CALLS: Final[Mapping[str, Callable[..., Steps[Any]]]] = {
    "expect_session": expect_session,
    "create_session": sessions.create_session,
    "save_state": saving.save_state,
    "add_message": messages.add_message,
    "add_messages": messages.add_messages,
    "get_session": sessions.get_session,
    "load_state": saving.load_state,
    "get_messages": messages.get_messages,
}
# What a save may take several transactions for.
_NOT_TOGETHER: Final = ("conversation", "token")


def together(context: Context, calls: Sequence[Call]) -> Steps[list[Any]]:
    """Make several calls in one transaction, and return what each of them returns.

    A call is the name of a method and its arguments by name, as in `("save_state", {"session_id": "a", "step": 2})`.
    The methods are create_session, save_state (without `conversation` and `token`; `append` is fine), add_message and
    add_messages, and the reads get_session, load_state and get_messages; and `expect_session`, with `version` and
    `phase`, refuses all where a session is not what it is thought to be. They are about sessions of one tenant, one or
    several. At most `limits.page_size` calls.
    Raises what they raise, and `MessageExists` for a message whose id is taken; then nothing was done.
    """
    if len(calls) > context.limits.page_size:
        raise LimitExceeded("calls", len(calls), context.limits.page_size, "calls", "limits.page_size")
    begun = [_Begun(context, call, f"calls[{i}]") for i, call in enumerate(calls)]
    # In the order of their keys, as everything does that locks several sessions.
    asking = sorted((one for one in begun if one.request is not None), key=lambda one: one.key)
    if asking:
        requests = tuple(one.request for one in asking)
        kind = ReadTogether if all(isinstance(request, READS) for request in requests) else Together
        try:
            answers = yield kind(requests)
        except Refused as refused:
            yield from asking[refused.place].goes_on(None)
            raise AssertionError("what was refused says why") from refused
        except DuplicateKey:
            yield from _who_exists(asking)
            raise
        for one, answer in zip(asking, answers, strict=True):
            one.value = yield from one.goes_on(answer)
    return [one.value for one in begun]


class _Begun:
    """A call up to what it asks of the database first; `request` is None where it asks nothing."""

    def __init__(self, context: Context, call: Call, where: str) -> None:
        name, arguments = _checked(call, where)
        self.value: Any = None
        self.request: Any = None
        try:
            self._steps: Generator[Any, Any, Any] = _CALLS[name](context, **arguments)
            self.request = next(self._steps)
        except StopIteration as done:
            self.value = done.value
        except TypeError as error:
            raise InvalidArgument(f"{where}: {error}") from error

    @property
    def key(self) -> tuple[str, str]:
        """Whose session it is about, and which."""
        request: OfSession = self.request
        return request.tenant, request.session_id

    def goes_on(self, answer: Any) -> Steps[Any]:
        """What it returns, or raises, after this answer."""
        try:
            request = self._steps.send(answer)
            while True:
                if not isinstance(request, READS):
                    raise AssertionError(f"a second write: {request}")  # noqa: TRY004 -- ours alone
                request = self._steps.send((yield request))
        except StopIteration as done:
            return done.value


def _checked(call: Any, where: str) -> Call:
    try:
        name, arguments = call
        known = name in _CALLS
    except (TypeError, ValueError):
        raise InvalidArgument(f"{where} must be the name of a method and its arguments, not {call!r}") from None
    if not known:
        raise InvalidArgument(f"{where}: {name!r} is not one of {', '.join(_CALLS)}")
    if not isinstance(arguments, Mapping):
        raise InvalidArgument(f"{where}: the arguments must be a mapping, not {type(arguments).__name__}")
    for refused in _NOT_TOGETHER:
        if name == "save_state" and refused in arguments:
            raise InvalidArgument(f"{where}: save_state takes no {refused} together with other calls")
    return name, arguments


def _who_exists(asking: Sequence[_Begun]) -> Steps[None]:
    """Raise for the session that somebody else made while we did."""
    for one in asking:
        request = one.request
        if isinstance(request, CreateSession):
            found = yield GetSession(request.tenant, request.session_id, deleted=True)
            if found is not None:
                yield from one.goes_on(None)
