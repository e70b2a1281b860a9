"""`lifecycle export` and `lifecycle import`: backup, restore, and the way from one database to another."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.cli.output import say, show_facts, show_json
from lifecycle.cli.scope import Scope, require_file, scope_of
from lifecycle.cli.values import parse_when
from lifecycle.errors import SessionExists

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from lifecycle.transfer.report import TransferReport

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_STDIO = "-"


class Conflicts(StrEnum):
    """What to do with a session that is there already."""

    ERROR = "error"
    SKIP = "skip"
    REPLACE = "replace"


def export(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; .gz and .zst compress, - is stdout.")],
    state: Annotated[str | None, typer.Option()] = None,
    kind: Annotated[str | None, typer.Option()] = None,
    user_id: Annotated[str | None, typer.Option("--user")] = None,
    agent_id: Annotated[str | None, typer.Option("--agent")] = None,
    parent_id: Annotated[str | None, typer.Option("--parent")] = None,
    session_id: Annotated[list[str] | None, typer.Option("--id", help="Only this one; may be given again.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Changed since; such as 2026-11-21T07:00Z, or 2h for 2 hours ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Changed until; likewise.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write sessions with all they own to a file, from one snapshot of the database: everybody's, unless --tenant."""
    from lifecycle.transfer.exporting import export_sessions
    from lifecycle.transfer.selection import Selection

    scope = scope_of(ctx)
    selection = Selection(
        tenant=scope.tenant, session_ids=tuple(session_id or ()), kind=kind, state=state, user_id=user_id,
        agent_id=agent_id, parent_id=parent_id, since=parse_when(since, "--since"), until=parse_when(until, "--until"),
    )  # fmt: skip
    with _bar() as show:
        report = export_sessions(_url(scope), file, selection=selection, overwrite=overwrite, progress=show)
    _show(scope, report, as_json=as_json, to_stderr=file == _STDIO)


def import_(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What an export wrote; - is stdin.")],
    on_conflict: Annotated[
        Conflicts, typer.Option(help="What to do with a session that is there already.")
    ] = Conflicts.ERROR,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every line, and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Store what an export holds, all of it or nothing. The schema has to be there: lifecycle db upgrade."""
    from pathlib import Path

    from lifecycle.transfer.importing import import_sessions

    scope = scope_of(ctx)
    size = Path(file).stat().st_size if file != _STDIO and Path(file).is_file() else None
    with _bar() as show:
        progress = None if show is None else lambda rows, position: show(rows, position, size)
        try:
            report = import_sessions(
                _url(scope), file, on_conflict=on_conflict.value, tenant=scope.tenant, dry_run=dry_run,
                progress=progress,
            )  # fmt: skip
        except SessionExists:
            say("nothing was written; --on-conflict skip or replace goes on where a session exists")
            raise
    if not dry_run:
        _outdate(scope)
    _show(scope, report, as_json=as_json, to_stderr=False)


def _outdate(scope: Scope) -> None:
    """Outdate what is cached of the sessions that were there before: an import goes past the managers."""
    if scope.settings.cache.url is None:
        return
    from lifecycle.cache.clearing import clear
    from lifecycle.errors import StorageUnavailable

    try:
        clear(scope.settings)
    except StorageUnavailable as error:
        say(f"{error}; it may show what was: run lifecycle cache clear when it can be reached")


def _url(scope: Scope) -> str:
    from lifecycle.cli import quiet

    quiet.prepare(scope.settings.logging)
    require_file(scope.settings.database.url)
    return scope.settings.database.url


def _show(scope: Scope, report: "TransferReport", *, as_json: bool, to_stderr: bool) -> None:
    if to_stderr:
        import json

        if as_json or scope.as_json:
            sys.stderr.write(json.dumps(report.as_dict()) + "\n")
        else:
            say(_in_words(report))
    elif as_json or scope.as_json:
        show_json(report.as_dict())
    else:
        show_facts(report.as_dict(), as_json=False)


def _in_words(report: "TransferReport") -> str:
    return (
        f"{report.sessions:,} sessions, {report.rows_total:,} rows in {report.seconds:,.1f} s:"
        f" {report.rows_per_second:,} rows/s"
    )


@contextmanager
def _bar() -> Iterator[Callable[[int, int, int | None], None] | None]:
    """Give a function that shows rows, and how far it is of how much; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    started: list[tuple[Progress, TaskID]] = []

    def show(rows: int, done: int, total: int | None) -> None:
        if not started:
            started.append(_started())
        progress, task = started[0]
        progress.update(task, completed=done, total=total, rows=rows)

    try:
        yield show
    finally:
        for progress, _ in started:
            progress.stop()


def _started() -> "tuple[Progress, TaskID]":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns: Any = (
        BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rows]:,} rows"), TimeRemainingColumn(),
        TextColumn("Ctrl-C leaves nothing behind"),
    )  # fmt: skip
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.start()
    return progress, progress.add_task("", total=None, rows=0)
