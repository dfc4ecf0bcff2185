"""What a change does to memory, time, price and to what a run sees: before, after, by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from vdsgen.review.absent import ABSENT
from vdsgen.review.effective import EffectiveConfig
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan, Stage, StageMemory, TimeSplit

COMPONENTS = tuple(name.removesuffix("_bytes") for name in StageMemory.model_fields if name != "peak_bytes")
"""Of a GPU's memory; the peak is the sum of those that are held at one time."""
PARTS = tuple(TimeSplit.model_fields)


class Pair(NamedTuple):
    """Before and after; None where a side does not have it."""

    old: float | None
    new: float | None

    @property
    def change(self) -> float | None:
        return None if self.old is None or self.new is None else self.new - self.old

    @property
    def is_known(self) -> bool:
        return self.old is not None or self.new is not None

    def as_json(self) -> dict[str, float | None]:
        return {"old": self.old, "new": self.new, "change": self.change}


@dataclass(frozen=True, slots=True)
class StageImpact:
    """One pipeline stage, by its number; None on the side that has fewer."""

    index: int
    old: Stage | None
    new: Stage | None

    def pair(self, name: str) -> Pair:
        """Of a component of memory, or `peak`."""
        return Pair(*(None if side is None else getattr(side.memory, f"{name}_bytes") for side in self.sides))

    def of_stage(self, name: str) -> Pair:
        """Of a field of the stage itself."""
        return Pair(*(None if side is None else getattr(side, name) for side in self.sides))

    @property
    def sides(self) -> tuple[Stage | None, Stage | None]:
        return self.old, self.new


@dataclass(frozen=True, slots=True)
class Impact:
    """Of two rendered directories."""

    stages: tuple[StageImpact, ...]
    parts: Mapping[str, Pair]
    """Seconds of a step by cause; empty where a plan does not say."""
    host_bytes_by_node: Pair
    """Of the node that keeps most outside its GPUs; None where neither side offloads."""
    price_per_hour: Pair
    price_per_1000_samples: Pair
    """In the lab's currency."""
    run: Mapping[str, Pair]
    """Steps, clips seen, passes over the clips and clips in the warm-up of the whole run."""


def impact_of(
    before: Plan,
    after: Plan,
    experiments: tuple[Experiment, Experiment],
    configs: tuple[EffectiveConfig, EffectiveConfig],
) -> Impact:
    """`before` and `after` hold the figures to compare."""
    plans = (before, after)
    splits = [plan.predicted.split for plan in plans]
    parts = {
        name: Pair(getattr(splits[0], name), getattr(splits[1], name)) for name in PARTS if None not in splits
    }
    hosts = [host_bytes(plan) for plan in plans]
    sides = zip(plans, experiments, configs, strict=True)
    runs = [dict(_run(plan, experiment, config)) for plan, experiment, config in sides]
    return Impact(
        stages=tuple(
            StageImpact(index, old, new)
            for index, (old, new) in enumerate(zip_longest(before.stages, after.stages))
        ),
        parts=parts,
        host_bytes_by_node=Pair(*hosts) if any(hosts) else Pair(None, None),
        price_per_hour=Pair(*(plan.predicted.price_per_hour for plan in plans)),
        price_per_1000_samples=Pair(*(_per_1000(plan) for plan in plans)),
        run={name: Pair(runs[0].get(name), runs[1].get(name)) for name in {**runs[0], **runs[1]}},
    )


def _per_1000(plan: Plan) -> float | None:
    if plan.predicted.price_per_hour is None:
        return None
    from vdsgen.planner.objective import cost_per_sample

    cost = cost_per_sample(plan)
    return None if cost is None else 1000 * cost


def _run(plan: Plan, experiment: Experiment, config: EffectiveConfig) -> Iterator[tuple[str, float]]:
    training, batch = experiment.training, plan.batch.global_batch_size
    yield "steps", training.steps
    yield "samples", training.steps * batch
    if experiment.data.clips is not None:
        yield "epochs", training.steps * batch / experiment.data.clips
    warmup = warmup_steps(config)
    if warmup:
        yield "warmup_samples", warmup * batch
    yield "run_seconds", training.steps * plan.predicted.step_seconds


def warmup_steps(config: EffectiveConfig) -> int | None:
    """Steps in which the learning rate rises; None: not known, or none."""
    for key in ("scheduler.params.warmup_num_steps", "vdsgen.schedule.warmup_steps"):
        found: Any = config.value(key)
        written = key in config.settings or config.value("scheduler.type") not in (ABSENT, None)
        if written and isinstance(found, int):
            return found
    return None


def host_bytes(plan: Plan) -> int:
    """What offload keeps in host memory of the node that keeps most."""
    ranks = plan.parallel.world_size // plan.parallel.pipeline_parallel_size
    held = [stage.host_bytes for stage in plan.stages for _ in range(ranks)]
    if plan.nodes:
        counts = [len(node.devices) for node in plan.nodes]
    else:
        counts = [plan.inputs.pool.gpus_per_node] * plan.inputs.pool.node_count
    most, first = 0, 0
    for count in counts:
        most = max(most, sum(held[first : first + count]))
        first += count
    return most


def as_json(impact: Impact) -> dict[str, Any]:
    """Bytes and seconds."""
    return {
        "memory": {
            "stages": [
                {
                    "index": stage.index,
                    "layers": {
                        side: None if found is None else list(found.layers)
                        for side, found in zip(("old", "new"), stage.sides, strict=True)
                    },
                    "components": {
                        f"{name}_bytes": stage.pair(name).as_json() for name in (*COMPONENTS, "peak")
                    },
                    "capacity_bytes": stage.of_stage("capacity_bytes").as_json(),
                    "host_bytes": stage.of_stage("host_bytes").as_json(),
                    "nvme_bytes": stage.of_stage("nvme_bytes").as_json(),
                }
                for stage in impact.stages
            ],
            "host_bytes_of_fullest_node": impact.host_bytes_by_node.as_json(),
        },
        "time": {name: pair.as_json() for name, pair in impact.parts.items()},
        "price_per_hour": impact.price_per_hour.as_json(),
        "price_per_1000_samples": impact.price_per_1000_samples.as_json(),
        "run": {name: pair.as_json() for name, pair in impact.run.items()},
    }
