"""The optimizer goes by what its configuration says, also after a checkpoint was loaded into it.

Loading a checkpoint brings the parameter groups of the optimizer that wrote it, and with them its betas,
epsilon, weight decay and rate (engine.py:4696, `_restore_base_optimizer_state` of zero/stage_1_and_2.py);
what a config says anew would never be heard of. The engine's schedulers keep the rate of the step before
until they step again (lr_schedules.py:779). Files are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vdsgen.model.learning_rate import InverseSqrt
from vdsgen.model.masters import base_optimizer

STATES = ("params", "step")
"""Of a parameter group, what training changes."""


def settings_in_force(engine: Any) -> list[dict[str, Any]]:
    """What the engine's optimizer goes by, a mapping for each parameter group."""
    return [
        {key: value for key, value in group.items() if key not in STATES}
        for group in base_optimizer(engine).param_groups
    ]


def put_in_force(engine: Any, settings: Sequence[Mapping[str, Any]]) -> None:
    """`settings`, with the rate that the engine's scheduler gives to the step that comes next."""
    for group, own in zip(base_optimizer(engine).param_groups, settings, strict=True):
        group.update(own)
    scheduler = engine.lr_scheduler
    if scheduler is None:
        return
    if isinstance(scheduler, InverseSqrt):
        scheduler.load_state_dict(scheduler.state_dict())
    elif scheduler.last_batch_iteration >= 0:
        scheduler.step(scheduler.last_batch_iteration)
