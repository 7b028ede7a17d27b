"""HTML pages with tables and line charts, which need nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left }
.confusion td { text-align: center; border: 1px solid #fff; min-width: 2.2rem }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top }
figcaption { font-size: 12px; max-width: 9rem; color: #555 }
svg { background: #fafafa } img { image-rendering: pixelated; width: 96px }
"""
_COLOURS = ("#3b6fb6", "#d1603d", "#4a9a5b")


def page(title: str, parts: Sequence[str]) -> str:
    """A page of HTML parts."""
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def line_chart(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    label: str,
    *,
    top: float | None = None,
    diagonal: bool = False,
) -> str:
    """Lines as an SVG of 420 x 260 px."""
    left, bottom, width, height = 46, 220, 360, 200
    values = [v for line in lines.values() for v in line if np.isfinite(v)]
    highest = top or max([*values, 1e-9])
    first, last = (0.0, 1.0) if diagonal else (min(x), max(x))
    span = (last - first) or 1.0

    def place(u: float, v: float) -> str:
        return f"{left + (u - first) / span * width:.1f},{bottom - v / highest * height:.1f}"

    drawn = f"<path d='M{left},{bottom - height} V{bottom} H{left + width}' class='axis'/>"
    if diagonal:
        drawn += f"<path d='M{place(0, 0)} L{place(1, 1)}' class='axis'/>"
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number]
        points = [place(u, v) for u, v in zip(x, line, strict=True) if np.isfinite(v)]
        drawn += f"<polyline points='{' '.join(points)}' fill='none' stroke='{colour}'/>"
        drawn += "".join(
            f"<circle cx='{p.split(',')[0]}' cy='{p.split(',')[1]}' r='2' fill='{colour}'/>"
            for p in points
        )
        drawn += f"<text x='{left + 8 + 180 * number}' y='14' fill='{colour}'>{name}</text>"
    drawn += (
        f"<text x='{left - 6}' y='{bottom - height + 4}' class='last'>{highest:.3g}</text>"
        f"<text x='{left - 6}' y='{bottom + 4}' class='last'>0</text>"
        f"<text x='{left}' y='{bottom + 18}'>{first:g}</text>"
        f"<text x='{left + width}' y='{bottom + 18}' class='last'>{last:g}</text>"
        f"<text x='{left + width / 2}' y='{bottom + 18}' text-anchor='middle'>{label}</text>"
    )
    style = (
        "text { font: 12px system-ui } .last { text-anchor: end } "
        ".axis { stroke: #999; fill: none }"
    )
    return f"<svg width='420' height='260'><style>{style}</style>{drawn}</svg>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of texts and numbers."""

    def row(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"
