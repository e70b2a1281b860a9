"""What Citus would make of a statement, told from its text: its class, or why it is refused.

- router: every part names one and the same session by tenant and id, so that one node does it all;
- read: a plain SELECT of all nodes, whose parts meet on the session's id only, and which locks nothing;
- write: an UPDATE or DELETE of rows that a list or a condition names, without asking other tables; an INSERT of a list;
- copy: an INSERT of what a session has into another one, through the coordinator;
- coordinator: nothing of it is distributed;
- upkeep: no query.

The rules are those of Citus's manual ("SQL Support and Workarounds"), and of design and trial: what it might take but
nobody has seen it take is refused here too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pglast
from pglast import enums
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from lifecycle.recipes.citus_catalog import DISTRIBUTED
from lifecycle.recipes.statement import Statement, spelt_out

NAMES: Final = frozenset(table.name for table in DISTRIBUTED)
KEY: Final = ("tenant", "session_id")

# By PostgreSQL's own catalog (pg_proc.provolatile). One that is missing here is refused, until somebody has looked it up.
_VOLATILITY: Final = {
    "immutable": """
        abs array_length array_position ceil coalesce concat count decode encode floor json_array_elements json_array_length
        jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_exists left length lower
        max md5 min octet_length replace right row_number sha256 string_agg substr sum to_timestamp translate unnest""",
    "stable": """
        array_agg concat_ws current_schema date_trunc extract json_agg jsonb_agg now pg_current_snapshot pg_snapshot_xmin
        statement_timestamp to_json to_jsonb to_regclass""",
    "volatile": """
        citus_total_relation_size clock_timestamp nextval pg_current_xact_id pg_notify pg_relation_size
        pg_total_relation_size random set_config setval""",
}
_KNOWN: Final = {name: volatility for volatility, names in _VOLATILITY.items() for name in re.findall(r"\w+", names)}
# Of the node that reckons it.
_OWN_TO_A_NODE: Final = {"clock_timestamp", "now", "pg_current_snapshot", "pg_current_xact_id", "statement_timestamp"}

_DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
_DIALECT.insert_returning = True


# By the types that it ships, every field of a node may be None.
ast: Any = pglast.ast


class Refused(Exception):
    """Citus refuses the statement, or nobody knows that it does not."""


def written(statement: Statement) -> tuple[str, list[str]]:
    """The text of a statement as PostgreSQL reads it, and the names of its parameters in their order."""
    compiled: Any = spelt_out(statement.expression).compile(dialect=_DIALECT)
    return str(compiled), list(compiled.positiontup or ())


_PARAMETER: Final = re.compile(
    r"\$(\d+)(?:::(?:TIMESTAMP WITH TIME ZONE|DOUBLE PRECISION|[A-Z]+)(?: COLLATE \"C\")?(\[\])?)?"
)


def shown(sql: str, names: list[str]) -> str:
    """A statement on one line: parameters by their names without casts, long lists of columns by their number."""
    text = _PARAMETER.sub(lambda found: f":{names[int(found[1]) - 1].removeprefix('p_')}{found[2] or ''}", sql)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(:\w+?)_0(, :\w+_\d+)+", r"\1_0, ...", text)
    return re.sub(r"(SELECT |RETURNING |\()((?:\w[\w.\"]*, ){3,}\w[\w.\"]*)(?=[ )]|$)", _counted, text)


def _counted(found: re.Match[str]) -> str:
    names = found[2].split(", ")
    return f"{found[1]}{names[0]}, and {len(names) - 1} more"


Token = tuple[str, Any]


@dataclass(eq=False)
class Relation:
    """A table, or what is used as one, in the FROM of one part."""

    name: str
    table: str | None = None
    outputs: dict[str, Token] | None = None
    distributed: bool = False

    def token(self, column: str) -> Token:
        """What stands for a column's value."""
        if self.outputs is not None and column in self.outputs:
            return self.outputs[column]
        return ("column", (id(self), column))


@dataclass
class Scope:
    """The relations of one part, and which of their columns are equal to what."""

    relations: dict[str, Relation] = field(default_factory=dict)
    equal: dict[Token, Token] = field(default_factory=dict)
    outer: "Scope | None" = None

    def find(self, token: Token) -> Token:
        """What a column is equal to in the end: a parameter, if it is to one."""
        seen = token
        while seen in self.equal:
            seen = self.equal[seen]
        return seen if self.outer is None or seen[0] == "param" else self.outer.find(seen)

    def unite(self, one: Token, other: Token) -> None:
        """Take note that two are equal."""
        one, other = self.find(one), self.find(other)
        if one != other:
            source, target = (other, one) if one[0] == "param" else (one, other)
            # What is around this part is not made equal by what is in it.
            if self._is_outer(source):
                source, target = target, source
            if not self._is_outer(source):
                self.equal[source] = target

    def _is_outer(self, token: Token) -> bool:
        own = {id(relation) for relation in self.relations.values()}
        return token[0] == "param" or (token[0] == "column" and token[1][0] not in own and self.outer is not None)

    def column(self, names: list[str]) -> Token | None:
        """The token of a column as it is written."""
        scope: Scope | None = self
        while scope is not None:
            if len(names) > 1 and names[0] in scope.relations:
                return scope.find(scope.relations[names[0]].token(names[-1]))
            if len(names) == 1 and len(scope.relations) == 1:
                return scope.find(next(iter(scope.relations.values())).token(names[0]))
            scope = scope.outer
        return None


@dataclass
class Part:
    """One SELECT, UPDATE, DELETE or INSERT of a statement, and how it is bound to sessions."""

    kind: str
    tables: list[tuple[str, Token, Token]] = field(default_factory=list)
    locks: bool = False
    recursive: bool = False
    target: str | None = None


class Reader:
    """Goes through a statement, part by part."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.parts: list[Part] = []
        self.local: set[str] = set()
        self.asks = False
        self.inserts: tuple[Token, Token] | None = None
        self._ctes: list[dict[str, tuple[dict[str, Token], bool]]] = []

    def query(self, node: Any, outer: Scope | None = None) -> dict[str, Token]:
        """Read a query: the tokens of its columns."""
        with_ = node.withClause
        known: dict[str, tuple[dict[str, Token], bool]] = {}
        self._ctes.append(known)
        if with_ is not None:
            for cte in with_.ctes:
                if with_.recursive:
                    known[cte.ctename] = ({}, True)
                before = len(self.parts)
                outputs = self.query(cte.ctequery)
                if cte.aliascolnames:
                    outputs = dict(zip((one.sval for one in cte.aliascolnames), outputs.values(), strict=False))
                known[cte.ctename] = (outputs, any(part.tables for part in self.parts[before:]))
                if with_.recursive:
                    for part in self.parts[before:]:
                        part.recursive = True
        try:
            read = {
                ast.SelectStmt: self._select, ast.UpdateStmt: self._update, ast.DeleteStmt: self._delete,
                ast.InsertStmt: self._insert,
            }[type(node)]  # fmt: skip
            return read(node, outer)
        finally:
            self._ctes.pop()

    def _select(self, node: ast.SelectStmt, outer: Scope | None) -> dict[str, Token]:
        if node.op != enums.SetOperation.SETOP_NONE:
            first, second = self.query(node.larg, outer), self.query(node.rarg, outer)
            pairs = zip(first.items(), second.values(), strict=False)
            return {name: one if one == other else ("column", (id(node), name)) for (name, one), other in pairs}
        part, scope = Part("select", locks=bool(node.lockingClause)), Scope(outer=outer)
        self.parts.append(part)
        self._from(node.fromClause or (), scope, part)
        self._conditions([node.whereClause], scope)
        self._finish(part, scope)
        everything = [
            node.targetList,
            node.whereClause,
            node.sortClause,
            node.groupClause,
            node.havingClause,
            node.limitCount,
        ]
        for function in _calls(everything):
            if part.tables and function in _OWN_TO_A_NODE:
                raise Refused(f"{function}() is a node's own here")
        self._below(everything, scope)
        return self._outputs(node.targetList or (), scope)

    def _update(self, node: ast.UpdateStmt, outer: Scope | None) -> dict[str, Token]:
        return self._change("update", node, node.fromClause, outer)

    def _delete(self, node: ast.DeleteStmt, outer: Scope | None) -> dict[str, Token]:
        return self._change("delete", node, node.usingClause, outer)

    def _change(self, kind: str, node: Any, others: Any, outer: Scope | None) -> dict[str, Token]:
        part, scope = Part(kind, target=node.relation.relname), Scope(outer=outer)
        self.parts.append(part)
        self._from((node.relation, *(others or ())), scope, part)
        self._conditions([node.whereClause], scope)
        self._finish(part, scope)
        written = [node.whereClause, [target.val for target in node.targetList or ()] if kind == "update" else None]
        returned = node.returningClause.exprs if node.returningClause else ()
        if part.tables:
            _check_functions(written)
            if any(_volatility(function) != "immutable" for function in _calls(returned)):
                raise Refused("RETURNING calls what is not IMMUTABLE")
        self._below([*written, returned], scope)
        return self._outputs(returned, scope)

    def _insert(self, node: ast.InsertStmt, outer: Scope | None) -> dict[str, Token]:
        name = node.relation.relname
        part, columns = Part("insert", target=name), [one.name for one in node.cols or ()]
        select = node.selectStmt
        if select is not None and select.valuesLists:
            values = [self._value(value, Scope()) for value in select.valuesLists[0]]
            if len(select.valuesLists) > 1:
                raise Refused("an INSERT of several rows: send a list")
        else:
            values = [] if select is None else list(self.query(select, outer).values())
        given = dict(zip(columns, values, strict=False))
        if node.onConflictClause is not None and name in NAMES:
            for function in _calls([one.val for one in node.onConflictClause.targetList or ()]):
                if _volatility(function) != "immutable":
                    raise Refused(f"ON CONFLICT sets what {function}() gives, which is not IMMUTABLE")
        if name in NAMES:
            tokens = tuple(given.get(column) or ("none", column) for column in KEY)
            part.tables.append((name, *tokens))
        else:
            self.local.add(name)
        self.parts.append(part)
        return self._outputs(
            node.returningClause.exprs if node.returningClause else (), Scope({name: Relation(name, name, given)})
        )

    def _from(self, items: Any, scope: Scope, part: Part) -> None:
        for item in items:
            match item:
                case ast.RangeVar():
                    self._table(item, scope)
                case ast.RangeSubselect():
                    name = item.alias.aliasname if item.alias else f"subquery {len(scope.relations)}"
                    before = len(self.parts)
                    outputs = self.query(item.subquery, scope if item.lateral else None)
                    for one in self.parts[before:] if item.lateral else ():
                        one.recursive = True  # refused alike, unless one session is meant
                    scope.relations[name] = Relation(name, outputs=outputs)
                case ast.RangeFunction():
                    name = item.alias.aliasname if item.alias else f"function {len(scope.relations)}"
                    scope.relations[name] = Relation(name, outputs={})
                case ast.JoinExpr():
                    self._from((item.larg, item.rarg), scope, part)
                    if item.jointype == enums.JoinType.JOIN_INNER:
                        self._conditions([item.quals], scope)
                    elif item.jointype == enums.JoinType.JOIN_LEFT and isinstance(item.rarg, ast.RangeVar):
                        self._conditions([item.quals], scope)  # of the right side, which is all that it can pin anew
                    else:
                        raise Refused(f"a join that is not known here: {item.jointype}")
                case _:
                    raise Refused(f"a FROM that is not known here: {type(item).__name__}")

    def _table(self, item: ast.RangeVar, scope: Scope) -> None:
        name = item.alias.aliasname if item.alias else item.relname
        for known in reversed(self._ctes):
            if item.schemaname is None and item.relname in known:
                scope.relations[name] = Relation(name, outputs=dict(known[item.relname][0]))
                return
        relation = scope.relations[name] = Relation(name, item.relname, distributed=item.relname in NAMES)
        if not relation.distributed:
            self.local.add(item.relname)

    def _conditions(self, nodes: list[Any], scope: Scope) -> None:
        """Take note of what must be equal."""
        for node in nodes:
            match node:
                case ast.BoolExpr(boolop=enums.BoolExprType.AND_EXPR):
                    self._conditions(list(node.args), scope)
                case ast.A_Expr(kind=enums.A_Expr_Kind.AEXPR_OP) if node.name[-1].sval == "=":
                    one, other = self._value(node.lexpr, scope), self._value(node.rexpr, scope)
                    if one is not None and other is not None:
                        scope.unite(one, other)

    def _value(self, node: Any, scope: Scope) -> Token | None:
        match node:
            case ast.TypeCast():
                return self._value(node.arg, scope)
            case ast.CollateClause():
                return self._value(node.arg, scope)
            case ast.ParamRef():
                return ("param", self._names[node.number - 1])
            case ast.ColumnRef():
                names = [part.sval for part in node.fields if isinstance(part, ast.String)]
                return scope.column(names) if names else None
        return None

    def _finish(self, part: Part, scope: Scope) -> None:
        for relation in scope.relations.values():
            if relation.distributed and relation.table is not None:
                tenant, session = (scope.find(relation.token(column)) for column in KEY)
                part.tables.append((relation.table, tenant, session))

    def _below(self, nodes: Any, scope: Scope) -> None:
        for link in _nodes(nodes, ast.SubLink, stop=ast.SubLink):
            before = len(self.parts)
            self.query(link.subselect, scope)
            self.asks |= any(part.tables for part in self.parts[before:])
            if link.testexpr is not None:
                self._below([link.testexpr], scope)

    def _outputs(self, targets: Any, scope: Scope) -> dict[str, Token]:
        outputs: dict[str, Token] = {}
        for number, target in enumerate(targets):
            value = target.val
            if isinstance(value, ast.ColumnRef) and isinstance(value.fields[-1], ast.A_Star):
                for relation in scope.relations.values():
                    outputs |= {column: scope.find(relation.token(column)) for column in KEY}
                continue
            token = self._value(value, scope)
            name = target.name or (value.fields[-1].sval if isinstance(value, ast.ColumnRef) else f"column {number}")
            outputs[name] = token if token is not None else ("column", (id(target), name))
        return outputs


def classify(sql: str, names: list[str]) -> str:
    """The class of a statement whose parameters have these names. Raises `Refused`."""
    (raw,) = pglast.parse_sql(sql)
    node = raw.stmt
    if not isinstance(node, ast.SelectStmt | ast.UpdateStmt | ast.DeleteStmt | ast.InsertStmt):
        return "upkeep"
    reader = Reader(names)
    reader.query(node)
    parts = [part for part in reader.parts if part.tables]
    if not parts:
        return "coordinator"
    catalog = {name for name in reader.local if name.startswith(("pg_", "citus_"))}
    if reader.local:
        raise Refused(f"joins {', '.join(sorted(reader.local - catalog) or catalog)}, which no node has")
    sessions = {(tenant, session) for part in parts for _, tenant, session in part.tables}
    pinned = [key for key in sessions if key[0][0] == "param" and key[1][0] == "param"]
    if len(sessions) == len(pinned) == 1:
        return "router"
    if isinstance(node, ast.InsertStmt):
        return _insert_class(parts, pinned, sessions)
    if any(part.recursive for part in parts):
        raise Refused("WITH RECURSIVE or LATERAL, of more than one session")
    if any(part.locks for part in parts):
        raise Refused("locks rows of more than one session")
    if isinstance(node, ast.SelectStmt):
        if any(part.kind != "select" for part in parts):
            raise Refused("a WITH that writes, to more than one session")
        for function in _calls(node):
            _volatility(function)
        if any(_nodes(node, ast.WindowDef)):
            raise Refused("a window over rows of several nodes")
        _check_meeting(parts)
        return "read"
    if len(parts) > 1 or len(parts[0].tables) > 1 or reader.asks:
        raise Refused("a write to more than one session that asks other tables")
    return "write"


def _insert_class(parts: list[Part], pinned: list[Any], sessions: set[Any]) -> str:
    *sources, _ = parts
    if not sources:
        return "write"
    if len(pinned) == len(sessions):
        return "copy"
    raise Refused("an INSERT of what is read from more than one session")


def _check_meeting(parts: list[Part]) -> None:
    """That tables meet on the session's id: each part by itself, as Citus carries over what others gave."""
    for part in parts:
        if len({session for _, _, session in part.tables}) > 1:
            raise Refused(f"{', '.join(sorted(name for name, *_ in part.tables))}: not joined on the session's id")


def _check_functions(written: Any) -> None:
    for node in _nodes(written, ast.CaseExpr | ast.CoalesceExpr):
        for function in _calls(node):
            if _volatility(function) != "immutable":
                raise Refused(f"{function}() within CASE or COALESCE, which may not be asked there")
    for node in _nodes(written, ast.FuncCall | ast.A_Expr | ast.SQLValueFunction):
        kind = _kind(node)
        if kind == "volatile":
            raise Refused(f"{_name(node)}() is VOLATILE")
        if kind == "stable" and any(_nodes(_arguments(node), ast.ColumnRef)):
            raise Refused(f"{_name(node)} of a column is not IMMUTABLE")


def _kind(node: Any) -> str:
    if isinstance(node, ast.FuncCall):
        return _volatility(_name(node))
    if isinstance(node, ast.SQLValueFunction):
        return "stable"
    # A time and an interval: days have more or fewer hours.
    operator = node.name[-1].sval
    casts = [one.typeName.names[-1].sval for one in (node.lexpr, node.rexpr) if isinstance(one, ast.TypeCast)]
    below = [one.typeName.names[-1].sval for one in _nodes([node.lexpr, node.rexpr], ast.TypeCast)]
    return "stable" if operator in {"+", "-"} and "interval" in (*casts, *below) else "immutable"


def _arguments(node: Any) -> Any:
    return (
        [node.args] if isinstance(node, ast.FuncCall) else [getattr(node, "lexpr", None), getattr(node, "rexpr", None)]
    )


def _name(node: Any) -> str:
    if isinstance(node, ast.FuncCall):
        return str(node.funcname[-1].sval)
    return str(node.name[-1].sval) if isinstance(node, ast.A_Expr) else "a value of the session's"


def _volatility(function: str) -> str:
    if function not in _KNOWN:
        raise Refused(f"{function}(): look its volatility up in pg_proc, and name it in tests/statements.py")
    return _KNOWN[function]


def _calls(nodes: Any) -> list[str]:
    """The functions that are called, in subqueries too."""
    return [_name(node) for node in _nodes(nodes, ast.FuncCall)]


def _nodes(node: Any, kind: Any, stop: Any = ()) -> Iterator[Any]:
    """The nodes of a kind, those below them too unless they are to `stop`."""
    if isinstance(node, list | tuple):
        for one in node:
            yield from _nodes(one, kind, stop)
    elif isinstance(node, ast.Node):
        if isinstance(node, kind):
            yield node
            if stop and isinstance(node, stop):
                return
        for name in node:
            yield from _nodes(getattr(node, name), kind, stop)
