"""Tools with the scope that each asks of its caller and the hints that a client shows before it calls one."""

import functools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, ParamSpec, cast

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from lifecycle.errors import LifecycleError
from lifecycle.log import mask_passwords
from lifecycle.operations.keys import SCOPES

Scope = Literal["read", "write", "admin"]
P = ParamSpec("P")
Tool = Callable[P, Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Entry:
    scope: Scope
    title: str
    annotations: ToolAnnotations
    function: Callable[..., Any]


_TOOLS: Final[list[_Entry]] = []


def reads(title: str) -> Callable[[Tool[P]], Tool[P]]:
    """A tool that changes nothing."""
    return _tool("read", title, read_only_hint=True)


def writes(title: str, *, repeatable: bool = False) -> Callable[[Tool[P]], Tool[P]]:
    """A tool that adds or moves, and takes nothing away; `repeatable` is one that a second call does not change more."""
    return _tool("write", title, read_only_hint=False, destructive_hint=False, idempotent_hint=repeatable)


def replaces(title: str) -> Callable[[Tool[P]], Tool[P]]:
    """A tool of whoever may write that may take the place of what was there, or remove it."""
    return _tool("write", title, read_only_hint=False, destructive_hint=True, idempotent_hint=False)


def removes(title: str) -> Callable[[Tool[P]], Tool[P]]:
    """A tool that removes for good."""
    return _tool("admin", title, read_only_hint=False, destructive_hint=True, idempotent_hint=True)


def tools_of(scope: Scope) -> Iterator[_Entry]:
    """The tools that a caller with this scope may use."""
    yield from (one for one in _TOOLS if SCOPES.index(one.scope) <= SCOPES.index(scope))


def add_tools(server: MCPServer[Any], scope: Scope) -> None:
    """Give a server the tools of a scope, and none beyond."""
    for one in tools_of(scope):
        server.add_tool(
            one.function, title=one.title, annotations=one.annotations, description=_paragraphs(one.function)
        )


def _tool(scope: Scope, title: str, **hints: bool) -> Callable[[Tool[P]], Tool[P]]:
    annotations = ToolAnnotations(title=title, open_world_hint=False, **hints)

    def register(function: Tool[P]) -> Tool[P]:
        @functools.wraps(function)
        async def told(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
            # An error that says what was wrong is the model's to read; any other is logged, and only its kind is told.
            try:
                return await function(*args, **kwargs)
            except LifecycleError as error:
                raise ToolError(f"{type(error).__name__}: {mask_passwords(str(error))}") from error

        _TOOLS.append(_Entry(scope, title, annotations, told))
        return cast("Tool[P]", told)

    return register


def _paragraphs(function: Callable[..., Any]) -> str:
    """The docstring with each paragraph on a line: it is read by a model, not in a terminal."""
    text = function.__doc__ or ""
    paragraphs = text.split("\n\n")
    return "\n".join(" ".join(one.split()) for one in paragraphs).strip()
