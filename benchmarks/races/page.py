"""The page in the documentation."""

from collections.abc import Sequence

from benchmarks.races import report
from benchmarks.races.scenarios import FALSE_DEATH, PAUSED, SERVERS

_HEAD = """# Races

A worker is given up for dead, another takes over, and then the first wakes up and writes what it had computed. Or two
servers read one version and both write on it. Does the store let the stale write in?

`make races` runs the races below and writes this page: {rounds} rounds of each, every round on a session of its own,
each store in a database of its own on one private PostgreSQL server. The peers are installed into `.venv-peers`, in the
versions of `benchmarks/peers-requirements.txt`. In that environment, `python -m benchmarks.races` takes `--rounds`,
`--seed`, `--only lifecycle|langgraph|adk|openai` and `--json`; without the peers, Lifecycle still runs. It exits with 1 when a
guarded use of Lifecycle accepts a stale write. What is counted are decisions, not times: they do not depend on the
machine.
"""

_RULES = """## What is raced

The holder, whoever takes over, and a later reader are processes of their own, which share only the database. A
session's state is a list. A write replaces it by the list that the process knows and an entry of its own, as a step of
a workflow replaces a state by what it made of it. **A write is stale** when its list lacks a write that somebody else was
told is done. It is counted as accepted when the store acknowledged it.

- **Lifecycle, expected_version**: `load_state`, then `save_state(expected_version=...)` with the version that the load
  or the last save gave.
- **Lifecycle, lease**: `with manager.lease(id) as lease`, `load_state`, `save_state(lease=lease)`.
- **Lifecycle, neither**: `save_state` alone, which says nothing of what it builds on. The last one wins, and nothing
  else is promised. It shows what the races do to a store without a guard.
- **LangGraph, PostgresSaver**: `get_tuple` of the thread, then `put` of the next checkpoint under the config that came
  with it, with ids and channel versions from the package's own functions, as a graph does. What is raced is the saver;
  how LangGraph's server queues the runs of a thread in front of it is not.
- **Google ADK, DatabaseSessionService**: `get_session`, then `append_event` of an event with a change of state to that
  object, as its runner does. It compares the object's revision with the stored one in a transaction that locks the row.
- **Google ADK, SqliteSessionService**: the same, on a file beside the server. It compares two times before it writes.
- **Google ADK, LifecycleSessionService**: the same, with [the adapter](adapters.md). The database compares versions.
- **OpenAI Agents, SQLAlchemySession**: `get_items`, then `add_items` of one item, as its runner does. Nothing that is
  added replaces anything, so that no write is lost here; a stale one is an answer to a conversation that has gone on.
- **OpenAI Agents, LifecycleSession, lease**: the same, with [the adapter](adapters.md), under a lease that is taken before
  the items are read.
"""

_PAUSED = """The holder has read the state and is stopped with SIGSTOP. Another process takes over, reads, and writes
one to three times. The holder goes on (SIGCONT) and makes its one write. `writes` are those of the holder; each is
stale. The lease's time is written back into the past while its holder is stopped, so that the holder itself still
trusts it: it is the database that refuses the write, by the lease's epoch.
"""

_SERVERS = """Two processes read one version. Once both have, both write on it, at the same time. One of the writes is
right, and the other is stale. With a lease the second process is refused already when it wants to read.
"""

_FALSE_DEATH = """The holder is stopped until its lease of one second has run out, and another process that waits for
the lease takes over and writes; stores without leases are told to take over. The holder goes on and writes three times,
whatever it is told. Under a lease it is its own clock that stops it first.
"""

_AGAIN = """Then a former holder that was refused does what the refusal asks for: it reads anew and writes again, while
its successor is at work. That write is not stale, so a store that compares versions has to accept it, and it is the
successor that is refused next: two processes go on in turns, each of which takes the session for its own. Only a lease
keeps the one out that was given up.
"""


def markdown(results: report.Results) -> str:
    """The page."""
    lines = [_HEAD.format(rounds=f"{results.rounds:,}"), _RULES]
    for race, text in ((PAUSED, _PAUSED), (SERVERS, _SERVERS), (FALSE_DEATH, _FALSE_DEATH)):
        lines += [f"## {race.capitalize()}\n", text, *_table(report.HEAD, report.rows(results, race)), ""]
    lines += ["### After the refusal\n", _AGAIN, *_table(report.AGAIN, report.again_rows(results)), ""]
    lines.append(f"Run with seed {results.seed} on {report.versions_line(results.versions)}.")
    lines.append("A count in brackets is the number of rounds.")
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    marks = ("---" if name in report.TEXTS else "---:" for name in head)
    return [f"| {' | '.join(line)} |" for line in (head, tuple(marks), *cells)]
