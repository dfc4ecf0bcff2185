"""A picture of a plan's step: what each stage holds in every instruction, by component.

python -m vdsgen.report.memory_timeline RENDERED_DIRECTORY FILE.svg
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from vdsgen.cost.timeline import COMPONENTS, Moment
from vdsgen.files import write_atomically
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.words import moment_words
from vdsgen.report.plan.held import instruction_peaks
from vdsgen.report.planned import planned
from vdsgen.units import GIB

WIDTH, LABEL_WIDTH, MARGIN, TOP, ROW_HEIGHT, ROW_GAP = 960, 110, 24, 52, 150, 46
COLOURS = {
    "reserve": "#c3c7cf",
    "parameters": "#4269d0",
    "optimizer": "#ff725c",
    "gradients": "#efb118",
    "pipeline_buffers": "#9c6b4e",
    "activations": "#6cc5b0",
    "recomputation": "#3ca951",
    "temporaries": "#97bbf5",
    "communication": "#ff8ab7",
    "workspace": "#a463f2",
}
"""From the bottom of the picture to its top."""


class StageStep(NamedTuple):
    """One stage's step."""

    label: str
    peaks: tuple[Moment, ...]
    """Each instruction's moment that holds most, in order."""
    reserve_bytes: int


def memory_timeline(title: str, stages: Sequence[StageStep], capacity_bytes: int) -> str:
    """The picture as SVG text, the same bytes for the same plan: one row a stage, time to the right."""
    largest = max(
        capacity_bytes, *(stage.reserve_bytes + one.total_bytes for stage in stages for one in stage.peaks)
    )
    scale = ROW_HEIGHT / (largest * 1.02)
    bottom = TOP + len(stages) * (ROW_HEIGHT + ROW_GAP)
    height = bottom + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="28" font-size="15" font-weight="600" fill="#1b1e23">{escape(title)}</text>',
    ]
    for index, stage in enumerate(stages):
        parts += _row(stage, TOP + index * (ROW_HEIGHT + ROW_GAP), scale, capacity_bytes)
    return "\n".join([*parts, *_legend(bottom + 16), "</svg>"]) + "\n"


def _row(stage: StageStep, top: int, scale: float, capacity_bytes: int) -> list[str]:
    floor = top + ROW_HEIGHT
    step = (WIDTH - LABEL_WIDTH - MARGIN) / len(stage.peaks)
    limit = floor - capacity_bytes * scale
    fullest = max(stage.peaks, key=lambda moment: moment.total_bytes)
    peak = (stage.reserve_bytes + fullest.total_bytes) / GIB
    parts = [
        f'<text x="{MARGIN}" y="{top + 20}" fill="#1b1e23">{escape(stage.label)}</text>',
        f'<text x="{LABEL_WIDTH}" y="{floor + 16}" fill="#1b1e23">{peak:.2f} GiB '
        f"{escape(moment_words(fullest.spec()))}</text>",
    ]
    base = [0.0] * len(stage.peaks)
    for name, colour in COLOURS.items():
        top_edge = [
            below + scale * (stage.reserve_bytes if name == "reserve" else one.components()[name])
            for below, one in zip(base, stage.peaks, strict=True)
        ]
        if top_edge != base:
            parts.append(_area(base, top_edge, floor, step, colour, name.replace("_", " ")))
        base = top_edge
    parts.append(
        f'<line x1="{LABEL_WIDTH}" x2="{WIDTH - MARGIN}" y1="{limit:.1f}" y2="{limit:.1f}" stroke="#1b1e23" '
        'stroke-width="1.5" stroke-dasharray="4 3"/>'
    )
    return parts


def _area(
    lower: Sequence[float], upper: Sequence[float], floor: int, step: float, colour: str, name: str
) -> str:
    """The band between two staircases."""
    there = [(LABEL_WIDTH + (i + side) * step, upper[i]) for i in range(len(upper)) for side in (0, 1)]
    back = [(LABEL_WIDTH + (i + side) * step, lower[i]) for i in range(len(lower)) for side in (0, 1)]
    points = " ".join(f"{x:.1f},{floor - y:.1f}" for x, y in [*there, *reversed(back)])
    return f'<polygon points="{points}" fill="{colour}"><title>{name}</title></polygon>'


def _legend(baseline: int) -> list[str]:
    parts, left = [], MARGIN
    for name, colour in COLOURS.items():
        words = name.replace("_", " ")
        parts.append(f'<rect x="{left}" y="{baseline - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + 17}" y="{baseline}" fill="#1b1e23">{words}</text>')
        left += 34 + 6 * len(words)
    return parts


def timeline_of(directory: Path) -> str:
    """The picture of a rendered directory. Raises VdsgenError where it is none."""
    plan, workload = planned(directory)
    settings = settings_of(plan)
    steps = []
    for stage in plan.stages:
        moments = workload.timeline(settings, stage.index, *stage.layers).moments()
        reserve = workload.memory(settings, stage.index, *stage.layers).reserve_bytes
        steps.append(StageStep(f"stage {stage.index}", instruction_peaks(moments), reserve))
    title = f"{plan.model.name} on {plan.pool}: predicted memory of a GPU through one step"
    return memory_timeline(title, steps, workload.capacity_bytes)


assert set(COLOURS) == {"reserve", *COMPONENTS}, "a component has no colour"

if __name__ == "__main__":
    write_atomically(Path(sys.argv[2]), timeline_of(Path(sys.argv[1])).encode())
