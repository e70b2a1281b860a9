"""Hooks: a user's functions around the transitions of one manager."""

from collections.abc import Callable
from typing import Any, TypeVar

from lifecycle import states
from lifecycle.errors import InvalidArgument
from lifecycle.operations.context import Hooks

F = TypeVar("F", bound=Callable[..., Any])


class HookRegistry:
    """Decorators that register functions by trigger. Each is called with the session."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def condition(self, trigger: str) -> Callable[[F], F]:
        """Register a function that must return true, or the transition is refused with `InvalidTransition`."""
        return _registrar(self._hooks.conditions[_known(trigger)])

    def before(self, trigger: str) -> Callable[[F], F]:
        """Register a function that is called ahead of the transition; what it raises stops it."""
        return _registrar(self._hooks.before[_known(trigger)])

    def after(self, trigger: str) -> Callable[[F], F]:
        """Register a function that is called behind the commit; its failure is logged and undoes nothing."""
        return _registrar(self._hooks.after[_known(trigger)])


def _registrar(hooks: list[Callable[..., Any]]) -> Callable[[F], F]:
    def register(hook: F) -> F:
        hooks.append(hook)
        return hook

    return register


def _known(trigger: str) -> str:
    if trigger not in states.TRIGGERS:
        raise InvalidArgument(f"trigger must be one of {', '.join(states.TRIGGERS)}, not {trigger!r}")
    return trigger
