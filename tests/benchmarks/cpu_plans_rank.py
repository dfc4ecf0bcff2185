"""One rank of `cpu_plans`: trains every rendered plan for a few steps.

python -m tests.benchmarks.cpu_plans_rank STEPS PLANS OUT.json

The environment is a launcher's (RANK, WORLD_SIZE, ...). PLANS is a folder of rendered directories.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from vdsgen.model.data.loader import batches_for
from vdsgen.model.data.samples import MicroBatch
from vdsgen.model.data.waiting import Waiting

WARM_UP_STEPS = 1


class Kept:
    """The first step's micro-batches again and again: predictions are for steps that never wait for clips."""

    def __init__(self, micro_batches: list[MicroBatch]) -> None:
        self.waiting = Waiting()
        self._again = itertools.cycle(micro_batches)

    def __iter__(self) -> Kept:
        return self

    def __next__(self) -> MicroBatch:
        return next(self._again)


def main(steps: int, plans: Path, out: Path) -> None:
    from deepspeed import comm as dist

    from vdsgen.model.distributed import init_distributed

    init_distributed()
    # In the order of their names, which begin with the number of stages: the engine leaves something behind
    # after a pipeline that an engine without one stumbles over.
    directories = sorted(plans.iterdir())
    results = {}
    for directory in directories:
        results[directory.name] = train(directory, out.parent / "run", steps)
        gc.collect()
    if dist.get_rank() == 0:
        out.write_text(json.dumps(results))


def train(directory: Path, run: Path, steps: int) -> list[dict[str, float]]:
    """Seconds of each step after the first: the slowest rank's, and processor time of all ranks."""
    from deepspeed import comm as dist
    from deepspeed.accelerator import get_accelerator

    from vdsgen.model.build import build_engine
    from vdsgen.model.clips import gather_counts, order_of, share_of, shared_index
    from vdsgen.model.configuration import read_configuration
    from vdsgen.model.memory import PeakMemory
    from vdsgen.model.monitoring.monitor import RunMonitor
    from vdsgen.model.sources import open_source
    from vdsgen.model.train import one_step

    configuration = read_configuration(["--plan-dir", str(directory), "--output", str(run)], os.environ)
    experiment = configuration.rendered.experiment
    index = shared_index(experiment.data)
    engine = build_engine(
        configuration.rendered.ds_config, configuration.model, configuration.geometry, seed=0
    )
    batches: Any = None
    if configuration.rendered.layout.reads_clips(dist.get_rank()):
        source = open_source(experiment, index, get_accelerator().current_device_name())
        share = share_of(configuration, engine)
        with batches_for(source, share, start_step=0, stop_step=1) as loaded:
            batches = Kept(list(loaded))
    memory, order = PeakMemory(), order_of(configuration, index)
    monitor = RunMonitor(configuration, engine, first_step=0)
    memory.training_begins()
    found = []
    for step in range(1, WARM_UP_STEPS + steps + 1):
        before = time.process_time()
        metrics = one_step(configuration, engine, batches, memory, monitor, order, step)
        spent = gather_counts([round((time.process_time() - before) * 1e6)], engine.device)
        if step > WARM_UP_STEPS:
            found.append(
                {
                    "step": metrics.step_seconds,
                    "processor": sum(row[0] for row in spent) / 1e6,
                }
            )
    return found


if __name__ == "__main__":
    steps, plans, out = sys.argv[1:]
    main(int(steps), Path(plans), Path(out))
    sys.stdout.flush()
    os._exit(0)  # taking an interpreter full of torch apart takes seconds
