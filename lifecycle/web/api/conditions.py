"""ETags: a session's is its version, quoted. `If-Match` guards a write by it, `If-None-Match` spares a read.

A route that cannot do what such a header asks for refuses it: carried out regardless, the write would be one that its
sender excluded (RFC 9110, 13.1.1). The same goes for the lease that a write is made under.
"""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request
from fastapi.dependencies.models import Dependant

from lifecycle.web.problems import Refused
from lifecycle.web.request_log import route_of

_TAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_LIST: Final = re.compile(rf"\s*{_TAG.pattern}(?:\s*,\s*{_TAG.pattern})*\s*")
_VERSION: Final = re.compile(r'"(\d{1,18})"')
_READS: Final = frozenset({"GET", "HEAD"})
# What a header asks of a route that does not take it.
_NOT_TAKEN: Final = {
    "if-match": "cannot be made to depend on a version",
    "if-none-match": "cannot be made to depend on a version",
    "lease-holder": "is not made under a lease",
    "lease-epoch": "is not made under a lease",
}
# A read without these is no other read: it changes nothing, and a full answer is a right one.
_OF_WRITES: Final = frozenset(_NOT_TAKEN) - {"if-match"}
_TAKEN: Final[dict[Callable[..., Any], frozenset[str]]] = {}


class InvalidHeader(Refused):
    """A header is not written as it should be."""

    status = 400


class PreconditionFailed(Refused):
    """What `If-Match` or `If-None-Match` asks for is not so; nothing was changed."""

    status = 412


def require_taken(request: Request) -> None:
    """Raise `InvalidHeader` for a condition or a lease that the request's route takes no notice of."""
    for name, why in _NOT_TAKEN.items():
        if name not in request.headers or (name in _OF_WRITES and request.method in _READS):
            continue
        if name not in _taken(request.scope["route"]):
            title = "-".join(part.capitalize() for part in name.split("-"))
            raise InvalidHeader(f"{title}: {request.method} {route_of(request.scope)} {why}; send it without")


def _taken(route: Any) -> frozenset[str]:
    """The headers that a route declares."""
    known = _TAKEN.get(route.endpoint)
    if known is None:
        known = _TAKEN[route.endpoint] = frozenset(_headers(route.dependant))
    return known


def _headers(dependant: Dependant) -> Iterator[str]:
    for one in dependant.header_params:
        yield one.alias.lower()
    for below in dependant.dependencies:
        yield from _headers(below)


def etag(version: int) -> str:
    """The entity tag of a version."""
    return f'"{version}"'


def _tags(value: str, name: str) -> list[str]:
    if not _LIST.fullmatch(value):
        raise InvalidHeader(f'{name} must be the ETag of an answer, such as "7", or *')
    return _TAG.findall(value)


async def _expected(
    if_match: Annotated[
        str | None,
        Header(
            json_schema_extra={"pattern": r'^([*]|"[!#-~]*")$'},
            description="The `ETag` that the session must still have: 412 otherwise, and nothing is changed.",
            openapi_examples={"version": {"value": '"7"'}},
        ),
    ] = None,
) -> int | None:
    """The version that a write expects; None for any."""
    if if_match is None or if_match.strip() == "*":
        return None
    tags = _tags(if_match, "If-Match")
    if len(tags) > 1:
        raise InvalidHeader("If-Match: name one version")
    known = _VERSION.fullmatch(tags[0])
    if known is None:
        # Weak, or never given by us: it matches nothing, and no session has this version.
        raise PreconditionFailed(f"If-Match: no session has the ETag {tags[0]}")
    return int(known[1])


async def _known(
    if_none_match: Annotated[
        str | None,
        Header(
            json_schema_extra={"pattern": r'^([*]|(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)$'},
            description="The `ETag` of the answer that you have: 304 without a body if it is still the version.",
            openapi_examples={"version": {"value": '"7"'}},
        ),
    ] = None,
) -> frozenset[str]:
    """The tags that a reader has; `*` for any."""
    if if_none_match is None:
        return frozenset()
    if if_none_match.strip() == "*":
        return frozenset("*")
    return frozenset(tag.removeprefix("W/") for tag in _tags(if_none_match, "If-None-Match"))


Expected = Annotated[int | None, Depends(_expected)]
Known = Annotated[frozenset[str], Depends(_known)]
