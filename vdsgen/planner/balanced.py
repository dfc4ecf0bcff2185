"""A partition that fits, soon found: stages as equally fast as can be, were none to recompute."""

from __future__ import annotations

from itertools import pairwise

from vdsgen.planner.partition import partition, some_fits
from vdsgen.planner.stages import Stages


def balanced_seconds(stages: Stages) -> float | None:
    """Seconds of its step; None where none is found, though there may be one."""
    seconds = [stop - start for start, stop in pairwise(stages.least_seconds)]
    boundaries = partition(seconds, stages.workload.is_block, stages.count, stages.fits_emptiest)
    if boundaries is None:
        return None
    spans = enumerate(pairwise(boundaries))
    ways = [stages.way(stage, start, stop) for stage, (start, stop) in spans]
    fitting = [way for way in ways if way is not None]
    return stages.step_seconds(fitting, boundaries) if len(fitting) == len(ways) else None


def some_partition_fits(stages: Stages) -> bool:
    """Whether some partition is found that fits, however slow; where none is, there may still be one."""
    return some_fits(stages.workload.is_block, stages.count, stages.fits_emptiest)
