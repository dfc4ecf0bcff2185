"""A picture of a plan's memory: each stage's components and its GPU's capacity, beside plain training.

python -m vdsgen.report.memory_chart RENDERED_DIRECTORY FILE.svg
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from vdsgen.files import write_atomically
from vdsgen.planner.baseline import naive_baseline
from vdsgen.report.planned import planned
from vdsgen.spec.plan import Plan, StageMemory
from vdsgen.spec.run import sharing_words
from vdsgen.units import GIB

WIDTH, LABEL_WIDTH, BAR_HEIGHT, BAR_GAP, TOP, MARGIN = 860, 190, 30, 14, 64, 24
COLOURS = {
    "parameters": "#4269d0",
    "gradients": "#efb118",
    "optimizer states": "#ff725c",
    "activations": "#6cc5b0",
    "optimizer step": "#a463f2",
    "reserve": "#c3c7cf",
}
"""Told apart with deuteranopia too, and on white and dark pages."""


def segments(memory: StageMemory) -> list[tuple[str, int]]:
    """Components at the moment of the peak, in bytes; they add up to peak_bytes."""
    held = [
        ("parameters", memory.parameters_bytes),
        ("gradients", memory.gradients_bytes),
        ("optimizer states", memory.optimizer_bytes),
    ]
    known = sum(size for _, size in held) + memory.reserve_bytes
    # Where gradients come while activations go, these never meet in full: the peak says what is left.
    beside = memory.peak_bytes - known
    name = "optimizer step" if beside <= memory.workspace_bytes else "activations"
    return [*held, (name, beside), ("reserve", memory.reserve_bytes)]


def memory_chart(title: str, bars: Sequence[tuple[str, StageMemory]], capacity_bytes: int) -> str:
    """The picture as SVG text, the same bytes for the same plan. `bars` are (label, memory), from the top."""
    largest = max(capacity_bytes, *(memory.peak_bytes for _, memory in bars)) * 1.12
    scale = (WIDTH - LABEL_WIDTH - MARGIN) / largest
    bottom = TOP + len(bars) * (BAR_HEIGHT + BAR_GAP)
    height = bottom + 62
    limit = LABEL_WIDTH + capacity_bytes * scale
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="28" font-size="15" font-weight="600" fill="#1b1e23">{escape(title)}</text>',
    ]
    for index, (label, memory) in enumerate(bars):
        parts += _bar(label, memory, TOP + index * (BAR_HEIGHT + BAR_GAP), scale)
    parts += [
        f'<line x1="{limit:.1f}" x2="{limit:.1f}" y1="{TOP - 12}" y2="{bottom}" stroke="#1b1e23" '
        'stroke-width="1.5" stroke-dasharray="4 3"/>',
        f'<text x="{limit:.1f}" y="{TOP - 17}" text-anchor="middle" fill="#1b1e23">'
        f"{capacity_bytes / GIB:.4g} GiB a GPU</text>",
        *_legend(bottom + 34),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bar(label: str, memory: StageMemory, top: int, scale: float) -> list[str]:
    middle = top + BAR_HEIGHT / 2 + 4.5
    parts = [
        f'<text x="{LABEL_WIDTH - 10}" y="{middle}" text-anchor="end" fill="#1b1e23">{escape(label)}</text>'
    ]
    left = float(LABEL_WIDTH)
    for name, size in segments(memory):
        width = size * scale
        parts.append(
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{BAR_HEIGHT}" '
            f'fill="{COLOURS[name]}"><title>{name}: {size / GIB:.2f} GiB</title></rect>'
        )
        left += width
    peak = f"{memory.peak_bytes / GIB:.1f} GiB"
    parts.append(f'<text x="{left + 6:.1f}" y="{middle}" fill="#1b1e23">{peak}</text>')
    return parts


def _legend(baseline: int) -> list[str]:
    parts, left = [], MARGIN
    for name, colour in COLOURS.items():
        parts.append(f'<rect x="{left}" y="{baseline - 11}" width="13" height="13" fill="{colour}"/>')
        parts.append(f'<text x="{left + 19}" y="{baseline}" fill="#1b1e23">{name}</text>')
        left += 34 + 8 * len(name)
    return parts


def chart_of(directory: Path) -> str:
    """The picture of a rendered directory. Raises VdsgenError where it is none."""
    plan, workload = planned(directory)
    baseline = naive_baseline(workload)
    bars = [("plain data parallelism", baseline.memory)]
    bars += [(_stage_label(plan, stage.index), stage.memory) for stage in plan.stages]
    gpus = f"{workload.pool.world_size} x {workload.gpu_name}"
    if workload.pool.groups is not None:
        gpus = workload.gpus_text
    title = f"{plan.model.name} on {gpus}: predicted peak memory of a GPU"
    return memory_chart(title, bars, workload.capacity_bytes)


def _stage_label(plan: Plan, index: int) -> str:
    parallel = plan.parallel
    layout = f"{parallel.pipeline_parallel_size} x {parallel.data_parallel_size}"
    layout += sharing_words(parallel.tensor_parallel_size, parallel.sequence_parallel_size)
    return f"plan ({layout})" if len(plan.stages) == 1 else f"plan ({layout}), stage {index}"


if __name__ == "__main__":
    write_atomically(Path(sys.argv[2]), chart_of(Path(sys.argv[1])).encode())
