"""Policies: limits per kind and state, and the maps SQL takes them in."""

import json
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.policies import Policies, Policy

DAY = 86_400
LIMITS = [limit.name for limit in fields(Policy)]
TERMINAL = ("completed", "ended", "expired")

limits = st.none() | st.integers(1, 2**31 - 1)
policies = st.builds(Policy, **dict.fromkeys(LIMITS, limits))


def test_the_defaults() -> None:
    """Unset limits are a day active, thirty days suspended and kept, no maximum age, 15 minutes for ghosts."""
    assert Policy() == Policy(DAY, 30 * DAY, None, 30 * DAY, 30 * DAY, 30 * DAY, 900)


def test_each_state_has_its_limit() -> None:
    """Active and suspended sessions idle and are never pruned; finished ones are kept and never idle."""
    policy = Policy(1, 2, 3, 4, 5, 6, 7)
    states = ("active", "suspended", *TERMINAL)
    assert [policy.idle(state) for state in states] == [1, 2, None, None, None]
    assert [policy.retention(state) for state in states] == [None, None, 4, 5, 6]


@pytest.mark.parametrize("state", ["", "Active", "deleted"])
def test_what_is_no_state_is_refused(state: str) -> None:
    """A misspelled state is an error, not a session that never expires."""
    with pytest.raises(ValueError, match="is not a state"):
        Policy().idle(state)
    with pytest.raises(ValueError, match="is not a state"):
        Policy().retention(state)
    with pytest.raises(ValueError, match="is not a terminal state"):
        Policies().retention_map(state)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("bad", [0, -1, 1.5, "30d", True])
def test_a_limit_is_whole_seconds_or_never(name: str, bad: Any) -> None:
    """Anything but None and an int of at least 1 is refused, and the field named."""
    with pytest.raises(ValueError, match=f"^{name} must be whole seconds"):
        Policy(**{name: bad})


def test_policies_do_not_change() -> None:
    """Fields cannot be set, and a caller's later change of its mapping is not seen."""
    kinds = {"cron": Policy(idle_active=60)}
    policy_set = Policies(kinds=kinds)
    kinds["cron"] = Policy(idle_active=61)
    assert policy_set.for_kind("cron").idle_active == 60
    with pytest.raises(FrozenInstanceError):
        policy_set.default = Policy()  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        policy_set.default.ghosts = 1  # type: ignore[misc]


@given(default=policies, kinds=st.dictionaries(st.text(), policies))
def test_the_maps_say_what_the_policies_say(default: Policy, kinds: dict[str, Policy]) -> None:
    """For every kind, known or not, looking it up in the JSON map and else the default gives its policy's limit."""
    policy_set = Policies(default, kinds)
    for state in TERMINAL:
        text, otherwise = policy_set.retention_map(state)
        assert json.loads(text) == {kind: policy.retention(state) for kind, policy in kinds.items()}
        assert otherwise == policy_set.for_kind("no such kind" * 9).retention(state) == default.retention(state)
    text, otherwise = policy_set.max_age_map()
    assert json.loads(text) == {kind: policy.max_age for kind, policy in kinds.items()}
    assert otherwise == default.max_age


def test_never_is_null_in_a_map() -> None:
    """A kind that is kept for ever is in the map as null, apart from a kind that is not in it."""
    policy_set = Policies(kinds={"audit": Policy(retention_ended=None), "cron": Policy(retention_ended=60)})
    assert policy_set.retention_map("ended") == ('{"audit":null,"cron":60}', 30 * DAY)


def test_the_maps_are_made_once() -> None:
    """Every call returns the same object: the maps stand on a hot path."""
    policy_set = Policies(kinds={"cron": Policy()})
    assert all(policy_set.retention_map(state) is policy_set.retention_map(state) for state in TERMINAL)
    assert policy_set.max_age_map() is policy_set.max_age_map()
