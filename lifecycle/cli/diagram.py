"""`lifecycle diagram`: the state machine, drawn from its table."""

import sys
from enum import StrEnum
from html import escape
from typing import Annotated

import typer

from lifecycle import states
from lifecycle.errors import InvalidArgument


class Format(StrEnum):
    """What a diagram is written in."""

    MERMAID = "mermaid"
    SVG = "svg"


def diagram(
    form: Annotated[Format, typer.Option("--format")] = Format.MERMAID,
    state: Annotated[str | None, typer.Option(help="The current state, to be lit.")] = None,
) -> None:
    """Draw the state machine."""
    if state is not None and state not in states.STATES:
        raise InvalidArgument(f"--state must be one of {', '.join(states.STATES)}, not {state!r}")
    sys.stdout.write(states.mermaid(state) if form is Format.MERMAID else svg(state))


_LEFT, _WIDE, _HIGH = 20, 110, 32


def svg(lit: str | None = None, table: tuple[states.Transition, ...] = states.TRANSITIONS) -> str:
    """The machine as SVG: the states across the top, a labelled arrow on a line of its own for each move."""
    names = states.states(table)
    arrows = [(row.trigger, source, row.target) for row in table for source in row.sources]
    gap = 170
    x = {name: _LEFT + gap * i + _WIDE // 2 for i, name in enumerate(names)}
    width, height = _LEFT * 2 + gap * (len(names) - 1) + _WIDE, 70 + 30 * len(arrows) + 20
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
        parts += [
            f'<line x1="{x[name]}" y1="{20 + _HIGH}" x2="{x[name]}" y2="{height - 10}" stroke="#d0d7de"/>',
            (
                f'<rect x="{x[name] - _WIDE // 2}" y="20" width="{_WIDE}" height="{_HIGH}" rx="8" fill="{fill}"'
                ' stroke="#57606a"/>'
            ),
            f'<text x="{x[name]}" y="41" fill="{ink}">{escape(name)}</text>',
        ]
    for i, (trigger, source, target) in enumerate(arrows):
        y = 84 + 30 * i
        parts += [
            f'<circle cx="{x[source]}" cy="{y}" r="3" fill="#57606a"/>',
            f'<line x1="{x[source]}" y1="{y}" x2="{x[target]}" y2="{y}" stroke="#57606a" marker-end="url(#tip)"/>',
            f'<text x="{(x[source] + x[target]) // 2}" y="{y - 5}" fill="#1f2328" class="move">{escape(trigger)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
