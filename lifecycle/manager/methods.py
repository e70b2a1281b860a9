"""From an operation to a method: the signature and docstring exist once, and editors see them."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, get_args

from lifecycle import observing
from lifecycle.operations.context import Context
from lifecycle.operations.typing import Steps

P = ParamSpec("P")
T = TypeVar("T")


def sync_method(operation: Callable[Concatenate[Context, P], Steps[T]]) -> Callable[Concatenate[Any, P], T]:
    """A method that runs the operation and returns its result."""

    @functools.wraps(operation)
    def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        steps = operation(self._context, *args, **kwargs)
        if not observing.OBSERVERS:
            plain: T = self._driver.run(steps)
            return plain
        ends = observing.begin(name, self)
        try:
            result: T = self._driver.run(steps)
        except BaseException as error:
            observing.end(ends, error)
            raise
        observing.end(ends, None, result)
        return result

    name = operation.__name__
    _sign(method, operation)
    return cast("Any", method)  # type: ignore[no-any-return]


def async_method(
    operation: Callable[Concatenate[Context, P], Steps[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """A method that awaits the operation's result."""

    @functools.wraps(operation)
    async def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        steps = operation(self._context, *args, **kwargs)
        if not observing.OBSERVERS:
            plain: T = await self._driver.run(steps)
            return plain
        ends = observing.begin(name, self)
        try:
            result: T = await self._driver.run(steps)
        except BaseException as error:
            observing.end(ends, error)
            raise
        observing.end(ends, None, result)
        return result

    name = operation.__name__
    _sign(method, operation)
    return cast("Any", method)  # type: ignore[no-any-return]


def _sign(method: Any, operation: Callable[..., Any]) -> None:
    signature = inspect.signature(operation)
    _, *parameters = signature.parameters.values()
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # An operation is a generator; what it returns in the end is what the method gives.
    *_, result = get_args(signature.return_annotation)
    method.__signature__ = signature.replace(parameters=[this, *parameters], return_annotation=result)
