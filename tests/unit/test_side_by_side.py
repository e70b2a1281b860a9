"""Requests for many sessions on PostgreSQL: what goes together, what is tried again, and what is not tried at all."""

from typing import Any

from psycopg_pool import PoolTimeout

from lifecycle.drivers.combining import NotCommitted
from lifecycle.drivers.postgresql_side_by_side import Part, steps
from lifecycle.errors import StorageUnavailable
from lifecycle.operations.requests import GetSession
from lifecycle.recipes import book

SHARED = book.SINGLES["postgresql"]


def requests(count: int) -> list[GetSession]:
    """As many, of sessions in the opposite order."""
    return [GetSession("", f"s-{number}") for number in reversed(range(count))]


def driven(work: Any, answer: Any) -> tuple[list[Any], list[Any]]:
    """What was asked, and the answers that came of it; `answer` says what each is sent."""
    asked = []
    try:
        one = next(work)
        while True:
            asked.append(one)
            one = work.send(answer(one))
    except StopIteration as done:
        return asked, done.value


def names(part: Part) -> list[str]:
    """The sessions of a transaction."""
    return [piece.request.session_id for piece in part.pieces]


def test_one_transaction_in_the_order_of_the_keys() -> None:
    """And each answer at the place of its request."""
    asked, answers = driven(steps(requests(4), SHARED), lambda part: [[{"session_id": name}] for name in names(part)])
    assert [names(part) for part in asked] == [["s-0", "s-1", "s-2", "s-3"]]
    assert answers == [{"session_id": f"s-{number}"} for number in (3, 2, 1, 0)]


def test_what_a_transaction_ran_into_is_found_by_halves_and_goes_by_itself_last() -> None:
    """In log n tries, the others being met meanwhile."""

    def answer(asked: Any) -> Any:
        if not isinstance(asked, Part):
            return "alone"
        return NotCommitted() if "s-2" in names(asked) else [[{"session_id": name}] for name in names(asked)]

    asked, answers = driven(steps(requests(4), SHARED), answer)
    tried = [names(one) if isinstance(one, Part) else one.session_id for one in asked]
    assert tried == [["s-0", "s-1", "s-2", "s-3"], ["s-0", "s-1"], ["s-2", "s-3"], ["s-2"], ["s-3"], "s-2"]
    assert answers == [{"session_id": "s-3"}, "alone", {"session_id": "s-1"}, {"session_id": "s-0"}]


def test_where_nothing_is_shared_each_goes_by_itself() -> None:
    """In the order given, and the failure of one is its own."""
    failed = StorageUnavailable("this one")
    asked, answers = driven(steps(requests(3), {}), lambda one: failed if one.session_id == "s-1" else one.session_id)
    assert asked == requests(3)
    assert answers == ["s-2", failed, "s-0"]


def test_a_server_that_is_away_is_waited_for_once() -> None:
    """By what goes by itself, too: the others are told that they were not tried."""

    def answer(_asked: Any) -> StorageUnavailable:
        away = StorageUnavailable("no connection")
        away.__cause__ = PoolTimeout()
        return away

    for shared in ({}, SHARED):
        asked, answers = driven(steps(requests(3), shared), answer)
        assert len(asked) == 1
        assert {type(one) for one in answers} == {StorageUnavailable}
        assert len(set(map(id, answers))) == 3
    assert [str(one) for one in driven(steps(requests(2), {}), answer)[1]] == [
        "no connection", "not tried, as others before it failed: no connection",
    ]  # fmt: skip
