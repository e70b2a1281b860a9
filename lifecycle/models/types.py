"""Column types that mean the same on every database, and the database's own clock."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

# Trailing blanks and case tell keys apart on every database; MariaDB needs to be told so.
MARIADB_COLLATION = "utf8mb4_nopad_bin"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def key_text() -> sa.types.TypeEngine[str]:
    """Text of at most 255 characters that an index may hold."""
    return _text().with_variant(sa.String(255, collation=MARIADB_COLLATION), "mysql", "mariadb")


def long_text() -> sa.types.TypeEngine[str]:
    """Text of any length: documents and messages."""
    variant = mysql.LONGTEXT(charset="utf8mb4", collation=MARIADB_COLLATION)
    return _text().with_variant(variant, "mysql", "mariadb")


def _text() -> sa.types.TypeEngine[str]:
    # Sorted by code point, as on the other databases and in Python: whatever locks rows in the order of their keys
    # must agree with the rest on it.
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


# The same times are read again and again: three columns of a row may hold one.
@lru_cache(4096)
def from_microseconds(value: int | None) -> datetime | None:
    """The time so many microseconds after the epoch."""
    return None if value is None else EPOCH + timedelta(0, 0, value)


def to_microseconds(value: datetime | None) -> int | None:
    """The microseconds since the epoch; a time without a zone is taken as UTC."""
    if value is None:
        return None
    since = (value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - EPOCH
    return since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds


class Timestamp(sa.types.TypeDecorator[datetime]):
    """A UTC time in microseconds: timestamptz on PostgreSQL, datetime(6) on MariaDB, an integer on SQLite.

    SQLite has no time type; integers compare and index best there.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """The type that the database itself has."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.BigInteger())
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        """What the driver is sent for a time."""
        if value is None or dialect.name == "postgresql":
            return value
        if dialect.name == "sqlite":
            return to_microseconds(value)
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        """An aware UTC time for what the driver gave."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            return from_microseconds(value)
        time: datetime = value
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


class _Bytea(sa.types.UserDefinedType[str]):
    """PostgreSQL's bytes, which statements read and write as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """As it is written in DDL."""
        return "BYTEA"


class Base64(sa.types.TypeDecorator[str]):
    """Bytes as base 64 text: stored as bytes by PostgreSQL, where they take three quarters of it, and as text elsewhere."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """The type that the database itself has."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_Bytea())
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.LONGTEXT(charset="ascii", collation="ascii_bin"))
        return dialect.type_descriptor(sa.Text())

    def bind_expression(self, bindparam: Any) -> Any:
        """What stores a text."""
        return from_base64(sa.type_coerce(bindparam, sa.Text()))

    def column_expression(self, column: Any) -> Any:
        """What reads one."""
        return sa.type_coerce(to_base64(column), self)


class from_base64(FunctionElement[str]):  # noqa: N801 - reads as an SQL function
    """A text as a `Base64` column holds it."""

    inherit_cache = True
    name = "from_base64"


@compiles(from_base64)
def _from_base64(element: from_base64, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(from_base64, "postgresql")
def _from_base64_postgresql(element: from_base64, compiler: Any, **options: Any) -> str:
    return f"decode({compiler.process(element.clauses, **options)}, 'base64')"


class to_base64(FunctionElement[str]):  # noqa: N801 - reads as an SQL function
    """The text of a `Base64` column."""

    inherit_cache = True
    name = "to_base64"
    type = sa.Text()


@compiles(to_base64)
def _to_base64(element: to_base64, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(to_base64, "postgresql")
def _to_base64_postgresql(element: to_base64, compiler: Any, **options: Any) -> str:
    # Without the line breaks that it puts between 76 characters each.
    return f"translate(encode({compiler.process(element.clauses, **options)}, 'base64'), E'\\n', '')"


class now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, the same throughout one statement."""

    type = Timestamp()
    inherit_cache = True
    name = "now"


@compiles(now, "postgresql")
def _now_postgresql(_element: now, _compiler: Any, **_: Any) -> str:
    # Not now(): that is when the transaction began, which may be before a lock it waited for.
    return "statement_timestamp()"


@compiles(now, "mysql", "mariadb")
def _now_mariadb(_element: now, _compiler: Any, **_: Any) -> str:
    return "UTC_TIMESTAMP(6)"


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: Any, **_: Any) -> str:
    return "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"


class transaction_id(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The running transaction's number where the database gives one, for readers that must skip none."""

    type = sa.BigInteger()
    inherit_cache = True
    name = "transaction_id"


@compiles(transaction_id)
def _transaction_id(_element: transaction_id, _compiler: Any, **_: Any) -> str:
    return "NULL"


@compiles(transaction_id, "postgresql")
def _transaction_id_postgresql(_element: transaction_id, _compiler: Any, **_: Any) -> str:
    return "pg_current_xact_id()::text::bigint"
