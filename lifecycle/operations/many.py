"""Many sessions in one call: what is done for one session each, side by side, with few round trips.

The calls are the operations for one session themselves. What they ask of the database goes there together, in
transactions of at most `AT_ONCE` sessions, and each is answered as if it had been alone.
"""

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from lifecycle.errors import InvalidArgument, LifecycleError, SchemaOutdated, StorageUnavailable
from lifecycle.models.reads import Message
from lifecycle.operations.context import Context
from lifecycle.operations.messages import add_messages
from lifecycle.operations.requests import DuplicateKey, SideBySide
from lifecycle.operations.saving import repeated, save_state
from lifecycle.operations.typing import Steps

T = TypeVar("T")
Item = Mapping[str, Any]

AT_ONCE: Final = 250
"""Sessions of one transaction: others wait for their locks as long as it takes, which is milliseconds for so many."""

# What says that the database fails, and not the call.
_FAILING: Final = (StorageUnavailable, SchemaOutdated)


def save_many(context: Context, saves: Sequence[Item]) -> Steps[list[int | LifecycleError]]:
    """Save the states of many sessions with few round trips; what is durable when it returns, each one's outcome says.

    Each of `saves` is a mapping with `session_id` and what `save_state` takes: `{"session_id": "a", "step": 3, "lease": lease}`.
    For each, in the order given, there comes back what `save_state` would have returned, its new version, or the error that
    it would have raised: a refusal is that item's alone. Several for one session are saved one after the other, in the
    order given. The sessions are saved in the order of their ids, in transactions of at most 250 of them: when the process
    dies, each transaction is there as a whole or not at all. A session that somebody else has locked for long is saved
    by itself. When the database fails, what was not yet tried is `StorageUnavailable` too, and is not tried.
    Raises `InvalidArgument`, before anything is saved, for an item that is no such mapping.
    """
    items = _checked(context, saves, "saves", save_state)
    return (yield from _side_by_side([(item["session_id"], _saving(context, item)) for item in items]))


def add_messages_many(context: Context, additions: Sequence[Item]) -> Steps[list[list[Message] | LifecycleError]]:
    """Append messages to many sessions with few round trips, as `save_many` saves states.

    Each of `additions` is a mapping with `session_id`, `messages`, and a `lease` if there is one. For each, in the order
    given, there comes back what `add_messages` would have returned, or the error that it would have raised.
    """
    items = _checked(context, additions, "additions", add_messages)
    return (yield from _side_by_side([(item["session_id"], add_messages(context, **item)) for item in items]))


def _checked(context: Context, items: Sequence[Item], name: str, operation: Callable[..., Any]) -> list[Item]:
    """The items if each is what the operation takes by name: whoever misspells one meant none of them so."""
    _ = context.tenant  # a manager of all tenants is told at once, and not of each item
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, Sequence):
        raise InvalidArgument(f"{name} must be a list of mappings, not {type(items).__name__}")
    _, *parameters = inspect.signature(operation).parameters.values()
    takes = {one.name: one.default is one.empty for one in parameters}
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise InvalidArgument(f"{name}[{i}] must be a mapping, not {type(item).__name__}")
        for one, required in takes.items():
            if required and one not in item:
                raise InvalidArgument(f"{name}[{i}] needs {one!r}")
        for one in item:
            if one not in takes:
                raise InvalidArgument(f"{name}[{i}] has {one!r}, and takes {', '.join(takes)}")
    return list(items)


def _saving(context: Context, item: Item) -> Steps[int]:
    """Save one state. A token that is known is found before, as running into it would cost its neighbours a try."""
    steps = save_state(context, **item)
    request = next(steps)
    version = yield from repeated(request)
    if version is not None:
        return version
    while True:
        answer, error = None, None
        try:
            answer = yield request
        except DuplicateKey as raised:
            error = raised
        try:
            request = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as done:
            return int(done.value)


class _Line:
    """The calls for one session: each begins when the one before it is done."""

    def __init__(self, outcomes: list[Any]) -> None:
        self.request: Any = None
        self._outcomes = outcomes
        self._calls: deque[tuple[int, Steps[Any]]] = deque()

    def add(self, place: int, steps: Steps[Any]) -> None:
        """Add a call, whose outcome goes to this place."""
        self._calls.append((place, steps))

    def go_on(self, answer: Any = None) -> bool:
        """Give the call under way its answer, or the error it ran into: whether anything is asked, by it or the next."""
        while self._calls:
            place, steps = self._calls[0]
            try:
                self.request = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
            except StopIteration as done:
                self._outcomes[place] = done.value
            except LifecycleError as error:
                # What it was raised through holds all that was to be saved.
                self._outcomes[place] = error.with_traceback(None)
            else:
                return True
            self._calls.popleft()
            answer = None
        return False

    def give_up(self, reason: StorageUnavailable | SchemaOutdated) -> None:
        """Let every call be refused that is left."""
        for place, steps in self._calls:
            steps.close()
            self._outcomes[place] = type(reason)(f"not tried, as others before it failed: {reason}")
        self._calls.clear()


def _side_by_side(calls: Sequence[tuple[Any, Steps[T]]]) -> Steps[list[T | LifecycleError]]:
    """Carry out calls, each for the session that is named with it: what each returned, or raised."""
    outcomes: list[Any] = [None] * len(calls)
    lines: dict[str, _Line] = {}
    for place, (session_id, steps) in enumerate(calls):
        # What is no id is refused, whatever its place.
        own = session_id if isinstance(session_id, str) else ""
        lines.setdefault(own, _Line(outcomes)).add(place, steps)
    groups = _groups([lines[session_id] for session_id in sorted(lines)])
    for group in groups:
        asking = [line for line in group if line.go_on()]
        first = True
        while asking:
            answers = yield SideBySide(tuple(line.request for line in asking))
            failing = first and all(isinstance(answer, _FAILING) for answer in answers)
            first = False
            asking = [line for line, answer in zip(asking, answers, strict=True) if line.go_on(answer)]
            if failing:
                for line in [*asking, *(line for left in groups for line in left)]:
                    line.give_up(answers[0])
                return outcomes
    return outcomes


def _groups(lines: list[_Line]) -> Iterator[list[_Line]]:
    for start in range(0, len(lines), AT_ONCE):
        yield lines[start : start + AT_ONCE]
