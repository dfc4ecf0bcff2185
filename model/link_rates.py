"""What the links between neighbouring ranks carry right now: a small job of its own, seconds long.

    python -m vdsgen.model.link_rates NODES... [--seconds N]      (as every rank; torch's variables say which)

NODES: how many ranks each node has, in the order of the ranks. Pairs of neighbours inside the nodes send to
each other, all pairs at once as far as no rank is in two of them; then the first ranks of neighbouring nodes;
then all ranks reduce together. Every rank prints, as its last line, the JSON list of what it measured as the
first of its pairs. Over NCCL between accelerators, over gloo between processors.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from vdsgen.model.launcher import end_with_launcher

TRIAL_BYTES = 2**20
MOST_BYTES = 2**26
ROUND_SECONDS = 0.03
"""What one message should take: long against its latency, short for whoever waits."""
ROUNDS = 7
WAIT_SECONDS = 60


class Pair(NamedTuple):
    """Two ranks that send to each other."""

    kind: str
    """`intra_node` or `inter_node`, as the lab file calls links."""
    first: int
    second: int


def rounds_of_pairs(ranks_of_nodes: Sequence[int]) -> Iterator[list[Pair]]:
    """Every pair once, in rounds in which no rank is in two pairs, each round of one kind."""
    ends = list(accumulate(ranks_of_nodes))
    starts = [end - count for end, count in zip(ends, ranks_of_nodes, strict=True)]
    inside = [
        (rank - start, Pair("intra_node", rank, rank + 1))
        for start, end in zip(starts, ends, strict=True)
        for rank in range(start, end - 1)
    ]
    nodes = len(starts)
    between = [(node, Pair("inter_node", starts[node], starts[node + 1])) for node in range(nodes - 1)]
    for numbered in (inside, between):
        for parity in (0, 1):
            if chosen := [pair for place, pair in numbered if place % 2 == parity]:
                yield chosen
    if nodes > 2:
        # The ring closes.
        yield [Pair("inter_node", starts[-1], starts[0])]


def measure(rank: int, ranks_of_nodes: Sequence[int], device: torch.device) -> list[dict[str, Any]]:
    """As JSON objects: what this rank measured as the first of its pairs, and for rank 0 the reduction."""
    found: list[dict[str, Any]] = []
    for pairs in rounds_of_pairs(ranks_of_nodes):
        mine = next((pair for pair in pairs if rank in (pair.first, pair.second)), None)
        rate = _exchange_rate(rank, mine, device)
        if mine is not None and rank == mine.first:
            found.append({**mine._asdict(), "bytes_per_second": rate})
    if (size := sum(ranks_of_nodes)) > 1:
        rate = _reduction_rate(size, device)
        if rank == 0:
            found.append({"kind": "all_reduce", "first": 0, "second": size - 1, "bytes_per_second": rate})
    return found


def _exchange_rate(rank: int, mine: Pair | None, device: torch.device) -> float:
    """Bytes a second in each direction, both at once. All ranks call it; those without a pair wait."""
    if mine is None:
        _together(0.0, device)
        return 0.0
    other = mine.second if rank == mine.first else mine.first

    def exchange(buffers: tuple[torch.Tensor, torch.Tensor]) -> None:
        requests = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, buffers[0], other), dist.P2POp(dist.irecv, buffers[1], other)]
        )
        for request in requests:
            request.wait()

    def buffers(size_bytes: int) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(torch.zeros(size_bytes, dtype=torch.uint8, device=device) for _ in range(2))  # type: ignore[return-value]

    trial = buffers(TRIAL_BYTES)
    exchange(trial)
    seconds = _together(_seconds(lambda: exchange(trial), device), device)
    size_bytes = _size(seconds)
    payload = buffers(size_bytes)
    exchange(payload)
    return size_bytes / statistics.median(_seconds(lambda: exchange(payload), device) for _ in range(ROUNDS))


def _reduction_rate(ranks: int, device: torch.device) -> float:
    """What one link of a ring would carry, bytes a second: as the lab file's calibration counts."""

    def reduce(payload: torch.Tensor) -> Callable[[], None]:
        return lambda: dist.all_reduce(payload)

    trial = torch.zeros(TRIAL_BYTES // 4, device=device)
    dist.all_reduce(trial)
    seconds = _together(_seconds(reduce(trial), device), device)
    payload = torch.zeros(_size(seconds) // 4, device=device)
    dist.all_reduce(payload)
    median = statistics.median(_seconds(reduce(payload), device) for _ in range(ROUNDS))
    return 2 * (ranks - 1) / ranks * payload.nbytes / median


def _size(trial_seconds: float) -> int:
    """Of a message that takes about `ROUND_SECONDS`, in whole KiB."""
    wanted = TRIAL_BYTES * ROUND_SECONDS / max(trial_seconds, 1e-9)
    return int(min(MOST_BYTES, max(TRIAL_BYTES, wanted))) // 1024 * 1024


def _together(seconds: float, device: torch.device) -> float:
    """The longest of all ranks', so that all choose the same size."""
    longest = torch.tensor([seconds], dtype=torch.float32, device=device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    return float(longest.item())


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    _finish(device)
    began = time.perf_counter()
    call()
    _finish(device)
    return time.perf_counter() - began


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="vdsgen.model.link_rates")
    parser.add_argument("nodes", nargs="+", type=int)
    parser.add_argument("--seconds", type=int, default=WAIT_SECONDS, help="for ranks to find each other")
    asked = parser.parse_args(arguments)
    end_with_launcher(os.environ)
    on_cpu = os.environ.get("DS_ACCELERATOR") == "cpu" or not torch.cuda.is_available()
    device = torch.device("cpu" if on_cpu else f"cuda:{os.environ['LOCAL_RANK']}")
    if not on_cpu:
        torch.cuda.set_device(device)
    dist.init_process_group("gloo" if on_cpu else "nccl", timeout=timedelta(seconds=asked.seconds))
    print(json.dumps(measure(dist.get_rank(), asked.nodes, device)), flush=True)
    dist.barrier()
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # At once: taking an interpreter full of torch apart takes a second.
    os._exit(code)
