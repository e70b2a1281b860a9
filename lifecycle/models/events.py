"""What a watch gives."""

from lifecycle.models.reads import TransitionRecord


class TransitionEvent(TransitionRecord):
    """A line of the audit log as a watch met it; pass its `cursor` as `after=` to go on behind it."""

    cursor: str
