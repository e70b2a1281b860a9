"""`lifecycle call`: any public operation, JSON in and JSON out."""

import difflib
import inspect
from typing import Annotated, Any

import typer

from lifecycle import SessionManager
from lifecycle.cli.output import show_json
from lifecycle.cli.scope import scope_of
from lifecycle.cli.sessions import parse_object, parse_time
from lifecycle.errors import InvalidArgument

_TIMES = ("since", "until", "available_at")
_OWN = {"lease", "open", "close", "setup", "start", "stop", "for_tenant", "condition", "before", "after"}


def operations() -> dict[str, inspect.Signature]:
    """The operations that can be called, with their signatures."""
    found = inspect.getmembers(SessionManager, inspect.isfunction)
    return {name: inspect.signature(method) for name, method in found if not name.startswith("_") and name not in _OWN}


def call(
    ctx: typer.Context,
    method: Annotated[str | None, typer.Argument(help="The operation, such as save_state.")] = None,
    arguments: Annotated[str, typer.Argument(metavar="JSON", help="Its arguments, as a JSON object.")] = "{}",
    list_: Annotated[bool, typer.Option("--list", help="List the operations.")] = False,
) -> None:
    """Run any public operation and print its result as JSON."""
    known = operations()
    if list_ or method is None:
        show_json({name: str(signature).replace("(self, ", "(") for name, signature in known.items()})
        return
    if method not in known:
        near = difflib.get_close_matches(method, known, n=3)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise InvalidArgument(f"no operation {method!r}; {meant}`lifecycle call --list` has them all")
    given: dict[str, Any] = parse_object(arguments, "the arguments") or {}
    takes = [name for name in known[method].parameters if name != "self"]
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known[method].parameters.values()):
        takes += [name for name in known["create_session"].parameters if name not in ("self", "session_id")]
    for name in given:
        if name not in takes:
            raise InvalidArgument(f"{method} takes no {name!r}; it takes {', '.join(takes)}")
    for name in _TIMES:
        if isinstance(given.get(name), str):
            given[name] = parse_time(given[name], name)
    try:
        known[method].bind(None, **given)
    except TypeError as error:
        raise InvalidArgument(f"{method}: {error}") from error
    with scope_of(ctx).manager() as manager:
        show_json(getattr(manager, method)(**given))
