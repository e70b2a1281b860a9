"""Conversations by numbered entries: what is stored again, and what is not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.entries import DIGEST_CHARS, MOST_RUNS, Entries, arrange, columns_of, digest, outside, runs_of, within


def replay(stored: dict[int, str], runs: list[tuple[int, int]]) -> list[str]:
    """The digests that runs stand for."""
    return [stored[number] for first, last in runs for number in range(first, last + 1)]


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), max_size=8))
def test_whatever_is_saved_after_another_comes_back(conversations: list[list[str]]) -> None:
    """However a conversation was changed, its runs give it back, and what is stored is never stored under two numbers."""
    stored: dict[int, str] = {}
    upcoming = 1
    for conversation in conversations:
        runs, new = arrange(conversation, stored, upcoming)
        for index in new:
            stored[upcoming] = conversation[index]
            upcoming += 1
        assert conversation == replay(stored, runs)
        holder = columns_of(runs, upcoming)
        assert runs == runs_of(holder)


def test_appending_stores_what_was_added_in_one_run() -> None:
    """A conversation that grew stores its end only."""
    stored = {number: f"d{number}" for number in range(1, 101)}
    runs, new = arrange([*stored.values(), "x"], stored, 101)
    assert (runs, new) == ([(1, 101)], [100])


def test_cutting_off_the_beginning_stores_nothing_else() -> None:
    """A sliding window stores what came and lets go of what went."""
    stored = {number: f"d{number}" for number in range(1, 101)}
    runs, new = arrange([*list(stored.values())[1:], "x"], stored, 101)
    assert (runs, new) == ([(2, 101)], [99])
    assert outside(stored, runs) == [(1, 1)]


def test_a_changed_first_entry_stores_that_one() -> None:
    """The entries behind a changed one stay where they are."""
    stored = {number: f"d{number}" for number in range(1, 101)}
    runs, new = arrange(["x", *list(stored.values())[1:]], stored, 101)
    assert (runs, new) == ([(101, 101), (2, 100)], [0])
    assert columns_of(runs, 102) == {"entries_before": "[[101,101],[2,100]]", "entries_from": 102, "next_entry": 102}


def test_a_shuffled_conversation_is_stored_anew() -> None:
    """More runs than the bound are not kept in the session's row."""
    stored = {number: f"d{number}" for number in range(1, 2 * MOST_RUNS + 3)}
    runs, new = arrange(list(stored.values())[::2], stored, 1000)
    assert runs == [(1000, 1000 + MOST_RUNS)]
    assert list(range(MOST_RUNS + 1)) == new


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        ({"entries_from": None, "entries_before": None, "next_entry": 5}, []),
        ({"entries_from": 5, "entries_before": None, "next_entry": 5}, []),
        ({"entries_from": 3, "entries_before": "[[1,1]]", "next_entry": 5}, [(1, 1), (3, 4)]),
    ],
)
def test_runs_of_a_row(holder: dict[str, Any], expected: list[tuple[int, int]]) -> None:
    """The columns of a row say the runs: none for no conversation and for an empty one."""
    assert expected == runs_of(holder)


def test_what_is_outside_and_within() -> None:
    """Overlapping runs keep what any of them holds."""
    assert outside(range(1, 10), [(4, 6), (1, 2), (5, 5)]) == [(3, 3), (7, 9)]
    assert within([(2, 3)], [(1, 4)])
    assert not within([(2, 5)], [(1, 4), (5, 6)])


def test_digests_tell_texts_apart() -> None:
    """A digest has its length, and another text another one."""
    entries = Entries.of(["1", "2"])
    assert {DIGEST_CHARS} == {len(one) for one in entries.digests}
    assert len(set(entries.digests)) == 2
    assert entries.digests[0] == digest("1")


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=30), max_size=6))
def test_a_number_stands_in_a_conversation_once(conversations: list[list[str]]) -> None:
    """Entries that say the same have numbers of their own, so that one may fall out without the other."""
    stored: dict[int, str] = {}
    upcoming = 1
    for conversation in conversations:
        runs, new = arrange(conversation, stored, upcoming)
        for index in new:
            stored[upcoming] = conversation[index]
            upcoming += 1
        numbers = [number for first, last in runs for number in range(first, last + 1)]
        assert len(set(numbers)) == len(conversation)
