"""The places of graphs' checkpoints: what is told back, and in which order."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from lifecycle.graphs import bounds, parted, place

UUIDS = st.uuids().map(str)
LIKE_UUIDS = st.from_regex(r"[0-9a-f]{8}[-0-9A-Za-z_~]{14,20}~{0,2}", fullmatch=True) | UUIDS.map(str.upper)
IDS = UUIDS | LIKE_UUIDS | st.text(st.characters(exclude_characters="\x1f\x1e", codec="utf-8"), min_size=1, max_size=40)


@given(IDS)
def test_an_id_is_told_back(checkpoint_id: str) -> None:
    """Whatever it looks like."""
    assert parted(place("ns", checkpoint_id)) == ("ns", checkpoint_id)


@given(IDS, IDS)
def test_places_differ_as_ids_do(one: str, other: str) -> None:
    """No two ids have the same place, and all of a namespace stand between its bounds."""
    assert (place("ns", one) == place("ns", other)) == (one == other)
    since, until = bounds("ns")
    assert since <= place("ns", one) < until


@given(UUIDS, UUIDS)
def test_uuids_sort_alike(one: str, other: str) -> None:
    """By their places as by their texts, so that the latest is the last."""
    assert (place("", one) < place("", other)) == (one < other)
    assert len(place("", one)) == 25


@given(LIKE_UUIDS, st.text("!-09afAZ~", max_size=3))
def test_an_id_that_begins_as_another_sorts_behind_it(one: str, more: str) -> None:
    """As its text does, whether it looks like a place or not."""
    assert place("", one) <= place("", one + more)


@given(UUIDS, IDS.filter(lambda one: one.isascii()))
def test_others_sort_between_them(one: str, other: str) -> None:
    """Any id beside a UUID, as far as the first eight characters tell them apart."""
    if one[:8] != other[:8]:
        assert (place("", one) < place("", other)) == (one < other)


def test_neighbours_sort_alike() -> None:
    """UUIDs that differ in one of their last digits only."""
    ids = [str(uuid.UUID(int=(0x1F1E6267 << 96) + n)) for n in range(300)]
    assert sorted(place("", one) for one in ids) == [place("", one) for one in ids]
