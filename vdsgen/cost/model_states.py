"""Parameters, gradients and optimizer states, as DeepSpeed's own optimizers allocate them.

Which optimizer the engine wraps around torch's AdamW depends on precision, ZeRO stage and pipeline
(runtime/engine.py:2294-2325, 2555-2609, 2633-2795; `engine_optimizer.py`); each has one function, by what
ranks share out in `whole_states.py`, `flat_states.py` or `zero_3_states.py`. Files and lines are of DeepSpeed
0.19.8, below deepspeed/runtime. The settings assumed are those of `engine_defaults.py`.

Legend: n parameters of the stage, t trainable ones, w bytes of the model's element, a bytes of the
accumulation's, d data-parallel size, P = ceil(t / d) elements of one rank's share, R reduce bucket
elements, m elements of the largest parameter.

Not modelled: the few bytes of step counters, losses and norms, and what construction holds for a moment
(flat copies of the parameters), which is less than what the first step needs.
"""

from __future__ import annotations

from vdsgen.cost.averages import with_average
from vdsgen.cost.communication_memory import with_communication
from vdsgen.cost.engine_optimizer import EngineOptimizer, engine_optimizer
from vdsgen.cost.flat_states import bf16_optimizer, zero_1, zero_1_and_2_offloaded, zero_2
from vdsgen.cost.quantized_moments import with_moments
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.cost.state_bytes import ModelStates
from vdsgen.cost.whole_states import torch_adamw, unfused_optimizer
from vdsgen.cost.zero_3_states import zero_3


def model_states(sizes: StageSizes, settings: Settings) -> ModelStates:
    """The states of one stage. Raises ValueError for combinations that the engine refuses."""
    optimizer = engine_optimizer(settings)
    states = with_moments(_states(sizes, settings, optimizer), sizes, settings, optimizer)
    states = with_communication(states, sizes, settings, optimizer)
    return with_average(states, sizes, settings, optimizer)


def _states(sizes: StageSizes, settings: Settings, optimizer: EngineOptimizer) -> ModelStates:
    match optimizer:
        case "AdamW":
            return torch_adamw(sizes)
        case "FP16_UnfusedOptimizer":
            return unfused_optimizer(sizes)
        case "BF16_Optimizer":
            return bf16_optimizer(sizes, settings)
        case "DeepSpeedZeroOptimizer":
            if settings.offload_optimizer != "none":
                return zero_1_and_2_offloaded(sizes, settings)
            return zero_1(sizes, settings) if settings.zero_stage == 1 else zero_2(sizes, settings)
        case "DeepSpeedZeroOptimizer_Stage3":
            return zero_3(sizes, settings)
