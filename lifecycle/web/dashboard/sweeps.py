"""Sweeps by hand: what one would do first, then the sweep itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, Request, Response

from lifecycle import states
from lifecycle.errors import InvalidArgument
from lifecycle.models.reads import SweepReport
from lifecycle.web.dashboard.rendering import page
from lifecycle.web.dashboard.viewer import TheViewer, Viewer

router = APIRouter()

# A sweep by hand answers within a request; what it leaves, the next one does, or the worker.
BUDGET: Final = 15.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep that the page offers: the manager's method, its fields, and whether it takes who asked for it."""

    method: str
    title: str
    meaning: str
    fields: tuple[str, ...] = ()
    removes: bool = False
    has_actor: bool = True


SWEEPS: Final[Mapping[str, Sweep]] = {
    one.method: one
    for one in (
        Sweep("expire_idle", "Expire", "Live sessions past their deadline become expired.", ("kind",)),
        Sweep(
            "prune_sessions", "Prune", "Finished sessions past their retention are removed with all they own.",
            ("older_than", "states", "kind"), removes=True,
        ),
        Sweep("delete_ghosts", "Delete ghosts", "Sessions in which nothing was ever stored are removed.", removes=True),
        Sweep("expire_approvals", "Expire approvals", "Questions that nobody answered in time become expired."),
        Sweep(
            "reap_connections", "Reap connections", "Connections that have been silent are removed.", ("silent_for",),
            has_actor=False,
        ),
        Sweep(
            "cleanup_stale_sessions", "End stale", "Live sessions without activity for so long are ended.",
            ("max_age", "kind"),
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the form says."""

    sweep: str = "prune_sessions"
    kind: str = ""
    older_than: str = ""
    silent_for: str = "5m"
    max_age: str = "7d"
    states: tuple[str, ...] = ()


def chosen_of(
    sweep: Annotated[str, Form()],
    kind: Annotated[str, Form()] = "",
    older_than: Annotated[str, Form()] = "",
    silent_for: Annotated[str, Form()] = "",
    max_age: Annotated[str, Form()] = "",
    state: Annotated[list[str] | None, Form()] = None,
) -> Chosen:
    """The fields of the form."""
    return Chosen(sweep, kind.strip(), older_than.strip(), silent_for.strip(), max_age.strip(), tuple(state or ()))


@router.get("/sweeps")
async def sweeps(request: Request, viewer: TheViewer, sweep: str = "prune_sessions") -> Response:
    """The form."""
    return _form(request, viewer, Chosen(sweep if sweep in SWEEPS else "prune_sessions"))


@router.post("/sweeps")
async def swept(
    request: Request, viewer: TheViewer, chosen: Annotated[Chosen, Depends(chosen_of)], run: Annotated[str, Form()] = ""
) -> Response:
    """Say what the sweep would do; with `run`, do it. Both read through what is due, and are an admin's as in the API."""
    viewer.require("admin")
    if chosen.sweep not in SWEEPS:
        raise InvalidArgument(f"sweep: {chosen.sweep!r} is none of {', '.join(SWEEPS)}")
    try:
        report = await _swept(viewer, SWEEPS[chosen.sweep], chosen, dry_run=not run)
    except InvalidArgument as error:
        return _form(request, viewer, chosen, problem=str(error), status=422)
    return _form(request, viewer, chosen, report=report)


async def _swept(viewer: Viewer, sweep: Sweep, chosen: Chosen, *, dry_run: bool) -> SweepReport:
    options: dict[str, Any] = {"dry_run": dry_run, "budget": BUDGET}
    if sweep.has_actor:
        options["actor"] = viewer.caller.name
    for name in sweep.fields:
        value = getattr(chosen, name)
        if value:
            options[name] = list(value) if name == "states" else value
        elif name in {"max_age", "silent_for"}:
            raise InvalidArgument(f"{name}: say how long, such as 5m or 7d")
    method: Any = getattr(viewer.manager, sweep.method)
    report: SweepReport = await method(**options)
    return report


def _form(
    request: Request, viewer: Viewer, chosen: Chosen, *, report: SweepReport | None = None, problem: str | None = None,
    status: int = 200,
) -> Response:  # fmt: skip
    return page(
        request, viewer, "sweeps.html", status=status, sweeps=SWEEPS, chosen=chosen, sweep=SWEEPS[chosen.sweep],
        report=report, problem=problem, all_states=states.STATES, budget=BUDGET,
    )  # fmt: skip
