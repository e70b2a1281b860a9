"""A conversation as numbered entries: what a save adds is stored once, and whatever holds it says which numbers.

An entry's number never changes and is never given again, so checkpoints and the saved state share entries. A session
says which it is made of, and in what order, by runs of numbers: those of `entries_before`, and then all from
`entries_from` up to `next_entry`, so that adding to a conversation changes one number. Entries that are the same are
found by their digest.
"""

import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

DIGEST_CHARS: Final = 22
# A conversation in more runs than this is stored anew, in one: the runs stand in the session's row.
MOST_RUNS: Final = 64

Run = tuple[int, int]
"""The first and the last number of entries that follow each other."""


class Entries(NamedTuple):
    """Entries of a conversation: the JSON text of each, and its digest."""

    texts: tuple[str, ...]
    digests: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Entries":
        """Those with these texts."""
        kept = tuple(texts)
        return cls(kept, tuple(map(digest, kept)))

    def rows(self, first: int) -> list[dict[str, Any]]:
        """Their columns, numbered from `first`."""
        pairs = zip(self.texts, self.digests, strict=True)
        return [{"number": first + i, "digest": digest, "content": text} for i, (text, digest) in enumerate(pairs)]


def digest(text: str) -> str:
    """What tells a text from others."""
    return digest_of(text.encode())


def digest_of(data: bytes) -> str:
    """What tells bytes from others: 128 bits of BLAKE2b, in 22 characters of base64."""
    return binascii.b2a_base64(hashlib.blake2b(data, digest_size=16).digest())[:DIGEST_CHARS].decode()


def runs_of(holder: Mapping[str, Any]) -> list[Run]:
    """The runs that a session or a checkpoint is made of, by its columns; none of a conversation that is not there."""
    if holder["entries_from"] is None:
        return []
    before = [] if holder["entries_before"] is None else json.loads(holder["entries_before"])
    runs = [(first, last) for first, last in before]
    if holder["entries_from"] < holder["next_entry"]:
        runs.append((holder["entries_from"], holder["next_entry"] - 1))
    return runs


def columns_of(runs: Sequence[Run], next_entry: int) -> dict[str, Any]:
    """The columns that say so in a session whose next entry has this number."""
    before, start = list(runs), next_entry
    if before and before[-1][1] == next_entry - 1:
        start = before.pop()[0]
    text = json.dumps(before, separators=(",", ":")) if before else None
    return {"entries_before": text, "entries_from": start, "next_entry": next_entry}


def arrange(digests: Sequence[str], stored: Mapping[int, str], next_entry: int) -> tuple[list[Run], list[int]]:
    """The runs that make up a conversation, and the indexes of those of its entries that are not stored yet.

    `stored` has the digest of each number. New entries take the numbers from `next_entry` on, in order. What is stored
    is used again wherever it stands, the entry behind the last one first: so appending to a conversation, cutting off
    its beginning and changing an entry all cost what was changed. A number stands in a conversation once, so that it is
    not needed any more when it falls out.
    """
    numbers: list[int] = []
    new: list[int] = []
    free = dict(sorted(stored.items(), reverse=True))
    where = {digest: number for number, digest in free.items()}
    last = 0
    for index, wanted in enumerate(digests):
        found = last + 1 if free.get(last + 1) == wanted else where.get(wanted)
        if found in free:
            last = found
            del free[found]
        else:
            last = next_entry + len(new)
            new.append(index)
        numbers.append(last)
    runs = _runs(numbers)
    if len(runs) > MOST_RUNS:
        return [(next_entry, next_entry + len(digests) - 1)], list(range(len(digests)))
    return runs, new


def _runs(numbers: Iterable[int]) -> list[Run]:
    runs: list[Run] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def within(runs: Iterable[Run], others: Sequence[Run]) -> bool:
    """Whether every run is part of one of the others."""
    return all(any(first >= start and last <= end for start, end in others) for first, last in runs)


def outside(numbers: Iterable[int], kept: Iterable[Run]) -> list[Run]:
    """The numbers, which come in order, that are in no run: as runs themselves."""
    spans = sorted(kept)
    gone: list[int] = []
    place, end = 0, 0
    for number in numbers:
        while place < len(spans) and spans[place][0] <= number:
            end = max(end, spans[place][1])
            place += 1
        if number > end:
            gone.append(number)
    return _runs(gone)
