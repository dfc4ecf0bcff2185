"""Who owns the memory of a DeepSpeed engine: parameters, gradients, optimizer states, reduce buckets, and
what ZeRO's offload keeps in host memory.

Device and host are told apart by owner, not by where a tensor lies: where the accelerator is a processor,
both are the same memory. Files are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import wraps
from typing import Any

import torch

from vdsgen.profile.live_bytes import HOST, LiveBytes, storage_bytes, storage_key


def owners(engine: Any) -> dict[str, int]:
    """Bytes of the storages behind parameters, gradients, optimizer states and reduce buckets on the device,
    and of all that is offloaded to the host. Each storage counts once."""
    found: dict[str, int] = {}
    taken: set[int] = set()
    for name, tensors in (
        ("host", host_tensors(engine)),
        ("buckets", bucket_tensors(engine.optimizer)),
        ("parameters", parameter_tensors(engine)),
        ("optimizer", optimizer_tensors(engine)),
        ("gradients", gradient_tensors(engine)),
    ):
        own = [tensor for tensor in tensors if storage_key(tensor) not in taken]
        found[name] = storage_bytes(own)
        taken.update(storage_key(tensor) for tensor in own)
    return found


def parameter_tensors(engine: Any) -> Iterator[torch.Tensor]:
    for parameter in engine.module.parameters():
        if hasattr(parameter, "ds_tensor"):
            yield parameter.ds_tensor
            if parameter.ds_secondary_tensor is not None:  # ZeRO++'s second copy
                yield parameter.ds_secondary_tensor
            if parameter.ds_persist:
                yield parameter.data
        else:
            yield parameter.data


def gradient_tensors(engine: Any) -> Iterator[torch.Tensor]:
    for parameter in engine.module.parameters():
        yield from tensors_in((parameter.grad, getattr(parameter, "grad_accum", None)))
    for name in (
        "averaged_gradients",
        "all_grad_tensors",
        "grads_in_partition",
        "fp32_groups_gradients_flat",
        "grad_partitions_flat_buffer",
    ):
        yield from tensors_in(getattr(engine.optimizer, name, None))


def optimizer_tensors(engine: Any) -> Iterator[torch.Tensor]:
    """Master weights, where they are not the model's own parameters, and moments."""
    model = {id(parameter) for parameter in engine.module.parameters()}
    for parameter, state in engine.basic_optimizer.state.items():
        if id(parameter) not in model:
            yield parameter.data
        yield from tensors_in(state)


def bucket_tensors(optimizer: Any) -> Iterator[torch.Tensor]:
    """Reduce buckets, and the buffer through which gradients come back from the host."""
    for bucket in getattr(optimizer, "ipg_buckets", {}).values():
        yield from tensors_in(bucket.buffer)
    yield from tensors_in(getattr(optimizer, "temp_grad_buffer_for_gpu_offload", None))


def host_tensors(engine: Any) -> Iterator[torch.Tensor]:
    """What offload keeps in host memory; nothing without it.

    Stages 1 and 2 (zero/stage_1_and_2.py): master weights with their gradients and moments, a copy of the
    updated share in the model's dtype (:575), gradients between micro-batches (:1825), one gradient's
    buffer (:653). Stage 3 (zero/stage3.py): the same states (:1158, :1339), accumulated gradients (:791),
    and the share of the parameters where those are offloaded (:929).
    """
    optimizer = engine.optimizer
    if getattr(optimizer, "offload_optimizer", False) or getattr(optimizer, "cpu_offload", False):
        yield from optimizer_tensors(engine)
        for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
            for master in getattr(optimizer, name, ()):
                yield master.data
                yield from tensors_in(master.grad)
        for name in (
            "param_buffer_of_bit16_for_cpu_offload_groups",
            "temp_grad_buffer_for_cpu_offload",
            "accumulated_grads_in_cpu",
            "grad_partitions_flat_buffer",
        ):
            yield from tensors_in(getattr(optimizer, name, None))
    if getattr(optimizer, "offload_param", False):
        yield from tensors_in(optimizer.param_groups_fp16_flat_cpu_memory)
        for parameter in engine.module.parameters():
            yield parameter.ds_tensor


def own_offloaded_activations(engine: Any, books: LiveBytes) -> None:
    """From now on the memory that activations are offloaded to belongs to HOST."""
    offload = engine.module.offload
    if offload is None:
        return
    take = offload.buffers.take

    @wraps(take)
    def owned(*args: Any, **kwargs: Any) -> torch.Tensor:
        with books.owner(HOST):
            buffer: torch.Tensor = take(*args, **kwargs)
        return buffer

    offload.buffers.take = owned


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(value.values())
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from tensors_in(item)
