"""`lifecycle sessions`."""

import sys
from typing import Annotated

import typer

from lifecycle.cli.output import say, show_facts, show_json, show_rows, write
from lifecycle.cli.scope import scope_of
from lifecycle.cli.values import parse_object, parse_when
from lifecycle.errors import SessionNotFound

app = typer.Typer(no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The session.")]
Reason = Annotated[str | None, typer.Option(help="Why; it stands in the history.")]
Actor = Annotated[str | None, typer.Option(help="Who; it stands in the history.")]
_COLUMNS = ("session_id", "kind", "state", "title", "version", "message_count", "updated_at", "expires_at")


@app.command()
def create(
    ctx: typer.Context,
    session_id: Annotated[str | None, typer.Option("--id", help="Its id; a UUIDv7 without.")] = None,
    kind: Annotated[str, typer.Option(help="Its kind, which chooses the policy.")] = "chat",
    title: Annotated[str | None, typer.Option()] = None,
    user_id: Annotated[str | None, typer.Option("--user")] = None,
    agent_id: Annotated[str | None, typer.Option("--agent")] = None,
    parent_id: Annotated[str | None, typer.Option("--parent")] = None,
    idle_timeout: Annotated[str | None, typer.Option(help="Such as 30m.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object.")] = None,
    as_json: Json = False,
) -> None:
    """Create a session."""
    scope = scope_of(ctx)
    with scope.manager(single=True) as manager:
        made = manager.create_session(
            session_id=session_id, kind=kind, title=title, user_id=user_id, agent_id=agent_id, parent_id=parent_id,
            idle_timeout=idle_timeout, metadata=parse_object(metadata, "--metadata"),
        )  # fmt: skip
        show_facts(made, as_json=as_json or scope.as_json)


@app.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option()] = None,
    kind: Annotated[str | None, typer.Option()] = None,
    user_id: Annotated[str | None, typer.Option("--user")] = None,
    agent_id: Annotated[str | None, typer.Option("--agent")] = None,
    parent_id: Annotated[str | None, typer.Option("--parent")] = None,
    search: Annotated[str | None, typer.Option(help="Text in the title.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Changed since; such as 2026-11-21T07:00Z, or 2h for 2 hours ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Changed until; likewise.")] = None,
    sort: Annotated[str, typer.Option()] = "updated_at",
    order: Annotated[str, typer.Option(help="asc or desc.")] = "desc",
    limit: Annotated[int, typer.Option()] = 20,
    offset: Annotated[int, typer.Option(help="Pass over so many.")] = 0,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    count: Annotated[bool, typer.Option("--count", help="Count them all, too.")] = False,
    as_json: Json = False,
) -> None:
    """List sessions, those last changed first."""
    scope = scope_of(ctx)
    with scope.manager() as manager:
        page = manager.list_sessions(
            state=state, kind=kind, user_id=user_id, agent_id=agent_id, parent_id=parent_id, search=search,
            since=parse_when(since, "--since"), until=parse_when(until, "--until"), sort=sort, order=order,
            limit=limit, offset=offset, cursor=cursor, count=count,
        )  # fmt: skip
    if as_json or scope.as_json:
        show_json(page)
        return
    show_rows(page.items, _COLUMNS, as_json=False)
    if page.total is not None:
        write(f"total: {page.total}\n")
    if page.next_cursor:
        say(f"more: --cursor {page.next_cursor}")


@app.command()
def search(ctx: typer.Context, text: str, limit: Annotated[int, typer.Option()] = 20, as_json: Json = False) -> None:
    """Find sessions by text in their titles and messages, whatever the case."""
    scope = scope_of(ctx)
    with scope.manager() as manager:
        page = manager.list_sessions(search=text, search_messages=True, limit=limit)
        show_rows(page.items, _COLUMNS, as_json=as_json or scope.as_json)


@app.command()
def show(ctx: typer.Context, session_id: Id, as_json: Json = False) -> None:
    """Show a session and its saved state."""
    scope = scope_of(ctx)
    with scope.manager(single=True) as manager:
        found = manager.get_session(session_id)
        if found is None:
            raise SessionNotFound(session_id)
        state = manager.load_state(session_id, any_state=True)
        facts = {name: getattr(found, name) for name in type(found).model_fields}
        show_facts(facts | {"saved_state": state}, as_json=as_json or scope.as_json)


@app.command()
def messages(
    ctx: typer.Context,
    session_id: Id,
    limit: Annotated[int, typer.Option()] = 100,
    after: Annotated[int | None, typer.Option(help="Those after this seq.")] = None,
    as_json: Json = False,
) -> None:
    """Show a session's messages."""
    scope = scope_of(ctx)
    with scope.manager(single=True) as manager:
        found = manager.get_messages(session_id, limit=limit, after=after)
        if not found and manager.get_session(session_id) is None:
            raise SessionNotFound(session_id)
    show_rows(found, ("seq", "role", "content", "created_at"), as_json=as_json or scope.as_json)


@app.command()
def history(ctx: typer.Context, session_id: Id, as_json: Json = False) -> None:
    """Show what happened to a session: every transition, its creation and deletion."""
    scope = scope_of(ctx)
    columns = ("seq", "trigger", "from_state", "to_state", "reason", "actor", "created_at")
    with scope.manager(single=True) as manager:
        found = manager.history(session_id)
    if not found:
        raise SessionNotFound(session_id)
    show_rows(found, columns, as_json=as_json or scope.as_json)


def _transition(name: str, what: str) -> None:
    def command(
        ctx: typer.Context, session_id: Id, reason: Reason = None, actor: Actor = None, as_json: Json = False
    ) -> None:
        scope = scope_of(ctx)
        with scope.manager(single=True) as manager:
            moved = getattr(manager, f"{name}_session")(session_id, reason=reason, actor=actor)
            show_facts(moved, as_json=as_json or scope.as_json)

    command.__doc__ = what
    app.command(name)(command)


_transition("suspend", "Put an active session aside.")
_transition("resume", "Take a suspended session up again.")
_transition("complete", "Finish a session that reached its goal.")
_transition("end", "Finish a session for any other reason.")
_transition("expire", "Expire a session now.")
_transition("reopen", "Make an expired session active again.")


@app.command()
def delete(
    ctx: typer.Context,
    session_id: Id,
    soft: Annotated[bool, typer.Option("--soft", help="Hide it until its retention ends.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if protected or leased.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a session with all it owns."""
    scope = scope_of(ctx)
    if not yes and not soft and sys.stdin.isatty():
        typer.confirm(f"Remove session {session_id!r} with its messages and state?", abort=True)
    with scope.manager(single=True) as manager:
        if not manager.delete_session(session_id, soft=soft, force=force):
            raise SessionNotFound(session_id)
    show_facts({"deleted": session_id}, as_json=as_json or scope.as_json)


@app.command()
def undelete(ctx: typer.Context, session_id: Id, as_json: Json = False) -> None:
    """Bring a soft-deleted session back."""
    scope = scope_of(ctx)
    with scope.manager(single=True) as manager:
        show_facts(manager.undelete_session(session_id), as_json=as_json or scope.as_json)
