"""What one rank computes while others are busy too: products, attention, memory, AdamW, one real block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional as F

from vdsgen.catalog.load import models
from vdsgen.model.pipeline import layer_specs
from vdsgen.profile.calibrate_samples import Device, Samples, sample
from vdsgen.profile.calibrate_shapes import (
    BATCHES,
    BUNDLED_MODEL,
    CLIP,
    SPECK,
    Sizes,
    attention_shapes,
    product_shapes,
)
from vdsgen.profile.trace import empty_inputs
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.dtypes import Dtype

DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SLOW_FACTOR = 10.0
"""Processors without matrix units for a format emulate it: a hundred times slower. Only the rate of a large
product is measured of a format that is this many times slower than fp32."""


def large_product_samples(dtypes: list[Dtype], device: Device, sizes: Sizes) -> Samples:
    """Seconds of the large product, by dtype."""
    calls = {f"large {name}": _product(sizes.large_product, DTYPES[name], device.name) for name in dtypes}
    samples: Samples = {}
    for name, call in calls.items():  # one after another: a slow one must not starve the others
        samples |= sample({name: call}, 0.4, device, least_rounds=2)
    return samples


def rate_samples(dtypes: list[Dtype], device: Device, sizes: Sizes, budget_seconds: float) -> Samples:
    """Seconds of everything else, by `product fp32 512 192 192`, `attention fp32 64 48 forward` and so on."""
    calls: dict[str, Callable[[], object]] = {}
    where = device.name
    for dtype in dtypes:
        for shape in product_shapes(sizes):
            calls[f"product {dtype} {' '.join(map(str, shape))}"] = _product(shape, DTYPES[dtype], where)
        for sequences, length, head_size in attention_shapes(sizes):
            calls |= _attention(dtype, sequences, length, head_size, where)
        tokens = sizes.clip.frames * sizes.clip.patches
        for batch in sizes.batches:
            calls |= _block(f"block {dtype} {batch * tokens}", sizes.model, batch, sizes.clip, dtype, where)
    calls |= _block("speck", BUNDLED_MODEL, 1, SPECK, "fp32", where)
    calls["stream"] = _stream(sizes.stream_elements, where)
    calls["adamw"] = _adamw(sizes.adamw_parameters, where)
    return sample(calls, budget_seconds, device)


def block_samples(name: str, device: Device, budget_seconds: float) -> Samples:
    """The block under this name, to compare one rank alone, or more ranks than cores, with a rank a core."""
    calls = dict(_block(name, BUNDLED_MODEL, BATCHES[0], CLIP, "fp32", device.name))
    return sample(calls, budget_seconds, device)


def _product(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> Callable[[], object]:
    rows, columns, depth = shape
    left = torch.randn(rows, depth, device=device).to(dtype)
    right = torch.randn(columns, depth, device=device).to(dtype)
    return lambda: torch.mm(left, right.T)


def _attention(
    dtype: Dtype, sequences: int, length: int, head_size: int, device: str
) -> Iterator[tuple[str, Callable[[], object]]]:
    shape = (sequences, 1, length, head_size)
    q, k, v = (torch.randn(shape, device=device).to(DTYPES[dtype]).requires_grad_() for _ in range(3))
    gradient = torch.randn(shape, device=device).to(DTYPES[dtype])
    out = F.scaled_dot_product_attention(q, k, v)

    def backward() -> object:
        return torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True)

    name = f"attention {dtype} {sequences} {length} {head_size}"
    yield f"{name} forward", lambda: F.scaled_dot_product_attention(q, k, v)
    yield f"{name} backward", backward


def _block(
    name: str, bundled: str, batch: int, geometry: Geometry, dtype: Dtype, device: str
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Forward, and forward with backward: the graph of a backward cannot run twice as training runs it."""
    model: Vdt = models()[bundled].sizes
    layer = layer_specs(model, geometry, seed=0)[1].build().to(device=device, dtype=DTYPES[dtype])
    shapes = [tensor.shape for tensor in empty_inputs(model, batch, geometry, "block", torch.float32)]
    inputs = tuple(torch.randn(shape, device=device).to(DTYPES[dtype]).requires_grad_() for shape in shapes)
    gradient = torch.randn(shapes[0], device=device).to(DTYPES[dtype])

    def both() -> None:
        outputs: Any = layer(inputs)
        outputs[0].backward(gradient)
        for parameter in layer.parameters():
            parameter.grad = None

    yield f"{name} forward", lambda: layer(inputs)
    yield f"{name} both", both


def _stream(elements: int, device: str) -> Callable[[], object]:
    """An out-of-place addition, too large for the caches: reads two tensors, writes one."""
    left, right = torch.ones(elements, device=device), torch.ones(elements, device=device)
    out = torch.empty(elements, device=device)
    return lambda: torch.add(left, right, out=out)


def _adamw(parameters: int, device: str) -> Callable[[], object]:
    """The step that training takes (render/engine_config.py, optimizer_section)."""
    parameter = torch.zeros(parameters, device=device, requires_grad=True)
    parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer = torch.optim.AdamW([parameter], lr=1e-4, fused=True)
    return optimizer.step


def dtypes_here(on_gpu: bool) -> list[Dtype]:
    """Formats that training may use on this kind of device."""
    if not on_gpu:
        return ["fp32", "bf16"]
    return ["fp32", "fp16", "bf16"] if torch.cuda.is_bf16_supported() else ["fp32", "fp16"]


def quick_dtypes(large: Samples) -> list[Dtype]:
    """Those whose large product is not slower than fp32's by SLOW_FACTOR."""
    limit = SLOW_FACTOR * min(large["large fp32"])
    return [name for name in DTYPES if f"large {name}" in large and min(large[f"large {name}"]) < limit]
