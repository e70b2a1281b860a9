"""Places in the audit log, in the order in which a watch goes through it, and the cursors that stand for them."""

import base64
import binascii
import json
from typing import NamedTuple, Self

from lifecycle.errors import InvalidArgument

_LONGEST = 100_000
_LARGEST = 2**63 - 1
_BAD = "after: not a cursor that a watch gave; begin with after='' (all that is kept) or without it (what comes)"


class Place(NamedTuple):
    """A place behind which a watch goes on.

    `source` names the kind of database. `before` is empty, or says which transactions were over when the watch began,
    though their numbers lie ahead: the first number that was not given yet, then those that were under way.
    """

    source: str
    position: int
    id: int
    before: tuple[int, ...] = ()

    def at(self, position: int, id_: int) -> Self:
        """A later place of the same watch."""
        before = self.before if self.before and position < self.before[0] else ()
        return type(self)(self.source, position, id_, before)

    def is_past(self, position: int) -> bool:
        """Whether what has this position was committed before the watch began."""
        return bool(self.before) and position < self.before[0] and position not in self.before[1:]

    def cursor(self) -> str:
        """The text that stands for it."""
        text = json.dumps([self.source, self.position, self.id, *self.before], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


# The beginning of what is kept, on any database.
START = Place("", 0, 0)


def read_cursor(cursor: object) -> Place:
    """The place that a cursor stands for; `START` for an empty one. Raises `InvalidArgument`."""
    if cursor == "":
        return START
    if not isinstance(cursor, str) or len(cursor) > _LONGEST:
        raise InvalidArgument(_BAD)
    try:
        source, *numbers = json.loads(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
        if not (isinstance(source, str) and source and all(type(n) is int and 0 <= n <= _LARGEST for n in numbers)):
            raise InvalidArgument(_BAD)
        position, id_, *before = numbers
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise InvalidArgument(_BAD) from error
    return Place(source, position, id_, tuple(before))


def check_source(place: Place, source: str, furthest: int) -> Place:
    """The place, if this kind of database gave it and has come so far.

    One that lies ahead is of another database, or of this one before it was set back: waiting there would pass over
    what is committed until then.
    """
    if place == START:
        return Place(source, 0, 0)
    if place.source != source:
        raise InvalidArgument(f"after: this cursor is of another database ({place.source}, not {source})")
    if place.position > furthest:
        raise InvalidArgument("after: this cursor lies ahead of all that this database holds; it is of another one")
    return place
