"""What is asked of the library, and whether what was measured holds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.grid import Grid


@dataclass(frozen=True, slots=True)
class Ask:
    """A bound on a figure, at most or at least."""

    what: str
    bound: float
    least: bool = False
    unit: str = "x"

    def holds(self, measured: float) -> bool:
        """Whether a figure keeps the bound."""
        return measured >= self.bound if self.least else measured <= self.bound

    def asked(self) -> str:
        """The bound, in words."""
        return f"at {'least' if self.least else 'most'} {self.bound:g}{self._unit}"

    def figure(self, measured: float) -> str:
        """A measured figure."""
        return f"{measured:,.2f}{self._unit}" if measured < 100 else f"{measured:,.0f}{self._unit}"

    @property
    def _unit(self) -> str:
        return self.unit if self.unit == "x" else f" {self.unit}"


def _throughput(how: str) -> dict[str, Ask]:
    """Turns a second with 64 callers, beside the floor's and the peers'."""
    text = f"64 callers save turns ({how}): times "
    bounds = {"the floor": 1.5, "LangGraph": 10.0, "OpenAI Agents": 15.0, "Google ADK": 25.0}
    return {f"turns, {how}, {whose}": Ask(f"{text}{whose}", bound, least=True) for whose, bound in bounds.items()}


ASKS: Final[Mapping[str, Ask]] = {
    **_throughput("save_state(append=)"),
    **_throughput("add_message"),
    "one caller, save_state(append=)": Ask("one caller saves a turn (save_state(append=), leased): times the floor", 1.25),
    "one caller, add_message": Ask("one caller saves a turn (add_message, leased): times the floor", 1.25),
    "get_session": Ask("get_session: times the floor", 1.25),
    "load_state": Ask("load_state: times the floor", 1.25),
    "stored, 200 turns": Ask("200 turns appended: bytes stored a byte saved", 1.5),
    "stored, 1,000 turns": Ask("1,000 turns appended: bytes stored a byte saved", 1.5),
    "stored, 1,000 turns, whole": Ask("1,000 turns saved as whole lists: bytes stored a byte saved", 1.5),
    "stored, checkpoints": Ask("1,000 turns, a checkpoint at every step: bytes stored a byte saved", 2.0),
    "WAL, append": Ask("WAL of turn 1,000, appended: times that of turn 10", 1.2),
    "WAL, whole": Ask("WAL of turn 1,000, saved as a whole list: times that of turn 10", 1.2),
    "growth, append": Ask("bytes stored for a turn near 1,000, appended: times those near 10", 1.2),
    "growth, whole": Ask("bytes stored for a turn near 1,000, saved as a whole list: times those near 10", 1.2),
    "time, append": Ask("time of turn 1,000, appended: times that of turn 10", 1.2),
    "expire": Ask("expire: sessions a second, to hand-written SQL", 0.7, least=True),
    "prune": Ask("prune: sessions a second, to hand-written SQL", 0.7, least=True),
    "expire, size": Ask("expire among 10^6 sessions: time, times that among 10^4", 1.2),
    "prune, size": Ask("prune among 10^6 sessions: time, times that among 10^4", 1.2),
    "empty sweep": Ask("a sweep that finds nothing, among 10^6 sessions, right after one of 10^5", 5.0, unit="ms"),
    "list": Ask("list page among 10^6 sessions", 10.0, unit="ms"),
    "search": Ask("title search among 10^6 sessions", 10.0, unit="ms"),
}  # fmt: skip


def table(measured: Mapping[str, float]) -> Grid:
    """Every bound with what was measured. Raises KeyError for a figure that nobody asks for."""
    if unknown := measured.keys() - ASKS.keys():
        raise KeyError(f"nobody asks for {', '.join(sorted(unknown))}")
    rows = []
    for name, ask in ASKS.items():
        figure = measured.get(name)
        told = (
            ("not measured", "") if figure is None else (ask.figure(figure), "yes" if ask.holds(figure) else "**no**")
        )
        rows.append((ask.what, ask.asked(), *told))
    return Grid(("what", "asked", "measured", "holds"), rows)
