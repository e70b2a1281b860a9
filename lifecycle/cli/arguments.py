"""The arguments of `lifecycle call`, checked against an operation's signature before it runs."""

import inspect
import types
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Union, get_args, get_origin

from lifecycle.cli.values import did_you_mean, parse_time
from lifecycle.errors import InvalidArgument

# What no JSON can say: a lease is an object of this process, a condition one of SQLAlchemy's, and a function is code.
_NOT_JSON: Final = ("lease", "where", "go_on")
_SHOWN: Final = 60
_WORDS: Final[dict[Any, str]] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object", list: "a list",
    tuple: "a list", Mapping: "an object", Sequence: "a list", type(None): "null", datetime: "a time",
}  # fmt: skip


def parameters(method: str, known: Mapping[str, inspect.Signature]) -> dict[str, inspect.Parameter]:
    """The parameters that JSON can give to an operation; `**values` are those of create_session."""
    found: dict[str, inspect.Parameter] = {}
    for name, one in known[method].parameters.items():
        if one.kind is inspect.Parameter.VAR_KEYWORD:
            found |= {more: its for more, its in parameters("create_session", known).items() if more not in found}
        elif name != "self" and name not in _NOT_JSON:
            found[name] = one
    return found


def check(method: str, given: Mapping[str, Any], takes: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The arguments, times read. Raises `InvalidArgument`, which names what is unknown, missing or of another type."""
    for name in given:
        if name not in takes:
            meant = did_you_mean(name, takes)
            raise InvalidArgument(f"{method} takes no {name!r}; {meant}it takes {', '.join(takes) or 'nothing'}")
    required = [name for name, one in takes.items() if one.default is one.empty]
    missing = [name for name in required if name not in given]
    if missing:
        example = ", ".join(f'"{name}": …' for name in required)
        raise InvalidArgument(f"{method} needs {', '.join(missing)}: lifecycle call {method} '{{{example}}}'")
    return {name: _typed(f"{method}: {name}", value, takes[name].annotation) for name, value in given.items()}


def wording(annotation: Any) -> str:
    """The type as a person says it who writes JSON."""
    if annotation is Any:
        return "anything"
    if get_origin(annotation) in (Union, types.UnionType):
        words = dict.fromkeys(wording(one) for one in get_args(annotation) if _known(one))
        *first, last = words
        return f"{', '.join(first)} or {last}" if first else last
    word = _WORDS[get_origin(annotation) or annotation]
    inner = [one for one in get_args(annotation) if one is not Ellipsis]
    if word == "a list" and inner and Any not in inner:
        return f"a list, each {wording(inner[0])}" if len(inner) == 1 else f"a list of {len(inner)}"
    return word


def _typed(name: str, value: Any, annotation: Any) -> Any:
    if isinstance(value, str) and datetime in (annotation, *get_args(annotation)):
        return parse_time(value, name)
    if not _fits(value, annotation):
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + " …"
        raise InvalidArgument(f"{name} must be {wording(annotation)}, not {shown}")
    return value


def _fits(value: Any, annotation: Any) -> bool:
    kind, inner = get_origin(annotation) or annotation, get_args(annotation)
    if kind in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if isinstance(value, list):
        if kind is tuple:
            return len(value) == len(inner) and all(_fits(item, one) for item, one in zip(value, inner, strict=True))
        return annotation is Any or (kind in (list, Sequence) and all(_fits(item, inner[0]) for item in value))
    if isinstance(value, bool):
        return kind in (Any, bool)
    # JSON has one kind of number: 30 is a float too.
    allowed = {float: (int, float), Mapping: (dict,), Any: (object,)}.get(kind, (kind,))
    return kind is Any or (kind in _WORDS and isinstance(value, allowed))


def _known(annotation: Any) -> bool:
    return annotation is Any or (get_origin(annotation) or annotation) in (*_WORDS, Union, types.UnionType)
