"""What the benchmarks save: about 900 bytes of context, messages of 200 characters, a handful of plan steps."""

import json
from typing import Any

SESSIONS = 200  # so many sessions take turns, that no row is always the hottest one
CONTEXT: dict[str, Any] = {"goal": "replay", "variables": {f"name{i}": f"value {i} " * 4 for i in range(16)}, "step": 0}
CONTENT = "The quick brown fox jumps over the lazy dog. " * 4 + "And sleeps then."
BATCH = 10
PAGE = 20


def context(turn: int) -> dict[str, Any]:
    """The context of a turn."""
    return {**CONTEXT, "step": turn}


def dumps(value: Any) -> str:
    """JSON as anybody writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
