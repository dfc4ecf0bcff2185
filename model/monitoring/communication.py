"""Which of a step's seconds go into messages between ranks: DeepSpeed's own calls, timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepspeed.comm.comm
import torch
from torch import Tensor

from vdsgen.model.monitoring.clock import WAITS, StageClock, processes_in

UNTIMED = "_untimed"
OPERATIONS = {
    "send": WAITS,
    "recv": WAITS,
    "broadcast": WAITS,
    "barrier": WAITS,
    "all_reduce": "reduce",
    "all_reduce_coalesced": "reduce",
    "inference_all_reduce": "reduce",
    "reduce": "reduce",
    "reduce_scatter": "reduce",
    "reduce_scatter_tensor": "reduce",
    "all_to_all": "reduce",
    "all_to_all_single": "reduce",
    "all_gather": "gather",
    "all_gather_into_tensor": "gather",
    "all_gather_coalesced": "gather",
}
"""Methods of DeepSpeed's backend (comm/torch.py) -> the activity they are. Those between ranks of several
stages are waits in any case: the rank whose stage is done first waits there for the others, which is the
bubble's end (the optimizer's norm over all stages, the loss that the last stage tells)."""


def watch_communication(clock: StageClock, stage_of: Callable[[int], int]) -> None:
    """Times every collective and message that goes through DeepSpeed on this rank. A second call replaces the
    first. `stage_of`: the pipeline stage of a rank.

    What is started without waiting counts where it is waited for. Collectives of torch's own are not seen.
    """
    backend = deepspeed.comm.comm.cdb
    crossing: dict[Any, bool] = {}

    def crosses_stages(group: Any) -> bool:
        if group not in crossing:
            crossing[group] = len({stage_of(rank) for rank in processes_in(group)}) > 1
        return crossing[group]

    for name, activity in OPERATIONS.items():
        function = getattr(backend, name, None)
        if function is not None:
            # Whatever stands there now stays below, but for an earlier call's timing.
            untimed = getattr(function, UNTIMED, function)
            timed = _timed(clock, name, activity, untimed, crosses_stages)
            setattr(timed, UNTIMED, untimed)
            setattr(backend, name, timed)


def _timed(
    clock: StageClock,
    name: str,
    activity: str,
    function: Callable[..., Any],
    crosses_stages: Callable[[Any], bool],
) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        if not clock.running:
            return function(*args, **kwargs)
        values = (*args, *kwargs.values())
        group = kwargs.get("group") or next((value for value in args if _is_group(value)), None)
        waits = activity == WAITS or crosses_stages(group)
        kind = (name, next((value.nbytes for value in values if isinstance(value, Tensor)), 0), group)
        spent_on = WAITS if waits else activity
        with clock.during(spent_on, kind):
            result = function(*args, **kwargs)
        # Of a call that was not to be waited for.
        return _TimedWork(result, clock, spent_on, kind) if hasattr(result, "wait") else result

    return timed


def _is_group(value: Any) -> bool:
    return isinstance(value, torch.distributed.ProcessGroup)


class _TimedWork:
    """A handle whose wait is timed; in all else the handle itself."""

    def __init__(self, work: Any, clock: StageClock, activity: str, kind: Any) -> None:
        self._work, self._clock, self._activity, self._kind = work, clock, activity, (*kind, "wait")

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        with self._clock.during(self._activity, self._kind):
            return self._work.wait(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)
