"""Which methods a path takes: what `Allow` says where one was asked for that it does not."""

from functools import cache
from re import Pattern

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path


def methods_of(app: FastAPI, path: str) -> str:
    """The methods, as `Allow` lists them. A route by itself knows its own ones only."""
    found = {method for pattern, methods in _table(app) if pattern.match(path) for method in methods}
    return ", ".join(sorted(found))


@cache
def _table(app: FastAPI) -> list[tuple[Pattern[str], frozenset[str]]]:
    return [
        (compile_path(context.path)[0], frozenset(context.methods))
        for context in iter_route_contexts(app.routes)
        if context.path is not None and context.methods
    ]
