"""The state machine: one table from which everything else follows."""

import pytest
import sqlalchemy as sa
from transitions import MachineError

from lifecycle import states
from lifecycle.models.tables import sessions
from lifecycle.recipes.postgresql import move_statement


@pytest.mark.parametrize("state", states.STATES)
@pytest.mark.parametrize("trigger", states.TRIGGERS)
def test_the_machine_allows_what_the_table_says(trigger: str, state: str) -> None:
    """A trigger moves a state exactly where the table has a row for it."""
    row = states.transition(trigger)
    expected = row.target if state in row.sources else None
    assert states.moves_to(trigger, state) == expected
    assert (trigger in states.allowed(state)) == (expected is not None)


def test_the_machine_refuses_what_is_not_in_the_table() -> None:
    """Fired directly, an illegal trigger raises and leaves the state alone."""
    candidate = states.Candidate("completed")
    with pytest.raises(MachineError):
        states.MACHINE.events["resume"].trigger(candidate)
    assert candidate.state == "completed"


def test_five_states_of_which_three_are_terminal() -> None:
    """The five promised names, in order."""
    assert states.STATES == ("active", "suspended", "completed", "ended", "expired")
    assert states.TERMINAL == ("completed", "ended", "expired")


def test_an_edited_table_changes_machine_and_diagram() -> None:
    """A row added to the table appears in the machine, in what is allowed, and in the diagram."""
    table = (*states.TRANSITIONS, states.Transition("archive", ("completed",), "archived"))
    machine = states.build_machine(table)
    candidate = states.Candidate("completed")
    machine.events["archive"].trigger(candidate)
    assert candidate.state == "archived"
    assert states.allowed("completed", table) == ("archive",)
    assert "completed --> archived: archive" in states.mermaid(table=table)
    assert "archived" in states.states(table)


def test_the_check_constraint_names_the_states() -> None:
    """The database's CHECK lists the machine's states."""
    checks = [str(c.sqltext) for c in sessions.constraints if isinstance(c, sa.CheckConstraint)]
    assert any(all(f"'{state}'" in check for state in states.STATES) for check in checks)


@pytest.mark.parametrize("trigger", states.TRIGGERS)
def test_the_compare_and_set_accepts_the_sources(trigger: str) -> None:
    """The statement of a transition compares with exactly the table's source states."""
    sql = move_statement(trigger, False, False).on("postgresql").sql
    wanted = ", ".join(f"'{source}'" for source in states.transition(trigger).sources)
    assert f"locked.from_state IN ({wanted})" in sql
    assert f"state='{states.transition(trigger).target}'" in sql.replace(" ", "")


def test_the_diagram_lights_the_current_state() -> None:
    """The state a session is in is marked."""
    assert "class suspended current" in states.mermaid(lit="suspended")
