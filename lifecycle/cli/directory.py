"""`lifecycle directory`: sessions that agents keep in files."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lifecycle.cli.output import say, show_facts, show_json, show_rows, write
from lifecycle.cli.scope import Scope, scope_of
from lifecycle.errors import SessionNotFound

if TYPE_CHECKING:
    from lifecycle.directories import SessionDirectory
    from lifecycle.directories.calls import Directories
    from lifecycle.manager.blocking import SessionManager

app = typer.Typer(no_args_is_help=True)
Root = Annotated[
    str | None,
    typer.Argument(metavar="[ROOT]", help="What holds agents/<agentId>/sessions/; the configured ones without."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; change nothing.")]
Protect = Annotated[
    list[str] | None,
    typer.Option(metavar="ID|KEY", help="Never this one; keys may have * for any text. May be given again."),
]
Force = Annotated[bool, typer.Option("--force", help="Main sessions, protected ones and the caller's own too.")]
_COLUMNS: Final = (
    "agent", "sessions", "kinds", "keys", "transcripts", "transcript_bytes", "orphans", "orphan_bytes", "missing", "empty",
    "archives", "archive_bytes", "problem",
)  # fmt: skip
_LISTED: Final = 50


@app.command()
def scan(ctx: typer.Context, root: Root = None, as_json: Json = False) -> None:
    """Show what is on disk per agent: sessions, kinds, sizes, orphans, missing transcripts, empty sessions."""
    scope = scope_of(ctx)
    with directories(scope) as chosen:
        reports = _each(chosen, root, "agents", lambda one, bar: one.scan(progress=bar))
    if as_json or scope.as_json:
        _show(scope, reports, as_json=True)
        return
    for report in reports:
        show_rows([*report.agents, report.total], _COLUMNS, as_json=False, title=report.root)
        say(f"{report.total.sessions + report.total.orphans:,} sessions and orphans in {report.seconds} s")


@app.command()
def sync(ctx: typer.Context, root: Root = None, as_json: Json = False) -> None:
    """Bring what changed on disk into the database, and end what vanished. Only what changed is read."""
    scope = scope_of(ctx)
    with directories(scope) as chosen:
        reports = _each(chosen, root, "sessions", lambda one, bar: one.sync(progress=bar))
    _show(scope, reports, as_json=as_json, hide=("problems",))
    for report in reports:
        _say_all([f"{problem.where}: {problem.reason}" for problem in report.problems], report.problem_count)


@app.command()
def delete(
    ctx: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The session: its id on disk, or a key of it.")],
    root: Root = None,
    agent: Annotated[str | None, typer.Option(help="Whose session, where several agents have it.")] = None,
    protect: Protect = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Remove a session: its keys, its transcript (into the archive), and end it in the database."""
    scope = scope_of(ctx)
    with directories(scope) as chosen:
        for one in chosen.of(root):
            try:
                report = one.delete(session_id, agent=agent, protect=protect or (), force=force)
            except SessionNotFound:
                continue
            show_facts(report, as_json=as_json or scope.as_json)
            _say_all(one.mirror.problems)
            return
    raise SessionNotFound(session_id)


@app.command()
def prune(
    ctx: typer.Context,
    max_age: Annotated[str, typer.Option(help="Nothing happened for so long; such as 60m.")],
    root: Root = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="chat, cron, run, subagent or hook; may be given again.")
    ] = None,
    protect: Protect = None,
    force: Force = False,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Remove the sessions in which nothing happened for a while, and end them in the database."""
    scope = scope_of(ctx)

    def run(one: "SessionDirectory", bar: Any) -> Any:
        return one.prune(max_age, kinds=kind or (), protect=protect or (), force=force, dry_run=dry_run, progress=bar)

    with directories(scope) as chosen:
        _show(scope, _each(chosen, root, "agents", run), as_json=as_json)


@app.command()
def orphans(
    ctx: typer.Context,
    root: Root = None,
    archive: Annotated[bool, typer.Option("--archive", help="Archive them, and end their sessions.")] = False,
    older_than: Annotated[
        str | None, typer.Option(help="Unchanged for so long; directories.orphan_age without.")
    ] = None,
    protect: Protect = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List the transcripts that no key points at, or archive them."""
    scope = scope_of(ctx)

    def run(one: "SessionDirectory", bar: Any) -> Any:
        return one.orphans(archive=archive, older_than=older_than, protect=protect or (), force=force, progress=bar)

    with directories(scope) as chosen:
        reports = _each(chosen, root, "agents", run)
    if not (as_json or scope.as_json):
        for report in reports:
            show_rows(report.orphans[:_LISTED], ("agent", "transcript", "bytes", "age"), as_json=False)
            if len(report.orphans) > _LISTED:
                write(f"and {len(report.orphans) - _LISTED:,} more (--json has them all)\n")
    _show(scope, reports, as_json=as_json, hide=("orphans",))


@app.command()
def retention(
    ctx: typer.Context,
    root: Root = None,
    older_than: Annotated[
        str | None, typer.Option(help="Archived so long ago, or never; directories.archive_retention without.")
    ] = None,
    disk_budget: Annotated[
        str | None, typer.Option(help="Such as 5GB: then the oldest, until all files take no more.")
    ] = None,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Remove archived transcripts (.deleted. and .reset.) that are too old or too many."""
    scope = scope_of(ctx)

    def run(one: "SessionDirectory", bar: Any) -> Any:
        return one.retention(older_than=older_than, disk_budget=disk_budget, dry_run=dry_run, progress=bar)

    with directories(scope) as chosen:
        _show(scope, _each(chosen, root, "archives", run), as_json=as_json)


@contextmanager
def directories(scope: Scope) -> Iterator["Directories"]:
    """The roots of a command; the database is opened when one of them asks for it."""
    from lifecycle.directories.calls import Directories

    opened: list[SessionManager] = []

    def opener(tenant: str) -> "SessionManager":
        if not opened:
            opened.append(scope.manager(single=True))
        return opened[0].for_tenant(tenant)

    try:
        yield Directories(scope.settings, opener, scope.tenant)
    finally:
        for manager in opened:
            manager.close()


def _each(
    chosen: "Directories", root: str | None, what: str, run: Callable[["SessionDirectory", Any], Any]
) -> list[Any]:
    reports = []
    for one in chosen.of(root):
        with _bar(what) as show:
            reports.append(run(one, show))
    return reports


def _show(scope: Scope, reports: Sequence[Any], *, as_json: bool, hide: tuple[str, ...] = ()) -> None:
    """Print a report: of one root as it is, of several as a list."""
    if as_json or scope.as_json:
        show_json(reports[0] if len(reports) == 1 else list(reports))
        return
    for report in reports:
        fields = {name: getattr(report, name) for name in type(report).model_fields if name not in hide}
        errors = fields.pop("errors", [])
        show_facts(fields, as_json=False)
        _say_all(errors)


def _say_all(problems: Sequence[str], count: int | None = None) -> None:
    for problem in problems[:_LISTED]:
        say(f"warning: {problem}")
    if (more := (count or len(problems)) - _LISTED) > 0:
        say(f"warning: and {more:,} more")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how many are done; on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
