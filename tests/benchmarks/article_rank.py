"""One rank of `tests.benchmarks.article_claims`: trains a small model with the real engine, timed or weighed.

Reads a job from standard input; prints its answer, JSON, as the last line.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from typing import Any

from deepspeed import comm as dist

from tests.cost.activation_worker import batches
from tests.cost.engine_worker import forget_groups, watch
from vdsgen.model.build import build_engine
from vdsgen.model.engine import TrainingEngine
from vdsgen.profile.live_bytes import LiveBytes
from vdsgen.spec.architecture import Geometry, Vdt


def main(job: dict[str, Any]) -> list[dict[str, Any]]:
    """One answer a case: the activations' peak, and the median seconds of a step."""
    model, geometry = Vdt(**job["model"]), Geometry(**job["geometry"])
    activations = [weigh(case, model, geometry) for case in job["cases"]] if job["weigh"] else []
    engines = [build_engine(case["config"], model, geometry, seed=0) for case in job["cases"]]
    seconds = timed(engines, job, model, geometry)
    answers = [{"step_seconds": figure} for figure in seconds]
    for answer, peak in zip(answers, activations, strict=False):
        answer["activations_bytes"] = peak
    return answers


def weigh(case: dict[str, Any], model: Vdt, geometry: Geometry) -> int:
    """Bytes of all tensors alive at the peak of a step, less states: what checkpointing is about."""
    tracker = LiveBytes()
    with tracker:
        training = build_engine(case["config"], model, geometry, seed=0)
        seen = watch(training.engine, tracker)
        data = batches(case, model, geometry)
        training.train_step(data)
        tracker.forget_peaks()
        with tracker.phase("compute"):
            training.train_step(data)
    states = seen["bytes"]
    peak = tracker.peak_of("compute") - states["parameters"] - states["gradients"] - states["optimizer"]
    training.engine.destroy()
    forget_groups()
    gc.collect()
    return int(peak)


def timed(engines: list[TrainingEngine], job: dict[str, Any], model: Vdt, geometry: Geometry) -> list[float]:
    """Median seconds of a step of each engine, the engines in turn, so that a machine's drift hits all."""
    data = [batches(case, model, geometry) for case in job["cases"]]
    samples: list[list[float]] = [[] for _ in engines]
    for turn in range(1 + job["rounds"]):
        for index, engine in enumerate(engines):
            dist.barrier()
            began = time.perf_counter()
            engine.train_step(data[index])
            dist.barrier()
            if turn:  # the first step of each allocates
                samples[index].append(time.perf_counter() - began)
    return [statistics.median(figures) for figures in samples]


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.stdin.read()))), flush=True)
