"""Finding, over all ranks, the layer where values first stopped being finite."""

from __future__ import annotations

import torch
from deepspeed import comm as dist

from vdsgen.model.monitoring.alarms import Place
from vdsgen.model.monitoring.layers import Finding, LayerWatch

NONE = (-1, -1, -1, -1)


def first_finding(watch: LayerWatch, device: torch.device) -> Finding | None:
    """The earliest of all ranks'. Collective."""
    own = watch.first_not_finite()
    values = NONE if own is None else (own.micro_batch, own.phase, own.place, own.layer)
    mine = torch.tensor(values, dtype=torch.int64, device=device)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, mine)
    found = [
        Finding(int(row[0]), int(row[1]), int(row[2]), int(row[3]), rank)
        for rank, row in enumerate(rows)
        if int(row[0]) >= 0
    ]
    return min(found, default=None)


def words(finding: Finding, place: Place | None) -> str:
    """What happened, as the end of a sentence."""
    micro_batch = f"micro-batch {finding.micro_batch}"
    if finding.what == "input":
        return f"the clips of {micro_batch} are not finite already (rank {finding.rank})"
    if finding.what == "loss":
        return f"first in the gradient of the loss itself, {micro_batch}, rank {finding.rank}"
    return f"first in the {finding.what} of {place}, {micro_batch}"
