"""What requests hold: bodies and the values in them. Bounds that the configuration sets are checked by the managers."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from lifecycle import states
from lifecycle.durations import MAX_SECONDS

# Units in falling order, each at most once, none of them zero; as the pattern of a schema, which knows no look-ahead.
_UNITS: Final = [
    rf"[1-9][0-9]{{0,{digits}}}{unit}" for unit, digits in (("w", 2), ("d", 3), ("h", 4), ("m", 5), ("s", 7))
]
_SPELT: Final = "|".join(first + "".join(f"({rest})?" for rest in _UNITS[at + 1 :]) for at, first in enumerate(_UNITS))
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
_LARGEST: Final = 2**63 - 1


def _storable(value: datetime) -> datetime:
    if not _FIRST <= value <= _LAST:
        raise ValueError("must lie between 1970 and 9998")
    return value


Id = Annotated[str, Field(min_length=1, max_length=255)]
Short = Annotated[str, Field(max_length=255)]
Moment = Annotated[AwareDatetime, AfterValidator(_storable), Field(strict=False)]
Duration = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SECONDS)]
    | Annotated[str, Field(pattern=rf"^(never|[1-9][0-9]{{0,8}}|{_SPELT})$")],
    Field(description="Seconds, or text such as 30m, 24h, 1d12h or never.", examples=["30m"]),
]
Limit = Annotated[int, Field(ge=1, le=1000)]
Status = Literal["active", "suspended", "completed", "ended", "expired"]
assert Status.__args__ == states.STATES  # type: ignore[attr-defined]  # noqa: S101 -- one table of states


class Input(BaseModel):
    """A body: what it does not know is refused, and nothing is taken for what it is not."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SessionValues(Input):
    """What a session is created with."""

    kind: Id = Field("chat", description="Which policy applies to it.", examples=["chat"])
    user_id: Short | None = Field(None, examples=["ada"])
    agent_id: Short | None = None
    parent_id: Short | None = None
    title: str | None = Field(None, examples=["A late order"])
    metadata: dict[str, Any] | None = Field(None, examples=[{"ticket": 17}])
    config: dict[str, Any] | None = None
    context: Any = Field(None, description="The first saved state's context.")
    conversation: list[Any] | None = Field(None, description="The first saved state's conversation.")
    phase: Short | None = None
    idle_timeout: Duration | None = Field(None, description="Replaces the idle limit of its kind.")
    protected: bool = False
    available_at: Moment | None = Field(None, description="A runner may claim it from then on.")
    actor: Short | None = Field(None, description="For whom this is done; the audit log has it behind the key's name.")


class NewSession(SessionValues):
    """A session to be created."""

    session_id: Id | None = Field(None, description="A UUIDv7 is made unless given.", examples=["support-42"])


class SessionChanges(Input):
    """What is to be changed; what is left out stays. `status` goes by itself: it is a transition."""

    title: str | None = Field(None, examples=["A late order, found"])
    metadata: dict[str, Any] = Field(default_factory=dict, description="Replaces all of it.")
    config: dict[str, Any] = Field(default_factory=dict, description="Replaces all of it.")
    kind: Id = ""
    user_id: Short | None = None
    agent_id: Short | None = None
    parent_id: Short | None = None
    protected: bool = False
    idle_timeout: Duration | None = None
    available_at: Moment | None = None
    status: Status | None = Field(None, description="The state to move it to, as far as the machine allows.")
    reason: str | None = Field(None, description="Why, with `status`.")
    actor: Short | None = Field(None, description="For whom, with `status`.")


class Reason(Input):
    """Why a session is moved."""

    reason: str | None = Field(None, examples=["waits for the customer"])
    actor: Short | None = Field(None, description="For whom this is done; the audit log has it behind the key's name.")


class Acting(Input):
    """For whom something is done."""

    actor: Short | None = None


class Fork(Acting):
    """Where a session goes on from another's state."""

    checkpoint: int | None = Field(
        None, ge=1, le=_LARGEST, description="The seq of a checkpoint; its last state unless given."
    )
    session_id: Id | None = Field(None, description="The new session's id; a UUIDv7 is made unless given.")


class Cleanup(Acting):
    """Why a sub-session is ended and removed."""

    reason: str = "delegation finished"


class Ids(Input):
    """Sessions by id."""

    session_ids: list[Id] = Field(max_length=10_000, examples=[["support-42", "support-43"]])


class StateChanges(Input):
    """A save: what is left out stays as it was."""

    conversation: list[Any] = Field(default_factory=list, description="Replaces the conversation.")
    append: list[Any] = Field(default_factory=list, description="Entries added to the conversation instead.")
    context: Any = Field(None, examples=[{"order": 17}])
    plan: Any = None
    phase: Short | None = Field(None, examples=["triage"])
    step: int | None = Field(None, ge=0, le=_LARGEST, examples=[1])
    token: Id | None = Field(
        None, description="Makes a repeat safe; `Idempotency-Key` does the same.", examples=["step-1"]
    )


class State(Input):
    """A whole state: what is left out is emptied."""

    conversation: list[Any] = Field(default_factory=list)
    context: Any = None
    plan: Any = None
    phase: Short | None = None
    step: int | None = Field(None, ge=0, le=_LARGEST)
    token: Id | None = Field(None, description="Makes a repeat safe; `Idempotency-Key` does the same.")


class NewCheckpoint(Input):
    """A label for a copy of the saved state, and data of your own."""

    label: Id = Field(examples=["before the refund"])
    data: Any = None


class NewMessage(Input):
    """A message: text, or any JSON such as a list of typed parts."""

    role: Id = Field(examples=["user"])
    content: Any = Field(examples=["My order is late"])
    agent_id: Short | None = None
    metadata: dict[str, Any] | None = None
    message_id: Id | None = Field(
        None, description="Makes a repeat safe; `Idempotency-Key` does the same.", examples=["m-1"]
    )


class NewMessages(Input):
    """Messages, added in order: all or none."""

    messages: list[NewMessage] = Field(max_length=100_000)


class LeaseWish(Input):
    """Who wants a lease, for how long."""

    holder: Id | None = Field(
        None, description="Names you in others' errors; made up unless given.", examples=["worker-1"]
    )
    ttl: float = Field(30.0, ge=0.1, le=86_400, description="Seconds.")


class Renewal(Input):
    """How long a lease lives from now on."""

    ttl: float = Field(30.0, ge=0.1, le=86_400, description="Seconds.")


class Claim(Input):
    """Which sessions a worker takes."""

    kinds: list[Id] = Field(min_length=1, max_length=1000, examples=[["copilot"]])
    holder: Id | None = Field(
        None, description="Names you in others' errors; made up unless given.", examples=["worker-1"]
    )
    ttl: float = Field(30.0, ge=0.1, le=86_400, description="Seconds.")
    limit: int = Field(1, ge=1, le=1000)


class ApprovalWish(Input):
    """What a person is to decide."""

    action: str = Field(examples=["refund 40 EUR"])
    details: Any = None
    requested_by: Short | None = Field(None, examples=["billing-agent"])
    expires_in: Duration | None = None
    suspend: bool = Field(default=False, description="Suspend the session until it is decided.")
    approval_id: Id | None = Field(None, examples=["refund-1"])


class Decision(Input):
    """What was decided."""

    approved: bool
    note: str | None = None
    by: Short | None = Field(None, description="Who decided; the audit log has it behind the key's name.")


class NewConnection(Input):
    """A socket of a client."""

    connection_id: Id | None = Field(None, examples=["socket-1"])
    client: Any = Field(None, examples=[{"browser": "Firefox"}])


class DryRun(Input):
    """Whether to count only."""

    dry_run: bool = False


class Sweep(DryRun):
    """How far a sweep goes. The report says whether it came to its end: go on with the same request if it did not."""

    batch: int = Field(5000, ge=1, le=10_000, description="Rows in one transaction at most.")
    budget: float = Field(30.0, ge=0, le=60, description="Seconds after which no further batch is begun.")


class SessionSweep(Sweep):
    """Which sessions a sweep is about."""

    kind: Short | None = None


class PruneSweep(SessionSweep):
    """Which sessions are removed: those past their retention, or those older than `older_than`."""

    older_than: Duration | None = None
    states: list[Status] | None = None


class ReapSweep(Sweep):
    """For how long a connection may be silent."""

    silent_for: Duration = "5m"


class StaleSweep(SessionSweep):
    """For how long a session may be without activity."""

    max_age: Duration
    reason: str = "stale"


class Trimming(Input):
    """How far it goes."""

    batch: int = Field(5000, ge=1, le=10_000, description="Rows in one transaction at most.")
    budget: float = Field(30.0, ge=0, le=60, description="Seconds after which no further batch is begun.")
