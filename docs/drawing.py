"""Drawings as SVG text: boxes, lines and words in a few named colours that a light and a dark page both bear."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
svg { --page: #ffffff; --ink: #1f2328; --soft: #656d76; --line: #d0d7de; --first: #0969da; --pale: #ddf4ff;
      --second: #bc4c00; font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --page: #0d1117; --ink: #e6edf3; --soft: #8d96a0; --line: #3d444d; --first: #58a6ff; --pale: #12263f;
        --second: #f0883e; }
}
text { fill: var(--ink); } .soft { fill: var(--soft); } .first { fill: var(--first); } .second { fill: var(--second); }
.small { font-size: 11px; } .bold { font-weight: 600; }
"""


class Drawing:
    """A picture that grows by what is drawn on it; lengths are in pixels, y grows downwards."""

    def __init__(self, width: float, height: float, title: str) -> None:
        """`title` is what it shows, for those who cannot see it."""
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> None:
        """Words on the line y; `kind`: any of soft, first, second, small and bold."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, fill: str, edge: str = "none") -> None:
        """A box with its upper left corner at (x, y), of the named colours."""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4" '
            f'style="fill:{_colour(fill)};stroke:{_colour(edge)}"/>'
        )

    def path(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1.5, dashes: str = "") -> None:
        """A line through the points."""
        through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{through}" stroke-dasharray="{dashes}" '
            f'style="fill:none;stroke:{_colour(colour)};stroke-width:{width}"/>'
        )

    def curve(self, start: tuple[float, float], end: tuple[float, float], colour: str, width: float = 1.5) -> None:
        """A line from left to right that leaves and arrives level."""
        (x, y), (to_x, to_y) = start, end
        middle = (x + to_x) / 2
        self._parts.append(
            f'<path d="M{x:.1f},{y:.1f} C{middle:.1f},{y:.1f} {middle:.1f},{to_y:.1f} {to_x:.1f},{to_y:.1f}" '
            f'style="fill:none;stroke:{_colour(colour)};stroke-width:{width}"/>'
        )

    def svg(self) -> str:
        """The picture, on a page of its own colour."""
        size = f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" height="{self.height:.0f}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
        page = '<rect width="100%" height="100%" rx="8" style="fill:var(--page)"/>'
        body = "\n".join(self._parts)
        return f"{head}\n<title>{escape(self.title)}</title>\n<style>{_STYLE}</style>\n{page}\n{body}\n</svg>\n"


def _colour(name: str) -> str:
    return name if name == "none" else f"var(--{name})"
