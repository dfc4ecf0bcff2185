"""What an average of the weights (EMA) costs: model/ema.py keeps fp32 copies of the optimizer's fp32 weights.

Legend as in model_states.py.
"""

from __future__ import annotations

from vdsgen.cost.engine_optimizer import EngineOptimizer
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.cost.state_bytes import ModelStates

AVERAGE = 4
"""Bytes an averaged element: fp32, as the weight that is averaged."""
UPDATE_BYTES = 12
"""Of memory traffic an element: read weight and average, write the average."""


def with_average(
    states: ModelStates, sizes: StageSizes, settings: Settings, optimizer: EngineOptimizer
) -> ModelStates:
    """The states with the average beside them: on the device among the optimizer's states, or in host memory,
    where it also is if the weights that it averages are there.

    Ignored: 64 MiB at a time while the two change places, between steps, when no activations are held."""
    if settings.ema == "none":
        return states
    average = AVERAGE * averaged_elements(sizes, settings, optimizer)
    # BF16_Optimizer takes no notice of offload to NVMe (engine_optimizer.py).
    weights_on_host = settings.offload_optimizer != "none" and optimizer != "BF16_Optimizer"
    if settings.ema == "cpu" or weights_on_host:
        return states._replace(host_bytes=states.host_bytes + average)
    return states._replace(optimizer_bytes=states.optimizer_bytes + average)


def averaged_elements(sizes: StageSizes, settings: Settings, optimizer: EngineOptimizer) -> int:
    """fp32 weights that one rank's optimizer steps: all trainable ones, or its padded share
    (`flat_states.py`, `zero_3_states.py`)."""
    t, d = sizes.trainable_parameters, settings.sequence_data_parallel_size
    match optimizer:
        case "AdamW" | "FP16_UnfusedOptimizer":
            return t
        case "DeepSpeedZeroOptimizer_Stage3":
            return sum(-(-elements // d) * count for elements, count in sizes.counts)
        case _:
            return -(-t // (2 * d)) * 2
