"""How long sessions may idle, live and be kept."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from lifecycle.policies import Policies, Policy
from lifecycle.settings.section import Section
from lifecycle.settings.values import CountOrAll, SecondsOrNever, empty_mapping, seconds_or_never

_DEFAULT: Final = Policy()


class IdleSettings(Section):
    """How long sessions may go without activity before they expire; written as a scalar, it is the active ones'."""

    active: SecondsOrNever = _DEFAULT.idle_active
    """Seconds an active session may idle."""
    suspended: SecondsOrNever = _DEFAULT.idle_suspended
    """Seconds a suspended session may idle."""

    @classmethod
    def from_scalar(cls, value: Any) -> Mapping[str, Any]:
        """One duration is the active ones'."""
        seconds_or_never(value)
        return {"active": value}


class RetentionSettings(Section):
    """How long finished sessions are kept; written as a scalar, it is that of every terminal state."""

    completed: SecondsOrNever = _DEFAULT.retention_completed
    """Seconds a completed session is kept."""
    ended: SecondsOrNever = _DEFAULT.retention_ended
    """Seconds an ended session is kept."""
    expired: SecondsOrNever = _DEFAULT.retention_expired
    """Seconds an expired session is kept."""

    @classmethod
    def from_scalar(cls, value: Any) -> Mapping[str, Any]:
        """One duration is that of all."""
        seconds_or_never(value)
        return dict.fromkeys(cls.model_fields, value)


class CheckpointSettings(Section):
    """Which checkpoints of a session are kept when another is made."""

    keep_last: CountOrAll = _DEFAULT.checkpoints_keep_last
    """How many of the newest."""
    keep_every: SecondsOrNever = _DEFAULT.checkpoints_keep_every
    """Seconds of which the first of the older ones is kept too."""


class PolicySettings(Section):
    """The policy of one kind of session, or of all others."""

    idle: IdleSettings = IdleSettings()
    """Seconds without activity until it expires."""
    max_age: SecondsOrNever = _DEFAULT.max_age
    """Seconds after creation until it expires, however busy."""
    retention: RetentionSettings = RetentionSettings()
    """Seconds it is kept once finished."""
    ghosts: SecondsOrNever = _DEFAULT.ghosts
    """Seconds until a session nothing was ever stored in is removed."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    """Which of its checkpoints are kept."""

    def build(self) -> Policy:
        """Return the policy these settings describe."""
        return Policy(
            idle_active=self.idle.active,
            idle_suspended=self.idle.suspended,
            max_age=self.max_age,
            retention_completed=self.retention.completed,
            retention_ended=self.retention.ended,
            retention_expired=self.retention.expired,
            ghosts=self.ghosts,
            checkpoints_keep_last=self.checkpoints.keep_last,
            checkpoints_keep_every=self.checkpoints.keep_every,
        )


class PoliciesSettings(Section):
    """The default policy, and those of single kinds, which inherit from it what they leave out."""

    default: PolicySettings = PolicySettings()
    """The policy of every kind that has none of its own."""
    kinds: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=255)], PolicySettings], BeforeValidator(empty_mapping)
    ] = Field(default_factory=dict)
    """Kind of session to its policy."""

    @model_validator(mode="after")
    def _keep_every_beside_keep_last(self) -> Self:
        # Before inheriting, while what was written can be told: alone, keep_every would silently do nothing.
        inherited = self.default.checkpoints.model_fields_set
        for name, policy in [("default", self.default), *((f"kinds.{kind}", own) for kind, own in self.kinds.items())]:
            own = policy.checkpoints
            if own.keep_every is not None and "keep_last" not in own.model_fields_set | inherited:
                raise ValueError(
                    f"{name}.checkpoints.keep_every needs a keep_last beside it: how many of the newest to keep, "
                    "at least 1 (or all, to remove none)"
                )
        return self

    @model_validator(mode="after")
    def _inherit(self) -> Self:
        self.kinds.update({kind: policy.inheriting(self.default) for kind, policy in self.kinds.items()})
        return self

    def build(self) -> Policies:
        """Return the policies these settings describe."""
        return Policies(self.default.build(), {kind: policy.build() for kind, policy in self.kinds.items()})
