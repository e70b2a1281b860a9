"""The JSON of a request: read strictly, as what is stored must come back as it was sent."""

import json
import re
from email.message import Message
from typing import Any, Final

from fastapi import Request

from lifecycle.web.problems import Refused

# What may be half of a pair; most bodies hold none, and need no second look.
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class InvalidJson(Refused):
    """The body is not JSON, or JSON that has no one meaning."""

    status = 400


class UnsupportedMediaType(Refused):
    """The body is something else than JSON."""

    status = 415
    headers = {"Accept": "application/json"}  # noqa: RUF012 -- never changed


class ApiRequest(Request):
    """A request whose body is read by the rules of `parse`."""

    async def json(self) -> Any:
        """The body. Raises `InvalidJson`."""
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


async def check_body(request: ApiRequest) -> None:
    """Refuse a body that is not JSON. Raises `UnsupportedMediaType`, `InvalidJson`."""
    if request.method not in _WITH_BODY or not await request.body():
        return
    kind = Message()
    kind["content-type"] = request.headers.get("content-type", "")
    charset = kind.get_content_charset("utf-8")
    if request.headers.get("content-type") is None or kind.get_content_type() != "application/json":
        raise UnsupportedMediaType("send the body as application/json")
    if charset not in {"utf-8", "us-ascii"}:
        raise UnsupportedMediaType(f"send the body as UTF-8, not as {charset}")
    await request.json()


def parse(body: bytes) -> Any:
    """The value of a JSON text.

    Raises `InvalidJson` for what is not JSON or not UTF-8, and for what readers of JSON do not agree on: a name given
    twice, NaN, half a surrogate pair, more digits or levels than Python reads.
    """
    try:
        text = body.decode()
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise InvalidJson(f"the body is not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise InvalidJson("the body holds half of a surrogate pair, which is not Unicode text") from None
    except json.JSONDecodeError as error:
        raise InvalidJson(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidJson(f"the body: {error}") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice!r} is given twice in one object")
    return made


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
