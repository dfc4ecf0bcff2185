"""Which clips are trained at which size, and how often each size comes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vdsgen.model.data.index import Entry, Index, last_start
from vdsgen.model.data.order import SizeOrder
from vdsgen.spec.data import ClipSize, Data

SAME_SHAPE = 0.02
"""Aspect ratios that differ by less (2 %) are equally near: sizes are multiples of the codec's factor."""


def clips_of_sizes(index: Index, data: Data) -> tuple[Sequence[int], ...]:
    """For each of `data.sizes` the positions of its clips, in order."""
    if data.bucketing == "every":
        return tuple(index.long_enough(data, size) for size in data.sizes)
    places: list[list[int]] = [[] for _ in data.sizes]
    for position, entry in enumerate(index.entries):
        places[nearest_size(entry, data)].append(position)
    return tuple(tuple(positions) for positions in places)


def nearest_size(entry: Entry, data: Data) -> int:
    """The place in `data.sizes` of the size that a clip loses least at: of those that it is long enough
    for the nearest in shape; of these the longest; of these the largest that it need not be enlarged for,
    else the smallest."""
    info, sizes = entry.info, data.sizes
    able = [place for place, size in enumerate(sizes) if last_start(info, size.frames, data.frame_rate) >= 0]
    shape = math.log(info.width / info.height)
    off = {place: abs(math.log(sizes[place].width / sizes[place].height) - shape) for place in able}
    near = [place for place in able if off[place] <= min(off.values()) + SAME_SHAPE]
    longest = max(sizes[place].frames for place in near)

    def preference(place: int) -> tuple[bool, int]:
        size = sizes[place]
        enlarged = size.height > info.height or size.width > info.width
        pixels = size.height * size.width
        return enlarged, pixels if enlarged else -pixels

    return min((place for place in near if sizes[place].frames == longest), key=preference)


def size_order(index: Index, data: Data, seed: int, units_a_step: int) -> SizeOrder:
    """When each size comes: equally often, or as often as it has clips of its own. `units_a_step` where sizes
    take turns within a step."""
    units = units_a_step if data.bucket_every == "micro_batch" else 1
    if data.bucketing == "every":
        return SizeOrder(seed, (1,) * len(data.sizes), units)
    return SizeOrder.by_clips(seed, [len(positions) for positions in clips_of_sizes(index, data)], units)


def bucket_lines(index: Index, data: Data, order: SizeOrder, samples_a_unit: int) -> list[str]:
    """How many clips each size has and how often it comes, a line each; none where there is one size."""
    if len(data.sizes) == 1:
        return []
    unit = "step" if order.units_a_step == 1 else "micro-batch"
    round_units = sum(order.shares)
    return [
        _line(size, len(positions), share, round_units, unit, samples_a_unit)
        for size, positions, share in zip(data.sizes, clips_of_sizes(index, data), order.shares, strict=True)
    ]


def bucket_text(sizes: Sequence[ClipSize], taken: tuple[int, ...]) -> str | None:
    """What a step's clips are, for its metrics: `8 x 64 x 64`, of several sizes `8 x 64 x 64 (3), 4 x 32 x
    32 (1)` with the micro-batches of each; None where there is one size anyway."""
    if len(sizes) == 1:
        return None
    if len(set(taken)) == 1:
        return str(sizes[taken[0]])
    return ", ".join(f"{sizes[size]} ({taken.count(size)})" for size in sorted(set(taken)))


def _line(size: ClipSize, clips: int, share: int, round_units: int, unit: str, samples: int) -> str:
    if not share:
        return f"bucket {size}: no clip is nearest to it, it is never trained at"
    text = f"bucket {size}: {clips} clip{'' if clips == 1 else 's'}, {share} of {round_units} {_plural(unit)}"
    if clips < samples:
        text += f"; fewer than the {samples} of a {unit}, so that they come again within it"
    return text


def _plural(unit: str) -> str:
    return "micro-batches" if unit == "micro-batch" else f"{unit}s"
