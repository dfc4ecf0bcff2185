"""Who owns the memory of a DeepSpeed engine: parameters, gradients, optimizer states, reduce buckets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from vdsgen.profile.live_bytes import storage_bytes, storage_key


def owners(engine: Any) -> dict[str, int]:
    """Bytes of the storages behind parameters, gradients, optimizer states and reduce buckets."""
    buckets = list(bucket_tensors(engine.optimizer))
    in_buckets = {storage_key(tensor) for tensor in buckets}
    gradients = [tensor for tensor in gradient_tensors(engine) if storage_key(tensor) not in in_buckets]
    return {
        "parameters": storage_bytes(parameter_tensors(engine)),
        "gradients": storage_bytes(gradients),
        "optimizer": storage_bytes(optimizer_tensors(engine)),
        "buckets": storage_bytes(buckets),
    }


def parameter_tensors(engine: Any) -> Iterator[torch.Tensor]:
    for parameter in engine.module.parameters():
        if hasattr(parameter, "ds_tensor"):
            yield parameter.ds_tensor
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
    for bucket in getattr(optimizer, "ipg_buckets", {}).values():
        yield from tensors_in(bucket.buffer)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(value.values())
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from tensors_in(item)
