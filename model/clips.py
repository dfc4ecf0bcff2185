"""The clips of a run: looked for by one rank, known to all."""

from __future__ import annotations

import torch
from deepspeed import comm as dist

from vdsgen.model.agreement import known_to_all
from vdsgen.model.configuration import Configuration
from vdsgen.model.console import say_first
from vdsgen.model.data.buckets import bucket_lines, size_order
from vdsgen.model.data.index import Index, report, scan
from vdsgen.model.data.order import Share, SizeOrder
from vdsgen.model.engine import TrainingEngine
from vdsgen.spec.data import Data


def shared_index(data: Data) -> Index:
    """What rank 0 finds in the folder. Collective: a folder is searched once, and all ranks agree on it.

    Raises VdsgenError on every rank where the folder holds nothing usable.
    """

    def search() -> Index:
        index = scan(data)
        report(index, data)
        return index

    return known_to_all(search)


def share_of(configuration: Configuration, engine: TrainingEngine) -> Share:
    """This rank's part of every global batch."""
    return Share(
        data_parallel_rank=engine.data_parallel_rank,
        data_parallel_size=engine.data_parallel_size,
        micro_batch_size=configuration.micro_batch_size,
        gradient_accumulation_steps=configuration.gradient_accumulation_steps,
        size_units_a_step=configuration.size_units_a_step,
    )


def order_of(configuration: Configuration, index: Index) -> SizeOrder:
    """Which size each step or micro-batch takes, the same on every rank; rank 0 says how often each comes."""
    experiment, units = configuration.rendered.experiment, configuration.size_units_a_step
    order = size_order(index, experiment.data, experiment.training.seed, units)
    samples = configuration.global_batch_size // order.units_a_step
    for line in bucket_lines(index, experiment.data, order, samples):
        say_first(line)
    return order


def gather_counts(values: list[int], device: torch.device) -> list[list[int]]:
    """Every rank's `values`, rank by rank. Collective."""
    mine = torch.tensor(values, dtype=torch.int64, device=device)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, mine)
    return [[int(value) for value in row] for row in rows]
