"""Curves of a run that grows: what was worked out of earlier steps stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vdsgen.runs.reader import RunData
from vdsgen.runs.records import Step
from vdsgen.runs.smooth import Smoother, half_life_of

VALUES: dict[str, Callable[[Step], float | None]] = {
    "loss": lambda step: step.loss,
    "gradient_norm": lambda step: step.grad_norm,
    "learning_rate": lambda step: step.learning_rate,
    "loss_scale": lambda step: step.loss_scale,
    "samples_per_second": lambda step: step.samples_per_second,
}
"""Of every step."""
SMOOTHED = ("loss", "gradient_norm", "samples_per_second")
CURVES = ("loss", "held_out_loss", "gradient_norm", "learning_rate", "loss_scale", "samples_per_second")
"""In the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A number over steps; gaps are None."""

    name: str
    steps: Sequence[int]
    values: Sequence[float | None]
    smooth: Sequence[float | None] = ()
    """As many, where the curve has a smoothed one; else empty."""

    @property
    def last(self) -> float | None:
        """The last one that is a number."""
        return next((value for value in reversed(self.values) if value is not None), None)

    @property
    def last_smooth(self) -> float | None:
        return next((value for value in reversed(self.smooth) if value is not None), None)


class Curves:
    """Costs as much as there are new steps. A smoothed curve's half-life follows the run's length, in
    doublings: then it is smoothed anew."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._values: dict[str, list[float | None]] = {}
        self._smooth: dict[str, list[float | None]] = {}
        self._smoothers: dict[str, Smoother] = {}
        self._half_life = 0.0
        self._forget()

    def _forget(self) -> None:
        self._steps = []
        self._values = {name: [] for name in VALUES}
        self._half_life = 0.0

    def look(self, data: RunData) -> dict[str, Curve]:
        """By name, in the order of CURVES, those that there are."""
        known = len(self._steps)
        if known > len(data.steps) or (known and data.steps[known - 1].step != self._steps[-1]):
            self._forget()
        self._add(data.steps[len(self._steps) :])
        found = self._of_steps()
        held_out = held_out_weights(data)
        lines = [line for line in data.held_out if line.weights == held_out]
        if lines:
            steps = tuple(line.step for line in lines)
            found["held_out_loss"] = Curve("held_out_loss", steps, tuple(line.loss for line in lines))
        return {name: found[name] for name in CURVES if name in found}

    def _add(self, new: Sequence[Step]) -> None:
        self._steps += [step.step for step in new]
        for name, value_of in VALUES.items():
            self._values[name] += map(value_of, new)
        count = len(self._steps)
        half_life = half_life_of(1 << (count.bit_length() - 1)) if count else 0.0
        anew = half_life != self._half_life
        if anew:
            self._half_life = half_life
            self._smoothers = {name: Smoother(half_life) for name in SMOOTHED}
            self._smooth = {name: [] for name in SMOOTHED}
        for name in SMOOTHED:
            values, smooth = self._values[name], self._smooth.get(name, [])
            smooth += map(self._smoothers[name], values[len(smooth) :]) if values else []

    def _of_steps(self) -> dict[str, Curve]:
        """Copies: what is drawn does not change under the pen."""
        if not self._steps:
            return {}
        steps = tuple(self._steps)
        return {
            name: Curve(name, steps, tuple(values), tuple(self._smooth.get(name, ())))
            for name, values in self._values.items()
            if name != "loss_scale" or any(value not in (1.0, None) for value in values)
        }


def held_out_weights(data: RunData) -> str | None:
    """The kind of weights whose held-out loss is shown: the average's, where there is one."""
    kinds = {line.weights for line in data.held_out}
    return "ema" if "ema" in kinds else next(iter(kinds), None)
