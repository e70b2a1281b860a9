"""Transcripts: read from where the last reading ended, told from rewritten ones, and made messages of."""

import json
from pathlib import Path
from typing import Any

import pytest

from lifecycle.directories.entries import Malformed, Namer, NeedsBeginning, in_pieces, message_of
from lifecycle.directories.transcripts import Line, Place, Reading, begin
from tests.session_directories import append, dump, header, message


def read(path: Path, known: Place | None = None) -> tuple[list[Any], Reading]:
    """The ids of the entries that a reading gives, and the reading."""
    reading = begin(path, known)
    return [line.entry.get("id") for line in reading.lines()], reading


def ids(*numbers: int) -> list[str]:
    """The ids of messages."""
    return [f"{number:08x}" for number in numbers]


class TestReading:
    """What is read, and what is not read again."""

    def test_behind_what_was_read_only_the_new_is(self, tmp_path: Path) -> None:
        """A grown file is read from its last offset on."""
        path = dump(tmp_path / "s.jsonl", [header("s"), *(message(i) for i in range(100))])
        found, first = read(path)
        assert found == ["s", *ids(*range(100))]
        append(path, message(100))
        found, second = read(path, first.place)
        assert found == ids(100)
        assert not second.fresh
        assert second.bytes_read < 8000 < first.bytes_read

    def test_a_torn_last_line_waits(self, tmp_path: Path) -> None:
        """It is no problem and no entry; the next reading begins with it."""
        path = dump(tmp_path / "s.jsonl", [message(0)], torn='{"type": "message", "id": "000')
        found, first = read(path)
        assert (found, first.torn, first.problems) == (ids(0), 30, [])
        with path.open("a") as file:
            file.write('00001", "message": {"role": "user", "content": "x"}}\n')
        assert read(path, first.place)[0] == ids(1)

    def test_a_whole_last_line_needs_no_line_feed(self, tmp_path: Path) -> None:
        """It is complete; the line feed that comes later changes nothing."""
        path = dump(tmp_path / "s.jsonl", [message(0)], torn=json.dumps(message(1)))
        found, first = read(path)
        assert (found, first.torn) == (ids(0, 1), 0)
        with path.open("a") as file:
            file.write("\n" + json.dumps(message(2)) + "\n")
        assert read(path, first.place)[0] == ids(2)

    @pytest.mark.parametrize("change", ["shorter", "same size", "other beginning", "other file", "longer before"])
    def test_a_rewritten_file_is_read_anew(self, tmp_path: Path, change: str) -> None:
        """Whatever is not the old content with more behind it."""
        path = dump(tmp_path / "s.jsonl", [header("s"), *(message(i) for i in range(9))])
        _, first = read(path)
        text = path.read_text()
        match change:
            case "shorter":
                dump(path, [header("s"), message(8)])
            case "same size":
                path.write_text(text.replace("message 3", "massage 3"))
            case "other beginning":
                path.write_text(text.replace('"cwd": "/"', '"cwd": "!"') + json.dumps(message(9)) + "\n")
            case "other file":
                path.rename(tmp_path / "old")
                path.write_text(text + json.dumps(message(9)) + "\n")
            case _:
                path.write_text(text.replace("message 8", "a longer message 8") + json.dumps(message(9)) + "\n")
        assert read(path, first.place)[1].fresh

    def test_what_is_no_entry_is_a_problem_with_its_place(self, tmp_path: Path) -> None:
        """And the lines around it are read."""
        path = dump(tmp_path / "s.jsonl", [message(0), "not json", "[1]", "", message(1)])
        path.write_bytes(path.read_bytes() + b'{"type": "message", "id": "\xff"}\n')
        found, reading = read(path)
        assert found == ids(0, 1)
        first = len(json.dumps(message(0))) + 1
        assert [problem.offset for problem in reading.problems[:2]] == [first, first + 9]
        assert [problem.reason[:8] for problem in reading.problems] == ["not JSON", "not an o", "not JSON"]

    def test_an_entry_glued_to_a_torn_one_is_not_lost(self, tmp_path: Path) -> None:
        """A writer that died within a line goes on right behind it."""
        glued = '{"type": "message", "id": "7", "mess' + json.dumps(message(1)).replace('"type": ', '"type":')
        path = dump(tmp_path / "s.jsonl", [message(0), glued, message(2)])
        found, reading = read(path)
        assert found == ids(0, 1, 2)
        assert [problem.reason for problem in reading.problems] == ["36 bytes of a torn line before the next"]

    def test_a_part_of_a_torn_message_is_no_entry(self, tmp_path: Path) -> None:
        """Parts have types and ids too."""
        torn = '{"type":"message","id":"7","message":{"content":[{"type":"toolCall","id":"c"}'
        found, reading = read(dump(tmp_path / "s.jsonl", [torn, message(1)]))
        assert found == ids(1)
        assert len(reading.problems) == 1

    def test_a_place_survives_json(self, tmp_path: Path) -> None:
        """As it does in a session's metadata; anything else is none."""
        _, reading = read(dump(tmp_path / "s.jsonl", [message(0)]))
        assert reading.place is not None
        assert Place.from_json(json.loads(json.dumps(reading.place.as_json()))) == reading.place
        assert Place.from_json([1, 2]) is None
        assert Place.from_json(None) is None


def as_message(entry: dict[str, Any]) -> dict[str, Any]:
    """The message an entry is."""
    return message_of(Line(entry, 0, 1))


class TestEntries:
    """From entries to messages and back."""

    def test_nothing_of_an_entry_is_lost(self) -> None:
        """Role and content are the message's, all else its metadata."""
        entry = message(1, [{"type": "text", "text": "x"}], extra={"y": 1})
        entry["message"]["usage"] = {"input": 3}
        made = as_message(entry)
        assert made["role"] == "assistant"
        assert made["content"] == [{"type": "text", "text": "x"}]
        assert made["metadata"] == {
            "type": "message", "parentId": "00000000", "timestamp": entry["timestamp"], "extra": {"y": 1},
            "message": {"usage": {"input": 3}},
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("entry", "content"),
        [
            ({"type": "compaction", "id": "1", "summary": "so far", "firstKeptEntryId": "0"}, "so far"),
            ({"type": "branch_summary", "id": "1", "summary": "aside"}, "aside"),
            ({"type": "custom_message", "id": "1", "content": "hi", "customType": "t"}, "hi"),
            ({"type": "custom", "id": "1", "data": {"a": 1}}, {"a": 1}),
            ({"type": "model_change", "id": "1", "parentId": None, "modelId": "m"}, {"id": "1", "modelId": "m"}),
        ],
    )
    def test_other_entries_are_messages_of_their_type(self, entry: dict[str, Any], content: Any) -> None:
        """Of a type that nobody knows, all of it is content."""
        made = as_message(entry)
        assert made["role"] == entry["type"]
        assert made["content"] == (content if entry["type"] != "model_change" else {"modelId": "m"})
        whole = {**made["metadata"], "id": "1"}
        assert whole["type"] == entry["type"]
        assert set(entry) - set(whole) <= {"summary", "content", "data", "modelId"}

    @pytest.mark.parametrize(
        "entry",
        [{}, {"type": 7}, {"type": ""}, {"type": "message"}, {"type": "message", "message": {}},
         {"type": "message", "message": {"role": None}}, {"type": "message", "message": {"role": "x" * 300}}],
    )  # fmt: skip
    def test_what_is_no_message_says_why(self, entry: dict[str, Any]) -> None:
        """It is reported, and nothing is made up."""
        with pytest.raises(Malformed, match=r"no type|without"):
            as_message(entry)

    def test_names_are_the_entries_own(self) -> None:
        """A repeat is passed over; what says something else under the same id stands beside it."""
        namer, entry = Namer(), message(1, "one")
        changed = message(1, "two")
        names = [namer.new(as_message(one), one, "f", fresh=True) for one in (entry, entry, changed, changed, entry)]
        made = [row["message_id"] for row in names if row]
        assert made[0] == "00000001"
        assert made[1].startswith("00000001~")
        assert len(made) == 2
        assert namer.repeated == 3

    def test_entries_without_an_id_are_called_by_what_they_say(self) -> None:
        """Each of several alike has a name, the same one at the next reading; a reading of the tail cannot tell."""
        entry = message(1, "same")
        del entry["id"]
        again = [Namer().new(as_message(entry), entry, "f", fresh=True) for _ in range(2)]
        assert again[0] == again[1]
        namer = Namer()
        three = [namer.new(as_message(entry), entry, "f", fresh=True) for _ in range(3)]
        assert len({row["message_id"] for row in three if row}) == 3
        with pytest.raises(NeedsBeginning):
            Namer().new(as_message(entry), entry, "f", fresh=False)

    def test_pieces_give_back_the_whole(self) -> None:
        """Joined and parsed they are the message, and each is short enough; a lone surrogate is no matter."""
        row = as_message(message(1, "x" * 2500 + "\ud800", note="\x00")) | {"message_id": "m"}
        pieces = list(in_pieces(row, 1000))
        assert [piece["message_id"] for piece in pieces] == ["m", "m/2", "m/3"]
        assert max(len(piece["content"]) for piece in pieces) <= 1000
        back = json.loads("".join(piece["content"] for piece in pieces))
        assert back == {name: row[name] for name in ("role", "content", "metadata")}
        assert all(piece["content"].isascii() for piece in pieces)
