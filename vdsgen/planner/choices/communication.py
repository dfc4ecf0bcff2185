"""How data-parallel ranks of a candidate may exchange gradients and parameters.

What the engine does with each setting, and where it does nothing or harm: docs/communication.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from vdsgen.cost.engine_defaults import STAGE3_PARAM_PERSISTENCE_THRESHOLD
from vdsgen.cost.settings import Settings
from vdsgen.planner.workload import Workload
from vdsgen.spec.compression import refusal
from vdsgen.spec.dtypes import Dtype

LEVELS = ("exact", "reduced", "quantized")


def communication_choices(workload: Workload, settings: Settings) -> tuple[Settings, ...]:
    """The settings as they are, then with ever fewer bytes to send; what is pinned is in all of them.

    Where pins ask for what the engine would ignore or corrupt, there is no candidate at all; where they ask
    for what the trainer refuses, a rule says so.
    """
    if settings.sequence_data_parallel_size == 1 and not _pinned(workload):
        return (settings,)
    found = [
        settings._replace(hierarchical_partition_size=ranks, **sent)  # type: ignore[arg-type]
        for ranks, sent in product(_partition_sizes(workload, settings), _ways_to_send(workload, settings))
    ]
    allowed = tuple(one for one in found if communication_refusal(workload, one) is None)
    return allowed or tuple(one for one in found if _trainer_refusal(one) is not None)


def communication_refusal(workload: Workload, settings: Settings) -> str | None:
    """Why the engine, or the trainer, would not send what these settings say; None where they do."""
    return (
        _trainer_refusal(settings)
        or _partition_refusal(workload, settings)
        or _quantizing_refusal(workload, settings)
        or _ranks_refusal(workload, settings)
    )


def _trainer_refusal(settings: Settings) -> str | None:
    return refusal(
        settings.gradient_compression,
        settings.zero_stage,
        optimizer_is_offloaded=settings.offload_optimizer != "none",
    )


def _ranks_refusal(workload: Workload, settings: Settings) -> str | None:
    zeropp = settings.zero_quantized_weights or settings.zero_quantized_gradients
    zeropp = zeropp or settings.hierarchical_partition_size > 1
    if zeropp and settings.tensor_parallel_size > 1:
        return "ZeRO++'s groups are neighbouring ranks (utils/groups.py:945), and neighbours share blocks"
    if (zeropp or settings.gradient_compression != "none") and workload.pool.groups is not None:
        return "what compressed communication takes is not known where nodes differ"
    return None


def _partition_refusal(workload: Workload, settings: Settings) -> str | None:
    ranks = settings.hierarchical_partition_size
    if ranks == 1:
        return None
    if settings.zero_stage != 3:
        return f"ZeRO++'s second copy of the parameters is ZeRO-3's; ZeRO-{settings.zero_stage} ignores it"
    together, per_node = settings.sequence_data_parallel_size, workload.pool.gpus_per_node
    if together % ranks or ranks > per_node:
        return f"a second copy over {ranks} ranks must divide {together} and lie within a node of {per_node}"
    return None


def _quantizing_refusal(workload: Workload, settings: Settings) -> str | None:
    if not (settings.zero_quantized_weights or settings.zero_quantized_gradients):
        return None
    if settings.zero_stage != 3:
        return f"ZeRO++ quantises at ZeRO-3; ZeRO-{settings.zero_stage} ignores it"
    if workload.ranks_share_host_memory:
        return "ZeRO++'s quantisation kernels are CUDA's (ops/csrc/quantization)"
    if settings.zero_quantized_weights and not _shares_are_whole_eights(workload, settings):
        return (
            "ZeRO++ quantises eight weights at a time, and some parameter's share is no multiple of eight "
            "(zero/partition_parameters.py:884)"
        )
    if not settings.zero_quantized_gradients:
        return None
    per_node = workload.pool.gpus_per_node
    if settings.dtype != "fp16" or settings.communication_dtype not in (None, "fp16"):
        return (
            "ZeRO++'s gradient kernel reads every gradient as fp16, whatever it is "
            "(ops/csrc/quantization/pt_binding.cpp:153)"
        )
    if settings.world_size <= per_node or settings.world_size % per_node:
        return "within one node ZeRO++ reduces gradients as they are (zero/stage3.py:1928)"
    return None


def _shares_are_whole_eights(workload: Workload, settings: Settings) -> bool:
    return all(
        -(-size // settings.sequence_data_parallel_size) % 8 == 0
        for layer in workload.profile.layer_types.values()
        for size in layer.parameter_sizes
        if size > STAGE3_PARAM_PERSISTENCE_THRESHOLD
    )


def _partition_sizes(workload: Workload, settings: Settings) -> tuple[int, ...]:
    """A second copy changes no number that is computed, so it needs no permission. It can win where gathers
    go between nodes, and over a whole node: over fewer GPUs it needs more memory for the same bytes between
    nodes."""
    pinned = workload.experiment.constraints.hierarchical_partition_size
    if pinned is not None:
        return (pinned,)
    per_node = workload.pool.gpus_per_node
    wins = settings.zero_stage == 3 and settings.world_size > per_node > 1
    return (1, per_node) if wins and settings.sequence_data_parallel_size % per_node == 0 else (1,)


def _ways_to_send(workload: Workload, settings: Settings) -> Iterator[dict[str, object]]:
    """From the most bytes to the fewest."""
    training, pins = workload.experiment.training, workload.experiment.constraints
    level = LEVELS.index(training.communication_precision)
    fixed = {
        "communication_dtype": pins.communication_dtype,
        "gradient_compression": pins.gradient_compression,
        "zero_quantized_weights": pins.zero_quantized_weights,
        "zero_quantized_gradients": pins.zero_quantized_gradients,
    }
    pinned = {name: value for name, value in fixed.items() if value is not None}
    ways: list[dict[str, object]] = [{}]
    half = _half(workload)
    if level >= LEVELS.index("reduced") and settings.dtype == "fp32" and half is not None:
        ways.append({"communication_dtype": half})
    if level >= LEVELS.index("quantized"):
        if settings.zero_stage <= 1:
            ways.append({"gradient_compression": "int8"})
        elif settings.zero_stage == 3:
            ways += [
                {"zero_quantized_weights": True},
                {"zero_quantized_weights": True, "zero_quantized_gradients": True},
            ]
    tried = []
    for way in ways:
        sent = {**way, **pinned}
        if sent.get("gradient_compression") == "int8":
            sent.pop("communication_dtype", None)  # they never travel in it
        if sent not in tried:
            tried.append(sent)
    yield from tried


def _half(workload: Workload) -> Dtype | None:
    """bf16, whose range is fp32's: fp16 gradients would need a loss scale."""
    return "bf16" if workload.has_rate("bf16") or workload.ranks_share_host_memory else None


def _pinned(workload: Workload) -> bool:
    pins = workload.experiment.constraints
    return bool(
        pins.zero_quantized_weights
        or pins.zero_quantized_gradients
        or pins.hierarchical_partition_size not in (None, 1)
    )
