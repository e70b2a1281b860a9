"""How the rows of a graph's checkpoints say where they stand and what they are made of.

A checkpoint stands at a place: its namespace and its id, so that the ones of a namespace follow each other. An id that is
a UUID stands there in 24 characters, which sort as its 36 do: an index that grows in its middle is half empty. What a
checkpoint needs is a JSON list of runs of items, `[first, last]`, and of names of values. Runs of items that came with it
are counted from its first item and written as negative numbers, as that item's number is given by the database only when
it is stored. Writes are lines: the names of the values that the line needs, a space, and the rest. So are items, each behind
its number and a space, in the row of the checkpoint that they came with: most are smaller than a row's own cost.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lifecycle.entries import Run, digest

BETWEEN: Final = "\x1f"
_AFTER: Final = "\x20"
_DIGEST: Final = "\x1e"
_MORE: Final = "\x1d"
MARKS: Final = (BETWEEN, _DIGEST, _MORE)
"""What no namespace may contain."""
# A UUID as its text is written; in a place: its first eight digits, and the rest in a base 64 that sorts as bytes do.
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORTENED: Final = re.compile(r"[0-9a-f]{8}[-0-9A-Z_a-z]{16}")
# Behind an id that begins like that. Nothing that an id goes on with sorts before it.
_AS_IT_IS: Final = "!"
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SORTED: Final = bytes.maketrans(_BASE64, bytes(sorted(b"-_" + _BASE64[:-2])))
_UNSORTED: Final = bytes.maketrans(bytes(sorted(b"-_" + _BASE64[:-2])), _BASE64)
# Of the 255 characters that a place may have, so many are the namespace's.
_LONGEST: Final = 200


def short(namespace: str) -> str:
    """A namespace as it stands in a place: its digest where it is long, as that of a subgraph many levels down is."""
    return namespace if len(namespace) <= _LONGEST else _DIGEST + digest(namespace)


def place(namespace: str, checkpoint_id: str) -> str:
    """Where a checkpoint stands."""
    return f"{short(namespace)}{BETWEEN}{_placed(checkpoint_id)}"


def parted(place_: str) -> tuple[str, str]:
    """The namespace, as it stands there, and the id of the checkpoint."""
    namespace, _, placed = place_.rpartition(BETWEEN)
    return namespace, _named(placed)


def _placed(checkpoint_id: str) -> str:
    # Among other ids too it sorts as the UUID does, but for those that begin with the same eight characters.
    if _UUID.fullmatch(checkpoint_id):
        rest = bytes.fromhex(checkpoint_id[8:].replace("-", ""))
        return checkpoint_id[:8] + base64.b64encode(rest).translate(_SORTED).decode()
    return checkpoint_id + _AS_IT_IS if _SHORTENED.match(checkpoint_id) else checkpoint_id


def _named(placed: str) -> str:
    if _SHORTENED.fullmatch(placed):
        rest = base64.b64decode(placed[8:].encode().translate(_UNSORTED)).hex()
        return f"{placed[:8]}-{rest[:4]}-{rest[4:8]}-{rest[8:12]}-{rest[12:]}"
    return placed.removesuffix(_AS_IT_IS) if _SHORTENED.match(placed) else placed


def bounds(namespace: str) -> tuple[str, str]:
    """What all places of a namespace are not less than, and what they are less than."""
    return short(namespace) + BETWEEN, short(namespace) + _AFTER


def numbered(runs: Iterable[Sequence[int]], first: int | None) -> list[Run]:
    """Runs with those that are counted from the first item as numbers."""
    return [(start, end) if start > 0 or first is None else (first - 1 - start, first - 1 - end) for start, end in runs]


def needs_text(runs: Iterable[Sequence[int]], names: Iterable[str]) -> str | None:
    """What is needed as it is stored; None for nothing."""
    needed: list[Any] = [*map(list, runs), *names]
    return json.dumps(needed, separators=(",", ":")) if needed else None


def needed(text: str | None, first: int | None = None) -> tuple[list[Run], list[str]]:
    """The runs of items and the names of values that a stored text says."""
    if not text:
        return [], []
    found = json.loads(text)
    runs = numbered((one for one in found if isinstance(one, list)), first)
    return runs, [one for one in found if isinstance(one, str)]


def line_needing(names: Iterable[str], content: str) -> str:
    """A line: of writes, or of an item that has no number yet."""
    return f"{','.join(names)} {content}\n"


def lines(writes: str | None) -> list[tuple[list[str], str]]:
    """The lines of writes: the names of the values that each needs, and the rest."""
    return [said(line) for line in (writes or "").split("\n")[:-1]]


def said(line: str) -> tuple[list[str], str]:
    """The names of the values that a line needs, and the rest of it."""
    names, _, content = line.partition(" ")
    return names.split(",") if names else [], content


def numbered_lines(items: Iterable[str], first: int, most: int) -> list[tuple[str, int]]:
    """The lines of items, numbered from `first` on, in texts of at most so many characters, but for longer lines.

    Each text comes with its last number.
    """
    texts: list[list[str]] = []
    lasts: list[int] = []
    size = most + 1
    for number, line in enumerate(items, first):
        numbered_ = f"{number} {line}"
        size += len(numbered_)
        if size > most:
            texts.append([])
            lasts.append(number)
            size = len(numbered_)
        texts[-1].append(numbered_)
        lasts[-1] = number
    return [("".join(lines_), last) for lines_, last in zip(texts, lasts, strict=True)]


def place_of_more(first: int, part: int) -> str:
    """Where items stand that are in no checkpoint's own row: at no namespace's place."""
    return f"{_MORE}{first}-{part}"


def items_of(text: str | None) -> dict[int, str]:
    """The line of each item of a row, by its number."""
    numbered_ = (line.partition(" ") for line in (text or "").split("\n")[:-1])
    return {int(number): line for number, _, line in numbered_}


def needs_of(row: Mapping[str, Any]) -> tuple[list[Run], list[str]]:
    """What a checkpoint's row needs, its writes included."""
    runs, names = needed(row["needs"], row["first_item"])
    return runs, names + [name for own, _ in lines(row["writes"]) for name in own]
