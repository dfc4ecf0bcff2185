"""Whether what checkpointing keeps is packed into a byte an element (model/activation_compression.py).

That changes gradients, so it needs permission (`training.activation_precision`) or a pin. Packing takes time,
and may be faster than recomputing more, or than a smaller micro-batch, where memory is short.
"""

from __future__ import annotations

from collections.abc import Iterator

from vdsgen.cost.settings import Settings
from vdsgen.errors import Problem
from vdsgen.planner.choices.offload import Choice
from vdsgen.planner.workload import Workload


def packing_choices(workload: Workload, settings: Settings, intervals: tuple[int, ...]) -> Iterator[Choice]:
    """The settings as they are, then with packed activations."""
    pinned = workload.experiment.constraints.activation_compression
    permitted = workload.experiment.training.activation_precision
    if pinned in (None, "none"):
        yield settings, intervals
    wanted = pinned or ("none" if permitted == "exact" else permitted)
    if wanted == "none" or settings.offload_activations:
        return
    # Asked for, something is packed; permitted, what need not be recomputed is not.
    tried = tuple([interval for interval in intervals if interval > 0 or pinned is None])
    if any(tried) and workload.knows_packed(settings.dtype):
        yield settings._replace(activation_compression=wanted), tried


def packing_problems(workload: Workload) -> list[Problem]:
    """Pins on packing that nothing can follow."""
    pins = workload.experiment.constraints
    if pins.activation_compression in (None, "none"):
        return []
    what = f"activation_compression is {pins.activation_compression}, which packs what checkpointing keeps"
    refused = ""
    if pins.activation_checkpoint_interval == 0:
        refused = f"{what}; activation_checkpoint_interval is 0"
    elif pins.offload_activations:
        refused = f"{what} on the GPU; offload_activations is true"
    elif not workload.knows_packed("bf16"):
        refused = f"{what}; the profile of {workload.profile.model} has no trace of it"
    if not refused:
        return []
    return [Problem(refused, key="constraints.activation_compression", remedy="leave out one of these pins")]
