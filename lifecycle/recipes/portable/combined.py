"""Several requests in one transaction, on any database: the recipe of each behind the other's."""

from collections.abc import Callable, Mapping
from typing import Any

from lifecycle.errors import MessageExists
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import Recipe, key, lock
from lifecycle.recipes.portable.messages import MESSAGE_BY_ID

Recipes = Mapping[type[r.Request], Callable[[Any], Recipe]]


def of(recipes: Recipes) -> dict[type[r.Request], Callable[[Any], Recipe]]:
    """The recipes of `Together` and `ReadTogether` where these are those of what they are made of."""

    def together(request: r.Together) -> Recipe:
        answers = []
        for place, one in enumerate(request.requests):
            if isinstance(one, r.AddMessages):
                yield from _none_taken(one)
            answer = yield from recipes[type(one)](one)
            if answer is None and not isinstance(one, r.READS):
                # Whatever was written before it is rolled back.
                raise r.Refused(place)
            answers.append(answer)
        return answers

    return {r.Together: together, r.ReadTogether: together}


def expect(request: r.Expect) -> Recipe:
    """Lock the session and compare."""
    row = yield from lock(request)
    return True if row is not None and (row["version"], row["phase"]) == (request.version, request.phase) else None


def _none_taken(request: r.AddMessages) -> Recipe:
    """Raise for a message whose id is taken: the database's word for it would not say which one it is."""
    for message in request.messages:
        if (yield MESSAGE_BY_ID, key(request) | {"p_message_id": message["message_id"]}):
            raise MessageExists(request.session_id, message["message_id"])
