"""The messages in readings of transcripts, in portions for one call each."""

from collections.abc import Iterator
from typing import Final

from lifecycle.directories.entries import Malformed, Namer, Row, message_of
from lifecycle.directories.records import Record
from lifecycle.directories.transcripts import Reading
from lifecycle.settings.limits import LimitsSettings

BATCH_BYTES: Final = 2_000_000
"""Bytes of lines that go into one call, unless a single one is larger."""


def batches(readings: dict[str, Reading], namer: Namer, record: Record, limits: LimitsSettings) -> Iterator[list[Row]]:
    """The new messages, in order; the header goes into the record, what is no entry into its reading's problems."""
    rows: list[Row] = []
    size = 0
    for file, reading in readings.items():
        for line in reading.lines():
            if line.entry.get("type") == "session":
                record.header = record.header or line.entry
                continue
            try:
                row = namer.new(message_of(line), line.entry, file, fresh=reading.fresh)
            except Malformed as error:
                reading.refuse(line, str(error))
                continue
            if row is None:
                continue
            if rows and (len(rows) >= limits.batch_messages or size + line.length > BATCH_BYTES):
                yield rows
                rows, size = [], 0
            rows.append(row)
            size += line.length
    if rows:
        yield rows


def note(readings: dict[str, Reading], record: Record, messages: int) -> None:
    """Note in the record how far the readings came, and of how many messages that is true."""
    record.messages = messages
    for file, reading in readings.items():
        if reading.place is not None:
            record.places[file] = reading.place
        record.malformed += len(reading.problems)
