"""Policies: limits per kind and state, and the maps SQL takes them in."""

import json
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.policies import COUNTS, Policies, Policy

DAY = 86_400
LIMITS = [limit.name for limit in fields(Policy)]
TERMINAL = ("completed", "ended", "expired")

limits = st.none() | st.integers(1, 2**31 - 1)
policies = st.builds(Policy, **dict.fromkeys(LIMITS, limits))

MIDNIGHT = datetime(2026, 3, 29, tzinfo=UTC)
# Any order of times: a server's clock may be set back.
times = st.lists(st.integers(0, 500), max_size=30)
keeping = st.builds(
    Policy, checkpoints_keep_last=st.integers(1, 8), checkpoints_keep_every=st.none() | st.integers(1, 100)
)


def made(seconds: list[int]) -> list[tuple[int, datetime]]:
    """Checkpoints made at these seconds after midnight, with gaps between their seqs as messages leave them."""
    return [(3 * i + 1, MIDNIGHT + timedelta(seconds=second)) for i, second in enumerate(seconds)]


def left(policy: Policy, checkpoints: list[tuple[int, datetime]]) -> list[tuple[int, datetime]]:
    """What stays of the checkpoints."""
    gone = policy.superseded(checkpoints)
    assert gone == sorted(set(gone))
    return [one for one in checkpoints if one[0] not in gone]


def test_the_defaults() -> None:
    """Unset, they are a day active, thirty days suspended and kept, no maximum age, 15 minutes for ghosts; all kept."""
    assert Policy() == Policy(DAY, 30 * DAY, None, 30 * DAY, 30 * DAY, 30 * DAY, 900, None, None)


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
    unit = "a number" if name in COUNTS else "whole seconds"
    with pytest.raises(ValueError, match=f"^{name} must be {unit}, at least 1"):
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


def test_by_default_every_checkpoint_is_kept() -> None:
    """A time distance alone gives up nothing either: it adds to the newest that are kept."""
    checkpoints = made([0] * 50)
    assert Policy().superseded(checkpoints) == Policy(checkpoints_keep_every=3600).superseded(checkpoints) == []


def test_the_first_of_each_period_stays_beside_the_newest() -> None:
    """The periods are hours of the clock, not hours since the last one; one without a checkpoint keeps none."""
    checkpoints = made([0, 3599, 3600, 3601, 4 * 3600 - 1, 5 * 3600, 5 * 3600 + 1, 5 * 3600 + 2, 5 * 3600 + 3])
    assert Policy(checkpoints_keep_last=2).superseded(checkpoints) == [1, 4, 7, 10, 13, 16, 19]
    hourly = Policy(checkpoints_keep_last=2, checkpoints_keep_every=3600)
    assert hourly.superseded(checkpoints) == [4, 10, 19]
    assert hourly.superseded([]) == hourly.superseded(checkpoints[:2]) == []


@given(policy=keeping, seconds=times)
def test_what_stays_of_checkpoints(policy: Policy, seconds: list[int]) -> None:
    """The newest always stay; of the older ones exactly the first of each period; doing it again removes nothing."""
    checkpoints = made(seconds)
    assert policy.checkpoints_keep_last is not None
    kept = left(policy, checkpoints)
    newest = checkpoints[-policy.checkpoints_keep_last :]
    assert kept[len(kept) - len(newest) :] == newest
    every = policy.checkpoints_keep_every
    firsts = []
    for seq, time in checkpoints[: -policy.checkpoints_keep_last] if every else []:
        period = int(time.timestamp()) // (every or 1)
        if not any(int(at.timestamp()) // (every or 1) == period for before, at in checkpoints if before < seq):
            firsts.append((seq, time))
    assert kept == [*firsts, *newest]
    assert policy.superseded(kept) == []


@given(policy=keeping, seconds=times)
def test_removing_step_by_step_is_removing_once(policy: Policy, seconds: list[int]) -> None:
    """Removal after each addition leaves what one removal at the end leaves, and what outlived the newest stays."""
    kept: list[tuple[int, datetime]] = []
    for checkpoint in made(seconds):
        assert policy.checkpoints_keep_last is not None
        outlived = kept[: -policy.checkpoints_keep_last]
        kept = left(policy, [*kept, checkpoint])
        assert kept[: len(outlived)] == outlived
    assert kept == left(policy, made(seconds))


@given(seconds=times, last=st.integers(1, 4), more=st.integers(0, 4), every=st.integers(1, 50), by=st.integers(1, 5))
def test_a_thinner_policy_finds_what_it_would_have_kept(
    seconds: list[int], last: int, more: int, every: int, by: int
) -> None:
    """After a change to fewer, and to a multiple of the period, it is as if the new policy had always been there."""
    before = Policy(checkpoints_keep_last=last + more, checkpoints_keep_every=every)
    after = Policy(checkpoints_keep_last=last, checkpoints_keep_every=every * by)
    assert left(after, left(before, made(seconds))) == left(after, made(seconds))
