"""Explanations as tables and sentences: what the command line prints and PLAN.md shows."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.planner.explanations.loss import CAUSES
from vdsgen.planner.tables import Table
from vdsgen.planner.words import percent, rate, seconds
from vdsgen.spec.explanations import (
    Binding,
    Explanations,
    Purchase,
    Resource,
    ScalePoint,
    Scaling,
    Waterfall,
)
from vdsgen.units import GIB

NOTHING = 0.0005
"""A gain that is less is none."""
RESOURCES: dict[Resource, str] = {
    "gpu_speed": "GPU speed",
    "gpu_memory": "GPU memory",
    "host_memory": "host memory",
    "intra_node": "links in a node",
    "inter_node": "links between nodes",
    "host_link": "links to the host",
    "global_batch": "global batch",
    "blocks": "equal stages",
}


def binding_sentences(bindings: Sequence[Binding]) -> list[str]:
    """One of each resource, that which wins most first."""
    return [f"{RESOURCES[one.resource]}: {_gain(one)}; {one.detail}." for one in bindings]


def binding_title(bindings: Sequence[Binding]) -> str:
    """What the sentences say."""
    again = any(one.planned_again for one in bindings)
    return "What binds: twice as much of each wins " + ("(planned again)" if again else "(at least)")


def _gain(one: Binding) -> str:
    if one.gain_fraction < NOTHING:
        return "nothing"
    return f"+{percent(one.gain_fraction)}, {rate(one.samples_per_second)} samples/s"


def waterfall_table(waterfall: Waterfall) -> Table:
    """GiB that each measure saves at the peak of the fullest GPU, and the step with it and those before."""
    naive = waterfall.naive_bytes
    head = ("GiB on the fullest GPU", "saved", "of naive", "left", "step")
    rows = [("naive", "", "", _gib(naive), seconds(waterfall.naive_step_seconds))]
    for step in waterfall.steps:
        share = percent(round(step.saved_bytes / naive, 4) + 0)
        rows.append(
            (step.measure, _gib(step.saved_bytes), share, _gib(step.peak_bytes), seconds(step.step_seconds))
        )
    saved = naive - waterfall.plan_bytes
    rows.append(("plan", _gib(saved), percent(waterfall.saved_fraction), _gib(waterfall.plan_bytes), ""))
    return Table("From naive to planned", (head, *rows))


def component_table(waterfall: Waterfall) -> Table:
    """The same by component: columns add up to the plan's, rows to what each measure saves."""
    kept = [waterfall.naive_by_component, waterfall.plan_by_component]
    every = [*kept, *(step.saved_by_component for step in waterfall.steps)]
    names = list(dict.fromkeys(name for parts in every for name in parts))
    head = ("GiB at the peak's moment", *(name.replace("_", " ") for name in names), "sum")

    def row(label: str, parts: dict[str, int], sign: int) -> tuple[str, ...]:
        sizes = [sign * parts.get(name, 0) for name in names]
        return (label, *(_gib(size) if size else "" for size in sizes), _gib(sum(sizes)))

    rows = [row("naive", waterfall.naive_by_component, 1)]
    rows += [row(step.measure, step.saved_by_component, -1) for step in waterfall.steps]
    rows.append(row("plan", waterfall.plan_by_component, 1))
    return Table("By component", (head, *rows))


def purchase_table(purchases: Sequence[Purchase], now: float) -> Table:
    """Samples/s now and then."""
    head = ("", "now", "then", "wins", "plan")
    rows = [(one.change, rate(now), *_bought(one), one.plan) for one in purchases]
    return Table("What the next one would buy (samples/s)", (head, *rows))


def _bought(one: Purchase) -> tuple[str, str]:
    if one.samples_per_second is None or one.gain_fraction is None:
        return "-", "no plan"
    gain = one.gain_fraction
    wins = "nothing" if abs(gain) < NOTHING else f"{'+' if gain > 0 else ''}{percent(gain)}"
    return rate(one.samples_per_second), wins


def scaling_tables(scaling: Scaling) -> list[Table]:
    """Speeds by number of GPUs, and by layout of all: with seconds of a step lost to each cause."""
    base = f"{scaling.base_gpus} GPU{'s' if scaling.base_gpus > 1 else ''}"
    title = f"More GPUs: seconds of a step lost against {base}, by cause"
    tables = [_scale_table(title, "GPUs", scaling.points, by_gpus=True)]
    if len(scaling.layouts) > 1:
        title = f"All GPUs, by layout: seconds of a step lost against {base}, by cause"
        tables.append(_scale_table(title, "layout", scaling.layouts, by_gpus=False))
    return tables


def _scale_table(title: str, first: str, points: Sequence[ScalePoint], *, by_gpus: bool) -> Table:
    causes = [name for name in CAUSES if any(abs(getattr(point.loss, name)) >= NOTHING for point in points)]
    head = (first, "samples/s", "of linear", "step", "lost", *(CAUSES[name] for name in causes), "plan")
    rows = []
    for point in points:
        losses = [getattr(point.loss, name) for name in causes]
        lost = sum(value for _, value in point.loss)
        label = f"{point.gpus} ({point.layout})" if by_gpus else point.layout
        rows.append(
            (
                label,
                rate(point.samples_per_second),
                percent(point.efficiency_fraction),
                seconds(point.step_seconds),
                f"{lost + 0:.3f}",
                *(f"{value:.3f}" if abs(value) >= NOTHING else "-" for value in losses),
                point.plan,
            )
        )
    return Table(title, (head, *rows))


def scaling_sentences(scaling: Scaling) -> list[str]:
    """What each layout loses most to, over which links it sends, and what would mend it."""
    sentences = [
        f"{gpus} GPU{'s have' if gpus > 1 else ' has'} no plan." for gpus in scaling.gpus_without_plan
    ]
    for point in scaling.layouts:
        losses = {name: getattr(point.loss, name) for name in CAUSES}
        most = max(losses, key=lambda name: losses[name])
        words = f"{point.layout.capitalize()} runs at {percent(point.efficiency_fraction)} of linear"
        if losses[most] >= NOTHING:
            words += f" and loses most to {CAUSE_WORDS[most]} ({seconds(losses[most])} a step)"
        sentences.append("; ".join([words, *point.links]) + ".")
    aim = percent(scaling.aim_fraction)
    for mend in scaling.mends:
        reached = "reaches" if mend.reaches_aim else f"would not reach {aim}, only"
        sentences.append(
            f"Mend for {mend.layout}: {mend.change} {reached} {percent(mend.efficiency_fraction)} of linear."
        )
    return sentences


CAUSE_WORDS = {
    "bubble_seconds": "filling and draining the pipeline: too few micro-batches for its stages",
    "imbalance_seconds": "stages that wait for a longer one",
    "links_seconds": "its links",
    "batch_seconds": "small micro-batches, computed less efficiently (on a processor: ranks share cores)",
    "recompute_seconds": "recomputation",
    "optimizer_seconds": "the optimizer",
    "other_seconds": "offload, data or overhead",
}


def miss_sentences(explanations: Explanations) -> list[str]:
    """One of each family that lost."""
    return [f"{one.family}: {one.detail}." for one in explanations.nearest_misses]


def _gib(size: int) -> str:
    return f"{round(size / GIB, 2) + 0:.2f}"
