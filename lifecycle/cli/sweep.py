"""`lifecycle sweep`."""

import signal
import time
from typing import Annotated, Any, Final

import typer
from rich.progress import Progress

from lifecycle.cli.output import errors, show_facts
from lifecycle.cli.scope import scope_of
from lifecycle.models.reads import SweepReport

_LISTED: Final = 1000
app = typer.Typer(no_args_is_help=True)
Dry = Annotated[
    bool, typer.Option("--dry-run", help="Count what is due with the sweep's own condition; change nothing.")
]
Batch = Annotated[int, typer.Option(help="Rows per transaction.")]
Budget = Annotated[float | None, typer.Option(min=0, help="Stop after the batch in which so many seconds are over.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Kind = Annotated[str | None, typer.Option(help="Only sessions of this kind.")]


def _sweep(ctx: typer.Context, method: str, *arguments: Any, as_json: bool, **options: Any) -> None:
    scope = scope_of(ctx)
    with scope.manager() as manager:
        run = getattr(manager, method)
        report = run(*arguments, **options) if options["dry_run"] else _in_batches(run, arguments, options)
    show_facts(report, as_json=as_json or scope.as_json)


def _in_batches(run: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> SweepReport:
    """Sweep batch by batch, so that progress shows, and Ctrl-C ends it between two and still reports what was done."""
    due: int = run(*arguments, **options | {"dry_run": True}).count if errors.is_terminal else 0
    began = time.monotonic()
    total: dict[str, Any] = {}
    asked = False

    def stop(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
            task = bar.add_task(run.__name__, total=due)
            while True:
                report: SweepReport = run(*arguments, **options | {"budget": 0.0})
                seconds = time.monotonic() - began
                total = _added(total, report) | {"seconds": seconds}
                bar.advance(task, report.count)
                late = options["budget"] is not None and seconds >= options["budget"]
                if report.complete or late or asked:
                    break
    finally:
        signal.signal(signal.SIGINT, before)
    if asked and not total["complete"]:
        errors.print(f"interrupted: {total['count']} done, more are due; run it again to go on")
        raise KeyboardInterrupt
    return SweepReport.of(total)


def _added(total: dict[str, Any], report: SweepReport) -> dict[str, Any]:
    values = {name: getattr(report, name) for name in SweepReport.model_fields}
    if not total:
        return values
    ids = [*total["session_ids"], *report.session_ids]
    return total | {
        "count": total["count"] + report.count,
        "batches": total["batches"] + report.batches,
        "complete": report.complete,
        "session_ids": ids[:_LISTED],
    }


@app.command()
def expire(
    ctx: typer.Context,
    kind: Kind = None,
    dry_run: Dry = False,
    batch: Batch = 500,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Expire the sessions whose deadline has passed."""
    _sweep(ctx, "expire_idle", kind=kind, dry_run=dry_run, batch=batch, budget=budget, as_json=as_json)


@app.command()
def prune(
    ctx: typer.Context,
    older_than: Annotated[
        str | None, typer.Option(help="Ended so long ago, whatever the retention; such as 30d.")
    ] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only these states; may be given again.")] = None,
    kind: Kind = None,
    dry_run: Dry = False,
    batch: Batch = 500,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Remove finished sessions whose retention has passed."""
    _sweep(
        ctx, "prune_sessions", older_than=older_than, states=state or None, kind=kind, dry_run=dry_run, batch=batch,
        budget=budget, as_json=as_json,
    )  # fmt: skip


@app.command()
def ghosts(
    ctx: typer.Context, dry_run: Dry = False, batch: Batch = 500, budget: Budget = None, as_json: Json = False
) -> None:
    """Remove sessions in which nothing was ever stored."""
    _sweep(ctx, "delete_ghosts", dry_run=dry_run, batch=batch, budget=budget, as_json=as_json)


@app.command()
def approvals(
    ctx: typer.Context, dry_run: Dry = False, batch: Batch = 500, budget: Budget = None, as_json: Json = False
) -> None:
    """Expire approvals whose time has passed."""
    _sweep(ctx, "expire_approvals", dry_run=dry_run, batch=batch, budget=budget, as_json=as_json)


@app.command()
def connections(
    ctx: typer.Context,
    silent_for: Annotated[str, typer.Option(help="Such as 5m.")] = "5m",
    dry_run: Dry = False,
    batch: Batch = 500,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Remove connections that have been silent."""
    _sweep(ctx, "reap_connections", silent_for=silent_for, dry_run=dry_run, batch=batch, budget=budget, as_json=as_json)


@app.command()
def stale(
    ctx: typer.Context,
    max_age: Annotated[str, typer.Argument(help="Without activity for so long; such as 2h.")],
    reason: Annotated[str, typer.Option()] = "stale",
    kind: Kind = None,
    dry_run: Dry = False,
    batch: Batch = 500,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """End sessions without activity."""
    _sweep(
        ctx, "cleanup_stale_sessions", max_age, reason=reason, kind=kind, dry_run=dry_run, batch=batch, budget=budget,
        as_json=as_json,
    )  # fmt: skip
