"""The hot statements on PostgreSQL stay prepared, and are prepared again when somebody dropped them."""

from typing import Any

import psycopg
import pytest

from lifecycle import SessionManager
from lifecycle.recipes.postgresql_arrays import array


def test_a_statement_that_was_dropped_is_prepared_again(migrated_postgres_url: str) -> None:
    """A pooler's DISCARD ALL between two calls costs a round trip, not an error."""
    with SessionManager.open(migrated_postgres_url) as manager:
        manager.create_session(session_id="a")
        manager.save_state("a", step=1)
        pool: Any = getattr(manager._driver, "_pool")  # noqa: B009 - the other drivers have none
        connection = pool.getconn()
        connection.execute("DISCARD ALL")
        pool.putconn(connection)
        assert manager.save_state("a", step=2) == 3
        session = manager.get_session("a")
        assert session is not None
        assert session.step == 2


def test_a_statement_whose_columns_a_migration_changed_is_prepared_again(migrated_postgres_url: str) -> None:
    """What the server calls a cached plan with another result type is not an error for the caller."""
    with SessionManager.open(migrated_postgres_url) as manager:
        manager.create_session(session_id="a", metadata={"k": 1})
        assert manager.get_session("a") is not None
        with psycopg.connect(migrated_postgres_url, autocommit=True) as other:
            other.execute("ALTER TABLE sessions ALTER COLUMN agent_id TYPE varchar(255)")
        session = manager.get_session("a")
        assert session is not None
        assert session.metadata == {"k": 1}


@pytest.mark.parametrize(
    "texts",
    [[], [""], [None], ["NULL", "null", None], ['a"b', "a\\b", "{}", "a,b", " a ", "\t\n", "'", "é\U0001f600"]],
)
def test_arrays_of_texts_arrive_as_they_are(postgres_url: str, texts: list[Any]) -> None:
    """Quotes, backslashes, braces, blanks and NULLs survive the array syntax."""
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute("SELECT %s::text[]", (array(texts),)).fetchone()
    assert row == (texts,)
