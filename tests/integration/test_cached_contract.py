"""The contract that every store keeps, kept behind a cache too: on SQLite and PostgreSQL, sync and async."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from lifecycle import Settings
from tests.integration import test_contract as contract
from tests.managers import opened
from tests.valkey import ValkeyServer

# The tests of a manager; those that open others of their own say nothing about a cache.
globals().update(
    {
        name: test
        for name, test in vars(contract).items()
        if name.startswith("test_") and "manager" in inspect.signature(test).parameters
    }
)


@pytest.fixture(params=["migrated_sqlite_url", "migrated_postgres_url"])
def migrated_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the schema in place."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(params=["sync", "async"])
def manager(request: pytest.FixtureRequest, migrated_url: str, valkey_server: ValkeyServer) -> Iterator[Any]:
    """A manager of either kind on an empty database, behind a cache that worked throughout."""
    settings = Settings(database={"url": migrated_url}, cache={"url": valkey_server.url, "timeout": 5})
    with opened(settings, request.param) as behind:
        yield behind
