"""PostgreSQL's row-level security behind the tenant filter, for roles that are not the owner of the tables.

Every statement of a manager names its tenant anyway. Under row-level security the database compares it once more, with
the setting that travels with the statement (`lifecycle.drivers.postgresql_scope`): a statement that forgot its filter
sees nothing of others, and writes nothing for them. docs/security.md says what that does not protect from.
"""

from typing import Any, Final

import sqlalchemy as sa

from lifecycle import migrate
from lifecycle.distribute import is_distributed
from lifecycle.errors import ConfigError, InvalidArgument
from lifecycle.models import tables as t
from lifecycle.urls import dialect_name

OWN: Final = "lifecycle_tenant"
EVERYBODY: Final = "lifecycle_everybody"
TITLES: Final = "lifecycle_found_titles"
MESSAGES: Final = "lifecycle_found_messages"
OF_ALL: Final = "_of_all"
"""What a function for managers of all tenants has behind its name."""

# Whatever belongs to a tenant. Keys are looked up to learn whose they are.
TABLES: Final = tuple(
    table.name for table in t.metadata.sorted_tables if "tenant" in table.c and table is not t.api_keys
)
_GRANTS: Final = {
    **dict.fromkeys(TABLES, "SELECT, INSERT, UPDATE, DELETE"),
    t.api_keys.name: "SELECT, UPDATE (last_used_at)",
    t.secrets.name: "SELECT, INSERT",
    t.workers.name: "SELECT",
    t.worker_jobs.name: "SELECT",
    migrate.VERSION_TABLE: "SELECT",
}
_SETTING: Final = "current_setting('lifecycle.tenant', true)"
_TENANT: Final = f"CASE WHEN left({_SETTING}, 1) = '=' THEN substr({_SETTING}, 2) END"
_CONDITIONS: Final = {OWN: f"tenant = {_TENANT}", EVERYBODY: f"{_SETTING} = '*'"}

# A LIKE is not leakproof: PostgreSQL runs it behind the policy, row by row, and not out of an index. So search asks these
# functions, which run as the owner, filter by the same setting themselves, and give keys only; what those stand for is
# read under the policy. A pattern that could fail on one row and not on another is refused.
_FOUND: Final = """
CREATE OR REPLACE FUNCTION {schema}.{name}(pattern text) RETURNS TABLE (tenant text, session_id text)
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER ROWS 100
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $function$
#variable_conflict use_column
DECLARE
    own text := {tenant};
BEGIN
    IF pattern ~ '(^|[^\\\\])(\\\\\\\\)*\\\\$' THEN
        RAISE invalid_escape_sequence USING MESSAGE = 'the pattern ends in the middle of an escape';
    END IF;
    {guard}
    RETURN QUERY {query}{within};
END
$function$
"""
_QUERIES: Final = {
    TITLES: "SELECT s.tenant, s.session_id FROM {schema}.sessions AS s WHERE s.title_folded LIKE pattern",
    MESSAGES: (
        "SELECT DISTINCT s.tenant, s.session_id FROM {schema}.session_messages AS s"
        ' WHERE coalesce(s.content_folded, lower(s.content COLLATE "C")) LIKE pattern'
    ),
}


def set_row_security(url: str, role: str, on: bool, *, all_tenants: bool = False) -> dict[str, Any]:
    """Put a role under row-level security, with the rights it needs, or take both away; what `row_security` reports then.

    `all_tenants` lets managers of `ALL` see everybody's rows under the role; without it they see none. Once the last role
    is taken out, the tables are as before. Run it as the owner of the tables, and again after an upgrade. Raises
    `InvalidArgument` for a role that is not there, or that row-level security does not hold for, and `SchemaOutdated`.
    """
    _supported(url)
    migrate.check(url)
    with migrate.connected(url) as connection, connection.begin():
        # Whoever waits for a lock on a table has everybody behind him wait too.
        connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
        schema, owner = _place(connection)
        if on:
            if is_distributed(connection):
                raise InvalidArgument("row security: Citus's workers are not told whose sessions a statement is for")
            _check_role(connection, role, owner)
        known = _roles(connection)
        own, everybody = known[OWN] - {role}, known[EVERYBODY] - {role}
        if on:
            own |= {role}
            everybody |= {role} if all_tenants else set()
            _grant(connection, schema, role)
        else:
            _revoke(connection, schema, role)
        _policies(connection, own, everybody)
        _functions(connection, schema, owner, own, everybody)
        return _report(connection)


def row_security(url: str) -> dict[str, Any]:
    """The roles that row-level security holds for, and the tables and functions that it takes.

    `complete` is false where a table of this release is without it, though a role relies on it; `left_out` are roles that
    may read the tables, see nothing of them now, and should be put under it too.
    """
    _supported(url)
    migrate.check(url)
    with migrate.connected(url) as connection:
        return _report(connection)


def require_row_security(url: str) -> None:
    """Raise `ConfigError` unless row-level security holds for the role that the URL connects as."""
    with migrate.connected(url) as connection:
        active, role = connection.exec_driver_sql(
            "SELECT row_security_active(to_regclass('sessions')), current_user"
        ).one()
    if not active:
        raise ConfigError(
            "database.row_security",
            f"it does not hold for the role {role!r}: connect as one that `lifecycle db row-security on --role NAME` was"
            " run for, or set this key to false",
        )


def _supported(url: str) -> None:
    if dialect_name(url) != "postgresql":
        raise InvalidArgument(
            "row security: only PostgreSQL has it; elsewhere a tenant's filter is in each statement alone"
        )


def _place(connection: sa.Connection) -> tuple[str, str]:
    """The schema and the owner of the tables, quoted."""
    found = connection.exec_driver_sql(
        "SELECT quote_ident(n.nspname), quote_ident(pg_get_userbyid(c.relowner)) FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass('sessions')"
    ).one()
    return found[0], found[1]


def _check_role(connection: sa.Connection, role: str, owner: str) -> None:
    found = connection.execute(
        sa.text(
            "SELECT rolsuper, rolbypassrls, pg_has_role(oid, to_regrole(:owner), 'USAGE') FROM pg_roles WHERE rolname = :role"
        ),
        {"role": role, "owner": owner},
    ).one_or_none()
    if found is None:
        raise InvalidArgument(f"--role: there is no role {role!r}: CREATE ROLE {_quoted(role)} LOGIN PASSWORD '...'")
    why = ("it is a superuser", "it has BYPASSRLS", f"it owns the tables, or is a member of {owner}, who does")
    for is_so, reason in zip(found, why, strict=True):
        if is_so:
            raise InvalidArgument(f"--role: row security would not hold for {role!r}: {reason}")


def _grant(connection: sa.Connection, schema: str, role: str) -> None:
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {_quoted(role)}")
    for table, rights in _GRANTS.items():
        connection.exec_driver_sql(f"GRANT {rights} ON {schema}.{table} TO {_quoted(role)}")


def _revoke(connection: sa.Connection, schema: str, role: str) -> None:
    there = connection.execute(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).one_or_none()
    if there is None:
        raise InvalidArgument(f"--role: there is no role {role!r}")
    for table in _GRANTS:
        connection.exec_driver_sql(f"REVOKE ALL ON {schema}.{table} FROM {_quoted(role)}")
    connection.exec_driver_sql(f"REVOKE USAGE ON SCHEMA {schema} FROM {_quoted(role)}")


def _policies(connection: sa.Connection, own: set[str], everybody: set[str]) -> None:
    for table in TABLES:
        for name, roles in ((OWN, own), (EVERYBODY, everybody)):
            connection.exec_driver_sql(f"DROP POLICY IF EXISTS {name} ON {table}")
            if roles:
                to = ", ".join(_quoted(role) for role in sorted(roles))
                condition = _CONDITIONS[name]
                connection.exec_driver_sql(
                    f"CREATE POLICY {name} ON {table} TO {to} USING ({condition}) WITH CHECK ({condition})"
                )
        connection.exec_driver_sql(f"ALTER TABLE {table} {'ENABLE' if own else 'DISABLE'} ROW LEVEL SECURITY")


def _functions(connection: sa.Connection, schema: str, owner: str, own: set[str], everybody: set[str]) -> None:
    for name, query in _QUERIES.items():
        for made, roles in ((name, own), (name + OF_ALL, everybody)):
            connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {schema}.{made}(text)")
            if not roles:
                continue
            of_all = made != name
            text = _FOUND.format(
                schema=schema, name=made, tenant="NULL" if of_all else _TENANT, query=query.format(schema=schema),
                guard="" if of_all else "IF own IS NULL THEN RETURN; END IF;",
                within="" if of_all else " AND s.tenant = own",
            )  # fmt: skip
            connection.exec_driver_sql(text.replace("%", "%%"))
            connection.exec_driver_sql(f"ALTER FUNCTION {schema}.{made}(text) OWNER TO {owner}")
            connection.exec_driver_sql(f"REVOKE ALL ON FUNCTION {schema}.{made}(text) FROM PUBLIC")
            to = ", ".join(_quoted(role) for role in sorted(roles))
            connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {schema}.{made}(text) TO {to}")


def _roles(connection: sa.Connection) -> dict[str, set[str]]:
    """The roles of each policy. One that was dropped since is gone from there too."""
    known: dict[str, set[str]] = {OWN: set(), EVERYBODY: set()}
    for name, role in connection.exec_driver_sql(
        "SELECT policyname, unnest(roles)::text FROM pg_policies WHERE schemaname = current_schema()"
        f" AND policyname IN ('{OWN}', '{EVERYBODY}')"
    ):
        known[name].add(role)
    return known


def _report(connection: sa.Connection) -> dict[str, Any]:
    roles = _roles(connection)
    on = {
        name
        for (name,) in connection.exec_driver_sql(
            "SELECT c.relname FROM pg_class AS c JOIN pg_policies AS p ON p.tablename = c.relname"
            " AND p.schemaname = current_schema() WHERE c.relnamespace = current_schema()::regnamespace"
            f" AND c.relrowsecurity AND p.policyname = '{OWN}'"
        )
    }
    under = roles[OWN] | roles[EVERYBODY]
    readers = connection.exec_driver_sql(
        "SELECT r.rolname FROM pg_roles AS r, pg_class AS c WHERE c.oid = to_regclass('sessions') AND NOT r.rolsuper"
        " AND NOT r.rolbypassrls AND r.rolname !~ '^pg_' AND has_table_privilege(r.oid, c.oid, 'SELECT')"
        " AND NOT pg_has_role(r.oid, c.relowner, 'USAGE')"
    )
    return {
        "on": bool(on),
        "roles": sorted(roles[OWN]),
        "all_tenants": sorted(roles[EVERYBODY]),
        "tables": sorted(on),
        "complete": not on or on == set(TABLES),
        "left_out": sorted(name for (name,) in readers if on and name not in under),
    }


def _quoted(role: str) -> str:
    quoted = role.replace('"', '""').replace("%", "%%")
    return f'"{quoted}"'
