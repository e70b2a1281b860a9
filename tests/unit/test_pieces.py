"""Large documents in pieces: the text that comes back, and what a change stores."""

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lifecycle.documents import text_of
from lifecycle.pieces import WHOLE, Document, joined, names_in

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30)
    | st.integers(1, 12_000).map(lambda n: "é" * n),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=10), inner, max_size=8),
    max_leaves=60,
)  # fmt: skip


def stored(value: Any) -> Document:
    """The document as a save stores it."""
    return Document.of("context", value, text_of(value))


def back(document: Document) -> str | None:
    """The text that a load puts together."""
    if document.pieces is None:
        return document.text
    return joined(document.pieces, dict(document.values))


@given(JSON)
def test_the_text_comes_back_as_it_was(value: Any) -> None:
    """Whatever was cut is put together to the same text."""
    assert text_of(value) == back(stored(value))


def test_a_small_document_stays_whole() -> None:
    """Below the bound there is one text and no pieces."""
    document = stored({"a": "x" * (WHOLE - 10)})
    assert (len(document.text or ""), document.pieces, document.values) == (WHOLE - 2, None, ())


def test_a_missing_piece_is_noticed() -> None:
    """A document of which a piece is gone is no text at all."""
    document = stored({"a": "x" * 10_000})
    assert document.pieces is not None
    assert joined(document.pieces, {}) is None
    assert list(dict(document.values)) == names_in(document.pieces)


def changed(before: Any, after: Any) -> int:
    """The characters that saving one after the other stores: the list of pieces, and the pieces that are new."""
    old, new = stored(before), stored(after)
    known = dict(old.values)
    return len(new.pieces or new.text or "") + sum(len(text) for name, text in new.values if name not in known)


def test_a_change_stores_little_more_than_itself() -> None:
    """In 400 KB: a changed number, a list that grew at its end or in its middle, and a text among others."""
    source = random.Random(7)
    notes = [{"n": i, "text": source.randbytes(source.randint(50, 400)).hex()} for i in range(800)]
    context = {"step": 1, "notes": notes, "prompt": source.randbytes(3000).hex(), "tail": "x"}
    assert 300_000 < len(text_of(context)) < 500_000
    note = {"n": 800, "text": source.randbytes(200).hex()}
    assert changed(context, context | {"step": 2}) < 12_000
    assert changed(context, context | {"notes": [*notes, note]}) < 20_000
    assert changed(context, context | {"notes": [*notes[:400], note, *notes[400:]]}) < 30_000
    assert changed(context, context | {"prompt": "another" * 1000}) < 20_000


def test_the_order_of_keys_stays() -> None:
    """Objects are not sorted on the way."""
    value = {"z": "1" * 5000, "a": {"y": "2" * 5000, "b": 0}}
    text = back(stored(value))
    assert text is not None
    assert list(json.loads(text)) == ["z", "a"]
    assert list(json.loads(text)["a"]) == ["y", "b"]
