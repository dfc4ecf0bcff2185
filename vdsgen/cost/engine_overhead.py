"""What the engine's own Python costs the host: on a processor it runs in turn with the layers, on a GPU while
those are computed.

Only measured figures. Without a calibration nothing of it is counted.
"""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.engine_defaults import STAGE3_PARAM_PERSISTENCE_THRESHOLD
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.lab import Pool
from vdsgen.spec.profile import LayerType

MICROSECONDS = 1e-6


class EngineOverhead(NamedTuple):
    """Seconds, by ZeRO stage where it matters."""

    micro_batch_seconds: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    """A parameter tensor in each micro-batch."""
    step_seconds: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    """A parameter tensor in each step."""
    gather_seconds: float = 0.0
    """A parameter tensor that ZeRO-3 gathers, in each micro-batch, beside the collective."""
    pipeline_seconds: float = 0.0
    """A pipeline's stage in each micro-batch."""

    @classmethod
    def of(cls, pool: Pool) -> EngineOverhead:
        """Of a pool's calibration; nothing where it has no such figures."""
        calibration = pool.calibration
        if not isinstance(calibration, Calibration):
            return cls()
        micro_batch, step = [0.0] * 4, [0.0] * 4
        for rate in calibration.engine_rates:
            micro_batch[rate.zero_stage] = middle(rate.micro_batch_microseconds) * MICROSECONDS
            step[rate.zero_stage] = middle(rate.step_microseconds) * MICROSECONDS
        return cls(
            tuple(micro_batch),
            tuple(step),
            middle(calibration.gather_microseconds or 0.0) * MICROSECONDS,
            middle(calibration.pipeline_microseconds or 0.0) * MICROSECONDS,
        )

    def layer_seconds(self, zero_stage: int, layer: LayerType) -> float:
        """One micro-batch through one layer."""
        seconds = self.micro_batch_seconds[zero_stage] * len(layer.parameter_shapes)
        if zero_stage == 3:
            seconds += self.gather_seconds * len(gathered_sizes(layer))
        return seconds


def gathered_sizes(layer: LayerType) -> list[int]:
    """Elements of the parameters that ZeRO-3 releases and gathers again; smaller ones it keeps
    (`stage3_param_persistence_threshold`)."""
    return [size for size in layer.parameter_sizes if size > STAGE3_PARAM_PERSISTENCE_THRESHOLD]
