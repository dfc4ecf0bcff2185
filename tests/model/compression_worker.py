"""One rank of the compression tests: exchanges tensors, and what `communication_worker` and the checkpoint
test's worker do with compressed gradients.

Reads {"exchanges": {...}, "checkpoint": {...}} from standard input; prints, as its last line, what it saw.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from deepspeed import comm as dist

from tests.model.checkpoint_worker import run_case
from tests.model.communication_worker import Sent
from vdsgen.model.compression import Errors, chunk_elements, exchange
from vdsgen.model.distributed import init_distributed
from vdsgen.spec.compression import BLOCK_ELEMENTS


def gradient(rank: int, elements: int, step: int) -> torch.Tensor:
    """Of one rank: large and small blocks, some of zeros."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    values = torch.randn(elements, generator=generator)
    sizes = torch.rand(-(-elements // BLOCK_ELEMENTS), generator=generator).pow(8)
    sizes[::5] = 0
    return values * sizes.repeat_interleave(BLOCK_ELEMENTS)[:elements]


def block_maxima(values: torch.Tensor, length: int) -> torch.Tensor:
    padded = torch.zeros(length)
    padded[: values.numel()] = values.abs()
    return padded.view(-1, BLOCK_ELEMENTS).amax(1)


def exchanged(elements: int, steps: int, sent: Sent) -> dict[str, Any]:
    """What exchanging lost, beside its bound, and what it sent."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    chunk = chunk_elements(elements, ranks)
    errors = Errors(torch.zeros(elements, dtype=torch.bfloat16), torch.zeros(chunk, dtype=torch.bfloat16))
    sent.take()
    exact_sum, found_sum = torch.zeros(elements), torch.zeros(elements)
    first: dict[str, Any] = {}
    for step in range(steps):
        mine = gradient(rank, elements, step)
        every = [gradient(other, elements, step) for other in range(ranks)]
        exact = torch.stack(every).mean(0)
        exchange(mine, errors, None)
        exact_sum += exact
        found_sum += mine
        if step == 0:
            # Half a step of each rank's codes, averaged, and half a step of the mean's.
            bound = sum(block_maxima(one, ranks * chunk) for one in every) / ranks / 254
            bound = bound + (block_maxima(exact, ranks * chunk) + bound) / 254
            lost = block_maxima(mine - exact, ranks * chunk)
            first = {
                "over_bound": float((lost - bound * (1 + 1e-5)).max()),
                "lost": float(lost.max()),
                "sent": sent.take(),
                "mean": mine.double().tolist()[:64],
            }
    # With feedback, what all steps lost together is what the last one left behind.
    drift = (found_sum - exact_sum).abs().max()
    return {**first, "drift": float(drift), "rounds": steps}


def overflowed(elements: int) -> dict[str, Any]:
    """A gradient that is not finite on one rank alone."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    found = {}
    for name, value in (("inf", float("inf")), ("nan", float("nan"))):
        errors = Errors(
            torch.ones(elements, dtype=torch.bfloat16),
            torch.ones(chunk_elements(elements, ranks), dtype=torch.bfloat16),
        )
        mine = torch.ones(elements)
        if rank == 0:
            mine[3] = value
        exchange(mine, errors, None)
        found[name] = {
            "finite": bool(mine.isfinite().all()),
            "errors": float(errors.sent.abs().sum() + errors.averaged.abs().sum()),
        }
    return found


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    init_distributed()
    sent = Sent()
    result = {
        "exchanged": [exchanged(elements, job["steps"], sent) for elements in job["elements"]],
        "overflowed": overflowed(1000),
        "checkpoint": run_case(job["checkpoint"], Path(job["folder"])),
    }
    print(flush=True)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
