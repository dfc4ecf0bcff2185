"""What ranks exchange: collectives and messages among all of them at once, and a GPU with its host."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from vdsgen.profile.calibrate_samples import Device, Samples, sample
from vdsgen.profile.calibrate_shapes import HOST_BYTES, LARGE_BYTES, SMALL_BYTES

ROUNDS = 15


def link_samples(rank: int, ranks: int, device: Device) -> Samples:
    """Seconds of each exchange at two sizes, by `all_reduce large` and so on. All ranks call it.

    Every rank makes the same calls in the same order, so rounds and calls are counted, not timed.
    """
    calls: dict[str, Callable[[], object]] = {}
    for size, size_bytes in (("large", LARGE_BYTES), ("small", SMALL_BYTES)):
        elements = max(1, size_bytes // 4 // ranks) * ranks
        for name, call in _collectives(torch.zeros(elements, device=device.name), ranks).items():
            calls[f"{name} {size}"] = call
        calls[f"send {size}"] = _ring(rank, ranks, torch.zeros(size_bytes // 4, device=device.name))
    alike = device._replace(clock=time.perf_counter, least_seconds=0.0)
    return sample(calls, 0.0, alike, least_rounds=ROUNDS)


def _collectives(whole: torch.Tensor, ranks: int) -> dict[str, Callable[[], object]]:
    share = torch.zeros(whole.numel() // ranks, device=whole.device)
    # torch 2.13 renamed the two, and warns of the old names.
    gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
    scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)
    return {
        "all_reduce": lambda: dist.all_reduce(whole),
        "all_gather": lambda: gather(whole, share),
        "reduce_scatter": lambda: scatter(share, whole),
    }


def _ring(rank: int, ranks: int, payload: torch.Tensor) -> Callable[[], object]:
    """Every rank sends to the next and receives from the one before."""
    landing = torch.empty_like(payload)

    def exchange() -> None:
        requests = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, payload, (rank + 1) % ranks),
                dist.P2POp(dist.irecv, landing, (rank - 1) % ranks),
            ]
        )
        for request in requests:
            request.wait()

    return exchange


def host_samples(device: Device) -> Samples:
    """Seconds of copies between a GPU and pinned host memory, both ways, and within host memory."""
    pinned = torch.empty(HOST_BYTES, dtype=torch.uint8, pin_memory=True)
    other = torch.empty(HOST_BYTES, dtype=torch.uint8)
    there = torch.empty(HOST_BYTES, dtype=torch.uint8, device=device.name)
    calls: dict[str, Callable[[], object]] = {
        "host up": lambda: there.copy_(pinned, non_blocking=True),
        "host down": lambda: pinned.copy_(there, non_blocking=True),
        "host memory": lambda: other.copy_(pinned),
    }
    return sample(calls, 1.0, device)
