"""What this machine's GPU reaches, beside the catalogue: python -m tests.benchmarks.gpu_rates

Medians of 20 calls after 4, each waited for: an upper bound of what single calls take. Products are of
8192 x 8192 matrices of random numbers, traffic is read plus written, attentions are batch x heads x length x
head size in bf16.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Call = Callable[[], object]
EDGE, ELEMENTS, MESSAGE_BYTES = 8192, 256 * 2**20, 2**28
PRODUCT_TERA = 2 * EDGE**3 / 1e12
GIGA, TERA = 1e9, 1e12
ATTENTIONS = ((64, 20, 256, 64), (1024, 20, 16, 64), (4, 12, 4096, 128))
DEVICE = "cuda"


def median_seconds(call: Call) -> float:
    for _ in range(4):
        call()
    seconds = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def product(dtype: torch.dtype) -> Call:
    left, right = (torch.randn(EDGE, EDGE, device=DEVICE).to(dtype) for _ in range(2))
    return lambda: left @ right.t()


def fp8_product() -> Call:
    left, right = (torch.randn(EDGE, EDGE, device=DEVICE).to(torch.float8_e4m3fn) for _ in range(2))
    rows, columns = torch.ones(EDGE, 1, device=DEVICE), torch.ones(1, EDGE, device=DEVICE)
    scales: dict[str, Any] = {"scale_a": rows, "scale_b": columns, "use_fast_accum": False}
    return lambda: torch._scaled_mm(left, right.t(), out_dtype=torch.bfloat16, **scales)


def int8_product() -> Call:
    left, right = (torch.randint(-127, 127, (EDGE, EDGE), dtype=torch.int8, device=DEVICE) for _ in range(2))
    return lambda: torch._int_mm(left, right.t())


def attention(batch: int, heads: int, length: int, size: int) -> tuple[Call, Call]:
    shape = (batch, heads, length, size)
    q, k, v = (torch.randn(shape, device=DEVICE, dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    out = F.scaled_dot_product_attention(q, k, v)
    gradient = torch.randn_like(out)

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True)

    return lambda: F.scaled_dot_product_attention(q, k, v), backward


def traffic() -> dict[str, float]:
    left, right, out = (torch.ones(ELEMENTS, device=DEVICE) for _ in range(3))
    copied = median_seconds(lambda: out.copy_(left))
    added = median_seconds(lambda: torch.add(left, right, out=out))
    return {"copy GB/s": 8 * ELEMENTS / GIGA / copied, "addition GB/s": 12 * ELEMENTS / GIGA / added}


def rates() -> dict[str, float]:
    """By name, with the unit."""
    found = {
        f"product {name} TFLOP/s": PRODUCT_TERA / median_seconds(product(dtype))
        for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32))
    }
    found["product fp8 TFLOP/s"] = PRODUCT_TERA / median_seconds(fp8_product())
    found["product int8 TOP/s"] = PRODUCT_TERA / median_seconds(int8_product())
    found |= traffic()
    for shape in ATTENTIONS:
        batch, heads, length, size = shape
        forward, backward = map(median_seconds, attention(*shape))
        flops = 4 * batch * heads * length**2 * size / TERA
        name = " x ".join(map(str, shape))
        found[f"attention {name} forward TFLOP/s"] = flops / forward
        found[f"attention {name} backward TFLOP/s"] = 2.5 * flops / backward
    host = torch.empty(MESSAGE_BYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(MESSAGE_BYTES, dtype=torch.uint8, device=DEVICE)
    up, down = (
        median_seconds(lambda: there.copy_(host, non_blocking=True)),
        median_seconds(lambda: host.copy_(there, non_blocking=True)),
    )
    found["host to device GB/s"] = MESSAGE_BYTES / GIGA / up
    found["device to host GB/s"] = MESSAGE_BYTES / GIGA / down
    return found


if __name__ == "__main__":
    print(json.dumps({name: round(rate, 1) for name, rate in rates().items()}, indent=1))
