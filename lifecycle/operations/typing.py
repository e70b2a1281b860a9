"""The type of an operation: a generator that yields requests, receives answers, and returns a `T`."""

from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")
Steps = Generator[Any, Any, T]
