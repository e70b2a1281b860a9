"""PostgreSQL that takes itself for the coordinator of Citus: its catalog and functions, and one node, itself.

Nothing is distributed. What it shows is that the statements for Citus do what they should; that Citus takes them is
what their classes say (`tests/statements.py`), and what a real one shows (LIFECYCLE_TEST_CITUS_URL).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg

from lifecycle.recipes import book
from lifecycle.recipes.statement import Many, Single, Statement

VARIABLE: Final = "LIFECYCLE_TEST_CITUS_URL"
STAND_IN: Final = "stand-in"
"""Instead of a URL: the stand-in serves where a cluster would."""

_LOCK: Final = 0x4C696665_43697475

_CATALOG: Final = """
SET allow_system_table_mods = on;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    VALUES (99001, 'citus', 10, 'pg_catalog'::regnamespace, false, '13.2-1');
CREATE TABLE pg_catalog.pg_dist_partition
    (logicalrelid regclass, partmethod "char", partkey text, shards integer);
CREATE TABLE pg_catalog.pg_dist_local_group (groupid integer);
CREATE TABLE pg_catalog.pg_dist_node (groupid integer, noderole text, isactive boolean, shouldhaveshards boolean);
INSERT INTO pg_catalog.pg_dist_local_group VALUES (0);
INSERT INTO pg_catalog.pg_dist_node VALUES (0, 'primary', true, false), (1, 'primary', true, true);
GRANT SELECT ON pg_catalog.pg_dist_partition, pg_catalog.pg_dist_local_group, pg_catalog.pg_dist_node TO PUBLIC;
CREATE FUNCTION pg_catalog.create_distributed_table(
    table_name regclass, distribution_column text, colocate_with text DEFAULT 'default', shard_count int DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    named text;
BEGIN
    SELECT i.indexrelid::regclass INTO named FROM pg_index AS i WHERE i.indrelid = table_name AND i.indisunique
        AND NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = table_name AND a.attname = distribution_column
        AND a.attnum = ANY (i.indkey::int2[]));
    IF named IS NOT NULL THEN
        RAISE feature_not_supported USING MESSAGE = 'cannot create constraint on ' || table_name,
            DETAIL = 'Distributed relations cannot have UNIQUE, EXCLUDE, or PRIMARY KEY constraints that do not include'
            || ' the partition column: ' || named;
    END IF;
    IF colocate_with NOT IN ('default', 'none')
        AND NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass(colocate_with)) THEN
        RAISE wrong_object_type USING MESSAGE = 'relation ' || colocate_with || ' is not distributed';
    END IF;
    INSERT INTO pg_dist_partition VALUES (table_name, 'h', distribution_column, shard_count);
END $$;
CREATE FUNCTION pg_catalog.column_to_column_name(table_name regclass, column_var_text text)
    RETURNS text LANGUAGE sql AS 'SELECT column_var_text';
CREATE FUNCTION pg_catalog.truncate_local_data_after_distributing_table(function_arg regclass)
    RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION pg_catalog.citus_total_relation_size(logicalrelid regclass, fail_on_error boolean DEFAULT true)
    RETURNS bigint LANGUAGE sql AS 'SELECT pg_total_relation_size(logicalrelid)';
"""


def pretend(url: str) -> None:
    """Have a database take itself for a coordinator's, with nothing distributed yet."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_CATALOG)


@contextlib.contextmanager
def emptied(url: str) -> Iterator[str]:
    """A cluster's database with the schema in place, distributed, and no rows; nobody else has it meanwhile."""
    from lifecycle import distribute, migrate
    from lifecycle.models import tables as t

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        migrate.upgrade(url)
        distribute.distribute(url)
        for table in t.metadata.sorted_tables:
            connection.execute(f"TRUNCATE {table.name}".encode())
        yield url


Note = Callable[[str, Statement], None]


@contextlib.contextmanager
def watched(note: Note) -> Iterator[None]:
    """Tell of each statement that is sent on Citus, by the name of its request, before it is."""
    recipes, singles = dict(book.RECIPES["citus"]), dict(book.SINGLES["citus"])
    try:
        book.RECIPES["citus"].update({kind: _watched(kind.__name__, recipe, note) for kind, recipe in recipes.items()})
        book.SINGLES["citus"].update({kind: _noted(kind.__name__, one, note) for kind, one in singles.items()})
        yield
    finally:
        book.RECIPES["citus"].update(recipes)
        book.SINGLES["citus"].update(singles)


def _watched(name: str, recipe: Callable[[Any], Any], note: Note) -> Callable[[Any], Any]:
    def run(request: Any) -> Any:
        steps, answer = recipe(request), None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, Many):
                    note(name, step.statement)
                elif isinstance(step, tuple):
                    note(name, step[0])
                answer = yield step
        except StopIteration as done:
            return done.value
        finally:
            steps.close()

    return run


def _noted(name: str, one: Single, note: Note) -> Single:
    def statement(request: Any) -> Statement:
        chosen = one.statement(request)
        note(name, chosen)
        return chosen

    return Single(statement, one.bind, one.read)
