"""Databases that tests take from one schema to another."""

import pytest

from lifecycle import migrate

URLS = {
    "sqlite": "sqlite_url",
    "postgresql": "postgres_url",
    "postgresql15": "postgres15_url",
    "mariadb": "mariadb_url",
    "jsonl": "jsonl_url",
}


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a database of the test's own: nobody else is to have the schema that it goes back to."""
    own = str(request.getfixturevalue(URLS[request.param]))
    migrate.upgrade(own)
    return own
