"""`lifecycle sweep`."""

from functools import partial
from typing import Annotated, Any

import typer

from lifecycle.cli.output import show_facts
from lifecycle.cli.scope import scope_of

app = typer.Typer(no_args_is_help=True)
Dry = Annotated[
    bool, typer.Option("--dry-run", help="Count what is due with the sweep's own condition; change nothing.")
]
Batch = Annotated[int, typer.Option(help="Rows per transaction at most.")]
Budget = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0, help="Stop after the batch in which so many seconds are over.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Kind = Annotated[str | None, typer.Option(help="Only sessions of this kind.")]


def _sweep(
    ctx: typer.Context, method: str, *arguments: Any, dry_run: bool, budget: float | None, as_json: bool, **options: Any
) -> None:
    from lifecycle.cli import INTERRUPTED
    from lifecycle.cli.batches import in_batches

    scope = scope_of(ctx)
    with scope.manager() as manager:
        run = partial(getattr(manager, method), *arguments, **options)
        report, interrupted = (run(dry_run=True), False) if dry_run else in_batches(run, budget)
    show_facts(report, as_json=as_json or scope.as_json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
def expire(
    ctx: typer.Context,
    kind: Kind = None,
    dry_run: Dry = False,
    batch: Batch = 5000,
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
    batch: Batch = 5000,
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
    ctx: typer.Context, dry_run: Dry = False, batch: Batch = 5000, budget: Budget = None, as_json: Json = False
) -> None:
    """Remove sessions in which nothing was ever stored."""
    _sweep(ctx, "delete_ghosts", dry_run=dry_run, batch=batch, budget=budget, as_json=as_json)


@app.command()
def approvals(
    ctx: typer.Context, dry_run: Dry = False, batch: Batch = 5000, budget: Budget = None, as_json: Json = False
) -> None:
    """Expire approvals whose time has passed."""
    _sweep(ctx, "expire_approvals", dry_run=dry_run, batch=batch, budget=budget, as_json=as_json)


@app.command()
def connections(
    ctx: typer.Context,
    silent_for: Annotated[str, typer.Option(help="Such as 5m.")] = "5m",
    dry_run: Dry = False,
    batch: Batch = 5000,
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
    batch: Batch = 5000,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """End sessions without activity."""
    _sweep(
        ctx, "cleanup_stale_sessions", max_age, reason=reason, kind=kind, dry_run=dry_run, batch=batch, budget=budget,
        as_json=as_json,
    )  # fmt: skip
