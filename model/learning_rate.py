"""Learning rates over steps that DeepSpeed has no scheduler for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from vdsgen.spec.optimization import Schedule


def inverse_sqrt(step: int, schedule: Schedule) -> float:
    """Of the rate, what step k = 1, 2, ... runs at: min(1, k / W) sqrt(min(1, D / k)), with W `warmup_steps`
    and D `decay_from_step`. Where D is W that is the Transformer's min(k / W, sqrt(W / k)) (arXiv
    1706.03762, equation 3); D alone is EDM2's (arXiv 2312.02696).
    """
    decay_from = schedule.decay_from_step or schedule.warmup_steps
    rise = min(1.0, step / schedule.warmup_steps) if schedule.warmup_steps else 1.0
    return rise * math.sqrt(min(1.0, decay_from / step))


class InverseSqrt:
    """`inverse_sqrt` of each group's rate, called as the engine calls its schedulers
    (runtime/engine.py:3543): `step` after every optimizer step that was taken, and not after an overflow."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
        self.optimizer, self.schedule = optimizer, schedule
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.steps_taken = 0
        self._set_rates()

    def step(self) -> None:
        self.steps_taken += 1
        self._set_rates()

    def get_last_lr(self) -> list[float]:
        fraction = inverse_sqrt(self.steps_taken + 1, self.schedule)
        return [rate * fraction for rate in self.rates]

    def state_dict(self) -> dict[str, int]:
        return {"steps_taken": self.steps_taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps_taken = int(state["steps_taken"])
        self._set_rates()

    def _set_rates(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.get_last_lr(), strict=True):
            group["lr"] = rate


def scheduler_for(schedule: Schedule | None) -> Callable[[torch.optim.Optimizer], InverseSqrt] | None:
    """What `deepspeed.initialize` takes as `lr_scheduler`; None leaves it to the config's own `scheduler`."""
    return None if schedule is None else lambda optimizer: InverseSqrt(optimizer, schedule)
