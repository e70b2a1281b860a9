"""`lifecycle call`: any public operation, JSON in and JSON out."""

import inspect
import re
from typing import Annotated, Any, Final

import typer

from lifecycle.cli.output import show_json, write
from lifecycle.cli.scope import scope_of
from lifecycle.cli.values import did_you_mean, parse_object
from lifecycle.errors import InvalidArgument

# Keys and secrets have commands of their own: what opens the store to others is not made in passing.
_APART: Final = "lifecycle.operations.keys"


def operations() -> dict[str, Any]:
    """The methods that can be called, by name: those made from an operation."""
    from lifecycle.manager.blocking import SessionManager

    found = inspect.getmembers(SessionManager, inspect.isfunction)
    return {
        name: method
        for name, method in found
        if hasattr(method, "__wrapped__") and not name.startswith("_") and method.__module__ != _APART
    }


def directory_calls() -> dict[str, Any]:
    """The calls on session directories, by name: they may do without a database."""
    from lifecycle.directories.calls import CALLS

    return CALLS


def call(
    ctx: typer.Context,
    method: Annotated[str | None, typer.Argument(help="The operation, such as save_state.")] = None,
    arguments: Annotated[str, typer.Argument(metavar="JSON", help="Its arguments, as a JSON object.")] = "{}",
    list_: Annotated[bool, typer.Option("--list", help="List the operations with what they take.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as it does anyway but for --list.")] = False,
) -> None:
    """Run any public operation and print its result as JSON."""
    from lifecycle.cli.arguments import check, parameters

    scope, methods = scope_of(ctx), operations() | directory_calls()
    known = {name: inspect.signature(one) for name, one in methods.items()}
    if list_ or method is None:
        shown = {name: _shown(known[name], parameters(name, known)) for name in known}
        if as_json or scope.as_json:
            show_json(shown)
        else:
            about = {name: (inspect.getdoc(one) or "").splitlines()[0] for name, one in methods.items()}
            write("".join(f"{name}{shown[name]}\n    {about[name]}\n" for name in known))
        return
    if method not in known:
        meant = did_you_mean(method, known)
        raise InvalidArgument(f"no operation {method!r}; {meant}`lifecycle call --list` has them all")
    given = check(method, parse_object(arguments, "the arguments") or {}, parameters(method, known))
    if method in directory_calls():
        from lifecycle.cli.directory import directories
        from lifecycle.directories.calls import simplified

        with directories(scope) as chosen:
            show_json(simplified(methods[method](chosen, **given)))
        return
    with scope.manager() as manager:
        show_json(getattr(manager, method)(**given))


def _shown(signature: inspect.Signature, takes: dict[str, inspect.Parameter]) -> str:
    """The signature as JSON fills it in: every parameter has its name, and types are without their modules."""
    named = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in takes.values()]
    text = str(signature.replace(parameters=named)).replace("(*, ", "(")
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", text)
    # What is left out is left as it is: there is no writing that in JSON.
    return text.replace(" | Unset", "").replace("NoneType", "None")
