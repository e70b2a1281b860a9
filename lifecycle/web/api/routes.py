"""How a route of the API is run: for somebody who may call at all, strict JSON in, and no POST carried out twice under one `Idempotency-Key`."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from lifecycle.web.access import caller_of
from lifecycle.web.api.bodies import ApiRequest, check_body
from lifecycle.web.api.idempotency import once

# What does more when it is done twice, and whose outcome the database does not tell: after a crash nobody repeats it
# but the client himself.
_NOT_REPEATABLE: Final = frozenset({"checkpoint", "pop_message", "restore_checkpoint", "claim_sessions"})


class ApiRoute(APIRoute):
    """A route whose endpoint gives a `Response`; its operation id is the endpoint's name."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **values: Any) -> None:
        name = endpoint.__name__
        if "POST" in (values.get("methods") or ()):
            endpoint = once(endpoint, repeatable=name not in _NOT_REPEATABLE)
        super().__init__(path, endpoint, **values | {"operation_id": name})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, given a request that reads JSON strictly."""
        handle = super().get_route_handler()

        async def run(request: Request) -> Response:
            strict = ApiRequest(request.scope, request.receive)
            # First: what a stranger sends is not worth reading.
            await caller_of(strict, request.app.state.service)
            await check_body(strict)
            return await handle(strict)

        return run
