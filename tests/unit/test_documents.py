"""JSON documents: what is accepted comes back equal, what would not is refused with its path."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.documents import decode, encode
from lifecycle.errors import LimitExceeded, NotSerializable
from lifecycle.folding import fold, folded_copy

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=30,
)
LIMIT = 2**24


@given(JSON)
def test_any_json_comes_back_equal(value: Any) -> None:
    """Every JSON value comes back equal, of the same types, its keys in the same order."""
    back = decode(encode(value, "value", limit=LIMIT))
    assert back == value
    assert repr(back) == repr(value)


@pytest.mark.parametrize("value", [1e22, -0.0, 1e-7, 2**80, "\u0000", "\ud7ff", {"b": 1, "a": 2}, 1.0, 1])
def test_what_jsonb_would_change_stays(value: Any) -> None:
    """Large and negative-zero floats, big integers, U+0000 and the order of keys survive."""
    back = decode(encode(value, "value", limit=LIMIT))
    assert repr(back) == repr(value)
    if isinstance(value, float):
        assert math.copysign(1, back) == math.copysign(1, value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, float("nan")]}, "context.a[1]"),
        ({"a": {"b": float("inf")}}, "context.a.b"),
        ({"a": (1, 2)}, "context.a"),
        ({"a": {1: 2}}, "context.a"),
        ({"a": [{"b": {1, 2}}]}, "context.a[0].b"),
        ({"a": "\ud800"}, "context.a"),
        ({"a": [b"x"]}, "context.a[0]"),
        ({"\udfff": 1}, "context"),
        ({"a": 10**5000}, "context.a"),
        (object(), "context"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_path(value: Any, path: str) -> None:
    """The error leads to the first value that would not come back equal."""
    with pytest.raises(NotSerializable) as caught:
        encode(value, "context", limit=LIMIT)
    assert caught.value.path == path


def test_circles_and_depth_are_refused() -> None:
    """A value within itself, or nested too deeply to be read back anywhere, is refused."""
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(NotSerializable, match="nested more than 200"):
            encode(value, "context", limit=LIMIT)


def test_the_limit_counts_bytes_of_utf8() -> None:
    """The bound is in bytes as stored, quotes included."""
    assert encode("é" * 4, "x", limit=10) == '"éééé"'
    with pytest.raises(LimitExceeded, match="11 bytes"):
        encode("é" * 4 + "a", "x", limit=10)


@given(TEXT)
def test_folding_finds_the_same_with_and_without_a_copy(text: str) -> None:
    """Where no folded copy is kept, lowering ASCII letters gives the folded text."""
    copy = folded_copy(text)
    ascii_lowered = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)
    assert (ascii_lowered if copy is None else copy) == fold(text)


def test_documents_are_plain_json() -> None:
    """The stored text is what any JSON reader understands."""
    value = {"a": [1, 2.5, None, True, "é"]}
    assert json.loads(encode(value, "x", limit=LIMIT)) == value
