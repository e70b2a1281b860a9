"""Reading the audit log in the order of its commits, from a place in it."""

from lifecycle.models.events import TransitionEvent
from lifecycle.models.reads import TransitionRecord
from lifecycle.operations.context import Context
from lifecycle.operations.places import Place
from lifecycle.operations.requests import ReadTransitions, Row, StartWatch
from lifecycle.operations.typing import Steps

_FIELDS = tuple(name for name in TransitionRecord.model_fields if name != "trigger")


def start_watch(context: Context, after: Place | None) -> Steps[Place]:
    """The place to begin at: behind all that is committed now, or a place that a cursor named, checked."""
    del context
    place: Place | None = None
    while place is None:
        place = yield StartWatch(after)
    return place


def read_transitions(
    context: Context, place: Place, *, limit: int, session_id: str | None = None
) -> Steps[tuple[list[TransitionEvent], Place, bool]]:
    """What comes behind a place: the events, the place to go on from, and whether there may be more already.

    Lines that are not the tenant's, or the session's, are gone through and left out.
    """
    found, last, more = yield ReadTransitions(context.tenant_or_all, place, limit, session_id)
    events = [_event(row, place) for row in found if not place.is_past(row["position"])]
    return events, place if last is None else place.at(*last), more


def _event(row: Row, place: Place) -> TransitionEvent:
    values = {name: row[name] for name in _FIELDS}
    values["trigger"] = row["trigger_name"]
    values["cursor"] = place.at(row["position"], row["id"]).cursor()
    return TransitionEvent.of(values)
