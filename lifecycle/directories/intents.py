"""What a removal is about to do, written down before it begins and crossed out behind it.

Keys are taken out of the index before transcripts are renamed. A process that is killed between the two leaves this
file, and the next removal in that directory finishes what it says.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

from lifecycle.directories.layout import Agent
from lifecycle.directories.replacement import sync_directory

_NAME: Final = ".sessions.json.removing"


def write(agent: Agent, files: dict[str, list[str]]) -> None:
    """Note which transcripts of which sessions are to be archived; durable when it returns."""
    path = agent.path / _NAME
    temporary = path.with_name(f"{_NAME}.new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(files, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(agent.path)


def read(agent: Agent) -> dict[str, list[str]]:
    """What a removal that was killed had still to archive: transcripts by session."""
    try:
        found: Any = json.loads((agent.path / _NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return {}  # a note that is not whole was never acted on
    if not isinstance(found, dict):
        return {}
    return {
        name: [file for file in files if isinstance(file, str)]
        for name, files in found.items()
        if isinstance(files, list)
    }


def clear(agent: Agent) -> None:
    """Cross it out."""
    (Path(agent.path) / _NAME).unlink(missing_ok=True)
