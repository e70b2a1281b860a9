"""Bounds on what callers pass."""

from typing import Annotated

from pydantic import Field

from lifecycle.settings.section import Section
from lifecycle.settings.values import Count


class LimitsSettings(Section):
    """Bounds: what is larger is refused, never cut."""

    message_chars: Count = 100_000
    """Characters of one message."""
    title_chars: Count = 200
    """Characters of a title."""
    page_size: Count = 100
    """Sessions on one page of a list."""
    messages_page: Count = 500
    """Messages on one page."""
    document_bytes: Count = 16_777_216
    """Bytes of a state document as JSON."""
    id_chars: Annotated[Count, Field(le=255)] = 255
    """Characters of an id; the columns hold 255."""
    metadata_bytes: Count = 65_536
    """Bytes of a session's or message's metadata as JSON."""
    batch_messages: Count = 1_000
    """Messages one call may add."""
    document_depth: Annotated[Count, Field(le=900)] = 200
    """Levels of nesting in a document; Python's own JSON reader ends near 1000."""
