"""How long training waits for clips, from video files and from the cache, on this disk and on a slow one.

    python -m tests.benchmarks.data_wait [--steps N] [--step-seconds S] [--slow-mb-per-second R]
    [--both-loaders]

The demo's clips at the demo's size, in micro-batches of 4. A step is S seconds of matrix products between two
micro-batches. The slow disk is this one with a pause after each read, in whatever process or thread reads.
Prints, for each case, medians over the steps after the first five, and what the closing summary of a run
would say.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import torch

from tests.benchmarks.slow_disk import SlowSource
from tests.clips import real_clips
from tests.model.cache.made import cached_source
from vdsgen.model.data import reading
from vdsgen.model.data.index import scan
from vdsgen.model.data.loader import Source, batches_for
from vdsgen.model.data.order import Share
from vdsgen.model.data.samples import source_for
from vdsgen.model.waiting_report import waiting_figures, waiting_lines
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.data import Data, LatentCache
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.training import Training

WARM_UP_STEPS = 5
MODEL = Vdt(
    in_channels=192, patch_size=1, hidden_size=192, depth=8, heads=4, mlp_hidden_size=768, condition="class",
    classes=16,
)  # fmt: skip


def experiment(folder: Path, cache: Path | None, **data: Any) -> Experiment:
    spec = Data(
        videos=str(folder), frames=8, height=64, width=64, workers=1,
        cache=None if cache is None else LatentCache(folder=str(cache), windows_per_clip=16), **data,
    )  # fmt: skip
    return Experiment(name="demo", model=MODEL, data=spec, training=Training(global_batch_size=4, steps=1))


def source(of: Experiment) -> Source:
    return source_for(of, scan(of.data)) if of.data.cache is None else cached_source(of)


def compute(seconds: float) -> None:
    """Keeps a core busy, as a step does; torch leaves the interpreter to other threads meanwhile."""
    a = torch.ones(384, 384)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        a @ a


def measure(of: Source, steps: int, step_seconds: float) -> tuple[list[float], dict[str, Any]]:
    """Seconds waited in each step, and what a run's metrics would say of them."""
    metrics, waits = [], []
    with batches_for(of, Share(0, 1, 4, 1)) as batches:
        for step in range(WARM_UP_STEPS + steps):
            before = batches.waiting.copy()
            next(batches)
            compute(step_seconds)
            waited = batches.waiting.since(before)
            if step >= WARM_UP_STEPS:
                waits.append(waited.seconds)
                metrics.append({"data_wait": waited.waits(), "loader": waited.loader()})
    return waits, waiting_figures(metrics)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--step-seconds", type=float, default=0.3)
    parser.add_argument("--slow-mb-per-second", type=float, default=2.0)
    parser.add_argument("--both-loaders", action="store_true", help="processes and threads, for each source")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        clips = real_clips()
        sources = {
            "videos, decoded each time": source(experiment(clips, None, decoded_cache_mib=0)),
            "videos, kept decoded": source(experiment(clips, None)),
            "cache": source(experiment(clips, Path(scratch) / "cache")),
        }
        for name, of in sources.items():
            for threads in (False, True) if options.both_loaders else (of.loads_in_threads,):
                for slow in (False, True):
                    chosen: Any = dataclasses.replace(cast(Any, of), loads_in_threads=threads)
                    if slow:
                        chosen = SlowSource(chosen, options.slow_mb_per_second * 1e6)
                    waits, figures = measure(chosen, options.steps, options.step_seconds)
                    reading.delay_reads(None)
                    step = options.step_seconds + statistics.mean(waits)
                    disk = f"disk of {options.slow_mb_per_second:g} MB/s" if slow else "this disk"
                    print(f"{name}; {'threads' if threads else 'processes'}; {disk}")
                    print(
                        f"  waited {statistics.median(waits) * 1e3:.2f} ms a step in the median, "
                        f"{statistics.median(waits) / (options.step_seconds + statistics.median(waits)):.2%}"
                    )
                    fraction = statistics.mean(waits) / step
                    for line in waiting_lines(fraction, figures, cached=name == "cache"):
                        print(f"  {line}")


if __name__ == "__main__":
    main()
