"""The optimizer goes by what its configuration says, also after a checkpoint was loaded into it.

Loading a checkpoint brings what the optimizer that wrote it went by: betas, epsilon, weight decay and rate
in its parameter groups (engine.py:4696, `_restore_base_optimizer_state` of zero/stage_1_and_2.py), how far
ZeRO-1 and 2 clip (:3675), and how the loss scale moves (:3668, fp16/unfused_optimizer.py:381). What a config
says anew would never be heard of. The engine's schedulers keep the rate of the step before until they step
again (lr_schedules.py:779). Files are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vdsgen.model.learning_rate import InverseSqrt
from vdsgen.model.masters import base_optimizer
from vdsgen.model.universal.states import SCALER

GROUP_STATES = ("params", "step")
"""Of a parameter group, what training changes."""
NO_CLIPPING = 0.0


class SettingsInForce(NamedTuple):
    """What an engine's optimizer goes by."""

    groups: Sequence[Mapping[str, Any]]
    """Of each parameter group."""
    clip_norm: float
    scaler: Any
    """The loss scaler; None where there is none."""


def settings_in_force(engine: Any) -> SettingsInForce:
    """To be asked before a checkpoint is loaded."""
    return SettingsInForce(
        [
            {key: value for key, value in group.items() if key not in GROUP_STATES}
            for group in base_optimizer(engine).param_groups
        ],
        getattr(engine.optimizer, "clip_grad", NO_CLIPPING),
        copy.copy(getattr(engine.optimizer, _scaler_name(engine.optimizer), None)),
    )


def put_in_force(engine: Any, settings: SettingsInForce) -> None:
    """`settings`, with the rate that the engine's scheduler gives to the step that comes next."""
    for group, own in zip(base_optimizer(engine).param_groups, settings.groups, strict=True):
        group.update(own)
    if hasattr(engine.optimizer, "clip_grad"):
        engine.optimizer.clip_grad = settings.clip_norm
    if settings.scaler is not None:
        name = _scaler_name(engine.optimizer)
        setattr(engine.optimizer, name, _going_on(getattr(engine.optimizer, name), settings.scaler))
    _follow_schedule(engine.lr_scheduler)


def _scaler_name(optimizer: Any) -> str:
    """Where ZeRO keeps its scaler, or the fp16 optimizer without ZeRO."""
    return "loss_scaler" if hasattr(optimizer, "loss_scaler") else "loss_scale_config"


def _going_on(loaded: Any, own: Any) -> Any:
    """A scaler as configured, at the scale that was loaded unless one of both is fixed."""
    going_on = copy.copy(own)
    if _is_dynamic(loaded) and _is_dynamic(own):
        vars(going_on).update({key: vars(loaded)[key] for key in SCALER if key in vars(loaded)})
    return going_on


def _is_dynamic(scaler: Any) -> bool:
    return bool(getattr(scaler, "dynamic", False) or getattr(scaler, "dynamic_loss_scale", False))


def _follow_schedule(scheduler: Any) -> None:
    if isinstance(scheduler, InverseSqrt):
        scheduler.load_state_dict(scheduler.state_dict())
    elif scheduler is not None and scheduler.last_batch_iteration >= 0:
        scheduler.step(scheduler.last_batch_iteration)
