"""LangGraph's own suite for checkpointers: every capability is detected, every clause passes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="langgraph-checkpoint-conformance is not installed")

from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from lifecycle import AsyncSessionManager, SessionManager
from lifecycle.adapters.langgraph import LifecycleSaver


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_every_clause_passes(migrated_url: str, kind: str) -> None:
    """On either kind of manager."""

    @checkpointer_test(name=f"LifecycleSaver, {kind}")
    async def savers() -> AsyncIterator[LifecycleSaver]:
        if kind == "blocking":
            with SessionManager.open(migrated_url) as manager:
                yield LifecycleSaver(manager)
        else:
            async with AsyncSessionManager.open(migrated_url) as manager:
                yield LifecycleSaver(manager)

    report = asyncio.run(validate(savers))
    assert {name: result.failures for name, result in report.results.items()} == {one.value: [] for one in Capability}
    assert all(result.detected and result.passed for result in report.results.values())
