"""States of ZeRO-3, which shares out every parameter by itself.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime. Legend as in model_states.py.
"""

from __future__ import annotations

from vdsgen.cost import engine_defaults as defaults
from vdsgen.cost.host_memory import (
    MASTER_AND_MOMENTS,
    host_bytes_of_parameters,
    host_bytes_of_zero_3,
    nvme_bytes_of_optimizer,
    nvme_bytes_of_parameters,
)
from vdsgen.cost.reduction import momentary_bytes
from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.cost.state_bytes import ModelStates


def zero_3(sizes: StageSizes, settings: Settings) -> ModelStates:
    """Stage 3: DeepSpeedZeroOptimizer_Stage3; parameters too are shared, each rounded up to d by itself
    (zero/partition_parameters.py:1693).

    Small parameters stay whole besides (zero/parameter_offload.py:317). The accumulation buffer of the
    share is allocated once for all (zero/stage3.py:791), and so is the bucket (:782). An fp32 model has
    a master copy too (:1172). The step flattens the gradients of one sub-group of the share and casts
    them to fp32 (:2686). While computing: gathered parameters, what is gathered ahead as one flat message
    and again as parameters (zero/partition_parameters.py:795), and a flat copy of the bucket
    (runtime/comm/coalesced_collectives.py:122).

    With the optimizer on the host its states and the accumulated gradients are there; a gradient is fetched,
    added to (zero/stage3.py:2033), and cast for its norm (:1450). With parameters on the host, the device
    holds what is gathered, and a copy of the share of what is being gathered
    (zero/partition_parameters.py:1352).
    """
    d, w = settings.sequence_data_parallel_size, settings.element_bytes
    m = sizes.largest_parameter
    share = sum(-(-elements // d) * count for elements, count in sizes.counts)
    threshold = defaults.STAGE3_PARAM_PERSISTENCE_THRESHOLD
    whole = sum(elements * count for elements, count in sizes.counts if elements <= threshold)
    frozen = sizes.parameters - sizes.trainable_parameters
    a = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    bucket = settings.reduce_bucket_elements
    live = max(defaults.STAGE3_MAX_LIVE_PARAMETERS, defaults.STAGE3_MAX_REUSE_DISTANCE)
    ahead = defaults.STAGE3_PREFETCH_BUCKET_ELEMENTS
    gathered = min(sizes.parameters, live) + min(sizes.parameters, ahead)
    own = share + -(-frozen // d)
    # A sub-group closes after the parameter that fills it.
    stepped = min(share, defaults.STAGE3_SUB_GROUP_ELEMENTS + -(-sizes.straddling_elements // d))
    host = nvme = 0
    if settings.offload_parameters != "none":
        swapped = settings.offload_parameters == "nvme"
        host += host_bytes_of_parameters(own, stepped, w, swapped=swapped)
        nvme += nvme_bytes_of_parameters(own, w) if swapped else 0
        gathered += -(-min(sizes.parameters, ahead) // d)
        own = 0
    elif d == 1:  # the share is the parameter: nothing is gathered
        whole = gathered = 0
    # What is left in the bucket when backward is done; a larger gradient has gone by then, unless it is the
    # very last to come.
    reduce = momentary_bytes(settings, min(m, bucket), sizes.trainable_parameters)
    if settings.offload_optimizer != "none":
        swapped = settings.offload_optimizer == "nvme"
        host += host_bytes_of_zero_3(share, stepped, a, swapped=swapped)
        nvme += nvme_bytes_of_optimizer(share) if swapped else 0
        gradients = optimizer = step = 0
    else:
        gradients, optimizer = a * share, MASTER_AND_MOMENTS * share
        step = (a if a == 4 else a + 4) * stepped
    return ModelStates(
        parameters_bytes=w * (own + whole),
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        communication_bytes=w * (bucket + gathered),
        reduction_bytes=w * bucket + reduce,
        step_bytes=w * bucket + step,
        host_bytes=host,
        nvme_bytes=nvme,
    )
