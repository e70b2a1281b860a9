"""Ids in paths. An id may hold any text, so each segment of a path stays encoded until it is known what it stands for.

Servers decode the whole path before it is routed: then `%2F` is a slash between segments, and `agent%3Asuspend` asks
to suspend `agent`. Here a path is routed as it was sent, and what a parameter took is decoded by itself.
"""

from typing import Annotated, Any, Final
from urllib.parse import quote, unquote_to_bytes

from fastapi import Path
from pydantic import BeforeValidator, Field
from starlette.types import ASGIApp, Receive, Scope, Send

API: Final = "/api/"


class EncodedPaths:
    """Has the API's paths routed as they were sent.

    What needs no encoding is decoded all the same, so that two spellings of one path are one. A colon that was sent
    as it is stays apart from `%3A`: the last one of a POST begins the name of what is to be done.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, its path encoded."""
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
            if raw.startswith(API.encode()):
                # In place: what logs the request looks there for its route.
                scope["path"] = canonical(raw)
        await self.app(scope, receive, send)


def canonical(raw: bytes) -> str:
    """The one spelling of a path: nothing is encoded that need not be."""
    return "/".join(
        ":".join(quote(unquote_to_bytes(part), safe="") for part in segment.split(b":")) for segment in raw.split(b"/")
    )


def encoded(text: str) -> str:
    """A text as a segment of a path. Dots by themselves are encoded too: `..` would lead elsewhere."""
    return text.replace(".", "%2E") if text in {".", ".."} else quote(text, safe="")


def decoded(text: Any) -> str:
    """The text behind a segment. Raises ValueError where it is not UTF-8."""
    try:
        return unquote_to_bytes(str(text)).decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 behind its percent signs") from None


_Text = Annotated[str, BeforeValidator(decoded), Field(min_length=1, max_length=255)]
SessionId = Annotated[
    _Text,
    Path(description="The session's id, percent-encoded: any text, slashes too.", examples=["support-42"]),
]
MessageId = Annotated[_Text, Path(description="The message's id, percent-encoded.", examples=["m-1"])]
ApprovalId = Annotated[_Text, Path(description="The approval's id, percent-encoded.", examples=["refund-1"])]
ConnectionId = Annotated[_Text, Path(description="The connection's id, percent-encoded.", examples=["socket-1"])]
UserId = Annotated[_Text, Path(description="The user's id, percent-encoded.", examples=["ada"])]
