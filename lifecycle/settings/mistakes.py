"""What is said about a wrong key or value."""

import difflib
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from lifecycle.log import mask_passwords


def child(schema: Any, key: Any) -> Any:
    """Return what stands under `key` of a section or a mapping of sections, or None."""
    if get_origin(schema) is dict:
        return get_args(schema)[1]
    if key in names(schema):
        return schema.model_fields[key].annotation
    return None


def names(schema: Any) -> list[str]:
    """The keys of a section."""
    return list(schema.model_fields) if isinstance(schema, type) and issubclass(schema, BaseModel) else []


def explain(errors: list[ErrorDetails], root: type[BaseModel]) -> tuple[str, str]:
    """Return the key of the first error, and what is wrong and allowed there; the other keys are named too."""
    first, *others = errors
    key = _dotted(first)
    if first["type"] == "extra_forbidden":
        schema: Any = root
        for part in first["loc"][:-1]:
            schema = child(schema, part)
        problem = unknown(str(first["loc"][-1]), schema)
    elif first["type"] == "value_error":
        problem = str(first["ctx"]["error"])
    else:
        problem = first["msg"].replace("Input should", "must").replace("String should", "must")
        if isinstance(first["input"], str | int | float):
            problem += f"; not {first['input']!r}"
    more = sorted({_dotted(error) for error in others} - {key})
    if more:
        problem += f" (also wrong: {', '.join(more)})"
    return key, mask_passwords(problem)


def _dotted(error: ErrorDetails) -> str:
    # pydantic marks a bad key of a mapping with a part of its own.
    return ".".join(str(part) for part in error["loc"] if part != "[key]")


def unknown(name: str, schema: Any) -> str:
    """What is said of a key that a section does not have."""
    allowed = names(schema)
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown key; {hint}allowed here: {', '.join(allowed)}"
