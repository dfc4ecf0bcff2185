"""The machines of a plan: nodes, GPUs, and what their links carry in a step."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from vdsgen.planner.explanations.traffic import TRAFFIC, link_loads
from vdsgen.planner.words import percent, seconds
from vdsgen.report.plan.subject import PlanSubject
from vdsgen.report.plan.traffic import KINDS, LinkUse, Place, gpu_links, node_links, nodes, places
from vdsgen.report.section import Figure, Section, Table

MOST_NODES = 16
"""Drawn; the table has all."""
CHIP_WIDTH, CHIP_HEIGHT, CHIP_GAP, CHIPS_A_ROW = 96, 58, 10, 4
NODE_PAD, BUS, GAP, MARGIN = 14, 26, 24, 12


def topology_section(subjects: Sequence[PlanSubject]) -> Section:
    """A drawing for each plan, and its links' loads as bars."""
    figures: list[Figure] = []
    busiest = max((_share(subject, use) for subject in subjects for use in _links(subject)), default=0.0)
    for subject in subjects:
        figures.append(_drawing(subject))
        if any(use.sent_bytes for use in _links(subject)):
            figures.append(_loads(subject, busiest))
    return Section(
        id="topology",
        title="Machines and links",
        summary=[_summary(subject) for subject in subjects],
        figures=figures,
        tables=[table for subject in subjects if (table := _holding_up(subject)).rows],
    )


def _links(subject: PlanSubject) -> list[LinkUse]:
    return [*gpu_links(subject), *node_links(subject)]


def _share(subject: PlanSubject, use: LinkUse) -> float:
    return use.seconds / subject.plan.predicted.step_seconds


def _summary(subject: PlanSubject) -> str:
    ranks = places(subject)
    used = len({one.node for one in ranks})
    links = [use for use in _links(subject) if use.sent_bytes]
    where = (
        f"{len(ranks)} {'GPU' if len(ranks) == 1 else 'GPUs'} on {used} {'node' if used == 1 else 'nodes'}"
    )
    if not links:
        return f"{subject.prefix}{where}; no GPU sends another anything."
    most = max(links, key=lambda use: use.seconds)
    return (
        f"{subject.prefix}{where}. The busiest link is that of {most.name}: it sends "
        f"{_gb(most.sent_bytes)} a step, {seconds(most.seconds)} at {_rate(most.bytes_per_second)}, "
        f"{percent(_share(subject, most))} of the step."
    )


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _gb(number_bytes: float) -> str:
    return f"{number_bytes / 1e9:.2f} GB" if number_bytes >= 1e7 else f"{number_bytes / 1e6:.2f} MB"


def _rate(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e9:.4g} GB/s"


def _holding_up(subject: PlanSubject) -> Table:
    """Which link holds the step up, by what it would save were it twice as fast."""
    rows = []
    pool = subject.plan.inputs.pool
    for load in link_loads(subject.workload, subject.candidate):
        name = getattr(pool, load.link)
        label = load.link.replace("_", " ")
        for part, taken in load.seconds.items():
            rows.append(
                [
                    f"{label} ({name})" if isinstance(name, str) else label,
                    TRAFFIC[part],
                    seconds(taken),
                    percent(taken / subject.plan.predicted.step_seconds),
                ]
            )
    return Table(
        head=["link", "traffic", "holds the step up for", "of the step"],
        rows=rows,
        caption=f"{subject.prefix}What waits for links",
        numbers=False,
    )


def _loads(subject: PlanSubject, busiest: float) -> Figure:
    gpus, between = gpu_links(subject), node_links(subject)
    uses = [*_merged(subject, gpus), *between]
    kinds = [kind for kind in KINDS if any(use.bytes_by_kind.get(kind) for use in uses)]
    step = subject.plan.predicted.step_seconds
    return Figure(
        id=subject.id("link-loads"),
        title=f"{subject.prefix}Share of a step that each link is busy",
        chart="bars",
        wide=True,
        height_px=max(180, min(700, 110 + 26 * len(uses))),
        description="Stacked horizontal bars: one a link, by what it carries, as a share of the step.",
        data={
            "categories": [use.name for use in uses],
            "series": [
                {
                    "name": KINDS[kind],
                    "values": [
                        use.bytes_by_kind.get(kind, 0.0) / use.bytes_per_second / step for use in uses
                    ],
                }
                for kind in kinds
            ],
            "value": {
                "name": "of the step, at the link's full rate",
                "unit": "percent",
                "max": busiest * 1.08,
            },
            "stacked": True,
            "horizontal": True,
            "notes": [f"{_gb(use.sent_bytes)} a step at {_rate(use.bytes_per_second)}" for use in uses],
        },
        table=Table(
            head=["link", "rate", *(KINDS[kind] for kind in kinds), "together", "of the step"],
            rows=[
                [
                    use.name,
                    _rate(use.bytes_per_second),
                    *(_gb(use.bytes_by_kind.get(kind, 0.0)) for kind in kinds),
                    _gb(use.sent_bytes),
                    percent(use.seconds / step),
                ]
                for use in uses
            ],
        ),
        note="What is sent, at the link's full rate: latency and links that rings share come on top.",
    )


def _merged(subject: PlanSubject, uses: Sequence[LinkUse]) -> list[LinkUse]:
    """GPUs of one stage that send the same are one bar."""
    found: list[LinkUse] = []
    ranks = places(subject)
    by_stage: dict[int, list[LinkUse]] = {}
    for place, use in zip(ranks, uses, strict=True):
        by_stage.setdefault(place.stage, []).append(use)
    for stage, own in by_stage.items():
        alike = len({(use.bytes_per_second, tuple(sorted(use.bytes_by_kind.items()))) for use in own}) == 1
        if alike:
            name = f"GPUs of stage {stage}" if len(own) > 1 else f"GPU of stage {stage}"
            found.append(own[0]._replace(name=name))
        else:
            found += [use._replace(name=f"{use.name} (stage {stage})") for use in own]
    return found


def _drawing(subject: PlanSubject) -> Figure:
    ranks, own = places(subject), nodes(subject)
    used = list(dict.fromkeys(one.node for one in ranks))
    by_node = {node: [one for one in ranks if one.node == node] for node in used}
    loads = dict(enumerate(gpu_links(subject)))
    between = {use.name: use for use in node_links(subject)}
    return Figure(
        id=subject.id("topology-drawing"),
        title=f"{subject.prefix}Where each rank is, and how busy its links are",
        chart="",
        wide=True,
        svg=_svg(subject, by_node, loads, between),
        data={},
        description=(
            f"A drawing of {len(used)} {_plural(len(used), 'node')} with {len(ranks)} GPUs: each GPU with "
            "its rank, its stage and the share of a step that its link is busy. The table has all of it."
        ),
        table=Table(
            head=["rank", "stage", "node", "GPU", "sends in its node", "link rate", "of the step"],
            rows=[
                [
                    f"rank {one.rank}",
                    str(one.stage),
                    str(one.node),
                    one.gpu,
                    _gb(loads[one.rank].sent_bytes),
                    _rate(loads[one.rank].bytes_per_second),
                    percent(_share(subject, loads[one.rank])),
                ]
                for one in ranks
            ],
        ),
        note=(
            "Lines are thicker where links are busier."
            + (f" {MOST_NODES} of {len(used)} nodes are drawn." if len(used) > MOST_NODES else "")
            + ("" if len(own) == len(used) else f" The pool has {len(own)} nodes; the others are idle.")
        ),
    )


def _svg(
    subject: PlanSubject,
    by_node: dict[int, list[Place]],
    loads: dict[int, LinkUse],
    between: dict[str, LinkUse],
) -> str:
    """Nodes side by side under their network, GPUs under their node's own link. Sizes are in the drawing's
    units; colours are the page's, by class."""
    drawn = dict(list(by_node.items())[:MOST_NODES])
    columns = min(CHIPS_A_ROW, max(len(ranks) for ranks in drawn.values()))
    node_width = 2 * NODE_PAD + columns * CHIP_WIDTH + (columns - 1) * CHIP_GAP
    a_row = max(1, min(len(drawn), 1180 // (node_width + GAP)))
    rows_of_chips = max(-(-len(ranks) // columns) for ranks in drawn.values())
    node_height = NODE_PAD + 20 + BUS + 16 + rows_of_chips * (CHIP_HEIGHT + CHIP_GAP + 12) - CHIP_GAP
    network = 64 if between else 0
    lines = -(-len(drawn) // a_row)
    width = 2 * MARGIN + a_row * node_width + (a_row - 1) * GAP
    height = 2 * MARGIN + lines * (node_height + network) + (lines - 1) * GAP
    parts = [
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" class="topology">'
    ]
    for place, (node, ranks) in enumerate(drawn.items()):
        left = MARGIN + (place % a_row) * (node_width + GAP)
        top = MARGIN + (place // a_row) * (node_height + network + GAP)
        if between:
            if place % a_row == 0:
                count = min(a_row, len(drawn) - place)
                parts += _network(subject, left, top, count * node_width + (count - 1) * GAP)
            parts += _wire(
                subject, between[f"node {node}"], left + node_width / 2, top + BUS, top + network, beside=True
            )
        parts += _node(subject, node, ranks, loads, left, top + network, node_width, node_height, columns)
    return "".join([*parts, "</svg>"])


def _network(subject: PlanSubject, left: float, top: float, width: float) -> list[str]:
    name = subject.plan.inputs.pool.inter_node
    label = name if isinstance(name, str) else "network"
    return [
        f'<rect class="bus" x="{left}" y="{top}" width="{width}" height="{BUS}" rx="6"/>',
        f'<text x="{left + width / 2}" y="{top + 17}" text-anchor="middle">between nodes: '
        f"{escape(label)}</text>",
    ]


def _wire(
    subject: PlanSubject, use: LinkUse, x: float, top: float, bottom: float, *, beside: bool = False
) -> list[str]:
    share = _share(subject, use)
    thick = 1.5 + min(1.0, share) * 12
    label = f"{use.name}: {_gb(use.sent_bytes)} a step, {percent(share)} of it"
    parts = [
        f'<line class="wire" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke-width="{thick:.1f}">'
        f"<title>{escape(label)}</title></line>"
    ]
    if beside:
        parts.append(
            f'<text class="small" x="{x + 8 + thick / 2:.1f}" y="{(top + bottom) / 2 + 4}">{percent(share)} '
            f"busy, {_gb(use.sent_bytes)} out</text>"
        )
    return parts


def _node(
    subject: PlanSubject,
    node: int,
    ranks: Sequence[Place],
    loads: dict[int, LinkUse],
    left: float,
    top: float,
    width: float,
    height: float,
    columns: int,
) -> list[str]:
    pool = subject.plan.inputs.pool
    inner = pool.intra_node if isinstance(pool.intra_node, str) else "its own link"
    rate = loads[ranks[0].rank].bytes_per_second
    bus_top = top + NODE_PAD + 20
    parts = [
        f'<rect class="node" x="{left}" y="{top}" width="{width}" height="{height}" rx="10"/>',
        f'<text class="strong" x="{left + NODE_PAD}" y="{top + NODE_PAD + 8}">node {node}</text>',
        f'<rect class="bus" x="{left + NODE_PAD}" y="{bus_top}" width="{width - 2 * NODE_PAD}" '
        f'height="{BUS}" rx="6"/>',
        f'<text class="small" x="{left + width / 2}" y="{bus_top + 17}" text-anchor="middle">'
        f"{escape(inner)}, {_rate(rate)}</text>",
    ]
    for place, one in enumerate(ranks):
        x = left + NODE_PAD + (place % columns) * (CHIP_WIDTH + CHIP_GAP)
        y = bus_top + BUS + 16 + (place // columns) * (CHIP_HEIGHT + CHIP_GAP + 12)
        parts += _wire(subject, loads[one.rank], x + CHIP_WIDTH / 2, y - 16, y)
        parts += _chip(subject, one, loads[one.rank], x, y)
    return parts


def _chip(subject: PlanSubject, one: Place, use: LinkUse, x: float, y: float) -> list[str]:
    """A GPU: its rank, its stage, how full it is. Stages have their colours by turns, and their number."""
    stage = subject.plan.stages[one.stage]
    full = stage.memory.peak_bytes / stage.capacity_bytes
    title = (
        f"rank {one.rank}, {one.gpu}, stage {one.stage}: layers {stage.layers[0]} to {stage.layers[1] - 1}, "
        f"{percent(full)} of its memory, link {percent(_share(subject, use))} busy"
    )
    return [
        f'<g class="chip"><title>{escape(title)}</title>',
        f'<rect class="gpu" x="{x}" y="{y}" width="{CHIP_WIDTH}" height="{CHIP_HEIGHT}" rx="6"/>',
        f'<rect class="stage-{one.stage % 8}" x="{x}" y="{y}" width="6" height="{CHIP_HEIGHT}" rx="2"/>',
        f'<text class="strong small" x="{x + 13}" y="{y + 16}">rank {one.rank}</text>',
        f'<text class="small" x="{x + 13}" y="{y + 31}">stage {one.stage}</text>',
        f'<text class="small muted" x="{x + 13}" y="{y + 46}">{percent(full)} full</text>',
        "</g>",
    ]
