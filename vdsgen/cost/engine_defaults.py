"""The engine settings that memory and time depend on and that nobody plans: one place that the cost
model reads and the renderer writes into `ds_config.json`, so that what is predicted is what runs.

Values that equal the engine's own default are written out all the same: a default that changes in a
later DeepSpeed must not change what a rendered plan does. Files and lines are of DeepSpeed 0.19.8, below
deepspeed/runtime; `docs/memory.md` holds the measurements behind the choices.
"""

from __future__ import annotations

OVERLAP_COMM = False
"""ZeRO 1-3. True holds a second reduce bucket (zero/stage_1_and_2.py:3273); a pipeline forces False
(engine.py:2665)."""
ROUND_ROBIN_GRADIENTS = False
"""ZeRO 1-2 (engine default). Reorders parameters; saves no memory."""
REDUCE_SCATTER = True
"""ZeRO 1-3 (engine default)."""
BF16_IMMEDIATE_GRADIENT_UPDATE = True
"""BF16_Optimizer: each gradient goes into the accumulation buffer as soon as it is there, and is freed.
The engine's default, False, keeps every bf16 gradient until the step: 2 bytes a parameter more
(bf16_optimizer.py:707-715)."""

STAGE3_MAX_LIVE_PARAMETERS = 100_000_000
"""Elements of gathered parameters held at once; bounds what is gathered ahead (the engine's default is
1e9: 2 GB in half precision, which is more than the models planned here weigh)."""
STAGE3_MAX_REUSE_DISTANCE = 100_000_000
"""Elements. A parameter used again within this distance is not released: a block recomputed in backward
is gathered once for both."""
STAGE3_PREFETCH_BUCKET_ELEMENTS = 50_000_000
"""Elements gathered in one message ahead of their use (engine default)."""
STAGE3_PARAM_PERSISTENCE_THRESHOLD = 100_000
"""Parameters with at most this many elements are never released (engine default)."""
STAGE3_SUB_GROUP_ELEMENTS = 100_000_000
"""Elements that one call of the optimizer updates. Its fp32 gradients live for one sub-group at a time
(zero/stage3.py, step): 0.4 GB, where the engine's default of 1e9 keeps 4 bytes for every parameter."""

OFFLOAD_PIN_MEMORY = True
"""Host buffers of offload are page-locked (engine default), so that copies run beside computation."""
NVME_OPTIMIZER_BUFFERS = 4
"""ZeRO-3: buffers for swapping the optimizer's states; Adam needs as many for a sub-group: master weight,
gradient and two moments (engine default, zero/offload_config.py)."""
NVME_PARAMETER_BUFFERS = 5
"""ZeRO-3: buffers for swapping parameters (engine default)."""
NVME_PARAMETER_BUFFER_ELEMENTS = 100_000_000
"""Elements of each (engine default); no share of one parameter may be larger."""
NVME_MAX_PARAMETERS_IN_HOST = 1_000_000_000
"""ZeRO-3: elements of the share that stay in host memory although parameters go to NVMe (engine
default)."""

ALLREDUCE_BUCKET_ELEMENTS = 500_000_000
"""Without ZeRO, gradients are copied into buffers of this size for their all-reduce, even on one rank
(MEMORY_OPT_ALLREDUCE_SIZE, engine.py; allreduce_no_retain, engine.py:3828); no setting changes it."""


def contiguous_gradients(zero_stage: int) -> bool:
    """Whether reduced gradients go through one preallocated bucket.

    Stage 1 reduces once a step, after every backward. The bucket would be held from the first backward on,
    a second one beside it in a pipeline (zero/stage_1_and_2.py:963-968), and the own gradients copied once
    more (:2192); without it each group of gradients is flattened when its turn comes. Stage 2 with
    fp32 accumulation frees half precision gradients during backward only where this is set (:2262-2271).
    """
    return zero_stage >= 2
