"""Where optimizer states, parameters and activations of a candidate may be kept.

What the engine supports: optimizer states in host memory from ZeRO-1 on (runtime/engine.py:2688, 2772), and
parameters at ZeRO-3 (:2773); on NVMe at ZeRO-3 alone, since ZeRO-1 and 2 take NVMe for host memory
(zero/stage_1_and_2.py:220). Activations go wherever checkpointing keeps some.

Moving something never makes a step faster, but lets something else fit: no checkpointing, a larger
micro-batch, less ZeRO. The search's bounds leave out what moves more in vain.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple, TypeVar

from vdsgen.cost.engine_optimizer import engine_optimizer
from vdsgen.cost.settings import Settings
from vdsgen.errors import Problem
from vdsgen.planner.workload import Workload
from vdsgen.spec.plan import Offload

PLACES: tuple[Offload, ...] = ("none", "cpu", "nvme")
"""Ever further from the GPU."""
Choice = tuple[Settings, tuple[int, ...]]
"""Settings, with interval 0, and the checkpoint intervals to try with them."""


class Moved(NamedTuple):
    """What a candidate keeps outside its GPUs: places in PLACES, and whether activations go."""

    optimizer: int
    parameters: int
    activations: bool


def offload_choices(workload: Workload, settings: Settings, intervals: tuple[int, ...]) -> Iterator[Choice]:
    """The settings as they are, then with ever more kept outside the GPU."""
    if not _is_runnable(workload, settings):
        yield settings, intervals  # rules say why not
        return
    for moved in _ladder(workload, settings):
        # What checkpointing keeps is all of the activations that can go.
        tried = tuple([interval for interval in intervals if interval > 0 or not moved.activations])
        if tried:
            yield (
                settings._replace(
                    offload_optimizer=PLACES[moved.optimizer],
                    offload_parameters=PLACES[moved.parameters],
                    offload_activations=moved.activations,
                ),
                tried,
            )


def _ladder(workload: Workload, settings: Settings) -> list[Moved]:
    """What may be moved, less first. Parameters are the smaller part, and the one that is always needed:
    unless they are pinned, they go no further than the optimizer's states."""
    pins = workload.experiment.constraints
    optimizers = _allowed(pins.offload_optimizer, _optimizer_places(workload, settings.zero_stage), workload)
    parameters = _allowed(pins.offload_parameters, _parameter_places(workload, settings.zero_stage), workload)
    activations = _allowed(pins.offload_activations, (False, True), workload)
    return [
        Moved(PLACES.index(optimizer), PLACES.index(parameter), activation)
        for optimizer, parameter, activation in product(optimizers, parameters, activations)
        if pins.offload_parameters is not None or PLACES.index(parameter) <= PLACES.index(optimizer)
    ]


T = TypeVar("T")


def _allowed(pin: T | None, legal: tuple[T, ...], workload: Workload) -> tuple[T, ...]:
    """A pin alone, where it is legal. Where ranks are processes on processors, host memory is what they have
    already: nothing is moved but what is asked for."""
    if pin is not None:
        return (pin,) if pin in legal else ()
    return legal[:1] if workload.ranks_share_host_memory else legal


def _optimizer_places(workload: Workload, zero_stage: int) -> tuple[Offload, ...]:
    if workload.experiment.training.optimizer.state_dtype == "int8":
        return PLACES[:1]
    if zero_stage == 3:
        return _parameter_places(workload, zero_stage)
    return PLACES[:2] if zero_stage > 0 else PLACES[:1]


def _parameter_places(workload: Workload, zero_stage: int) -> tuple[Offload, ...]:
    if zero_stage < 3:
        return PLACES[:1]
    return PLACES if workload.pool.nvme else PLACES[:2]


def _is_runnable(workload: Workload, settings: Settings) -> bool:
    try:
        engine_optimizer(settings)
    except ValueError:
        return False
    return workload.has_rate(settings.dtype)


def offload_problems(workload: Workload) -> list[Problem]:
    """Pins on offload that nothing can follow, whatever else is searched."""
    pins = workload.experiment.constraints
    stages = range(4) if pins.zero_stage is None else (pins.zero_stage,)
    if pins.zero_stage is None and (pins.pipeline_parallel_size or 1) > 1:
        stages = range(2)
    shown = "ZeRO-" + " and ".join(map(str, stages)) if len(stages) < 3 else "every ZeRO stage"
    found = []
    for key, places, needs in (
        ("offload_optimizer", _optimizer_places, "ZeRO-1 or more, fp32 moments, nvme ZeRO-3 and `nvme`"),
        ("offload_parameters", _parameter_places, "ZeRO-3, and nvme `nvme` in the pool"),
    ):
        pin = getattr(pins, key)
        if pin is not None and not any(pin in places(workload, stage) for stage in stages):
            message = f"{key} is {pin}, which needs {needs}; to choose from is {shown}"
            found.append(Problem(message, key=f"constraints.{key}", remedy="leave out one of these pins"))
    if pins.offload_activations and pins.activation_checkpoint_interval == 0:
        message = (
            "offload_activations moves what checkpointing keeps, and activation_checkpoint_interval is 0"
        )
        found.append(
            Problem(message, key="constraints.offload_activations", remedy="leave out one of these pins")
        )
    return found
