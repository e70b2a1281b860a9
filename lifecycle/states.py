"""The state machine: one table of transitions; everything else about states is derived from it.

The compare-and-set of the statements, the CHECK constraints, the diagram and the buttons of a user
interface all read this module, so that editing `TRANSITIONS` changes them together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from transitions import Machine

INITIAL = "active"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the table: `trigger` moves a session from any of `sources` to `target`."""

    trigger: str
    sources: tuple[str, ...]
    target: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition("suspend", ("active",), "suspended"),
    Transition("resume", ("suspended",), "active"),
    Transition("complete", ("active", "suspended"), "completed"),
    Transition("end", ("active", "suspended"), "ended"),
    Transition("expire", ("active", "suspended"), "expired"),
    Transition("reopen", ("expired",), "active"),
)

# The states in which work goes on. Every other one finishes the session: it has an `ended_at` and is pruned later.
LIVE: tuple[str, ...] = ("active", "suspended")


def states(table: tuple[Transition, ...] = TRANSITIONS) -> tuple[str, ...]:
    """The names of all states, in the order the table first names them."""
    seen: dict[str, None] = {INITIAL: None}
    for row in table:
        seen.update(dict.fromkeys((*row.sources, row.target)))
    return tuple(seen)


STATES: tuple[str, ...] = states()
TERMINAL: tuple[str, ...] = tuple(state for state in STATES if state not in LIVE)
TRIGGERS: tuple[str, ...] = tuple(row.trigger for row in TRANSITIONS)


@cache
def transition(trigger: str) -> Transition:
    """The table's row for a trigger; `KeyError` when there is none."""
    for row in TRANSITIONS:
        if row.trigger == trigger:
            return row
    raise KeyError(trigger)


def allowed(state: str, table: tuple[Transition, ...] = TRANSITIONS) -> tuple[str, ...]:
    """The triggers that a session in `state` accepts."""
    return tuple(row.trigger for row in table if state in row.sources)


def build_machine(table: tuple[Transition, ...] = TRANSITIONS) -> Machine:
    """A `transitions.Machine` without a model: fire it as `machine.events[trigger].trigger(obj)`.

    Any object with a `state` attribute can be moved. `add_model` is avoided: it costs 23 µs and
    6.5 KB for each object, against 6 µs for an event fired directly.
    """
    return Machine(
        model=None,
        states=list(states(table)),
        initial=INITIAL,
        auto_transitions=False,
        transitions=[{"trigger": row.trigger, "source": list(row.sources), "dest": row.target} for row in table],
    )


MACHINE = build_machine()


class Candidate:
    """What the machine moves: a state, and whatever the caller wants its conditions to see."""

    __slots__ = ("conditions", "state", "subject")

    def __init__(self, state: str, subject: Any = None) -> None:
        self.state = state
        self.subject = subject


def moves_to(trigger: str, state: str) -> str | None:
    """The state that `trigger` moves a session in `state` to, or None where the machine does not allow it."""
    candidate = Candidate(state)
    if not MACHINE.events[trigger].transitions.get(state):
        return None
    MACHINE.events[trigger].trigger(candidate)
    return candidate.state


def mermaid(lit: str | None = None, table: tuple[Transition, ...] = TRANSITIONS) -> str:
    """The machine as a Mermaid state diagram; the state `lit`, if given, is marked as current."""
    lines = ["stateDiagram-v2", f"    [*] --> {INITIAL}"]
    lines += [f"    {source} --> {row.target}: {row.trigger}" for row in table for source in row.sources]
    sources = {source for row in table for source in row.sources}
    live = {INITIAL, *LIVE}
    lines += [f"    {state} --> [*]: prune" for state in states(table) if state not in live or state not in sources]
    if lit is not None:
        lines += ["    classDef current fill:#1f6feb,color:#fff,stroke:#1f6feb", f"    class {lit} current"]
    return "\n".join(lines) + "\n"


Hook = Callable[..., Any]
HookTable = Mapping[str, tuple[Hook, ...]]
