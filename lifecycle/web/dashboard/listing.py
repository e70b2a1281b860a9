"""The list of sessions: filters, search, pages."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response

from lifecycle import states
from lifecycle.errors import LifecycleError, SearchTimeout
from lifecycle.models.reads import Session, SessionPage
from lifecycle.web.dashboard.rendering import link, page
from lifecycle.web.dashboard.viewer import TheViewer, Viewer

router = APIRouter()

PAGE: Final = 25
# What stands in the tenant's field for the tenant whose name is empty.
DEFAULT_TENANT: Final = "(default)"
_EMPTY: Final = SessionPage(items=[], total=None, has_more=False, next_cursor=None)


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list was asked for; empty text is no filter."""

    q: str = ""
    state: str = ""
    kind: str = ""
    user: str = ""
    agent: str = ""
    tenant: str = ""

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return any(asdict(self).values())


def filters_of(
    q: str = "", state: str = "", kind: str = "", user: str = "", agent: str = "", tenant: str = ""
) -> Filters:
    """The filters in a page's address."""
    return Filters(q.strip(), state, kind.strip(), user.strip(), agent.strip(), tenant)


TheFilters = Annotated[Filters, Depends(filters_of)]


@router.get("/sessions")
async def sessions(
    request: Request,
    viewer: TheViewer,
    filters: TheFilters,
    cursor: str | None = None,
    messages: bool = False,  # noqa: FBT002 -- a box to tick
) -> Response:
    """The page. What the filters cannot mean is said above an empty list."""
    problem, found, exact = None, _EMPTY, None
    try:
        exact = None if cursor else await _by_id(viewer, filters)
        found = await _page(viewer, filters, cursor, messages=messages)
    except SearchTimeout:
        problem = "The search took too long. Narrow it with a filter, or build the index: lifecycle db search-index."
    except LifecycleError as error:
        if not isinstance(error, ValueError):
            raise
        problem = str(error)
    query = asdict(filters) | {"messages": "1" if messages else None}
    rows = [one for one in found.items if exact is None or _key(one) != _key(exact)]
    return page(
        request, viewer, "sessions.html",
        status=200 if problem is None else 422,
        filters=filters, search_messages=messages, problem=problem,
        sessions=[*([] if exact is None else [exact]), *rows],
        newest=link("/sessions", **query) if cursor else None,
        older=link("/sessions", **query, cursor=found.next_cursor) if found.has_more else None,
        triggers=states.TRIGGERS,
        kinds=sorted({*viewer.service.settings.policy_set.kinds, *(one.kind for one in found.items)}),
    )  # fmt: skip


async def _page(viewer: Viewer, filters: Filters, cursor: str | None, *, messages: bool) -> SessionPage:
    manager = viewer.manager
    if filters.tenant and viewer.of_all:
        manager = viewer.manager_for("" if filters.tenant == DEFAULT_TENANT else filters.tenant)
    return await manager.list_sessions(
        state=filters.state or None, kind=filters.kind or None, user_id=filters.user or None,
        agent_id=filters.agent or None, search=filters.q or None, search_messages=messages, limit=PAGE, cursor=cursor,
    )  # fmt: skip


async def _by_id(viewer: Viewer, filters: Filters) -> Session | None:
    """The session whose id was searched for, if the other filters let it be."""
    if not filters.q or len(filters.q) > viewer.service.settings.limits.id_chars or "\x00" in filters.q:
        return None
    named = "" if filters.tenant == DEFAULT_TENANT else filters.tenant
    manager = viewer.manager_for(named) if viewer.of_all else viewer.manager
    found = await manager.get_session(filters.q)
    if found is None:
        return None
    wanted: dict[str, Any] = {
        "state": filters.state, "kind": filters.kind, "user_id": filters.user, "agent_id": filters.agent
    }  # fmt: skip
    return found if all(not value or getattr(found, name) == value for name, value in wanted.items()) else None


def _key(session: Session) -> tuple[str, str]:
    return session.tenant, session.session_id
