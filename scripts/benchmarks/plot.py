"""Samples -> an SVG: for each row one bar per contestant, its median, with a line from the lowest to the highest round.

Pure: text in, text out.
"""

import math
import statistics
from collections.abc import Sequence
from html import escape

Samples = dict[str, dict[str, list[dict[str, float]]]]

_WIDTH, _LABELS, _FIGURES = 860, 230, 110  # pixels: whole, names on the left, numbers on the right
_BAR, _STEP, _HEAD, _GAP = 16, 24, 34, 18
_OURS, _PEER, _LINE = "#2563eb", "#94a3b8", "#0f172a"


def draw(rows: Sequence[tuple[str, str, str]], samples: Samples) -> str:
    """The picture of *rows* (name, title, unit). Each row has a scale of its own that begins at 0."""
    parts: list[str] = []
    top = _GAP
    for name, title, unit in rows:
        parts.append(_text(_GAP, top + 14, f"{title} ({unit})", "font-weight='bold'"))
        top += _HEAD - 8
        rates = {server: [sample["rate"] for sample in found] for server, found in samples[name].items() if found}
        longest = max((max(values) for values in rates.values()), default=0.0) or 1.0
        for server, values in rates.items():
            parts.extend(_bar(server, values, longest, top))
            top += _STEP
        top += _GAP
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{top}' viewBox='0 0 {_WIDTH} {top}' "
        "font-family='sans-serif' font-size='12'>"
    )
    return "\n".join((head, f"<rect width='{_WIDTH}' height='{top}' fill='white'/>", *parts, "</svg>")) + "\n"


def without_nan(samples: Samples) -> dict[str, dict[str, list[dict[str, float | None]]]]:
    """*samples* as JSON can hold them: what was not measured is null."""
    return {
        row: {
            server: [{name: None if math.isnan(value) else value for name, value in one.items()} for one in found]
            for server, found in servers.items()
        }
        for row, servers in samples.items()
    }


def _bar(server: str, values: list[float], longest: float, top: int) -> list[str]:
    room = _WIDTH - _LABELS - _FIGURES
    median = statistics.median(values)
    low, middle, high = (round(_LABELS + room * value / longest, 1) for value in (min(values), median, max(values)))
    color = _OURS if server.startswith("procman") else _PEER
    line, width = top + _BAR / 2, max(1.0, round(middle - _LABELS, 1))
    figure = f"{median:,.0f}" if median >= 10 else f"{median:.1f}"
    return [
        _text(_LABELS - 8, top + 12, server, "text-anchor='end'"),
        f"<rect x='{_LABELS}' y='{top}' width='{width}' height='{_BAR}' fill='{color}'/>",
        f"<line x1='{low}' y1='{line}' x2='{high}' y2='{line}' stroke='{_LINE}' stroke-width='2'/>",
        _text(max(middle, high) + 6, top + 12, figure, ""),
    ]


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f"<text x='{x}' y='{y}' {attributes}>{escape(text)}</text>"
