"""The state machine as a picture, laid out from its table: live states in a frame, finished ones beside it."""

from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from lifecycle import states

_BOX_WIDE, _BOX_HIGH = 116, 34
_FRAME_LEFT, _FRAME_TOP, _FRAME_WIDE = 32, 10, 212
_LIVE_GAP, _DONE_GAP, _DONE_LEFT = 60, 26, 424
_LANE: Final = 16


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a state stands."""

    left: float
    top: float

    @property
    def right(self) -> float:
        return self.left + _BOX_WIDE

    @property
    def middle(self) -> float:
        return self.top + _BOX_HIGH / 2

    @property
    def bottom(self) -> float:
        return self.top + _BOX_HIGH

    @property
    def centre(self) -> float:
        return self.left + _BOX_WIDE / 2


def draw(lit: str, table: tuple[states.Transition, ...] = states.TRANSITIONS) -> Markup:
    """The machine as SVG, with the current state and the moves that it allows lit."""
    names = states.states(table)
    live = [name for name in names if name in states.LIVE]
    done = [name for name in names if name not in states.LIVE]
    boxes, frame_high = _placed(live, done)
    parts: list[str] = []
    lanes = 0
    for row in table:
        can = lit in row.sources
        if row.target in done and set(live) <= set(row.sources):
            # One arrow out of the frame says that every live state has this move.
            start = (_FRAME_LEFT + _FRAME_WIDE, _FRAME_TOP + frame_high / 2)
            parts.append(_curve(row.trigger, start, boxes[row.target], lit=can))
            sources = tuple(source for source in row.sources if source not in live)
        else:
            sources = row.sources
        for source in sources:
            of, to = boxes[source], boxes[row.target]
            if source in live and row.target in live:
                parts.append(_beside(row.trigger, of, to, lit=source == lit))
            elif source in live:
                parts.append(_curve(row.trigger, (of.right, of.middle), to, lit=source == lit))
            else:
                lanes += 1
                floor = max(box.bottom for box in boxes.values()) + _LANE * lanes
                parts.append(_around(row.trigger, of, to, floor, lanes, lit=source == lit))
    height = max(_FRAME_TOP + frame_high, max(box.bottom for box in boxes.values()) + _LANE * lanes) + 10
    width = _DONE_LEFT + _BOX_WIDE + 12
    frame = (
        f'<rect class="frame" x="{_FRAME_LEFT}" y="{_FRAME_TOP}" width="{_FRAME_WIDE}" height="{frame_high}" rx="10"/>'
    )
    drawn = [_box(name, box, lit=name == lit, finished=name in done) for name, box in boxes.items()]
    said = f"The session is {lit}. From here: {', '.join(states.allowed(lit, table)) or 'nothing'}."
    return Markup(  # noqa: S704 -- every name in it is escaped where it is put in
        f'<svg class="machine" viewBox="0 0 {width} {height}" role="img" aria-labelledby="machine-title">'
        f'<title id="machine-title">{escape(said)}</title>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        '<path class="tip" d="M0 0L8 4L0 8z"/></marker>'
        '<marker id="tip-lit" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path class="tip lit" d="M0 0L8 4L0 8z"/></marker></defs>{frame}{"".join(parts)}{"".join(drawn)}</svg>'
    )


def _placed(live: list[str], done: list[str]) -> tuple[dict[str, _Box], float]:
    high_live = len(live) * _BOX_HIGH + (len(live) - 1) * _LIVE_GAP + 40
    high_done = len(done) * _BOX_HIGH + (len(done) - 1) * _DONE_GAP
    frame_high = max(high_live, high_done)
    first_live = _FRAME_TOP + (frame_high - high_live) / 2 + 20
    first_done = _FRAME_TOP + (frame_high - high_done) / 2
    left = _FRAME_LEFT + (_FRAME_WIDE - _BOX_WIDE) / 2
    boxes = {name: _Box(left, first_live + i * (_BOX_HIGH + _LIVE_GAP)) for i, name in enumerate(live)}
    boxes |= {name: _Box(_DONE_LEFT, first_done + i * (_BOX_HIGH + _DONE_GAP)) for i, name in enumerate(done)}
    return boxes, frame_high


def _box(name: str, box: _Box, *, lit: bool, finished: bool) -> str:
    kind = f"state state-{escape(name)}{' lit' if lit else ''}{' finished' if finished else ''}"
    return (
        f'<g class="{kind}"><rect x="{box.left:g}" y="{box.top:g}" width="{_BOX_WIDE}" height="{_BOX_HIGH}" rx="8"/>'
        f'<text x="{box.centre:g}" y="{box.middle + 4.5:g}">{escape(name)}</text></g>'
    )


def _arrow(path: str, trigger: str, x: float, y: float, *, lit: bool, anchor: str = "middle") -> str:
    kind, tip = ("move lit", "tip-lit") if lit else ("move", "tip")
    return (
        f'<path class="{kind}" d="{path}" marker-end="url(#{tip})"/>'
        f'<text class="{kind} at-{anchor}" x="{x:g}" y="{y:g}">{escape(trigger)}</text>'
    )


def _curve(trigger: str, start: tuple[float, float], to: _Box, *, lit: bool) -> str:
    x, y = start
    middle = (x + to.left) / 2 - 16
    path = f"M{x:g} {y:g}C{middle:g} {y:g} {middle - 16:g} {to.middle:g} {to.left - 2:g} {to.middle:g}"
    # Outside the fan of arrows, where none of them runs through the word.
    return _arrow(path, trigger, to.left - 46, to.middle + (17 if to.middle > y + 1 else -8), lit=lit)


def _beside(trigger: str, of: _Box, to: _Box, *, lit: bool) -> str:
    down = to.top > of.top
    x = of.centre + (-18 if down else 18)
    start, end = (of.bottom, to.top - 2) if down else (of.top, to.bottom + 2)
    label, anchor = (x - 7, "end") if down else (x + 7, "start")
    return _arrow(f"M{x:g} {start:g}L{x:g} {end:g}", trigger, label, (start + end) / 2 + 4, lit=lit, anchor=anchor)


def _around(trigger: str, of: _Box, to: _Box, floor: float, lane: int, *, lit: bool) -> str:
    edge, bend = _FRAME_LEFT - 12 - _LANE * (lane - 1), 8
    path = (
        f"M{of.centre:g} {of.bottom:g}V{floor - bend:g}Q{of.centre:g} {floor:g} {of.centre - bend:g} {floor:g}"
        f"H{edge + bend:g}Q{edge:g} {floor:g} {edge:g} {floor - bend:g}V{to.middle + bend:g}"
        f"Q{edge:g} {to.middle:g} {edge + bend:g} {to.middle:g}H{to.left - 2:g}"
    )
    return _arrow(path, trigger, _FRAME_LEFT + _FRAME_WIDE + 40, floor - 6, lit=lit)
