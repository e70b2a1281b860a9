"""`lifecycle diagram`: the state machine, drawn from its table."""

from enum import StrEnum
from html import escape
from typing import Annotated

import typer

from lifecycle import states
from lifecycle.cli.output import write
from lifecycle.errors import InvalidArgument


class Format(StrEnum):
    """What a diagram is written in."""

    MERMAID = "mermaid"
    SVG = "svg"


def diagram(
    form: Annotated[Format, typer.Option("--format", help="What it is written in.")] = Format.MERMAID,
    state: Annotated[str | None, typer.Option(help="The current state, to be lit.")] = None,
) -> None:
    """Draw the state machine."""
    if state is not None and state not in states.STATES:
        raise InvalidArgument(f"--state must be one of {', '.join(states.STATES)}, not {state!r}")
    write(states.mermaid(state) if form is Format.MERMAID else svg(state))


_LEFT, _WIDE, _HIGH, _GAP = 20, 110, 32, 170


def svg(lit: str | None = None, table: tuple[states.Transition, ...] = states.TRANSITIONS) -> str:
    """The machine as SVG: the states across the top, a labelled arrow on a line of its own for each move.

    Sessions begin in the state with the thick border; those with a double one finish a session.
    """
    names = states.states(table)
    arrows = [(row.trigger, source, row.target) for row in table for source in row.sources]
    x = {name: _LEFT + _GAP * i + _WIDE // 2 for i, name in enumerate(names)}
    width, height = _LEFT * 2 + _GAP * (len(names) - 1) + _WIDE, 70 + 30 * len(arrows) + 36
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        (
            "<style>text { font: 13px sans-serif; text-anchor: middle } .move { paint-order: stroke; stroke: #fff;"
            " stroke-width: 4px }</style>"
        ),
        "<title>The states of a session</title>",
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#57606a"/></marker></defs>'
        ),
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for name in names:
        fill, ink = ("#1f6feb", "#ffffff") if name == lit else ("#eaeef2", "#1f2328")
        left, thick = x[name] - _WIDE // 2, 3 if name == states.INITIAL else 1
        parts += [
            f'<line x1="{x[name]}" y1="{20 + _HIGH}" x2="{x[name]}" y2="{height - 36}" stroke="#d0d7de"/>',
            (
                f'<rect x="{left}" y="20" width="{_WIDE}" height="{_HIGH}" rx="8" fill="{fill}" stroke="#57606a"'
                f' stroke-width="{thick}"/>'
            ),
            f'<text x="{x[name]}" y="41" fill="{ink}">{escape(name)}</text>',
        ]
        if name not in states.LIVE:
            parts.append(
                f'<rect x="{left + 3}" y="23" width="{_WIDE - 6}" height="{_HIGH - 6}" rx="6" fill="none"'
                f' stroke="{ink}" stroke-opacity="0.6"/>'
            )
    for i, (trigger, source, target) in enumerate(arrows):
        y = 84 + 30 * i
        # Beside its source, where no other state's line runs through the word.
        label = x[source] + (_GAP // 2 if x[target] >= x[source] else -_GAP // 2)
        parts += [
            f'<circle cx="{x[source]}" cy="{y}" r="3" fill="#57606a"/>',
            f'<line x1="{x[source]}" y1="{y}" x2="{x[target]}" y2="{y}" stroke="#57606a" marker-end="url(#tip)"/>',
            f'<text x="{label}" y="{y - 5}" fill="#1f2328" class="move">{escape(trigger)}</text>',
        ]
    legend = "thick border: where a session begins; double border: finished, removed after its retention"
    parts.append(f'<text x="{width // 2}" y="{height - 12}" fill="#57606a" style="font-size: 12px">{legend}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
