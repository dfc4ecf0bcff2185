"""Time where clips come in several sizes: each step takes one, each size as often as the others.

So a run's seconds a step are the mean over the sizes, and its samples a second are a step's clips over that
mean: every step has as many clips, whatever their size (model/data/order.py, `SizeOrder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from vdsgen.cost.communication import Path
from vdsgen.cost.schedule import StageTimes
from vdsgen.cost.settings import Settings
from vdsgen.cost.step import StepTimeModel
from vdsgen.cost.step_tail import StageTail
from vdsgen.cost.step_time import StepTime

Figures = TypeVar("Figures")
"""A number, or a tuple of such."""


class MeanStepTimeModel:
    """What StepTimeModel says of one size, as means over several."""

    def __init__(self, models: Sequence[StepTimeModel]) -> None:
        assert models, "the time of samples of no size"
        self.models = models

    def layer_seconds(self, settings: Settings, stage: int = 0) -> tuple[float, ...]:
        return mean([model.layer_seconds(settings, stage) for model in self.models])

    def forward_seconds(self, settings: Settings, stage: int = 0) -> tuple[float, ...]:
        return mean([model.forward_seconds(settings, stage) for model in self.models])

    def boundary_seconds(self, settings: Settings, stage: int) -> tuple[float, ...]:
        return mean([model.boundary_seconds(settings, stage) for model in self.models])

    def instruction_seconds(self, settings: Settings) -> float:
        return self.models[0].instruction_seconds(settings)

    def stage_tail(self, settings: Settings, stage: int, start: int, stop: int) -> StageTail:
        """The same for every size."""
        return self.models[0].stage_tail(settings, stage, start, stop)

    def common_seconds(self, tails: Sequence[StageTail]) -> float:
        return self.models[0].common_seconds(tails)

    @property
    def shares_cores(self) -> bool:
        return self.models[0].shares_cores

    def step_lower_bound(self, settings: Settings, reduced_seconds: float, common_seconds: float) -> float:
        """For mean times: what they bound is the mean of steps."""
        return self.models[0].step_lower_bound(settings, reduced_seconds, common_seconds)

    def data_paths(self, settings: Settings, stage: int) -> tuple[Path, ...]:
        return self.models[0].data_paths(settings, stage)

    def finished_seconds(self, settings: Settings, step_seconds: float) -> float:
        """Of a step as long as the mean; the mean of finished steps is no less."""
        return self.models[0].finished_seconds(settings, step_seconds)

    def step_seconds(
        self, settings: Settings, partition: Sequence[int], tails: Sequence[StageTail] | None = None
    ) -> float:
        return mean([model.step_seconds(settings, partition, tails) for model in self.models])

    def stage_times(self, settings: Settings, partition: Sequence[int]) -> list[StageTimes]:
        return list(mean([tuple(model.stage_times(settings, partition)) for model in self.models]))

    def lower_bound_seconds(self, settings: Settings, partition: Sequence[int]) -> float:
        return mean([model.lower_bound_seconds(settings, partition) for model in self.models])

    def step(self, settings: Settings, partition: Sequence[int]) -> StepTime:
        """Its parts add up to its `step_seconds`, which is the mean of theirs."""
        return mean([model.step(settings, partition) for model in self.models])


def mean(values: Sequence[Figures]) -> Figures:
    """Number by number; what is equal stays exactly as it is."""
    first = values[0]
    if not isinstance(first, tuple):
        if all(value == first for value in values):
            return first
        return cast(Figures, sum(cast(Sequence[float], values)) / len(values))
    means = [mean(each) for each in zip(*cast(Sequence[tuple[float, ...]], values), strict=True)]
    return cast(Figures, type(first)(*means) if hasattr(first, "_fields") else tuple(means))
