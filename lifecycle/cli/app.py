"""The commands and the options before them."""

from pathlib import Path
from typing import Annotated

import typer

import lifecycle
from lifecycle.cli import (
    archive,
    cache,
    call,
    config,
    db,
    diagram,
    directory,
    keys,
    mcp,
    openapi,
    policies,
    runner,
    serve,
    sessions,
    stuck,
    sweep,
    transfer,
)
from lifecycle.cli.output import show_facts, show_json, write
from lifecycle.cli.scope import Scope, scope_of
from lifecycle.errors import InvalidArgument

app = typer.Typer(
    name="lifecycle", no_args_is_help=True, help="Keeps the sessions of workflow engines and agents.",
    pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip
app.add_typer(db.app, name="db", help="The database's schema.")
app.add_typer(sessions.app, name="sessions", help="Sessions: make, read, move and remove them.")
app.add_typer(sweep.app, name="sweep", help="Expire and remove what is due, now.")
app.add_typer(policies.app, name="policies", help="How long sessions may idle, live and be kept.")
app.add_typer(config.app, name="config", help="The configuration.")
app.add_typer(cache.app, name="cache", help="The cache in front of the database.")
app.add_typer(directory.app, name="directory", help="Sessions that agents keep in files: sync them, clean up.")
app.add_typer(archive.app, name="archive", help="Sessions that were written away before they were removed.")
app.add_typer(keys.app, name="keys", help="Keys to the HTTP API and the dashboard.")
app.command("call")(call.call)
app.command("diagram")(diagram.diagram)
app.command("openapi")(openapi.openapi)
app.command("runner")(runner.runner)
app.command("mcp")(mcp.mcp)
app.command("serve")(serve.serve)
app.command("export")(transfer.export)
app.command("import")(transfer.import_)
sessions.app.command("stuck")(stuck.stuck)


@app.callback(invoke_without_command=True)
def options(
    ctx: typer.Context,
    config_file: Annotated[Path | None, typer.Option("--config", help="The configuration file.")] = None,
    url: Annotated[str | None, typer.Option(help="The database, instead of the configured one.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose sessions.")] = None,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Everybody's, for lists and sweeps.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the release and stop.")] = False,
) -> None:
    """Keeps the sessions of workflow engines and agents."""
    if version:
        if as_json:
            show_json({"version": lifecycle.__version__})
        else:
            write(lifecycle.__version__ + "\n")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        ctx.fail("Missing command")
    if all_tenants and tenant is not None:
        raise InvalidArgument("--tenant and --all-tenants exclude each other; pass one of them")
    ctx.obj = Scope(config_file, url, tenant, all_tenants, as_json)


@app.command()
def up(ctx: typer.Context) -> None:
    """Run everything in one process: bring the schema up to date, sweep, and serve the HTTP API and the dashboard."""
    from workers import run

    raise typer.Exit(run(scope_of(ctx).settings, setup=True, serve=True))


@app.command()
def worker(ctx: typer.Context) -> None:
    """Run a worker: it expires idle sessions and prunes old ones until it is stopped."""
    from workers import run

    raise typer.Exit(run(scope_of(ctx).settings))


@app.command()
def stats(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Totals by state, kind and agent, and what is due."""
    scope = scope_of(ctx)
    with scope.manager() as manager:
        show_facts(manager.get_stats(), as_json=as_json or scope.as_json)
