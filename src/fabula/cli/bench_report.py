"""The result of `fabula bench`, as data and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fabula.cli.bench_figures import Figure
from fabula.cli.bench_rounds import Samples, Side
from fabula.cli.bench_statistics import Summary, ratios

OURS = "fabula"
ENOUGH = 7  # rounds
IDLE = 0.05  # of a core


def figure_entries(figures: Sequence[Figure], samples: Samples) -> list[dict[str, Any]]:
    """An entry a figure: each side's summary and samples, and the ratio of ours to each peer's."""
    entries = []
    for figure in figures:
        of_sides = {side: taken[figure.name] for side, taken in samples.items() if taken.get(figure.name)}
        peers = [side for side in of_sides if side != OURS]
        entries.append(
            asdict(figure)
            | {"sides": {side: asdict(Summary.of(taken)) | {"samples": taken} for side, taken in of_sides.items()}}
            | {"ratios": {peer: asdict(Summary.of(ratios(of_sides[OURS], of_sides[peer]))) for peer in peers}}
        )
    return entries


def side_entry(side: Side) -> dict[str, Any]:
    """Version, settings, and the most of a core that it used while another side was measured."""
    return {
        "version": side.version,
        "settings": side.best,
        "grid": side.tried,
        "idle_share_of_a_core": round(side.worker.idle_share, 4),
    }


def table(result: dict[str, Any]) -> str:
    """The result for people: a line a figure, then what each peer was tried with."""
    sides = list(result["sides"])
    rows = [["", "", *(f"{side} {result['sides'][side]['version']}" for side in sides), *(f"/ {p}" for p in sides[1:])]]
    for entry in result["figures"]:
        cells = [shown(entry["sides"].get(side), number) for side in sides]
        compared = [shown(entry["ratios"].get(peer), "{:.2f}".format) for peer in sides[1:]]
        hint = "" if entry["more_is_better"] else " (less is better)"
        rows.append([entry["name"], entry["unit"] + hint, *cells, *compared])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    grids = [line for side in sides[1:] for line in grid_lines(side, result)]
    return "\n".join([heading(result), "", *lines, *grids, *doubts(result)])


def heading(result: dict[str, Any]) -> str:
    """What was measured, and how to read it."""
    return (
        f"{result['source']}: {result['threads']} threads, {result['rounds']} rounds; median (lowest to highest); "
        "a ratio is ours to the peer's, round by round"
    )


def doubts(result: dict[str, Any]) -> list[str]:
    """What makes this less than a result that one may quote."""
    lines = [f"{side} computed while it waited" for side in result["sides"] if busy(result["sides"][side])]
    if result["rounds"] < ENOUGH:
        lines.append(f"a look, not a result: fewer than {ENOUGH} rounds")
    return [f"note: {line}" for line in lines]


def busy(facts: dict[str, Any]) -> bool:
    """Whether a waiting side took enough of a core to slow the other down."""
    return facts["idle_share_of_a_core"] > IDLE


def grid_lines(side: str, result: dict[str, Any]) -> list[str]:
    """The best settings of each figure, and the range of rates over what was tried."""
    facts = result["sides"][side]
    lines = ["", f"{side} at the best of its grid:"]
    for name, tried in facts["grid"].items():
        chosen = ", ".join(f"{key} {value}" for key, value in facts["settings"][name].items())
        rates = [one["rate"] for one in tried]
        lines.append(f"  {name}: {chosen} (best of {len(tried)}: {number(min(rates))} to {number(max(rates))})")
    return lines


def shown(summary: dict[str, Any] | None, written: Any) -> str:
    """Median and spread; a dash where there is none."""
    if summary is None:
        return "-"
    return f"{written(summary['median'])} ({written(summary['low'])} to {written(summary['high'])})"


def number(value: float) -> str:
    """Three figures, or all before the point."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
