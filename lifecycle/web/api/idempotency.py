"""`Idempotency-Key`: a POST that is sent again is answered again, not carried out again.

The key is noted before the request is carried out, and its answer behind it. A refusal changed nothing, so it is
forgotten: the repeat may succeed. What has no answer after `attempts.LAPSE` seconds was being carried out by a process that is
gone, and whether it did its work is not known. It is carried out again where that can do no harm: because it is the
same whether it is done once or twice, whatever others did in between, or because the ids of what it makes come from
the key, so that the database tells that they are there, or because `If-Match` says on top of what it is done. Elsewhere
the client is told to look for himself.
(draft-ietf-httpapi-idempotency-key-header)
"""

import functools
import hashlib
import inspect
import json
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response

from lifecycle.errors import LifecycleError, StorageUnavailable
from lifecycle.log import get_logger
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.operations import attempts
from lifecycle.operations.context import ALL
from lifecycle.web.api.conditions import Expected
from lifecycle.web.api.tenancy import Work
from lifecycle.web.problems import Refused, problem

log = get_logger(__name__)

Endpoint = Callable[..., Coroutine[Any, Any, Response]]

_KEPT_HEADERS: Final = ("ETag", "Location", "Content-Type", "Link")
_LONGEST: Final = 255
_NAMESPACE: Final = uuid.UUID("7b0d2a53-5a7c-5d4e-9d3a-6c1f0f6a2b11")
# What shapes the answer beside path and body.
_SHAPING: Final = ("If-Match", "Lease-Holder", "Lease-Epoch", "Lifecycle-Tenant")
# The same done twice, but not when somebody undid it in between: what he hid again, or made anew under the same id.
_UNDONE: Final = frozenset({"undelete_session", "cleanup_after_delegation"})


class IdempotencyKeyReused(Refused):
    """The key belongs to another request."""

    status = 422


class RequestInProgress(Refused):
    """The same request is being carried out."""

    status = 409
    headers = {"Retry-After": "1"}  # noqa: RUF012 -- never changed


class OutcomeUnknown(Refused):
    """The same request was begun, and whoever carried it out is gone: nobody knows what it did."""

    status = 409


@dataclass(slots=True)
class Attempt:
    """One request, with its key if it has one."""

    key: str | None
    digest: str
    # Of the caller's sessions: under row-level security nobody else's would see his keys.
    manager: AsyncSessionManager | None = None
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def taken_over(self) -> bool:
        """Whether it was begun before, by a process that is gone: what is there may be its own work."""
        return self.key is not None and bool(self.row["claimed_at"] != self.row["created_at"])

    def unknown(self) -> OutcomeUnknown:
        """The error that nobody knows what was done under the key."""
        return OutcomeUnknown(
            f"Idempotency-Key: a request with {self.key!r} was begun at {self.row['created_at'].isoformat()} and"
            " never answered; look whether it did its work, then go on with a new key"
        )

    def derived_id(self, place: int = 0) -> str | None:
        """An id for what the request makes: the same whenever it is carried out. None without a key."""
        if self.key is None:
            return None
        parts = (self.row["tenant"], self.row["caller"], self.key, self.row["created_at"].isoformat(), str(place))
        return str(uuid.uuid5(_NAMESPACE, json.dumps(parts)))

    async def claim(self, work: Work, *, repeatable: bool) -> Response | None:
        """The answer that was given already; None if the request is to be carried out now.

        Raises `IdempotencyKeyReused`, `RequestInProgress`, `OutcomeUnknown`.
        """
        caller, self.manager = work.caller, work.manager
        tenant = caller.tenant
        # A caller of all tenants has keys of his own beside those that he uses for one.
        who = ("*" if tenant is ALL else "=") + (caller.key_id or caller.name)
        who = who if len(who) <= _LONGEST else who[0] + hashlib.sha256(who.encode()).hexdigest()
        self.row = await self._run(
            attempts.claim_attempt, tenant if isinstance(tenant, str) else "", who, self.key, self.digest,
            repeatable=repeatable,
        )  # fmt: skip
        if self.row["claimed"]:
            return None
        if self.row["digest"] != self.digest:
            raise IdempotencyKeyReused(f"Idempotency-Key: {self.key!r} was used for another request; take a new one")
        if self.row["status"] is not None:
            headers = {**json.loads(self.row["headers"]), "Idempotent-Replayed": "true"}
            return Response(self.row["body"], self.row["status"], headers)
        if self.row["lapsed"]:
            raise self.unknown()
        raise RequestInProgress(f"Idempotency-Key: a request with {self.key!r} is being carried out; ask again later")

    async def answered(self, response: Response) -> None:
        """Keep an answer. That the work is done is true whether it can be kept or not."""
        headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        try:
            body = bytes(response.body).decode()
            await self._run(attempts.answer_attempt, self.row, response.status_code, json.dumps(headers), body)
        except LifecycleError as error:
            log.warning("answer_not_kept", error=type(error).__name__)

    async def refused(self, error: BaseException) -> None:
        """Forget a request that changed nothing; one that may have changed something stays noted."""
        harmless = isinstance(error, (LifecycleError, Refused)) and not (
            isinstance(error, StorageUnavailable) and error.outcome_unknown
        )
        if harmless:
            try:
                await self._run(attempts.drop_attempt, self.row)
            except LifecycleError as failure:
                log.warning("attempt_not_dropped", error=type(failure).__name__)

    async def _run(self, operation: Callable[..., Any], *args: Any, **more: Any) -> Any:
        manager: Any = self.manager
        return await manager._driver.run(operation(manager._context, *args, **more))  # noqa: SLF001 -- built on the manager's own


async def _attempt_of(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x20-\x7e]+$",
            description="Makes it safe to send this again: the same key with the same request gets the same answer.",
            openapi_examples={"uuid": {"value": "0b0c5d0e-6a0b-4f0c-8f3e-3a6f3f1d9c55"}},
        ),
    ] = None,
) -> Attempt:
    if idempotency_key is None:
        return Attempt(None, "")
    told = [request.method, request.scope["path"], request.scope["query_string"].decode("latin-1")]
    told += [request.headers.get(name, "") for name in _SHAPING]
    digest = hashlib.sha256(json.dumps(told).encode())
    digest.update(await request.body())
    return Attempt(idempotency_key, digest.hexdigest())


Attempted = Annotated[Attempt, Depends(_attempt_of)]


def once(endpoint: Endpoint, *, repeatable: bool) -> Endpoint:
    """The endpoint, carried out once for a key. `repeatable`: carrying it out twice does no more than once.

    One that takes `If-Match` is repeated with it only: without, it would be done on top of whatever others did since.
    """
    signature = inspect.signature(endpoint)
    repeatable = repeatable and endpoint.__name__ not in _UNDONE
    version = next((name for name, one in signature.parameters.items() if one.annotation is Expected), None)
    assert "work" in signature.parameters  # noqa: S101 -- whose key it is
    own = next((name for name, one in signature.parameters.items() if one.annotation is Attempted), None)

    @functools.wraps(endpoint)
    async def run(**values: Any) -> Response:
        attempt: Attempt = values[own] if own is not None else values.pop("attempt_")
        if attempt.key is None:
            return await endpoint(**values)
        safe = repeatable and (version is None or values[version] is not None)
        if (before := await attempt.claim(values["work"], repeatable=safe)) is not None:
            return before
        try:
            response = await endpoint(**values)
        except OutcomeUnknown as error:
            # It stays so: forgotten, the next repeat would be told that it is another's.
            await attempt.answered(problem(error.status, error.detail, type(error).__name__))
            raise
        except Exception as error:
            await attempt.refused(error)
            raise
        await attempt.answered(response)
        return response

    if own is None:
        more = inspect.Parameter("attempt_", inspect.Parameter.KEYWORD_ONLY, annotation=Attempted)
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), more])  # type: ignore[attr-defined]
    return run
